//! A number that knows how wrong an f32 computation of it may be, twice: in the worst case, and as a rule.
//!
//! `v` is the value in f64. `e` bounds the distance to what any f32 computation with the same operations gives, in any
//! order of summation, fused or not. With u = 2⁻²⁴, the rounding of one f32 operation:
//!
//! * one operation: the errors of its operands, propagated, plus u · |result|;
//! * a sum of n terms in any order: the terms' errors plus n · u · Σ|terms|; a sum of n products the same with n + 1;
//! * exp and GELU: the operand's error times the slope, plus what their own evaluation rounds (stated there).
//!
//! Through a stage of long sums such a bound grows until it forbids little, because it lets all roundings conspire. So
//! `variance` follows the same operations under the rule of independent roundings, spread evenly over ±u · |result|
//! (variance u²/3 · result²): variances add where bounds do. A result must keep the bound and lie within
//! [`Number::DEVIATIONS`] standard deviations. Every tolerance of a test follows from the arithmetic of the very numbers in
//! it. Terms in u² are covered by a factor of 1.01.

use std::iter::Sum;
use std::ops::{Add, Div, Mul, Sub};

/// Half a unit in the last place of an f32 in [1, 2).
pub const U: f64 = 1.0 / 16_777_216.0;
/// Results below the smallest normal f32 may be flushed to zero.
pub const TINY: f64 = f32::MIN_POSITIVE as f64;

#[derive(Debug, Clone, Copy, Default)]
pub struct Number {
    pub v: f64,
    pub e: f64,
    pub variance: f64,
}

/// Variance of one rounding of `v`.
fn rounding(v: f64) -> f64 {
    (U * v).powi(2) / 3.0
}

impl Number {
    /// Independent errors beyond six never happen; the rest is for those that are not independent, such as that of a
    /// row's mean, which all of the row shares.
    pub const DEVIATIONS: f64 = 10.0;

    pub fn new(v: f64, e: f64, variance: f64) -> Self {
        Self { v, e: 1.01 * e, variance }
    }

    /// A number whose error is no sum of roundings that could be told apart.
    pub fn within(v: f64, e: f64) -> Self {
        Self::new(v, e, e * e)
    }

    pub fn sqrt(self) -> Self {
        let root = self.v.sqrt();
        let low = (self.v - self.e).max(0.0).sqrt();
        Self::new(root, root - low + 2.0 * U * root, self.variance / (4.0 * self.v) + 4.0 * rounding(root))
    }

    /// exp of a number, evaluated as a power of two: the argument times log2(e), rounded twice, then a polynomial whose
    /// relative error is at most 2⁻²³, which is 2u.
    pub fn exp(self) -> Self {
        let v = self.v.exp();
        let own = v * U * (2.0 + 2.0 * self.v.abs()) + TINY;
        Self::new(v, v * self.e.exp_m1() + own, v * v * self.variance + own * own)
    }

    /// Whether a device's value is as near as it must be.
    /// Where the same rounding happens `repeats` times in one sum, deviations grow by the root of that.
    pub fn allows(self, value: f32, repeats: usize) -> bool {
        (f64::from(value) - self.v).abs() <= self.e.min(self.deviation() * (repeats as f64).sqrt()) + TINY
    }

    /// As far as independent roundings lead.
    pub fn deviation(self) -> f64 {
        Self::DEVIATIONS * self.variance.sqrt()
    }
}

impl From<f32> for Number {
    fn from(value: f32) -> Self {
        Self { v: f64::from(value), e: 0.0, variance: 0.0 }
    }
}

impl From<f64> for Number {
    fn from(v: f64) -> Self {
        Self { v, e: 0.0, variance: 0.0 }
    }
}

impl Add for Number {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let v = self.v + other.v;
        Self::new(v, self.e + other.e + U * v.abs(), self.variance + other.variance + rounding(v))
    }
}

