// Sums of pairs of floats, the second one holding what rounding took from the first (about 2^-45 of the sum is lost): where the
// CPU's sums are in 64 bits, which are slow on most cards.
#pragma once
#include "common.cuh"

// hi + lo, where lo is at most half a unit in the last place of hi.
struct Pair {
    float hi, lo;
};

// Exact: the sum of a and b, and what rounding took from it.
DEVICE Pair two_sum(float a, float b) {
    float s = add_rounded(a, b), t = add_rounded(s, -a);
    Pair r = {s, add_rounded(add_rounded(a, -add_rounded(s, -t)), add_rounded(b, -t))};
    return r;
}

DEVICE Pair plus(Pair a, Pair b) {
    Pair s = two_sum(a.hi, b.hi);
    float low = add_rounded(s.lo, add_rounded(a.lo, b.lo));
    float hi = add_rounded(s.hi, low);
    Pair r = {hi, add_rounded(low, -add_rounded(hi, -s.hi))};
    return r;
}

// For a few terms on the way to a sum: lo may grow beyond its bound, which plus puts right.
DEVICE void add(Pair& sum, Pair v) {
    Pair s = two_sum(sum.hi, v.hi);
    sum.hi = s.hi;
    sum.lo += s.lo + v.lo;
}

DEVICE Pair square(Pair a) {
    float p = mul_rounded(a.hi, a.hi);
    Pair r = {p, fmaf(2.0f * a.hi, a.lo, fmaf(a.hi, a.hi, -p))};
    return r;
}

DEVICE Pair divided(Pair a, float n) {
    float q = a.hi / n;
    Pair r = {q, (fmaf(-q, n, a.hi) + a.lo) / n};
    return r;
}

// Sum over the warp, for every lane, in an order that depends on nothing.
DEVICE Pair warp_sum(Pair v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) {
        Pair other = {__shfl_xor_sync(ALL_LANES, v.hi, o), __shfl_xor_sync(ALL_LANES, v.lo, o)};
        v = plus(v, other);
    }
    return v;
}
