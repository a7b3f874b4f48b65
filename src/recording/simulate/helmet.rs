//! The sensors: a helmet of 102 places, each with a magnetometer and two planar gradiometers, and the field they feel.
//!
//! Names, positions and normals are those of the Elekta/MEGIN helmet (rounded to a millimetre and a hundredth), so
//! that MNE-Python plots topographies and layouts of simulated recordings as it does of real ones.

use crate::recording::{Channel, ChannelKind, DigPoint};
use nalgebra::{Rotation3, Vector3};

/// Number of places of the real helmet.
pub const N_PLACE: usize = 102;
/// Centre of the head's sphere in device coordinates, metres.
pub const HEAD_CENTRE: [f64; 3] = [0.0, 0.012, 0.0];
/// Sensors at one place.
const PER_PLACE: usize = 3;
/// FIF coil types: magnetometer T3 and planar gradiometer T1.
const COIL_MAG: i32 = 3024;
const COIL_GRAD: i32 = 3012;
/// Distance between the two loops of a planar gradiometer, metres.
const BASELINE: f64 = 0.0168;

/// Place number of the name (`11` is `MEG 011x`), position in mm and normal times 100, device coordinates.
#[rustfmt::skip]
const PLACES: [(u16, [i16; 3], [i16; 3]); N_PLACE] = [
    (11, [-107, 46, -60], [-98, 19, 1]), (12, [-102, 63, -26], [-96, 28, -1]), (13, [-108, 30, -27], [-100, 10, 0]),
    (14, [-110, 13, -63], [-100, 2, 1]), (21, [-107, 33, 8], [-99, 10, 5]), (22, [-99, 40, 41], [-93, 15, 35]),
    (23, [-101, 4, 41], [-94, -4, 35]), (24, [-108, -1, 7], [-99, -8, 7]), (31, [-86, 99, 9], [-87, 48, 9]),
    (32, [-89, 76, 41], [-86, 35, 37]), (33, [-70, 76, 71], [-71, 31, 64]), (34, [-100, 66, 8], [-96, 29, 7]),
    (41, [-81, 41, 72], [-75, 14, 64]), (42, [-53, 41, 95], [-48, 15, 86]), (43, [-54, 6, 97], [-49, -3, 87]),
    (44, [-83, 6, 73], [-76, -6, 65]), (51, [-64, 125, 14], [-62, 77, 16]), (52, [-33, 140, 17], [-29, 93, 21]),
    (53, [-34, 127, 48], [-27, 84, 47]), (54, [-67, 109, 44], [-68, 62, 39]), (61, [-36, 105, 75], [-30, 61, 74]),
    (62, [0, 78, 97], [0, 40, 92]), (63, [-18, 44, 106], [-14, 18, 97]), (64, [-37, 75, 92], [-31, 41, 86]),
    (71, [-18, 10, 110], [-14, -1, 99]), (72, [19, 10, 110], [15, 4, 99]), (73, [19, -23, 106], [16, -24, 96]),
    (74, [-18, -24, 106], [-11, -24, 96]), (81, [0, 144, 19], [-1, 97, 25]), (82, [0, 132, 50], [0, 87, 50]),
    (91, [33, 140, 17], [26, 94, 23]), (92, [64, 125, 14], [61, 78, 16]), (93, [67, 109, 44], [68, 62, 39]),
    (94, [34, 127, 49], [27, 84, 47]), (101, [0, 109, 77], [-2, 65, 76]), (102, [36, 105, 75], [27, 62, 74]),
    (103, [37, 75, 92], [31, 41, 86]), (104, [18, 44, 106], [12, 20, 97]), (111, [52, 41, 95], [48, 15, 86]),
    (112, [81, 41, 72], [75, 18, 64]), (113, [83, 6, 73], [76, -2, 65]), (114, [54, 6, 97], [49, -3, 87]),
    (121, [86, 99, 9], [86, 49, 10]), (122, [100, 66, 8], [95, 31, 7]), (123, [89, 76, 41], [86, 35, 37]),
    (124, [70, 76, 71], [67, 36, 65]), (131, [99, 40, 41], [93, 15, 35]), (132, [107, 33, 8], [99, 13, 6]),
    (133, [108, -1, 7], [100, -6, 5]), (134, [101, 4, 41], [93, -4, 35]), (141, [102, 63, -26], [96, 28, -1]),
    (142, [106, 47, -60], [98, 18, 1]), (143, [110, 13, -62], [100, 1, 1]), (144, [108, 30, -26], [100, 10, -1]),
    (151, [-109, -3, -28], [-100, -8, -2]), (152, [-102, -36, -28], [-94, -34, -3]), (153, [-95, -52, -62], [-88, -47, 1]),
    (154, [-107, -20, -62], [-98, -20, 1]), (161, [-102, -34, 6], [-94, -34, 8]), (162, [-95, -31, 39], [-89, -31, 33]),
    (163, [-78, -63, 39], [-76, -56, 33]), (164, [-87, -64, 6], [-82, -57, 8]), (171, [-76, -80, -62], [-73, -68, 1]),
    (172, [-86, -66, -28], [-82, -57, -2]), (173, [-63, -90, -28], [-59, -81, -3]), (174, [-49, -99, -62], [-44, -90, 1]),
    (181, [-79, -29, 70], [-75, -29, 60]), (182, [-52, -28, 93], [-50, -26, 83]), (183, [-18, -54, 92], [-13, -54, 83]),
    (184, [-55, -63, 71], [-49, -61, 63]), (191, [-51, -86, 40], [-45, -83, 34]), (192, [-34, -103, 6], [-28, -95, 15]),
    (193, [-33, -105, -28], [-31, -95, -2]), (194, [-64, -88, 6], [-58, -81, 11]), (201, [-19, -80, 69], [-12, -78, 62]),
    (202, [19, -80, 69], [16, -77, 61]), (203, [17, -97, 40], [14, -92, 37]), (204, [-17, -97, 40], [-14, -92, 37]),
    (211, [0, -109, 7], [2, -99, 17]), (212, [0, -111, -28], [0, -100, -4]), (213, [17, -110, -62], [17, -99, 1]),
    (214, [-17, -110, -62], [-18, -98, 1]), (221, [52, -28, 93], [50, -26, 83]), (222, [79, -28, 70], [75, -25, 62]),
    (223, [55, -63, 71], [53, -58, 62]), (224, [18, -54, 92], [13, -54, 83]), (231, [51, -86, 40], [45, -83, 34]),
    (232, [64, -88, 6], [60, -80, 9]), (233, [33, -105, -28], [31, -95, -2]), (234, [33, -103, 6], [32, -94, 13]),
    (241, [95, -31, 39], [89, -31, 33]), (242, [102, -34, 6], [95, -31, 7]), (243, [87, -64, 6], [83, -55, 7]),
    (244, [78, -63, 39], [76, -56, 33]), (251, [63, -91, -28], [59, -81, -3]), (252, [86, -66, -28], [82, -57, -2]),
    (253, [76, -80, -62], [72, -69, 1]), (254, [49, -99, -62], [43, -90, 1]), (261, [109, -3, -28], [100, -8, -2]),
    (262, [107, -21, -62], [98, -22, 1]), (263, [95, -52, -62], [88, -48, 1]), (264, [102, -36, -28], [94, -34, -3]),
];

