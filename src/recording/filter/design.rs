//! Butterworth filters as second-order sections, by the bilinear transform with pre-warped band edges.

use crate::ensure;
use crate::error::{Error, Kind, Result};
use nalgebra::Complex;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// The pass band of a zero-phase Butterworth filter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Lower edge in Hz; 0 for none.
    pub high_pass: f64,
    /// Upper edge in Hz; `None` for none.
    pub low_pass: Option<f64>,
    /// Order of the filter, as given to `scipy.signal.butter`; running it forward and backward doubles it, and the
    /// edges are at -6 dB.
    pub order: usize,
}

impl Default for Band {
    /// 0.5 to 45 Hz, order 5.
    fn default() -> Self {
        Self { high_pass: 0.5, low_pass: Some(45.0), order: 5 }
    }
}

impl Band {
    /// What the authors used: 0.5 to 49.9 Hz, order 5 (the paper, section 1.1).
    pub const AUTHORS: Self = Self { high_pass: 0.5, low_pass: Some(49.9), order: 5 };

    /// Checks the edges against the sampling rate.
    pub fn check(&self, sfreq: f64) -> Result<()> {
        let nyquist = sfreq / 2.0;
        let usage = |what: String, hint: &str| Err(Error::new(Kind::Usage, what).hint(hint));
        if !(1..=20).contains(&self.order) {
            return usage(format!("a filter of order {}", self.order), "Orders go from 1 to 20");
        }
        let (high, low) = (self.high_pass, self.low_pass);
        if !(high.is_finite() && high >= 0.0) || low.is_some_and(|low| !(low.is_finite() && low > 0.0)) {
            return usage(format!("a pass band from {high} to {low:?} Hz"), "Give the edges in Hz");
        }
        if let Some(edge) = [Some(high), low].into_iter().flatten().find(|&edge| edge >= nyquist) {
            let what = format!("a filter edge at {edge} Hz, where {sfreq} Hz sampling ends at {nyquist} Hz");
            return usage(what, "Choose edges below half the sampling rate, or leave the low-pass out");
        }
        let empty = low.is_some_and(|low| low <= high);
        ensure!(!empty, Kind::Usage, "the pass band from {high} to {} Hz is empty", low.unwrap_or(0.0));
        Ok(())
    }

    /// Whether it filters at all.
    pub fn is_all_pass(&self) -> bool {
        self.high_pass == 0.0 && self.low_pass.is_none()
    }

    /// The filter's sections; none for an all-pass. The transfer function is that of
    /// `scipy.signal.butter(order, edges, output="sos")`; sections pair low poles with the zeros at 0 Hz and high
    /// poles with those at the Nyquist frequency, so that each has a gain near 1 in the pass band.
    pub fn sections(&self, sfreq: f64) -> Result<Vec<Section>> {
        self.check(sfreq)?;
        let warp = |edge: f64| (PI * edge / sfreq).tan();
        let low = self.low_pass.map(warp);
        let high = Some(self.high_pass).filter(|&edge| edge > 0.0).map(warp);
        // One pole of each conjugate pair of the analogue prototype, and the real one of odd orders.
        let angles = (0..self.order / 2).map(|k| PI * (self.order - 1 - 2 * k) as f64 / (2 * self.order) as f64);
        let pairs: Vec<_> = angles.map(|angle| -Complex::from_polar(1.0, angle)).collect();
        let odd = self.order % 2 == 1;
        let mut sections = Vec::new();
        match (high, low) {
            (None, None) => {}
            (None, Some(low)) => {
                sections.extend(pairs.iter().map(|&p| Section::pair(p * low, [1.0, 2.0, 1.0])));
                if odd {
                    sections.push(Section::single(-low, [1.0, 1.0]));
                }
                sections.iter_mut().for_each(|section| section.unit_gain_at(Complex::new(1.0, 0.0)));
            }
            (Some(high), None) => {
                sections.extend(pairs.iter().map(|&p| Section::pair(p.inv() * high, [1.0, -2.0, 1.0])));
                if odd {
                    sections.push(Section::single(-high, [1.0, -1.0]));
                }
                sections.iter_mut().for_each(|section| section.unit_gain_at(Complex::new(-1.0, 0.0)));
            }
            (Some(high), Some(low)) => {
                let centre = (high * low).sqrt();
                let pairs: Vec<_> = pairs.iter().map(|&p| band_poles(p, low - high, centre)).collect();
                sections.extend(pairs.iter().map(|&(slow, _)| Section::pair(slow, [1.0, -2.0, 1.0])));
                if odd {
                    let (slow, fast) = band_poles(Complex::new(-1.0, 0.0), low - high, centre);
                    sections.push(Section::two(slow, fast, [1.0, 0.0, -1.0]));
                }
                sections.extend(pairs.iter().map(|&(_, fast)| Section::pair(fast, [1.0, 2.0, 1.0])));
                let at = Complex::from_polar(1.0, 2.0 * centre.atan());
                sections.iter_mut().for_each(|section| section.unit_gain_at(at));
            }
        }
        Ok(sections)
    }
}

