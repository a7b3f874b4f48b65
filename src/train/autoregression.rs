//! Linear autoregression on the standardised signal: least squares, and the probability its Gaussian gives each level.

use crate::model::linear::dot;
use libm::{erf, erfc};
use nalgebra::{DMatrix, DVector};
use std::f64::consts::FRAC_1_SQRT_2;

/// No level is given a smaller probability than this (27.6 nats): one artefact far outside the Gaussian must not decide
/// the mean of millions of targets.
pub const FLOOR: f64 = 1e-12;

/// Sums from which an autoregression of one order is fitted; pieces of signal are added one by one.
#[derive(Debug, Clone)]
pub struct NormalEquations {
    order: usize,
    n: f64,
    /// Σ x[t − i] x[t − j] for i, j in 0 ..= order, row-major.
    products: Vec<f64>,
    /// Σ x[t − i].
    sums: Vec<f64>,
}

/// `x[t] = intercept + Σ weights[k] x[t − 1 − k]` + a Gaussian with this standard deviation.
#[derive(Debug, Clone, PartialEq)]
pub struct Autoregression {
    /// Constant term.
    pub intercept: f64,
    /// Weight of the last value first.
    pub weights: Vec<f64>,
    /// Standard deviation of the residual.
    pub sigma: f64,
}

impl NormalEquations {
    /// Nothing added yet.
    pub fn new(order: usize) -> Self {
        let width = order + 1;
        Self { order, n: 0.0, products: vec![0.0; width * width], sums: vec![0.0; width] }
    }

    /// Adds the targets `x[order ..]`, each with the `order` values before it. A long signal is added in pieces that
    /// overlap by `order`.
    pub fn add(&mut self, x: &[f64]) {
        let (p, width) = (self.order, self.order + 1);
        if x.len() <= p {
            return;
        }
        let (first, n) = (p, x.len() - p);
        self.n += n as f64;
        // The first row by its definition; below it, each product equals its upper-left neighbour, but for one term that
        // leaves at the end and one that enters at the start.
        let lag = |i: usize| &x[first - i..][..n];
        let mut above = vec![0.0; width];
        let mut row = vec![0.0; width];
        let mut sum: f64 = lag(0).iter().sum();
        for i in 0..width {
            if i == 0 {
                (0..width).for_each(|j| row[j] = dot(lag(0), lag(j)));
            } else {
                let (enters, leaves) = (first - i, x.len() - i);
                row[0] = dot(lag(i), lag(0));
                for j in 1..width {
                    row[j] = above[j - 1] + x[enters] * x[first - j] - x[leaves] * x[x.len() - j];
                }
                sum += x[enters] - x[leaves];
            }
            self.sums[i] += sum;
            self.products[i * width..][..width].iter_mut().zip(&row).for_each(|(total, x)| *total += x);
            std::mem::swap(&mut above, &mut row);
        }
    }

    /// The least-squares solution. Where the equations are singular (a signal shorter than the order, a constant one),
    /// the smallest ridge that makes them solvable is added to the diagonal, from 1e-12 of its mean upwards.
    pub fn solve(&self) -> Autoregression {
        self.solve_with(0.0)
    }

    /// The same with at least this ridge, as a part of the diagonal's mean.
    pub fn solve_with(&self, mut ridge: f64) -> Autoregression {
        let (p, width) = (self.order, self.order + 1);
        let product = |i: usize, j: usize| self.products[i * width + j];
        // Row and column 0 are the constant; 1 ..= p the lags.
        let entry = |i: usize, j: usize| match (i, j) {
            (0, 0) => self.n.max(1.0),
            (0, j) | (j, 0) => self.sums[j],
            (i, j) => product(i, j),
        };
        let matrix = DMatrix::from_fn(width, width, entry);
        let target = DVector::from_fn(width, |i, _| if i == 0 { self.sums[0] } else { product(0, i) });
        let scale = (matrix.trace() / width as f64).max(f64::MIN_POSITIVE);
        let solution = loop {
            let ridged = &matrix + DMatrix::identity(width, width) * (ridge * scale);
            match ridged.cholesky() {
                Some(cholesky) => break cholesky.solve(&target),
                None => ridge = (10.0 * ridge).max(1e-12),
            }
        };
        let explained = 2.0 * solution.dot(&target) - solution.dot(&(&matrix * &solution));
        let variance = (product(0, 0) - explained) / self.n.max(1.0);
        // A signal that is predicted perfectly still has its rounding.
        let least = 1e-12 * (product(0, 0) / self.n.max(1.0)).max(1e-12);
        let weights = solution.as_slice()[1..=p].to_vec();
        Autoregression { intercept: solution[0], weights, sigma: variance.max(least).sqrt() }
    }
}

