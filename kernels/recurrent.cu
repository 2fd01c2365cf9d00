// Layers that recur: Mamba-2, by the formulas of src/cpu/ssm/mod.rs. Letters are theirs: M heads of P elements, G groups that share
// vectors of N elements, a convolution of K taps over C = M P + 2 G N channels.
//
// Of each token the input projection gives z[M P], u[C] and dt[M], one behind the other: `projected`, rows `stride` floats apart. What
// a sequence remembers of the layer is conv[K - 1][C], channels of the tokens before, the oldest first, and state[M][N][P]. Both
// kernels take n_tokens tokens up in their order, the first at the position of `token` (null: 0) + first; at position 0 nothing is
// remembered, whatever is there. A token gets the same bits among others as alone.
//
// recurrent_convolve   u = silu(bias + sum over k of taps[c][k] * u of K - 1 - k tokens before), in its place. taps[C][K], K at most
//                      16; bias[C]. Sums run from the oldest token to the token's own. Grid: C / 128 rounded up.
// recurrent_scan       y[n_tokens][M P], gated, from what the convolution gave: x, B and C. dt_bias[M], rates[M] (a), past[M] (d).
//                      Sums over N run through 128 elements at a time; of these each eighth is summed in its order, then the eight
//                      are. Grid: (P / 32 rounded up, M).
// recurrent_norm       each n values of x[n_tokens][G * n] divided by their root mean square and times weight[G * n], to out (may be x)
//                      and to the quantized form x8[n_tokens] (null: not wanted) of all G * n. n is a multiple of 32. Sums are of pairs of
//                      floats. Grid: (G, n_tokens).
//
// What is remembered of the sequences of `token` lies `apart` bytes apart; conv and state are those of the first one.
#include "pairs.cuh"

#define CHANNELS 128
#define MOST_TAPS 16
// Tokens whose channels are asked for at once.
#define AHEAD 8

DEVICE bool begins(const Token* token, int first) { return (token ? token->position : 0) + first == 0; }

// Floats from what is remembered of the first sequence to that of the token's.
DEVICE size_t of_sequence(const Token* token, int apart) {
    return token ? (size_t)token->sequences[0] * ((unsigned)apart / 4) : 0;
}

extern "C" __global__ void __launch_bounds__(CHANNELS) recurrent_convolve(
    float* u, int stride, int n_channels, int n_conv, const float* taps, const float* bias, float* conv, const Token* token,
    int first, int n_tokens, int apart) {
    conv += of_sequence(token, apart);
    int c = blockIdx.x * CHANNELS + threadIdx.x;
    if (c >= n_channels) return;
    bool empty = begins(token, first);
    // The last of MOST_TAPS places are the K that there are.
    int unused = MOST_TAPS - n_conv;
    float tap[MOST_TAPS], window[MOST_TAPS], start = load_float(bias + c);
#pragma unroll
    for (int k = 0; k < MOST_TAPS; k++) {
        tap[k] = k >= unused ? load_float(taps + (size_t)c * n_conv + k - unused) : 0.0f;
        window[k] = k > unused && !empty ? conv[(size_t)(k - unused - 1) * n_channels + c] : 0.0f;
    }
    for (int t = 0; t < n_tokens; t += AHEAD) {
        float next[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) next[i] = t + i < n_tokens ? u[(size_t)(t + i) * stride + c] : 0.0f;
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (t + i >= n_tokens) break;
#pragma unroll
            for (int k = 1; k < MOST_TAPS; k++) window[k - 1] = window[k];
            window[MOST_TAPS - 1] = next[i];
            float sum = start;
#pragma unroll
            for (int k = 0; k < MOST_TAPS; k++) {
                if (k >= unused) sum += tap[k] * window[k];
            }
            u[(size_t)(t + i) * stride + c] = activate(ACTIVATION_SILU, sum);
        }
    }
#pragma unroll
    for (int k = 0; k < MOST_TAPS; k++) {
        if (k > unused) conv[(size_t)(k - unused - 1) * n_channels + c] = window[k];
    }
}

#define THREADS 256
#define WARPS (THREADS / 32)
// Elements of N of a warp, which it holds in registers for one element of P in each lane, and of all warps.
#define OF_WARP 16
#define OF_BLOCK (WARPS * OF_WARP)
// Tokens between two barriers.
#define TOKENS 16

