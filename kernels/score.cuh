// The score of one target, from logits that a few lanes share.
#pragma once
#include "common.cuh"

// `lanes` neighbouring lanes hold a row of logits, `wide` neighbours each in turn; those beyond Q are minus infinity. Adds to `score`
// nats, top-1, top-5, and the squared error by `levels`; the logits become their gradient, factor · (softmax − one-hot). Sums: over a
// lane's levels ascending, then the lanes by halves.
template <int lanes, int wide, int count>
DEVICE void score_row(float (&row)[count], int target, const float* levels, float factor, float (&score)[4]) {
    const int lane = lane_id() % lanes;
    const auto level_of = [lane](int i) { return lanes * wide * (i / wide) + wide * lane + i % wide; };
    float most = MINUS_INFINITY, least = 0, hit = 0;
#pragma unroll
    for (int i = 0; i < count; ++i) {
        most = fmaxf(most, row[i]);
        if (Q == lanes * count || level_of(i) < Q) least = fminf(least, row[i]);
        if (level_of(i) == target) hit = row[i];
    }
    most = max_lanes<lanes>(most);
    least = -max_lanes<lanes>(-least);
    // The other lanes add exactly zero.
    hit = sum_lanes<lanes>(hit);

    int before = 0, best = Q;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < count; ++i) {
        const int level = level_of(i);
        float& logit = row[i];
        // A tie counts by the lower level.
        before += logit > hit || (logit == hit && level < target);
        if (logit == most) best = min(best, level);
        logit = exp2_approx(fmaf(logit, LOG2_E, -most * LOG2_E));
        sum += logit;
    }
#pragma unroll
    for (int bit = 1; bit < lanes; bit *= 2) {
        before += __shfl_xor_sync(ALL_LANES, before, bit);
        best = min(best, __shfl_xor_sync(ALL_LANES, best, bit));
    }
    sum = sum_lanes<lanes>(sum);
    // A NaN, or a logit of plus infinity, makes the sum a NaN. Such a row is no hit, and its loss and error say so.
    const bool finite = sum == sum && least > MINUS_INFINITY;
    const float error = finite ? levels[min(best, Q - 1)] - levels[target] : NOT_A_NUMBER;
    score[0] += finite ? LN_2 * log2_approx(sum) + (most - hit) : NOT_A_NUMBER;
    score[1] += finite && before == 0;
    score[2] += finite && before < 5;
    score[3] += error * error;

    const float share = factor * reciprocal(sum);
#pragma unroll
    for (int i = 0; i < count; ++i) row[i] = row[i] * share - (level_of(i) == target ? factor : 0.0f);
}

// The block's scores, from what the first lane of each of its warps has, warps ascending.
template <int warps>
DEVICE void store_scores(const float (&score)[4], float* to) {
    __shared__ float warp_scores[warps][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (lane_id() == 0) warp_scores[warp_id()][i] = score[i];
    }
    __syncthreads();
    if (threadIdx.x < 4) {
        float sum = 0;
        for (int i = 0; i < warps; ++i) sum += warp_scores[i][threadIdx.x];
        to[threadIdx.x] = sum;
    }
}
