// Inclusive prefix sums: within a block, and over the whole vector in one pass.

// Hillis and Steele, with two buffers that change places at each step.
extern "C" __global__ void scan_block(int n, const int *x, int *y) {
    extern __shared__ int buffer[];
    int t = threadIdx.x, width = blockDim.x;
    int from = 0, to = 1;
    buffer[t] = t < n ? x[t] : 0;
    __syncthreads();
    for (int offset = 1; offset < width; offset *= 2) {
        int v = buffer[from * width + t];
        if (t >= offset) {
            v += buffer[from * width + t - offset];
        }
        buffer[to * width + t] = v;
        __syncthreads();
        int other = from;
        from = to;
        to = other;
    }
    if (t < n) {
        y[t] = buffer[from * width + t];
    }
}

__device__ int scan_warp(int v) {
    int lane = threadIdx.x % 32;
    for (int offset = 1; offset < 32; offset *= 2) {
        int below = __shfl_up_sync(0xffffffff, v, offset);
        if (lane >= offset) {
            v += below;
        }
    }
    return v;
}

// A tile's state, published as one 64-bit word: what is known about it, and the sum.
#define NOTHING 0ull
#define SUM_OF_TILE 1ull
#define SUM_UP_TO_TILE 2ull

// Decoupled look-back: a block publishes the sum of its tile, then walks back over its predecessors.
extern "C" __global__ void scan_look_back(int n, const int *x, int *y, unsigned long long *state, unsigned int *next_tile) {
    __shared__ int of_warp[32];
    __shared__ unsigned int tile;
    __shared__ int before;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (threadIdx.x == 0) {
        tile = atomicAdd(next_tile, 1);
    }
    __syncthreads();
    int i = tile * blockDim.x + threadIdx.x;
    int v = scan_warp(i < n ? x[i] : 0);
    if (lane == 31) {
        of_warp[warp] = v;
    }
    __syncthreads();
    if (warp == 0) {
        int sum = lane < blockDim.x / 32 ? of_warp[lane] : 0;
        sum = scan_warp(sum);
        of_warp[lane] = sum;
    }
    __syncthreads();
    if (warp > 0) {
        v += of_warp[warp - 1];
    }
    if (threadIdx.x == 0) {
        int total = of_warp[31];
        int earlier = 0;
        if (tile > 0) {
            atomicExch(&state[tile], SUM_OF_TILE << 32 | (unsigned int)total);
            for (int p = tile - 1; p >= 0; p--) {
                unsigned long long word;
                do {
                    word = atomicAdd(&state[p], 0ull);
                } while (word >> 32 == NOTHING);
                earlier += (int)word;
                if (word >> 32 == SUM_UP_TO_TILE) {
                    break;
                }
            }
        }
        atomicExch(&state[tile], SUM_UP_TO_TILE << 32 | (unsigned int)(earlier + total));
        before = earlier;
    }
    __syncthreads();
    if (i < n) {
        y[i] = v + before;
    }
}
