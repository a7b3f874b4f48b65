//! Maps of the sensors, seen from above: azimuthal equidistant projection about the centre of the sensors' sphere.

use super::section::{Comparison, Figure, Layout, Measure, Spread};
use super::svg::{Svg, escape};
use super::text::significant;
use crate::recording::Channel;
use nalgebra::{DMatrix, DVector};

/// Viridis at equal steps: perceptually even, readable to all kinds of colour vision, on light and on dark.
const COLOURS: [[f64; 3]; 9] = [
    [68.0, 1.0, 84.0],
    [71.0, 44.0, 122.0],
    [59.0, 81.0, 139.0],
    [44.0, 113.0, 142.0],
    [33.0, 144.0, 141.0],
    [39.0, 173.0, 129.0],
    [92.0, 200.0, 99.0],
    [170.0, 220.0, 50.0],
    [253.0, 231.0, 37.0],
];

/// A colour for `share` of the way from low (0) to high (1).
pub fn colour(share: f64) -> String {
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    let at = share * (COLOURS.len() - 1) as f64;
    let index = (at as usize).min(COLOURS.len() - 2);
    let mix = |i: usize| COLOURS[index][i] + (COLOURS[index + 1][i] - COLOURS[index][i]) * (at - index as f64);
    format!("#{:02x}{:02x}{:02x}", mix(0).round() as u8, mix(1).round() as u8, mix(2).round() as u8)
}

/// Places in the unit disc, nose upwards; `None` where a channel has no position.
fn project(channels: &[&Channel]) -> Vec<Option<(f64, f64)>> {
    let position = |c: &&Channel| {
        let p = [c.loc[0], c.loc[1], c.loc[2]].map(f64::from);
        (p.iter().all(|x| x.is_finite()) && p != [0.0; 3]).then_some(p)
    };
    let positions: Vec<Option<[f64; 3]>> = channels.iter().map(position).collect();
    let known: Vec<[f64; 3]> = positions.iter().flatten().copied().collect();
    let centre = sphere_centre(&known);
    let polar = |p: &[f64; 3]| {
        let [x, y, z] = [p[0] - centre[0], p[1] - centre[1], p[2] - centre[2]];
        let across = x.hypot(y);
        let angle = across.atan2(z);
        if across > 0.0 { (angle * x / across, angle * y / across) } else { (0.0, 0.0) }
    };
    let flat: Vec<Option<(f64, f64)>> = positions.iter().map(|p| p.as_ref().map(polar)).collect();
    // The rim is the lowest sensor, or the equator where none lies lower.
    let rim = flat.iter().flatten().fold(std::f64::consts::FRAC_PI_2, |m, p| m.max(p.0.hypot(p.1)));
    flat.into_iter().map(|p| p.map(|(x, y)| (x / rim, y / rim))).collect()
}

/// The centre of the sphere that fits best (least squares of |p|² = 2 p·c + k); below the middle where none does.
fn sphere_centre(points: &[[f64; 3]]) -> [f64; 3] {
    let n = points.len().max(1) as f64;
    let mean = [0, 1, 2].map(|i| points.iter().map(|p| p[i]).sum::<f64>() / n);
    let radius =
        points.iter().map(|p| (0..3).map(|i| (p[i] - mean[i]).powi(2)).sum::<f64>().sqrt()).fold(0.0, f64::max);
    let below = [mean[0], mean[1], mean[2] - radius.max(0.01)];
    if points.len() < 8 {
        return below;
    }
    let rows = DMatrix::from_fn(points.len(), 4, |r, c| if c < 3 { 2.0 * (points[r][c] - mean[c]) } else { 1.0 });
    let squares = DVector::from_fn(points.len(), |r, _| (0..3).map(|i| (points[r][i] - mean[i]).powi(2)).sum());
    match rows.svd(true, true).solve(&squares, 1e-9) {
        // A centre outside the sensors' own extent comes from sensors in a plane.
        Ok(x) if (0..3).all(|i| x[i].abs() <= 2.0 * radius) && x[2] < 0.5 * radius => [0, 1, 2].map(|i| mean[i] + x[i]),
        _ => below,
    }
}

/// Sensors at one place (the two gradiometers of a triplet) become one disc with their mean.
struct Disc {
    at: (f64, f64),
    names: Vec<String>,
    values: Vec<f64>,
}

