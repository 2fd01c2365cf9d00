// Products of a few tokens, up to MAX_TOKENS, with a matrix each of whose rows is read once for all of them. The names and
// operands are those of matvec.cu and ffn.cu, where each of them is for one token; each token gets the bits that it gets there:
// the units of a row are added in the same order, and so are its lanes.
//
// Sums of a thread, one for each row and token, are in shared memory, so that a unit of weights in registers meets one token
// after the other in a loop that is not unrolled.
//
//   x        of n_tokens, one behind the other: float[n_cols] for the float types, x8 for the quantized ones. There n_cols is a
//            multiple of 64, so that each x8 begins at a multiple of 16 bytes.
//   stride   floats from what is a token's to what is the next one's, in y, act and h
//
// matvec_several_<type>   Block, grid and lanes as matvec's.
// gate_up_several_<type>  As gate_up; a row of up is read once where the gate of any token is not 0.
// up_several_<type>       As up; the list has the rows that any token wants, and only a token whose act is not 0 there gets a
//                         product. Others have h as it is.
// Bytes read: the rows once, whatever the number of tokens. Registers: docs/ptxas.md.
#include "rows.cuh"

#define THREADS_LOG2 8
#define THREADS (1 << THREADS_LOG2)
#define WARPS (THREADS / 32)
#define ROWS_LOG2 1
#define ROWS (1 << ROWS_LOG2)
// Units of a lane that are loaded at once, of one row and of two.
#define FEW_DEPTH(TYPE) (TYPE == TYPE_Q5_K || TYPE == TYPE_Q6_K ? 2 : 4)
#define MANY_DEPTH(TYPE) (TYPE == TYPE_Q5_K || TYPE == TYPE_Q6_K ? 1 : 2)

// Bytes from one token's x to the next.
template <int TYPE> DEVICE size_t x_bytes(int n_cols) {
    return TYPE == TYPE_F32 || TYPE == TYPE_F16 || TYPE == TYPE_BF16 ? 4 * (size_t)n_cols : x8_bytes(n_cols);
}

// The sum of a row r of token t: those of a thread lie THREADS apart.
template <int N> DEVICE float& sum_of(float* own, int t, int r) { return own[(t * N + r) * THREADS]; }

// As add_dots, for each of the `wanted` tokens, a bit for each.
template <int TYPE, int N, int DEPTH>
DEVICE void add_dots_of(const unsigned char* w, int n_stored, const int (&rows)[N], const unsigned char* x, int n_tokens,
                        unsigned wanted, int n_cols, int lane, int lanes, float* own) {
    typedef Unit<TYPE> U;
    const unsigned char* quants[N];
    const unsigned char* scales[N];
#pragma unroll
    for (int r = 0; r < N; r++) {
        quants[r] = w + rows[r] * row_quants<TYPE>(n_cols);
        scales[r] = row_scales<TYPE>(w, n_stored, n_cols, rows[r]);
    }
    size_t apart = x_bytes<TYPE>(n_cols);
    int n_units = n_cols / U::LEN, u = lane;
#pragma unroll 1
    for (; u + (DEPTH - 1) * lanes < n_units; u += DEPTH * lanes) {
        typename U::W part[DEPTH][N];
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
#pragma unroll
            for (int r = 0; r < N; r++) part[i][r] = U::load_w(quants[r], scales[r], u + i * lanes);
        }
#pragma unroll 1
        for (int t = 0; t < n_tokens; t++) {
            if (!(wanted >> t & 1)) continue;
            float sums[N];
#pragma unroll
            for (int r = 0; r < N; r++) sums[r] = sum_of<N>(own, t, r);
#pragma unroll
            for (int i = 0; i < DEPTH; i++) {
                typename U::X share = U::load_x(x + t * apart, n_cols, u + i * lanes);
#pragma unroll
                for (int r = 0; r < N; r++) sums[r] = U::add(sums[r], part[i][r], share, u + i * lanes);
            }
#pragma unroll
            for (int r = 0; r < N; r++) sum_of<N>(own, t, r) = sums[r];
        }
    }
#pragma unroll 1
    for (; DEPTH > 1 && u < n_units; u += lanes) {
        typename U::W part[N];
#pragma unroll
        for (int r = 0; r < N; r++) part[r] = U::load_w(quants[r], scales[r], u);
#pragma unroll 1
        for (int t = 0; t < n_tokens; t++) {
            if (!(wanted >> t & 1)) continue;
            typename U::X share = U::load_x(x + t * apart, n_cols, u);
#pragma unroll
            for (int r = 0; r < N; r++) sum_of<N>(own, t, r) = U::add(sum_of<N>(own, t, r), part[r], share, u);
        }
    }
}

