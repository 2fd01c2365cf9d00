// Attention of a token, or of each of a few, to everything in the cache of its sequence up to itself (layout of the cache: kv.cuh).
//
// attention_<type>_g<G>   out[n_head][head_dim] = softmax(q . keys / sqrt(head_dim)) values, for q[n_head][head_dim], over
//     the positions up to that of `token`: all of them, or the last `window`. Query head h reads the key/value head h / (n_head / n_head_kv); G of them share
//     its loads. x8 (null: not wanted): the quantized form of out, for head_dim a multiple of 32. With a q8_0 cache q is
//     quantized, too, and keys meet it in integers, as on the CPU. f32 comes with
//     G = 1 only. head_dim is a multiple of 16 (of 32 for q8_0), at most
//     256. Grid: (n_splits, n_head_kv * (n_head / n_head_kv, divided by G and rounded up), tokens), n_splits at most 64. Tokens have
//     their q, out and x8 one behind the other, and a scratch each; the cache is that of the first sequence.
//
// Blocks of one row of the grid divide the positions between them, in pieces of at least 64; those that get none end at
// once, so one grid serves every length of the context. Each has a largest score, a sum and a vector (online softmax,
// arXiv 1805.02867) and the last one to be done puts them together, in the order of positions. So the result depends on
// the sizes and the position only. scratch: floats [n_head][n_splits][head_dim], then [n_head][n_splits][2], then one
// counter per row of the grid, which is zero between launches.
#include "kv.cuh"

#define THREADS 128
#define WARPS (THREADS / 32)
#define MAX_HEAD_DIM 256
#define MAX_SPLITS 64
// Fewest positions of a block.
#define MIN_PIECE 64
// Elements of a row per lane.
#define PER_LANE 8
// Before any score has come: smaller than all of them, yet its difference to another such is 0.
#define NO_SCORE (-1e38f)

// A lane's part of G queries.
template <int TYPE, int G> struct Queries {
    float v[G][PER_LANE];
};
template <int G> struct Queries<TYPE_Q8_0, G> {
    int v[G][PER_LANE / 4];
    float d[G];
};

// A lane's part of a row.
template <int TYPE> struct Part {
    int4 raw;
};
template <> struct Part<TYPE_F32> {
    float4 a, b;
};
template <> struct Part<TYPE_Q8_0> {
    int2 raw;
    float d;
};

DEVICE Part<TYPE_F16> load_part(const unsigned char* base, size_t n_rows, int head_dim, int plane, size_t row, int at,
                                Part<TYPE_F16>) {
    const unsigned char* rows = base + kv_rows<TYPE_F16>(n_rows, head_dim, plane);
    Part<TYPE_F16> p;
    p.raw = stream16(rows + (row * head_dim + at) * 2);
    return p;
}
DEVICE Part<TYPE_F32> load_part(const unsigned char* base, size_t n_rows, int head_dim, int plane, size_t row, int at,
                                Part<TYPE_F32>) {
    const float* from = (const float*)(base + kv_rows<TYPE_F32>(n_rows, head_dim, plane)) + row * head_dim + at;
    Part<TYPE_F32> p;
    p.a = load_float4(from);
    p.b = load_float4(from + 4);
    return p;
}
DEVICE Part<TYPE_Q8_0> load_part(const unsigned char* base, size_t n_rows, int head_dim, int plane, size_t row, int at,
                                 Part<TYPE_Q8_0>) {
    const unsigned char* rows = base + kv_rows<TYPE_Q8_0>(n_rows, head_dim, plane);
    Part<TYPE_Q8_0> p;
    p.raw = *(const int2*)(rows + row * head_dim + at);
    p.d = half_to_float(load2(base + kv_scales(n_rows, head_dim, plane) + (row * (head_dim / QK) + at / QK) * 2));
    return p;
}

DEVICE void part_values(Part<TYPE_F16> p, float* out) {
    const int words[4] = {p.raw.x, p.raw.y, p.raw.z, p.raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 v = halves_to_floats((unsigned)words[i]);
        out[2 * i] = v.x, out[2 * i + 1] = v.y;
    }
}
DEVICE void part_values(Part<TYPE_F32> p, float* out) {
    out[0] = p.a.x, out[1] = p.a.y, out[2] = p.a.z, out[3] = p.a.w;
    out[4] = p.b.x, out[5] = p.b.y, out[6] = p.b.z, out[7] = p.b.w;
}
DEVICE void part_values(Part<TYPE_Q8_0> p, float* out) {
    // Flipping the sign bit adds 128.
    unsigned words[2] = {(unsigned)p.raw.x ^ 0x80808080u, (unsigned)p.raw.y ^ 0x80808080u};
    const float offset = 8388608.0f + 128.0f;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        out[4 * i] = (byte_above_2_23<0>(words[i]) - offset) * p.d;
        out[4 * i + 1] = (byte_above_2_23<1>(words[i]) - offset) * p.d;
        out[4 * i + 2] = (byte_above_2_23<2>(words[i]) - offset) * p.d;
        out[4 * i + 3] = (byte_above_2_23<3>(words[i]) - offset) * p.d;
    }
}

