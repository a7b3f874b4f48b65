//! Reports on recordings in memory.

use gpt2meg::error::Result;
use gpt2meg::evaluate::battery::Wanted;
use gpt2meg::evaluate::measure::Source;
use gpt2meg::evaluate::report::{Inputs, Report};
use gpt2meg::recording::Recording;
use gpt2meg::tokens::scheme::Scheme;

/// Sources of one piece each.
pub fn sources(recordings: Vec<(&str, Recording)>) -> Vec<Source> {
    let source = |(label, piece): (&str, Recording)| Source { label: label.into(), pieces: vec![piece] };
    recordings.into_iter().map(source).collect()
}

/// What is to be compared; the rest as for a recording from the paper's tokenizer.
pub fn inputs(real: Vec<Recording>, generated: Vec<Source>, wanted: Wanted) -> Inputs {
    let real = Source { label: "real".into(), pieces: real };
    let (scores, scheme, top_p) = (Vec::new(), Scheme::PAPER, Vec::new());
    Inputs { real, generated, scores, scheme, scheme_is_known: true, top_p, wanted, seed: 1 }
}

/// The report, whose progress ends at its end and whose page has no number that is none.
pub fn report(inputs: Inputs) -> Result<Report> {
    let (work, mut done) = (inputs.work(), 0);
    let mut count = |n| {
        done += n;
        Ok(())
    };
    let report = Report::new(inputs, &mut count)?;
    assert_eq!(done, work, "progress ends at its end");
    assert!(!report.html().contains("NaN"));
    Ok(report)
}
