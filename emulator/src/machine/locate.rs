//! Where the lanes of an access find their bytes, and whether they may.

use super::core::{Core, Region};
use super::lanes::ALL;
use super::trouble::Outcome;
use crate::memory::{FINE, Shadow};
use crate::watch::Space;

/// How the lanes' addresses lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// All lanes are active and use the same address.
    Same,
    /// All lanes are active and use neighbouring addresses, in order.
    Neighbours,
    /// Anything else.
    Scattered,
}

#[inline(always)]
pub fn pattern(addresses: &[u64; 32], mask: u32, bytes: u64) -> Pattern {
    if mask != ALL {
        return Pattern::Scattered;
    }
    let first = addresses[0];
    let stride = addresses[1].wrapping_sub(first);
    if stride != 0 && stride != bytes {
        return Pattern::Scattered;
    }
    let mut differs = 0;
    for lane in 0..32 {
        differs |= addresses[lane] ^ first.wrapping_add(stride.wrapping_mul(lane as u64));
    }
    match differs {
        0 if stride == 0 => Pattern::Same,
        0 => Pattern::Neighbours,
        _ => Pattern::Scattered,
    }
}

/// How many words hold `bytes` bytes at `offset`.
#[inline(always)]
fn words_of(offset: u64, bytes: u64) -> usize {
    ((offset + bytes - 1) / 4 - offset / 4 + 1) as usize
}

/// Whether the words that hold `bytes` bytes at `offset` all have the bits of `need`.
///
/// # Safety
/// The bytes lie within the region.
#[inline(always)]
pub unsafe fn words_have(region: &Region, offset: u64, bytes: u64, need: u8) -> bool {
    if region.shadow.is_null() {
        return true;
    }
    let count = words_of(offset, bytes);
    // SAFETY: by the caller's promise.
    let all = unsafe {
        if region.space == Space::Shared {
            // The block's own: plain reads, which the host can make many at a time.
            let words = std::slice::from_raw_parts(region.shadow.add((offset >> 2) as usize), count);
            words.iter().fold(u8::MAX, |all, word| all & word)
        } else {
            Shadow::new(region.shadow, region.length).common(offset, count)
        }
    };
    all & need == need
}

/// Marks whole words as written.
///
/// # Safety
/// They lie within the region, which has a shadow.
#[inline(always)]
pub unsafe fn set_fine(region: &Region, offset: u64, count: usize) {
    // SAFETY: by the caller's promise.
    unsafe {
        if region.space == Space::Shared {
            region.shadow.add((offset >> 2) as usize).write_bytes(FINE, count);
        } else {
            Shadow::new(region.shadow, region.length).set_fine(offset, count);
        }
    }
}

/// Checks the accesses of the active lanes and finds their bytes; lanes that are not active get some valid place.
///
/// # Errors
/// The first lane's trouble.
///
/// # Safety
/// `addresses` are addresses of the region.
#[inline(always)]
pub unsafe fn locate(
    core: &Core<'_>,
    region: &Region,
    addresses: &[u64; 32],
    mask: u32,
    bytes: u64,
    align: u64,
    need: u8,
    verb: &str,
) -> Outcome<[*mut u8; 32]> {
    let mut places = [region.data; 32];
    let limit = region.length.wrapping_sub(bytes);
    let possible = region.length >= bytes;
    // SAFETY: the region's shadow covers its length.
    let shadow = unsafe { Shadow::new(region.shadow, region.length) };
    let (mut fine, mut wrong) = (u8::MAX, !possible);
    for lane in 0..32 {
        let active = mask >> lane & 1 != 0;
        let offset = addresses[lane].wrapping_sub(region.base);
        let inside = possible && offset <= limit;
        wrong |= active && (!inside || offset & (align - 1) != 0);
        let offset = if active && inside { offset } else { 0 };
        if !region.shadow.is_null() && active && inside {
            // SAFETY: the offset is inside, and so are the bytes that follow it.
            fine &= unsafe { shadow.common(offset, words_of(offset, bytes)) };
        }
        // SAFETY: inside the region, or its first byte.
        places[lane] = unsafe { region.data.add(offset as usize) };
    }
    if wrong || fine & need != need {
        outside(core, region, addresses, mask, bytes, align, need, verb, &mut places)?;
    }
    Ok(places)
}

/// The slow judgement: what is wrong with the first lane of which something is; registered memory of the host is not.
#[cold]
#[inline(never)]
fn outside(
    core: &Core<'_>,
    region: &Region,
    addresses: &[u64; 32],
    mask: u32,
    bytes: u64,
    align: u64,
    need: u8,
    verb: &str,
    places: &mut [*mut u8; 32],
) -> Outcome {
    for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
        let address = addresses[lane as usize];
        core.explain(region, lane, address, bytes, align, need, verb).or_else(|trouble| core.note(trouble))?;
        if region.space == Space::Global {
            places[lane as usize] = address as *mut u8;
        }
    }
    Ok(())
}

/// Marks bytes as written.
#[inline(always)]
pub fn written(core: &Core<'_>, region: &Region, address: u64, bytes: u64) {
    let offset = address.wrapping_sub(region.base);
    if region.space == Space::Global && offset >= region.length {
        return core.grid.memory.mark_initialised(address, bytes);
    }
    // SAFETY: the bytes were checked to lie in the region.
    unsafe {
        if !words_have(region, offset, bytes, 0xFF) {
            Shadow::new(region.shadow, region.length).set_initialised(offset, bytes);
        }
    }
}
