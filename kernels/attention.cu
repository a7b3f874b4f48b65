// The attention half-block, forward, for heads of eight: x += proj(softmax(q·kᵀ/√D + causal)·v), (q, k, v) = qkv(norm(x)).
//
// Shapes: x [N, T, E] f32 in place; E a multiple of 32 up to 128, D = 8, T up to 256. One block of threads does one
// sequence, one warp one head. Grid N; 32·H threads; shared memory 16·ceil(T/16)·(2·E + 16) bytes.
//
// Working copies (see `working.cu`): qkv_weight, for each head three B fragments (q, k, v) for each sixteen interleaved rows, with
// the norm's weight folded in, and log2(e)/√D into q; qkv_bias [3E] likewise, with the norm's bias; proj_weight, blocks of
// 16 × 16 with interleaved columns; proj_bias [E].
//
// Kept for the backward pass, if `normal` is not null: normal, the normalised rows [N, T, E] bf16; scale, 1/√(variance + ε)
// [N, T]; answer, the heads' answers [N, T, E] bf16, and lse, log2 of the sum of 2^score [N, H, T], rows from 16·(from/16) on.
//
// A head's queries, keys and values come out of the tensor cores in the very layout in which they go in again: q is an A
// fragment, k a B fragment, v a B fragment once transposed. So keys and values of all timesteps stay in registers, and the
// loop over scores touches no memory at all. Softmax needs no maximum: |score| ≤ |q|·|k| bounds it, the tensor core starts
// from minus the bound, and its result is at once the argument of 2^x. Only where the bound is so large that the true
// maximum might underflow beneath it (more than 50, in powers of two) is the maximum sought first.
//
// Bytes per timestep: 4E read, 4E written; kept: 4E + 4 + 4H. Tensor operations: QKV and projection without padding, scores
// and answers in blocks of 16 × 16 up to the diagonal, one more per block for the sums. Exponentials: those blocks.
// Sums: rows of the norm over 8 lanes by halves; everything else in the tensor core, keys in ascending order.
#include "common.cuh"

static_assert(D == 8 && E % 32 == 0 && E <= 128, "heads of eight");
static_assert(T <= 256, "keys and values stay in registers");

constexpr int TILES = ceil_div(T, 16);
constexpr int STEPS = E / 16;
// A row of shared memory in words: sixteen bytes of padding let eight rows fall on different banks.
constexpr int ROW = E / 2 + 4;
// Beyond this bound the largest score is sought.
constexpr float SAFE = 50.0f;
// Tiles of queries that wait in registers, until every warp has read the rows whose place they take.
constexpr int WAITING = TILES > 8 ? 8 : TILES;
constexpr u32 ONES = 0x3f803f80u;

// Normalises the rows of a sequence into shared memory; rows beyond T are zero. Eight lanes share a row.
DEVICE void normalize_rows(const float* x, u32* tile, u32* normal, float* scale) {
    const int lane = lane_id();
    const int part = lane & 7;
    for (int block = warp_id(); block < 2 * TILES; block += H) {
#pragma unroll
        for (int pass = 0; pass < 2; ++pass) {
            // Rows four apart lie sixteen banks apart.
            const int row = 8 * block + 4 * (lane >> 3 & 1) + (lane >> 4) + 2 * pass;
            float4 v[E / 32];
#pragma unroll
            for (int i = 0; i < E / 32; ++i) {
                v[i] = make_float4(0, 0, 0, 0);
                if (row < T) v[i] = *reinterpret_cast<const float4*>(x + row * E + 32 * i + 4 * part);
            }
            float sum = 0;
#pragma unroll
            for (int i = 0; i < E / 32; ++i) sum += (v[i].x + v[i].y) + (v[i].z + v[i].w);
            const float mean = sum_lanes<8>(sum) * (1.0f / E);
            float square = 0;
#pragma unroll
            for (int i = 0; i < E / 32; ++i) {
                v[i] = make_float4(v[i].x - mean, v[i].y - mean, v[i].z - mean, v[i].w - mean);
                square += (v[i].x * v[i].x + v[i].y * v[i].y) + (v[i].z * v[i].z + v[i].w * v[i].w);
            }
            const float factor = rsqrt_approx(sum_lanes<8>(square) * (1.0f / E) + EPSILON);
            if (normal && row < T && part == 0) scale[row] = factor;
#pragma unroll
            for (int i = 0; i < E / 32; ++i) {
                const u32 a = pack(v[i].x * factor, v[i].y * factor), b = pack(v[i].z * factor, v[i].w * factor);
                // In interleaved order, so that both passes take one working copy.
                u32* const to = tile + row * ROW + 16 * i + 8 * (part >> 2) + (part & 3);
                to[0] = a, to[4] = b;
                if (normal && row < T) *reinterpret_cast<uint2*>(normal + (row * E + 32 * i + 4 * part) / 2) = make_uint2(a, b);
            }
        }
    }
}

