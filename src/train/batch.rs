//! From windows to the tensors a device reads.

use super::numbering::Numbering;
use crate::device::Dtype::{U8, U16, U32};
use crate::device::{Device, Inputs};
use crate::error::Result;
use crate::model::kind::Model;
use crate::tokens::dataset::Dataset;
use crate::tokens::window::Window;

/// Room for a fixed number of windows, on the host and on the device. Every channel of a window is one sequence; the
/// channels of the first window come first.
#[derive(Debug)]
pub struct Batch {
    /// The tensors, for all windows there is room for.
    pub inputs: Inputs,
    n_channel: usize,
    n_time: usize,
    token: Vec<u8>,
    condition: Vec<u16>,
    channel: Vec<u32>,
    subject: Vec<u32>,
    numbering: Numbering,
}

impl Batch {
    /// Room for `n_window` windows of a model, from the data set whose `numbering` this is.
    pub fn new(device: &mut dyn Device, model: &Model, n_window: usize, numbering: &Numbering) -> Result<Self> {
        let (n_channel, n_time) = (model.n_channel(), model.n_ctx());
        let n = n_window * n_channel;
        let inputs = Inputs {
            token: device.alloc(U8, n * (n_time + 1))?,
            condition: device.alloc(U16, n * n_time)?,
            channel: device.alloc(U32, n)?,
            subject: device.alloc(U32, n)?,
        };
        Ok(Self {
            inputs,
            n_channel,
            n_time,
            token: vec![0; n * (n_time + 1)],
            condition: vec![0; n * n_time],
            channel: (0..n).map(|sequence| (sequence % n_channel) as u32).collect(),
            subject: vec![0; n],
            numbering: numbering.clone(),
        })
    }

    /// Channels of a window.
    pub fn n_channel(&self) -> usize {
        self.n_channel
    }

    /// Windows there is room for.
    pub fn n_window(&self) -> usize {
        self.subject.len() / self.n_channel
    }

    /// Reads windows from the shards and hands them to the device; the number of sequences. There must be room.
    pub fn fill(
        &mut self,
        device: &mut dyn Device,
        dataset: &Dataset,
        windows: impl ExactSizeIterator<Item = Window>,
    ) -> Result<usize> {
        let (n_channel, n_time) = (self.n_channel, self.n_time);
        let n = windows.len() * n_channel;
        let tokens = self.token[..n * (n_time + 1)].chunks_exact_mut(n_channel * (n_time + 1));
        let conditions = self.condition[..n * n_time].chunks_exact_mut(n_channel * n_time);
        let subjects = self.subject[..n].chunks_exact_mut(n_channel);
        for (((window, tokens), conditions), subjects) in windows.zip(tokens).zip(conditions).zip(subjects) {
            let shard = &dataset.shards[window.shard];
            for (channel, tokens) in tokens.chunks_exact_mut(n_time + 1).enumerate() {
                shard.tokens(channel, window.start, tokens)?;
            }
            // The condition is the window's: the same for all its channels.
            let (first, others) = conditions.split_at_mut(n_time);
            let subject = self.numbering.read(dataset, window, first)?;
            others.chunks_exact_mut(n_time).for_each(|channel| channel.copy_from_slice(first));
            subjects.fill(subject as u32);
        }
        let inputs = self.inputs.sequences(0, n, n_time);
        device.upload(inputs.token, &self.token[..n * (n_time + 1)])?;
        device.upload(inputs.condition, bytemuck::cast_slice(&self.condition[..n * n_time]))?;
        device.upload(inputs.channel, bytemuck::cast_slice(&self.channel[..n]))?;
        device.upload(inputs.subject, bytemuck::cast_slice(&self.subject[..n]))?;
        Ok(n)
    }
}
