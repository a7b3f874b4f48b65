//! The table of faults.

use ptx_emulator::watch::FindingKind::{self, *};

use crate::jobs;
use crate::support::job::Job;

/// One fault.
pub struct Fault {
    pub name: &'static str,
    pub file: &'static str,
    pub kernel: &'static str,
    /// What stands in the source, and what is put there instead. Both empty when the launch is at fault.
    pub text: &'static str,
    pub replacement: &'static str,
    pub job: fn() -> Job,
    pub expect: Expect,
}

/// How it must be noticed.
pub enum Expect {
    /// By a finding of one of these kinds, at a line that has one of these texts.
    Found(&'static [FindingKind], &'static [&'static str]),
    /// By a result that is clearly another.
    Differs,
}

use Expect::{Differs, Found};

/// Which of two is noticed first depends on the order of warps: that the data are not there yet, or that nothing
/// ordered the accesses.
const TOO_EARLY: &[FindingKind] = &[Race, Uninitialised];
const TOO_EARLY_COPY: &[FindingKind] = &[Race, Uninitialised, InFlight];
const NEVER_ENDS: &[FindingKind] = &[Runaway, Deadlock];

macro_rules! faults {
    ($($name:literal: $file:literal $kernel:literal [$text:expr => $replacement:expr] $job:ident $expect:expr;)*) => {
        &[$(Fault { name: $name, file: $file, kernel: $kernel, text: $text, replacement: $replacement, job: jobs::$job, expect: $expect }),*]
    };
}

pub const FAULTS: &[Fault] = faults! {
    "guard off by one in a grid-stride loop": "vector.cu" "saxpy" ["i < n;" => "i <= n;"] vector
        Found(&[OutOfBounds], &["y[i] = a * x[i] + y[i]"]);
    "vector tail taken for a whole vector": "vector.cu" "scale_by_four" ["i + 3 < n" => "i < n"] vector
        Found(&[OutOfBounds], &["float4 v = "]);
    "vector access that is not aligned": "vector.cu" "scale_by_four" ["(x + i)" => "(x + i + 1)"] vector
        Found(&[Misaligned], &["float4 v = "]);
    "parameters in another order than the host's arguments": "vector.cu" "saxpy" ["const float *x, float *y" => "float *y, const float *x"] vector Differs;
    "buffer shorter than the count says": "vector.cu" "saxpy" ["" => ""] vector_short
        Found(&[OutOfBounds, Uninitialised], &["y[i] = a * x[i] + y[i]"]);

    "tree without its first barrier": "reduce.cu" "block_sums" ["__syncthreads();\n    for" => "for"] reduce
        Found(TOO_EARLY, &["tree[threadIdx.x] += tree", "tree[threadIdx.x] = i"]);
    "tree without the barrier of a level": "reduce.cu" "block_sums" ["}\n        __syncthreads();" => "}"] reduce
        Found(TOO_EARLY, &["tree[threadIdx.x] += tree", "partial[blockIdx.x] = tree[0]"]);
    "barrier that only one lane reaches": "reduce.cu" "shuffle_sums"
        ["of_warp[warp] = v;\n    }\n    __syncthreads();" => "of_warp[warp] = v;\n        __syncthreads();\n    }"] reduce
        Found(&[BarrierDivergence, Uninitialised], &["__syncthreads();", "v = warp_sum(lane"]);
    "barrier that every other row reaches": "sgemm.cu" "sgemm_tiled" ["}\n        __syncthreads();" => "}\n        if (ty % 2 == 0) __syncthreads();"] sgemm
        Found(&[BarrierDivergence, Race], &["__syncthreads();", "of_a[ty][tx] =", "of_b[ty][tx] =", "sum += of_a[ty][i] * of_b[i][tx]"]);
    "guard off by one before a reduction": "reduce.cu" "block_sums" ["i < n ?" => "i <= n ?"] reduce
        Found(&[OutOfBounds], &["tree[threadIdx.x] = i <= n"]);
    "warp sums read before they are written": "reduce.cu" "shuffle_sums" ["}\n    __syncthreads();" => "}"] reduce
        Found(TOO_EARLY, &["v = warp_sum(lane < blockDim.x / 32 ?", "of_warp[warp] = v"]);
    "shuffle among lanes that are not all there": "reduce.cu" "shuffle_sums"
        ["float v = warp_sum(i < n ? x[i] : 0.0f);" => "float v = 0.0f; if (i < n) { v = warp_sum(x[i]); }"] reduce
        Found(&[MaskMismatch, Deadlock], &["__shfl_down_sync"]);
    "fewer places than warps": "reduce.cu" "shuffle_sums" ["of_warp[32]" => "of_warp[4]"] reduce
        Found(&[OutOfBounds], &["of_warp[warp] = v", "v = warp_sum(lane"]);
    "no fence before the counter": "reduce.cu" "sum_last_block" ["partial[blockIdx.x] = total;\n        __threadfence();" => "partial[blockIdx.x] = total;"] reduce
        Found(&[Race], &["total += ((volatile float *)partial)[b]", "partial[blockIdx.x] = total"]);
    "no barrier before the block's total": "reduce.cu" "sum_last_block" ["}\n    __syncthreads();" => "}"] reduce
        Found(TOO_EARLY, &["total += of_warp[w]", "of_warp[warp] = "]);
    "no barrier before the flag is read": "reduce.cu" "sum_last_block" ["    __syncthreads();\n    if (last" => "    if (last"] reduce
        Found(TOO_EARLY, &["if (last", "last = atomicInc"]);

    "barrier inside the branch of a tree": "reduce.cu" "block_sums"
        ["+ half];\n        }\n        __syncthreads();" => "+ half];\n        __syncthreads();\n        }"] reduce
        Found(&[BarrierDivergence], &["__syncthreads();"]);
    "sums of blocks in one place": "exchange.cu" "sum_by_exchange" ["= y + blockIdx.x" => "= y"] exchange
        Found(&[Race], &["*sum = 0.0f", "int old = *word", "atomicCAS"]);
    "set to zero by one block for all": "exchange.cu" "sum_by_exchange"
        ["= y + blockIdx.x;\n    if (threadIdx.x == 0)" => "= y;\n    if (blockIdx.x == 0 && threadIdx.x == 0)"] exchange
        Found(&[Race, Uninitialised], &["*sum = 0.0f", "int old = *word", "atomicCAS"]);
    "threads that do not exchange but add": "exchange.cu" "count_by_exchange" ["old = atomicCAS(&count, seen, seen + 1)" => "count = seen + 1"] exchange
        Found(&[Race], &["count = seen + 1", "int old = count"]);
    "count read while others count": "exchange.cu" "count_by_exchange" ["while (old != seen);\n    __syncthreads();" => "while (old != seen);"] exchange
        Found(&[Race], &["= count;", "old = atomicCAS(&count"]);
    "flag without a hint to caches": "exchange.cu" "wait_by_hints" ["__stwt(flag, 1)" => "*flag = 1"] exchange
        Found(&[Race], &["*flag = 1", "while (__ldcv"]);
    "data read past the caches": "vector.cu" "saxpy" ["+ y[i]" => "+ __ldg(y + i)"] vector
        Found(&[Race], &["__ldg(y + i)"]);
    "one buffer where two are needed": "scan.cu" "scan_block" ["buffer[to * width + t] = v" => "buffer[from * width + t] = v"] scan
        Found(TOO_EARLY, &["buffer[from * width + t] = v", "buffer[from * width + t - offset]", "int v = buffer"]);
    "scan without the barrier of a step": "scan.cu" "scan_block" ["= v;\n        __syncthreads();" => "= v;"] scan
        Found(TOO_EARLY, &["buffer[to * width + t] = v", "buffer[from * width + t - offset]", "int v = buffer"]);
    "dynamic shared memory too small": "scan.cu" "scan_block" ["" => ""] scan_without_room
        Found(&[OutOfBounds], &["buffer[to * width + t] = v"]);
    "tile read before it is known": "scan.cu" "scan_look_back" ["__syncthreads();\n    int i" => "int i"] scan
        Found(TOO_EARLY, &["int i = tile", "tile = atomicAdd"]);
    "state published by a plain store": "scan.cu" "scan_look_back"
        ["atomicExch(&state[tile], SUM_UP_TO_TILE << 32 | (unsigned int)(earlier + total))" => "state[tile] = SUM_UP_TO_TILE << 32 | (unsigned int)(earlier + total)"] scan
        Found(&[Race], &["state[tile] = SUM_UP_TO_TILE", "word = atomicAdd(&state"]);
    "state never published": "scan.cu" "scan_look_back"
        ["atomicExch(&state[tile], SUM_UP_TO_TILE << 32 | (unsigned int)(earlier + total));" => ""] scan
        Found(NEVER_ENDS, &["do {", "word = atomicAdd", "while (word", "__syncthreads"]);
    "scan of a warp off by one": "scan.cu" "scan_look_back" ["if (lane >= offset)" => "if (lane > offset)"] scan Differs;

    "counts not set to zero": "histogram.cu" "histogram_shared" ["of_block[bin] = 0;" => ""] histogram
        Found(&[Uninitialised], &["atomicAdd(&of_block[x[i]], 1)"]);
    "only half the counts set to zero": "histogram.cu" "histogram_shared" ["bin < 256" => "bin < 128"] histogram
        Found(&[Uninitialised], &["atomicAdd(&of_block[x[i]], 1)"]);
    "increment that is not atomic": "histogram.cu" "histogram_shared" ["atomicAdd(&of_block[x[i]], 1);" => "of_block[x[i]]++;"] histogram
        Found(&[Race], &["of_block[x[i]]++"]);
    "counting before all is zero": "histogram.cu" "histogram_shared" ["__syncthreads();" => ""] histogram
        Found(TOO_EARLY, &["atomicAdd(&of_block[x[i]], 1)", "of_block[bin] = 0"]);
    "fewer bins than values": "histogram.cu" "histogram_shared" ["of_block[256]" => "of_block[255]"] histogram
        Found(&[OutOfBounds], &["of_block[bin] = 0", "atomicAdd(&of_block[x[i]], 1)"]);
    "match with a mask that does not name all its lanes": "histogram.cu" "histogram_matched"
        ["__match_any_sync(active" => "__match_any_sync(active >> 1"] histogram
        Found(&[MaskMismatch], &["__match_any_sync"]);

    "counts of warps added up too early": "histogram.cu" "histogram_of_warps" ["    __syncthreads();\n    for" => "    for"] histogram
        Found(TOO_EARLY, &["of_warp[0][bin]", "words[i] = 0", "of_warp[warp][value] +="]);

    "tile read before it is full": "transpose.cu" "transpose" ["__syncthreads();" => ""] transpose
        Found(TOO_EARLY, &["= tile[threadIdx.x][threadIdx.y + r]", "tile[threadIdx.y + r][threadIdx.x] = x"]);
    "columns not guarded": "transpose.cu" "transpose" ["if (row + r < rows && column < columns)" => "if (row + r < rows)"] transpose
        Found(&[OutOfBounds], &["tile[threadIdx.y + r][threadIdx.x] = x"]);
    "row guard off by one": "transpose.cu" "transpose" ["row + r < columns" => "row + r <= columns"] transpose
        Found(&[OutOfBounds, Uninitialised], &["= tile[threadIdx.x][threadIdx.y + r]"]);
    "tile read as it was written": "transpose.cu" "transpose" ["= tile[threadIdx.x][threadIdx.y + r]" => "= tile[threadIdx.y + r][threadIdx.x]"] transpose_alone Differs;
    "two blocks exchange the same tiles": "transpose.cu" "transpose_in_place" ["if (blockIdx.y < blockIdx.x)" => "if (false)"] transpose
        Found(&[Race], &["x[row * n + column]", "x[mirror_row * n + mirror_column]"]);

    "product before its tiles are full": "sgemm.cu" "sgemm_tiled" ["__syncthreads();" => ""] sgemm
        Found(TOO_EARLY, &["sum += of_a[ty][i] * of_b[i][tx]", "of_a[ty][tx] =", "of_b[ty][tx] ="]);
    "tiles overwritten while in use": "sgemm.cu" "sgemm_tiled" ["}\n        __syncthreads();" => "}"] sgemm
        Found(&[Race], &["of_a[ty][tx] =", "of_b[ty][tx] =", "sum += of_a[ty][i] * of_b[i][tx]"]);
    "depth not guarded": "sgemm.cu" "sgemm_tiled" ["row < m && k0 + tx < k ?" => "row < m ?"] sgemm
        Found(&[OutOfBounds], &["of_a[ty][tx] ="]);
    "indices of a tile swapped": "sgemm.cu" "sgemm_tiled" ["of_a[ty][i]" => "of_a[i][ty]"] sgemm Differs;
    "last tile of the depth left out": "sgemm.cu" "sgemm_tiled" ["k0 < k;" => "k0 + TILE <= k;"] sgemm Differs;
    "quarter of a vector off": "sgemm.cu" "sgemm_blocked" ["k0 + a_column]" => "k0 + a_column + 1]"] sgemm_blocked
        Found(&[Misaligned], &["k0 + a_column + 1]"]);
    "rows beyond the matrix stored": "sgemm.cu" "sgemm_blocked" ["if (row0 + r + u < m)" => "if (true)"] sgemm_blocked
        Found(&[OutOfBounds], &["*reinterpret_cast<float4 *>(&c", "make_float4(sum[u][0]"]);

    "one group too few waited for": "hgemm.cu" "hgemm" ["\"n\"(STAGES - 2)" => "\"n\"(STAGES - 1)"] hgemm
        Found(TOO_EARLY_COPY, &["ldmatrix.sync", "cp.async.cg"]);
    "copies of others not waited for": "hgemm.cu" "hgemm" ["        __syncthreads();\n        int ahead" => "        int ahead"] hgemm
        Found(TOO_EARLY_COPY, &["ldmatrix.sync", "cp.async.cg"]);
    "next stage over the present one": "hgemm.cu" "hgemm" ["int s = ahead % STAGES" => "int s = step % STAGES"] hgemm
        Found(TOO_EARLY_COPY, &["ldmatrix.sync", "cp.async.cg"]);
    "group not closed": "hgemm.cu" "hgemm" ["asm volatile(\"cp.async.commit_group;\" ::: \"memory\");\n\n" => "\n"] hgemm
        Found(TOO_EARLY_COPY, &["ldmatrix.sync", "cp.async.cg"]);
    "rows beyond A copied": "hgemm.cu" "hgemm" ["bool valid = row < m" => "bool valid = true"] hgemm
        Found(&[OutOfBounds], &["cp.async.cg"]);
    "rows of a fragment taken twice": "hgemm.cu" "hgemm" ["i * 16 + lane % 16" => "i * 16 + lane % 8"] hgemm Differs;
    "address of a fragment not aligned": "hgemm.cu" "hgemm" ["unsigned int at = of_a + place" => "unsigned int at = of_a + 8 + place"] hgemm
        Found(&[Misaligned], &["ldmatrix.sync.aligned.m8n8.x4"]);
    "columns beyond C stored": "hgemm.cu" "hgemm" ["row < m && column < n" => "row < m"] hgemm
        Found(&[OutOfBounds, Race], &["c[row * n + column] ="]);
    "registers of a fragment swapped": "hgemm.cu" "hgemm" ["\"r\"(x[i][1]), \"r\"(x[i][2])" => "\"r\"(x[i][2]), \"r\"(x[i][1])"] hgemm Differs;

    "sums of warps read too early": "softmax.cu" "softmax_block" ["__syncthreads();" => ""] softmax
        Found(TOO_EARLY, &["of_warp_max[lane]", "of_warp_sum[lane]", "of_warp_max[warp] =", "of_warp_sum[warp] ="]);
    "shuffle inside a loop of unequal length": "softmax.cu" "softmax_warp" ["sum += expf(from[i] - largest);\n    }\n    sum = warp_sum(sum);" => "sum = warp_sum(sum + expf(from[i] - largest));\n    }"] softmax
        Found(&[MaskMismatch, Deadlock], &["__shfl_xor_sync"]);

    "partial sums used before they are zero": "layernorm.cu" "layernorm_backward" ["__syncthreads();\n    int row" => "int row"] layernorm
        Found(TOO_EARLY, &["of_gain[i] +=", "of_bias[i] +=", "of_gain[i] = 0", "of_bias[i] = 0"]);
    "warps that do not take turns": "layernorm.cu" "layernorm_backward" ["if (turn == warp && row < rows)" => "if (turn == 0 && row < rows)"] layernorm
        Found(&[Race], &["of_gain[i] +=", "of_bias[i] +="]);
    "turns without a barrier": "layernorm.cu" "layernorm_backward" ["}\n        __syncthreads();" => "}"] layernorm
        Found(&[Race], &["of_gain[i] +=", "of_bias[i] +=", "= of_gain[i]", "= of_bias[i]"]);
    "two arrays in one place": "layernorm.cu" "layernorm_backward" ["*of_bias = of_block + columns" => "*of_bias = of_block"] layernorm Differs;
    "one block too many gathered": "layernorm.cu" "layernorm_gather" ["block < blocks" => "block <= blocks"] layernorm_gather
        Found(&[OutOfBounds], &["a += partial", "b += partial"]);

    "shuffle with the mask of the leader": "compact.cu" "compact" ["__shfl_sync(peers," => "__shfl_sync(1u << leader,"] compact
        Found(&[MaskMismatch], &["__shfl_sync(1u"]);
    "places read before they are summed": "compact.cu" "compact_block" ["__syncthreads();\n    if (keep)" => "if (keep)"] compact
        Found(TOO_EARLY, &["kept[before_warp[warp]", "before_warp["]);
    "structures of other lanes read at once": "language.cu" "structures" ["__syncwarp();" => ""] language
        Found(TOO_EARLY, &["particle p = room[31 - i]", "memcpy(&room[i]"]);

    "loop that does not come to an end": "divergence.cu" "collatz" ["v /= 2;" => "v *= 1;"] divergence
        Found(&[Runaway], &["while (v != 1)", "v % 2 == 0", "v *= 1", "v = 3 * v", "count++", "if (v > largest)"]);
    "turn never passed on": "divergence.cu" "take_turns" ["atomicExch(turn, lane + 1);" => "atomicExch(turn, lane);"] divergence
        Found(NEVER_ENDS, &["while (!done)", "if (atomicAdd(turn, 0) == lane)", "__threadfence_block", "order[lane] ="]);

    "array read before its start": "local.cu" "sort_rows" ["while (j >= 0 && own[j] > v)" => "while (own[j] > v)"] local
        Found(&[OutOfBounds, Uninitialised], &["while (own[j] > v)"]);
    "last element of an array not set": "local.cu" "sort_rows" ["for (int i = 0; i < 24; i++)" => "for (int i = 0; i < 23; i++)"] local
        Found(&[Uninitialised], &["int v = own[i]"]);
    "coefficient beyond the table": "local.cu" "polynomial" ["" => ""] local_degree
        Found(&[OutOfBounds, Uninitialised], &["float v = coefficients[degree]"]);

    "sorting network without a barrier": "bitonic.cu" "bitonic_sort" ["}\n            __syncthreads();" => "}"] bitonic
        Found(&[Race], &["key[low]", "key[high]", "value[low]", "value[high]"]);
    "sorting network without its last stage": "bitonic.cu" "bitonic_sort" ["size <= 1024" => "size < 1024"] bitonic Differs;

    "halo not loaded": "stencil.cu" "diffuse" ["if (threadIdx.y == SIDE - 1)" => "if (threadIdx.y == SIDE)"] stencil
        Found(&[Uninitialised], &["float around"]);
    "tile without room for its halo": "stencil.cu" "diffuse" ["tile[SIDE + 2][SIDE + 2]" => "tile[SIDE + 1][SIDE + 2]"] stencil
        Found(&[OutOfBounds], &["tile[SIDE + 1][tx] ="]);
    "window without room for its last element": "stencil.cu" "causal_convolution" ["" => ""] stencil_without_room
        Found(&[OutOfBounds], &["window[i] ="]);

    "copy used one chunk too early": "pipeline.cu" "squares" ["__pipeline_wait_prior(1)" => "__pipeline_wait_prior(2)"] pipeline
        Found(TOO_EARLY_COPY, &["float v = now", "__pipeline_memcpy_async"]);
    "copy over what is being read": "pipeline.cu" "squares" ["}\n        __syncthreads();" => "}"] pipeline
        Found(TOO_EARLY_COPY, &["float v = now", "__pipeline_memcpy_async"]);
    "wrong half of a double buffer": "pipeline.cu" "squares" ["buffer[(c + 1) % 2]" => "buffer[c % 2]"] pipeline
        Found(TOO_EARLY_COPY, &["float v = now", "__pipeline_memcpy_async"]);
    "copy that nobody waits for": "pipeline.cu" "squares"
        ["    y[blockIdx.x * CHUNK" => "    asm volatile(\"cp.async.ca.shared.global [%0], [%1], 16;\" ::\"r\"((unsigned)__cvta_generic_to_shared(&buffer[0][t * 4])), \"l\"(from + t * 4));\n    y[blockIdx.x * CHUNK"] pipeline
        Found(&[InFlight], &["cp.async.ca"]);
    "fragments of what other lanes store": "fragments.cu" "load_fragments" ["__syncwarp();" => ""] fragments
        Found(&[Race], &["ldmatrix.sync", "tile[i] = x[i]"]);
    "slot filled before it is empty": "pipeline.cu" "hand_over" ["if (i >= 2)" => "if (i >= 200)"] pipeline
        Found(&[Race, BarrierDivergence, Deadlock], &["slot[s][lane] =", "slot[s][31 - lane]", "bar."]);
    "wait at the wrong barrier": "pipeline.cu" "hand_over" ["bar.sync %0, 64;\" ::\"r\"(1 + s)" => "bar.sync %0, 64;\" ::\"r\"(5 + s)"] pipeline
        Found(&[Deadlock, BarrierDivergence], &["bar.sync", "bar.arrive"]);

    "sum without its lock": "locks.cu" "sum_under_lock" ["while (atomicCAS(&lock, 0, 1) != 0)" => "while (false)"] locks
        Found(&[Race], &["*sum += of_block", "*visits += 1"]);
    "lock given back without a fence": "locks.cu" "sum_under_lock" ["*visits += 1;\n        __threadfence();" => "*visits += 1;"] locks
        Found(&[Race], &["*sum += of_block", "*visits += 1"]);
    "lock never given back": "locks.cu" "sum_under_lock" ["atomicExch(&lock, 0);" => ""] locks
        Found(NEVER_ENDS, &["while (atomicCAS", "__nanosleep"]);
    "flag set without a fence": "locks.cu" "publish" ["__threadfence();\n        __syncthreads();" => "__syncthreads();"] locks
        Found(&[Race], &["= data[i]", "data[i] = i * i"]);
    "flag set before all have written": "locks.cu" "publish" ["__threadfence();\n        __syncthreads();" => "__threadfence();"] locks
        Found(TOO_EARLY, &["= data[i]", "data[i] = i * i"]);
    "flag set by one lane before its warp has written": "locks.cu" "publish" ["__threadfence();\n        __syncthreads();" => "__threadfence();"] locks_of_warps
        Found(&[Race], &["= data[i]", "data[i] = i * i"]);
    "data read before all know of the flag": "locks.cu" "publish" ["}\n        __syncthreads();" => "}"] locks
        Found(TOO_EARLY, &["= data[i]", "data[i] = i * i"]);
    "data read by lanes that have not met the one that knows": "locks.cu" "publish" ["}\n        __syncthreads();" => "}"] locks_of_warps
        Found(TOO_EARLY, &["= data[i]", "data[i] = i * i"]);
    "flag never set": "locks.cu" "publish" ["atomicExch(flag, 1);" => ""] locks
        Found(NEVER_ENDS, &["while (atomicAdd(flag", "__syncthreads"]);

    "sweeps without the grid's barrier": "grid_sync.cu" "jacobi" ["grid.sync();" => ""] grid_sync
        Found(TOO_EARLY, &["to[i] =", "float left", "float right"]);
    "barrier of the grid in an ordinary launch": "grid_sync.cu" "jacobi" ["" => ""] grid_not_cooperative
        Found(&[Trap], &["grid.sync()"]);
    "sum that is not atomic": "atomics.cu" "atomic_integers" ["atomicAdd(&s[0], v);" => "s[0] += v;"] atomics
        Found(&[Race], &["s[0] += v"]);
    "shared memory used again too early": "network.cu" "cross_entropy" ["__syncthreads();\n    float sum = 0.0f;" => "float sum = 0.0f;"] network
        Found(&[Race], &["shared[warp] = sum", "largest = fmaxf(fmaxf(shared[0]"]);
    "array narrower than the head": "network.cu" "causal_attention" ["" => ""] attention_too_wide
        Found(&[OutOfBounds], &["sum[d] ="]);
    "keys used before they are loaded": "network.cu" "causal_attention" ["__syncthreads();" => ""] attention
        Found(TOO_EARLY, &["* keys[s * width + d]", "* values[s * width + d]", "keys[i] = k[", "values[i] = v["]);
    "tile of bodies overwritten too early": "nbody.cu" "accelerations" ["}\n        __syncthreads();" => "}"] nbody
        Found(&[Race], &["tile[threadIdx.x] =", "tile[k].x"]);
    "threads beyond the last body store": "nbody.cu" "accelerations" ["if (i < n) {" => "if (true) {"] nbody
        Found(&[OutOfBounds], &["acceleration[i] ="]);

    "tile used before its copies have arrived": "arrivals.cu" "tiles" ["arrived.arrive_and_wait();" => "(void)arrived.arrive();"] arrivals
        Found(TOO_EARLY_COPY, &["= tile[255 - i] + 1", "cuda::memcpy_async(block, tile"]);
    "own copy used before it has arrived": "arrivals.cu" "alone" ["landed.arrive_and_wait();" => "(void)landed.arrive();"] arrivals
        Found(TOO_EARLY_COPY, &["total += part[j]", "cuda::memcpy_async(part"]);
    "buffer used before it is filled": "arrivals.cu" "hand_over" ["filled[i % 2].arrive_and_wait();" => "(void)filled[i % 2].arrive();"] arrivals
        Found(TOO_EARLY, &["buffer[i % 2][lane] =", "2 * buffer[i % 2]"]);
    "stage given back before one warp's last look": "arrivals.cu" "consumers"
        ["(void)empty[i % 2].arrive();\n            }" => "(void)empty[i % 2].arrive();\n            }\n            sum += warp == 1 ? now[lane] : 0;"] arrivals
        Found(&[Race], &["? now[lane] : 0", "now[lane] = x", "now[lane + 32] = x", "sum += now["]);
    "stage given back by one lane before its warp has read": "arrivals.cu" "consumers"
        ["% 64];\n            }\n            __syncwarp();" => "% 64];\n            }"] arrivals
        Found(&[Race], &["sum += now[", "now[lane] = x", "now[lane + 32] = x"]);
    "stage that all lanes have read at once, given back by one lane before its warp has": "arrivals.cu" "consumers"
        ["now[(k + lane * warp) % 64];\n            }\n            __syncwarp();" => "now[k];\n            }"] arrivals
        Found(&[Race], &["sum += now[", "now[lane] = x", "now[lane + 32] = x"]);
    "stage in global memory that all lanes have read at once, given back by one lane before its warp has": "arrivals.cu" "consumers_apart"
        ["now[(k + lane * warp) % 64];\n            }\n            __syncwarp();" => "now[k];\n            }"] arrivals
        Found(&[Race], &["sum += now[", "now[lane] = x", "now[lane + 32] = x"]);
    "number taken from a ring before it is put": "arrivals.cu" "ring" ["while (ready <= i)" => "while (ready < i)"] arrivals
        Found(TOO_EARLY, &["slots[i % 8] = in[i]", "* slots[i % 8]"]);
    "number put into a ring over one that is not taken": "arrivals.cu" "ring" ["gone >= 8" => "gone >= 9"] arrivals Differs;
    "one consumer too few waited for": "arrivals.cu" "consumers" ["init(&empty[threadIdx.x], 3)" => "init(&empty[threadIdx.x], 2)"] arrivals
        Found(&[Race, Undefined], &["sum += now[", "now[lane] = x", "empty[i % 2].arrive()"]);
    "turn passed on before all have added": "turns.cu" "add_in_turn" ["__syncthreads();\n    if (asks)" => "if (asks)"] turns
        Found(TOO_EARLY, &["? 0.0f : sum[threadIdx.x]", "sum[threadIdx.x] = before"]);
    "turn passed on by a store that releases nothing": "turns.cu" "add_in_turn" ["st.global.release" => "st.global.relaxed"] turns
        Found(&[Race], &["? 0.0f : sum[threadIdx.x]", "sum[threadIdx.x] = before"]);
    "turn that never comes": "turns.cu" "add_in_turn" ["(int)blockIdx.x + 1" => "(int)blockIdx.x"] turns
        Found(NEVER_ENDS, &["do {", "if (asks)", "ld.global.acquire", "__syncthreads_or"]);
    "state of a tile never told": "turns.cu" "look_back" ["state[tile] = tile == 0 ? SUM_UP_TO_TILE : SUM_OF_TILE;" => ""] turns
        Found(NEVER_ENDS, &["do {", "known = mine", "while (__any_sync"]);
    "stage used before its copies have landed": "stages.cu" "staged" ["pipeline.consumer_wait();" => ""] stages
        Found(TOO_EARLY_COPY, &["= buffer[compute % stages][127 - i]", "cuda::memcpy_async(block, buffer"]);
};
