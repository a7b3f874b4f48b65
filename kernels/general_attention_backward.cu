// Attention backward for any head width and any number of timesteps, in two kernels that each sum in one order and know no atomics:
// what queries gain, keys passing by; then what keys and values gain, queries passing by. Scores are recomputed from lse in both.
//
// Shapes: qkv, dqkv [N, T, 3E], answer, danswer [N, T, E], bf16, padded; lse, dots [N, H, T] f32. danswer, the gradient of the answers,
// and lse are there from `from` on; dqkv is written for all timesteps. A block of threads owns 64 timesteps of one head, and one
// chunk of its columns. Grid (N·H, tiles·CHUNKS); 128 threads, shared memory attention_backward_shared_bytes.
//
// With C starting at −lse the product of queries and keys is at once the argument of 2^x; with C starting at −dot, dot = Σ dO·O, that of
// dO and values is dP − dot; and dS = P · (dP − dot).
//
// Bytes per timestep and head: 12D read and 6D written once; two of the four operands again for each tile on one side of the
// diagonal, from the L2 cache. Tensor operations: 7 products of the scores' size, blocks of 64 × 16 up to the diagonal, columns padded to
// eight. Exponentials: twice those tiles. Sums: timesteps ascending; dot over half a row's columns, then its other half.
#include "general_attention.cuh"

// What a launch must ask for, read by the host.
extern "C" __constant__ const u32 attention_backward_shared_bytes = 4 * TILE_LEN * 16 + 2 * ROWS * 4;

struct Block {
    int tile, chunk;
    size_t sequence, head;

    DEVICE explicit Block(int y) : tile(y / CHUNKS), chunk(y % CHUNKS), sequence(blockIdx.x / H), head(blockIdx.x % H) {}

    // The chunk's place in timestep 0 of a matrix with rows of `ld`.
    template <class Number>
    DEVICE Number* of(Number* all, int ld, int part) const {
        return all + sequence * T * ld + head * D + part * WIDTH;
    }
};

KERNEL __launch_bounds__(128) attend_backward_queries(const u16* qkv, const u16* answer, const u16* danswer, const float* lse,
                                                      float* dots, u16* dqkv, u32 from) {
    const int lane = lane_id(), g = lane >> 2, t = lane & 3, warp = warp_id(), begin = from;
    const Block block(gridDim.y - 1 - blockIdx.y);
    const int tile = block.tile, columns = columns_of(block.chunk);
    uint4 *const queries = shared, *const gradients = shared + TILE_LEN, *const keys = shared + 2 * TILE_LEN;
    uint4* const values = shared + 3 * TILE_LEN;
    float* const own_dots = reinterpret_cast<float*>(shared + 4 * TILE_LEN);

    // Two threads share a row.
    float dot = 0;
#pragma unroll 1
    for (int part = 0; part < CHUNKS; ++part) {
        load_tile(gradients, block.of(danswer, LD, part), LD, tile, begin, columns_of(part));
        load_tile(values, block.of(answer, LD, part), LD, tile, begin, columns_of(part));
        __syncthreads();
        const int at = threadIdx.x / 2 * STRIDE * 4 + threadIdx.x % 2 * (WIDTH / 4);
        for (int i = 0; i < WIDTH / 4; ++i) {
            const u32 d = reinterpret_cast<u32*>(gradients)[at + i], o = reinterpret_cast<u32*>(values)[at + i];
            dot = fmaf(low(d), low(o), fmaf(high(d), high(o), dot));
        }
        __syncthreads();
    }
    dot += __shfl_xor_sync(ALL_LANES, dot, 1);
    if (threadIdx.x % 2 == 0) {
        const int time = ROWS * tile + threadIdx.x / 2;
        own_dots[threadIdx.x / 2] = dot;
        if (block.chunk == 0 && time < T) dots[(block.sequence * H + block.head) * T + time] = dot;
    }
    __syncthreads();
    float start[2], minus_dot[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = 16 * warp + 8 * half + g, time = ROWS * tile + row;
        const bool there = time >= begin && time < T;
        start[half] = there ? -lse[(block.sequence * H + block.head) * T + time] : MINUS_INFINITY;
        minus_dot[half] = -own_dots[row];
    }

    float dq[PIECES][4] = {};
    // Nobody needs answers before `from`, so such queries gain nothing.
    const int tiles = ROWS * tile + ROWS <= begin ? 0 : tile + 1;
#pragma unroll 1
    for (int j = 0; j < tiles; ++j) {
        const int end = j == tile ? warp + 1 : 4;
        float s[8][4], r[8][4];
#pragma unroll
        for (int i = 0; i < 32; ++i) s[i / 4][i % 4] = start[i % 4 / 2], r[i / 4][i % 4] = minus_dot[i % 4 / 2];
        // The block's own chunk comes last and stays.
#pragma unroll 1
        for (int i = 1; i <= CHUNKS; ++i) {
            const int part = (block.chunk + i) % CHUNKS;
            __syncthreads();
            if (CHUNKS > 1 || j == 0) {
                load_tile(queries, block.of(qkv, LD3, part), LD3, tile, 0, columns_of(part));
                load_tile(gradients, block.of(danswer, LD, part), LD, tile, begin, columns_of(part));
            }
            load_tile(keys, block.of(qkv, LD3, part) + E, LD3, j, 0, columns_of(part));
            load_tile(values, block.of(qkv, LD3, part) + 2 * E, LD3, j, 0, columns_of(part));
            __syncthreads();
            multiply(s, queries, keys, 0, end);
            multiply(r, gradients, values, 0, end);
        }
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const bool later = j == tile && 8 * (i / 4) + 2 * t + i % 2 > 16 * warp + 8 * (i % 4 / 2) + g;
            r[i / 4][i % 4] *= later ? 0.0f : exp2_approx(s[i / 4][i % 4]);
        }
        weigh(dq, r, keys, 0, end);
    }
    const float scale = rsqrtf(D);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int time = ROWS * tile + 16 * warp + 8 * half + g;
        if (time < T) store_row(block.of(dqkv, LD3, block.chunk) + (size_t)time * LD3, dq, half, scale, columns);
    }
}

