//! Writing what stands before the samples: ids, measurement info, channels.

use super::constants::{block, channel, data_type, frame, kind, role, unit};
use super::encode::{Encoder, be_floats, be_ints};
use super::tags::join_names;
use crate::error::{Error, Kind, Result};
use crate::recording::{Channel, ChannelKind, DigPoint, Info};
use nalgebra::Matrix4;
use std::collections::HashSet;

/// Everything of one part up to its first buffer of samples. `previous` is the name of the part before, `part` counts
/// from 0, `first_timestep` is the number of this part's first timestep.
pub(super) fn opening(info: &Info, part: i32, previous: Option<&str>, first_timestep: i32) -> Result<Vec<u8>> {
    let mut out = Encoder::default();
    out.id(kind::FILE_ID, info.meas_date);
    out.int(kind::DIR_POINTER, -1);
    out.int(kind::FREE_LIST, -1);
    out.start_block(block::MEAS);
    out.id(kind::BLOCK_ID, info.meas_date);
    out.id(kind::PARENT_BLOCK_ID, info.meas_date);
    measurement_info(&mut out, info)?;
    out.start_block(block::RAW_DATA);
    if first_timestep != 0 {
        out.int(kind::FIRST_SAMPLE, first_timestep);
    }
    if let Some(previous) = previous {
        reference(&mut out, info, role::PREV_FILE, previous, part - 1);
    }
    Ok(out.into_bytes())
}

/// A reference to the part before or after.
pub(super) fn reference(out: &mut Encoder, info: &Info, role: i32, name: &str, part: i32) {
    out.start_block(block::REF);
    out.int(kind::REF_ROLE, role);
    out.text(kind::REF_FILE_NAME, name);
    out.id(kind::REF_FILE_ID, info.meas_date);
    out.int(kind::REF_FILE_NUM, part);
    out.end_block(block::REF);
}

fn measurement_info(out: &mut Encoder, info: &Info) -> Result<()> {
    out.start_block(block::MEAS_INFO);
    out.id(kind::PARENT_BLOCK_ID, info.meas_date);
    if let Some(description) = info.description.as_deref().filter(|text| !text.is_empty()) {
        out.text(kind::COMMENT, description);
    }
    dig_points(out, &info.dig);
    if let Some(t) = &info.dev_head_t {
        out.tag(kind::COORD_TRANS, data_type::COORD_TRANS_STRUCT, &dev_head_t(t)?);
    }
    if let Some((seconds, microseconds)) = info.meas_date {
        out.ints(kind::MEAS_DATE, &[seconds as i32, microseconds as i32]);
    }
    out.int(kind::NCHAN, info.n_channel() as i32);
    out.float(kind::SFREQ, info.sfreq);
    out.float(kind::LOWPASS, info.pass_band.1);
    out.float(kind::HIGHPASS, info.pass_band.0);
    if let Some(line_freq) = info.line_freq {
        out.float(kind::LINE_FREQ, line_freq);
    }
    out.int(kind::DATA_PACK, data_type::FLOAT as i32);
    if let Some(subject) = info.subject.as_deref().filter(|s| !s.is_empty()) {
        out.start_block(block::SUBJECT);
        out.text(kind::SUBJ_HIS_ID, subject);
        out.end_block(block::SUBJECT);
    }
    channels(out, &info.channels);
    out.end_block(block::MEAS_INFO);
    Ok(())
}

/// The head points. A block has one coordinate frame; points in another than the first point's are left out.
fn dig_points(out: &mut Encoder, dig: &[DigPoint]) {
    let Some(first) = dig.first() else { return };
    out.start_block(block::ISOTRAK);
    if first.coord_frame != frame::HEAD {
        out.int(kind::MNE_COORD_FRAME, first.coord_frame);
    }
    for point in dig.iter().filter(|p| p.coord_frame == first.coord_frame) {
        let mut bytes = be_ints(&[point.kind, point.ident]);
        bytes.extend(be_floats(&point.position));
        out.tag(kind::DIG_POINT, data_type::DIG_POINT_STRUCT, &bytes);
    }
    out.end_block(block::ISOTRAK);
}

/// From, to, then the rotation and the shift of the transform and of its inverse.
fn dev_head_t(t: &[[f32; 4]; 4]) -> Result<Vec<u8>> {
    let forward = Matrix4::from_fn(|row, column| f64::from(t[row][column]));
    let what = "the device-to-head transform has no inverse";
    let backward = forward.try_inverse().ok_or_else(|| Error::new(Kind::Corrupt, what))?;
    let mut bytes = be_ints(&[frame::DEVICE, frame::HEAD]);
    for transform in [forward, backward] {
        let element = |(row, column): (usize, usize)| transform[(row, column)] as f32;
        let rotation = (0..9).map(|i| element((i / 3, i % 3)));
        let shift = (0..3).map(|row| element((row, 3)));
        bytes.extend(be_floats(&rotation.chain(shift).collect::<Vec<_>>()));
    }
    Ok(bytes)
}

