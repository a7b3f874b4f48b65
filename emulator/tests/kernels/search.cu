// Breadth-first search, level by level, by one block: cuda::atomic_ref, and compare-and-swap that mostly fails.
#include <cuda/atomic>

__device__ int tail;

extern "C" __global__ void levels(const int *start, const int *edges, int *level, int *queue) {
    __shared__ int many;
    cuda::atomic_ref<int, cuda::thread_scope_device> end(tail);
    if (threadIdx.x == 0) {
        queue[0] = 0;
        level[0] = 0;
        end.store(1, cuda::memory_order_release);
    }
    for (int done = 0;;) {
        __syncthreads();
        if (threadIdx.x == 0) {
            many = end.load(cuda::memory_order_acquire) - done;
        }
        __syncthreads();
        int count = many;
        if (count == 0) {
            break;
        }
        for (int i = threadIdx.x; i < count; i += blockDim.x) {
            int node = queue[done + i];
            for (int e = start[node]; e < start[node + 1]; e++) {
                // The level is read plainly while others try to change it; they fail, for it is set.
                if (atomicCAS(&level[edges[e]], -1, level[node] + 1) == -1) {
                    queue[end.fetch_add(1, cuda::memory_order_relaxed)] = edges[e];
                }
            }
        }
        done += count;
    }
}
