//! Principal components of embedded channels: found in one pass over a recording, computed in another.

use super::Series;
use super::embedding::{LagSums, Window};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::evaluate::measure::{Scale, Source};
use crate::recording::Block;
use crate::statistics::eigen;
use crate::statistics::product::{View, add_product};
use rayon::prelude::*;
use std::ops::Range;

/// Eigenvalues below this share of the largest are rounding: such components are left out.
const RANK: f64 = 1e-10;
/// Of the square of the mean, what a sum over hours of timesteps may leave by rounding.
const ROUNDING: f64 = 1e-11;

/// Embedded numbers at most: their covariance takes 1.3 GB then.
const WIDTH_MAX: usize = 12_800;

/// What turns a recording into components.
#[derive(Debug, Clone, PartialEq)]
pub struct Components {
    /// Lags of the embedding.
    pub n_lag: usize,
    /// Number of components: as asked for, or fewer where the data have no more.
    pub n_component: usize,
    /// The directions, `[n_lag · n_channel, n_component]`, row-major, each of length 1.
    pub directions: Vec<f64>,
    /// The mean of each component before it is taken out.
    pub mean: Vec<f64>,
    /// The standard deviation of each component before it is made 1.
    pub sd: Vec<f64>,
    /// The variance of the embedded channels, all directions together.
    pub total: f64,
}

/// Timesteps `from .. to` of a block in standard deviations of the real channels.
fn standardised(block: &Block, scale: &Scale, from: usize, to: usize) -> Window {
    let n_timestep = to.saturating_sub(from);
    let mut window = Window { data: vec![0.0; block.n_channel * n_timestep], n_timestep };
    window.data.par_chunks_mut(n_timestep.max(1)).enumerate().for_each(|(i, row)| {
        let (mean, sd) = (scale.mean[i], scale.sd[i]);
        row.iter_mut().zip(&block.channel(i)[from..to]).for_each(|(z, x)| *z = (x - mean) / sd);
    });
    window
}

impl Components {
    /// At most `n_component` components of timesteps `range` of a recording (counted over all pieces), its channels in
    /// units of `scale`, embedded with `n_lag` lags.
    pub fn fit(
        source: &mut Source,
        scale: &Scale,
        range: Range<usize>,
        (n_lag, n_component): (usize, usize),
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let n_channel = source.info().n_channel();
        let width = n_channel.saturating_mul(n_lag);
        let what = "lags would be embedded in more numbers than their covariance has room for";
        ensure!(width <= WIDTH_MAX, Kind::Usage, "{n_channel} channels with {n_lag} {what}: {WIDTH_MAX} are possible");
        let mut sums = LagSums::new(n_channel, n_lag);
        source.blocks(|start, block, last| {
            let inside = |t: usize| t.saturating_sub(start).min(block.n_timestep);
            sums.push(&standardised(block, scale, inside(range.start), inside(range.end)));
            if last {
                sums.gap();
            }
            progress(block.n_timestep)
        })?;
        let (n_row, mean, covariance) = sums.finish();
        ensure!(n_row > 1, Kind::TooShort, "no unbroken stretch of {} is longer than {n_lag} timesteps", source.label);
        let total = (0..width).map(|i| covariance[i * width + i]).sum();
        let mut pairs = eigen::leading(&covariance, width, n_component);
        let largest = pairs.values.first().copied().unwrap_or(0.0);
        // A constant's variance is not quite zero: it is a mean of squares less the square of a mean.
        let least = (ROUNDING * mean.iter().map(|m| m * m).sum::<f64>()).max(RANK * largest);
        let kept = pairs.values.iter().take_while(|&&value| value > least).count();
        ensure!(kept > 0, Kind::ZeroVariance, "no channel of {} ever changes", source.label);
        pairs.vectors = pairs.vectors.chunks(pairs.values.len()).flat_map(|row| row[..kept].to_vec()).collect();
        let mut projected = vec![0.0; kept];
        let directions = View::rows(&pairs.vectors, (width, kept), kept);
        add_product(&mut projected, 0.0, 1.0, View::rows(&mean, (1, width), width), directions);
        let sd = pairs.values[..kept].iter().map(|value| value.sqrt()).collect();
        Ok(Self { n_lag, n_component: kept, directions: pairs.vectors, mean: projected, sd, total })
    }

    /// The share of the variance that the components hold.
    pub fn explained(&self) -> f64 {
        self.sd.iter().map(|sd| sd * sd).sum::<f64>() / self.total
    }

    /// The components of timesteps `range` of a recording, standardised as those they were found in. A piece shorter than
    /// the embedding has no rows; of every other those begin and end (n_lag − 1) / 2 timesteps inside.
    pub fn series(
        &self,
        source: &mut Source,
        scale: &Scale,
        range: Range<usize>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Series> {
        let n_channel = source.info().n_channel();
        let mut series = Series { n_dim: self.n_component, ..Series::default() };
        let (mut carry, mut start) = (Window::default(), 0);
        let mut piece = 0;
        source.blocks(|at, block, last| {
            let inside = |t: usize| t.saturating_sub(at).min(block.n_timestep);
            let both = carry.extend(n_channel, &standardised(block, scale, inside(range.start), inside(range.end)));
            self.project(&both, n_channel, &mut series.data);
            carry = both.last(n_channel, self.n_lag - 1);
            if last {
                carry = Window::default();
                if series.len() > start {
                    series.segments.push(start..series.len());
                    series.centres.push(range.start.max(piece) + (self.n_lag - 1) / 2);
                }
                (start, piece) = (series.len(), at + block.n_timestep);
            }
            progress(block.n_timestep)
        })?;
        Ok(series)
    }

    /// Appends a row for every timestep that has all its lags in the window.
    fn project(&self, window: &Window, n_channel: usize, data: &mut Vec<f32>) {
        const ROWS: usize = 256;
        let (d, n) = (self.n_component, (window.n_timestep + 1).saturating_sub(self.n_lag));
        let first = data.len();
        data.resize(first + n * d, 0.0);
        data[first..].par_chunks_mut(ROWS * d).enumerate().for_each(|(chunk, out)| {
            let rows = out.len() / d;
            let mut sum = vec![0.0; rows * d];
            for (lag, part) in self.directions.chunks(n_channel * d).enumerate() {
                let from = chunk * ROWS + lag;
                let block = View::rows(&window.data[from..], (n_channel, rows), window.n_timestep).transposed();
                add_product(&mut sum, 1.0, 1.0, block, View::rows(part, (n_channel, d), d));
            }
            for (out, sum) in out.chunks_mut(d).zip(sum.chunks(d)) {
                for (i, (out, sum)) in out.iter_mut().zip(sum).enumerate() {
                    *out = ((sum - self.mean[i]) / self.sd[i]) as f32;
                }
            }
        });
    }
}
