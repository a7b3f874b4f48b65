//! What goes wrong inside a warp, before it is known where that is.

use super::FaultKind;
use crate::watch::{FindingKind, Space};

/// A finding in the making.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What kind of wrong.
    pub kind: FindingKind,
    /// The first lane that did it.
    pub lane: u32,
    /// Space and address.
    pub address: Option<(Space, u64)>,
    /// What happened.
    pub message: String,
    /// The operation at fault, when it is not the one being executed.
    pub at: Option<u32>,
    /// The operation on the other side of a race.
    pub other: Option<u32>,
}

/// Nothing, or what went wrong. Boxed, so that the common case is one register.
pub type Outcome<T = ()> = Result<T, Box<Trouble>>;

/// Trouble that did not end its block, and how often there was the same.
#[derive(Clone, Debug)]
pub struct Noted {
    /// The warp.
    pub warp: u32,
    /// The operation that it was executing.
    pub pc: u32,
    /// What.
    pub trouble: Box<Trouble>,
    /// How often.
    pub times: u64,
}

impl Noted {
    /// What makes two of them the same: the kind, and the places in the code.
    pub fn key(&self) -> (FindingKind, u32, Option<u32>) {
        (self.trouble.kind, self.trouble.at.unwrap_or(self.pc), self.trouble.other)
    }
}

impl Trouble {
    /// Whether the block can go on as if nothing had been.
    pub fn is_harmless(&self) -> bool {
        matches!(self.kind, FindingKind::Race | FindingKind::Uninitialised | FindingKind::InFlight)
    }

    /// One of `kind` at a lane.
    pub fn new(kind: FindingKind, lane: u32, message: impl Into<String>) -> Box<Trouble> {
        Box::new(Trouble { kind, lane, address: None, message: message.into(), at: None, other: None })
    }

    /// Likewise, about an address.
    pub fn at_address(
        kind: FindingKind,
        lane: u32,
        space: Space,
        address: u64,
        message: impl Into<String>,
    ) -> Box<Trouble> {
        let mut trouble = Self::new(kind, lane, message);
        trouble.address = Some((space, address));
        trouble
    }

    /// How the driver reports it.
    pub fn fault(&self) -> FaultKind {
        match self.kind {
            FindingKind::OutOfBounds => FaultKind::IllegalAddress,
            FindingKind::Misaligned => FaultKind::MisalignedAddress,
            FindingKind::Assert => FaultKind::Assert,
            FindingKind::Runaway => FaultKind::Runaway,
            _ => FaultKind::LaunchFailed,
        }
    }
}
