// Dot products of weight rows with one vector of activations, for every type.
//
// A row is cut into units of 16 bytes of quants, which is what one thread loads at once. A row is shared by `lanes`
// threads: thread `lane` adds up the units lane, lane + lanes, ... in that order; the caller adds the threads' sums. So a
// dot product depends on `lanes` and never on how many rows are computed together or how many loads are in flight.
// What is rounded is written out (fmaf), so that the compiler cannot round otherwise in one place than in another.
#pragma once
#include "common.cuh"

// Unit of a row of TYPE: X is its share of the activations, W its weights as loaded. `add` gives sum + w . x.
template <int TYPE> struct Unit;

template <> struct Unit<TYPE_F32> {
    enum { LEN = 4 };
    struct X { float4 v; };
    struct W { int4 v; };
    DEVICE X load_x(const void* x, int, int u) { return {load_float4((const float*)x + 4 * u)}; }
    DEVICE W load_w(const unsigned char* q, const unsigned char*, int u) {
        return {stream16(q + 16 * u)};
    }
    DEVICE float add(float sum, const W& w, const X& x, int) {
        sum = fmaf(float_of_bits(w.v.x), x.v.x, sum);
        sum = fmaf(float_of_bits(w.v.y), x.v.y, sum);
        sum = fmaf(float_of_bits(w.v.z), x.v.z, sum);
        return fmaf(float_of_bits(w.v.w), x.v.w, sum);
    }
};

// Eight 16-bit floats.
template <int TYPE> struct Unit16 {
    enum { LEN = 8 };
    struct X { float4 a, b; };
    struct W { int4 v; };
    DEVICE X load_x(const void* x, int, int u) {
        const float* p = (const float*)x + 8 * u;
        return {load_float4(p), load_float4(p + 4)};
    }
    DEVICE W load_w(const unsigned char* q, const unsigned char*, int u) {
        return {stream16(q + 16 * u)};
    }
    DEVICE float add(float sum, const W& w, const X& x, int) {
        float2 a = pair_to_floats<TYPE>(w.v.x), b = pair_to_floats<TYPE>(w.v.y);
        float2 c = pair_to_floats<TYPE>(w.v.z), d = pair_to_floats<TYPE>(w.v.w);
        sum = fmaf(a.y, x.a.y, fmaf(a.x, x.a.x, sum));
        sum = fmaf(b.y, x.a.w, fmaf(b.x, x.a.z, sum));
        sum = fmaf(c.y, x.b.y, fmaf(c.x, x.b.x, sum));
        return fmaf(d.y, x.b.w, fmaf(d.x, x.b.z, sum));
    }
};
template <> struct Unit<TYPE_F16> : Unit16<TYPE_F16> {};
template <> struct Unit<TYPE_BF16> : Unit16<TYPE_BF16> {};

// Half a block.
template <> struct Unit<TYPE_Q8_0> {
    enum { LEN = 16 };
    struct X { int4 q; float d; };
    struct W { int4 q; unsigned short d; };
    DEVICE X load_x(const void* x, int n, int u) {
        const signed char* x8 = (const signed char*)x;
        return {load16(x8 + 16 * u), load_float(x8_d(x8, n) + u / 2)};
    }
    DEVICE W load_w(const unsigned char* q, const unsigned char* scales, int u) {
        return {stream16(q + 16 * u), load2(scales + u / 2 * 2)};
    }
    DEVICE float add(float sum, const W& w, const X& x, int) {
        return fmaf((float)dot16(w.q, x.q), half_to_float(w.d) * x.d, sum);
    }
};

// A block.
template <> struct Unit<TYPE_Q4_0> {
    enum { LEN = 32 };
    struct X { int4 low, high; float d, ds; };
    struct W { int4 q; unsigned short d; };
    DEVICE X load_x(const void* x, int n, int u) {
        const signed char* x8 = (const signed char*)x;
        return {load16(x8 + 32 * u), load16(x8 + 32 * u + 16), load_float(x8_d(x8, n) + u), load_float(x8_ds(x8, n) + u)};
    }
    DEVICE W load_w(const unsigned char* q, const unsigned char* scales, int u) {
        return {stream16(q + 16 * u), load2(scales + 2 * u)};
    }
    DEVICE float add(float sum, const W& w, const X& x, int) {
        int products = dot16(low_halves(w.q), x.low) + dot16(high_halves(w.q), x.high);
        // The offset of 8 leaves as 8 times the sum of the activations.
        return fmaf(half_to_float(w.d), fmaf(-8.0f, x.ds, x.d * (float)products), sum);
    }
};

