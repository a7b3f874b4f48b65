//! Which measures `gpt2meg evaluate` takes beyond one pass over the recordings.

use crate::ensure;
use crate::error::{Kind, Result};
use crate::evaluate::battery::Wanted;
use crate::evaluate::decoding::network;
use crate::evaluate::dynamics;
use clap::Args;

/// Options of these measures.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Measures")]
pub struct More {
    /// Measures to leave out; hidden states take the longest.
    #[arg(long, value_enum, value_name = "MEASURE", num_args = 1.., value_delimiter = ',')]
    skip: Vec<Skip>,
    /// Number of hidden states.
    #[arg(long, value_name = "N", default_value_t = 12)]
    hmm_states: usize,
    /// Lags of the embedding that hidden states are found in, an odd number; 15 are 150 ms at 100 Hz.
    #[arg(long, value_name = "N", default_value_t = 15)]
    hmm_lags: usize,
    /// Principal components that hidden states are found in.
    #[arg(long, value_name = "N", default_value_t = 80)]
    hmm_components: usize,
    /// Beginnings of the search for hidden states; the best is finished.
    #[arg(long, value_name = "N", default_value_t = 3)]
    hmm_starts: usize,
    /// Let each hidden state have a mean of its own.
    #[arg(long)]
    hmm_means: bool,
    /// Look for hidden states a second time, without embedding.
    #[arg(long)]
    hmm_time_domain: bool,
    /// Decode with the paper's linear network, too: small and in minutes, or as large and as long as the paper's, which
    /// takes hours.
    #[arg(long, value_enum, value_name = "SIZE")]
    network: Option<Size>,
}

/// Sizes of the network that decodes.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Small.
    Quick,
    /// The paper's.
    Paper,
}

impl Size {
    fn options(self) -> network::Options {
        match self {
            Self::Quick => network::Options::QUICK,
            Self::Paper => network::Options::PAPER,
        }
    }
}

/// What can be left out.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Skip {
    /// Hidden states.
    Hmm,
    /// Evoked responses.
    Evoked,
    /// Decoding of conditions.
    Decoding,
}

impl More {
    /// What is to be computed.
    pub fn wanted(&self, seed: u64) -> Result<Wanted> {
        ensure!(self.hmm_lags % 2 == 1, Kind::Usage, "--hmm-lags {}: the lags must be an odd number", self.hmm_lags);
        ensure!((1..=255).contains(&self.hmm_states), Kind::Usage, "--hmm-states {}: 1 to 255", self.hmm_states);
        ensure!(self.hmm_components > 0, Kind::Usage, "--hmm-components 0: at least one is needed");
        ensure!(self.hmm_starts > 0, Kind::Usage, "--hmm-starts 0: at least one is needed");
        let options = dynamics::Options {
            n_state: self.hmm_states,
            n_lag: self.hmm_lags,
            n_component: self.hmm_components,
            means: self.hmm_means,
            n_init: self.hmm_starts,
            seed,
            ..dynamics::Options::default()
        };
        let mut all = Vec::new();
        if !self.skip.contains(&Skip::Hmm) {
            if self.hmm_time_domain && self.hmm_lags > 1 {
                all.push(dynamics::Options { n_lag: 1, ..options.clone() });
            }
            all.insert(0, options);
        }
        Ok(Wanted {
            dynamics: all,
            evoked: !self.skip.contains(&Skip::Evoked),
            decoding: !self.skip.contains(&Skip::Decoding),
            network: self.network.map(Size::options),
            seed,
        })
    }
}
