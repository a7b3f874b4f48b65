// The attention half-block, backward, for heads of eight, in two kernels.
//
// `attention_backward`: from dout, the gradient of the half-block's output (f32 [N, T, E], rows from `from` on), and what the
// forward pass kept (normal, answer, lse), the gradients of queries, keys and values: dqkv [N, T, 3E] bf16, all rows; and dout
// itself in bf16, rows from `from` on, for `weights.cu`. One warp per head, HEADS heads per block of threads, grid (N, H / HEADS),
// 32·HEADS threads, shared memory attention_backward_shared_bytes.
//
// Queries, keys, values (recomputed) and the gradient of the answers, dO = dout·projᵀ, lie in shared memory, sixteen bytes a row.
// Scores are computed transposed, rows are keys: then Pᵀ and dSᵀ come out of the tensor cores as they go in again for
// dV += Pᵀ·dO and dK += dSᵀ·Q, and only dS for dQ += dS·K must be transposed. With C starting at −lse the product of keys and
// queries is at once the argument of 2^x; with C starting at −D, D = Σ dO·O, that of values and dO is dP − D, and
// dS = P · (dP − D). dK and dV of sixteen keys stay in registers while all later queries pass; dQ of all queries does always.
//
// `attention_backward_input`: dx (in: dout, out: gradient of the input, all rows) from dqkv: x̂'s gradient is dqkv·qkvᵀ, then the
// norm's backward pass. 16 timesteps a warp, 8 warps a block, grid-stride; 256 threads, shared memory 6·E² bytes.
//
// Shapes: T up to 256, E a multiple of 32 up to 128. Working copies: those of the forward pass; proj_back, projᵀ, blocks [E/16]
// [E/16] of k = E interleaved by columns in order; qkv_back, qkvᵀ with the norm's weight folded in, blocks [3E/16][E/16], both orders
// interleaved.
//
// Bytes per timestep: first kernel 4E + 2E + 2E + 4H read, 6E + 2E written; second 6E + 2E + 4 + 4E read, 4E written. Tensor
// operations: QKV and dO without padding, 5 products of scores' size up to the diagonal in blocks of 16 × 16. Sums: dK and dV over
// queries ascending, dQ over keys ascending; D over 4 lanes by halves.
#include "rows.cuh"

static_assert(D == 8 && E <= 128, "heads of eight");
static_assert(T <= 256, "gradients of the queries stay in registers");

constexpr int TILES = ceil_div(T, 16);
constexpr int PADDED = 16 * TILES;
// Words of one head: four rows of sixteen bytes for each timestep, and two floats.
constexpr int HEAD_LEN = 18 * PADDED;

// Heads that fit into a block's shared memory.
constexpr int heads() {
    int most = H;
    while (H % most != 0 || most * HEAD_LEN * 4 > SHARED_LIMIT) --most;
    return most;
}
constexpr int HEADS = heads();
extern "C" __constant__ const u32 attention_backward_heads = HEADS;
// What launches must ask for, read by the host.
extern "C" __constant__ const u32 attention_backward_shared_bytes = HEADS * HEAD_LEN * 4;
extern "C" __constant__ const u32 attention_backward_input_shared_bytes = 3 * STEPS * STEPS * 512;

