// Integer work: 8-bit dot products, Philox random numbers, a checksum, bit tricks.

// Rows of int8 against a vector of int8, four at a time.
extern "C" __global__ void dot_int8(int rows, int quads, const int *matrix, const int *vector, int *y) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row < rows) {
        int sum = 0;
        for (int q = 0; q < quads; q++) {
            sum = __dp4a(matrix[row * quads + q], vector[q], sum);
        }
        y[row] = sum;
    }
}

// Philox 4x32 with ten rounds: a counter-based generator (Salmon and others, 2011).
__device__ uint4 philox(uint4 counter, uint2 key) {
    for (int round = 0; round < 10; round++) {
        unsigned int high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
        unsigned int high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
        counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
        key.x += 0x9E3779B9u;
        key.y += 0xBB67AE85u;
    }
    return counter;
}

extern "C" __global__ void random_uniform(int n, unsigned long long seed, float *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (4 * i < n) {
        uint4 r = philox(make_uint4(i, 0, 0, 0), make_uint2((unsigned int)seed, (unsigned int)(seed >> 32)));
        unsigned int words[4] = {r.x, r.y, r.z, r.w};
        for (int j = 0; j < 4 && 4 * i + j < n; j++) {
            y[4 * i + j] = (words[j] >> 8) * 0x1p-24f;
        }
    }
}

// CRC-32 of records of `length` bytes, bit by bit.
extern "C" __global__ void crc32(int records, int length, const unsigned char *bytes, unsigned int *crc) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r < records) {
        unsigned int c = 0xffffffffu;
        for (int i = 0; i < length; i++) {
            c ^= bytes[r * length + i];
            for (int bit = 0; bit < 8; bit++) {
                c = c >> 1 ^ (0xedb88320u & -(c & 1));
            }
        }
        crc[r] = ~c;
    }
}

extern "C" __global__ void bits(int n, const unsigned int *x, const int *z, unsigned int *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        unsigned int v = x[i];
        int s = z[i];
        unsigned int *out = y + i * 10;
        out[0] = __popc(v) | __clz(v) << 8 | __ffs(v) << 16;
        out[1] = __brev(v);
        out[2] = __byte_perm(v, ~v, 0x5410);
        out[3] = __funnelshift_l(v, v, s);
        out[4] = __funnelshift_r(v, ~v, s & 31);
        out[5] = s / 7 + s % 7 + (int)v / -3;
        out[6] = v / 10u + v % 1000u;
        out[7] = __sad(s, (int)v, 5u) + __usad(v, 77u, 1u);
        out[8] = min(s, (int)v) + max(v, 12345u) + abs(s) + __mulhi(s, (int)v);
        out[9] = (v >> 3 & 0xff) << 4 | (v << 9 >> 27) | (unsigned int)(s << 5 >> 9);
    }
}
