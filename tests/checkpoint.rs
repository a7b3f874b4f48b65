//! Checkpoints: what is saved is what is loaded, and what is damaged is skipped or refused.

use gpt2meg::error::Kind;
use gpt2meg::model::config::ModelConfig;
use gpt2meg::model::kind::Model;
use gpt2meg::recording::{Channel, ChannelKind, Info};
use gpt2meg::tokens::scheme::{Scales, Scheme};
use gpt2meg::train::checkpoint::{
    self, Best, Checkpoint, CheckpointMeta, DataMeta, KEEP, Moments, Progress, Which, best_path, step_path,
};
use gpt2meg::train::config::TrainingConfig;
use gpt2meg::train::metrics::StepRecord;
use std::path::Path;

const N_CHANNEL: usize = 3;

fn info() -> Info {
    let channel = |i: usize| Channel {
        name: format!("MEG {i:04}"),
        kind: ChannelKind::Mag,
        loc: [0.1; 12],
        coil_type: 3024,
        coord_frame: 1,
        bad: false,
    };
    Info {
        channels: (0..N_CHANNEL).map(channel).collect(),
        sfreq: 1000.0 / 3.0,
        n_timestep: 1000,
        first_timestep: 0,
        events: Vec::new(),
        subject: None,
        pass_band: (0.1, 45.0),
        meas_date: None,
        line_freq: None,
        dev_head_t: None,
        dig: Vec::new(),
        description: None,
        source: "test".into(),
    }
}

fn meta(step: u64) -> CheckpointMeta {
    let subjects = vec!["01".to_string(), "02".to_string()];
    let data = DataMeta {
        info: info(),
        scheme: Scheme::PAPER,
        conditions: vec!["face".into()],
        subjects,
        fingerprint: "0".into(),
    };
    let best = Some(Best { step: 1, nats: 5.0 / 3.0 });
    CheckpointMeta {
        model: ModelConfig { d_model: 8, n_head: 2, n_ctx: 4, ..ModelConfig::tiny(N_CHANNEL, 2, 1) }.into(),
        data,
        training: TrainingConfig::paper(3, 100),
        progress: Progress { step, n_update: step, best, ..Progress::default() },
        version: "0".into(),
        device: "test".into(),
    }
}

/// Values that tell their step and their place.
fn values(meta: &CheckpointMeta, offset: f32) -> Vec<f32> {
    let n = meta.model.layout().len();
    (0..n).map(|i| offset + meta.progress.step as f32 + i as f32 / 7.0).collect()
}

fn scales() -> Vec<Scales> {
    let row = |x: f64| (0..N_CHANNEL).map(|c| x + c as f64 / 3.0).collect();
    (0..2).map(|s| Scales { centre: row(s as f64), spread: row(10.0 + s as f64), peak: row(20.0) }).collect()
}

fn save(path: &Path, step: u64) {
    let meta = meta(step);
    let moments = Moments { m: values(&meta, 0.25), v: values(&meta, 0.5) };
    checkpoint::save(path, &meta, &scales(), &values(&meta, 0.0), &moments).unwrap();
}

