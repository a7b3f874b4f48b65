//! Channel picks: which sensors of a recording are used.

use super::{Block, Channel, ChannelKind, Recording, Signal};
use crate::error::{Error, Kind, Result};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::str::FromStr;

/// One thing to pick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// Magnetometers.
    Mag,
    /// Gradiometers.
    Grad,
    /// Magnetometers and gradiometers.
    Meg,
    /// Electrodes on the scalp.
    Eeg,
    /// Everything but trigger lines.
    All,
    /// The channel of this name.
    Name(String),
}

impl FromStr for Pick {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        Ok(match text {
            "mag" => Self::Mag,
            "grad" => Self::Grad,
            "meg" => Self::Meg,
            "eeg" => Self::Eeg,
            "all" => Self::All,
            name => Self::Name(name.to_string()),
        })
    }
}

impl Pick {
    fn takes(&self, channel: &Channel) -> bool {
        match self {
            Self::Mag => channel.kind == ChannelKind::Mag,
            Self::Grad => channel.kind == ChannelKind::Grad,
            Self::Meg => matches!(channel.kind, ChannelKind::Mag | ChannelKind::Grad),
            Self::Eeg => channel.kind == ChannelKind::Eeg,
            Self::All => channel.kind != ChannelKind::Stim,
            Self::Name(name) => channel.name == *name,
        }
    }
}

/// Which channels to use. They keep the recording's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picks {
    /// What to take. Nothing means: MEG where there is any, else EEG, else all but trigger lines.
    pub include: Vec<Pick>,
    /// Names to leave out.
    pub exclude: Vec<String>,
    /// Whether to leave out the channels that are marked bad. The authors keep them.
    pub drop_bads: bool,
}

impl Picks {
    /// The rows of the channels picked, in order. Errors: a name to take that the recording lacks, or nothing left. (A
    /// name to leave out may be another recording's; see [`super::together::check_excluded`].)
    pub fn rows(&self, channels: &[Channel]) -> Result<Vec<usize>> {
        let there: BTreeSet<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
        let mut included = self.include.iter().filter_map(|pick| match pick {
            Pick::Name(name) => Some(name),
            _ => None,
        });
        if let Some(name) = included.find(|name| !there.contains(name.as_str())) {
            return Err(missing(name, channels));
        }
        let automatic = [Pick::Meg, Pick::Eeg, Pick::All];
        let include = if self.include.is_empty() {
            automatic.iter().find(|pick| channels.iter().any(|c| pick.takes(c))).map_or(&[][..], std::slice::from_ref)
        } else {
            &self.include
        };
        let taken = |c: &Channel| include.iter().any(|pick| pick.takes(c)) && !self.exclude.contains(&c.name);
        let rows: Vec<usize> = (0..channels.len()).filter(|&row| taken(&channels[row])).collect();
        if rows.is_empty() {
            let what = format!("no channel is left of {}: {}", channels.len(), kinds(channels));
            return Err(Error::new(Kind::EmptyRecording, what).hint("Choose others with --picks"));
        }
        let good: Vec<usize> = rows.iter().copied().filter(|&row| !channels[row].bad || !self.drop_bads).collect();
        if good.is_empty() {
            let what = format!("all {} channels picked are marked bad", rows.len());
            return Err(Error::new(Kind::EmptyRecording, what).hint("Keep the bad channels, or pick others"));
        }
        Ok(good)
    }
}

/// The error about a name that no channel has.
pub(super) fn missing(name: &str, channels: &[Channel]) -> Error {
    let first = channels.first().map_or("", |channel| &channel.name);
    let what = format!("there is no channel {name} among the {} (the first is {first})", channels.len());
    let hint = "Pick mag, grad, meg, eeg or all, or names as the recording spells them";
    Error::new(Kind::ChannelMismatch, what).hint(hint)
}

/// How many channels of each kind there are, as text: `102 Mag, 204 Grad`.
fn kinds(channels: &[Channel]) -> String {
    let mut counts: Vec<(ChannelKind, usize)> = Vec::new();
    for channel in channels {
        match counts.iter_mut().find(|(kind, _)| *kind == channel.kind) {
            Some((_, n)) => *n += 1,
            None => counts.push((channel.kind, 1)),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(kind, n)| format!("{n} {kind:?}")).collect();
    counts.join(", ")
}

/// The recording with these channels only.
pub fn pick(recording: Recording, picks: &Picks) -> Result<Recording> {
    let rows = picks.rows(&recording.info.channels).map_err(|e| e.at(&recording.info.source))?;
    let mut info = recording.info.clone();
    info.channels = rows.iter().map(|&row| info.channels[row].clone()).collect();
    recording.map(info, |inner| Box::new(Picked { inner, rows }))
}

struct Picked {
    inner: Box<dyn Signal>,
    rows: Vec<usize>,
}

impl Signal for Picked {
    fn read(&mut self, start: usize, n_timestep: usize) -> Result<Block> {
        Ok(self.inner.read(start, n_timestep)?.rows(&self.rows))
    }
}
