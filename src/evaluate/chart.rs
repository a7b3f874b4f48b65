//! Charts: axes with round ticks, lines, bands, points. Everything a statistic draws is made of these.

use super::svg::Svg;

/// An axis: what it spans, and how.
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
    label: String,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// A linear axis with about `n` round ticks.
    pub fn linear(low: f64, high: f64, n: usize, label: &str) -> Self {
        let (low, high) = sensible(low, high);
        let step = round_step((high - low) / n.max(1) as f64);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let first = (low / step - 1e-9).ceil() as i64;
        let last = (high / step + 1e-9).floor() as i64;
        let ticks = (first..=last).map(|i| (i as f64 * step, minus(&format!("{:.decimals$}", i as f64 * step))));
        Self { low, high, log: false, label: label.into(), ticks: ticks.collect() }
    }

    /// A linear axis whose ends are moved outwards to ticks.
    pub fn linear_rounded(low: f64, high: f64, n: usize, label: &str) -> Self {
        let (low, high) = sensible(low, high);
        let step = round_step((high - low) / n.max(1) as f64);
        Self::linear((low / step).floor() * step, (high / step).ceil() * step, n, label)
    }

    /// A logarithmic axis. Ticks at powers of ten, and at 2 and 5 times them where fewer than two and a half decades are spanned.
    pub fn log(low: f64, high: f64, label: &str) -> Self {
        let low = if low > 0.0 && low.is_finite() { low } else { 1e-30 };
        let high = if high > low && high.is_finite() { high } else { low * 10.0 };
        let decades = (high / low).log10();
        let factors: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every = (decades / 6.0).ceil().max(1.0) as i32;
        let mut ticks = Vec::new();
        for exponent in low.log10().floor() as i32..=high.log10().ceil() as i32 {
            for factor in factors.iter().filter(|_| exponent.rem_euclid(every) == 0) {
                let value = factor * 10f64.powi(exponent);
                if value >= low * (1.0 - 1e-9) && value <= high * (1.0 + 1e-9) {
                    ticks.push((value, power_label(*factor, exponent)));
                }
            }
        }
        Self { low, high, log: true, label: label.into(), ticks }
    }

    /// Replaces the ticks by these values.
    pub fn with_ticks(mut self, ticks: &[(f64, &str)]) -> Self {
        let inside = ticks.iter().filter(|(value, _)| (self.low..=self.high).contains(value));
        self.ticks = inside.map(|(value, text)| (*value, text.to_string())).collect();
        self
    }

    /// Where a value lies: 0 at the low end, 1 at the high end. NaN if it has no place.
    fn place(&self, value: f64) -> f64 {
        match self.log {
            false => (value - self.low) / (self.high - self.low),
            true if value > 0.0 => (value / self.low).ln() / (self.high / self.low).ln(),
            true => f64::NAN,
        }
    }
}

/// A range that an axis can be made of, whatever is asked for.
fn sensible(low: f64, high: f64) -> (f64, f64) {
    match (low.is_finite() && high.is_finite(), high > low) {
        (true, true) => (low, high),
        (true, false) => (low - 0.5, low + 0.5),
        (false, _) => (0.0, 1.0),
    }
}

/// The next of 1, 2, 5 times a power of ten that is at least `raw`.
fn round_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= raw * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

fn power_label(factor: f64, exponent: i32) -> String {
    if (-2..=3).contains(&exponent) {
        let decimals = (-exponent).max(0) as usize;
        return format!("{:.decimals$}", factor * 10f64.powi(exponent));
    }
    let raised: String = exponent.to_string().chars().map(superscript).collect();
    if factor == 1.0 { format!("10{raised}") } else { format!("{factor}·10{raised}") }
}

fn superscript(letter: char) -> char {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    letter.to_digit(10).map_or('⁻', |digit| DIGITS[digit as usize])
}

/// A number's text with a true minus sign.
pub fn minus(text: &str) -> String {
    text.replace('-', "−")
}

/// A panel with two axes.
pub struct Chart {
    outer: Svg,
    inner: Svg,
    x: Axis,
    y: Axis,
    origin: (f64, f64),
    size: (f64, f64),
}

impl Chart {
    /// A panel of this size in pixels, with a short title above the frame.
    pub fn new(width: f64, height: f64, title: &str, x: Axis, y: Axis) -> Self {
        let left = if y.ticks.is_empty() { 14.0 } else { 40.0 } + if y.label.is_empty() { 0.0 } else { 18.0 };
        Self::with_left(left, width, height, title, x, y)
    }

