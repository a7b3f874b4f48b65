//! Evoked responses: the simulator's are recovered, a model that ignores its conditions is caught, and what is missing is said.

#[path = "support/report.rs"]
mod support;

use gpt2meg::evaluate::battery::Wanted;
use gpt2meg::evaluate::epochs::Epochs;
use gpt2meg::evaluate::evoked::responses::averages;
use gpt2meg::evaluate::measure::Source;
use gpt2meg::evaluate::report::Report;
use gpt2meg::recording::simulate::{Config, Simulation};
use gpt2meg::recording::{Event, InMemory, Recording, marks};
use serde_json::Value;
use support::{inputs, report, sources};

const SECONDS: usize = 1800;

fn simulation() -> Simulation {
    let config =
        Config { seconds: SECONDS as f64, sfreq: 100.0, n_channel: 6, n_condition: 2, seed: 3, ..Config::default() };
    Simulation::new(&config, 0).unwrap()
}

/// A stretch of the simulated recording, in seconds, its events changed.
fn stretch(from: usize, to: usize, change: impl Fn(usize, Event) -> Event) -> Recording {
    let mut whole = simulation().into_recording().unwrap();
    let range = 100 * from..100 * to;
    let mut info = marks::cut(&whole.info, &range);
    info.events = info.events.into_iter().enumerate().map(|(i, event)| change(i, event)).collect();
    let block = whole.read(range.start, range.len()).unwrap();
    Recording::new(info, Box::new(InMemory(block))).unwrap()
}

fn evoked(real: Recording, generated: Vec<(&str, Recording)>) -> Report {
    let wanted = Wanted { evoked: true, ..Wanted::default() };
    report(inputs(vec![real], sources(generated), wanted)).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn same(_: usize, event: Event) -> Event {
    event
}

/// The averages are the simulator's own noiseless responses, but for what averaging leaves of everything else.
#[test]
fn the_simulators_responses_are_recovered() {
    let truth = simulation().truth();
    let mut source = Source { label: "real".into(), pieces: vec![simulation().into_recording().unwrap()] };
    let scale = source.scale(|_| Ok(())).unwrap();
    let names = ["1", "2"].map(String::from);
    let epochs = Epochs::cut(&mut source, &scale, &names, &mut |_| Ok(())).unwrap();
    // A trial whose window reaches beyond the end is left out, and no other.
    assert!(epochs.len() + 1 >= truth.trials.len() && epochs.len() > 400, "{} trials", epochs.len());
    assert_eq!((epochs.n_time, epochs.n_before), (110, 10));
    let chosen = vec![epochs.of(0), epochs.of(1)];
    let found = averages(&epochs, &chosen);
    let [_, n_channel, n_time] = truth.evoked_shape;
    for (condition, trials) in chosen.iter().enumerate() {
        let n = trials.len() as f64;
        for channel in 0..n_channel {
            let at = |t: usize| f64::from(truth.evoked[(condition * n_channel + channel) * n_time + t]);
            let response = &found.conditions[condition][channel][10..60];
            // The mean that the whole recording's scale took out comes from all trials; it is part of the bound below.
            let error = |t: usize| response[t] - (at(t) - scale.mean[channel]) / scale.sd[channel];
            let rms = ((0..n_time).map(|t| error(t).powi(2)).sum::<f64>() / n_time as f64).sqrt();
            // What is averaged away has the signal's size, 1, over √n if trials were independent; slow activity is alike
            // in one trial and the next, so three times that.
            assert!(rms < 3.0 / n.sqrt(), "{condition} {channel}: {rms}, bound {}", 3.0 / n.sqrt());
        }
    }
}

#[test]
fn a_model_that_ignores_its_conditions_is_caught() {
    // Labels that have nothing to do with what was shown.
    let blind =
        |i: usize, event: Event| Event { label: if (i / 2).is_multiple_of(2) { "1" } else { "2" }.into(), ..event };
    // Onsets that have nothing to do with anything.
    let deaf = |i: usize, event: Event| Event { onset: event.onset.saturating_sub(37 * (i % 3) + 20), ..event };
    let half = SECONDS / 2;
    let generated = vec![
        ("good", stretch(half, SECONDS, same)),
        ("blind", stretch(half, SECONDS, blind)),
        ("deaf", stretch(half, SECONDS, deaf)),
    ];
    let found = evoked(stretch(0, half, same), generated).json()["sections"]["evoked"].clone();
    let entry = |label: &str| {
        let all = found["compared_with_real_first_half"].as_array().unwrap();
        all.iter().find(|e| e["label"] == label).unwrap_or_else(|| panic!("{label} in {found}")).clone()
    };
    let value = |label: &str, key: &str| number(&entry(label)[key]["value"]);
    let (pooled, specific) = ("correlation_pooled", "correlation_condition_specific");
    let ceiling = "real, other trials";
    // The simulator's responses are large: half the trials show them.
    assert!(value(ceiling, pooled) > 0.6 && value("good", pooled) > 0.6, "{found}");
    assert!(value(ceiling, specific) > 0.35 && value("good", specific) > 0.35, "{found}");
    // The ceiling and a perfect model are within each other's intervals.
    let e = entry("good");
    assert!(
        number(&e[pooled]["low"]) <= value(ceiling, pooled) + 0.1
            && number(&e[pooled]["high"]) >= value(ceiling, pooled) - 0.1
    );
    for label in ["blind", "real, conditions shuffled"] {
        assert!(value(label, pooled) > 0.5, "{label} responds all the same: {}", value(label, pooled));
        assert!(value(label, specific) < 0.5 * value(ceiling, specific), "{label}: {}", value(label, specific));
    }
    for label in ["deaf", "real, at random times"] {
        assert!(value(label, pooled) < 0.6 * value(ceiling, pooled), "{label}: {}", value(label, pooled));
    }
}

#[test]
fn threads_do_not_matter() {
    let json = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let found = || evoked(stretch(0, 60, same), vec![("g", stretch(60, 120, same))]).json();
        pool.install(found).to_string()
    };
    assert_eq!(json(1), json(3));
}

