//! The records of global memory, in pages that come into being when touched.
//!
//! Blocks that run on several threads share them. Whoever looks at a page has it alone: what one access finds and leaves
//! is one step, so that of two accesses that race the second finds the first, whichever that is.

use std::cell::UnsafeCell;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr};

use super::clock::Warps;
use super::race::{Cell, READ, Record, WRITE};
use super::tag::Tag;

/// Words of a page.
pub const PAGE: usize = 2048;

/// The records of a page. All zero at first.
pub(super) struct Words {
    /// Of plain accesses.
    pub plain: [Records; 2],
    /// Of strong ones, once there has been one.
    pub strong: Option<Box<[Records; 2]>>,
    /// What has been overwritten, if the launch may have to be undone.
    pub kept: Option<Box<Kept>>,
}

pub(super) struct Records {
    pub tags: [u64; PAGE],
    /// [`Warps`], as one number.
    pub warps: [u64; PAGE],
    pub blocks: [u32; PAGE],
}

/// What words held before the launch wrote them first.
pub(super) struct Kept {
    /// Which of their bytes have been kept, a bit for each.
    pub bytes: [u8; PAGE],
    pub before: [[u8; 4]; PAGE],
    pub shadow: [u8; PAGE],
}

impl Records {
    fn get(&self, index: usize) -> Record {
        Record { tag: Tag(self.tags[index]), block: self.blocks[index], warps: self.warps_of(index), timed: false }
    }

    pub fn set(&mut self, index: usize, record: Record) {
        (self.tags[index], self.blocks[index]) = (record.tag.0, record.block);
        self.warps[index] = record.warps.pack();
    }

    pub fn warps_of(&self, index: usize) -> Warps {
        Warps::unpack(self.warps[index])
    }
}

/// A box of zeros.
///
/// # Safety
/// All bits zero are a valid `T`.
unsafe fn zeroed<T>() -> Box<T> {
    // SAFETY: by the caller's promise.
    unsafe { Box::<T>::new_zeroed().assume_init() }
}

impl Words {
    /// All that is recorded of a word.
    pub fn cell(&self, index: usize) -> Cell {
        let of = |records: &[Records; 2]| [records[READ].get(index), records[WRITE].get(index)];
        Cell { plain: of(&self.plain), strong: self.strong.as_deref().map_or([Record::default(); 2], of) }
    }

    /// The records of strong accesses.
    pub fn strong(&mut self) -> &mut [Records; 2] {
        // SAFETY: numbers.
        self.strong.get_or_insert_with(|| unsafe { zeroed() })
    }

    /// What has been overwritten.
    pub fn kept(&mut self) -> &mut Kept {
        // SAFETY: numbers.
        self.kept.get_or_insert_with(|| unsafe { zeroed() })
    }
}

struct Page {
    taken: AtomicBool,
    words: UnsafeCell<Words>,
}

/// All pages of a memory.
#[derive(Debug)]
pub(super) struct Pages {
    pages: Vec<AtomicPtr<Page>>,
    /// The numbers of those that there are.
    used: Mutex<Vec<usize>>,
    /// Whether several threads use them.
    parallel: bool,
}

// SAFETY: a page is used by whom has taken it (see `Pages::take`).
unsafe impl Sync for Pages {}
// SAFETY: it owns what its pointers point to.
unsafe impl Send for Pages {}

/// A page that is used by nobody else.
pub(super) struct Taken<'a> {
    pub number: usize,
    page: &'a Page,
    parallel: bool,
}

impl Taken<'_> {
    /// Its records.
    #[inline(always)]
    pub fn words(&mut self) -> &mut Words {
        // SAFETY: whoever holds a `Taken` has the page alone.
        unsafe { &mut *self.page.words.get() }
    }
}

impl Drop for Taken<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.parallel {
            self.page.taken.store(false, Release);
        }
    }
}

impl Pages {
    /// For so many words. If not `parallel`, one thread uses them, and takes one page at a time.
    pub fn new(words: u64, parallel: bool) -> Self {
        let count = words.div_ceil(PAGE as u64) as usize;
        // Zeroed memory, of which the system provides only what is touched.
        let mut pages = std::mem::ManuallyDrop::new(vec![0usize; count]);
        let (pointer, capacity) = (pages.as_mut_ptr(), pages.capacity());
        // SAFETY: a null pointer is all zeros, and both types have the same size and alignment.
        let pages = unsafe { Vec::from_raw_parts(pointer.cast(), count, capacity) };
        Pages { pages, used: Mutex::default(), parallel }
    }

    /// Whether several threads use them.
    pub fn parallel(&self) -> bool {
        self.parallel
    }

    /// Takes a page, when nobody else has it.
    ///
    /// # Safety
    /// The thread holds no other page, and unless these are parallel no other thread holds one.
    #[inline(always)]
    pub unsafe fn take(&self, number: usize) -> Taken<'_> {
        let mut page = self.pages[number].load(Acquire);
        if page.is_null() {
            page = self.new_page(number);
        }
        // SAFETY: it was boxed below, and lives as long as `self`.
        let page = unsafe { &*page };
        if self.parallel && page.taken.swap(true, Acquire) {
            self.wait(page);
        }
        Taken { number, page, parallel: self.parallel }
    }

    #[cold]
    fn wait(&self, page: &Page) {
        let mut tries = 0;
        while page.taken.load(Relaxed) || page.taken.swap(true, Acquire) {
            tries += 1;
            if tries % 64 == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    #[cold]
    fn new_page(&self, number: usize) -> *mut Page {
        // SAFETY: zeros are numbers, null boxes, and a flag that is not set.
        let page = Box::into_raw(unsafe { zeroed::<Page>() });
        match self.pages[number].compare_exchange(std::ptr::null_mut(), page, AcqRel, Acquire) {
            Ok(_) => {
                self.used.lock().unwrap_or_else(|e| e.into_inner()).push(number);
                page
            }
            Err(other) => {
                // SAFETY: nobody has seen it.
                drop(unsafe { Box::from_raw(page) });
                other
            }
        }
    }

    /// The numbers of the pages that have been touched, in order.
    pub fn used(&self) -> Vec<usize> {
        let mut used = self.used.lock().unwrap_or_else(|e| e.into_inner()).clone();
        used.sort_unstable();
        used
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for number in self.used() {
            // SAFETY: boxed by `new_page`, and nobody uses it any more.
            drop(unsafe { Box::from_raw(*self.pages[number].get_mut()) });
        }
    }
}
