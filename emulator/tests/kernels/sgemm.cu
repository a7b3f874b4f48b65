// C = A B in fp32, row-major: a tile per block, and then 4 x 4 results per thread.
#define TILE 16

extern "C" __global__ void sgemm_tiled(int m, int n, int k, const float *a, const float *b, float *c) {
    __shared__ float of_a[TILE][TILE];
    __shared__ float of_b[TILE][TILE];
    int tx = threadIdx.x, ty = threadIdx.y;
    int row = blockIdx.y * TILE + ty, column = blockIdx.x * TILE + tx;
    float sum = 0.0f;
    for (int k0 = 0; k0 < k; k0 += TILE) {
        of_a[ty][tx] = row < m && k0 + tx < k ? a[row * k + k0 + tx] : 0.0f;
        of_b[ty][tx] = k0 + ty < k && column < n ? b[(k0 + ty) * n + column] : 0.0f;
        __syncthreads();
        for (int i = 0; i < TILE; i++) {
            sum += of_a[ty][i] * of_b[i][tx];
        }
        __syncthreads();
    }
    if (row < m && column < n) {
        c[row * n + column] = sum;
    }
}

// 64 x 64 results per block of 256 threads, 16 deep. n must be a multiple of 64, k of 16.
extern "C" __global__ void __launch_bounds__(256) sgemm_blocked(int m, int n, int k, const float *a, const float *b, float *c) {
    __shared__ __align__(16) float of_a[16][64];
    __shared__ __align__(16) float of_b[16][64];
    int t = threadIdx.x;
    int row0 = blockIdx.y * 64, column0 = blockIdx.x * 64;
    int r = (t / 16) * 4, q = (t % 16) * 4;
    float sum[4][4] = {};
    for (int k0 = 0; k0 < k; k0 += 16) {
        int a_row = row0 + t / 4, a_column = (t % 4) * 4;
        float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (a_row < m) {
            v = *reinterpret_cast<const float4 *>(&a[a_row * k + k0 + a_column]);
        }
        of_a[a_column + 0][t / 4] = v.x;
        of_a[a_column + 1][t / 4] = v.y;
        of_a[a_column + 2][t / 4] = v.z;
        of_a[a_column + 3][t / 4] = v.w;
        *reinterpret_cast<float4 *>(&of_b[t / 16][q]) =
            *reinterpret_cast<const float4 *>(&b[(k0 + t / 16) * n + column0 + q]);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 16; i++) {
            float4 x = *reinterpret_cast<const float4 *>(&of_a[i][r]);
            float4 y = *reinterpret_cast<const float4 *>(&of_b[i][q]);
            float left[4] = {x.x, x.y, x.z, x.w}, right[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
            for (int u = 0; u < 4; u++) {
#pragma unroll
                for (int w = 0; w < 4; w++) {
                    sum[u][w] += left[u] * right[w];
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int u = 0; u < 4; u++) {
        if (row0 + r + u < m) {
            *reinterpret_cast<float4 *>(&c[(row0 + r + u) * n + column0 + q]) =
                make_float4(sum[u][0], sum[u][1], sum[u][2], sum[u][3]);
        }
    }
}
