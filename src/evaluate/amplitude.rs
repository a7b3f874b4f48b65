//! Amplitude distribution: histogram and moments, streaming.
//!
//! Every recording is measured in the same units: the real recording's mean and standard deviation, channel by
//! channel. A generated channel of half the variance is thus seen to be so.

use super::chart::Axis;
use super::measure::Measured;
use super::panels;
use super::section::{Between, Comparison, Distance, Figure, Group, Layout, Section};
use super::text::capital;

/// Width of a bin, in standard deviations.
pub const BIN_WIDTH: f64 = 0.01;
/// The histogram covers ± this many standard deviations; what lies beyond is counted in its outermost bins.
pub const LIMIT: f64 = 20.0;
/// "Small" values, in standard deviations: where µ-law levels are narrow and a nucleus cuts first.
pub const SMALL: f64 = 0.1;

/// Fine bins in a wide one.
const WIDE: usize = 10;
const N_BIN: usize = (2.0 * LIMIT / BIN_WIDTH) as usize;

/// One channel's values in standard deviations of the real channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Amplitude {
    counts: Vec<u64>,
    n: u64,
    n_small: u64,
    powers: [f64; 4],
}

impl Default for Amplitude {
    fn default() -> Self {
        Self { counts: vec![0; N_BIN], n: 0, n_small: 0, powers: [0.0; 4] }
    }
}

impl Amplitude {
    /// Takes in standardised values.
    pub fn push(&mut self, z: &[f64]) {
        for &z in z {
            let bin = ((z + LIMIT) / BIN_WIDTH).clamp(0.0, (N_BIN - 1) as f64) as usize;
            self.counts[bin] += 1;
            self.n_small += u64::from(z.abs() < SMALL);
            let square = z * z;
            for (sum, power) in self.powers.iter_mut().zip([z, square, square * z, square * square]) {
                *sum += power;
            }
        }
        self.n += z.len() as u64;
    }

    /// Counts in bins of a tenth of a standard deviation: enough for what is drawn again.
    pub fn wide(&self) -> Vec<u64> {
        self.counts.chunks(WIDE).map(|counts| counts.iter().sum()).collect()
    }

    /// The distribution with the counts of all these, in the middle of their bins; it has no moments.
    pub fn of_wide<'a>(parts: impl Iterator<Item = &'a [u64]>) -> Self {
        let mut all = Self::default();
        for counts in parts {
            let middles = all.counts.iter_mut().skip(WIDE / 2).step_by(WIDE);
            middles.zip(counts).for_each(|(sum, count)| *sum += count);
            all.n += counts.iter().sum::<u64>();
        }
        all
    }

    fn raw_moment(&self, power: usize) -> f64 {
        self.powers[power - 1] / self.n.max(1) as f64
    }

    /// Mean, in standard deviations from the real mean.
    pub fn mean(&self) -> f64 {
        self.raw_moment(1)
    }

    fn variance(&self) -> f64 {
        (self.raw_moment(2) - self.mean().powi(2)).max(0.0)
    }

    /// Standard deviation, as a multiple of the real channel's.
    pub fn sd(&self) -> f64 {
        self.variance().sqrt()
    }

    /// Excess kurtosis: fourth central moment over squared variance, minus 3; 0 for a channel that never changes.
    pub fn kurtosis(&self) -> f64 {
        let (m, m2, m3, m4) = (self.mean(), self.raw_moment(2), self.raw_moment(3), self.raw_moment(4));
        let variance = self.variance();
        if variance <= 1e-12 * m2 {
            return 0.0;
        }
        (m4 - 4.0 * m * m3 + 6.0 * m * m * m2 - 3.0 * m.powi(4)) / (variance * variance) - 3.0
    }

    /// Fraction of values smaller in size than [`SMALL`].
    pub fn small(&self) -> f64 {
        self.n_small as f64 / self.n.max(1) as f64
    }

    /// Probability density between neighbouring `edges`, which are numbers of fine bins from the middle (value zero).
    pub fn density(&self, edges: &[i32]) -> Vec<f64> {
        let bin = |edge: i32| (N_BIN as i32 / 2 + edge) as usize;
        let between = |pair: &[i32]| {
            let count: u64 = self.counts[bin(pair[0])..bin(pair[1])].iter().sum();
            count as f64 / (self.n.max(1) as f64 * f64::from(pair[1] - pair[0]) * BIN_WIDTH)
        };
        edges.windows(2).map(between).collect()
    }

    /// The distribution function at every tenth of a standard deviation from −`limit` to `limit`.
    fn cumulative(&self, limit: i32) -> Vec<f64> {
        let per_tenth = (0.1 / BIN_WIDTH).round() as usize;
        let first = N_BIN / 2 - limit as usize * 10 * per_tenth;
        let mut sum: u64 = self.counts[..first].iter().sum();
        let mut values = vec![sum as f64 / self.n.max(1) as f64];
        for counts in self.counts[first..N_BIN - first].chunks(per_tenth) {
            sum += counts.iter().sum::<u64>();
            values.push(sum as f64 / self.n.max(1) as f64);
        }
        values
    }

    /// Differences of the two distribution functions at the upper edges of the bins.
    fn gaps<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = f64> + 'a {
        let (mut a, mut b) = (0, 0);
        let (n, m) = (self.n.max(1) as f64, other.n.max(1) as f64);
        self.counts.iter().zip(&other.counts).map(move |(x, y)| {
            (a, b) = (a + x, b + y);
            (a as f64 / n - b as f64 / m).abs()
        })
    }

    /// Wasserstein-1 distance in standard deviations: the area between the distribution functions (Vallender 1974),
    /// to the width of one bin.
    pub fn wasserstein(&self, other: &Self) -> f64 {
        self.gaps(other).sum::<f64>() * BIN_WIDTH
    }

    /// Kolmogorov–Smirnov distance: the largest gap between the distribution functions, seen at the edges of the bins.
    pub fn kolmogorov_smirnov(&self, other: &Self) -> f64 {
        self.gaps(other).fold(0.0, f64::max)
    }
}

