// Kernels that speak: printf in every conversion, and assert.

extern "C" __global__ void speak(int n, const float *x) {
    int i = threadIdx.x;
    if (i < n) {
        printf("thread %d of %u: x = %.3f, bits %08x, %s, %c, %lld, %5.1e%%\n", i, blockDim.x, x[i],
               __float_as_int(x[i]), x[i] < 0.0f ? "negative" : "positive", 'a' + i, 1ll << (40 + i), (double)x[i]);
    }
}

extern "C" __global__ void check(int n, const int *x) {
    int i = threadIdx.x;
    if (i < n) {
        assert(x[i] >= 0);
    }
}

extern "C" __global__ void give_up(int n, const int *x) {
    int i = threadIdx.x;
    if (i < n && x[i] < 0) {
        __trap();
    }
}

// What printf returns, and numbers that are cut to their conversion.
extern "C" __global__ void count_arguments(int *count) {
    count[0] = printf("none\n");
    count[1] = printf("%d of %s: %*d\n", 1, "two", 5, 3);
    count[2] = printf("%hhd %hhu %hx %hd %hho\n", 300, -1, 0x12345, 40000, 0x1ff);
}