impl Autoregression {
    /// The expected value after `history`, whose last value is the latest; values before its start count as 0.
    pub fn predict(&self, history: &[f64]) -> f64 {
        let recent = history.iter().rev().zip(&self.weights);
        self.intercept + recent.map(|(x, weight)| x * weight).sum::<f64>()
    }

    /// ln of the probability of `low .. high` under the Gaussian around `mean`, at least ln [`FLOOR`].
    pub fn ln_mass(&self, mean: f64, low: f64, high: f64) -> f64 {
        self.mass(mean, low, high).max(FLOOR).ln()
    }

    /// The probability of `low .. high` under the Gaussian around `mean`.
    fn mass(&self, mean: f64, low: f64, high: f64) -> f64 {
        let scaled = |x: f64| (x - mean) / self.sigma * FRAC_1_SQRT_2;
        let (low, high) = (scaled(low), scaled(high));
        // Each tail by its own complementary function, so that nothing cancels.
        if low >= 0.0 {
            0.5 * (erfc(low) - erfc(high))
        } else if high <= 0.0 {
            0.5 * (erfc(-high) - erfc(-low))
        } else {
            0.5 * (erf(high) + erf(-low))
        }
    }
}

/// Ranks levels by the probability that a Gaussian gives them.
///
/// The probability of a level of half-width h (a = h / σ) whose middle is u standard deviations from the mean is its
/// width times the density at its middle, times the mean of `exp(-u x - x²/2)` over |x| ≤ a. That mean is at least
/// `exp(-a²/6)` (Jensen's inequality) and at most that of `cosh(u x)`, so at most `cosh(u a)`, which is below
/// `exp(u² a²/2)` and `exp(|u| a)`. These bounds decide almost every comparison; the few that they do not, and those with
/// the outermost levels, which have no middle, are decided by the probabilities themselves.
#[derive(Debug, Clone)]
pub struct LevelRanks<'a> {
    fit: &'a Autoregression,
    /// In z units.
    boundaries: Vec<f64>,
    middle: Vec<f64>,
    ln_width: Vec<f64>,
    /// h / σ.
    half: Vec<f64>,
    /// For each level, what the logarithm of its probability is not below, and not above, up to a common constant.
    bounds: Vec<(f64, f64)>,
}

impl<'a> LevelRanks<'a> {
    /// For levels between these boundaries in [−1, 1] (the outer ones infinite) of a channel with this `peak`.
    pub fn new(fit: &'a Autoregression, boundaries: &[f64], peak: f64) -> Self {
        let boundaries: Vec<f64> = boundaries.iter().map(|b| b * peak).collect();
        let pairs = || boundaries.windows(2);
        let middle: Vec<f64> = pairs().map(|pair| 0.5 * (pair[0] + pair[1])).collect();
        let ln_width = pairs().map(|pair| libm::log(pair[1] - pair[0])).collect();
        let half = pairs().map(|pair| 0.5 * (pair[1] - pair[0]) / fit.sigma).collect();
        Self { fit, bounds: vec![(0.0, 0.0); middle.len()], boundaries, middle, ln_width, half }
    }

