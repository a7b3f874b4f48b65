// The optimiser: slots of gradients summed in a fixed tree, the norm, clipping, AdamW.
//
// Shapes: grads [GRAD_SLOTS, len], params, m, v [len], f32. Three kernels in a row; the grid of the first is fixed by `len`, so no
// sum depends on the machine.
//
// Bytes per parameter: 4·GRAD_SLOTS read and 4·(GRAD_SLOTS − 1) written by the sum, 16 read and 16 written by the step.
#include "common.cuh"

// Elements of one block's sum.
constexpr u32 PIECE = 1024;

// ((0 + 1) + (2 + 3)) + …: the larger power of two first.
template <int first, int count>
DEVICE float tree(const float (&x)[GRAD_SLOTS]) {
    if constexpr (count == 1) {
        return x[first];
    } else {
        constexpr int half = count <= 2 ? 1 : count <= 4 ? 2 : count <= 8 ? 4 : count <= 16 ? 8 : count <= 32 ? 16 : 32;
        return tree<first, half>(x) + tree<first + half, count - half>(x);
    }
}

// The sum over a block of 256 threads, in the first of them: neighbours first.
DEVICE double sum_block(double x) {
    __shared__ double sums[256];
    sums[threadIdx.x] = x;
    __syncthreads();
    for (u32 width = 1; width < 256; width *= 2) {
        if (threadIdx.x % (2 * width) == 0) sums[threadIdx.x] += sums[threadIdx.x + width];
        __syncthreads();
    }
    return sums[0];
}

// Sums the slots into the first and zeroes the others; squares[block] is the sum of squares of its elements. Grid
// ceil(len / PIECE), 256 threads.
KERNEL __launch_bounds__(256) sum_slots(float* grads, double* squares, u64 len) {
    static_assert(GRAD_SLOTS <= 64, "the tree's widths");
    double square = 0;
    for (u32 i = threadIdx.x; i < PIECE; i += 256) {
        const u64 at = (u64)blockIdx.x * PIECE + i;
        if (at >= len) break;
        float x[GRAD_SLOTS];
#pragma unroll
        for (int slot = 0; slot < GRAD_SLOTS; ++slot) x[slot] = grads[slot * len + at];
        const float sum = tree<0, GRAD_SLOTS>(x);
        grads[at] = sum;
#pragma unroll
        for (int slot = 1; slot < GRAD_SLOTS; ++slot) grads[slot * len + at] = 0;
        square += (double)sum * sum;
    }
    square = sum_block(square);
    if (threadIdx.x == 0) squares[blockIdx.x] = square;
}

// The norm, and whether anything may change: outcome[0] the norm, outcome[1] the factor that clips it, or −1 where the norm,
// its square in f32 or a score is not finite. One block of 256 threads.
KERNEL __launch_bounds__(256) judge_norm(const double* squares, u32 pieces, const float* scores, u32 scores_len, float max_norm,
                                         double* outcome) {
    double sum = 0;
    for (u32 i = threadIdx.x; i < pieces; i += 256) sum += squares[i];
    bool wrong = false;
    for (u32 i = threadIdx.x; i < scores_len; i += 256) wrong |= !isfinite(scores[i]);
    wrong = __syncthreads_or(wrong);
    sum = sum_block(sum);
    if (threadIdx.x != 0) return;
    const double norm = sqrt(sum), clip = norm > max_norm ? max_norm / norm : 1.0;
    // The second moment is a square in f32: where that overflows, it would never come back.
    const float square = (float)((norm * clip) * (norm * clip));
    outcome[0] = norm;
    outcome[1] = wrong || !isfinite(norm) || !isfinite(square) ? -1.0 : clip;
}

struct Rates {
    float clip, gain1, decay2, gain2, inverse_root2, eps, rate;
};

// m += (g − m)·(1 − β₁), v = β₂·v + (1 − β₂)·g², p = shrink·p − rate·m / (√v̂ + ε).
DEVICE void step(const Rates& rates, float shrink, float& p, float& m, float& v, float grad) {
    const float g = __fmul_rn(grad, rates.clip);
    m = __fmaf_rn(__fsub_rn(g, m), rates.gain1, m);
    v = __fmaf_rn(v, rates.decay2, __fmul_rn(__fmul_rn(g, g), rates.gain2));
    const float root = __fmul_rn(__fsqrt_rn(v), rates.inverse_root2);
    p = __fmaf_rn(-rates.rate, __fdiv_rn(m, __fadd_rn(root, rates.eps)), __fmul_rn(p, shrink));
}

// The step of each parameter, with correctly rounded operations in the CPU engine's order; zeroes the first slot. `shrink` is for
// the first `decayed`. Four neighbours a thread; grid ceil(len / 1024), 256 threads.
KERNEL __launch_bounds__(256) adamw(float* params, float* m, float* v, float* grads, const double* outcome, float gain1,
                                    float decay2, float gain2, float inverse_root2, float eps, float rate, float shrink,
                                    u64 decayed, u64 len) {
    const u64 first = 4 * ((u64)blockIdx.x * 256 + threadIdx.x);
    if (first >= len) return;
    const float clip = (float)outcome[1];
    const bool applied = outcome[1] >= 0.0;
    const Rates rates = {clip, gain1, decay2, gain2, inverse_root2, eps, rate};
    if (first + 4 <= len) {
        float4* const ps = reinterpret_cast<float4*>(params + first);
        float4* const ms = reinterpret_cast<float4*>(m + first);
        float4* const vs = reinterpret_cast<float4*>(v + first);
        float4* const gs = reinterpret_cast<float4*>(grads + first);
        if (applied) {
            float4 p = *ps, a = *ms, b = *vs;
            const float4 g = *gs;
            step(rates, first < decayed ? shrink : 1.0f, p.x, a.x, b.x, g.x);
            step(rates, first + 1 < decayed ? shrink : 1.0f, p.y, a.y, b.y, g.y);
            step(rates, first + 2 < decayed ? shrink : 1.0f, p.z, a.z, b.z, g.z);
            step(rates, first + 3 < decayed ? shrink : 1.0f, p.w, a.w, b.w, g.w);
            *ps = p, *ms = a, *vs = b;
        }
        *gs = make_float4(0, 0, 0, 0);
    } else {
        for (u64 i = first; i < len; ++i) {
            if (applied) step(rates, i < decayed ? shrink : 1.0f, params[i], m[i], v[i], grads[i]);
            grads[i] = 0;
        }
    }
}
