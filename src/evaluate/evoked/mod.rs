//! Evoked responses: what a condition's onset does to the signal, on average (the paper, section 5.4).
//!
//! The paper leaves open what its correlation is taken over. Here it is, for each channel, Pearson's correlation of two
//! averages over 0 to 1 s from the onset, without baseline correction: of all trials together, of each condition, and of
//! what a condition's average has that the mean of all conditions has not. A model that ignores its condition can have the
//! first two; only the last catches it.

pub mod figures;
pub mod responses;
pub mod section;
