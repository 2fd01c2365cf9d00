// Causal attention of many tokens over the KV cache, for prefill.
//
// attention_prefill_<type>_<most>: for each token t in [0, n_tokens) and head h in [0, n_head)
//     out[t][h] = sum over p of softmax(q[t][h] . k[h / group][p] / sqrt(head_dim))_p * v[h / group][p], p in [0, first + t],
//     or the last `window` of these positions
//   q and out: f32 [n_tokens][n_head][head_dim], tokens q_stride and out_stride floats apart; group = n_head / n_head_kv.
//   kv: the cache of the layer as kv.cuh has it, of this type, which holds the positions [0, first + n_tokens) already.
//   head_dim: a multiple of 16 (q8_0: of 32) up to <most>, which is 64, 128 or 256.
//
// A block of 128 threads has 32 rows (a row is a token and one of the heads that share a key head, heads running faster)
// and reads their keys and values once: 32 positions at a time, 64 elements at a time, as floats in shared memory, while
// the next piece is loaded. Softmax is online (arXiv 1805.02867). Grid (ceil(n_tokens * group / 32), n_head_kv).
//
// Order of sums: elements and positions from 0 up, one by one, in a fused chain for a position's score and for an
// element of `out`; the sum of the weights of 32 positions by halving. Positions that a row does not see add nothing to it,
// whatever is there, so that a token's result does not depend on those behind it, nor on where in a block it is.
//
// Shared memory: 21, 29 or 45 KiB.
#include "kv.cuh"

#define ROWS 32
#define KEYS 32
#define PIECE 64
#define THREADS 128
// Longer than 64 by one group, so that eight rows lie in different banks.
#define PIECE_STRIDE (PIECE + 4)
#define KEYS_STRIDE (KEYS + 4)

// 16 consecutive elements of a key or value.
template <int TYPE> struct Elements;

template <> struct Elements<TYPE_F32> {
    int4 raw[4];
    __device__ __forceinline__ void load(const unsigned char* kv, size_t n_rows, int head_dim, int plane, size_t row,
                                         int d) {
        const unsigned char* at = kv + kv_rows<TYPE_F32>(n_rows, head_dim, plane) + (row * head_dim + d) * 4;
#pragma unroll
        for (int i = 0; i < 4; i++) raw[i] = *(const int4*)(at + 16 * i);
    }
    __device__ __forceinline__ float4 four(int i) const {
        return {float_of_bits(raw[i].x), float_of_bits(raw[i].y), float_of_bits(raw[i].z), float_of_bits(raw[i].w)};
    }
};

template <> struct Elements<TYPE_F16> {
    int4 raw[2];
    __device__ __forceinline__ void load(const unsigned char* kv, size_t n_rows, int head_dim, int plane, size_t row,
                                         int d) {
        const unsigned char* at = kv + kv_rows<TYPE_F16>(n_rows, head_dim, plane) + (row * head_dim + d) * 2;
        raw[0] = *(const int4*)at;
        raw[1] = *(const int4*)(at + 16);
    }
    __device__ __forceinline__ float4 four(int i) const {
        const int4& part = raw[i / 2];
        float2 a = halves_to_floats(i % 2 ? part.z : part.x), b = halves_to_floats(i % 2 ? part.w : part.y);
        return {a.x, a.y, b.x, b.y};
    }
};

template <> struct Elements<TYPE_Q8_0> {
    int4 raw;
    float scale;
    __device__ __forceinline__ void load(const unsigned char* kv, size_t n_rows, int head_dim, int plane, size_t row,
                                         int d) {
        raw = *(const int4*)(kv + kv_rows<TYPE_Q8_0>(n_rows, head_dim, plane) + row * head_dim + d);
        const unsigned char* scales = kv + kv_scales(n_rows, head_dim, plane);
        scale = half_to_float(*(const unsigned short*)(scales + (row * (head_dim / QK) + d / QK) * 2));
    }
    __device__ __forceinline__ float4 four(int i) const {
        int word = i == 0 ? raw.x : i == 1 ? raw.y : i == 2 ? raw.z : raw.w;
        return {(float)(signed char)word * scale, (float)(signed char)(word >> 8) * scale,
                (float)(signed char)(word >> 16) * scale, (float)(signed char)(word >> 24) * scale};
    }
};

// Over the 16 threads that share rows.
DEVICE float most_of_16(float v) {
#pragma unroll
    for (int o = 8; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, o));
    return v;
}
DEVICE float sum_of_16(float v) {
#pragma unroll
    for (int o = 8; o > 0; o >>= 1) v += __shfl_xor_sync(ALL_LANES, v, o);
    return v;
}