/// The distances of amplitudes.
pub fn distances() -> Vec<Distance> {
    let of = |key, name, unit, between: fn(&Amplitude, &Amplitude) -> f64| {
        let between: Between = Box::new(move |a, b, i| between(&a.amplitudes[i], &b.amplitudes[i]));
        Distance { key, name, unit, between }
    };
    vec![
        of("wasserstein", "Amplitudes: Wasserstein distance", "SD", Amplitude::wasserstein),
        of("kolmogorov_smirnov", "Amplitudes: Kolmogorov–Smirnov", "", Amplitude::kolmogorov_smirnov),
    ]
}

/// The section on amplitudes.
pub fn section(c: &Comparison) -> Section {
    let property = |of: fn(&Amplitude) -> f64| move |m: &Measured, i: usize| of(&m.amplitudes[i]);
    Section {
        id: "amplitude",
        title: "Amplitude distribution".into(),
        text: vec![
            "How often each value occurs, whatever the order of time. All recordings are measured in the same unit: \
             the standard deviation of the real channel."
                .into(),
        ],
        measures: c.measures(distances()),
        quantities: vec![
            c.quantity("sd", "Standard deviation", "real SD", property(Amplitude::sd)),
            c.quantity("kurtosis", "Excess kurtosis", "", property(Amplitude::kurtosis)),
            c.quantity("small", "Values within ±0.1 SD", "fraction", property(Amplitude::small)),
        ],
        figures: vec![figure(c)],
        methods: vec![METHODS.into()],
        ..Section::default()
    }
}

const METHODS: &str = "<b>Amplitudes.</b> Each value minus the mean of the real channel, over its standard deviation, \
    counted in bins of 0.01 SD from −20 to 20 SD. Wasserstein-1 distance: the area between the two distribution \
    functions (Vallender 1974), in SD, to 0.01 SD. Kolmogorov–Smirnov distance: their largest gap, seen at the edges of \
    the bins. Excess kurtosis: fourth central moment over squared variance, minus 3 (0 for a Gaussian), from the values \
    themselves.";

/// Edges for the density, in fine bins from zero: narrow in the middle, wide in the tails, where µ-law levels are
/// themselves wide (0.05 SD apart at 1 SD, 0.27 at 6 SD).
fn edges() -> Vec<i32> {
    let right = (0..10).map(|i| i * 10).chain((4..12).map(|i| i * 25)).chain((6..=16).map(|i| i * 50));
    let right: Vec<i32> = right.collect();
    right.iter().skip(1).rev().map(|edge| -edge).chain(right.iter().copied()).collect()
}

