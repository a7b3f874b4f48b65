// Functions that are really called: recursion, pointers to functions, and a switch dense enough for a jump table.

__device__ __noinline__ int ackermann(int m, int n) {
    if (m == 0) {
        return n + 1;
    }
    if (n == 0) {
        return ackermann(m - 1, 1);
    }
    return ackermann(m - 1, ackermann(m, n - 1));
}

extern "C" __global__ void recursion(const int2 *x, int *y) {
    int i = threadIdx.x;
    y[i] = ackermann(x[i].x, x[i].y);
}

__device__ __noinline__ float add(float a, float b) { return a + b; }
__device__ __noinline__ float subtract(float a, float b) { return a - b; }
__device__ __noinline__ float larger(float a, float b) { return a > b ? a : b; }
__device__ __noinline__ float first(float a, float) { return a; }

typedef float (*operation)(float, float);
__device__ operation operations[4] = {add, subtract, larger, first};

extern "C" __global__ void by_pointer(const int *which, const float *a, const float *b, float *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = operations[which[i]](a[i], b[i]);
}

// A little stack machine: each thread runs its own program.
extern "C" __global__ void interpreter(const unsigned char *programs, int length, const int *input, int *output) {
    int thread = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned char *program = programs + thread * length;
    int accumulator = input[thread], other = 1;
    for (int pc = 0; pc < length; pc++) {
        switch (program[pc]) {
        case 0: accumulator += other; break;
        case 1: accumulator -= other; break;
        case 2: accumulator *= 3; break;
        case 3: other = accumulator; break;
        case 4: accumulator ^= other << 3; break;
        case 5: other += 17; break;
        case 6: accumulator = -accumulator; break;
        case 7: { int held = accumulator; accumulator = other; other = held; break; }
        case 8: accumulator = accumulator >> 1; break;
        case 9: other = other * other + 1; break;
        case 10: accumulator |= 5; break;
        default: output[thread] = accumulator; return;
        }
    }
    output[thread] = accumulator + other;
}

struct pair { double sum; int count; };

__device__ __noinline__ pair tally(const float *x, int n, float limit) {
    pair result = {0.0, 0};
    for (int i = 0; i < n; i++) {
        if (x[i] < limit) {
            result.sum += x[i];
            result.count++;
        }
    }
    return result;
}

// A function that returns a structure.
extern "C" __global__ void by_structure(int n, const float *x, const float *limits, double *means) {
    pair p = tally(x, n, limits[threadIdx.x]);
    means[threadIdx.x] = p.count > 0 ? p.sum / p.count : 0.0;
}
