// Generation with a cache of keys and values: one launch reads the prompts of all sequences and draws all their tokens, or the part
// of that which timesteps `begin .. end` are: the next launch finds the rest in the cache and in the tokens.
//
// A block of threads owns a few sequences from the first token to the last, through all layers, so nothing is ever
// exchanged between blocks. What it works on at a time are columns: a column is one timestep of one sequence. While the prompt
// is read, columns are neighbouring timesteps, as many as shared memory holds; while tokens are drawn, they are the newest
// timestep of each of the block's sequences. A column's bits do not depend on the others, so neither do they on how sequences
// are cut into launches and blocks, nor on whether a token was read or drawn.
//
// Products: weights are A, sixteen outputs a tile; columns are B, eight a tile; so a block needs few sequences to fill the tensor
// cores, and many blocks can share the memory's bandwidth. A warp computes a tile of outputs for all columns and takes the
// weights straight from the L2 cache as fragments, sixteen bytes a lane. Where there are fewer tiles than warps, the sum is
// cut into PARTS, which are added in their order.
//
// Attention: see `cached.cuh`. A warp does one head, of sixteen neighbouring columns while a prompt is read, of one otherwise.
//
// Shapes: any. E and 4E are padded to sixteen with zeros, in the working copies and in shared memory. 384 threads, shared memory
// decode_shared_bytes, grid ceil(n / per_block) with per_block up to decode_slots.
//
// Working copies (see `working.cu`; k interleaved, norms folded in): weight, for each layer the tiles of qkv (log2(e)/√D in the
// columns of q), proj, fc, proj, each tile's blocks of k one after another; bias, for each layer [3E], [E], [4E], [E]; head
// likewise, `head_len` uint4 from one channel's to the next (0: one for all), head_bias [matrices, Q].
//
// In: tables f32; prompt u8 [N, n_prompt], conditions u16 [N, n_prompt + n_new − 1], channels, subjects u32 [N], keys u64 [N].
// Out: tokens u8 [N, n_new], logits f32 [N, n_new, Q] unless null, failed u32 [N]: 1 + the first step at which a logit was not
// finite, or 0. Working memory: cache bf16 [N, layers, 2E·T].
//
// Sums: a norm's over every 32nd column, then lanes by halves; a product's in the tensor core, k ascending, then its parts; added to
// the residual stream as bias + parts.
//
// What a step costs, E 96, 12 layers, three sequences a block, 255 timesteps; the least possible in brackets; as counted in the
// emulator. Bytes loaded 6.40 MB: 3.53 of keys and values (3.53), 2.70 of weights (2.70: a block reads all of them for every
// step), 0.17 of biases and tables. Sectors of global memory and wavefronts of shared memory 1.00 of the ideal. Tensor
// operations m16n8k16 12192 and m16n8k8 13824: products 2.7 times the least, for three sequences fill eight columns; attention
// 16 times, for one query fills sixteen rows. Exponentials 16 times, likewise. At the rates of an H100 (a block on each of 132
// multiprocessors) the step would need 139 µs of memory for keys and values, 65 µs of the L2 cache for weights, 65 µs of special
// functions and 10 µs of tensor cores: memory binds, at 2.9 million tokens a second at most. At E 240 it is the L2 cache, 402 µs
// for weights beside 347 µs of memory; blocks of a cluster that share what they load would change that.
#include "cached.cuh"
#include "sampler.cuh"

constexpr int WARPS = 12;
constexpr int THREADS = 32 * WARPS;

// Blocks of sixteen of the width and of the hidden layer.
constexpr int E_STEPS = ceil_div(E, 16);
constexpr int F_STEPS = ceil_div(4 * E, 16);
// Parts of the sums that give E outputs.
constexpr int PARTS = E_STEPS > WARPS ? 1 : (WARPS / E_STEPS < E_STEPS ? WARPS / E_STEPS : E_STEPS);