KERNEL __launch_bounds__(128) attend_backward_keys(const u16* qkv, const u16* danswer, const float* lse, const float* dots,
                                                   u16* dqkv, u32 from) {
    const int lane = lane_id(), g = lane >> 2, t = lane & 3, warp = warp_id(), begin = from;
    // Early tiles have the most queries.
    const Block block(blockIdx.y);
    const int tile = block.tile, columns = columns_of(block.chunk);
    uint4 *const keys = shared, *const values = shared + TILE_LEN, *const queries = shared + 2 * TILE_LEN;
    uint4* const gradients = shared + 3 * TILE_LEN;
    // Minus lse, and minus dot, of the tile of queries.
    float* const starts = reinterpret_cast<float*>(shared + 4 * TILE_LEN);
    float* const minus_dots = starts + ROWS;

    float dk[PIECES][4] = {}, dv[PIECES][4] = {};
    const int first = max(tile, begin / ROWS);
#pragma unroll 1
    for (int j = first; j < TILES; ++j) {
        const int from_block = j == tile ? warp : 0;
        __syncthreads();
        if (threadIdx.x < ROWS) {
            const int time = ROWS * j + threadIdx.x;
            const bool there = time >= begin && time < T;
            const size_t at = (block.sequence * H + block.head) * T + time;
            starts[threadIdx.x] = there ? -lse[at] : MINUS_INFINITY;
            minus_dots[threadIdx.x] = there ? -dots[at] : 0.0f;
        }
        __syncthreads();
        float s[8][4], r[8][4];
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            const float2 l = *reinterpret_cast<const float2*>(starts + 8 * k + 2 * t);
            const float2 d = *reinterpret_cast<const float2*>(minus_dots + 8 * k + 2 * t);
            s[k][0] = s[k][2] = l.x, s[k][1] = s[k][3] = l.y;
            r[k][0] = r[k][2] = d.x, r[k][1] = r[k][3] = d.y;
        }
#pragma unroll 1
        for (int i = 1; i <= CHUNKS; ++i) {
            const int part = (block.chunk + i) % CHUNKS;
            if (i > 1) __syncthreads();
            if (CHUNKS > 1 || j == first) {
                load_tile(keys, block.of(qkv, LD3, part) + E, LD3, tile, 0, columns_of(part));
                load_tile(values, block.of(qkv, LD3, part) + 2 * E, LD3, tile, 0, columns_of(part));
            }
            load_tile(queries, block.of(qkv, LD3, part), LD3, j, 0, columns_of(part));
            load_tile(gradients, block.of(danswer, LD, part), LD, j, begin, columns_of(part));
            __syncthreads();
            multiply(s, keys, queries, from_block, 4);
            multiply(r, values, gradients, from_block, 4);
        }
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const bool later = j == tile && 16 * warp + 8 * (i % 4 / 2) + g > 8 * (i / 4) + 2 * t + i % 2;
            float& p = s[i / 4][i % 4];
            p = later ? 0.0f : exp2_approx(p);
            r[i / 4][i % 4] *= p;
        }
        weigh(dv, s, gradients, from_block, 4);
        weigh(dk, r, queries, from_block, 4);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int time = ROWS * tile + 16 * warp + 8 * half + g;
        if (time >= T) continue;
        u16* const row = block.of(dqkv, LD3, block.chunk) + (size_t)time * LD3;
        // Queries carry log2(e)/√D.
        store_row(row + E, dk, half, LN_2, columns);
        store_row(row + 2 * E, dv, half, 1.0f, columns);
    }
}
