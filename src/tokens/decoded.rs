//! Tokens as a recording: whole, or without the stretches that hold no usable signal.

use super::scheme::Quantiser;
use super::shard::Shard;
use crate::error::Result;
use crate::recording::{Block, Recording, Signal, marks};

impl Shard {
    /// The signal these tokens stand for, in SI units, excluded stretches and all.
    pub fn into_recording(self) -> Result<Recording> {
        let info = self.meta.info.clone();
        let quantiser = Quantiser::new(&self.meta.scheme);
        let tables = (0..info.n_channel()).map(|c| quantiser.decoded(self.scales.channel(c))).collect();
        Recording::new(info, Box::new(Decoded { shard: self, tables }))
    }

    /// The same without what is excluded: a recording for each stretch of usable signal, in order.
    pub fn into_usable(self) -> Result<Vec<Recording>> {
        let kept = self.kept();
        marks::pieces(self.into_recording()?, kept)
    }
}

/// A shard as a signal.
struct Decoded {
    shard: Shard,
    /// What each level stands for, for each channel, in SI units.
    tables: Vec<Vec<f64>>,
}

impl Signal for Decoded {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let mut block = Block::zeros(self.tables.len(), n_timestep);
        let mut tokens = vec![0; n_timestep];
        for (channel, table) in self.tables.iter().enumerate() {
            self.shard.tokens(channel, start, &mut tokens)?;
            for (x, &token) in block.channel_mut(channel).iter_mut().zip(&tokens) {
                *x = table[usize::from(token)];
            }
        }
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scheme::Scheme;
    use super::super::shard::Split;
    use super::super::shard::tests::{info, token, write_shard};
    use super::*;

    #[test]
    fn decodes_to_si_units_with_events() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_shard(folder.path(), "a", Split::Test, 3, 100, |_| ());
        let mut recording = Shard::open(&path).unwrap().into_recording().unwrap();
        assert_eq!(recording.info, info(3, 100));
        let block = recording.read(10, 5).unwrap();
        let levels = Scheme::PAPER.levels();
        for channel in 0..3 {
            for time in 0..5 {
                let z = 10.0 * levels[usize::from(token(channel, 10 + time))];
                let wanted = z * 2e-13 + channel as f64 * 1e-14;
                approx::assert_relative_eq!(block.channel(channel)[time], wanted, max_relative = 1e-14);
            }
        }
    }

    /// Two pieces, at 12 .. 60 and 80 .. 100 of the part; the event at 50 lasts into what is excluded.
    #[test]
    fn usable_pieces_leave_out_what_is_excluded() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_shard(folder.path(), "a", Split::Test, 3, 100, |m| {
            m.excluded = vec![0..12, 60..80];
            m.info.events[0].duration = 20;
        });
        let mut whole = Shard::open(&path).unwrap().into_recording().unwrap();
        let mut pieces = Shard::open(&path).unwrap().into_usable().unwrap();
        let infos: Vec<_> = pieces.iter().map(|p| (p.info.first_timestep, p.info.n_timestep)).collect();
        assert_eq!(infos, [(7 + 12, 48), (7 + 80, 20)]);
        let event = &pieces[0].info.events[0];
        assert_eq!((event.onset, event.duration, pieces[1].info.events.len()), (38, 10, 0));
        for (piece, start) in pieces.iter_mut().zip([12, 80]) {
            assert_eq!(piece.read(3, 10).unwrap(), whole.read(start + 3, 10).unwrap());
        }
        let nothing = write_shard(folder.path(), "b", Split::Test, 3, 100, |m| m.excluded.push(0..100));
        assert!(Shard::open(&nothing).unwrap().into_usable().unwrap().is_empty());
    }
}
