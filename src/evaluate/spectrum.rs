//! Power spectra: how far apart they are, channel by channel, and where.

use super::chart::{Axis, Chart};
use super::measure::Measured;
use super::panels;
use super::section::{Between, Comparison, Distance, Figure, Group, Layout, Measure, Quantity, Section, series};
use super::svg::escape;
use super::text::{brief, capital, significant};
use super::topography;

/// The band the distances are taken over, in Hz.
pub const BAND: (f64, f64) = (1.0, 45.0);
/// The field's bands, in Hz: name, from, to.
const BANDS: [(&str, &str, f64, f64); 5] = [
    ("power_ratio_delta", "delta, 1–4 Hz", 1.0, 4.0),
    ("power_ratio_theta", "theta, 4–8 Hz", 4.0, 8.0),
    ("power_ratio_alpha", "alpha, 8–13 Hz", 8.0, 13.0),
    ("power_ratio_beta", "beta, 13–30 Hz", 13.0, 30.0),
    ("power_ratio_gamma", "low gamma, 30–45 Hz", 30.0, 45.0),
];
/// Ratios of power count as at most this many decades: a silent channel is far away, not infinitely far.
const MAX_DECADES: f64 = 6.0;

/// The bins of `frequencies` that lie in `band`, ends included.
pub fn bins(frequencies: &[f64], band: (f64, f64)) -> std::ops::Range<usize> {
    let first = frequencies.partition_point(|&f| f < band.0 - 1e-9);
    let last = frequencies.partition_point(|&f| f <= band.1 + 1e-9);
    first..last.max(first)
}

/// log10(b / a), at most six decades either way; two silent bins are equal.
pub fn decades(a: f64, b: f64) -> f64 {
    match (a > 0.0, b > 0.0) {
        (false, false) => 0.0,
        (true, false) => -MAX_DECADES,
        (false, true) => MAX_DECADES,
        (true, true) => (b.log10() - a.log10()).clamp(-MAX_DECADES, MAX_DECADES),
    }
}

/// Mean absolute log10 ratio of two densities: 0.1 means that power is off by a factor of 1.26 on average. Sees shape
/// and scale.
pub fn log_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| decades(a, b).abs()).sum::<f64>() / a.len().max(1) as f64
}

/// Jensen–Shannon divergence in bits of two densities, each normalised to sum to one (Lin 1991): 0 for equal shapes, 1
/// for spectra that share no frequency. Sees shape alone.
pub fn jensen_shannon(a: &[f64], b: &[f64]) -> f64 {
    let (sum_a, sum_b) = (a.iter().sum::<f64>(), b.iter().sum::<f64>());
    if sum_a <= 0.0 || sum_b <= 0.0 {
        return if sum_a <= 0.0 && sum_b <= 0.0 { 0.0 } else { 1.0 };
    }
    let term = |p: f64, middle: f64| if p > 0.0 { p * (p / middle).log2() } else { 0.0 };
    let both = a.iter().zip(b).map(|(&a, &b)| {
        let (p, q) = (a / sum_a, b / sum_b);
        let middle = 0.5 * (p + q);
        0.5 * (term(p, middle) + term(q, middle))
    });
    both.sum::<f64>().max(0.0)
}

/// The band that the slope is fitted over, and the part of it left out because rhythms stand there, in Hz.
const SLOPE: ((f64, f64), (f64, f64)) = ((2.0, 40.0), (7.0, 14.0));
/// Where a peak is looked for, in Hz.
const PEAK: (f64, f64) = (5.0, 35.0);

/// Exponent of 1/f and the frequency (Hz) that stands highest above it: least squares of log10 power on log10 frequency.
fn slope_and_peak(frequencies: &[f64], density: &[f64]) -> (f64, f64) {
    let left_out = bins(frequencies, SLOPE.1);
    let point = |i: usize| (frequencies[i].log10(), density[i].max(f64::MIN_POSITIVE).log10());
    let fitted: Vec<(f64, f64)> = bins(frequencies, SLOPE.0)
        .filter(|i| !left_out.contains(i))
        .map(point)
        .filter(|(x, _)| x.is_finite())
        .collect();
    let n = fitted.len().max(1) as f64;
    let (mx, my) = (fitted.iter().map(|p| p.0).sum::<f64>() / n, fitted.iter().map(|p| p.1).sum::<f64>() / n);
    let (xy, xx) = fitted.iter().fold((0.0, 0.0), |(xy, xx), (x, y)| (xy + (x - mx) * (y - my), xx + (x - mx).powi(2)));
    let slope = if xx > 0.0 { xy / xx } else { 0.0 };
    let above = |i: usize| point(i).1 - my - slope * (point(i).0 - mx);
    let peak = bins(frequencies, PEAK).max_by(|&a, &b| above(a).total_cmp(&above(b)));
    (-slope, peak.map_or(0.0, |i| frequencies[i]))
}

