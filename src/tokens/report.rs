//! What tokenising a recording cost, over all its channels: for people, for `tokenize.json`, and for `--max-error`.

use super::measure::{BANDS, ChannelReport, entropy_bits};
use super::scheme::Scheme;
use super::shard::Split;
use crate::error::{Error, Kind, Result};
use crate::recording::split::Parts;
use crate::statistics::quantile::median;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// Channels shown to people before the table is cut to the worst ones.
const SHOWN: usize = 32;

/// The report on one recording. The scales were fitted on the training part only; errors are over the whole recording
/// unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The recording's name within the data set.
    pub recording: String,
    /// Its subject, where known.
    pub subject: Option<String>,
    /// Sampling rate of the tokens, in Hz.
    pub sfreq: f64,
    /// Timesteps of the whole recording.
    pub n_timestep: usize,
    /// Which timesteps belong to which part, and why.
    pub parts: Parts,
    /// Timesteps that are excluded: gaps in the acquisition, and what is marked BAD.
    pub n_excluded: usize,
    /// What marks them, and how often.
    pub marks: BTreeMap<String, usize>,
    /// Trials of each condition.
    pub trials: Vec<(String, usize)>,
    /// The tokenizer.
    pub scheme: Scheme,
    /// Median over channels of the relative error.
    pub error_median: f64,
    /// The largest relative error of a channel.
    pub error_max: f64,
    /// The channel that has it.
    pub worst_channel: String,
    /// Fraction of samples beyond the clip, over all channels.
    pub clipped: f64,
    /// Levels that occur in any channel.
    pub n_level_used: usize,
    /// Entropy of the levels of all channels together, in bits.
    pub entropy_bits: f64,
    /// Every channel.
    pub channels: Vec<ChannelReport>,
}

impl Report {
    /// Fills in what follows from the channels; `counts` is the sum of their histograms.
    pub fn summarise(mut self, channels: Vec<ChannelReport>, counts: &[u64; 256]) -> Self {
        if let Some(worst) = channels.iter().max_by(|a, b| a.error.total_cmp(&b.error)) {
            (self.error_max, self.worst_channel) = (worst.error, worst.name.clone());
        }
        self.error_median = median(channels.iter().map(|channel| channel.error)).unwrap_or(0.0);
        self.clipped = channels.iter().map(|channel| channel.clipped).sum::<f64>() / channels.len() as f64;
        self.n_level_used = counts.iter().filter(|&&n| n > 0).count();
        self.entropy_bits = entropy_bits(counts);
        self.channels = channels;
        self
    }

    /// Refuses a recording of which a channel loses more than `limit`.
    pub fn check(&self, limit: f64) -> Result<()> {
        let mut over: Vec<&ChannelReport> = self.channels.iter().filter(|channel| channel.error > limit).collect();
        if over.is_empty() {
            return Ok(());
        }
        over.sort_by(|a, b| b.error.total_cmp(&a.error));
        let shown: Vec<String> =
            over.iter().take(5).map(|channel| format!("{} {}", channel.name, percent(channel.error))).collect();
        let more = if over.len() > 5 { format!(" and {} more", over.len() - 5) } else { String::new() };
        let limit = percent(limit);
        let what = format!("quantising loses more than {limit} of {} channels: {}{more}", over.len(), shown.join(", "));
        let clipped: f64 = over.iter().map(|channel| channel.clipped).sum::<f64>() / over.len() as f64;
        // Clipping and the spacing of the levels ask for opposite mends.
        let finer = "take more levels (--levels) or clip earlier (--clip)";
        let mend = match (clipped > 0.0, self.scheme.n_level < 256) {
            (false, true) => format!("None of their samples are clipped, so the levels are too far apart: {finer}"),
            (false, false) => {
                "None of their samples are clipped, so the levels are too far apart: clip earlier (--clip)".into()
            }
            (true, true) => format!(
                "If the levels are too far apart, {finer}; if it is the clipping ({} of their samples), clip later (--clip)",
                percent(clipped)
            ),
            (true, false) => format!("{} of their samples are clipped: clip later (--clip)", percent(clipped)),
        };
        let hint = format!("{mend}, leave these channels out (--exclude), or allow more (--max-error)");
        Err(Error::new(Kind::ReconstructionError, what).hint(hint))
    }

