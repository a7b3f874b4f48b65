// Loops around a compare-and-swap, and threads that wait for others, without and with hints to caches.

// The largest value, which many need not exchange for: the plain read at the start may well be old.
__device__ void keep_largest(float *at, float v) {
    int *word = reinterpret_cast<int *>(at);
    int old = *word, seen;
    do {
        seen = old;
        if (__int_as_float(seen) >= v) {
            break;
        }
        old = atomicCAS(word, seen, __float_as_int(v));
    } while (old != seen);
}

extern "C" __global__ void largest_of_block(int n, const float *x, float *y) {
    __shared__ float largest;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x == 0) {
        largest = -1e30f;
    }
    __syncthreads();
    if (i < n) {
        keep_largest(&largest, x[i]);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        y[blockIdx.x] = largest;
    }
}

// Threads counted in shared memory; any of them may have set the count to zero.
extern "C" __global__ void count_by_exchange(int setter, int *y) {
    __shared__ int count;
    if (threadIdx.x == setter) {
        count = 0;
    }
    __syncthreads();
    int old = count, seen;
    do {
        seen = old;
        old = atomicCAS(&count, seen, seen + 1);
    } while (old != seen);
    __syncthreads();
    y[blockIdx.x * blockDim.x + threadIdx.x] = count;
}

// A sum in global memory, which the block itself sets to zero first.
extern "C" __global__ void sum_by_exchange(const float *x, float *y) {
    float *sum = y + blockIdx.x;
    if (threadIdx.x == 0) {
        *sum = 0.0f;
    }
    __syncthreads();
    int *word = reinterpret_cast<int *>(sum);
    int old = *word, seen;
    do {
        seen = old;
        float larger = __int_as_float(seen) + x[blockIdx.x * blockDim.x + threadIdx.x];
        old = atomicCAS(word, seen, __float_as_int(larger));
    } while (old != seen);
}

// One warp counts, the other waits until all have.
extern "C" __global__ void wait_for_count(int *y) {
    __shared__ int count;
    if (threadIdx.x == 0) {
        count = 0;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        atomicAdd(&count, 1);
    } else {
        while (*(volatile int *)&count < 32) {
        }
        y[threadIdx.x - 32] = count;
    }
}

// The first block waits for the second, by a flag that hints to caches keep fresh.
extern "C" __global__ void wait_by_hints(int *flag, int *data, int *y) {
    if (blockIdx.x == 0) {
        while (__ldcv(flag) == 0) {
        }
        __threadfence();
        y[threadIdx.x] = __ldcg(data + threadIdx.x) + 1;
    } else {
        data[threadIdx.x] = 3 * threadIdx.x;
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            __stwt(flag, 1);
        }
    }
}

// The largest of all, compared as a float and exchanged as an integer; it is the last of what is known of them.
extern "C" __global__ void largest_of_all(const float *x, float *known) {
    float *largest = known + 4;
    float old = *largest, seen;
    do {
        seen = old;
        float larger = fmaxf(seen, x[blockIdx.x * blockDim.x + threadIdx.x]);
        old = __int_as_float(atomicCAS(reinterpret_cast<int *>(largest), __float_as_int(seen), __float_as_int(larger)));
    } while (old != seen);
}
