//! The measures that need more than one pass over the recordings: which are wanted, and what becomes of one that cannot be
//! computed.

use super::decoding;
use super::dynamics;
use super::evoked;
use super::measure::{Scale, Source};
use super::section::Section;
use super::svg::escape;
use crate::error::{Error, Kind, Result};

/// Which of them are wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Hidden states, once for each of these settings.
    pub dynamics: Vec<dynamics::Options>,
    /// Evoked responses.
    pub evoked: bool,
    /// Decoding of conditions.
    pub decoding: bool,
    /// The network among the decoders.
    pub network: Option<decoding::network::Options>,
    /// Seed of what is drawn again.
    pub seed: u64,
}

const EVOKED: (&str, &str) = ("evoked", "Evoked responses");
const DECODING: (&str, &str) = ("decoding", "Decoding");

impl Wanted {
    /// Timesteps of progress at most.
    pub fn work(&self, real: &Source, generated: &[Source]) -> usize {
        let lengths: Vec<usize> = generated.iter().map(Source::n_timestep).collect();
        let n = real.n_timestep();
        let evoked = if self.evoked { evoked::section::work(n, &lengths) } else { 0 };
        let decoding = if self.decoding { decoding::section::work(n, &lengths) } else { 0 };
        self.dynamics.iter().map(|options| dynamics::compare::work(n, &lengths, options)).sum::<usize>()
            + evoked
            + decoding
    }

    /// Top folders of the files they write.
    pub fn folders(&self) -> Vec<&'static str> {
        let hmm = self.dynamics.iter().map(|options| dynamics::section::names(options).0);
        hmm.chain(self.evoked.then_some(EVOKED.0)).collect()
    }

    /// Their sections. What cannot be computed from these recordings is a section that says why.
    pub fn sections(
        &self,
        real: &mut Source,
        generated: &mut [Source],
        scale: &Scale,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Section>> {
        let (work, mut done, mut sections) = (self.work(real, generated), 0, Vec::new());
        let mut count = |n: usize| {
            done += n;
            progress(n)
        };
        for options in &self.dynamics {
            let made = dynamics::section::section(real, generated, scale, options, &mut count);
            sections.push(or_why(made, dynamics::section::names(options))?);
        }
        if self.evoked {
            sections.push(or_why(evoked::section::section(real, generated, scale, self.seed, &mut count), EVOKED)?);
        }
        if self.decoding {
            let network = self.network.as_ref();
            let made = decoding::section::section(real, generated, scale, network, self.seed, &mut count);
            sections.push(or_why(made, DECODING)?);
        }
        progress(work.saturating_sub(done))?;
        Ok(sections)
    }
}

/// Whether an error says that a recording has not what a measure needs.
pub fn is_of_the_data(e: &Error) -> bool {
    matches!(e.kind(), Kind::TooShort | Kind::ZeroVariance | Kind::UnknownCondition)
}

/// The section, or one with the reason that there is none; what is wrong with more than this measure stays an error.
fn or_why(made: Result<Section>, (id, title): (&'static str, &str)) -> Result<Section> {
    match made {
        Err(e) if is_of_the_data(&e) => {
            let why = format!("This could not be computed: {}.", escape(&e.to_string()));
            let numbers = [("not_computed".to_string(), e.to_string().into())];
            Ok(Section {
                id,
                title: title.into(),
                text: vec![why],
                numbers: numbers.into_iter().collect(),
                ..Section::default()
            })
        }
        made => made,
    }
}
