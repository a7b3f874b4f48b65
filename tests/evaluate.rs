//! Evaluation as a whole: numbers against numpy and scipy, the page, and awkward recordings.

#[path = "support/report.rs"]
mod support;

use gpt2meg::error::{Kind, Result};
use gpt2meg::evaluate::battery::Wanted;
use gpt2meg::evaluate::report::{Inputs, Report};
use gpt2meg::recording::{Block, Channel, ChannelKind, InMemory, Info, Recording};
use gpt2meg::statistics::welch::segment_len;
use serde_json::Value;
use support::{inputs, report, sources};

/// A recording in memory. Every third channel is a magnetometer, the others are gradiometers at the same places.
fn recording(rows: &[Vec<f64>], sfreq: f64) -> Recording {
    let place = |i: usize| {
        let (down, around) = (0.25 + (i / 3) as f32 * 0.012, (i / 3) as f32 * 2.4);
        [0.1 * down.sin() * around.cos(), 0.1 * down.sin() * around.sin(), 0.1 * down.cos()]
    };
    let channel = |i: usize| {
        let mut loc = [0.0; 12];
        loc[..3].copy_from_slice(&place(i));
        let kind = if i.is_multiple_of(3) { ChannelKind::Mag } else { ChannelKind::Grad };
        Channel { name: format!("MEG{i:03}"), kind, loc, coil_type: 0, coord_frame: 1, bad: false }
    };
    let n_timestep = rows[0].len();
    let info = Info {
        channels: (0..rows.len()).map(channel).collect(),
        sfreq,
        n_timestep,
        first_timestep: 0,
        events: Vec::new(),
        subject: None,
        pass_band: (0.0, sfreq / 2.0),
        meas_date: None,
        line_freq: None,
        dev_head_t: None,
        dig: Vec::new(),
        description: None,
        source: "test <recording>".into(),
    };
    let block = Block { n_channel: rows.len(), n_timestep, data: rows.concat() };
    Recording::new(info, Box::new(InMemory(block))).unwrap()
}

fn compare(real: Vec<Recording>, generated: Vec<(&str, Recording)>) -> Result<Report> {
    report(Inputs { top_p: vec![0.8], seed: 5, ..inputs(real, sources(generated), Wanted::default()) })
}

/// Coloured noise, the same for the same numbers.
fn noise(n_channel: usize, n_timestep: usize, seed: u64, pole: f64) -> Vec<Vec<f64>> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    let mut row = || {
        let mut x = 0.0;
        let mut next = || {
            x = pole * x + uniform() + uniform() + uniform();
            x * 1e-12
        };
        (0..n_timestep).map(|_| next()).collect()
    };
    (0..n_channel).map(|_| row()).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn close(what: &str, got: &[f64], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= bound, "{what}: {got} where {want} is expected, bound {bound:e}");
    }
}

/// The statistics' keys: section, key, and how far this code may be from scipy.
const DISTANCES: [(&str, &str, f64); 5] = [
    // Logarithms and ratios of float64 spectra that agree to 1e-12 of their values.
    ("spectrum", "log_distance", 1e-11),
    ("spectrum", "jensen_shannon", 1e-11),
    // A value may be anywhere in its bin of 0.01 SD.
    ("amplitude", "wasserstein", 0.01),
    // The largest gap is seen at edges only: off by the mass in one bin, of a density below 0.5 per SD, and of chance.
    ("amplitude", "kolmogorov_smirnov", 0.02),
    ("autocorrelation", "mean_difference", 1e-11),
];