// uint4 of a layer's matrices.
constexpr int PROJ_AT = 32 * ceil_div(3 * E, 16) * E_STEPS;
constexpr int FC_AT = PROJ_AT + 32 * E_STEPS * E_STEPS;
constexpr int OUT_AT = FC_AT + 32 * F_STEPS * E_STEPS;
constexpr int LAYER_LEN = OUT_AT + 32 * E_STEPS * F_STEPS;

// ---- shared memory ------------------------------------------------------------------------------------------------------

// Words of a row of bf16 and of floats, such that the lanes of a fragment fall into different banks.
constexpr int row_of_bf16(int steps) { return 8 * (steps | 1); }
constexpr int row_of_floats(int len) { return (len + 3) / 8 * 8 + 4; }
constexpr int E_ROW = row_of_bf16(E_STEPS), F_ROW = row_of_bf16(F_STEPS);
constexpr int X_ROW = row_of_floats(E), Q_ROW = row_of_floats(Q);

constexpr int slots(int columns) { return columns < 8 ? columns : 8; }
constexpr int words(int columns) { return columns * ((1 + PARTS) * X_ROW + 3 * E_ROW + F_ROW) + slots(columns) * Q_ROW; }
constexpr int most_columns() {
    int columns = 32;
    while (columns > 1 && words(columns) * 4 > SHARED_LIMIT) columns /= 2;
    return columns;
}
constexpr int COLUMNS = most_columns();
// Sequences of a block.
constexpr int SLOTS = slots(COLUMNS);
static_assert(words(COLUMNS) * 4 <= SHARED_LIMIT, "a column fits shared memory");
static_assert(SLOTS <= WARPS, "a warp draws for one sequence");

extern "C" __constant__ const u32 decode_columns = COLUMNS;
extern "C" __constant__ const u32 decode_slots = SLOTS;
extern "C" __constant__ const u32 decode_shared_bytes = words(COLUMNS) * 4;

// The residual stream, what a half-block's parts add to it, logits; in bf16 normalised rows, queries, answers, hidden units.
constexpr int PARTIAL_AT = COLUMNS * X_ROW;
constexpr int LOGITS_AT = PARTIAL_AT + COLUMNS * PARTS * X_ROW;
constexpr int NORMAL_AT = LOGITS_AT + SLOTS * Q_ROW;
constexpr int QUERY_AT = NORMAL_AT + COLUMNS * E_ROW;
constexpr int ANSWER_AT = QUERY_AT + COLUMNS * E_ROW;
constexpr int HIDDEN_AT = ANSWER_AT + COLUMNS * E_ROW;

DEVICE float* floats(int at) { return reinterpret_cast<float*>(shared) + at; }
DEVICE u32* words_at(int at) { return reinterpret_cast<u32*>(shared) + at; }
DEVICE u16* halves(int at) { return reinterpret_cast<u16*>(words_at(at)); }

// ---- what is fed ------------------------------------------------------------------------------------------------------------

struct Tables {
    const float *token, *position, *channel, *subject, *condition;
};

// The columns of one pass. Reading: timesteps from `timestep_0` on of one sequence of the block. Drawing: timestep `timestep_0` of each.
struct Columns {
    int count;
    bool reading;
    u32 sequence_0, timestep_0;

    DEVICE u32 sequence(int column) const { return reading ? sequence_0 : column; }
    DEVICE u32 timestep(int column) const { return reading ? timestep_0 + column : timestep_0; }
};

// Starts a column: token + position + channel + subject (+ condition), by one warp.
DEVICE void embed(int column, const Tables& tables, u32 token, u32 position, u32 channel, u32 subject, u32 condition) {
    float* const x = floats(column * X_ROW);
#pragma unroll 4
    for (int i = lane_id(); i < E; i += 32) {
        float value = tables.token[(size_t)token * E + i] + tables.position[(size_t)position * E + i];
        value = value + tables.channel[(size_t)channel * E + i] + tables.subject[(size_t)subject * E + i];
        if (condition > 0) value += tables.condition[(size_t)condition * E + i];
        x[i] = value;
    }
}

// ---- norm and products ----------------------------------------------------------------------------------------------------

