// Gradients of weights: C = Aᵀ·B over the timesteps of a slot's sequences, added to the slot of the flat gradients.
//
// A [N, rows, m_ld] and B [N, rows, n_ld], bf16, rows from `skip` on, of which m_len and n_len columns count. Sequence i belongs to slot
// (first + i) mod slots; a block of threads owns ROWS rows of C and one slot, and takes the slot's sequences in ascending order: nobody
// else writes there, so there are no atomics, and no sum depends on the grid. A launch takes the columns from `begin` on, one for each
// thread. Grid (ceil(m_len / ROWS), slots), a multiple of 32 threads up to MOST_COLUMNS, shared memory 128·(ROWS + threads + 16) bytes.
// m_ld and n_ld are multiples of 8.
//
// C goes to weight_grad[m·m_stride + n·n_stride]; the sums of B's columns, in f32, to bias_grad[n] unless that is
// null. Slots lie slot_len floats apart. If `channel` is not null, sequence i adds to matrix channel[i], matrix_len apart.
//
// Where A are normalised rows, the true operand was x̂·w + b of the norm. Then (norm_weight not null) with S the column sums:
// dW = w·C + b·S, dw = Σ_n C·W, db = Σ_n S·W; W is `weight`, with the strides of its gradient.
//
// Bytes per timestep: 2·m_len for each launch + 2·n_len for each ROWS rows of C, from the L2 cache but for the first time. Tensor
// operations: m_len·n_len multiplications, 1 / TILES as many again for the column sums where they are wanted. Sums: in the tensor core
// timesteps ascending; dw and db over a lane's columns, 4 lanes by halves, then warps ascending, then launches.
#include "common.cuh"

constexpr int TOKENS = 32;
// Rows of C that a block of threads owns. Wide models have enough of them for every multiprocessor, and then B need not be read so
// often; at a width of 96 tall tiles would leave some idle.
constexpr int ROWS = E < 192 ? 32 : 64;
constexpr int TILES = ROWS / 16;
// Columns that a block of threads takes at a time: one for each thread.
constexpr int MOST_COLUMNS = E < 192 ? 384 : 256;
// Columns of A in shared memory, with padding that spreads rows over the banks.
constexpr int A_ROW = ROWS + 8;
// What launches must know, read by the host.
extern "C" __constant__ const u32 weight_gradient_rows = ROWS;
extern "C" __constant__ const u32 weight_gradient_columns = MOST_COLUMNS;
constexpr u32 ONES = 0x3f803f80u;

struct Gradient {
    float* weight_grad;
    float* bias_grad;
    const float* weight;
    const float* norm_weight;
    const float* norm_bias;
    float* norm_weight_grad;
    float* norm_bias_grad;
    u32 m_stride, n_stride, m_len, n_len;
};

// Adds the warp's ROWS × 32 of C, columns from `column` on, to the gradients; `sums` are the column sums, in every row.
DEVICE void flush(const Gradient& to, u32 column, const float (&c)[TILES][4][4], const float (&sums)[4][4], float (*partial)[ROWS][2]) {
    const int lane = lane_id(), g = lane >> 2, t = lane & 3, warp = warp_id();
    const bool folded = to.norm_weight != nullptr;
#pragma unroll
    for (int i = 0; i < 2 * TILES; ++i) {
        const u32 m = ROWS * blockIdx.x + 8 * i + g;
        const bool there = m < to.m_len;
        const float w = folded && there ? to.norm_weight[m] : 1.0f, b = folded && there ? to.norm_bias[m] : 0.0f;
        float dw = 0, db = 0;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const u32 n = column + 8 * (j / 2) + 2 * t + j % 2;
            if (!there || n >= to.n_len) continue;
            const float value = c[i / 2][j / 2][2 * (i % 2) + j % 2], sum = sums[j / 2][j % 2];
            const size_t at = (size_t)m * to.m_stride + (size_t)n * to.n_stride;
            to.weight_grad[at] += fmaf(w, value, b * sum);
            if (folded) {
                dw = fmaf(value, to.weight[at], dw);
                db = fmaf(sum, to.weight[at], db);
            }
        }
        if (folded) {
            dw = sum_lanes<4>(dw), db = sum_lanes<4>(db);
            if (t == 0) partial[warp][8 * i + g][0] = dw, partial[warp][8 * i + g][1] = db;
        }
    }
    if (to.bias_grad && blockIdx.x == 0 && g == 0) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const u32 n = column + 8 * (j / 2) + 2 * t + j % 2;
            if (n < to.n_len) to.bias_grad[n] += sums[j / 2][j % 2];
        }
    }
    if (!folded) return;
    __syncthreads();
    for (u32 i = threadIdx.x; i < ROWS; i += blockDim.x) {
        float dw = 0, db = 0;
        for (u32 k = 0; k < blockDim.x / 32; ++k) dw += partial[k][i][0], db += partial[k][i][1];
        if (ROWS * blockIdx.x + i < to.m_len) {
            to.norm_weight_grad[ROWS * blockIdx.x + i] += dw;
            to.norm_bias_grad[ROWS * blockIdx.x + i] += db;
        }
    }
    __syncthreads();
}

