// Drawing a token from a row of logits: temperature, top-k, nucleus, draw. One warp a row of up to 256 levels; no shared memory.
//
// Every device draws the same token from the same logits, bit for bit (`src/device/cpu/sampler.rs` says by which arithmetic),
// so nothing here is approximate. Products and sums of floats are rounded one by one (__fmul_rn, __fadd_rn), for the compiler
// may not contract those; all else are integers, whose sums have one value in any order.
//
// A lane owns neighbours: levels n·lane .. n·lane + n − 1, n = ceil(Q / 32). Ranked levels are never sorted: the last level
// that is kept is found by halving the range of keys that it can have, each half's weight being one sum over the warp. Both
// ends always lie on keys that occur, so that about as many rounds are needed as halve the number of levels, never more
// than 32.
//
// The word of randomness is computed here, not handed in: it is a function of four numbers (`src/random.rs`), so a launch may
// draw any number of tokens with nothing to upload.
#pragma once
#include "common.cuh"

static_assert(Q <= 256, "a lane owns up to eight levels");

// Levels that a lane owns.
constexpr int OWN = ceil_div(Q, 32);
// Drawn where a logit is not finite.
constexpr u32 NOT_FINITE = 0xffffffffu;

// How to draw, worked out by the host.
struct Sampler {
    // 1 / temperature.
    float scale;
    // At least 1.
    u32 top_k;
    // floor(top_p · 2³²): a nucleus of 2³² keeps all.
    u64 top_p;
    // Take the most probable level and draw nothing.
    u32 greedy;
};

// ---- randomness -------------------------------------------------------------------------------------------------------

DEVICE u32 rotate(u32 x, int bits) { return __funnelshift_l(x, x, bits); }

DEVICE void quarter_round(u32& a, u32& b, u32& c, u32& d) {
    a += b, d = rotate(d ^ a, 16);
    c += d, b = rotate(b ^ c, 12);
    a += b, d = rotate(d ^ a, 8);
    c += d, b = rotate(b ^ c, 7);
}

// The word at `position` of the keystream that draws tokens: ChaCha8 with the seed and the purpose as key, the sequence's index
// as stream, sixteen words a block.
DEVICE u32 sampling_word(u64 seed, u64 index, u64 position) {
    constexpr u32 PURPOSE = 3;
    const u64 block = position / 16;
    const u32 start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, u32(seed), u32(seed >> 32), PURPOSE, 0,
                           0, 0, 0, 0, u32(block), u32(block >> 32), u32(index), u32(index >> 32)};
    u32 s[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) s[i] = start[i];
#pragma unroll
    for (int twice = 0; twice < 4; ++twice) {
#pragma unroll
        for (int i = 0; i < 4; ++i) quarter_round(s[i], s[4 + i], s[8 + i], s[12 + i]);
#pragma unroll
        for (int i = 0; i < 4; ++i) quarter_round(s[i], s[4 + (i + 1) % 4], s[8 + (i + 2) % 4], s[12 + (i + 3) % 4]);
    }
    u32 word = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        if (i == position % 16) word = s[i] + start[i];
    }
    return word;
}

// ---- arithmetic that every device repeats -------------------------------------------------------------------------------

// A number that orders like the finite x and is never 0; both zeros are equal.
DEVICE u32 ascending(float x) {
    const u32 bits = __float_as_uint(__fadd_rn(x, 0.0f));
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

DEVICE float of_ascending(u32 key) { return __uint_as_float(key >> 31 ? key & ~(1u << 31) : ~key); }

// e^x for x ≤ 0: x = n·ln 2 + r, the Taylor series of e^r to r⁷, n into the exponent.
DEVICE float exp_negative(float x) {
    constexpr float ROUND = 12582912.0f;
    constexpr float TAYLOR[6] = {1.0f / 5040.0f, 1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f};
    x = fmaxf(x, -80.0f);
    const float n = __fsub_rn(__fadd_rn(__fmul_rn(x, LOG2_E), ROUND), ROUND);
    const float r = __fsub_rn(__fsub_rn(x, __fmul_rn(n, 355.0f / 512.0f)), __fmul_rn(n, -2.1219444e-4f));
    float series = TAYLOR[0];
#pragma unroll
    for (int i = 1; i < 6; ++i) series = __fadd_rn(__fmul_rn(series, r), TAYLOR[i]);
    series = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(series, r), r), r), 1.0f);
    return __fmul_rn(series, __uint_as_float(u32(__float2int_rz(n) + 127) << 23));
}

// floor(total · part / 2³²), for part up to 2³² − 1.
DEVICE u64 share(u64 total, u64 part) { return __umul64hi(total, part << 32); }

// ---- sums over the warp ---------------------------------------------------------------------------------------------------

// The sum of numbers below 2³⁵, in all lanes.
DEVICE u64 sum_warp(u64 x) {
    return (u64(__reduce_add_sync(ALL_LANES, u32(x >> 17))) << 17) + __reduce_add_sync(ALL_LANES, u32(x) & 0x1ffff);
}

