// Ordered lists of active slots, and the posting of the cold ones. A layer's slots are hot below n_hot and cold from there
// on; lists are in rising order.
//
// select_act     by the activations act[n_ff]: active is what is not 0 (so also what is not a number), or everything where
//                dense is not 0. The hot ones to hot_list, hot_act and hot_n; the cold ones to post_list, post_act and the
//                mailbox's post_n. With n_hot == n_ff nothing is posted, and mailbox and what belongs to it may be null.
// select_score   cold slots only, by scores[n_ff]: active is a slot below n_always (its score is not read) or with
//                score + bias >= 0. To post_list and post_n; there are no activations yet.
//
// With a list goes x[n_embd] (a multiple of 4) to post_x, then `posted` is raised for `job`. When no cold slot is active
// that is left out, and the token's `skip` is 1 instead of 0. counts (null: not wanted) gets the lengths, hot first;
// select_score leaves the first one alone. Grid: slots (cold ones for select_score) divided by 1024 and rounded up, at
// least 1.
//
// No block waits for another: each counts what is active between the beginning of the hot (or cold) slots and its own
// 1024 by itself, which is a few loads per thread, then finds the places of its own by ballots and prefix sums.
#include "token.cuh"

#define THREADS 1024
#define WARPS (THREADS / 32)

struct ByAct {
    const float* act;
    int dense;
    __device__ __forceinline__ bool active(int slot) const { return dense || act[slot] != 0.0f; }
    __device__ __forceinline__ float value(int slot) const { return act[slot]; }
};

struct ByScore {
    const float* scores;
    const float* bias;
    int n_always;
    __device__ __forceinline__ bool active(int slot) const { return slot < n_always || scores[slot] + bias[slot] >= 0.0f; }
    __device__ __forceinline__ float value(int) const { return 0.0f; }
};

// Where a posted list goes, and what goes with it.
struct Posting {
    const float* x;
    int n_embd;
    float* post_x;
    unsigned* list;
    float* act; // null: none
    unsigned char* mailbox;
    Token* token;
    int job;
};

// Selects among the slots first <= slot < end. hot_list may be null where first >= n_hot, p.mailbox where end <= n_hot.
template <class Source>
DEVICE void select(const Source& source, int first, int n_hot, int end, unsigned* hot_list, float* hot_act, unsigned* hot_n,
                   unsigned* counts, const Posting& p) {
    __shared__ unsigned list[THREADS];
    __shared__ float values[THREADS];
    __shared__ int in_warp[WARPS], hot_in_warp[WARPS], before_by_warp[WARPS], offsets[WARPS];
    __shared__ int n_found_shared, n_found_hot_shared, before_shared;

    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int start = first + blockIdx.x * THREADS, slot = start + threadIdx.x;
    // What comes before: of the same kind as the block's first slot.
    int from = start < n_hot ? first : max(first, n_hot), before = 0;
#pragma unroll 8
    for (int i = from + threadIdx.x; i < start; i += THREADS) before += source.active(i);
    bool found = slot < end && source.active(slot);
    float value = found ? source.value(slot) : 0.0f;
    unsigned vote = __ballot_sync(ALL_LANES, found), hot_vote = __ballot_sync(ALL_LANES, found && slot < n_hot);
    before = warp_sum_int(before);
    if (lane == 0) {
        in_warp[warp] = __popc(vote);
        hot_in_warp[warp] = __popc(hot_vote);
        before_by_warp[warp] = before;
    }
    __syncthreads();
    if (warp == 0) {
        int mine = in_warp[lane], up_to = mine;
#pragma unroll
        for (int o = 1; o < 32; o *= 2) {
            int other = __shfl_up_sync(ALL_LANES, up_to, o);
            if (lane >= o) up_to += other;
        }
        offsets[lane] = up_to - mine;
        int hot = warp_sum_int(hot_in_warp[lane]), earlier = warp_sum_int(before_by_warp[lane]);
        if (lane == 31) n_found_shared = up_to, n_found_hot_shared = hot, before_shared = earlier;
    }
    __syncthreads();
    if (found) {
        int place = offsets[warp] + __popc(vote & ((1u << lane) - 1));
        list[place] = (unsigned)slot;
        values[place] = value;
    }
    __syncthreads();

    // The block's own, hot ones first, lie together now: written so, they cross the bus in few packets.
    int n_found = n_found_shared, n_found_hot = n_found_hot_shared;
    int hot_before = start < n_hot ? before_shared : 0, cold_before = start < n_hot ? 0 : before_shared;
    int i = threadIdx.x;
    if (i < n_found_hot) {
        hot_list[hot_before + i] = list[i];
        hot_act[hot_before + i] = values[i];
    }
    bool ends_hot = hot_n && (start + THREADS >= n_hot && (start < n_hot || blockIdx.x == 0));
    if (threadIdx.x == 0 && ends_hot) {
        *hot_n = (unsigned)(hot_before + n_found_hot);
        if (counts) counts[0] = (unsigned)(hot_before + n_found_hot);
    }
    // From here on only blocks with cold slots.
    if (end <= n_hot || start + THREADS <= n_hot) return;
    Token* token = p.token;
    bool alive = token->dead == 0;
    if (alive && i >= n_found_hot && i < n_found) {
        int to = cold_before + i - n_found_hot;
        p.list[to] = list[i];
        if (p.act) p.act[to] = values[i];
    }
    int first_block = max(n_hot - first, 0) / THREADS, n_blocks = gridDim.x - first_block;
    if (alive) {
        for (int j = (blockIdx.x - first_block) * THREADS + threadIdx.x; j < p.n_embd / 4; j += n_blocks * THREADS) {
            ((float4*)p.post_x)[j] = ((const float4*)p.x)[j];
        }
    }
    // The block with the last slots knows how many there are.
    bool any = false;
    if (threadIdx.x == 0 && start + THREADS >= end) {
        unsigned n_cold = (unsigned)(cold_before + n_found - n_found_hot);
        if (counts) counts[1] = n_cold;
        if (alive) *mailbox_word(p.mailbox, MAILBOX_POST_N) = n_cold;
        any = n_cold != 0 && alive;
        token->skip = !any;
    }
    if (last_block_of(token, n_blocks, any, &any) && any) post(p.mailbox, token, p.job);
}

extern "C" __global__ void __launch_bounds__(THREADS) select_act(
    const float* act, int dense, int n_hot, int n_ff, unsigned* hot_list, float* hot_act, unsigned* hot_n, unsigned* counts,
    const float* x, int n_embd, float* post_x, unsigned* post_list, float* post_act, unsigned char* mailbox, Token* token,
    int job) {
    ByAct source = {act, dense};
    Posting posting = {x, n_embd, post_x, post_list, post_act, mailbox, token, job};
    select(source, 0, n_hot, n_ff, hot_list, hot_act, hot_n, counts, posting);
}

extern "C" __global__ void __launch_bounds__(THREADS) select_score(
    const float* scores, const float* bias, int n_always, int n_hot, int n_ff, unsigned* counts, const float* x, int n_embd,
    float* post_x, unsigned* post_list, unsigned char* mailbox, Token* token, int job) {
    ByScore source = {scores, bias, n_always};
    Posting posting = {x, n_embd, post_x, post_list, nullptr, mailbox, token, job};
    select(source, n_hot, n_hot, n_ff, nullptr, nullptr, nullptr, counts, posting);
}
