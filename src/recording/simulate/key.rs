//! Which keystream each part of a simulation draws from.

/// A part of the simulation with draws of its own.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    /// What makes a subject, or (for [`GROUP`]) what subjects have in common.
    Anatomy,
    /// The conditions' responses.
    Responses,
    /// The hidden states.
    Visits,
    /// Trials.
    Trials,
    /// Bad channels, blinks, jumps.
    Artefacts,
    /// The state of the sources before the first timestep.
    Start,
    /// The sources; a chunk at a time.
    Sources,
    /// The noise of a sensor, by its number in the helmet; a chunk at a time.
    Sensor(usize),
}

/// In place of a subject's number: the group.
pub const GROUP: usize = N_SUBJECT_MAX;
/// Number of subjects that the keys can tell apart.
pub const N_SUBJECT_MAX: usize = 4095;
/// Number of sensors that the keys can tell apart.
pub const N_SENSOR_MAX: usize = (1 << 20) - 16;

impl Stream {
    /// The index for [`crate::random::keyed`]: subject (12 bits), stream (20 bits), chunk (32 bits).
    pub fn key(self, subject: usize, chunk: u64) -> u64 {
        let stream = match self {
            Self::Anatomy => 0,
            Self::Responses => 1,
            Self::Visits => 2,
            Self::Trials => 3,
            Self::Artefacts => 4,
            Self::Start => 5,
            Self::Sources => 6,
            Self::Sensor(number) => 16 + number as u64,
        };
        (subject as u64) << 52 | stream << 32 | chunk
    }
}
