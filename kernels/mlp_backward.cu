// The MLP half-block, backward: the gradient of its input. Those of its weights are `mlp_weights.cu`'s.
//
// Shapes: dx [N, T, E] f32 in place (in: gradient of the output, out: of the input), rows from `from` on; normal [N, T, E] bf16
// and scale [N, T], kept by the forward pass; E a multiple of 32 up to 128. Out, for `mlp_weights.cu`, bf16, rows from `from` on:
// dout [N, T, E], the gradient of the output.
//
// A warp owns 32 timesteps, a block of threads 8 warps; blocks walk over the timesteps with the stride of the grid. 256
// threads, shared memory mlp_backward_shared_bytes. For each sixteen hidden units: h = x̂·fc and g = dout·projᵀ, recomputed and
// never stored; dh = g · gelu'(h); dx̂ += dh·fcᵀ. The rest is the norm's backward pass, within a quad of lanes.
//
// Working copies, all interleaved, for each sixteen hidden units: E/16 blocks of fc (norm's weight folded in), E/16 of projᵀ,
// E/16 of fcᵀ (folded); fc_bias [4E].
//
// Bytes per timestep: 4E + 2E + 4 read; 4E + 2E written. Tensor operations: 3 · 4E² multiplications. Special functions: 2 · 4E.
// Sums: in the tensor core k ascending; the norm's over 4 lanes by halves.
#include "mlp.cuh"

constexpr int BLOCK_LEN = 3 * STEPS * 32;
typedef Chunks<BLOCK_LEN> Chunk;
constexpr int CHUNKS = Chunk::COUNT;
// What a launch must ask for, read by the host.
extern "C" __constant__ const u32 mlp_backward_shared_bytes = Chunk::SHARED_BYTES;

KERNEL __launch_bounds__(256, 1) mlp_backward(float* dx, const u32* normal, const float* scale, const uint4* weight,
                                              const float* fc_bias, u32* dout, u32 n, u32 from) {
    const float* const bias = Chunk::begin(weight, fc_bias);
    const int t = lane_id() & 3;
    const u32 total = n * (T - from), tiles = (total + 255) / 256;

    int buffer = 0;
#pragma unroll 1
    for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        Normal x[2];
        u32 dy[2][STEPS][4];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const long long at = place_of(tile, m, half, from, total);
                load_normal(at < 0 ? nullptr : normal + at * (E / 2), half, x[m]);
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    float4 v = make_float4(0, 0, 0, 0);
                    if (at >= 0) v = *reinterpret_cast<const float4*>(dx + at * E + 16 * i + 4 * t);
                    dy[m][i][half] = pack(v.x, v.y), dy[m][i][2 + half] = pack(v.z, v.w);
                    if (at < 0) continue;
                    *reinterpret_cast<uint2*>(dout + at * (E / 2) + 8 * i + 2 * t) = make_uint2(dy[m][i][half], dy[m][i][2 + half]);
                }
            }
        }

        float d[2][2 * STEPS][4] = {};
#pragma unroll 1
        for (int c = 0; c < CHUNKS; ++c) {
            Chunk::next(weight, c, buffer, tile + gridDim.x < tiles);
            const uint4* w = shared + buffer * Chunk::LEN + lane_id();
#pragma unroll 1
            for (int block = c * Chunk::BLOCKS; block < (c + 1) * Chunk::BLOCKS; ++block, w += BLOCK_LEN) {
                const float4 b = *reinterpret_cast<const float4*>(bias + 16 * block + 4 * t);
                float hidden[2][2][4], dactive[2][2][4] = {};
#pragma unroll
                for (int m = 0; m < 2; ++m) start_hidden(hidden[m], b);
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    const uint4 f = w[32 * i], p = w[32 * (STEPS + i)];
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        mma16(hidden[m][0], x[m].a[i], f.x, f.y);
                        mma16(hidden[m][1], x[m].a[i], f.z, f.w);
                        mma16(dactive[m][0], dy[m][i], p.x, p.y);
                        mma16(dactive[m][1], dy[m][i], p.z, p.w);
                    }
                }
                u32 dh[2][4];
#pragma unroll
                for (int m = 0; m < 2; ++m) {
#pragma unroll
                    for (int p = 0; p < 2; ++p) {
#pragma unroll
                        for (int half = 0; half < 2; ++half) {
                            float value[2], slope[2];
#pragma unroll
                            for (int b = 0; b < 2; ++b) gelu_and_slope(hidden[m][p][2 * half + b], value[b], slope[b]);
                            const float *const g = &dactive[m][p][2 * half];
                            dh[m][2 * p + half] = pack(g[0] * slope[0], g[1] * slope[1]);
                        }
                    }
                }
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    const uint4 f = w[32 * (2 * STEPS + i)];
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        mma16(d[m][2 * i], dh[m], f.x, f.y);
                        mma16(d[m][2 * i + 1], dh[m], f.z, f.w);
                    }
                }
            }
            if (CHUNKS > 1) buffer ^= 1;
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const long long at = place_of(tile, m, half, from, total);
                x[m].scale[half] = at < 0 ? 0.0f : scale[at];
            }
            normalize_backward(x[m], d[m]);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const long long at = place_of(tile, m, half, from, total);
                if (at >= 0) add_row(dx + at * E, half, d[m]);
            }
        }
    }
}
