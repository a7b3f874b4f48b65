//! The models: configuration, the table of parameters, and the network itself.

pub mod config;
pub mod export;
pub mod gpt2;
pub mod layout;