// The sum over the lanes before this one.
DEVICE u64 sum_before(u64 x) {
    u64 sum = x;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const u64 other = __shfl_up_sync(ALL_LANES, sum, step);
        if (lane_id() >= step) sum += other;
    }
    return sum - x;
}

// ---- what is kept -----------------------------------------------------------------------------------------------------------

DEVICE u64 sum_from(const u32 (&keys)[OWN], const u32 (&amounts)[OWN], u32 least) {
    u64 sum = 0;
#pragma unroll
    for (int i = 0; i < OWN; ++i) sum += keys[i] >= least ? amounts[i] : 0;
    return sum_warp(sum);
}

// Ranked by their keys, the lower level first at a tie: sets the weights of those to 0 before which the amounts exceed
// `limit`, which is less than all amounts together. `weights` may be `amounts`.
DEVICE void keep_first(const u32 (&keys)[OWN], const u32 (&amounts)[OWN], u64 limit, u32 (&weights)[OWN]) {
    u32 low = 0xffffffffu, high = 0;
#pragma unroll
    for (int i = 0; i < OWN; ++i) low = min(low, keys[i]), high = max(high, keys[i]);
    low = __reduce_min_sync(ALL_LANES, low), high = __reduce_max_sync(ALL_LANES, high);
    // All keys from the last one that is kept on have too much together, or low is the least key.
    while (low < high) {
        const u32 middle = low + (high - low) / 2 + 1;
        const bool too_much = sum_from(keys, amounts, middle) > limit;
        u32 next = too_much ? 0xffffffffu : 0;
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            if (too_much) {
                next = keys[i] >= middle ? min(next, keys[i]) : next;
            } else {
                next = keys[i] < middle ? max(next, keys[i]) : next;
            }
        }
        if (too_much) {
            low = __reduce_min_sync(ALL_LANES, next);
        } else {
            high = __reduce_max_sync(ALL_LANES, next);
        }
    }
    u64 tied = 0;
#pragma unroll
    for (int i = 0; i < OWN; ++i) tied += keys[i] == low ? amounts[i] : 0;
    u64 sum = (low < 0xffffffffu ? sum_from(keys, amounts, low + 1) : 0) + sum_before(tied);
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        const u32 amount = keys[i] == low ? amounts[i] : 0;
        if (keys[i] < low || (keys[i] == low && sum > limit)) weights[i] = 0;
        sum += amount;
    }
}

// The token drawn from `logits` [Q] with a `word` of keyed randomness, in all lanes; NOT_FINITE if a logit is not finite.
DEVICE u32 draw(const float* logits, const Sampler& sampler, u32 word) {
    const int first = OWN * lane_id();
    float own[OWN];
    u32 keys[OWN], largest = 0;
    bool finite = true;
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        const bool there = first + i < Q;
        own[i] = there ? logits[first + i] : 0.0f;
        finite = finite && (__float_as_uint(own[i]) & 0x7f800000u) != 0x7f800000u;
        // Beyond the levels, a key that is below all others.
        keys[i] = there ? ascending(own[i]) : 0;
        largest = max(largest, keys[i]);
    }
    if (!__all_sync(ALL_LANES, finite)) return NOT_FINITE;
    largest = __reduce_max_sync(ALL_LANES, largest);
    if (sampler.greedy) {
        u32 best = Q;
#pragma unroll
        for (int i = OWN - 1; i >= 0; --i) best = keys[i] == largest ? first + i : best;
        return __reduce_min_sync(ALL_LANES, best);
    }

    const float most = of_ascending(largest);
    u32 weights[OWN];
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        const float p = exp_negative(__fmul_rn(__fsub_rn(own[i], most), sampler.scale));
        weights[i] = first + i < Q ? __float2uint_rz(__fmul_rn(p, 2147483648.0f)) : 0;
    }
    if (sampler.top_k < Q) {
        u32 ones[OWN];
#pragma unroll
        for (int i = 0; i < OWN; ++i) ones[i] = first + i < Q;
        keep_first(keys, ones, sampler.top_k - 1, weights);
    }
    u64 sum = 0;
    if (sampler.top_p >> 32 == 0) {
#pragma unroll
        for (int i = 0; i < OWN; ++i) sum += weights[i];
        keep_first(keys, weights, share(sum_warp(sum), sampler.top_p), weights);
        sum = 0;
    }

    // word / 2³² of the kept weight, looked up in the order of the levels.
#pragma unroll
    for (int i = 0; i < OWN; ++i) sum += weights[i];
    const u64 target = share(sum_warp(sum), word);
    u64 end = sum_before(sum);
    u32 level = Q;
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        const u64 begin = end;
        end += weights[i];
        level = begin <= target && target < end ? first + i : level;
    }
    return __reduce_min_sync(ALL_LANES, level);
}
