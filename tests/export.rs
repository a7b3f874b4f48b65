//! What `export` writes is what Hugging Face's GPT-2 computes with: equal logits, from files that its loader reads.
//!
//! The expected logits were computed by `tests/fixtures/make_export.py` from the files this test writes, by the very lines
//! of Python in the folder's README.md; the parameters are a formula, so both sides know them.

#[path = "oracle/mod.rs"]
mod oracle;

use gpt2meg::device::{self, Call, Device, Dtype, Inputs, Tensor};
use gpt2meg::model::config::{Head, ModelConfig};
use gpt2meg::model::export;
use gpt2meg::model::gpt2::Gpt2;
use gpt2meg::model::layout::{Entry, ParamLayout};
use oracle::network::{self, Batch, Shape, Table};
use oracle::number::{Matrix, U};
use std::path::Path;

const N_TIME: usize = 16;

fn config(head: Head) -> ModelConfig {
    ModelConfig { n_layer: 2, n_head: 3, d_model: 24, n_ctx: N_TIME, head, ..ModelConfig::tiny(4, 2, 3) }
}

/// Parameters of ordinary size without a generator: distinct, reproducible in any language.
fn params(layout: &ParamLayout) -> Vec<f32> {
    let mut params = vec![0.0; layout.len()];
    for entry in layout.entries() {
        let base = if entry.name.contains("ln_") && entry.name.ends_with("weight") { 1.0 } else { 0.0 };
        for (i, p) in params[entry.offset..][..entry.len].iter_mut().enumerate() {
            *p = base + (0.3 * ((entry.offset + i) as f64 * 0.7).sin()) as f32;
        }
    }
    params
}

fn token(n: usize, t: usize) -> u8 {
    ((n * 83 + t * 37) % 256) as u8
}

fn condition(n: usize, t: usize) -> u16 {
    ((n + t / 4) % 4) as u16
}

fn upload<T: bytemuck::Pod>(device: &mut dyn Device, dtype: Dtype, values: &[T]) -> Tensor {
    let tensor = device.alloc(dtype, values.len()).unwrap();
    device.upload(tensor, bytemuck::cast_slice(values)).unwrap();
    tensor
}

/// Four sequences, one for each channel; subject = channel modulo 2.
fn batch() -> Batch {
    Batch {
        token: (0..4).map(|n| (0..=N_TIME).map(|t| token(n, t)).collect()).collect(),
        condition: (0..4).map(|n| (0..N_TIME).map(|t| condition(n, t)).collect()).collect(),
        channel: (0..4).collect(),
        subject: (0..4).map(|c| c % 2).collect(),
    }
}

/// The logits of the float64 reference, which know how far any f32 computation of them may be off.
fn reference(config: &ModelConfig) -> Vec<Matrix> {
    let layout = ParamLayout::new(config);
    let params = params(&layout);
    let matrix = |entry: &Entry| {
        let columns = *entry.shape.last().unwrap();
        Matrix::exact(entry.len / columns, columns, &params[entry.offset..][..entry.len])
    };
    let table: Table = layout.entries().iter().map(|entry| (entry.name.clone(), matrix(entry))).collect();
    let ModelConfig { n_layer, n_head, n_ctx, n_level, .. } = *config;
    let (shape, batch) = (Shape { n_layer, n_head, n_ctx, n_level }, batch());
    let one = |i: usize| {
        let (channel, subject) = (batch.channel[i], batch.subject[i]);
        let (_, head) = network::output(&table, &shape, channel);
        network::logits(&table, &shape, &head, &batch.token[i][..N_TIME], &batch.condition[i], [channel, subject])
    };
    (0..batch.token.len()).map(one).collect()
}

