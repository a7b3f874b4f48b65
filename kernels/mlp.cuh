// What both passes of the hidden layer share. A warp owns 32 timesteps, a block of threads of 8 warps 256.
//
// The weights lie in shared memory, by blocks of sixteen hidden units: all, where it is large enough (SHARED_LIMIT),
// or in chunks that stream through two halves of it.
#pragma once
#include "rows.cuh"

static_assert(E <= 128, "accumulators stay in registers");

constexpr int HIDDEN_BLOCKS = 4 * E / 16;
// uint4 of the hidden layer's bias, behind the weights.
constexpr int BIAS_LEN = E;

// `block_len` is uint4 of one block of hidden units.
template <int block_len>
struct Chunks {
    // Blocks that are in shared memory together: all, or the largest part of which two fit.
    static constexpr int blocks() {
        if ((HIDDEN_BLOCKS * block_len + BIAS_LEN) * 16 <= SHARED_LIMIT) return HIDDEN_BLOCKS;
        int most = HIDDEN_BLOCKS / 2;
        while (HIDDEN_BLOCKS % most != 0 || (2 * most * block_len + BIAS_LEN) * 16 > SHARED_LIMIT) --most;
        return most;
    }
    static constexpr int BLOCKS = blocks();
    static constexpr int COUNT = HIDDEN_BLOCKS / BLOCKS;
    static constexpr int LEN = BLOCKS * block_len;
    static constexpr int WEIGHTS_LEN = (COUNT > 1 ? 2 : 1) * LEN;
    static constexpr u32 SHARED_BYTES = (WEIGHTS_LEN + BIAS_LEN) * 16;

    // Begins to copy a chunk into one of the halves; 256 threads.
    static DEVICE void load(const uint4* weight, int chunk, int half) {
        const u32 to = shared_address(shared + half * LEN);
        for (int i = threadIdx.x; i < LEN; i += 256) copy_async(to + 16 * i, weight + chunk * LEN + i);
        commit_copies();
    }

    // Begins with the first chunk and the bias [4E], which is returned; both are there after the first `next`.
    static DEVICE const float* begin(const uint4* weight, const float* from) {
        float* const bias = reinterpret_cast<float*>(shared + WEIGHTS_LEN);
        load(weight, 0, 0);
        for (int i = threadIdx.x; i < 4 * E; i += 256) bias[i] = from[i];
        if (COUNT == 1) {
            wait_copies<0>();
            __syncthreads();
        }
        return bias;
    }

    // Waits for a chunk, which is in the half `buffer`, and begins to copy the one after it, if there is `more` than this round.
    static DEVICE void next(const uint4* weight, int chunk, int buffer, bool more) {
        if (COUNT == 1) return;
        wait_copies<0>();
        __syncthreads();
        if (chunk + 1 < COUNT || more) load(weight, (chunk + 1) % COUNT, buffer ^ 1);
    }
};

// Where one of the lane's four rows of a tile of 256 is (sixteen `m`, row g or g + 8), among rows from `from` on; −1 beyond `total`.
DEVICE long long place_of(u32 tile, int m, int half, u32 from, u32 total) {
    const u32 r = 256 * tile + 32 * warp_id() + 16 * m + 8 * half + (lane_id() >> 2), rows = T - from;
    return r < total ? (long long)(r / rows) * T + from + r % rows : -1;
}

// Sixteen hidden units start from their bias.
DEVICE void start_hidden(float (&hidden)[2][4], const float4& b) {
    hidden[0][0] = hidden[0][2] = b.x, hidden[0][1] = hidden[0][3] = b.y;
    hidden[1][0] = hidden[1][2] = b.z, hidden[1][1] = hidden[1][3] = b.w;
}
