// What all kernels share: block layouts, loads, conversions, reductions in a fixed order, activations and their
// quantization, the words of the mailbox. Everything here is meant to be inlined.
//
// The same source runs on the CPU under an emulator, which defines CUDA_EMU: inline assembly has a C++ version there.
#pragma once

#define DEVICE static __device__ __forceinline__

// ---- Layouts -------------------------------------------------------------------------------------------------------
//
// Type codes are ggml's. A matrix [n_stored][n_cols] is two planes: the quant parts of all blocks in row-major order,
// then the scale parts of all blocks, directly behind. Types without a scale plane are rows as they are in the file.
// The base is aligned to 256 bytes, and quant parts are multiples of 16, so every quant part can be loaded by 16 bytes.

#define TYPE_F32 0
#define TYPE_F16 1
#define TYPE_Q4_0 2
#define TYPE_Q5_0 6
#define TYPE_Q5_1 7
#define TYPE_Q8_0 8
#define TYPE_Q4_K 12
#define TYPE_Q5_K 13
#define TYPE_Q6_K 14
#define TYPE_IQ4_NL 20
#define TYPE_BF16 30

// LEN elements per block, QUANTS bytes of a block in the first plane, SCALES bytes in the second.
template <int TYPE> struct Layout;
template <> struct Layout<TYPE_F32> { enum { LEN = 1, QUANTS = 4, SCALES = 0 }; };
template <> struct Layout<TYPE_F16> { enum { LEN = 1, QUANTS = 2, SCALES = 0 }; };
template <> struct Layout<TYPE_BF16> { enum { LEN = 1, QUANTS = 2, SCALES = 0 }; };
// 16 bytes: byte i holds element i in its low and element i + 16 in its high half, offset by 8. Scale: f16.
template <> struct Layout<TYPE_Q4_0> { enum { LEN = 32, QUANTS = 16, SCALES = 2 }; };
// Half-bytes as in Q4_0, indices of levels (levels_of). Scale: f16.
template <> struct Layout<TYPE_IQ4_NL> { enum { LEN = 32, QUANTS = 16, SCALES = 2 }; };
// Half-bytes as in Q4_0. Scale: f16, then the fifth bits, bit i that of element i; the offset is 16.
template <> struct Layout<TYPE_Q5_0> { enum { LEN = 32, QUANTS = 16, SCALES = 6 }; };
// As Q5_0, without an offset: the value of 0, f16, lies between the scale and the fifth bits.
template <> struct Layout<TYPE_Q5_1> { enum { LEN = 32, QUANTS = 16, SCALES = 8 }; };
// 32 signed bytes. Scale: f16.
template <> struct Layout<TYPE_Q8_0> { enum { LEN = 32, QUANTS = 32, SCALES = 2 }; };
// As in the file: f16 d, f16 d_min, 12 bytes of 6-bit scales and minima, 128 bytes of half-bytes.
template <> struct Layout<TYPE_Q4_K> { enum { LEN = 256, QUANTS = 144, SCALES = 0 }; };
// As Q4_K, with 32 bytes of fifth bits before the half-bytes: bit j of byte i is that of element 32 j + i.
template <> struct Layout<TYPE_Q5_K> { enum { LEN = 256, QUANTS = 176, SCALES = 0 }; };
// 128 bytes of lower halves, 64 bytes of upper two bits, 16 signed bytes of scales. Scale: f16.
template <> struct Layout<TYPE_Q6_K> { enum { LEN = 256, QUANTS = 208, SCALES = 2 }; };

// Bytes of a row in the first plane.
template <int TYPE> DEVICE size_t row_quants(int n_cols) {
    return (size_t)(n_cols / Layout<TYPE>::LEN) * Layout<TYPE>::QUANTS;
}

// Where the scales of a row begin.
template <int TYPE> DEVICE const unsigned char* row_scales(const unsigned char* w, int n_stored, int n_cols, int row) {
    size_t n_blocks = n_cols / Layout<TYPE>::LEN;
    return w + (size_t)n_stored * n_blocks * Layout<TYPE>::QUANTS + (size_t)row * n_blocks * Layout<TYPE>::SCALES;
}

