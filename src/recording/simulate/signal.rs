//! From sources to sensors, a chunk at a time, in constant memory.
//!
//! A chunk has a fixed place and length, and its draws have their own keystream, so a timestep is the same whatever
//! stretch of the recording is asked for, and whatever the number of threads. The sources carry a small state from
//! chunk to chunk; it is kept at intervals, so that going back is cheap.

use super::Simulation;
use super::artefacts::Bad;
use super::key::Stream;
use super::sources::{N_BACKGROUND, PER_STATE, Sources};
use super::states::N_STATE;
use super::trials::N_EVOKED;
use crate::error::Result;
use crate::random::{Purpose, keyed};
use crate::recording::{Block, Signal};
use rand::RngExt;
use rand_distr::StandardNormal;
use rayon::prelude::*;

/// Timesteps of a chunk.
const CHUNK: usize = 1024;
/// The sources' state is kept once every so many chunks.
const KEPT_EVERY: usize = 16;
/// First row of the evoked series.
const EVOKED: usize = PER_STATE * N_STATE + N_BACKGROUND;
/// First row of the artefacts' series.
const ARTEFACTS: usize = EVOKED + N_EVOKED;
/// Size of a noisy bad channel, in typical signals.
const BAD_NOISE: f64 = 20.0;

/// The signal of a [`Simulation`].
pub struct Simulated {
    plan: Simulation,
    sources: Sources,
    /// The chunk that `sources` come to next.
    next: usize,
    /// The state before chunk `i · KEPT_EVERY`.
    kept: Vec<Sources>,
    /// Source series of the chunk in hand, `[source][time]`, and which of them hold anything.
    series: Vec<f64>,
    live: Vec<bool>,
    /// Sensor series of the chunk in hand, `[channel][time]`, and its number.
    sensed: Vec<f64>,
    in_hand: Option<usize>,
}

impl Simulated {
    /// At the first timestep.
    pub fn new(plan: Simulation) -> Self {
        let sources = Sources::start(plan.config.seed, plan.index);
        let n_source = plan.mixing[0].len();
        Self {
            series: vec![0.0; n_source * CHUNK],
            live: vec![false; n_source],
            sensed: vec![0.0; plan.channels.len() * CHUNK],
            kept: vec![sources.clone()],
            next: 0,
            in_hand: None,
            sources,
            plan,
        }
    }

    /// Brings a chunk in hand.
    fn make(&mut self, chunk: usize) {
        if self.in_hand == Some(chunk) {
            return;
        }
        let kept = (chunk / KEPT_EVERY).min(self.kept.len() - 1);
        if chunk < self.next || kept * KEPT_EVERY > self.next {
            self.sources = self.kept[kept].clone();
            self.next = kept * KEPT_EVERY;
        }
        while self.next <= chunk {
            self.sources.run(&self.plan.rhythms, self.next, CHUNK, &mut self.series);
            self.next += 1;
            if self.next == self.kept.len() * KEPT_EVERY {
                self.kept.push(self.sources.clone());
            }
        }
        self.add_events(chunk * CHUNK);
        self.sense(chunk);
        self.in_hand = Some(chunk);
    }

    /// Adds evoked responses and artefacts to the source series.
    fn add_events(&mut self, first: usize) {
        let plan = &self.plan;
        self.series[EVOKED * CHUNK..].fill(0.0);
        self.live[..EVOKED].fill(true);
        self.live[EVOKED..ARTEFACTS].fill(false);
        let length = super::trials::response_len(plan.config.sfreq);
        let from = plan.trials.partition_point(|t| t.onset + length <= first);
        for trial in plan.trials[from..].iter().take_while(|t| t.onset < first + CHUNK) {
            for (dipole, course) in plan.responses[trial.condition - 1].iter().enumerate() {
                self.live[EVOKED + dipole] = true;
                for time in trial.onset.max(first)..(trial.onset + length).min(first + CHUNK) {
                    self.series[(EVOKED + dipole) * CHUNK + time - first] += trial.gain * course[time - trial.onset];
                }
            }
        }
        if plan.artefacts.any() {
            self.live[ARTEFACTS..].fill(true);
            plan.artefacts.run(first, CHUNK, &mut self.series[ARTEFACTS * CHUNK..]);
        }
    }

