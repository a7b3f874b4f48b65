// cuda::pipeline of a block: stages that are filled by copies while others are used.
#include <cooperative_groups.h>
#include <cuda/pipeline>

// All threads copy and compute.
extern "C" __global__ void staged(const float *in, float *out, int batches) {
    constexpr int stages = 2;
    __shared__ alignas(16) float buffer[stages][128];
    __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, stages> state;
    auto block = cooperative_groups::this_thread_block();
    auto pipeline = cuda::make_pipeline(block, &state);
    for (int compute = 0, fetch = 0; compute < batches; compute++) {
        for (; fetch < batches && fetch < compute + stages; fetch++) {
            pipeline.producer_acquire();
            auto bytes = cuda::aligned_size_t<16>(sizeof(float) * 128);
            cuda::memcpy_async(block, buffer[fetch % stages], in + fetch * 128, bytes, pipeline);
            pipeline.producer_commit();
        }
        pipeline.consumer_wait();
        for (int i = threadIdx.x; i < 128; i += blockDim.x) {
            out[compute * 128 + i] = buffer[compute % stages][127 - i] * 2;
        }
        pipeline.consumer_release();
    }
}

// One warp copies, the other computes.
extern "C" __global__ void roles(const float *in, float *out, int batches) {
    constexpr int stages = 3;
    __shared__ alignas(16) float buffer[stages][64];
    __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, stages> state;
    auto block = cooperative_groups::this_thread_block();
    auto role = threadIdx.x < 32 ? cuda::pipeline_role::producer : cuda::pipeline_role::consumer;
    auto pipeline = cuda::make_pipeline(block, &state, role);
    for (int b = 0; b < batches; b++) {
        float *stage = buffer[b % stages];
        if (role == cuda::pipeline_role::producer) {
            pipeline.producer_acquire();
            for (int i = threadIdx.x; i < 64; i += 32) {
                cuda::memcpy_async(&stage[i], &in[b * 64 + i], cuda::aligned_size_t<4>(4), pipeline);
            }
            pipeline.producer_commit();
        } else {
            pipeline.consumer_wait();
            for (int i = threadIdx.x - 32; i < 64; i += 32) {
                out[b * 64 + i] = stage[63 - i] + 1;
            }
            pipeline.consumer_release();
        }
    }
}
