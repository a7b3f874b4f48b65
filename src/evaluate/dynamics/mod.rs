//! Hidden-state dynamics: which of a few patterns of activity is on when, how long it lasts, and how often it returns.
//!
//! The paper's analysis (section 5.3), with full-batch Baum–Welch for the authors' stochastic training:
//!
//! 1. [`embedding`]: every timestep stands for its neighbourhood, 15 lags of every channel;
//! 2. [`components`]: the principal components of that, each with standard deviation 1;
//! 3. [`hmm`] and [`fit`]: a hidden Markov model with a Gaussian in each state;
//! 4. [`summary`]: the statistics of the states, as osl-dynamics defines them;
//! 5. [`matching`]: which state of one model is which of another;
//! 6. [`compare`], [`section`], [`figures`]: all recordings side by side.

pub mod compare;
pub mod components;
pub mod embedding;
pub mod figures;
pub mod fit;
pub mod hmm;
pub mod intervals;
pub mod matching;
pub mod section;
pub mod summary;

use std::ops::Range;

/// What the model is fitted to: rows of numbers, in stretches that follow each other with gaps between.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Numbers in a row.
    pub n_dim: usize,
    /// Row after row, a timestep each.
    pub data: Vec<f32>,
    /// Stretches without a gap, in rows, sorted.
    pub segments: Vec<Range<usize>>,
    /// The timestep, over all pieces of the recording, that the first row of each stretch stands for.
    pub centres: Vec<usize>,
}

impl Series {
    /// Rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.n_dim.max(1)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Some rows, as float64.
    pub fn rows(&self, rows: Range<usize>) -> Vec<f64> {
        self.data[rows.start * self.n_dim..rows.end * self.n_dim].iter().copied().map(f64::from).collect()
    }
}

/// How the hidden states are found.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Number of states.
    pub n_state: usize,
    /// Lags of the embedding, odd; 1 is the plain time domain.
    pub n_lag: usize,
    /// Principal components at most.
    pub n_component: usize,
    /// Whether each state has a mean of its own; else all are zero.
    pub means: bool,
    /// Models that are begun; the best after a few iterations is finished.
    pub n_init: usize,
    /// Iterations of the finished model at most.
    pub max_iter: usize,
    /// Seed of the beginnings.
    pub seed: u64,
}

impl Default for Options {
    /// The paper's (section 5.3).
    fn default() -> Self {
        Self { n_state: 12, n_lag: 15, n_component: 80, means: false, n_init: 3, max_iter: 100, seed: 0 }
    }
}
