//! A shard: the tokens of one recording and split, with everything needed to turn them back into signal.
//!
//! A container of kind `tokens` with the tensors `tokens` u8 `[channel, time]`, `condition` u16 `[time]`, and `centre`,
//! `spread`, `peak` f64 `[channel]`; where it was asked for, `signal` f32 `[channel, time]` in SI units, from before quantising.

use super::scheme::{Scales, Scheme};
use crate::ensure;
use crate::error::{Error, Kind, Result};
use crate::recording::Info;
use crate::recording::marks;
use crate::storage::container::{Container, Spec, Writer};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::Path;

/// Kind of the container.
pub const KIND: &str = "tokens";

/// Which part of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Split {
    Train,
    Validation,
    Test,
}

impl Split {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// As in the names of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// What a shard says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardMeta {
    /// The recording this is a part of: sensors, sampling rate, subject, pass band; `n_timestep` and `events` are the
    /// part's own, `first_timestep` its start in the prepared recording.
    pub info: Info,
    /// The part.
    pub split: Split,
    /// The recording's name within the data set; shared by its three parts.
    pub recording: String,
    /// The tokenizer.
    pub scheme: Scheme,
    /// Names of the conditions: condition i is `conditions[i - 1]`. The same in every shard of a data set.
    pub conditions: Vec<String>,
    /// Stretches of this part, in timesteps, that hold no usable signal (gaps in the acquisition, annotations that begin
    /// with BAD): sorted and disjoint. No window touches them.
    pub excluded: Vec<Range<usize>>,
    /// Which tokenization it comes from.
    pub tokenization: Tokenization,
    /// Version of gpt2meg that wrote it.
    pub version: String,
}

/// Checksums that tell tokenizations apart. They are of content only: the same recordings tokenized in the same way
/// have the same ones, whenever and wherever that was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokenization {
    /// Of the settings that all recordings of a data set share.
    pub settings: String,
    /// Of this recording's name, parts, stretches, conditions and scales: the same in its three parts.
    pub recording: String,
}

/// A shard that is being written; dropped before [`ShardWriter::publish`], it leaves nothing.
pub struct ShardWriter {
    writer: Writer,
    n_timestep: usize,
}

impl ShardWriter {
    /// Starts a shard; its tokens and conditions are then put in, in any order.
    pub fn create(path: &Path, force: bool, meta: &ShardMeta, scales: &Scales) -> Result<Self> {
        Self::new(path, force, meta, scales, false)
    }

    /// The same; with `signal`, that has to be put in too.
    pub fn new(path: &Path, force: bool, meta: &ShardMeta, scales: &Scales, signal: bool) -> Result<Self> {
        let (n_channel, n_timestep) = (meta.info.n_channel(), meta.info.n_timestep);
        let spec = |name, dtype, shape: &[usize]| Spec { name, dtype, shape: shape.to_vec() };
        let mut specs = vec![
            spec("tokens", Dtype::U8, &[n_channel, n_timestep]),
            spec("condition", Dtype::U16, &[n_timestep]),
            spec("centre", Dtype::F64, &[n_channel]),
            spec("spread", Dtype::F64, &[n_channel]),
            spec("peak", Dtype::F64, &[n_channel]),
        ];
        if signal {
            specs.push(spec("signal", Dtype::F32, &[n_channel, n_timestep]));
        }
        let mut writer = Writer::create(path, force, KIND, meta, &specs)?;
        for (name, values) in [("centre", &scales.centre), ("spread", &scales.spread), ("peak", &scales.peak)] {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            writer.put(name, 0, &bytes)?;
        }
        Ok(Self { writer, n_timestep })
    }

    /// Writes tokens of one channel from timestep `start` on.
    pub fn tokens(&mut self, channel: usize, start: usize, tokens: &[u8]) -> Result<()> {
        self.writer.put("tokens", channel * self.n_timestep + start, tokens)
    }

    /// Writes one channel's signal.
    pub fn signal(&mut self, channel: usize, signal: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = signal.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.writer.put("signal", 4 * channel * self.n_timestep, &bytes)
    }