// One block of sixteen queries and sixteen keys: adds its weighted values to `answer` and its weights to `sum`.
template <bool diagonal>
DEVICE void attend(u32 q0, u32 q1, const u32 (&k)[2], const u32 (&v)[2], const float (&start)[4], float (&answer)[4],
                   float (&sum)[4]) {
    float s[4], r[4];
    mma8(s, q0, q1, k[0], start);
    mma8(r, q0, q1, k[1], start);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        s[i] = exp2_approx(s[i]);
        // Keys 8 to 15 are later than queries 0 to 7.
        r[i] = diagonal && i < 2 ? 0.0f : exp2_approx(r[i]);
    }
    if (diagonal) {
        const int g = lane_id() >> 2, key = 2 * (lane_id() & 3);
        if (key > g) s[0] = r[2] = 0;
        if (key + 1 > g) s[1] = r[3] = 0;
    }
    const u32 p[4] = {pack(s[0], s[1]), pack(s[2], s[3]), pack(r[0], r[1]), pack(r[2], r[3])};
    mma16(answer, p, v[0], v[1]);
    mma16(sum, p, ONES, ONES);
}

// The tiles of keys from j on, up to the tile of queries. Written as recursion, because only with constant indices do the
// compiler's arrays become registers at once: a loop with its way out is folded before it is unrolled.
template <int j>
DEVICE void attend_up_to(int tile, u32 q0, u32 q1, const u32 (&k)[TILES][2], const u32 (&v)[TILES][2],
                         const float (&start)[4], float (&answer)[4], float (&sum)[4]) {
    if constexpr (j < TILES) {
        if (j == tile) {
            attend<true>(q0, q1, k[j], v[j], start, answer, sum);
        } else {
            attend<false>(q0, q1, k[j], v[j], start, answer, sum);
            attend_up_to<j + 1>(tile, q0, q1, k, v, start, answer, sum);
        }
    }
}

// The largest score of each of the lane's two queries, of a tile of queries against all keys up to them.
DEVICE void largest_scores(int tile, u32 q0, u32 q1, const u32 (&k)[TILES][2], float& most0, float& most1) {
    const int g = lane_id() >> 2, t = lane_id() & 3;
    const float zero[4] = {0, 0, 0, 0};
    most0 = most1 = MINUS_INFINITY;
#pragma unroll
    for (int j = 0; j < TILES; ++j) {
        if (j > tile) break;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float s[4];
            mma8(s, q0, q1, k[j][half], zero);
            // Queries stand before the first key of later tiles by as much as these are apart.
            const int key = 16 * (j - tile) + 8 * half + 2 * t;
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                if (key + i <= g) most0 = fmaxf(most0, s[i]);
                if (key + i <= g + 8) most1 = fmaxf(most1, s[2 + i]);
            }
        }
    }
    most0 = max_lanes<4>(most0);
    most1 = max_lanes<4>(most1);
}

KERNEL __launch_bounds__(32 * H, 1) attention_forward(float* x_all, const uint4* qkv_weight, const float* qkv_bias,
                                                      const uint4* proj_weight, const float* proj_bias, u32* normal_all,
                                                      float* scale_all, u32* answer_all, float* lse_all, u32 from) {
    u32* const tile = reinterpret_cast<u32*>(shared);
    const int lane = lane_id(), g = lane >> 2, t = lane & 3, head = warp_id();
    const size_t sequence = blockIdx.x;
    float* const x = x_all + sequence * T * E;
    const bool keep = normal_all != nullptr;
    const int first = from / 16;

    normalize_rows(x, tile, keep ? normal_all + sequence * (T * E / 2) : nullptr, scale_all + sequence * T);
    __syncthreads();

    u32 k[TILES][2], v[TILES][2];
    float most = 0;
    // Each warp puts its queries, then its answers, into its own columns of the rows that nobody needs any more.
    u32* const own = tile + g * ROW + 4 * head + t;
    {
        u32 q[WAITING][2], w[6 * STEPS];
#pragma unroll
        for (int i = 0; i < 6 * STEPS / 4; ++i) {
            const uint4 four = qkv_weight[(head * (6 * STEPS / 4) + i) * 32 + lane];
            w[4 * i] = four.x, w[4 * i + 1] = four.y, w[4 * i + 2] = four.z, w[4 * i + 3] = four.w;
        }
        const float2* const bias = reinterpret_cast<const float2*>(qkv_bias + head * D + 2 * t);
        const float2 bq = bias[0], bk = bias[E / 2], bv = bias[E];
        // Rows 0 to 15 for the first sixteen bytes, then again for the second.
        const u32 from_row = shared_address(tile + (lane & 15) * ROW + (lane >> 4) * 4);
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            float cq[4] = {bq.x, bq.y, bq.x, bq.y}, ck[4] = {bk.x, bk.y, bk.x, bk.y}, cv[4] = {bv.x, bv.y, bv.x, bv.y};
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                u32 a[4];
                load_matrices(a, from_row + (16 * i * ROW + 8 * step) * 4);
                mma16(cq, a, w[6 * step], w[6 * step + 1]);
                mma16(ck, a, w[6 * step + 2], w[6 * step + 3]);
                mma16(cv, a, w[6 * step + 4], w[6 * step + 5]);
            }
            q[i % WAITING][0] = pack(cq[0], cq[1]), q[i % WAITING][1] = pack(cq[2], cq[3]);
            k[i][0] = pack(ck[0], ck[1]), k[i][1] = pack(ck[2], ck[3]);
            v[i][0] = transpose(pack(cv[0], cv[1])), v[i][1] = transpose(pack(cv[2], cv[3]));
            most = fmaxf(most, fmaxf(ck[0] * ck[0] + ck[1] * ck[1], ck[2] * ck[2] + ck[3] * ck[3]));
            if ((i + 1) % WAITING == 0 || i + 1 == TILES) {
                __syncthreads();
#pragma unroll
                for (int j = i / WAITING * WAITING; j <= i; ++j) {
                    own[16 * j * ROW] = q[j % WAITING][0], own[(16 * j + 8) * ROW] = q[j % WAITING][1];
                }
            }
        }
    }
    // The largest squared length of a key is at most the sum of the largest squares of its pairs.
    most = sqrt_approx(max_lanes<32>(sum_lanes<4>(most)));