impl Sub for Number {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        let v = self.v - other.v;
        Self::new(v, self.e + other.e + U * v.abs(), self.variance + other.variance + rounding(v))
    }
}

impl Mul for Number {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let v = self.v * other.v;
        let e = self.v.abs() * other.e + other.v.abs() * self.e + self.e * other.e;
        let variance = self.v.powi(2) * other.variance + other.v.powi(2) * self.variance;
        Self::new(v, e + U * v.abs(), variance + rounding(v))
    }
}

impl Div for Number {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let v = self.v / other.v;
        let least = (other.v.abs() - other.e).max(0.0);
        let variance = (self.variance + v * v * other.variance) / other.v.powi(2);
        Self::new(v, (self.e + v.abs() * other.e) / least + 2.0 * U * v.abs(), variance + 4.0 * rounding(v))
    }
}

impl Sum for Number {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        let (mut n, mut v, mut e, mut size, mut variance) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for term in terms {
            n += 1.0;
            v += term.v;
            e += term.e;
            size += term.v.abs();
            variance += term.variance + rounding(v);
        }
        Self::new(v, e + n * U * (size + e), variance)
    }
}

/// Σ a·b.
pub fn dot<'a>(a: impl Iterator<Item = &'a Number>, b: impl Iterator<Item = &'a Number>) -> Number {
    let (mut n, mut v, mut e, mut size, mut variance) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (a, b) in a.zip(b) {
        n += 1.0;
        v += a.v * b.v;
        variance += a.v * a.v * b.variance + b.v * b.v * a.variance + rounding(a.v * b.v) + rounding(v);
        e += a.v.abs() * b.e + b.v.abs() * a.e + a.e * b.e;
        size += (a.v * b.v).abs();
    }
    Number::new(v, e + (n + 1.0) * U * (size + e), variance)
}

/// A matrix of them.
#[derive(Debug, Clone, Default)]
pub struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub data: Vec<Number>,
}

impl Matrix {
    pub fn new(rows: usize, columns: usize, data: Vec<Number>) -> Self {
        assert_eq!(data.len(), rows * columns);
        Self { rows, columns, data }
    }

    pub fn exact(rows: usize, columns: usize, data: &[f32]) -> Self {
        Self::new(rows, columns, data.iter().map(|&x| x.into()).collect())
    }

    pub fn from_fn(rows: usize, columns: usize, f: impl Fn(usize, usize) -> Number) -> Self {
        let f = &f;
        Self::new(rows, columns, (0..rows).flat_map(|i| (0..columns).map(move |j| f(i, j))).collect())
    }

    pub fn at(&self, row: usize, column: usize) -> Number {
        self.data[row * self.columns + column]
    }

    pub fn row(&self, row: usize) -> &[Number] {
        &self.data[row * self.columns..][..self.columns]
    }

    pub fn transposed(&self) -> Self {
        Self::from_fn(self.columns, self.rows, |i, j| self.at(j, i))
    }

    /// Columns `first .. first + n` of rows from `row` on.
    pub fn part(&self, row: usize, first: usize, n: usize) -> Self {
        Self::from_fn(self.rows - row, n, |i, j| self.at(row + i, first + j))
    }

    pub fn times(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows);
        let other = other.transposed();
        Self::from_fn(self.rows, other.rows, |i, j| dot(self.row(i).iter(), other.row(j).iter()))
    }

    pub fn plus(&self, other: &Self) -> Self {
        assert_eq!((self.rows, self.columns), (other.rows, other.columns));
        Self::from_fn(self.rows, self.columns, |i, j| self.at(i, j) + other.at(i, j))
    }

    pub fn plus_row(&self, row: &[Number]) -> Self {
        Self::from_fn(self.rows, self.columns, |i, j| self.at(i, j) + row[j])
    }

    /// The sum of the rows.
    pub fn column_sums(&self) -> Vec<Number> {
        (0..self.columns).map(|j| (0..self.rows).map(|i| self.at(i, j)).sum()).collect()
    }
}