// ---- Activations ---------------------------------------------------------------------------------------------------
//
// x8 is one allocation for n elements: bytes q[n], then float d[n / 32], then float ds[n / 32], which is d times the sum
// of the q. Value = q * d. Several tokens lie n + n / 4 bytes apart.

#define QK 32

DEVICE size_t x8_bytes(int n) { return (size_t)n + n / 4; }
DEVICE const float* x8_d(const signed char* x8, int n) { return (const float*)(x8 + n); }
DEVICE const float* x8_ds(const signed char* x8, int n) { return (const float*)(x8 + n) + n / QK; }

// ---- Mailbox -------------------------------------------------------------------------------------------------------
//
// Offsets in bytes of the words in mapped host memory, each on a line of its own; mirrored in src/gpu/mailbox.rs.

#define MAILBOX_POSTED 0
#define MAILBOX_DONE 128
#define MAILBOX_REPLIED 256
#define MAILBOX_STOP 384
#define MAILBOX_FAILED 512
#define MAILBOX_TOKEN 640
#define MAILBOX_POST_N 768
#define MAILBOX_WAITED 896

// Tokens that are computed at once at the most.
#define MAX_TOKENS 8

// State of the tokens that are being computed together: one in device memory, 256 bytes, filled by begin_token.
struct Token {
    unsigned first_ticket;      // job j has the ticket first_ticket + j
    int position;               // of the first token in the context of its sequence
    unsigned dead;              // a wait ran out: all later ones return at once
    unsigned skip;              // the current job was not posted: there is nothing to wait for
    int positions[MAX_TOKENS];  // of each token
    int sequences[MAX_TOKENS];  // which of the sequences in device memory each is of
    unsigned spare[60 - 2 * MAX_TOKENS];
};
static_assert(sizeof(Token) == 256, "mirrored by the host");

// ---- Loads ---------------------------------------------------------------------------------------------------------

