// Weights as halves: how each matrix type gives eight consecutive columns of a row to the tensor cores.
//
// A chunk `p` (0..3) of a block of 32 columns is its columns 8 p to 8 p + 7. `Chunk<TYPE>` loads one from a device
// matrix ("planes", or native rows of floats); then
//   bound()        bits of a float that no value of the chunk exceeds; not finite where a value is not
//   values(m, f)   the values times f (a power of two) as halves, rounded once (Q6_K twice)
//   exact(m)       for Q8_0, Q4_0, Q5_0, IQ4_NL, Q6_K: integers as halves, to be multiplied by `d` (Q6_K: rounded to 11 bits
//                  where scale times quant exceeds 2048)
#pragma once
#include "mma.cuh"

#define MEMBER __device__ __forceinline__

// The power of two that a half is short of a value: multiplying by `down` brings anything up to a bound into
// [-2^15, 2^15], multiplying by `up` brings it back. Exact both ways but for values 2^28 times smaller than the bound.
// With a bound that is not finite, both are 1: what is not finite stays so.
struct Power {
    float down, up;
};

DEVICE Power power_below(unsigned bound) {
    unsigned exponent = bound >> 23 & 0xffu;
    if (exponent == 255u) return {1.0f, 1.0f};
    if (exponent < 15u) exponent = 15u;
    return {float_of_bits((268u - exponent) << 23), float_of_bits((exponent - 14u) << 23)};
}

// NaN counts as more than infinity, which a comparison of floats would not give.
DEVICE unsigned larger(unsigned a, unsigned b) { return a > b ? a : b; }

template <int LANES> DEVICE unsigned largest_of_lanes(unsigned bound) {
#pragma unroll
    for (int lane = 1; lane < LANES; lane *= 2) bound = larger(bound, __shfl_xor_sync(ALL_LANES, bound, lane));
    return bound;
}

template <int TYPE> struct Chunk;

// `row` and `block` (of 32 columns) must exist; `n_blocks` of them make a row, `n_stored` rows the allocation.
template <> struct Chunk<TYPE_F32> {
    uint4 raw[2];
    MEMBER void load(const unsigned char* w, size_t, size_t row, int n_blocks, int block, int p) {
        const uint4* at = (const uint4*)(w + ((row * n_blocks + block) * 32 + 8 * p) * 4);
        raw[0] = at[0];
        raw[1] = at[1];
    }
    MEMBER void clear() { raw[0] = raw[1] = uint4{0, 0, 0, 0}; }
    MEMBER unsigned bound() const {
        unsigned most = 0;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            most = larger(larger(most, raw[i].x & 0x7fffffffu), raw[i].y & 0x7fffffffu);
            most = larger(larger(most, raw[i].z & 0x7fffffffu), raw[i].w & 0x7fffffffu);
        }
        return most;
    }
    MEMBER void values(unsigned m[4], float f) const {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            m[2 * i] = halves_of(float_of_bits(raw[i].x) * f, float_of_bits(raw[i].y) * f);
            m[2 * i + 1] = halves_of(float_of_bits(raw[i].z) * f, float_of_bits(raw[i].w) * f);
        }
    }
};

template <> struct Chunk<TYPE_BF16> {
    uint4 raw;
    MEMBER void load(const unsigned char* w, size_t, size_t row, int n_blocks, int block, int p) {
        raw = *(const uint4*)(w + ((row * n_blocks + block) * 32 + 8 * p) * 2);
    }
    MEMBER void clear() { raw = uint4{0, 0, 0, 0}; }
    DEVICE unsigned bound(unsigned pair) { return larger(pair & 0x7fff0000u, (pair & 0x7fffu) << 16); }
    MEMBER unsigned bound() const {
        return larger(larger(bound(raw.x), bound(raw.y)), larger(bound(raw.z), bound(raw.w)));
    }
    DEVICE unsigned values(unsigned pair, float f) {
        return halves_of(float_of_bits(pair << 16) * f, float_of_bits(pair & 0xffff0000u) * f);
    }
    MEMBER void values(unsigned m[4], float f) const {
        m[0] = values(raw.x, f);
        m[1] = values(raw.y, f);
        m[2] = values(raw.z, f);
        m[3] = values(raw.w, f);
    }
};

// The bits of a chunk of quants as halves, minus `zero`.
DEVICE void halves_minus(unsigned m[4], uint2 bytes, unsigned short zero) {
    // 1024 more, as `halves_1024` gives it: exact up to 2048.
    unsigned bias = 0x64006400u + zero + ((unsigned)zero << 16);
    m[0] = halves_sub(halves_1024(bytes.x, 0), bias);
    m[1] = halves_sub(halves_1024(bytes.x, 2), bias);
    m[2] = halves_sub(halves_1024(bytes.y, 0), bias);
    m[3] = halves_sub(halves_1024(bytes.y, 2), bias);
}

DEVICE void scaled(unsigned m[4], float by) {
    unsigned factor = halves_of(by, by);
#pragma unroll
    for (int i = 0; i < 4; i++) m[i] = halves_mul(m[i], factor);
}

