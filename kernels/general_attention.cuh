// Attention for any head width and any number of timesteps: tiles of 64 timesteps in shared memory, and the two products between
// them. A block of threads has four warps, of which each owns sixteen rows of its tile.
//
// qkv [N, T, 3E] and the others [N, T, E] are bf16, padded. A head's columns are cut into CHUNKS of WIDTH (as many as registers hold
// accumulators for, padded to a multiple of eight in shared memory only): scores take all of them one after another, results have one
// chunk for each block of threads. Rows of a tile are an odd number of sixteen bytes apart, so that eight fall on different banks.
#pragma once
#include "general.cuh"

constexpr int ROWS = 64;
constexpr int TILES = ceil_div(T, ROWS);
constexpr int CHUNKS = ceil_div(D, 96);
constexpr int WIDTH = ceil_div(ceil_div(D, CHUNKS), 8) * 8;
constexpr int PIECES = WIDTH / 8;
// Sixteen bytes from row to row.
constexpr int STRIDE = PIECES | 1;
constexpr int TILE_LEN = ROWS * STRIDE;

// The widest type whose size divides the distance of two heads.
template <int neighbours>
struct Wide {
    typedef u16 type;
};
template <>
struct Wide<2> {
    typedef u32 type;
};
template <>
struct Wide<4> {
    typedef uint2 type;
};
template <>
struct Wide<8> {
    typedef uint4 type;
};
constexpr int NEIGHBOURS = D % 8 == 0 ? 8 : D % 4 == 0 ? 4 : D % 2 == 0 ? 2 : 1;

// Columns of a chunk that exist.
DEVICE int columns_of(int chunk) { return min(WIDTH, D - chunk * WIDTH); }

// Copies timesteps `tile`·64 .. of one chunk of columns into shared memory; those outside begin .. T, and columns beyond the head, are
// zero. `from` is the chunk's place in timestep 0, `ld` elements lie between timesteps.
DEVICE void load_tile(uint4* to, const u16* from, int ld, int tile, int begin, int columns) {
    typedef Wide<NEIGHBOURS>::type Piece;
    constexpr int PER_ROW = WIDTH / NEIGHBOURS;
    for (int i = threadIdx.x; i < ROWS * PER_ROW; i += 128) {
        const int row = i / PER_ROW, column = i % PER_ROW * NEIGHBOURS, time = ROWS * tile + row;
        Piece piece = {};
        if (time >= begin && time < T && column < columns) {
            piece = *reinterpret_cast<const Piece*>(from + (size_t)time * ld + column);
        }
        *reinterpret_cast<Piece*>(reinterpret_cast<u16*>(to + row * STRIDE) + column) = piece;
    }
}

// c += A·Bᵀ: the warp's sixteen rows of tile `a` by the rows of `b`, sixteen at a time, blocks begin .. end of the four.
DEVICE void multiply(float (&c)[8][4], const uint4* a, const uint4* b, int begin, int end) {
    const int lane = lane_id();
    const u32 rows = shared_address(a + (16 * warp_id() + lane % 16) * STRIDE);
    const u32 other = shared_address(b + (lane % 8 + lane / 16 * 8) * STRIDE) + lane / 8 % 2 * 16;
#pragma unroll
    for (int k = 0; k < PIECES / 2; ++k) {
        u32 fa[4];
        load_matrices(fa, rows + 32 * k + lane / 16 * 16);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (j < begin || j >= end) continue;
            u32 fb[4];
            load_matrices(fb, other + 256 * STRIDE * j + 32 * k);
            mma16(c[2 * j], fa, fb[0], fb[1]);
            mma16(c[2 * j + 1], fa, fb[2], fb[3]);
        }
    }
    if constexpr (PIECES % 2 == 1) {
        u32 fa[4];
        load_matrices(fa, rows + 16 * (PIECES - 1));
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            if (j + 1 < begin || j >= end) continue;
            u32 fb[4];
            load_matrices(fb, shared_address(b + (16 * j + lane) * STRIDE + PIECES - 1));
#pragma unroll
            for (int i = 0; i < 4; ++i) mma8(c[2 * j + i], fa[0], fa[1], fb[i], c[2 * j + i]);
        }
    }
}

// out += P·B: P, the warp's sixteen rows by 64 columns, by the rows of tile `b`, blocks of sixteen begin .. end.
DEVICE void weigh(float (&out)[PIECES][4], const float (&p)[8][4], const uint4* b, int begin, int end) {
    const int lane = lane_id();
    const u32 rows = shared_address(b + lane % 16 * STRIDE);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        if (j < begin || j >= end) continue;
        const float *const left = p[2 * j], *const right = p[2 * j + 1];
        const u32 fa[4] = {pack(left[0], left[1]), pack(left[2], left[3]), pack(right[0], right[1]), pack(right[2], right[3])};
        u32 fb[4];
#pragma unroll
        for (int i = 0; i < PIECES / 2; ++i) {
            load_transposed(fb, rows + 256 * STRIDE * j + 32 * i + lane / 16 * 16);
            mma16(out[2 * i], fa, fb[0], fb[1]);
            mma16(out[2 * i + 1], fa, fb[2], fb[3]);
        }
        if constexpr (PIECES % 2 == 1) {
            load_transposed(fb, rows + 256 * STRIDE * j + 16 * (PIECES - 1));
            mma16(out[PIECES - 1], fa, fb[0], fb[1]);
        }
    }
}

// Stores one of the lane's two rows, times `factor`; `to` is the chunk's place in that row.
DEVICE void store_row(u16* to, const float (&c)[PIECES][4], int half, float factor, int columns) {
#pragma unroll
    for (int i = 0; i < PIECES; ++i) {
        const int column = 8 * i + 2 * (lane_id() & 3);
        const u32 both = pack(c[i][2 * half] * factor, c[i][2 * half + 1] * factor);
        if constexpr (D % 2 == 0) {
            if (column < columns) *reinterpret_cast<u32*>(to + column) = both;
        } else {
            if (column < columns) to[column] = static_cast<u16>(both);
            if (column + 1 < columns) to[column + 1] = static_cast<u16>(both >> 16);
        }
    }
}
