// Arrays that are indexed at run time live in local memory; tables live in constant memory.

extern "C" __global__ void sort_rows(int rows, const int *x, int *y) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) {
        return;
    }
    int own[24];
    for (int i = 0; i < 24; i++) {
        own[i] = x[row * 24 + i];
    }
    for (int i = 1; i < 24; i++) {
        int v = own[i], j = i - 1;
        while (j >= 0 && own[j] > v) {
            own[j + 1] = own[j];
            j--;
        }
        own[j + 1] = v;
    }
    for (int i = 0; i < 24; i++) {
        y[row * 24 + i] = own[i];
    }
}

__constant__ float coefficients[8];
__constant__ int reversed[16] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};

extern "C" __global__ void polynomial(int n, int degree, const float *x, float *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float v = coefficients[degree];
        for (int d = degree - 1; d >= 0; d--) {
            v = v * x[i] + coefficients[d];
        }
        y[(i & ~15) + reversed[i & 15]] = v;
    }
}