KERNEL __launch_bounds__(MOST_COLUMNS) weight_gradient(const u32* a, const u32* b, float* weight_grad, float* bias_grad,
                                              const float* weight, const float* norm_weight, const float* norm_bias,
                                              float* norm_weight_grad, float* norm_bias_grad, const u32* channel, u32 n,
                                              u32 first, u32 slots, u32 rows, u32 skip, u32 m_len, u32 m_ld, u32 n_len, u32 n_ld,
                                              u32 begin, u32 m_stride, u32 n_stride, u32 matrix_len, u64 slot_len) {
    __shared__ float partial[MOST_COLUMNS / 32][ROWS][2];
    const int lane = lane_id(), warp = warp_id();
    const u32 slot = blockIdx.y, b_row = blockDim.x + 8, buffer_len = TOKENS * (A_ROW + b_row) / 8;
    const u32 start = (slot + slots - first % slots) % slots;
    if (start >= n) return;
    const u32 tiles = (rows - skip + TOKENS - 1) / TOKENS, steps = (n - start + slots - 1) / slots * tiles;

    // One step's timesteps: 32 columns of A, and of B from `begin` on; zeros beyond the sequence and the columns that count.
    const auto load = [&](u32 step) {
        const size_t sequence = start + step / tiles * slots;
        const u32 from = skip + step % tiles * TOKENS, to = shared_address(shared + (step & 1) * buffer_len);
        const auto copy = [&](u32 at, const u32* source, u32 row, u32 column, u32 len, u32 ld) {
            const u32 bytes = row < rows && column < len ? min(16u, 2 * (len - column)) : 0;
            copy_async_part(to + 2 * at, source + (bytes ? ((sequence * rows + row) * ld + column) / 2 : 0), bytes);
        };
        constexpr u32 A_PIECES = ROWS / 8;
        for (u32 i = threadIdx.x; i < TOKENS * A_PIECES; i += blockDim.x) {
            const u32 column = i % A_PIECES * 8;
            copy(i / A_PIECES * A_ROW + column, a, from + i / A_PIECES, ROWS * blockIdx.x + column, m_len, m_ld);
        }
        const u32 pieces = blockDim.x / 8;
        for (u32 i = threadIdx.x; i < TOKENS * pieces; i += blockDim.x) {
            const u32 column = i % pieces * 8;
            copy(TOKENS * A_ROW + i / pieces * b_row + column, b, from + i / pieces, begin + column, n_len, n_ld);
        }
        commit_copies();
    };

    Gradient to = {weight_grad + slot * slot_len,
                   bias_grad ? bias_grad + slot * slot_len : nullptr,
                   weight,
                   norm_weight,
                   norm_bias,
                   norm_weight_grad + slot * slot_len,
                   norm_bias_grad + slot * slot_len,
                   m_stride,
                   n_stride,
                   m_len,
                   n_len};
    const bool summed = norm_weight != nullptr || (bias_grad != nullptr && blockIdx.x == 0);
    float c[TILES][4][4] = {}, sums[4][4] = {};
    load(0);
#pragma unroll 1
    for (u32 step = 0; step < steps; ++step) {
        wait_copies<0>();
        __syncthreads();
        if (step + 1 < steps) load(step + 1);
        const u32 at = shared_address(shared + (step & 1) * buffer_len);
#pragma unroll
        for (int k = 0; k < TOKENS; k += 16) {
            u32 fa[TILES][4], fb[2][4];
#pragma unroll
            for (int i = 0; i < TILES; ++i) {
                const u32 token_a = k + (lane & 7) + 8 * (lane >> 4), column_a = 16 * i + (lane & 8);
                load_transposed(fa[i], at + (token_a * A_ROW + column_a) * 2);
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const u32 token_b = k + (lane & 15), column_b = 32 * warp + 16 * i + 8 * (lane >> 4);
                load_transposed(fb[i], at + (TOKENS * A_ROW + token_b * b_row + column_b) * 2);
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const u32 b0 = fb[j / 2][j % 2 * 2], b1 = fb[j / 2][j % 2 * 2 + 1];
#pragma unroll
                for (int i = 0; i < TILES; ++i) mma16(c[i][j], fa[i], b0, b1);
                if (summed) mma16(sums[j], ONES, ONES, ONES, ONES, b0, b1);
            }
        }
        if (channel && (step + 1) % tiles == 0) {
            const size_t matrix = (size_t)channel[start + step / tiles * slots] * matrix_len;
            to.weight_grad = weight_grad + slot * slot_len + matrix;
            to.weight = weight + matrix;
            flush(to, begin + 32 * warp, c, sums, partial);
#pragma unroll
            for (int i = 0; i < 16 * TILES; ++i) c[i / 16][i / 4 % 4][i % 4] = 0;
#pragma unroll
            for (int i = 0; i < 16; ++i) sums[i / 4][i % 4] = 0;
        }
    }
    if (!channel) flush(to, begin + 32 * warp, c, sums, partial);
}