// 16 bytes by the read-only path: for what several threads read. Nobody may write there while the kernel runs.
DEVICE int4 load16(const void* p) {
#ifdef CUDA_EMU
    return *(const int4*)p;
#else
    int4 v;
    asm("ld.global.nc.v4.s32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
#endif
}

// The same for what is read once: leaves the nearest cache to the activations.
DEVICE int4 stream16(const void* p) {
#ifdef CUDA_EMU
    return *(const int4*)p;
#else
    int4 v;
    asm("ld.global.nc.L1::no_allocate.v4.s32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(p));
    return v;
#endif
}

DEVICE unsigned short load2(const void* p) {
#ifdef CUDA_EMU
    return *(const unsigned short*)p;
#else
    unsigned short v;
    asm("ld.global.nc.u16 %0, [%1];" : "=h"(v) : "l"(p));
    return v;
#endif
}

DEVICE uint2 load8(const void* p) {
#ifdef CUDA_EMU
    return *(const uint2*)p;
#else
    uint2 v;
    asm("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
#endif
}

DEVICE int load_signed_byte(const void* p) {
#ifdef CUDA_EMU
    return *(const signed char*)p;
#else
    int v;
    asm("ld.global.nc.s8 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
#endif
}

DEVICE float load_float(const float* p) {
#ifdef CUDA_EMU
    return *p;
#else
    float v;
    asm("ld.global.nc.f32 %0, [%1];" : "=f"(v) : "l"(p));
    return v;
#endif
}

DEVICE float2 load_float2(const float* p) {
#ifdef CUDA_EMU
    return *(const float2*)p;
#else
    float2 v;
    asm("ld.global.nc.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(p));
    return v;
#endif
}

DEVICE float4 load_float4(const float* p) {
#ifdef CUDA_EMU
    return *(const float4*)p;
#else
    float4 v;
    asm("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p));
    return v;
#endif
}

// What other blocks of the same launch wrote before their __threadfence: past the nearest cache, which may be stale.
DEVICE float load_fresh(const float* p) {
#ifdef CUDA_EMU
    return *p;
#else
    float v;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
    return v;
#endif
}

// ---- Bits and numbers ----------------------------------------------------------------------------------------------

DEVICE float float_of_bits(unsigned bits) {
#ifdef CUDA_EMU
    float v;
    memcpy(&v, &bits, 4);
    return v;
#else
    return __uint_as_float(bits);
#endif
}

DEVICE unsigned bits_of_float(float v) {
#ifdef CUDA_EMU
    unsigned bits;
    memcpy(&bits, &v, 4);
    return bits;
#else
    return __float_as_uint(v);
#endif
}

DEVICE float not_a_number() { return float_of_bits(0x7fc00000u); }
DEVICE float infinite() { return float_of_bits(0x7f800000u); }

// Product and sum rounded each: never fused, where bits must be those of the CPU.
DEVICE float mul_rounded(float a, float b) {
#ifdef CUDA_EMU
    volatile float v = a * b;
    return v;
#else
    return __fmul_rn(a, b);
#endif
}
DEVICE float add_rounded(float a, float b) {
#ifdef CUDA_EMU
    volatile float v = a + b;
    return v;
#else
    return __fadd_rn(a, b);
#endif
}

DEVICE float half_to_float(unsigned short h) {
#ifdef CUDA_EMU
    // The exponents of the two formats are offset by 112.
    unsigned sign = (unsigned)(h & 0x8000) << 16, rest = (unsigned)(h & 0x7fff) << 13;
    unsigned special = (h & 0x7c00) == 0x7c00 ? 0x7f800000u : 0;
    return float_of_bits(bits_of_float(float_of_bits(rest) * float_of_bits((127u + 112u) << 23)) | special | sign);
#else
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(h));
    return v;
#endif
}

// The two halves of a word, low one first.
DEVICE float2 halves_to_floats(unsigned w) {
    float2 v;
    v.x = half_to_float((unsigned short)w);
    v.y = half_to_float((unsigned short)(w >> 16));
    return v;
}

// Rounded to nearest, half to even.
DEVICE unsigned short float_to_half(float v) {
#ifdef CUDA_EMU
    unsigned bits = bits_of_float(v), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000u) return (unsigned short)(sign | 0x7e00);
    if (size >= 0x477ff000u) return (unsigned short)(sign | 0x7c00); // rounds to 65536 or more
    if (size < 0x38800000u) {                                        // subnormal: adding 0.5 leaves its bits at the end
        return (unsigned short)(sign | (bits_of_float(float_of_bits(size) + 0.5f) - bits_of_float(0.5f)));
    }
    unsigned odd = size >> 13 & 1;
    return (unsigned short)(sign | (size + 0xfffu + odd - (112u << 23)) >> 13);
#else
    unsigned short h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
#endif
}

DEVICE float bf16_to_float(unsigned short b) { return float_of_bits((unsigned)b << 16); }

DEVICE float2 bf16s_to_floats(unsigned w) {
    float2 v;
    v.x = float_of_bits(w << 16);
    v.y = float_of_bits(w & 0xffff0000u);
    return v;
}

// The two 16-bit floats of a word of TYPE, low one first.
template <int TYPE> DEVICE float2 pair_to_floats(unsigned w) {
    return TYPE == TYPE_F16 ? halves_to_floats(w) : bf16s_to_floats(w);
}

// Rounded to nearest, half to even; what is not a number stays so.
DEVICE unsigned short float_to_bf16(float v) {
    unsigned bits = bits_of_float(v);
    if ((bits & 0x7fffffff) > 0x7f800000u) return (unsigned short)(bits >> 16 | 0x40);
    return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// c plus the four products of signed bytes. In assembly, because NVRTC 12.0 leaves __dp4a unresolved.
DEVICE int dp4a(int a, int b, int c) {
#ifdef CUDA_EMU
    for (int i = 0; i < 4; i++) {
        c += (int)(signed char)((unsigned)a >> 8 * i) * (int)(signed char)((unsigned)b >> 8 * i);
    }
    return c;
#else
    int r;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
#endif
}

// 2^23 plus byte I of w (unsigned), as a float, made without a conversion: those run at a fraction of the rate.
template <int I> DEVICE float byte_above_2_23(unsigned w) {
#ifdef CUDA_EMU
    return float_of_bits(0x4b000000u | (w >> 8 * I & 0xff));
#else
    unsigned r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(w), "r"(0x4b000000u), "n"(0x7540 + I));
    return __uint_as_float(r);
#endif
}

// ---- Packed quants -------------------------------------------------------------------------------------------------

DEVICE int low_halves(int q) { return q & 0x0f0f0f0f; }
DEVICE int high_halves(int q) { return (int)((unsigned)q >> 4 & 0x0f0f0f0f); }
DEVICE int4 low_halves(const int4& q) { return {low_halves(q.x), low_halves(q.y), low_halves(q.z), low_halves(q.w)}; }
DEVICE int4 high_halves(const int4& q) { return {high_halves(q.x), high_halves(q.y), high_halves(q.z), high_halves(q.w)}; }

// Half-bytes with four of their fifth bits, of which the lowest is that of the lowest byte.
DEVICE int five_bits(int low, unsigned four) { return low | (int)((four & 0xf) * 0x00204081u << 4 & 0x10101010u); }
DEVICE int4 five_bits(const int4& low, unsigned sixteen) {
    return {five_bits(low.x, sixteen), five_bits(low.y, sixteen >> 4), five_bits(low.z, sixteen >> 8),
            five_bits(low.w, sixteen >> 12)};
}

// Half-bytes with their fifth bits, which are bit `shift` of the bytes of `top`.
DEVICE int fifth_of_bytes(int low, int top, int shift) { return low | (int)((unsigned)top >> shift << 4 & 0x10101010u); }
DEVICE int4 fifth_of_bytes(const int4& low, const int4& top, int shift) {
    return {fifth_of_bytes(low.x, top.x, shift), fifth_of_bytes(low.y, top.y, shift),
            fifth_of_bytes(low.z, top.z, shift), fifth_of_bytes(low.w, top.w, shift)};
}

// Of the eight bytes of a and b those that the lower four half-bytes of `at` say: 0 to 3 are a's, 4 to 7 b's.
DEVICE unsigned bytes_at(unsigned a, unsigned b, unsigned at) {
#ifdef CUDA_EMU
    unsigned long long both = (unsigned long long)b << 32 | a;
    unsigned v = 0;
    for (int i = 0; i < 4; i++) v |= (unsigned)(both >> 8 * (at >> 4 * i & 7) & 0xff) << 8 * i;
    return v;
#else
    unsigned v;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(v) : "r"(a), "r"(b), "r"(at));
    return v;
#endif
}

// The levels of IQ4_NL, signed bytes, at the lower four half-bytes of `at`.
DEVICE unsigned levels_at(unsigned at) {
    unsigned low = at & 0x7777, below = bytes_at(0xbfad9881u, 0xf6eaddcfu, low);
    unsigned above = bytes_at(0x26190d01u, 0x71594535u, low);
    return bytes_at(below, above, 0x3210 | (at & 0x8888) >> 1);
}

// Of the bytes of q the levels of the low halves, and of the high halves.
struct Levels {
    int low, high;
};
DEVICE Levels levels_of(int q) {
    unsigned a = levels_at((unsigned)q), b = levels_at((unsigned)q >> 16);
    return {(int)bytes_at(a, b, 0x6420), (int)bytes_at(a, b, 0x7531)};
}
DEVICE void levels_of(const int4& q, int4* low, int4* high) {
    Levels x = levels_of(q.x), y = levels_of(q.y), z = levels_of(q.z), w = levels_of(q.w);
    *low = {x.low, y.low, z.low, w.low};
    *high = {x.high, y.high, z.high, w.high};
}

DEVICE int dot16(const int4& a, const int4& b) { return dp4a(a.x, b.x, dp4a(a.y, b.y, dp4a(a.z, b.z, dp4a(a.w, b.w, 0)))); }

// The scales and the minima of the sub-blocks 2 j and 2 j + 1 (bits 0 to 7 and 8 to 15) of a Q4_K or Q5_K super-block
// whose first 16 bytes are `head`.
DEVICE void scales_and_mins_of_q4_k(const int4& head, int j, unsigned* scales, unsigned* mins) {
    unsigned a = (unsigned)head.y >> 16 * (j % 2), b = (unsigned)head.z >> 16 * (j % 2);
    unsigned c = (unsigned)head.w >> 16 * (j % 2);
    *scales = j < 2 ? a & 0x3f3f : (c & 0x0f0f) | (a >> 2 & 0x3030);
    *mins = j < 2 ? b & 0x3f3f : (c >> 4 & 0x0f0f) | (b >> 2 & 0x3030);
}

// The six-bit values of a Q6_K super-block, 16 at a time: their lower halves in `low`, the upper two bits `shift`
// bits up in each byte of `top`.
DEVICE int six_bits(int low, unsigned top) { return low | (int)(top << 4 & 0x30303030); }
DEVICE int4 six_bits(const int4& low, const int4& top, int shift) {
    return {six_bits(low.x, (unsigned)top.x >> shift), six_bits(low.y, (unsigned)top.y >> shift),
            six_bits(low.z, (unsigned)top.z >> shift), six_bits(low.w, (unsigned)top.w >> shift)};
}

// ---- Reductions, in an order that depends on the number of threads only --------------------------------------------

#define ALL_LANES 0xffffffffu

// Sum over n neighbouring lanes, n a power of two up to 32; every lane of them gets it. All lanes of the warp take part.
DEVICE float lanes_sum(float v, int n) {
    for (int o = n >> 1; o > 0; o >>= 1) v += __shfl_xor_sync(ALL_LANES, v, o);
    return v;
}

DEVICE float warp_sum(float v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(ALL_LANES, v, o);
    return v;
}

DEVICE int warp_sum_int(int v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(ALL_LANES, v, o);
    return v;
}

// As fmaxf, so without what is not a number.
DEVICE float warp_max(float v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, o));
    return v;
}

// Sum over a block of N threads (whole warps), for every thread. `scratch` is shared memory of N / 32 floats, free again
// after the caller's next barrier; all threads take part.
template <int N> DEVICE float block_sum(float v, float* scratch) {
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < N / 32; i++) sum += scratch[i];
    return sum;
}

