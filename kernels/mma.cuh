// Tensor-core steps, copies into shared memory and half-precision arithmetic as the prefill kernels need them.
//
// Half-precision numbers travel as bits: one in an `unsigned short`, two in an `unsigned` with the first in the low
// half. Under CUDA_EMU everything has a plain body that moves the same values between the same lanes as the
// instruction does (PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix"), so that the emulator checks the
// layouts, too. All functions marked "warp" are for whole warps.
#pragma once

#include "common.cuh"

DEVICE unsigned halves_of(float first, float second) {
    return float_to_half(first) | (unsigned)float_to_half(second) << 16;
}

DEVICE unsigned halves_sub(unsigned a, unsigned b) {
#ifdef CUDA_EMU
    float2 x = halves_to_floats(a), y = halves_to_floats(b);
    return halves_of(x.x - y.x, x.y - y.y);
#else
    unsigned d;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
#endif
}

DEVICE unsigned halves_mul(unsigned a, unsigned b) {
#ifdef CUDA_EMU
    float2 x = halves_to_floats(a), y = halves_to_floats(b);
    return halves_of(x.x * y.x, x.y * y.y);
#else
    unsigned d;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
#endif
}

// The bytes `pair` and `pair + 1` of `bytes` (pair 0 or 2) as halves of value 1024 + byte: a half of 1024 holds a byte
// in the low bits of its fraction.
DEVICE unsigned halves_1024(unsigned bytes, int pair) {
#ifdef CUDA_EMU
    return 0x64006400u | (bytes >> (8 * pair) & 0xffu) | (bytes >> (8 * pair + 8) & 0xffu) << 16;
#else
    unsigned d;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(bytes), "r"(0x64646464u), "r"(pair == 0 ? 0x4140u : 0x4342u));
    return d;
#endif
}

// Four 8x8 matrices of halves from shared memory (warp). Lane 8 j + i gives the address of row i of matrix j (16
// bytes, 16-byte aligned). Lane l gets of matrix j the elements 2 (l % 4) and the next of row l / 4, in d[j].
DEVICE void load_matrices(unsigned d[4], const unsigned short* row) {
#ifdef CUDA_EMU
    int lane = threadIdx.x & 31;
    for (int j = 0; j < 4; j++) {
        const unsigned short* from = __shfl_sync(ALL_LANES, row, 8 * j + lane / 4);
        d[j] = from[2 * (lane % 4)] | (unsigned)from[2 * (lane % 4) + 1] << 16;
    }
#else
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(at)
                 : "memory");
#endif
}

// As `load_matrices`, but lane l gets of matrix j the elements l / 4 of the rows 2 (l % 4) and the next (warp).
DEVICE void load_matrices_transposed(unsigned d[4], const unsigned short* row) {
#ifdef CUDA_EMU
    int lane = threadIdx.x & 31;
    for (int j = 0; j < 4; j++) {
        const unsigned short* first = __shfl_sync(ALL_LANES, row, 8 * j + 2 * (lane % 4));
        const unsigned short* second = __shfl_sync(ALL_LANES, row, 8 * j + 2 * (lane % 4) + 1);
        d[j] = first[lane / 4] | (unsigned)second[lane / 4] << 16;
    }
#else
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(at)
                 : "memory");
#endif
}

// c += a b for a [16][16], b [16][8], c [16][8] floats (warp). With g = lane / 4, t = lane % 4: a[0] holds a[g][2t..],
// a[1] a[g + 8][2t..], a[2] a[g][2t + 8..], a[3] a[g + 8][2t + 8..]; b0 holds b[2t..][g], b1 b[2t + 8..][g];
// c[0], c[1] are c[g][2t..], c[2], c[3] are c[g + 8][2t..].
DEVICE void multiply_16x8x16(float c[4], const unsigned a[4], unsigned b0, unsigned b1) {
#ifdef CUDA_EMU
    int lane = threadIdx.x & 31, group = lane & ~3;
    unsigned long long top = a[0] | (unsigned long long)a[2] << 32, bottom = a[1] | (unsigned long long)a[3] << 32;
    unsigned long long column = b0 | (unsigned long long)b1 << 32;
    float upper[16], lower[16], left[16], right[16];
    for (int t = 0; t < 4; t++) {
        unsigned long long got[4] = {__shfl_sync(ALL_LANES, top, group + t), __shfl_sync(ALL_LANES, bottom, group + t),
                                     __shfl_sync(ALL_LANES, column, 8 * (lane % 4) + t),
                                     __shfl_sync(ALL_LANES, column, 8 * (lane % 4) + 4 + t)};
        float* to[4] = {upper, lower, left, right};
        for (int i = 0; i < 4; i++)
            for (int k = 0; k < 4; k++)
                to[i][2 * t + (k & 1) + 8 * (k >> 1)] = half_to_float((unsigned short)(got[i] >> (16 * k)));
    }
    for (int k = 0; k < 16; k++) {
        c[0] += upper[k] * left[k];
        c[1] += upper[k] * right[k];
        c[2] += lower[k] * left[k];
        c[3] += lower[k] * right[k];
    }
#elif __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    // sm_75 knows half of it at a time.
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

// 16 bytes from global to shared memory, zeros unless `there`; both 16-byte aligned. On sm_80 and later they are there
// after `wait_copies`.
DEVICE void copy_16(void* to, const void* from, bool there) {
#if !defined(CUDA_EMU) && __CUDA_ARCH__ >= 800
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(there ? 16 : 0) : "memory");
#else
    *(uint4*)to = there ? *(const uint4*)from : uint4{0, 0, 0, 0};
#endif
}

// As `copy_16` for 4 bytes.
DEVICE void copy_4(void* to, const void* from, bool there) {
#if !defined(CUDA_EMU) && __CUDA_ARCH__ >= 800
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from), "r"(there ? 4 : 0) : "memory");
#else
    *(unsigned*)to = there ? *(const unsigned*)from : 0u;
#endif
}

// Waits for the thread's own copies; others see them after a barrier.
DEVICE void wait_copies() {
#if !defined(CUDA_EMU) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
