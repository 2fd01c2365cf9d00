// targets: 75 80
// Products of many tokens with a matrix, on tensor cores: for prefill.
//
// Activations. gemm_pack makes of f32 x `[n_tokens][n]` (rows `stride` floats apart) the form that both products read:
//   halves `[n_tokens][padded]`, padded = n rounded up to 32, zeros behind n; then, directly behind, float scales
//   `[padded / 32][n_tokens]`. x = half * scale. Scales are powers of two, chosen so that the largest of 32 values lies in
//   [2^14, 2^15): no value leaves the range of halves and what is rounded is rounded to 11 bits (values 2^28 times
//   smaller than the largest of their 32 to less). Where one of 32 is not finite the scale is 1. With `tokens` it packs
//   the rows tokens[0], tokens[1], ... of x instead of all; with `weights` each of them times its number there.
//   Grid (ceil(padded / 256), n_tokens), 256 threads.
//
// Weights in halves. F16 goes as it is. Q8_0, Q4_0, Q5_0, IQ4_NL: the integers, exact, and the block's d as a float factor of the
//   block's sum. Q6_K the same with d and scale * quant, rounded to 11 bits. Q4_K, Q5_K, Q5_1, BF16, F32: the value times a power of
//   two per 32 columns, rounded to 11 bits (BF16: exact), so that nothing leaves the range of halves.
//
// gemm_<type>: y[t][i] = f(bias[i] + sum over k of x[t][k] * w[first + i][k]), i in [0, n_rows), k in [0, n_cols);
//   w: planes of `n_stored` rows. y[t] begins at y + t * stride. `bias` may be null. f: activation `act` (common.cuh,
//   -1 none), and then, unless `other` is null, which has y's stride and may be y:
//     combine 1: multiplied by other[t][i], but 0 where the activation is 0, whatever the other is, and with dReLU where
//       the other is not above 0
//     combine 2: other[t][i] added
//
// gemm_t_<type>: y[t][e] += sum over j of h[t][j] * d[first + j][e], j in [0, n_rows), e in [0, n_cols): the matrix
//   stored by neurons. h is packed, with n = n_rows. y[t] begins at y + t * stride. Weights here get one power of
//   two for 32 rows times 32 columns. With `tokens` what belongs to packed token t is added to y[tokens[t]], which must be
//   different ones.
//
// Order of sums: steps of 32 along the inner dimension from 0 up; the 32 products of a step are summed by the tensor core
//   beginning at 0, then multiplied by the scales and added to a float. gemm_t begins with what y holds, so that rows
//   given in several calls, each but the last a multiple of 32, give the same bits as one call. Neither the number of
//   tokens nor a token's neighbours change its sums.
//
// Tiles: 128 rows (gemm_t: columns) and 64 tokens per block of 128 threads, a step of 32 in shared memory while the
//   next one is loaded. Grid (ceil(rows / 128), ceil(n_tokens / 64)). 25 KiB of shared memory.
#include "weights.cuh"

#define TILE_ROWS 128
#define TILE_TOKENS 64
#define STEP 32
#define THREADS 128

extern "C" __global__ void __launch_bounds__(256)
    gemm_pack(const float* __restrict__ x, int stride, int n, const unsigned* tokens, const float* weights,
              unsigned char* __restrict__ packed) {
    int padded = (n + 31) & ~31, n_tokens = gridDim.y, token = blockIdx.y;
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= padded) return; // whole warps
    float value = i < n ? x[(size_t)(tokens ? tokens[token] : token) * stride + i] : 0.0f;
    if (weights) value = mul_rounded(value, weights[token]);
    Power power = power_below(largest_of_lanes<32>(bits_of_float(value) & 0x7fffffffu));
    unsigned short* halves = (unsigned short*)packed;
    halves[(size_t)token * padded + i] = float_to_half(value * power.down);
    float* scales = (float*)(packed + (size_t)n_tokens * padded * 2);
    if ((threadIdx.x & 31) == 0) scales[(size_t)(i / 32) * n_tokens + token] = power.up;
}

