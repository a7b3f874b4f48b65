// How often each of 256 values occurs.

// Counts in shared memory first, then adds them up.
extern "C" __global__ void histogram_shared(int n, const unsigned char *x, unsigned int *counts) {
    __shared__ unsigned int of_block[256];
    for (int bin = threadIdx.x; bin < 256; bin += blockDim.x) {
        of_block[bin] = 0;
    }
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        atomicAdd(&of_block[x[i]], 1);
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < 256; bin += blockDim.x) {
        if (of_block[bin] > 0) {
            atomicAdd(&counts[bin], of_block[bin]);
        }
    }
}

// One global atomic for all the lanes of a warp that hold the same value.
extern "C" __global__ void histogram_matched(int n, const unsigned char *x, unsigned int *counts) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned int active = __ballot_sync(0xffffffff, i < n);
    if (i < n) {
        int value = x[i];
        unsigned int peers = __match_any_sync(active, value);
        if (threadIdx.x % 32 == __ffs(peers) - 1) {
            atomicAdd(&counts[value], __popc(peers));
        }
    }
}
