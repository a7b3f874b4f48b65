//! What GPT2MEG is compared with besides WaveNets: linear autoregressions, and models trained on other labels.

#[path = "support/lines.rs"]
mod lines;
mod support;

use gpt2meg::error::Kind;
use gpt2meg::model::kind::{Model, Sizes};
use gpt2meg::model::linear::{Linear, LinearConfig};
use gpt2meg::random::{Purpose, keyed};
use gpt2meg::recording;
use gpt2meg::recording::open::OpenOptions;
use gpt2meg::tokens::dataset::Dataset;
use gpt2meg::tokens::scheme::{Quantiser, Scales, Scheme};
use gpt2meg::tokens::shard::{Shard, ShardWriter, Split};
use gpt2meg::tokens::window::Windows;
use gpt2meg::train::checkpoint::{self, Which};
use gpt2meg::train::linear;
use lines::{fail, printed};
use rand_distr::{Distribution, StandardNormal};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Two channels that follow x[t] = 1.5 x[t − 1] − 0.8 x[t − 2] + e, the second with some of the first one's last value.
fn process(n: usize) -> Vec<[f64; 2]> {
    let mut noise = keyed(4, Purpose::Simulate, 0);
    let mut x = vec![[0.0; 2]; 2];
    while x.len() < n {
        let [one, two] = [x[x.len() - 1], x[x.len() - 2]];
        let mut e = || 0.02 * <StandardNormal as Distribution<f64>>::sample(&StandardNormal, &mut noise);
        let next = |c: usize, e: f64| 1.5 * one[c] - 0.8 * two[c] + e;
        x.push([next(0, e()), next(1, e()) + 0.1 * one[0]]);
    }
    x
}

const LENGTHS: [usize; 3] = [20_000, 3000, 3000];

/// A data set of it in `folder/data`; z is ten times the value, as the test recordings' peak is 10.
fn data(folder: &Path) -> Dataset {
    let x = process(LENGTHS.iter().sum());
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    support::write_recording(&data, "a", 2, LENGTHS, |channel, time| x[time][channel]);
    Dataset::open(&data).unwrap()
}

fn config(order: usize, multivariate: bool, n_channel: usize) -> LinearConfig {
    let sizes = Sizes { n_ctx: 0, n_level: 256, n_channel, n_subject: 1, n_condition: 2 };
    LinearConfig { ridge: 0.0, ..LinearConfig::new(order, multivariate, sizes) }
}

/// Each channel's values in the training part, in z.
fn values(dataset: &Dataset) -> Vec<Vec<f64>> {
    let shard = &dataset.shards[dataset.split(Split::Train)[0]];
    let levels = Scheme::PAPER.levels();
    (0..2)
        .map(|channel| {
            let mut tokens = vec![0; shard.n_timestep()];
            shard.tokens(channel, 0, &mut tokens).unwrap();
            tokens.iter().map(|&token| 10.0 * levels[usize::from(token)]).collect()
        })
        .collect()
}

/// Least squares by its definition: rows of predictors and their targets, Gaussian elimination with pivots.
fn least_squares(rows: &[Vec<f64>], targets: &[f64]) -> Vec<f64> {
    let n = rows[0].len();
    let mut matrix: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let right = rows.iter().zip(targets).map(|(row, y)| row[i] * y).sum();
            (0..n).map(|j| rows.iter().map(|row| row[i] * row[j]).sum()).chain([right]).collect()
        })
        .collect();
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| matrix[a][i].abs().total_cmp(&matrix[b][i].abs())).unwrap();
        matrix.swap(i, pivot);
        for other in (0..n).filter(|&other| other != i) {
            let factor = matrix[other][i] / matrix[i][i];
            let row = matrix[i].clone();
            matrix[other].iter_mut().zip(row).for_each(|(x, y)| *x -= factor * y);
        }
    }
    (0..n).map(|i| matrix[i][n] / matrix[i][i]).collect()
}

