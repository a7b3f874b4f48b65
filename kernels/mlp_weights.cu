// The MLP half-block, backward: the gradients of its weights, with the hidden layer made again where it is summed.
//
// Shapes: normal, dout [N, T, E] bf16, rows from `from` on; E a multiple of 32 up to 128. Sequence i belongs to slot (first + i) mod
// slots; a block of threads owns 128 hidden units and one slot, and takes the slot's sequences in ascending order: nobody else
// writes there, so there are no atomics, and no sum depends on the grid. A warp owns 16 hidden units: their weights, and both
// gradients, stay in its registers. Grid (4E / 128, slots), 256 threads, shared memory mlp_weights_shared_bytes.
//
// For each sixteen timesteps, transposed, hidden units being rows: h = fcᵀ·x̂ᵀ and g = proj·doutᵀ; then a = gelu(h) and
// dh = g · gelu'(h) come out of the tensor cores as they go in again for dproj += a·dout and dfcᵀ += dhᵀ·x̂. The operands of the
// second pair are the transposes of the first pair's: those of dout are transposed in registers, those of x̂ are read again.
//
// Working copies, nothing interleaved: for each sixteen hidden units E/16 blocks of fc (norm's weight folded in), then E/16 of projᵀ;
// fc_bias [4E]. With C = x̂ᵀ·dh and S the sums of dh: dfc = w·C + b·S, and the norm's own gradients are Σ C·fc and Σ S·fc over hidden
// units. A block knows 128 of them, so it leaves its share in `partial` [N, 4E / 128, 2, E], at the slot's first sequence, for
// `mlp_norm_gradient`: grid slots, E threads.
//
// Bytes per timestep: 2E + 2E read, from the L2 cache but for the first block of a slot. Tensor operations: 4 · 4E² multiplications. Special
// functions: 2 · 4E. Sums: in the tensor core timesteps ascending; S over a lane's timesteps ascending, then 4 lanes by halves; the
// norm's over 2 hidden units, 8 lanes by halves, then warps, then blocks ascending.
#include "rows.cuh"

static_assert(E <= 128, "gradients stay in registers");

constexpr int TOKENS = 64;
// Elements of a row in shared memory, with padding that spreads rows over the banks.
constexpr int ROW = E + 8;
constexpr int TILE_LEN = TOKENS * ROW / 8;
constexpr int PARTS = 4 * E / 128;
// What a launch must ask for, read by the host: two tiles each of x̂ and dout.
extern "C" __constant__ const u32 mlp_weights_shared_bytes = 4 * TILE_LEN * 16;

// The slot's first sequence of this call.
DEVICE u32 first_of(u32 slot, u32 first, u32 slots) { return (slot + slots - first % slots) % slots; }

// Sixteen timesteps by sixteen columns as two B fragments, timesteps being columns: both halves of k of each.
DEVICE void load_columns(u32 (&b)[4], u32 tile, int token, int column) {
    const int lane = lane_id();
    load_matrices(b, tile + ((token + (lane & 7) + 8 * (lane >> 4)) * ROW + column + (lane & 8)) * 2);
}

KERNEL __launch_bounds__(256, 1)
    mlp_weights(const u32* normal, const u32* dout, const uint4* weight, const float* fc_bias, const float* fc_weight,
                const float* norm_weight, const float* norm_bias, float* fc_weight_grad, float* fc_bias_grad,
                float* proj_weight_grad, float* proj_bias_grad, float* partial, u32 n, u32 first, u32 slots, u32 from,
                u64 slot_len) {
    __shared__ float shares[8][2][E];
    const int lane = lane_id(), g = lane >> 2, t = lane & 3, warp = warp_id();
    const u32 slot = blockIdx.y, start = first_of(slot, first, slots), hidden = 128 * blockIdx.x + 16 * warp;
    if (start >= n) return;
    const u32 tiles = (T - from + TOKENS - 1) / TOKENS, steps = (n - start + slots - 1) / slots * tiles;
    const u32 tile_bytes = 16 * TILE_LEN;

    // One step's timesteps: zeros beyond the sequence.
    const auto load = [&](u32 step) {
        const size_t sequence = start + step / tiles * slots;
        const u32 time = from + step % tiles * TOKENS, to = shared_address(shared) + (step & 1) * 2 * tile_bytes;
        for (u32 i = threadIdx.x; i < TOKENS * E / 8; i += 256) {
            const u32 row = i / (E / 8), column = i % (E / 8) * 8, at = to + (row * ROW + column) * 2;
            const bool there = time + row < T;
            const size_t source = there ? ((sequence * T + time + row) * E + column) / 2 : 0;
            copy_async_if(at, normal + source, there);
            copy_async_if(at + tile_bytes, dout + source, there);
        }
        commit_copies();
    };

    // Rows of hidden units: a B fragment of a matrix is an A fragment of its transpose, the inner two words exchanged.
    u32 fc[STEPS][4], proj[STEPS][4];
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
        const uint4 f = weight[(hidden / 16 * 2 * STEPS + i) * 32 + lane], p = weight[(hidden / 16 * 2 * STEPS + STEPS + i) * 32 + lane];
        fc[i][0] = f.x, fc[i][1] = f.z, fc[i][2] = f.y, fc[i][3] = f.w;
        proj[i][0] = p.x, proj[i][1] = p.z, proj[i][2] = p.y, proj[i][3] = p.w;
    }
    const float bias[2] = {fc_bias[hidden + g], fc_bias[hidden + g + 8]};

    // Gradients of fc, transposed, and of proj; sums of dh; thread i has those of dout's columns 2i and 2i + 1.
    float dfc[2 * STEPS][4] = {}, dproj[2 * STEPS][4] = {}, sums[2] = {0, 0}, column_sums[2] = {0, 0};
    load(0);
