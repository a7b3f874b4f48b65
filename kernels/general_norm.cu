// LayerNorm of any width: rows of the residual stream to normalised rows in bf16, and backward.
//
// Shapes: x, dx [N, T, E] f32; normal, gradient, out [N, T, E] bf16, padded rows; scale, 1/√(variance + ε) [N, T]. Only rows
// from `skip` on are read and written. One warp a row, which it holds in registers; grid ceil(N·(T − skip) / 8), 256 threads.
//
// Bytes per timestep: norm_rows 4E read, 2E + 4 written; norm_rows_backward 4E + 4E + 4 read, 4E written; narrow_rows 4E read, 2E
// written. Sums: over a lane's columns ascending, then 32 lanes by halves.
#include "general.cuh"

// Neighbours that a lane takes at once: rows whose length is a multiple of four begin where sixteen bytes do.
constexpr int WIDE = E % 4 == 0 ? 4 : 1;
constexpr int PASSES = ceil_div(E, 32 * WIDE);

// A lane's part of a row; zeros beyond its end.
struct Row {
    float v[PASSES][WIDE];
};

// Where the lane's neighbours of one pass begin.
DEVICE int column_of(int pass) { return (32 * pass + lane_id()) * WIDE; }

DEVICE void load(Row& row, const float* from) {
#pragma unroll
    for (int i = 0; i < PASSES; ++i) {
        const int column = column_of(i);
        if constexpr (WIDE == 4) {
            float4 four = make_float4(0, 0, 0, 0);
            if (column < E) four = *reinterpret_cast<const float4*>(from + column);
            row.v[i][0] = four.x, row.v[i][1] = four.y, row.v[i][2] = four.z, row.v[i][3] = four.w;
        } else {
            row.v[i][0] = column < E ? from[column] : 0.0f;
        }
    }
}

DEVICE void load(Row& row, const u16* from) {
#pragma unroll
    for (int i = 0; i < PASSES; ++i) {
        const int column = column_of(i);
        if constexpr (WIDE == 4) {
            uint2 four = make_uint2(0, 0);
            if (column < E) four = *reinterpret_cast<const uint2*>(from + column);
            row.v[i][0] = low(four.x), row.v[i][1] = high(four.x), row.v[i][2] = low(four.y), row.v[i][3] = high(four.y);
        } else {
            row.v[i][0] = column < E ? widen(from[column]) : 0.0f;
        }
    }
}

DEVICE void store(const Row& row, float* to) {
#pragma unroll
    for (int i = 0; i < PASSES; ++i) {
        const int column = column_of(i);
        if (column >= E) continue;
        if constexpr (WIDE == 4) {
            *reinterpret_cast<float4*>(to + column) = make_float4(row.v[i][0], row.v[i][1], row.v[i][2], row.v[i][3]);
        } else {
            to[column] = row.v[i][0];
        }
    }
}

DEVICE void store(const Row& row, u16* to) {
#pragma unroll
    for (int i = 0; i < PASSES; ++i) {
        const int column = column_of(i);
        if (column >= E) continue;
        if constexpr (WIDE == 4) {
            *reinterpret_cast<uint2*>(to + column) = make_uint2(pack(row.v[i][0], row.v[i][1]), pack(row.v[i][2], row.v[i][3]));
        } else {
            to[column] = narrow(row.v[i][0]);
        }
    }
}

// The sum of what `term` gives for each of the row's columns.
template <class Term>
DEVICE float sum(const Term& term) {
    float all = 0;
#pragma unroll
    for (int i = 0; i < PASSES; ++i) {
#pragma unroll
        for (int j = 0; j < WIDE; ++j) all += column_of(i) < E ? term(i, j) : 0.0f;
    }
    return sum_lanes<32>(all);
}

KERNEL __launch_bounds__(256) norm_rows(const float* x, u16* normal, float* scale, u32 n, u32 skip) {
    const u32 r = 8 * blockIdx.x + warp_id();
    if (r >= n * (T - skip)) return;
    const size_t at = place(r, skip);
    Row row;
    load(row, x + at * E);
    const float mean = sum([&](int i, int j) { return row.v[i][j]; }) * (1.0f / E);
    const float square = sum([&](int i, int j) {
        row.v[i][j] -= mean;
        return row.v[i][j] * row.v[i][j];
    });
    const float factor = rsqrt_approx(square * (1.0f / E) + EPSILON);
#pragma unroll
    for (int i = 0; i < PASSES * WIDE; ++i) row.v[i / WIDE][i % WIDE] *= factor;
    store(row, normal + at * LD);
    if (lane_id() == 0) scale[at] = factor;
}

// The gradient of rows from that of their normalised form, g: scale · (g − mean(g) − x̂ · mean(g·x̂)). Rows from `add_from` on are
// added to dx, earlier ones overwrite it.
KERNEL __launch_bounds__(256) norm_rows_backward(float* dx, const u16* gradient, const u16* normal, const float* scale, u32 n,
                                                 u32 skip, u32 add_from) {
    const u32 r = 8 * blockIdx.x + warp_id();
    if (r >= n * (T - skip)) return;
    const size_t at = place(r, skip);
    Row g, x, out = {};
    load(g, gradient + at * LD);
    load(x, normal + at * LD);
    const float mean = sum([&](int i, int j) { return g.v[i][j]; }) * (1.0f / E);
    const float slope = sum([&](int i, int j) { return g.v[i][j] * x.v[i][j]; }) * (1.0f / E);
    const float factor = scale[at];
    const bool add = at % T >= add_from;
    if (add) load(out, dx + at * E);
#pragma unroll
    for (int i = 0; i < PASSES * WIDE; ++i) {
        const int k = i / WIDE, j = i % WIDE;
        const float value = (g.v[k][j] - mean - x.v[k][j] * slope) * factor;
        out.v[k][j] = add ? out.v[k][j] + value : value;
    }
    store(out, dx + at * E);
}

// Rows in bf16, as an operand of products.
KERNEL __launch_bounds__(256) narrow_rows(const float* x, u16* out, u32 n, u32 skip) {
    const u32 r = 8 * blockIdx.x + warp_id();
    if (r >= n * (T - skip)) return;
    const size_t at = place(r, skip);
    Row row;
    load(row, x + at * E);
    store(row, out + at * LD);
}
