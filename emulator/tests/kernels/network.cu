// Pieces of a neural network: attention, GELU, cross-entropy, AdamW; ordinary fp32, with the functions of the library.

// One block per (sequence, head), one thread per query, keys and values of the head in dynamic shared memory.
extern "C" __global__ void causal_attention(int length, int width, const float *q, const float *k, const float *v, float *y) {
    extern __shared__ float keys[];
    float *values = keys + length * width;
    const int offset = blockIdx.x * length * width;
    for (int i = threadIdx.x; i < length * width; i += blockDim.x) {
        keys[i] = k[offset + i];
        values[i] = v[offset + i];
    }
    __syncthreads();
    int t = threadIdx.x;
    if (t < length) {
        float sum[32];
        for (int d = 0; d < width; d++) {
            sum[d] = 0.0f;
        }
        float largest = -1e30f, total = 0.0f, scale = rsqrtf((float)width);
        for (int s = 0; s <= t; s++) {
            float score = 0.0f;
            for (int d = 0; d < width; d++) {
                score += q[offset + t * width + d] * keys[s * width + d];
            }
            score *= scale;
            float before = largest;
            largest = fmaxf(largest, score);
            float shrink = expf(before - largest), weight = expf(score - largest);
            total = total * shrink + weight;
            for (int d = 0; d < width; d++) {
                sum[d] = sum[d] * shrink + weight * values[s * width + d];
            }
        }
        for (int d = 0; d < width; d++) {
            y[offset + t * width + d] = sum[d] / total;
        }
    }
}

extern "C" __global__ void gelu(int n, const float *x, float *approximate, float *exact, float *derivative) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float v = x[i];
        float u = 0.7978845608f * (v + 0.044715f * v * v * v);
        float t = tanhf(u);
        approximate[i] = 0.5f * v * (1.0f + t);
        exact[i] = 0.5f * v * (1.0f + erff(v * 0.7071067812f));
        derivative[i] = 0.5f * (1.0f + t) + 0.5f * v * (1.0f - t * t) * 0.7978845608f * (1.0f + 0.134145f * v * v);
    }
}

// Loss of each row and the gradient of the logits; a row per block of 128 threads.
extern "C" __global__ void cross_entropy(int classes, const float *logits, const int *target, float *loss, float *gradient) {
    __shared__ float shared[4];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float *row = logits + blockIdx.x * classes;
    float largest = -1e30f;
    for (int i = threadIdx.x; i < classes; i += 128) {
        largest = fmaxf(largest, row[i]);
    }
    for (int mask = 16; mask > 0; mask /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, mask));
    }
    if (lane == 0) {
        shared[warp] = largest;
    }
    __syncthreads();
    largest = fmaxf(fmaxf(shared[0], shared[1]), fmaxf(shared[2], shared[3]));
    __syncthreads();
    float sum = 0.0f;
    for (int i = threadIdx.x; i < classes; i += 128) {
        sum += expf(row[i] - largest);
    }
    for (int mask = 16; mask > 0; mask /= 2) {
        sum += __shfl_xor_sync(0xffffffff, sum, mask);
    }
    if (lane == 0) {
        shared[warp] = sum;
    }
    __syncthreads();
    sum = shared[0] + shared[1] + shared[2] + shared[3];
    for (int i = threadIdx.x; i < classes; i += 128) {
        float p = expf(row[i] - largest) / sum;
        gradient[blockIdx.x * classes + i] = p - (i == target[blockIdx.x] ? 1.0f : 0.0f);
    }
    if (threadIdx.x == 0) {
        loss[blockIdx.x] = logf(sum) + largest - row[target[blockIdx.x]];
    }
}

struct adamw_rates { float rate, beta1, beta2, epsilon, decay; int step; };

// The settings come as one structure by value.
extern "C" __global__ void adamw(int n, adamw_rates r, const float *g, float *w, float *m, float *v) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float m1 = r.beta1 * m[i] + (1.0f - r.beta1) * g[i];
        float v1 = r.beta2 * v[i] + (1.0f - r.beta2) * g[i] * g[i];
        float m_hat = m1 / (1.0f - powf(r.beta1, r.step)), v_hat = v1 / (1.0f - powf(r.beta2, r.step));
        w[i] -= r.rate * (m_hat / (sqrtf(v_hat) + r.epsilon) + r.decay * w[i]);
        m[i] = m1;
        v[i] = v1;
    }
}
