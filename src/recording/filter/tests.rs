//! The design against the Butterworth formula, the blocks against one pass over everything.

use super::design::{Band, Memory, Section, memory};
use super::zero_phase::zero_phase;
use crate::error::Kind;
use crate::recording::Recording;
use crate::recording::testing::{in_memory, noise};
use nalgebra::Complex;
use std::f64::consts::PI;

fn gain(sections: &[Section], frequency: f64, sfreq: f64) -> f64 {
    let z = Complex::from_polar(1.0, 2.0 * PI * frequency / sfreq);
    let section = |s: &Section| ((z * s.b[0] + s.b[1]) * z + s.b[2]) / ((z + s.a[0]) * z + s.a[1]);
    sections.iter().map(section).product::<Complex<f64>>().norm()
}

/// |H|² = 1 / (1 + Ω^(2·order)), where Ω is the pre-warped frequency mapped to the low-pass prototype.
#[test]
fn gains_are_butterworth() {
    let warp = |f: f64, sfreq: f64| (PI * f / sfreq).tan();
    for sfreq in [100.0, 600.615, 5000.0] {
        for order in 1..=8 {
            for (high_pass, low_pass) in [(0.0, Some(45.0)), (0.5, Some(45.0)), (8.0, Some(12.0)), (0.1, None)] {
                let band = Band { high_pass, low_pass, order };
                let sections = band.sections(sfreq).unwrap();
                for frequency in [0.05, 0.1, 0.5, 3.0, 8.0, 10.0, 30.0, 45.0, 49.0] {
                    let w = warp(frequency, sfreq);
                    let omega = match (high_pass, low_pass) {
                        (0.0, Some(low)) => w / warp(low, sfreq),
                        (high, None) => warp(high, sfreq) / w,
                        (high, Some(low)) => {
                            let (high, low) = (warp(high, sfreq), warp(low, sfreq));
                            (w * w - high * low) / (w * (low - high))
                        }
                    };
                    let wanted = (1.0 + omega.powi(2 * order as i32)).sqrt().recip();
                    let got = gain(&sections, frequency, sfreq);
                    // 2⁻⁵² of the coefficients, magnified by up to 1/(distance of a slow pole from 1)² ≈ 10⁸.
                    assert!(
                        (got - wanted).abs() < 1e-6 * wanted + 1e-12,
                        "{band:?} {sfreq}: {got} at {frequency}, not {wanted}"
                    );
                }
            }
        }
    }
}

#[test]
fn edges_that_make_no_sense_are_refused() {
    let refused = |high_pass: f64, low_pass: Option<f64>, order: usize| {
        let error = Band { high_pass, low_pass, order }.sections(100.0).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        error.to_string()
    };
    assert!(refused(0.5, Some(50.0), 5).contains("50 Hz"));
    refused(60.0, None, 5);
    refused(-1.0, None, 5);
    refused(f64::NAN, Some(40.0), 5);
    refused(10.0, Some(10.0), 5);
    refused(0.0, Some(0.0), 5);
    refused(0.5, Some(40.0), 0);
    let slow = Band { high_pass: 1e-9, low_pass: None, order: 5 }.sections(1000.0).unwrap();
    assert_eq!(memory(&slow).unwrap_err().kind(), Kind::Usage);
}

fn read_all(recording: &mut Recording) -> Vec<f64> {
    recording.read(0, recording.info.n_timestep).unwrap().data
}

/// Blocks of exactly the filter's reach give what one pass over everything gives, within the bound of the module:
/// 2⁻²⁶ times the largest distance between two values of the forward pass.
#[test]
fn blocks_change_nothing_that_float32_shows() {
    let n = 40_000;
    let rows: Vec<Vec<f64>> = (0..11).map(|channel| noise(n, channel)).collect();
    // An offset a thousand times the signal, and steps: what a high-pass remembers longest.
    let rows: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            row.iter().enumerate().map(|(t, x)| x + 500.0 + if t % 17_000 > 9_000 { 20.0 } else { 0.0 }).collect()
        })
        .collect();
    let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
    for band in
        [Band::default(), Band { high_pass: 1.0, low_pass: None, order: 4 }, Band { high_pass: 0.0, ..Band::default() }]
    {
        let sections = band.sections(250.0).unwrap();
        let memory = memory(&sections).unwrap();
        let make = |n_block| zero_phase(in_memory(&rows, 250.0), sections.clone(), memory, n_block).unwrap();
        let (whole, blocked) = (read_all(&mut make(usize::MAX / 2)), read_all(&mut make(memory.reach)));
        let largest = whole.iter().fold(0.0, |a: f64, x| a.max(x.abs()));
        let worst = whole.iter().zip(&blocked).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let bound = 2f64.powi(-26) * 2.0 * 45.0;
        assert!(worst <= bound, "{band:?}: blocks of {} differ by {worst:e} of {largest:e}", memory.reach);
    }
}

#[test]
fn the_order_of_reading_changes_nothing_at_all() {
    let x = noise(60_000, 5);
    let sections = Band::default().sections(250.0).unwrap();
    let memory = memory(&sections).unwrap();
    let make = || zero_phase(in_memory(&[&x, &x[..]], 250.0), sections.clone(), memory, 8192).unwrap();
    let whole = make().read(0, 60_000).unwrap();
    let mut jumping = make();
    for (start, n) in [(50_000, 10_000), (0, 1), (8191, 2), (30_000, 12_345), (0, 60_000), (59_999, 1)] {
        assert_eq!(jumping.read(start, n).unwrap().channel(1), &whole.channel(1)[start..start + n], "{n} at {start}");
    }
}

/// Every number of channels around the width of the kernel, alone or among others, gives the same bits.
#[test]
fn channels_do_not_touch_each_other() {
    let rows: Vec<Vec<f64>> = (0..17).map(|channel| noise(5000, channel)).collect();
    let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
    let filter = |rows: &[&[f64]]| read_all(&mut super::filter(in_memory(rows, 250.0), &Band::default()).unwrap());
    let all = filter(&rows);
    for n_channel in [1, 7, 8, 9, 16] {
        assert_eq!(filter(&rows[..n_channel]), all[..n_channel * 5000]);
    }
    for alone in 0..17 {
        assert_eq!(filter(&rows[alone..=alone]), all[alone * 5000..][..5000], "channel {alone}");
    }
}

#[test]
fn a_recording_shorter_than_the_ringing_is_refused() {
    let sections = Band::default().sections(250.0).unwrap();
    let Memory { ringing, .. } = memory(&sections).unwrap();
    let x = noise(ringing + 1, 1);
    assert!(super::filter(in_memory(&[&x], 250.0), &Band::default()).is_ok());
    let error = super::filter(in_memory(&[&x[1..]], 250.0), &Band::default()).err().unwrap();
    assert_eq!(error.kind(), Kind::TooShort);
}
