//! The GPU engine, unchanged, on the emulator that stands in for CUDA's driver.

use super::{Cuda, open as open_gpu};
use crate::error::{Error, Kind, Result};
use ptx_emulator::machine::LaunchReport;
use ptx_emulator::settings::{Settings, Watch};
use ptx_emulator::standin;
use ptx_emulator::target::Target;
use std::sync::{Arc, Mutex, PoisonError};

/// Opens the emulator, on so many threads (one for each core by default), with all its checks. What it finds in a kernel is an
/// error as soon as anything waits for that kernel.
pub fn open(threads: Option<usize>) -> Result<Cuda> {
    start(Settings { threads: threads.unwrap_or(0), ..Settings::default() }, |_| ())
}

/// What launches cost, in their order.
#[derive(Clone, Default)]
pub struct Reports(Arc<Mutex<Vec<LaunchReport>>>);

impl Reports {
    /// Those since the last call; of launches that have been waited for.
    pub fn take(&self) -> Vec<LaunchReport> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As [`open`], but as a card of the architecture `target`, without looking for races, and with every launch's report.
pub fn open_counted(target: Target, threads: Option<usize>) -> Result<(Cuda, Reports)> {
    let settings =
        Settings { target, watch: Watch::Memory, count: true, threads: threads.unwrap_or(0), ..Settings::default() };
    let reports = Reports::default();
    let kept = reports.clone();
    let keep = move |report| kept.0.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    Ok((start(settings, keep)?, reports))
}

/// The engine on the emulator; every launch that did nothing wrong goes to `done`.
fn start(settings: Settings, done: impl Fn(LaunchReport) + Send + 'static) -> Result<Cuda> {
    let unavailable = |error: standin::OpenError| Error::new(Kind::DeviceUnavailable, error.to_string());
    let standin = standin::open(&settings).map_err(unavailable)?;
    Ok(open_gpu(0)?.watched(Box::new(move || {
        for report in standin.take_reports() {
            let fault = report.fault.as_ref().map(|fault| fault.message.clone());
            if let Some(what) = fault.or_else(|| report.findings.first().map(ToString::to_string)) {
                return Err(Error::new(Kind::Internal, format!("the kernel {}: {what}", report.kernel)));
            }
            done(report);
        }
        Ok(())
    })))
}
