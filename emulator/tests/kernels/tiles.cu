// Cooperative groups of several warps, whose barriers lie in shared memory that is reserved for the system.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>

namespace cg = cooperative_groups;

// Sums of 128 threads each, three times, and what one of the threads has.
extern "C" __global__ void sums_of_tiles(const int *x, int *sums, int *shuffled) {
    __shared__ cg::block_tile_memory<256> memory;
    auto block = cg::this_thread_block(memory);
    auto tile = cg::tiled_partition<128>(block);
    int v = x[blockIdx.x * 256 + threadIdx.x];
    for (int i = 0; i < 3; i++) {
        int sum = cg::reduce(tile, v + i, cg::plus<int>());
        if (tile.thread_rank() == 0) {
            sums[(blockIdx.x * 2 + tile.meta_group_rank()) * 3 + i] = sum;
        }
        v += tile.shfl(v, 5);
        tile.sync();
    }
    shuffled[blockIdx.x * 256 + threadIdx.x] = v;
}