    /// Median over channels of the error in a part or a band, and the worst channel with its error.
    fn spread(&self, of: impl Fn(&ChannelReport) -> Option<f64>) -> Option<(f64, f64, &str)> {
        let median = median(self.channels.iter().filter_map(&of))?;
        let values = self.channels.iter().filter_map(|channel| Some((of(channel)?, channel.name.as_str())));
        let (max, name) = values.max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some((median, max, name))
    }

    fn write_errors(&self, f: &mut Formatter) -> fmt::Result {
        writeln!(f, "  relative error       median   worst   channel")?;
        let mut line = |what: &str, spread: Option<(f64, f64, &str)>| match spread {
            Some((median, max, name)) => {
                writeln!(f, "    {what:<17} {:>7} {:>7}   {name}", percent(median), percent(max))
            }
            None => Ok(()),
        };
        line("whole recording", self.spread(|channel| Some(channel.error)))?;
        for part in Split::ALL {
            line(part.name(), self.spread(|channel| channel.error_by_part.get(part.name()).copied()))?;
        }
        for (band, hz) in BANDS {
            let what = format!("{band} {}-{} Hz", hz.start, hz.end);
            line(&what, self.spread(|channel| channel.error_by_band.get(band).copied()))?;
        }
        Ok(())
    }

    /// Every channel, or the worst of many.
    fn write_channels(&self, f: &mut Formatter) -> fmt::Result {
        let mut channels: Vec<&ChannelReport> = self.channels.iter().collect();
        if channels.len() > SHOWN {
            channels.sort_by(|a, b| b.error.total_cmp(&a.error));
            channels.truncate(10);
            writeln!(f, "  the 10 worst channels of {} (tokenize.json has all)", self.channels.len())?;
        }
        let width = channels.iter().map(|channel| channel.name.chars().count()).max().unwrap_or(0).max(7);
        write!(f, "    {:<width$}   error", "channel")?;
        BANDS.iter().try_for_each(|(band, _)| write!(f, " {band:>9}"))?;
        writeln!(f, "   clipped  levels  bits")?;
        for channel in channels {
            write!(f, "    {:<width$} {:>7}", channel.name, percent(channel.error))?;
            for (band, _) in BANDS {
                let error = channel.error_by_band.get(band);
                write!(f, " {:>9}", error.map_or("-".into(), |&error| percent(error)))?;
            }
            let (clipped, n, bits) = (percent(channel.clipped), channel.n_level_used, channel.entropy_bits);
            writeln!(f, " {clipped:>9} {n:>7} {bits:>5.2}")?;
        }
        Ok(())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (n_channel, seconds) = (self.channels.len(), self.n_timestep as f64 / self.sfreq);
        writeln!(f, "{}: {n_channel} channels, {seconds:.1} s at {} Hz", self.recording, self.sfreq)?;
        writeln!(f, "  split {}", self.parts.rule)?;
        let marks: Vec<String> = self.marks.iter().map(|(label, n)| format!("{n} {label}")).collect();
        match self.n_excluded {
            0 => writeln!(f, "  nothing is excluded: no stretch is marked BAD or missing")?,
            n => writeln!(
                f,
                "  {:.1} s excluded ({}, of the whole): no window and no statistic touches them ({})",
                n as f64 / self.sfreq,
                percent(n as f64 / self.n_timestep as f64),
                marks.join(", ")
            )?,
        }
        writeln!(f, "  {}; fitted on the training part only", self.scheme)?;
        let n_trial: usize = self.trials.iter().map(|(_, n)| n).sum();
        writeln!(f, "  {n_trial} trials of {} conditions", self.trials.len())?;
        self.write_errors(f)?;
        writeln!(f, "  clipped              {} of the samples", percent(self.clipped))?;
        writeln!(f, "  levels used          {} of {}", self.n_level_used, self.scheme.n_level)?;
        writeln!(f, "  entropy              {:.2} bits", self.entropy_bits)?;
        let evoked = || self.channels.iter().filter_map(|channel| channel.evoked_correlation);
        if let Some(median) = median(evoked()) {
            let least = evoked().fold(f64::INFINITY, f64::min);
            writeln!(f, "  evoked responses     correlation {median:.5} (median), {least:.5} (least)")?;
        }
        self.write_channels(f)
    }
}

/// With three significant digits at least.
fn percent(x: f64) -> String {
    let x = 100.0 * x;
    if x == 0.0 {
        "0 %".into()
    } else if x < 0.01 {
        format!("{x:.0e} %")
    } else if x < 10.0 {
        format!("{x:.2} %")
    } else {
        format!("{x:.1} %")
    }
}
