// Blocks that wait for the blocks before them: in turn, and by looking back.

// Each block adds its part when the one before it has. One thread asks; all go on or ask again together.
extern "C" __global__ void add_in_turn(int *turn, const float *x, float *sum) {
    int seen = 0;
    bool asks = threadIdx.x == 0;
    do {
        if (asks) {
            asm volatile("ld.global.acquire.gpu.b32 %0, [%1];" : "=r"(seen) : "l"(turn) : "memory");
        }
    } while (__syncthreads_or(asks && seen != (int)blockIdx.x));
    float before = blockIdx.x == 0 ? 0.0f : sum[threadIdx.x];
    sum[threadIdx.x] = before + x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    if (asks) {
        asm volatile("st.global.release.gpu.b32 [%0], %1;" ::"l"(turn), "r"((int)blockIdx.x + 1) : "memory");
    }
}

enum { NOTHING, SUM_OF_TILE, SUM_UP_TO_TILE };

// Running sums. The first warp of a block looks at as many tiles before its own as it has lanes, until one of them knows
// the sum of all before it.
extern "C" __global__ void look_back(int n, const int *x, int *y, volatile int *state, volatile int *of_tile, volatile int *up_to_tile) {
    __shared__ int of_warp[8];
    __shared__ int before_tile;
    int tile = blockIdx.x, i = tile * blockDim.x + threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int v = i < n ? x[i] : 0, sum = v;
    for (int offset = 1; offset < 32; offset *= 2) {
        int other = __shfl_up_sync(0xffffffff, sum, offset);
        sum += lane >= offset ? other : 0;
    }
    if (lane == 31) {
        of_warp[warp] = sum;
    }
    __syncthreads();
    int before = 0, total = 0;
    for (int w = 0; w < blockDim.x / 32; w++) {
        before += w < warp ? of_warp[w] : 0;
        total += of_warp[w];
    }
    if (warp == 0) {
        if (lane == 0) {
            (tile == 0 ? up_to_tile : of_tile)[tile] = total;
            __threadfence();
            state[tile] = tile == 0 ? SUM_UP_TO_TILE : SUM_OF_TILE;
        }
        int earlier = 0;
        for (int last = tile - 1; last >= 0; last -= 32) {
            int mine = last - lane, known;
            do {
                known = mine >= 0 ? state[mine] : SUM_UP_TO_TILE;
            } while (__any_sync(0xffffffff, known == NOTHING));
            __threadfence();
            int part = mine < 0 ? 0 : known == SUM_UP_TO_TILE ? up_to_tile[mine] : of_tile[mine];
            unsigned int all = __ballot_sync(0xffffffff, known == SUM_UP_TO_TILE);
            part = lane < (all ? __ffs(all) : 32) ? part : 0;
            for (int mask = 16; mask > 0; mask /= 2) {
                part += __shfl_xor_sync(0xffffffff, part, mask);
            }
            earlier += part;
            if (all) {
                break;
            }
        }
        if (lane == 0) {
            before_tile = earlier;
            if (tile > 0) {
                up_to_tile[tile] = earlier + total;
                __threadfence();
                state[tile] = SUM_UP_TO_TILE;
            }
        }
    }
    __syncthreads();
    if (i < n) {
        y[i] = before_tile + before + sum;
    }
}
