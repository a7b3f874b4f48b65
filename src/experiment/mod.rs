//! A whole comparison from one file: which parts it has, what each depends on, what comes out as one table.
//!
//! [`plan`] reads the file, [`parts`] makes of it a list of command lines with their keys, [`record`] remembers which of
//! them are done, [`table`] makes one table of the report that they end in. Nothing here runs anything: that is
//! `gpt2meg experiment`, which calls the other commands as a user would.

pub mod parts;
pub mod plan;
pub mod record;
pub mod table;
pub mod words;
