//! From recordings to the report: what is compared, what is said about it, what is written.

use super::battery::Wanted;
use super::bootstrap::{self, Blocks};
use super::chart::{Axis, Chart};
use super::control::Control;
use super::measure::{Measured, Source};
use super::next_step::{self, Scores};
use super::page::{self, Head};
use super::section::{Comparison, Distance, Draws, Figure, Layout, Measure, Quantity, Section, series};
use super::surrogate::{Surrogate, surrogate};
use super::svg::escape;
use super::text::{brief, duration, listed, significant, unique_slug};
use super::{amplitude, autocorrelation, covariance, envelope, health, spectrum, traces};
use crate::error::{Error, Kind, Result};
use crate::recording::Block;
use crate::storage::atomic;
use crate::tokens::scheme::Scheme;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What is to be compared.
pub struct Inputs {
    /// The real recording; several pieces are parts that follow each other.
    pub real: Source,
    /// One or more generated recordings, of different labels.
    pub generated: Vec<Source>,
    /// Scores of models, each under its name.
    pub scores: Vec<(String, Scores)>,
    /// The tokenizer that the control of the sampler uses.
    pub scheme: Scheme,
    /// False if nothing says that this is the generated recordings' tokenizer.
    pub scheme_is_known: bool,
    /// Nuclei that the control of the sampler shows beside p = 1.
    pub top_p: Vec<f32>,
    /// Measures that take passes of their own.
    pub wanted: Wanted,
    /// Seed of the control.
    pub seed: u64,
}

/// The finished comparison.
pub struct Report {
    comparison: Comparison,
    sections: Vec<Section>,
    /// How many of them come before the summary.
    opening: usize,
    scheme_is_known: bool,
    seed: u64,
}

impl Report {
    /// Measures everything. `progress` hears of every timestep read (see [`Inputs::work`]) and may end it with an error.
    pub fn new(inputs: Inputs, progress: &mut dyn FnMut(usize) -> Result<()>) -> Result<Self> {
        let Inputs { mut real, mut generated, scores, scheme, scheme_is_known, top_p, wanted, seed } = inputs;
        for source in &generated {
            check_alike(&real, source)?;
        }
        let n = real.n_timestep();
        let segment = crate::statistics::welch::segment_len(real.info().sfreq);
        let shortest = generated.iter().map(Source::n_timestep).min().unwrap_or(0);
        check_length(&real, 2 * segment, "two segments of a spectrum, one in each half")?;
        for source in &generated {
            check_length(source, segment, "one segment of a spectrum")?;
        }
        // What is compared has one length: the more data, the less two recordings of one process differ.
        let stretch = (n / 2).min(shortest);
        let scale = real.scale(&mut *progress)?;
        let [whole, a, b] =
            real.measure_parts(&scale, [(0, n), (0, stretch), (n / 2, n / 2 + stretch)], &mut *progress)?;
        let distances = distances(&whole);
        let reference = Blocks::of(&mut real, &scale, 0..stretch, progress)?;
        // Draws of what is held against the reference, the `recording`th of them.
        let drawn = |source: &mut Source, range, recording, progress: &mut dyn FnMut(usize) -> Result<()>| {
            let Some(reference) = &reference else { return Ok(None) };
            let blocks = Blocks::of(source, &scale, range, progress)?;
            let draws = blocks.map(|blocks| reference.draws(&blocks, &distances, seed, recording));
            Ok(draws.map(|draws| distances.iter().map(|d| d.key).zip(draws).collect()))
        };
        let mut draws = Draws { ceiling: drawn(&mut real, n / 2..n / 2 + stretch, 1, progress)?, ..Draws::default() };
        let mut excerpts = vec![excerpt(&mut real)?];
        let (mut measured, mut stretches) = (Vec::new(), Vec::new());
        for (index, source) in generated.iter_mut().enumerate() {
            draws.generated.push(drawn(source, 0..stretch, 2 + index, progress)?);
            let n = source.n_timestep();
            let [whole, part] = source.measure_parts(&scale, [(0, n), (0, stretch)], &mut *progress)?;
            measured.push(whole);
            stretches.push(part);
            excerpts.push(excerpt(source)?);
        }
        // Of the second stretch, held against the first: what chance does to the ceiling it does to them, too.
        let mut references = Vec::new();
        for (index, kind) in [Surrogate::Phases, Surrogate::Channels].into_iter().enumerate() {
            let mut made = surrogate(&mut real, n / 2..n / 2 + stretch, kind, seed, progress)?;
            draws.references.push(drawn(&mut made, 0..stretch, 2 + generated.len() + index, progress)?);
            references.push(made.measure(&scale, &mut *progress)?);
        }
        let more = wanted.sections(&mut real, &mut generated, &scale, progress)?;
        let info = real.info();
        let comparison = Comparison {
            sides: ("real", "generated"),
            channels: info.channels.clone(),
            sfreq: info.sfreq,
            scale,
            real: whole,
            halves: [a, b],
            generated: measured,
            stretches,
            references,
            draws,
            excerpts,
        };
        let control = Control::new(&comparison, &scheme, &top_p, seed)?;
        let mut sections = vec![
            traces::section(&comparison),
            spectrum::section(&comparison),
            amplitude::section(&comparison),
            autocorrelation::section(&comparison),
            envelope::section(&comparison),
            covariance::section(&comparison),
            health::section(&comparison),
            control.section(),
        ];
        let before_control = sections.len() - 1;
        sections.splice(before_control..before_control, more);
        if !scores.is_empty() {
            sections.push(next_step::section(&scores));
        }
        Ok(Self { comparison, sections, opening: 0, scheme_is_known, seed })
    }

