// Stand-in for CUDA's cuda_fp16.h: half precision as bits, arithmetic rounded after each operation.
#pragma once
#ifndef EMU_SCAN
#include "cuda_emu.h"

struct alignas(2) __half {
    unsigned short bits;
    __half() = default;
    __half(float v);
    explicit operator float() const;
};
struct alignas(4) __half2 {
    __half x, y;
};
typedef __half half;
typedef __half2 half2;
struct __half_raw {
    unsigned short x;
};

static inline __half __ushort_as_half(unsigned short bits) {
    __half h;
    h.bits = bits;
    return h;
}
static inline __half __short_as_half(short bits) { return __ushort_as_half((unsigned short)bits); }
static inline unsigned short __half_as_ushort(__half h) { return h.bits; }
static inline short __half_as_short(__half h) { return (short)h.bits; }

static inline float __half2float(__half h) {
    unsigned rest = h.bits & 0x7fffu, sign = (h.bits & 0x8000u) << 16;
    // The exponent's bias differs by 112; infinities and NaN have the largest exponent in both.
    float v = rest >= 0x7c00u ? __uint_as_float(rest << 13 | 0x7f800000u) : __uint_as_float(rest << 13) * 0x1p112f;
    return __uint_as_float(__float_as_uint(v) | sign);
}
// To nearest, ties to even.
static inline __half emu_half(double v) {
    uint64_t b = __builtin_bit_cast(uint64_t, v);
    unsigned short sign = (unsigned short)(b >> 48 & 0x8000u);
    double a = fabs(v);
    if (a != a) return __ushort_as_half(0x7fff);
    if (a >= 65520.0) return __ushort_as_half(sign | 0x7c00u);
    // Subnormals: adding 2^28 leaves units of 2^-24 in the lowest bits, rounded.
    if (a < 0x1p-14) return __ushort_as_half((unsigned short)(sign | (__builtin_bit_cast(uint64_t, a + 0x1p28) & 0x7ffu)));
    uint64_t m = __builtin_bit_cast(uint64_t, a) - (1008ull << 52);
    return __ushort_as_half((unsigned short)(sign | (m + 0x1ffffffffffull + (m >> 42 & 1)) >> 42));
}
static inline __half __float2half_rn(float v) { return emu_half(v); }
static inline __half __float2half(float v) { return emu_half(v); }
static inline __half __double2half(double v) { return emu_half(v); }
inline __half::__half(float v) : bits(emu_half(v).bits) {}
inline __half::operator float() const { return __half2float(*this); }
static inline __half __int2half_rn(int v) { return emu_half(v); }
static inline int __half2int_rn(__half h) { return __float2int_rn(__half2float(h)); }

static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline __half2 make_half2(__half x, __half y) { return {x, y}; }
static inline __half2 __half2half2(__half x) { return {x, x}; }
static inline __half2 __float2half2_rn(float v) { return {emu_half(v), emu_half(v)}; }
static inline __half2 __floats2half2_rn(float x, float y) { return {emu_half(x), emu_half(y)}; }
static inline __half2 __float22half2_rn(float2 v) { return {emu_half(v.x), emu_half(v.y)}; }
static inline float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
static inline __half __low2half(__half2 v) { return v.x; }
static inline __half __high2half(__half2 v) { return v.y; }
static inline float __low2float(__half2 v) { return __half2float(v.x); }
static inline float __high2float(__half2 v) { return __half2float(v.y); }
static inline __half2 __lowhigh2highlow(__half2 v) { return {v.y, v.x}; }

static inline double emu_wide(__half h) { return __half2float(h); }
static inline __half __hadd(__half a, __half b) { return emu_half(emu_wide(a) + emu_wide(b)); }
static inline __half __hsub(__half a, __half b) { return emu_half(emu_wide(a) - emu_wide(b)); }
static inline __half __hmul(__half a, __half b) { return emu_half(emu_wide(a) * emu_wide(b)); }
static inline __half __hdiv(__half a, __half b) { return emu_half(emu_wide(a) / emu_wide(b)); }
static inline __half __hfma(__half a, __half b, __half c) {
    return emu_half(emu_wide(a) * emu_wide(b) + emu_wide(c));
}
static inline __half __hneg(__half a) { return __ushort_as_half(a.bits ^ 0x8000u); }
static inline __half __habs(__half a) { return __ushort_as_half(a.bits & 0x7fffu); }
static inline bool __hisnan(__half a) { return (a.bits & 0x7fffu) > 0x7c00u; }
static inline int __hisinf(__half a) { return a.bits == 0x7c00u ? 1 : a.bits == 0xfc00u ? -1 : 0; }
static inline bool __heq(__half a, __half b) { return __half2float(a) == __half2float(b); }
static inline bool __hlt(__half a, __half b) { return __half2float(a) < __half2float(b); }
static inline bool __hgt(__half a, __half b) { return __half2float(a) > __half2float(b); }
static inline __half2 __hadd2(__half2 a, __half2 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }
static inline __half2 __hsub2(__half2 a, __half2 b) { return {__hsub(a.x, b.x), __hsub(a.y, b.y)}; }
static inline __half2 __hmul2(__half2 a, __half2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
static inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
static inline __half operator+(__half a, __half b) { return __hadd(a, b); }
static inline __half operator-(__half a, __half b) { return __hsub(a, b); }
static inline __half operator*(__half a, __half b) { return __hmul(a, b); }
#endif