// The lane's products of one key with G queries.
template <int TYPE, int G> DEVICE void scores_of(Part<TYPE> key, const Queries<TYPE, G>& q, float* s) {
    float k[PER_LANE];
    part_values(key, k);
#pragma unroll
    for (int g = 0; g < G; g++) {
        s[g] = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) s[g] += k[i] * q.v[g][i];
    }
}
template <int G> DEVICE void scores_of(Part<TYPE_Q8_0> key, const Queries<TYPE_Q8_0, G>& q, float* s) {
#pragma unroll
    for (int g = 0; g < G; g++) s[g] = (float)dp4a(key.raw.x, q.v[g][0], dp4a(key.raw.y, q.v[g][1], 0)) * (key.d * q.d[g]);
}

DEVICE void load8(const float* from, bool on, float* v) {
    float4 a = {0.0f, 0.0f, 0.0f, 0.0f}, b = a;
    if (on) a = load_float4(from), b = load_float4(from + 4);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

// A lane's part of query g, times `scale`; zeros where the lane is not on.
template <int TYPE, int G> DEVICE void load_query(Queries<TYPE, G>& q, int g, const float* from, bool on, float scale) {
    load8(from, on, q.v[g]);
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) q.v[g][i] *= scale;
}
template <int G> DEVICE void load_query(Queries<TYPE_Q8_0, G>& q, int g, const float* from, bool on, float scale) {
    float v[PER_LANE], most = 0.0f, poison = 0.0f;
    load8(from, on, v);
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        most = fmaxf(most, fabsf(v[i]));
        poison += v[i] * 0.0f;
    }
    // Four lanes have a block of 32.
#pragma unroll
    for (int o = 2; o > 0; o >>= 1) {
        most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, o));
        poison += __shfl_xor_sync(ALL_LANES, poison, o);
    }
    float inverse = 127.0f / most;
    if (!(inverse < infinite())) inverse = 0.0f;
#pragma unroll
    for (int w = 0; w < PER_LANE / 4; w++) {
        unsigned word = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) word |= ((unsigned)quantized(v[4 * w + i], inverse) & 0xff) << 8 * i;
        q.v[g][w] = (int)word;
    }
    q.d[g] = (most / 127.0f + poison) * scale;
}

// One element per lane of 32 neighbouring elements, those from `at` on of a vector of n, into x8. Whole warps.
DEVICE void quantize_lane_into(signed char* x8, int n, int at, float v) {
    float most = warp_max(fabsf(v)), poison = warp_sum(v * 0.0f);
    float inverse = 127.0f / most;
    if (!(inverse < infinite())) inverse = 0.0f;
    int q = quantized(v, inverse), sum = warp_sum_int(q);
    x8[at] = (signed char)q;
    if (threadIdx.x % 32 == 0) {
        float* scales = (float*)(x8 + n);
        float d = most / 127.0f + poison;
        scales[at / QK] = d;
        scales[n / QK + at / QK] = d * (float)sum;
    }
}

