// Products of rows with weights, C = A·B, of any sizes, on tensor cores; and what becomes of C.
//
// A: rows [N, T, k_len] bf16, padded, from `skip` on. B: a working copy (see `working.cu`), blocks [k_len/16][n_len/16] of 16 × 16 with
// interleaved columns, zeros beyond its ends. bias [n_len] f32, or null. Where `channel` is not null, each sequence has the matrix of
// channel[i], `matrix_len` uint4 apart, and its bias.
//
// A block of threads owns 32·TILES rows of C by 128 columns, a warp 16·TILES by 32. k passes through shared memory by 32, three
// stages deep: A as it lies in memory, B as fragments. Grid (row tiles, column tiles), where each channel's rows have tiles of their own;
// 256 threads, shared memory product_shared_bytes, or hidden_shared_bytes.
//
// Bytes: A once for each 128 columns, B once for each tile of rows, from the L2 cache but for the first time; C once. Tensor operations:
// all three sizes rounded up to the block's. Sums: in the tensor core, k ascending.
#include "general.cuh"

constexpr int STEP = 32;
constexpr int STAGES = 3;
// A row of A in shared memory: eight rows fall on different banks.
constexpr int A_ROW = STEP + 8;
constexpr u32 B_BYTES = 2 * 8 * 512;
constexpr u32 stage_bytes(int tiles) { return 32 * tiles * A_ROW * 2 + B_BYTES; }
// What launches must ask for, read by the host.
extern "C" __constant__ const u32 product_shared_bytes = STAGES * stage_bytes(4);
extern "C" __constant__ const u32 hidden_shared_bytes = STAGES * stage_bytes(2);

// Which rows and columns of C a block of threads owns.
template <int TILES>
struct Tile {
    // The first row among those from `skip` on, and the end of its channel's.
    u32 row, end;
    u32 skip, n_len;
    // The sequence whose channel it is; 0 where channels share a matrix.
    u32 sequence;

    DEVICE Tile(u32 n, u32 skip, u32 n_len, bool per_channel) : skip(skip), n_len(n_len) {
        const u32 rows = (per_channel ? 1 : n) * (T - skip), tiles = (rows + 32 * TILES - 1) / (32 * TILES);
        sequence = blockIdx.x / tiles;
        row = sequence * rows + blockIdx.x % tiles * 32 * TILES;
        end = (sequence + 1) * rows;
    }

    // The warp's first row and column.
    DEVICE u32 own_row() const { return row + warp_id() / 4 * 16 * TILES; }
    DEVICE u32 own_column() const { return 128 * blockIdx.y + warp_id() % 4 * 32; }