/// The distances of spectra.
pub fn distances(real: &Measured) -> Vec<Distance> {
    let band = bins(&real.frequencies, BAND);
    let of = |key, name, unit, between: fn(&[f64], &[f64]) -> f64| {
        let band = band.clone();
        let between: Between =
            Box::new(move |a, b, i| between(&a.spectra[i][band.clone()], &b.spectra[i][band.clone()]));
        Distance { key, name, unit, between }
    };
    vec![
        of("log_distance", "Spectrum: mean |log₁₀ ratio|", "decades", log_distance),
        of("jensen_shannon", "Spectrum: shape (Jensen–Shannon)", "bits", jensen_shannon),
    ]
}

/// The section on spectra.
pub fn section(c: &Comparison) -> Section {
    let measures = c.measures(distances(&c.real));
    let log = &measures[0];
    let mut figures: Vec<Figure> = vec![spectra(c), examples(c, log)];
    figures.extend(topography::figure(c, log));
    Section {
        id: "spectrum",
        title: "Power spectra".into(),
        text: vec![
            "Power by frequency, the first thing to get right. A recording whose spectrum is off in one band has \
             the wrong rhythms; one that is off everywhere has the wrong scale."
                .into(),
        ],
        measures,
        quantities: band_powers(c),
        figures,
        methods: vec![methods(c)],
        ..Section::default()
    }
}

/// Power by band relative to the whole real recording, in decibel: 0 is equal.
fn band_powers(c: &Comparison) -> Vec<Quantity> {
    let nyquist = c.sfreq / 2.0;
    let ratio = |low: f64, high: f64| {
        let range = bins(&c.real.frequencies, (low, high));
        move |m: &Measured, i: usize| {
            let sum = |m: &Measured| m.spectra[i][range.clone()].iter().sum::<f64>();
            10.0 * decades(sum(&c.real), sum(m))
        }
    };
    let bands = BANDS.iter().filter(|(_, _, _, high)| *high <= nyquist);
    let mut all: Vec<Quantity> =
        bands.map(|&(key, name, low, high)| c.quantity(key, name, "dB re real", ratio(low, high))).collect();
    let of = |m: &Measured, i: usize| slope_and_peak(&m.frequencies, &m.spectra[i]);
    all.push(c.quantity("exponent", "1/f exponent", "", |m, i| of(m, i).0));
    all.push(c.quantity("peak_frequency", "Frequency farthest above 1/f", "Hz", |m, i| of(m, i).1));
    all
}

/// What is drawn of a spectrum, in Hz.
fn shown(c: &Comparison) -> std::ops::Range<usize> {
    // The bin at the Nyquist frequency itself is one-sided already and would look like a drop by half.
    let below = c.real.frequencies.partition_point(|&f| f < 0.499 * c.sfreq);
    let range = bins(&c.real.frequencies, (0.5, 50.0));
    range.start..range.end.min(below)
}

fn frequency_axis(c: &Comparison) -> Axis {
    let all = &c.real.frequencies[shown(c)];
    let ticks = [(0.5, "0.5"), (1.0, "1"), (2.0, "2"), (5.0, "5"), (10.0, "10"), (20.0, "20"), (40.0, "40")];
    Axis::log(all[0], all[all.len() - 1], "Frequency (Hz)").with_ticks(&ticks)
}

