//! A simulator of MEG whose truth is known: what a model can learn, and what it cannot, is decided here.
//!
//! A recording is `sensors × (oscillators + background + evoked responses + artefacts) + sensor noise`:
//!
//! - `helmet`: 102 places with a magnetometer and two planar gradiometers each; fields of dipoles in a sphere.
//! - `states`: 12 hidden states, one at a time; heavy-tailed lifetimes.
//! - `sources`: each state switches an oscillator of its own frequency (2–40 Hz) and sets how loud the 1/f
//!   background is driven.
//! - `trials`: conditions with their own responses around 100, 165 and 250 ms.
//! - `subject`: dipoles, phases, rates and gains; the group's, changed a little for each subject.
//! - `artefacts`: bad channels, blinks, drifts and jumps, on request.
//!
//! # Where the structure lies
//!
//! | structure | lag | who can use it |
//! | --- | --- | --- |
//! | spectrum, on average | < 0.2 s | a linear autoregression |
//! | which state is on: its frequency, the size of what comes next | 0.05–2.5 s | a model that adapts to its context |
//! | a visit's amplitude sets its frequency; harmonics; chirps at on- and offset | 0.05–1 s | a nonlinear model |
//! | lifetimes with a power-law tail: the longer a state has lasted, the longer it will | 0.3–2.5 s | a model with context |
//! | return to the state before the last | 0.3–2.5 s | a model with context |
//! | swing of the odds between even and odd states, period 11 s | 5–20 s | none with a context of 2.56 s: a control |
//!
//! Everything follows from `(seed, subject)`: it depends neither on threads, nor on the stretches asked for, nor (but
//! for bad channels and jumps) on how many channels there are; the hidden states and trials do not depend on `sfreq`.

mod artefacts;
mod helmet;
mod key;
mod signal;
mod sources;
mod states;
mod subject;
#[cfg(test)]
mod tests;
mod trials;
mod truth;

pub use artefacts::{Bad, Jump};
pub use states::{N_STATE, SLOW_PERIOD_S, TAIL, Visit};
pub use trials::{TRIAL_S, Trial};
pub use truth::Truth;

use crate::ensure;
use crate::error::{Kind, Result};
use crate::recording::{Channel, ChannelKind, Event, Info, Recording};
use artefacts::Artefacts;
use helmet::Sensor;
use key::{N_SENSOR_MAX, N_SUBJECT_MAX, Stream};
use sources::Rhythms;
use subject::Subject;

/// What to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Seed of everything.
    pub seed: u64,
    /// Length in seconds.
    pub seconds: f64,
    /// Sampling rate in Hz.
    pub sfreq: f64,
    /// Number of MEG channels; 306 are a whole helmet.
    pub n_channel: usize,
    /// Number of conditions; with 0 there are no trials.
    pub n_condition: usize,
    /// Number of bad channels, flat and noisy by turns.
    pub n_bad: usize,
    /// Blinks, drifts and jumps.
    pub artefacts: bool,
    /// A trigger channel, `STI 014`, after the others.
    pub stim: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            seconds: 600.0,
            sfreq: 250.0,
            n_channel: 306,
            n_condition: 4,
            n_bad: 0,
            artefacts: false,
            stim: false,
        }
    }
}

impl Config {
    /// Length in timesteps.
    pub fn n_timestep(&self) -> usize {
        (self.seconds * self.sfreq).round() as usize
    }

    /// Refuses what cannot be simulated.
    pub fn check(&self, subject: usize) -> Result<()> {
        let rate = self.sfreq.is_finite() && (20.0..=100_000.0).contains(&self.sfreq);
        ensure!(rate, Kind::SamplingRate, "cannot simulate {} Hz: the rate must be 20 to 100000 Hz", self.sfreq);
        let length = self.seconds.is_finite() && (0.5..1e12).contains(&(self.seconds * self.sfreq));
        ensure!(length, Kind::EmptyRecording, "cannot simulate {} s: at least one timestep is needed", self.seconds);
        let channels = (1..=N_SENSOR_MAX).contains(&self.n_channel);
        ensure!(channels, Kind::Usage, "cannot simulate {} channels: 1 to {N_SENSOR_MAX}", self.n_channel);
        let bad = self.n_bad <= self.n_channel;
        ensure!(bad, Kind::Usage, "{} of {} channels cannot be bad", self.n_bad, self.n_channel);
        let conditions = self.n_condition <= usize::from(u16::MAX);
        ensure!(conditions, Kind::Usage, "cannot simulate {} conditions: at most {}", self.n_condition, u16::MAX);
        ensure!(subject < N_SUBJECT_MAX, Kind::Usage, "cannot simulate more than {N_SUBJECT_MAX} subjects");
        Ok(())
    }
}