// Adds a half-block's bias and parts to a column of the residual stream, unless `bias` is null; then normalises it. By one warp; a
// lane reads what itself wrote.
DEVICE void add_and_normalize(int column, const float* bias) {
    float* const x = floats(column * X_ROW);
    const float* const partial = floats(PARTIAL_AT + column * PARTS * X_ROW);
    u16* const normal = halves(NORMAL_AT + column * E_ROW);
    float sum = 0, square = 0;
#pragma unroll 4
    for (int i = lane_id(); i < E; i += 32) {
        float value = x[i];
        if (bias) {
            float added = __ldg(bias + i);
#pragma unroll
            for (int part = 0; part < PARTS; ++part) added += partial[part * X_ROW + i];
            x[i] = value += added;
        }
        sum += value;
    }
    const float mean = sum_lanes<32>(sum) * (1.0f / E);
#pragma unroll 4
    for (int i = lane_id(); i < E; i += 32) square += (x[i] - mean) * (x[i] - mean);
    const float factor = rsqrt_approx(sum_lanes<32>(square) * (1.0f / E) + EPSILON);
#pragma unroll 4
    for (int i = lane_id(); i < E; i += 32) normal[i] = narrow((x[i] - mean) * factor);
}

// The products of weights for `outputs` outputs with TILES tiles of columns: `rows` in bf16, `row` words each; plus bias, unless
// it is null. The sum is cut into CUTS parts. Gives store(part, output, column, value) for every column below `count`.
template <int TILES, int STEPS, int CUTS, typename Store>
DEVICE void product(const uint4* weight, const float* bias, int outputs, const u32* rows, int row, int count, const Store& store) {
    constexpr int LEN = ceil_div(STEPS, CUTS);
    const int lane = lane_id(), g = lane >> 2, t = lane & 3;
#pragma unroll 1
    for (int item = warp_id(); item < ceil_div(outputs, 16) * CUTS; item += WARPS) {
        const int tile = item / CUTS, part = item % CUTS;
        const uint4* const w = weight + (tile * STEPS + part * LEN) * 32 + lane;
        const u32* const b = rows + g * row + 8 * part * LEN + 2 * t;
        float start[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int output = 16 * tile + 8 * half + g;
            start[half] = bias && output < outputs ? __ldg(bias + output) : 0.0f;
        }
        float c[TILES][4];
#pragma unroll
        for (int n = 0; n < TILES; ++n) c[n][0] = c[n][1] = start[0], c[n][2] = c[n][3] = start[1];
#pragma unroll 8
        for (int i = 0; i < LEN; ++i) {
            if (STEPS % CUTS != 0 && part * LEN + i >= STEPS) break;
            const uint4 f = __ldg(w + 32 * i);
#pragma unroll
            for (int n = 0; n < TILES; ++n) {
                uint2 k = make_uint2(0, 0);
                if (COLUMNS % 8 == 0 || g < COLUMNS) k = *reinterpret_cast<const uint2*>(b + 8 * n * row + 8 * i);
                mma16(c[n], f.x, f.z, f.y, f.w, k.x, k.y);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int output = 16 * tile + 8 * half + g;
            if (output >= outputs) continue;
#pragma unroll
            for (int n = 0; n < TILES; ++n) {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int column = 8 * n + 2 * t + i;
                    if (column < count) store(part, output, column, c[n][2 * half + i]);
                }
            }
        }
    }
}

// Asks for a layer's keys before they are needed: memory would otherwise rest while the block waits for weights. As many bytes of each
// block as memory delivers meanwhile, and as all blocks' together leave room for in the L2 cache.
DEVICE void fetch_keys(const u16* keys, size_t cache_len, int count, int n_key) {
    constexpr int MOST = 160 << 10;
    const int lines = ceil_div(n_key * CHUNK * 2, 128), all = count * (E / CHUNK) * lines;
    for (int i = threadIdx.x; i < all && i < MOST / 128; i += THREADS) {
        const int plane = i / lines % (E / CHUNK), sequence = i / lines / (E / CHUNK);
        const u16* const line = keys + sequence * cache_len + (size_t)plane * T * CHUNK + i % lines * 64;
        asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(line)));
    }
}

