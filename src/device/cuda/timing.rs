//! Measured times of single launches, for benchmarks: an event before each and one after it.

use super::{Cuda, Gpu, failed};
use crate::device::{Device, KernelTime};
use crate::error::Result;
use cudarc::driver::CudaEvent;
use cudarc::driver::sys::CUevent_flags;

/// A launch between its events.
pub(super) struct Timed {
    kernel: &'static str,
    begin: CudaEvent,
    end: CudaEvent,
}

impl Gpu {
    /// What comes when everything asked for so far has run, if launches are being timed.
    pub(super) fn mark(&self) -> Result<Option<CudaEvent>> {
        let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
        let event = self.timed.is_some().then(|| self.stream.record_event(flags)).transpose();
        event.map_err(|error| failed("time a kernel", error))
    }

    /// Keeps a launch that has been made, where its beginning was marked.
    pub(super) fn keep(&mut self, kernel: &'static str, begin: Option<CudaEvent>) -> Result<()> {
        let end = self.mark()?;
        if let (Some(begin), Some(end), Some(timed)) = (begin, end, &mut self.timed) {
            timed.push(Timed { kernel, begin, end });
        }
        Ok(())
    }
}

impl Cuda {
    /// Does `work`, launch by launch, and times each.
    pub(super) fn time_launches(
        &mut self,
        work: &mut dyn FnMut(&mut dyn Device) -> Result<()>,
    ) -> Result<Vec<KernelTime>> {
        self.gpu.timed = Some(Vec::new());
        let done = work(self).and_then(|()| self.sync());
        let timed = self.gpu.timed.take().unwrap_or_default();
        done?;
        let seconds = |Timed { kernel, begin, end }: Timed| {
            let ms = begin.elapsed_ms(&end).map_err(|error| failed("time a kernel", error))?;
            Ok((kernel, f64::from(ms) / 1e3))
        };
        timed.into_iter().map(seconds).collect()
    }
}
