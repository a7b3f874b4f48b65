//! Export: `config.json` and `model.safetensors` that Hugging Face's GPT-2 loads.
//!
//! Hugging Face's model has tables for tokens and positions only. Channel, subject and condition tables, and the heads
//! of a model that has one per channel, go into `embeddings.safetensors` beside it; `README.md` in the same folder
//! holds the lines that build `inputs_embeds` from them. Everything in the folder is what its users' libraries read
//! with their own loaders: no code of ours is needed.

use super::config::{Head, ModelConfig};
use super::layout::{Entry, ParamLayout};
use crate::error::{Error, Kind, Result};
use crate::storage::atomic;
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

/// Where a parameter of ours goes: its file, and its name there.
#[derive(Debug, PartialEq)]
enum Destination {
    /// `model.safetensors`, under Hugging Face's name.
    Body(String),
    /// `embeddings.safetensors`, under ours.
    Tables(String),
}

fn destination(entry: &Entry, head: Head) -> Destination {
    match (entry.name.as_str(), head) {
        ("lm_head", Head::Shared) => Destination::Body("lm_head.weight".into()),
        ("wte" | "wpe", _) => Destination::Body(format!("transformer.{}.weight", entry.name)),
        ("wce" | "wse" | "wye" | "lm_head", _) => Destination::Tables(entry.name.clone()),
        _ => Destination::Body(format!("transformer.{}", entry.name)),
    }
}

/// Writes the folder. `params` is the flat buffer of `ParamLayout::new(config)`; `about` goes into `config.json` under
/// the key `gpt2meg` (channels, conditions, subjects, tokenizer: what a user needs to feed the model).
pub fn write(dir: &Path, config: &ModelConfig, params: &[f32], about: &serde_json::Value, force: bool) -> Result<()> {
    let layout = ParamLayout::new(config);
    assert_eq!(params.len(), layout.len(), "the flat buffer of this layout");
    std::fs::create_dir_all(dir).map_err(|e| Error::io(e, "create the folder", dir))?;

    for name in ["model.safetensors", "embeddings.safetensors", "config.json", "README.md"] {
        atomic::refuse_existing(&dir.join(name), force)?;
    }
    let (mut body, mut tables) = (Vec::new(), Vec::new());
    for entry in layout.entries() {
        let bytes = bytemuck::cast_slice(&params[entry.offset..][..entry.len]);
        let view = TensorView::new(safetensors::Dtype::F32, entry.shape.clone(), bytes)
            .map_err(|e| Error::new(Kind::Internal, format!("tensor {}: {e}", entry.name)))?;
        match destination(entry, config.head) {
            Destination::Body(name) => body.push((name, view)),
            Destination::Tables(name) => tables.push((name, view)),
        }
    }
    tensors(&dir.join("model.safetensors"), body, force)?;
    tensors(&dir.join("embeddings.safetensors"), tables, force)?;
    let json = serde_json::to_string_pretty(&hugging_face_config(config, about)).expect("JSON of plain values");
    text(&dir.join("config.json"), &json, force)?;
    text(&dir.join("README.md"), &model_card(config), force)
}

fn tensors(path: &Path, views: Vec<(String, TensorView)>, force: bool) -> Result<()> {
    // `format` is what Hugging Face's loader looks for to know whose layout the tensors have.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::new(Kind::Internal, format!("cannot serialise: {e}")).at(path))?;
    atomic::write(path, force, |file| {
        let doing = format!("write {} bytes", bytes.len());
        file.write_all(&bytes).map_err(|e| Error::io(e, &doing, path))
    })
}

fn text(path: &Path, text: &str, force: bool) -> Result<()> {
    atomic::write(path, force, |file| {
        writeln!(file, "{text}").map_err(|e| Error::io(e, &format!("write {} bytes", text.len() + 1), path))
    })
}

fn hugging_face_config(config: &ModelConfig, about: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        // With a head for each channel the body alone is Hugging Face's.
        "architectures": [if config.head == Head::Shared { "GPT2LMHeadModel" } else { "GPT2Model" }],
        "model_type": "gpt2",
        "vocab_size": config.n_level,
        "n_positions": config.n_ctx,
        "n_embd": config.d_model,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": false,
        "bos_token_id": null,
        "eos_token_id": null,
        "torch_dtype": "float32",
        "gpt2meg": about,
    })
}

fn model_card(config: &ModelConfig) -> String {
    let logits = match config.head {
        Head::Shared => "load_file(\"model.safetensors\")[\"lm_head.weight\"]",
        Head::PerChannel => "tables[\"lm_head\"][channel]",
    };
    format!(
        r#"# A GPT2MEG model

`config.json` describes the network and, under `gpt2meg`, the channels, subjects, conditions and the tokenizer.

```python
import torch
from safetensors.torch import load_file
from transformers import GPT2Model

model = GPT2Model.from_pretrained(".").eval()
tables = load_file("embeddings.safetensors")


def logits(token, channel, subject, condition):
    """token, condition: [time] integer tensors; channel, subject: numbers. Returns [time, level]."""
    x = model.wte.weight[token] + tables["wce"][channel] + tables["wse"][subject]
    x = x + (condition > 0).unsqueeze(-1) * tables["wye"][condition]
    head = {logits}
    return model(inputs_embeds=x.unsqueeze(0)).last_hidden_state[0] @ head.T


with torch.no_grad():
    token = torch.full(({n_ctx},), {middle})
    print(logits(token, channel=0, subject=0, condition=torch.zeros_like(token)).softmax(-1).max())
```
"#,
        n_ctx = config.n_ctx,
        middle = config.n_level / 2,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_one_place() {
        for head in [Head::Shared, Head::PerChannel] {
            let config = ModelConfig { head, ..ModelConfig::tiny(3, 2, 4) };
            let places: Vec<_> =
                ParamLayout::new(&config).entries().iter().map(|e| format!("{:?}", destination(e, head))).collect();
            let mut distinct = places.clone();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct.len(), places.len());
            assert!(places.contains(&"Body(\"transformer.h.1.attn.c_attn.weight\")".to_string()));
            assert_eq!(places.contains(&"Body(\"lm_head.weight\")".to_string()), head == Head::Shared);
        }
    }
}
