//! A few seconds of signal, real and generated: what the eye judges before any number.

use super::chart::{Axis, Chart};
use super::section::{Comparison, Figure, Layout, Section, series};
use super::text::{brief, significant};

/// Seconds shown.
pub const SECONDS: f64 = 4.0;
/// At most this many channels are shown.
const CHANNELS: usize = 6;

/// The section on traces.
pub fn section(c: &Comparison) -> Section {
    let shown = c.spread_channels(CHANNELS);
    // Three recordings fit in a row; other numbers look better in pairs.
    let three = c.generated.len() == 2;
    let (layout, width) = if three { (Layout::Triples, 300.0) } else { (Layout::Pairs, 420.0) };
    let labels = std::iter::once(&c.real).chain(&c.generated).map(|m| m.label.as_str());
    let panels = labels.enumerate().map(|(index, label)| panel(c, index, label, &shown, width)).collect();
    let scales: Vec<String> = c
        .groups()
        .iter()
        .filter_map(|group| {
            let mut sds: Vec<f64> = group.channels.iter().map(|&i| c.scale.sd[i] * group.factor).collect();
            sds.sort_unstable_by(f64::total_cmp);
            let any_shown = shown.iter().any(|i| group.channels.contains(i));
            let sd = significant(crate::statistics::quantile::quantile(&sds, 0.5));
            any_shown.then(|| format!("{} {sd} {}", group.name.to_lowercase(), group.unit))
        })
        .collect();
    let caption = format!(
        "{} channels evenly spread over the recording, {} s from the middle of each recording (not chosen by eye). Each \
         trace is drawn in standard deviations of its real channel ({}), on the same scale in all panels; lines are 6 SD \
         apart.",
        shown.len(),
        brief(SECONDS),
        scales.join(", ")
    );
    Section {
        id: "traces",
        title: "The signals".into(),
        text: vec![
            "The generated signal is not a copy and need not match the real one at any moment; it should look as if it \
             came from the same recording."
                .into(),
        ],
        figures: vec![Figure { panels, layout, legend: Vec::new(), caption }],
        ..Section::default()
    }
}

fn panel(c: &Comparison, index: usize, label: &str, shown: &[usize], width: f64) -> String {
    const APART: f64 = 6.0;
    let block = &c.excerpts[index];
    let height = 60.0 + 46.0 * shown.len() as f64;
    let low = -APART * (shown.len() as f64 - 0.4);
    let names: Vec<(f64, &str)> =
        shown.iter().enumerate().map(|(row, &i)| (-APART * row as f64, c.channels[i].name.as_str())).collect();
    let x = Axis::linear(0.0, SECONDS, 4, "Time (s)");
    let y = Axis::linear(low, APART * 0.6, 1, "").with_ticks(&names);
    let mut chart = Chart::with_left(72.0, width, height, label, x, y);
    let xs: Vec<f64> = (0..block.n_timestep).map(|t| t as f64 / c.sfreq).collect();
    for (row, &channel) in shown.iter().enumerate() {
        let (mean, sd) = (c.scale.mean[channel], c.scale.sd[channel]);
        let ys: Vec<f64> = block.channel(channel).iter().map(|v| (v - mean) / sd - APART * row as f64).collect();
        chart.line(&format!("thin {}", series(index)), &xs, &ys);
    }
    chart.finish()
}
