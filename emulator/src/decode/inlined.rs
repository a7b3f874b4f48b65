//! Where the code of inlined functions was called: the whole way out to a function that was not inlined.
//!
//! A `.loc` names one call only. But the place of that call has been given by a `.loc` of its own before, which tells where
//! it was inlined in turn.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ptx::{At, Location};

/// Calls around a place, from the inside out.
pub type Calls = Arc<[At]>;

/// What the locations of a body have told so far.
#[derive(Default)]
pub struct Inlined<'a> {
    /// The location before this one, and the calls around it.
    last: Option<(Location<'a>, Calls)>,
    /// By place: the calls around it, as last told.
    by_place: HashMap<At, Calls>,
    /// By inlined function and the place of its call: the calls around it.
    by_call: HashMap<(&'a str, At), Calls>,
}

impl<'a> Inlined<'a> {
    /// The calls around the code that follows a location.
    pub fn enter(&mut self, location: &Location<'a>) -> Calls {
        let calls = match location.inlined_at {
            None => Calls::default(),
            Some(at) => self.calls(location.function, at),
        };
        self.by_place.insert(location.at, calls.clone());
        self.last = Some((*location, calls.clone()));
        calls
    }

    fn calls(&mut self, function: &'a str, at: At) -> Calls {
        let key = (function, at);
        // The first mention of a call follows that of its place. (A function that calls itself there is not meant.)
        let outer = match &self.last {
            Some((last, outer)) if last.at == at && (last.function, last.inlined_at) != (function, Some(at)) => {
                Some(outer)
            }
            _ => None,
        };
        if let (None, Some(calls)) = (outer, self.by_call.get(&key)) {
            return calls.clone();
        }
        let outer = outer.or_else(|| self.by_place.get(&at));
        let calls: Calls =
            std::iter::once(at).chain(outer.into_iter().flat_map(|calls| calls.iter().copied())).collect();
        self.by_call.insert(key, calls.clone());
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(file: u32, line: u32) -> At {
        At { file, line, column: 5 }
    }

    #[test]
    fn calls_are_followed_to_the_outermost() {
        let mut inlined = Inlined::default();
        let mut enter = |place, function, call: Option<At>| {
            let location = Location { at: place, function, inlined_at: call };
            inlined.enter(&location).to_vec()
        };
        assert_eq!(enter(at(1, 11), "", None), []);
        assert_eq!(enter(at(2, 70), "f", Some(at(1, 11))), [at(1, 11)]);
        assert_eq!(enter(at(3, 50), "g", Some(at(2, 70))), [at(2, 70), at(1, 11)]);
        // Back in f, then in g again, whose call is not repeated.
        assert_eq!(enter(at(2, 71), "f", Some(at(1, 11))), [at(1, 11)]);
        assert_eq!(enter(at(3, 51), "g", Some(at(2, 70))), [at(2, 70), at(1, 11)]);
        // A second call of f, with a second g in it.
        assert_eq!(enter(at(1, 12), "", None), []);
        assert_eq!(enter(at(2, 70), "f", Some(at(1, 12))), [at(1, 12)]);
        assert_eq!(enter(at(3, 50), "g", Some(at(2, 70))), [at(2, 70), at(1, 12)]);
        // A template that calls its next instance at one line: h0 in the kernel, h1 in h0, h2 in h1, back to h1.
        assert_eq!(enter(at(1, 13), "", None), []);
        assert_eq!(enter(at(4, 9), "h0", Some(at(1, 13))), [at(1, 13)]);
        assert_eq!(enter(at(4, 7), "h1", Some(at(4, 9))), [at(4, 9), at(1, 13)]);
        assert_eq!(enter(at(4, 9), "h1", Some(at(4, 9))), [at(4, 9), at(1, 13)]);
        assert_eq!(enter(at(4, 7), "h2", Some(at(4, 9))), [at(4, 9), at(4, 9), at(1, 13)]);
        assert_eq!(enter(at(4, 8), "h1", Some(at(4, 9))), [at(4, 9), at(1, 13)]);
        // A place that was never given: the chain ends there.
        assert_eq!(enter(at(5, 1), "x", Some(at(6, 2))), [at(6, 2)]);
    }
}