template <int TYPE, int G>
DEVICE void attend(const float* q, const unsigned char* cache, const Token* token, float* out, signed char* x8, float* scratch,
                   int n_head, int n_head_kv, int head_dim, int n_ctx, int window) {
    // Positions that a group of lanes has under way.
    constexpr int DEPTH = TYPE == TYPE_F32 || G == 8 ? 2 : 4;
    __shared__ float sums[WARPS][G][MAX_HEAD_DIM];
    __shared__ float largest[WARPS][G], totals[WARPS][G];
    __shared__ float weights[G][MAX_SPLITS];
    __shared__ float final_total[G];
    __shared__ int is_last;

    int t = blockIdx.z;
    size_t n_rows = (size_t)n_head_kv * n_ctx;
    q += (size_t)t * n_head * head_dim, out += (size_t)t * n_head * head_dim;
    if (x8) x8 += t * x8_bytes(n_head * head_dim);
    scratch += t * ((size_t)n_head * gridDim.x * (head_dim + 2) + gridDim.y);
    cache += kv_of_sequence(token, t, TYPE, n_rows, head_dim);
    int n_past = token->positions[t] + 1, n_splits = gridDim.x;
    if (n_past > n_ctx) n_past = n_ctx;
    int n = min(n_past, window), begin_of_all = n_past - n;
    int piece = ((n + n_splits - 1) / n_splits + 31) & ~31;
    if (piece < MIN_PIECE) piece = MIN_PIECE;
    int n_pieces = (n + piece - 1) / piece, first = begin_of_all + blockIdx.x * piece;
    int end = min(first + piece, n_past);
    if (first >= n_past) return;

    int group = n_head / n_head_kv, rows_of_kv = (group + G - 1) / G;
    int head_kv = blockIdx.y / rows_of_kv, in_group = blockIdx.y % rows_of_kv * G;
    int head = head_kv * group + in_group, n_here = min(G, group - in_group);
    size_t first_row = (size_t)head_kv * n_ctx;

    // Lanes of a row: the next power of two, so some may be idle.
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, lanes = 2;
    while (lanes * PER_LANE < head_dim) lanes *= 2;
    int at = lane % lanes * PER_LANE, rows_at_once = 32 / lanes;
    bool on = at < head_dim;

    Queries<TYPE, G> queries;
    // Exponentials are of base 2 here.
    float scale = 1.44269504f / sqrtf((float)head_dim);
#pragma unroll
    for (int g = 0; g < G; g++) {
        // Beyond the last query of the group the last one is computed again and left out at the end.
        load_query(queries, g, q + (size_t)(head + min(g, n_here - 1)) * head_dim + at, on, scale);
    }
    float most[G], total[G], sum[G][PER_LANE];
#pragma unroll
    for (int g = 0; g < G; g++) {
        most[g] = NO_SCORE, total[g] = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) sum[g][i] = 0.0f;
    }

    int step = WARPS * rows_at_once;
    for (int begin = first; begin < end; begin += step * DEPTH) {
        int p0 = begin + warp * rows_at_once + lane / lanes;
        Part<TYPE> keys[DEPTH], values[DEPTH];
#pragma unroll
        for (int u = 0; u < DEPTH; u++) {
            // What is beyond the end is read from the last row, so that no lane goes its own way, and left out below.
            size_t row = first_row + min(p0 + u * step, end - 1);
            keys[u] = load_part(cache, n_rows, head_dim, 0, row, on ? at : 0, Part<TYPE>());
            values[u] = load_part(cache, n_rows, head_dim, 1, row, on ? at : 0, Part<TYPE>());
        }
        float s[DEPTH][G];
#pragma unroll
        for (int u = 0; u < DEPTH; u++) {
            scores_of(keys[u], queries, s[u]);
            if (!on) {
#pragma unroll
                for (int g = 0; g < G; g++) s[u][g] = 0.0f;
            }
        }
        for (int o = lanes / 2; o > 0; o /= 2) {
#pragma unroll
            for (int u = 0; u < DEPTH; u++) {
#pragma unroll
                for (int g = 0; g < G; g++) s[u][g] += __shfl_xor_sync(ALL_LANES, s[u][g], o);
            }
        }
#pragma unroll
        for (int g = 0; g < G; g++) {
            float now = most[g];
#pragma unroll
            for (int u = 0; u < DEPTH; u++) {
                if (p0 + u * step >= end) s[u][g] = -infinite();
                now = fmaxf(now, s[u][g]);
            }
            float rescale = exp2f(most[g] - now);
            most[g] = now;
            total[g] *= rescale;
#pragma unroll
            for (int i = 0; i < PER_LANE; i++) sum[g][i] *= rescale;
#pragma unroll
            for (int u = 0; u < DEPTH; u++) {
                s[u][g] = exp2f(s[u][g] - now);
                total[g] += s[u][g];
            }
        }
#pragma unroll
        for (int u = 0; u < DEPTH; u++) {
            float v[PER_LANE];
            part_values(values[u], v);
            // A weight of 0 takes no part, whatever was read there.
            bool counts = p0 + u * step < end;
#pragma unroll
            for (int i = 0; i < PER_LANE; i++) v[i] = counts ? v[i] : 0.0f;
#pragma unroll
            for (int g = 0; g < G; g++) {
#pragma unroll
                for (int i = 0; i < PER_LANE; i++) sum[g][i] += s[u][g] * v[i];
            }
        }
    }

    // The rows of a warp, then the warps of the block.