#[test]
fn fits_are_least_squares() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = data(folder.path());
    let z = values(&dataset);
    let (order, n) = (3, z[0].len());
    let alone = linear::fit(&dataset, &config(order, false, 2)).unwrap().unwrap();
    let together = linear::fit(&dataset, &config(order, true, 2)).unwrap().unwrap();
    for channel in 0..2 {
        let targets = &z[channel][order..];
        let residual = |rows: &[Vec<f64>], fit: &[f64]| {
            let errors =
                rows.iter().zip(targets).map(|(row, y)| y - row.iter().zip(fit).map(|(x, w)| x * w).sum::<f64>());
            errors.map(|e| e * e).sum::<f64>() / targets.len() as f64
        };
        let near = |found: &[f64], wanted: &[f64]| {
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-7), "{found:?} for {wanted:?}");
        };
        let own: Vec<Vec<f64>> = (order..n).map(|t| [&z[channel][t - order..t], &[1.0]].concat()).collect();
        let fit = least_squares(&own, targets);
        near(&alone.weights[channel * order..][..order], &fit);
        near(&alone.intercept[channel..][..1], &fit[order..]);
        assert!((alone.sigma[channel] / residual(&own, &fit).sqrt() - 1.0).abs() < 1e-6);
        let past = |t: usize| (t - order..t).flat_map(|s| [z[0][s], z[1][s]]);
        let all: Vec<Vec<f64>> = (order..n).map(|t| past(t).chain([1.0]).collect()).collect();
        let fit = least_squares(&all, targets);
        near(&together.weights[channel * 2 * order..][..2 * order], &fit);
        near(&together.intercept[channel..][..1], &fit[2 * order..]);
        assert!((together.sigma[channel] / residual(&all, &fit).sqrt() - 1.0).abs() < 1e-6);
        // The factor times its transpose has the residuals' variances on its diagonal.
        let row = &together.factor[channel * 2..][..2];
        assert!((row.iter().map(|x| x * x).sum::<f64>() / together.sigma[channel].powi(2) - 1.0).abs() < 1e-9);
    }
    // The process itself is found: standard errors are about 1 / √n, and quantising adds a little noise.
    let weights = &together.weights[2 * order..];
    for (found, wanted) in weights.iter().zip([0.0, 0.0, 0.0, -0.8, 0.1, 1.5]) {
        assert!((found - wanted).abs() < 0.06, "{weights:?}");
    }
    assert!(together.sigma[1] < alone.sigma[1]);
    // Pieces, gaps and ridges: a fit over pieces is one over the whole; a large ridge shrinks.
    let ridged = linear::fit(&dataset, &LinearConfig { ridge: 1.0, ..config(order, false, 2) }).unwrap().unwrap();
    assert!(ridged.weights[2].abs() < 0.7 * alone.weights[2].abs());
}

