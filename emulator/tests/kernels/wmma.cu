// C = A B through the warp matrix functions of mma.h: f16 operands, fp32 sums, one 16 x 16 tile per warp.
#include <mma.h>
using namespace nvcuda;

extern "C" __global__ void wmma_product(int m, int n, int k, const half *a, const half *b, float *c) {
    int tile_row = blockIdx.y * 16, tile_column = (blockIdx.x * blockDim.x / 32 + threadIdx.x / 32) * 16;
    if (tile_row >= m || tile_column >= n) {
        return;
    }
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> of_a;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::row_major> of_b;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
    wmma::fill_fragment(sum, 0.0f);
    for (int k0 = 0; k0 < k; k0 += 16) {
        wmma::load_matrix_sync(of_a, a + tile_row * k + k0, k);
        wmma::load_matrix_sync(of_b, b + k0 * n + tile_column, n);
        wmma::mma_sync(sum, of_a, of_b, sum);
    }
    wmma::store_matrix_sync(c + tile_row * n + tile_column, sum, n, wmma::mem_row_major);
}
