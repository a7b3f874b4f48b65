//! The GPU engine, unchanged, on the emulator that stands in for CUDA's driver.

use super::{Cuda, open as open_gpu};
use crate::error::{Error, Kind, Result};
use ptx_emulator::settings::Settings;
use ptx_emulator::standin;

/// Opens the emulator, on so many threads (one for each core by default), with all its checks. What it finds in a kernel is an
/// error as soon as anything waits for that kernel.
pub fn open(threads: Option<usize>) -> Result<Cuda> {
    let settings = Settings { threads: threads.unwrap_or(0), ..Settings::default() };
    let unavailable = |error: standin::OpenError| Error::new(Kind::DeviceUnavailable, error.to_string());
    let standin = standin::open(&settings).map_err(unavailable)?;
    Ok(open_gpu(0)?.watched(Box::new(move || {
        for report in standin.take_reports() {
            let fault = report.fault.map(|fault| fault.message);
            if let Some(what) = fault.or_else(|| report.findings.first().map(ToString::to_string)) {
                return Err(Error::new(Kind::Internal, format!("the kernel {}: {what}", report.kernel)));
            }
        }
        Ok(())
    })))
}