/// One sensor with its pose in double precision.
#[derive(Debug, Clone)]
pub struct Sensor {
    /// Its number in the whole helmet: `3 · place + {0 magnetometer, 1, 2 gradiometers}`; the key of its noise.
    pub number: usize,
    kind: ChannelKind,
    name: String,
    position: Vector3<f64>,
    axes: [Vector3<f64>; 3],
}

/// The first `n_channel` sensors of a helmet: 306 are the whole of it, fewer take places spread evenly over it (the
/// one nearest the vertex first), more add places on a sphere that fits the helmet. A sensor is the same, signal and
/// all, whatever the number of others.
pub fn sensors(n_channel: usize) -> Vec<Sensor> {
    let n_place = n_channel.div_ceil(PER_PLACE);
    let mut places: Vec<usize> = spread(n_place.min(N_PLACE));
    places.sort_unstable();
    places.extend(N_PLACE..n_place);
    places.iter().flat_map(|&p| at_place(p)).take(n_channel).collect()
}

/// Every magnetometer of the real helmet: what source patterns are normalised over.
pub fn magnetometers() -> Vec<Sensor> {
    (0..N_PLACE).map(|p| at_place(p).swap_remove(0)).collect()
}

/// `n` places, each as far as possible from those before it.
fn spread(n: usize) -> Vec<usize> {
    let position = |p: usize| Vector3::from(PLACES[p].1.map(f64::from));
    let vertex = (0..N_PLACE).max_by_key(|&p| PLACES[p].1[2]).expect("the helmet has places");
    let mut chosen = vec![vertex];
    let mut distance: Vec<f64> = (0..N_PLACE).map(|p| (position(p) - position(vertex)).norm()).collect();
    while chosen.len() < n {
        let far = (0..N_PLACE).fold(0, |best, p| if distance[p] > distance[best] { p } else { best });
        chosen.push(far);
        for (p, d) in distance.iter_mut().enumerate() {
            *d = d.min((position(p) - position(far)).norm());
        }
    }
    chosen
}

