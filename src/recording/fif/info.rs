//! The measurement info block: channels with their calibration, sampling rate, filters, date, transforms, head points.

use super::constants::{DATE_NONE, block, channel, data_type, frame, kind, unit};
use super::source::Source;
use super::tags::{Block, Tag, Tree, be_f32, be_i32, split_names};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::recording::{Channel, ChannelKind, DigPoint};
use std::collections::{HashMap, HashSet};

/// What one file's measurement info says.
#[derive(Debug)]
pub(super) struct Measurement {
    /// The sensors.
    pub channels: Vec<Channel>,
    /// Factor from stored numbers to SI units, for each channel: range times cal. MNE ignores the unit multiplier, and
    /// so do we: the factor already leads to the plain unit in every file seen.
    pub cals: Vec<f64>,
    /// Hz.
    pub sfreq: f64,
    /// Hz, high-pass and low-pass.
    pub pass_band: (f64, f64),
    /// Seconds and microseconds since 1970.
    pub meas_date: Option<(i64, i64)>,
    /// Hz.
    pub line_freq: Option<f64>,
    /// Device to head.
    pub dev_head_t: Option<[[f32; 4]; 4]>,
    /// Head points.
    pub dig: Vec<DigPoint>,
    /// What the file says of itself in words.
    pub description: Option<String>,
    /// The subject's id in the hospital's information system, which is where BIDS and MNE put the label.
    pub subject: Option<String>,
}

/// Reads the measurement info.
pub(super) fn read(source: &Source, tree: &Tree) -> Result<Measurement> {
    let meas = tree.only(source, block::MEAS, "a measurement")?;
    let info = tree.only(source, block::MEAS_INFO, "measurement info")?;
    let (channels, cals) = channels(source, tree, info)?;
    let sfreq = required(source, info, kind::SFREQ, "a sampling rate")?.number(source)?;
    if !(sfreq.is_finite() && sfreq > 0.0) {
        let what = format!("a sampling rate of {sfreq} Hz makes no sense");
        return Err(Error::new(Kind::SamplingRate, what).at(source.path()));
    }
    let frequency = |kind| -> Result<Option<f64>> {
        let number = info.tag(kind).map(|t| t.number(source)).transpose()?;
        Ok(number.filter(|f| f.is_finite()))
    };
    Ok(Measurement {
        channels,
        cals,
        sfreq,
        pass_band: (frequency(kind::HIGHPASS)?.unwrap_or(0.0), frequency(kind::LOWPASS)?.unwrap_or(sfreq / 2.0)),
        meas_date: meas_date(source, tree, meas, info)?,
        line_freq: frequency(kind::LINE_FREQ)?,
        dev_head_t: dev_head_t(source, tree, info)?,
        dig: dig_points(source, tree, info)?,
        description: description(source, info)?,
        subject: subject(source, tree, info)?,
    })
}

fn required<'a>(source: &Source, block: &'a Block, kind: i32, what: &str) -> Result<&'a Tag> {
    block.tag(kind).ok_or_else(|| source.corrupt(format!("the measurement info lacks {what}")))
}

/// A channel as the file describes it.
struct Described {
    name: String,
    kind: i32,
    unit: i32,
    coil_type: i32,
    loc: [f32; 12],
    range: f64,
    cal: f64,
}

fn channels(source: &Source, tree: &Tree, info: &Block) -> Result<(Vec<Channel>, Vec<f64>)> {
    let n_channel = required(source, info, kind::NCHAN, "the number of channels")?.int(source)?;
    let mut described = Vec::new();
    for tag in info.tags.iter().filter(|t| t.kind == kind::CH_INFO) {
        described.push(Described::from_structure(tag.structure(source)?));
    }
    if n_channel == 0 {
        return Err(Error::new(Kind::EmptyRecording, "the recording has no channels").at(source.path()));
    }
    if i32::try_from(described.len()) != Ok(n_channel) {
        let what = format!("{} channels are described, but {n_channel} are announced", described.len());
        return Err(source.corrupt(what));
    }
    let short_names: Vec<String> = described.iter().map(|c| c.name.clone()).collect();
    extend(source, tree, info, &mut described)?;

    let mut channels: Vec<Channel> = described.iter().map(Described::channel).collect();
    mark_bad(source, tree, info, &mut channels, &short_names)?;
    make_names_unique(&mut channels);
    let cals: Vec<f64> = described.iter().map(|c| c.range * c.cal).collect();
    for (channel, cal) in channels.iter().zip(&cals) {
        let check = || {
            ensure!(cal.is_finite(), Kind::Corrupt, "channel {} has a calibration of {cal}", channel.name);
            Ok(())
        };
        check().map_err(|e: Error| e.at(source.path()))?;
    }
    Ok((channels, cals))
}

