// Matrices that move between lanes: ldmatrix with and without transposition, movmatrix, and tf32 and f16 products.
#include <cuda_fp16.h>

// The 8 x 8 blocks of a 16 x 16 matrix of b16, out in the fragments' order, plain and transposed.
extern "C" __global__ void load_fragments(const unsigned short *x, unsigned int *plain, unsigned int *turned, unsigned int *moved) {
    __shared__ __align__(16) unsigned short tile[16 * 16];
    int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) {
        tile[i] = x[i];
    }
    __syncwarp();
    unsigned int at = __cvta_generic_to_shared(&tile[(lane % 16) * 16 + lane / 16 * 8]);
    unsigned int a, b, c, d;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(at));
    plain[lane * 4 + 0] = a;
    plain[lane * 4 + 1] = b;
    plain[lane * 4 + 2] = c;
    plain[lane * 4 + 3] = d;
    unsigned int turned_a;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned_a) : "r"(a));
    moved[lane] = turned_a;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(at));
    turned[lane * 4 + 0] = a;
    turned[lane * 4 + 1] = b;
    turned[lane * 4 + 2] = c;
    turned[lane * 4 + 3] = d;
}

// D = A B with A 16 x 8 and B 8 x 8 in tf32, loaded by the manual's fragment layout; B by columns.
extern "C" __global__ void product_tf32(const float *a, const float *b, float *d) {
    int group = threadIdx.x / 4, member = threadIdx.x % 4;
    unsigned int x[4], y[2];
    for (int i = 0; i < 4; i++) {
        float v = a[(group + i % 2 * 8) * 8 + member + i / 2 * 4];
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(x[i]) : "f"(v));
    }
    for (int i = 0; i < 2; i++) {
        float v = b[(member + i * 4) * 8 + group];
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y[i]) : "f"(v));
    }
    float s[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
    for (int i = 0; i < 4; i++) {
        d[(group + i / 2 * 8) * 8 + member * 2 + i % 2] = s[i];
    }
}