fn channels(out: &mut Encoder, channels: &[Channel]) {
    let names = short_names(channels);
    for (i, (channel, name)) in channels.iter().zip(&names).enumerate() {
        // Scan and logical number, kind, range, cal, coil type, location, unit, its multiplier, name.
        let (kind, unit, _) = codes(channel.kind);
        let number = i as i32 + 1;
        let mut bytes = be_ints(&[number, number, kind]);
        bytes.extend(be_floats(&[1.0, 1.0]));
        bytes.extend(be_ints(&[channel.coil_type]));
        bytes.extend(be_floats(&channel.loc));
        bytes.extend(be_ints(&[unit, 0]));
        bytes.extend_from_slice(name.as_bytes());
        bytes.resize(96, 0);
        out.tag(kind::CH_INFO, data_type::CH_INFO_STRUCT, &bytes);
    }
    if channels.iter().zip(&names).any(|(channel, name)| channel.name != *name) {
        channels.iter().enumerate().for_each(|(i, channel)| extended(out, i as i32 + 1, channel));
    }
    let bad: Vec<&str> = channels.iter().zip(&names).filter(|(c, _)| c.bad).map(|(_, name)| name.as_str()).collect();
    if !bad.is_empty() {
        out.start_block(block::MNE_BAD_CHANNELS);
        out.text(kind::MNE_CH_NAME_LIST, &join_names(bad.into_iter()));
        out.end_block(block::MNE_BAD_CHANNELS);
    }
}

/// The block that repeats a channel's structure with its whole name.
fn extended(out: &mut Encoder, number: i32, channel: &Channel) {
    let (kind, unit, coord_frame) = codes(channel.kind);
    out.start_block(block::CH_INFO);
    out.int(kind::CH_SCAN_NO, number);
    out.int(kind::CH_LOGICAL_NO, number);
    out.int(kind::CH_KIND, kind);
    out.float(kind::CH_RANGE, 1.0);
    out.float(kind::CH_CAL, 1.0);
    out.int(kind::CH_COIL_TYPE, channel.coil_type);
    out.floats(kind::CH_LOC, &channel.loc);
    out.int(kind::CH_UNIT, unit);
    out.int(kind::CH_UNIT_MUL, 0);
    out.text(kind::CH_DACQ_NAME, &channel.name);
    out.int(kind::CH_COORD_FRAME, coord_frame);
    out.end_block(block::CH_INFO);
}

/// FIF's kind, unit and coordinate frame.
fn codes(kind: ChannelKind) -> (i32, i32, i32) {
    match kind {
        ChannelKind::Mag => (channel::MEG, unit::TESLA, frame::DEVICE),
        ChannelKind::Grad => (channel::MEG, unit::TESLA_PER_METRE, frame::DEVICE),
        ChannelKind::RefMeg => (channel::REF_MEG, unit::TESLA, frame::DEVICE),
        ChannelKind::Eeg => (channel::EEG, unit::VOLT, frame::HEAD),
        ChannelKind::Stim => (channel::STIM, unit::VOLT, frame::UNKNOWN),
        ChannelKind::Eog => (channel::EOG, unit::VOLT, frame::UNKNOWN),
        ChannelKind::Ecg => (channel::ECG, unit::VOLT, frame::UNKNOWN),
        ChannelKind::Emg => (channel::EMG, unit::VOLT, frame::UNKNOWN),
        ChannelKind::Misc => (channel::MISC, unit::NONE, frame::UNKNOWN),
    }
}

/// Names that fit the structure: at most 15 characters of ASCII, unique. Most are the channels' own.
fn short_names(channels: &[Channel]) -> Vec<String> {
    const LEN: usize = 15;
    let fits = |name: &str| name.is_ascii() && name.len() <= LEN;
    let mut taken: HashSet<String> = channels.iter().map(|c| &c.name).filter(|n| fits(n)).cloned().collect();
    let mut shorten = |name: &str| {
        let ascii: String = name.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        let numbered = |number: usize| {
            let suffix = if number == 0 { String::new() } else { format!("-{number}") };
            format!("{}{suffix}", &ascii[..ascii.len().min(LEN - suffix.len())])
        };
        let free = (0..).map(numbered).find(|short| !taken.contains(short)).unwrap_or_default();
        taken.insert(free.clone());
        free
    };
    channels.iter().map(|c| if fits(&c.name) { c.name.clone() } else { shorten(&c.name) }).collect()
}
