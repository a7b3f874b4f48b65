// The embedding: x[n, t] = token[id] + position[t] + channel[c] + subject[s] + (condition > 0 ? condition[y] : 0).
//
// Shapes: token [Q, E], position [T.., E], channel [C, E], subject [S, E], condition [Y + 1, E], all f32; ids u8 [N, T + 1],
// conditions u16 [N, T], channels and subjects u32 [N]; x [N, T, E] f32. Four neighbours of a row are one thread's work (one,
// where E is no multiple of four), in the order in which they lie in memory. Grid ceil(N·T·E / 4 / 256), 256 threads.
//
// Bytes per timestep: 4E written; tables are read from the caches. Sums: in the order of the formula.
#include "common.cuh"

template <typename Vector>
DEVICE Vector sum(Vector a, Vector b);
template <>
DEVICE float4 sum(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
template <>
DEVICE float sum(float a, float b) { return a + b; }

template <typename Vector>
DEVICE void embed(const float* token, const float* position, const float* channel, const float* subject,
                  const float* condition, const u8* tokens, const u16* conditions, const u32* channels, const u32* subjects,
                  float* x, u32 n) {
    constexpr u32 WIDTH = E / (sizeof(Vector) / 4);
    const size_t index = (size_t)blockIdx.x * 256 + threadIdx.x;
    const u32 row = index / WIDTH, column = index % WIDTH;
    if (row >= n * T) return;
    const u32 sequence = row / T, t = row % T;
    const auto part = [&](const float* table, u32 i) { return reinterpret_cast<const Vector*>(table)[(size_t)i * WIDTH + column]; };
    Vector value = sum(part(token, tokens[sequence * (T + 1) + t]), part(position, t));
    value = sum(sum(value, part(channel, channels[sequence])), part(subject, subjects[sequence]));
    const u32 y = conditions[row];
    if (y > 0) value = sum(value, part(condition, y));
    reinterpret_cast<Vector*>(x)[index] = value;
}

KERNEL __launch_bounds__(256) embed_forward(const float* token, const float* position, const float* channel,
                                            const float* subject, const float* condition, const u8* tokens,
                                            const u16* conditions, const u32* channels, const u32* subjects, float* x, u32 n) {
    if constexpr (E % 4 == 0) {
        embed<float4>(token, position, channel, subject, condition, tokens, conditions, channels, subjects, x, n);
    } else {
        embed<float>(token, position, channel, subject, condition, tokens, conditions, channels, subjects, x, n);
    }
}
