// C = A B^T with bf16 operands and fp32 sums on tensor cores: ldmatrix, mma.sync and a pipeline of cp.async stages.
// A is m x k, B is n x k, both row-major; k is a multiple of 32; m and n are any.
#include <cuda_bf16.h>

#define TILE_M 64
#define TILE_N 64
#define TILE_K 32
#define STAGES 3

// A row of a tile is 64 bytes, four chunks of 16; the chunk's place is turned by the row, so that ldmatrix meets no
// bank twice.
__device__ unsigned int place(int row, int chunk) {
    return row * 64 + ((chunk ^ (row / 2 % 4)) * 16);
}

__device__ void copy_16(unsigned int shared, const void *global, bool valid) {
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes) : "memory");
}

__device__ void load_stage(unsigned int of_a, unsigned int of_b, int m, int n, int k, int k0, const __nv_bfloat16 *a,
                           const __nv_bfloat16 *b) {
    for (int i = threadIdx.x; i < TILE_M * 4; i += blockDim.x) {
        int row = blockIdx.y * TILE_M + i / 4, chunk = i % 4;
        bool valid = row < m;
        copy_16(of_a + place(i / 4, chunk), a + (valid ? row * k + k0 + chunk * 8 : 0), valid);
    }
    for (int i = threadIdx.x; i < TILE_N * 4; i += blockDim.x) {
        int row = blockIdx.x * TILE_N + i / 4, chunk = i % 4;
        bool valid = row < n;
        copy_16(of_b + place(i / 4, chunk), b + (valid ? row * k + k0 + chunk * 8 : 0), valid);
    }
}

// Four warps; each computes 32 x 32 of the block's 64 x 64.
extern "C" __global__ void __launch_bounds__(128) hgemm(int m, int n, int k, const __nv_bfloat16 *a,
                                                        const __nv_bfloat16 *b, float *c) {
    __shared__ __align__(128) unsigned char stage_a[STAGES][TILE_M * TILE_K * 2];
    __shared__ __align__(128) unsigned char stage_b[STAGES][TILE_N * TILE_K * 2];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int warp_row = (warp / 2) * 32, warp_column = (warp % 2) * 32;
    float sum[2][4][4] = {};

    int steps = k / TILE_K;
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) {
            load_stage(__cvta_generic_to_shared(stage_a[s]), __cvta_generic_to_shared(stage_b[s]), m, n, k, s * TILE_K, a, b);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    for (int step = 0; step < steps; step++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        __syncthreads();
        int ahead = step + STAGES - 1;
        if (ahead < steps) {
            int s = ahead % STAGES;
            load_stage(__cvta_generic_to_shared(stage_a[s]), __cvta_generic_to_shared(stage_b[s]), m, n, k, ahead * TILE_K, a, b);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");

        unsigned int of_a = __cvta_generic_to_shared(stage_a[step % STAGES]);
        unsigned int of_b = __cvta_generic_to_shared(stage_b[step % STAGES]);
#pragma unroll
        for (int kk = 0; kk < TILE_K / 16; kk++) {
            unsigned int x[2][4], y[4][2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                unsigned int at = of_a + place(warp_row + i * 16 + lane % 16, kk * 2 + lane / 16);
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(x[i][0]), "=r"(x[i][1]), "=r"(x[i][2]), "=r"(x[i][3])
                             : "r"(at));
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                unsigned int at = of_b + place(warp_column + j * 8 + lane % 8, kk * 2 + lane / 8 % 2);
                asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                             : "=r"(y[j][0]), "=r"(y[j][1])
                             : "r"(at));
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                                 : "+f"(sum[i][j][0]), "+f"(sum[i][j][1]), "+f"(sum[i][j][2]), "+f"(sum[i][j][3])
                                 : "r"(x[i][0]), "r"(x[i][1]), "r"(x[i][2]), "r"(x[i][3]), "r"(y[j][0]), "r"(y[j][1]));
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
#pragma unroll
            for (int v = 0; v < 4; v++) {
                int row = blockIdx.y * TILE_M + warp_row + i * 16 + lane / 4 + v / 2 * 8;
                int column = blockIdx.x * TILE_N + warp_column + j * 8 + lane % 4 * 2 + v % 2;
                if (row < m && column < n) {
                    c[row * n + column] = sum[i][j][v];
                }
            }
        }
    }
}
