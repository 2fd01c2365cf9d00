// Normalisation of the residual stream, the merge of a layer's parts into it, and quantization of activations.
//
// norm         x[n_tokens][n] to out[n_tokens][n] (null: not wanted) and its quantized form x8[n_tokens] (null: not
//              wanted), as src/executor/norm.rs does. kind 0: divided by the root mean square; 1: the mean removed
//              before. weight[n]; bias[n] or null. One block per token.
// merge_norm   x = (x + a_scale * a) + b_scale * ((b + shift) + reply), each of a, b, shift and the reply to `job` (reply
//              null: none is due) left out where there is none, then norm of the new x where weight is not null. Waits for
//              the reply at most limit_ms; it is left out when nothing was posted or it does not come. Where x is null it
//              counts as 0, and is not stored; out may be b. x, a, b, reply, out and x8 are of n_tokens, shift[n] of all of
//              them. One block per token.
// quantize     x[n_tokens][n] to x8[n_tokens]. Grid: (n / 4096 rounded up, n_tokens).
//
// n is a multiple of 32, at most 16384 for the norms. Sums are of pairs of floats (pairs.cuh); their order depends on n only.
#include "pairs.cuh"
#include "token.cuh"

#define THREADS 1024
#define WARPS (THREADS / 32)
// Four elements each; n is at most 4 * QUADS * THREADS.
#define QUADS 4

// Sum over the block, in every lane of warp 0 only. `partial` is free again after the caller's next barrier.
DEVICE Pair sum_in_warp_0(Pair v, Pair* partial) {
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        Pair none = {0.0f, 0.0f};
        v = threadIdx.x < WARPS ? partial[threadIdx.x] : none;
#pragma unroll
        for (int o = WARPS / 2; o > 0; o >>= 1) {
            Pair other = {__shfl_xor_sync(ALL_LANES, v.hi, o), __shfl_xor_sync(ALL_LANES, v.lo, o)};
            v = plus(v, other);
        }
    }
    return v;
}

