//! Decoding: from which condition is a trial? What a decoder learns from generated trials, tested on real ones, says how
//! much of what tells conditions apart the model has (the paper, sections 6.1 and 6.2).

pub mod lda;
pub mod network;
pub mod section;
pub mod trials;

/// Trials as rows of numbers, each with its condition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Labelled {
    /// Numbers in a row.
    pub n_feature: usize,
    /// Row after row.
    pub rows: Vec<f64>,
    /// The condition of each row, from 0.
    pub labels: Vec<usize>,
}

impl Labelled {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// One row.
    pub fn row(&self, index: usize) -> &[f64] {
        &self.rows[index * self.n_feature..][..self.n_feature]
    }

    /// Some rows, in this order.
    pub fn pick(&self, rows: &[usize]) -> Self {
        Self {
            n_feature: self.n_feature,
            rows: rows.iter().flat_map(|&row| self.row(row).to_vec()).collect(),
            labels: rows.iter().map(|&row| self.labels[row]).collect(),
        }
    }

    /// These rows and then others.
    pub fn and(&self, other: &Self) -> Self {
        Self {
            n_feature: self.n_feature,
            rows: [&self.rows[..], &other.rows[..]].concat(),
            labels: [&self.labels[..], &other.labels[..]].concat(),
        }
    }
}

/// The share of labels that a decoder finds.
pub fn accuracy(found: &[usize], labels: &[usize]) -> f64 {
    found.iter().zip(labels).filter(|(a, b)| a == b).count() as f64 / labels.len().max(1) as f64
}
