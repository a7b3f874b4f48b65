//! Eight columns of a tile as one value: what `mma` computes with.
//!
//! Two implementations that give the same bits: plain arrays, and pairs of AVX registers (compilers do not find those
//! by themselves in the loops of `mma`).

/// Eight doubles.
pub(super) trait Row: Copy {
    fn load(values: &[f64; 8]) -> Self;
    fn store(self) -> [f64; 8];
    fn splat(value: f64) -> Self;
    fn plus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    /// The larger magnitude of each pair, `self` being magnitudes; NaN in `other` is passed over.
    fn larger(self, other: Self) -> Self;
    /// Towards zero, to whole numbers.
    fn truncate(self) -> Self;
    /// Bit by bit.
    fn and(self, mask: u64) -> Self;
}

/// The portable one.
#[derive(Clone, Copy)]
pub(super) struct Plain([f64; 8]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Plain(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Row for Plain {
    #[inline(always)]
    fn load(values: &[f64; 8]) -> Self {
        Plain(*values)
    }
    #[inline(always)]
    fn store(self) -> [f64; 8] {
        self.0
    }
    #[inline(always)]
    fn splat(value: f64) -> Self {
        Plain([value; 8])
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn times(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        self.zip(other, |a, b| if b.abs() > a { b.abs() } else { a })
    }
    #[inline(always)]
    fn truncate(self) -> Self {
        Plain(self.0.map(f64::trunc))
    }
    #[inline(always)]
    fn and(self, mask: u64) -> Self {
        Plain(self.0.map(|x| f64::from_bits(x.to_bits() & mask)))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx::Avx;

#[cfg(target_arch = "x86_64")]
mod avx {
    use super::Row;
    use std::arch::x86_64::*;

    /// Columns 0 to 3 and 4 to 7. Only for functions that run where AVX2 was found.
    #[derive(Clone, Copy)]
    pub(in crate::tensor) struct Avx(__m256d, __m256d);

    /// Applies an instruction to both halves.
    macro_rules! both {
        ($first:expr, $second:expr) => {
            // SAFETY: values of this type exist only in `mma_avx2`, which runs on processors that have AVX2.
            unsafe { Avx($first, $second) }
        };
    }

    impl Row for Avx {
        #[inline(always)]
        fn load(values: &[f64; 8]) -> Self {
            both!(_mm256_loadu_pd(values.as_ptr()), _mm256_loadu_pd(values.as_ptr().add(4)))
        }
        #[inline(always)]
        fn store(self) -> [f64; 8] {
            let mut values = [0.0; 8];
            // SAFETY: as above; eight values are written to eight places.
            unsafe {
                _mm256_storeu_pd(values.as_mut_ptr(), self.0);
                _mm256_storeu_pd(values.as_mut_ptr().add(4), self.1);
            }
            values
        }
        #[inline(always)]
        fn splat(value: f64) -> Self {
            both!(_mm256_set1_pd(value), _mm256_set1_pd(value))
        }
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            both!(_mm256_add_pd(self.0, other.0), _mm256_add_pd(self.1, other.1))
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            both!(_mm256_mul_pd(self.0, other.0), _mm256_mul_pd(self.1, other.1))
        }
        #[inline(always)]
        fn larger(self, other: Self) -> Self {
            // The instruction returns its second operand when either is NaN.
            let other = other.and(!(1 << 63));
            both!(_mm256_max_pd(other.0, self.0), _mm256_max_pd(other.1, self.1))
        }
        #[inline(always)]
        fn truncate(self) -> Self {
            const TRUNCATE: i32 = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
            both!(_mm256_round_pd::<TRUNCATE>(self.0), _mm256_round_pd::<TRUNCATE>(self.1))
        }
        #[inline(always)]
        fn and(self, mask: u64) -> Self {
            let mask = Self::splat(f64::from_bits(mask));
            both!(_mm256_and_pd(self.0, mask.0), _mm256_and_pd(self.1, mask.1))
        }
    }
}
