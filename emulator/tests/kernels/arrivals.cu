// cuda::barrier: halves of a block that hand over to each other, copies that arrive, threads that leave.
#include <cooperative_groups.h>
#include <cuda/barrier>

using barrier = cuda::barrier<cuda::thread_scope_block>;

// One warp fills, the other empties; two buffers, and for each a barrier that it is ready and one that it is filled.
extern "C" __global__ void hand_over(const int *in, int *out, int n) {
    __shared__ barrier ready[2], filled[2];
    __shared__ int buffer[2][32];
    if (threadIdx.x < 2) {
        init(&ready[threadIdx.x], 64);
        init(&filled[threadIdx.x], 64);
    }
    __syncthreads();
    int lane = threadIdx.x % 32;
    if (threadIdx.x < 32) {
        for (int i = 0; i < n; i++) {
            ready[i % 2].arrive_and_wait();
            buffer[i % 2][lane] = in[32 * i + lane];
            barrier::arrival_token token = filled[i % 2].arrive();
        }
    } else {
        barrier::arrival_token first = ready[0].arrive(), second = ready[1].arrive();
        for (int i = 0; i < n; i++) {
            filled[i % 2].arrive_and_wait();
            out[32 * i + lane] = 2 * buffer[i % 2][31 - lane];
            barrier::arrival_token token = ready[i % 2].arrive();
        }
    }
}

// A block copies a tile and waits for it.
extern "C" __global__ void tiles(const int *in, int *out, int n) {
    __shared__ barrier arrived;
    __shared__ alignas(16) int tile[256];
    auto block = cooperative_groups::this_thread_block();
    if (threadIdx.x == 0) {
        init(&arrived, blockDim.x);
    }
    block.sync();
    for (int base = 0; base < n; base += 256) {
        cuda::memcpy_async(block, tile, in + base, cuda::aligned_size_t<16>(sizeof(tile)), arrived);
        arrived.arrive_and_wait();
        for (int i = threadIdx.x; i < 256; i += blockDim.x) {
            out[base + i] = tile[255 - i] + 1;
        }
        block.sync();
    }
}

// Warp by warp leaves for good; those that stay go on without it.
extern "C" __global__ void leave(int *count) {
    __shared__ barrier step;
    __shared__ int steps;
    if (threadIdx.x == 0) {
        init(&step, blockDim.x);
        steps = 0;
    }
    __syncthreads();
    for (int i = 0; i <= (int)threadIdx.x / 32; i++) {
        atomicAdd(&steps, 1);
        step.arrive_and_wait();
    }
    step.arrive_and_drop();
    if (threadIdx.x == blockDim.x - 1) {
        *count = steps;
    }
}

// One warp counts, all others follow it by the parity of its phases.
extern "C" __global__ void follow(int *out, int steps) {
    __shared__ barrier done;
    __shared__ int step;
    if (threadIdx.x == 0) {
        init(&done, 32);
    }
    __syncthreads();
    for (int i = 0; i < steps; i++) {
        if (threadIdx.x < 32) {
            if (threadIdx.x == 0) {
                step = i + 1;
            }
            __syncwarp();
            (void)done.arrive();
        }
        done.wait_parity(i & 1);
        out[i * blockDim.x + threadIdx.x] = step;
        __syncthreads();
    }
}

// Four threads arrive twice each.
extern "C" __global__ void twice(int *out) {
    __shared__ barrier done;
    __shared__ int square[4];
    if (threadIdx.x == 0) {
        init(&done, 8);
    }
    __syncthreads();
    if (threadIdx.x < 4) {
        square[threadIdx.x] = threadIdx.x * threadIdx.x;
        (void)done.arrive(2);
    }
    done.wait_parity(0);
    out[threadIdx.x] = square[threadIdx.x % 4];
}

// One thread copies for itself: what it has used it copies over.
extern "C" __global__ void alone(const float *x, float *sum, int n) {
    __shared__ alignas(128) float part[64];
    __shared__ barrier landed;
    if (threadIdx.x == 0) {
        init(&landed, 1);
        float total = 0;
        for (int i = 0; i < n; i++) {
            cuda::memcpy_async(part, x + 64 * i, cuda::aligned_size_t<16>(256), landed);
            landed.arrive_and_wait();
            for (int j = 0; j < 64; j++) {
                total += part[j];
            }
        }
        *sum = total;
    }
}

// One warp fills two stages, three warps add up all of each.
__device__ void fill_and_add(const float *x, float *y, int n, float (*stage)[64]) {
    __shared__ barrier filled[2], empty[2];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x < 2) {
        init(&filled[threadIdx.x], 1);
        init(&empty[threadIdx.x], 3);
    }
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < n; i++) {
        float *now = stage[i % 2];
        if (warp == 0) {
            if (i >= 2) {
                empty[i % 2].wait_parity(i / 2 + 1 & 1);
            }
            now[lane] = x[64 * i + lane];
            now[lane + 32] = x[64 * i + lane + 32];
            __syncwarp();
            if (lane == 0) {
                (void)filled[i % 2].arrive();
            }
        } else {
            filled[i % 2].wait_parity(i / 2 & 1);
            for (int k = 0; k < 64; k++) {
                sum += now[(k + lane * warp) % 64];
            }
            __syncwarp();
            if (lane == 0) {
                (void)empty[i % 2].arrive();
            }
        }
    }
    if (warp > 0) {
        y[threadIdx.x - 32] = sum;
    }
}

extern "C" __global__ void consumers(const float *x, float *y, int n) {
    __shared__ float stage[2][64];
    fill_and_add(x, y, n, stage);
}

// The same by stages in global memory.
extern "C" __global__ void consumers_apart(const float *x, float *y, int n, float (*stage)[64]) {
    fill_and_add(x, y, n, stage);
}

// One thread puts numbers into a ring, two of them in each word; a thread of another warp takes them out. Each looks how far
// the other is when it must know, and goes on by what it saw then.
extern "C" __global__ void ring(const short *in, int *sum, int n) {
    __shared__ short slots[8];
    __shared__ volatile int put, taken;
    if (threadIdx.x == 0) {
        put = taken = 0;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 0, gone = 0; i < n; i++) {
            while (i - gone >= 8) {
                gone = taken;
                __nanosleep(20);
            }
            __threadfence_block();
            slots[i % 8] = in[i];
            __threadfence_block();
            put = i + 1;
            __nanosleep(20);
        }
    } else if (threadIdx.x == 32) {
        int total = 0;
        for (int i = 0, ready = 0; i < n; i++) {
            while (ready <= i) {
                ready = put;
                __nanosleep(20);
            }
            __threadfence_block();
            total += (i + 1) * slots[i % 8];
            __threadfence_block();
            taken = i + 1;
            __nanosleep(20);
        }
        *sum = total;
    }
}
