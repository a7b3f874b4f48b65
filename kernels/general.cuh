// What the kernels for any shape share.
//
// bf16 matrices of timesteps [N, T, width] have rows of `padded(width)` elements, so that every row begins where sixteen bytes do.
// What lies beyond the width is never read.
#pragma once
#include "common.cuh"

constexpr int padded(int width) { return ceil_div(width, 8) * 8; }
constexpr int LD = padded(E);
constexpr int LD3 = padded(3 * E);
constexpr int LD4 = padded(4 * E);

// Row r among the timesteps from `skip` on of each sequence: its place among all.
DEVICE size_t place(u32 r, u32 skip) {
    const u32 rows = T - skip;
    return (size_t)(r / rows) * T + skip + r % rows;
}