/// The two band-pass poles that a low-pass prototype's pole `p` becomes: the roots of `s² - p·width·s + centre²`.
fn band_poles(p: Complex<f64>, width: f64, centre: f64) -> (Complex<f64>, Complex<f64>) {
    let half = p * width / 2.0;
    let root = (half * half - centre * centre).sqrt();
    let (plus, minus) = (half + root, half - root);
    let fast = if plus.norm() > minus.norm() { plus } else { minus };
    // By the product of the roots: the difference would cancel.
    (Complex::from(centre * centre) / fast, fast)
}

/// `y[t] = b0 x[t] + b1 x[t-1] + b2 x[t-2] - a1 y[t-1] - a2 y[t-2]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Section {
    /// b0, b1, b2.
    pub b: [f64; 3],
    /// a1, a2 (a0 is 1).
    pub a: [f64; 2],
}

impl Section {
    /// From an analogue pole and its conjugate, in units of twice the sampling rate.
    fn pair(pole: Complex<f64>, zeros: [f64; 3]) -> Self {
        let z = bilinear(pole);
        Self { b: zeros, a: [-2.0 * z.re, z.norm_sqr()] }
    }

    /// From two analogue poles that are both real, or conjugate.
    fn two(first: Complex<f64>, second: Complex<f64>, zeros: [f64; 3]) -> Self {
        let (first, second) = (bilinear(first), bilinear(second));
        Self { b: zeros, a: [-(first + second).re, (first * second).re] }
    }

    /// From one real analogue pole.
    fn single(pole: f64, zeros: [f64; 2]) -> Self {
        let z = bilinear(Complex::from(pole)).re;
        Self { b: [zeros[0], zeros[1], 0.0], a: [-z, 0.0] }
    }

    /// Scales the section to gain 1 at the point `z` of the unit circle.
    fn unit_gain_at(&mut self, z: Complex<f64>) {
        let numerator = (z * self.b[0] + self.b[1]) * z + self.b[2];
        let denominator = (z + self.a[0]) * z + self.a[1];
        let gain = numerator.norm() / denominator.norm();
        self.b.iter_mut().for_each(|b| *b /= gain);
    }

    /// What a constant input of 1 gives in the end.
    fn gain_at_dc(&self) -> f64 {
        self.b.iter().sum::<f64>() / (1.0 + self.a[0] + self.a[1])
    }

    /// The modulus of its slower pole.
    fn pole_radius(&self) -> f64 {
        let [a1, a2] = self.a;
        let root = Complex::from(a1 * a1 / 4.0 - a2).sqrt();
        (root - a1 / 2.0).norm().max((-root - a1 / 2.0).norm())
    }
}

fn bilinear(s: Complex<f64>) -> Complex<f64> {
    (Complex::from(1.0) + s) / (Complex::from(1.0) - s)
}

/// The state of each section (transposed direct form II) once a constant input of 1 has been there for ever.
pub fn steady_states(sections: &[Section]) -> Vec<[f64; 2]> {
    let mut input = 1.0;
    let state = |section: &Section| {
        let output = input * section.gain_at_dc();
        let second = section.b[2] * input - section.a[1] * output;
        let first = section.b[1] * input - section.a[0] * output + second;
        input = output;
        [first, second]
    };
    sections.iter().map(state).collect()
}

/// How long a filter remembers, in timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The last timestep at which the impulse response exceeds a thousandth of its maximum: how far signals are
    /// extended at their ends. MNE-Python pads by the same.
    pub ringing: usize,
    /// The lag from which on the impulse response's absolute values sum to at most 2⁻²⁶: what lies further away than
    /// this changes the output by less than float32 can show.
    pub reach: usize,
}

/// Measures the impulse response. Beyond 2⁻⁶⁰ of its slowest pole's decay nothing is left to measure.
pub fn memory(sections: &[Section]) -> Result<Memory> {
    const LONGEST: f64 = (1 << 24) as f64;
    let radius = sections.iter().map(Section::pole_radius).fold(0.0, f64::max);
    let n = 1000.0 + (-60.0 * 2f64.ln() / radius.ln()).ceil();
    if radius >= 1.0 || n > LONGEST {
        let what = "the high-pass is too low for this sampling rate: the filter never settles";
        return Err(Error::new(Kind::Usage, what).hint("Choose a higher lower edge (--band), or 0 for none"));
    }
    let n = n as usize;
    let mut states = vec![[0.0; 2]; sections.len()];
    let response: Vec<f64> = (0..n)
        .map(|t| {
            let mut x = if t == 0 { 1.0 } else { 0.0 };
            for (Section { b, a }, state) in sections.iter().zip(&mut states) {
                let y = b[0] * x + state[0];
                *state = [b[1] * x - a[0] * y + state[1], b[2] * x - a[1] * y];
                x = y;
            }
            x.abs()
        })
        .collect();
    let peak = response.iter().copied().fold(0.0, f64::max);
    let ringing = response.iter().rposition(|&h| h > 0.001 * peak).unwrap_or(0);
    let mut tail = 0.0;
    let beyond = response.iter().rposition(|&h| {
        tail += h;
        tail > 2f64.powi(-26)
    });
    Ok(Memory { ringing, reach: beyond.map_or(0, |last| last + 1) })
}