/// Targets by their definition: the prediction's own level is a hit, the two on either side of it count among five, and the
/// likelihood is the Gaussian's over the level's interval, here by summing its density.
#[test]
fn scores_are_those_of_the_quantised_prediction() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = data(folder.path());
    for multivariate in [false, true] {
        let fitted = linear::fit(&dataset, &config(2, multivariate, 2)).unwrap().unwrap();
        let windows = Windows::new(&dataset, Split::Test, fitted.config.sizes.n_ctx).unwrap();
        let windows = [windows.in_order(0), windows.in_order(3)];
        let scored = linear::score(&fitted, &dataset, &windows, |_| ()).unwrap().unwrap();
        let (levels, boundaries) = (Scheme::PAPER.levels(), Scheme::PAPER.boundaries());
        let quantiser = Quantiser::new(&Scheme::PAPER);
        for channel in 0..2 {
            let (mut nats, mut top1, mut top5, mut squared, mut n) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for window in windows {
                let shard = &dataset.shards[window.shard];
                let mut z = [vec![0.0; 257], vec![0.0; 257]];
                let mut tokens = [vec![0u8; 257], vec![0u8; 257]];
                for c in 0..2 {
                    shard.tokens(c, window.start, &mut tokens[c]).unwrap();
                    z[c] = tokens[c].iter().map(|&token| 10.0 * levels[usize::from(token)]).collect();
                }
                for t in 129..257 {
                    let past: Vec<f64> = match multivariate {
                        false => z[channel][t - 2..t].to_vec(),
                        true => vec![z[0][t - 2], z[1][t - 2], z[0][t - 1], z[1][t - 1]],
                    };
                    let width = past.len();
                    let weights = &fitted.weights[channel * width..][..width];
                    let mean: f64 =
                        fitted.intercept[channel] + weights.iter().zip(&past).map(|(w, x)| w * x).sum::<f64>();
                    let (best, target) = (usize::from(quantiser.encode(mean / 10.0)), usize::from(tokens[channel][t]));
                    let sigma = fitted.sigma[channel];
                    let (low, high) = (boundaries[target] * 10.0, boundaries[target + 1] * 10.0);
                    let density = |x: f64| {
                        (-((x - mean) / sigma).powi(2) / 2.0).exp() / (sigma * (2.0 * std::f64::consts::PI).sqrt())
                    };
                    let step = (high - low) / 2000.0;
                    let mass: f64 = (0..2000).map(|i| density(low + (f64::from(i) + 0.5) * step) * step).sum();
                    nats -= mass.max(1e-12).ln();
                    top1 += f64::from(u8::from(best == target));
                    top5 += f64::from(u8::from(best.clamp(2, 253).abs_diff(target) <= 2));
                    squared += (levels[best] - levels[target]).powi(2);
                    n += 1.0;
                }
            }
            let found = scored.channels[channel];
            assert_eq!((found.n_target, found.top1, found.top5), (n, top1, top5));
            assert!((found.nats - nats).abs() < 1e-4 * nats.abs(), "{} for {nats}", found.nats);
            assert!((found.squared - squared).abs() < 1e-9 * squared && top5 > top1 && top1 > 0.0);
        }
    }
}

