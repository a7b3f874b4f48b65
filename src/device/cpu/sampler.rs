//! Drawing a token: temperature, softmax, top-k, nucleus, draw (paper, section 4).
//!
//! Every device must draw the same token from the same logits, so the arithmetic here is exact, not approximate:
//!
//! - The unnormalised probability of a level is `exp((logit − largest) · (1 / temperature))` in f32, every operation
//!   rounded on its own (no fused multiply-add), then floored to a multiple of 2⁻³¹: an integer weight. Sums of integers
//!   have one value, whatever the order they are added in.
//! - Levels are ranked by their logits, the lower level first at a tie. Top-k keeps the first k of them; the nucleus
//!   keeps the shortest prefix whose weight *exceeds* `top_p` of what top-k left, so the level that crosses it is in.
//! - The draw is a 32-bit word of keyed randomness, scaled to the kept weight, looked up in the order of the levels.
//!
//! A level whose probability is below 2⁻³¹ of the most probable one's has weight 0 and is never drawn.

use crate::device::Sampler;

/// Most levels a model can have.
const MAX_LEVEL: usize = 256;
/// One, as a weight.
const UNIT: f32 = (1u32 << 31) as f32;

/// The token drawn from `logits` (one per level, at most 256) with a `word` of keyed randomness; none if a logit is not
/// finite. `sampler` has passed [`Sampler::check`].
pub fn draw(logits: &[f32], sampler: &Sampler, word: u32) -> Option<u8> {
    if !logits.iter().all(|logit| logit.is_finite()) {
        return None;
    }
    if sampler.greedy {
        return Some(most_probable(logits));
    }
    let mut weights = [0; MAX_LEVEL];
    let weights = &mut weights[..logits.len()];
    keep(logits, sampler, weights);
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    // word / 2³² of the total, rounded down: below the total, because word < 2³².
    let target = share(total, u64::from(word));
    let mut sum = 0;
    let level = weights.iter().position(|&weight| {
        sum += u64::from(weight);
        sum > target
    });
    Some(level.expect("the target is below the total") as u8)
}

/// The lowest of the most probable levels.
fn most_probable(logits: &[f32]) -> u8 {
    let mut best = 0;
    for (level, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = level;
        }
    }
    best as u8
}

/// The weights of the levels that top-k and the nucleus keep; 0 for the others.
fn keep(logits: &[f32], sampler: &Sampler, weights: &mut [u32]) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = 1.0 / sampler.temperature;
    for (weight, &logit) in weights.iter_mut().zip(logits) {
        *weight = (exp_negative((logit - largest) * scale) * UNIT) as u32;
    }
    let top_k = if sampler.top_k == 0 { logits.len() } else { logits.len().min(sampler.top_k as usize) };
    if top_k == logits.len() && sampler.top_p >= 1.0 {
        return;
    }

    let mut ranked = [0; MAX_LEVEL];
    let ranked = &mut ranked[..logits.len()];
    for (level, (rank, &logit)) in ranked.iter_mut().zip(logits).enumerate() {
        *rank = u64::from(ascending(logit)) << 8 | (MAX_LEVEL - 1 - level) as u64;
    }
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    let level = |rank: u64| MAX_LEVEL - 1 - (rank & 0xff) as usize;

    let total: u64 = ranked[..top_k].iter().map(|&rank| u64::from(weights[level(rank)])).sum();
    // floor(top_p · total): a sum of integers exceeds a number if and only if it exceeds its floor.
    let threshold = share(total, (f64::from(sampler.top_p) * 4_294_967_296.0) as u64);
    let mut sum = 0;
    let mut kept = 0;
    while kept < top_k && sum <= threshold {
        sum += u64::from(weights[level(ranked[kept])]);
        kept += 1;
    }
    for &rank in &ranked[kept..] {
        weights[level(rank)] = 0;
    }
}

/// floor(total · part / 2³²), exactly.
fn share(total: u64, part: u64) -> u64 {
    ((u128::from(total) * u128::from(part)) >> 32) as u64
}

