// Gravity between bodies, a tile of them in shared memory at a time; and the Mandelbrot set.
#define TILE 64

extern "C" __global__ void accelerations(int n, float softening, const float4 *bodies, float3 *acceleration) {
    __shared__ float4 tile[TILE];
    int i = blockIdx.x * TILE + threadIdx.x;
    float4 me = i < n ? bodies[i] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float ax = 0.0f, ay = 0.0f, az = 0.0f;
    for (int j0 = 0; j0 < n; j0 += TILE) {
        int j = j0 + threadIdx.x;
        tile[threadIdx.x] = j < n ? bodies[j] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        __syncthreads();
        for (int k = 0; k < TILE; k++) {
            float dx = tile[k].x - me.x, dy = tile[k].y - me.y, dz = tile[k].z - me.z;
            float inverse = rsqrtf(dx * dx + dy * dy + dz * dz + softening);
            float force = tile[k].w * inverse * inverse * inverse;
            ax += force * dx;
            ay += force * dy;
            az += force * dz;
        }
        __syncthreads();
    }
    if (i < n) {
        acceleration[i] = make_float3(ax, ay, az);
    }
}

extern "C" __global__ void mandelbrot(int width, int height, int limit, int *iterations) {
    int px = blockIdx.x * blockDim.x + threadIdx.x, py = blockIdx.y * blockDim.y + threadIdx.y;
    if (px < width && py < height) {
        float cx = -2.0f + 3.0f * px / width, cy = -1.5f + 3.0f * py / height;
        float x = 0.0f, y = 0.0f;
        int i = 0;
        while (i < limit && x * x + y * y <= 4.0f) {
            float next = x * x - y * y + cx;
            y = 2.0f * x * y + cy;
            x = next;
            i++;
        }
        iterations[py * width + px] = i;
    }
}