template <int PIECES> struct Shared {
    float q[ROWS][PIECES * PIECE];
    float kv[KEYS][PIECE_STRIDE];
    float weights[ROWS][KEYS_STRIDE];
};

struct Sizes {
    int n_ctx, n_head, n_head_kv, head_dim, first, n_tokens, window;
};

// Adds 32 values, an element of 4 of them for 4 rows; position `i` only to rows with last - window < i <= last, where SOME.
template <bool SOME> DEVICE void add_values(float4 sums[4], const float (*kv)[PIECE_STRIDE],
                                            const float (*weights)[KEYS_STRIDE], int column, const int last[4], int window) {
#pragma unroll 1
    for (int k = 0; k < KEYS; k += 4) {
        float4 w[4];
#pragma unroll
        for (int r = 0; r < 4; r++) w[r] = *(const float4*)&weights[r][k];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float4 v = *(const float4*)&kv[k + i][column];
#pragma unroll
            for (int r = 0; r < 4; r++) {
                if (SOME && (k + i > last[r] || last[r] - (k + i) >= window)) continue;
                float weight = i == 0 ? w[r].x : i == 1 ? w[r].y : i == 2 ? w[r].z : w[r].w;
                sums[r].x = fmaf(weight, v.x, sums[r].x);
                sums[r].y = fmaf(weight, v.y, sums[r].y);
                sums[r].z = fmaf(weight, v.z, sums[r].z);
                sums[r].w = fmaf(weight, v.w, sums[r].w);
            }
        }
    }
}

template <int TYPE, int PIECES> DEVICE void attend(const float* q, int q_stride, const unsigned char* kv, float* out,
                                                   int out_stride, const Sizes& sizes) {
    __shared__ __align__(16) Shared<PIECES> s;
    int group = sizes.n_head / sizes.n_head_kv, head_dim = sizes.head_dim, head_kv = blockIdx.y;
    int n_rows = sizes.n_tokens * group;
    // Last tokens, which see most, begin first.
    int begin = (gridDim.x - 1 - blockIdx.x) * ROWS;
    int across = threadIdx.x % 16, down = threadIdx.x / 16 * 4;
    size_t cache_rows = (size_t)sizes.n_head_kv * sizes.n_ctx, cache_row = (size_t)head_kv * sizes.n_ctx;

    for (int i = threadIdx.x; i < ROWS * PIECES * PIECE; i += THREADS) {
        int row = begin + i / (PIECES * PIECE), d = i % (PIECES * PIECE);
        bool there = row < n_rows && d < head_dim;
        size_t at = (size_t)(row / group) * q_stride + (head_kv * group + row % group) * head_dim + d;
        s.q[i / (PIECES * PIECE)][d] = there ? q[at] : 0.0f;
    }

    // Rows behind the last repeat it and are not stored.
    int position[4];
#pragma unroll
    for (int r = 0; r < 4; r++) position[r] = sizes.first + min(begin + down + r, n_rows - 1) / group;
    int nearest = sizes.first + begin / group, farthest = sizes.first + min(begin + ROWS - 1, n_rows - 1) / group;
    // What no row sees is left out in whole groups of positions.
    int lowest = max(nearest - sizes.window + 1, 0) / KEYS * KEYS;
    int n_steps = ((farthest - lowest) / KEYS + 1) * 2 * PIECES;

    // Pieces in order: of 32 positions the keys, then the values. A thread loads 16 elements of one position.
    Elements<TYPE> next;
    bool next_there = false;
    auto fetch = [&](int step) {
        int p = lowest + step / (2 * PIECES) * KEYS + threadIdx.x / 4, d = step % PIECES * PIECE + threadIdx.x % 4 * 16;
        next_there = p <= farthest && d < head_dim;
        if (next_there) next.load(kv, cache_rows, head_dim, step / PIECES & 1, cache_row + p, d);
    };
    // Puts what was fetched where all see it, and fetches what comes next.
    auto turn = [&](int step) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; i++)
            *(float4*)&s.kv[threadIdx.x / 4][threadIdx.x % 4 * 16 + 4 * i] =
                next_there ? next.four(i) : float4{0.0f, 0.0f, 0.0f, 0.0f};
        __syncthreads();
        if (step + 1 < n_steps) fetch(step + 1);
    };

    float scale = 1.0f / sqrtf((float)head_dim);
    float most[4], total[4];
    float4 sums[PIECES][4];