template <> struct Chunk<TYPE_Q8_0> {
    uint2 raw;
    float d;
    MEMBER void load(const unsigned char* w, size_t n_stored, size_t row, int n_blocks, int block, int p) {
        size_t at = row * n_blocks + block;
        raw = *(const uint2*)(w + at * 32 + 8 * p);
        d = half_to_float(*(const unsigned short*)(w + n_stored * n_blocks * 32 + at * 2));
    }
    MEMBER void clear() {
        raw = uint2{0, 0};
        d = 0.0f;
    }
    MEMBER unsigned bound() const { return bits_of_float(d * 128.0f) & 0x7fffffffu; }
    MEMBER void exact(unsigned m[4]) const { halves_minus(m, uint2{raw.x ^ 0x80808080u, raw.y ^ 0x80808080u}, 128); }
    MEMBER void values(unsigned m[4], float f) const {
        exact(m);
        scaled(m, d * f);
    }
};

// Half-bytes of a chunk `p` of a block at `at`, in the low halves of bytes.
DEVICE uint2 half_bytes(const unsigned char* at, int p) {
    uint2 raw = *(const uint2*)(at + 8 * (p & 1));
    return uint2{raw.x >> (p & 2) * 2 & 0x0f0f0f0fu, raw.y >> (p & 2) * 2 & 0x0f0f0f0fu};
}

// The same with their fifth bits, those of the block in a word.
DEVICE uint2 with_fifth_bits(uint2 raw, unsigned fifth, int p) {
    return uint2{(unsigned)five_bits((int)raw.x, fifth >> 8 * p), (unsigned)five_bits((int)raw.y, fifth >> (8 * p + 4))};
}

template <> struct Chunk<TYPE_Q4_0> {
    uint2 raw;
    float d;
    MEMBER void load(const unsigned char* w, size_t n_stored, size_t row, int n_blocks, int block, int p) {
        size_t at = row * n_blocks + block;
        raw = half_bytes(w + at * 16, p);
        d = half_to_float(*(const unsigned short*)(w + n_stored * n_blocks * 16 + at * 2));
    }
    MEMBER void clear() {
        raw = uint2{0, 0};
        d = 0.0f;
    }
    MEMBER unsigned bound() const { return bits_of_float(d * 8.0f) & 0x7fffffffu; }
    MEMBER void exact(unsigned m[4]) const { halves_minus(m, raw, 8); }
    MEMBER void values(unsigned m[4], float f) const {
        exact(m);
        scaled(m, d * f);
    }
};

template <> struct Chunk<TYPE_Q5_0> {
    uint2 raw;
    float d;
    MEMBER void load(const unsigned char* w, size_t n_stored, size_t row, int n_blocks, int block, int p) {
        size_t at = row * n_blocks + block;
        const unsigned short* scales = (const unsigned short*)(w + n_stored * n_blocks * 16 + at * 6);
        raw = with_fifth_bits(half_bytes(w + at * 16, p), scales[1] | (unsigned)scales[2] << 16, p);
        d = half_to_float(scales[0]);
    }
    MEMBER void clear() {
        raw = uint2{0, 0};
        d = 0.0f;
    }
    MEMBER unsigned bound() const { return bits_of_float(d * 16.0f) & 0x7fffffffu; }
    MEMBER void exact(unsigned m[4]) const { halves_minus(m, raw, 16); }
    MEMBER void values(unsigned m[4], float f) const {
        exact(m);
        scaled(m, d * f);
    }
};

template <> struct Chunk<TYPE_IQ4_NL> {
    uint2 raw; // levels
    float d;
    MEMBER void load(const unsigned char* w, size_t n_stored, size_t row, int n_blocks, int block, int p) {
        size_t at = row * n_blocks + block;
        uint2 half = half_bytes(w + at * 16, p);
        raw = uint2{(unsigned)levels_of((int)half.x).low, (unsigned)levels_of((int)half.y).low};
        d = half_to_float(*(const unsigned short*)(w + n_stored * n_blocks * 16 + at * 2));
    }
    MEMBER void clear() {
        raw = uint2{0, 0};
        d = 0.0f;
    }
    MEMBER unsigned bound() const { return bits_of_float(d * 128.0f) & 0x7fffffffu; }
    MEMBER void exact(unsigned m[4]) const { halves_minus(m, uint2{raw.x ^ 0x80808080u, raw.y ^ 0x80808080u}, 128); }
    MEMBER void values(unsigned m[4], float f) const {
        exact(m);
        scaled(m, d * f);
    }
};