/// Channels that depend on one another, as after signal-space separation: what is left over has a covariance without a factor,
/// yet the noise has that covariance, and not that of independent channels.
#[test]
fn channels_that_depend_on_one_another_have_noise_that_does() {
    const CHANNELS: usize = 24;
    const LATENT: usize = 6;
    let n = 6800;
    // Sums of few latent processes, in steps of 2⁻¹⁰ and with small whole weights, so that they are exact in f32.
    let mut noise = keyed(7, Purpose::Simulate, 0);
    let mut latent = vec![[0.0f64; LATENT]; 1];
    while latent.len() < n {
        let last = latent[latent.len() - 1];
        let mut e = || 0.1 * <StandardNormal as Distribution<f64>>::sample(&StandardNormal, &mut noise);
        latent.push(last.map(|x| ((0.995 * x + e()) * 1024.0).round() / 1024.0));
    }
    let weight = |channel: usize, source: usize| ((channel * (source + 2) + channel / 5 + source) % 5) as f64 - 2.0;
    let z = |channel: usize, time: usize| (0..LATENT).map(|s| weight(channel, s) * latent[time][s]).sum::<f64>();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    support::write_recording(data, "a", CHANNELS, [6000, 400, 400], |channel, time| z(channel, time) / 10.0);
    let mut first = 0;
    for split in ["train", "validation", "test"] {
        let path = data.join(format!("a_{split}.safetensors"));
        let shard = Shard::open(&path).unwrap();
        let scales = Scales { spread: vec![2f64.powi(-43); CHANNELS], ..shard.scales.clone() };
        let mut writer = ShardWriter::new(&path, true, &shard.meta, &scales, true).unwrap();
        let times = first..first + shard.n_timestep();
        let (mut tokens, mut conditions) = (vec![0; times.len()], vec![0; times.len()]);
        shard.conditions(0, &mut conditions).unwrap();
        for channel in 0..CHANNELS {
            shard.tokens(channel, 0, &mut tokens).unwrap();
            writer.tokens(channel, 0, &tokens).unwrap();
            let signal: Vec<f32> = times.clone().map(|t| (z(channel, t) * 2f64.powi(-43)) as f32).collect();
            writer.signal(channel, &signal).unwrap();
        }
        writer.conditions(0, &conditions).unwrap();
        writer.seal().unwrap();
        writer.publish().unwrap();
        first = times.end;
    }
    let dataset = Dataset::open(data).unwrap();
    let config = LinearConfig { signal: true, ridge: 1e-9, ..config(1, true, CHANNELS) };
    let fitted = linear::fit(&dataset, &config).unwrap().unwrap();

    // What its predictions leave over, by definition.
    let all: Vec<Vec<f64>> = (0..6000).map(|t| (0..CHANNELS).map(|c| z(c, t)).collect()).collect();
    let left: Vec<Vec<f64>> =
        all.windows(2).map(|pair| (0..CHANNELS).map(|c| pair[1][c] - fitted.predict(c, &pair[0])).collect()).collect();
    let mut most = 0.0f64;
    for a in 0..CHANNELS {
        for b in 0..=a {
            let wanted = left.iter().map(|left| left[a] * left[b]).sum::<f64>() / left.len() as f64;
            let row = |channel: usize| &fitted.factor[channel * CHANNELS..][..CHANNELS];
            let found: f64 = row(a).iter().zip(row(b)).map(|(a, b)| a * b).sum();
            let scale = fitted.sigma[a] * fitted.sigma[b];
            // Rounding of the sums' products, which are a thousand times as large as what is left over, and noise of a
            // channel's own, which is as little as that.
            assert!((found - wanted).abs() < 1e-6 * scale, "{a}, {b}: {found} for {wanted} of {scale}");
            most = most.max(if a == b { 0.0 } else { wanted.abs() / scale });
        }
    }
    assert!(most > 0.5, "independent channels prove nothing: {most}");
}

/// What cannot be fitted or scored is refused while the earlier run is still there.
#[test]
fn an_earlier_run_outlives_what_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let x = process(3800);
    std::fs::create_dir(folder.join("data")).unwrap();
    support::write_recording(&folder.join("data"), "a", 2, [3000, 400, 400], |channel, time| x[time][channel]);
    printed(folder, "train data --out old --model ar --order 4 --quiet");
    let files = ["run.json", "best.safetensors", "checkpoints/step-00000001.safetensors", "metrics.jsonl"];
    let read = || files.map(|file| std::fs::read(folder.join("old").join(file)).unwrap());
    let before = read();
    // The training part is long enough for this order, the validation part is not.
    for (line, code, named) in [
        ("train data --out old --model ar --force", 16, "--order"),
        ("train data --out old --model ar --order 3 --force --device cuda", 2, "--device"),
        ("train data --out new --model ar", 16, "--order"),
    ] {
        fail(folder, line, code, named);
        assert!(read() == before && !folder.join("new").exists(), "{line}");
    }
    printed(folder, "train data --out old --model ar --order 3 --force --quiet");
    assert!(read() != before);
}

/// An autoregression keeps nothing of a recording that was interrupted, and says so.
#[test]
fn an_interrupted_autoregression_says_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    data(folder);
    printed(folder, "train data --out uni --model ar --order 4 --quiet");
    let entries = || std::fs::read_dir(folder).unwrap().count();
    let before = entries();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2meg"));
    let line = "generate uni --out long.npy --timesteps 100000000";
    let child = command.args(line.split(' ')).current_dir(folder).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..2000 {
        if entries() > before {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("0 of 1 recordings are whole") && said.contains("--resume"), "{said}");
    assert_eq!(entries(), before, "something is left");
}