extern "C" __global__ void __launch_bounds__(THREADS) recurrent_scan(
    const float* projected, int stride, int n_heads, int head_dim, int n_groups, int n_state, const float* dt_bias,
    const float* rates, const float* past, float* state, float* y, const Token* token, int first, int n_tokens,
    int apart) {
    __shared__ float4 into[TOKENS][OF_BLOCK / 4], out_of[TOKENS][OF_BLOCK / 4];
    __shared__ float partial[WARPS][TOKENS][32];
    __shared__ float xs[TOKENS][32], delta[TOKENS], decay[TOKENS];
    int head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int p = blockIdx.x * 32 + lane, n_inner = n_heads * head_dim, at = head * head_dim + p;
    bool inside = p < head_dim, empty = begins(token, first);
    const float* u = projected + n_inner;
    const float* b = u + n_inner + (size_t)(head / (n_heads / n_groups)) * n_state;
    const float* c = b + (size_t)n_groups * n_state;
    const float* dt = u + n_inner + 2 * (size_t)n_groups * n_state + head;
    for (int n = 0; n < n_state; n += OF_BLOCK) {
        float s[OF_WARP];
        // Asked for again rather than kept.
        float* own = state + of_sequence(token, apart) + ((size_t)head * n_state + n + warp * OF_WARP) * head_dim + p;
        int n_own = inside ? n_state - n - warp * OF_WARP : 0;
#pragma unroll
        for (int i = 0; i < OF_WARP; i++) s[i] = i < n_own && !empty ? own[(size_t)i * head_dim] : 0.0f;
        for (int t0 = 0; t0 < n_tokens; t0 += TOKENS) {
            int at_once = n_tokens - t0 < TOKENS ? n_tokens - t0 : TOKENS;
            for (int i = threadIdx.x; i < at_once * OF_BLOCK; i += THREADS) {
                int t = i / OF_BLOCK, k = i % OF_BLOCK;
                size_t of = (size_t)(t0 + t) * stride + n + k;
                bool there = n + k < n_state;
                ((float*)into[t])[k] = there ? b[of] : 0.0f;
                ((float*)out_of[t])[k] = there ? c[of] : 0.0f;
            }
            for (int i = threadIdx.x; i < at_once * 32; i += THREADS) {
                xs[i / 32][lane] = inside ? u[(size_t)(t0 + i / 32) * stride + at] : 0.0f;
            }
            if ((int)threadIdx.x < at_once) {
                float d = dt[(size_t)(t0 + threadIdx.x) * stride] + load_float(dt_bias + head);
                d = d > 20.0f ? d : log1pf(expf(d));
                delta[threadIdx.x] = d, decay[threadIdx.x] = expf(d * load_float(rates + head));
            }
            __syncthreads();
            for (int t = 0; t < at_once; t++) {
                float x = delta[t] * xs[t][lane], left = decay[t], sum = 0.0f;
#pragma unroll
                for (int i = 0; i < OF_WARP; i += 4) {
                    float4 in = into[t][warp * (OF_WARP / 4) + i / 4], out = out_of[t][warp * (OF_WARP / 4) + i / 4];
                    s[i] = s[i] * left + in.x * x, sum += out.x * s[i];
                    s[i + 1] = s[i + 1] * left + in.y * x, sum += out.y * s[i + 1];
                    s[i + 2] = s[i + 2] * left + in.z * x, sum += out.z * s[i + 2];
                    s[i + 3] = s[i + 3] * left + in.w * x, sum += out.w * s[i + 3];
                }
                partial[warp][t][lane] = sum;
            }
            __syncthreads();
            for (int i = threadIdx.x; i < at_once * 32 && inside; i += THREADS) {
                int t = i / 32;
                float* to = y + (size_t)(t0 + t) * n_inner + at;
                float sum = 0.0f;
#pragma unroll
                for (int w = 0; w < WARPS; w++) sum += partial[w][t][lane];
                // By the thread that has written it.
                if (n > 0) sum += *to;
                if (n + OF_BLOCK >= n_state) {
                    sum += load_float(past + head) * xs[t][lane];
                    sum *= activate(ACTIVATION_SILU, projected[(size_t)(t0 + t) * stride + at]);
                }
                *to = sum;
            }
            // What the sums read is given other values behind the next barrier but one.
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < OF_WARP; i++) {
            if (i < n_own) own[(size_t)i * head_dim] = s[i];
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) recurrent_norm(
    const float* x, int n, const float* weight, float eps, float* out, signed char* x8) {
    __shared__ Pair partial[WARPS];
    size_t n_all = (size_t)n * gridDim.x, from = blockIdx.y * n_all + (size_t)n * blockIdx.x;
    Pair sum = {0.0f, 0.0f};
    for (int i = threadIdx.x; i < n; i += THREADS) {
        Pair v = {x[from + i], 0.0f};
        add(sum, square(v));
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    Pair all = partial[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) all = plus(all, partial[w]);
    Pair of_squares = divided(all, (float)n);
    float scale = 1.0f / sqrtf(add_rounded(of_squares.hi + of_squares.lo, eps));
    // Whole warps: a block of 32 values is whole in eight lanes.
    for (int i = threadIdx.x; (i & ~31) < n / 4; i += THREADS) {
        int at = i < n / 4 ? blockIdx.x * (n / 4) + i : (int)(n_all / 4);
        float4 y = {0.0f, 0.0f, 0.0f, 0.0f};
        if (i < n / 4) {
            float4 v = ((const float4*)(x + from))[i], w = load_float4(weight + 4 * (size_t)at);
            y.x = mul_rounded(mul_rounded(v.x, scale), w.x), y.y = mul_rounded(mul_rounded(v.y, scale), w.y);
            y.z = mul_rounded(mul_rounded(v.z, scale), w.z), y.w = mul_rounded(mul_rounded(v.w, scale), w.w);
            ((float4*)(out + from))[i] = y;
        }
        if (x8) quantize4_into(x8 + blockIdx.y * x8_bytes((int)n_all), (int)n_all, at, y);
    }
}