template <> struct Chunk<TYPE_Q6_K> {
    uint2 raw;
    float d;
    int scale;
    MEMBER void load(const unsigned char* w, size_t n_stored, size_t row, int n_blocks, int block, int p) {
        size_t super = row * (n_blocks / 8) + block / 8;
        int half = block / 4 % 2, quarter = block % 4;
        const unsigned char* at = w + super * 208;
        uint2 low = *(const uint2*)(at + 64 * half + 32 * (quarter & 1) + 8 * p);
        uint2 high = *(const uint2*)(at + 128 + 32 * half + 8 * p);
        int low_shift = 4 * (quarter >> 1), high_shift = 2 * quarter;
        raw.x = (low.x >> low_shift & 0x0f0f0f0fu) | (high.x >> high_shift & 0x03030303u) << 4;
        raw.y = (low.y >> low_shift & 0x0f0f0f0fu) | (high.y >> high_shift & 0x03030303u) << 4;
        scale = (signed char)at[192 + 8 * half + 2 * quarter + p / 2];
        d = half_to_float(*(const unsigned short*)(w + n_stored * (n_blocks / 8) * 208 + super * 2));
    }
    MEMBER void clear() {
        raw = uint2{0, 0};
        d = 0.0f;
        scale = 0;
    }
    MEMBER unsigned bound() const { return bits_of_float(d * 4096.0f) & 0x7fffffffu; }
    MEMBER void exact(unsigned m[4]) const {
        halves_minus(m, raw, 32);
        scaled(m, (float)scale);
    }
    MEMBER void values(unsigned m[4], float f) const {
        exact(m);
        scaled(m, d * f);
    }
};

// Quants of MOST at the most, none below 0, with a factor and something that is taken away.
template <int MOST> struct ChunkWithMinimum {
    uint2 raw;
    float factor, least; // value = factor * quant - least
    // Those of sub-block `k` of a Q4_K or Q5_K super-block at `at`.
    MEMBER void load_pair(const unsigned char* at, int k) {
        const unsigned char* pairs = at + 4;
        int scale, min;
        if (k < 4) {
            scale = pairs[k] & 0x3f;
            min = pairs[k + 4] & 0x3f;
        } else {
            scale = (pairs[k + 4] & 0x0f) | pairs[k - 4] >> 6 << 4;
            min = pairs[k + 4] >> 4 | pairs[k] >> 6 << 4;
        }
        factor = half_to_float(*(const unsigned short*)at) * (float)scale;
        least = half_to_float(*(const unsigned short*)(at + 2)) * (float)min;
    }
    MEMBER void clear() {
        raw = uint2{0, 0};
        factor = least = 0.0f;
    }
    MEMBER unsigned bound() const { return bits_of_float(fabsf(factor) * MOST + fabsf(least)) & 0x7fffffffu; }
    DEVICE float quant(unsigned bytes, int i) { return (float)(bytes >> 8 * i & 0xffu); }
    MEMBER void values(unsigned m[4], float f) const {
        float a = factor * f, b = least * f;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            m[i] = halves_of(a * quant(raw.x, 2 * i) - b, a * quant(raw.x, 2 * i + 1) - b);
            m[i + 2] = halves_of(a * quant(raw.y, 2 * i) - b, a * quant(raw.y, 2 * i + 1) - b);
        }
    }
};

template <> struct Chunk<TYPE_Q4_K> : ChunkWithMinimum<15> {
    MEMBER void load(const unsigned char* w, size_t, size_t row, int n_blocks, int block, int p) {
        const unsigned char* at = w + (row * (n_blocks / 8) + block / 8) * 144;
        int k = block % 8, shift = 4 * (k & 1);
        uint2 both = *(const uint2*)(at + 16 + 32 * (k / 2) + 8 * p);
        raw.x = both.x >> shift & 0x0f0f0f0fu;
        raw.y = both.y >> shift & 0x0f0f0f0fu;
        load_pair(at, k);
    }
};

template <> struct Chunk<TYPE_Q5_K> : ChunkWithMinimum<31> {
    MEMBER void load(const unsigned char* w, size_t, size_t row, int n_blocks, int block, int p) {
        const unsigned char* at = w + (row * (n_blocks / 8) + block / 8) * 176;
        int k = block % 8, shift = 4 * (k & 1);
        uint2 both = *(const uint2*)(at + 48 + 32 * (k / 2) + 8 * p), fifth = *(const uint2*)(at + 16 + 8 * p);
        raw.x = (both.x >> shift & 0x0f0f0f0fu) | (fifth.x >> k << 4 & 0x10101010u);
        raw.y = (both.y >> shift & 0x0f0f0f0fu) | (fifth.y >> k << 4 & 0x10101010u);
        load_pair(at, k);
    }
};

template <> struct Chunk<TYPE_Q5_1> : ChunkWithMinimum<31> {
    MEMBER void load(const unsigned char* w, size_t n_stored, size_t row, int n_blocks, int block, int p) {
        size_t at = row * n_blocks + block;
        uint2 scales = *(const uint2*)(w + n_stored * n_blocks * 16 + at * 8);
        raw = with_fifth_bits(half_bytes(w + at * 16, p), scales.y, p);
        float2 d = halves_to_floats(scales.x);
        factor = d.x;
        least = -d.y;
    }
};

// Halves go as they are: nothing is rounded and nothing can leave the range.
template <> struct Chunk<TYPE_F16> {
    uint4 raw;
    MEMBER void load(const unsigned char* w, size_t, size_t row, int n_blocks, int block, int p) {
        raw = *(const uint4*)(w + ((row * n_blocks + block) * 32 + 8 * p) * 2);
    }
    MEMBER void clear() { raw = uint4{0, 0, 0, 0}; }
};