#pragma unroll 1
    for (u32 step = 0; step < steps; ++step) {
        wait_copies<0>();
        __syncthreads();
        if (step + 1 < steps) load(step + 1);
        const int buffer = (step & 1) * 2 * TILE_LEN, count = min(TOKENS, static_cast<int>(T - from - step % tiles * TOKENS));
        const u32 x_tile = shared_address(shared + buffer), dy_tile = x_tile + tile_bytes;
        if (blockIdx.x == 0 && threadIdx.x < E / 2) {
            const u32* const column = reinterpret_cast<const u32*>(shared + buffer + TILE_LEN) + threadIdx.x;
            for (int i = 0; i < count; ++i) column_sums[0] += low(column[i * ROW / 2]), column_sums[1] += high(column[i * ROW / 2]);
        }
#pragma unroll 1
        for (int token = 0; token < count; token += 16) {
            float h[2][4], d[2][4] = {};
            u32 dy[STEPS][4];
#pragma unroll
            for (int i = 0; i < 8; ++i) h[i / 4][i % 4] = bias[i % 4 / 2];
#pragma unroll
            for (int i = 0; i < STEPS; ++i) {
                u32 x[4];
                load_columns(x, x_tile, token, 16 * i);
                load_columns(dy[i], dy_tile, token, 16 * i);
                mma16(h[0], fc[i], x[0], x[1]);
                mma16(h[1], fc[i], x[2], x[3]);
                mma16(d[0], proj[i], dy[i][0], dy[i][1]);
                mma16(d[1], proj[i], dy[i][2], dy[i][3]);
            }
            u32 a[4], dh[4];
#pragma unroll
            for (int p = 0; p < 2; ++p) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float value[2], slope[2];
#pragma unroll
                    for (int b = 0; b < 2; ++b) {
                        gelu_and_slope(h[p][2 * half + b], value[b], slope[b]);
                        slope[b] *= d[p][2 * half + b];
                    }
                    a[2 * p + half] = pack(value[0], value[1]);
                    dh[2 * p + half] = pack(slope[0], slope[1]);
                    sums[half] += slope[0] + slope[1];
                }
            }
#pragma unroll
            for (int i = 0; i < STEPS; ++i) {
                mma16(dproj[2 * i], a, transpose(dy[i][0]), transpose(dy[i][2]));
                mma16(dproj[2 * i + 1], a, transpose(dy[i][1]), transpose(dy[i][3]));
                u32 x[4];
                load_transposed(x, x_tile + ((token + (lane & 15)) * ROW + 16 * i + 8 * (lane >> 4)) * 2);
                mma16(dfc[2 * i], dh, x[0], x[1]);
                mma16(dfc[2 * i + 1], dh, x[2], x[3]);
            }
        }
    }
    sums[0] = sum_lanes<4>(sums[0]), sums[1] = sum_lanes<4>(sums[1]);

    fc_weight_grad += slot * slot_len, fc_bias_grad += slot * slot_len;
    proj_weight_grad += slot * slot_len, proj_bias_grad += slot * slot_len;
    if (blockIdx.x == 0 && threadIdx.x < E / 2) {
        proj_bias_grad[2 * threadIdx.x] += column_sums[0], proj_bias_grad[2 * threadIdx.x + 1] += column_sums[1];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (t == 0) fc_bias_grad[hidden + 8 * half + g] += sums[half];
#pragma unroll
        for (int i = 0; i < 2 * STEPS; ++i) {
#pragma unroll
            for (int b = 0; b < 2; ++b) {
                proj_weight_grad[(hidden + 8 * half + g) * E + 8 * i + 2 * t + b] += dproj[i][2 * half + b];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 4 * STEPS; ++i) {
        const int column = 8 * (i / 2) + 2 * t + i % 2;
        const float w = norm_weight[column], b = norm_bias[column];
        float dw = 0, db = 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const size_t at = (size_t)column * 4 * E + hidden + 8 * half + g;
            const float value = dfc[i / 2][2 * half + i % 2];
            fc_weight_grad[at] += fmaf(w, value, b * sums[half]);
            dw = fmaf(value, fc_weight[at], dw);
            db = fmaf(sums[half], fc_weight[at], db);
        }
        // Lanes of one column are four apart.
#pragma unroll
        for (int bit = 4; bit < 32; bit *= 2) {
            dw += __shfl_xor_sync(ALL_LANES, dw, bit);
            db += __shfl_xor_sync(ALL_LANES, db, bit);
        }
        if (g == 0) shares[warp][0][column] = dw, shares[warp][1][column] = db;
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < 2 * E; i += 256) {
        float sum = 0;
        for (int k = 0; k < 8; ++k) sum += shares[k][i / E][i % E];
        partial[(size_t)(start * PARTS + blockIdx.x) * 2 * E + i] = sum;
    }
}

KERNEL __launch_bounds__(E) mlp_norm_gradient(const float* partial, float* norm_weight_grad, float* norm_bias_grad, u32 n, u32 first,
                                              u32 slots, u64 slot_len) {
    const u32 slot = blockIdx.x, start = first_of(slot, first, slots);
    if (start >= n) return;
    float dw = 0, db = 0;
    for (int i = 0; i < PARTS; ++i) {
        dw += partial[(size_t)(start * PARTS + i) * 2 * E + threadIdx.x];
        db += partial[(size_t)(start * PARTS + i) * 2 * E + E + threadIdx.x];
    }
    norm_weight_grad[slot * slot_len + threadIdx.x] += dw;
    norm_bias_grad[slot * slot_len + threadIdx.x] += db;
}