/// A generated recording's channels in z.
fn generated(path: &Path) -> Vec<Vec<f64>> {
    let opened = recording::open::list(path).unwrap().found[0].open(&OpenOptions::default()).unwrap();
    let mut recording = opened.recording;
    let n = recording.info.n_timestep;
    let block = recording.read(0, n).unwrap();
    (0..2).map(|c| block.channel(c).iter().map(|x| x / 1e-13).collect()).collect()
}

fn covariance(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum::<f64>() / a.len() as f64
}

#[test]
fn an_autoregression_goes_through_the_same_commands() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, dataset) = (folder.path(), data(folder.path()));
    printed(folder, "train data --out uni --model ar --order 4 --quiet");
    printed(folder, "train data --out multi --model ar --order 4 --multivariate --quiet --threads 1");
    let info: Value = serde_json::from_str(&printed(folder, "info multi --json")).unwrap();
    assert_eq!((&info["model"]["kind"], &info["parameters"]), (&"ar".into(), &(2 + 16 + 2 + 4).into()));
    printed(folder, "verify uni/best.safetensors --quiet");

    // What a checkpoint holds is what was fitted, to the bit.
    for (run, multivariate) in [("uni", false), ("multi", true)] {
        let saved = checkpoint::load(&folder.join(run), Which::Best).unwrap();
        assert_eq!(saved.meta.model.name(), "ar");
        let Model::Ar(config) = saved.meta.model else { panic!("another kind") };
        let fitted: Linear = linear::fit(&dataset, &config).unwrap().unwrap();
        assert_eq!((saved.linear.unwrap(), config.multivariate), (fitted, multivariate));
        printed(folder, &format!("score {run} data --quiet"));
    }
    let scores = |run: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join(run).join("scores.json")).unwrap()).unwrap()
    };
    let (uni, multi) = (scores("uni"), scores("multi"));
    let nats = |scores: &Value| scores["model"]["nats"].as_f64().unwrap();
    let ar20 =
        uni["anchors"].as_array().unwrap().iter().find(|a| a["name"] == "ar20").unwrap()["nats"].as_f64().unwrap();
    // One channel's process is of order 2, so 4 do what 20 do; the other channel helps the second.
    assert!(
        (nats(&uni) - ar20).abs() < 0.02 && nats(&multi) < nats(&uni) - 0.005,
        "{} {} {ar20}",
        nats(&uni),
        nats(&multi)
    );

    // Generated signals have the data's variances and, together, its covariance; unit noise is 1 / σ times as large.
    for (run, out) in [("uni", "u.npy"), ("multi", "m.npy")] {
        printed(folder, &format!("generate {run} --out {out} --timesteps 20000 --seed 2 --quiet"));
    }
    printed(folder, "generate uni --out one.npy --timesteps 20000 --seed 2 --noise unit --quiet");
    printed(folder, "generate uni --out r.npy --timesteps 500 --seed 2 --rollouts 2 --quiet --threads 1");
    let [uni, multi, unit] = ["u.npy", "m.npy", "one.npy"].map(|file| generated(&folder.join(file)));
    let real = values(&dataset);
    let ratio = |x: &[Vec<f64>], a: usize, b: usize| covariance(&x[a], &x[b]) / covariance(&real[a], &real[b]);
    for channel in 0..2 {
        // The relative error of a variance from 20,000 timesteps of this process is a few percent.
        assert!(
            (ratio(&uni, channel, channel) - 1.0).abs() < 0.2 && (ratio(&multi, channel, channel) - 1.0).abs() < 0.2
        );
        let sigma = checkpoint::load(&folder.join("uni"), Which::Best).unwrap().linear.unwrap().sigma[channel];
        let found = covariance(&unit[channel], &unit[channel]) / covariance(&uni[channel], &uni[channel]);
        assert!((found * sigma * sigma - 1.0).abs() < 0.05, "{found} for 1 / {sigma}²");
    }
    assert!((ratio(&multi, 0, 1) - 1.0).abs() < 0.4 && ratio(&uni, 0, 1).abs() < 0.4);
    let (first, second) = (generated(&folder.join("r_rollout-1.npy")), generated(&folder.join("r_rollout-2.npy")));
    assert!(first[0] == uni[0][..500] && first[0] != second[0]);

    for (line, code, named) in [
        ("train data --out x --model ar --lr 1e-3", 2, "solved at once"),
        ("train data --out x --model ar --steps 9", 2, "solved at once"),
        ("train data --out x --model ar --layers 2", 2, "no shape"),
        ("train data --out x --model ar --ridge -1", 18, "ridge"),
        ("train data --out x --model ar --order 0", 18, "order"),
        ("train data --out x --model ar --order 5000 --multivariate", 18, "equations"),
        ("train data --out x --model ar --preset tiny", 2, "no shape"),
        ("train data --out x --model ar --passes 10", 2, "solved at once"),
        ("train data --out x --model ar --condition-labels one", 2, "solved at once"),
        ("train data --out x --model ar --device cuda", 2, "--device"),
        ("train --out uni --resume --steps 500", 2, "solved at once"),
        ("score uni data --device cuda --force", 2, "--device"),
        ("generate uni --out y.npy --timesteps 9 --device cuda", 2, "--device"),
        ("generate uni --out y.npy --timesteps 9 --greedy", 2, "draws no levels"),
        ("generate uni --out y.npy --timesteps 9 --top-p 0.8", 2, "draws no levels"),
        ("generate uni --out y.npy --timesteps 9 --top-k 3", 2, "draws no levels"),
        ("generate uni --out y.npy --timesteps 9 --temperature 1", 2, "draws no levels"),
        ("train data --out x --order 5", 2, "no order"),
        ("train --out uni --resume --order 5", 18, "another shape"),
        ("train --out uni --resume --ridge 0.1", 18, "another shape"),
        ("generate uni --out y.npy --timesteps 9 --hop 2", 2, "a hop"),
        ("export uni --out y", 2, "ar"),
    ] {
        let line = line.replace("--ridge -1", "--ridge=-1");
        fail(folder, &line, code, named);
        assert!(!folder.join("x").exists() && !folder.join("y.npy").exists() && !folder.join("y").exists(), "{line}");
    }
}

