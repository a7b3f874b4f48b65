//! `cp.async`: copies from global to shared memory that land when they are waited for, not before.

use super::access::{addresses, by_space};
use super::core::{Core, OpSpace};
use super::lanes::Frame;
use super::locate::{locate, written};
use super::modifiers::Modifiers;
use super::trouble::{Outcome, Trouble};
use super::warp::Warp;
use crate::decode::op::{self, Op};
use crate::watch::FindingKind;

/// A `cp.async` of a warp that has not landed for all its lanes.
#[derive(Clone, Debug)]
struct Copy {
    /// Lanes for which it is under way.
    lanes: u32,
    /// Where it reads, as places in this process.
    from: [u64; 32],
    /// Where it writes in shared memory.
    to: [u32; 32],
    /// Bytes that are read; the rest of `bytes` is zero.
    read: [u8; 32],
    /// Bytes that are written.
    bytes: u8,
    /// How many groups each lane had committed when it began.
    group: [u32; 32],
    /// Its number among the copies of the warp.
    number: u64,
    /// Lanes of which an mbarrier tells when it has landed.
    followed: u32,
    /// The operation.
    pc: u32,
}

/// The copies of a warp.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    under_way: Vec<Copy>,
    /// How many there have been.
    begun: u64,
    /// How many groups each lane has committed.
    committed: [u32; 32],
}

impl Copies {
    /// The operation whose copy will write a byte of shared memory.
    pub fn covering(&self, address: u32) -> Option<u32> {
        let covers = |copy: &Copy| {
            (0..32).any(|lane| {
                copy.lanes >> lane & 1 != 0 && (copy.to[lane]..copy.to[lane] + u32::from(copy.bytes)).contains(&address)
            })
        };
        self.under_way.iter().find(|copy| covers(copy)).map(|copy| copy.pc)
    }

    /// An mbarrier will tell when the copies have landed that a lane has begun. Their number.
    pub fn follow(&mut self, lane: u32) -> u64 {
        self.under_way.iter_mut().for_each(|copy| copy.followed |= copy.lanes & 1 << lane);
        self.begun
    }

    /// The first of these lanes with a copy that has not landed and that no mbarrier tells of, and its operation. Those
    /// copies are forgotten.
    pub fn left(&mut self, lanes: u32) -> Option<(u32, u32)> {
        let left = |copy: &Copy| copy.lanes & lanes & !copy.followed;
        let first = self.under_way.iter().find(|copy| left(copy) != 0);
        let first = first.map(|copy| (left(copy).trailing_zeros(), copy.pc));
        self.under_way.iter_mut().for_each(|copy| copy.lanes &= !left(copy));
        first
    }
}

/// `cp.async`: destination `a + (x low half)`, source `b + (x high half)`, bytes to read in `c` or all.
///
/// The bytes of the instruction are in the low byte of [`Op::list`]; the two address widths in the next two bits.
///
/// # Safety
/// The decoder placed the operands.
pub unsafe fn begin(core: &mut Core<'_>, warp: &mut Warp, frame: &Frame, op: &Op, mask: u32) -> Outcome {
    let bytes = u64::from(op.list & 0xFF);
    let modifiers = Modifiers::unpack(op.y);
    let (low, high) = (op.x as u32 as i32 as i64 as u64, (op.x as i64 >> 32) as u64);
    // SAFETY: by the caller's promise.
    let (to, from) = unsafe {
        let to = addresses(frame, &Op { x: low, ..op.clone() }, Modifiers { wide: op.list >> 8 & 1 != 0, ..modifiers });
        let from = addresses(frame, &Op { a: op.b, x: high, ..op.clone() }, Modifiers { wide: true, ..modifiers });
        (to, from)
    };
    let mut read = [bytes as u8; 32];
    if op.c != op::NONE {
        // SAFETY: by the caller's promise.
        let sizes = unsafe { frame.row::<u32>(op.c) };
        for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
            if u64::from(sizes[lane]) > bytes {
                let message = format!("cp.async of {bytes} bytes that is to read {}", sizes[lane]);
                return Err(Trouble::new(FindingKind::Undefined, lane as u32, message));
            }
            read[lane] = sizes[lane] as u8;
        }
    }
    // A predicate says which lanes ignore their source and write zeros.
    if op.e != op::NONE {
        // SAFETY: by the caller's promise.
        let ignore = unsafe { frame.predicate(op.e) };
        (0..32).filter(|lane| ignore >> lane & 1 != 0).for_each(|lane| read[lane] = 0);
    }
    let reading =
        (0..32).filter(|lane| mask >> lane & 1 != 0 && read[*lane] > 0).fold(0, |lanes, lane| lanes | 1u32 << lane);
    let need = core.grid.need;
    let mut places = [0u64; 32];
    // Lanes that read as many bytes as each other go together. However few are read, the source is aligned as the whole.
    let mut judge = |core: &mut Core<'_>, warp: &mut Warp, addresses: &[u64; 32], lanes: u32, size: u64| -> Outcome {
        let region = core.region(OpSpace::Global);
        // SAFETY: global addresses as they are.
        let found = unsafe { locate(core, &region, addresses, lanes, size, bytes, need, "copies")? };
        (0..32).filter(|lane| lanes >> lane & 1 != 0).for_each(|lane| places[lane] = found[lane] as u64);
        super::hooks::copies(core, warp, region.space, lanes, addresses, size)
    };
    let mut run = |space: OpSpace, addresses: &[u64; 32], lanes: u32| -> Outcome {
        if space != OpSpace::Global {
            let message = "copies from an address that is not in global memory";
            return Err(Trouble::new(FindingKind::Undefined, lanes.trailing_zeros(), message));
        }
        let mut rest = lanes;
        while rest != 0 {
            let size = read[rest.trailing_zeros() as usize];
            let alike = (0..32).filter(|lane| rest >> lane & 1 != 0 && read[*lane] == size);
            let alike = alike.fold(0, |lanes, lane| lanes | 1u32 << lane);
            rest &= !alike;
            judge(core, warp, addresses, alike, size.into())?;
        }
        Ok(())
    };
    if modifiers.space == OpSpace::Generic {
        by_space(from, reading, &mut run)?;
    } else {
        run(OpSpace::Global, &from, reading)?;
    }
    let region = core.region(OpSpace::Shared);
    // SAFETY: shared addresses as they are.
    unsafe { locate(core, &region, &to, mask, bytes, bytes, 0x0F, "copies to")? };
    for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
        core.shared.shadow().clear_initialised(to[lane], bytes);
        // What is read too early is not what was there before.
        // SAFETY: located above.
        unsafe {
            let to = region.data.add(to[lane] as usize);
            match bytes {
                16 => to.cast::<u128>().write_unaligned(u128::MAX),
                _ => to.write_bytes(0xFF, bytes as usize),
            }
        }
    }
    super::hooks::copies(core, warp, region.space, mask, &to, bytes)?;
    let copies = &mut core.copies[warp.index as usize];
    let group = copies.committed;
    let to = to.map(|address| address as u32);
    copies.begun += 1;
    let (number, bytes) = (copies.begun, bytes as u8);
    let pc = warp.pc;
    copies.under_way.push(Copy { lanes: mask, from: places, to, read, bytes, group, number, followed: 0, pc });
    Ok(())
}

