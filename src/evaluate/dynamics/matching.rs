//! Which state of one model is which of another, and how far two distributions are apart.

use super::components::Components;
use super::hmm::Hmm;
use crate::statistics::product::{View, add_product};

/// The assignment of rows to columns with the largest sum of `gain[row * n + column]`: for each row its column (Kuhn 1955,
/// with potentials, in n³ steps).
pub fn assign(gain: &[f64], n: usize) -> Vec<usize> {
    assert_eq!(gain.len(), n * n);
    let cost = |row: usize, column: usize| -gain[row * n + column];
    // One more row and column than there are, as a place to begin from; `owner[column]` is the row that has it.
    let (mut u, mut v) = (vec![0.0; n], vec![0.0; n + 1]);
    let mut owner = vec![None; n + 1];
    for row in 0..n {
        owner[n] = Some(row);
        let mut at = n;
        let (mut least, mut before, mut done) = (vec![f64::INFINITY; n], vec![n; n], vec![false; n + 1]);
        // Along the cheapest path of exchanges to a column that nobody has.
        while let Some(holder) = owner[at] {
            done[at] = true;
            let (mut step, mut next) = (f64::INFINITY, n);
            for column in (0..n).filter(|&c| !done[c]) {
                let reduced = cost(holder, column) - u[holder] - v[column];
                if reduced < least[column] {
                    (least[column], before[column]) = (reduced, at);
                }
                if least[column] < step {
                    (step, next) = (least[column], column);
                }
            }
            for column in 0..=n {
                match (done[column], owner[column]) {
                    (true, Some(holder)) => {
                        u[holder] += step;
                        v[column] -= step;
                    }
                    _ if column < n => least[column] -= step,
                    _ => {}
                }
            }
            at = next;
        }
        while at != n {
            let from = before[at];
            owner[at] = owner[from];
            at = from;
        }
    }
    let mut columns = vec![0; n];
    for (column, row) in owner[..n].iter().enumerate() {
        columns[row.expect("every column has a row")] = column;
    }
    columns
}

/// For each state of `a` the state of `b` that is most like it: the assignment with the largest sum of correlations between
/// covariances, those of `b` in the coordinates of `a`, each less the mean over its model's states.
pub fn match_states(a: (&Hmm, &Components), b: (&Hmm, &Components)) -> Vec<usize> {
    let (n, m) = (a.0.n_dim, b.0.n_dim);
    // From standardised components of b to those of a: D_a⁻¹ U_aᵀ U_b D_b.
    let mut turn = vec![0.0; n * m];
    let width = a.1.directions.len() / n;
    let (ours, theirs) = (View::rows(&a.1.directions, (width, n), n), View::rows(&b.1.directions, (width, m), m));
    add_product(&mut turn, 0.0, 1.0, ours.transposed(), theirs);
    for (at, x) in turn.iter_mut().enumerate() {
        *x *= b.1.sd[at % m] / a.1.sd[at / m];
    }
    let turned = |covariance: &Vec<f64>| {
        let (mut half, mut whole) = (vec![0.0; n * m], vec![0.0; n * n]);
        let turn = View::rows(&turn, (n, m), m);
        add_product(&mut half, 0.0, 1.0, turn, View::rows(covariance, (m, m), m));
        add_product(&mut whole, 0.0, 1.0, View::rows(&half, (n, m), m), turn.transposed());
        whole
    };
    let ours = centred(a.0.covariances.clone());
    let theirs = centred(b.0.covariances.iter().map(turned).collect());
    let gain: Vec<f64> = ours.iter().flat_map(|x| theirs.iter().map(|y| correlation(x, y))).collect();
    assign(&gain, a.0.n_state)
}

/// Each less the mean of all.
fn centred(mut all: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let n = all.len() as f64;
    let mean: Vec<f64> = (0..all[0].len()).map(|at| all.iter().map(|x| x[at]).sum::<f64>() / n).collect();
    all.iter_mut().for_each(|x| x.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean));
    all
}

/// Pearson's correlation; 0 where one of the two never changes.
pub fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().max(1) as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        (ab, aa, bb) = (ab + x * y, aa + x * x, bb + y * y);
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

/// Wasserstein-1 distance of two samples: the area between their distribution functions (Vallender 1974). NaN where one is
/// empty.
pub fn wasserstein(a: &[f64], b: &[f64]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return f64::NAN;
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let rises = a.iter().map(|&x| (x, 1.0 / n));
    let falls = b.iter().map(|&x| (x, -1.0 / m));
    let mut steps: Vec<(f64, f64)> = rises.chain(falls).collect();
    steps.sort_unstable_by(|x, y| x.0.total_cmp(&y.0));
    let (mut gap, mut area) = (0.0, 0.0f64);
    for pair in steps.windows(2) {
        gap += pair[0].1;
        area += f64::abs(gap) * (pair[1].0 - pair[0].0);
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_assignment_of_all() {
        let value = |i: usize| ((i * 2_654_435_761) % 1009) as f64 / 1009.0;
        for n in [1, 2, 5, 6] {
            for shift in 0..20 {
                let gain: Vec<f64> = (0..n * n).map(|i| value(i + 37 * shift)).collect();
                let columns = assign(&gain, n);
                let mut sorted = columns.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..n).collect::<Vec<_>>());
                let total: f64 = columns.iter().enumerate().map(|(i, &j)| gain[i * n + j]).sum();
                // By trying every order.
                fn best(gain: &[f64], n: usize, row: usize, used: usize) -> f64 {
                    let free = (0..n).filter(|j| used >> j & 1 == 0);
                    let with = |j: usize| gain[row * n + j] + best(gain, n, row + 1, used | 1 << j);
                    if row == n { 0.0 } else { free.map(with).fold(f64::NEG_INFINITY, f64::max) }
                }
                assert!((total - best(&gain, n, 0, 0)).abs() < 1e-12, "{n} {shift}");
            }
        }
    }

    #[test]
    fn distances_by_hand() {
        assert_eq!(wasserstein(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert!((wasserstein(&[0.0, 1.0], &[5.0, 6.0, 5.0, 6.0]) - 5.0).abs() < 1e-15);
        // scipy.stats.wasserstein_distance([0, 1, 3], [5, 6]) and ([3.4, 3.9, 7.5], [4.5, 1.4])
        assert!((wasserstein(&[0.0, 1.0, 3.0], &[6.0, 5.0]) - 25.0 / 6.0).abs() < 1e-14);
        assert!((wasserstein(&[3.4, 3.9, 7.5], &[4.5, 1.4]) - 2.1833333333333336).abs() < 1e-14);
        assert!(wasserstein(&[], &[1.0]).is_nan());
        assert_eq!(correlation(&[1.0, 2.0, 3.0], &[-2.0, -4.0, -6.0]), -1.0);
        assert_eq!(correlation(&[1.0, 1.0], &[0.0, 1.0]), 0.0);
    }
}
