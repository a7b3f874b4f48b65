//! The records of global memory: for each word its last writer and readers, in pages that come into being when touched.
//! They also keep what a launch has overwritten: blocks that run on several threads and race are undone, and run again
//! one after the other, so that what is reported does not depend on who was faster.
//!
//! Blocks that run on several threads share them. Their accesses are relaxed atomics; a record torn between two blocks
//! can only arise where two blocks touch a word at the same time, and if one of them writes, that is the race itself.

use std::sync::Mutex;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64};

use super::clock::{BlockClock, Warps};
use super::order::{Releases, Strong};
use super::race::{Access, Cell, Conflict, Judge, Kind, Record, Stored, certain};
use super::tag::{Scope, Tag, groups};
use crate::memory::Shadow;

/// Words of a page: 32 KiB of memory.
const PAGE: usize = 8192;

/// The records of a page. All zero at first.
struct Page {
    write: [AtomicU64; PAGE],
    read: [AtomicU64; PAGE],
    write_block: [AtomicU32; PAGE],
    read_block: [AtomicU32; PAGE],
    /// [`Warps`], as one number.
    write_warps: [AtomicU64; PAGE],
    read_warps: [AtomicU64; PAGE],
    /// What the words held before the launch wrote them first, and their shadow.
    before: [AtomicU32; PAGE],
    before_shadow: [AtomicU8; PAGE],
    /// Whether that has been kept: [`KEEPING`] meanwhile, [`KEPT`] then.
    kept: [AtomicU8; PAGE],
}

const KEEPING: u8 = 1;
const KEPT: u8 = 2;

/// The records of global memory during one launch.
#[derive(Debug)]
pub struct GlobalRaces {
    base: u64,
    length: u64,
    pages: Vec<AtomicPtr<Page>>,
    releases: Mutex<Releases>,
    /// How many releases there have been.
    released: AtomicU32,
    /// The memory's shadow, if the launch may have to be undone.
    undo: Option<Shadow>,
}

impl GlobalRaces {
    /// For the `length` bytes from `base` on. With `undo`, the memory's shadow, the launch can be undone.
    pub fn new(base: u64, length: u64, undo: Option<Shadow>) -> Self {
        let count = (length / 4).div_ceil(PAGE as u64) as usize;
        // Zeroed memory, of which the system provides only what is touched.
        let mut pages = std::mem::ManuallyDrop::new(vec![0usize; count]);
        let (pointer, capacity) = (pages.as_mut_ptr(), pages.capacity());
        // SAFETY: a null pointer is all zeros, and both types have the same size and alignment.
        let pages = unsafe { Vec::from_raw_parts(pointer.cast(), count, capacity) };
        GlobalRaces { base, length, pages, releases: Mutex::default(), released: AtomicU32::new(0), undo }
    }

    /// A strong access, before it is judged.
    pub fn strong(&self, clock: &mut BlockClock, access: Strong) {
        let mut releases = self.releases.lock().unwrap_or_else(|e| e.into_inner());
        releases.strong(clock, access);
        self.released.store(releases.count(), Relaxed);
    }

    /// The page with this number.
    #[inline(always)]
    fn page(&self, number: usize) -> &Page {
        let page = self.pages[number].load(Acquire);
        if page.is_null() {
            return self.new_page(number);
        }
        // SAFETY: it was boxed below, and lives as long as `self`.
        unsafe { &*page }
    }

    #[cold]
    fn new_page(&self, number: usize) -> &Page {
        // SAFETY: zeros are valid atomics.
        let page = Box::into_raw(unsafe { Box::<Page>::new_zeroed().assume_init() });
        match self.pages[number].compare_exchange(std::ptr::null_mut(), page, AcqRel, Acquire) {
            // SAFETY: it lives as long as `self`.
            Ok(_) => unsafe { &*page },
            Err(other) => {
                // SAFETY: nobody has seen it; `other` lives as long as `self`.
                unsafe {
                    drop(Box::from_raw(page));
                    &*other
                }
            }
        }
    }

    /// Keeps what a word holds, before it is written for the first time.
    fn keep(&self, page: &Page, index: usize, offset: u64, shadow: &Shadow) {
        let kept = &page.kept[index];
        if kept.load(Acquire) == KEPT {
            return;
        }
        if kept.compare_exchange(0, KEEPING, AcqRel, Acquire).is_err() {
            // Another thread is about to write the word too: it is at most some instructions from done.
            while kept.load(Acquire) != KEPT {
                std::hint::spin_loop();
            }
            return;
        }
        // SAFETY: the access that is judged has been checked, and words and their shadow lie whole in the arena.
        let (word, state) = unsafe { (((self.base + offset) as *const u32).read(), shadow.word(offset)) };
        page.before[index].store(word, Relaxed);
        page.before_shadow[index].store(state, Relaxed);
        kept.store(KEPT, Release);
    }

