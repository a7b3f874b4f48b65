//! The shape of a WaveNet, and the table of its parameters.

use crate::device::Tensor;
use crate::device::wavenet::{FirstParams, LayerParams, StackParams, WavenetHead, WavenetParams};
use crate::ensure;
use crate::error::{Kind, Result};
use crate::model::config::ModelConfig;
use crate::model::layout::{Init, ParamLayout};
use serde::{Deserialize, Serialize};

/// The shape of the network. Paper, sections 3.1 and 3.2; the preset `single` is its final configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WavenetConfig {
    /// Whether the summed skips are mapped across channels before the head (full-channel-mix).
    pub mix: bool,
    /// Dilated layers, after the first one, which looks at one timestep.
    pub n_layer: usize,
    /// Dilations are 1, 2, 4, … for so many layers, then begin again at 1.
    pub n_cycle: usize,
    /// Width of the residual stream, and of the gates.
    pub d_model: usize,
    /// Width of the skips.
    pub d_skip: usize,
    /// Width of the head's hidden layer.
    pub d_hidden: usize,
    /// Width of the tables of tokens.
    pub d_token: usize,
    /// Width of the conditions' embedding.
    pub d_condition: usize,
    /// Width of the subjects' embedding; 0 where there is one subject.
    pub d_subject: usize,
    /// Timesteps of a training window; its last half are targets, each with the whole receptive field before it. Even.
    pub n_ctx: usize,
    /// Levels of the quantiser.
    pub n_level: usize,
    /// Channels, each with a table of tokens of its own.
    pub n_channel: usize,
    /// Subjects.
    pub n_subject: usize,
    /// Conditions, not counting 0 (none), which adds exactly zero.
    pub n_condition: usize,
}

impl WavenetConfig {
    /// The paper's: twice seven dilated layers of width 128, receptive field 255. Windows of 510 timesteps give 255
    /// targets (the authors' give 256, so that theirs overlap by one).
    pub fn single(mix: bool, n_channel: usize, n_subject: usize, n_condition: usize) -> Self {
        Self { n_channel, n_subject, n_condition, ..Self::of_width(mix, 14, 7, 128, n_subject) }
    }

    /// A small one: minutes on a laptop, with the targets of the small GPT2MEG. Receptive field 63.
    pub fn tiny(mix: bool, n_channel: usize, n_subject: usize, n_condition: usize) -> Self {
        Self { n_channel, n_subject, n_condition, n_ctx: 128, ..Self::of_width(mix, 10, 5, 32, n_subject) }
    }

    /// A shape in the paper's proportions, with the shortest window that gives every target its receptive field.
    fn of_width(mix: bool, n_layer: usize, n_cycle: usize, d_model: usize, n_subject: usize) -> Self {
        let config = Self {
            mix,
            n_layer,
            n_cycle,
            d_model,
            d_skip: 0,
            d_hidden: 0,
            d_token: 0,
            d_condition: 10,
            d_subject: if n_subject > 1 { 10 } else { 0 },
            n_ctx: 0,
            n_level: 256,
            n_channel: 1,
            n_subject,
            n_condition: 0,
        };
        Self { n_ctx: 2 * config.n_receptive(), ..config.with_width(d_model) }
    }

    /// The same with another width, and all others in the paper's proportion to it.
    pub fn with_width(self, d_model: usize) -> Self {
        let (d_skip, d_hidden, d_token) = (d_model.saturating_mul(4), d_model.saturating_mul(2), d_model.div_ceil(2));
        Self { d_model, d_skip, d_hidden, d_token, ..self }
    }