/// For each sensor type: the spectra (median and 10–90 % of channels), and their ratio to the real one.
fn spectra(c: &Comparison) -> Figure {
    let panels = c.groups().iter().flat_map(|group| pair(c, group)).collect();
    let mut legend = c.legend();
    legend.push(("ceiling".into(), "real against real".into()));
    let caption = "Left: spectra, median over channels (line) and 10–90 % of channels (shaded). Right: power of the \
                   first stretch of each generated recording over power of the real one's, channel by channel, median and \
                   10–90 % of channels; the grey band is the same ratio between two stretches of the real recording, as \
                   long. A generated recording \
                   that stays in the grey band cannot be told from the real one by its power at that frequency.";
    Figure { panels, layout: Layout::Pairs, legend, caption: caption.into() }
}

/// One sensor type's spectra, and their ratio to the real ones.
pub fn pair(c: &Comparison, group: &Group) -> [String; 2] {
    [densities(c, group), ratios(c, group)]
}

fn densities(c: &Comparison, group: &Group) -> String {
    let range = shown(c);
    let scale = group.factor * group.factor;
    let row = |m: &Measured, i: usize| m.spectra[i][range.clone()].iter().map(|p| p * scale).collect();
    let recordings = panels::of_each(c, group, row);
    let lowest = recordings[0][0].iter().copied().filter(|p| *p > 0.0).fold(f64::INFINITY, f64::min);
    let highest = recordings.iter().flat_map(|rows| &rows[2]).copied().fold(0.0, f64::max);
    let unit = if group.unit.contains('/') { format!("({})²/Hz", group.unit) } else { format!("{}²/Hz", group.unit) };
    // A little below the real channels is enough to see that a generated one is too quiet.
    let y = Axis::log(lowest / 5.0, highest * 1.6, &format!("Power ({unit})"));
    let title = format!("{} ({})", group.name, group.channels.len());
    panels::overlay(&title, frequency_axis(c), y, &c.real.frequencies[range.clone()], &recordings)
}

fn ratios(c: &Comparison, group: &Group) -> String {
    let range = shown(c);
    let decibel = |a: &Measured, b: &Measured, i: usize| -> Vec<f64> {
        let pairs = a.spectra[i][range.clone()].iter().zip(&b.spectra[i][range.clone()]);
        pairs.map(|(&a, &b)| 10.0 * decades(a, b)).collect()
    };
    let (ceiling, generated) = panels::of_pairs(c, group, decibel);
    let reach = panels::reach(3.0, &ceiling, &generated).min(20.0);
    let (reference, subject) = c.sides;
    let y = Axis::linear(-reach, reach, 6, &format!("{} over {reference} (dB)", capital(subject)));
    let xs = &c.real.frequencies[range.clone()];
    panels::difference(&format!("Ratio to {reference}"), frequency_axis(c), y, xs, &ceiling, &generated)
}

/// The channels in the order of their distance in the first generated recording.
fn by_distance(log: &Measure) -> Vec<usize> {
    let distances = &log.generated[0].channels;
    let mut order: Vec<usize> = (0..distances.len()).collect();
    order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]));
    order
}

/// Small multiples: the closest, the typical and the farthest channels.
fn examples(c: &Comparison, log: &Measure) -> Figure {
    let order = by_distance(log);
    let last = order.len() - 1;
    let mut picked = vec![("closest", order[0]), ("typical", order[last / 2]), ("farthest", order[last])];
    if last >= 5 {
        let more = [("2nd closest", order[1]), ("typical", order[last / 2 + 1]), ("2nd farthest", order[last - 1])];
        picked.extend(more);
    }
    picked.truncate(order.len());
    let panels = picked.iter().map(|&(what, i)| example(c, log, what, i)).collect();
    let caption = format!(
        "Single channels, chosen by the distance of {2} from the real recording (the number; mean |log₁₀ ratio|, \
         {0}–{1} Hz): the closest, typical ones, and the farthest.",
        BAND.0,
        BAND.1,
        escape(&c.generated[0].label)
    );
    Figure { panels, layout: Layout::Triples, legend: c.legend(), caption }
}