/// The three sensors at a place; places beyond the helmet's lie on the sphere that fits it.
fn at_place(place: usize) -> Vec<Sensor> {
    let (stem, position, normal) = if let Some(&(stem, position, normal)) = PLACES.get(place) {
        (usize::from(stem), Vector3::from(position.map(f64::from)) * 1e-3, Vector3::from(normal.map(f64::from)))
    } else {
        let extra = place - N_PLACE;
        let normal = scattered(extra, -0.2);
        (271 + extra / 4 * 10 + extra % 4, Vector3::new(0.0, 0.015, -0.011) + normal * 0.1226, normal)
    };
    let ez = normal.normalize();
    // Upwards along the helmet, and around it: the two directions of the planar gradiometers.
    let ex = (Vector3::z() - ez * ez.z).try_normalize(1e-6).unwrap_or_else(Vector3::y);
    let ey = ez.cross(&ex);
    let sensor = |coil: usize, kind, axes| Sensor {
        number: PER_PLACE * place + coil,
        kind,
        name: format!("MEG {stem:03}{}", coil + 1),
        position,
        axes,
    };
    vec![
        sensor(0, ChannelKind::Mag, [ex, ey, ez]),
        sensor(1, ChannelKind::Grad, [ex, ey, ez]),
        sensor(2, ChannelKind::Grad, [ey, -ex, ez]),
    ]
}

/// Point `i` of a sequence that covers the unit sphere above height `lowest` evenly, however far it runs (Roberts' R2).
fn scattered(i: usize, lowest: f64) -> Vector3<f64> {
    let z = 1.0 - (1.0 - lowest) * ((i + 1) as f64 * 0.754_877_666_246_692_7).fract();
    let angle = std::f64::consts::TAU * ((i + 1) as f64 * 0.569_840_290_998_053_2).fract();
    let radius = (1.0 - z * z).sqrt();
    Vector3::new(radius * libm::cos(angle), radius * libm::sin(angle), z)
}

impl Sensor {
    /// As FIF describes it.
    pub fn channel(&self) -> Channel {
        let mut loc = [0.0; 12];
        for (i, value) in [self.position].iter().chain(&self.axes).flat_map(|v| v.iter()).enumerate() {
            loc[i] = *value as f32;
        }
        let coil_type = if self.kind == ChannelKind::Mag { COIL_MAG } else { COIL_GRAD };
        Channel { name: self.name.clone(), kind: self.kind, loc, coil_type, coord_frame: 1, bad: false }
    }

    /// Density of the sensor's own white noise: 3 fT/√Hz, or 3 fT/cm/√Hz, as such sensors have.
    pub fn noise_density(&self) -> f64 {
        if self.kind == ChannelKind::Mag { 3e-15 } else { 3e-13 }
    }

    /// Standard deviation of a typical signal: 300 fT, or 60 fT/cm.
    pub fn typical(&self) -> f64 {
        if self.kind == ChannelKind::Mag { 3e-13 } else { 6e-12 }
    }

    /// What it reads of a field (T at a place): T, or T/m for a gradiometer (the difference of its two loops over their distance).
    pub fn reads(&self, field: impl Fn(&Vector3<f64>) -> Vector3<f64>) -> f64 {
        let [ex, _, ez] = &self.axes;
        match self.kind {
            ChannelKind::Mag => field(&self.position).dot(ez),
            _ => {
                let half = ex * (BASELINE / 2.0);
                (field(&(self.position + half)) - field(&(self.position - half))).dot(ez) / BASELINE
            }
        }
    }
}

/// A current dipole in a spherical head.
#[derive(Debug, Clone)]
pub struct Dipole {
    /// Position in device coordinates, metres.
    pub position: Vector3<f64>,
    /// Moment, ampere metres.
    pub moment: Vector3<f64>,
}

impl Dipole {
    /// The magnetic field (T) outside a spherically symmetric conductor, Sarvas 1987, equation 25. Volume currents are
    /// included, conductivities cancel, and a radial dipole is silent.
    pub fn field(&self, at: &Vector3<f64>) -> Vector3<f64> {
        let centre = Vector3::from(HEAD_CENTRE);
        let (r, r0) = (at - centre, self.position - centre);
        let a = r - r0;
        let (r_norm, a_norm) = (r.norm(), a.norm());
        let f = a_norm * (r_norm * a_norm + r_norm * r_norm - r0.dot(&r));
        let along = a.dot(&r) / a_norm;
        let gradient =
            r * (a_norm * a_norm / r_norm + along + 2.0 * a_norm + 2.0 * r_norm) - r0 * (a_norm + 2.0 * r_norm + along);
        let turned = self.moment.cross(&r0);
        (turned * f - gradient * turned.dot(&r)) * (1e-7 / (f * f))
    }
}