// Tiles in shared memory. Groups of 8 halves change places within their row so that neither the 16-byte stores nor the
// loads of matrices meet in a bank.
DEVICE int at_row(int row, int group) { return row * STEP + (group ^ (row >> 1 & 3)) * 8; }
DEVICE int at_column(int k, int group) { return k * TILE_ROWS + (group ^ (k & 7)) * 8; }

struct Steps {
    unsigned short w[2][TILE_ROWS * STEP];
    unsigned short x[2][TILE_TOKENS * STEP];
    float w_scale[2][TILE_ROWS];
    float x_scale[2][TILE_TOKENS];
};

// Before the first and after the last step there are sums in place of steps. Rows are longer than 128 so that those of
// a warp's lanes lie in different banks.
union Shared {
    Steps steps;
    float sums[TILE_TOKENS / 2][TILE_ROWS + 4];
};

// Brings one step of the block's tokens.
DEVICE void bring_tokens(Steps& s, int buffer, const unsigned char* packed, int n_tokens, int n_blocks, int block,
                         int first_token) {
    const unsigned short* halves = (const unsigned short*)packed;
    const float* scales = (const float*)(packed + (size_t)n_tokens * n_blocks * STEP * 2);
#pragma unroll
    for (int i = 0; i < TILE_TOKENS * 4 / THREADS; i++) {
        int token = threadIdx.x / 4 + i * (THREADS / 4), p = threadIdx.x & 3;
        bool there = first_token + token < n_tokens;
        size_t row = there ? first_token + token : 0;
        copy_16(&s.x[buffer][at_row(token, p)], halves + (row * n_blocks + block) * STEP + 8 * p, there);
    }
    int i = threadIdx.x, token = first_token + i;
    if (i < TILE_TOKENS) {
        bool there = token < n_tokens;
        copy_4(&s.x_scale[buffer][i], scales + (size_t)block * n_tokens + (there ? token : 0), there);
    }
}

// A warp's share: 64 rows, 32 tokens.
struct Sums {
    float of[4][4][4]; // [16 rows][8 tokens][as multiply_16x8x16 has them]
};

// Adds one step. TRANSPOSED: the weights lie as [32][128] with a scale per 32 rows, else [128][32] with one per row.
template <bool TRANSPOSED, bool SCALED>
DEVICE void add_step(Sums& sums, const Steps& s, int buffer, int warp_row, int warp_token) {
    int lane = threadIdx.x & 31, in_matrix = lane & 7, matrix = lane >> 3;
    unsigned b[4][4]; // [8 tokens][8 of k]
#pragma unroll
    for (int n = 0; n < 4; n++) load_matrices(b[n], &s.x[buffer][at_row(warp_token + 8 * n + in_matrix, matrix)]);
#pragma unroll
    for (int m = 0; m < 4; m++) {
        unsigned a[2][4];
        int row = warp_row + 16 * m;
#pragma unroll
        for (int k = 0; k < 2; k++) {
            if (TRANSPOSED)
                load_matrices_transposed(
                    a[k], &s.w[buffer][at_column(16 * k + 8 * (matrix >> 1) + in_matrix, row / 8 + (matrix & 1))]);
            else load_matrices(a[k], &s.w[buffer][at_row(row + 8 * (matrix & 1) + in_matrix, 2 * k + (matrix >> 1))]);
        }
        float upper = 1.0f, lower = 1.0f;
        if (SCALED) {
            upper = s.w_scale[buffer][TRANSPOSED ? row / 32 : row + lane / 4];
            lower = TRANSPOSED ? upper : s.w_scale[buffer][row + lane / 4 + 8];
        }
#pragma unroll
        for (int n = 0; n < 4; n++) {
            float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            multiply_16x8x16(c, a[0], b[n][0], b[n][1]);
            multiply_16x8x16(c, a[1], b[n][2], b[n][3]);
            float2 x_scale = *(const float2*)&s.x_scale[buffer][warp_token + 8 * n + 2 * (lane & 3)];
            float* sum = sums.of[m][n];
            if (SCALED) {
                sum[0] += c[0] * upper * x_scale.x;
                sum[1] += c[1] * upper * x_scale.y;
                sum[2] += c[2] * lower * x_scale.x;
                sum[3] += c[3] * lower * x_scale.y;
            } else {
                sum[0] += c[0] * x_scale.x;
                sum[1] += c[1] * x_scale.y;
                sum[2] += c[2] * x_scale.x;
                sum[3] += c[3] * x_scale.y;
            }
        }
    }
}

