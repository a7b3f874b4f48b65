//! The threads: who works on which sequence, and with what memory.

use super::gemm::{Matrix, columns, pack_panel, packed_len};
use super::memory::Scratch;
use crate::device::cpu::GRAD_SLOTS;
use crate::error::{Error, Kind, Result};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The instruction set, the threads, and each thread's memory.
pub(crate) struct Team {
    pub(crate) arch: Arch,
    /// None for one thread: the caller's.
    pool: Option<Arc<rayon::ThreadPool>>,
    scratch: Vec<Mutex<Scratch>>,
}

impl Team {
    pub(crate) fn new(arch: Arch, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("gpt2meg-{i}"));
        let failed = |error| Error::new(Kind::DeviceUnavailable, format!("cannot start {threads} threads: {error}"));
        let pool = if threads > 1 { Some(Arc::new(pool.build().map_err(failed)?)) } else { None };
        let scratch = (0..threads).map(|_| Mutex::default()).collect();
        Ok(Self { arch, pool, scratch })
    }

    /// The threads, if there are any but the caller's.
    pub(crate) fn pool(&self) -> Option<Arc<rayon::ThreadPool>> {
        self.pool.clone()
    }

    /// The instruction set, for people.
    pub(crate) fn instructions(&self) -> &'static str {
        match self.arch {
            Arch::Scalar => "portable",
            #[cfg(target_arch = "x86_64")]
            Arch::V3(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) => "AVX-512",
            _ => "vectors",
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.scratch.len()
    }

    /// The memory of the thread that asks. Nobody else ever wants it, so this does not wait.
    pub(crate) fn scratch(&self) -> MutexGuard<'_, Scratch> {
        let index = rayon::current_thread_index().filter(|_| self.pool.is_some()).unwrap_or(0);
        self.scratch[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` for each job, at most [`GRAD_SLOTS`] of them, spread over the threads.
    pub(crate) fn each<J: Send>(&self, jobs: impl Iterator<Item = J>, work: impl Fn(J, &mut Scratch) + Sync) {
        let mut list: [Option<J>; GRAD_SLOTS] = std::array::from_fn(|_| None);
        let mut n = 0;
        for (place, job) in list.iter_mut().zip(jobs) {
            *place = Some(job);
            n += 1;
        }
        let work = |place: &mut Option<J>| {
            if let Some(job) = place.take() {
                work(job, &mut self.scratch());
            }
        };
        match &self.pool {
            None => list[..n].iter_mut().for_each(work),
            Some(pool) => pool.install(|| list[..n].par_iter_mut().with_max_len(1).for_each(work)),
        }
    }

    /// Does `work` for each job, however many, until one fails.
    pub(crate) fn try_all<J: Send>(
        &self,
        jobs: Vec<J>,
        work: impl Fn(J, &mut Scratch) -> Result<()> + Sync,
    ) -> Result<()> {
        match &self.pool {
            None => jobs.into_iter().try_for_each(|job| work(job, &mut self.scratch())),
            Some(pool) => {
                let jobs = jobs.into_par_iter().with_max_len(1);
                pool.install(|| jobs.try_for_each(|job| work(job, &mut self.scratch())))
            }
        }
    }

    /// Does `work(number, chunk)` for each chunk of `size` elements of `data`, spread over the threads.
    pub(crate) fn each_chunk(&self, data: &mut [f32], size: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
        match &self.pool {
            None => data.chunks_mut(size).enumerate().for_each(|(i, chunk)| work(i, chunk)),
            Some(pool) => {
                pool.install(|| data.par_chunks_mut(size).enumerate().for_each(|(i, chunk)| work(i, chunk)));
            }
        }
    }

    /// Lanes of a vector, and columns of a panel, of this instruction set.
    fn sizes(&self) -> [usize; 2] {
        struct Sizes;
        impl WithSimd for Sizes {
            type Output = [usize; 2];
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> [usize; 2] {
                [S::F32_LANES, columns::<S>()]
            }
        }
        self.arch.dispatch(Sizes)
    }

    /// Lanes of a vector of this instruction set.
    pub(crate) fn lanes(&self) -> usize {
        self.sizes()[0]
    }

    /// Columns of a panel of this instruction set.
    pub(crate) fn columns(&self) -> usize {
        self.sizes()[1]
    }

    /// Elements of a packed weight of `k` rows and `n` columns.
    pub(crate) fn packed_len(&self, k: usize, n: usize) -> usize {
        packed_len(self.columns(), k, n)
    }

    /// Packs a weight for products, panel by panel over the threads.
    pub(crate) fn pack(&self, k: usize, n: usize, from: Matrix, packed: &mut [f32]) {
        let columns = self.columns();
        self.each_chunk(packed, columns * k, |j, panel| pack_panel(columns, k, n, from, j, panel));
    }
}
