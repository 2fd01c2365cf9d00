// The first half of an FFN: up for the neurons of a list, and gate, activation and up of a prefix in one kernel.
// Neurons are rows of matrices [n_stored][n_cols] in planes (common.cuh); x is float[n_cols] for the float types, x8 for
// the quantized ones; n_cols is a multiple of 32, of 256 for the K types. Block: 256 threads; a warp computes one or two
// rows at a time. Order of sums: lane l adds the units l, l + 32, ... of a row (rows.cuh), then the lanes are added in a
// tree. It depends on n_cols only.
//
// up_<type>: h[r] = act[r] * (up[r] . x + bias[r]) for the rows r = list[i], i < n_active; exactly 0 where act[r] is 0,
// whatever up is, and with dReLU where the second factor is not above 0. Other rows of h stay as they are.
//   list     rows, or null for the rows 0, 1, ...
//   count    n_active in device memory, or null where it is n
//   act, h   by row, and may be the same
//   bias     by row, or null
//   activation  code of the function that has given act
// Grid: any size; the rows are dealt to all warps. Bytes read: the listed rows once.
//
// gate_up_<type>: a = activation(gate[i] . x); h[i] = a * (up[i] . x) for i < n, exactly 0 where a is 0: up is not read
// there; with dReLU also where the second factor is not above 0. Grid: n divided by 16, rounded up. Bytes read: n rows of gate, and of up those whose activation is not 0.
// experts_<type>: the same for the groups that a router has chosen, all in one launch: for the n_hot neurons of group
// experts[chosen[j]], h[j * stride + i] = weights[j] * a * (up[i] . x), or weights[j] * a where there is no up. counts (null:
// not wanted), two words for each group of the layer: adds how many of these are not 0, then how many of a. Grid: x as gate_up
// for the largest n_hot, y the number of chosen groups.
//
// Gate and up are of one type. Where they are not, matvec with the activation, select and up do the same in three steps.
//
// Registers (ptxas 12.9): docs/ptxas.md. The types that need most are at the limit of 80 that three blocks leave.
#include "experts.cuh"
#include "rows.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)

// Rows and, of each, units of a lane that are loaded at once: for many rows and for few.
#define MANY_ROWS 2
// Q5_K and Q6_K have most to keep of a unit, and would not fit into the registers.
#define LARGE_UNIT(TYPE) (TYPE == TYPE_Q5_K || TYPE == TYPE_Q6_K)
#define MANY_DEPTH(TYPE) (LARGE_UNIT(TYPE) ? 1 : 2)
#define FEW_DEPTH(TYPE) (LARGE_UNIT(TYPE) ? 2 : 4)

template <int TYPE>
DEVICE float dot_of_warp(const unsigned char* w, int n_stored, int row, const void* x, int n_cols) {
    int rows[1] = {row};
    float sums[1] = {0.0f};
    add_dots<TYPE, 1, FEW_DEPTH(TYPE)>(w, n_stored, rows, x, n_cols, threadIdx.x % 32, 32, sums);
    return warp_sum(sums[0]);
}

template <int TYPE>
DEVICE void up(const unsigned char* w, int n_stored, const unsigned* list, const unsigned* count, int n, const float* act,
               const void* x, int n_cols, const float* bias, int activation, float* h) {
    int n_active = count ? (int)*count : n, lane = threadIdx.x % 32;
    // Consecutive rows go to different blocks, so that a short list keeps all multiprocessors busy.
    int warp = threadIdx.x / 32 * gridDim.x + blockIdx.x, n_warps = gridDim.x * WARPS;
    if (n_active <= n_warps) {
        int i = warp;
        if (i >= n_active) return;
        int row = list ? list[i] : i;
        float a = act[row];
        float sum = dot_of_warp<TYPE>(w, n_stored, row, x, n_cols);
        if (bias) sum += bias[row];
        if (lane == 0) h[row] = gated(activation, a, sum);
        return;
    }
    for (int i = MANY_ROWS * warp; i < n_active; i += MANY_ROWS * n_warps) {
        int rows[MANY_ROWS];
        float sums[MANY_ROWS];
#pragma unroll
        for (int r = 0; r < MANY_ROWS; r++) {
            int at = min(i + r, n_active - 1);
            rows[r] = list ? list[at] : at;
            sums[r] = 0.0f;
        }
        add_dots<TYPE, MANY_ROWS, MANY_DEPTH(TYPE)>(w, n_stored, rows, x, n_cols, lane, 32, sums);
#pragma unroll
        for (int r = 0; r < MANY_ROWS; r++) {
            float sum = warp_sum(sums[r]);
            if (lane != 0 || i + r >= n_active) continue;
            // Read again, for keeping it takes a register that Q4_K lacks on sm_120.
            int row = list ? list[i + r] : i + r;
            if (bias) sum += bias[row];
            h[row] = gated(activation, act[row], sum);
        }
    }
}