fn discs(places: &[Option<(f64, f64)>], names: &[&str], values: &[f64]) -> Vec<Disc> {
    let mut discs: Vec<Disc> = Vec::new();
    for ((place, name), value) in places.iter().zip(names).zip(values) {
        let Some(at) = *place else { continue };
        // 0.005 of the map's radius is under a millimetre on a head.
        match discs.iter_mut().find(|d| (d.at.0 - at.0).hypot(d.at.1 - at.1) < 0.005) {
            Some(disc) => {
                disc.names.push(name.to_string());
                disc.values.push(*value);
            }
            None => discs.push(Disc { at, names: vec![name.to_string()], values: vec![*value] }),
        }
    }
    discs
}

/// Half the typical distance between neighbours: discs just touch.
fn disc_radius(discs: &[Disc]) -> f64 {
    let nearest = |a: usize| {
        let others = (0..discs.len()).filter(|&b| b != a);
        let distance = |b: usize| (discs[a].at.0 - discs[b].at.0).hypot(discs[a].at.1 - discs[b].at.1);
        others.map(distance).fold(0.4, f64::min)
    };
    let mut all: Vec<f64> = (0..discs.len()).map(nearest).collect();
    all.sort_unstable_by(f64::total_cmp);
    (crate::statistics::quantile::quantile(&all, 0.5) / 2.0).clamp(0.02, 0.15)
}

/// Maps of a distance: for each sensor type the ceiling and every generated recording, on one scale. None if fewer than
/// four sensors have a position.
pub fn figure(c: &Comparison, measure: &Measure) -> Option<Figure> {
    let mut panels = Vec::new();
    for group in c.groups() {
        let channels: Vec<&Channel> = group.channels.iter().map(|&i| &c.channels[i]).collect();
        let places = project(&channels);
        if places.iter().flatten().count() < 4 {
            continue;
        }
        let names: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
        let of = |spread: &Spread| group.channels.iter().map(|&i| spread.channels[i]).collect::<Vec<f64>>();
        let maps = std::iter::once(("real against real", &measure.ceiling))
            .chain(c.generated.iter().zip(&measure.generated).map(|(m, spread)| (m.label.as_str(), spread)));
        let maps: Vec<(&str, Vec<f64>)> = maps.map(|(label, spread)| (label, of(spread))).collect();
        let high = maps.iter().flat_map(|(_, values)| values).fold(0.0, |m: f64, &v| m.max(v));
        for (label, values) in &maps {
            let title = format!("{} · {label}", group.name);
            panels.push(map(&title, measure.unit, &discs(&places, &names, values), high));
        }
    }
    let caption = "The distance of the spectra at each sensor, seen from above, nose up, on one colour scale for each \
                   sensor type; sensors at the same place are averaged. Yellow is where a recording is farthest from \
                   the real one. The map of real against real shows what distance to expect from a perfect model.";
    let caption = format!("{caption} Measure: {}.", escape(measure.name));
    (!panels.is_empty()).then_some(Figure { panels, layout: Layout::Triples, legend: Vec::new(), caption })
}

