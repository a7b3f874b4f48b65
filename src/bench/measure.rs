//! Measured times of a step, its stages and a rollout.

use super::card::Card;
use super::least;
use super::stage::Place;
use super::step::Step;
use crate::device::{Device, KernelTime, Rollout, Sampler};
use crate::error::Result;
use crate::interrupt;
use crate::model::config::ModelConfig;
use crate::model::layout::{ParamLayout, Parameters};
use crate::random::{Purpose, keyed};
use crate::statistics::quantile::quantile;
use crate::train::init;
use rand::Rng;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// Seconds that something took, over several repeats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Seconds {
    /// The median.
    pub median: f64,
    /// A tenth was faster.
    pub fast: f64,
    /// A tenth was slower.
    pub slow: f64,
}

/// Times `work`, `repeats` times (at least once), after a first time that does not count; fewer if a signal asks to stop. `work`
/// ends when everything is done.
pub fn repeat(repeats: usize, mut work: impl FnMut() -> Result<()>) -> Result<Seconds> {
    work()?;
    let mut seconds = Vec::with_capacity(repeats);
    while seconds.is_empty() || (seconds.len() < repeats && interrupt::requested().is_none()) {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let [fast, median, slow] = [0.1, 0.5, 0.9].map(|q| quantile(&seconds, q));
    Ok(Seconds { median, fast, slow })
}

/// The whole step, as training repeats it: a device that captures steps has captured it.
pub fn step(step: &mut Step, repeats: usize) -> Result<Seconds> {
    step.run()?;
    repeat(repeats, || step.run().and_then(|()| step.device.sync()))
}

/// Every place of the step's network as of one with `n_layer` layers.
pub fn places(step: &mut Step, n_layer: usize, repeats: usize) -> Result<Vec<(Place, Seconds)>> {
    let places = step.places(n_layer);
    let timed = |place: Place| {
        let seconds = repeat(repeats, || step.run_place(&place).and_then(|()| step.device.sync()))?;
        Ok((place, seconds))
    };
    places.into_iter().map(timed).collect()
}

/// A kernel at one place of a step, measured: working copies that are made anew included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kernel {
    /// Where it is launched.
    #[serde(flatten)]
    pub place: Place,
    /// Its name.
    pub kernel: &'static str,
    /// Launches, at one such place.
    pub launches: usize,
    /// Seconds of them all, at all such places; the median over repeats.
    pub seconds: f64,
    /// Seconds below which no schedule could bring them on the card, by the rates assumed of it, where there are any.
    pub least_seconds: Option<f64>,
}

/// Every kernel of the step, place by place and in the order of their first launches; none where the device has none. The step
/// has been made before, so that everything is compiled. `card`: whose least times stand beside them.
pub fn kernels(step: &mut Step, repeats: usize, card: Option<&Card>) -> Result<Option<Vec<Kernel>>> {
    let places = step.places(step.model.config.n_layer);
    let mut runs = Vec::new();
    while runs.is_empty() || (runs.len() < repeats && interrupt::requested().is_none()) {
        let run = places.iter().map(|place| step.time_place(place)).collect::<Result<Option<Vec<_>>>>()?;
        let Some(run) = run else { return Ok(None) };
        runs.push(run);
    }
    let (config, n, slots) = (&step.model.config, step.n_sequence(), step.device.grad_slots());
    let mut kernels = Vec::new();
    for (i, place) in places.iter().enumerate() {
        let of_place: Vec<&[KernelTime]> = runs.iter().map(|run| run[i].as_slice()).collect();
        let launched = |kernel: &str| of_place[0].iter().any(|(name, _)| *name == kernel);
        let least = least::stage(place.stage, config, place.rows, n, slots, launched);
        let least = least.into_iter().map(|(name, work)| Some((name, work.times(card?).binding().1))).collect();
        kernels.extend(summed(place, &of_place, least)?);
    }
    Ok(Some(kernels))
}