#pragma unroll 1
    for (int i = first; i < TILES; ++i) {
        const u32 q0 = own[16 * i * ROW], q1 = own[(16 * i + 8) * ROW];
        float most0 = most * sqrt_approx(sum_lanes<4>(low(q0) * low(q0) + high(q0) * high(q0)));
        float most1 = most * sqrt_approx(sum_lanes<4>(low(q1) * low(q1) + high(q1) * high(q1)));
        if (!__all_sync(ALL_LANES, most0 <= SAFE && most1 <= SAFE)) largest_scores(i, q0, q1, k, most0, most1);

        const float start[4] = {-most0, -most0, -most1, -most1};
        float answer[4] = {0, 0, 0, 0}, sum[4] = {0, 0, 0, 0};
        attend_up_to<0>(i, q0, q1, k, v, start, answer, sum);
        const float inverse0 = reciprocal(sum[0]), inverse1 = reciprocal(sum[2]);
        own[16 * i * ROW] = pack(answer[0] * inverse0, answer[1] * inverse0);
        own[(16 * i + 8) * ROW] = pack(answer[2] * inverse1, answer[3] * inverse1);
        if (keep && t == 0) {
            float* const lse = lse_all + (sequence * H + head) * T + 16 * i + g;
            if (16 * i + g < T) lse[0] = most0 + log2_approx(sum[0]);
            if (16 * i + g + 8 < T) lse[8] = most1 + log2_approx(sum[2]);
        }
    }
    __syncthreads();

    if (keep) {
        uint4* const answer = reinterpret_cast<uint4*>(answer_all + sequence * (T * E / 2));
        for (int i = first * 16 * (E / 8) + threadIdx.x; i < T * (E / 8); i += 32 * H) {
            answer[i] = shared[i / (E / 8) * (ROW / 4) + i % (E / 8)];
        }
    }

    // The projection: four groups of rows by E/32 groups of columns.
    constexpr int GROUPS = E / 32;
    const int group = head % GROUPS;
    uint4 w[STEPS][2];
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
#pragma unroll
        for (int n = 0; n < 2; ++n) w[step][n] = proj_weight[(step * STEPS + 2 * group + n) * 32 + lane];
    }
    const u32 from_row = shared_address(tile + (lane & 15) * ROW + (lane >> 4) * 4);
#pragma unroll 1
    for (int i = first + head / GROUPS; i < TILES; i += 4) {
        float c[2][2][4];
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            const float4 bias = *reinterpret_cast<const float4*>(proj_bias + 32 * group + 16 * n + 4 * t);
            c[n][0][0] = c[n][0][2] = bias.x, c[n][0][1] = c[n][0][3] = bias.y;
            c[n][1][0] = c[n][1][2] = bias.z, c[n][1][1] = c[n][1][3] = bias.w;
        }
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
            u32 a[4];
            load_matrices(a, from_row + (16 * i * ROW + 8 * step) * 4);
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                mma16(c[n][0], a, w[step][n].x, w[step][n].y);
                mma16(c[n][1], a, w[step][n].z, w[step][n].w);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = 16 * i + g + 8 * half;
            if (row >= T) continue;
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                float4* const at = reinterpret_cast<float4*>(x + row * E + 32 * group + 16 * n + 4 * t);
                const float4 old = *at;
                *at = make_float4(old.x + c[n][0][2 * half], old.y + c[n][0][2 * half + 1], old.z + c[n][1][2 * half],
                                  old.w + c[n][1][2 * half + 1]);
            }
        }
    }
}
