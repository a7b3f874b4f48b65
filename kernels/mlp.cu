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
    const float* const bias = Chunk::begin(weight, fc_bias);
    const int t = lane_id() & 3;
    const u32 total = n * (T - from), tiles = (total + 255) / 256;

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
                at[m][half] = place_of(tile, m, half, from, total);
                row[half] = at[m][half] < 0 ? nullptr : x + at[m][half] * E;
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
            Chunk::next(weight, c, buffer, tile + gridDim.x < tiles);
            const uint4* w = shared + buffer * Chunk::LEN + lane_id();
#pragma unroll 1
            for (int block = c * Chunk::BLOCKS; block < (c + 1) * Chunk::BLOCKS; ++block, w += BLOCK_LEN) {
                const float4 b = *reinterpret_cast<const float4*>(bias + 16 * block + 4 * t);
                float hidden[2][2][4];
#pragma unroll
                for (int m = 0; m < 2; ++m) start_hidden(hidden[m], b);
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
