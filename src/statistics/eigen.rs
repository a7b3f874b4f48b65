//! The leading eigenvectors of a symmetric matrix.
//!
//! Small matrices are decomposed as a whole. Of large ones (the covariance of embedded channels has 4590 rows) the few
//! leading vectors are found by subspace iteration with Rayleigh–Ritz projection (Halko, Martinsson and Tropp 2011): its
//! work is products of matrices.

use super::product::{View, add_product};
use crate::random::{Purpose, keyed};
use nalgebra::DMatrix;
use rand::RngExt;
use rand_distr::StandardNormal;
use rayon::prelude::*;

/// Rows up to which a matrix is decomposed as a whole.
const SMALL: usize = 400;
/// Iterations at most. The error falls by the ratio of the eigenvalues at the ends of the guard vectors each time; where
/// that ratio is 1, any basis of those vectors is as good.
const ITERATIONS: usize = 60;

/// Eigenvalues in falling order with their vectors: `vectors` is `[n, k]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Leading {
    /// Largest first.
    pub values: Vec<f64>,
    /// A column each.
    pub vectors: Vec<f64>,
}

/// The `k` leading eigenpairs of the symmetric `n × n` matrix; the largest element of each vector is positive.
pub fn leading(matrix: &[f64], n: usize, k: usize) -> Leading {
    assert_eq!(matrix.len(), n * n);
    let k = k.min(n);
    let mut pairs = if n <= SMALL || 3 * k >= n { whole(matrix, n, k) } else { subspace(matrix, n, k) };
    for column in 0..k {
        let at = |i: usize| pairs.vectors[i * k + column];
        let largest = (0..n).max_by(|&a, &b| at(a).abs().total_cmp(&at(b).abs())).unwrap_or(0);
        if at(largest) < 0.0 {
            (0..n).for_each(|i| pairs.vectors[i * k + column] *= -1.0);
        }
    }
    pairs
}

fn whole(matrix: &[f64], n: usize, k: usize) -> Leading {
    let eigen = DMatrix::from_row_slice(n, n, matrix).symmetric_eigen();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    order.truncate(k);
    let values = order.iter().map(|&column| eigen.eigenvalues[column]).collect();
    let vectors = (0..n).flat_map(|row| order.iter().map(move |&c| (row, c))).map(|at| eigen.eigenvectors[at]);
    Leading { values, vectors: vectors.collect() }
}

fn subspace(matrix: &[f64], n: usize, k: usize) -> Leading {
    // Twice as many vectors as asked for: the surplus decides how fast the last of them converges.
    let width = (2 * k + 10).min(n);
    let mut generator = keyed(0, Purpose::States, u64::MAX);
    let mut basis: Vec<f64> = (0..n * width).map(|_| generator.sample::<f64, _>(StandardNormal)).collect();
    let mut values = vec![0.0; k];
    for _ in 0..ITERATIONS {
        let orthonormal = DMatrix::from_row_slice(n, width, &basis).qr().q();
        let columns: Vec<f64> =
            (0..n).flat_map(|i| (0..width).map(move |j| (i, j))).map(|at| orthonormal[at]).collect();
        let image = times(matrix, &columns, n, width);
        let mut small = vec![0.0; width * width];
        let rows = View::rows(&columns, (n, width), width);
        add_product(&mut small, 0.0, 1.0, rows.transposed(), View::rows(&image, (n, width), width));
        let ritz = whole(&small, width, width);
        // The image of the Ritz vectors is the next basis; its columns are sorted, so the leading ones are the first.
        let turn = View::rows(&ritz.vectors, (width, width), width);
        add_product(&mut basis, 0.0, 1.0, View::rows(&image, (n, width), width), turn);
        let moved = ritz.values.iter().zip(&values).map(|(new, old)| (new - old).abs()).fold(0.0, f64::max);
        values = ritz.values[..k].to_vec();
        // An eigenvalue's error is the square of its vector's: 1e-13 of the largest leaves vectors to 1e-6.
        if moved <= 1e-13 * values[0].abs() {
            let mut turned = vec![0.0; n * width];
            add_product(&mut turned, 0.0, 1.0, rows, turn);
            let vectors = turned.chunks(width).flat_map(|row| row[..k].to_vec()).collect();
            return Leading { values, vectors };
        }
    }
    let orthonormal = DMatrix::from_row_slice(n, width, &basis).qr().q();
    let vectors = (0..n).flat_map(|i| (0..k).map(move |j| (i, j))).map(|at| orthonormal[at]).collect();
    Leading { values, vectors }
}

/// matrix · columns, rows in parallel.
fn times(matrix: &[f64], columns: &[f64], n: usize, width: usize) -> Vec<f64> {
    const ROWS: usize = 256;
    let mut out = vec![0.0; n * width];
    out.par_chunks_mut(ROWS * width).zip(matrix.par_chunks(ROWS * n)).for_each(|(out, rows)| {
        let left = View::rows(rows, (rows.len() / n, n), n);
        add_product(out, 0.0, 1.0, left, View::rows(columns, (n, width), width));
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix with the eigenvalues 100 · ratio^i, turned by reflections.
    fn matrix(n: usize, ratio: f64) -> Vec<f64> {
        let mut generator = keyed(3, Purpose::Control, 0);
        let mut turned = DMatrix::from_fn(n, n, |i, j| if i == j { 100.0 * ratio.powi(i as i32) } else { 0.0 });
        for _ in 0..3 {
            let v = nalgebra::DVector::from_fn(n, |_, _| generator.sample::<f64, _>(StandardNormal)).normalize();
            let reflection = DMatrix::identity(n, n) - 2.0 * &v * v.transpose();
            turned = &reflection * turned * &reflection;
        }
        turned.iter().copied().collect()
    }

    #[test]
    fn both_ways_find_the_leading_pairs() {
        for (n, k) in [(30, 4), (SMALL + 1, 7), (30, 30), (30, 50)] {
            let a = matrix(n, 0.9);
            let pairs = leading(&a, n, k);
            let k = k.min(n);
            for (column, &value) in pairs.values.iter().enumerate() {
                let exact = 100.0 * 0.9f64.powi(column as i32);
                assert!((value - exact).abs() < 1e-9 * 100.0, "{n} {k} {column}: {value} {exact}");
                let v: Vec<f64> = (0..n).map(|i| pairs.vectors[i * k + column]).collect();
                for i in 0..n {
                    let image: f64 = (0..n).map(|j| a[i * n + j] * v[j]).sum();
                    assert!((image - value * v[i]).abs() < 1e-4, "{n} {k} {column} {i}");
                }
            }
        }
    }

    #[test]
    fn equal_eigenvalues_and_no_rank_do_no_harm() {
        for n in [20, SMALL + 20] {
            for scale in [0.0, 1.0] {
                let a: Vec<f64> = (0..n * n).map(|at| if at / n == at % n { scale } else { 0.0 }).collect();
                let pairs = leading(&a, n, 5);
                assert!(pairs.values.iter().all(|v| (v - scale).abs() < 1e-12), "{:?}", pairs.values);
                assert!(pairs.vectors.iter().all(|v| v.is_finite()));
            }
        }
    }
}