template <int N> DEVICE float block_max(float v, float* scratch) {
    v = warp_max(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    float most = scratch[0];
#pragma unroll
    for (int i = 1; i < N / 32; i++) most = fmaxf(most, scratch[i]);
    return most;
}

// ---- Talking to the host -------------------------------------------------------------------------------------------

// What the host wrote before it released the word is seen after this.
DEVICE unsigned load_acquire_system(const unsigned* p) {
#ifdef CUDA_EMU
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
#else
    unsigned v;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
#endif
}

// What this thread wrote before (and other threads, before a __threadfence_system and a barrier) is seen by the host
// that acquires the word.
DEVICE void store_release_system(unsigned* p, unsigned v) {
#ifdef CUDA_EMU
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
#else
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
#endif
}

// Adds v to a counter that blocks share; what others wrote before their fence and their addition is seen after this.
DEVICE unsigned add_acquire(unsigned* p, unsigned v) {
#ifdef CUDA_EMU
    unsigned old = atomicAdd(p, v);
    __threadfence();
    return old;
#else
    unsigned old;
    asm volatile("atom.acquire.gpu.global.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(v) : "memory");
    return old;
#endif
}

// Nanoseconds of a clock that runs on; on some devices in steps of a microsecond.
DEVICE unsigned long long global_time() {
#ifdef CUDA_EMU
    return emu_globaltimer();
#else
    unsigned long long t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
#endif
}

// Between two looks at a word that another processor will write.
DEVICE void wait_a_little() {
#ifdef CUDA_EMU
    __nanosleep(20);
#else
    asm volatile("nanosleep.u32 20;");
#endif
}

// ---- Activation functions and quantized activations ----------------------------------------------------------------

#define ACTIVATION_NONE (-1)
#define ACTIVATION_SILU 0
#define ACTIVATION_RELU 1
#define ACTIVATION_RELU2 2
#define ACTIVATION_GELU 3
#define ACTIVATION_GELU_ERF 4
#define ACTIVATION_GELU_QUICK 5
// As ReLU, but `up` must be above zero, too: see gated().
#define ACTIVATION_DRELU 6
// As GELU_QUICK of what is at most 7; `up` counts up to 7, too, and 1 more: see gated().
#define ACTIVATION_SWIGLU_OAI 7
// FATReLU is any code below ACTIVATION_NONE: the bits of its threshold, which is not negative, with the sign set.

// As src/model/activation.rs: what is not a number stays so.
DEVICE float activate(int code, float x) {
    if (code == ACTIVATION_NONE) return x;
    if (code == ACTIVATION_SILU) return x / (1.0f + expf(-x));
    if (code == ACTIVATION_GELU) return 0.5f * x * (1.0f + tanhf(0.7978846f * (x + 0.044715f * x * x * x)));
    if (code == ACTIVATION_GELU_ERF) return 0.5f * x * erfcf(-0.70710678f * x);
    if (code == ACTIVATION_SWIGLU_OAI) x = x > 7.0f ? 7.0f : x;
    if (code == ACTIVATION_GELU_QUICK || code == ACTIVATION_SWIGLU_OAI) return x / (1.0f + expf(-1.702f * x));
    float threshold = code < ACTIVATION_NONE ? float_of_bits((unsigned)code & 0x7fffffffu) : 0.0f;
    float r = x <= threshold ? 0.0f : x;
    return code == ACTIVATION_RELU2 ? r * r : r;
}

// What a neuron's output vector is multiplied with, from its activation and the product with `up`: exactly 0 where it
// does not fire, whatever `up` is.
DEVICE float gated(int code, float act, float up) {
    if (act == 0.0f || (code == ACTIVATION_DRELU && up <= 0.0f)) return 0.0f;
    if (code == ACTIVATION_SWIGLU_OAI) return act * ((up > 7.0f ? 7.0f : up < -7.0f ? -7.0f : up) + 1.0f);
    return act * up;
}

// One of 32 values: rounded half to even by adding and subtracting 1.5 * 2^23.
DEVICE int quantized(float x, float inverse) {
    float r = add_rounded(add_rounded(mul_rounded(x, inverse), 12582912.0f), -12582912.0f);
    return r == r ? (int)r : 0;
}

// Quantizes blocks of 32 values bit for bit as src/cpu/activations.rs does: 8 neighbouring lanes hold a block, four
// consecutive values each; so a warp quantizes 128 values. All lanes of the warp take part. Returns the lane's four
// bytes; `d` and `ds` are those of its block, in every lane. `d` is not a number where a value is not finite.
DEVICE int quantize4(float4 x, float* d, float* ds) {
    float most = fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
    float poison = (x.x * 0.0f + x.y * 0.0f) + (x.z * 0.0f + x.w * 0.0f);
#pragma unroll
    for (int o = 4; o > 0; o >>= 1) {
        most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, o));
        poison += __shfl_xor_sync(ALL_LANES, poison, o);
    }
    float inverse = 127.0f / most;
    // Values too small for their inverse to be a number count as zero.
    if (!(inverse < infinite())) inverse = 0.0f;
    int a = quantized(x.x, inverse), b = quantized(x.y, inverse);
    int c = quantized(x.z, inverse), e = quantized(x.w, inverse);
    int sum = a + b + c + e;
#pragma unroll
    for (int o = 4; o > 0; o >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, o);
    *d = most / 127.0f + poison;
    *ds = *d * (float)sum;
    return (int)((a & 0xff) | (unsigned)(b & 0xff) << 8 | (unsigned)(c & 0xff) << 16 | (unsigned)(e & 0xff) << 24);
}

// Quantizes four consecutive values of a vector of n, those from element 4 * i on, and stores them in x8. For warps whose
// lanes have consecutive i, beginning at a multiple of 8; all lanes take part, those with 4 * i >= n store nothing.
DEVICE void quantize4_into(signed char* x8, int n, int i, float4 x) {
    float d, ds;
    int q = quantize4(x, &d, &ds);
    if (4 * i >= n) return;
    *(int*)(x8 + 4 * i) = q;
    if (i % 8 == 0) {
        float* scales = (float*)(x8 + n);
        scales[i / 8] = d;
        scales[n / QK + i / 8] = ds;
    }
}
