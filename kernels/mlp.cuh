// The hidden layer's weights in shared memory, by blocks of sixteen hidden units: all, where it is large enough (SHARED_LIMIT), or
// in chunks that stream through two halves of it.
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
};
