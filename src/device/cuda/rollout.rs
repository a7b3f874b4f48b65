//! Generation with a cache of keys and values. See `kernels/decode.cu` and `kernels/sampler.cuh`.

use super::kernel::Pointer;
use super::kernel::decode::{Decode, SOURCE};
use super::working::{self, Matrix, Places, blocks};
use super::{Gpu, Grid, Shape, attention, failed, head, mlp};
use crate::device::{Rollout, Sampler};
use crate::error::{Error, Kind, Result};
use crate::model::config::ModelConfig;
use cudarc::driver::{CudaSlice, DeviceRepr, DriverError, sys};

/// Threads of a block (`THREADS` of the kernel).
const THREADS: u32 = 384;

/// Tables of the embedding on the GPU.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names are the table's")]
pub struct Tables {
    pub token: Pointer<f32>,
    pub position: Pointer<f32>,
    pub channel: Pointer<f32>,
    pub subject: Pointer<f32>,
    pub condition: Pointer<f32>,
}

/// The parameters of the whole network on the GPU.
#[derive(Debug, Clone)]
pub struct Params {
    /// Tables of the embedding.
    pub tables: Tables,
    /// Each block's two halves.
    pub blocks: Vec<(attention::Params, mlp::Params)>,
    /// Final norm and output projection.
    pub head: head::Params,
}

/// Working copies of the network's weights, in the order in which `decode` takes them.
pub struct Working {
    weight: CudaSlice<u32>,
    bias: CudaSlice<f32>,
    head: CudaSlice<u32>,
    head_bias: CudaSlice<f32>,
    /// uint4 from one channel's head to the next; 0 where all share one.
    head_len: u32,
}

/// A matrix [k, n] whose columns follow each other, times the norm's weight.
fn matrix(w: Pointer<f32>, len: (usize, usize), norm: Pointer<f32>) -> Matrix {
    Matrix { w, len, strides: (len.1, 1), scale: (norm, Pointer::NULL), count: 1, next: 0 }
}

impl Working {
    /// Makes them from the parameters.
    pub fn new(gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<Self> {
        let (e, q) = (shape.d_model, shape.n_level);
        let count = params.head.matrices;
        // Blocks of sixteen by sixteen of a layer's four matrices, one after another.
        let lens = [(e, 3 * e), (e, e), (e, 4 * e), (4 * e, e)];
        let of_layer: usize = lens.iter().map(|&(k, n)| blocks(k) * blocks(n)).sum();
        let head_blocks = blocks(e) * blocks(q);
        let this = Self {
            weight: gpu.zeros(params.blocks.len() * of_layer * 128)?,
            bias: gpu.zeros(params.blocks.len() * 9 * e)?,
            head: gpu.zeros(count * head_blocks * 128)?,
            head_bias: gpu.zeros(count * q)?,
            head_len: if count > 1 { (head_blocks * 32) as u32 } else { 0 },
        };
        this.fill(gpu, shape, params)?;
        Ok(this)
    }

    /// Makes them anew from parameters of the same shape.
    pub fn fill(&self, gpu: &mut Gpu, shape: &Shape, params: &Params) -> Result<()> {
        let (e, q) = (shape.d_model, shape.n_level);
        let query = std::f32::consts::LOG2_E / ((e / shape.n_head) as f32).sqrt();
        let mut factors = vec![1.0f32; 3 * e];
        factors[..e].fill(query);
        let factors = upload(gpu, &factors)?;
        let factors = gpu.address(&factors);

        let mut weight: Pointer<[u32; 4]> = gpu.address(&self.weight).cast();
        let mut bias = gpu.address(&self.bias);
        for (attention, mlp) in &params.blocks {
            let qkv = matrix(attention.qkv_weight, (e, 3 * e), attention.norm_weight);
            let qkv = Matrix { scale: (attention.norm_weight, factors), ..qkv };
            let proj = matrix(attention.proj_weight, (e, e), Pointer::NULL);
            let fc = matrix(mlp.fc_weight, (e, 4 * e), mlp.norm_weight);
            let out = matrix(mlp.proj_weight, (4 * e, e), Pointer::NULL);
            for (matrix, norm_bias, own_bias, scaled) in [
                (qkv, attention.norm_bias, attention.qkv_bias, (e, query)),
                (proj, Pointer::NULL, attention.proj_bias, (0, 1.0)),
                (fc, mlp.norm_bias, mlp.fc_bias, (0, 1.0)),
                (out, Pointer::NULL, mlp.proj_bias, (0, 1.0)),
            ] {
                let (k, n) = (blocks(matrix.len.0), blocks(matrix.len.1));
                let places = Places { place: (1, k), interleaved: (true, false), next: 0 };
                working::matrix(gpu, shape, weight, &matrix, &places)?;
                working::bias(gpu, shape, bias, &matrix, norm_bias, own_bias, scaled)?;
                weight = weight.offset(32 * k * n);
                bias = bias.offset(matrix.len.1);
            }
        }

        let head::Params { norm_weight, norm_bias, weight, matrices } = params.head;
        let scale = (norm_weight, Pointer::NULL);
        let head = Matrix { w: weight, len: (e, q), strides: (1, e), scale, count: matrices, next: q * e };
        let places = Places { place: (1, blocks(e)), interleaved: (true, false), next: blocks(e) * blocks(q) };
        let (to, bias) = (gpu.address(&self.head).cast(), gpu.address(&self.head_bias));
        working::matrix(gpu, shape, to, &head, &places)?;
        working::bias(gpu, shape, bias, &head, norm_bias, Pointer::NULL, (0, 1.0))
    }
}

/// How to draw, as the kernels take it.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// 1 / temperature.
    pub scale: f32,
    /// Levels that top-k keeps.
    pub top_k: u32,
    /// floor(p · 2³²).
    pub top_p: u64,
    /// 1 to take the most probable level.
    pub greedy: u32,
}

