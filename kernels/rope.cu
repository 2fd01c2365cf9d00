// Rotary embedding of queries and keys, and the write of keys and values into the cache (layout: kv.cuh).
//
// rope_store   q[n_tokens][n_head][head_dim] is rotated in place; k, v[n_tokens][n_head_kv][head_dim] go, k rotated, into
//              the rows of their positions. The position of token t is first + the one that `token` has for it, or
//              first + t where `token` is null; nothing is stored beyond n_ctx. The cache is that of the first sequence. frequencies[n_dims / 2], n_dims <= head_dim. kind: 0 no rotation, 1 elements 2i and
//              2i + 1, 2 elements i and i + n_dims / 2. kv_type: 0 f32, 1 f16, 8 q8_0 (as src/quant/blocks.rs quantizes:
//              half away from zero). head_dim is a multiple of 16, of 32 for q8_0, at most 256.
//              Before that each head of q and of k is normalised as norm.cu does it, with q_norm[head_dim] and
//              k_norm[head_dim] (null: it is not), and q is multiplied by q_scale, and by
//              1 + sharpening * ln(1 + position / period) where sharpening is not 0. What is rotated is multiplied by
//              magnitude.
//              Grid: (n_head + 2 * n_head_kv, divided by 4 and rounded up; n_tokens).
#include "kv.cuh"
#include "pairs.cuh"

#define THREADS 128
#define WARPS (THREADS / 32)
#define MAX_HEAD_DIM 256

// As Rust's `as i8`: saturating, 0 for what is not a number.
DEVICE int to_byte(float v) { return v == v ? (int)fminf(fmaxf(v, -128.0f), 127.0f) : 0; }

// Stores one row, which the warp holds in shared memory.
DEVICE void store_row(const float* row, int head_dim, int kv_type, unsigned char* cache, size_t n_rows, size_t at,
                      int plane) {
    int lane = threadIdx.x % 32;
    if (kv_type == TYPE_F32) {
        float* to = (float*)(cache + kv_rows<TYPE_F32>(n_rows, head_dim, plane)) + at * head_dim;
        for (int i = lane; i < head_dim; i += 32) to[i] = row[i];
    } else if (kv_type == TYPE_F16) {
        unsigned* to = (unsigned*)(cache + kv_rows<TYPE_F16>(n_rows, head_dim, plane) + at * kv_row<TYPE_F16>(head_dim));
        for (int i = lane; i < head_dim / 2; i += 32) {
            to[i] = (unsigned)float_to_half(row[2 * i]) | (unsigned)float_to_half(row[2 * i + 1]) << 16;
        }
    } else {
        signed char* to = (signed char*)cache + kv_rows<TYPE_Q8_0>(n_rows, head_dim, plane) + at * head_dim;
        unsigned short* scales = (unsigned short*)(cache + kv_scales(n_rows, head_dim, plane)) + at * (head_dim / QK);
        for (int block = 0; block < head_dim / QK; block++) {
            float v = row[block * QK + lane];
            float most = warp_max(fabsf(v));
            bool finite = fabsf(v) < infinite();
            float d = __ballot_sync(ALL_LANES, !finite) ? not_a_number() : most / 127.0f;
            float inverse = d == 0.0f ? 0.0f : 1.0f / d;
            to[block * QK + lane] = (signed char)to_byte(roundf(mul_rounded(v, inverse)));
            if (lane == 0) scales[block] = float_to_half(d);
        }
    }
}

// Normalises a head, which the warp holds in shared memory: each lane what it alone reads and writes.
DEVICE void normalize_head(float* row, const float* weight, int head_dim, int layer_kind, float eps) {
    int lane = threadIdx.x % 32;
    Pair mean = {0.0f, 0.0f};
    if (layer_kind) {
        for (int i = lane; i < head_dim; i += 32) {
            Pair v = {row[i], 0.0f};
            add(mean, v);
        }
        mean = divided(warp_sum(mean), (float)head_dim);
    }
    Pair sum = {0.0f, 0.0f};
    for (int i = lane; i < head_dim; i += 32) {
        Pair d = two_sum(row[i], -mean.hi);
        d = two_sum(d.hi, d.lo - mean.lo);
        add(sum, square(d));
    }
    Pair of_squares = divided(warp_sum(sum), (float)head_dim);
    float scale = 1.0f / sqrtf(add_rounded(of_squares.hi + of_squares.lo, eps)), middle = mean.hi + mean.lo;
    for (int i = lane; i < head_dim; i += 32) row[i] = mul_rounded(mul_rounded(row[i] - middle, scale), weight[i]);
}

extern "C" __global__ void __launch_bounds__(THREADS) rope_store(
    float* q, const float* k, const float* v, const float* frequencies, unsigned char* cache, const Token* token, int first,
    int n_head, int n_head_kv, int head_dim, int n_dims, int kind, int kv_type, int n_ctx, const float* q_norm,
    const float* k_norm, int layer_kind, float eps, float q_scale, float sharpening, int period, float magnitude) {
    __shared__ float rows[WARPS][MAX_HEAD_DIM];
    __shared__ float sines[MAX_HEAD_DIM / 2], cosines[MAX_HEAD_DIM / 2];
    size_t t = blockIdx.y;
    int position = first + (token ? token->positions[t] : (int)t);
    if (kind != 0 && (int)threadIdx.x < n_dims / 2) {
        float s, c;
        sincosf(mul_rounded((float)position, frequencies[threadIdx.x]), &s, &c);
        sines[threadIdx.x] = s * magnitude, cosines[threadIdx.x] = c * magnitude;
    }
    __syncthreads();
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // The heads of q, of k, of v, one after another: a warp each.
    int head = blockIdx.x * WARPS + warp;
    if (head >= n_head + 2 * n_head_kv) return;
    int head_kv = head - n_head, plane = head_kv >= n_head_kv;
    if (plane) head_kv -= n_head_kv;
    const float* from = head < n_head ? q + (t * n_head + head) * head_dim
                                      : (plane ? v : k) + (t * n_head_kv + head_kv) * head_dim;
    float* row = rows[warp];
    for (int i = lane; i < head_dim; i += 32) row[i] = from[i];
    const float* norm = head < n_head ? q_norm : plane ? nullptr : k_norm;
    if (norm) normalize_head(row, norm, head_dim, layer_kind, eps);
    if (head < n_head) {
        float scale = q_scale;
        if (sharpening != 0.0f) scale *= 1.0f + sharpening * logf((float)(1 + position / period));
        for (int i = lane; i < head_dim; i += 32) row[i] *= scale;
    }
    __syncwarp();
    if (kind != 0 && !(head >= n_head && plane)) {
        for (int i = lane; i < n_dims / 2; i += 32) {
            int a = kind == 1 ? 2 * i : i, b = kind == 1 ? 2 * i + 1 : i + n_dims / 2;
            float x = row[a], y = row[b];
            row[a] = x * cosines[i] - y * sines[i];
            row[b] = x * sines[i] + y * cosines[i];
        }
    }
    __syncwarp();
    if (head < n_head) {
        float* to = q + (t * n_head + head) * head_dim;
        for (int i = lane; i < head_dim; i += 32) to[i] = row[i];
    } else if (position < n_ctx) {
        size_t n_rows = (size_t)n_head_kv * n_ctx;
        cache += kv_of_sequence(token, (int)t, kv_type, n_rows, head_dim);
        store_row(row, head_dim, kv_type, cache, n_rows, (size_t)head_kv * n_ctx + position, plane);
    }
}