    // c += A·B.
    DEVICE void multiply(const u16* a, const uint4* b, u32 k_len, float (&c)[TILES][4][4]) const {
        constexpr u32 A_BYTES = 32 * TILES * A_ROW * 2;
        const u32 lane = lane_id(), piece = threadIdx.x % 4, a_ld = padded(k_len);
        const u32 k_blocks = (k_len + 15) / 16, n_blocks = (n_len + 15) / 16, steps = (k_blocks + 1) / 2;
        const u32 base = shared_address(shared);
        // The rows that this thread copies sixteen bytes of.
        const u16* from[TILES / 2];
        bool there[TILES / 2];
#pragma unroll
        for (int i = 0; i < TILES / 2; ++i) {
            const u32 r = row + 64 * i + threadIdx.x / 4;
            there[i] = r < end;
            from[i] = a + place(there[i] ? r : row, skip) * a_ld;
        }
        const auto load = [&](u32 step) {
            const u32 to = base + step % STAGES * stage_bytes(TILES), k = STEP * step + 8 * piece;
            if (step < steps) {
                const u32 bytes = k < k_len ? min(16u, 2 * (k_len - k)) : 0;
#pragma unroll
                for (int i = 0; i < TILES / 2; ++i) {
                    const u32 at = to + ((64 * i + threadIdx.x / 4) * A_ROW + 8 * piece) * 2;
                    copy_async_part(at, from[i] + (bytes ? k : 0), there[i] ? bytes : 0);
                }
#pragma unroll
                for (u32 i = 0; i < 2; ++i) {
                    const u32 k_block = 2 * step + i, n_block = 8 * blockIdx.y + warp_id();
                    const bool inside = k_block < k_blocks && n_block < n_blocks;
                    const uint4* const source = b + (inside ? ((size_t)k_block * n_blocks + n_block) * 32 + lane : 0);
                    copy_async_if(to + A_BYTES + (256 * i + threadIdx.x) * 16, source, inside);
                }
            }
            commit_copies();
        };

        const bool idle = own_row() >= end || own_column() >= n_len;
#pragma unroll
        for (int i = 0; i < STAGES - 1; ++i) load(i);
#pragma unroll 1
        for (u32 step = 0; step < steps; ++step) {
            wait_copies<STAGES - 2>();
            __syncthreads();
            load(step + STAGES - 1);
            if (idle) continue;
            const u32 stage = step % STAGES * stage_bytes(TILES);
            const u32 rows = base + stage + ((16 * TILES * (warp_id() / 4) + lane % 16) * A_ROW + 8 * (lane / 16)) * 2;
            const uint4* const blocks = shared + (stage + A_BYTES) / 16 + warp_id() % 4 * 64 + lane;
#pragma unroll
            for (int k = 0; k < 2; ++k) {
                u32 fa[TILES][4];
#pragma unroll
                for (int i = 0; i < TILES; ++i) load_matrices(fa[i], rows + (16 * i * A_ROW + 16 * k) * 2);
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    const uint4 f = blocks[256 * k + 32 * j];
#pragma unroll
                    for (int i = 0; i < TILES; ++i) {
                        mma16(c[i][2 * j], fa[i], f.x, f.y);
                        mma16(c[i][2 * j + 1], fa[i], f.z, f.w);
                    }
                }
            }
        }
        // The next product begins in the same memory.
        wait_copies<0>();
        __syncthreads();
    }

    // Calls finish(r, column, i, j, half) for each four neighbours of C that this lane owns: row r among those from `skip` on, c[i][2j] and
    // c[i][2j + 1], the two numbers from 2·half on of each.
    template <class Finish>
    DEVICE void each(const Finish& finish) const {
#pragma unroll
        for (int i = 0; i < 2 * TILES; ++i) {
            const u32 r = own_row() + 8 * i + lane_id() / 4;
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const u32 column = own_column() + 16 * j + lane_id() % 4 * 4;
                if (r < end && column < n_len) finish(r, column, i / 2, j, i % 2);
            }
        }
    }
};

// Four neighbours of C with their bias.
struct Four {
    float v[4];

    DEVICE Four(const float (&p)[4], const float (&r)[4], int half, const float* bias, u32 column, u32 n_len)
        : v{p[2 * half], p[2 * half + 1], r[2 * half], r[2 * half + 1]} {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) v[i] += bias && column + i < n_len ? bias[column + i] : 0.0f;
    }

    // Rows are padded, so there is room for all four.
    DEVICE void store(u16* to) const { *reinterpret_cast<uint2*>(to) = make_uint2(pack(v[0], v[1]), pack(v[2], v[3])); }

    // Stores those that exist, in rows of `width`; or adds them to what is there.
    template <int width, bool add>
    DEVICE void store(float* to, u32 column) const {
        if constexpr (width % 4 == 0) {
            float4* const four = reinterpret_cast<float4*>(to);
            const float4 old = add ? *four : make_float4(0, 0, 0, 0);
            *four = make_float4(old.x + v[0], old.y + v[1], old.z + v[2], old.w + v[3]);
        } else {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                if (column + i < width) to[i] = (add ? to[i] : 0.0f) + v[i];
            }
        }
    }
};