    /// The dilations of the dilated layers, first to last.
    pub fn dilations(&self) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let n_cycle = self.n_cycle;
        (0..self.n_layer).map(move |layer| 1 << (layer % n_cycle))
    }

    /// Timesteps that an output depends on.
    pub fn n_receptive(&self) -> usize {
        1 + self.dilations().sum::<usize>()
    }

    /// Values that condition a layer: the condition's embedding, then the subject's.
    pub fn d_local(&self) -> usize {
        self.d_condition + self.d_subject
    }

    /// The first position of the window whose output is a target.
    pub fn first_target(&self) -> usize {
        self.n_ctx / 2
    }

    /// Checks every number against its limit and against the others.
    pub fn check(&self) -> Result<()> {
        let max = ModelConfig::MAX;
        for (name, value, least, most) in [
            ("the number of dilated layers", self.n_layer, 1, max.n_layer),
            ("the number of dilations", self.n_cycle, 1, 12),
            ("d_model", self.d_model, 1, max.d_model),
            ("d_skip", self.d_skip, 1, 4 * max.d_model),
            ("d_hidden", self.d_hidden, 1, 4 * max.d_model),
            ("d_token", self.d_token, 1, max.d_model),
            ("d_condition", self.d_condition, 1, max.d_model),
            ("d_subject", self.d_subject, usize::from(self.n_subject > 1), max.d_model),
            ("n_ctx", self.n_ctx, 2, max.n_ctx),
            ("n_level", self.n_level, 2, max.n_level),
            ("n_channel", self.n_channel, 1, max.n_channel),
            ("n_subject", self.n_subject, 1, max.n_subject),
            ("n_condition", self.n_condition, 0, max.n_condition),
        ] {
            let inside = (least..=most).contains(&value);
            ensure!(inside, Kind::ShapeMismatch, "{name} = {value} is outside {least} to {most}");
        }
        ensure!(self.n_ctx.is_multiple_of(2), Kind::ShapeMismatch, "n_ctx = {} is odd", self.n_ctx);
        let (reach, half) = (self.n_receptive(), self.first_target());
        ensure!(
            half + 1 >= reach,
            Kind::ShapeMismatch,
            "half a window, {half} timesteps, is less than the receptive field of {reach}"
        );
        Ok(())
    }

    /// The table of parameters. Matrices are [in, out]; a dilated layer's has the earlier tap first.
    pub fn layout(&self) -> ParamLayout {
        let &Self { d_model: e, d_skip, d_hidden, d_token, n_level, n_channel, .. } = self;
        let mut decayed = vec![
            ("token".to_string(), vec![n_channel, n_level, d_token], Init::Normal(1.0)),
            ("condition".to_string(), vec![self.n_condition + 1, self.d_condition], Init::Normal(1.0)),
        ];
        if self.d_subject > 0 {
            decayed.push(("subject".to_string(), vec![self.n_subject, self.d_subject], Init::Normal(1.0)));
        }
        let mut plain = Vec::new();
        let matrix = |name: String, taps: usize, n_in: usize, n_out: usize| {
            let shape = if taps == 1 { vec![n_in, n_out] } else { vec![taps, n_in, n_out] };
            (name, shape, xavier(taps, n_in, n_out))
        };
        let bias =
            |name: &str, len: usize| (name.to_string(), vec![len], Init::NormalAround { mean: 1e-3, spread: 1e-2 });
        for layer in 0..=self.n_layer {
            let name = |part: &str| format!("layers.{layer}.{part}.weight");
            let (taps, n_in) = if layer == 0 { (1, d_token) } else { (2, e) };
            decayed.push(matrix(name("conv"), taps, n_in, 2 * e));
            decayed.push(matrix(name("local"), 1, self.d_local(), 2 * e));
            decayed.push(matrix(name("res"), 1, e, e));
            decayed.push(matrix(name("skip"), 1, e, d_skip));
            if layer == 0 {
                decayed.push(matrix(name("input"), 1, d_token, e));
            }
        }
        for (name, len) in [("conv", 2 * e), ("local", 2 * e), ("res", e), ("skip", d_skip), ("input", e)] {
            plain.push(bias(&format!("layers.0.{name}.bias"), len));
        }
        if self.mix {
            // As PyTorch begins a linear map: uniform within 1 / √n.
            let bound = 1.0 / (n_channel as f64).sqrt();
            decayed.push(("mix".to_string(), vec![n_channel, n_channel], Init::Uniform(bound)));
        }
        decayed.push(matrix("head.fc.weight".into(), 1, d_skip, d_hidden));
        decayed.push(matrix("head.proj.weight".into(), 1, d_hidden, n_level));
        plain.push(bias("head.fc.bias", d_hidden));
        plain.push(bias("head.proj.bias", n_level));
        ParamLayout::tiled(decayed, plain)
    }

    /// The stages' parameters in `buffer`, a flat buffer of `layout`, which must be this shape's.
    pub fn bind(&self, layout: &ParamLayout, buffer: Tensor) -> WavenetParams {
        let part = |name: &str| {
            let entry = layout.entry(name);
            buffer.slice(entry.offset, entry.len)
        };
        let layer = |layer: usize| {
            let part = |name: &str| part(&format!("layers.{layer}.{name}.weight"));
            LayerParams { conv: part("conv"), local: part("local"), res: part("res"), skip: part("skip") }
        };
        let bias = |name: &str| part(&format!("layers.0.{name}.bias"));
        let stack = StackParams {
            token: part("token"),
            condition: part("condition"),
            subject: if self.d_subject > 0 { part("subject") } else { buffer.slice(0, 0) },
            first: FirstParams {
                input: part("layers.0.input.weight"),
                conv_bias: bias("conv"),
                local_bias: bias("local"),
                res_bias: bias("res"),
                skip_bias: bias("skip"),
                input_bias: bias("input"),
            },
            layers: (0..=self.n_layer).map(layer).collect(),
        };
        let head = WavenetHead {
            fc_weight: part("head.fc.weight"),
            fc_bias: part("head.fc.bias"),
            proj_weight: part("head.proj.weight"),
            proj_bias: part("head.proj.bias"),
        };
        WavenetParams { stack, mix: self.mix.then(|| part("mix")), head }
    }
}

/// Xavier's uniform bound: √(6 / (fan in + fan out)), both times the taps.
fn xavier(taps: usize, n_in: usize, n_out: usize) -> Init {
    Init::Uniform((6.0 / (taps * (n_in + n_out)) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paper, section 3.2.
    #[test]
    fn counts_and_reach_are_the_papers() {
        let plain = WavenetConfig::single(false, 306, 1, 118);
        let mix = WavenetConfig::single(true, 306, 1, 118);
        assert_eq!((plain.n_receptive(), plain.n_ctx), (255, 510));
        assert_eq!((plain.layout().len(), mix.layout().len()), (7_422_374, 7_516_010));
        for config in [plain, mix, WavenetConfig::tiny(true, 3, 2, 4)] {
            config.check().unwrap();
        }
    }

    #[test]
    fn shapes_that_make_no_sense() {
        let good = WavenetConfig::tiny(false, 3, 1, 0);
        for bad in [
            WavenetConfig { n_cycle: 0, ..good.clone() },
            WavenetConfig { n_cycle: 60, ..good.clone() },
            WavenetConfig { n_ctx: 127, ..good.clone() },
            WavenetConfig { n_ctx: 122, ..good.clone() },
            WavenetConfig { n_subject: 2, ..good.clone() },
            WavenetConfig { d_skip: usize::MAX, ..good.clone() },
        ] {
            assert_eq!(bad.check().unwrap_err().kind(), Kind::ShapeMismatch, "{bad:?}");
        }
        assert!(WavenetConfig { n_ctx: 124, ..good }.check().is_ok());
    }
}
