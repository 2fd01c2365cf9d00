// Matrix times vector.
//
// matvec_<type>: y_p[i] = act(w_p[first_p + i] . x + bias_p[i]) for i < n_rows_p, of up to three matrices of one type
// and one n_cols (q, k and v). A part that is not there has n_rows 0.
//   w_p      matrix [n_stored_p][n_cols] in planes (common.cuh), n_cols a multiple of 32, of 256 for the K types
//   x        float[n_cols] for the float types, x8 for the quantized ones
//   bias_p   float[n_rows_p] or null
//   act      activation code, -1 for none
//   lanes_log2  the threads that share a row are 2^lanes_log2 = lanes, up to 256
// Block: 256 threads, which take 2 * 256 / lanes rows of one part. Grid: the sum over parts of n_rows_p divided by that,
// rounded up. Order of sums: thread l of a row adds the units l, l + lanes, ... (rows.cuh), then the threads of a warp are
// added in a tree, then the warps of a row in order. It depends on n_cols and lanes only.
// Bytes read: the rows once, as many as in the file (2,304 for a Q4_0 row of 4,096, 8,192 for F16); x, from the nearest
// cache, once for two rows. Four loads of 16 bytes of weights per thread are under way at once.
// Registers (ptxas 12.9, sm_75/sm_90): f32 50/54, f16 61/64, bf16 60/64, q8_0 72/72,
// q4_0 79/80, q5_0 80/79, q5_1 80/76, iq4_nl 80/80, q4_k 75/77, q5_k 68/71, q6_k 80/80.
#include "rows.cuh"

#define THREADS_LOG2 8
#define THREADS (1 << THREADS_LOG2)
#define ROWS_LOG2 1
#define ROWS (1 << ROWS_LOG2)

struct Part {
    const unsigned char* w;
    int n_stored, first, n_rows;
    const float* bias;
    float* y;
};

template <int TYPE, int DEPTH>
DEVICE void matvec(const Part* parts, const void* x, int n_cols, int lanes_log2, int act) {
    __shared__ float scratch[ROWS][THREADS / 32];
    int lanes = 1 << lanes_log2, rows_log2 = THREADS_LOG2 - lanes_log2;
    int per_block = ROWS << rows_log2, block = blockIdx.x;
    Part part = parts[0];
#pragma unroll
    for (int p = 1; p < 3; p++) {
        int n_blocks = (part.n_rows + per_block - 1) >> (rows_log2 + ROWS_LOG2);
        if (block < n_blocks) break;
        block -= n_blocks;
        part = parts[p];
    }
    // Neighbouring threads have neighbouring rows, and a thread's own are a share of the block apart.
    int at = block * per_block + (threadIdx.x >> lanes_log2), lane = threadIdx.x & (lanes - 1);
    int rows[ROWS];
    float sums[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        // Threads beyond the last row do its work again and keep it to themselves.
        rows[r] = part.first + min(at + (r << rows_log2), part.n_rows - 1);
        sums[r] = 0.0f;
    }
    add_dots<TYPE, ROWS, DEPTH>(part.w, part.n_stored, rows, x, n_cols, lane, lanes, sums);
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] = lanes_sum(sums[r], min(lanes, 32));
    if (lanes > 32) {
        int warp = threadIdx.x / 32;
        if (threadIdx.x % 32 == 0) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) scratch[r][warp] = sums[r];
        }
        __syncthreads();
        if (lane == 0) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                for (int i = 1; i < lanes / 32; i++) sums[r] += scratch[r][warp + i];
            }
        }
    }
    if (lane != 0) return;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int i = at + (r << rows_log2);
        if (i >= part.n_rows) continue;
        float sum = part.bias ? sums[r] + part.bias[i] : sums[r];
        part.y[i] = activate(act, sum);
    }
}

#define MATVEC(name, TYPE, DEPTH)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, 3) matvec_##name(                                                 \
        const unsigned char* w0, int n_stored0, int first0, int n_rows0, const float* bias0, float* y0,                  \
        const unsigned char* w1, int n_stored1, int first1, int n_rows1, const float* bias1, float* y1,                  \
        const unsigned char* w2, int n_stored2, int first2, int n_rows2, const float* bias2, float* y2, const void* x,   \
        int n_cols, int lanes_log2, int act) {                                                                                \
        Part parts[3] = {{w0, n_stored0, first0, n_rows0, bias0, y0},                                                    \
                         {w1, n_stored1, first1, n_rows1, bias1, y1},                                                    \
                         {w2, n_stored2, first2, n_rows2, bias2, y2}};                                                   \
        matvec<TYPE, DEPTH>(parts, x, n_cols, lanes_log2, act);                                                               \
    }

MATVEC(f32, TYPE_F32, 2)
MATVEC(f16, TYPE_F16, 2)
MATVEC(bf16, TYPE_BF16, 2)
MATVEC(q8_0, TYPE_Q8_0, 2)
MATVEC(q4_0, TYPE_Q4_0, 2)
MATVEC(q5_0, TYPE_Q5_0, 2)
MATVEC(q5_1, TYPE_Q5_1, 2)
MATVEC(iq4_nl, TYPE_IQ4_NL, 2)
MATVEC(q4_k, TYPE_Q4_K, 2)
MATVEC(q5_k, TYPE_Q5_K, 1)
MATVEC(q6_k, TYPE_Q6_K, 2)
