//! Which element of a matrix which lane holds, in which register, in which bits: the fragment tables of the PTX manual.
//!
//! All `m16n8` shapes follow one rule. A register holds `e = 32 / bits` elements. Lanes are numbered `4 · group + t`.
//! A and B are cut along k into pieces of `4 · e`; in a piece, lane `t` of a group holds `e` neighbours.

/// A place in a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Row.
    pub row: usize,
    /// Column.
    pub column: usize,
}

/// Of A (16 × k): the cell of element `index` of `register` of `lane`, with `elements` to a register.
#[inline(always)]
pub const fn a_cell(lane: usize, register: usize, index: usize, elements: usize) -> Cell {
    let (group, t) = (lane / 4, lane % 4);
    Cell { row: group + 8 * (register % 2), column: register / 2 * 4 * elements + t * elements + index }
}

/// Of B (k × 8).
#[inline(always)]
pub const fn b_cell(lane: usize, register: usize, index: usize, elements: usize) -> Cell {
    let (group, t) = (lane / 4, lane % 4);
    Cell { row: register * 4 * elements + t * elements + index, column: group }
}

/// Of C and D (16 × 8): the cell of value `index` (0 to 3). With 32-bit values, `index` is the register; with 16-bit
/// ones, register `index / 2` holds it in its half `index % 2`.
#[inline(always)]
pub const fn c_cell(lane: usize, index: usize) -> Cell {
    let (group, t) = (lane / 4, lane % 4);
    Cell { row: group + 8 * (index / 2), column: 2 * t + index % 2 }
}

/// Of an 8 × 8 matrix of 16-bit elements as `ldmatrix`, `stmatrix` and `movmatrix` hold it: half `index` (0 low, 1
/// high) of `lane`.
#[inline(always)]
pub const fn matrix_cell(lane: usize, index: usize, transposed: bool) -> Cell {
    let (group, t) = (lane / 4, lane % 4);
    let pair = 2 * t + index;
    if transposed { Cell { row: pair, column: group } } else { Cell { row: group, column: pair } }
}
