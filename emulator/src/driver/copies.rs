//! Copies and fills: what is checked and done at the call, and what is left to the stream.
//!
//! | from → to | in a stream | without a stream |
//! | --- | --- | --- |
//! | pageable → device | staged at the call, written late | the same |
//! | pinned → device | read late | done before the call returns |
//! | device → pageable | done before the call returns | the same |
//! | device → pinned | written late | done before the call returns |
//! | device → device, fills | late | late: the host is not held up |
//!
//! Managed and registered memory counts as pinned. While a stream captures, pageable memory is written down by address.

use std::ffi::c_void;
use std::sync::Arc;

use super::error::{Outcome, invalid};
use super::state::Locked;
use super::work::{Copy, Fill, Side, Work};

/// One end of a copy as the call names it.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// A pointer of the host.
    Host(u64),
    /// An address of the device.
    Device(u64),
    /// Either; the driver knows which.
    Either(u64),
}

/// A copy as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct CopyRequest {
    /// The call.
    pub call: &'static str,
    /// Where the first row comes from.
    pub from: End,
    /// Where it goes.
    pub to: End,
    /// Bytes of a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
    /// Bytes from one row to the next, at either end.
    pub pitches: (u64, u64),
}

impl Locked {
    /// The side of a copy that an end stands for, checked.
    fn side(&mut self, end: End, request: &CopyRequest, pitch: u64, which: &str) -> Outcome<Side> {
        let (address, end) = match end {
            End::Either(address) if self.allocations.containing(address).is_some() => (address, End::Device(address)),
            End::Either(address) => (address, End::Host(address)),
            End::Host(address) | End::Device(address) => (address, end),
        };
        if matches!(end, End::Host(_)) && !self.allocations.host_visible(address) {
            if address == 0 {
                return invalid(format!("the {which} is null"));
            }
            if self.allocations.containing(address).is_some() {
                return invalid(format!("the {which}, {address:#x}, is memory of the device, not of the host"));
            }
            return Ok(Side::Pageable(address));
        }
        for row in 0..request.height {
            self.check_range(address.wrapping_add(row.wrapping_mul(pitch)), request.width, which)?;
        }
        Ok(Side::Device(address))
    }

    /// Submits a copy to a stream (or, without one, to the legacy stream), and waits for as much of it as CUDA promises.
    ///
    /// # Errors
    /// Ranges that are not what they should be; those of captures; asynchronous ones when it waits.
    pub fn copy(&mut self, request: &CopyRequest, stream: Option<*mut c_void>) -> Outcome<()> {
        let CopyRequest { call, width, height, mut pitches, .. } = *request;
        let serial = self.stream(stream.unwrap_or_default())?;
        if stream.is_none() {
            self.refuse_while_capturing(call)?;
        }
        if width == 0 || height == 0 {
            return Ok(());
        }
        let mut from = self.side(request.from, request, pitches.0, "source")?;
        let to = self.side(request.to, request, pitches.1, "destination")?;
        let capturing = self.frontier(serial)?.is_some();
        if let (Side::Pageable(from), Side::Pageable(to)) = (&from, &to) {
            if capturing {
                return invalid("a copy within the host cannot be captured");
            }
            self.synchronize_stream(serial)?;
            copy_within_host(*from, *to, width, height, pitches);
            return Ok(());
        }
        if let Side::Pageable(address) = from
            && !capturing
        {
            from = Side::Staged(stage(address, width, height, pitches.0));
            pitches.0 = width;
        }
        let late = match (&from, &to) {
            _ if capturing => true,
            (_, Side::Pageable(_)) => false,
            (Side::Staged(_), _) => true,
            (Side::Device(from), Side::Device(to)) => {
                let with_host = self.allocations.host_visible(*from) || self.allocations.host_visible(*to);
                stream.is_some() || !with_host
            }
            _ => true,
        };
        self.submit(serial, Work::Copy(Copy { call, from, to, width, height, pitches }))?;
        if late { Ok(()) } else { self.synchronize_stream(serial) }
    }

    /// Submits a fill.
    ///
    /// # Errors
    /// As [`Locked::copy`]; an address that is no multiple of the pattern's size.
    pub fn fill(&mut self, fill: Fill, stream: Option<*mut c_void>) -> Outcome<()> {
        let serial = self.stream(stream.unwrap_or_default())?;
        if stream.is_none() {
            self.refuse_while_capturing(fill.call)?;
        }
        let unit = fill.pattern.len() as u64;
        if fill.width == 0 || fill.height == 0 {
            return Ok(());
        }
        let Some(row_bytes) = fill.width.checked_mul(unit) else { return invalid("the range is too long") };
        if !fill.to.is_multiple_of(unit) || !fill.pitch.is_multiple_of(unit) {
            return invalid(format!("address {:#x} or pitch {} is no multiple of {unit}", fill.to, fill.pitch));
        }
        if fill.height > 1 && fill.pitch < row_bytes {
            return invalid(format!("rows of {row_bytes} bytes do not fit a pitch of {}", fill.pitch));
        }
        for row in 0..fill.height {
            self.check_range(fill.to.wrapping_add(row.wrapping_mul(fill.pitch)), row_bytes, "destination")?;
        }
        let waits = stream.is_none() && self.allocations.host_visible(fill.to);
        self.submit(serial, Work::Fill(fill))?;
        if waits { self.synchronize_stream(serial) } else { Ok(()) }
    }
}

/// Takes rows out of pageable memory.
fn stage(address: u64, width: u64, height: u64, pitch: u64) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity((width * height) as usize);
    for row in 0..height {
        let from: *const u8 = std::ptr::with_exposed_provenance((address + row * pitch) as usize);
        // SAFETY: the caller of the copy vouches for its source while the call lasts.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(from, width as usize) });
    }
    bytes.into()
}

fn copy_within_host(from: u64, to: u64, width: u64, height: u64, pitches: (u64, u64)) {
    for row in 0..height {
        let from: *const u8 = std::ptr::with_exposed_provenance((from + row * pitches.0) as usize);
        let to: *mut u8 = std::ptr::with_exposed_provenance_mut((to + row * pitches.1) as usize);
        // SAFETY: the caller of the copy vouches for both sides while the call lasts; they may overlap.
        unsafe { to.copy_from(from, width as usize) };
    }
}
