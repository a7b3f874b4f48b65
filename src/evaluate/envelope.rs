//! The envelope of a rhythm, channel by channel: how it waxes and wanes.
//!
//! A spectrum says how strong a rhythm is on average; its envelope says whether it comes in bursts. A Gaussian process has
//! an envelope too, but its coefficient of variation is √(4/π − 1) = 0.523, and its autocorrelation follows from the
//! spectrum. Both are of single channels, so a model of single channels can have them right.

use super::autocorrelation::{CorrelationSum, Correlator, distance};
use super::chart::Axis;
use super::measure::Measured;
use super::panels;
use super::section::{Between, Comparison, Distance, Figure, Layout, Section};
use std::f64::consts::TAU;

/// Rhythms: key, key of the quantity, name, names in tables, centre and width (standard deviation of the filter), Hz.
pub const BANDS: [Band; 2] = [
    Band {
        key: "alpha",
        variation: "variation_alpha",
        name: "alpha",
        measure: "Envelope, alpha: mean |difference of autocorrelation|",
        quantity: "Envelope, alpha: coefficient of variation",
        centre: 10.0,
        width: 2.0,
    },
    Band {
        key: "beta",
        variation: "variation_beta",
        name: "beta",
        measure: "Envelope, beta: mean |difference of autocorrelation|",
        quantity: "Envelope, beta: coefficient of variation",
        centre: 20.0,
        width: 4.0,
    },
];
/// Values of the envelope in a second: it changes slowly.
const ENVELOPE_SFREQ: f64 = 50.0;

/// A rhythm.
pub struct Band {
    key: &'static str,
    variation: &'static str,
    name: &'static str,
    measure: &'static str,
    quantity: &'static str,
    centre: f64,
    width: f64,
}

/// The envelope of one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Standard deviation over mean; 0 for one that is always 0.
    pub variation: f64,
    /// Autocorrelation from lag 0 on, a value every [`Enveloper::hop`] timesteps.
    pub autocorrelation: Vec<f64>,
}

/// What the channels share: the filter, a complex Gaussian window (Gabor 1946), and the correlator.
pub struct Enveloper {
    /// Real and imaginary part of the filter.
    filter: Vec<(f64, f64)>,
    /// Timesteps from one value of the envelope to the next.
    pub hop: usize,
    correlator: Correlator,
}

/// What one channel has gathered so far.
#[derive(Clone, Default)]
pub struct EnvelopeSum {
    pending: Vec<f64>,
    correlation: CorrelationSum,
    sum: f64,
    squares: f64,
    n: f64,
}

impl Enveloper {
    /// One for each band that lies below the Nyquist frequency.
    pub fn all(sfreq: f64) -> Vec<Self> {
        let fits = |band: &&Band| band.centre + 2.0 * band.width <= sfreq / 2.0;
        BANDS.iter().filter(fits).map(|band| Self::new(band, sfreq)).collect()
    }

    fn new(band: &Band, sfreq: f64) -> Self {
        let sd = sfreq / (TAU * band.width);
        let reach = (3.0 * sd).ceil() as i64;
        let tap = |t: i64| {
            let (window, phase) = ((-0.5 * (t as f64 / sd).powi(2)).exp(), TAU * band.centre * t as f64 / sfreq);
            (window * phase.cos(), window * phase.sin())
        };
        let hop = (sfreq / ENVELOPE_SFREQ).round().max(1.0) as usize;
        Self { filter: (-reach..=reach).map(tap).collect(), hop, correlator: Correlator::new(sfreq / hop as f64) }
    }

    /// Takes in the next samples of a channel.
    pub fn push(&self, sum: &mut EnvelopeSum, samples: &[f64]) {
        sum.pending.extend_from_slice(samples);
        let n = self.filter.len();
        let mut envelope = Vec::with_capacity(samples.len() / self.hop + 1);
        let mut start = 0;
        while start + n <= sum.pending.len() {
            let product = |(re, im): (f64, f64), (x, w): (&f64, &(f64, f64))| (re + x * w.0, im + x * w.1);
            let (re, im) = sum.pending[start..start + n].iter().zip(&self.filter).fold((0.0, 0.0), product);
            envelope.push(re.hypot(im));
            start += self.hop;
        }
        sum.pending.drain(..start.min(sum.pending.len()));
        sum.sum += envelope.iter().sum::<f64>();
        sum.squares += envelope.iter().map(|x| x * x).sum::<f64>();
        sum.n += envelope.len() as f64;
        self.correlator.push(&mut sum.correlation, &envelope);
    }

    /// The recording has a gap here.
    pub fn gap(&self, sum: &mut EnvelopeSum) {
        sum.pending.clear();
        self.correlator.gap(&mut sum.correlation);
    }

    /// The envelope of all that was taken in.
    pub fn finish(&self, sum: EnvelopeSum) -> Envelope {
        let n = sum.n.max(1.0);
        let mean = sum.sum / n;
        let variance = (sum.squares / n - mean * mean).max(0.0);
        let variation = if mean > 0.0 { variance.sqrt() / mean } else { 0.0 };
        Envelope { variation, autocorrelation: self.correlator.finish(sum.correlation) }
    }
}

/// The distances of the envelopes of the first `n_band` bands.
pub fn distances(n_band: usize) -> Vec<Distance> {
    let of = |(index, band): (usize, &Band)| {
        let between: Between = Box::new(move |a, b, i| {
            distance(&a.envelopes[index][i].autocorrelation, &b.envelopes[index][i].autocorrelation)
        });
        Distance { key: band.key, name: band.measure, unit: "", between }
    };
    BANDS.iter().enumerate().take(n_band).map(of).collect()
}