/// The signal that a data set keeps is the one that was quantised, and what an autoregression is then fitted to.
#[test]
fn a_kept_signal_is_what_was_quantised() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    printed(folder, "simulate --out sim_raw.fif --hours 0.03 --channels 3 --seed 1 --quiet");
    printed(folder, "tokenize sim_raw.fif --out data --keep-signal --quiet");
    printed(folder, "tokenize sim_raw.fif --out plain --quiet");
    let [kept, plain] = ["data", "plain"].map(|data| Dataset::open(&folder.join(data)).unwrap());
    let quantiser = Quantiser::new(&Scheme::PAPER);
    for (kept, plain) in kept.shards.iter().zip(&plain.shards) {
        assert!(kept.has_signal() && !plain.has_signal());
        kept.verify().unwrap();
        for channel in 0..3 {
            let n = kept.n_timestep();
            let (mut signal, mut tokens, mut encoded) = (vec![0.0; n], vec![0; n], vec![0; n]);
            kept.signal(channel, 0, &mut signal).unwrap();
            plain.tokens(channel, 0, &mut tokens).unwrap();
            quantiser.encode_signal(kept.scales.channel(channel), &signal, &mut encoded);
            assert!(encoded == tokens);
        }
    }
    let of = |signal| LinearConfig { signal, ..config(20, false, 3) };
    let fit = |data: &Dataset, signal| linear::fit(data, &of(signal)).unwrap().unwrap();
    // What it is of is its own, not the data's: of the levels' centres it is the same whether or not the signal is there.
    let levels = [fit(&kept, false), fit(&plain, false)];
    assert!(levels[0] == levels[1]);
    assert_eq!(linear::fit(&plain, &of(true)).unwrap_err().kind(), Kind::TokenizerMismatch);
    let (kept, [plain, _]) = (fit(&kept, true), levels);
    // Without the noise of quantising there is less that cannot be predicted.
    assert!(
        kept.sigma.iter().zip(&plain.sigma).all(|(kept, plain)| kept < plain),
        "{:?} {:?}",
        kept.sigma,
        plain.sigma
    );

    // A run says which it is of, and is given no other, neither to be scored on nor to go on with.
    let nats = |run: &str, data: &str| -> f64 {
        let scores = printed(folder, &format!("score {run} {data} --json --quiet --force"));
        serde_json::from_str::<Value>(&scores).unwrap()["model"]["nats"].as_f64().unwrap()
    };
    for (run, data, signal) in [("of-signal", "data", true), ("of-levels", "plain", false)] {
        printed(folder, &format!("train {data} --out {run} --model ar --order 20 --quiet"));
        let info: Value = serde_json::from_str(&printed(folder, &format!("info {run} --json"))).unwrap();
        assert_eq!(info["model"]["signal"], signal);
    }
    assert!(nats("of-levels", "plain") == nats("of-levels", "data"));
    assert!(nats("of-signal", "data") < nats("of-levels", "data"));
    fail(folder, "score of-signal plain --force", 17, "--keep-signal");
    let best = || std::fs::read(folder.join("of-signal/best.safetensors")).unwrap();
    let before = best();
    printed(folder, "train --out of-signal --resume --quiet");
    assert!(best() == before);
    printed(folder, "tokenize sim_raw.fif --out data --force --quiet");
    fail(folder, "train --out of-signal --resume", 17, "other data");
    assert!(best() == before);
}

