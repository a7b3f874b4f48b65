//! Generation with a KV cache.

use super::Cpu;
use crate::device::Rollout;
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::layout::Parameters;

/// Generates one chunk: see [`crate::device::Device::rollout`].
pub(super) fn rollout(
    _cpu: &mut Cpu,
    _config: &ModelConfig,
    _params: &Parameters,
    _rollout: &Rollout,
    _tokens: &mut [u8],
    _logits: Option<&mut [f32]>,
) -> Result<()> {
    todo!("generation")
}