/// A number that orders like the finite `x`; both zeros are equal.
fn ascending(x: f32) -> u32 {
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// e^x for x ≤ 0 to a few units in the last place, the same bits on every device: every product and sum is rounded on
/// its own. x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by its Taylor series to r⁷ (the next term is below 2⁻²⁷), then n
/// goes into the exponent.
fn exp_negative(x: f32) -> f32 {
    /// ln 2 in two parts; the first has so few bits that its product with n is exact.
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    /// Adding it rounds to a whole number, ties to even: 1.5 · 2²³.
    const ROUND: f32 = 12_582_912.0;
    const TAYLOR: [f32; 6] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];

    let x = x.max(-80.0);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let mut series = TAYLOR[0];
    for coefficient in &TAYLOR[1..] {
        series = series * r + coefficient;
    }
    let series = ((series * r) * r + r) + 1.0;
    series * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, keyed};
    use rand::Rng;

    const PLAIN: Sampler = Sampler { temperature: 1.0, top_k: 0, top_p: 1.0, greedy: false };

    /// What may be drawn and how often, in float64: sort by probability (stable, so ties go to the lower level), cut,
    /// renormalise.
    fn oracle(logits: &[f32], sampler: &Sampler) -> Vec<f64> {
        let scaled: Vec<f64> = logits.iter().map(|&l| f64::from(l) / f64::from(sampler.temperature)).collect();
        let largest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exp: Vec<f64> = scaled.iter().map(|l| (l - largest).exp()).collect();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| exp[b].total_cmp(&exp[a]));
        if sampler.top_k > 0 {
            order.truncate(sampler.top_k as usize);
        }
        let total: f64 = order.iter().map(|&level| exp[level]).sum();
        let mut kept = vec![0.0; logits.len()];
        let mut mass = 0.0;
        for level in order {
            kept[level] = exp[level] / total;
            mass += kept[level];
            if mass > f64::from(sampler.top_p) {
                break;
            }
        }
        kept.iter().map(|p| p / mass).collect()
    }

    /// Distributions that have gone wrong somewhere: ties, one-hot, flat, steep, heavy tails, a nucleus that ends
    /// exactly on its threshold.
    fn cases() -> Vec<(&'static str, Vec<f32>, Sampler)> {
        let bell = |width: f32| (0..256).map(|k| -((k as f32 - 128.3) / width).powi(2)).collect::<Vec<_>>();
        let mut noise = keyed(1, Purpose::Init, 0);
        let mut random = |n: usize, spread: f32| {
            (0..n).map(|_| (noise.next_u32() as f32 / u32::MAX as f32 - 0.5) * spread).collect::<Vec<f32>>()
        };
        let mut one_hot = vec![0.0; 256];
        one_hot[255] = 200.0;
        vec![
            ("bell, the paper's p", bell(20.0), Sampler { top_p: 0.8, ..PLAIN }),
            ("bell, everything", bell(20.0), PLAIN),
            ("narrow bell", bell(1.5), Sampler { top_p: 0.8, ..PLAIN }),
            ("random", random(256, 8.0), Sampler { top_p: 0.9, ..PLAIN }),
            ("random, top-k", random(256, 8.0), Sampler { top_k: 17, ..PLAIN }),
            ("random, both", random(256, 4.0), Sampler { top_k: 40, top_p: 0.5, ..PLAIN }),
            ("hot", random(256, 30.0), Sampler { temperature: 3.0, top_p: 0.95, ..PLAIN }),
            ("cold", random(256, 3.0), Sampler { temperature: 0.3, top_p: 0.8, ..PLAIN }),
            ("all equal", vec![0.7; 256], Sampler { top_p: 0.8, ..PLAIN }),
            // Four equal levels hold exactly 1/2 at two of them; the level that exceeds it is the third.
            ("on the threshold", vec![3.0; 4], Sampler { top_p: 0.5, ..PLAIN }),
            ("two ties", vec![1.0, 2.0, 2.0, 1.0, 2.0, 1.0], Sampler { top_p: 0.9, ..PLAIN }),
            ("ties cut by top-k", vec![-1.0, 2.0, 2.0, 2.0, 0.0], Sampler { top_k: 2, ..PLAIN }),
            ("one-hot", one_hot, Sampler { top_p: 0.8, ..PLAIN }),
            ("one level", vec![-3.0], Sampler { top_p: 0.8, ..PLAIN }),
            ("two levels", vec![0.0, 1.0], PLAIN),
            ("tiny p", bell(20.0), Sampler { top_p: 1e-6, ..PLAIN }),
        ]
    }

    /// The chi-square value that a fair draw exceeds with probability 0.001 (Wilson and Hilferty's approximation).
    fn chi_square_limit(degrees: usize) -> f64 {
        let d = degrees as f64;
        d * (1.0 - 2.0 / (9.0 * d) + 3.0902 * (2.0 / (9.0 * d)).sqrt()).powi(3)
    }

    #[test]
    fn draws_follow_the_nucleus() {
        const DRAWS: usize = 65_000;
        for (index, (name, logits, sampler)) in cases().into_iter().enumerate() {
            let expected = oracle(&logits, &sampler);
            let mut words = keyed(20, Purpose::Sampling, index as u64);
            let mut counts = vec![0usize; logits.len()];
            for _ in 0..DRAWS {
                counts[draw(&logits, &sampler, words.next_u32()).unwrap() as usize] += 1;
            }
            // Rare levels are pooled, so that every cell expects at least five.
            let (mut cells, mut statistic, mut rare, mut rare_count) = (0, 0.0, 0.0, 0usize);
            for (level, (&p, &count)) in expected.iter().zip(&counts).enumerate() {
                assert!(p > 0.0 || count == 0, "{name}: level {level} is outside the nucleus, drawn {count} times");
                let expect = p * DRAWS as f64;
                if expect >= 5.0 {
                    statistic += (count as f64 - expect).powi(2) / expect;
                    cells += 1;
                } else {
                    rare += expect;
                    rare_count += count;
                }
            }
            if rare >= 5.0 {
                statistic += (rare_count as f64 - rare).powi(2) / rare;
                cells += 1;
            } else {
                assert!(rare_count <= 25, "{name}: {rare_count} rare draws where {rare:.2} are expected");
            }
            if cells > 1 {
                let limit = chi_square_limit(cells - 1);
                assert!(statistic < limit, "{name}: chi-square {statistic:.1} over {cells} cells, limit {limit:.1}");
            }
        }
    }

    /// Every word maps to a level of the nucleus, and each level's share of all 2³² words is its probability: the two
    /// ends of each level's interval are checked, which says it of all four thousand million words.
    #[test]
    fn shares_of_all_words_are_the_probabilities() {
        for (name, logits, sampler) in cases() {
            let expected = oracle(&logits, &sampler);
            let mut start = 0u64;
            while start < 1 << 32 {
                let level = draw(&logits, &sampler, start as u32).unwrap();
                let (mut low, mut high) = (start, (1u64 << 32) - 1);
                while low < high {
                    let middle = (low + high).div_ceil(2);
                    let same = draw(&logits, &sampler, middle as u32).unwrap() == level;
                    (low, high) = if same { (middle, high) } else { (low, middle - 1) };
                }
                let share = (low + 1 - start) as f64 / 4_294_967_296.0;
                let p = expected[level as usize];
                // exp is good to 4 · 2⁻²⁴; the argument (logit − largest) · scale carries two roundings of up to 100;
                // flooring a weight costs 2⁻³¹ of the largest weight, and of the total; words come in steps of 2⁻³².
                let bound = p * 200.0 / 16_777_216.0 + 3.0 / 2_147_483_648.0;
                assert!(p > 0.0 && (share - p).abs() <= bound, "{name}: level {level}, {share} of {p}");
                start = low + 1;
            }
        }
    }

    #[test]
    fn greedy_is_the_lowest_at_a_tie_and_equals_top_1() {
        let greedy = Sampler { greedy: true, ..PLAIN };
        let top_1 = Sampler { top_k: 1, ..PLAIN };
        for logits in [vec![0.0, 5.0, 5.0, 1.0], vec![-0.0, 0.0, -1.0], vec![f32::MIN, f32::MAX], vec![1.0, 1.0 + 1e-7]]
        {
            let best = draw(&logits, &greedy, 0).unwrap();
            for word in [0, 1, 1 << 31, u32::MAX] {
                assert_eq!(draw(&logits, &top_1, word), Some(best));
            }
        }
        assert_eq!(draw(&[0.0, 5.0, 5.0], &greedy, u32::MAX), Some(1));
    }

    #[test]
    fn logits_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(draw(&[0.0, bad, 1.0], &PLAIN, 7), None);
            assert_eq!(draw(&[0.0, bad, 1.0], &Sampler { greedy: true, ..PLAIN }, 7), None);
        }
    }

    #[test]
    fn exp_is_good_to_four_units() {
        for step in 0..=800_000 {
            let x = -(step as f32) * 1e-4;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp_negative(x)) - exact).abs() / exact;
            assert!(error <= 4.0 / 16_777_216.0, "exp({x}): relative error {error:e}");
        }
        assert_eq!(exp_negative(0.0), 1.0);
        assert_eq!((exp_negative(f32::MIN) * UNIT) as u32, 0);
        assert_eq!((exp_negative(f32::NEG_INFINITY) * UNIT) as u32, 0);
    }

    /// Bits that another device has to reproduce. Made by this code; they change only when its arithmetic does.
    #[test]
    fn the_arithmetic_is_pinned() {
        let logits: Vec<f32> = (0..256).map(|k| ((k * 37 % 256) as f32) / 32.0 - 4.0).collect();
        let sampler = Sampler { temperature: 0.9, top_k: 200, top_p: 0.8, greedy: false };
        let mut weights = [0; 256];
        keep(&logits, &sampler, &mut weights);
        let digest = weights.iter().fold(0u64, |d, &w| d.wrapping_mul(0x100_0000_01b3) ^ u64::from(w));
        assert_eq!((weights.iter().filter(|&&w| w > 0).count(), digest), (47, 15_237_958_098_573_672_192));
    }
}