    /// Puts a section before all others, and before the summary.
    pub fn open_with(&mut self, section: Section) {
        self.sections.insert(0, section);
        self.opening = 1;
    }

    /// All numbers. Keys are sorted, so equal comparisons give equal files.
    pub fn json(&self) -> Value {
        let c = &self.comparison;
        let describe = |m: &Measured| json!({"label": m.label, "source": m.origin, "n_timestep": m.n_timestep});
        let labels: Vec<&str> = c.generated.iter().map(|m| m.label.as_str()).collect();
        let sections = self.sections.iter().map(|section| {
            let measures: Map<String, Value> = section.measures.iter().map(|m| (m.key.into(), json!(m))).collect();
            let quantities: Map<String, Value> = section.quantities.iter().map(|q| (q.key.into(), json!(q))).collect();
            let columns = if section.columns.is_empty() { json!(labels) } else { json!(section.columns) };
            let mut all = section.numbers.clone();
            if !measures.is_empty() {
                all.extend([
                    ("generated".to_string(), columns),
                    ("measures".to_string(), measures.into()),
                    ("quantities".to_string(), quantities.into()),
                ]);
            }
            (section.id.to_string(), Value::Object(all))
        });
        json!({
            "format": "gpt2meg report 1",
            "version": env!("CARGO_PKG_VERSION"),
            "seed": self.seed,
            "sfreq": c.sfreq,
            "channels": c.channels.iter().map(|channel| &channel.name).collect::<Vec<_>>(),
            "real": describe(&c.real),
            "generated": c.generated.iter().map(describe).collect::<Vec<_>>(),
            "references": c.references.iter().map(|m| &m.label).collect::<Vec<_>>(),
            "compared_n_timestep": c.halves[0].n_timestep,
            "scheme_is_known": self.scheme_is_known,
            "ceiling": {"first_n_timestep": c.halves[0].n_timestep, "second_n_timestep": c.halves[1].n_timestep},
            "sections": sections.collect::<Map<String, Value>>(),
        })
    }

    /// The page.
    pub fn html(&self) -> String {
        page::render(&self.head(), &self.sections)
    }