#[test]
fn numbers_equal_scipys() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/evaluate");
    let expected: Value = serde_json::from_slice(&std::fs::read(format!("{folder}/expected.json")).unwrap()).unwrap();
    let npy = npyz::NpyFile::new(std::fs::File::open(format!("{folder}/signals.npy")).unwrap()).unwrap();
    let n = npy.shape()[2] as usize;
    let signals: Vec<f64> = npy.into_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    let sfreq = expected["sfreq"].as_f64().unwrap();
    let rows = |i: usize| signals[2 * i * n..2 * (i + 1) * n].chunks(n).map(<[f64]>::to_vec).collect::<Vec<_>>();
    let report = compare(vec![recording(&rows(0), sfreq)], vec![("g", recording(&rows(1), sfreq))]).unwrap();
    let json = report.json();
    for (section, key, bound) in DISTANCES {
        let measure = &json["sections"][section]["measures"][key];
        close(key, &floats(&measure["ceiling"]["channels"]), &floats(&expected["ceiling"][key]), bound);
        close(key, &floats(&measure["generated"][0]["channels"]), &floats(&expected["generated"][key]), bound);
    }
    for key in ["sd", "kurtosis", "small"] {
        let quantity = &json["sections"]["amplitude"]["quantities"][key];
        let want = &expected["properties"];
        close(key, &floats(&quantity["real"]["channels"]), &floats(&want["real"][key]), 1e-9);
        close(key, &floats(&quantity["generated"][0]["channels"]), &floats(&want["generated"][key]), 1e-9);
    }
    let out = tempfile::tempdir().unwrap();
    report.write(out.path(), false).unwrap();
    let array = |name: &str| -> Vec<f64> {
        npyz::NpyFile::new(std::fs::File::open(out.path().join(name)).unwrap()).unwrap().into_vec().unwrap()
    };
    let all = |value: &Value| value.as_array().unwrap().iter().flat_map(floats).collect::<Vec<f64>>();
    close("frequencies", &array("frequencies.npy"), &floats(&expected["frequencies"]), 1e-12);
    for (name, key) in [("spectra-real.npy", "real"), ("spectra-g.npy", "generated")] {
        let want = all(&expected["spectra"][key]);
        let largest = want.iter().fold(0.0, |m: f64, x| m.max(*x));
        close(name, &array(name), &want, 1e-12 * largest);
    }
    close("autocorrelation", &array("autocorrelation-real.npy"), &all(&expected["autocorrelations"]["real"]), 1e-12);
    let again = report.write(out.path(), false).unwrap_err();
    assert_eq!(again.kind(), Kind::Exists);
    report.write(out.path(), true).unwrap();
}

#[test]
fn a_recording_is_at_no_distance_from_itself_and_a_planted_change_is_found() {
    let sfreq = 100.0;
    let rows = noise(6, 2000, 1, 0.6);
    let mut louder = rows.clone();
    // 20 Hz, added to one channel only.
    for (t, x) in louder[4].iter_mut().enumerate() {
        *x += 1e-12 * (std::f64::consts::TAU * 20.0 * t as f64 / sfreq).sin();
    }
    let generated = vec![("same", recording(&rows, sfreq)), ("changed", recording(&louder, sfreq))];
    let json = compare(vec![recording(&rows, sfreq)], generated).unwrap().json();
    for (section, key, _) in DISTANCES {
        let generated = &json["sections"][section]["measures"][key]["generated"];
        assert_eq!(floats(&generated[0]["channels"]), [0.0; 6], "{key}");
        for (channel, distance) in floats(&generated[1]["channels"]).into_iter().enumerate() {
            assert_eq!(distance > 0.0, channel == 4, "{key} of channel {channel}: {distance}");
        }
    }
    let decibel = |key: &str| floats(&json["sections"]["spectrum"]["quantities"][key]["generated"][1]["channels"])[4];
    assert!(decibel("power_ratio_beta") > 3.0, "20 Hz is beta: {} dB", decibel("power_ratio_beta"));
    assert!(decibel("power_ratio_alpha").abs() < 0.01, "20 Hz is not alpha: {} dB", decibel("power_ratio_alpha"));
}

#[test]
fn equal_inputs_give_equal_files_whatever_the_threads_and_pieces_join_at_gaps() {
    let rows = noise(4, 1200, 2, 0.6);
    let report = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let half =
            |from: usize| recording(&rows.iter().map(|r| r[from..from + 600].to_vec()).collect::<Vec<_>>(), 50.0);
        let generated = vec![("g", recording(&noise(4, 900, 3, 0.4), 50.0))];
        pool.install(|| compare(vec![half(0), half(600)], generated)).unwrap()
    };
    let (one, three) = (report(1), report(3));
    assert_eq!(one.json().to_string(), three.json().to_string());
    assert_eq!(one.html(), three.html());
    assert_eq!(one.json()["real"]["n_timestep"], 1200);
    assert_eq!(one.json()["ceiling"]["first_n_timestep"], 600);
}

