// What blocks say to each other: a lock, a flag, and a queue of work.

__device__ int lock = 0;

// A sum under a lock, which must be the same as without one.
extern "C" __global__ void sum_under_lock(const int *x, volatile long long *sum, volatile int *visits) {
    __shared__ long long of_block;
    if (threadIdx.x == 0) {
        of_block = 0;
    }
    __syncthreads();
    atomicAdd((unsigned long long *)&of_block, (unsigned long long)(long long)x[blockIdx.x * blockDim.x + threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) {
        while (atomicCAS(&lock, 0, 1) != 0) {
            __nanosleep(20);
        }
        __threadfence();
        *sum += of_block;
        *visits += 1;
        __threadfence();
        atomicExch(&lock, 0);
    }
}

// Block 0 makes something, the others wait for its flag.
extern "C" __global__ void publish(int n, int *data, int *flag, int *copies) {
    if (blockIdx.x == 0) {
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            data[i] = i * i;
        }
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            atomicExch(flag, 1);
        }
    } else {
        if (threadIdx.x == 0) {
            while (atomicAdd(flag, 0) == 0) {
            }
            __threadfence();
        }
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            copies[(blockIdx.x - 1) * n + i] = data[i];
        }
    }
}

// Breadth-first search, one level per launch, each vertex claimed by an atomic.
extern "C" __global__ void breadth_first(int level, int frontier_size, const int *frontier, const int *first_edge,
                                         const int *edges, int *distance, int *next, int *next_size) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < frontier_size) {
        int vertex = frontier[i];
        for (int e = first_edge[vertex]; e < first_edge[vertex + 1]; e++) {
            int neighbour = edges[e];
            if (atomicCAS(&distance[neighbour], -1, level + 1) == -1) {
                next[atomicAdd(next_size, 1)] = neighbour;
            }
        }
    }
}
