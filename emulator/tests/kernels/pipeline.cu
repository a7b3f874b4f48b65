// Copies that run ahead: cp.async through the C interface of cuda_pipeline.h, and warps that hand each other work
// through named barriers.
#include <cuda_pipeline.h>

#define CHUNK 128

// Sums of squares per block of `chunks` chunks, with the next chunk on its way while this one is worked on.
extern "C" __global__ void squares(int chunks, const float *x, float *y) {
    __shared__ __align__(16) float buffer[2][CHUNK * 4];
    const float *from = x + blockIdx.x * chunks * CHUNK * 4;
    int t = threadIdx.x;
    __pipeline_memcpy_async(&buffer[0][t * 4], &from[t * 4], 16);
    __pipeline_commit();
    float sum = 0.0f;
    for (int c = 0; c < chunks; c++) {
        if (c + 1 < chunks) {
            __pipeline_memcpy_async(&buffer[(c + 1) % 2][t * 4], &from[(c + 1) * CHUNK * 4 + t * 4], 16);
        }
        __pipeline_commit();
        __pipeline_wait_prior(1);
        __syncthreads();
        // Neighbours' data, so that the barrier is needed.
        float *now = buffer[c % 2];
        for (int j = 0; j < 4; j++) {
            float v = now[(t + j * CHUNK + 1) % (CHUNK * 4)];
            sum += v * v;
        }
        __syncthreads();
    }
    y[blockIdx.x * CHUNK + t] = sum;
}

// Warp 0 produces, warp 1 consumes, through two slots and four named barriers (full and empty for each).
extern "C" __global__ void hand_over(int items, const int *x, int *y) {
    __shared__ int slot[2][32];
    int lane = threadIdx.x % 32;
    if (threadIdx.x < 32) {
        for (int i = 0; i < items; i++) {
            int s = i % 2;
            if (i >= 2) {
                asm volatile("bar.sync %0, 64;" ::"r"(3 + s) : "memory");
            }
            slot[s][lane] = 3 * x[i * 32 + lane];
            asm volatile("bar.arrive %0, 64;" ::"r"(1 + s) : "memory");
        }
    } else {
        for (int i = 0; i < items; i++) {
            int s = i % 2;
            asm volatile("bar.sync %0, 64;" ::"r"(1 + s) : "memory");
            y[i * 32 + lane] = slot[s][31 - lane] + 1;
            if (i + 2 < items) {
                asm volatile("bar.arrive %0, 64;" ::"r"(3 + s) : "memory");
            }
        }
    }
}
