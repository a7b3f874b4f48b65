//! What lanes of one warp know of each other, where not all of them have met.

/// Of the lanes of a warp: up to which tick each knows each other.
#[derive(Clone, Debug)]
pub struct Met(Box<[[u32; 32]; 32]>);

impl Met {
    /// Nobody knows of anybody.
    pub fn new() -> Self {
        Met(Box::new([[0; 32]; 32]))
    }

    /// The lanes of `mask` meet: what one of them knows, all do, and what each did before the tick.
    pub fn meet(&mut self, mask: u32, tick: u32) {
        let members = || (0..32usize).filter(|lane| mask >> lane & 1 != 0);
        let mut union: [u32; 32] = std::array::from_fn(|of| self.of_any(mask, of as u32));
        members().for_each(|lane| union[lane] = tick);
        members().for_each(|lane| self.0[lane] = union);
    }

    /// Lanes, in this order, have changed a word by one instruction: each has heard from those before it what each has handed
    /// on, itself `up_to` a tick.
    pub fn follow(&mut self, order: impl Iterator<Item = u32>, up_to: impl Fn(u32) -> u32) {
        let mut union = [0; 32];
        for lane in order {
            let known = &mut self.0[lane as usize];
            for (known, told) in known.iter_mut().zip(union) {
                *known = told.max(*known);
            }
            known[lane as usize] = known[lane as usize].max(up_to(lane));
            union = *known;
        }
    }

    /// Up to which tick a lane knows another.
    pub fn of(&self, lane: u32, of: u32) -> u32 {
        self.0[lane as usize][of as usize]
    }

    /// Up to which tick one of the lanes of `mask` knows another.
    pub fn of_any(&self, mask: u32, of: u32) -> u32 {
        (0..32).filter(|lane| mask >> lane & 1 != 0).map(|lane| self.of(lane, of)).max().unwrap_or(0)
    }
}
