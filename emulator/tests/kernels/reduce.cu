// Sums and maxima of a vector, in the three usual ways.

__device__ float warp_sum(float v) {
    for (int offset = 16; offset > 0; offset /= 2) {
        v += __shfl_down_sync(0xffffffff, v, offset);
    }
    return v;
}

// One partial sum per block, by a tree in shared memory.
extern "C" __global__ void block_sums(int n, const float *x, float *partial) {
    __shared__ float tree[256];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    tree[threadIdx.x] = i < n ? x[i] : 0.0f;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            tree[threadIdx.x] += tree[threadIdx.x + half];
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = tree[0];
    }
}

// One partial sum per block, by shuffles and one exchange through shared memory.
extern "C" __global__ void shuffle_sums(int n, const float *x, float *partial) {
    __shared__ float of_warp[32];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float v = warp_sum(i < n ? x[i] : 0.0f);
    if (lane == 0) {
        of_warp[warp] = v;
    }
    __syncthreads();
    if (warp == 0) {
        v = warp_sum(lane < blockDim.x / 32 ? of_warp[lane] : 0.0f);
        if (lane == 0) {
            partial[blockIdx.x] = v;
        }
    }
}

__device__ unsigned int blocks_done = 0;

// The whole sum in one launch: the block that finishes last adds the partial sums of all, in index order.
extern "C" __global__ void sum_last_block(int n, const float *x, float *partial, float *sum) {
    __shared__ float of_warp[32];
    __shared__ bool last;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float v = warp_sum(i < n ? x[i] : 0.0f);
    if (lane == 0) {
        of_warp[warp] = v;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0.0f;
        for (int w = 0; w < blockDim.x / 32; w++) {
            total += of_warp[w];
        }
        partial[blockIdx.x] = total;
        __threadfence();
        last = atomicInc(&blocks_done, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        __threadfence();
        float total = 0.0f;
        for (int b = 0; b < gridDim.x; b++) {
            total += ((volatile float *)partial)[b];
        }
        *sum = total;
    }
}

// The largest element and its first index, by one 64-bit atomic on ordered bits.
extern "C" __global__ void arg_max(int n, const float *x, unsigned long long *best) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        unsigned int bits = __float_as_uint(x[i]);
        unsigned int ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
        atomicMax(best, (unsigned long long)ordered << 32 | (0xffffffffu - i));
    }
}