    /// The distances that the summary is about: the first measure of each of these sections.
    fn headline(&self) -> Vec<&Measure> {
        let of = |id| self.sections.iter().find(|s| s.id == id).and_then(|s| s.measures.first());
        ["spectrum", "amplitude", "autocorrelation"].into_iter().filter_map(of).collect()
    }

    fn head(&self) -> Head {
        let c = &self.comparison;
        let length = |m: &Measured| duration(m.n_timestep as f64 / c.sfreq);
        let groups = c.groups();
        let kinds: Vec<String> =
            groups.iter().map(|g| format!("{} {}", g.channels.len(), g.name.to_lowercase())).collect();
        let mut facts = vec![
            (
                c.channels.len().to_string(),
                if groups.len() > 1 { listed(&kinds) } else { groups[0].name.to_lowercase() },
            ),
            (format!("{} Hz", brief(c.sfreq)), "sampling rate".into()),
            (length(&c.real), "real recording".into()),
        ];
        let first = &c.generated[0];
        match c.generated.iter().all(|m| m.n_timestep == first.n_timestep) && c.generated.len() > 2 {
            true => facts.push((length(first), format!("generated by each of {}", c.generated.len()))),
            false => facts.extend(c.generated.iter().map(|m| (length(m), format!("generated: {}", m.label)))),
        }
        let names: Vec<String> = c.generated.iter().map(|m| format!("<b>{}</b>", escape(&m.label))).collect();
        let lead = format!(
            "{} compared with the real recording <code>{}</code>, channel by channel. Beside every distance stands what \
             the real recording differs by from itself: its first {} against {} of its second half. Generated signal is \
             held against the same first stretch, over the same length: a perfect model comes out at 1.0 times that \
             ceiling, but for chance.",
            listed(&names),
            escape(&c.real.origin),
            length(&c.halves[0]),
            length(&c.halves[1])
        );
        let verdicts = c.generated.iter().enumerate().map(|(i, m)| (m.label.clone(), self.verdict(i))).collect();
        let footer = format!(
            "gpt2meg {} · seed {} · every number of this page and more is in <code>report.json</code>, the curves are in \
             <code>*.npy</code> beside it.",
            env!("CARGO_PKG_VERSION"),
            self.seed
        );
        Head {
            opening: self.opening,
            facts,
            lead,
            verdicts,
            figure: Some(self.overview()),
            notes: self.notes(),
            labels: c.generated.iter().map(|m| m.label.clone()).collect(),
            references: c.references.iter().map(|m| m.label.clone()).collect(),
            footer,
        }
    }

    /// One sentence for each headline distance, and one on the band that is farthest off.
    fn verdict(&self, index: usize) -> Vec<String> {
        let mut sentences: Vec<String> = self
            .headline()
            .iter()
            .map(|measure| {
                let spread = &measure.generated[index];
                let topic = measure.name.split(':').next().unwrap_or(measure.name);
                let unit = escape(&if measure.unit.is_empty() { String::new() } else { format!(" {}", measure.unit) });
                let (distance, ceiling) = (significant(spread.median), significant(measure.ceiling.median));
                let numbers = format!("{distance} against {ceiling}{unit}");
                match measure.ratio(spread) {
                    Some(ratio) => {
                        let class = page::class(ratio);
                        let words = match class {
                            "good" => "as close as real is to real",
                            "fair" => "near, but not real",
                            _ => "clearly different",
                        };
                        let times = page::times(ratio);
                        format!(
                            "{topic}: <span class=\"{class}\">{words}</span> ({times} times the ceiling: {numbers})."
                        )
                    }
                    None => format!("{topic}: {numbers}."),
                }
            })
            .collect();
        let all = self.sections.iter().filter(|s| s.id == "spectrum").flat_map(|s| &s.quantities);
        let bands = all.filter(|q| q.key.starts_with("power_ratio"));
        let size = |q: &&Quantity| q.generated[index].median.abs();
        if let Some(band) = bands.max_by(|a, b| size(a).total_cmp(&size(b))) {
            let decibel = significant(band.generated[index].median);
            sentences.push(format!("Power is farthest off in {}: {decibel} dB (median channel).", escape(band.name)));
        }
        sentences
    }