/// Everything that is decided before the first timestep; it grows only with the number of visits, trials and channels.
#[derive(Debug, Clone)]
pub struct Simulation {
    config: Config,
    /// Number of the subject, from 0.
    index: usize,
    subject: Subject,
    rhythms: Rhythms,
    trials: Vec<Trial>,
    /// Each condition's time course, `[condition − 1][dipole][time]`.
    responses: Vec<Vec<Vec<f64>>>,
    artefacts: Artefacts,
    sensors: Vec<Sensor>,
    /// How each sensor sees each series, `[sensor][source]`.
    mixing: Vec<Vec<f64>>,
    channels: Vec<Channel>,
}

impl Simulation {
    /// Prepares subject `index` (from 0).
    pub fn new(config: &Config, index: usize) -> Result<Self> {
        config.check(index)?;
        let (seed, sfreq, n_timestep) = (config.seed, config.sfreq, config.n_timestep());
        let subject = Subject::draw(seed, index, sfreq);
        let visits = subject.law.visits(seed, Stream::Visits.key(index, 0), sfreq, n_timestep);
        let (key, loudness) = ((seed, index), subject.loudness);
        let rhythms = Rhythms { key, sfreq, frequency_hz: subject.frequency_hz, loudness, visits };
        let trials = trials::draw(seed, Stream::Trials.key(index, 0), config.n_condition, sfreq, n_timestep);
        let (delay_s, gain) = subject.evoked;
        let responses = subject::responses(seed, config.n_condition);
        let responses = responses.iter().map(|r| r.time_course(delay_s, gain, sfreq)).collect();

        let sensors = helmet::sensors(config.n_channel);
        let artefacts = Artefacts::draw(seed, index, sensors.len(), config.n_bad, config.artefacts, sfreq, n_timestep);
        let mixing = sensors.iter().map(|s| [subject.mixing(s), Artefacts::mixing(s).to_vec()].concat()).collect();
        let bads = &artefacts.bad;
        let mut channels: Vec<Channel> =
            sensors.iter().zip(bads).map(|(s, bad)| Channel { bad: bad.is_some(), ..s.channel() }).collect();
        if config.stim {
            let (name, kind) = ("STI 014".into(), ChannelKind::Stim);
            channels.push(Channel { name, kind, loc: [0.0; 12], coil_type: 0, coord_frame: 0, bad: false });
        }
        let config = config.clone();
        Ok(Self { config, index, subject, rhythms, trials, responses, artefacts, sensors, mixing, channels })
    }

    /// The recording's header. Events are the trials, labelled by the condition's number: what the trigger channel says.
    pub fn info(&self) -> Info {
        let duration = trials::response_len(self.config.sfreq);
        let event = |t: &Trial| Event { onset: t.onset, duration, label: t.condition.to_string() };
        Info {
            channels: self.channels.clone(),
            sfreq: self.config.sfreq,
            n_timestep: self.config.n_timestep(),
            first_timestep: 0,
            events: self.trials.iter().map(event).collect(),
            subject: Some(format!("{:02}", self.index + 1)),
            pass_band: (0.0, self.config.sfreq / 2.0),
            meas_date: None,
            line_freq: None,
            dev_head_t: Some(helmet::dev_head_t(self.subject.turn)),
            dig: helmet::dig(),
            description: None,
            source: "simulated".into(),
        }
    }

    /// What lies behind the recording.
    pub fn truth(&self) -> Truth {
        Truth::new(self)
    }

    /// The recording itself.
    pub fn into_recording(self) -> Result<Recording> {
        Recording::new(self.info(), Box::new(signal::Simulated::new(self)))
    }
}

/// A simulated recording of subject `index` (from 0).
pub fn recording(config: &Config, index: usize) -> Result<Recording> {
    Simulation::new(config, index)?.into_recording()
}