/// Launches at one place in several runs by kernel, beside the least seconds of kernels that have any: those have to be launched.
fn summed(place: &Place, runs: &[&[KernelTime]], least: Option<Vec<(&str, f64)>>) -> Result<Vec<Kernel>> {
    let mut least: BTreeMap<&str, f64> = least.unwrap_or_default().into_iter().collect();
    let mut names: Vec<&'static str> = Vec::new();
    runs[0].iter().for_each(|(name, _)| _ = (!names.contains(name)).then(|| names.push(name)));
    let kernel = |kernel| {
        let of = |run: &&[KernelTime]| run.iter().filter(|(name, _)| *name == kernel).map(|(_, s)| s).sum::<f64>();
        let mut seconds: Vec<f64> = runs.iter().map(of).collect();
        seconds.sort_by(f64::total_cmp);
        let times = place.times as f64;
        Kernel {
            place: *place,
            kernel,
            launches: runs[0].iter().filter(|(name, _)| *name == kernel).count(),
            seconds: times * quantile(&seconds, 0.5),
            least_seconds: least.remove(kernel).map(|seconds| times * seconds),
        }
    };
    let kernels = names.into_iter().map(kernel).collect();
    least::all_launched(place.stage, least.keys())?;
    Ok(kernels)
}

/// The least seconds of those of `kernels` whose place is `of`; none where a stage's are not known, or the card's rates.
pub fn least_seconds(kernels: &[Kernel], config: &ModelConfig, of: impl Fn(&Place) -> bool) -> Option<f64> {
    let of: Vec<&Kernel> = kernels.iter().filter(|kernel| of(&kernel.place)).collect();
    let known = of.iter().all(|kernel| least::knows(kernel.place.stage, config));
    let least: Vec<f64> = of.iter().filter_map(|kernel| kernel.least_seconds).collect();
    (known && !least.is_empty()).then(|| least.iter().sum())
}

/// A model with random weights that generates from random prompts.
pub struct Generation {
    /// Where it runs.
    pub device: Box<dyn Device>,
    config: ModelConfig,
    params: Parameters,
    prompt: Vec<u8>,
    condition: Vec<u16>,
    channel: Vec<u32>,
    key: Vec<u64>,
}

impl Generation {
    /// For `n_sequence` sequences.
    pub fn new(mut device: Box<dyn Device>, config: &ModelConfig, n_sequence: usize) -> Result<Self> {
        let layout = ParamLayout::new(config);
        let buffer = device.alloc(crate::device::Dtype::F32, layout.len())?;
        device.upload(buffer, bytemuck::cast_slice(&init::parameters(&layout, 0)))?;
        let mut random = keyed(0, Purpose::Init, u64::MAX);
        let len = n_sequence * config.n_ctx;
        Ok(Self {
            device,
            config: config.clone(),
            params: layout.bind(buffer),
            prompt: (0..len).map(|_| (random.next_u32() % config.n_level as u32) as u8).collect(),
            condition: (0..len).map(|_| (random.next_u32() % (config.n_condition as u32 + 1)) as u16).collect(),
            channel: (0..n_sequence).map(|i| (i % config.n_channel) as u32).collect(),
            key: (0..n_sequence as u64).collect(),
        })
    }

    /// Reads a window but for `hop` timesteps, and draws those.
    pub fn window(&mut self, hop: usize) -> Result<()> {
        let (n, n_prompt) = (self.channel.len(), self.config.n_ctx - hop);
        let mut tokens = vec![0; n * hop];
        let rollout = Rollout {
            n,
            n_prompt,
            n_new: hop,
            prompt: &self.prompt[..n * n_prompt],
            condition: &self.condition[..n * (self.config.n_ctx - 1)],
            channel: &self.channel,
            subject: &vec![0; n],
            key: &self.key,
            timestep: 0,
            seed: 0,
            sampler: Sampler { temperature: 1.0, top_k: 0, top_p: 0.8, greedy: false },
        };
        self.device.rollout(&self.config, &self.params, &rollout, &mut tokens, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stage::Stage;

    #[test]
    fn launches_add_up_by_kernel() {
        let place = Place { stage: Stage::Mlp, layer: 0, rows: 16, times: 3 };
        let runs = [3.0, 1.0, 2.0].map(|s| [("b", s), ("a", 10.0), ("b", s)]);
        let runs = runs.each_ref().map(|run| run.as_slice());
        let kernel =
            |kernel, launches, seconds, least_seconds| Kernel { place, kernel, launches, seconds, least_seconds };
        let expected = [kernel("b", 2, 12.0, Some(3.0)), kernel("a", 1, 30.0, None)];
        assert_eq!(summed(&place, &runs, Some(vec![("b", 1.0)])).unwrap(), expected);
        // What has a bound and was not launched has been mistaken for something else.
        let error = summed(&place, &runs, Some(vec![("c", 5.0), ("b", 1.0)])).unwrap_err();
        assert!(error.to_string().contains("mlp launches no c"), "{error}");
    }
}
