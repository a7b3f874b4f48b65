// Attention against a cache of keys and values, by one warp for one head and up to sixteen queries of a sequence.
//
// Cache of a sequence's layer: bf16 [2, E / CHUNK, T, CHUNK], keys then values; CHUNK = the largest of 8, 4, 2, 1 that divides D. Heads
// of eight are whole 8 × 8 matrices: 128 neighbouring bytes for a warp's load.
//
// Queries are rows of A, keys columns of B: a C tile of scores packs into A for the product with the values, whose B fragments are
// loaded as the keys' are and transposed between the lanes. Keys go in stretches of sixty-four from timestep 0, so that a query's bits
// depend on its own timestep alone, not on which queries are its neighbours. Heads wider than 128 are answered in slices,
// each of which computes the scores anew. The maximum is exact, not a bound.
#pragma once
#include "common.cuh"

constexpr int CHUNK = D % 8 == 0 ? 8 : D % 4 == 0 ? 4 : D % 2 == 0 ? 2 : 1;
// Tiles of eight dimensions of a head, and of a slice of it.
constexpr int D_TILES = ceil_div(D, 8);
constexpr int SLICE = D_TILES < 16 ? D_TILES : 16;
// Tiles of eight keys that are taken together.
constexpr int STRETCH = 8;

// Two dimensions of a row of bf16 in which they are neighbours; zeros unless `there`.
DEVICE u32 pair_of_row(const u16* row, int dimension, bool there) {
    if constexpr (D % 2 == 0) {
        return there && dimension < D ? *reinterpret_cast<const u32*>(row + dimension) : 0;
    } else {
        const u32 first = there && dimension < D ? row[dimension] : 0;
        return first | (there && dimension + 1 < D ? u32(row[dimension + 1]) << 16 : 0);
    }
}

// The same of the key or value at a timestep, from a head's planes [D / CHUNK, T, CHUNK].
DEVICE u32 pair_of_cache(const u16* planes, int timestep, int dimension, bool there) {
    const u16* const at = planes + ((size_t)(dimension / CHUNK) * T + timestep) * CHUNK + dimension % CHUNK;
    if constexpr (D % 2 == 0) {
        return there && dimension < D ? *reinterpret_cast<const u32*>(at) : 0;
    } else {
        const u32 first = there && dimension < D ? at[0] : 0;
        return first | (there && dimension + 1 < D ? u32(at[T]) << 16 : 0);
    }
}

// The answers of `count` queries, at timesteps `first` .. (ONE: a single query, and only the first half of every tile is worked
// on). Rows of queries, already with their factor, and of answers are `row` elements apart.
template <bool ONE>
DEVICE void attend(const u16* keys, const u16* values, int first, int count, const u16* queries, u16* answers, int row) {
    constexpr int HALVES = ONE ? 1 : 2;
    const int lane = lane_id(), g = lane >> 2, t = lane & 3;
    const int n_key = first + count;
#pragma unroll 1
    for (int slice = 0; slice < D_TILES; slice += SLICE) {
        // Lower than any score, but finite: a query that sees none of the keys must not subtract infinities.
        float most[2] = {-3e38f, -3e38f}, sum[2] = {};
        float out[SLICE][4] = {};
#pragma unroll 1
        for (int start = 0; start < n_key; start += 8 * STRETCH) {
            float score[STRETCH][4] = {};
#pragma unroll(D_TILES <= 4 ? D_TILES : 1)
            for (int i = 0; i < D_TILES; ++i) {
                const int dimension = 8 * i + 2 * t;
                const u32 a0 = pair_of_row(queries + g * row, dimension, g < count);
                const u32 a1 = ONE ? 0 : pair_of_row(queries + (g + 8) * row, dimension, g + 8 < count);
                u32 k[STRETCH];
#pragma unroll
                for (int j = 0; j < STRETCH; ++j) {
                    const int key = start + 8 * j + g;
                    k[j] = pair_of_cache(keys, key, dimension, key < n_key);
                }
#pragma unroll
                for (int j = 0; j < STRETCH; ++j) mma8(score[j], a0, a1, k[j], score[j]);
            }
            // Beyond the first query's timestep not all keys count for all.
            if (start + 8 * STRETCH > first + 1) {
#pragma unroll
                for (int i = 0; i < 4 * STRETCH; ++i) {
                    const int key = start + 8 * (i / 4) + 2 * t + i % 2, query = first + 8 * (i / 2 % 2) + g;
                    if (key > query) score[i / 4][i % 4] = MINUS_INFINITY;
                }
            }
            u32 p[STRETCH][2] = {};
#pragma unroll
            for (int half = 0; half < HALVES; ++half) {
                float largest = most[half];
#pragma unroll
                for (int i = 0; i < 2 * STRETCH; ++i) largest = fmaxf(largest, score[i / 2][2 * half + i % 2]);
                largest = max_lanes<4>(largest);
                const float factor = exp2_approx(most[half] - largest);
                most[half] = largest;
                sum[half] *= factor;
#pragma unroll
                for (int i = 0; i < 2 * SLICE; ++i) out[i / 2][2 * half + i % 2] *= factor;
#pragma unroll
                for (int j = 0; j < STRETCH; ++j) {
                    const float low = exp2_approx(score[j][2 * half] - largest);
                    const float high = exp2_approx(score[j][2 * half + 1] - largest);
                    sum[half] += low + high;
                    p[j][half] = pack(low, high);
                }
            }
#pragma unroll
            for (int i = 0; i < SLICE; ++i) {
                u32 v[STRETCH];
#pragma unroll
                for (int j = 0; j < STRETCH; ++j) {
                    const int key = start + 8 * j + g;
                    v[j] = transpose(pair_of_cache(values, key, 8 * (slice + i) + 2 * t, key < n_key));
                }
#pragma unroll
                for (int j = 0; j < STRETCH; j += 2) mma16(out[i], p[j][0], p[j][1], p[j + 1][0], p[j + 1][1], v[j], v[j + 1]);
            }
        }
#pragma unroll
        for (int half = 0; half < HALVES; ++half) {
            const float share = reciprocal(sum_lanes<4>(sum[half]));
            const int query = 8 * half + g;
            if (query >= count) continue;
#pragma unroll
            for (int i = 0; i < 2 * SLICE; ++i) {
                const int dimension = 8 * (slice + i / 2) + 2 * t + i % 2;
                if (dimension < D) answers[query * row + dimension] = narrow(out[i / 2][2 * half + i % 2] * share);
            }
        }
    }
}
