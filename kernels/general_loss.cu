// The loss from logits of any width of model: scores of targets t + 1 for t in from .. T, and the logits' gradient.
//
// Shapes: logits [N, T − from, Q] f32, token u8 [N, T + 1], levels [Q]. Out: scores [N, 4], as in `head.cu`; dlogits, if not null, bf16
// [N, T, Q], padded, rows from `from` on, of `factor` · nats. One block of threads does one sequence, a warp one timestep at a time. Grid
// N, 256 threads.
//
// Bytes per timestep: 4Q read; 2Q written. Special functions: Q exponentials. Sums: over each 32nd level ascending, then 32 lanes by
// halves; scores over each eighth timestep ascending, then the 8 warps ascending.
#include "general.cuh"
#include "score.cuh"

constexpr int COUNT = ceil_div(Q, 32);

KERNEL __launch_bounds__(256) loss_of_logits(const float* logits, const u8* token, const float* levels, float* scores, float factor,
                                             u16* dlogits, u32 from) {
    const int lane = lane_id(), begin = from;
    const size_t sequence = blockIdx.x;
    const auto level = [&](int i) { return 32 * i + lane; };
    float score[4] = {0, 0, 0, 0};
#pragma unroll 1
    for (int time = begin + warp_id(); time < T; time += 8) {
        const float* const row = logits + (sequence * (T - begin) + time - begin) * Q;
        float c[COUNT];
#pragma unroll
        for (int i = 0; i < COUNT; ++i) c[i] = level(i) < Q ? row[level(i)] : MINUS_INFINITY;
        score_row<32, 1>(c, token[sequence * (T + 1) + time + 1], levels, factor, score);
        if (!dlogits) continue;
        u16* const out = dlogits + (sequence * T + time) * padded(Q);
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            if (level(i) < Q) out[level(i)] = narrow(c[i]);
        }
    }
    store_scores<8>(score, scores + 4 * sequence);
}
