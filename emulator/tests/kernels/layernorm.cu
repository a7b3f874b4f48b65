// LayerNorm, one warp per row; backward with the parameters' gradients in two launches of fixed order.

__device__ float warp_sum(float v) {
    for (int mask = 16; mask > 0; mask /= 2) {
        v += __shfl_xor_sync(0xffffffff, v, mask);
    }
    return v;
}

extern "C" __global__ void layernorm_forward(int rows, int columns, float epsilon, const float *x, const float *gain,
                                             const float *bias, float *y, float *mean_out, float *rstd_out) {
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) {
        return;
    }
    const float *from = x + row * columns;
    float sum = 0.0f;
    for (int i = lane; i < columns; i += 32) {
        sum += from[i];
    }
    float mean = warp_sum(sum) / columns;
    float squares = 0.0f;
    for (int i = lane; i < columns; i += 32) {
        float d = from[i] - mean;
        squares += d * d;
    }
    float rstd = rsqrtf(warp_sum(squares) / columns + epsilon);
    for (int i = lane; i < columns; i += 32) {
        y[row * columns + i] = (from[i] - mean) * rstd * __ldg(&gain[i]) + __ldg(&bias[i]);
    }
    if (lane == 0) {
        mean_out[row] = mean;
        rstd_out[row] = rstd;
    }
}

// Gradient of the input, and one row of partial sums per block for gain and bias. Blocks of 128.
extern "C" __global__ void layernorm_backward(int rows, int columns, const float *x, const float *gain, const float *mean,
                                              const float *rstd, const float *dy, float *dx, float *partial) {
    extern __shared__ float of_block[];
    float *of_gain = of_block, *of_bias = of_block + columns;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        of_gain[i] = 0.0f;
        of_bias[i] = 0.0f;
    }
    __syncthreads();
    int row = blockIdx.x * 4 + warp;
    if (row < rows) {
        float a = 0.0f, b = 0.0f;
        for (int i = lane; i < columns; i += 32) {
            float normal = (x[row * columns + i] - mean[row]) * rstd[row];
            float g = dy[row * columns + i] * gain[i];
            a += g;
            b += g * normal;
        }
        a = warp_sum(a) / columns;
        b = warp_sum(b) / columns;
        for (int i = lane; i < columns; i += 32) {
            float normal = (x[row * columns + i] - mean[row]) * rstd[row];
            dx[row * columns + i] = (dy[row * columns + i] * gain[i] - a - normal * b) * rstd[row];
        }
    }
    // The warps take turns, so that the order of the sum is fixed.
    for (int turn = 0; turn < 4; turn++) {
        if (turn == warp && row < rows) {
            for (int i = lane; i < columns; i += 32) {
                float normal = (x[row * columns + i] - mean[row]) * rstd[row];
                of_gain[i] += dy[row * columns + i] * normal;
                of_bias[i] += dy[row * columns + i];
            }
        }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        partial[(blockIdx.x * 2 + 0) * columns + i] = of_gain[i];
        partial[(blockIdx.x * 2 + 1) * columns + i] = of_bias[i];
    }
}

extern "C" __global__ void layernorm_gather(int blocks, int columns, const float *partial, float *dgain, float *dbias) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < columns) {
        float a = 0.0f, b = 0.0f;
        for (int block = 0; block < blocks; block++) {
            a += partial[(block * 2 + 0) * columns + i];
            b += partial[(block * 2 + 1) * columns + i];
        }
        dgain[i] = a;
        dbias[i] = b;
    }
}
