//! What lies behind a simulated recording, for later comparison: saved beside it, opened by numpy.

use super::sources::{BEND, PER_STATE};
use super::states::{LONGEST_S, N_STATE, RETURN, SLOW_PERIOD_S, TAIL, Visit};
use super::trials::N_EVOKED;
use super::{Simulation, Trial, subject, trials};
use crate::error::Result;
use crate::storage::atomic::AtomicFile;
use crate::storage::container::{self, Entry};
use crate::storage::disk::{Disk, Os};
use safetensors::Dtype;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// The truth of one recording.
#[derive(Debug, Clone)]
pub struct Truth {
    /// The hidden state's visits, the first at timestep 0.
    pub visits: Vec<Visit>,
    /// Length of the recording in timesteps.
    pub n_timestep: usize,
    /// The trials, as shown to the subject.
    pub trials: Vec<Trial>,
    /// Noiseless responses, T or T/m: `[condition − 1][channel][time]`, row-major; zero for channels that do not feel
    /// the head (flat ones, the trigger).
    pub evoked: Vec<f32>,
    /// Shape of `evoked`.
    pub evoked_shape: [usize; 3],
    /// How the channels see each oscillator, T or T/m for amplitude 1: `[state][Re z, Im z, Re z², Im z²][channel]`.
    pub mixing: Vec<f32>,
    /// Frequency of each state's oscillation at amplitude 1, Hz.
    pub frequency_hz: [f64; N_STATE],
    /// Size and phase (radians) of each oscillation's second harmonic.
    pub harmonic: [(f64, f64); N_STATE],
    /// How loud the background is driven in each state.
    pub loudness: [f64; N_STATE],
    /// Weights of the next state, `[from][to]`.
    pub transition: [[f64; N_STATE]; N_STATE],
    /// Shortest lifetime of each state, seconds.
    pub shortest_s: [f64; N_STATE],
    /// Phase of the slow swing at the start, radians; its period is [`SLOW_PERIOD_S`].
    pub slow_phase: f64,
    /// Timesteps at which blinks begin.
    pub blinks: Vec<usize>,
    sfreq: f64,
    seed: u64,
}

impl Truth {
    pub(super) fn new(plan: &Simulation) -> Self {
        let n_channel = plan.channels.len();
        let n_time = trials::response_len(plan.config.sfreq);
        // A flat channel feels nothing, and a trigger line has no row of weights.
        let weight = |channel: usize, source: usize| match plan.artefacts.bad.get(channel) {
            None | Some(Some(super::Bad::Flat)) => 0.0,
            Some(_) => plan.mixing[channel][source],
        };
        let mut evoked = Vec::with_capacity(plan.responses.len() * n_channel * n_time);
        let first = subject::N_SOURCE - N_EVOKED;
        for response in &plan.responses {
            for channel in 0..n_channel {
                let at = |time| (0..N_EVOKED).map(|d| weight(channel, first + d) * response[d][time]).sum::<f64>();
                evoked.extend((0..n_time).map(|time| at(time) as f32));
            }
        }
        let rows = (0..N_STATE * PER_STATE).flat_map(|row| (0..n_channel).map(move |channel| (channel, row)));
        Self {
            visits: plan.rhythms.visits.clone(),
            n_timestep: plan.config.n_timestep(),
            trials: plan.trials.clone(),
            evoked,
            evoked_shape: [plan.responses.len(), n_channel, n_time],
            mixing: rows.map(|(channel, row)| weight(channel, row) as f32).collect(),
            frequency_hz: plan.subject.frequency_hz,
            harmonic: plan.subject.harmonics(),
            loudness: plan.subject.loudness,
            transition: plan.subject.law.transition,
            shortest_s: plan.subject.law.shortest_s,
            slow_phase: plan.subject.law.slow_phase,
            blinks: plan.artefacts.blinks.clone(),
            sfreq: plan.config.sfreq,
            seed: plan.config.seed,
        }
    }

    /// The hidden state of every timestep.
    pub fn state(&self) -> Vec<u8> {
        let mut state = vec![0; self.n_timestep];
        for (i, visit) in self.visits.iter().enumerate() {
            let end = self.visits.get(i + 1).map_or(self.n_timestep, |next| next.start.min(self.n_timestep));
            if visit.start < end {
                state[visit.start..end].fill(visit.state);
            }
        }
        state
    }

    /// Writes the truth as a safetensors file: `state` (u8), `evoked`, `mixing` (f32), the states' parameters (f64),
    /// `trial_onset`, `trial_condition`, `blink_onset` (u64, timesteps); the constants are in the metadata.
    pub fn save(&self, path: &Path, force: bool) -> Result<()> {
        self.seal(Arc::new(Os), path, force)?.publish()
    }

    /// As [`Self::save`], on a given disk and under the temporary name still.
    pub fn seal(&self, disk: Arc<dyn Disk>, path: &Path, force: bool) -> Result<AtomicFile> {
        let state = self.state();
        let n_channel = self.evoked_shape[1];
        let f64s = |name: &'static str, shape: Vec<usize>, values: &[f64]| {
            (name, Dtype::F64, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
        };
        let f32s = |name: &'static str, shape: Vec<usize>, values: &[f32]| {
            (name, Dtype::F32, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
        };
        let u64s = |name: &'static str, values: Vec<usize>| {
            (name, Dtype::U64, vec![values.len()], values.iter().flat_map(|&x| (x as u64).to_le_bytes()).collect())
        };
        let harmonic: Vec<f64> = self.harmonic.iter().flat_map(|&(size, phase)| [size, phase]).collect();
        let tensors: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = vec![
            ("state", Dtype::U8, vec![state.len()], state),
            f32s("evoked", self.evoked_shape.to_vec(), &self.evoked),
            f32s("mixing", vec![N_STATE, PER_STATE, n_channel], &self.mixing),
            f64s("frequency_hz", vec![N_STATE], &self.frequency_hz),
            f64s("harmonic", vec![N_STATE, 2], &harmonic),
            f64s("loudness", vec![N_STATE], &self.loudness),
            f64s("transition", vec![N_STATE, N_STATE], &self.transition.concat()),
            f64s("shortest_lifetime_s", vec![N_STATE], &self.shortest_s),
            u64s("trial_onset", self.trials.iter().map(|t| t.onset).collect()),
            u64s("trial_condition", self.trials.iter().map(|t| t.condition).collect()),
            u64s("blink_onset", self.blinks.clone()),
        ];
        let meta = json!({
            "seed": self.seed,
            "sfreq": self.sfreq,
            "slow_period_s": SLOW_PERIOD_S,
            "slow_phase": self.slow_phase,
            "lifetime_tail": TAIL,
            "longest_lifetime_s": LONGEST_S,
            "return_probability": RETURN,
            "bend": BEND,
        });
        let entries: Vec<Entry> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| Entry { name, dtype: *dtype, shape: shape.clone(), bytes })
            .collect();
        container::sealed_on(disk, path, force, "truth", &meta, &entries)
    }
}