#pragma unroll
    for (int g = 0; g < G; g++) {
        float now = most[g];
        for (int o = lanes; o < 32; o *= 2) now = fmaxf(now, __shfl_xor_sync(ALL_LANES, now, o));
        float rescale = exp2f(most[g] - now);
        total[g] *= rescale;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) sum[g][i] *= rescale;
        for (int o = lanes; o < 32; o *= 2) {
            total[g] += __shfl_xor_sync(ALL_LANES, total[g], o);
#pragma unroll
            for (int i = 0; i < PER_LANE; i++) sum[g][i] += __shfl_xor_sync(ALL_LANES, sum[g][i], o);
        }
        if (lane < lanes && on) {
#pragma unroll
            for (int i = 0; i < PER_LANE; i++) sums[warp][g][at + i] = sum[g][i];
        }
        if (lane == 0) largest[warp][g] = now, totals[warp][g] = total[g];
    }
    __syncthreads();
    float* pairs = scratch + (size_t)n_head * n_splits * head_dim;
    int n_out = n_here * head_dim, n_vector = n_head * head_dim;
    for (int i = threadIdx.x; i < n_out; i += THREADS) {
        int g = i / head_dim, e = i - g * head_dim;
        float now = largest[0][g], value = 0.0f, sum_of_weights = 0.0f;
#pragma unroll
        for (int w = 1; w < WARPS; w++) now = fmaxf(now, largest[w][g]);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float weight = exp2f(largest[w][g] - now);
            value += weight * sums[w][g][e];
            sum_of_weights += weight * totals[w][g];
        }
        if (n_pieces == 1) {
            value /= sum_of_weights;
            out[head * head_dim + i] = value;
            if (x8) quantize_lane_into(x8, n_vector, head * head_dim + i, value);
        } else {
            size_t slot = (size_t)(head + g) * n_splits + blockIdx.x;
            scratch[slot * head_dim + e] = value;
            if (e == 0) pairs[2 * slot] = now, pairs[2 * slot + 1] = sum_of_weights;
        }
    }
    if (n_pieces == 1) return;

    unsigned* counter = (unsigned*)(pairs + (size_t)n_head * n_splits * 2) + blockIdx.y;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        is_last = atomicAdd(counter, 1u) + 1 == (unsigned)n_pieces;
        if (is_last) *counter = 0;
        __threadfence();
    }
    __syncthreads();
    if (!is_last) return;
    for (int g = warp; g < n_here; g += WARPS) {
        const float* pair = pairs + 2 * (size_t)(head + g) * n_splits;
        float now = NO_SCORE, sum_of_weights = 0.0f;
        for (int p = lane; p < n_pieces; p += 32) now = fmaxf(now, __ldcg(pair + 2 * p));
        now = warp_max(now);
        for (int p = lane; p < n_pieces; p += 32) {
            float weight = exp2f(__ldcg(pair + 2 * p) - now);
            weights[g][p] = weight;
            sum_of_weights += weight * __ldcg(pair + 2 * p + 1);
        }
        sum_of_weights = warp_sum(sum_of_weights);
        if (lane == 0) final_total[g] = sum_of_weights;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n_out; i += THREADS) {
        int g = i / head_dim, e = i - g * head_dim;
        const float* from = scratch + (size_t)(head + g) * n_splits * head_dim + e;
        float value = 0.0f;
#pragma unroll 8
        for (int p = 0; p < n_pieces; p++) value += weights[g][p] * __ldcg(from + (size_t)p * head_dim);
        value /= final_total[g];
        out[head * head_dim + i] = value;
        if (x8) quantize_lane_into(x8, n_vector, head * head_dim + i, value);
    }
}

#define ATTENTION(name, type, g)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) name(                                                        \
        const float* q, const unsigned char* cache, const Token* token, float* out, signed char* x8, float* scratch,   \
        int n_head, int n_head_kv, int head_dim, int n_ctx, int window) {                                              \
        attend<type, g>(q, cache, token, out, x8, scratch, n_head, n_head_kv, head_dim, n_ctx, window);                \
    }

ATTENTION(attention_f16_g1, TYPE_F16, 1)
ATTENTION(attention_f16_g2, TYPE_F16, 2)
ATTENTION(attention_f16_g4, TYPE_F16, 4)
ATTENTION(attention_f16_g8, TYPE_F16, 8)
ATTENTION(attention_q8_0_g1, TYPE_Q8_0, 1)
ATTENTION(attention_q8_0_g2, TYPE_Q8_0, 2)
ATTENTION(attention_q8_0_g4, TYPE_Q8_0, 4)
ATTENTION(attention_q8_0_g8, TYPE_Q8_0, 8)
ATTENTION(attention_f32_g1, TYPE_F32, 1)