fn example(c: &Comparison, log: &Measure, what: &str, channel: usize) -> String {
    let range = shown(c);
    let xs = &c.real.frequencies[range.clone()];
    let groups = c.groups();
    let group = groups.iter().find(|g| g.channels.contains(&channel)).expect("every channel has a group");
    let scale = group.factor * group.factor;
    let row = |m: &Measured| -> Vec<f64> { m.spectra[channel][range.clone()].iter().map(|p| p * scale).collect() };
    let rows: Vec<Vec<f64>> = std::iter::once(&c.real).chain(&c.generated).map(row).collect();
    let lowest = rows[0].iter().copied().filter(|p| *p > 0.0).fold(f64::INFINITY, f64::min);
    let highest = rows.iter().flatten().copied().fold(0.0, f64::max);
    let distance = significant(log.generated[0].channels[channel]);
    let title = format!("{} · {what} · {distance}", c.channels[channel].name);
    let mut chart = Chart::new(300.0, 200.0, &title, frequency_axis(c), Axis::log(lowest / 3.0, highest * 1.6, ""));
    for (index, row) in rows.iter().enumerate() {
        chart.line(&series(index), xs, row);
    }
    chart.finish()
}

fn methods(c: &Comparison) -> String {
    let n = crate::statistics::welch::segment_len(c.sfreq);
    format!(
        "<b>Spectra.</b> Welch's method: segments of {} s ({n} timesteps), half overlapping, periodic Hann window, the \
         mean of each segment removed, one-sided density; equal to <code>scipy.signal.welch(x, fs={}, nperseg={n})</code>. \
         Distance of two spectra <i>P</i>, <i>Q</i> of a channel: the mean of |log₁₀(<i>P</i>/<i>Q</i>)| over the bins from \
         {} to {} Hz (or the Nyquist frequency, where it is lower), at most six decades a bin; and the Jensen–Shannon \
         divergence in bits (Lin 1991) of the two spectra over the same bins, each divided by its sum, which sees \
         shape alone. Ratios by band are ratios of summed power, in decibel. The 1/f exponent is minus the slope of the least \
         squares line of log₁₀ power on log₁₀ frequency from 2 to 40 Hz without 7 to 14 Hz, where rhythms stand; the frequency \
         farthest above that line is looked for from 5 to 35 Hz.",
        crate::statistics::welch::SEGMENT_SECONDS,
        brief(c.sfreq),
        BAND.0,
        BAND.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_equal_scaled_and_disjoint_spectra() {
        let a = [1.0, 2.0, 4.0];
        assert_eq!((log_distance(&a, &a), jensen_shannon(&a, &a)), (0.0, 0.0));
        let ten_fold = a.map(|p| 10.0 * p);
        assert!((log_distance(&a, &ten_fold) - 1.0).abs() < 1e-15);
        assert!(jensen_shannon(&a, &ten_fold) < 1e-15);
        assert!((jensen_shannon(&[1.0, 0.0], &[0.0, 1.0]) - 1.0).abs() < 1e-15);
        assert_eq!(log_distance(&[1.0], &[0.0]), MAX_DECADES);
        assert_eq!((log_distance(&[0.0], &[0.0]), jensen_shannon(&[0.0], &[0.0])), (0.0, 0.0));
        assert_eq!(jensen_shannon(&[1.0], &[0.0]), 1.0);
    }

    #[test]
    fn slope_and_peak_of_a_known_spectrum() {
        let frequencies: Vec<f64> = (0..=200).map(|i| f64::from(i) * 0.25).collect();
        let power = |f: f64| 3.0 * f.max(0.1).powf(-1.3) * if (f - 10.5).abs() < 0.3 { 4.0 } else { 1.0 };
        let density: Vec<f64> = frequencies.iter().map(|&f| power(f)).collect();
        let (exponent, peak) = slope_and_peak(&frequencies, &density);
        assert!((exponent - 1.3).abs() < 1e-12 && (peak - 10.5).abs() <= 0.25, "{exponent} {peak}");
        let silent = slope_and_peak(&frequencies, &vec![0.0; 201]);
        assert!(silent.0.is_finite() && silent.1.is_finite());
        assert_eq!(slope_and_peak(&[0.0, 1.0], &[1.0, 1.0]), (0.0, 0.0));
    }

    #[test]
    fn a_band_includes_its_ends() {
        let frequencies: Vec<f64> = (0..=200).map(|i| i as f64 * 0.25).collect();
        assert_eq!(bins(&frequencies, (1.0, 45.0)), 4..181);
        assert_eq!(bins(&frequencies, (60.0, 70.0)), 201..201);
    }
}
