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

// Each warp counts for itself, in halves of words: lanes that count different values change the same word.
extern "C" __global__ void histogram_of_warps(int n, const unsigned char *x, unsigned int *counts) {
    __shared__ unsigned short of_warp[4][256];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    unsigned int *words = reinterpret_cast<unsigned int *>(of_warp[warp]);
    for (int i = lane; i < 128; i += 32) {
        words[i] = 0;
    }
    __syncwarp();
    for (int base = (blockIdx.x * 4 + warp) * 32; base < n; base += gridDim.x * 128) {
        unsigned int active = __ballot_sync(0xffffffff, base + lane < n);
        if (base + lane < n) {
            int value = x[base + lane];
            unsigned int peers = __match_any_sync(active, value);
            if (lane == __ffs(peers) - 1) {
                of_warp[warp][value] += __popc(peers);
            }
        }
        __syncwarp();
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < 256; bin += 128) {
        unsigned int sum = of_warp[0][bin] + of_warp[1][bin] + of_warp[2][bin] + of_warp[3][bin];
        if (sum > 0) {
            atomicAdd(&counts[bin], sum);
        }
    }
}