    /// Writes conditions from timestep `start` on.
    pub fn conditions(&mut self, start: usize, conditions: &[u16]) -> Result<()> {
        let bytes: Vec<u8> = conditions.iter().flat_map(|condition| condition.to_le_bytes()).collect();
        self.writer.put("condition", 2 * start, &bytes)
    }

    /// Makes it durable and reads it back, under its temporary name still.
    pub fn seal(&mut self) -> Result<()> {
        self.writer.seal()
    }

    /// Gives the sealed shard its name.
    pub fn publish(self) -> Result<()> {
        self.writer.publish()
    }
}

/// An open shard.
pub struct Shard {
    /// What it says of itself.
    pub meta: ShardMeta,
    /// The scales of its recording.
    pub scales: Scales,
    container: Container,
}

impl Shard {
    /// Opens and validates; nothing of the tokens is read yet.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of_container(Container::open(path, KIND)?).map_err(|e| e.at(path))
    }

    /// Validates what a container of kind `tokens` says.
    fn of_container(container: Container) -> Result<Self> {
        let meta: ShardMeta = container.meta()?;
        let corrupt = |e: Error| Error::new(Kind::Corrupt, format!("the shard contradicts itself: {e}"));
        meta.info.check().map_err(corrupt)?;
        meta.scheme.check().map_err(corrupt)?;
        ensure!(meta.conditions.len() <= usize::from(u16::MAX), Kind::Corrupt, "too many conditions");
        let (n_channel, n_timestep) = (meta.info.n_channel(), meta.info.n_timestep);
        let mut last = 0;
        for stretch in &meta.excluded {
            let sound = last <= stretch.start && stretch.start < stretch.end && stretch.end <= n_timestep;
            ensure!(sound, Kind::Corrupt, "an excluded stretch {stretch:?} of {n_timestep} timesteps makes no sense");
            last = stretch.end;
        }
        for (name, dtype, wanted) in [
            ("tokens", Dtype::U8, vec![n_channel, n_timestep]),
            ("condition", Dtype::U16, vec![n_timestep]),
            ("centre", Dtype::F64, vec![n_channel]),
            ("spread", Dtype::F64, vec![n_channel]),
            ("peak", Dtype::F64, vec![n_channel]),
        ] {
            let shape = container.shape(name, dtype)?;
            ensure!(shape == wanted, Kind::Corrupt, "tensor {name} has the shape {shape:?} instead of {wanted:?}");
        }
        if container.names().iter().any(|name| name == "signal") {
            let shape = container.shape("signal", Dtype::F32)?;
            let wanted = [n_channel, n_timestep];
            ensure!(shape == wanted, Kind::Corrupt, "tensor signal has the shape {shape:?} instead of {wanted:?}");
        }
        let values = |name| -> Result<Vec<f64>> {
            let bytes = container.bytes(name)?.as_chunks().0;
            Ok(bytes.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect())
        };
        let scales = Scales { centre: values("centre")?, spread: values("spread")?, peak: values("peak")? };
        let clip = meta.scheme.clip;
        for (channel, sensor) in meta.info.channels.iter().enumerate() {
            let scale = scales.channel(channel);
            let sound = scale.centre.is_finite() && scale.spread.is_normal() && scale.spread > 0.0;
            let sound = sound && scale.peak > 0.0 && scale.peak <= clip;
            ensure!(sound, Kind::Corrupt, "the scale of channel {} makes no sense: {scale:?}", sensor.name);
        }
        Ok(Self { meta, scales, container })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.container.path()
    }

    /// Timesteps.
    pub fn n_timestep(&self) -> usize {
        self.meta.info.n_timestep
    }

    /// The stretches that hold usable signal, in order.
    pub fn kept(&self) -> Vec<Range<usize>> {
        marks::kept(0..self.n_timestep(), &self.meta.excluded)
    }

    /// Copies channel `channel`, timesteps `start .. start + out.len()`.
    pub fn tokens(&self, channel: usize, start: usize, out: &mut [u8]) -> Result<()> {
        self.check_stretch(channel, start, out.len())?;
        out.copy_from_slice(self.container.range("tokens", channel * self.n_timestep() + start, out.len())?);
        let n_level = self.meta.scheme.n_level;
        if let Some(token) = out.iter().find(|&&token| usize::from(token) >= n_level) {
            let what = format!("a token {token} where there are {n_level} levels");
            return Err(Error::new(Kind::Corrupt, what).at(self.path()));
        }
        Ok(())
    }

    /// Copies the conditions of timesteps `start .. start + out.len()`.
    pub fn conditions(&self, start: usize, out: &mut [u16]) -> Result<()> {
        self.check_stretch(0, start, out.len())?;
        let bytes = self.container.range("condition", 2 * start, 2 * out.len())?.as_chunks().0;
        for (condition, &bytes) in out.iter_mut().zip(bytes) {
            *condition = u16::from_le_bytes(bytes);
        }
        let n_condition = self.meta.conditions.len();
        if let Some(condition) = out.iter().find(|&&condition| usize::from(condition) > n_condition) {
            let what = format!("a condition {condition} where there are {n_condition}");
            return Err(Error::new(Kind::Corrupt, what).at(self.path()));
        }
        Ok(())
    }

    /// Checks every byte: all checksums, and that every token and condition is one that can be.
    pub fn verify(&self) -> Result<()> {
        self.container.verify()?;
        let n_timestep = self.n_timestep();
        let mut tokens = vec![0; n_timestep];
        for channel in 0..self.meta.info.n_channel() {
            self.tokens(channel, 0, &mut tokens)?;
        }
        self.conditions(0, &mut vec![0; n_timestep])
    }

    /// Whether the prepared signal itself was kept beside the tokens (`gpt2meg tokenize --keep-signal`).
    pub fn has_signal(&self) -> bool {
        self.container.names().iter().any(|name| name == "signal")
    }

    /// Copies the signal of channel `channel`, in SI units, timesteps `start .. start + out.len()`.
    pub fn signal(&self, channel: usize, start: usize, out: &mut [f32]) -> Result<()> {
        self.check_stretch(channel, start, out.len())?;
        let at = 4 * (channel * self.n_timestep() + start);
        let bytes = self.container.range("signal", at, 4 * out.len())?.as_chunks().0;
        out.iter_mut().zip(bytes).for_each(|(x, &bytes)| *x = f32::from_le_bytes(bytes));
        if !out.iter().all(|x| x.is_finite()) {
            return Err(Error::new(Kind::Corrupt, "a sample of the signal is not finite").at(self.path()));
        }
        Ok(())
    }

    fn check_stretch(&self, channel: usize, start: usize, len: usize) -> Result<()> {
        let (n_channel, n_timestep) = (self.meta.info.n_channel(), self.n_timestep());
        let inside = channel < n_channel && start.checked_add(len).is_some_and(|end| end <= n_timestep);
        ensure!(
            inside,
            Kind::Internal,
            "asked for {len} timesteps at {start} of channel {channel} in a shard of {n_channel} × {n_timestep}"
        );
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::recording::{Channel, ChannelKind, Event};
    use std::path::PathBuf;

    /// A description of `n_channel` magnetometers at 100 Hz.
    pub fn info(n_channel: usize, n_timestep: usize) -> Info {
        let channel = |i| Channel {
            name: format!("MEG {i:03}"),
            kind: ChannelKind::Mag,
            loc: [0.1; 12],
            coil_type: 3022,
            coord_frame: 1,
            bad: false,
        };
        Info {
            channels: (0..n_channel).map(channel).collect(),
            sfreq: 100.0,
            n_timestep,
            first_timestep: 7,
            events: vec![Event { onset: n_timestep / 2, duration: 0, label: "face".into() }],
            subject: Some("01".into()),
            pass_band: (0.5, 45.0),
            meas_date: None,
            line_freq: Some(50.0),
            dev_head_t: None,
            dig: vec![],
            description: None,
            source: "test".into(),
        }
    }

    /// A token that depends on everything.
    pub fn token(channel: usize, time: usize) -> u8 {
        (channel * 31 + time * 7 + time / 50) as u8
    }

    /// Writes a shard to `folder/RECORDING_SPLIT.safetensors`, after `change` has been at its metadata.
    pub fn write_shard(
        folder: &Path,
        recording: &str,
        split: Split,
        n_channel: usize,
        n_timestep: usize,
        change: impl FnOnce(&mut ShardMeta),
    ) -> PathBuf {
        let mut meta = ShardMeta {
            info: info(n_channel, n_timestep),
            split,
            recording: recording.into(),
            scheme: Scheme::PAPER,
            conditions: vec!["face".into(), "house".into()],
            excluded: Vec::new(),
            tokenization: Tokenization::default(),
            version: "test".into(),
        };
        change(&mut meta);
        let scales = Scales {
            centre: (0..n_channel).map(|c| c as f64 * 1e-14).collect(),
            spread: vec![2e-13; n_channel],
            peak: vec![10.0; n_channel],
        };
        let path = folder.join(format!("{recording}_{}.safetensors", split.name()));
        let mut writer = ShardWriter::create(&path, false, &meta, &scales).unwrap();
        for channel in 0..n_channel {
            let tokens: Vec<u8> = (0..n_timestep).map(|time| token(channel, time)).collect();
            writer.tokens(channel, 0, &tokens).unwrap();
        }
        writer.conditions(0, &(0..n_timestep).map(|time| (time / 10 % 3) as u16).collect::<Vec<_>>()).unwrap();
        writer.seal().unwrap();
        writer.publish().unwrap();
        path
    }

    #[test]
    fn round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_shard(folder.path(), "a", Split::Test, 3, 100, |_| ());
        let shard = Shard::open(&path).unwrap();
        shard.verify().unwrap();
        assert_eq!((shard.meta.split, shard.n_timestep(), &shard.meta.info), (Split::Test, 100, &info(3, 100)));
        let mut tokens = [0; 20];
        shard.tokens(2, 80, &mut tokens).unwrap();
        assert_eq!(tokens, std::array::from_fn(|i| token(2, 80 + i)));
        let mut conditions = [9; 12];
        shard.conditions(8, &mut conditions).unwrap();
        assert_eq!(conditions, [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(shard.tokens(2, 81, &mut tokens).unwrap_err().kind(), Kind::Internal);
        assert_eq!(shard.tokens(3, 0, &mut tokens).unwrap_err().kind(), Kind::Internal);
    }

    #[test]
    fn contradictions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let levels = write_shard(folder.path(), "levels", Split::Train, 2, 100, |m| m.scheme.n_level = 200);
        let conditions = write_shard(folder.path(), "conditions", Split::Train, 2, 100, |m| m.conditions.truncate(1));
        for path in [&levels, &conditions] {
            assert_eq!(Shard::open(path).unwrap().verify().unwrap_err().kind(), Kind::Corrupt);
        }
        let shard = Shard::open(&levels).unwrap();
        assert_eq!(shard.tokens(0, 0, &mut [0; 100]).unwrap_err().kind(), Kind::Corrupt);
        let clip = write_shard(folder.path(), "clip", Split::Train, 2, 100, |m| m.scheme.clip = 4.0);
        let twice = write_shard(folder.path(), "twice", Split::Train, 2, 100, |m| {
            m.info.channels[1].name = m.info.channels[0].name.clone();
        });
        let outside = write_shard(folder.path(), "outside", Split::Train, 2, 100, |m| m.excluded = vec![0..9, 90..101]);
        let reversed =
            write_shard(folder.path(), "reversed", Split::Train, 2, 100, |m| m.excluded = vec![50..60, 9..9]);
        for path in [clip, twice, outside, reversed] {
            assert_eq!(Shard::open(&path).err().unwrap().kind(), Kind::Corrupt);
        }
    }
}