// The norm of the vector whose elements 4 * (k * THREADS + thread) and the next three are v[k].
DEVICE void normalize(const float4* v, const float* weight, const float* bias, int n, int layer_kind, float eps, float* out,
                      signed char* x8) {
    __shared__ Pair partial[2][WARPS];
    __shared__ Pair shared_mean;
    __shared__ float shared_scale;
    // Asked for before the sums, so that they come meanwhile.
    float4 w[QUADS];
#pragma unroll
    for (int k = 0; k < QUADS; k++) {
        int i = k * THREADS + threadIdx.x;
        if (i < n / 4) w[k] = load_float4(weight + 4 * i);
    }
    Pair mean = {0.0f, 0.0f};
    if (layer_kind) {
        Pair sum = {0.0f, 0.0f};
#pragma unroll
        for (int k = 0; k < QUADS; k++) {
            if (k * THREADS + (int)threadIdx.x < n / 4) {
                add(sum, two_sum(v[k].x, v[k].y));
                add(sum, two_sum(v[k].z, v[k].w));
            }
        }
        sum = sum_in_warp_0(sum, partial[0]);
        if (threadIdx.x == 0) shared_mean = divided(sum, (float)n);
        __syncthreads();
        mean = shared_mean;
    }
    Pair sum = {0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < QUADS; k++) {
        if (k * THREADS + (int)threadIdx.x < n / 4) {
            const float e[4] = {v[k].x, v[k].y, v[k].z, v[k].w};
#pragma unroll
            for (int j = 0; j < 4; j++) {
                Pair d = {e[j], 0.0f};
                if (layer_kind) {
                    // What is left may be as small as the mean's second part.
                    d = two_sum(e[j], -mean.hi);
                    d = two_sum(d.hi, d.lo - mean.lo);
                }
                add(sum, square(d));
            }
        }
    }
    sum = sum_in_warp_0(sum, partial[1]);
    if (threadIdx.x == 0) {
        Pair of_squares = divided(sum, (float)n);
        shared_scale = 1.0f / sqrtf(add_rounded(of_squares.hi + of_squares.lo, eps));
    }
    __syncthreads();
    float scale = shared_scale, middle = mean.hi + mean.lo;
#pragma unroll
    for (int k = 0; k < QUADS; k++) {
        int i = k * THREADS + threadIdx.x;
        // The same for a whole warp or, as n is a multiple of 32, for whole blocks of eight lanes.
        if (k * THREADS + (int)(threadIdx.x & ~31u) >= n / 4) break;
        float4 y = {0.0f, 0.0f, 0.0f, 0.0f};
        if (i < n / 4) {
            y.x = mul_rounded(mul_rounded(v[k].x - middle, scale), w[k].x);
            y.y = mul_rounded(mul_rounded(v[k].y - middle, scale), w[k].y);
            y.z = mul_rounded(mul_rounded(v[k].z - middle, scale), w[k].z);
            y.w = mul_rounded(mul_rounded(v[k].w - middle, scale), w[k].w);
            if (bias) {
                float4 b = load_float4(bias + 4 * i);
                y.x = add_rounded(y.x, b.x), y.y = add_rounded(y.y, b.y);
                y.z = add_rounded(y.z, b.z), y.w = add_rounded(y.w, b.w);
            }
            if (out) ((float4*)out)[i] = y;
        }
        if (x8) quantize4_into(x8, n, i, y);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) norm(
    const float* x, const float* weight, const float* bias, int n, int layer_kind, float eps, float* out, signed char* x8) {
    float4 v[QUADS];
    size_t token = blockIdx.x;
#pragma unroll
    for (int k = 0; k < QUADS; k++) {
        int i = k * THREADS + threadIdx.x;
        if (i < n / 4) v[k] = ((const float4*)(x + token * n))[i];
    }
    normalize(v, weight, bias, n, layer_kind, eps, out ? out + token * n : out, x8 ? x8 + token * x8_bytes(n) : x8);
}

DEVICE float4 sum_of(float4 a, float4 b) {
    float4 s = {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
    return s;
}

// a + scale * b, rounded twice as on the CPU.
DEVICE float4 sum_of(float4 a, float scale, float4 b) {
    float4 s = {add_rounded(a.x, mul_rounded(scale, b.x)), add_rounded(a.y, mul_rounded(scale, b.y)),
                add_rounded(a.z, mul_rounded(scale, b.z)), add_rounded(a.w, mul_rounded(scale, b.w))};
    return s;
}

extern "C" __global__ void __launch_bounds__(THREADS) merge_norm(
    float* x, const float* a, float a_scale, const float* b, const float* shift, float b_scale, const float* reply,
    unsigned char* mailbox, Token* token, int job, int limit_ms, const float* weight, const float* bias, int n,
    int layer_kind, float eps, float* out, signed char* x8) {
    float4 v[QUADS], part[QUADS];
    const float4 zero = {0.0f, 0.0f, 0.0f, 0.0f};
    size_t at = (size_t)blockIdx.x * n;
    // All of this is under way while the reply is waited for.
#pragma unroll
    for (int k = 0; k < QUADS; k++) {
        int i = k * THREADS + threadIdx.x;
        if (i < n / 4) {
            v[k] = x ? ((const float4*)(x + at))[i] : zero;
            if (a) v[k] = sum_of(v[k], a_scale, ((const float4*)(a + at))[i]);
            part[k] = b ? ((const float4*)(b + at))[i] : zero;
            if (shift) part[k] = sum_of(part[k], load_float4(shift + 4 * i));
        }
    }
    bool came = reply && block_waits_for_reply(mailbox, token, job, limit_ms);
#pragma unroll
    for (int k = 0; k < QUADS; k++) {
        int i = k * THREADS + threadIdx.x;
        if (i < n / 4) {
            if (came) part[k] = sum_of(part[k], ((const float4*)(reply + at))[i]);
            if (came || b || shift) v[k] = sum_of(v[k], b_scale, part[k]);
            if (x) ((float4*)(x + at))[i] = v[k];
        }
    }
    if (weight) {
        normalize(v, weight, bias, n, layer_kind, eps, out ? out + at : out,
                  x8 ? x8 + blockIdx.x * x8_bytes(n) : x8);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) quantize(const float* x, signed char* x8, int n) {
    size_t token = blockIdx.y;
    int i = blockIdx.x * THREADS + threadIdx.x;
    float4 v = {0.0f, 0.0f, 0.0f, 0.0f};
    if (i < n / 4) v = ((const float4*)(x + token * n))[i];
    quantize4_into(x8 + token * x8_bytes(n), n, i, v);
}