/// The newer description of channels: a block each, in the same order, whose tags replace what the structure said;
/// made for names of more than 15 characters.
fn extend(source: &Source, tree: &Tree, info: &Block, described: &mut [Described]) -> Result<()> {
    let n_block = tree.find_in(info, block::CH_INFO).count();
    if n_block == 0 {
        return Ok(());
    }
    if n_block != described.len() {
        return Err(source.corrupt(format!("{n_block} extended channel blocks for {} channels", described.len())));
    }
    for (described, block) in described.iter_mut().zip(tree.find_in(info, block::CH_INFO)) {
        for tag in &block.tags {
            match tag.kind {
                kind::CH_KIND => described.kind = tag.int(source)?,
                kind::CH_RANGE => described.range = tag.number(source)?,
                kind::CH_CAL => described.cal = tag.number(source)?,
                kind::CH_COIL_TYPE => described.coil_type = tag.int(source)?,
                kind::CH_UNIT => described.unit = tag.int(source)?,
                kind::CH_DACQ_NAME => described.name = tag.text(source)?,
                kind::CH_LOC => {
                    let bytes: [u8; 48] = tag.structure(source)?;
                    described.loc = floats(&bytes);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

impl Described {
    /// From the 96-byte structure: scan and logical number, kind, range, cal, coil type, location, unit, multiplier,
    /// name.
    fn from_structure(bytes: [u8; 96]) -> Self {
        let name = bytes[80..].split(|&b| b == 0).next().unwrap_or_default();
        let name = match std::str::from_utf8(name) {
            Ok(name) => name.to_owned(),
            Err(_) => name.iter().map(|&b| char::from(b)).collect(),
        };
        Self {
            name,
            kind: be_i32(&bytes[8..]),
            range: f64::from(be_f32(&bytes[12..])),
            cal: f64::from(be_f32(&bytes[16..])),
            coil_type: be_i32(&bytes[20..]),
            loc: floats(&bytes[24..72]),
            unit: be_i32(&bytes[72..]),
        }
    }

    fn channel(&self) -> Channel {
        let kind = match self.kind {
            channel::MEG if self.unit == unit::TESLA_PER_METRE => ChannelKind::Grad,
            channel::MEG => ChannelKind::Mag,
            channel::REF_MEG => ChannelKind::RefMeg,
            channel::EEG => ChannelKind::Eeg,
            channel::STIM => ChannelKind::Stim,
            channel::EOG => ChannelKind::Eog,
            channel::ECG => ChannelKind::Ecg,
            channel::EMG => ChannelKind::Emg,
            _ => ChannelKind::Misc,
        };
        // The frame is not stored (the extended blocks' tag for it is ignored by MNE too); it follows from the kind.
        let coord_frame = match self.kind {
            channel::MEG | channel::REF_MEG => frame::DEVICE,
            channel::EEG | channel::ECOG | channel::SEEG | channel::DBS | channel::FNIRS => frame::HEAD,
            _ => frame::UNKNOWN,
        };
        // MNE writes NaN for an unknown position; ours is zero.
        let loc = self.loc.map(|x| if x.is_finite() { x } else { 0.0 });
        Channel { name: self.name.clone(), kind, loc, coil_type: self.coil_type, coord_frame, bad: false }
    }
}

/// Big-endian floats; the caller passes four bytes for each.
fn floats<const N: usize>(bytes: &[u8]) -> [f32; N] {
    std::array::from_fn(|i| be_f32(&bytes[4 * i..]))
}

/// Marks the channels of the last list of bad channels, which names them as the structures do; names that no channel
/// has are left over from an earlier pick and ignored.
fn mark_bad(
    source: &Source,
    tree: &Tree,
    info: &Block,
    channels: &mut [Channel],
    short_names: &[String],
) -> Result<()> {
    let lists = tree.find_in(info, block::MNE_BAD_CHANNELS).filter_map(|b| b.tag(kind::MNE_CH_NAME_LIST));
    let Some(list) = lists.last() else { return Ok(()) };
    let list = list.text(source)?;
    let bad: HashSet<String> = split_names(&list).collect();
    for (channel, short_name) in channels.iter_mut().zip(short_names) {
        channel.bad = bad.contains(short_name) || bad.contains(&channel.name);
    }
    Ok(())
}

/// Numbers channels of the same name, `X-0 X-1 …`, as MNE does.
fn make_names_unique(channels: &mut [Channel]) {
    let mut same: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, channel) in channels.iter().enumerate() {
        same.entry(channel.name.clone()).or_default().push(i);
    }
    let mut taken: HashSet<String> = same.keys().cloned().collect();
    for (name, members) in same.iter().filter(|(_, members)| members.len() > 1) {
        let mut number = 0;
        for &member in members {
            let mut unique = format!("{name}-{number}");
            while !taken.insert(unique.clone()) {
                number += 1;
                unique = format!("{name}-{number}");
            }
            number += 1;
            channels[member].name = unique;
        }
    }
}

/// The date's own tag, or else the date of the first id found in the order that MNE searches.
fn meas_date(source: &Source, tree: &Tree, meas: &Block, info: &Block) -> Result<Option<(i64, i64)>> {
    let date = match info.tag(kind::MEAS_DATE) {
        Some(tag) => match tag.numbers(source)?.as_slice() {
            [seconds] => (*seconds as i64, 0),
            [seconds, microseconds, ..] => (*seconds as i64, *microseconds as i64),
            [] => DATE_NONE,
        },
        None => {
            let ids = [
                info.tag(kind::PARENT_BLOCK_ID),
                info.tag(kind::BLOCK_ID),
                meas.tag(kind::BLOCK_ID),
                meas.tag(kind::PARENT_BLOCK_ID),
                tree.root().tag(kind::FILE_ID),
            ];
            let Some(id) = ids.into_iter().flatten().next() else { return Ok(None) };
            let bytes: [u8; 20] = id.structure(source)?;
            (i64::from(be_i32(&bytes[12..])), i64::from(be_i32(&bytes[16..])))
        }
    };
    if date == DATE_NONE {
        return Ok(None);
    }
    let (seconds, microseconds) = date;
    let carried = seconds.checked_add(microseconds.div_euclid(1_000_000));
    let seconds = carried.ok_or_else(|| source.corrupt(format!("a measurement date of {date:?} makes no sense")))?;
    Ok(Some((seconds, microseconds.rem_euclid(1_000_000))))
}

/// The device-to-head transform of the info block or, failing that, of the only HPI result.
fn dev_head_t(source: &Source, tree: &Tree, info: &Block) -> Result<Option<[[f32; 4]; 4]>> {
    let mut hpi_results = tree.find_in(info, block::HPI_RESULT);
    let only_hpi_result = match (hpi_results.next(), hpi_results.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    };
    for block in std::iter::once(info).chain(only_hpi_result) {
        // The last one in a block counts.
        for tag in block.tags.iter().rev().filter(|t| t.kind == kind::COORD_TRANS) {
            let bytes: [u8; 104] = tag.structure(source)?;
            let (from, to) = (be_i32(&bytes), be_i32(&bytes[4..]));
            // The structure holds the transform and its inverse, each a 3 × 3 rotation and a shift.
            let at = match (from, to) {
                (frame::DEVICE, frame::HEAD) => 8,
                (frame::HEAD, frame::DEVICE) => 56,
                _ => continue,
            };
            let t: [f32; 12] = floats(&bytes[at..]);
            if !t.iter().all(|x| x.is_finite()) {
                return Err(source.corrupt("the device-to-head transform is not finite"));
            }
            let row = |r: usize| [t[3 * r], t[3 * r + 1], t[3 * r + 2], t[9 + r]];
            return Ok(Some([row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]]));
        }
    }
    Ok(None)
}

/// The digitised points, single or in strings; those without a position are left out.
fn dig_points(source: &Source, tree: &Tree, info: &Block) -> Result<Vec<DigPoint>> {
    let mut isotraks = tree.find_in(info, block::ISOTRAK);
    let (Some(isotrak), None) = (isotraks.next(), isotraks.next()) else { return Ok(Vec::new()) };
    let coord_frame = match isotrak.tag(kind::MNE_COORD_FRAME) {
        Some(tag) => tag.int(source)?,
        None => frame::HEAD,
    };
    let mut points = Vec::new();
    let mut add = |kind: i32, ident: i32, position: [f32; 3]| {
        if position.iter().all(|x| x.is_finite()) {
            points.push(DigPoint { kind, ident, position, coord_frame });
        }
    };
    for tag in &isotrak.tags {
        match tag.kind {
            kind::DIG_POINT => {
                let bytes: [u8; 20] = tag.structure(source)?;
                add(be_i32(&bytes), be_i32(&bytes[4..]), floats(&bytes[8..]));
            }
            kind::DIG_STRING => {
                // Kind, number of the string, number of points, then three floats a point.
                let bytes = tag.bytes(source)?;
                let Some((head, rest)) = bytes.split_first_chunk::<12>() else { continue };
                let (positions, left) = rest.as_chunks::<12>();
                let n_point = be_i32(&head[8..]);
                if i32::try_from(positions.len()) != Ok(n_point) || !left.is_empty() {
                    return Err(source.corrupt(format!("a string of {n_point} head points has {} bytes", tag.size)));
                }
                positions.iter().for_each(|p| add(be_i32(head), be_i32(&head[4..]), floats(p)));
            }
            _ => {}
        }
    }
    Ok(points)
}

/// What the file says of itself.
fn description(source: &Source, info: &Block) -> Result<Option<String>> {
    let tag = info.tag(kind::COMMENT).filter(|t| t.data_type == data_type::STRING);
    Ok(tag.map(|t| t.text(source)).transpose()?.filter(|text| !text.is_empty()))
}

/// The subject's label.
fn subject(source: &Source, tree: &Tree, info: &Block) -> Result<Option<String>> {
    let tag = tree.find_in(info, block::SUBJECT).find_map(|b| b.tag(kind::SUBJ_HIS_ID));
    let id = tag.filter(|t| t.data_type == data_type::STRING).map(|t| t.text(source)).transpose()?;
    Ok(id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()))
}