fn map(title: &str, unit: &str, discs: &[Disc], high: f64) -> String {
    const SIZE: (f64, f64) = (300.0, 330.0);
    const CENTRE: (f64, f64) = (150.0, 160.0);
    const RADIUS: f64 = 112.0;
    let mut svg = Svg::new(SIZE.0, SIZE.1, title);
    svg.text("title middle", (CENTRE.0, 17.0), title);
    // Nose, ears, head: a little larger than the rim, so that the outermost discs lie inside.
    let head = RADIUS * 1.1;
    svg.polyline(
        "head",
        [
            (CENTRE.0 - 12.0, CENTRE.1 - head + 1.0),
            (CENTRE.0, CENTRE.1 - head - 11.0),
            (CENTRE.0 + 12.0, CENTRE.1 - head + 1.0),
        ],
    );
    for side in [-1.0, 1.0] {
        let ear = [(0.998, -0.16), (1.05, -0.13), (1.06, 0.0), (1.05, 0.13), (0.998, 0.16)];
        svg.polyline("head", ear.map(|(x, y)| (CENTRE.0 + side * x * head, CENTRE.1 + y * head)));
    }
    let circle = (0..=72).map(|i| (f64::from(i) * std::f64::consts::TAU / 72.0).sin_cos());
    svg.polyline("head", circle.map(|(x, y)| (CENTRE.0 + head * x, CENTRE.1 - head * y)));
    let radius = disc_radius(discs) * RADIUS;
    for disc in discs {
        let mean = disc.values.iter().sum::<f64>() / disc.values.len() as f64;
        let at = (CENTRE.0 + disc.at.0 * RADIUS, CENTRE.1 - disc.at.1 * RADIUS);
        let tooltip = format!("{}: {} {unit}", disc.names.join(", "), significant(mean));
        svg.disc("sensor", at, radius, Some(&colour(mean / high)), &tooltip);
    }
    const BAR: (f64, f64) = (70.0, 300.0);
    for step in 0..32 {
        let at = (BAR.0 + f64::from(step) * 5.0, BAR.1);
        svg.rect("cell", at, (5.2, 8.0), Some(&colour((f64::from(step) + 0.5) / 32.0)));
    }
    svg.text("tick middle", (BAR.0, BAR.1 + 23.0), "0");
    svg.text("tick middle", (BAR.0 + 160.0, BAR.1 + 23.0), &significant(high));
    svg.text("tick middle", (BAR.0 + 80.0, BAR.1 + 23.0), unit);
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::ChannelKind;

    fn at(p: [f32; 3]) -> Channel {
        let mut loc = [0.0; 12];
        loc[..3].copy_from_slice(&p);
        let name = format!("{p:?}");
        Channel { name, kind: ChannelKind::Mag, loc, coil_type: 0, coord_frame: 1, bad: false }
    }

    #[test]
    fn a_sphere_is_seen_from_above() {
        // Directions at known angles about a centre that is not the origin.
        let angles =
            [(0.0f32, 0.0f32), (0.5, 0.0), (0.5, 1.5), (0.5, 3.0), (1.0, 4.5), (1.2, 1.0), (1.4, 5.5), (1.0, 2.0)];
        let sensor = |&(down, around): &(f32, f32)| {
            let (across, height) = (0.1 * down.sin(), 0.1 * down.cos());
            at([0.01 + across * around.cos(), 0.02 + across * around.sin(), 0.04 + height])
        };
        let channels: Vec<Channel> = angles.iter().map(sensor).collect();
        let places = project(&channels.iter().collect::<Vec<_>>());
        for ((down, around), place) in angles.iter().zip(&places) {
            let (x, y) = place.unwrap();
            let radius = f64::from(*down) / std::f64::consts::FRAC_PI_2;
            // Positions are f32 of tenths of a metre; the fit and the angles lose a few digits more.
            assert!((x - radius * f64::from(around.cos())).abs() < 1e-4, "{down} {around}: {x}");
            assert!((y - radius * f64::from(around.sin())).abs() < 1e-4, "{down} {around}: {y}");
        }
    }

    #[test]
    fn missing_flat_and_single_positions_are_no_trouble() {
        assert_eq!(project(&[&at([0.0; 3])]), [None]);
        let plane: Vec<Channel> = (0..12).map(|i| at([0.01 * i as f32, 0.02 * (i % 3) as f32, 0.1])).collect();
        for place in project(&plane.iter().collect::<Vec<_>>()) {
            let (x, y) = place.unwrap();
            assert!(x.hypot(y) <= 1.0 + 1e-12);
        }
        assert!(project(&[&at([0.0, 0.0, 0.1])])[0].is_some());
    }

    #[test]
    fn sensors_at_one_place_share_a_disc() {
        let places = [Some((0.1, 0.1)), Some((0.1, 0.1)), Some((0.5, 0.1)), None];
        let discs = discs(&places, &["a", "b", "c", "d"], &[1.0, 3.0, 5.0, 7.0]);
        assert_eq!(discs.len(), 2);
        assert_eq!((discs[0].names.join(" "), discs[0].values.clone()), ("a b".into(), vec![1.0, 3.0]));
    }

    #[test]
    fn colours_run_from_end_to_end() {
        assert_eq!(
            (colour(0.0), colour(1.0), colour(f64::NAN)),
            ("#440154".into(), "#fde725".into(), "#440154".into())
        );
    }
}
