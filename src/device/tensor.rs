//! Handles: stretches of a device's buffers, and those that parameters and batches are made of.

/// What an element of a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Bytes; tokens.
    U8,
    /// Conditions.
    U16,
    /// Indices of channels and subjects.
    U32,
    /// Everything that is computed with.
    F32,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 | Self::F32 => 4,
        }
    }
}

/// A handle to a stretch of a device's buffer. It is `Copy` and carries no address; the device checks it when it is
/// resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tensor {
    /// The buffer's number on its device.
    pub buffer: u32,
    /// First element.
    pub offset: usize,
    /// Elements.
    pub len: usize,
    /// Type of the elements.
    pub dtype: Dtype,
}

impl Tensor {
    /// The `len` elements from `offset` on. Panics if they are not inside: a handle never grows.
    pub fn slice(self, offset: usize, len: usize) -> Tensor {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "a slice of {len} elements at {offset} leaves a tensor of {}",
            self.len
        );
        Tensor { offset: self.offset + offset, len, ..self }
    }
}

/// Embedding tables. Shapes: token [Q, E], position [n_ctx, E], channel [C, E], subject [S, E], condition [Y + 1, E].
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are the table's")]
pub struct EmbedParams {
    pub token: Tensor,
    pub position: Tensor,
    pub channel: Tensor,
    pub subject: Tensor,
    pub condition: Tensor,
}

/// The attention half-block: norm `[E]` + `[E]`, qkv `[E, 3E]` + `[3E]` (queries, keys, values; head h at columns h·D), proj
/// `[E, E]` + `[E]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are GPT-2's")]
pub struct AttentionParams {
    pub norm_weight: Tensor,
    pub norm_bias: Tensor,
    pub qkv_weight: Tensor,
    pub qkv_bias: Tensor,
    pub proj_weight: Tensor,
    pub proj_bias: Tensor,
}

/// The MLP half-block: norm `[E]` + `[E]`, fc `[E, 4E]` + `[4E]`, proj `[4E, E]` + `[E]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are GPT-2's")]
pub struct MlpParams {
    pub norm_weight: Tensor,
    pub norm_bias: Tensor,
    pub fc_weight: Tensor,
    pub fc_bias: Tensor,
    pub proj_weight: Tensor,
    pub proj_bias: Tensor,
}

impl AttentionParams {
    /// All of them, in the order of their names.
    pub fn tensors(&self) -> [Tensor; 6] {
        let Self { norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias } = *self;
        [norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias]
    }
}

impl MlpParams {
    /// All of them, in the order of their names.
    pub fn tensors(&self) -> [Tensor; 6] {
        let Self { norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias } = *self;
        [norm_weight, norm_bias, fc_weight, fc_bias, proj_weight, proj_bias]
    }
}

/// The head: final norm `[E]` + `[E]`, weight `[Q, E]` shared by all channels or `[C, Q, E]`; no bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are GPT-2's")]
pub struct HeadParams {
    pub norm_weight: Tensor,
    pub norm_bias: Tensor,
    pub weight: Tensor,
    pub per_channel: bool,
}

impl HeadParams {
    /// All of them, in the order of their names.
    pub fn tensors(&self) -> [Tensor; 3] {
        [self.norm_weight, self.norm_bias, self.weight]
    }
}

/// What a batch of N sequences is made of.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// u8 [N, T + 1]: the input at t is token t, its target is token t + 1.
    pub token: Tensor,
    /// u16 [N, T]: the condition that goes with input token t; 0 adds exactly zero.
    pub condition: Tensor,
    /// u32 `[N]`.
    pub channel: Tensor,
    /// u32 `[N]`.
    pub subject: Tensor,
}

impl Inputs {
    /// The sequences `first .. first + n`, of a batch with windows of `n_time` inputs.
    pub fn sequences(&self, first: usize, n: usize, n_time: usize) -> Inputs {
        Inputs {
            token: self.token.slice(first * (n_time + 1), n * (n_time + 1)),
            condition: self.condition.slice(first * n_time, n * n_time),
            channel: self.channel.slice(first, n),
            subject: self.subject.slice(first, n),
        }
    }
}
