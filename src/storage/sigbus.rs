//! A mapped file that shrinks under us kills its reader with SIGBUS, however it is mapped. The program turns that into
//! one line that names the file, and the exit code of a failed read.

use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Maps that can be named at a time; the fault of any further one is reported without a name.
const N_SLOT: usize = 1024;
/// Exit code of [`crate::error::Kind::Io`].
const EXIT: i32 = crate::error::Kind::Io as i32;

/// One map: a range of addresses and its file's name. All plain atomics, so that a signal handler may read them.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    name: AtomicPtr<Name>,
}

/// A name is never freed: the handler might be reading it.
type Name = Box<[u8]>;

static SLOTS: [Slot; N_SLOT] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), name: AtomicPtr::new(std::ptr::null_mut()) }
}; N_SLOT];

/// Keeps the name of a map for as long as the map lives.
pub struct Named(Option<&'static Slot>);

/// Gives the addresses of a map the name of its file.
pub fn name(addresses: Range<*const u8>, path: &Path) -> Named {
    let (start, end) = (addresses.start as usize, addresses.end as usize);
    let free = |slot: &&Slot| slot.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let slot = SLOTS.iter().find(free);
    if let Some(slot) = slot {
        // A slot's old name is leaked, one short string a file opened; reuse of it would race with the handler.
        let name: Name = path.as_os_str().as_bytes().into();
        slot.name.store(Box::into_raw(Box::new(name)), Ordering::Release);
        slot.end.store(end, Ordering::Release);
    }
    Named(slot)
}

impl Drop for Named {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            slot.end.store(0, Ordering::Release);
            slot.start.store(0, Ordering::Release);
        }
    }
}

/// Installs the handler. Called once, by the program.
pub fn install() -> std::io::Result<()> {
    // SAFETY: an all-zero sigaction is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: `action` is initialised, and the handler does only what a handler may: atomic loads, write, _exit.
    let failed = unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) } != 0;
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

extern "C" fn on_sigbus(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: SA_SIGINFO makes the kernel pass a valid siginfo.
    let address = unsafe { (*info).si_addr() } as usize;
    let holds =
        |slot: &&Slot| (slot.start.load(Ordering::Acquire)..slot.end.load(Ordering::Acquire)).contains(&address);
    let name = SLOTS.iter().find(holds).map(|slot| slot.name.load(Ordering::Acquire));
    print(b"gpt2meg: ");
    match name {
        // SAFETY: names are written once before the range becomes valid, and never freed.
        Some(name) if !name.is_null() => print(unsafe { &*name }),
        _ => print(b"a mapped file"),
    }
    print(b": the file shrank, or its disk failed, while it was read. Restore the file and start again\n");
    // SAFETY: _exit may be called in a handler.
    unsafe { libc::_exit(EXIT) }
}

fn print(text: &[u8]) {
    // SAFETY: write may be called in a handler; the pointer and length are the slice's.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}
