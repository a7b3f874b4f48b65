//! What a generation depends on, and what its recordings say of their making.

use crate::device::Sampler;
use crate::generate::Plan;
use crate::generate::linear::Noise;
use crate::generate::provenance::Provenance;
use crate::model::kind::Model;
use crate::recording::Info;
use crate::tokens::scheme::Scheme;
use crate::train::checkpoint::Checkpoint;
use serde_json::{Map, Value, json};

/// Everything the tokens are a function of, by name: a generation goes on only if all of it is the same.
pub(super) fn pins(checkpoint: &Checkpoint, plan: &Plan, noise: Option<Noise>) -> Map<String, Value> {
    let crc = |bytes: &[u8]| format!("{:08x}", crc32c::crc32c(bytes));
    let Sampler { temperature, top_k, top_p, greedy } = plan.sampler;
    let prompt = [&plan.prompt[..], bytemuck::cast_slice(&plan.prompt_condition)].concat();
    let pins = json!({
        "gpt2meg": "generation 1",
        "checkpoint": crc(bytemuck::cast_slice(&checkpoint.params)),
        "seed": plan.seed,
        "hop": plan.hop,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "greedy": greedy,
        "rollouts": plan.n_rollout,
        "subject": plan.subject,
        "prompt": crc(&prompt),
        "conditions": plan.series.fingerprint(),
    });
    match pins {
        Value::Object(mut pins) => {
            if let (Some(noise), Some(linear)) = (noise, &checkpoint.linear) {
                let tensors: Vec<String> = linear.tensors().iter().map(|x| crc(bytemuck::cast_slice(x))).collect();
                pins.insert("autoregression".into(), json!(tensors));
                pins.insert("noise".into(), json!(noise));
            }
            pins
        }
        _ => unreachable!("an object was written"),
    }
}

/// What each rollout's recording says of its making.
pub(super) fn provenance(
    pins: &Map<String, Value>,
    plan: &Plan,
    tokenizer: Scheme,
    noise: Option<Noise>,
) -> Vec<Provenance> {
    let Sampler { temperature, top_k, top_p, greedy } = plan.sampler;
    let sampler = match greedy {
        true => "greedy".to_string(),
        false => format!("top-p {top_p}, top-k {top_k}, temperature {temperature}"),
    };
    let generation = format!("{:08x}", crc32c::crc32c(&serde_json::to_vec(pins).expect("plain data")));
    let sampler = match (&plan.model, noise) {
        (Model::Gpt(_), _) => format!("{sampler}, hop {}, seed {}", plan.hop, plan.seed),
        (_, Some(Noise::Residual)) => format!("autoregression, noise of the residual, seed {}", plan.seed),
        (_, Some(Noise::Unit)) => format!("autoregression, unit noise, seed {}", plan.seed),
        (model, None) => format!("{}, {sampler}, seed {}", model.name(), plan.seed),
    };
    let made = |rollout| Provenance { generation: generation.clone(), rollout, sampler: sampler.clone(), tokenizer };
    (1..=plan.n_rollout).map(made).collect()
}

/// What a generated recording says of itself: the prompt's sensors, its own length and events, how it was made.
pub(super) fn generated_info(
    prompt: &Info,
    plan: &Plan,
    made: &Provenance,
    n_timestep: usize,
    conditions: &[String],
) -> Info {
    Info {
        n_timestep,
        first_timestep: 0,
        events: plan.series.events(made.rollout as u64 - 1, n_timestep, conditions),
        meas_date: None,
        description: Some(made.text()),
        source: format!("generated: {}, rollout {}", made.sampler, made.rollout),
        ..prompt.clone()
    }
}