/// One sensor type's densities, and the difference of the distribution functions.
pub fn pair(c: &Comparison, group: &Group) -> [String; 2] {
    const LIMIT: i32 = 4;
    let edges = edges();
    let middle = |pair: &[i32]| f64::from(pair[0] + pair[1]) / 2.0 * BIN_WIDTH;
    let centres: Vec<f64> = edges.windows(2).map(middle).collect();
    let rows = panels::of_each(c, group, |m, i| m.amplitudes[i].density(&edges));
    let (reference, subject) = c.sides;
    let value = format!("Value (SD of {reference})");
    let x = Axis::linear(-8.0, 8.0, 8, &value);
    let y = Axis::log(1e-5, 2.0, "Probability density (per SD)");
    let title = format!("{} ({})", group.name, group.channels.len());
    let densities = panels::overlay(&title, x, y, &centres, &rows);

    let tenths: Vec<f64> = (-10 * LIMIT..=10 * LIMIT).map(|i| f64::from(i) / 10.0).collect();
    let (ceiling, generated) = panels::of_pairs(c, group, |a, b, i| {
        let (a, b) = (a.amplitudes[i].cumulative(LIMIT), b.amplitudes[i].cumulative(LIMIT));
        a.iter().zip(b).map(|(a, b)| 100.0 * (b - a)).collect()
    });
    let reach = panels::reach(1.0, &ceiling, &generated);
    let x = Axis::linear(-f64::from(LIMIT), f64::from(LIMIT), 8, &value);
    let y = Axis::linear(-reach, reach, 6, &format!("{} − {reference} (% points)", capital(subject)));
    let title = format!("Cumulative, minus {reference}");
    [densities, panels::difference(&title, x, y, &tenths, &ceiling, &generated)]
}

fn figure(c: &Comparison) -> Figure {
    let panels = c.groups().iter().flat_map(|group| pair(c, group)).collect();
    let mut legend = c.legend();
    legend.push(("ceiling".into(), "real against real".into()));
    let caption = "Left: how often each value occurs, logarithmic, so that rare large values can be seen. Right: share of \
                   values below each value, first stretch of the generated recording minus that of the real one. A curve that is negative left of zero and positive \
                   right of it has too few large values (or too small a scale); one with the opposite signs too many. \
                   The grey band is the same difference between two stretches of the real recording, as long.";
    Figure { panels, layout: Layout::Pairs, legend, caption: caption.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Amplitude {
        let mut amplitude = Amplitude::default();
        amplitude.push(&values.into_iter().collect::<Vec<_>>());
        amplitude
    }

    #[test]
    fn known_moments_and_distances() {
        let coin = of([-1.0, 1.0]);
        assert_eq!((coin.mean(), coin.sd(), coin.kurtosis()), (0.0, 1.0, -2.0));
        let ramp = |shift: f64| of((0..1000).map(move |i| i as f64 * 0.001 - 0.5 + 1e-6 + shift));
        assert!((ramp(0.0).wasserstein(&ramp(0.3)) - 0.3).abs() < BIN_WIDTH);
        assert!((ramp(0.0).kolmogorov_smirnov(&ramp(0.3)) - 0.3).abs() < BIN_WIDTH);
        assert_eq!(ramp(0.0).wasserstein(&ramp(0.0)), 0.0);
        assert!((ramp(0.0).small() - 0.2).abs() < 0.002);
    }

    #[test]
    fn extremes_are_counted_and_a_constant_has_no_kurtosis() {
        let far = of([-1e300, 1e9, 25.0]);
        assert_eq!(far.counts[0], 1);
        assert_eq!(far.counts[N_BIN - 1], 2);
        assert_eq!(of([0.7; 5]).kurtosis(), 0.0);
        assert_eq!(of([]).kolmogorov_smirnov(&of([])), 0.0);
    }

    #[test]
    fn densities_and_distribution_functions_hold_the_mass() {
        let flat = of((0..400).map(|i| (i as f64 - 199.5) / 40.0));
        let edges = edges();
        assert!(edges.windows(2).all(|pair| pair[0] < pair[1]) && edges.contains(&0), "{edges:?}");
        assert_eq!((edges[0], edges[edges.len() - 1]), (-800, 800));
        let mass: f64 =
            flat.density(&edges).iter().zip(edges.windows(2)).map(|(d, e)| d * f64::from(e[1] - e[0])).sum();
        assert!((mass * BIN_WIDTH - 1.0).abs() < 1e-12, "{mass}");
        let cumulative = flat.cumulative(4);
        assert_eq!(cumulative.len(), 81);
        for (index, value) in cumulative.iter().enumerate() {
            let exact = (index as f64 / 10.0 - 4.0 + 5.0) / 10.0;
            assert!((value - exact).abs() < 1.0 / 400.0, "{index}: {value} {exact}");
        }
    }
}
