//! `ldmatrix`, `stmatrix`, `movmatrix`: 8 × 8 matrices of 16-bit elements between rows and fragments.

use super::WarpRegister;
use super::layout::matrix_cell;

/// An 8 × 8 matrix of 16-bit elements: 8 rows of 16 bytes, as four words each, the element of lower column in the
/// lower half.
pub type Rows = [[u32; 4]; 8];

/// Matrices of `.x1`, `.x2`, `.x4`: lane `8 · matrix + row` holds the address of that row. Of the lanes beyond, the
/// addresses are not used.
#[inline(always)]
pub const fn address_lane(matrix: usize, row: usize) -> usize {
    8 * matrix + row
}

/// `ldmatrix`: the fragment of a matrix in memory.
#[inline(always)]
pub fn to_fragment(rows: &Rows, transposed: bool) -> WarpRegister {
    let mut fragment = [0; 32];
    if !transposed {
        // Row by row, four lanes to a row: the order of memory.
        for (lane, word) in fragment.iter_mut().enumerate() {
            *word = rows[lane / 4][lane % 4];
        }
        return fragment;
    }
    for (lane, word) in fragment.iter_mut().enumerate() {
        let half = |index| {
            let cell = matrix_cell(lane, index, true);
            rows[cell.row][cell.column / 2] >> (16 * (cell.column % 2)) & 0xffff
        };
        *word = half(0) | half(1) << 16;
    }
    fragment
}

/// `stmatrix`: the rows that a fragment stands for.
#[inline(always)]
pub fn to_rows(fragment: &WarpRegister, transposed: bool) -> Rows {
    let mut rows = [[0; 4]; 8];
    for (lane, &word) in fragment.iter().enumerate() {
        if !transposed {
            rows[lane / 4][lane % 4] = word;
            continue;
        }
        for index in 0..2 {
            let cell = matrix_cell(lane, index, true);
            rows[cell.row][cell.column / 2] |= (word >> (16 * index) & 0xffff) << (16 * (cell.column % 2));
        }
    }
    rows
}

/// `movmatrix.trans`: the fragment of the transposed matrix.
#[inline(always)]
pub fn transpose(fragment: &WarpRegister) -> WarpRegister {
    to_fragment(&to_rows(fragment, false), true)
}
