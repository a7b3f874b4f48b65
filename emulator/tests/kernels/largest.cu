// The k largest of each row, as shares, and where they are: by cub.
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>

extern "C" __global__ void largest(int n, int k, const float *x, float *share, int *where) {
    using Sort = cub::BlockRadixSort<float, 128, 4, int>;
    using Reduce = cub::BlockReduce<float, 128>;
    __shared__ union {
        Sort::TempStorage sort;
        Reduce::TempStorage reduce;
    } room;
    __shared__ float total;
    float key[4];
    int index[4];
    for (int i = 0; i < 4; i++) {
        index[i] = threadIdx.x * 4 + i;
        key[i] = index[i] < n ? x[blockIdx.x * n + index[i]] : -INFINITY;
    }
    Sort(room.sort).SortDescending(key, index);
    __syncthreads();
    float part = 0;
    for (int i = 0; i < 4; i++) {
        part += threadIdx.x * 4 + i < k ? expf(key[i]) : 0;
    }
    float sum = Reduce(room.reduce).Sum(part);
    if (threadIdx.x == 0) {
        total = sum;
    }
    __syncthreads();
    for (int i = 0; i < 4; i++) {
        int rank = threadIdx.x * 4 + i;
        if (rank < k) {
            share[blockIdx.x * k + rank] = expf(key[i]) / total;
            where[blockIdx.x * k + rank] = index[i];
        }
    }
}
