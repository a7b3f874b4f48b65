// Softmax of rows: one warp per row, and one block per row with a running maximum.
#include <math_constants.h>

__device__ float warp_max(float v) {
    for (int mask = 16; mask > 0; mask /= 2) {
        v = fmaxf(v, __shfl_xor_sync(0xffffffff, v, mask));
    }
    return v;
}

__device__ float warp_sum(float v) {
    for (int mask = 16; mask > 0; mask /= 2) {
        v += __shfl_xor_sync(0xffffffff, v, mask);
    }
    return v;
}

extern "C" __global__ void softmax_warp(int rows, int columns, const float *x, float *y) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) {
        return;
    }
    const float *from = x + row * columns;
    float largest = -CUDART_INF_F;
    for (int i = lane; i < columns; i += 32) {
        largest = fmaxf(largest, from[i]);
    }
    largest = warp_max(largest);
    float sum = 0.0f;
    for (int i = lane; i < columns; i += 32) {
        sum += expf(from[i] - largest);
    }
    sum = warp_sum(sum);
    for (int i = lane; i < columns; i += 32) {
        y[row * columns + i] = expf(from[i] - largest) / sum;
    }
}

// One pass for maximum and sum together; the sum is scaled when a larger maximum turns up.
extern "C" __global__ void softmax_block(int columns, const float *x, float *y) {
    __shared__ float of_warp_max[32], of_warp_sum[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const float *from = x + blockIdx.x * columns;
    float largest = -CUDART_INF_F, sum = 0.0f;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        float v = from[i];
        if (v > largest) {
            sum *= __expf(largest - v);
            largest = v;
        }
        sum += __expf(v - largest);
    }
    float of_all = warp_max(largest);
    sum = warp_sum(largest == -CUDART_INF_F ? 0.0f : sum * __expf(largest - of_all));
    if (lane == 0) {
        of_warp_max[warp] = of_all;
        of_warp_sum[warp] = sum;
    }
    __syncthreads();
    largest = warp_max(lane < warps ? of_warp_max[lane] : -CUDART_INF_F);
    sum = warp_sum(lane < warps ? of_warp_sum[lane] * __expf(of_warp_max[lane] - largest) : 0.0f);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        y[blockIdx.x * columns + i] = __fdividef(__expf(from[i] - largest), sum);
    }
}