impl Draw {
    /// The numbers of `sampler`, which has passed [`Sampler::check`].
    pub fn new(sampler: &Sampler) -> Self {
        Self {
            scale: 1.0 / sampler.temperature,
            top_k: if sampler.top_k == 0 { u32::MAX } else { sampler.top_k },
            top_p: (f64::from(sampler.top_p) * 4_294_967_296.0) as u64,
            greedy: sampler.greedy.into(),
        }
    }
}

/// How many sequences and timesteps go together. No bit of a result depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Sequences of a launch: their caches are in memory together.
    pub per_launch: usize,
    /// Sequences of a block of threads.
    pub per_block: usize,
    /// Timesteps of a sequence that one pass over the weights reads.
    pub columns: usize,
    /// Passes over the weights that a block makes in one launch, or one more: those that read take `columns` timesteps of one
    /// sequence each, those that draw one timestep of all its sequences.
    pub passes: usize,
}

/// Bytes of weights, keys and values that a block of threads asks for in one launch, at most. Where the L2 cache gives each block 40 GB a
/// second (an H100, by its whole rate), that is a tenth of a second; where they come from memory, it may be half of one. A signal
/// is heeded between launches, and a card that also drives a display ends those of seconds.
const MOST_OF_LAUNCH: f64 = 4e9;

/// Passes of a block with so many sequences that ask for no more than that.
fn passes_of_launch(shape: &Shape, config: &ModelConfig, per_block: usize) -> usize {
    let e = shape.d_model as f64;
    // With the longest context that there is.
    let of_pass = config.n_layer as f64 * (24.0 * e * e + 4.0 * e * (shape.n_time * per_block) as f64);
    ((MOST_OF_LAUNCH / of_pass) as usize).max(1)
}

impl Cut {
    /// The timestep that a launch goes up to, which begins at timestep `begin` of `n_fed`; the first `n_read` are only read. A sequence is
    /// cut between two passes.
    pub fn end(&self, begin: usize, n_read: usize, n_fed: usize) -> usize {
        let &Self { per_block, columns, passes, .. } = self;
        let left = n_read.saturating_sub(begin);
        let reading = left.div_ceil(columns).saturating_mul(per_block);
        let end = match reading > passes {
            true => n_read.min(begin.saturating_add((passes / per_block).max(1).saturating_mul(columns))),
            false => begin.max(n_read).saturating_add((passes - reading).max(1)),
        };
        end.min(n_fed)
    }
}