// A block.
template <> struct Unit<TYPE_Q5_0> {
    enum { LEN = 32 };
    typedef Unit<TYPE_Q4_0>::X X;
    struct W { int4 q; unsigned short d; unsigned fifth; };
    DEVICE X load_x(const void* x, int n, int u) { return Unit<TYPE_Q4_0>::load_x(x, n, u); }
    DEVICE W load_w(const unsigned char* q, const unsigned char* scales, int u) {
        const unsigned char* p = scales + 6 * u;
        return {stream16(q + 16 * u), load2(p), load2(p + 2) | (unsigned)load2(p + 4) << 16};
    }
    DEVICE float add(float sum, const W& w, const X& x, int) {
        int products = dot16(five_bits(low_halves(w.q), w.fifth), x.low);
        products += dot16(five_bits(high_halves(w.q), w.fifth >> 16), x.high);
        return fmaf(half_to_float(w.d), fmaf(-16.0f, x.ds, x.d * (float)products), sum);
    }
};

// A block.
template <> struct Unit<TYPE_Q5_1> {
    enum { LEN = 32 };
    typedef Unit<TYPE_Q4_0>::X X;
    struct W { int4 q; uint2 scales; };
    DEVICE X load_x(const void* x, int n, int u) { return Unit<TYPE_Q4_0>::load_x(x, n, u); }
    DEVICE W load_w(const unsigned char* q, const unsigned char* scales, int u) {
        return {stream16(q + 16 * u), load8(scales + 8 * u)};
    }
    DEVICE float add(float sum, const W& w, const X& x, int) {
        int products = dot16(five_bits(low_halves(w.q), w.scales.y), x.low);
        products += dot16(five_bits(high_halves(w.q), w.scales.y >> 16), x.high);
        float2 d = halves_to_floats(w.scales.x);
        return fmaf(d.x, x.d * (float)products, fmaf(d.y, x.ds, sum));
    }
};

// A block.
template <> struct Unit<TYPE_IQ4_NL> {
    enum { LEN = 32 };
    struct X { int4 low, high; float d; };
    struct W { int4 q; unsigned short d; };
    DEVICE X load_x(const void* x, int n, int u) {
        const signed char* x8 = (const signed char*)x;
        return {load16(x8 + 32 * u), load16(x8 + 32 * u + 16), load_float(x8_d(x8, n) + u)};
    }
    DEVICE W load_w(const unsigned char* q, const unsigned char* scales, int u) {
        return {stream16(q + 16 * u), load2(scales + 2 * u)};
    }
    DEVICE float add(float sum, const W& w, const X& x, int) {
        int4 low, high;
        levels_of(w.q, &low, &high);
        return fmaf((float)(dot16(low, x.low) + dot16(high, x.high)), half_to_float(w.d) * x.d, sum);
    }
};

// What the sums `low` and `high` of the products of half of the sub-blocks 2 j and 2 j + 1 add, whose super-block begins
// with `head`.
template <class X> DEVICE float add_pair(float sum, const int4& head, int j, int low, int high, const X& x) {
    unsigned scales, mins;
    scales_and_mins_of_q4_k(head, j, &scales, &mins);
    float2 d = halves_to_floats(head.x);
    float a = (float)((int)(scales & 0xff) * low), b = (float)((int)(scales >> 8) * high);
    float min = fmaf((float)(mins & 0xff), x.ds.x, (float)(mins >> 8) * x.ds.y);
    return fmaf(d.x, fmaf(x.d.x, a, x.d.y * b), fmaf(-d.y, min, sum));
}

// 16 of a super-block's 128 bytes: half of the sub-blocks 2 j and 2 j + 1.
template <> struct Unit<TYPE_Q4_K> {
    enum { LEN = 32 };
    struct X { int4 low, high; float2 d, ds; };
    struct W { int4 q, head; };
    DEVICE X load_x(const void* x, int n, int u) {
        const signed char* x8 = (const signed char*)x;
        const signed char* q = x8 + 64 * (u / 2) + 16 * (u % 2);
        float2 d = load_float2(x8_d(x8, n) + u / 2 * 2), ds = load_float2(x8_ds(x8, n) + u / 2 * 2);
        // The minima go with whole sub-blocks: the first half takes them.
        if (u % 2) ds.x = ds.y = 0.0f;
        return {load16(q), load16(q + 32), d, ds};
    }
    DEVICE W load_w(const unsigned char* q, const unsigned char*, int u) {
        const unsigned char* block = q + (size_t)(u / 8) * Layout<TYPE_Q4_K>::QUANTS;
        return {stream16(block + 16 + 16 * (u % 8)), load16(block)};
    }
    DEVICE float add(float sum, const W& w, const X& x, int u) {
        return add_pair(sum, w.head, u % 8 / 2, dot16(low_halves(w.q), x.low), dot16(high_halves(w.q), x.high), x);
    }
};