    /// How many times the ceiling each distance is.
    fn overview(&self) -> Figure {
        let c = &self.comparison;
        let measures: Vec<&Measure> =
            self.sections.iter().filter(|s| s.id != "control").flat_map(|s| &s.measures).collect();
        let ratios = |m: &Measure| m.generated.iter().map(|s| m.ratio(s)).collect::<Vec<_>>();
        let all: Vec<f64> = measures.iter().flat_map(|m| ratios(m)).flatten().filter(|r| *r > 0.0).collect();
        let low = all.iter().copied().fold(0.7, f64::min) / 1.15;
        let high = all.iter().copied().fold(3.0, f64::max) * 1.15;
        let n = measures.len() as f64;
        let names: Vec<(f64, &str)> = measures.iter().enumerate().map(|(i, m)| (-(i as f64), short(m.name))).collect();
        let y = Axis::linear(-n + 0.4, 0.6, 1, "").with_ticks(&names);
        let x = Axis::log(low, high, "Times the real-against-real ceiling");
        let mut chart = Chart::with_left(150.0, 440.0, 70.0 + 34.0 * n, "How far from real", x, y);
        chart.vertical("zero", 1.0);
        for (row, measure) in measures.iter().enumerate() {
            for (i, (ratio, m)) in ratios(measure).iter().zip(&c.generated).enumerate() {
                let tooltip = format!("{}: {}", m.label, ratio.map_or("–".into(), page::times));
                chart.point(&series(i + 1), ratio.unwrap_or(f64::NAN), -(row as f64), &tooltip);
            }
        }
        let legend = c.legend().into_iter().skip(1).collect();
        let caption = "Median distance over channels as a multiple of the distance between two stretches of the real \
                       recording (dashed line)."
            .into();
        Figure { panels: vec![chart.finish()], layout: Layout::Single, legend, caption }
    }

    /// How long the stretches are that distances are taken between, and what of each recording is in none of them.
    pub fn lengths(&self) -> String {
        let c = &self.comparison;
        let seconds = |n: usize| duration(n as f64 / c.sfreq);
        let n = c.halves[0].n_timestep;
        let left = |name: &str, left: usize| (left > 0).then(|| format!("{} of {name}", seconds(left)));
        let of_real = left("the real recording", c.real.n_timestep - 2 * n);
        let of_generated = c.generated.iter().map(|m| left(&m.label, m.n_timestep - n));
        let cut: Vec<String> = std::iter::once(of_real).chain(of_generated).flatten().collect();
        let cut = if cut.is_empty() { "nothing".into() } else { listed(&cut) };
        format!("Distances are between stretches of {}; for them {cut} is left out.", seconds(n))
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "Where a recording was generated with p below 1, part of its difference is made by the sampler and would be \
             there with a perfect model: see <a href=\"#control\">what the sampler does by itself</a>."
                .to_string(),
            format!("{} What is drawn on the left of each figure, and powers by band, are those of whole recordings.", escape(&self.lengths())),
        ];
        if !self.scheme_is_known {
            notes.push(
                "Nothing says which tokenizer the generated recordings went through: the sampler’s control takes the \
                 paper’s."
                    .into(),
            );
        }
        notes
    }

    /// Writes the arrays, `report.json` and last `report.html` into `folder`, each as a whole or not at all.
    pub fn write(&self, folder: &Path, force: bool) -> Result<()> {
        let c = &self.comparison;
        let labels: Vec<String> = c.generated.iter().map(|measured| measured.label.clone()).collect();
        refuse_occupied(folder, &labels, force)?;
        std::fs::create_dir_all(folder).map_err(|e| Error::io(e, "create the folder", folder))?;
        let put = |name: &str, bytes: &[u8]| atomic::write(&folder.join(name), force, |file| file.write_at(0, bytes));
        let lags: Vec<f64> = (0..c.real.autocorrelations[0].len()).map(|lag| lag as f64 / c.sfreq).collect();
        put("frequencies.npy", &npy(std::slice::from_ref(&c.real.frequencies), true)?)?;
        put("lags.npy", &npy(std::slice::from_ref(&lags), true)?)?;
        let measured = [&c.real, &c.halves[0], &c.halves[1]].into_iter().chain(&c.generated);
        for (name, measured) in part_names(&labels).iter().zip(measured) {
            put(&format!("spectra-{name}.npy"), &npy(&measured.spectra, false)?)?;
            put(&format!("autocorrelation-{name}.npy"), &npy(&measured.autocorrelations, false)?)?;
        }
        for (name, bytes) in self.sections.iter().flat_map(|section| &section.files) {
            let path = folder.join(name);
            let within = path.parent().expect("a file in a folder");
            std::fs::create_dir_all(within).map_err(|e| Error::io(e, "create the folder", within))?;
            put(name, bytes)?;
        }
        let json = serde_json::to_string_pretty(&self.json()).expect("numbers and strings");
        put("report.json", format!("{json}\n").as_bytes())?;
        put("report.html", self.html().as_bytes())
    }
}

