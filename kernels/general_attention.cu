// Causal attention for any head width and any number of timesteps: answer = softmax(q·kᵀ/√D)·v.
//
// Shapes: qkv [N, T, 3E] bf16, padded, with log2(e)/√D in the queries; answer [N, T, E] bf16, padded; lse, log2 of the sum of 2^score
// [N, H, T]. Only timesteps from `from` on are answered. A block of threads owns 64 queries of one head, and one chunk of its
// values' columns; keys and values pass in tiles of 64. Grid (N·H, tiles·CHUNKS), late tiles first, for they are the longest; 128 threads,
// shared memory attention_shared_bytes.
//
// Softmax as keys come: the largest score so far is subtracted, and what was summed before is scaled when it grows.
//
// Bytes per timestep and head: 2D read, keys and values 4D for each later tile of queries, from the L2 cache; 2D + 4 written. Tensor
// operations: blocks of 64 × 16 up to the diagonal, columns padded to eight. Exponentials: tiles of 64 × 64. Sums: a lane's keys ascending,
// tile by tile, then 4 lanes by halves.
#include "general_attention.cuh"

// What a launch must ask for, and how many blocks of threads there are to a tile, read by the host.
extern "C" __constant__ const u32 attention_shared_bytes = 3 * TILE_LEN * 16;
extern "C" __constant__ const u32 attention_chunks = CHUNKS;

KERNEL __launch_bounds__(128) attend(const u16* qkv, u16* answer, float* lse, u32 from) {
    const int lane = lane_id(), g = lane >> 2, t = lane & 3, warp = warp_id();
    const int y = gridDim.y - 1 - blockIdx.y, chunk = y % CHUNKS, tile = from / ROWS + y / CHUNKS;
    const size_t sequence = blockIdx.x / H, head = blockIdx.x % H;
    const u16* const own = qkv + sequence * T * LD3 + head * D;
    uint4 *const queries = shared, *const keys = shared + TILE_LEN, *const values = shared + 2 * TILE_LEN;

    float out[PIECES][4] = {};
    float most[2] = {MINUS_INFINITY, MINUS_INFINITY}, sums[2] = {0, 0};
#pragma unroll 1
    for (int j = 0; j <= tile; ++j) {
        const int end = j == tile ? warp + 1 : 4;
        float s[8][4] = {};
#pragma unroll 1
        for (int part = 0; part < CHUNKS; ++part) {
            __syncthreads();
            if (CHUNKS > 1 || j == 0) load_tile(queries, own + part * WIDTH, LD3, tile, 0, columns_of(part));
            load_tile(keys, own + E + part * WIDTH, LD3, j, 0, columns_of(part));
            if (part == CHUNKS - 1) load_tile(values, own + 2 * E + chunk * WIDTH, LD3, j, 0, columns_of(chunk));
            __syncthreads();
            multiply(s, queries, keys, 0, end);
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float top = most[half];
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                // Later keys than the query.
                float& score = s[i / 2][2 * half + i % 2];
                if (j == tile && 8 * (i / 2) + 2 * t + i % 2 > 16 * warp + 8 * half + g) score = MINUS_INFINITY;
                top = fmaxf(top, score);
            }
            top = max_lanes<4>(top);
            const float factor = exp2_approx(most[half] - top);
            most[half] = top;
            float sum = 0;
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                float& score = s[i / 2][2 * half + i % 2];
                score = exp2_approx(score - top);
                sum += score;
            }
            sums[half] = fmaf(sums[half], factor, sum);
#pragma unroll
            for (int i = 0; i < 2 * PIECES; ++i) out[i / 2][2 * half + i % 2] *= factor;
        }
        weigh(out, s, values, 0, end);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int time = ROWS * tile + 16 * warp + 8 * half + g;
        const float sum = sum_lanes<4>(sums[half]);
        if (time < static_cast<int>(from) || time >= T) continue;
        u16* const row = answer + (sequence * T + time) * LD + head * D + chunk * WIDTH;
        store_row(row, out, half, reciprocal(sum), columns_of(chunk));
        if (chunk == 0 && t == 0) lse[(sequence * H + head) * T + time] = most[half] + log2_approx(sum);
    }
}
