// Which groups of neurons a router chooses, and the message that says so.
//
// route          of the scores[n_groups] (at most 1024) to the n_used groups that are chosen, in rising order, and what each
//                counts. As src/model/router.rs: gating 0 softmax, 1 sigmoid, 2 softmax of the chosen; chosen are those of the
//                greatest scores, or with a bias of value + bias, of equals the first, what is not a number before all others;
//                the values of the chosen, where `normalised` divided by their sum but not by less than 2^-14, times scale.
//                counts (null: not wanted): two words for each group of the layer: 0 where the group is chosen,
//                NOT_CHOSEN in the first where not; experts tells the group of each row.
//                One block. Sums: of all groups in a tree, of the chosen in order.
// post_chosen    the chosen groups and their weights to post_list and post_weights, their number to post_n, x[n] (a
//                multiple of 4) to post_x, then `posted` is raised for `job`. Nothing once a wait has run out. One block.
#include "experts.cuh"
#include "token.cuh"

#define THREADS 1024
#define WARPS (THREADS / 32)
#define POST_THREADS 512

#define GATING_SOFTMAX 0
#define GATING_SIGMOID 1
#define GATING_SOFTMAX_OF_CHOSEN 2

// Rises as Rust's total_cmp does, with all that is not a number at the top.
DEVICE unsigned in_order(float v) {
    if (v != v) return 0xffffffffu;
    unsigned bits = bits_of_float(v);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// Sum of values[n], each divided by `by`, in order.
DEVICE float sum_of(const float* values, int n, float by) {
    float sum = 0.0f;
    for (int i = 0; i < n; i++) sum = add_rounded(sum, values[i] / by);
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) route(
    const float* scores, const float* bias, int n_groups, int n_used, int gating, int normalised, float scale,
    const Expert* experts, unsigned* chosen, float* weights, unsigned* counts) {
    __shared__ float scratch[WARPS], values[THREADS];
    __shared__ unsigned keys[THREADS];
    __shared__ int in_warp[WARPS];
    int t = threadIdx.x, lane = t % 32, warp = t / 32;
    bool there = t < n_groups;
    float value = there ? scores[t] : -infinite();
    unsigned key = in_order(value);
    if (gating == GATING_SOFTMAX) {
        float most = block_max<THREADS>(value, scratch);
        __syncthreads();
        float e = there ? expf(value - most) : 0.0f;
        value = e / block_sum<THREADS>(e, scratch);
        __syncthreads();
    }
    if (gating == GATING_SIGMOID) value = 1.0f / (1.0f + expf(-value));
    if (bias) key = in_order(add_rounded(value, there ? bias[t] : 0.0f));
    keys[t] = key;
    __syncthreads();
    int before = 0;
#pragma unroll 4
    for (int i = 0; i < n_groups; i++) before += keys[i] > key || (keys[i] == key && i < t);
    bool mine = there && before < n_used;
    unsigned vote = __ballot_sync(ALL_LANES, mine);
    if (lane == 0) in_warp[warp] = __popc(vote);
    if (gating == GATING_SOFTMAX_OF_CHOSEN) {
        float most = block_max<THREADS>(mine ? value : -infinite(), scratch);
        value = mine ? expf(value - most) : 0.0f;
    }
    __syncthreads();
    int place = __popc(vote & ((1u << lane) - 1));
    for (int i = 0; i < warp; i++) place += in_warp[i];
    if (mine) values[place] = value;
    __syncthreads();
    if (counts && there) {
        int group = experts[t].group;
        counts[2 * group] = mine ? 0 : NOT_CHOSEN;
        counts[2 * group + 1] = 0;
    }
    if (!mine) return;
    float sum = sum_of(values, n_used, 1.0f);
    if (gating == GATING_SOFTMAX_OF_CHOSEN) {
        value /= sum;
        sum = sum_of(values, n_used, sum);
    }
    float divisor = normalised ? fmaxf(sum, 6.1035156e-5f) : 1.0f;
    chosen[place] = (unsigned)t;
    weights[place] = mul_rounded(value / divisor, scale);
}

extern "C" __global__ void __launch_bounds__(POST_THREADS) post_chosen(
    const unsigned* chosen, const float* weights, int n_used, const float* x, int n, float* post_x, unsigned* post_list,
    float* post_weights, unsigned char* mailbox, Token* token, int job) {
    if (token->dead) return;
    for (int i = threadIdx.x; i < n / 4; i += POST_THREADS) ((float4*)post_x)[i] = ((const float4*)x)[i];
    for (int i = threadIdx.x; i < n_used; i += POST_THREADS) {
        post_list[i] = chosen[i];
        post_weights[i] = weights[i];
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        *mailbox_word(mailbox, MAILBOX_POST_N) = (unsigned)n_used;
        token->skip = 0;
        post(mailbox, token, job);
    }
}
