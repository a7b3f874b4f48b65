//! What a machine reaches, beside what it could: the counts of kernels against the least possible, the time that each
//! resource of a card would need for them, and measured times of whole steps and rollouts.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`card`] | the rates of graphics cards |
//! | [`work`] | what a kernel does, in the units of those rates, and the time that takes at least |
//! | [`least`] | the least work that a step's kernels could do |
//! | [`stage`] | the stages of a step, one by one, and how often each is called |
//! | [`step`] | a training step of a model with random weights |
//! | [`measure`] | times of a step, its stages and kernels, and of a rollout, measured |
//! | [`history`] | measurements, a line of a CSV file each |
//! | [`page`] | tables for the terminal and for a browser |
//! | `count`, `table` | the same kernels counted by the emulator, in builds that have it |
//! | [`peak`] | multiplications and additions a second that the processor reaches in registers |

pub mod card;
#[cfg(feature = "emulated")]
pub mod count;
pub mod history;
pub mod least;
pub mod measure;
pub mod page;
pub mod peak;
pub mod stage;
pub mod step;
#[cfg(feature = "emulated")]
pub mod table;
pub mod work;
