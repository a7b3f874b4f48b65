//! Keyed randomness: every draw is a function of `(seed, purpose, index, position)` through ChaCha8.
//!
//! Nothing random has to be saved, so resuming is exact; nothing random depends on the order of the work, so the same
//! seed gives the same bytes for any number of threads and any batch size. The key is the seed and the purpose, the
//! 64-bit stream is the index, and the position counts 32-bit words of the keystream: a CUDA kernel computes the same
//! word from the same four numbers.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a draw is for. Different purposes never share a keystream. The numbers are part of the file formats' meaning
/// (a run resumed by a later version draws the same), so they are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial parameters; index = the parameter's number in the layout.
    Init = 1,
    /// The order of training windows; index = the pass.
    WindowOrder = 2,
    /// Tokens drawn in generation; index = the sequence, position = the timestep.
    Sampling = 3,
    /// Random condition blocks in generation; index = the rollout.
    Conditions = 4,
    /// The simulator; index = what is simulated (see `recording::simulate`).
    Simulate = 5,
    /// The autoregressive control of the sampler in `evaluate`; index = the channel.
    Control = 6,
    /// Random labels in place of the data's conditions; index = the window, position = the condition.
    ConditionLabels = 32,
    /// Noise of a linear autoregression; index = the sequence, in the order of its timesteps.
    LinearNoise = 33,
    /// Where the states of the hidden Markov model begin, in `evaluate`; index = the attempt.
    States = 7,
    /// Phases and shifts of surrogates, in `evaluate`; index = the kind of surrogate, and the channel.
    Surrogate = 8,
    /// Trials drawn again for intervals, in `evaluate`; index = the draw.
    Bootstrap = 9,
    /// First weights, dropout and folds of the decoders, in `evaluate`; index = what is drawn.
    Decoder = 10,
}

/// The generator of `(seed, purpose, index)`, at position 0.
pub fn keyed(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    let mut generator = ChaCha8Rng::from_seed(key);
    generator.set_stream(index);
    generator
}

/// Maps a 32-bit word to [0, 1): its upper 24 bits times 2⁻²⁴, exact in f32 and the same on every device.
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// The one word at `position` of the keystream, by random access.
pub fn word_at(seed: u64, purpose: Purpose, index: u64, position: u64) -> u32 {
    let mut generator = keyed(seed, purpose, index);
    generator.set_word_pos(u128::from(position));
    generator.next_u32()
}

/// The one uniform draw in [0, 1) at `position` of the keystream, by random access.
pub fn uniform_at(seed: u64, purpose: Purpose, index: u64, position: u64) -> f32 {
    unit(word_at(seed, purpose, index, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_access_equals_sequential() {
        let mut generator = keyed(7, Purpose::Sampling, 3);
        for position in 0..70 {
            assert_eq!(unit(generator.next_u32()), uniform_at(7, Purpose::Sampling, 3, position));
        }
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let base = uniform_at(7, Purpose::Sampling, 3, 0);
        assert_ne!(base, uniform_at(8, Purpose::Sampling, 3, 0));
        assert_ne!(base, uniform_at(7, Purpose::Init, 3, 0));
        assert_ne!(base, uniform_at(7, Purpose::Sampling, 4, 0));
        assert_ne!(base, uniform_at(7, Purpose::Sampling, 3, 1));
    }

    #[test]
    fn unit_stays_below_one() {
        assert_eq!(unit(0), 0.0);
        assert!(unit(u32::MAX) < 1.0);
    }
}