template <int TYPE> struct Halves {
    static const bool exact = TYPE == TYPE_Q8_0 || TYPE == TYPE_Q4_0 || TYPE == TYPE_Q5_0 || TYPE == TYPE_IQ4_NL ||
                              TYPE == TYPE_Q6_K;
    // Whether a chunk's bound is that of its block of 32.
    static const bool of_block = TYPE == TYPE_Q4_K || TYPE == TYPE_Q5_K || TYPE == TYPE_Q5_1;
};

// Four chunks per thread: of a row in gemm, of four rows in gemm_t.
template <int TYPE> struct Loaded {
    Chunk<TYPE> chunk[4];
};

template <int TYPE> DEVICE void store_rows(Steps& s, int buffer, const Loaded<TYPE>& loaded) {
    int p = threadIdx.x & 3;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = threadIdx.x / 4 + i * (THREADS / 4);
        const Chunk<TYPE>& chunk = loaded.chunk[i];
        unsigned m[4];
        float scale;
        if constexpr (Halves<TYPE>::exact) {
            chunk.exact(m);
            scale = chunk.d;
        } else {
            // All four chunks of a block must take the same power.
            Power power = power_below(Halves<TYPE>::of_block ? chunk.bound() : largest_of_lanes<4>(chunk.bound()));
            chunk.values(m, power.down);
            scale = power.up;
        }
        *(uint4*)&s.w[buffer][at_row(row, p)] = uint4{m[0], m[1], m[2], m[3]};
        if (p == 0) s.w_scale[buffer][row] = scale;
    }
}

template <int TYPE> DEVICE void store_columns(Steps& s, int buffer, const Loaded<TYPE>& loaded) {
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, p = lane & 3;
    unsigned bound = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) bound = larger(bound, loaded.chunk[i].bound());
    Power power = power_below(largest_of_lanes<32>(bound));
#pragma unroll
    for (int i = 0; i < 4; i++) {
        unsigned m[4];
        loaded.chunk[i].values(m, power.down);
        *(uint4*)&s.w[buffer][at_column(lane / 4 + 8 * i, 4 * warp + p)] = uint4{m[0], m[1], m[2], m[3]};
    }
    if (lane == 0) s.w_scale[buffer][warp] = power.up;
}

// The weights of one gemm or gemm_t, and which of them the block has.
struct Matrix {
    const unsigned char* w;
    size_t n_stored, first;
    int n_rows, n_blocks; // n_blocks: of 32 columns
    int begin;            // first row (gemm_t: column) of the block's tile
};

// The place of chunk i of a thread, and whether it is inside the matrix.
template <bool TRANSPOSED> DEVICE bool place(const Matrix& m, int step, int i, size_t& row, int& block) {
    if (TRANSPOSED) {
        int j = step * STEP + (threadIdx.x & 31) / 4 + 8 * i;
        block = m.begin / 32 + threadIdx.x / 32;
        row = m.first + j;
        return j < m.n_rows && block < m.n_blocks;
    }
    int r = m.begin + threadIdx.x / 4 + i * (THREADS / 4);
    block = step;
    row = m.first + r;
    return r < m.n_rows;
}

