//! Products of matrices in float64, by the `matrixmultiply` library, behind a checked interface.
//!
//! Its order of sums depends on the shapes alone, so equal calls give equal bits on one machine.

/// A matrix as it lies in memory: element (i, j) at `i · row + j · column`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: &'a [f64],
    shape: (usize, usize),
    strides: (usize, usize),
}

impl<'a> View<'a> {
    /// A matrix whose rows are `ld` elements apart.
    ///
    /// # Panics
    /// If `data` does not hold it.
    pub fn rows(data: &'a [f64], shape: (usize, usize), ld: usize) -> Self {
        assert!(shape.1 <= ld.max(1) || shape.0 <= 1, "rows that overlap");
        Self::strided(data, shape, (ld, 1))
    }

    fn strided(data: &'a [f64], shape: (usize, usize), strides: (usize, usize)) -> Self {
        let last = shape.0.saturating_sub(1) * strides.0 + shape.1.saturating_sub(1) * strides.1;
        assert!(shape.0 == 0 || shape.1 == 0 || last < data.len(), "{shape:?} needs {last}, has {}", data.len());
        Self { data, shape, strides }
    }

    /// The same elements with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        let ((m, n), (row, column)) = (self.shape, self.strides);
        Self { data: self.data, shape: (n, m), strides: (column, row) }
    }
}

/// `out = keep · out + factor · left · right`, where `out` has contiguous rows.
///
/// # Panics
/// If the shapes do not fit each other or `out`.
pub fn add_product(out: &mut [f64], keep: f64, factor: f64, left: View, right: View) {
    let ((m, k), (inner, n)) = (left.shape, right.shape);
    assert_eq!(k, inner, "the inner sizes of a product");
    assert_eq!(out.len(), m * n, "the size of a product");
    let signed = |strides: (usize, usize)| (strides.0 as isize, strides.1 as isize);
    let ((rsa, csa), (rsb, csb)) = (signed(left.strides), signed(right.strides));
    // SAFETY: `View` has checked that every element of both operands lies in its slice, `out` holds m · n elements in
    // rows of n, and a mutable slice overlaps no other.
    unsafe {
        let (a, b, c) = (left.data.as_ptr(), right.data.as_ptr(), out.as_mut_ptr());
        matrixmultiply::dgemm(m, k, n, factor, a, rsa, csa, b, rsb, csb, keep, c, n as isize, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_definition_for_any_shape_and_transposition() {
        let value = |i: usize| ((i * 7919) % 23) as f64 - 11.0;
        for (m, k, n) in [(1, 1, 1), (3, 5, 2), (8, 4, 8), (9, 17, 13), (2, 0, 3), (0, 2, 2), (33, 65, 31)] {
            let a: Vec<f64> = (0..m * (k + 1)).map(value).collect();
            let b: Vec<f64> = (0..n * k).map(|i| value(i + 5)).collect();
            let mut out = vec![1.0; m * n];
            let right = View::rows(&b, (n, k), k).transposed();
            add_product(&mut out, 2.0, -1.0, View::rows(&a, (m, k), k + 1), right);
            for (at, &out) in out.iter().enumerate() {
                let (i, j) = (at / n, at % n);
                let sum: f64 = (0..k).map(|p| a[i * (k + 1) + p] * b[j * k + p]).sum();
                // Whole numbers below 2⁵³: exact in any order.
                assert_eq!(out, 2.0 - sum, "{m} {k} {n} {at}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "needs")]
    fn a_view_beyond_its_slice_is_refused() {
        View::rows(&[0.0; 5], (2, 3), 3);
    }
}
