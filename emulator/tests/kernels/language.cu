// Features of the language: classes with virtual functions, templates, lambdas, unions, bit fields, shared memory of
// several types, the block-wide votes, and the intrinsics for caches.

struct shape {
    float size;
    __device__ shape(float size) : size(size) {}
    __device__ virtual float area() const { return 0.0f; }
    __device__ virtual ~shape() {}
};

struct square : shape {
    __device__ square(float side) : shape(side) {}
    __device__ float area() const override { return size * size; }
};

struct circle : shape {
    __device__ circle(float radius) : shape(radius) {}
    __device__ float area() const override { return 3.0f * size * size; }
};

extern "C" __global__ void virtual_functions(const int *kind, const float *size, float *area) {
    int i = threadIdx.x;
    square s(size[i]);
    circle c(size[i]);
    const shape *chosen = kind[i] ? static_cast<const shape *>(&s) : &c;
    area[i] = chosen->area();
}

template <int N, typename T, typename Operation> __device__ T fold(const T *values, T start, Operation operation) {
    T result = start;
#pragma unroll
    for (int i = 0; i < N; i++) {
        result = operation(result, values[i]);
    }
    return result;
}

extern "C" __global__ void folds(const short *x, int *y) {
    const short *own = x + threadIdx.x * 7;
    int most = fold<7>(own, (short)-32768, [](short a, short b) { return a > b ? a : b; });
    int factor = threadIdx.x;
    int sum = fold<5>(own, (short)0, [factor](short a, short b) { return (short)(a + factor * b); });
    y[threadIdx.x] = most * 65536 + (sum & 0xffff);
}

union word {
    float number;
    unsigned int bits;
    unsigned char bytes[4];
    struct {
        unsigned int fraction : 23, exponent : 8, sign : 1;
    } parts;
};

extern "C" __global__ void unions(const float *x, int *y) {
    word w;
    w.number = x[threadIdx.x];
    int sum = w.parts.exponent - 127 + 1000 * w.parts.sign;
    w.parts.exponent += 1;
    w.bytes[0] = 0;
    y[threadIdx.x * 2] = sum;
    y[threadIdx.x * 2 + 1] = w.bits;
}

struct particle {
    double mass;
    char tag;
    float place[3];
    short charge;
};

// Structures are copied whole, and cleared.
extern "C" __global__ void structures(const particle *from, particle *to) {
    __shared__ particle room[32];
    int i = threadIdx.x;
    memcpy(&room[i], &from[i], sizeof(particle));
    __syncwarp();
    particle p = room[31 - i];
    p.place[i % 3] = p.mass;
    p.charge = -p.charge;
    memset(&to[i], 0, sizeof(particle));
    to[i] = p;
}

// One block of dynamic shared memory, cut into parts of different types.
extern "C" __global__ void several_types(int n, const double *x, int *order) {
    extern __shared__ __align__(16) unsigned char room[];
    double *values = reinterpret_cast<double *>(room);
    int *places = reinterpret_cast<int *>(values + n);
    unsigned char *marks = reinterpret_cast<unsigned char *>(places + n);
    int i = threadIdx.x;
    if (i < n) {
        values[i] = x[i];
        marks[i] = 0;
    }
    __syncthreads();
    if (i < n) {
        int before = 0;
        for (int j = 0; j < n; j++) {
            before += values[j] < values[i] || (values[j] == values[i] && j < i);
        }
        places[before] = i;
        marks[before] = 1;
    }
    // How many there are, whether there is any, whether all are.
    int count = __syncthreads_count(i < n);
    int any = __syncthreads_or(i < n && values[i] < 0.0);
    int all = __syncthreads_and(i >= n || marks[i] == 1);
    if (i < n) {
        order[i] = places[i];
    }
    if (i == 0) {
        order[n] = count;
        order[n + 1] = any != 0;
        order[n + 2] = all != 0;
    }
}

// Indices in three dimensions, for blocks and threads.
extern "C" __global__ void three_dimensions(int width, int height, int depth, int *y) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int row = blockIdx.y * blockDim.y + threadIdx.y;
    int plane = blockIdx.z * blockDim.z + threadIdx.z;
    if (x < width && row < height && plane < depth) {
        y[(plane * height + row) * width + x] = x + 100 * row + 10000 * plane;
    }
}

// Wide shuffles, loads past the caches, and stores that stream.
extern "C" __global__ void intrinsics(const double *x, const int *z, double *y, int *w) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    double v = __ldcg(&x[i]);
    v += __shfl_xor_sync(0xffffffff, v, 7);
    __stcs(&y[i], v);
    int a = __ldcs(&z[i]);
    unsigned long long wide = (unsigned long long)(unsigned int)a << 20;
    wide = __shfl_down_sync(0xffffffff, wide, 3, 16);
    __stwt(&w[i], (int)(wide >> 20) + __ldlu(&z[i]) + __vadd4(a, 0x01ff0180) + __vmaxs2(a, 5) + __vabsdiffu4(a, 0x10203040));
}