template <int TYPE, bool TRANSPOSED>
DEVICE void bring_weights(Loaded<TYPE>& loaded, Steps& s, int buffer, const Matrix& m, int step) {
    int p = threadIdx.x & 3;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        size_t row;
        int block;
        bool there = place<TRANSPOSED>(m, step, i, row, block);
        if constexpr (TYPE == TYPE_F16) {
            // Straight into shared memory.
            int to = TRANSPOSED ? at_column((threadIdx.x & 31) / 4 + 8 * i, 4 * (threadIdx.x / 32) + p)
                                : at_row(threadIdx.x / 4 + i * (THREADS / 4), p);
            const unsigned char* from = m.w + (there ? ((row * m.n_blocks + block) * 32 + 8 * p) * 2 : 0);
            copy_16(&s.w[buffer][to], from, there);
        } else {
            if (there) loaded.chunk[i].load(m.w, m.n_stored, row, m.n_blocks, block, p);
            else loaded.chunk[i].clear();
        }
    }
}

template <int TYPE, bool TRANSPOSED> DEVICE void store_weights(Steps& s, int buffer, const Loaded<TYPE>& loaded) {
    if constexpr (TYPE == TYPE_F16) return;
    else if constexpr (TRANSPOSED) store_columns<TYPE>(s, buffer, loaded);
    else store_rows<TYPE>(s, buffer, loaded);
}

template <int TYPE, bool TRANSPOSED> DEVICE void add_all(Sums& sums, Steps& s, const Matrix& m,
                                                         const unsigned char* packed, int n_tokens, int n_steps,
                                                         int warp_row, int warp_token) {
    int first_token = blockIdx.y * TILE_TOKENS;
    bool busy = first_token + warp_token < n_tokens;
    Loaded<TYPE> loaded;
    bring_tokens(s, 0, packed, n_tokens, n_steps, 0, first_token);
    bring_weights<TYPE, TRANSPOSED>(loaded, s, 0, m, 0);
    store_weights<TYPE, TRANSPOSED>(s, 0, loaded);
    wait_copies();
    __syncthreads();
    for (int step = 0; step < n_steps; step++) {
        int buffer = step & 1;
        bool more = step + 1 < n_steps;
        if (more) {
            bring_tokens(s, buffer ^ 1, packed, n_tokens, n_steps, step + 1, first_token);
            bring_weights<TYPE, TRANSPOSED>(loaded, s, buffer ^ 1, m, step + 1);
        }
        if (busy) add_step<TRANSPOSED, TYPE != TYPE_F16>(sums, s, buffer, warp_row, warp_token);
        if (more) store_weights<TYPE, TRANSPOSED>(s, buffer ^ 1, loaded);
        wait_copies();
        __syncthreads();
    }
}

// Moves the sums of half of the block's tokens between the warps that have them and shared memory.
template <bool TO_SHARED> DEVICE void move_sums(Sums& sums, Shared& s, int half, int warp_row, int warp_token) {
    int lane = threadIdx.x & 31;
    if (warp_token != half * 32) return;
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                float& place = s.sums[8 * n + 2 * (lane & 3) + (c & 1)][warp_row + 16 * m + lane / 4 + 8 * (c >> 1)];
                if (TO_SHARED) place = sums.of[m][n][c];
                else sums.of[m][n][c] = place;
            }
}

template <int TYPE>
DEVICE void gemm(const unsigned char* w, int n_stored, int first, int n_rows, int n_cols, const unsigned char* packed,
                 int n_tokens, const float* bias, int act, const float* other, int combine, float* y, int stride) {
    __shared__ __align__(16) Shared s;
    int warp = threadIdx.x / 32, warp_row = warp / 2 * 64, warp_token = warp % 2 * 32;
    Matrix m = {w, (size_t)n_stored, (size_t)first, n_rows, n_cols / 32, (int)blockIdx.x * TILE_ROWS};
    Sums sums = {};
    add_all<TYPE, false>(sums, s.steps, m, packed, n_tokens, n_cols / STEP, warp_row, warp_token);
    int i = m.begin + threadIdx.x;
    float shift = bias && i < n_rows ? bias[i] : 0.0f;
#pragma unroll 1
    for (int half = 0; half < 2; half++) {
        move_sums<true>(sums, s, half, warp_row, warp_token);
        __syncthreads();
        int token = blockIdx.y * TILE_TOKENS + half * 32, n = i < n_rows ? min(n_tokens - token, 32) : 0;
        size_t at = (size_t)token * stride + i;
#pragma unroll 2
        for (int t = 0; t < n; t++, at += stride) {
            float sum = s.sums[t][threadIdx.x];
            float value = activate(act, bias ? sum + shift : sum);
            if (other && combine == 1) value = gated(act, value, other[at]);
            if (other && combine == 2) value += other[at];
            y[at] = value;
        }
        __syncthreads();
    }
}

