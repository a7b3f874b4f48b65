//! Hidden-state dynamics: against hmmlearn and scikit-learn, on chains whose truth is known, and on awkward series.

#[path = "support/report.rs"]
mod support;

use gpt2meg::error::Kind;
use gpt2meg::evaluate::battery::Wanted;
use gpt2meg::evaluate::dynamics::components::Components;
use gpt2meg::evaluate::dynamics::fit::{self, fit};
use gpt2meg::evaluate::dynamics::hmm::{Hmm, courses};
use gpt2meg::evaluate::dynamics::matching::match_states;
use gpt2meg::evaluate::dynamics::summary::summarise;
use gpt2meg::evaluate::dynamics::{Options, Series};
use gpt2meg::evaluate::measure::{Scale, Source};
use gpt2meg::evaluate::report::Inputs;
use gpt2meg::random::{Purpose, keyed};
use gpt2meg::recording::simulate;
use gpt2meg::recording::{Block, Channel, ChannelKind, InMemory, Info, Recording};
use rand::RngExt;
use rand_distr::StandardNormal;
use serde_json::Value;
use support::{inputs, report, sources};

fn floats(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(all) => all.iter().flat_map(floats).collect(),
        number => vec![number.as_f64().expect("a number")],
    }
}

fn expected() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/dynamics/expected.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn close(what: &str, got: &[f64], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= bound, "{what}: {got} where {want} is expected, bound {bound:e}");
    }
}

fn model(value: &Value) -> Hmm {
    let covariances = value["covars"].as_array().unwrap().iter().map(floats).collect::<Vec<_>>();
    Hmm {
        n_state: covariances.len(),
        n_dim: floats(&value["means"][0]).len(),
        initial: floats(&value["startprob"]),
        transition: floats(&value["transmat"]),
        means: floats(&value["means"]),
        covariances,
    }
}

fn series(rows: Vec<f64>, n_dim: usize, lengths: &[usize]) -> Series {
    let mut start = 0;
    let segments = lengths.iter().map(|n| {
        start += n;
        start - n..start
    });
    Series { n_dim, data: rows.iter().map(|&x| x as f32).collect(), segments: segments.collect(), ..Series::default() }
}

fn nothing(_: usize) -> gpt2meg::error::Result<()> {
    Ok(())
}

/// Log-likelihood, posteriors and Viterbi path of hmmlearn, and one step of Baum–Welch from its definition, over three
/// stretches, one of them a single row; a state that no stretch can begin in.
#[test]
fn it_is_hmmlearns_model() {
    let expected = expected();
    let lengths: Vec<usize> = floats(&expected["lengths"]).iter().map(|&n| n as usize).collect();
    let x = series(floats(&expected["x"]), 4, &lengths);
    for (name, means) in [("zero_mean", false), ("with_means", true)] {
        let want = &expected[name];
        let hmm = model(want);
        let posterior = hmm.posterior(&x);
        // 151 log-densities of size 10, from covariances of condition below 1e3: 1e-16 · 1e3 · 1e3.
        close(name, &[posterior.log_likelihood], &floats(&want["log_likelihood"]), 1e-9);
        close(name, &posterior.states, &floats(&want["posterior"]), 1e-9);
        let (path, log_likelihood) = hmm.viterbi(&x);
        assert_eq!(path.iter().map(|&s| f64::from(s)).collect::<Vec<_>>(), floats(&want["viterbi"]), "{name}");
        close(name, &[log_likelihood], &floats(&want["viterbi_log_likelihood"]), 1e-9);

        let whole = fit::second_moment(&x);
        let (next, _) = fit::iterate(&hmm, &x, &whole, means);
        let want = &want["next"];
        close("initial", &next.initial, &floats(&want["startprob"]), 1e-9);
        close("transition", &next.transition, &floats(&want["transmat"]), 1e-9);
        let key = if means { "covars_about_means" } else { "covars" };
        close("covariances", &next.covariances.concat(), &floats(&want[key]), 1e-9);
        if means {
            close("means", &next.means, &floats(&want["means"]), 1e-9);
        }
    }
}

/// The whole analysis of a simulated recording whose states are known to switch, compared with its own beginning.
fn analysed(n_timestep: usize, options: &Options) -> Value {
    analysed_with(n_timestep, options, Vec::new())
}

