// The MLP half-block, forward: x += proj(gelu(fc(norm(x)))), rows from `from` on.
//
// Shapes: x [N, T, E] f32 in place, E a multiple of 32 up to 128, 4E hidden units. A warp owns 32 timesteps from end to end,
// a block of threads 8 warps; blocks walk over the timesteps with the stride of the grid. 256 threads, shared memory
// SHARED_BYTES. Nothing that belongs to a timestep ever leaves its warp's registers: rows are loaded as A fragments, the
// hidden layer goes from C to A in place, sixteen hidden units at a time, and the result is added to the row.
//
// Working copies (see `working.cu`): weight, for each sixteen hidden units the E/16 blocks of fc (norm's weight folded in,
// both orders interleaved), then the E/16 blocks of proj (likewise); fc_bias [4E] with the norm's bias folded in; proj_bias
// [E]. They stay in shared memory where it is large enough (SHARED_LIMIT); otherwise they stream through two halves of it.
//
// Kept for the backward pass, if `normal` is not null: the normalised rows [N, T, E] bf16, scale [N, T].
//
// Bytes per timestep: 4E read, 4E written; kept: 2E + 4. Tensor operations: 16E² multiplications, no padding but for the last
// rows. Special functions: 4E tanh. Sums: the norm's over 4 lanes by halves, all else in the tensor core, k ascending.
#include "mlp.cuh"

constexpr int BLOCK_LEN = 2 * STEPS * 32;
typedef Chunks<BLOCK_LEN> Chunk;
constexpr int CHUNKS = Chunk::COUNT;
// What a launch must ask for, read by the host.
extern "C" __constant__ const u32 mlp_shared_bytes = Chunk::SHARED_BYTES;

KERNEL __launch_bounds__(256, 1) mlp_forward(float* x, const uint4* weight, const float* fc_bias, const float* proj_bias,
                                             u32* normal, float* scale, u32 n, u32 from) {
    float* const bias = reinterpret_cast<float*>(shared + Chunk::WEIGHTS_LEN);
    const int lane = lane_id(), g = lane >> 2, t = lane & 3;
    const u32 rows = T - from, total = n * rows;
    const u32 tiles = (total + 255) / 256;

    Chunk::load(weight, 0, 0);
    for (int i = threadIdx.x; i < 4 * E; i += 256) bias[i] = fc_bias[i];
    if (CHUNKS == 1) {
        wait_copies<0>();
        __syncthreads();
    }

    int buffer = 0;
#pragma unroll 1
    for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        // The lane's four rows: where they are, or −1.
        long long at[2][2];
        Normal rows_of[2];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            const float* row[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const u32 r = 256 * tile + 32 * warp_id() + 16 * m + 8 * half + g;
                at[m][half] = r < total ? (long long)(r / rows) * T + from + r % rows : -1;
                row[half] = r < total ? x + at[m][half] * E : nullptr;
            }
            normalize(row, rows_of[m]);
            if (normal) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    if (at[m][half] < 0) continue;
                    store_normal(rows_of[m], half, normal + at[m][half] * (E / 2));
                    if (t == 0) scale[at[m][half]] = rows_of[m].scale[half];
                }
            }
        }

        float out[2][2 * STEPS][4] = {};
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
                float hidden[2][2][4];
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    hidden[m][0][0] = hidden[m][0][2] = b.x, hidden[m][0][1] = hidden[m][0][3] = b.y;
                    hidden[m][1][0] = hidden[m][1][2] = b.z, hidden[m][1][1] = hidden[m][1][3] = b.w;
                }
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    const uint4 f = w[32 * i];
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        mma16(hidden[m][0], rows_of[m].a[i], f.x, f.y);
                        mma16(hidden[m][1], rows_of[m].a[i], f.z, f.w);
                    }
                }
                u32 active[2][4];
#pragma unroll
                for (int m = 0; m < 2; ++m) {
#pragma unroll
                    for (int p = 0; p < 2; ++p) {
                        active[m][2 * p] = pack(gelu(hidden[m][p][0]), gelu(hidden[m][p][1]));
                        active[m][2 * p + 1] = pack(gelu(hidden[m][p][2]), gelu(hidden[m][p][3]));
                    }
                }
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    const uint4 f = w[32 * (STEPS + i)];
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        mma16(out[m][2 * i], active[m], f.x, f.y);
                        mma16(out[m][2 * i + 1], active[m], f.z, f.w);
                    }
                }
            }
            if (CHUNKS > 1) buffer ^= 1;
        }

#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
            const float4 b = *reinterpret_cast<const float4*>(proj_bias + 16 * i + 4 * t);
#pragma unroll
            for (int m = 0; m < 2; ++m) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    if (at[m][half] < 0) continue;
                    float4* const row = reinterpret_cast<float4*>(x + at[m][half] * E + 16 * i + 4 * t);
                    const float *const p = &out[m][2 * i][2 * half], *const r = &out[m][2 * i + 1][2 * half];
                    const float4 old = *row;
                    *row = make_float4(old.x + (p[0] + b.x), old.y + (p[1] + b.y), old.z + (r[0] + b.z), old.w + (r[1] + b.w));
                }
            }
        }
    }
}
