// Element-wise kernels: the grid-stride loop, 16-byte vectors with a scalar tail, bytes.

extern "C" __global__ void saxpy(int n, float a, const float *x, float *y) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        y[i] = a * x[i] + y[i];
    }
}

extern "C" __global__ void scale_by_four(int n, float a, const float *x, float *y) {
    int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (i + 3 < n) {
        float4 v = *reinterpret_cast<const float4 *>(x + i);
        v.x *= a;
        v.y *= a;
        v.z *= a;
        v.w *= a;
        *reinterpret_cast<float4 *>(y + i) = v;
    } else {
        for (; i < n; i++) {
            y[i] = a * x[i];
        }
    }
}

// Upper case, for letters only.
extern "C" __global__ void to_upper(int n, const unsigned char *text, unsigned char *upper) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        unsigned char c = text[i];
        upper[i] = c >= 'a' && c <= 'z' ? c - 32 : c;
    }
}

// Complex product of interleaved pairs, with signed 16-bit samples in and float out.
extern "C" __global__ void complex_product(int n, const short2 *x, const float2 *w, float2 *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        short2 a = x[i];
        float2 b = w[i];
        float re = (float)a.x, im = (float)a.y;
        y[i] = make_float2(re * b.x - im * b.y, re * b.y + im * b.x);
    }
}
