//! `gpt2meg export`: a model for Hugging Face's GPT-2.

use super::{Exit, Globals, Overwrite, note, say_json, shown};
use crate::error::{Error, Kind, Result};
use crate::model::export;
use crate::model::kind::Model;
use crate::train::checkpoint::{self, Which};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Write config.json, model.safetensors and embeddings.safetensors that Hugging Face's GPT-2 loads.
///
/// README.md in the folder holds the lines of Python that compute the model's logits.
///
/// Example: gpt2meg export run --out model
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Export {
    /// A run folder, or one checkpoint file.
    run: PathBuf,
    /// The folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Which checkpoint of the run.
    #[arg(long, value_enum, default_value_t = Which::Best)]
    checkpoint: Which,
    #[command(flatten)]
    pub(super) overwrite: Overwrite,
}

impl Export {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let checkpoint = checkpoint::load(&self.run, self.checkpoint)?;
        let data = &checkpoint.meta.data;
        let Model::Gpt(model) = &checkpoint.meta.model else {
            let what = format!("a model of the kind {} cannot be Hugging Face's GPT-2", checkpoint.meta.model.name());
            let hint = "The checkpoint itself opens with safetensors: numpy and PyTorch read its tensors by name";
            return Err(Error::new(Kind::Usage, what).at(&checkpoint.path).hint(hint));
        };
        let about = json!({
            "channels": data.info.channels,
            "sfreq": data.info.sfreq,
            "pass_band": data.info.pass_band,
            "subjects": data.subjects,
            "conditions": data.conditions,
            "scheme": data.scheme,
            "centre": checkpoint.scales.iter().map(|s| &s.centre).collect::<Vec<_>>(),
            "spread": checkpoint.scales.iter().map(|s| &s.spread).collect::<Vec<_>>(),
            "peak": checkpoint.scales.iter().map(|s| &s.peak).collect::<Vec<_>>(),
            "step": checkpoint.meta.progress.step,
            "version": checkpoint.meta.version,
        });
        export::write(&self.out, model, &checkpoint.params, &about, globals.force)?;
        if globals.json {
            say_json(json!({ "out": shown(&self.out), "step": checkpoint.meta.progress.step }))?;
        } else if !globals.quiet {
            note(format_args!("{} written from step {}", self.out.display(), checkpoint.meta.progress.step));
        }
        Ok(Exit::Done)
    }
}