/// A run folder with checkpoints of these steps, each written as a run does.
fn run_with(steps: &[u64]) -> tempfile::TempDir {
    let run = tempfile::tempdir().unwrap();
    std::fs::create_dir(run.path().join("checkpoints")).unwrap();
    for &step in steps {
        save(&step_path(run.path(), step), step);
        checkpoint::prune(run.path()).unwrap();
    }
    run
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_saved_is_loaded_to_the_bit() {
    let run = run_with(&[7]);
    let (loaded, moments) = checkpoint::load_state(run.path()).unwrap().unwrap();
    let expected = meta(7);
    assert_eq!(loaded.meta, expected);
    assert_eq!(loaded.params, values(&expected, 0.0));
    assert_eq!(moments, Moments { m: values(&expected, 0.25), v: values(&expected, 0.5) });
    assert_eq!(loaded.scales, scales());
    // The file by its own name, and the folder's best where there is none yet, are the same.
    for (path, which) in [(step_path(run.path(), 7), Which::Last), (run.path().to_path_buf(), Which::Best)] {
        let Checkpoint { meta, params, .. } = checkpoint::load(&path, which).unwrap();
        assert_eq!((meta, params), (loaded.meta.clone(), loaded.params.clone()));
    }
}

#[test]
fn best_and_last_are_told_apart() {
    let run = run_with(&[9]);
    save(&best_path(run.path()), 4);
    assert_eq!(checkpoint::load(run.path(), Which::Best).unwrap().meta.progress.step, 4);
    assert_eq!(checkpoint::load(run.path(), Which::Last).unwrap().meta.progress.step, 9);
}

#[test]
fn the_last_few_are_kept_by_number_and_not_by_name() {
    // The nine-digit step sorts before the others as text.
    let run = run_with(&[1, 2, 99_999_999, 100_000_000, 100_000_001]);
    let mut names: Vec<_> = std::fs::read_dir(run.path().join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), KEEP);
    assert!(!names.iter().any(|name| name.contains("step-00000001.") || name.contains("step-00000002.")), "{names:?}");
    assert_eq!(checkpoint::load(run.path(), Which::Last).unwrap().meta.progress.step, 100_000_001);
}

