// Ordered lists of active slots, and the posting of the cold ones. A layer's slots are hot below n_hot and cold from there
// on; lists are in rising order.
//
// select_hot     hot slots by the activations act[n_hot]: active is what is not 0 (so also what is not a number), or
//                everything where dense is not 0. To hot_list and hot_n. Grid: n_hot divided by 1024 and rounded up, at
//                least 1. Of several tokens, whose activations are `stride` apart, those go there that are active for any;
//                then y of the grid is one more than the tokens, and each has its length counted, counts_stride words apart.
// select_act     cold slots by act[n_ff], as select_hot does. To post_list, post_act and the mailbox's post_n. Grid: y tokens, each
//                with a list of its own: act, post_list and post_act are `stride`, list_stride and list_stride apart.
// select_score   cold slots by scores[n_ff]: active is a slot below n_always (its score is not read) or with
//                score + bias >= 0. To post_list and post_n; there are no activations yet.
//
// With posted lists goes x[n_x] (all tokens, a multiple of 4) to post_x, then `posted` is raised for `job`. When no cold slot is
// active for any token that is left out, and the token's `skip` is 1 instead of 0. counts (null: not wanted) gets the lengths, hot first;
// each kernel writes its own. Grid of the latter two: cold slots divided by 1024 and rounded up.
//
// No block waits for another: each counts what is active between the first slot and its own 1024 by itself, which is a
// few loads per thread, then finds the places of its own by ballots and prefix sums.
#include "token.cuh"

#define THREADS 1024
#define WARPS (THREADS / 32)

struct ByAct {
    const float* act;
    int dense;
    __device__ __forceinline__ bool active(int slot) const { return dense || act[slot] != 0.0f; }
    __device__ __forceinline__ float value(int slot) const { return act[slot]; }
};

struct ByAny {
    const float* act;
    size_t stride;
    int n_tokens, dense;
    __device__ __forceinline__ bool active(int slot) const {
        bool any = dense != 0;
        for (int t = 0; t < n_tokens; t++) any = any || act[t * stride + slot] != 0.0f;
        return any;
    }
    __device__ __forceinline__ float value(int) const { return 0.0f; }
};

struct ByScore {
    const float* scores;
    const float* bias;
    int n_always;
    __device__ __forceinline__ bool active(int slot) const { return slot < n_always || scores[slot] + bias[slot] >= 0.0f; }
    __device__ __forceinline__ float value(int) const { return 0.0f; }
};

// What a block found among its own slots, in order, and how many there are before them.
struct Found {
    unsigned slots[THREADS];
    float values[THREADS];
    int in_warp[WARPS], before_by_warp[WARPS], offsets[WARPS];
    int n, before;
};

// Selects among the slots first <= slot < end: each block its 1024. All threads see the result.
template <class Source> DEVICE void select(const Source& source, int first, int end, Found& found) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int start = first + blockIdx.x * THREADS, slot = start + threadIdx.x, before = 0;
#pragma unroll 8
    for (int i = first + threadIdx.x; i < start; i += THREADS) before += source.active(i);
    bool active = slot < end && source.active(slot);
    float value = active ? source.value(slot) : 0.0f;
    unsigned vote = __ballot_sync(ALL_LANES, active);
    before = warp_sum_int(before);
    if (lane == 0) {
        found.in_warp[warp] = __popc(vote);
        found.before_by_warp[warp] = before;
    }
    __syncthreads();
    if (warp == 0) {
        int mine = found.in_warp[lane], up_to = mine;
#pragma unroll
        for (int o = 1; o < 32; o *= 2) {
            int other = __shfl_up_sync(ALL_LANES, up_to, o);
            if (lane >= o) up_to += other;
        }
        found.offsets[lane] = up_to - mine;
        int earlier = warp_sum_int(found.before_by_warp[lane]);
        if (lane == 31) found.n = up_to, found.before = earlier;
    }
    __syncthreads();
    if (active) {
        int place = found.offsets[warp] + __popc(vote & ((1u << lane) - 1));
        found.slots[place] = (unsigned)slot;
        found.values[place] = value;
    }
    __syncthreads();
}