#pragma unroll
    for (int r = 0; r < 4; r++) {
        // Not minus infinity, whose difference to a score that has overflowed would be no number.
        most[r] = -1e38f;
        total[r] = 0.0f;
#pragma unroll
        for (int c = 0; c < PIECES; c++) sums[c][r] = {0.0f, 0.0f, 0.0f, 0.0f};
    }

    fetch(0);
    for (int base = lowest, step = 0; base <= farthest; base += KEYS) {
        float scores[4][2] = {};
#pragma unroll 1
        for (int c = 0; c < PIECES; c++, step++) {
            turn(step);
#pragma unroll 2
            for (int d = 0; d < PIECE; d += 4) {
                float4 a = *(const float4*)&s.kv[across][d], b = *(const float4*)&s.kv[across + 16][d];
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    float4 x = *(const float4*)&s.q[down + r][c * PIECE + d];
                    scores[r][0] = fmaf(x.w, a.w, fmaf(x.z, a.z, fmaf(x.y, a.y, fmaf(x.x, a.x, scores[r][0]))));
                    scores[r][1] = fmaf(x.w, b.w, fmaf(x.z, b.z, fmaf(x.y, b.y, fmaf(x.x, b.x, scores[r][1]))));
                }
            }
        }
        int last[4];
#pragma unroll
        for (int r = 0; r < 4; r++) {
            last[r] = position[r] - base;
            bool sees_a = across <= last[r] && last[r] - across < sizes.window;
            bool sees_b = across + 16 <= last[r] && last[r] - (across + 16) < sizes.window;
            float a = sees_a ? scores[r][0] * scale : -infinite(), b = sees_b ? scores[r][1] * scale : -infinite();
            float now = fmaxf(most[r], most_of_16(fmaxf(a, b)));
            float rescale = expf(most[r] - now);
            a = sees_a ? expf(a - now) : 0.0f;
            b = sees_b ? expf(b - now) : 0.0f;
            most[r] = now;
            total[r] = total[r] * rescale + sum_of_16(a + b);
            s.weights[down + r][across] = a;
            s.weights[down + r][across + 16] = b;
#pragma unroll
            for (int c = 0; c < PIECES; c++) {
                sums[c][r].x *= rescale;
                sums[c][r].y *= rescale;
                sums[c][r].z *= rescale;
                sums[c][r].w *= rescale;
            }
        }
#pragma unroll
        for (int c = 0; c < PIECES; c++, step++) {
            turn(step);
            bool some = base + KEYS - 1 > nearest || farthest - base >= sizes.window;
            if (some) add_values<true>(sums[c], s.kv, &s.weights[down], 4 * across, last, sizes.window);
            else add_values<false>(sums[c], s.kv, &s.weights[down], 4 * across, last, sizes.window);
        }
    }

#pragma unroll
    for (int r = 0; r < 4; r++) {
        int row = begin + down + r;
        if (row >= n_rows) continue;
        float* to = out + (size_t)(row / group) * out_stride + (head_kv * group + row % group) * head_dim;
#pragma unroll
        for (int c = 0; c < PIECES; c++) {
            int d = c * PIECE + 4 * across;
            const float4& sum = sums[c][r];
            if (d < head_dim)
                *(float4*)(to + d) = {sum.x / total[r], sum.y / total[r], sum.z / total[r], sum.w / total[r]};
        }
    }
}

#define KERNEL(name, TYPE, PIECES)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) attention_prefill_##name(                                    \
        const float* __restrict__ q, int q_stride, const unsigned char* __restrict__ kv, int n_ctx, int n_head,        \
        int n_head_kv, int head_dim, int first, int n_tokens, int window, float* __restrict__ out, int out_stride) {   \
        Sizes sizes = {n_ctx, n_head, n_head_kv, head_dim, first, n_tokens, window};                                   \
        attend<TYPE, PIECES>(q, q_stride, kv, out, out_stride, sizes);                                                 \
    }

KERNEL(f32_64, TYPE_F32, 1)
KERNEL(f32_128, TYPE_F32, 2)
KERNEL(f32_256, TYPE_F32, 4)
KERNEL(f16_64, TYPE_F16, 1)
KERNEL(f16_128, TYPE_F16, 2)
KERNEL(f16_256, TYPE_F16, 4)
KERNEL(q8_0_64, TYPE_Q8_0, 1)
KERNEL(q8_0_128, TYPE_Q8_0, 2)
KERNEL(q8_0_256, TYPE_Q8_0, 4)
