// Softmax of rows: one block per row.
__device__ float over_warp(float v, bool largest) {
    for (int mask = 16; mask > 0; mask /= 2) {
        float other = __shfl_xor_sync(0xffffffff, v, mask);
        v = largest ? fmaxf(v, other) : v + other;
    }
    return v;
}

// Maximum or sum of one value per thread, for all threads of a block.
__device__ float over_block(float v, bool largest) {
    __shared__ float of_warp[32];
    int warps = blockDim.x / 32;
    v = over_warp(v, largest);
    if (threadIdx.x % 32 == 0) {
        of_warp[threadIdx.x / 32] = v;
    }
    __syncthreads();
    v = of_warp[0];
    for (int w = 1; w < warps; w++) {
        v = largest ? fmaxf(v, of_warp[w]) : v + of_warp[w];
    }
    __syncthreads();
    return v;
}

extern "C" __global__ void softmax(int columns, const float *x, float *y) {
    const float *from = x + blockIdx.x * columns;
    float *to = y + blockIdx.x * columns;
    float top = -1e30f;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        top = fmaxf(top, from[i]);
    }
    top = over_block(top, true);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        to[i] = expf(from[i] - top);
        sum += to[i];
    }
    sum = over_block(sum, false);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        to[i] /= sum;
    }
}