/// The same with others beside it.
fn analysed_with(n_timestep: usize, options: &Options, others: Vec<Source>) -> Value {
    let config = simulate::Config { seconds: 240.0, sfreq: 100.0, n_channel: 6, n_condition: 2, ..Default::default() };
    let simulated = || simulate::recording(&config, 0).unwrap();
    let mut other = simulated();
    let part = other.read(0, n_timestep).unwrap();
    let mut info = other.info.clone();
    info.n_timestep = n_timestep;
    info.events.retain(|event| event.onset < n_timestep);
    let generated = Recording::new(info, Box::new(InMemory(part))).unwrap();
    let generated = sources(vec![("itself", generated)]).into_iter().chain(others).collect();
    let wanted = Wanted { dynamics: vec![options.clone()], ..Wanted::default() };
    let report = report(Inputs { seed: 0, ..inputs(vec![simulated()], generated, wanted) }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    report.write(folder.path(), false).unwrap();
    let name = if options.n_lag == 1 { "hmm-time-domain" } else { "hmm" };
    let section = report.json()["sections"][name].clone();
    if section["not_computed"].is_null() {
        let shape = |file: &str| {
            let path = folder.path().join(name).join(file);
            npyz::NpyFile::new(std::fs::File::open(path).unwrap()).unwrap().shape().to_vec()
        };
        let reach = options.n_lag - 1;
        assert_eq!(shape("itself/inf_params/alp.npy"), [(n_timestep - reach) as u64, options.n_state as u64]);
        assert_eq!(shape("real/summary_stats/lt.npy"), [options.n_state as u64]);
    }
    section
}

/// A surrogate with random phases keeps the spectrum and loses the dynamics, and the measures say so; a recording is at
/// the ceiling of itself.
#[test]
fn a_surrogate_without_dynamics_is_seen_to_have_none() {
    let options = Options { n_state: 5, n_component: 12, n_init: 1, max_iter: 20, ..Options::default() };
    let section = analysed(12_000, &options);
    for key in ["lifetimes", "own_lifetimes"] {
        let measure = &section["measures"][key];
        let (ceiling, itself) = (&measure["ceiling"]["median"], &measure["generated"][0]["median"]);
        let phases = measure["generated"][1]["median"].as_f64().unwrap();
        assert_eq!(itself.as_f64(), Some(0.0), "{key}: the first stretch itself");
        // How far is the recording's own doing; nothing here rests on the numbers but that one is beyond the other.
        assert!(phases > 1.2 * ceiling.as_f64().unwrap(), "{key}: {phases} where the ceiling is {ceiling}");
    }
    // Without states of its own the surrogate's model finds states that are all alike.
    let lifetimes = |entry: usize| floats(&section["own_models"][entry]["mean_lifetime_s"]);
    let range = |entry: usize| {
        let sorted = lifetimes(entry);
        let (low, high) = (sorted.iter().copied().fold(f64::MAX, f64::min), sorted.iter().copied().fold(0.0, f64::max));
        high / low
    };
    assert!(range(3) < 0.7 * range(0), "{:?} {:?}", lifetimes(3), lifetimes(0));
    let explained = |entry: usize| section["own_models"][entry]["explained_variance"].as_f64().unwrap();
    assert!((explained(3) - explained(1)).abs() < 0.02, "spectra and cross-spectra are those of the second stretch");
    // Shifted channels have nothing in common: as many components hold less of them.
    assert!(explained(4) < explained(1) - 0.02, "{} {}", explained(4), explained(1));
    let labels =
        |models: &str| section[models].as_array().unwrap().iter().map(|m| m["label"].clone()).collect::<Vec<_>>();
    assert_eq!((labels("own_models").len(), labels("own_models")), (5, labels("real_model")));
}

/// A recording that collapsed, and one too short for a model, are rows that say so; everything else is as without them.
#[test]
fn one_poor_recording_ends_only_its_own_row() {
    let options = Options { n_state: 4, n_lag: 3, n_component: 6, n_init: 1, max_iter: 4, ..Options::default() };
    let healthy = analysed(6000, &options);
    let config = simulate::Config { seconds: 240.0, sfreq: 100.0, n_channel: 6, n_condition: 2, ..Default::default() };
    let poor = |label: &str, n_timestep: usize, factor: f64| {
        let mut whole = simulate::recording(&config, 0).unwrap();
        let mut block = whole.read(0, n_timestep).unwrap();
        block.data.iter_mut().for_each(|x| *x *= factor);
        let info = Info { n_timestep, events: Vec::new(), ..whole.info.clone() };
        Source { label: label.into(), pieces: vec![Recording::new(info, Box::new(InMemory(block))).unwrap()] }
    };
    let both = analysed_with(6000, &options, vec![poor("flat", 7000, 0.0)]);
    assert_eq!(both["own_models"][3]["label"], "flat");
    let why = both["own_models"][3]["not_computed"].as_str().unwrap();
    assert!(why.contains("no channel of flat ever changes"), "{why}");
    assert!(both["measures"]["own_lifetimes"]["generated"][1]["median"].is_null());
    let short = Options { n_state: 60, ..options.clone() };
    let both_short = analysed_with(6000, &short, vec![poor("short", 500, 1.0)]);
    for models in ["real_model", "own_models"] {
        let why = both_short[models][3]["not_computed"].as_str().unwrap();
        assert!(why.contains("500 timesteps"), "{why}");
    }
    for measure in ["lifetimes", "own_lifetimes"] {
        for (with, without) in [(&both, &healthy), (&both_short, &analysed(6000, &short))] {
            let (with, without) = (&with["measures"][measure], &without["measures"][measure]);
            assert_eq!(with["ceiling"], without["ceiling"], "{measure}");
            assert_eq!(with["generated"][0], without["generated"][0], "{measure}");
            assert_eq!(with["generated"][2], without["generated"][1], "{measure}: the first reference");
        }
    }
}

#[test]
fn what_is_too_short_for_states_is_said_and_the_report_stands() {
    let options = Options { n_state: 200, n_lag: 1, n_component: 3, max_iter: 1, n_init: 1, ..Options::default() };
    let section = analysed(1000, &options);
    let why = section["not_computed"].as_str().unwrap();
    assert!(why.contains("fewer than the states and components need"), "{section}");
}

fn source(rows: &[Vec<f64>], cuts: &[usize]) -> Source {
    let channel = |i: usize| Channel {
        name: format!("C{i}"),
        kind: ChannelKind::Mag,
        loc: [0.0; 12],
        coil_type: 0,
        coord_frame: 0,
        bad: false,
    };
    let piece = |range: &[usize]| {
        let cut: Vec<Vec<f64>> = rows.iter().map(|row| row[range[0]..range[1]].to_vec()).collect();
        let info = Info {
            channels: (0..rows.len()).map(channel).collect(),
            sfreq: 100.0,
            n_timestep: range[1] - range[0],
            first_timestep: 0,
            events: Vec::new(),
            subject: None,
            pass_band: (0.0, 50.0),
            meas_date: None,
            line_freq: None,
            dev_head_t: None,
            dig: Vec::new(),
            description: None,
            source: "test".into(),
        };
        let block = Block { n_channel: rows.len(), n_timestep: info.n_timestep, data: cut.concat() };
        Recording::new(info, Box::new(InMemory(block))).unwrap()
    };
    Source { label: "test".into(), pieces: cuts.windows(2).map(piece).collect() }
}

#[test]
fn embedding_and_components_are_scikit_learns() {
    let expected = &expected()["pca"];
    let rows: Vec<Vec<f64>> = expected["channels"].as_array().unwrap().iter().map(floats).collect();
    let cut = expected["cut"].as_u64().unwrap() as usize;
    let mut source = source(&rows, &[0, cut, rows[0].len()]);
    let scale: Scale = source.scale(nothing).unwrap();
    let components = Components::fit(&mut source, &scale, 0..300, (5, 6), &mut nothing).unwrap();
    // The divisors n and n − 1 leave the shares as they are; eigenvectors to 1e-16 over the gaps, which are above 1e-3.
    close("explained", &[components.explained()], &floats(&expected["explained"]), 1e-12);
    let columns: Vec<f64> =
        (0..6).flat_map(|k| (0..20).map(move |i| i * 6 + k)).map(|at| components.directions[at]).collect();
    close("vectors", &columns, &floats(&expected["vectors"]), 1e-10);
    let series = components.series(&mut source, &scale, 0..300, &mut nothing).unwrap();
    assert_eq!(series.segments, [0..cut - 4, cut - 4..rows[0].len() - 8]);
    let got: Vec<f64> = series.data.iter().copied().map(f64::from).collect();
    assert_eq!(series.centres, [2, cut + 2]);
    // A range that begins and ends within the pieces has the same rows.
    let inner = components.series(&mut source, &scale, 50..200, &mut nothing).unwrap();
    assert_eq!((inner.segments, inner.centres), (vec![0..66, 66..142], vec![52, cut + 2]));
    assert_eq!(inner.data[..66 * 6], series.data[50 * 6..116 * 6]);
    assert_eq!(inner.data[66 * 6..], series.data[116 * 6..192 * 6]);
    // Kept as float32, of size at most 4.
    close("scores", &got, &floats(&expected["scores"]), 1e-6);
}

/// Rows drawn from a chain, and the states they were drawn in.
fn simulated(hmm: &Hmm, n: usize, seed: u64) -> (Series, Vec<u8>) {
    let mut generator = keyed(seed, Purpose::Control, 0);
    let (k, d) = (hmm.n_state, hmm.n_dim);
    let (mut state, mut states, mut rows) = (0, Vec::new(), Vec::new());
    for _ in 0..n {
        states.push(state as u8);
        // Covariances are diagonal here.
        for i in 0..d {
            let noise: f64 = generator.sample(StandardNormal);
            rows.push(hmm.means[state * d + i] + hmm.covariances[state][i * d + i].sqrt() * noise);
        }
        let mut left: f64 = generator.random();
        state = (0..k)
            .find(|j| {
                left -= hmm.transition[state * k + j];
                left < 0.0
            })
            .unwrap_or(k - 1);
    }
    (series(rows, d, &[n]), states)
}

/// Three states of different variances; the second rarely leads back to the first.
fn truth() -> Hmm {
    let diagonal = |v: [f64; 3]| (0..9).map(|at| if at % 4 == 0 { v[at / 4] } else { 0.0 }).collect::<Vec<f64>>();
    Hmm {
        n_state: 3,
        n_dim: 3,
        initial: vec![1.0, 0.0, 0.0],
        transition: vec![0.95, 0.04, 0.01, 0.01, 0.97, 0.02, 0.05, 0.05, 0.9],
        means: vec![0.0; 9],
        covariances: vec![diagonal([4.0, 0.2, 1.0]), diagonal([0.2, 4.0, 1.0]), diagonal([0.3, 0.3, 6.0])],
    }
}

#[test]
fn a_chain_is_recovered_and_the_likelihood_never_falls() {
    let truth = truth();
    let (x, states) = simulated(&truth, 12_000, 5);
    let options = Options { n_state: 3, n_init: 3, ..Options::default() };
    let mut done = 0;
    let mut count = |n| {
        done += n;
        Ok(())
    };
    let fitted = fit(&x, &options, &mut count).unwrap();
    assert_eq!(done, fit::work(x.len(), &options), "progress ends at its end");
    assert!(fitted.converged, "{:?}", fitted.objective);
    for pair in fitted.objective.windows(2) {
        assert!(pair[1] >= pair[0] - 1e-7, "{pair:?}");
    }
    // In the coordinates of the data themselves, as one component each.
    let identity = Components {
        n_lag: 1,
        n_component: 3,
        directions: (0..9).map(|at| f64::from(u8::from(at % 4 == 0))).collect(),
        mean: vec![0.0; 3],
        sd: vec![1.0; 3],
        total: 3.0,
    };
    let order = match_states((&truth, &identity), (&fitted.hmm, &identity));
    let n_in = |state: usize| states.iter().filter(|&&s| usize::from(s) == state).count() as f64;
    for (state, &found) in order.iter().enumerate() {
        for (to, &found_to) in order.iter().enumerate() {
            let (want, got) = (truth.transition[state * 3 + to], fitted.hmm.transition[found * 3 + found_to]);
            // Five standard errors of a share of that many steps, and half as much for not seeing the states.
            let bound = 7.5 * (want * (1.0 - want) / n_in(state)).sqrt();
            assert!((got - want).abs() < bound, "{state} to {to}: {got} {want}, bound {bound}");
        }
        for at in 0..9 {
            let (want, got) = (truth.covariances[state][at], fitted.hmm.covariances[found][at]);
            let size = (truth.covariances[state][at / 3 * 4] * truth.covariances[state][at % 3 * 4]).sqrt();
            let bound = 7.5 * size * (2.0 / n_in(state)).sqrt();
            assert!((got - want).abs() < bound, "covariance of {state}, {at}: {got} {want}, bound {bound}");
        }
    }
    // The path too: what the true model itself does not know is not to be had.
    let right = |hmm: &Hmm, name: &dyn Fn(u8) -> u8| {
        let course = courses(&hmm.posterior(&x).states, 3);
        course.iter().zip(&states).filter(|(a, b)| name(**a) == **b).count() as f64 / states.len() as f64
    };
    let best = right(&truth, &|s| s);
    let found = right(&fitted.hmm, &|s| order.iter().position(|&f| f == usize::from(s)).unwrap() as u8);
    assert!(best > 0.9 && found > best - 0.01, "{found} of {best}");
    // Lifetimes are geometric: 1 / (1 − stay) timesteps.
    let summary = summarise(&courses(&fitted.hmm.posterior(&x).states, 3), &x.segments, 3, 100.0);
    let lifetime = summary[order[1]].mean_lifetime();
    assert!((0.2..0.6).contains(&lifetime), "a state that stays with 0.97 lasts 0.33 s: {lifetime}");
}

#[test]
fn threads_do_not_matter_and_seeds_do() {
    let (x, _) = simulated(&truth(), 3000, 6);
    let fitted = |threads: usize, seed: u64| {
        let options = Options { n_state: 3, n_init: 2, max_iter: 5, seed, ..Options::default() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fit(&x, &options, &mut nothing).unwrap().hmm)
    };
    assert_eq!(fitted(1, 0), fitted(3, 0));
    assert_ne!(fitted(1, 0), fitted(1, 1));
}

/// Constant rows, doubled columns, a lone spike, more states than kinds of rows, and huge values: numbers all the same.
#[test]
fn collapsed_and_rank_deficient_series_give_numbers() {
    let wave = |t: usize, i: usize| ((t * (i + 2)) as f64 * 0.37).sin();
    let doubled = (0..400).flat_map(|t| [wave(t, 0), wave(t, 0), wave(t, 1)]).collect();
    let spike = (0..400).flat_map(|t| [if t == 200 { 1e6 } else { 0.0 }, wave(t, 1)]).collect();
    let huge = (0..400).flat_map(|t| [1e30 * wave(t, 0), 1e-30 * wave(t, 1)]).collect();
    for (rows, d) in [(vec![1.0; 400], 1), (vec![0.0; 800], 2), (doubled, 3), (spike, 2), (huge, 2)] {
        let x = series(rows, d, &[400]);
        for means in [false, true] {
            let options = Options { n_state: 6, n_init: 2, max_iter: 20, means, ..Options::default() };
            let fitted = fit(&x, &options, &mut nothing).unwrap();
            let posterior = fitted.hmm.posterior(&x);
            let (_, path) = fitted.hmm.viterbi(&x);
            assert!(path.is_finite() && posterior.log_likelihood.is_finite(), "{d} {means}");
            assert!(fitted.objective.iter().all(|x| x.is_finite()));
            assert!(fitted.hmm.covariances.concat().iter().all(|x| x.is_finite()));
            for row in posterior.states.chunks(6) {
                assert!(
                    (row.iter().sum::<f64>() - 1.0).abs() < 1e-9 && row.iter().all(|p| (0.0..=1.0 + 1e-9).contains(p))
                );
            }
        }
    }
}

#[test]
fn too_little_is_refused_in_one_sentence() {
    let short = series(vec![0.5; 30], 1, &[30]);
    let error = fit(&short, &Options::default(), &mut nothing).err().unwrap();
    assert_eq!(error.kind(), Kind::TooShort);
    assert!(error.to_string().contains("30 timesteps"), "{error}");
    let rows = vec![vec![0.0; 40]; 2];
    let scale = Scale { mean: vec![0.0; 2], sd: vec![1.0; 2] };
    let of = |cuts: &[usize], lag| Components::fit(&mut source(&rows, cuts), &scale, 0..40, (lag, 80), &mut nothing);
    assert_eq!(of(&[0, 40], 3).err().unwrap().kind(), Kind::ZeroVariance);
    assert_eq!(of(&[0, 10, 20, 30, 40], 15).err().unwrap().kind(), Kind::TooShort);
}
