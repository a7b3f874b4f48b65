// The attention half-block, backward, for heads of eight.
//
// `attention_backward`: from dx, in: the gradient of the half-block's output (f32 [N, T, E], rows from `from` on), and what the
// forward pass kept (normal, scale, answer, lse), the gradients of queries, keys and values: dqkv [N, T, 3E] bf16, all rows; and the
// output's own in bf16, dout, rows from `from` on: both for `weights.cu`. One warp per head, HEADS heads per block of threads, grid
// (N, H / HEADS), 32·HEADS threads, shared memory attention_backward_shared_bytes. Where one block has all heads of a sequence
// (attention_backward_whole) it ends with dx, out: the gradient of the input, all rows; otherwise `attention_backward_input` does.
//
// Queries, keys, values (recomputed) and the gradient of the answers, dO = dout·projᵀ, lie in shared memory, sixteen bytes a row.
// Scores are computed transposed, rows are keys: then Pᵀ and dSᵀ come out of the tensor cores as they go in again for
// dV += Pᵀ·dO and dK += dSᵀ·Q, and only dS for dQ += dS·K must be transposed. With C starting at −lse the product of keys and
// queries is at once the argument of 2^x; with C starting at −D, D = Σ dO·O, that of values and dO is dP − D, and
// dS = P · (dP − D). dK and dV of sixteen keys stay in registers while all later queries pass; dQ of all queries does always.
//
// The gradient of the input is dqkv·qkvᵀ, then the norm's backward pass. By the first kernel: 32 timesteps a warp, the gradients in
// shared memory in the place of queries, keys and values, the matrix in that of what is over. By `attention_backward_input`: 16
// timesteps a warp, 8 warps a block, grid-stride; 256 threads, shared memory 6·E² bytes.
//
// Shapes: T up to 256, E a multiple of 32 up to 128. Working copies: those of the forward pass; proj_back, projᵀ, blocks [E/16]
// [E/16] of k = E interleaved by columns in order; qkv_back, qkvᵀ with the norm's weight folded in, blocks [3E/16][E/16], columns
// interleaved.
//
// Bytes per timestep: 4E + 2E + 2E + 4H read, 6E + 2E written, and of the whole 4 read, 4E written; `attention_backward_input` 6E + 2E +
// 4 + 4E read, 4E written. Tensor operations: QKV and dO without padding, 5 products of scores' size up to the diagonal in blocks of
// 16 × 16; dqkv·qkvᵀ. Sums: dK and dV over queries descending, dQ over keys ascending; D over 4 lanes by halves.
#include "rows.cuh"

static_assert(D == 8 && E <= 128, "heads of eight");
static_assert(T <= 256, "gradients of the queries stay in registers");

constexpr int TILES = ceil_div(T, 16);
constexpr int PADDED = 16 * TILES;
// Words of one head: rows of sixteen bytes for queries, keys and values, and sixteen bytes that let heads fall on different banks; then,
// behind those of all heads, rows of dO and two floats for each timestep.
constexpr int ROWS_LEN = 12 * PADDED + 4;
constexpr int REST_LEN = 6 * PADDED;
constexpr int MATRIX_BYTES = 3 * STEPS * STEPS * 512;

// Heads that fit into a block's shared memory.
constexpr int heads() {
    int most = H;
    while (H % most != 0 || most * (ROWS_LEN + REST_LEN) * 4 > SHARED_LIMIT) --most;
    return most;
}
constexpr int HEADS = heads();
constexpr int REST_BYTES = HEADS * REST_LEN * 4 > MATRIX_BYTES ? HEADS * REST_LEN * 4 : MATRIX_BYTES;
constexpr bool WHOLE = HEADS == H && HEADS * ROWS_LEN * 4 + REST_BYTES <= SHARED_LIMIT;
extern "C" __constant__ const u32 attention_backward_heads = HEADS;
extern "C" __constant__ const u32 attention_backward_whole = WHOLE;
// What launches must ask for, read by the host.
extern "C" __constant__ const u32 attention_backward_shared_bytes =
    HEADS * ROWS_LEN * 4 + (WHOLE ? REST_BYTES : HEADS * REST_LEN * 4);
extern "C" __constant__ const u32 attention_backward_input_shared_bytes = MATRIX_BYTES;

