//! What `export` writes is what Hugging Face's GPT-2 computes with: equal logits, from files that its loader reads.
//!
//! The expected logits were computed by `tests/fixtures/make_export.py` from the files this test writes; the parameters
//! are a formula, so both sides know them.

use gpt2meg::device::{self, Call, Device, Dtype, Inputs, Tensor};
use gpt2meg::model::config::{Head, ModelConfig};
use gpt2meg::model::export;
use gpt2meg::model::gpt2::Gpt2;
use gpt2meg::model::layout::ParamLayout;
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

/// Our logits of four sequences, one for each channel; subject = channel modulo 2.
fn logits(config: &ModelConfig) -> Vec<f32> {
    let layout = ParamLayout::new(config);
    let device = &mut *device::open(device::DeviceChoice::Cpu, Some(2)).unwrap();
    let buffer = upload(device, Dtype::F32, &params(&layout));
    let levels = device.alloc(Dtype::F32, config.n_level).unwrap();
    let model = Gpt2 { config: config.clone(), params: layout.bind(buffer), levels };

    let n = config.n_channel;
    let tokens: Vec<u8> = (0..n).flat_map(|n| (0..=N_TIME).map(move |t| token(n, t))).collect();
    let conditions: Vec<u16> = (0..n).flat_map(|n| (0..N_TIME).map(move |t| condition(n, t))).collect();
    let inputs = Inputs {
        token: upload(device, Dtype::U8, &tokens),
        condition: upload(device, Dtype::U16, &conditions),
        channel: upload(device, Dtype::U32, &(0..n as u32).collect::<Vec<_>>()),
        subject: upload(device, Dtype::U32, &(0..n as u32).map(|c| c % 2).collect::<Vec<_>>()),
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
    // Both sides compute in f32, in different orders. Each of the 2 · 2 half-blocks and the head sums at most 4E = 96
    // products, so a logit's relative rounding is of order 5 · 96 · 2⁻²⁴ = 3e-5 of the sums' absolute size, which the
    // largest logit stands for.
    let size = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let worst = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    assert!(size > 1.0, "the fixture's logits are ordinary numbers");
    assert!(worst <= 3e-5 * size, "{name}: {worst} of {size}");
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
