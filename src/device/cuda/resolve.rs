//! From a stage's handles to what its launcher takes: pointers of checked length, and indices within their tables.

use super::kernel::Pointer;
use super::memory::{Slots, Stage};
use super::{GRAD_SLOTS, Part, attention, head, mlp, rollout};
use crate::device::{AttentionParams, Call, EmbedParams, HeadParams, Inputs, MlpParams, Tensor};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::model::config::ModelConfig;
use crate::model::layout::Parameters;

impl attention::Params {
    /// The pointers that `part` finds for handles and their lengths.
    pub(super) fn of(
        params: &AttentionParams,
        e: usize,
        mut part: impl FnMut(Tensor, usize) -> Resolved,
    ) -> Result<Self> {
        Ok(Self {
            norm_weight: part(params.norm_weight, e)?,
            norm_bias: part(params.norm_bias, e)?,
            qkv_weight: part(params.qkv_weight, 3 * e * e)?,
            qkv_bias: part(params.qkv_bias, 3 * e)?,
            proj_weight: part(params.proj_weight, e * e)?,
            proj_bias: part(params.proj_bias, e)?,
        })
    }
}

impl mlp::Params {
    /// The pointers that `part` finds for handles and their lengths.
    pub(super) fn of(params: &MlpParams, e: usize, mut part: impl FnMut(Tensor, usize) -> Resolved) -> Result<Self> {
        Ok(Self {
            norm_weight: part(params.norm_weight, e)?,
            norm_bias: part(params.norm_bias, e)?,
            fc_weight: part(params.fc_weight, 4 * e * e)?,
            fc_bias: part(params.fc_bias, 4 * e)?,
            proj_weight: part(params.proj_weight, 4 * e * e)?,
            proj_bias: part(params.proj_bias, e)?,
        })
    }
}

impl head::Params {
    /// The pointers that `part` finds for handles and their lengths, for `q` levels of width `e`.
    pub(super) fn of(
        params: &HeadParams,
        (q, e): (usize, usize),
        mut part: impl FnMut(Tensor, usize) -> Resolved,
    ) -> Result<Self> {
        let matrices = if params.per_channel { params.weight.len / (q * e) } else { 1 };
        Ok(Self {
            norm_weight: part(params.norm_weight, e)?,
            norm_bias: part(params.norm_bias, e)?,
            weight: part(params.weight, matrices.max(1) * q * e)?,
            matrices: matrices.max(1),
        })
    }
}

/// What a handle is resolved to.
type Resolved = Result<Pointer<f32>>;

/// Every handle of a network, in the order of its parts.
pub(super) fn tensors(params: &Parameters) -> Vec<Tensor> {
    let EmbedParams { token, position, channel, subject, condition } = params.embed;
    let blocks = params.blocks.iter().flat_map(|(attention, mlp)| [attention.tensors(), mlp.tensors()].concat());
    [token, position, channel, subject, condition].into_iter().chain(blocks).chain(params.head.tensors()).collect()
}

/// The parameters of a network of this configuration, to read.
pub(super) fn network(stage: &mut Stage, config: &ModelConfig, params: &Parameters) -> Result<rollout::Params> {
    let (e, q) = (config.d_model, config.n_level);
    let mut read = |tensor, len| stage.read(tensor, len);
    let tables = rollout::Tables {
        token: read(params.embed.token, q * e)?,
        position: read(params.embed.position, config.n_ctx * e)?,
        channel: read(params.embed.channel, config.n_channel * e)?,
        subject: read(params.embed.subject, config.n_subject * e)?,
        condition: read(params.embed.condition, (config.n_condition + 1) * e)?,
    };
    let blocks = params.blocks.iter().map(|(attention, mlp)| {
        Ok((attention::Params::of(attention, e, &mut read)?, mlp::Params::of(mlp, e, &mut read)?))
    });
    let blocks = blocks.collect::<Result<Vec<_>>>()?;
    let head = head::Params::of(&params.head, (q, e), &mut read)?;
    let enough = !params.head.per_channel || head.matrices == config.n_channel;
    ensure!(blocks.len() == config.n_layer && enough, Kind::Internal, "parameters of another network than {config:?}");
    Ok(rollout::Params { tables, blocks, head })
}

/// The part of the gradients' buffer that a call adds to.
pub(super) fn part(call: &Call, slots: &Slots) -> Part {
    Part { n: call.n, first: call.first, from: call.from, slots: GRAD_SLOTS, slot_len: slots.len }
}

/// What an embedding reads besides its tables.
pub(super) struct Indices {
    pub tokens: Pointer<u8>,
    pub conditions: Pointer<u16>,
    pub channels: Pointer<u32>,
    pub subjects: Pointer<u32>,
}

impl Indices {
    /// Checks that every index is within its table.
    pub fn new(stage: &mut Stage, call: &Call, tables: &EmbedParams, inputs: &Inputs) -> Result<Self> {
        let &Call { n, n_time: t, d_model: e, .. } = call;
        let (tokens, token) = stage.indices(inputs.token, n * (t + 1))?;
        let (conditions, condition) = stage.indices(inputs.condition, n * t)?;
        let (channels, channel) = stage.indices(inputs.channel, n)?;
        let (subjects, subject) = stage.indices(inputs.subject, n)?;
        for (name, table, most) in [
            ("token", tables.token, token),
            ("position", tables.position, t - 1),
            ("condition", tables.condition, condition),
            ("channel", tables.channel, channel),
            ("subject", tables.subject, subject),
        ] {
            ensure!(most < table.len / e, Kind::Internal, "{name} {most} is beyond its table");
        }
        Ok(Self { tokens, conditions, channels, subjects })
    }
}

/// The channels of a call, each of which must have a matrix where each has its own.
pub(super) fn channels(stage: &mut Stage, inputs: &Inputs, n: usize, params: &head::Params) -> Result<Pointer<u32>> {
    let (channel, most) = stage.indices(inputs.channel, n)?;
    let inside = params.matrices == 1 || most < params.matrices;
    ensure!(inside, Kind::Internal, "channel {most} has no head among {}", params.matrices);
    Ok(channel)
}
