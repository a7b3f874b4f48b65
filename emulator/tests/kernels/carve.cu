// Dynamic shared memory carved into arrays of several types, aligned by hand.

extern __shared__ unsigned char arena[];

template <typename T> __device__ T *carve(size_t &at, int n) {
    at = (at + alignof(T) - 1) / alignof(T) * alignof(T);
    T *array = reinterpret_cast<T *>(arena + at);
    at += n * sizeof(T);
    return array;
}

// Mean, variance and histogram of each block's part, and whether a value is near the end of the range.
extern "C" __global__ void statistics(int n, const float *x, double *moments, int *near_end, int *histogram, int bins) {
    size_t at = 0;
    char *flag = carve<char>(at, blockDim.x + 3);
    int *count = carve<int>(at, bins);
    double2 *partial = carve<double2>(at, blockDim.x / 32);
    flag[threadIdx.x] = 0;
    for (int i = threadIdx.x; i < bins; i += blockDim.x) {
        count[i] = 0;
    }
    __syncthreads();
    double sum = 0, squares = 0;
    for (int i = blockIdx.x * n + threadIdx.x; i < (blockIdx.x + 1) * n; i += blockDim.x) {
        sum += x[i];
        squares += (double)x[i] * x[i];
        atomicAdd(&count[min(max(int((x[i] + 1) * bins / 2), 0), bins - 1)], 1);
        if (x[i] > 0.9f) {
            flag[threadIdx.x] = 1;
        }
    }
    for (int d = 16; d > 0; d /= 2) {
        sum += __shfl_down_sync(0xffffffff, sum, d);
        squares += __shfl_down_sync(0xffffffff, squares, d);
    }
    if (threadIdx.x % 32 == 0) {
        partial[threadIdx.x / 32] = make_double2(sum, squares);
    }
    int some = __syncthreads_count(flag[threadIdx.x]);
    if (threadIdx.x == 0) {
        double2 total = make_double2(0, 0);
        for (int w = 0; w < blockDim.x / 32; w++) {
            total.x += partial[w].x;
            total.y += partial[w].y;
        }
        double mean = total.x / n;
        moments[2 * blockIdx.x] = mean;
        moments[2 * blockIdx.x + 1] = total.y / n - mean * mean;
        near_end[blockIdx.x] = some > 0;
    }
    for (int i = threadIdx.x; i < bins; i += blockDim.x) {
        atomicAdd(&histogram[i], count[i]);
    }
}