/// Refuses a folder that a report on recordings with these labels cannot be written to: it is a file, or files of the
/// report's are there and `force` is not given.
pub fn refuse_occupied(folder: &Path, labels: &[String], force: bool) -> Result<()> {
    if folder.exists() && !folder.is_dir() {
        let hint = "Give the name of a folder";
        return Err(Error::new(Kind::Exists, "a file of this name exists").at(folder).hint(hint));
    }
    let arrays = part_names(labels)
        .into_iter()
        .flat_map(|name| ["spectra", "autocorrelation"].map(|of| format!("{of}-{name}.npy")));
    let others = ["report.html", "report.json", "frequencies.npy", "lags.npy"].map(String::from);
    others.into_iter().chain(arrays).try_for_each(|name| atomic::refuse_existing(&folder.join(name), force))
}

/// Refuses a report whose folder has one of these folders already, unless `force` is given.
pub fn refuse_folders(folder: &Path, names: &[&str], force: bool) -> Result<()> {
    match names.iter().map(|name| folder.join(name)).find(|path| !force && path.exists()) {
        Some(path) => {
            let hint = "Give --force to replace what the report before this one wrote there";
            Err(Error::new(Kind::Exists, "the folder exists").at(path).hint(hint))
        }
        None => Ok(()),
    }
}

/// A part of a file name for each measured recording, the real one, its halves and those with `labels`: safe and unique.
fn part_names(labels: &[String]) -> Vec<String> {
    let mut names = ["real", "real-first", "real-second"].map(String::from).to_vec();
    for label in labels {
        names.push(unique_slug(label, &names));
    }
    names
}

impl Inputs {
    /// Timesteps that [`Report::new`] will read.
    pub fn work(&self) -> usize {
        let (n, generated) = (self.real.n_timestep(), self.generated.iter().map(Source::n_timestep));
        let stretch = generated.clone().min().unwrap_or(0).min(n / 2);
        // Blocks take a pass of their own: over the real recording two, one for each half.
        let again = usize::from(bootstrap::blocks(stretch, self.real.info().sfreq).is_some());
        let once = (2 + 2 * again) * n + (1 + again) * generated.sum::<usize>();
        let references = 2 * (n + (1 + again) * stretch);
        once + references + self.wanted.work(&self.real, &self.generated)
    }
}

/// Every distance between channels that a comparison has.
fn distances(real: &Measured) -> Vec<Distance> {
    let mut all = spectrum::distances(real);
    all.extend(amplitude::distances());
    all.extend(autocorrelation::distances());
    all.extend(envelope::distances(real.envelopes.len()));
    all.extend(covariance::distances());
    all
}