/// Our logits of the same sequences.
fn logits(config: &ModelConfig) -> Vec<f32> {
    let layout = ParamLayout::new(config);
    let device = &mut *device::open(device::DeviceChoice::Cpu, Some(2), |_| ()).unwrap();
    let buffer = upload(device, Dtype::F32, &params(&layout));
    let levels = device.alloc(Dtype::F32, config.n_level).unwrap();
    let model = Gpt2 { config: config.clone(), params: layout.bind(buffer), levels };

    let n = config.n_channel;
    let batch = batch();
    let inputs = Inputs {
        token: upload(device, Dtype::U8, &batch.token.concat()),
        condition: upload(device, Dtype::U16, &batch.condition.concat()),
        channel: upload(device, Dtype::U32, &batch.channel),
        subject: upload(device, Dtype::U32, &batch.subject),
    };
    let work = model.workspace(device, n, false).unwrap();
    let out = device.alloc(Dtype::F32, n * N_TIME * config.n_level).unwrap();
    let call: Call = model.call(0, n);
    model.logits(device, &call, 0, &inputs, &work, out).unwrap();
    let mut logits = vec![0.0f32; n * N_TIME * config.n_level];
    device.download(out, bytemuck::cast_slice_mut(&mut logits)).unwrap();
    logits
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/export").join(name)
}

fn check(head: Head, name: &str) {
    let config = config(head);
    let dir = tempfile::tempdir().unwrap();
    let about = serde_json::json!({ "channels": ["A", "B", "C", "D"] });
    export::write(dir.path(), &config, &params(&ParamLayout::new(&config)), &about, false).unwrap();
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        // Puts the exported files where make_export.py finds them.
        let kept = std::env::temp_dir().join(format!("gpt2meg-export-{name}"));
        std::fs::create_dir_all(&kept).unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), kept.join(entry.file_name())).unwrap();
        }
        return;
    }
    let bytes = std::fs::read(fixture(&format!("{name}.logits"))).expect("the fixture");
    let expected: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let ours = logits(&config);
    assert_eq!(ours.len(), expected.len());
    let reference = reference(&config);
    let exact: Vec<_> = reference.iter().flat_map(|sequence| &sequence.data).collect();
    assert_eq!(exact.len(), ours.len());
    let mut bounds = Vec::new();
    for (i, ((&ours, &theirs), exact)) in ours.iter().zip(&expected).zip(exact).enumerate() {
        // Python's are float64, rounded to f32 once: half a unit in the last place, and 1e-9 for two orders of summation.
        let theirs = f64::from(theirs);
        let stored = 1e-9 + U * exact.v.abs();
        assert!((theirs - exact.v).abs() <= stored, "{name}, logit {i}: {theirs} in Python, {} by the book", exact.v);
        // Ours are f32, within the bound that the reference derives from the very numbers.
        assert!(exact.allows(ours, 1), "{name}, logit {i}: {ours} for {} ± {:e}", exact.v, exact.deviation());
        bounds.push(exact.deviation());
    }
    bounds.sort_by(f64::total_cmp);
    let size = expected.iter().fold(0.0f32, |size, x| size.max(x.abs()));
    assert!(size > 1.0 && bounds[bounds.len() / 2] < 1e-3, "bounds like {:e} prove little", bounds[bounds.len() / 2]);
    // The lines of Python that computed them are the ones that are written.
    let card = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(card(&dir.path().join("README.md")), card(&fixture(&format!("{name}.md"))), "run make_export.py again");
}

#[test]
fn hugging_face_computes_the_same_logits() {
    check(Head::Shared, "shared");
}

#[test]
fn and_with_one_head_for_each_channel() {
    check(Head::PerChannel, "per-channel");
}

#[test]
fn an_export_replaces_nothing_unasked() {
    let config = config(Head::Shared);
    let dir = tempfile::tempdir().unwrap();
    let params = params(&ParamLayout::new(&config));
    let write = |force| export::write(dir.path(), &config, &params, &serde_json::Value::Null, force);
    std::fs::write(dir.path().join("README.md"), "mine").unwrap();
    assert_eq!(write(false).unwrap_err().kind(), gpt2meg::error::Kind::Exists);
    assert!(!dir.path().join("model.safetensors").exists(), "refused before anything is written");
    std::fs::remove_file(dir.path().join("README.md")).unwrap();
    write(false).unwrap();
    assert_eq!(write(false).unwrap_err().kind(), gpt2meg::error::Kind::Exists);
    write(true).unwrap();
}
