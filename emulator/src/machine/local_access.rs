//! `ld` and `st` on local memory.

use super::core::Core;
use super::elements::Element;
use super::lanes::Frame;
use super::local::LocalFault;
use super::modifiers::Modifiers;
use super::trouble::{Outcome, Trouble};
use super::warp::Warp;
use crate::decode::op::{self, Op};
use crate::watch::{FindingKind, Space};

/// `ld.local`
///
/// # Safety
/// The decoder placed the operands.
#[inline(never)]
pub unsafe fn load<E: Element>(
    core: &mut Core<'_>,
    warp: &mut Warp,
    frame: &Frame,
    op: &Op,
    mask: u32,
    m: Modifiers,
    addresses: &[u64; 32],
) -> Outcome {
    let count = usize::from(m.count);
    let (need, bytes) = (core.grid.need, E::BYTES * u32::from(m.count));
    for element in 0..count {
        let to = if count == 1 { op.d } else { core.listed(op, count)[element] };
        let mut values = [E::Register::default(); 32];
        let first = addresses[mask.trailing_zeros() as usize];
        let same = (0..32).all(|lane| mask >> lane & 1 == 0 || addresses[lane] == first);
        let at = first.wrapping_add(u64::from(E::BYTES) * element as u64);
        let row = if same && E::BYTES == 4 && first.is_multiple_of(bytes.into()) && at < u64::from(u32::MAX) {
            warp.local.row(at as u32, mask, need)
        } else {
            None
        };
        if let Some((words, _)) = row {
            for lane in 0..32 {
                values[lane] = E::load(words[lane].into());
            }
        } else {
            for lane in (0..32u32).filter(|lane| mask >> lane & 1 != 0) {
                let address = local_address(addresses[lane as usize], bytes, lane)?;
                let at = address + E::BYTES * element as u32;
                let read = warp.local.read(lane as usize, at, E::BYTES, need & 0xF0 != 0);
                values[lane as usize] = E::load(read.map_err(|fault| local_trouble(fault, lane, "reads"))?);
            }
        }
        if to != op::NONE {
            // SAFETY: the decoder placed the destination.
            unsafe { frame.write(to, &values, mask) };
        }
    }
    Ok(())
}

fn local_address(address: u64, bytes: u32, lane: u32) -> Outcome<u32> {
    if !address.is_multiple_of(bytes.into()) {
        let message = format!("uses {bytes} bytes of local memory at {address:#x}, which is no multiple of {bytes}");
        return Err(Trouble::at_address(FindingKind::Misaligned, lane, Space::Local, address, message));
    }
    u32::try_from(address).map_err(|_| {
        let message = format!("uses local memory at {address:#x}, far out of bounds");
        Trouble::at_address(FindingKind::OutOfBounds, lane, Space::Local, address, message)
    })
}

fn local_trouble(fault: LocalFault, lane: u32, verb: &str) -> Box<Trouble> {
    let (kind, at, what) = match fault {
        LocalFault::Outside(at) => (FindingKind::OutOfBounds, at, "out of bounds of every variable"),
        LocalFault::Uninitialised(at) => (FindingKind::Uninitialised, at, "which was never written"),
    };
    Trouble::at_address(kind, lane, Space::Local, at.into(), format!("{verb} local memory at {at:#x}, {what}"))
}

/// `st.local`
///
/// # Safety
/// The decoder placed the operands.
#[inline(never)]
pub unsafe fn store<E: Element>(
    core: &mut Core<'_>,
    warp: &mut Warp,
    frame: &Frame,
    op: &Op,
    mask: u32,
    m: Modifiers,
    addresses: &[u64; 32],
) -> Outcome {
    let count = usize::from(m.count);
    let bytes = E::BYTES * u32::from(m.count);
    for element in 0..count {
        let source = if count == 1 { op.b } else { core.listed(op, count)[element] };
        // SAFETY: the decoder placed the source.
        let values = unsafe { frame.row::<E::Register>(source) };
        let first = addresses[mask.trailing_zeros() as usize];
        let same = (0..32).all(|lane| mask >> lane & 1 == 0 || addresses[lane] == first);
        let at = first.wrapping_add(u64::from(E::BYTES) * element as u64);
        if same
            && E::BYTES == 4
            && first.is_multiple_of(bytes.into())
            && at < u64::from(u32::MAX)
            && let Some((words, shadow)) = warp.local.row(at as u32, mask, 0x0F)
        {
            for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                words[lane] = E::bits(values[lane]) as u32;
                shadow[lane] = 0xFF;
            }
            continue;
        }
        for lane in (0..32u32).filter(|lane| mask >> lane & 1 != 0) {
            let at = local_address(addresses[lane as usize], bytes, lane)? + E::BYTES * element as u32;
            let write = warp.local.write(lane as usize, at, E::BYTES, E::bits(values[lane as usize]));
            write.map_err(|fault| local_trouble(fault, lane, "writes"))?;
        }
    }
    Ok(())
}
