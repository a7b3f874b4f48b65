//! Which stretches of the arena are taken, free, or waiting until their address may be used again.

use std::collections::{BTreeMap, VecDeque};

/// Allocations begin at multiples of this, as the driver's do.
pub const ALIGNMENT: u64 = 256;
/// At least this many bytes before and after an allocation belong to nobody.
pub const RED_ZONE: u64 = 256;

/// A live or freed allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its first byte, from the start of the arena.
    pub offset: u64,
    /// Its length as asked for.
    pub bytes: u64,
}

impl Stretch {
    /// What it takes up, red zones included: from `offset - RED_ZONE`.
    fn footprint(&self) -> u64 {
        self.bytes.max(1).next_multiple_of(ALIGNMENT) + 2 * RED_ZONE
    }
}

/// First fit over the free spans. Freed stretches stay unusable until more than `quarantine_limit` bytes wait, so that a
/// use after free hits memory that nobody owns.
#[derive(Debug)]
pub struct Allocator {
    free: BTreeMap<u64, u64>,
    live: BTreeMap<u64, Stretch>,
    quarantine: VecDeque<Stretch>,
    quarantine_bytes: u64,
    quarantine_limit: u64,
    capacity: u64,
    used: u64,
}

/// Why a stretch cannot be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotFree {
    /// It has been freed before.
    Twice,
    /// No allocation begins there.
    Unknown,
}

impl Allocator {
    /// Manages `length` bytes, of which `capacity` may be in use at a time.
    pub fn new(length: u64, capacity: u64) -> Self {
        Allocator {
            free: BTreeMap::from([(0, length)]),
            live: BTreeMap::new(),
            quarantine: VecDeque::new(),
            quarantine_bytes: 0,
            quarantine_limit: capacity / 2,
            capacity,
            used: 0,
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Bytes that may be in use at a time.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Takes `bytes` bytes; their offset, or none when they do not fit.
    pub fn allocate(&mut self, bytes: u64) -> Option<u64> {
        let rounded = bytes.max(1).checked_next_multiple_of(ALIGNMENT)?;
        if self.used.checked_add(rounded)? > self.capacity {
            return None;
        }
        let needed = rounded.checked_add(2 * RED_ZONE)?;
        loop {
            let found =
                self.free.iter().find(|(_, length)| **length >= needed).map(|(start, length)| (*start, *length));
            if let Some((start, length)) = found {
                self.free.remove(&start);
                if length > needed {
                    self.free.insert(start + needed, length - needed);
                }
                let stretch = Stretch { offset: start + RED_ZONE, bytes };
                self.live.insert(stretch.offset, stretch);
                self.used += rounded;
                return Some(stretch.offset);
            }
            let oldest = self.quarantine.pop_front()?;
            self.release(oldest);
        }
    }

    /// Frees the allocation that begins at `offset`.
    pub fn free(&mut self, offset: u64) -> Result<Stretch, CannotFree> {
        let Some(stretch) = self.live.remove(&offset) else {
            let twice = self.quarantine.iter().any(|freed| freed.offset == offset);
            return Err(if twice { CannotFree::Twice } else { CannotFree::Unknown });
        };
        self.used -= stretch.bytes.max(1).next_multiple_of(ALIGNMENT);
        self.quarantine.push_back(stretch);
        self.quarantine_bytes += stretch.footprint();
        while self.quarantine_bytes > self.quarantine_limit {
            let Some(oldest) = self.quarantine.pop_front() else { break };
            self.release(oldest);
        }
        Ok(stretch)
    }

    /// The live allocation that holds `offset`.
    pub fn containing(&self, offset: u64) -> Option<Stretch> {
        let (_, stretch) = self.live.range(..=offset).next_back()?;
        (offset < stretch.offset + stretch.bytes).then_some(*stretch)
    }

    /// The freed allocation that holds `offset`, while it is in quarantine.
    pub fn freed_containing(&self, offset: u64) -> Option<Stretch> {
        self.quarantine.iter().rev().find(|s| offset >= s.offset && offset < s.offset + s.bytes).copied()
    }

    /// The live allocation nearest to `offset`.
    pub fn nearest(&self, offset: u64) -> Option<Stretch> {
        let before = self.live.range(..=offset).next_back().map(|(_, s)| *s);
        let after = self.live.range(offset..).next().map(|(_, s)| *s);
        let distance = |s: &Stretch| {
            if offset < s.offset {
                s.offset - offset
            } else {
                offset - (s.offset + s.bytes).saturating_sub(1).min(offset)
            }
        };
        before.into_iter().chain(after).min_by_key(distance)
    }

    /// All live allocations, by address.
    pub fn live(&self) -> impl Iterator<Item = Stretch> + '_ {
        self.live.values().copied()
    }

    /// Puts a quarantined stretch among the free spans and joins it with its neighbours.
    fn release(&mut self, stretch: Stretch) {
        self.quarantine_bytes = self.quarantine_bytes.saturating_sub(stretch.footprint());
        let (mut start, mut length) = (stretch.offset - RED_ZONE, stretch.footprint());
        if let Some((&before, &bytes)) = self.free.range(..start).next_back()
            && before + bytes == start
        {
            self.free.remove(&before);
            (start, length) = (before, length + bytes);
        }
        if let Some(bytes) = self.free.remove(&(start + length)) {
            length += bytes;
        }
        self.free.insert(start, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_aligned_and_apart() {
        let mut allocator = Allocator::new(1 << 20, 1 << 19);
        let a = allocator.allocate(1).unwrap();
        let b = allocator.allocate(256).unwrap();
        let c = allocator.allocate(257).unwrap();
        assert!([a, b, c].iter().all(|at| at % ALIGNMENT == 0));
        assert!(b >= a + 256 + RED_ZONE && c >= b + 256 + RED_ZONE);
        assert_eq!(allocator.used(), 256 + 256 + 512);
        assert_eq!(allocator.containing(b + 255).unwrap().offset, b);
        assert_eq!(allocator.containing(b + 256), None);
        assert_eq!(allocator.nearest(b + 256).unwrap().offset, b);
    }

    #[test]
    fn freed_stretches_wait_and_come_back_joined() {
        let mut allocator = Allocator::new(8192, 4096);
        let a = allocator.allocate(1024).unwrap();
        let b = allocator.allocate(1024).unwrap();
        allocator.free(a).unwrap();
        assert_eq!(allocator.free(a), Err(CannotFree::Twice));
        assert_eq!(allocator.free(a + 256), Err(CannotFree::Unknown));
        assert_eq!(allocator.freed_containing(a + 3).unwrap().offset, a);
        allocator.free(b).unwrap();
        // Larger than what was never used: needs both stretches back and joined with the rest.
        assert!(allocator.allocate(4096).is_some());
        assert_eq!(allocator.allocate(1), None);
    }
}