template <int N> DEVICE void begin_sums(float* own, int n_tokens) {
#pragma unroll 1
    for (int i = 0; i < n_tokens * N; i++) own[i * THREADS] = 0.0f;
}

struct Part {
    const unsigned char* w;
    int n_stored, first, n_rows;
    const float* bias;
    float* y;
    int stride;
};

template <int TYPE, int DEPTH>
DEVICE void matvec(const Part* parts, const unsigned char* x, int n_tokens, int n_cols, int lanes_log2, int act) {
    __shared__ float sums[MAX_TOKENS * ROWS * THREADS];
    __shared__ float scratch[MAX_TOKENS][ROWS][WARPS];
    int lanes = 1 << lanes_log2, rows_log2 = THREADS_LOG2 - lanes_log2;
    int per_block = ROWS << rows_log2, block = blockIdx.x, warp = threadIdx.x / 32;
    Part part = parts[0];
#pragma unroll
    for (int p = 1; p < 3; p++) {
        int n_blocks = (part.n_rows + per_block - 1) >> (rows_log2 + ROWS_LOG2);
        if (block < n_blocks) break;
        block -= n_blocks;
        part = parts[p];
    }
    int at = block * per_block + (threadIdx.x >> lanes_log2), lane = threadIdx.x & (lanes - 1);
    int rows[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) rows[r] = part.first + min(at + (r << rows_log2), part.n_rows - 1);
    float* own = sums + threadIdx.x;
    begin_sums<ROWS>(own, n_tokens);
    add_dots_of<TYPE, ROWS, DEPTH>(part.w, part.n_stored, rows, x, n_tokens, ~0u, n_cols, lane, lanes, own);
#pragma unroll 1
    for (int t = 0; t < n_tokens; t++) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float sum = lanes_sum(sum_of<ROWS>(own, t, r), min(lanes, 32));
            sum_of<ROWS>(own, t, r) = sum;
            if (lanes > 32 && threadIdx.x % 32 == 0) scratch[t][r][warp] = sum;
        }
    }
    if (lanes > 32) __syncthreads();
    if (lane != 0) return;
#pragma unroll 1
    for (int t = 0; t < n_tokens; t++) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int i = at + (r << rows_log2);
            if (i >= part.n_rows) continue;
            float sum = sum_of<ROWS>(own, t, r);
            for (int k = 1; k < lanes / 32; k++) sum += scratch[t][r][warp + k];
            if (part.bias) sum += part.bias[i];
            part.y[(size_t)t * part.stride + i] = activate(act, sum);
        }
    }
}

template <int TYPE>
DEVICE void up(const unsigned char* w, int n_stored, const unsigned* list, const unsigned* count, int n, const float* act,
               const unsigned char* x, int n_tokens, int n_cols, const float* bias, int activation, float* h, int stride) {
    __shared__ float sums[MAX_TOKENS * THREADS];
    float* own = sums + threadIdx.x;
    int n_active = count ? (int)*count : n, lane = threadIdx.x % 32;
    for (int i = threadIdx.x / 32 * gridDim.x + blockIdx.x; i < n_active; i += gridDim.x * WARPS) {
        int rows[1] = {list ? (int)list[i] : i};
        unsigned wanted = 0;
        for (int t = 0; t < n_tokens; t++) wanted |= (unsigned)(act[(size_t)t * stride + rows[0]] != 0.0f) << t;
        begin_sums<1>(own, n_tokens);
        add_dots_of<TYPE, 1, FEW_DEPTH(TYPE)>(w, n_stored, rows, x, n_tokens, wanted, n_cols, lane, 32, own);
        // What is written may be what is read: by all lanes before.
        __syncwarp();
#pragma unroll 1
        for (int t = 0; t < n_tokens; t++) {
            if (!(wanted >> t & 1)) continue;
            float sum = warp_sum(sum_of<1>(own, t, 0));
            if (bias) sum += bias[rows[0]];
            size_t place = (size_t)t * stride + rows[0];
            if (lane == 0) h[place] = gated(activation, act[place], sum);
        }
    }
}