#[test]
fn damaged_ones_are_skipped_for_the_next_newest() {
    let run = run_with(&[1, 2, 3]);
    let middle = std::fs::metadata(step_path(run.path(), 3)).unwrap().len() as usize / 2;
    flip(&step_path(run.path(), 3), middle);
    assert_eq!(checkpoint::load_state(run.path()).unwrap().unwrap().0.meta.progress.step, 2);
    std::fs::write(step_path(run.path(), 2), b"").unwrap();
    assert_eq!(checkpoint::load_state(run.path()).unwrap().unwrap().0.meta.progress.step, 1);
    flip(&step_path(run.path(), 1), 50);
    // Nothing is left: an error, and never a silent fresh start.
    assert_eq!(checkpoint::load_state(run.path()).unwrap_err().kind(), Kind::Corrupt);
    // The file itself is never replaced by another.
    assert_eq!(checkpoint::load(&step_path(run.path(), 3), Which::Last).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn an_empty_folder_and_a_fresh_run() {
    let run = run_with(&[]);
    assert!(checkpoint::load_state(run.path()).unwrap().is_none());
    assert_eq!(checkpoint::load(run.path(), Which::Best).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(checkpoint::load(&run.path().join("absent"), Which::Best).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_header_that_does_not_fit_its_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let good = meta(1);
    let write = |lie: CheckpointMeta| {
        // The tensors are those of the good header.
        use gpt2meg::storage::container::{Entry, write};
        let layout = good.model.layout();
        let params = values(&good, 0.0);
        let mut tensors = Vec::new();
        for entry in layout.entries() {
            let bytes = bytemuck::cast_slice(&params[entry.offset..][..entry.len]);
            tensors.push(Entry {
                name: &entry.name,
                dtype: safetensors::Dtype::F32,
                shape: entry.shape.clone(),
                bytes,
            });
        }
        write(&path, true, "checkpoint", &lie, &tensors).unwrap();
        checkpoint::load(&path, Which::Last).unwrap_err()
    };
    let Model::Gpt(shape) = good.model.clone() else { panic!("another kind") };
    let wider = ModelConfig { d_model: 16, ..shape.clone() }.into();
    let error = write(CheckpointMeta { model: wider, ..good.clone() });
    assert_eq!(error.kind(), Kind::ShapeMismatch);
    assert!(error.to_string().contains("wte"), "{error}");
    // Larger than any limit: refused before anything is sized by it.
    let huge = ModelConfig { d_model: 1 << 40, ..shape.clone() }.into();
    assert_eq!(write(CheckpointMeta { model: huge, ..good.clone() }).kind(), Kind::ShapeMismatch);
    let more = ModelConfig { n_channel: 4, ..shape }.into();
    assert_eq!(write(CheckpointMeta { model: more, ..good.clone() }).kind(), Kind::ShapeMismatch);
}

#[test]
fn progress_that_contradicts_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let load = |progress: Progress| {
        let meta = CheckpointMeta { progress, ..meta(9) };
        let moments = Moments { m: values(&meta, 0.0), v: values(&meta, 0.0) };
        checkpoint::save(&path, &meta, &scales(), &values(&meta, 0.0), &moments).unwrap();
        checkpoint::load(&path, Which::Last)
    };
    let record = |step| StepRecord { step, nats: 1.0, lr: 1e-4, grad_norm: 1.0, applied: true, validation: None };
    let good = Progress { n_update: 7, n_skipped: 2, unvalidated: Some(record(9)), ..meta(9).progress };
    load(good).unwrap();
    load(Progress::default()).unwrap();
    for lie in [
        Progress { unvalidated: Some(record(0)), ..Progress::default() },
        Progress { unvalidated: Some(record(8)), ..good },
        Progress { best: Some(Best { step: 10, nats: 1.0 }), ..good },
        Progress { best: Some(Best { step: 0, nats: 1.0 }), ..good },
        Progress { n_update: 10, ..good },
        Progress { n_update: u64::MAX, n_skipped: u64::MAX, ..good },
        Progress { n_worse: 10, ..good },
        Progress { step: u64::MAX, ..meta(9).progress },
    ] {
        assert_eq!(load(lie).unwrap_err().kind(), Kind::Corrupt, "{lie:?}");
    }
    let training = TrainingConfig { windows_per_step: 0, ..meta(9).training };
    let meta = CheckpointMeta { training, ..meta(9) };
    let moments = Moments { m: values(&meta, 0.0), v: values(&meta, 0.0) };
    checkpoint::save(&path, &meta, &scales(), &values(&meta, 0.0), &moments).unwrap();
    assert_eq!(checkpoint::load(&path, Which::Last).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn moments_that_do_not_fit_are_refused_with_the_rest() {
    use gpt2meg::storage::container::{Container, Entry, write};
    let run = run_with(&[3]);
    let path = step_path(run.path(), 3);
    let container = Container::open(&path, "checkpoint").unwrap();
    let names: Vec<String> = container.names().into_iter().filter(|name| name != "v.wte").collect();
    let entries: Vec<Entry> = names
        .iter()
        .map(|name| {
            let (dtype, width) = match name.as_str() {
                "centre" | "spread" | "peak" => (safetensors::Dtype::F64, 8),
                _ => (safetensors::Dtype::F32, 4),
            };
            let bytes = container.bytes(name).unwrap();
            let shape = container.shape(name, dtype).unwrap();
            assert_eq!(bytes.len(), width * shape.iter().product::<usize>());
            Entry { name, dtype, shape, bytes }
        })
        .collect();
    write(&path, true, "checkpoint", &meta(3), &entries).unwrap();
    assert_eq!(checkpoint::load_state(run.path()).unwrap_err().kind(), Kind::Corrupt);
    // What only reads the parameters still can; `verify` is as strict as whoever goes on.
    assert_eq!(checkpoint::read_state(&path).unwrap_err().kind(), Kind::Corrupt);
    checkpoint::load(&path, Which::Last).unwrap();
}

#[test]
fn saving_where_nothing_can_be_written_leaves_the_old_one() {
    let run = run_with(&[1]);
    let path = run.path().join("absent").join("step.safetensors");
    let meta = meta(2);
    let moments = Moments { m: values(&meta, 0.0), v: values(&meta, 0.0) };
    let error = checkpoint::save(&path, &meta, &scales(), &values(&meta, 0.0), &moments).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(checkpoint::load(run.path(), Which::Last).unwrap().meta.progress.step, 1);
}