// What a head's loop over queries works with: places in shared memory, and sixteen keys and values, as A, the keys transposed as B.
struct Keys {
    u32 from_queries;
    const float *starts, *dots;
    u32 kv[4], transposed[2];
    // Their tile, and the first tile of queries that gains anything from it.
    int tile, low;
};

// The tiles of queries from i down to the first. Recursion, because only with constant indices does dq stay in registers.
template <int i>
DEVICE void attend_down(const Keys& keys, float (&dq)[TILES][4], float (&dk)[4], float (&dv)[4]) {
    if constexpr (i >= 0) {
        const int g = lane_id() >> 2, t = lane_id() & 3;
        u32 qd[4], qdt[4], p[4], e[4];
        load_matrices(qd, keys.from_queries + 256 * i);
        load_transposed(qdt, keys.from_queries + 256 * i);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float2 l = *reinterpret_cast<const float2*>(keys.starts + 16 * i + 8 * half + 2 * t);
            const float2 m = *reinterpret_cast<const float2*>(keys.dots + 16 * i + 8 * half + 2 * t);
            float s[4], r[4];
            mma8(s, keys.kv[0], keys.kv[1], qd[half], {l.x, l.y, l.x, l.y});
            mma8(r, keys.kv[2], keys.kv[3], qd[2 + half], {m.x, m.y, m.x, m.y});
#pragma unroll
            for (int c = 0; c < 4; ++c) s[c] = exp2_approx(s[c]);
            if (i == keys.tile) {
                // Later keys than the query.
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    if (g + 8 * (c / 2) > 8 * half + 2 * t + c % 2) s[c] = 0;
                }
            }
            p[2 * half] = pack(s[0], s[1]), p[2 * half + 1] = pack(s[2], s[3]);
            e[2 * half] = pack(s[0] * r[0], s[1] * r[1]), e[2 * half + 1] = pack(s[2] * r[2], s[3] * r[3]);
        }
        mma16(dv, p, qdt[2], qdt[3]);
        mma16(dk, e, qdt[0], qdt[1]);
        mma16(dq[i], transpose(e[0]), transpose(e[2]), transpose(e[1]), transpose(e[3]), keys.transposed[0], keys.transposed[1]);
        if (i > keys.low) attend_down<i - 1>(keys, dq, dk, dv);
    }
}

// Rows of the input's gradient: the norm's backward pass, then stored where the output's has none, otherwise added.
DEVICE void store_input(float* dx, const u32* normal, const float* scale, const size_t (&at)[2], const bool (&there)[2], u32 from,
                        float (&d)[2 * STEPS][4]) {
    Normal x;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        load_normal(there[half] ? normal + at[half] * (E / 2) : nullptr, half, x);
        x.scale[half] = there[half] ? scale[at[half]] : 0.0f;
    }
    normalize_backward(x, d);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (!there[half]) continue;
        if (at[half] % T < from) {
            store_row(dx + at[half] * E, half, d);
        } else {
            add_row(dx + at[half] * E, half, d);
        }
    }
}

// The input's gradient of a sequence whose dqkv is in shared memory, by all warps; the matrix is at `weight`.
DEVICE void input_of_sequence(float* dx, const u32* normal, const float* scale, const uint4* weight, u32 from) {
    const int lane = lane_id(), g = lane >> 2;
    // Sixteen columns are those of two heads.
    const u32 rows = shared_address(shared) + ((lane >> 4) * ROWS_LEN + 4 * (lane & 15)) * 4;
#pragma unroll 1
    for (int tile = 2 * warp_id(); tile < TILES; tile += 2 * HEADS) {
        float d[2][2 * STEPS][4] = {};
        const u32 second = tile + 1 < TILES ? 256 : 0;
#pragma unroll 1
        for (int part = 0; part < 3; ++part) {
#pragma unroll
            for (int k = 0; k < STEPS; ++k) {
                const u32 at = rows + (2 * k * ROWS_LEN + part * 4 * PADDED) * 4 + 256 * tile;
                u32 a[2][4];
                load_matrices(a[0], at);
                load_matrices(a[1], at + second);
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    const uint4 f = weight[((part * STEPS + k) * STEPS + i) * 32 + lane];
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        mma16(d[m][2 * i], a[m], f.x, f.y);
                        mma16(d[m][2 * i + 1], a[m], f.z, f.w);
                    }
                }
            }
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            size_t at[2];
            bool there[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = 16 * (tile + m) + 8 * half + g;
                at[half] = static_cast<size_t>(blockIdx.x) * T + row, there[half] = row < T;
            }
            store_input(dx, normal, scale, at, there, from, d[m]);
        }
    }
}