    /// Puts back all that the launch has written. Nothing else may use the memory meanwhile.
    pub fn undo(&self) {
        let Some(shadow) = &self.undo else { return };
        for (number, slot) in self.pages.iter().enumerate() {
            let page = slot.load(Acquire);
            if page.is_null() {
                continue;
            }
            // SAFETY: pages live as long as `self`.
            let page = unsafe { &*page };
            for index in (0..PAGE).filter(|index| page.kept[*index].load(Acquire) == KEPT) {
                let offset = 4 * (number * PAGE + index) as u64;
                // SAFETY: the word was written by a checked access, so it and its shadow lie in the arena.
                unsafe {
                    ((self.base + offset) as *mut u32).write(page.before[index].load(Relaxed));
                    shadow.pointer(offset).write(page.before_shadow[index].load(Relaxed));
                }
            }
        }
    }

    /// Judges an access of checked addresses, and records it. Memory of the host that kernels may address is not watched.
    #[inline]
    pub fn access(&self, clock: &BlockClock, access: &Access, stored: Stored) -> Option<Conflict> {
        let write = access.kind != Kind::Read;
        let old = clock.horizon(access.warp);
        let (block, tick) = (clock.block, clock.tick());
        let mut current: Option<(usize, &Page)> = None;
        let mut tentative = None;
        groups(access.mask, access.addresses, access.bytes, write, |group| {
            let offset = (group.word * 4).wrapping_sub(self.base);
            if offset >= self.length {
                return None;
            }
            let (number, index) = ((offset / 4) as usize / PAGE, (offset / 4) as usize % PAGE);
            let page = match current {
                Some((n, page)) if n == number => page,
                _ => self.page(number),
            };
            current = Some((number, page));
            if write && let Some(shadow) = &self.undo {
                self.keep(page, index, offset, shadow);
            }
            let (writes, reads) = (Tag(page.write[index].load(Relaxed)), Tag(page.read[index].load(Relaxed)));
            // Never touched, or by this block and long ago.
            let settled = |tag: Tag, by: &AtomicU32| {
                tag.is_empty() || (tag.tick() < old && tag.scope() < Scope::Grid && by.load(Relaxed) == block)
            };
            if settled(writes, &page.write_block[index]) {
                if settled(reads, &page.read_block[index]) {
                    let (tags, blocks) =
                        if write { (&page.write, &page.write_block) } else { (&page.read, &page.read_block) };
                    tags[index].store(access.tag(tick, &group).0, Relaxed);
                    blocks[index].store(block, Relaxed);
                    return None;
                }
                // Read by many of late: nothing to add.
                let current = match reads.scope() {
                    Scope::Grid => reads.tick() == self.released.load(Relaxed),
                    Scope::Block => {
                        reads.tick() == tick
                            && page.read_block[index].load(Relaxed) == block
                            && Warps::unpack(page.read_warps[index].load(Relaxed)).mask >> access.warp & 1 != 0
                    }
                    _ => false,
                };
                if !write
                    && current
                    && reads.bytes() & group.bytes == group.bytes
                    && reads.strength() <= access.strength
                {
                    return None;
                }
            }
            let releases = self.released.load(Relaxed);
            let record = |tag, block: &AtomicU32, warps: &AtomicU64| Record {
                tag,
                block: block.load(Relaxed),
                warps: Warps::unpack(warps.load(Relaxed)),
            };
            let mut cell = Cell {
                write: record(writes, &page.write_block[index], &page.write_warps[index]),
                read: record(reads, &page.read_block[index], &page.read_warps[index]),
            };
            let judge = Judge { clock, access, group, releases, shared: false };
            let found = if write { judge.write(&mut cell, stored) } else { judge.read(&mut cell) };
            let (tags, blocks, warps, new) = if write {
                (&page.write, &page.write_block, &page.write_warps, cell.write)
            } else {
                (&page.read, &page.read_block, &page.read_warps, cell.read)
            };
            tags[index].store(new.tag.0, Relaxed);
            blocks[index].store(new.block, Relaxed);
            warps[index].store(new.warps.pack(), Relaxed);
            certain(found, &mut tentative)
        })
        .or(tentative)
    }
}

impl Drop for GlobalRaces {
    fn drop(&mut self) {
        for page in &mut self.pages {
            let page = *page.get_mut();
            if !page.is_null() {
                // SAFETY: boxed by `new_page`, and nobody uses it any more.
                drop(unsafe { Box::from_raw(page) });
            }
        }
    }
}