// Where a posted list goes, and what goes with it.
struct Posting {
    const float* x;
    int n_x;
    float* post_x;
    unsigned* list;
    float* act; // null: none
    unsigned char* mailbox;
    Token* token;
    int job;
};

// Posts the active slots among n_hot <= slot < n_ff.
template <class Source>
DEVICE void select_cold(const Source& source, int n_hot, int n_ff, unsigned* counts, const Posting& p) {
    __shared__ Found found;
    select(source, n_hot, n_ff, found);
    Token* token = p.token;
    bool alive = token->dead == 0;
    int i = threadIdx.x, n = found.n, before = found.before;
    // The block's own lie together: written so, they cross the bus in few packets.
    if (alive && i < n) {
        p.list[before + i] = found.slots[i];
        if (p.act) p.act[before + i] = found.values[i];
    }
    if (alive) {
        int block = blockIdx.y * gridDim.x + blockIdx.x;
        for (int j = block * THREADS + i; j < p.n_x / 4; j += gridDim.x * gridDim.y * THREADS) {
            ((float4*)p.post_x)[j] = ((const float4*)p.x)[j];
        }
    }
    // The last block knows how many there are.
    bool any = false;
    if (i == 0 && blockIdx.x == gridDim.x - 1) {
        unsigned n_cold = (unsigned)(before + n);
        if (counts) counts[1] = n_cold;
        if (alive) *mailbox_word(p.mailbox, MAILBOX_POST_N + 4 * blockIdx.y) = n_cold;
        any = n_cold != 0 && alive;
    }
    if (last_block_of(token, gridDim.x * gridDim.y, any, &any)) {
        token->skip = !any;
        if (any) post(p.mailbox, token, p.job);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) select_hot(
    const float* act, int dense, int n_hot, unsigned* hot_list, unsigned* hot_n, unsigned* counts, int stride,
    int counts_stride) {
    __shared__ Found found;
    int t = blockIdx.y, n_tokens = gridDim.y == 1 ? 1 : gridDim.y - 1;
    bool lists = t == (int)gridDim.y - 1, is_last = threadIdx.x == 0 && blockIdx.x == gridDim.x - 1;
    if (t < n_tokens) {
        ByAct source = {act + (size_t)t * stride, dense};
        select(source, 0, n_hot, found);
        if (is_last && counts) counts[(size_t)t * counts_stride] = (unsigned)(found.before + found.n);
    } else {
        ByAny source = {act, (size_t)stride, n_tokens, dense};
        select(source, 0, n_hot, found);
    }
    if (!lists) return;
    if ((int)threadIdx.x < found.n) hot_list[found.before + threadIdx.x] = found.slots[threadIdx.x];
    if (is_last) *hot_n = (unsigned)(found.before + found.n);
}

extern "C" __global__ void __launch_bounds__(THREADS) select_act(
    const float* act, int dense, int n_hot, int n_ff, unsigned* counts, const float* x, int n_x, float* post_x,
    unsigned* post_list, float* post_act, unsigned char* mailbox, Token* token, int job, int stride, int list_stride) {
    size_t t = blockIdx.y;
    ByAct source = {act + t * stride, dense};
    post_list += t * list_stride, post_act += t * list_stride;
    Posting posting = {x, n_x, post_x, post_list, post_act, mailbox, token, job};
    select_cold(source, n_hot, n_ff, counts, posting);
}

extern "C" __global__ void __launch_bounds__(THREADS) select_score(
    const float* scores, const float* bias, int n_always, int n_hot, int n_ff, unsigned* counts, const float* x, int n_x,
    float* post_x, unsigned* post_list, unsigned char* mailbox, Token* token, int job) {
    ByScore source = {scores, bias, n_always};
    Posting posting = {x, n_x, post_x, post_list, nullptr, mailbox, token, job};
    select_cold(source, n_hot, n_ff, counts, posting);
}