KERNEL __launch_bounds__(32 * HEADS, 1)
    attention_backward(float* dx, const u32* normal, const float* scale, const u32* answer, const float* lse, const uint4* qkv_weight,
                       const float* qkv_bias, const uint4* proj_back, const uint4* qkv_back, u32* dqkv, u32* dout, u32 from) {
    const int lane = lane_id(), g = lane >> 2, t = lane & 3, warp = warp_id();
    const int head = blockIdx.y * HEADS + warp, first = from / 16;
    const size_t sequence = blockIdx.x;
    u32* const own = reinterpret_cast<u32*>(shared) + warp * ROWS_LEN;
    u32 *const qs = own, *const ks = own + 4 * PADDED, *const vs = own + 8 * PADDED;
    u32* const ds = reinterpret_cast<u32*>(shared) + HEADS * ROWS_LEN + warp * REST_LEN;
    // Minus lse, and minus D.
    float* const starts = reinterpret_cast<float*>(ds + 4 * PADDED);
    float* const dots = starts + PADDED;

    {
        u32 w[6 * STEPS];
#pragma unroll
        for (int i = 0; i < 6 * STEPS / 4; ++i) {
            const uint4 four = qkv_weight[(head * (6 * STEPS / 4) + i) * 32 + lane];
            w[4 * i] = four.x, w[4 * i + 1] = four.y, w[4 * i + 2] = four.z, w[4 * i + 3] = four.w;
        }
        // Blocks of sixteen columns hold two heads.
        uint2 p[STEPS];
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
            p[i] = reinterpret_cast<const uint2*>(proj_back + (i * STEPS + head / 2) * 32 + lane)[head % 2];
        }
        const float2* const bias = reinterpret_cast<const float2*>(qkv_bias + head * D + 2 * t);
        const float2 bq = bias[0], bk = bias[E / 2], bv = bias[E];
#pragma unroll 1
        for (int i = 0; i < TILES; ++i) {
            float cq[4] = {bq.x, bq.y, bq.x, bq.y}, ck[4] = {bk.x, bk.y, bk.x, bk.y}, cv[4] = {bv.x, bv.y, bv.x, bv.y};
            float cd[4] = {0, 0, 0, 0};
            Normal x;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = 16 * i + 8 * half + g;
                load_normal(row < T ? normal + (sequence * T + row) * (E / 2) : nullptr, half, x);
            }
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                mma16(cq, x.a[step], w[6 * step], w[6 * step + 1]);
                mma16(ck, x.a[step], w[6 * step + 2], w[6 * step + 3]);
                mma16(cv, x.a[step], w[6 * step + 4], w[6 * step + 5]);
            }
            if (i >= first) {
#pragma unroll
                for (int step = 0; step < STEPS; ++step) {
                    u32 a[4];
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int row = 16 * i + 8 * half + g;
                        float4 v = make_float4(0, 0, 0, 0);
                        const bool there = row >= from && row < T;
                        const size_t at = (sequence * T + row) * E + 16 * step + 4 * t;
                        if (there) v = *reinterpret_cast<const float4*>(dx + at);
                        a[half] = pack(v.x, v.y), a[2 + half] = pack(v.z, v.w);
                        // One warp of the sequence writes each tile.
                        if (there && head == i % H) *reinterpret_cast<uint2*>(dout + at / 2) = make_uint2(a[half], a[2 + half]);
                    }
                    mma16(cd, a, p[step].x, p[step].y);
                }
            }
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = 16 * i + 8 * half + g, to = 4 * row + t;
                qs[to] = pack(cq[2 * half], cq[2 * half + 1]);
                ks[to] = pack(ck[2 * half], ck[2 * half + 1]);
                vs[to] = pack(cv[2 * half], cv[2 * half + 1]);
                const u32 d = pack(cd[2 * half], cd[2 * half + 1]);
                ds[to] = d;
                float dot = 0, start = MINUS_INFINITY;
                if (i >= first && row < T) {
                    const u32 o = answer[((sequence * T + row) * E + head * D) / 2 + t];
                    // Of dO as the products have it: where one key takes all, dP − D is nothing, and what dO lost does not come back.
                    dot = low(d) * low(o) + high(d) * high(o);
                    start = -lse[(sequence * H + head) * T + row];
                }
                dot = sum_lanes<4>(dot);
                if (t == 0) starts[row] = start, dots[row] = -dot;
            }
        }
    }
    __syncwarp();

    float dq[TILES][4] = {};
    // Lane l < 16 gives row l of the first array, the others row l − 16 of the second.
    const u32 from_keys = shared_address((lane < 16 ? ks : vs) + 4 * (lane & 15));
    Keys keys;
    keys.from_queries = shared_address((lane < 16 ? qs : ds) + 4 * (lane & 15));
    // Otherwise the compiler works it out anew for each tile.
    asm volatile("" : "+r"(keys.from_queries));
    keys.starts = starts, keys.dots = dots;