impl Cut {
    /// As many in a launch as memory allows, and of those as few in a block as give every multiprocessor one.
    pub fn new(gpu: &mut Gpu, shape: &Shape, config: &ModelConfig, rollout: &Rollout) -> Result<Self> {
        let n = rollout.n.max(1);
        let free = available(gpu).map_err(|error| failed("tell its free memory", error))?;
        // Logits weigh little beside a cache, but they may be asked for.
        let each = cache_len(shape, config) * size_of::<u16>()
            + rollout.n_prompt
            + 2 * rollout.n_fed()
            + rollout.n_new * (1 + 4 * shape.n_level)
            + 20;
        // Some is left for what the driver itself needs.
        let fitting = free / 8 * 7 / each;
        if fitting == 0 {
            let what = format!("the cache of one sequence needs {each} bytes, and the GPU has {free} left");
            return Err(Error::new(Kind::DeviceUnavailable, what).hint("Generate on the CPU with --device cpu"));
        }
        let per_launch = n.min(fitting);
        let slots = gpu.constant(&SOURCE, shape, "decode_slots")? as usize;
        let blocks = gpu.multiprocessors() as usize;
        // Where it takes several rounds of blocks, all are equally long.
        let rounds = per_launch.div_ceil(slots * blocks);
        let per_block = per_launch.div_ceil(rounds * blocks);
        let columns = gpu.constant(&SOURCE, shape, "decode_columns")? as usize;
        Ok(Self { per_launch, per_block, columns, passes: passes_of_launch(shape, config, per_block) })
    }
}