    /// Every sensor's series: what it sees of the sources, and its own noise.
    fn sense(&mut self, chunk: usize) {
        let (plan, series, live) = (&self.plan, &self.series, &self.live);
        self.sensed.par_chunks_mut(CHUNK).enumerate().for_each(|(channel, out)| {
            let Some(sensor) = plan.sensors.get(channel) else { return plan.stim(chunk * CHUNK, out) };
            let mut generator =
                keyed(plan.config.seed, Purpose::Simulate, Stream::Sensor(sensor.number).key(plan.index, chunk as u64));
            let white = match plan.artefacts.bad[channel] {
                Some(Bad::Flat) => return out.fill(0.0),
                Some(Bad::Noisy) => BAD_NOISE * sensor.typical(),
                None => sensor.noise_density() * (plan.config.sfreq / 2.0).sqrt(),
            };
            out.fill_with(|| white * generator.sample::<f64, _>(StandardNormal));
            let rows = series.chunks_exact(CHUNK).zip(&plan.mixing[channel]).zip(live);
            let rows: Vec<(&[f64], f64)> = rows.filter(|(_, live)| **live).map(|((row, &w), _)| (row, w)).collect();
            add_weighted(out, &rows);
            if plan.artefacts.any() {
                plan.add_jumps(channel, chunk * CHUNK, out);
            }
        });
    }
}

/// `out[time] += Σ weight · row[time]`, four rows at a time so that `out` is read and written less often.
fn add_weighted(out: &mut [f64], rows: &[(&[f64], f64)]) {
    let fours = rows.chunks_exact(4);
    for (row, weight) in fours.remainder() {
        out.iter_mut().zip(*row).for_each(|(sum, x)| *sum += weight * x);
    }
    for four in fours {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| &four[i].0[..out.len()]);
        let [wa, wb, wc, wd] = [0, 1, 2, 3].map(|i| four[i].1);
        for (time, sum) in out.iter_mut().enumerate() {
            *sum += (wa * a[time] + wb * b[time]) + (wc * c[time] + wd * d[time]);
        }
    }
}

impl Simulation {
    /// Offsets a channel's stretch from timestep `first` on by its jumps.
    fn add_jumps(&self, channel: usize, first: usize, out: &mut [f64]) {
        let typical = self.sensors[channel].typical();
        let before = self.artefacts.offset(channel, first) * typical;
        out.iter_mut().for_each(|x| *x += before);
        let end = first + out.len();
        let inside = self.artefacts.jumps.iter().filter(|j| j.channel == channel && j.onset > first && j.onset < end);
        for jump in inside {
            out[jump.onset - first..].iter_mut().for_each(|x| *x += jump.size * typical);
        }
    }

    /// The trigger line: a pulse of the condition's number at each onset, zero otherwise.
    fn stim(&self, first: usize, out: &mut [f64]) {
        out.fill(0.0);
        let width = ((0.02 * self.config.sfreq) as usize).max(2);
        let end = first + out.len();
        let from = self.trials.partition_point(|t| t.onset + width <= first);
        for trial in self.trials[from..].iter().take_while(|t| t.onset < end) {
            for time in trial.onset.max(first)..(trial.onset + width).min(end) {
                out[time - first] = trial.condition as f64;
            }
        }
    }
}

impl Signal for Simulated {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        let mut block = Block::zeros(self.plan.channels.len(), n_timestep);
        let mut done = 0;
        while done < n_timestep {
            let (chunk, inside) = ((start + done) / CHUNK, (start + done) % CHUNK);
            let n = (CHUNK - inside).min(n_timestep - done);
            self.make(chunk);
            for channel in 0..block.n_channel {
                let from = &self.sensed[channel * CHUNK + inside..][..n];
                block.channel_mut(channel)[done..done + n].copy_from_slice(from);
            }
            done += n;
        }
        Ok(block)
    }
}
