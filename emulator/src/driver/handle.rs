//! Handles: what C programs hold of streams, events, modules and the rest.
//!
//! A handle is not a pointer. It is a number that no pointer can be (its upper bits are not canonical on x86-64), made
//! of a kind and a serial that is never given twice: so a handle of the wrong kind, a destroyed one and one from
//! elsewhere are told apart, and following one as a pointer faults at once.

use std::collections::BTreeMap;
use std::ffi::c_void;

use super::error::{Failure, Outcome, Status};

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `CUcontext`.
    Context = 1,
    /// `CUstream`.
    Stream,
    /// `CUevent`.
    Event,
    /// `CUmodule`.
    Module,
    /// `CUfunction`.
    Function,
    /// `CUgraph`.
    Graph,
    /// `CUgraphExec`.
    GraphExec,
    /// `CUmemoryPool`.
    Pool,
}

const KINDS: [(Kind, &str); 8] = [
    (Kind::Context, "context"),
    (Kind::Stream, "stream"),
    (Kind::Event, "event"),
    (Kind::Module, "module"),
    (Kind::Function, "function"),
    (Kind::Graph, "graph"),
    (Kind::GraphExec, "executable graph"),
    (Kind::Pool, "memory pool"),
];

impl Kind {
    fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("object", |(_, name)| name)
    }
}

/// Bits 48 to 63: above any user-space address, and not its sign extension.
const MARK: u64 = 0x0C0D_0000_0000_0000;

/// The number of an object among those of its kind; never given twice.
pub type Serial = u64;

/// The handle of an object.
pub fn encode(kind: Kind, serial: Serial) -> *mut c_void {
    std::ptr::without_provenance_mut((MARK | (kind as u64) << 40 | serial << 4) as usize)
}

/// Kind and serial of a handle, if it is one.
fn decode(handle: *mut c_void) -> Option<(Kind, Serial)> {
    let bits = handle.addr() as u64;
    if bits & 0xFFFF_0000_0000_000F != MARK {
        return None;
    }
    let kind = KINDS.iter().find(|(kind, _)| *kind as u64 == (bits >> 40) & 0xFF)?.0;
    Some((kind, (bits & 0xFF_FFFF_FFFF) >> 4))
}

/// The live objects of one kind.
#[derive(Debug)]
pub struct Table<T> {
    kind: Kind,
    next: Serial,
    live: BTreeMap<Serial, T>,
}

impl<T> Table<T> {
    /// An empty table.
    pub fn new(kind: Kind) -> Table<T> {
        Table { kind, next: 1, live: BTreeMap::new() }
    }

    /// Takes an object in and gives it a serial.
    pub fn insert(&mut self, object: T) -> Serial {
        let serial = self.next;
        self.next += 1;
        self.live.insert(serial, object);
        serial
    }

    /// The handle of an object in this table.
    pub fn handle(&self, serial: Serial) -> *mut c_void {
        encode(self.kind, serial)
    }

    /// Which live object a handle means, or why none.
    pub fn serial(&self, handle: *mut c_void) -> Outcome<Serial> {
        let kind = self.kind.name();
        let mut status = if self.kind == Kind::Context { Status::INVALID_CONTEXT } else { Status::INVALID_HANDLE };
        let text = match decode(handle) {
            _ if handle.is_null() => format!("the {kind} is null"),
            Some((found, serial)) if found == self.kind => {
                if self.live.contains_key(&serial) {
                    return Ok(serial);
                }
                if serial < self.next && self.kind == Kind::Context {
                    status = Status::CONTEXT_IS_DESTROYED;
                }
                let fate = if serial < self.next { "was destroyed before" } else { "was never made" };
                format!("the {kind} {handle:?} {fate}")
            }
            Some((found, _)) => format!("{handle:?} is a {}, not a {kind}", found.name()),
            None => format!("{handle:?} is not a {kind} of this driver"),
        };
        Err(Failure { status, text })
    }

    /// The object behind a handle.
    pub fn get(&self, handle: *mut c_void) -> Outcome<&T> {
        self.serial(handle).map(|serial| &self.live[&serial])
    }

    /// The object behind a handle, to change it.
    pub fn get_mut(&mut self, handle: *mut c_void) -> Outcome<&mut T> {
        let serial = self.serial(handle)?;
        Ok(self.live.get_mut(&serial).expect("serial() found it"))
    }

    /// The object of a serial, while it lives.
    pub fn find(&self, serial: Serial) -> Option<&T> {
        self.live.get(&serial)
    }

    /// The object of a serial, to change it, while it lives.
    pub fn find_mut(&mut self, serial: Serial) -> Option<&mut T> {
        self.live.get_mut(&serial)
    }

    /// Destroys an object.
    pub fn remove(&mut self, serial: Serial) -> Option<T> {
        self.live.remove(&serial)
    }

    /// The live objects, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Serial, &T)> {
        self.live.iter().map(|(serial, object)| (*serial, object))
    }

    /// The live objects, oldest first, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Serial, &mut T)> {
        self.live.iter_mut().map(|(serial, object)| (*serial, object))
    }

    /// Destroys all objects but those that a rule keeps.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.live.retain(|_, object| keep(object));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_told_apart() {
        let mut streams = Table::new(Kind::Stream);
        let events: Table<()> = Table::new(Kind::Event);
        let serial = streams.insert("s");
        let handle = streams.handle(serial);
        assert_eq!(streams.get(handle), Ok(&"s"));
        assert!(events.get(handle).unwrap_err().text.contains("is a stream, not a event"));
        streams.remove(serial);
        assert!(streams.get(handle).unwrap_err().text.contains("was destroyed before"));
        assert_ne!(streams.insert("t"), serial, "serials are not given twice");
        let local = 0;
        assert!(streams.get((&raw const local).cast_mut().cast()).unwrap_err().text.contains("not a stream of this"));
        assert!(streams.get(encode(Kind::Stream, 99)).unwrap_err().text.contains("never made"));
        assert!(streams.get(std::ptr::null_mut()).unwrap_err().text.contains("null"));
    }
}
