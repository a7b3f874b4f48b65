//! Time-delay embedding, without ever holding what is embedded.
//!
//! The row of timestep t holds channel i at t + a for the lags a = 0 … L − 1, in the order (a, i); a state of its
//! covariance is then a pattern of spectra and phases, not of amplitudes alone. The covariance of these rows needs only
//! the L lagged products of the channels and, because every stretch ends, what is missing at its two ends.

use crate::statistics::product::{View, add_product};
use rayon::prelude::*;

/// Sums of products of embedded rows, gathered block by block.
pub struct LagSums {
    n_channel: usize,
    n_lag: usize,
    /// Σ over embedded rows, `[n_lag · n_channel]²`, row-major; its lower block triangle.
    products: Vec<f64>,
    /// Σ of embedded rows.
    sums: Vec<f64>,
    n_row: usize,
    /// The stretch under way.
    stretch: Stretch,
}

#[derive(Default)]
struct Stretch {
    n_timestep: usize,
    /// Σ x(s) x(s − lag)ᵀ for each lag.
    lagged: Vec<Vec<f64>>,
    /// Σ x(s).
    sum: Vec<f64>,
    /// The first and the last n_lag − 1 timesteps, `[channel][time]`.
    head: Window,
    tail: Window,
}

/// Some timesteps of all channels: `data[channel * n_timestep + time]`.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Rows one after the other.
    pub data: Vec<f64>,
    /// Columns.
    pub n_timestep: usize,
}

impl Window {
    /// Columns `from .. to` of a window of `n_channel` rows.
    fn columns(&self, n_channel: usize, from: usize, to: usize) -> View<'_> {
        let data = if from < to { &self.data[from..] } else { &[] };
        View::rows(data, (n_channel, to - from), self.n_timestep)
    }

    /// Appends columns.
    pub fn extend(&self, n_channel: usize, new: &Self) -> Self {
        let n_timestep = self.n_timestep + new.n_timestep;
        let row = |i: usize| {
            let old = &self.data[i * self.n_timestep..][..self.n_timestep];
            old.iter().chain(&new.data[i * new.n_timestep..][..new.n_timestep]).copied()
        };
        Self { data: (0..n_channel).flat_map(row).collect(), n_timestep }
    }

    /// The last `n` columns, or as many as there are.
    pub fn last(&self, n_channel: usize, n: usize) -> Self {
        let from = self.n_timestep.saturating_sub(n);
        self.cut(n_channel, from, self.n_timestep)
    }

    fn cut(&self, n_channel: usize, from: usize, to: usize) -> Self {
        let row = |i: usize| self.data[i * self.n_timestep + from..i * self.n_timestep + to].iter().copied();
        Self { data: (0..n_channel).flat_map(row).collect(), n_timestep: to - from }
    }
}

impl LagSums {
    /// For so many channels and lags.
    pub fn new(n_channel: usize, n_lag: usize) -> Self {
        let width = n_channel * n_lag;
        let (products, sums) = (vec![0.0; width * width], vec![0.0; width]);
        Self { n_channel, n_lag, products, sums, n_row: 0, stretch: Stretch::new(n_channel, n_lag) }
    }

    /// Takes in the next timesteps of a stretch.
    pub fn push(&mut self, new: &Window) {
        let (c, reach, stretch) = (self.n_channel, self.n_lag - 1, &mut self.stretch);
        let both = stretch.tail.extend(c, new);
        let (before, n) = (stretch.tail.n_timestep, new.n_timestep);
        stretch.lagged.par_iter_mut().enumerate().for_each(|(lag, lagged)| {
            // The first timesteps of a stretch have no partner.
            let skip = lag.saturating_sub(before).min(n);
            let late = both.columns(c, before + skip, before + n);
            let early = both.columns(c, before + skip - lag.min(before + skip), before + n - lag.min(before + n));
            if skip < n {
                add_product(lagged, 1.0, 1.0, late, early.transposed());
            }
        });
        for (channel, sum) in stretch.sum.iter_mut().enumerate() {
            *sum += new.data[channel * n..][..n].iter().sum::<f64>();
        }
        let missing = (reach - stretch.head.n_timestep).min(n);
        stretch.head = stretch.head.extend(c, &new.cut(c, 0, missing));
        stretch.tail = both.last(c, reach);
        stretch.n_timestep += n;
    }