// ---- a pass through the network -----------------------------------------------------------------------------------------------

struct Network {
    const uint4* weight;
    const float* bias;
    u32 layers;
    // Of the block's first sequence.
    u16* cache;
};

// Takes the columns of `x` through all layers: keys and values into the cache and, unless they are only read, normalised rows for the
// head. Ends without a barrier.
template <int TILES>
DEVICE void pass(const Network& network, const Columns& columns) {
    const size_t cache_len = (size_t)network.layers * 2 * E * T;
    const int count = columns.count;
    const uint4* w = network.weight;
    const float* bias = network.bias;
    const float* added = nullptr;
#pragma unroll 1
    for (u32 layer = 0; layer < network.layers; ++layer, w += LAYER_LEN, bias += 9 * E) {
        u16* const kept = network.cache + (size_t)layer * 2 * E * T;
        for (int column = warp_id(); column < count; column += WARPS) add_and_normalize(column, added);
        __syncthreads();
        const auto keep = [&](int, int output, int column, float value) {
            const int part = output / E, i = output % E;
            if (part == 0) {
                halves(QUERY_AT + column * E_ROW)[i] = narrow(value);
            } else {
                const size_t plane = (size_t)(part - 1) * E + i / CHUNK * CHUNK;
                const size_t at = plane * T + columns.timestep(column) * CHUNK + i % CHUNK;
                kept[columns.sequence(column) * cache_len + at] = narrow(value);
            }
        };
        product<TILES, E_STEPS, 1>(w, bias, 3 * E, words_at(NORMAL_AT), E_ROW, count, keep);
        __syncthreads();
        // Of a token that is read, the last layer is asked for nothing but keys and values.
        if (columns.reading && layer + 1 == network.layers) return;

        // Sixteen queries of a sequence together, or the one that each has.
        const int together = columns.reading ? 16 : 1;
        for (int item = warp_id(); item < ceil_div(count, together) * H; item += WARPS) {
            const int column = item / H * together, head = item % H, first = columns.timestep(column);
            const u16* const keys = kept + columns.sequence(column) * cache_len + (size_t)head * D * T;
            const u16 *const values = keys + (size_t)E * T, *const queries = halves(QUERY_AT + column * E_ROW) + head * D;
            u16* const answers = halves(ANSWER_AT + column * E_ROW) + head * D;
            if (columns.reading) {
                attend<false>(keys, values, first, min(16, count - column), queries, answers, 2 * E_ROW);
            } else {
                attend<true>(keys, values, first, 1, queries, answers, 2 * E_ROW);
            }
        }
        __syncthreads();
        const auto add = [&](int part, int output, int column, float value) {
            floats(PARTIAL_AT)[(column * PARTS + part) * X_ROW + output] = value;
        };
        product<TILES, E_STEPS, PARTS>(w + PROJ_AT, nullptr, E, words_at(ANSWER_AT), E_ROW, count, add);
        __syncthreads();
        for (int column = warp_id(); column < count; column += WARPS) add_and_normalize(column, bias + 3 * E);
        __syncthreads();
        if (!columns.reading && layer + 1 < network.layers) {
            fetch_keys(kept + (size_t)2 * E * T, cache_len, count, columns.timestep_0);
        }
        const auto activate = [&](int, int output, int column, float value) {
            halves(HIDDEN_AT + column * F_ROW)[output] = narrow(gelu(value));
        };
        product<TILES, E_STEPS, 1>(w + FC_AT, bias + 4 * E, 4 * E, words_at(NORMAL_AT), E_ROW, count, activate);
        __syncthreads();
        product<TILES, F_STEPS, PARTS>(w + OUT_AT, nullptr, E, words_at(HIDDEN_AT), F_ROW, count, add);
        __syncthreads();
        added = bias + 8 * E;
    }
    for (int column = warp_id(); column < count; column += WARPS) add_and_normalize(column, added);
}

