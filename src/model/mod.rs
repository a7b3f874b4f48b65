//! The models: their shapes, their parameters, and their networks as calls of a device's stages.

pub mod config;
pub mod export;
pub mod gpt2;
pub mod kind;
pub mod layout;
pub mod linear;
pub mod network;
pub mod wavenet;
