// Bitonic sort of 1024 keys with their values, in one block of 512 threads.

extern "C" __global__ void bitonic_sort(unsigned int *keys, unsigned int *values) {
    __shared__ unsigned int key[1024], value[1024];
    int t = threadIdx.x;
    for (int i = t; i < 1024; i += 512) {
        key[i] = keys[i];
        value[i] = values[i];
    }
    __syncthreads();
    for (int size = 2; size <= 1024; size *= 2) {
        for (int stride = size / 2; stride > 0; stride /= 2) {
            int low = 2 * t - (t & (stride - 1));
            int high = low + stride;
            bool ascending = (low & size) == 0;
            if ((key[low] > key[high]) == ascending) {
                unsigned int k = key[low], v = value[low];
                key[low] = key[high];
                value[low] = value[high];
                key[high] = k;
                value[high] = v;
            }
            __syncthreads();
        }
    }
    for (int i = t; i < 1024; i += 512) {
        keys[i] = key[i];
        values[i] = value[i];
    }
}