template <int TYPE>
DEVICE void gate_up(const unsigned char* gate, int gate_stored, const unsigned char* up, int up_stored, int n,
                    const unsigned char* x, int n_tokens, int n_cols, int activation, float* h, int stride) {
    __shared__ float sums[MAX_TOKENS * ROWS * THREADS];
    __shared__ float acts[WARPS][MAX_TOKENS][ROWS];
    float* own = sums + threadIdx.x;
    int warp = threadIdx.x / 32, i = (blockIdx.x * WARPS + warp) * ROWS, lane = threadIdx.x % 32;
    if (i >= n) return;
    int rows[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) rows[r] = min(i + r, n - 1);
    begin_sums<ROWS>(own, n_tokens);
    add_dots_of<TYPE, ROWS, MANY_DEPTH(TYPE)>(gate, gate_stored, rows, x, n_tokens, ~0u, n_cols, lane, 32, own);
#pragma unroll 1
    for (int t = 0; t < n_tokens; t++) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float a = activate(activation, warp_sum(sum_of<ROWS>(own, t, r)));
            if (lane == 0) acts[warp][t][r] = a;
        }
    }
    __syncwarp();
#pragma unroll 1
    for (int r = 0; r < ROWS; r++) {
        if (i + r >= n) break;
        unsigned wanted = 0;
        for (int t = 0; t < n_tokens; t++) wanted |= (unsigned)(acts[warp][t][r] != 0.0f) << t;
        if (wanted) {
            int row[1] = {i + r};
            begin_sums<1>(own, n_tokens);
            add_dots_of<TYPE, 1, FEW_DEPTH(TYPE)>(up, up_stored, row, x, n_tokens, wanted, n_cols, lane, 32, own);
        }
#pragma unroll 1
        for (int t = 0; t < n_tokens; t++) {
            float product = 0.0f;
            if (wanted >> t & 1) product = gated(activation, acts[warp][t][r], warp_sum(sum_of<1>(own, t, 0)));
            if (lane == 0) h[(size_t)t * stride + i + r] = product;
        }
    }
}

#define SEVERAL(name, TYPE, DEPTH)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) matvec_several_##name(                                      \
        const unsigned char* w0, int n_stored0, int first0, int n_rows0, const float* bias0, float* y0, int stride0,     \
        const unsigned char* w1, int n_stored1, int first1, int n_rows1, const float* bias1, float* y1, int stride1,     \
        const unsigned char* w2, int n_stored2, int first2, int n_rows2, const float* bias2, float* y2, int stride2,     \
        const unsigned char* x, int n_tokens, int n_cols, int lanes_log2, int act) {                                     \
        Part parts[3] = {{w0, n_stored0, first0, n_rows0, bias0, y0, stride0},                                           \
                         {w1, n_stored1, first1, n_rows1, bias1, y1, stride1},                                           \
                         {w2, n_stored2, first2, n_rows2, bias2, y2, stride2}};                                          \
        matvec<TYPE, DEPTH>(parts, x, n_tokens, n_cols, lanes_log2, act);                                                \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                             \
        up_several_##name(const unsigned char* w, int n_stored, const unsigned* list, const unsigned* count, int n,      \
                          const float* act, const unsigned char* x, int n_tokens, int n_cols, const float* bias,         \
                          int activation, float* h, int stride) {                                                        \
        up<TYPE>(w, n_stored, list, count, n, act, x, n_tokens, n_cols, bias, activation, h, stride);                    \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                             \
        gate_up_several_##name(const unsigned char* gate, int gate_stored, const unsigned char* up, int up_stored,       \
                               int n, const unsigned char* x, int n_tokens, int n_cols, int activation, float* h,        \
                               int stride) {                                                                             \
        gate_up<TYPE>(gate, gate_stored, up, up_stored, n, x, n_tokens, n_cols, activation, h, stride);                  \
    }

SEVERAL(f32, TYPE_F32, 2)
SEVERAL(f16, TYPE_F16, 2)
SEVERAL(bf16, TYPE_BF16, 2)
SEVERAL(q8_0, TYPE_Q8_0, 2)
SEVERAL(q4_0, TYPE_Q4_0, 2)
SEVERAL(q5_0, TYPE_Q5_0, 1)
SEVERAL(q5_1, TYPE_Q5_1, 2)
SEVERAL(iq4_nl, TYPE_IQ4_NL, 2)
SEVERAL(q4_k, TYPE_Q4_K, 2)
SEVERAL(q5_k, TYPE_Q5_K, 1)
SEVERAL(q6_k, TYPE_Q6_K, 2)
