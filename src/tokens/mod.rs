//! Tokens: scaling and companding, shards on disk, and the windows that training draws from them.

pub mod dataset;
pub mod fit;
pub mod scheme;
pub mod shard;
pub mod window;
