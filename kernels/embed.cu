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

// Gives add(bit, value) for each bit of a mask, the same in all lanes, ascending: the value of row t0 + bit of `d`, or nothing in lanes
// without a column. Eight rows are asked for before the first is waited for.
template <typename Add>
DEVICE void for_each_row(u32 mask, const float* d, u32 t0, bool there, const Add& add) {
    while (mask) {
        const u32 rest = mask;
        float values[8];
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            values[k] = mask && there ? d[(t0 + __ffs(mask) - 1) * E] : 0.0f;
            mask &= mask - 1;
        }
        u32 left = rest;
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            if (left) add(__ffs(left) - 1, values[k]);
            left &= left - 1;
        }
    }
}

// The gradients of the tables: adds dx [N, T, E] f32 to the rows that each timestep read. Sequence i belongs to slot (first + i) mod
// slots; a block of threads owns 32 columns and one slot, and takes the slot's sequences in ascending order. Grid (ceil(E / 32),
// slots), 256 threads, shared memory 128·Q bytes. Slots lie slot_len floats apart.
//
// Who adds what is fixed, so there are no atomics: a warp owns the tokens and the conditions that have its number modulo eight, and
// the timesteps likewise. Sums: a token's over the slot's timesteps ascending, then added to the table; a position's over sequences
// ascending; a condition's over each run of it ascending; a channel's and a subject's over every eighth timestep ascending, then
// warps ascending.
//
// Bytes per timestep: 8E read, half of that from the caches; table rows.
KERNEL __launch_bounds__(256) embed_backward(float* token, float* position, float* channel, float* subject, float* condition,
                                             const u8* tokens, const u16* conditions, const u32* channels,
                                             const u32* subjects, const float* dx, u32 n, u32 first, u32 slots, u64 slot_len) {
    __shared__ float columns[8][32];
    float* const sums = reinterpret_cast<float*>(shared);
    const u32 lane = lane_id(), warp = warp_id(), slot = blockIdx.y, column = 32 * blockIdx.x + lane;
    const bool there = column < E;
    const u32 start = (slot + slots - first % slots) % slots;
    if (start >= n) return;
    const size_t offset = slot * slot_len + column;
    for (u32 level = warp; level < Q; level += 8) sums[32 * level + lane] = 0;

    for (u32 sequence = start; sequence < n; sequence += slots) {
        const float* const d = dx + (size_t)sequence * T * E + column;
        // Each row of the table of levels has one warp, so its order is that of time.
        u32 run = 0;
        float run_sum = 0;
        for (u32 t0 = 0; t0 < T; t0 += 32) {
            const bool in = t0 + lane < T;
            const u32 id = in ? tokens[(size_t)sequence * (T + 1) + t0 + lane] : 0;
            const u32 y = in ? conditions[(size_t)sequence * T + t0 + lane] : 0;
            for_each_row(__ballot_sync(ALL_LANES, in && id % 8 == warp), d, t0, there, [&](u32 i, float value) {
                const u32 row = __shfl_sync(ALL_LANES, id, i);
                if (there) sums[32 * row + lane] += value;
            });
            for_each_row(__ballot_sync(ALL_LANES, y > 0 && y % 8 == warp), d, t0, there, [&](u32 i, float value) {
                const u32 row = __shfl_sync(ALL_LANES, y, i);
                if (row != run) {
                    if (run > 0 && there) condition[offset + (size_t)run * E] += run_sum;
                    run = row, run_sum = 0;
                }
                run_sum += value;
            });
        }
        if (run > 0 && there) condition[offset + (size_t)run * E] += run_sum;

        float sum = 0;
        for (u32 t0 = warp; t0 < T && there; t0 += 32) {
            // Loads of four timesteps before the first is written.
            float value[4], before[4];
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const u32 t = t0 + 8 * k;
                if (t < T) value[k] = d[t * E], before[k] = position[offset + t * E];
            }
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const u32 t = t0 + 8 * k;
                if (t < T) position[offset + t * E] = before[k] + value[k], sum += value[k];
            }
        }
        columns[warp][lane] = sum;
        __syncthreads();
        if (warp == 0 && there) {
            float all = 0;
            for (u32 i = 0; i < 8; ++i) all += columns[i][lane];
            channel[offset + (size_t)channels[sequence] * E] += all;
            subject[offset + (size_t)subjects[sequence] * E] += all;
        }
        __syncthreads();
    }
    for (u32 level = warp; level < Q && there; level += 8) token[offset + level * E] += sums[32 * level + lane];
}
