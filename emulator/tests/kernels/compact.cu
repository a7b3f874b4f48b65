// Keeps the elements above a threshold. Order is not kept: each warp reserves room for its own by one atomic.

extern "C" __global__ void compact(int n, int threshold, const int *x, int *kept, int *count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int lane = threadIdx.x % 32;
    bool keep = i < n && x[i] > threshold;
    if (keep) {
        unsigned int peers = __activemask();
        int leader = __ffs(peers) - 1;
        int start = 0;
        if (lane == leader) {
            start = atomicAdd(count, __popc(peers));
        }
        start = __shfl_sync(peers, start, leader);
        kept[start + __popc(peers & ((1u << lane) - 1))] = x[i];
    }
}

// The same with order kept within the block, by ballots and a scan over the warps.
extern "C" __global__ void compact_block(int n, int threshold, const int *x, int *kept, int *count) {
    __shared__ int before_warp[33];
    int t = threadIdx.x, lane = t % 32, warp = t / 32, warps = blockDim.x / 32;
    bool keep = t < n && x[t] > threshold;
    unsigned int ballot = __ballot_sync(0xffffffff, keep);
    if (lane == 0) {
        before_warp[warp + 1] = __popc(ballot);
    }
    __syncthreads();
    if (t == 0) {
        before_warp[0] = 0;
        for (int w = 0; w < warps; w++) {
            before_warp[w + 1] += before_warp[w];
        }
        *count = before_warp[warps];
    }
    __syncthreads();
    if (keep) {
        kept[before_warp[warp] + __popc(ballot & ((1u << lane) - 1))] = x[t];
    }
}
