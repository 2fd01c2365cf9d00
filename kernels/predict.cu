// Predictors of which slots may fire.
//
// sign_scores   scores[row] = the inputs whose sign is the weight's, less the others, for `n_rows` rows of signs (bit j % 8
//               of byte j / 8 is set where weight j is negative) from signs on, against x[n_embd], n_embd a multiple of 32.
//               Whole numbers below 2^24, so exact. Grid: n_rows divided by 32 and rounded up, or fewer blocks.
// hidden        the hidden values h[n], in place: with bias[n] (null: none) added, and what is negative or not a number
//               then 0; and x8 (null: not wanted; else n is a multiple of 32) of them. Grid: n / 1024 rounded up.
#include "common.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)
// Rows that a warp has under way.
#define DEPTH 4
// Words of signs of x: n_embd is at most 32 times as many.
#define MAX_WORDS 512

template <int WORDS> DEVICE int differing(const unsigned* row, const unsigned* x, int n_words) {
    int lane = threadIdx.x % 32, count = 0;
    for (int i = lane * WORDS; i < n_words; i += 32 * WORDS) {
        if (WORDS == 4) {
            int4 w = stream16(row + i);
            count += __popc((unsigned)w.x ^ x[i]) + __popc((unsigned)w.y ^ x[i + 1]);
            count += __popc((unsigned)w.z ^ x[i + 2]) + __popc((unsigned)w.w ^ x[i + 3]);
        } else {
            count += __popc(row[i] ^ x[i]);
        }
    }
    return count;
}

template <int WORDS> DEVICE void score_rows(const unsigned* signs, const unsigned* x, int n_words, int n_rows, float* scores) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int row = (blockIdx.x * WARPS + warp) * DEPTH; row < n_rows; row += gridDim.x * WARPS * DEPTH) {
        int counts[DEPTH];
#pragma unroll
        for (int u = 0; u < DEPTH; u++) {
            counts[u] = differing<WORDS>(signs + (size_t)min(row + u, n_rows - 1) * n_words, x, n_words);
        }
#pragma unroll
        for (int u = 0; u < DEPTH; u++) {
            counts[u] = warp_sum_int(counts[u]);
            if (lane == u && row + u < n_rows) scores[row + u] = (float)(32 * n_words - 2 * counts[u]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) sign_scores(
    const unsigned char* signs, const float* x, int n_embd, int n_rows, float* scores) {
    __shared__ __align__(16) unsigned words[MAX_WORDS];
    int n_words = n_embd / 32, lane = threadIdx.x % 32;
#pragma unroll 4
    for (int w = threadIdx.x / 32; w < n_words; w += WARPS) {
        unsigned word = __ballot_sync(ALL_LANES, bits_of_float(x[w * 32 + lane]) >> 31);
        if (lane == 0) words[w] = word;
    }
    __syncthreads();
    if (n_words % 4 == 0) {
        score_rows<4>((const unsigned*)signs, words, n_words, n_rows, scores);
    } else {
        score_rows<1>((const unsigned*)signs, words, n_words, n_rows, scores);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) hidden(float* h, const float* bias, int n, signed char* x8) {
    int i = blockIdx.x * THREADS + threadIdx.x;
    float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int at = 4 * i + j;
        if (at < n) {
            v[j] = h[at];
            if (bias) h[at] = v[j] = fmaxf(v[j] + bias[at], 0.0f);
        }
    }
    if (x8) {
        float4 quad = {v[0], v[1], v[2], v[3]};
        quantize4_into(x8, n, i, quad);
    }
}