/// The part of a measure's name that fits beside a figure.
fn short(name: &str) -> &str {
    match name {
        "Spectrum: mean |log₁₀ ratio|" => "Spectrum",
        "Spectrum: shape (Jensen–Shannon)" => "Spectrum, shape",
        "Amplitudes: Wasserstein distance" => "Amplitudes",
        "Amplitudes: Kolmogorov–Smirnov" => "Amplitudes, largest gap",
        "Covariance: mean |difference of correlation|" => "Covariance",
        "Envelope, alpha: mean |difference of autocorrelation|" => "Envelope, alpha",
        "Envelope, beta: mean |difference of autocorrelation|" => "Envelope, beta",
        "States: Wasserstein distance of lifetimes" => "States, lifetimes",
        "States: |difference| of occupancy" => "States, occupancy",
        "States: |difference| of switching rate" => "States, switching",
        "Own states: Wasserstein distance of lifetimes" => "Own states, lifetimes",
        "Own states: |difference| of occupancy" => "Own states, occupancy",
        "Own states: |difference| of switching rate" => "Own states, switching",
        other => other.split(':').next().unwrap_or(other),
    }
}

/// The same channels in the same order, at the same rate, or an error that names the first difference.
fn check_alike(real: &Source, generated: &Source) -> Result<()> {
    let (a, b) = (real.info(), generated.info());
    let fail = |kind, what: String, hint: &str| Err(Error::new(kind, what).at(&b.source).hint(hint));
    if a.n_channel() != b.n_channel() {
        let what = format!("it has {} channels, the real recording {}", b.n_channel(), a.n_channel());
        return fail(Kind::ChannelMismatch, what, "Compare recordings of the same channels");
    }
    if let Some(i) = (0..a.n_channel()).find(|&i| a.channels[i].name != b.channels[i].name) {
        let (real, generated) = (&a.channels[i].name, &b.channels[i].name);
        let what = format!("channel {} is called {generated}, in the real recording {real}", i + 1);
        return fail(Kind::ChannelMismatch, what, "Compare recordings of the same channels, in the same order");
    }
    if (a.sfreq - b.sfreq).abs() > 1e-6 * a.sfreq {
        let what = format!("it is sampled at {} Hz, the real recording at {} Hz", b.sfreq, a.sfreq);
        let hint = "Nothing is resampled here, because that changes spectra: compare with the tokenized data the model was \
                    trained on, or resample one of them first";
        return fail(Kind::SamplingRate, what, hint);
    }
    Ok(())
}

fn check_length(source: &Source, least: usize, what: &str) -> Result<()> {
    let (n, sfreq) = (source.n_timestep(), source.info().sfreq);
    if n >= least {
        return Ok(());
    }
    let seconds = |n: usize| brief(n as f64 / sfreq);
    let what = format!("it lasts {} s, {} s are needed: {what}", seconds(n), seconds(least));
    Err(Error::new(Kind::TooShort, what).at(&source.info().source).hint("Give a longer recording"))
}

/// A few seconds from the middle of the longest piece.
fn excerpt(source: &mut Source) -> Result<Block> {
    let longest =
        (0..source.pieces.len()).max_by_key(|&i| source.pieces[i].info.n_timestep).expect("at least one piece");
    let piece = &mut source.pieces[longest];
    let n = ((traces::SECONDS * piece.info.sfreq).round() as usize + 1).min(piece.info.n_timestep);
    piece.read((piece.info.n_timestep - n) / 2, n)
}

/// Rows of equal length as a float64 array; a single row as a vector if `flat`.
fn npy(rows: &[Vec<f64>], flat: bool) -> Result<Vec<u8>> {
    use npyz::WriterBuilder;
    let (n, m) = (rows.len() as u64, rows[0].len() as u64);
    let shape: &[u64] = if flat { &[m] } else { &[n, m] };
    let mut bytes = Vec::new();
    let failed = |e| Error::new(Kind::Internal, format!("cannot lay out an array: {e}"));
    let mut writer =
        npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes).begin_nd().map_err(failed)?;
    rows.iter().try_for_each(|row| writer.extend(row)).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}
