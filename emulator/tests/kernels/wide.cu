// 64-bit integers and double precision.

extern "C" __global__ void modular_power(int n, unsigned long long modulus, const unsigned long long *base,
                                         const unsigned long long *exponent, unsigned long long *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    unsigned long long b = base[i] % modulus, e = exponent[i], result = 1;
    while (e) {
        if (e & 1) {
            result = result * b % modulus;
        }
        b = b * b % modulus;
        e >>= 1;
    }
    y[i] = result;
}

// The 128-bit product of two 64-bit numbers, and a 64-bit hash of it.
extern "C" __global__ void wide_product(int n, const unsigned long long *a, const unsigned long long *b,
                                        ulonglong2 *product, long long *signed_high, unsigned long long *hash) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        unsigned long long low = a[i] * b[i], high = __umul64hi(a[i], b[i]);
        product[i] = make_ulonglong2(low, high);
        signed_high[i] = __mul64hi((long long)a[i], (long long)b[i]);
        unsigned long long h = low ^ (high << 7 | high >> 57);
        h ^= __brevll(h) >> 3;
        h += __popcll(h) * 0x9e3779b97f4a7c15ull + __clzll(h) + __ffsll(h);
        hash[i] = h;
    }
}

// Newton's method for the root of x^3 = a, and a few functions of the library.
extern "C" __global__ void double_functions(int n, const double *x, double *cube_root, double *functions) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        double a = fabs(x[i]), r = a > 1.0 ? a / 3.0 + 1.0 : 1.0;
        for (int step = 0; step < 60; step++) {
            double next = (2.0 * r + a / (r * r)) / 3.0;
            if (next == r) {
                break;
            }
            r = next;
        }
        cube_root[i] = a == 0.0 ? 0.0 : copysign(r, x[i]);
        functions[i * 6 + 0] = sqrt(a);
        functions[i * 6 + 1] = exp(-a);
        functions[i * 6 + 2] = log(a + 1.0);
        functions[i * 6 + 3] = sin(x[i]);
        functions[i * 6 + 4] = floor(x[i]) + trunc(2.5 * x[i]) + rint(3.5 * x[i]);
        functions[i * 6 + 5] = fma(x[i], x[i], -a) + fmin(x[i], 0.5) + fmod(x[i], 0.7);
    }
}

extern "C" __global__ void convert(int n, const double *x, long long *to_integer, unsigned int *to_unsigned, float *to_float) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        to_integer[i * 2] = __double2ll_rn(x[i]);
        to_integer[i * 2 + 1] = (long long)x[i];
        to_unsigned[i] = (unsigned int)fabs(x[i]);
        to_float[i] = (float)x[i] + (float)(long long)(x[i] * 1e6);
    }
}