    /// The most probable level, and how many levels come before `target` (the lower level first at a tie).
    pub fn rank(&mut self, mean: f64, target: usize) -> (usize, usize) {
        self.bound(mean);
        let mass = |level: usize| self.mass(mean, level);
        let own = mass(target);
        let before = |&level: &usize| {
            let (low, high) = self.bounds[level];
            let (own_low, own_high) = self.bounds[target];
            if low > own_high {
                return true;
            }
            if high < own_low || level == target {
                return false;
            }
            let mass = mass(level);
            mass > own || (mass == own && level < target)
        };
        let place = (0..self.bounds.len()).filter(before).count();
        let least = self.bounds.iter().fold(f64::NEG_INFINITY, |least, bounds| least.max(bounds.0));
        let candidates = (0..self.bounds.len()).filter(|&level| self.bounds[level].1 >= least);
        let better = |best: (usize, f64), level: usize| {
            let mass = mass(level);
            if mass > best.1 { (level, mass) } else { best }
        };
        (candidates.fold((0, f64::NEG_INFINITY), better).0, place)
    }

    /// Bounds every level's probability under the Gaussian around `mean`.
    fn bound(&mut self, mean: f64) {
        /// Far above what rounding does to the sums below.
        const ROUNDING: f64 = 1e-12;
        let last = self.middle.len() - 1;
        for (level, bounds) in self.bounds.iter_mut().enumerate() {
            if level == 0 || level == last {
                *bounds = (f64::NEG_INFINITY, f64::INFINITY);
                continue;
            }
            let (u, a) = ((self.middle[level] - mean) / self.fit.sigma, self.half[level]);
            let middle = self.ln_width[level] - 0.5 * u * u;
            let slack = ROUNDING * (1.0 + middle.abs());
            let ua = u.abs() * a;
            *bounds = (middle - a * a / 6.0 - slack, middle + (0.5 * ua * ua).min(ua) + slack);
        }
    }