/// Bytes that can be allocated: what is free, and what earlier allocations gave back to the pool that keeps it for us.
fn available(gpu: &Gpu) -> std::result::Result<usize, DriverError> {
    let context = gpu.stream().context();
    let (free, _) = context.mem_get_info()?;
    let mut pool = std::ptr::null_mut();
    // SAFETY: the driver writes a handle.
    unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()) }.result()?;
    let current = |attribute| {
        let mut bytes = 0u64;
        // SAFETY: the pool is the device's own, and these attributes of it are numbers of 64 bits.
        unsafe { sys::cuMemPoolGetAttribute(pool, attribute, std::ptr::from_mut(&mut bytes).cast()) }.result()?;
        Ok(bytes as usize)
    };
    let reserved = current(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    let used = current(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
    Ok(free + reserved.saturating_sub(used))
}

/// Elements of one sequence's cache.
fn cache_len(shape: &Shape, config: &ModelConfig) -> usize {
    config.n_layer * 2 * shape.d_model * shape.n_time
}

fn upload<T: DeviceRepr>(gpu: &Gpu, data: &[T]) -> Result<CudaSlice<T>> {
    gpu.stream().clone_htod(data).map_err(|error| failed(&format!("take {} elements", data.len()), error))
}

/// Copies the beginning of `from`, after everything has run.
fn download<T: DeviceRepr>(gpu: &Gpu, from: &CudaSlice<T>, to: &mut [T]) -> Result<()> {
    let stream = gpu.stream();
    let copied = stream.memcpy_dtoh(&from.slice(..to.len()), to).and_then(|()| stream.synchronize());
    copied.map_err(|error| failed("finish a rollout", error))
}

/// Generates one chunk, as [`crate::device::Device::rollout`] says: `tokens` [N, n_new] and with `logits` [N, n_new, Q] also
/// what they were drawn from. Between launches it is asked whether they are to `stop`: then nothing more is filled.
///
/// # Safety
/// `params` are those of a network of this configuration, and `working` was made from them.
#[expect(clippy::too_many_arguments, reason = "a network, what to do with it, and where to")]
pub unsafe fn rollout(
    gpu: &mut Gpu,
    config: &ModelConfig,
    params: &Params,
    working: &Working,
    rollout: &Rollout,
    cut: Option<Cut>,
    stop: &dyn Fn() -> bool,
    tokens: &mut [u8],
    mut logits: Option<&mut [f32]>,
) -> Result<()> {
    rollout.check(config, tokens.len(), logits.as_ref().map(|logits| logits.len()))?;
    let &Rollout { n, n_prompt, n_new, .. } = rollout;
    if n == 0 || n_new == 0 {
        return Ok(());
    }
    let shape = shape(config);
    let cut = match cut {
        Some(cut) => cut,
        None => Cut::new(gpu, &shape, config, rollout)?,
    };
    let shared_bytes = gpu.constant(&SOURCE, &shape, "decode_shared_bytes")?;
    let (q, n_fed, most) = (shape.n_level, rollout.n_fed(), cut.per_launch.min(n));
    let (out, wrong) = (gpu.zeros::<u8>(most * n_new)?, gpu.zeros::<u32>(most)?);
    let kept = logits.is_some().then(|| gpu.zeros::<f32>(most * n_new * q)).transpose()?;
    let cache_len = (most * cache_len(&shape, config)).div_ceil(2);
    // SAFETY: the kernel reads no key or value that it has not written.
    let cache = unsafe { gpu.stream().alloc::<u32>(cache_len) };
    // Others use the GPU, too: what was free when the rollout was cut may be theirs by now.
    let fewer = "Fewer sequences at once need less: a lower --rollouts (of bench, --sequences)";
    let cache = cache.map_err(|error| gpu.no_room(4 * cache_len, error).also(fewer))?;
    let Draw { scale, top_k, top_p, greedy } = Draw::new(&rollout.sampler);

    for first in (0..n).step_by(cut.per_launch) {
        if stop() {
            return Ok(());
        }
        let part = first..n.min(first + cut.per_launch);
        let prompt = upload(gpu, &rollout.prompt[part.start * n_prompt..part.end * n_prompt])?;
        let condition = upload(gpu, &rollout.condition[part.start * n_fed..part.end * n_fed])?;
        let (channel, subject) =
            (upload(gpu, &rollout.channel[part.clone()])?, upload(gpu, &rollout.subject[part.clone()])?);
        let key = upload(gpu, &rollout.key[part.clone()])?;
        let Tables { token, position, channel: channel_table, subject: subject_table, condition: condition_table } =
            params.tables;
        let whole = Decode {
            weight: gpu.address(&working.weight).cast(),
            bias: gpu.address(&working.bias),
            layers: config.n_layer as u32,
            head: gpu.address(&working.head).cast(),
            head_bias: gpu.address(&working.head_bias),
            head_len: working.head_len,
            token,
            position,
            channel: channel_table,
            subject: subject_table,
            condition: condition_table,
            prompt: gpu.address(&prompt),
            conditions: gpu.address(&condition),
            channels: gpu.address(&channel),
            subjects: gpu.address(&subject),
            keys: gpu.address(&key),
            n: part.len() as u32,
            per_block: cut.per_block as u32,
            n_prompt: n_prompt as u32,
            n_new: n_new as u32,
            begin: 0,
            end: 0,
            timestep: rollout.timestep,
            seed: rollout.seed,
            scale,
            top_k,
            top_p,
            greedy,
            cache: gpu.address(&cache).cast(),
            tokens: gpu.address(&out),
            logits: kept.as_ref().map_or(Pointer::NULL, |kept| gpu.address(kept)),
            failed: gpu.address(&wrong),
        };
        let grid = Grid { blocks: (part.len().div_ceil(cut.per_block) as u32, 1), threads: THREADS, shared_bytes };
        let mut begin = 0;
        while begin < n_fed {
            if begin > 0 {
                gpu.sync()?;
                if stop() {
                    return Ok(());
                }
            }
            let end = cut.end(begin, n_prompt - 1, n_fed);
            let kernel = Decode { begin: begin as u32, end: end as u32, ..whole };
            // SAFETY: indices have been checked against the configuration, memory was made for these sizes, and the network's
            // parameters are the caller's.
            unsafe { gpu.launch(&shape, &kernel, grid) }?;
            begin = end;
        }

        let mut steps = vec![0; part.len()];
        download(gpu, &wrong, &mut steps)?;
        if let Some(i) = steps.iter().position(|&step| step > 0) {
            return Err(rollout.not_finite(first + i, steps[i] as usize - 1));
        }
        download(gpu, &out, &mut tokens[part.start * n_new..part.end * n_new])?;
        if let (Some(logits), Some(kept)) = (&mut logits, &kept) {
            download(gpu, kept, &mut logits[part.start * n_new * q..part.end * n_new * q])?;
        }
    }
    Ok(())
}

/// What the kernels are specialised for.
pub fn shape(config: &ModelConfig) -> Shape {
    Shape { d_model: config.d_model, n_head: config.n_head, n_time: config.n_ctx, n_level: config.n_level }
}
