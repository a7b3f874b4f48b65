// The 5-point stencil on a grid with a halo in shared memory, and a causal dilated convolution.
#define SIDE 16

extern "C" __global__ void diffuse(int height, int width, float rate, const float *u, float *v) {
    __shared__ float tile[SIDE + 2][SIDE + 2];
    int x = blockIdx.x * SIDE + threadIdx.x, y = blockIdx.y * SIDE + threadIdx.y;
    int tx = threadIdx.x + 1, ty = threadIdx.y + 1;
    int cx = min(x, width - 1), cy = min(y, height - 1);
    tile[ty][tx] = u[cy * width + cx];
    if (threadIdx.x == 0) {
        tile[ty][0] = u[cy * width + max(cx - 1, 0)];
    }
    if (threadIdx.x == SIDE - 1) {
        tile[ty][SIDE + 1] = u[cy * width + min(cx + 1, width - 1)];
    }
    if (threadIdx.y == 0) {
        tile[0][tx] = u[max(cy - 1, 0) * width + cx];
    }
    if (threadIdx.y == SIDE - 1) {
        tile[SIDE + 1][tx] = u[min(cy + 1, height - 1) * width + cx];
    }
    __syncthreads();
    if (x < width && y < height) {
        float centre = tile[ty][tx];
        float around = tile[ty][tx - 1] + tile[ty][tx + 1] + tile[ty - 1][tx] + tile[ty + 1][tx];
        v[y * width + x] = centre + rate * (around - 4.0f * centre);
    }
}

// y[t] = sum over j of w[j] x[t - j dilation], with zeros before the start.
extern "C" __global__ void causal_convolution(int n, int taps, int dilation, const float *x, const float *w, float *y) {
    extern __shared__ float window[];
    int reach = (taps - 1) * dilation;
    int start = blockIdx.x * blockDim.x - reach;
    for (int i = threadIdx.x; i < blockDim.x + reach; i += blockDim.x) {
        int t = start + i;
        window[i] = t >= 0 && t < n ? x[t] : 0.0f;
    }
    __syncthreads();
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t < n) {
        float sum = 0.0f;
        for (int j = 0; j < taps; j++) {
            sum += w[j] * window[threadIdx.x + reach - j * dilation];
        }
        y[t] = sum;
    }
}
