// Half and bfloat16 arithmetic, scalar and packed.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" __global__ void half2_axpy(int n, float a, const half2 *x, half2 *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        y[i] = __hfma2(__float2half2_rn(a), x[i], y[i]);
    }
}

// Each step of a handful of operations, so that every rounding counts.
extern "C" __global__ void half_steps(int n, const half *a, const half *b, half *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        half s = __hadd(a[i], b[i]);
        half p = __hmul(s, __float2half(0.3f));
        half d = __hsub(p, a[i]);
        half m = __hmax(__hneg(d), __habs(b[i]));
        y[i] = __hlt(m, s) ? __hfma(m, d, s) : __hmin(m, s);
    }
}

extern "C" __global__ void bfloat_steps(int n, const __nv_bfloat162 *a, const __nv_bfloat162 *b, __nv_bfloat162 *y, float *sum) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        __nv_bfloat162 s = __hadd2(a[i], b[i]);
        __nv_bfloat162 p = __hmul2(s, a[i]);
        __nv_bfloat162 f = __hfma2_relu(p, b[i], s);
        __nv_bfloat162 m = __hmax2(f, __hneg2(s));
        y[i] = m;
        float2 w = __bfloat1622float2(m);
        sum[i] = w.x + w.y;
    }
}

// Rounding of fp32 to both formats, in every way there is an intrinsic for.
extern "C" __global__ void narrow(int n, const float *x, unsigned short *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        y[i * 6 + 0] = __half_as_ushort(__float2half_rn(x[i]));
        y[i * 6 + 1] = __half_as_ushort(__float2half_rz(x[i]));
        y[i * 6 + 2] = __half_as_ushort(__float2half_rd(x[i]));
        y[i * 6 + 3] = __half_as_ushort(__float2half_ru(x[i]));
        y[i * 6 + 4] = __bfloat16_as_ushort(__float2bfloat16_rn(x[i]));
        y[i * 6 + 5] = __bfloat16_as_ushort(__float2bfloat16_rz(x[i]));
    }
}