/// Device-to-head transform of a head that is turned by `turn` (axis times angle) about its centre.
pub fn dev_head_t(turn: Vector3<f64>) -> [[f32; 4]; 4] {
    let rotation = Rotation3::new(turn);
    // Head coordinates begin between the ears, 40 mm below the centre of the sphere.
    let origin = Vector3::new(0.0, 0.0, 0.04) - rotation * Vector3::from(HEAD_CENTRE);
    let mut t = [[0.0; 4]; 4];
    for (i, row) in t.iter_mut().take(3).enumerate() {
        for (j, value) in row.iter_mut().take(3).enumerate() {
            *value = rotation[(i, j)] as f32;
        }
        row[3] = origin[i] as f32;
    }
    t[3][3] = 1.0;
    t
}

/// Digitised points: the three cardinal ones and 32 on the scalp, head coordinates.
pub fn dig() -> Vec<DigPoint> {
    let cardinal = [[-0.075, 0.0, 0.0], [0.0, 0.095, 0.0], [0.075, 0.0, 0.0]];
    let scalp = (0..32).map(|i| (scattered(i, 0.0) * 0.09 + Vector3::new(0.0, 0.0, 0.04)).map(|x| x as f32).into());
    let cardinal = cardinal.iter().enumerate().map(|(i, &position)| (1, i as i32 + 1, position));
    let scalp = scalp.enumerate().map(|(i, position)| (4, i as i32 + 1, position));
    cardinal.chain(scalp).map(|(kind, ident, position)| DigPoint { kind, ident, position, coord_frame: 4 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helmet_has_unit_axes_and_its_own_names() {
        for n in [1, 2, 3, 4, 305, 306, 307, 2000] {
            let sensors = sensors(n);
            assert_eq!(sensors.len(), n);
            let names: std::collections::BTreeSet<_> = sensors.iter().map(|s| s.name.clone()).collect();
            assert_eq!(names.len(), n, "names of {n} sensors");
            for s in &sensors {
                let [ex, ey, ez] = s.axes;
                assert!((ex.cross(&ey) - ez).norm() < 1e-12, "{} is not right-handed", s.name);
                assert!((ez.norm() - 1.0).abs() < 1e-12);
                assert!((s.position - Vector3::from(HEAD_CENTRE)).norm() > 0.09, "{} is inside the head", s.name);
            }
        }
        assert_eq!(sensors(1)[0].kind, ChannelKind::Mag);
    }

    /// Outside the head there is no current: the field has neither divergence nor curl. And its radial part is that of
    /// the dipole alone, by Biot and Savart. Together these determine the field, so Sarvas' formula is right.
    #[test]
    fn the_field_obeys_maxwell() {
        let centre = Vector3::from(HEAD_CENTRE);
        let dipole =
            Dipole { position: centre + Vector3::new(0.02, -0.03, 0.05), moment: Vector3::new(3e-9, 8e-9, -4e-9) };
        for at in [Vector3::new(0.1, 0.03, 0.02), Vector3::new(-0.02, 0.05, 0.11), Vector3::new(0.03, -0.09, -0.04)] {
            let field = dipole.field(&at);
            let h = 1e-4;
            let slope = |along: usize| {
                let step = Vector3::ith(along, h);
                (dipole.field(&(at + step)) - dipole.field(&(at - step))) / (2.0 * h)
            };
            let (dx, dy, dz) = (slope(0), slope(1), slope(2));
            let scale = dx.norm() + dy.norm() + dz.norm();
            // Central differences err by h²/6 times a third derivative, which is of order scale / (3 cm)².
            let bound = scale * h * h / (0.03 * 0.03);
            assert!((dx.x + dy.y + dz.z).abs() < bound);
            assert!(Vector3::new(dy.z - dz.y, dz.x - dx.z, dx.y - dy.x).norm() < bound);

            let away = at - dipole.position;
            let alone = dipole.moment.cross(&away) * (1e-7 / away.norm().powi(3));
            let radial = (at - centre).normalize();
            assert!((field - alone).dot(&radial).abs() < 1e-12 * field.norm());
        }
    }

    #[test]
    fn the_head_sits_in_the_helmet() {
        let t = dev_head_t(Vector3::new(0.05, -0.02, 0.1));
        // The centre of the sphere is 40 mm above the origin of head coordinates, however the head is turned.
        for (i, expected) in [0.0, 0.0, 0.04].into_iter().enumerate() {
            let x = f64::from(t[i][3]) + (0..3).map(|j| f64::from(t[i][j]) * HEAD_CENTRE[j]).sum::<f64>();
            assert!((x - expected).abs() < 1e-7);
        }
    }
}
