//! Linear discriminant analysis with automatic shrinkage.
//!
//! As scikit-learn has it with `solver="lsqr", shrinkage="auto"`: the covariance of each class, its features standardised,
//! is drawn towards a multiple of the identity by the amount of Ledoit and Wolf (2004); the mean over the classes, weighted
//! by their sizes, is the covariance of all.

use super::Labelled;
use crate::statistics::product::{View, add_product};
use nalgebra::{DMatrix, DVector};
use rayon::prelude::*;

/// Variance within classes, over that between them, below which it counts as none.
const LEAST: f64 = 1e-12;

/// A fitted classifier.
#[derive(Debug, Clone, PartialEq)]
pub struct Lda {
    /// Classes that had trials, in rising order.
    classes: Vec<usize>,
    /// Weights of each class, `[class, feature]`.
    weights: Vec<f64>,
    intercepts: Vec<f64>,
}

impl Lda {
    /// Fits to labelled rows. A class needs two rows to have a covariance: one of a single row adds nothing to it.
    pub fn fit(train: &Labelled, n_class: usize) -> Self {
        let (n, p) = (train.len(), train.n_feature);
        let members = |class: usize| (0..n).filter(|&i| train.labels[i] == class).collect::<Vec<_>>();
        let groups: Vec<(usize, Vec<usize>)> =
            (0..n_class).map(|class| (class, members(class))).filter(|(_, rows)| !rows.is_empty()).collect();
        let parts: Vec<(Vec<f64>, Vec<f64>)> =
            groups.par_iter().map(|(_, rows)| mean_and_covariance(&train.pick(rows))).collect();
        let prior = |class: usize| groups[class].1.len() as f64 / n as f64;
        let mut covariance = vec![0.0; p * p];
        for (class, (_, own)) in parts.iter().enumerate() {
            covariance.iter_mut().zip(own).for_each(|(sum, x)| *sum += prior(class) * x);
        }
        // Where rows of a class never differ, scores would be infinite: what is left is a millionth of the distance of the
        // classes from each other.
        let average = (0..p).map(|j| covariance[j * p + j]).sum::<f64>() / p as f64;
        let mean = |j: usize| (0..parts.len()).map(|class| prior(class) * parts[class].0[j]).sum::<f64>();
        let spread = |j: usize| {
            let centre = mean(j);
            (0..parts.len()).map(|class| prior(class) * (parts[class].0[j] - centre).powi(2)).sum::<f64>()
        };
        let between = (0..p).map(spread).sum::<f64>() / p as f64;
        if average <= LEAST * between {
            let ridge = if between > 0.0 { LEAST * between } else { 1.0 };
            (0..p).for_each(|j| covariance[j * p + j] += ridge);
        }
        let lower = crate::evaluate::dynamics::hmm::cholesky(&covariance, p);
        let (mut weights, mut intercepts) = (Vec::new(), Vec::new());
        for (class, (mean, _)) in parts.iter().enumerate() {
            let half = lower.solve_lower_triangular(&DVector::from_column_slice(mean)).expect("a positive diagonal");
            let weight = lower.tr_solve_lower_triangular(&half).expect("a positive diagonal");
            intercepts.push(prior(class).ln() - 0.5 * half.norm_squared());
            weights.extend(weight.iter());
        }
        Self { classes: groups.iter().map(|(class, _)| *class).collect(), weights, intercepts }
    }

    /// ln p(class | row) but for what all classes share, `[row, class]`; classes without trials have none.
    pub fn scores(&self, test: &Labelled) -> Vec<f64> {
        let (n, k, p) = (test.len(), self.classes.len(), test.n_feature);
        let mut scores: Vec<f64> = (0..n).flat_map(|_| self.intercepts.iter().copied()).collect();
        let weights = View::rows(&self.weights, (k, p), p).transposed();
        add_product(&mut scores, 1.0, 1.0, View::rows(&test.rows, (n, p), p), weights);
        scores
    }

    /// Whether all weights are numbers; they are, but for rows whose squares overflow.
    pub fn is_finite(&self) -> bool {
        self.weights.iter().chain(&self.intercepts).all(|x| x.is_finite())
    }

    /// The likeliest class of each row.
    pub fn predict(&self, test: &Labelled) -> Vec<usize> {
        let k = self.classes.len();
        let best = |row: &[f64]| {
            (0..k).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).map_or(0, |class| self.classes[class])
        };
        self.scores(test).chunks(k).map(best).collect()
    }
}

/// The mean of some rows and their shrunk covariance.
fn mean_and_covariance(rows: &Labelled) -> (Vec<f64>, Vec<f64>) {
    let (n, p) = (rows.len(), rows.n_feature);
    let size = n as f64;
    let all = DMatrix::from_row_slice(n, p, &rows.rows);
    let mean: Vec<f64> = (0..p).map(|j| all.column(j).sum() / size).collect();
    let sd = |j: usize| (all.column(j).iter().map(|x| (x - mean[j]).powi(2)).sum::<f64>() / size).sqrt();
    // A feature that never changes is left in its own unit.
    let sds: Vec<f64> = (0..p).map(sd).map(|sd| if sd > 0.0 { sd } else { 1.0 }).collect();
    let mut x = rows.rows.clone();
    for row in x.chunks_mut(p) {
        row.iter_mut().enumerate().for_each(|(j, x)| *x = (*x - mean[j]) / sds[j]);
    }
    let view = View::rows(&x, (n, p), p);
    let mut covariance = vec![0.0; p * p];
    add_product(&mut covariance, 0.0, 1.0 / size, view.transposed(), view);
    let average = (0..p).map(|j| covariance[j * p + j]).sum::<f64>() / p as f64;
    let shrinkage = shrinkage(&x, &covariance, (n, p), average);
    for i in 0..p {
        for j in 0..p {
            let towards = if i == j { shrinkage * average } else { 0.0 };
            covariance[i * p + j] = ((1.0 - shrinkage) * covariance[i * p + j] + towards) * sds[i] * sds[j];
        }
    }
    (mean, covariance)
}

/// Ledoit and Wolf's share of the identity, for centred rows.
fn shrinkage(x: &[f64], covariance: &[f64], (n, p): (usize, usize), average: f64) -> f64 {
    let (size, width) = (n as f64, p as f64);
    let squares: f64 = covariance.iter().map(|c| c * c).sum();
    let fourth: f64 = x.chunks(p).map(|row| row.iter().map(|x| x * x).sum::<f64>().powi(2)).sum();
    let noise = (fourth / size - squares) / (width * size);
    let distance = (squares - width * average * average) / width;
    if noise.min(distance) <= 0.0 || distance <= 0.0 { 0.0 } else { noise.min(distance) / distance }
}