    /// A panel whose frame begins `left` pixels from its left edge: for ticks that are names.
    pub fn with_left(left: f64, width: f64, height: f64, title: &str, x: Axis, y: Axis) -> Self {
        let bottom = if x.label.is_empty() { 24.0 } else { 42.0 };
        let origin = (left, 28.0);
        let size = (width - left - 14.0, height - origin.1 - bottom);
        let what = [title, &y.label, &x.label].iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>().join(", ");
        let mut outer = Svg::new(width, height, &what);
        outer.text("title start", (left, 17.0), title);
        let (right, floor) = (origin.0 + size.0, origin.1 + size.1);
        for (value, text) in &x.ticks {
            let at = origin.0 + x.place(*value) * size.0;
            outer.line("grid", (at, origin.1), (at, floor));
            outer.text("tick middle", (at, floor + 17.0), text);
        }
        for (value, text) in &y.ticks {
            let at = floor - y.place(*value) * size.1;
            outer.line("grid", (origin.0, at), (right, at));
            outer.text("tick end", (origin.0 - 7.0, at + 4.0), text);
        }
        outer.line("axis", (origin.0, floor), (right, floor));
        if !x.label.is_empty() {
            outer.text("label middle", (origin.0 + size.0 / 2.0, height - 6.0), &x.label);
        }
        if !y.label.is_empty() {
            outer.text_upwards("label middle", (13.0, origin.1 + size.1 / 2.0), &y.label);
        }
        Self { outer, inner: Svg::new(size.0, size.1, ""), x, y, origin, size }
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.x.place(x) * self.size.0, (1.0 - self.y.place(y)) * self.size.1)
    }

    /// A line through (x, y).
    pub fn line(&mut self, class: &str, xs: &[f64], ys: &[f64]) {
        let points: Vec<_> = xs.iter().zip(ys).map(|(&x, &y)| self.at(x, y)).collect();
        self.inner.polyline(&format!("line {class}"), points);
    }

    /// The area between two lines.
    pub fn band(&mut self, class: &str, xs: &[f64], lows: &[f64], highs: &[f64]) {
        // A low end with no place on a logarithmic axis (0) is drawn at the bottom.
        let floor = |y: f64| if self.y.log && y <= 0.0 { self.y.low } else { y };
        let upper = xs.iter().zip(highs).map(|(&x, &y)| self.at(x, floor(y)));
        let lower = xs.iter().zip(lows).rev().map(|(&x, &y)| self.at(x, floor(y)));
        let points: Vec<_> = upper.chain(lower).collect();
        self.inner.polygon(&format!("band {class}"), points);
    }

    /// A point with a tooltip.
    pub fn point(&mut self, class: &str, x: f64, y: f64, tooltip: &str) {
        let at = self.at(x, y);
        if at.0.is_finite() && at.1.is_finite() {
            // On the outer drawing, so that a point at the edge is whole; its place is kept inside the frame.
            let place = (self.origin.0 + at.0.clamp(0.0, self.size.0), self.origin.1 + at.1.clamp(0.0, self.size.1));
            self.outer.disc(&format!("point {class}"), place, 5.0, None, tooltip);
        }
    }

    /// A filled rectangle.
    pub fn block(&mut self, class: &str, xs: (f64, f64), ys: (f64, f64)) {
        let ((left, bottom), (right, top)) = (self.at(xs.0, ys.0), self.at(xs.1, ys.1));
        self.inner.rect(&format!("block {class}"), (left, top), (right - left, bottom - top), None);
    }

    /// A vertical line through the whole frame.
    pub fn vertical(&mut self, class: &str, x: f64) {
        let at = self.at(x, self.y.low).0;
        self.inner.line(class, (at, 0.0), (at, self.size.1));
    }

    /// A horizontal line through the whole frame.
    pub fn horizontal(&mut self, class: &str, y: f64) {
        let at = self.at(self.x.low, y).1;
        self.inner.line(class, (0.0, at), (self.size.0, at));
    }

    /// A note inside the frame, at a place of the axes.
    pub fn note(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let at = self.at(x, y);
        self.inner.text(class, at, text);
    }

    /// The finished element.
    pub fn finish(mut self) -> String {
        self.outer.inset(self.origin, self.inner);
        self.outer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(&Axis::linear(-1.0, 1.0, 4, "")), ["−1.0", "−0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(labels(&Axis::linear(0.0, 2.5, 5, "")), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
        assert_eq!(labels(&Axis::log(1.0, 45.0, "")), ["1", "2", "5", "10", "20"]);
        assert_eq!(labels(&Axis::log(1e-5, 1e-2, "")), ["10⁻⁵", "10⁻⁴", "10⁻³", "0.01"]);
    }

    #[test]
    fn senseless_ranges_still_make_an_axis() {
        for axis in [Axis::linear(1.0, 1.0, 4, ""), Axis::linear(f64::NAN, 0.0, 4, ""), Axis::log(0.0, 0.0, "")] {
            assert!(axis.high > axis.low && (1..20).contains(&axis.ticks.len()));
        }
        let mut chart = Chart::new(100.0, 80.0, "t", Axis::linear(0.0, 1.0, 2, "x"), Axis::log(1.0, 10.0, "y"));
        chart.line("s0", &[0.0, 1.0], &[0.0, f64::NAN]);
        chart.band("s0", &[0.0, 1.0], &[0.0, 1.0], &[2.0, 3.0]);
        assert!(!chart.finish().contains("NaN"));
    }
}
