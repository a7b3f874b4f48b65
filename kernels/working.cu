// Working copies: bf16 matrices in the order in which tensor cores take them, made from the f32 parameters.
//
// A B fragment of sixteen k and sixteen columns is one uint4 per lane: columns 0 to 7 of the fragment (k 2t.., then k
// 2t+8..), then columns 8 to 15. Whole blocks follow each other, so a warp loads a block with sixteen bytes per lane.
//
// A norm's weight and bias never reach the kernels that work on timesteps: norm(x)·W + b = x̂·(diag(w)·W) + (Wᵀ·bias + b)
// with x̂ the normalised rows. The products are formed in f32 and rounded once.
//
// One thread per uint4 (or per bias). Bytes: 4 read and 2 written per element.
#include "common.cuh"

// Index of a fragment within sixteen → index of the matrix.
DEVICE u32 place(u32 index, bool interleaved) {
    return interleaved ? 4 * (index >> 1 & 3) + 2 * (index >> 3) + (index & 1) : index;
}

// Any matrix, of which element (k, n) is w[k·k_stride + n·n_stride] · k_scale[k] · n_scale[n] · (n < scaled ? factor : 1); beyond its
// ends, and where a scale is null: zeros, and ones. Block (i, j) goes to place i·k_place + j·n_place. `order`: 1, k interleaved; 2, columns
// interleaved. Grid (ceil(k_blocks·n_blocks·32 / 256), matrices), 256 threads; matrices lie w_next and out_next apart.
KERNEL working_matrix(uint4* out, const float* w, const float* k_scale, const float* n_scale, u32 k_len, u32 n_len,
                      u32 k_stride, u32 n_stride, u32 n_blocks, u32 k_place, u32 n_place, u32 order, u32 w_next,
                      u32 out_next, u32 scaled, float factor, u32 blocks) {
    const u32 index = blockIdx.x * 256 + threadIdx.x, block = index / 32;
    if (block >= blocks) return;
    const u32 i = block / n_blocks, j = block % n_blocks, g = (index & 31) >> 2, t = index & 3;
    w += (size_t)blockIdx.y * w_next;
    out += (size_t)blockIdx.y * out_next;
    u32 words[4];
#pragma unroll
    for (u32 word = 0; word < 4; ++word) {
        const u32 n = 16 * j + place(8 * (word >> 1) + g, order & 2);
        float pair[2];
#pragma unroll
        for (u32 b = 0; b < 2; ++b) {
            const u32 k = 16 * i + place(8 * (word & 1) + 2 * t + b, order & 1);
            pair[b] = 0;
            if (k < k_len && n < n_len) {
                pair[b] = w[(size_t)k * k_stride + (size_t)n * n_stride];
                if (k_scale) pair[b] *= k_scale[k];
                if (n_scale) pair[b] *= n_scale[n];
                if (n < scaled) pair[b] *= factor;
            }
        }
        words[word] = pack(pair[0], pair[1]);
    }
    out[(i * k_place + j * n_place) * 32 + (index & 31)] = make_uint4(words[0], words[1], words[2], words[3]);
}

// qkv for heads of eight: w [E, 3E], norm [E]; for each head and sixteen interleaved rows the fragments of q, k and v, six words a lane,
// packed without gaps into uint4. log2(e)/√D goes into q. Grid ceil(H·6·E/16/4·32 / 256), 256 threads.
KERNEL working_qkv(uint4* out, const float* w, const float* norm) {
    constexpr u32 WORDS = 6 * (E / 16);
    const u32 index = blockIdx.x * 256 + threadIdx.x, lane = index & 31, four = index / 32;
    if (four >= H * WORDS / 4) return;
    const u32 head = four / (WORDS / 4), g = lane >> 2, t = lane & 3;
    u32 words[4];
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        const u32 word = 4 * (four % (WORDS / 4)) + i, part = word % 6 / 2;
        const u32 k = 16 * (word / 6) + place(8 * (word & 1) + 2 * t, true), n = part * E + head * D + g;
        const float scale = part == 0 ? LOG2_E * rsqrtf(D) : 1.0f;
        words[i] = pack(w[k * 3 * E + n] * norm[k] * scale, w[(k + 1) * 3 * E + n] * norm[k + 1] * scale);
    }
    out[index] = make_uint4(words[0], words[1], words[2], words[3]);
}

// out[n] = (bias[n] + Σ norm_bias[k] · w[k·k_stride + n·n_stride]) · (n < scaled ? factor : 1), k ascending; no bias where it is
// null. Grid (ceil(n_len / 256), matrices), 256 threads.
KERNEL working_bias(float* out, const float* w, const float* norm_bias, const float* bias, u32 k_len, u32 n_len,
                    u32 k_stride, u32 n_stride, u32 scaled, float factor, u32 w_next) {
    const u32 n = blockIdx.x * 256 + threadIdx.x;
    if (n >= n_len) return;
    w += (size_t)blockIdx.y * w_next;
    float sum = bias ? bias[n] : 0.0f;
    for (u32 k = 0; k < k_len; ++k) sum = fmaf(norm_bias[k], w[(size_t)k * k_stride + (size_t)n * n_stride], sum);
    out[(size_t)blockIdx.y * n_len + n] = n < scaled ? sum * factor : sum;
}
