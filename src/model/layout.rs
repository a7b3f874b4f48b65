//! The one table of parameter names, shapes and offsets over one flat buffer.
//!
//! Parameters, gradients and both moments share it. Parameters that weight decay applies to (matrices and embedding
//! tables) come first, so that decay is a prefix; LayerNorm and biases follow. Names and shapes are GPT-2's as Hugging
//! Face stores them (`[in, out]` for the projections of a block, `[n_level, d_model]` for the head), so exporting
//! copies.

use super::config::{Head, ModelConfig};
use crate::device::{AttentionParams, EmbedParams, HeadParams, MlpParams, Tensor};

/// One parameter of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// GPT-2's name, with `wce`, `wse`, `wye` for channel, subject and condition.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// First element in the flat buffer.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
    /// How the parameter starts.
    pub init: Init,
}

/// How a parameter starts (paper 2.1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Normal with this mean and standard deviation.
    NormalAround {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        spread: f64,
    },
    /// Uniform between −bound and bound.
    Uniform(f64),
    /// All the same value.
    Constant(f32),
}

/// The table for one model shape.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamLayout {
    entries: Vec<Entry>,
    n_decayed: usize,
    len: usize,
    n_layer: usize,
    per_channel_head: bool,
}

/// The stages' parameters (or their gradients, or moments) as handles into one flat buffer.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Tables of the embedding.
    pub embed: EmbedParams,
    /// Each block's two halves.
    pub blocks: Vec<(AttentionParams, MlpParams)>,
    /// Final norm and output projection.
    pub head: HeadParams,
}

impl ParamLayout {
    /// The table for `config`, which has passed [`ModelConfig::check`].
    pub fn new(config: &ModelConfig) -> Self {
        let (e, q) = (config.d_model, config.n_level);
        let normal = Init::Normal(0.02);
        // Projections that add to the residual stream start smaller, the more of them there are (GPT-2).
        let residual = Init::Normal(0.02 / (2.0 * config.n_layer as f64).sqrt());
        let (zero, one) = (Init::Constant(0.0), Init::Constant(1.0));
        let heads = match config.head {
            Head::Shared => vec![q, e],
            Head::PerChannel => vec![config.n_channel, q, e],
        };

        let mut decayed = vec![
            ("wte".to_string(), vec![q, e], normal),
            ("wpe".to_string(), vec![config.n_ctx, e], normal),
            ("wce".to_string(), vec![config.n_channel, e], normal),
            ("wse".to_string(), vec![config.n_subject, e], normal),
            ("wye".to_string(), vec![config.n_condition + 1, e], normal),
        ];
        let mut plain = Vec::new();
        for layer in 0..config.n_layer {
            let name = |part: &str| format!("h.{layer}.{part}");
            decayed.push((name("attn.c_attn.weight"), vec![e, 3 * e], normal));
            decayed.push((name("attn.c_proj.weight"), vec![e, e], residual));
            decayed.push((name("mlp.c_fc.weight"), vec![e, 4 * e], normal));
            decayed.push((name("mlp.c_proj.weight"), vec![4 * e, e], residual));
            plain.push((name("ln_1.weight"), vec![e], one));
            plain.push((name("ln_1.bias"), vec![e], zero));
            plain.push((name("attn.c_attn.bias"), vec![3 * e], zero));
            plain.push((name("attn.c_proj.bias"), vec![e], zero));
            plain.push((name("ln_2.weight"), vec![e], one));
            plain.push((name("ln_2.bias"), vec![e], zero));
            plain.push((name("mlp.c_fc.bias"), vec![4 * e], zero));
            plain.push((name("mlp.c_proj.bias"), vec![e], zero));
        }
        decayed.push(("lm_head".to_string(), heads, normal));
        plain.push(("ln_f.weight".to_string(), vec![e], one));
        plain.push(("ln_f.bias".to_string(), vec![e], zero));

        let per_channel_head = config.head == Head::PerChannel;
        Self { n_layer: config.n_layer, per_channel_head, ..Self::tiled(decayed, plain) }
    }

