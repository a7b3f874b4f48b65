// The head: final norm, logits, softmax and cross-entropy of targets t + 1 for t in from .. T, and their gradients, in one
// pass: logits live in registers and nowhere else.
//
// Shapes: x [N, T, E] f32, E a multiple of 32 up to 128, Q up to 256. One block of threads does one sequence, a warp sixteen
// timesteps at a time. Grid N, 256 threads, shared memory head_*_shared_bytes.
//
// Working copies (see `working.cu`), one for all channels or one for each, `matrix_len` uint4 apart: weight, blocks
// [Q/16][E/16] of k = E by columns = levels, norm's weight folded in; weight_back, blocks [Q/16][E/16] of k = levels by
// columns = E; both orders interleaved. bias [matrices, Q]: what the norm's bias adds to each logit.
//
// Out: scores [N, 4] f32: nats, top-1, top-5, squared error by `levels` [Q], summed over the sequence's targets. With the
// backward pass: dx [N, T, E] f32, rows from `from` on, of `factor` · nats; and for the weights' gradient dlogits
// [N, T − from, 16·ceil(Q/16)] and the normalised rows [N, T − from, E], both bf16.
//
// Bytes per timestep: 4E read; backward: 4E + 2E + 2Q written. Tensor operations: E·Q multiplications, backward as many again.
// Special functions: Q exponentials. Sums: over a lane's levels ascending, then 4 lanes by halves; scores over a lane's
// timesteps ascending, then 8 lanes by halves, then the 8 warps ascending.
#include "rows.cuh"
#include "score.cuh"

static_assert(E <= 128 && Q <= 256, "a row of logits stays in registers");

constexpr int BLOCKS = ceil_div(Q, 16);
constexpr int WEIGHT_LEN = BLOCKS * STEPS * 32;
constexpr int WARPS = 8;
// Where shared memory is too small for both copies, the second is read from the L2 cache. The scores need a little, too.
constexpr bool BACK_SHARED = 2 * WEIGHT_LEN * 16 + 1024 <= SHARED_LIMIT;
// What launches must ask for, read by the host.
extern "C" __constant__ const u32 head_forward_shared_bytes = WEIGHT_LEN * 16;
extern "C" __constant__ const u32 head_backward_shared_bytes = (BACK_SHARED ? 2 : 1) * WEIGHT_LEN * 16;

// Logits of sixteen rows: c[2i + p][2·half + b] is that of level 16i + 4t + 2p + b.
DEVICE void logits_of(const Normal& normal, const uint4* weight, const float* bias, float (&c)[2 * BLOCKS][4]) {
    const int lane = lane_id(), t = lane & 3;
#pragma unroll
    for (int i = 0; i < BLOCKS; ++i) {
#pragma unroll
        for (int p = 0; p < 2; ++p) {
#pragma unroll
            for (int b = 0; b < 2; ++b) {
                const int level = 16 * i + 4 * t + 2 * p + b;
                c[2 * i + p][b] = c[2 * i + p][2 + b] = level < Q ? bias[level] : MINUS_INFINITY;
            }
        }
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
            const uint4 f = weight[(i * STEPS + step) * 32 + lane];
            mma16(c[2 * i], normal.a[step], f.x, f.y);
            mma16(c[2 * i + 1], normal.a[step], f.z, f.w);
        }
    }
}

struct Head {
    const float* x;
    const uint4* weight;
    const uint4* weight_back;
    const float* bias;
    const u32* channel;
    u32 matrix_len;
    u32 from;
};

// The sequence's matrices into shared memory; its bias.
template <bool backward>
DEVICE const float* load_weights(const Head& head) {
    // With one matrix for all channels there is no way to the next.
    const size_t matrix = head.matrix_len ? head.channel[blockIdx.x] : 0;
    const u32 to = shared_address(shared);
    for (int i = threadIdx.x; i < WEIGHT_LEN; i += 32 * WARPS) {
        copy_async(to + 16 * i, head.weight + matrix * head.matrix_len + i);
        if (backward && BACK_SHARED) copy_async(to + 16 * (WEIGHT_LEN + i), head.weight_back + matrix * head.matrix_len + i);
    }
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    return head.bias + matrix * Q;
}