// Where the sum of a column belongs of packed token `token`.
DEVICE float* place_of(float* y, int stride, const unsigned* tokens, int token, int column) {
    return y + (size_t)(tokens ? tokens[token] : (unsigned)token) * stride + column;
}

template <int TYPE>
DEVICE void gemm_t(const unsigned char* w, int n_stored, int first, int n_rows, int n_cols, const unsigned char* packed,
                   int n_tokens, float* y, int stride, const unsigned* tokens) {
    __shared__ __align__(16) Shared s;
    int warp = threadIdx.x / 32, warp_row = warp / 2 * 64, warp_token = warp % 2 * 32;
    Matrix m = {w, (size_t)n_stored, (size_t)first, n_rows, n_cols / 32, (int)blockIdx.x * TILE_ROWS};
    Sums sums;
    int column = m.begin + threadIdx.x;
#pragma unroll 1
    for (int half = 0; half < 2; half++) {
        int token = blockIdx.y * TILE_TOKENS + half * 32, n = column < n_cols ? min(n_tokens - token, 32) : 0;
#pragma unroll 4
        for (int t = 0; t < 32; t++) s.sums[t][threadIdx.x] = t < n ? *place_of(y, stride, tokens, token + t, column) : 0.0f;
        __syncthreads();
        move_sums<false>(sums, s, half, warp_row, warp_token);
        __syncthreads();
    }
    add_all<TYPE, true>(sums, s.steps, m, packed, n_tokens, (n_rows + STEP - 1) / STEP, warp_row, warp_token);
#pragma unroll 1
    for (int half = 0; half < 2; half++) {
        move_sums<true>(sums, s, half, warp_row, warp_token);
        __syncthreads();
        int token = blockIdx.y * TILE_TOKENS + half * 32, n = column < n_cols ? min(n_tokens - token, 32) : 0;
#pragma unroll 4
        for (int t = 0; t < n; t++) *place_of(y, stride, tokens, token + t, column) = s.sums[t][threadIdx.x];
        __syncthreads();
    }
}

#define KERNELS(name, TYPE)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                              \
        gemm_##name(const unsigned char* __restrict__ w, int n_stored, int first, int n_rows, int n_cols,              \
                    const unsigned char* __restrict__ packed, int n_tokens, const float* bias, int act,                \
                    const float* other, int combine, float* y, int stride) {                                           \
        gemm<TYPE>(w, n_stored, first, n_rows, n_cols, packed, n_tokens, bias, act, other, combine, y, stride);        \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                              \
        gemm_t_##name(const unsigned char* __restrict__ w, int n_stored, int first, int n_rows, int n_cols,            \
                      const unsigned char* __restrict__ packed, int n_tokens, float* y, int stride,                    \
                      const unsigned* tokens) {                                                                        \
        gemm_t<TYPE>(w, n_stored, first, n_rows, n_cols, packed, n_tokens, y, stride, tokens);                         \
    }

KERNELS(f32, TYPE_F32)
KERNELS(f16, TYPE_F16)
KERNELS(bf16, TYPE_BF16)
KERNELS(q8_0, TYPE_Q8_0)
KERNELS(q4_0, TYPE_Q4_0)
KERNELS(q5_0, TYPE_Q5_0)
KERNELS(q5_1, TYPE_Q5_1)
KERNELS(iq4_nl, TYPE_IQ4_NL)
KERNELS(q4_k, TYPE_Q4_K)
KERNELS(q5_k, TYPE_Q5_K)
KERNELS(q6_k, TYPE_Q6_K)