    fn mass(&self, mean: f64, level: usize) -> f64 {
        self.fit.mass(mean, self.boundaries[level], self.boundaries[level + 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, keyed};
    use crate::tokens::scheme::Scheme;
    use rand_distr::{Distribution, StandardNormal};

    fn noise(n: usize) -> Vec<f64> {
        let mut generator = keyed(11, Purpose::Control, 0);
        (0..n).map(|_| StandardNormal.sample(&mut generator)).collect()
    }

    /// The same equations by their definition.
    fn plain(order: usize, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let width = order + 1;
        let (mut products, mut sums) = (vec![0.0; width * width], vec![0.0; width]);
        for t in order..x.len() {
            for i in 0..width {
                sums[i] += x[t - i];
                (0..width).for_each(|j| products[i * width + j] += x[t - i] * x[t - j]);
            }
        }
        (products, sums)
    }

    #[test]
    fn the_recursion_equals_the_definition() {
        let x = noise(300);
        for (order, len) in [(1, 2), (1, 300), (2, 3), (5, 6), (5, 13), (20, 21), (20, 300), (3, 3), (3, 0)] {
            let mut equations = NormalEquations::new(order);
            equations.add(&x[..len]);
            let (products, sums) = plain(order, &x[..len]);
            for (got, want) in equations.products.iter().zip(&products).chain(equations.sums.iter().zip(&sums)) {
                // 300 products of values below 5, summed in another order.
                assert!((got - want).abs() < 300.0 * 25.0 * 300.0 * f64::EPSILON, "order {order}, {len} values");
            }
        }
        let (mut whole, mut parts) = (NormalEquations::new(4), NormalEquations::new(4));
        whole.add(&x);
        parts.add(&x[..100]);
        parts.add(&x[96..]);
        assert_eq!(whole.n, parts.n);
        assert!(whole.products.iter().zip(&parts.products).all(|(a, b)| (a - b).abs() < 1e-9));
    }

    #[test]
    fn recovers_a_known_process() {
        let (a, b, c, sigma) = (1.2, -0.5, 0.3, 0.7);
        let n = 200_000;
        let mut x = vec![0.0; 2];
        for e in noise(n) {
            x.push(c + a * x[x.len() - 1] + b * x[x.len() - 2] + sigma * e);
        }
        let mut equations = NormalEquations::new(2);
        equations.add(&x);
        let fit = equations.solve();
        // The standard error of each estimate is about 1 / √n.
        let bound = 5.0 / (n as f64).sqrt();
        assert!((fit.weights[0] - a).abs() < bound && (fit.weights[1] - b).abs() < bound, "{fit:?}");
        assert!((fit.intercept - c).abs() < 2.0 * bound && (fit.sigma - sigma).abs() < bound, "{fit:?}");
        assert!((fit.predict(&[1.0, 2.0]) - (fit.intercept + 2.0 * fit.weights[0] + fit.weights[1])).abs() < 1e-12);
    }

    #[test]
    fn degenerate_signals_have_a_solution() {
        for x in [vec![], vec![1.0; 5], vec![0.0; 100], vec![2.0; 100]] {
            let mut equations = NormalEquations::new(20);
            equations.add(&x);
            let fit = equations.solve();
            assert!(fit.sigma > 0.0 && fit.intercept.is_finite() && fit.weights.iter().all(|w| w.is_finite()));
        }
    }

    #[test]
    fn masses_of_all_levels_sum_to_one_and_tails_do_not_cancel() {
        let fit = Autoregression { intercept: 0.0, weights: vec![], sigma: 0.5 };
        let boundaries = Scheme::PAPER.boundaries();
        for mean in [0.0, 0.3, -4.0, 9.9] {
            let total: f64 = boundaries.windows(2).map(|b| fit.ln_mass(mean, b[0] * 10.0, b[1] * 10.0).exp()).sum();
            assert!((total - 1.0).abs() < 256.0 * FLOOR, "{mean}: {total}");
        }
        // Six sigma out, from a table: Q(6) = 9.865876450377e-10, Q(6.5) = 4.016000583859e-11.
        let tail = fit.ln_mass(0.0, 3.0, 3.25).exp();
        assert!((tail / (9.865_876_450_377e-10 - 4.016_000_583_859e-11) - 1.0).abs() < 1e-9, "{tail}");
        assert!((fit.ln_mass(0.0, -3.25, -3.0).exp() / tail - 1.0).abs() < 1e-12);
        assert_eq!(fit.ln_mass(0.0, 50.0, f64::INFINITY), FLOOR.ln());
    }

    /// By the definition: every level's probability, sorted, the lower level first at a tie.
    fn plain_order(fit: &Autoregression, boundaries: &[f64], peak: f64, mean: f64) -> Vec<usize> {
        let mass: Vec<f64> = boundaries.windows(2).map(|b| fit.mass(mean, b[0] * peak, b[1] * peak)).collect();
        let mut order: Vec<usize> = (0..mass.len()).collect();
        order.sort_by(|&a, &b| mass[b].total_cmp(&mass[a]));
        order
    }

    #[test]
    fn ranks_are_those_of_the_probabilities() {
        let schemes = [Scheme::PAPER, Scheme { n_level: 16, ..Scheme::PAPER }];
        for (scheme, sigma) in schemes.iter().flat_map(|scheme| [0.02, 0.3, 0.6, 3.0, 40.0].map(|s| (scheme, s))) {
            let fit = Autoregression { intercept: 0.0, weights: vec![], sigma };
            let boundaries = scheme.boundaries();
            let mut ranks = LevelRanks::new(&fit, &boundaries, 10.0);
            // In the middle of the range, at its ends and beyond, where an outermost level is the heaviest.
            for mean in [0.0, 0.01, 0.05, -0.4, 1.5, 6.0, 9.8, 10.5, -30.0] {
                let order = plain_order(&fit, &boundaries, 10.0, mean);
                for (place, &level) in order.iter().enumerate() {
                    // Beyond 37 standard deviations probabilities are 0 in f64, and levels are ranked by their bounds.
                    let edge = (boundaries[level] * 10.0 - mean).abs().min((boundaries[level + 1] * 10.0 - mean).abs());
                    if edge < 37.0 * sigma {
                        assert_eq!(ranks.rank(mean, level), (order[0], place), "σ {sigma}, mean {mean}, level {level}");
                    }
                }
            }
        }
    }
}
