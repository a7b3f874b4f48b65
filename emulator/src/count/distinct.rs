//! Which 32-byte sectors of global memory a launch reads and writes at all: two bits for each, in pages that come into
//! being when touched. Blocks on several threads share them; the union does not depend on who came first.

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Sectors of a page: 4 MiB of memory.
const PAGE: u64 = 1 << 17;
const WORDS: usize = (PAGE / 64) as usize;

/// One bit for each sector: read, and written.
struct Page([[AtomicU64; WORDS]; 2]);

/// The sectors that a launch has touched.
#[derive(Debug)]
pub struct Distinct {
    /// The first sector.
    base: u64,
    pages: Vec<AtomicPtr<Page>>,
}

impl Distinct {
    /// For the `length` bytes from `base` on.
    pub fn new(base: u64, length: u64) -> Self {
        let count = (length / 32).div_ceil(PAGE);
        Distinct { base: base / 32, pages: (0..count).map(|_| AtomicPtr::default()).collect() }
    }

    /// Notes a sector, by its number (address / 32). Those outside are not counted.
    #[inline(always)]
    pub fn touch(&self, sector: u64, write: bool) {
        let index = sector.wrapping_sub(self.base);
        let Some(slot) = self.pages.get((index / PAGE) as usize) else { return };
        let mut page = slot.load(Ordering::Acquire);
        if page.is_null() {
            page = new_page(slot);
        }
        // SAFETY: pages are boxed by `new_page` and live as long as `self`.
        let word = unsafe { &(&(*page).0)[usize::from(write)][(index % PAGE / 64) as usize] };
        let bit = 1 << (index % 64);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Bytes of the sectors that were read, and written.
    pub fn bytes(&self) -> (u64, u64) {
        let mut sums = [0; 2];
        for slot in &self.pages {
            let page = slot.load(Ordering::Acquire);
            if page.is_null() {
                continue;
            }
            for (write, sum) in sums.iter_mut().enumerate() {
                // SAFETY: as in `touch`.
                let words = unsafe { &(&(*page).0)[write] };
                *sum += words.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum::<u64>();
            }
        }
        (32 * sums[0], 32 * sums[1])
    }
}

#[cold]
fn new_page(slot: &AtomicPtr<Page>) -> *mut Page {
    // SAFETY: zeros are valid atomics.
    let page = Box::into_raw(unsafe { Box::<Page>::new_zeroed().assume_init() });
    match slot.compare_exchange(std::ptr::null_mut(), page, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => page,
        Err(other) => {
            // SAFETY: nobody has seen it.
            drop(unsafe { Box::from_raw(page) });
            other
        }
    }
}

impl Drop for Distinct {
    fn drop(&mut self) {
        for slot in &mut self.pages {
            let page = *slot.get_mut();
            if !page.is_null() {
                // SAFETY: boxed by `new_page`, and nobody uses it any more.
                drop(unsafe { Box::from_raw(page) });
            }
        }
    }
}
