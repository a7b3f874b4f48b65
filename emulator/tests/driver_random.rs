//! Random programs of copies and fills in several streams, ordered by events wherever two uses of a buffer need it.
//!
//! Whatever the seed, such a program must leave behind what the same operations do one after the other, in silence. With
//! one necessary wait left out, the race must be told. Which waits are necessary is found by following the edges of the
//! program, not by clocks as the driver does.

mod driver;

use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DriverError};
use driver::{context_with_seed, refused};
use proptest::prelude::*;

const STREAMS: usize = 3;
const BUFFERS: usize = 4;
const COUNT: usize = 16;

#[derive(Clone, Copy, Debug)]
enum Action {
    Fill {
        to: usize,
        value: u8,
    },
    Copy {
        from: usize,
        to: usize,
    },
    /// The host waits for a stream.
    Host,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    stream: usize,
    action: Action,
}

impl Step {
    fn uses(&self) -> Vec<(usize, bool)> {
        match self.action {
            Action::Fill { to, .. } => vec![(to, true)],
            Action::Copy { from, to } => vec![(from, false), (to, true)],
            Action::Host => Vec::new(),
        }
    }

    fn conflicts(&self, other: &Step) -> bool {
        let pairs = self.uses().into_iter().flat_map(|a| other.uses().into_iter().map(move |b| (a, b)));
        pairs.into_iter().any(|((one, writes), (two, also_writes))| one == two && (writes || also_writes))
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let action = prop_oneof![
        4 => (0..BUFFERS, any::<u8>()).prop_map(|(to, value)| Action::Fill { to, value }),
        6 => (0..BUFFERS, 0..BUFFERS).prop_filter_map("another", |(from, to)| (from != to).then_some(Action::Copy { from, to })),
        1 => Just(Action::Host),
    ];
    prop::collection::vec((0..STREAMS, action).prop_map(|(stream, action)| Step { stream, action }), 2..24)
}

/// What each step must come after: the edges of the program.
struct Program {
    steps: Vec<Step>,
    after: Vec<Vec<usize>>,
    /// Waits for an event: the waiting step, and the one before whose end the event stands.
    waits: Vec<(usize, usize)>,
}

impl Program {
    /// Orders all steps that conflict.
    fn ordered(steps: Vec<Step>) -> Program {
        let mut program = Program { after: vec![Vec::new(); steps.len()], waits: Vec::new(), steps };
        // The end of each stream, and what the host has waited for, which comes before everything submitted later.
        let mut last = [None; STREAMS];
        let mut known: Vec<usize> = Vec::new();
        for index in 0..program.steps.len() {
            let step = program.steps[index];
            if let Action::Host = step.action {
                known.extend(last[step.stream]);
                continue;
            }
            program.after[index] = last[step.stream].into_iter().chain(known.iter().copied()).collect();
            for earlier in (0..index).rev() {
                if program.steps[earlier].conflicts(&step) && !program.reaches(index, earlier, None) {
                    program.after[index].push(earlier);
                    program.waits.push((index, earlier));
                }
            }
            last[step.stream] = Some(index);
        }
        program
    }

    /// Whether a step comes after another, perhaps with one wait left out.
    fn reaches(&self, from: usize, to: usize, without: Option<(usize, usize)>) -> bool {
        let mut open = vec![from];
        while let Some(step) = open.pop() {
            for &before in self.after[step].iter().filter(|&&before| Some((step, before)) != without) {
                if before == to {
                    return true;
                }
                open.push(before);
            }
        }
        false
    }

    /// Waits without which some pair is not ordered.
    fn necessary(&self) -> Vec<(usize, usize)> {
        let alone = |&wait: &(usize, usize)| {
            let pairs = (0..self.steps.len()).flat_map(|later| (0..later).map(move |earlier| (later, earlier)));
            pairs.into_iter().any(|(later, earlier)| {
                self.steps[later].conflicts(&self.steps[earlier]) && !self.reaches(later, earlier, Some(wait))
            })
        };
        self.waits.iter().copied().filter(alone).collect()
    }

    /// What is left behind if the steps are done one after the other.
    fn expected(&self) -> Vec<[u8; COUNT]> {
        let mut buffers = vec![[0; COUNT]; BUFFERS];
        for step in &self.steps {
            match step.action {
                Action::Fill { to, value } => buffers[to] = [value; COUNT],
                Action::Copy { from, to } => buffers[to] = buffers[from],
                Action::Host => {}
            }
        }
        buffers
    }

    fn run(&self, context: &Arc<CudaContext>, without: Option<(usize, usize)>) -> Result<Vec<Vec<u8>>, DriverError> {
        let streams: Vec<Arc<CudaStream>> = (0..STREAMS).map(|_| context.new_stream()).collect::<Result<_, _>>()?;
        let mut buffers: Vec<CudaSlice<u8>> =
            (0..BUFFERS).map(|_| streams[0].alloc_zeros(COUNT)).collect::<Result<_, _>>()?;
        context.synchronize()?;
        let mut ends = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let stream = &streams[step.stream];
            for wait in self.waits.iter().filter(|wait| wait.0 == index && Some(**wait) != without) {
                let end: &Option<_> = &ends[wait.1];
                stream.wait(end.as_ref().unwrap())?;
            }
            match step.action {
                Action::Fill { to, value } => stream.memcpy_htod(&[value; COUNT], &mut buffers[to])?,
                Action::Copy { from, to } => {
                    let [from, to] = buffers.get_disjoint_mut([from, to]).unwrap();
                    stream.memcpy_dtod(from, to)?;
                }
                Action::Host => stream.synchronize()?,
            }
            ends.push(if let Action::Host = step.action { None } else { Some(stream.record_event(None)?) });
        }
        context.synchronize()?;
        buffers.iter().map(|buffer| streams[0].clone_dtoh(buffer)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ordered_programs_mean_one_thing_and_others_are_told(steps in steps(), seed in 0u64..1000, choice in any::<prop::sample::Index>()) {
        let program = Program::ordered(steps);
        let context = context_with_seed(seed);
        let left = program.run(&context, None);
        prop_assert!(left.is_ok(), "{left:?}");
        prop_assert_eq!(left.unwrap(), program.expected().iter().map(|buffer| buffer.to_vec()).collect::<Vec<_>>());
        let necessary = program.necessary();
        if !necessary.is_empty() {
            let context = context_with_seed(seed);
            let (status, text) = refused(program.run(&context, Some(*choice.get(&necessary))));
            prop_assert_eq!(status, CUresult::CUDA_ERROR_LAUNCH_FAILED, "{}", text);
            prop_assert!(text.contains("race between streams"), "{}", text);
        }
    }
}