template <bool backward>
DEVICE void loss(const Head& head, const u8* token, const float* levels, float* scores, float factor, float* dx, u32* dlogits,
                 u32* normals) {
    const int lane = lane_id(), g = lane >> 2, t = lane & 3, warp = warp_id();
    const int from = head.from;
    const size_t sequence = blockIdx.x;
    const float* const bias = load_weights<backward>(head);
    const uint4* const back = BACK_SHARED ? shared + WEIGHT_LEN : head.weight_back + (size_t)(bias - head.bias) / Q * head.matrix_len;

    float score[4] = {0, 0, 0, 0};
#pragma unroll 1
    for (int first = from + 16 * warp; first < T; first += 16 * WARPS) {
        const float* row[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int time = first + g + 8 * half;
            row[half] = time < T ? head.x + (sequence * T + time) * E : nullptr;
        }
        Normal normal;
        normalize(row, normal);
        float c[2 * BLOCKS][4];
        logits_of(normal, shared, bias, c);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int time = first + g + 8 * half;
            // Lanes of a row that is not there work along, so that sums over lanes find them, for nothing.
            float of_row[4] = {0, 0, 0, 0};
            const int target = time < T ? token[sequence * (T + 1) + time + 1] : 0;
            float logits[4 * BLOCKS];
#pragma unroll
            for (int i = 0; i < 4 * BLOCKS; ++i) logits[i] = c[i / 2][2 * half + i % 2];
            score_row<4, 4>(logits, target, levels, factor, of_row);
#pragma unroll
            for (int i = 0; i < 4 * BLOCKS; ++i) c[i / 2][2 * half + i % 2] = logits[i];
#pragma unroll
            for (int i = 0; i < 4; ++i) score[i] += time < T ? of_row[i] : 0.0f;
        }
        if (!backward) continue;

        float d[2 * STEPS][4] = {};
#pragma unroll
        for (int i = 0; i < BLOCKS; ++i) {
            const u32 a[4] = {pack(c[2 * i][0], c[2 * i][1]), pack(c[2 * i][2], c[2 * i][3]),
                              pack(c[2 * i + 1][0], c[2 * i + 1][1]), pack(c[2 * i + 1][2], c[2 * i + 1][3])};
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int time = first + g + 8 * half;
                if (time >= T) continue;
                u32* const to = dlogits + ((sequence * (T - from) + time - from) * BLOCKS + i) * 8 + 2 * t;
                *reinterpret_cast<uint2*>(to) = make_uint2(a[half], a[2 + half]);
            }
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                const uint4 f = back[(i * STEPS + step) * 32 + lane];
                mma16(d[2 * step], a, f.x, f.y);
                mma16(d[2 * step + 1], a, f.z, f.w);
            }
        }
        normalize_backward(normal, d);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int time = first + g + 8 * half;
            if (time >= T) continue;
            store_normal(normal, half, normals + (sequence * (T - from) + time - from) * (E / 2));
            store_row(dx + (sequence * T + time) * E, half, d);
        }
    }

    // The four lanes of a row hold the same; rows over lanes, then warps.
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int bit = 4; bit < 32; bit *= 2) score[i] += __shfl_xor_sync(ALL_LANES, score[i], bit);
    }
    store_scores<WARPS>(score, scores + 4 * sequence);
}

KERNEL __launch_bounds__(256, 1) head_loss(const float* x, const uint4* weight, const float* bias, u32 matrix_len,
                                           const u8* token, const u32* channel, const float* levels, float* scores, u32 from) {
    const Head head = {x, weight, nullptr, bias, channel, matrix_len, from};
    loss<false>(head, token, levels, scores, 0.0f, nullptr, nullptr, nullptr);
}

KERNEL __launch_bounds__(256, 1) head_loss_backward(const float* x, const uint4* weight, const uint4* weight_back,
                                                    const float* bias, u32 matrix_len, const u8* token, const u32* channel,
                                                    const float* levels, float* scores, float factor, float* dx,
                                                    u32* dlogits, u32* normals, u32 from) {
    const Head head = {x, weight, weight_back, bias, channel, matrix_len, from};
    loss<true>(head, token, levels, scores, factor, dx, dlogits, normals);
}

// Bare logits [N, T − from, Q] f32.
KERNEL __launch_bounds__(256, 1) head_logits(const float* x, const uint4* weight, const float* bias, u32 matrix_len,
                                             const u32* channel, float* logits, u32 from) {
    const Head head = {x, weight, nullptr, bias, channel, matrix_len, from};
    const float* const bias_of = load_weights<false>(head);
    const int g = lane_id() >> 2, t = lane_id() & 3;
    const size_t sequence = blockIdx.x;
#pragma unroll 1
    for (int first = from + 16 * warp_id(); first < T; first += 16 * WARPS) {
        const float* row[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int time = first + g + 8 * half;
            row[half] = time < T ? x + (sequence * T + time) * E : nullptr;
        }
        Normal normal;
        normalize(row, normal);
        float c[2 * BLOCKS][4];
        logits_of(normal, shared, bias_of, c);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int time = first + g + 8 * half;
            if (time >= T) continue;
            float* const to = logits + (sequence * (T - from) + time - from) * Q;
#pragma unroll
            for (int i = 0; i < BLOCKS; ++i) {
                const float *const p = &c[2 * i][2 * half], *const r = &c[2 * i + 1][2 * half];
                const int level = 16 * i + 4 * t;
                if (Q % 4 == 0) {
                    if (level < Q) *reinterpret_cast<float4*>(to + level) = make_float4(p[0], p[1], r[0], r[1]);
                } else {
                    if (level < Q) to[level] = p[0];
                    if (level + 1 < Q) to[level + 1] = p[1];
                    if (level + 2 < Q) to[level + 2] = r[0];
                    if (level + 3 < Q) to[level + 3] = r[1];
                }
            }
        }
    }
}
