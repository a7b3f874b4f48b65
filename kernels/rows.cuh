// Rows of the residual stream, held by a warp as fragments in interleaved order: a lane owns columns 16i + 4t .. + 3 of the
// rows g and g + 8 of sixteen.
#pragma once
#include "common.cuh"

static_assert(E % 32 == 0, "rows of whole fragments");
constexpr int STEPS = E / 16;

// Sixteen normalised rows as A fragments.
struct Normal {
    u32 a[STEPS][4];
    // 1 / √(variance + ε) of the two rows.
    float scale[2];
};

// Four columns of a row from fragments of A: `half` is 0 for row g, 1 for row g + 8.
DEVICE float4 columns(const u32 (&a)[4], int half) {
    return make_float4(low(a[half]), high(a[half]), low(a[2 + half]), high(a[2 + half]));
}

// Normalises two rows; a null row is zero.
DEVICE void normalize(const float* const (&row)[2], Normal& out) {
    const int t = lane_id() & 3;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float4 v[STEPS];
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
            v[i] = make_float4(0, 0, 0, 0);
            if (row[half]) v[i] = *reinterpret_cast<const float4*>(row[half] + 16 * i + 4 * t);
        }
        float sum = 0;
#pragma unroll
        for (int i = 0; i < STEPS; ++i) sum += (v[i].x + v[i].y) + (v[i].z + v[i].w);
        const float mean = sum_lanes<4>(sum) * (1.0f / E);
        float square = 0;
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
            v[i] = make_float4(v[i].x - mean, v[i].y - mean, v[i].z - mean, v[i].w - mean);
            square += (v[i].x * v[i].x + v[i].y * v[i].y) + (v[i].z * v[i].z + v[i].w * v[i].w);
        }
        const float factor = rsqrt_approx(sum_lanes<4>(square) * (1.0f / E) + EPSILON);
        out.scale[half] = factor;
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
            out.a[i][half] = pack(v[i].x * factor, v[i].y * factor);
            out.a[i][2 + half] = pack(v[i].z * factor, v[i].w * factor);
        }
    }
}

// Writes one of the two rows, in bf16.
DEVICE void store_normal(const Normal& normal, int half, u32* row) {
    const int t = lane_id() & 3;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
        *reinterpret_cast<uint2*>(row + 8 * i + 2 * t) = make_uint2(normal.a[i][half], normal.a[i][2 + half]);
    }
}

// Reads one of the two rows back; a null row is zero.
DEVICE void load_normal(const u32* row, int half, Normal& out) {
    const int t = lane_id() & 3;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
        uint2 four = make_uint2(0, 0);
        if (row) four = *reinterpret_cast<const uint2*>(row + 8 * i + 2 * t);
        out.a[i][half] = four.x, out.a[i][2 + half] = four.y;
    }
}

// Adds one of two rows of C tiles to a row in memory.
DEVICE void add_row(float* row, int half, const float (&c)[2 * STEPS][4]) {
    const int t = lane_id() & 3;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
        float4* const at = reinterpret_cast<float4*>(row + 16 * i + 4 * t);
        const float *const p = &c[2 * i][2 * half], *const r = &c[2 * i + 1][2 * half];
        const float4 old = *at;
        *at = make_float4(old.x + p[0], old.y + p[1], old.z + r[0], old.w + r[1]);
    }
}

// Writes one of two rows of C tiles.
DEVICE void store_row(float* row, int half, const float (&c)[2 * STEPS][4]) {
    const int t = lane_id() & 3;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
        const float *const p = &c[2 * i][2 * half], *const r = &c[2 * i + 1][2 * half];
        *reinterpret_cast<float4*>(row + 16 * i + 4 * t) = make_float4(p[0], p[1], r[0], r[1]);
    }
}

// The gradient of a row's input from that of its normalised form, g: scale · (g − mean(g) − x̂ · mean(g·x̂)), in `c`.
DEVICE void normalize_backward(const Normal& normal, float (&c)[2 * STEPS][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float sum = 0, slope = 0;
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
            const float4 x = columns(normal.a[i], half);
            float *const p = &c[2 * i][2 * half], *const r = &c[2 * i + 1][2 * half];
            sum += (p[0] + p[1]) + (r[0] + r[1]);
            slope += (p[0] * x.x + p[1] * x.y) + (r[0] * x.z + r[1] * x.w);
        }
        sum = sum_lanes<4>(sum) * (1.0f / E);
        slope = sum_lanes<4>(slope) * (1.0f / E);
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
            const float4 x = columns(normal.a[i], half);
            float *const p = &c[2 * i][2 * half], *const r = &c[2 * i + 1][2 * half];
            p[0] = (p[0] - sum - x.x * slope) * normal.scale[half];
            p[1] = (p[1] - sum - x.y * slope) * normal.scale[half];
            r[0] = (r[0] - sum - x.z * slope) * normal.scale[half];
            r[1] = (r[1] - sum - x.w * slope) * normal.scale[half];
        }
    }
}