template <int TYPE>
DEVICE void gate_up(const unsigned char* gate, int gate_stored, const unsigned char* up, int up_stored, int n,
                    const void* x, int n_cols, int activation, float* h) {
    int i = (blockIdx.x * WARPS + threadIdx.x / 32) * MANY_ROWS, lane = threadIdx.x % 32;
    if (i >= n) return;
    int rows[MANY_ROWS];
    float a[MANY_ROWS];
#pragma unroll
    for (int r = 0; r < MANY_ROWS; r++) {
        rows[r] = min(i + r, n - 1);
        a[r] = 0.0f;
    }
    add_dots<TYPE, MANY_ROWS, MANY_DEPTH(TYPE)>(gate, gate_stored, rows, x, n_cols, lane, 32, a);
#pragma unroll
    for (int r = 0; r < MANY_ROWS; r++) a[r] = activate(activation, warp_sum(a[r]));
#pragma unroll 1
    for (int r = 0; r < MANY_ROWS; r++) {
        // All lanes have the same sum, so the whole warp takes one way.
        float here = r == 0 ? a[0] : a[1], product = 0.0f;
        if (i + r >= n) break;
        if (here != 0.0f) product = gated(activation, here, dot_of_warp<TYPE>(up, up_stored, i + r, x, n_cols));
        if (lane == 0) h[i + r] = product;
    }
}

template <int TYPE>
DEVICE void experts(const Expert* groups, const unsigned* chosen, const float* weights, const void* x, int n_cols,
                    int activation, float* h, int stride, unsigned* counts) {
    Expert group = groups[chosen[blockIdx.y]];
    float weight = weights[blockIdx.y];
    int i = (blockIdx.x * WARPS + threadIdx.x / 32) * MANY_ROWS, lane = threadIdx.x % 32, n = group.n_hot;
    if (i >= n) return;
    int rows[MANY_ROWS];
    float a[MANY_ROWS];
#pragma unroll
    for (int r = 0; r < MANY_ROWS; r++) {
        rows[r] = min(i + r, n - 1);
        a[r] = 0.0f;
    }
    add_dots<TYPE, MANY_ROWS, MANY_DEPTH(TYPE)>(group.mask, n, rows, x, n_cols, lane, 32, a);
#pragma unroll
    for (int r = 0; r < MANY_ROWS; r++) a[r] = activate(activation, warp_sum(a[r]));
    // Counted row by row: sums of both rows would take registers that Q5_1 lacks on sm_90 and later.
    unsigned* count = counts && lane == 0 ? counts + 2 * group.group : nullptr;
#pragma unroll 1
    for (int r = 0; r < MANY_ROWS; r++) {
        float product = r == 0 ? a[0] : a[1];
        if (i + r >= n) break;
        if (count && product != 0.0f) atomicAdd(count + 1, 1u);
        if (product != 0.0f && group.up) {
            product = gated(activation, product, dot_of_warp<TYPE>(group.up, n, i + r, x, n_cols));
        }
        if (count && product != 0.0f) atomicAdd(count, 1u);
        if (lane == 0) h[(size_t)blockIdx.y * stride + i + r] = product == 0.0f ? 0.0f : weight * product;
    }
}

#define FFN(name, TYPE)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 3)                                                             \
        up_##name(const unsigned char* w, int n_stored, const unsigned* list, const unsigned* count, int n,              \
                  const float* act, const void* x, int n_cols, const float* bias, int activation, float* h) {            \
        up<TYPE>(w, n_stored, list, count, n, act, x, n_cols, bias, activation, h);                                      \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 3)                                                             \
        gate_up_##name(const unsigned char* gate, int gate_stored, const unsigned char* up, int up_stored, int n,        \
                       const void* x, int n_cols, int activation, float* h) {                                            \
        gate_up<TYPE>(gate, gate_stored, up, up_stored, n, x, n_cols, activation, h);                                    \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 3)                                                             \
        experts_##name(const Expert* groups, const unsigned* chosen, const float* weights, const void* x, int n_cols,    \
                       int activation, float* h, int stride, unsigned* counts) {                                         \
        experts<TYPE>(groups, chosen, weights, x, n_cols, activation, h, stride, counts);                                \
    }

FFN(f32, TYPE_F32)
FFN(f16, TYPE_F16)
FFN(bf16, TYPE_BF16)
FFN(q8_0, TYPE_Q8_0)
FFN(q4_0, TYPE_Q4_0)
FFN(q5_0, TYPE_Q5_0)
FFN(q5_1, TYPE_Q5_1)
FFN(iq4_nl, TYPE_IQ4_NL)
FFN(q4_k, TYPE_Q4_K)
FFN(q5_k, TYPE_Q5_K)
FFN(q6_k, TYPE_Q6_K)