// out [N, T, n_len] bf16 = A·B + bias.
KERNEL __launch_bounds__(256) product(const u16* a, const uint4* b, const float* bias, const u32* channel, u32 matrix_len, u16* out,
                                      u32 k_len, u32 n_len, u32 n, u32 skip) {
    const Tile<4> tile(n, skip, n_len, channel != nullptr);
    if (channel) b += (size_t)channel[tile.sequence] * matrix_len, bias += bias ? (size_t)channel[tile.sequence] * n_len : 0;
    float c[4][4][4] = {};
    tile.multiply(a, b, k_len, c);
    tile.each([&](u32 r, u32 column, int i, int j, int half) {
        const Four four(c[i][2 * j], c[i][2 * j + 1], half, bias, column, n_len);
        four.store(out + place(r, skip) * padded(n_len) + column);
    });
}

// out [N, T, 4E] bf16 = gelu(A·B + bias), A [N, T, E].
KERNEL __launch_bounds__(256) product_gelu(const u16* a, const uint4* b, const float* bias, u16* out, u32 n, u32 skip) {
    const Tile<4> tile(n, skip, 4 * E, false);
    float c[4][4][4] = {};
    tile.multiply(a, b, E, c);
    tile.each([&](u32 r, u32 column, int i, int j, int half) {
        Four four(c[i][2 * j], c[i][2 * j + 1], half, bias, column, 4 * E);
#pragma unroll
        for (int k = 0; k < 4; ++k) four.v[k] = gelu(four.v[k]);
        four.store(out + place(r, skip) * LD4 + column);
    });
}

// x [N, T, E] f32 += A·B + bias.
KERNEL __launch_bounds__(256) product_add(const u16* a, const uint4* b, const float* bias, float* x, u32 k_len, u32 n, u32 skip) {
    const Tile<4> tile(n, skip, E, false);
    float c[4][4][4] = {};
    tile.multiply(a, b, k_len, c);
    tile.each([&](u32 r, u32 column, int i, int j, int half) {
        const Four four(c[i][2 * j], c[i][2 * j + 1], half, bias, column, E);
        four.store<E, true>(x + place(r, skip) * E + column, column);
    });
}

// logits [N, T − skip, Q] f32 = A·B + bias, A [N, T, E].
KERNEL __launch_bounds__(256) product_logits(const u16* a, const uint4* b, const float* bias, const u32* channel, u32 matrix_len,
                                             float* logits, u32 n, u32 skip) {
    const Tile<4> tile(n, skip, Q, channel != nullptr);
    if (channel) b += (size_t)channel[tile.sequence] * matrix_len, bias += (size_t)channel[tile.sequence] * Q;
    float c[4][4][4] = {};
    tile.multiply(a, b, E, c);
    tile.each([&](u32 r, u32 column, int i, int j, int half) {
        const Four four(c[i][2 * j], c[i][2 * j + 1], half, bias, column, Q);
        four.store<Q, false>(logits + (size_t)r * Q + column, column);
    });
}

// The hidden layer's gradient: h = normal·fc + bias and g = dout·projᵀ, both [.., 4E], never stored; out, bf16 [N, T, 4E]: active =
// gelu(h), dhidden = g · gelu'(h). normal, dout [N, T, E].
KERNEL __launch_bounds__(256) product_gelu_backward(const u16* normal, const uint4* fc, const float* bias, const u16* dout,
                                                    const uint4* proj_back, u16* active, u16* dhidden, u32 n, u32 skip) {
    const Tile<2> tile(n, skip, 4 * E, false);
    float h[2][4][4] = {}, g[2][4][4] = {};
    tile.multiply(normal, fc, E, h);
    tile.multiply(dout, proj_back, E, g);
    tile.each([&](u32 r, u32 column, int i, int j, int half) {
        Four hidden(h[i][2 * j], h[i][2 * j + 1], half, bias, column, 4 * E);
        Four gradient(g[i][2 * j], g[i][2 * j + 1], half, nullptr, column, 4 * E);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            float slope;
            gelu_and_slope(hidden.v[k], hidden.v[k], slope);
            gradient.v[k] *= slope;
        }
        const size_t at = place(r, skip) * LD4 + column;
        hidden.store(active + at);
        gradient.store(dhidden + at);
    });
}
