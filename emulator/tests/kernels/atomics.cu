// Every atomic function of CUDA C++ on integers, and those on floats whose result does not depend on the order.
#include <cuda_fp16.h>

extern "C" __global__ void atomic_integers(const int *x, int *s, unsigned int *u, unsigned long long *w) {
    __shared__ int of_block[4];
    if (threadIdx.x < 4) {
        of_block[threadIdx.x] = threadIdx.x == 1 ? 0x7fffffff : threadIdx.x == 2 ? 0x80000000 : 0;
    }
    __syncthreads();
    int v = x[blockIdx.x * blockDim.x + threadIdx.x];
    atomicAdd(&of_block[0], v);
    atomicMin(&of_block[1], v);
    atomicMax(&of_block[2], v);
    atomicXor(&of_block[3], v);
    atomicAdd(&s[0], v);
    atomicSub(&s[1], v);
    atomicMin(&s[2], v);
    atomicMax(&s[3], v);
    atomicMin(&u[0], (unsigned int)v);
    atomicMax(&u[1], (unsigned int)v);
    atomicAnd(&u[2], (unsigned int)v | 0xff);
    atomicOr(&u[3], (unsigned int)v & 0xff00);
    atomicXor(&u[4], (unsigned int)v);
    atomicInc(&u[5], 6);
    atomicDec(&u[6], 6);
    atomicAdd(&w[0], (unsigned long long)(long long)v);
    atomicMin((long long *)&w[1], (long long)v << 20);
    atomicMax(&w[2], (unsigned long long)(unsigned int)v << 8);
    atomicXor(&w[3], 0x100000001ull * (unsigned int)v);
    __syncthreads();
    if (threadIdx.x < 4) {
        atomicAdd(&s[4 + threadIdx.x], of_block[threadIdx.x]);
    }
}

// Whole numbers, so that the sums are exact in any order; the largest by a loop of compare-and-swap.
extern "C" __global__ void atomic_floats(const int *x, float *f, double *d, half2 *h) {
    int v = x[blockIdx.x * blockDim.x + threadIdx.x];
    atomicAdd(&f[0], (float)(v % 100));
    atomicAdd(&d[0], (double)v);
    atomicAdd(h, __floats2half2_rn((float)(v & 1), (float)(v >> 1 & 1)));
    float mine = v * 0.25f;
    int seen = ((volatile int *)f)[1], before;
    do {
        before = seen;
        if (__int_as_float(before) >= mine) {
            break;
        }
        seen = atomicCAS((int *)&f[1], before, __float_as_int(mine));
    } while (seen != before);
}

// Reductions over a warp without shuffles (sm_80), votes, and a broadcast of the smallest lane.
extern "C" __global__ void warp_wide(const int *x, int *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int v = x[i];
    int *out = y + i * 8;
    out[0] = __reduce_add_sync(0xffffffff, v);
    out[1] = __reduce_min_sync(0xffffffff, v);
    out[2] = __reduce_max_sync(0xffffffff, (unsigned int)v);
    out[3] = __reduce_xor_sync(0xffffffff, (unsigned int)v) + __reduce_or_sync(0xffffffff, v & 15u);
    out[4] = __any_sync(0xffffffff, v == 7) + 2 * __all_sync(0xffffffff, v != 3);
    int same;
    out[5] = __match_all_sync(0xffffffff, v / 1000000, &same) + same;
    out[6] = __shfl_xor_sync(0xffffffff, v, 5, 8) + __shfl_sync(0xffffffff, v, 3, 16);
    if (v % 3 == 0) {
        unsigned int thirds = __activemask();
        out[7] = __reduce_add_sync(thirds, 1);
    } else {
        out[7] = -1;
    }
}
