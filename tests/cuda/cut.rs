//! How a rollout is cut into launches, and that it stops between them.

use crate::bench::{CASES, RUNS};
use crate::rollout::{Batch, Model, NUCLEUS, OnGpu};
use gpt2meg::device::Rollout;
use gpt2meg::device::cuda::rollout::{Cut, shape};
use gpt2meg::error::Kind;
use gpt2meg::model::config::{Head, ModelConfig};

/// A signal is heeded between launches, and what is stopped has filled nothing.
#[test]
fn a_rollout_stops_between_launches() {
    let model = Model::new(1, 2, 16, 8, 9, Head::Shared);
    let Some(mut gpu) = OnGpu::new(&model, &CASES[0].runs()[0]) else { return };
    let batch = Batch::new(&model.config, 4, 3, 4, NUCLEUS);
    let cut = Some(Cut { per_launch: 2, per_block: 2, columns: 32, passes: 2 });
    // Two launches for each half of the sequences, one before each of which it is asked.
    let (tokens, _) = gpu.run(&model, &batch, cut).unwrap();
    assert!(gpu.launched == 6 || gpu.bench.is_real(), "{} launches", gpu.launched);
    for launches in [0, 1, 2, 3, 4] {
        gpu.launches = launches;
        let (stopped, _) = gpu.run(&model, &batch, cut).unwrap();
        assert!(gpu.launched == launches || gpu.bench.is_real(), "{} launches instead of {launches}", gpu.launched);
        let filled = if launches < 3 { 0 } else { tokens.len() / 2 };
        assert_eq!(stopped[..filled], tokens[..filled]);
        assert!(stopped[filled..].iter().all(|&token| token == 0), "{stopped:?}");
    }
}

#[test]
fn sequences_are_cut_evenly_and_as_memory_allows() {
    let model = Model::new(1, 2, 16, 8, 9, Head::Shared);
    let Some(mut gpu) = OnGpu::new(&model, &RUNS[0]) else { return };
    let batch = Batch::new(&model.config, 1, 3, 4, NUCLEUS);
    let (gpu, shape) = (&mut gpu.bench.gpu, shape(&model.config));
    let blocks = gpu.multiprocessors() as usize;
    let mut cut = |n: usize, config: &ModelConfig| Cut::new(gpu, &shape, config, &Rollout { n, ..batch.rollout() });
    // Up to eight sequences a block; one more than that takes two rounds of blocks with five each.
    for (n, per_block) in [(1, 1), (blocks, 1), (blocks + 1, 2), (8 * blocks, 8), (8 * blocks + 1, 5)] {
        let Cut { passes, .. } = cut(n, &model.config).unwrap();
        let expected = Cut { per_launch: n, per_block, columns: 32, passes };
        assert_eq!(cut(n, &model.config).unwrap(), expected, "{n} sequences");
        assert_eq!(expected.end(0, 2, 6), 6, "a small model's are one launch");
    }
    let layers = |n_layer| ModelConfig { n_layer, ..model.config.clone() };
    // Two sequences, each layer 24 · 16² bytes of weights and 4 · 16 · 8 of each one's keys and values; four thousand million a launch.
    assert_eq!(cut(blocks + 1, &layers(10_000)).unwrap().passes, 55);
    assert_eq!(cut(1, &layers(1 << 21)).unwrap().passes, 1);
    // A cache of half a gigabyte: fewer go together than are asked for.
    let few = cut(1 << 20, &layers(1 << 20)).unwrap().per_launch;
    assert!(few > 0 && few < 1 << 20, "{few}");
    let error = cut(1, &layers(1 << 40)).unwrap_err();
    assert_eq!(error.kind(), Kind::DeviceUnavailable);
    assert!(error.to_string().contains("needs 562949953421495 bytes"), "{error}");
}

/// Launches end between two passes, and the ordinary window of the group model is read in one.
#[test]
fn launches_end_between_passes() {
    let ends = |per_block: usize, passes: usize, n_read: usize, n_fed: usize| {
        let cut = Cut { per_launch: 9, per_block, columns: 32, passes };
        let next = |&begin: &usize| (begin < n_fed).then(|| cut.end(begin, n_read, n_fed));
        std::iter::successors(Some(0), next).skip(1).collect::<Vec<_>>()
    };
    // Three sequences: 24 passes that read 254 timesteps, ten that draw.
    assert_eq!(ends(3, 157, 245, 255), [255]);
    assert_eq!(ends(3, 24, 245, 255), [246, 255]);
    // A launch for a part of them reads whole passes; one pass at least is made.
    assert_eq!(ends(3, 7, 70, 76), [64, 74, 76]);
    assert_eq!(ends(3, 1, 70, 73), [32, 64, 70, 71, 72, 73]);
    assert_eq!(ends(1, 2, 0, 5), [2, 4, 5]);
    assert_eq!(ends(8, usize::MAX, 300, 600), [600]);
}

/// A cache of 17.4 GB, on a GPU of 17.2.
#[test]
fn what_is_too_much_at_once_is_told_with_what_is_free() {
    let model = Model::new(12, 12, 96, 72, 256, Head::Shared);
    let Some(mut gpu) = OnGpu::new(&model, &RUNS[3]) else { return };
    if gpu.bench.is_real() {
        return;
    }
    let n = 52_500;
    let cut = Cut { per_launch: n, per_block: n, columns: 32, passes: usize::MAX };
    let error = gpu.run(&model, &Batch::new(&model.config, n, 1, 1, NUCLEUS), Some(cut)).unwrap_err();
    assert_eq!(error.kind(), Kind::DeviceUnavailable);
    let said = error.to_string();
    let words = ["no room for 17.4 GB: 17.", " of 17.2 GB are free", "a lower --rollouts"];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}
