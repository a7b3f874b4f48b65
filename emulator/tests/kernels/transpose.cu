// Transposition through a padded tile, so that both sides are coalesced and no bank conflicts.
#define TILE 32
#define ROWS 8

extern "C" __global__ void transpose(int rows, int columns, const float *x, float *y) {
    __shared__ float tile[TILE][TILE + 1];
    int column = blockIdx.x * TILE + threadIdx.x;
    int row = blockIdx.y * TILE + threadIdx.y;
    for (int r = 0; r < TILE; r += ROWS) {
        if (row + r < rows && column < columns) {
            tile[threadIdx.y + r][threadIdx.x] = x[(row + r) * columns + column];
        }
    }
    __syncthreads();
    column = blockIdx.y * TILE + threadIdx.x;
    row = blockIdx.x * TILE + threadIdx.y;
    for (int r = 0; r < TILE; r += ROWS) {
        if (row + r < columns && column < rows) {
            y[(row + r) * rows + column] = tile[threadIdx.x][threadIdx.y + r];
        }
    }
}

// A square matrix in place: a block exchanges two tiles.
extern "C" __global__ void transpose_in_place(int n, double *x) {
    __shared__ double above[16][17], below[16][17];
    if (blockIdx.y < blockIdx.x) {
        return;
    }
    int tx = threadIdx.x, ty = threadIdx.y;
    int row = blockIdx.y * 16 + ty, column = blockIdx.x * 16 + tx;
    int mirror_row = blockIdx.x * 16 + ty, mirror_column = blockIdx.y * 16 + tx;
    if (row < n && column < n) {
        below[ty][tx] = x[row * n + column];
    }
    if (mirror_row < n && mirror_column < n) {
        above[ty][tx] = x[mirror_row * n + mirror_column];
    }
    __syncthreads();
    if (row < n && column < n) {
        x[row * n + column] = above[tx][ty];
    }
    if (mirror_row < n && mirror_column < n) {
        x[mirror_row * n + mirror_column] = below[tx][ty];
    }
}
