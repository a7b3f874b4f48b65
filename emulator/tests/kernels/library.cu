// Functions of the mathematical library, in both precisions: their slow paths use local memory, tables and loops.

extern "C" __global__ void single_functions(int n, const float *x, const float *y, float *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    float a = x[i], b = y[i];
    float *to = out + i * 20;
    to[0] = sinf(a);
    to[1] = cosf(a);
    to[2] = tanf(a);
    to[3] = expf(b);
    to[4] = exp2f(b);
    to[5] = logf(fabsf(a));
    to[6] = log2f(fabsf(a));
    to[7] = log1pf(fabsf(b));
    to[8] = powf(fabsf(a), b);
    to[9] = tanhf(b);
    to[10] = erff(b);
    to[11] = atan2f(a, b);
    to[12] = asinf(b / 10.0f);
    to[13] = sinhf(b);
    to[14] = cbrtf(a);
    to[15] = hypotf(a, b);
    to[16] = fmodf(a, b);
    to[17] = rsqrtf(fabsf(b));
    to[18] = expm1f(b);
    to[19] = sqrtf(fabsf(a)) / b;
}

extern "C" __global__ void double_precision_functions(int n, const double *x, const double *y, double *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    double a = x[i], b = y[i];
    double *to = out + i * 14;
    to[0] = sin(a);
    to[1] = cos(a);
    to[2] = exp(b);
    to[3] = log(fabs(a));
    to[4] = pow(fabs(a), b);
    to[5] = tanh(b);
    to[6] = atan2(a, b);
    to[7] = sinh(b);
    to[8] = cbrt(a);
    to[9] = hypot(a, b);
    to[10] = fmod(a, b);
    to[11] = 1.0 / sqrt(fabs(b));
    to[12] = expm1(b);
    to[13] = a / b;
}

// Whole-number division and powers, by values that the compiler does not know.
extern "C" __global__ void whole_numbers(int n, const long long *x, const int *y, long long *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    long long a = x[i];
    int b = y[i];
    long long *to = out + i * 6;
    to[0] = a / b;
    to[1] = a % b;
    to[2] = (unsigned long long)a / (unsigned)(b | 1);
    __int128 wide = (__int128)a * a * b;
    to[3] = (long long)(wide >> 40);
    to[4] = (long long)(wide / (b > 0 ? b + 7 : b - 7) >> 20);
    to[5] = (short)a * (signed char)b + (a > b ? 1 : 0);
}