// As Q4_K.
template <> struct Unit<TYPE_Q5_K> {
    enum { LEN = 32 };
    typedef Unit<TYPE_Q4_K>::X X;
    struct W { int4 q, fifth, head; };
    DEVICE X load_x(const void* x, int n, int u) { return Unit<TYPE_Q4_K>::load_x(x, n, u); }
    DEVICE W load_w(const unsigned char* q, const unsigned char*, int u) {
        const unsigned char* block = q + (size_t)(u / 8) * Layout<TYPE_Q5_K>::QUANTS;
        return {stream16(block + 48 + 16 * (u % 8)), load16(block + 16 + 16 * (u % 2)), load16(block)};
    }
    DEVICE float add(float sum, const W& w, const X& x, int u) {
        int j = u % 8 / 2;
        int low = dot16(fifth_of_bytes(low_halves(w.q), w.fifth, 2 * j), x.low);
        int high = dot16(fifth_of_bytes(high_halves(w.q), w.fifth, 2 * j + 1), x.high);
        return add_pair(sum, w.head, j, low, high, x);
    }
};

// 16 of a super-block's 128 bytes of lower halves, with the bits that belong to them.
template <> struct Unit<TYPE_Q6_K> {
    enum { LEN = 32 };
    struct X { int4 low, high; float d_low, d_high; int sum_low, sum_high; };
    struct W { int4 q, top; int scale_low, scale_high; unsigned short d; };
    DEVICE X load_x(const void* x, int n, int u) {
        const signed char* x8 = (const signed char*)x;
        int at = 128 * (u / 4) + 16 * (u % 4);
        int4 low = load16(x8 + at), high = load16(x8 + at + 64);
        const float* d = x8_d(x8, n) + at / QK;
        const int4 ones = {0x01010101, 0x01010101, 0x01010101, 0x01010101};
        return {low, high, load_float(d), load_float(d + 2), dot16(ones, low), dot16(ones, high)};
    }
    DEVICE W load_w(const unsigned char* q, const unsigned char* scales, int u) {
        const unsigned char* block = q + (size_t)(u / 8) * Layout<TYPE_Q6_K>::QUANTS;
        int k = u % 8;
        const unsigned char* sub = block + 192 + k / 4 * 8 + k % 4;
        return {stream16(block + 16 * k), load16(block + 128 + k / 4 * 32 + k % 2 * 16), load_signed_byte(sub),
                load_signed_byte(sub + 4), load2(scales + u / 8 * 2)};
    }
    DEVICE float add(float sum, const W& w, const X& x, int u) {
        // The upper bits of this unit's lower halves lie at bit 0 or 2 of each byte, those of its high halves 4 above.
        int shift = u % 4 / 2 * 2;
        int4 low = six_bits(low_halves(w.q), w.top, shift), high = six_bits(high_halves(w.q), w.top, shift + 4);
        // The offset of 32 leaves as 32 times the sum of the activations.
        int a = dot16(low, x.low) - 32 * x.sum_low, b = dot16(high, x.high) - 32 * x.sum_high;
        float both = fmaf(x.d_low, (float)(w.scale_low * a), x.d_high * (float)(w.scale_high * b));
        return fmaf(half_to_float(w.d), both, sum);
    }
};

// Adds to sums[r] the products of row rows[r] of the matrix w with x: the units of thread `lane` of `lanes`. DEPTH units
// of each row are loaded before the first is used.
template <int TYPE, int ROWS, int DEPTH>
DEVICE void add_dots(const unsigned char* w, int n_stored, const int (&rows)[ROWS], const void* x, int n_cols, int lane,
                     int lanes, float (&sums)[ROWS]) {
    typedef Unit<TYPE> U;
    const unsigned char* quants[ROWS];
    const unsigned char* scales[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        quants[r] = w + rows[r] * row_quants<TYPE>(n_cols);
        scales[r] = row_scales<TYPE>(w, n_stored, n_cols, rows[r]);
    }
    int n_units = n_cols / U::LEN, u = lane;
#pragma unroll 1
    for (; u + (DEPTH - 1) * lanes < n_units; u += DEPTH * lanes) {
        typename U::W part[DEPTH][ROWS];
        typename U::X share[DEPTH];
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) part[i][r] = U::load_w(quants[r], scales[r], u + i * lanes);
        }
#pragma unroll
        for (int i = 0; i < DEPTH; i++) share[i] = U::load_x(x, n_cols, u + i * lanes);
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) sums[r] = U::add(sums[r], part[i][r], share[i], u + i * lanes);
        }
    }
#pragma unroll 1
    for (; DEPTH > 1 && u < n_units; u += lanes) {
        typename U::X share = U::load_x(x, n_cols, u);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            sums[r] = U::add(sums[r], U::load_w(quants[r], scales[r], u), share, u);
        }
    }
}
