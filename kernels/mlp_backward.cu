// The MLP half-block, backward: the gradient of its input, and the operands of its weights' gradients.
//
// Shapes: dx [N, T, E] f32 in place (in: gradient of the output, out: of the input), rows from `from` on; normal [N, T, E] bf16
// and scale [N, T], kept by the forward pass; E a multiple of 32 up to 128. Out, for `weights.cu`, bf16, rows from `from` on:
// active [N, T, 4E], the hidden layer; dhidden [N, T, 4E], the gradient before GELU; dout [N, T, E], the gradient of the output.
//
// A warp owns 16 timesteps, a block of threads 8 warps; blocks walk over the timesteps with the stride of the grid. 256
// threads, shared memory mlp_backward_shared_bytes. For each sixteen hidden units: h = x̂·fc and g = dout·projᵀ, recomputed and
// never stored in f32; dh = g · gelu'(h); dx̂ += dh·fcᵀ. The rest is the norm's backward pass, within a quad of lanes.
//
// Working copies, all interleaved, for each sixteen hidden units: E/16 blocks of fc (norm's weight folded in), E/16 of projᵀ,
// E/16 of fcᵀ (folded); fc_bias [4E].
//
// Bytes per timestep: 4E + 2E + 4 read; 4E + 8E + 8E + 2E written. Tensor operations: 3 · 4E² multiplications. Special functions: 4E
// tanh. Sums: in the tensor core k ascending; the norm's over 4 lanes by halves.
#include "mlp.cuh"

constexpr int BLOCK_LEN = 3 * STEPS * 32;
typedef Chunks<BLOCK_LEN> Chunk;
constexpr int CHUNKS = Chunk::COUNT;
// What a launch must ask for, read by the host.
extern "C" __constant__ const u32 mlp_backward_shared_bytes = Chunk::SHARED_BYTES;

KERNEL __launch_bounds__(256, 1) mlp_backward(float* dx, const u32* normal, const float* scale, const uint4* weight,
                                              const float* fc_bias, u32* active, u32* dhidden, u32* dout, u32 n, u32 from) {
    float* const bias = reinterpret_cast<float*>(shared + Chunk::WEIGHTS_LEN);
    const int lane = lane_id(), g = lane >> 2, t = lane & 3;
    const u32 rows = T - from, total = n * rows;
    const u32 tiles = (total + 127) / 128;

    Chunk::load(weight, 0, 0);
    for (int i = threadIdx.x; i < 4 * E; i += 256) bias[i] = fc_bias[i];
    if (CHUNKS == 1) {
        wait_copies<0>();
        __syncthreads();
    }

    int buffer = 0;
#pragma unroll 1
    for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        // The lane's two rows: where they are, or −1.
        long long at[2];
        Normal x;
        u32 dy[STEPS][4];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const u32 r = 128 * tile + 16 * warp_id() + 8 * half + g;
            at[half] = r < total ? (long long)(r / rows) * T + from + r % rows : -1;
            load_normal(at[half] < 0 ? nullptr : normal + at[half] * (E / 2), half, x);
            x.scale[half] = at[half] < 0 ? 0.0f : scale[at[half]];
#pragma unroll
            for (int i = 0; i < STEPS; ++i) {
                float4 v = make_float4(0, 0, 0, 0);
                if (at[half] >= 0) v = *reinterpret_cast<const float4*>(dx + at[half] * E + 16 * i + 4 * t);
                dy[i][half] = pack(v.x, v.y), dy[i][2 + half] = pack(v.z, v.w);
                if (at[half] >= 0) {
                    *reinterpret_cast<uint2*>(dout + at[half] * (E / 2) + 8 * i + 2 * t) = make_uint2(dy[i][half], dy[i][2 + half]);
                }
            }
        }

        float d[2 * STEPS][4] = {};
#pragma unroll 1
        for (int c = 0; c < CHUNKS; ++c) {
            if (CHUNKS > 1) {
                wait_copies<0>();
                __syncthreads();
                if (c + 1 < CHUNKS || tile + gridDim.x < tiles) Chunk::load(weight, (c + 1) % CHUNKS, buffer ^ 1);
            }
            const uint4* w = shared + buffer * Chunk::LEN + lane;
#pragma unroll 1
            for (int block = c * Chunk::BLOCKS; block < (c + 1) * Chunk::BLOCKS; ++block, w += BLOCK_LEN) {
                const float4 b = *reinterpret_cast<const float4*>(bias + 16 * block + 4 * t);
                float hidden[2][4] = {{b.x, b.y, b.x, b.y}, {b.z, b.w, b.z, b.w}}, dactive[2][4] = {};
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    const uint4 f = w[32 * i], p = w[32 * (STEPS + i)];
                    mma16(hidden[0], x.a[i], f.x, f.y);
                    mma16(hidden[1], x.a[i], f.z, f.w);
                    mma16(dactive[0], dy[i], p.x, p.y);
                    mma16(dactive[1], dy[i], p.z, p.w);
                }
                u32 a[4], dh[4];
#pragma unroll
                for (int p = 0; p < 2; ++p) {
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        float value[2], slope[2];
#pragma unroll
                        for (int b = 0; b < 2; ++b) gelu_and_slope(hidden[p][2 * half + b], value[b], slope[b]);
                        a[2 * p + half] = pack(value[0], value[1]);
                        dh[2 * p + half] = pack(dactive[p][2 * half] * slope[0], dactive[p][2 * half + 1] * slope[1]);
                    }
                }
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    if (at[half] < 0) continue;
                    const long long to = at[half] * (2 * E) + 8 * block + 2 * t;
                    *reinterpret_cast<uint2*>(active + to) = make_uint2(a[half], a[2 + half]);
                    *reinterpret_cast<uint2*>(dhidden + to) = make_uint2(dh[half], dh[2 + half]);
                }
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    const uint4 f = w[32 * (2 * STEPS + i)];
                    mma16(d[2 * i], dh, f.x, f.y);
                    mma16(d[2 * i + 1], dh, f.z, f.w);
                }
            }
            if (CHUNKS > 1) buffer ^= 1;
        }
        normalize_backward(x, d);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (at[half] >= 0) add_row(dx + at[half] * E, half, d);
        }
    }
}