KERNEL __launch_bounds__(THREADS, 1) decode(const uint4* weight, const float* bias, u32 layers, const uint4* head,
                                         const float* head_bias, u32 head_len, const float* token, const float* position,
                                         const float* channel, const float* subject, const float* condition,
                                         const u8* prompt, const u16* conditions, const u32* channels, const u32* subjects,
                                         const u64* keys, u32 n, u32 per_block, u32 n_prompt, u32 n_new, u32 begin,
                                         u32 end, u64 timestep, u64 seed, float scale, u32 top_k, u64 top_p, u32 greedy, u16* cache, u8* tokens,
                                         float* logits, u32* failed) {
    const u32 first = blockIdx.x * per_block, own = min(per_block, n - first), read = n_prompt - 1;
    const u32 fed = n_prompt + n_new - 1;
    const int lane = lane_id(), warp = warp_id();
    const Tables tables = {token, position, channel, subject, condition};
    const Network network = {weight, bias, layers, cache + (size_t)first * layers * 2 * E * T};
    const Sampler sampler = {scale, top_k, top_p, greedy};
    // What lies beyond a width stays zero, for it meets weights that are.
    for (int i = threadIdx.x; i < words(COLUMNS); i += THREADS) words_at(0)[i] = 0;
    __syncthreads();

    const auto start = [&](int column, u32 sequence, u32 at, u32 id) {
        const size_t i = first + sequence;
        embed(column, tables, id, at, channels[i], subjects[i], conditions[i * fed + at]);
    };
#pragma unroll 1
    for (u32 sequence = 0; sequence < own; ++sequence) {
#pragma unroll 1
        for (u32 at = begin; at < min(read, end); at += COLUMNS) {
            const Columns columns = {int(min(min(read, end) - at, u32(COLUMNS))), true, sequence, at};
            for (int column = warp; column < columns.count; column += WARPS) {
                start(column, sequence, at + column, prompt[(size_t)(first + sequence) * n_prompt + at + column]);
            }
            pass<ceil_div(COLUMNS, 8)>(network, columns);
        }
    }

    // From here on a sequence is a column, and the warp of its number embeds and draws its tokens.
    const size_t mine = first + warp;
    const u32 begin_step = max(begin, read) - read;
    u32 id = 0, wrong = 0, random = 0;
    if (warp < own) {
        id = begin_step ? tokens[mine * n_new + begin_step - 1] : prompt[mine * n_prompt + read];
        wrong = begin_step ? failed[mine] : 0;
    }
#pragma unroll 1
    for (u32 step = begin_step; read + step < end; ++step) {
        if (warp < own) start(warp, warp, read + step, id);
        pass<1>(network, {int(own), false, 0, read + step});
        __syncthreads();
        // All columns with the one head, or each with its own.
        for (u32 s = 0; s < (head_len ? own : 1); ++s) {
            const size_t matrix = head_len ? channels[first + s] : 0;
            const auto store = [&](int, int level, int column, float value) {
                if (!head_len || column == s) floats(LOGITS_AT)[column * Q_ROW + level] = value;
            };
            product<1, E_STEPS, 1>(head + matrix * head_len, head_bias + matrix * Q, Q, words_at(NORMAL_AT), E_ROW, own, store);
        }
        __syncthreads();
        if (warp < own) {
            const float* const row = floats(LOGITS_AT + warp * Q_ROW);
            // A lane keeps the word of one of 32 steps.
            if ((step % 32 == 0 || step == begin_step) && !greedy) {
                random = sampling_word(seed, keys[mine], timestep + step / 32 * 32 + lane);
            }
            id = draw(row, sampler, __shfl_sync(ALL_LANES, random, step % 32));
            if (id == NOT_FINITE) {
                wrong = wrong ? wrong : step + 1;
                id = 0;
            }
            if (lane == 0) tokens[mine * n_new + step] = id;
            for (int i = lane; logits && i < Q; i += 32) logits[(mine * n_new + step) * Q + i] = row[i];
        }
    }
    if (warp < own && lane == 0) failed[mine] = wrong;
}