/// Two draws of one process are as far apart as two stretches of one draw: what is generated by a perfect model comes
/// out at the ceiling, whatever the lengths of the recordings.
#[test]
fn a_perfect_model_comes_out_at_the_ceiling() {
    const CHANNELS: usize = 100;
    for (n_real, n_generated) in [(4000, 7000), (6000, 1500)] {
        let real = recording(&noise(CHANNELS, n_real, 21, 0.8), 100.0);
        let generated = recording(&noise(CHANNELS, n_generated, 22, 0.8), 100.0);
        let json = compare(vec![real], vec![("perfect", generated)]).unwrap().json();
        for (section, key, _) in DISTANCES {
            let measure = &json["sections"][section]["measures"][key];
            let ceiling = floats(&measure["ceiling"]["channels"]);
            let distance = floats(&measure["generated"][0]["channels"]);
            // Both distances of a channel are to the same stretch, from stretches of one length and process: which is the
            // larger is the toss of a coin, once a channel. Four standard deviations of a hundred tosses are 20.
            let larger = distance.iter().zip(&ceiling).filter(|(d, c)| d > c).count();
            assert!(larger.abs_diff(CHANNELS / 2) <= 20, "{key}: {larger} of {CHANNELS} are beyond the ceiling");
            // The median of 100 draws lies between the quantiles 1/2 ± 4 · (1/2)/√100 of their distribution, but for four
            // standard deviations; so does the other, and the two hundred together show where those quantiles are.
            let mut all = [distance.clone(), ceiling.clone()].concat();
            all.sort_by(f64::total_cmp);
            let spread = all[7 * all.len() / 10] / all[3 * all.len() / 10];
            let median = |of: &str| measure[of]["median"].as_f64();
            let ratio = measure["generated"][0]["median"].as_f64().unwrap() / median("ceiling").unwrap();
            assert!((1.0 / spread..spread).contains(&ratio), "{key}: {ratio} times the ceiling, bound {spread}");
            // Noise without dynamics, its channels independent, has nothing that the references are without: they are
            // another stretch of it, and no closer than that.
            for reference in measure["references"].as_array().unwrap() {
                let ratio = reference["median"].as_f64().unwrap() / median("ceiling").unwrap();
                assert!((1.0 / spread..spread).contains(&ratio), "{key}: a reference is {ratio} times the ceiling");
            }
        }
    }
}

/// What the control is for: the nucleus takes small values away and makes a known process smoother; without it nothing
/// changes but by chance.
#[test]
fn the_control_shows_what_the_nucleus_does_and_nothing_without_it() {
    let rows = noise(4, 4000, 31, 0.6);
    let json = compare(vec![recording(&rows, 100.0)], vec![("g", recording(&rows, 100.0))]).unwrap().json();
    let control = &json["sections"]["control"];
    assert_eq!(control["generated"], serde_json::json!(["p = 1", "p = 0.8"]));
    let n = control["n_timestep"].as_f64().unwrap();
    let of = |key: &str| {
        let quantity = &control["quantities"][key];
        let generated = |i: usize| floats(&quantity["generated"][i]["channels"]);
        (floats(&quantity["real"]["channels"]), generated(0), generated(1))
    };

    // Whether a value is small says nothing about its sign, so over a Gaussian process with the autocorrelation 0.6^k it
    // is correlated by at most 0.6^2k, and counts as one of n · (1 − 0.36) / (1 + 0.36) independent ones. Five standard
    // deviations of the difference of two shares, and what the levels move over ±0.1 SD: half a level's width, 0.003 SD,
    // at either side, where the density is 0.4 per SD.
    let (truth, all, nucleus) = of("small");
    for ((truth, all), nucleus) in truth.iter().zip(all).zip(nucleus) {
        let deviation = (2.0 * truth * (1.0 - truth) / (n * 0.64 / 1.36)).sqrt();
        let bound = 5.0 * deviation + 2.0 * 0.003 * 0.4;
        assert!((all - truth).abs() < bound, "p = 1: {all} of {truth} are small, bound {bound}");
        assert!(truth - nucleus > bound, "p = 0.8: {nucleus} of {truth} are small, bound {bound}");
    }
    // The power in 15 of 50 Hz is the mean of n · 15 / 50 / 2 independent exponential variables, but for the window, which
    // leaves 0.9 of them (Welch 1967: Hann, half overlapping); a ratio of two such means, in decibel.
    let (_, all, nucleus) = of("power_ratio_gamma");
    let bound = 5.0 * (2.0 / (0.9 * n * 0.15)).sqrt() * 10.0 / std::f64::consts::LN_10;
    for (all, nucleus) in all.into_iter().zip(nucleus) {
        assert!(all.abs() < bound, "p = 1: {all} dB of gamma, bound {bound}");
        assert!(nucleus < -bound, "p = 0.8: {nucleus} dB of gamma, bound {bound}");
    }
}

