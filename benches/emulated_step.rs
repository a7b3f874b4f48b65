//! A training step of the paper's single-subject model on the emulated GPU with all its checks: how long one waits who works
//! on kernels without a card.
//!
//! `cargo bench --features emulated --bench emulated_step`; with `SEQUENCES=12` for another number than 16, with `THREADS=1` on
//! one core.

use gpt2meg::bench::step::Step;
use gpt2meg::device::{self, DeviceChoice};
use gpt2meg::model::config::ModelConfig;
use std::time::Instant;

fn main() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<usize>().expect("a number"));
    let (sequences, threads) = (number("SEQUENCES").unwrap_or(16), number("THREADS"));
    let device = device::open(DeviceChoice::Emulated, threads, |_| ()).expect("the emulator");
    let mut step = Step::new(device, &ModelConfig::single(306, 1, 118), sequences).expect("a step");
    for what in ["the first step, in which kernels are compiled", "the next step"] {
        let begin = Instant::now();
        step.run().and_then(|()| step.device.sync()).expect("a step without findings");
        println!("{what}, {sequences} sequences: {:.1} s", begin.elapsed().as_secs_f64());
    }
}