/// `cp.async.commit_group`
///
/// # Safety
/// None is needed; the signature is that of all handlers.
pub unsafe fn commit(core: &mut Core<'_>, warp: &mut Warp, _: &Frame, _: &Op, mask: u32) -> Outcome {
    let committed = &mut core.copies[warp.index as usize].committed;
    (0..32).filter(|lane| mask >> lane & 1 != 0).for_each(|lane| committed[lane] += 1);
    Ok(())
}

/// `cp.async.wait_group x`, or with the largest `x` `cp.async.wait_all`.
///
/// # Safety
/// None is needed; the signature is that of all handlers.
pub unsafe fn wait(core: &mut Core<'_>, warp: &mut Warp, _: &Frame, op: &Op, mask: u32) -> Outcome {
    let committed = core.copies[warp.index as usize].committed;
    land_where(core, warp.index, |copy, lane| {
        let lands = op.x == u64::MAX || u64::from(copy.group[lane]) + op.x < u64::from(committed[lane]);
        mask >> lane & 1 != 0 && lands
    })
}

/// Lets copies of a lane land that began before there were more than `begun`.
pub fn land_before(core: &mut Core<'_>, warp: u32, lane: u32, begun: u64) -> Outcome {
    land_where(core, warp, |copy, of| of == lane as usize && copy.number <= begun)
}

/// Lets copies of a warp land, of the lanes that `lands` says.
fn land_where(core: &mut Core<'_>, warp: u32, lands: impl Fn(&Copy, usize) -> bool) -> Outcome {
    let mut copies = std::mem::take(&mut core.copies[warp as usize].under_way);
    for copy in &mut copies {
        let landing = (0..32).filter(|lane| copy.lanes >> lane & 1 != 0 && lands(copy, *lane));
        let landing = landing.fold(0, |lanes, lane| lanes | 1u32 << lane);
        copy.lanes &= !landing;
        land(core, warp, copy, landing)?;
    }
    copies.retain(|copy| copy.lanes != 0);
    core.copies[warp as usize].under_way = copies;
    Ok(())
}

fn land(core: &mut Core<'_>, warp: u32, copy: &Copy, lanes: u32) -> Outcome {
    let region = core.region(OpSpace::Shared);
    for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
        let (read, bytes) = (usize::from(copy.read[lane]), usize::from(copy.bytes));
        // SAFETY: both sides were checked when the copy began; the block's shared memory does not move, and global memory
        // that is freed during a launch stays mapped.
        unsafe {
            let to = region.data.add(copy.to[lane] as usize);
            if read == 16 {
                // What is most common, without a call of the library.
                let all = (copy.from[lane] as *const u128).read_unaligned();
                to.cast::<u128>().write_unaligned(all);
            } else {
                to.copy_from(copy.from[lane] as *const u8, read);
                to.add(read).write_bytes(0, bytes - read);
            }
        }
        written(core, &region, copy.to[lane].into(), bytes as u64);
    }
    let (to, bytes) = (copy.to.map(u64::from), copy.bytes.into());
    // Whoever waits at the mbarrier knows what was done when the copy began: of its landing no new record is made.
    for (lanes, recorded) in [(lanes & !copy.followed, true), (lanes & copy.followed, false)] {
        if lanes != 0 {
            super::hooks::lands(core, warp, copy.pc, lanes, &to, bytes, recorded)?;
        }
    }
    Ok(())
}
