//! Tokens: scaling and companding, shards on disk, and the windows that training draws from them.

pub mod dataset;
mod decoded;
pub mod encode;
pub mod fit;
pub mod measure;
pub mod publish;
pub mod report;
pub mod scheme;
pub mod shard;
pub mod window;