#pragma unroll 1
    for (int j = 0; j < TILES; ++j) {
        load_matrices(keys.kv, from_keys + 256 * j);
        keys.transposed[0] = transpose(keys.kv[0]), keys.transposed[1] = transpose(keys.kv[1]);
        keys.tile = j, keys.low = max(j, first);
        float dk[4] = {0, 0, 0, 0}, dv[4] = {0, 0, 0, 0};
        attend_down<TILES - 1>(keys, dq, dk, dv);
        // Nobody needs these keys and values any more; queries carry log2(e)/√D.
        __syncwarp();
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int to = 4 * (16 * j + 8 * half + g) + t;
            ks[to] = pack(dk[2 * half] * LN_2, dk[2 * half + 1] * LN_2);
            vs[to] = pack(dv[2 * half], dv[2 * half + 1]);
        }
    }
    __syncwarp();
    const float factor = rsqrtf(D);
#pragma unroll
    for (int i = 0; i < TILES; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            qs[4 * (16 * i + 8 * half + g) + t] = pack(dq[i][2 * half] * factor, dq[i][2 * half + 1] * factor);
        }
    }
    __syncthreads();
    uint4* const matrix = shared + HEADS * ROWS_LEN / 4;
    if (WHOLE) {
        for (int i = threadIdx.x; i < MATRIX_BYTES / 16; i += 32 * HEADS) copy_async(shared_address(matrix + i), qkv_back + i);
        commit_copies();
    }
    // Sixteen bytes a thread, heads of a row side by side.
    for (int i = threadIdx.x; i < T * 3 * HEADS; i += 32 * HEADS) {
        const int row = i / (3 * HEADS), part = i / HEADS % 3, of = i % HEADS;
        const uint4 eight = shared[(of * ROWS_LEN + part * 4 * PADDED) / 4 + row];
        reinterpret_cast<uint4*>(dqkv)[((sequence * T + row) * 3 + part) * H + blockIdx.y * HEADS + of] = eight;
    }
    if (WHOLE) {
        wait_copies<0>();
        __syncthreads();
        input_of_sequence(dx, normal, scale, matrix, from);
    }
}

KERNEL __launch_bounds__(256) attention_backward_input(float* dx, const u32* dqkv, const u32* normal, const float* scale,
                                                       const uint4* qkv_back, u32 n, u32 from) {
    const int lane = lane_id(), g = lane >> 2, t = lane & 3;
    const u32 to = shared_address(shared);
    for (int i = threadIdx.x; i < MATRIX_BYTES / 16; i += 256) copy_async(to + 16 * i, qkv_back + i);
    commit_copies();
    wait_copies<0>();
    __syncthreads();

    const u32 total = n * T, tiles = (total + 127) / 128;
#pragma unroll 1
    for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        size_t at[2];
        bool there[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            at[half] = 128 * tile + 16 * warp_id() + 8 * half + g;
            there[half] = at[half] < total;
        }
        float d[2 * STEPS][4] = {};
#pragma unroll 3
        for (int k = 0; k < 3 * STEPS; ++k) {
            u32 a[4];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const u32* const row = dqkv + at[half] * (3 * E / 2) + 8 * k + t;
                a[half] = there[half] ? row[0] : 0, a[2 + half] = there[half] ? row[4] : 0;
            }
#pragma unroll
            for (int i = 0; i < STEPS; ++i) {
                const uint4 f = shared[(k * STEPS + i) * 32 + lane];
                mma16(d[2 * i], a, f.x, f.y);
                mma16(d[2 * i + 1], a, f.z, f.w);
            }
        }
        store_input(dx, normal, scale, at, there, from, d);
    }
}