/// Tags that open are closed, in order; no stray `<`; attributes are quoted.
fn assert_well_formed(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html.strip_prefix("<!doctype html>").expect("a doctype");
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag that ends");
        let tag = &rest[start + 1..end];
        assert!(!tag.contains('<'), "a tag within a tag: {tag}");
        assert!(tag.matches('"').count().is_multiple_of(2), "an attribute that does not end: {tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "at {}", &rest[..start.min(80)]);
        } else if !tag.ends_with('/') && !matches!(name, "meta" | "br") {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

#[test]
fn the_page_is_whole_and_fetches_nothing_for_one_channel_and_for_306() {
    for n_channel in [1, 306] {
        let report = compare(
            vec![recording(&noise(n_channel, 900, 4, 0.6), 50.0)],
            vec![
                ("<script>alert('p = 1')</script>", recording(&noise(n_channel, 300, 5, 0.6), 50.0)),
                ("\"&amp;", recording(&noise(n_channel, 800, 6, 0.5), 50.0)),
            ],
        );
        let html = report.unwrap().html();
        assert_well_formed(&html);
        for fetched in ["http:", "https:", "src=", "url(", "@import", "<script", "<link", "<img", "<iframe", "<object"]
        {
            assert!(!html.contains(fetched), "{n_channel} channels: {fetched}");
        }
        assert!(!html.contains("NaN") && !html.contains("inf\""), "{n_channel} channels: a number went wrong");
        assert!(html.contains("prefers-color-scheme:dark") && html.contains("width=device-width"));
        for section in ["traces", "spectrum", "amplitude", "autocorrelation", "control", "methods"] {
            assert!(html.contains(&format!("<section id=\"{section}\"")), "{section}");
        }
        assert!(html.len() < 8 << 20, "{} bytes", html.len());
    }
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let (sfreq, segment) = (50.0, segment_len(50.0));
    let real = || vec![recording(&noise(3, 2 * segment, 7, 0.5), sfreq)];
    let generated = |n_channel, n, sfreq| vec![("g", recording(&noise(n_channel, n, 8, 0.5), sfreq))];
    let kind = |real, generated| compare(real, generated).err().map(|e| e.kind());
    assert_eq!(kind(real(), generated(3, segment, sfreq)), None, "just long enough");
    assert_eq!(kind(real(), generated(3, segment - 1, sfreq)), Some(Kind::TooShort));
    let short = vec![recording(&noise(3, 2 * segment - 1, 7, 0.5), sfreq)];
    assert_eq!(kind(short, generated(3, segment, sfreq)), Some(Kind::TooShort));
    assert_eq!(kind(real(), generated(2, segment, sfreq)), Some(Kind::ChannelMismatch));
    assert_eq!(kind(real(), generated(3, 2 * segment, 100.0)), Some(Kind::SamplingRate));
    let broken = (0..10).map(|seed| recording(&noise(3, segment - 1, seed, 0.5), sfreq)).collect();
    assert_eq!(kind(broken, generated(3, segment, sfreq)), Some(Kind::TooShort), "no piece holds a segment");
    let mut flat = noise(3, 2 * segment, 7, 0.5);
    flat[1].fill(0.1);
    assert_eq!(kind(vec![recording(&flat, sfreq)], generated(3, segment, sfreq)), Some(Kind::ZeroVariance));
    // A generated channel that is silent is a finding, not an error.
    let mut silent = noise(3, segment, 7, 0.5);
    silent[2].fill(0.0);
    let json = compare(real(), vec![("silent", recording(&silent, sfreq))]).unwrap().json();
    let distances = floats(&json["sections"]["spectrum"]["measures"]["log_distance"]["generated"][0]["channels"]);
    assert_eq!(distances[2], 6.0);

    let mut renamed = recording(&noise(3, segment, 7, 0.5), sfreq);
    renamed.info.channels[1].name = "EEG 001".into();
    let error = compare(real(), vec![("g", renamed)]).err().unwrap();
    assert!(error.to_string().contains("EEG 001") && error.to_string().contains("MEG001"), "{error}");
}
