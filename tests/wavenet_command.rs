//! WaveNets through the commands: train, resume, score, generate, and what they have not.

#[path = "support/lines.rs"]
mod lines;
mod support;

use gpt2meg::train::checkpoint;
use lines::{fail, printed};
use serde_json::Value;
use std::path::Path;

const SMALL: &str = "--layers 3 --d-model 8 --context 16 --lr 5e-3 --quiet";

/// Four channels of waves whose amplitude follows the condition (parts are whole cycles of the three).
fn world() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for recording in ["a", "b"] {
        support::write_recording(&data, recording, 4, [3000, 225, 300], |channel, time| {
            let disorder = ((time * 7919 + channel * 31) % 101) as f64 / 101.0 - 0.5;
            let loud = 0.1 + 0.2 * (time / 25 % 3) as f64;
            loud * (time as f64 * (0.3 + 0.2 * channel as f64)).sin() + 0.02 * disorder
        });
    }
    folder
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_wavenet_trains_resumes_scores_and_generates() {
    let world = world();
    let folder = world.path();
    for model in ["wavenet", "wavenet-mix"] {
        let begin = format!("train data --out {model} --model {model} --windows-per-step 8 {SMALL}");
        printed(folder, &format!("{begin} --steps 150 --threads 1"));
        let info: Value = serde_json::from_str(&printed(folder, &format!("info {model} --json"))).unwrap();
        assert_eq!(info["model"]["kind"], "wavenet");
        assert_eq!(info["model"]["mix"], model == "wavenet-mix");

        // In pieces, on other threads: the same bits.
        let pieces = begin.replacen(&format!("--out {model}"), "--out pieces", 1);
        printed(folder, &format!("{pieces} --steps 17 --force --validate-every 6"));
        printed(folder, "train --out pieces --resume --steps 150 --threads 3 --quiet");
        let step = |run: &str| {
            let path = folder.join(run).join("checkpoints/step-00000150.safetensors");
            let (checkpoint, moments) = checkpoint::read_state(&path).unwrap();
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            [bits(&checkpoint.params), bits(&moments.m), bits(&moments.v)]
        };
        let (whole, pieces) = (step(model), step("pieces"));
        for (part, (whole, pieces)) in
            ["parameters", "first moments", "second moments"].iter().zip(whole.iter().zip(&pieces))
        {
            assert!(whole == pieces && whole.iter().any(|&bits| bits != 0), "{model}: {part}");
        }

        // It has learned more than how often levels come, on targets that it has not seen.
        printed(folder, &format!("score {model} data --quiet"));
        let scores: Value = serde_json::from_slice(&read(&folder.join(model).join("scores.json"))).unwrap();
        let unigram = scores["anchors"].as_array().unwrap().iter().find(|a| a["name"] == "unigram").unwrap();
        let (nats, unigram) = (scores["model"]["nats"].as_f64().unwrap(), unigram["nats"].as_f64().unwrap());
        assert!(nats < unigram - 0.1, "{model}: {nats} beside {unigram}");

        // Whatever the threads and the number of rollouts, the same signal; a longer one begins with a shorter one.
        let generate = |rest: &str| printed(folder, &format!("generate {model} --seed 3 --quiet --force {rest}"));
        generate("--out a.npy --timesteps 700 --threads 1");
        generate("--out b.npy --timesteps 40 --threads 3 --rollouts 2");
        let (a, b) = (read(&folder.join("a.npy")), read(&folder.join("b_rollout-1.npy")));
        let samples = |file: &[u8]| file[128..].to_vec();
        assert_eq!(samples(&b).len(), 40 * 4 * 4);
        assert!(samples(&a).starts_with(&samples(&b)), "{model}");
        assert!(samples(&b) != samples(&read(&folder.join("b_rollout-2.npy"))), "{model}");
    }
}

#[test]
fn what_a_wavenet_has_not_is_said() {
    let world = world();
    let folder = world.path();
    let train = format!("train data --out run --model wavenet --steps 2 {SMALL}");
    for (flags, code, named) in [
        ("--heads 2", 2, "attention heads"),
        ("--head per-channel", 2, "attention heads"),
        ("--layers 900", 18, "dilated layers"),
        ("--context 6", 18, "receptive field"),
    ] {
        let kept: Vec<_> = train.split(' ').collect();
        let flag = flags.split(' ').next().unwrap();
        let line = match kept.iter().position(|&word| word == flag) {
            Some(at) => [&kept[..at], &kept[at + 2..]].concat().join(" "),
            None => kept.join(" "),
        };
        fail(folder, &format!("{line} {flags}"), code, named);
        assert!(!folder.join("run").exists(), "{flags}");
    }
    printed(folder, &train);
    fail(folder, "train --out run --resume --model gpt", 18, "another kind of model");
    fail(folder, "train --out run --resume --d-model 16", 18, "another shape");
    fail(folder, "generate run --out x.npy --timesteps 10 --hop 5", 2, "a hop");
    fail(folder, "generate run --out x.npy --timesteps 10 --noise unit", 2, "--noise");
    fail(folder, "export run --out y", 2, "wavenet");
    assert!(!folder.join("y").exists() && !folder.join("x.npy").exists());
}