/// The section on envelopes.
pub fn section(c: &Comparison) -> Section {
    let n = c.real.envelopes.len();
    let mut section = Section { id: "envelope", title: "Bursts, channel by channel".into(), ..Section::default() };
    if n == 0 {
        section.text = vec!["The sampling rate is too low for rhythms of 10 Hz and above.".into()];
        return section;
    }
    section.text = vec![
        "Rhythms come in bursts. The envelope of a rhythm tells bursts from a steady hum with the same spectrum, in each \
         channel by itself: here a model of single channels can be as good as the real recording. A Gaussian process has \
         an envelope that varies by 0.52 of its mean; bursts make it vary more, and last longer."
            .into(),
    ];
    section.measures = c.measures(distances(n));
    for (index, band) in BANDS.iter().enumerate().take(n) {
        section.quantities.push(c.quantity(band.variation, band.quantity, "", |m, i| m.envelopes[index][i].variation));
    }
    section.figures = vec![figure(c, n)];
    section.methods = vec![METHODS.into()];
    section
}

const METHODS: &str = "<b>Envelopes.</b> The modulus of the signal filtered with a complex Gaussian window (Gabor 1946) around \
    10 Hz (standard deviation 2 Hz, alpha) and 20 Hz (4 Hz, beta), 50 values a second. Their autocorrelation is that of the \
    section on autocorrelation, to 2.5 s; coefficient of variation: standard deviation over mean, √(4/π − 1) = 0.523 for a \
    Gaussian process.";

/// For each band and sensor type: the envelope's autocorrelation, and its difference from the real one.
fn figure(c: &Comparison, n: usize) -> Figure {
    let mut panels = Vec::new();
    for (index, band) in BANDS.iter().enumerate().take(n) {
        let length = c.real.envelopes[index][0].autocorrelation.len();
        let hop = (c.sfreq / ENVELOPE_SFREQ).round().max(1.0);
        let lags: Vec<f64> = (0..length).map(|lag| lag as f64 * hop / c.sfreq).collect();
        let x = || Axis::linear(0.0, lags[length - 1], 5, "Lag (s)");
        for group in c.groups() {
            let row = |m: &Measured, i: usize| m.envelopes[index][i].autocorrelation.clone();
            let rows = panels::of_each(c, &group, row);
            let title = format!("Envelope, {}: {} ({})", band.name, group.name.to_lowercase(), group.channels.len());
            panels.push(panels::overlay(&title, x(), Axis::linear(-0.2, 1.0, 6, "Autocorrelation"), &lags, &rows));
            let (ceiling, generated) =
                panels::of_pairs(c, &group, |a, b, i| row(a, i).iter().zip(row(b, i)).map(|(a, b)| b - a).collect());
            let reach = panels::reach(0.02, &ceiling, &generated);
            let y = Axis::linear(-reach, reach, 6, "Generated − real");
            panels.push(panels::difference("Difference from real", x(), y, &lags, &ceiling, &generated));
        }
    }
    let mut legend = c.legend();
    legend.push(("ceiling".into(), "real against real".into()));
    let caption = "Left: autocorrelation of the envelope, median over channels (line) and 10–90 % of channels (shaded): how long \
                   a burst lasts. Right: generated minus real, channel by channel; the grey band is the same difference \
                   between two stretches of the real recording.";
    Figure { panels, layout: Layout::Pairs, legend, caption: caption.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(x: &[f64], block: usize) -> Envelope {
        let enveloper = &Enveloper::all(100.0)[0];
        let mut sum = EnvelopeSum::default();
        x.chunks(block).for_each(|samples| enveloper.push(&mut sum, samples));
        enveloper.gap(&mut sum);
        enveloper.finish(sum)
    }

    #[test]
    fn a_hum_is_steady_bursts_are_not_and_blocks_do_not_matter() {
        let hum: Vec<f64> = (0..3000).map(|t| (TAU * 0.1 * t as f64).sin()).collect();
        let bursts: Vec<f64> = hum.iter().enumerate().map(|(t, x)| if t % 400 < 100 { *x } else { 0.0 }).collect();
        assert!(envelope(&hum, 3000).variation < 0.01);
        // On for a quarter of the time: √3 of the mean, less for the filter's rounding of the edges.
        let variation = envelope(&bursts, 3000).variation;
        assert!((1.3..1.75).contains(&variation), "{variation}");
        let period = (4.0 * ENVELOPE_SFREQ) as usize;
        assert!(envelope(&bursts, 3000).autocorrelation.len() < period, "2.5 s do not show the period of 4 s");
        for block in [1, 7, 1000] {
            let (one, other) = (envelope(&bursts, block), envelope(&bursts, 3000));
            assert!((one.variation - other.variation).abs() < 1e-12);
            for (a, b) in one.autocorrelation.iter().zip(&other.autocorrelation) {
                assert!((a - b).abs() < 1e-12, "{block}: {a} {b}");
            }
        }
        assert_eq!(envelope(&[0.0; 500], 500).variation, 0.0);
    }

    #[test]
    fn rates_too_low_for_a_band_leave_it_out() {
        assert_eq!([20.0, 30.0, 56.0, 1000.0].map(|sfreq| Enveloper::all(sfreq).len()), [0, 1, 2, 2]);
    }
}