KERNEL __launch_bounds__(32 * HEADS, 1)
    attention_backward(const float* dx, const u32* normal, const u32* answer, const float* lse, const uint4* qkv_weight,
                       const float* qkv_bias, const uint4* proj_back, u32* dqkv, u32* dout, u32 from) {
    const int lane = lane_id(), g = lane >> 2, t = lane & 3, warp = warp_id();
    const int head = blockIdx.y * HEADS + warp, first = from / 16;
    const size_t sequence = blockIdx.x;
    u32* const own = reinterpret_cast<u32*>(shared) + warp * HEAD_LEN;
    u32 *const qs = own, *const ks = own + 4 * PADDED, *const vs = own + 8 * PADDED, *const ds = own + 12 * PADDED;
    // Minus lse, and minus D.
    float* const starts = reinterpret_cast<float*>(own + 16 * PADDED);
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
                ds[to] = pack(cd[2 * half], cd[2 * half + 1]);
                float dot = 0, start = MINUS_INFINITY;
                if (i >= first && row < T) {
                    const u32 o = answer[((sequence * T + row) * E + head * D) / 2 + t];
                    dot = cd[2 * half] * low(o) + cd[2 * half + 1] * high(o);
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
    const u32 from_queries = shared_address((lane < 16 ? qs : ds) + 4 * (lane & 15));
#pragma unroll 1
    for (int j = 0; j < TILES; ++j) {
        // Keys in order, then values, as A; keys transposed as B.
        u32 kv[4];
        load_matrices(kv, from_keys + 256 * j);
        const u32 kt0 = transpose(kv[0]), kt1 = transpose(kv[1]);
        float dk[4] = {0, 0, 0, 0}, dv[4] = {0, 0, 0, 0};
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            if (i < j || i < first) continue;
            u32 qd[4], qdt[4];
            load_matrices(qd, from_queries + 256 * i);
            load_transposed(qdt, from_queries + 256 * i);
            u32 p[4], e[4];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float2 l = *reinterpret_cast<const float2*>(starts + 16 * i + 8 * half + 2 * t);
                const float2 m = *reinterpret_cast<const float2*>(dots + 16 * i + 8 * half + 2 * t);
                float s[4], r[4];
                mma8(s, kv[0], kv[1], qd[half], {l.x, l.y, l.x, l.y});
                mma8(r, kv[2], kv[3], qd[2 + half], {m.x, m.y, m.x, m.y});
#pragma unroll
                for (int c = 0; c < 4; ++c) s[c] = exp2_approx(s[c]);
                if (i == j) {
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
            mma16(dq[i], transpose(e[0]), transpose(e[2]), transpose(e[1]), transpose(e[3]), kt0, kt1);
        }
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
    const float scale = rsqrtf(D);
#pragma unroll
    for (int i = 0; i < TILES; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            qs[4 * (16 * i + 8 * half + g) + t] = pack(dq[i][2 * half] * scale, dq[i][2 * half + 1] * scale);
        }
    }
    __syncthreads();
    // Sixteen bytes a thread, heads of a row side by side.
    for (int i = threadIdx.x; i < T * 3 * HEADS; i += 32 * HEADS) {
        const int row = i / (3 * HEADS), part = i / HEADS % 3, of = i % HEADS;
        const uint4 eight = shared[(of * HEAD_LEN + part * 4 * PADDED) / 4 + row];
        reinterpret_cast<uint4*>(dqkv)[((sequence * T + row) * 3 + part) * H + blockIdx.y * HEADS + of] = eight;
    }
}

KERNEL __launch_bounds__(256) attention_backward_input(float* dx, const u32* dqkv, const u32* normal, const float* scale,
                                                       const uint4* qkv_back, u32 n, u32 from) {
    const int lane = lane_id(), g = lane >> 2, t = lane & 3;
    const u32 to = shared_address(shared);
    for (int i = threadIdx.x; i < 3 * STEPS * STEPS * 32; i += 256) copy_async(to + 16 * i, qkv_back + i);
    commit_copies();
    wait_copies<0>();
    __syncthreads();

    const u32 total = n * T, tiles = (total + 127) / 128;
#pragma unroll 1
    for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        size_t at[2];
        bool there[2];
        Normal x;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            at[half] = 128 * tile + 16 * warp_id() + 8 * half + g;
            there[half] = at[half] < total;
            load_normal(there[half] ? normal + at[half] * (E / 2) : nullptr, half, x);
            x.scale[half] = there[half] ? scale[at[half]] : 0.0f;
        }
        float d[2 * STEPS][4] = {};
#pragma unroll 3
        for (int k = 0; k < 3 * STEPS; ++k) {
            u32 a[4];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                uint2 four = make_uint2(0, 0);
                if (there[half]) four = *reinterpret_cast<const uint2*>(dqkv + at[half] * (3 * E / 2) + 8 * k + 2 * t);
                a[half] = four.x, a[2 + half] = four.y;
            }
#pragma unroll
            for (int i = 0; i < STEPS; ++i) {
                const uint4 f = shared[(k * STEPS + i) * 32 + lane];
                mma16(d[2 * i], a, f.x, f.y);
                mma16(d[2 * i + 1], a, f.z, f.w);
            }
        }
        normalize_backward(x, d);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (!there[half]) continue;
            // Earlier rows have no gradient of the output.
            if (at[half] % T < from) {
                store_row(dx + at[half] * E, half, d);
            } else {
                add_row(dx + at[half] * E, half, d);
            }
        }
    }
}