/// A model trained with one label for all is, to the bit, the model of data with one label; random labels are others, the
/// same for the same seed, and what is scored is what was trained.
#[test]
fn labels_are_replaced_in_training_and_scoring() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let wave = |channel: usize, time: usize| (time as f64 * (0.3 + 0.2 * channel as f64)).sin() * 0.3;
    for (data, most) in [("several", 2), ("single", 1)] {
        let data = folder.join(data);
        std::fs::create_dir(&data).unwrap();
        let condition = move |time: usize| ((time / 25 % 3) as u16).min(most);
        support::write_named(&data, "a", 2, [600, 120, 120], ["face", "house"], condition, wave);
    }
    let small = "--layers 1 --heads 1 --d-model 8 --context 16 --steps 20 --lr 1e-2 --quiet";
    let train = |data: &str, out: &str, labels: &str| {
        printed(folder, &format!("train {data} --out {out} --condition-labels {labels} {small}"));
        printed(folder, &format!("score {out} {data} --quiet --force"));
        let scores: Value =
            serde_json::from_slice(&std::fs::read(folder.join(out).join("scores.json")).unwrap()).unwrap();
        let params = checkpoint::load(&folder.join(out), Which::Last).unwrap().params;
        (params, scores["model"]["nats"].as_f64().unwrap())
    };
    let (data, one, single) =
        (train("several", "a", "data"), train("several", "b", "one"), train("single", "c", "data"));
    let (random, again) = (train("several", "d", "random"), train("several", "e", "random"));
    assert!(one == single && random == again);
    assert!(data != one && random != one && random != data);
    // A model of one label is fed no other, and a run goes on with its labels.
    for (run, data) in [("b", "several"), ("c", "single")] {
        printed(
            folder,
            &format!("generate {run} --checkpoint best --data {data} --out {run}.npy --timesteps 60 --quiet"),
        );
    }
    let samples = |file: &str| std::fs::read(folder.join(file)).unwrap()[128..].to_vec();
    assert!(samples("b.npy") == samples("c.npy"));
    let events = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    assert!(events("b_events.tsv").contains("house") && !events("c_events.tsv").contains("house"));
    fail(folder, "train --out b --resume --condition-labels data", 2, "recipe");
    printed(folder, "train --out b --resume --steps 25 --quiet");
}