#[test]
fn what_is_missing_is_said_and_the_report_stands() {
    let without = |label: &'static str| move |_: usize, event: Event| Event { label: label.into(), ..event };
    let section = |real, generated| evoked(real, generated).json()["sections"].clone();
    // No events in the real recording, none in the generated one, other names, a condition that is absent.
    let silent = |mut recording: Recording| {
        recording.info.events.clear();
        recording
    };
    let all = section(silent(stretch(0, 60, same)), vec![("g", stretch(60, 120, same))]);
    assert!(all["evoked"]["not_computed"].as_str().unwrap().contains("no events"), "{}", all["evoked"]);
    assert!(all["spectrum"]["measures"].is_object());
    for other in [silent(stretch(60, 120, same)), stretch(60, 120, without("face"))] {
        let all = section(stretch(0, 60, same), vec![("g", other)]);
        assert!(all["evoked"]["not_computed"].as_str().unwrap().contains("no generated recording has a trial"));
    }
    let all = section(stretch(0, 60, same), vec![("g", stretch(60, 120, without("1")))]);
    assert_eq!(all["evoked"]["conditions"], serde_json::json!(["1"]));
    assert!(all["evoked"]["left_out"][0].as_str().unwrap().starts_with("2 ("), "{}", all["evoked"]["left_out"]);
    assert!(all["evoked"]["compared_with_real_first_half"][0]["correlation_condition_specific"].is_null());
    // One of two that has no events is left out by name.
    let all =
        section(stretch(0, 60, same), vec![("g", stretch(60, 120, same)), ("mute", silent(stretch(60, 120, same)))]);
    assert!(all["evoked"]["left_out"][0].as_str().unwrap().starts_with("mute"), "{}", all["evoked"]["left_out"]);
}
