// What all kernels share: the model's shape, tensor cores by their fragments, and arithmetic with its error.
//
// The shape comes from the command line of the compiler: D_MODEL (E), N_HEAD (H), N_TIME (T), N_LEVEL (Q); D = E / H.
// No CUDA header is included, so NVRTC alone is enough to compile these files.
//
// Fragments. In a warp, lane = 4·g + t with g in 0..8 and t in 0..4. The PTX manual's layouts, for 16-bit operands in
// pairs of one register each (the lower half holds the lower index):
//
//     A, 16 × 16   a0 (row g, k 2t..)   a1 (row g+8, k 2t..)   a2 (row g, k 2t+8..)   a3 (row g+8, k 2t+8..)
//     B, 16 × 8    b0 (k 2t.., column g)                       b1 (k 2t+8.., column g)
//     C, 16 × 8    c0 c1 (row g, columns 2t, 2t+1)             c2 c3 (row g+8, columns 2t, 2t+1)
//     A, 16 × 8    a0 (row g, k 2t..)   a1 (row g+8, k 2t..)   B, 8 × 8    b0 (k 2t.., column g)
//
// Interleaved order. The order of k is free as long as both operands agree, and so is that of columns as long as the
// reader of C knows it. Within sixteen, index 8p + 2t + b of a fragment stands for 4t + 2p + b of the matrix. A lane then
// owns four neighbours of a row, in A as well as in two C tiles: sixteen bytes of f32, loaded and stored at once, with
// nothing to exchange between the lanes when C becomes A, or when a result is added to the row it came from.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void

constexpr int E = D_MODEL;
constexpr int H = N_HEAD;
constexpr int D = E / H;
constexpr int T = N_TIME;
constexpr int Q = N_LEVEL;

constexpr u32 ALL_LANES = 0xffffffffu;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;
#define MINUS_INFINITY __int_as_float(0xff800000)
#define NOT_A_NUMBER __int_as_float(0x7fffffff)
// Added to the variance (GPT-2).
constexpr float EPSILON = 1e-5f;

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Shared memory of the size that the launch asks for.
extern __shared__ uint4 shared[];

DEVICE u32 lane_id() { return threadIdx.x & 31; }
DEVICE u32 warp_id() { return threadIdx.x >> 5; }

// ---- bf16 -----------------------------------------------------------------------------------------------------------

// Two floats, rounded to nearest even, as bf16 in one register.
DEVICE u32 pack(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

DEVICE float low(u32 both) { return __uint_as_float(both << 16); }
DEVICE float high(u32 both) { return __uint_as_float(both & 0xffff0000u); }

// One number in bf16, and back.
DEVICE u16 narrow(float x) { return static_cast<u16>(pack(x, 0.0f)); }
DEVICE float widen(u16 x) { return __uint_as_float(static_cast<u32>(x) << 16); }

// ---- special functions ------------------------------------------------------------------------------------------------

// 2^x; relative error 2^-22, subnormal results are zero.
DEVICE float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// log2(x); absolute error 2^-22 near 1, relative error 2^-22 elsewhere.
DEVICE float log2_approx(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// tanh(x); relative error 2^-11.
DEVICE float tanh_approx(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x; one unit in the last place.
DEVICE float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / √x; relative error 2^-22.4.
DEVICE float rsqrt_approx(float x) {
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// √x; relative error 2^-23.
DEVICE float sqrt_approx(float x) {
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// tanh-GELU: x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))). One special function and five operations.
DEVICE float gelu(float x) {
    const float slope = fmaf(0.0356774081f, x * x, 0.7978845608f);
    const float half = 0.5f * x;
    return fmaf(half, tanh_approx(x * slope), half);
}

// GELU and its derivative, by x·σ(a) with a = 2√(2/π)·(x + 0.044715·x³): σ + x·σ·(1 − σ)·a'. Not by tanh: where its rounding
// leaves 1 − tanh² far from nothing, x³ would make much of it. 1 − σ is 2^-a·σ, without cancellation. Beyond ±10 σ has reached 1,
// or the smallest normal numbers, so clamping changes nothing.
DEVICE void gelu_and_slope(float x, float& value, float& slope) {
    const float near = fminf(fmaxf(x, -10.0f), 10.0f), square = near * near;
    const float other = exp2_approx(near * fmaf(-0.1029431642f, square, -2.3022081892f));
    const float gate = reciprocal(1.0f + other);
    value = x * gate;
    slope = fmaf(near * gate * (other * gate), fmaf(0.2140644448f, square, 1.5957691216f), gate);
}

// ---- tensor cores -----------------------------------------------------------------------------------------------------

// c += a · b, 16 × 16 by 16 × 8.
DEVICE void mma16(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

DEVICE void mma16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma16(c, a[0], a[1], a[2], a[3], b0, b1); }

// c = a · b + start, 16 × 8 by 8 × 8.
DEVICE void mma8(float (&c)[4], u32 a0, u32 a1, u32 b0, const float (&start)[4]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
        : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
        : "r"(a0), "r"(a1), "r"(b0), "f"(start[0]), "f"(start[1]), "f"(start[2]), "f"(start[3]));
}

// Four 8 × 8 matrices from shared memory: each lane gives the address of one row of sixteen bytes.
DEVICE void load_matrices(u32 (&a)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(address)
                 : "memory");
}

// As `load_matrices`, each transposed.
DEVICE void load_transposed(u32 (&a)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(address)
                 : "memory");
}

// The transpose of an 8 × 8 matrix of which each lane holds a pair.
DEVICE u32 transpose(u32 pair) {
    u32 out;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
    return out;
}

// The address of shared memory that instructions of the shared space take.
DEVICE u32 shared_address(const void* pointer) { return static_cast<u32>(__cvta_generic_to_shared(pointer)); }

// Copies sixteen bytes from global to shared memory, without passing through registers.
DEVICE void copy_async(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(__cvta_generic_to_global(from)) : "memory");
}

// As `copy_async`, but only the first `bytes` are read; the others become zero.
DEVICE void copy_async_part(u32 to, const void* from, u32 bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes)
                 : "memory");
}

// As `copy_async`, but zeros where `there` is false.
DEVICE void copy_async_if(u32 to, const void* from, bool there) { copy_async_part(to, from, there ? 16 : 0); }

DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `pending` groups of this thread's copies are still under way.
template <int pending>
DEVICE void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// ---- sums over lanes, in a fixed order ----------------------------------------------------------------------------------

// The sum over the lanes that differ in the bits of `width - 1`, in all of them.
template <int width>
DEVICE float sum_lanes(float x) {
#pragma unroll
    for (int bit = 1; bit < width; bit *= 2) x += __shfl_xor_sync(ALL_LANES, x, bit);
    return x;
}

template <int width>
DEVICE float max_lanes(float x) {
#pragma unroll
    for (int bit = 1; bit < width; bit *= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, bit));
    return x;
}