    /// The table of a model that is no network.
    pub(super) fn none() -> Self {
        Self::tiled(Vec::new(), Vec::new())
    }

    /// The table of these parameters (name, shape, start), one after the other: first those that decay applies to.
    pub(super) fn tiled(decayed: Vec<(String, Vec<usize>, Init)>, plain: Vec<(String, Vec<usize>, Init)>) -> Self {
        let n_decayed = decayed.iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
        let mut len = 0;
        let entries = decayed
            .into_iter()
            .chain(plain)
            .map(|(name, shape, init)| {
                let entry = Entry { name, offset: len, len: shape.iter().product(), shape, init };
                len += entry.len;
                entry
            })
            .collect();
        Self { entries, n_decayed, len, n_layer: 0, per_channel_head: false }
    }

    /// Every parameter, in the order of the buffer.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Elements of the flat buffer.
    #[expect(clippy::len_without_is_empty, reason = "a model without parameters does not exist")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Elements that weight decay applies to: a prefix of the buffer.
    pub fn n_decayed(&self) -> usize {
        self.n_decayed
    }

    /// The entry called `name`, which must be one of the table's.
    pub fn entry(&self, name: &str) -> &Entry {
        self.entries.iter().find(|entry| entry.name == name).expect("a name of the table")
    }

    /// The stages' parameters in `buffer`, a flat buffer of this layout.
    pub fn bind(&self, buffer: Tensor) -> Parameters {
        let part = |name: &str| {
            let entry = self.entry(name);
            buffer.slice(entry.offset, entry.len)
        };
        let blocks = (0..self.n_layer).map(|layer| {
            let part = |name: &str| part(&format!("h.{layer}.{name}"));
            let attention = AttentionParams {
                norm_weight: part("ln_1.weight"),
                norm_bias: part("ln_1.bias"),
                qkv_weight: part("attn.c_attn.weight"),
                qkv_bias: part("attn.c_attn.bias"),
                proj_weight: part("attn.c_proj.weight"),
                proj_bias: part("attn.c_proj.bias"),
            };
            let mlp = MlpParams {
                norm_weight: part("ln_2.weight"),
                norm_bias: part("ln_2.bias"),
                fc_weight: part("mlp.c_fc.weight"),
                fc_bias: part("mlp.c_fc.bias"),
                proj_weight: part("mlp.c_proj.weight"),
                proj_bias: part("mlp.c_proj.bias"),
            };
            (attention, mlp)
        });
        Parameters {
            embed: EmbedParams {
                token: part("wte"),
                position: part("wpe"),
                channel: part("wce"),
                subject: part("wse"),
                condition: part("wye"),
            },
            blocks: blocks.collect(),
            head: HeadParams {
                norm_weight: part("ln_f.weight"),
                norm_bias: part("ln_f.bias"),
                weight: part("lm_head"),
                per_channel: self.per_channel_head,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_the_papers() {
        // Paper, section 2.1: 1,456,800 without subjects; ours has one subject row of 96.
        assert_eq!(ParamLayout::new(&ModelConfig::single(306, 1, 118)).len(), 1_456_800 + 96);
        assert_eq!(ParamLayout::new(&ModelConfig::group(306, 14, 118)).len(), 8_622_000);
    }

    #[test]
    fn entries_tile_the_buffer_and_decay_is_a_prefix() {
        let layout = ParamLayout::new(&ModelConfig::tiny(3, 2, 4));
        let mut next = 0;
        for entry in layout.entries() {
            assert_eq!(entry.offset, next);
            assert_eq!(entry.len, entry.shape.iter().product::<usize>());
            let decayed = !entry.name.contains("bias") && !entry.name.contains("ln_");
            assert_eq!(decayed, entry.offset < layout.n_decayed(), "{}", entry.name);
            next += entry.len;
        }
        assert_eq!(next, layout.len());
    }
}