    /// The stretch ends here; one shorter than the embedding counts for nothing.
    pub fn gap(&mut self) {
        let (c, l) = (self.n_channel, self.n_lag);
        let stretch = std::mem::replace(&mut self.stretch, Stretch::new(c, l));
        if stretch.n_timestep < l {
            return;
        }
        self.n_row += stretch.n_timestep - (l - 1);
        for a in 0..l {
            // Lag a sees timesteps a … T − L + a: all but the first a and the last L − 1 − a.
            for i in 0..c {
                let head: f64 = stretch.head.data[i * (l - 1)..][..a].iter().sum();
                let tail: f64 = stretch.tail.data[i * (l - 1) + a..(i + 1) * (l - 1)].iter().sum();
                self.sums[a * c + i] += stretch.sum[i] - head - tail;
            }
        }
        let width = c * l;
        self.products.par_chunks_mut(c * width).enumerate().for_each(|(a, rows)| {
            for b in 0..=a {
                let mut product = stretch.lagged[a - b].clone();
                let (head, tail) = (&stretch.head, &stretch.tail);
                add_product(&mut product, 1.0, -1.0, head.columns(c, a - b, a), head.columns(c, 0, b).transposed());
                let early = tail.columns(c, b, l - 1 - (a - b)).transposed();
                add_product(&mut product, 1.0, -1.0, tail.columns(c, a, l - 1), early);
                for (i, row) in product.chunks(c).enumerate() {
                    let out = &mut rows[i * width + b * c..][..c];
                    out.iter_mut().zip(row).for_each(|(out, x)| *out += x);
                }
            }
        });
    }

    /// Rows embedded, their mean, and their covariance (division by the number of rows). Ends with a gap.
    pub fn finish(mut self) -> (usize, Vec<f64>, Vec<f64>) {
        self.gap();
        let (width, n) = (self.n_channel * self.n_lag, self.n_row.max(1) as f64);
        let mean: Vec<f64> = self.sums.iter().map(|sum| sum / n).collect();
        let mut covariance = self.products;
        for i in 0..width {
            for j in 0..=i {
                let value = covariance[i * width + j] / n - mean[i] * mean[j];
                covariance[i * width + j] = value;
                covariance[j * width + i] = value;
            }
        }
        (self.n_row, mean, covariance)
    }
}

impl Stretch {
    fn new(n_channel: usize, n_lag: usize) -> Self {
        let lagged = vec![vec![0.0; n_channel * n_channel]; n_lag];
        Self { lagged, sum: vec![0.0; n_channel], ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(x: &[Vec<f64>], from: usize, to: usize) -> Window {
        Window { data: x.iter().flat_map(|row| row[from..to].to_vec()).collect(), n_timestep: to - from }
    }

    /// Rows written out, and numpy's covariance with ddof 0.
    fn direct(x: &[Vec<f64>], stretches: &[(usize, usize)], l: usize) -> (usize, Vec<f64>, Vec<f64>) {
        let starts = stretches.iter().flat_map(|&(from, to)| from..(to + 1).saturating_sub(l).max(from));
        let row = |t: usize| (0..l).flat_map(|a| x.iter().map(move |row| row[t + a])).collect::<Vec<f64>>();
        let rows: Vec<Vec<f64>> = starts.map(row).collect();
        let (n, width) = (rows.len().max(1) as f64, x.len() * l);
        let mean: Vec<f64> = (0..width).map(|i| rows.iter().map(|r| r[i]).sum::<f64>() / n).collect();
        let covariance = |i: usize, j: usize| rows.iter().map(|r| (r[i] - mean[i]) * (r[j] - mean[j])).sum::<f64>() / n;
        let all = (0..width * width).map(|at| covariance(at / width, at % width)).collect();
        (rows.len(), mean, all)
    }

    #[test]
    fn equals_the_definition_for_any_blocks_and_gaps() {
        let value =
            |i: usize, t: usize| (t as f64 * (0.3 + i as f64)).sin() + 0.1 * ((t * t + i) as f64 * 0.7).cos() + 0.5;
        let x: Vec<Vec<f64>> = (0..3).map(|i| (0..120).map(|t| value(i, t)).collect()).collect();
        for l in [1, 3, 7] {
            for stretches in [vec![(0, 120)], vec![(0, 6), (6, 13), (13, 60)], vec![(0, l), (50, 50 + l - 1)], vec![]] {
                for block in [1, 5, 200] {
                    let mut sums = LagSums::new(3, l);
                    for &(from, to) in &stretches {
                        let mut at = from;
                        while at < to {
                            let end = (at + block).min(to);
                            sums.push(&window(&x, at, end));
                            at = end;
                        }
                        sums.gap();
                    }
                    let (n, mean, covariance) = sums.finish();
                    let (want_n, want_mean, want_covariance) = direct(&x, &stretches, l);
                    assert_eq!(n, want_n);
                    for (got, want) in mean.iter().zip(&want_mean).chain(covariance.iter().zip(&want_covariance)) {
                        // Sums of at most 120 terms below 4, then a difference of squares: some hundred roundings of 4.
                        assert!((got - want).abs() < 1e-13, "{l} {stretches:?} {block}: {got} {want}");
                    }
                }
            }
        }
    }
}
