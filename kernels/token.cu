// Beginning and end of a token, or of a few that are computed together, and the vectors that cross between device and host. `mailbox` is the base of the mapped
// host memory, its arrays are passed as pointers into it; all vectors begin at multiples of 16 bytes. n is a multiple of 4,
// but for finish.
//
// begin_token   copies what the host says of the tokens (first ticket, positions, sequences) into the state, which begins alive
//               and with nothing posted, and in_x[n] (null: nothing) into x[n]. One block.
// post_x        src[n] into post_x[n], then raises `posted` for `job`. Nothing once a wait has run out. One block.
// take_reply    waits for the answer to `job`, at most limit_ms, then copies reply[n] into dst[n]. Without an answer dst
//               stays as it is. One block.
// finish        copies src[n] (logits, or what the host computes them from) into dst[n] and counts[n_counts] into
//               counts_to and the time that the token has waited, then raises `done` with the ticket `job`, which is one more than that of the last job. Any
//               number of blocks.
#include "token.cuh"

#define THREADS 512

extern "C" __global__ void __launch_bounds__(THREADS) begin_token(
    unsigned char* mailbox, Token* token, const float* in_x, float* x, int n) {
    if (in_x) {
        for (int i = threadIdx.x; i < n / 4; i += THREADS) ((float4*)x)[i] = ((const float4*)in_x)[i];
    }
    if (threadIdx.x == 0) {
        token->first_ticket = *mailbox_word(mailbox, MAILBOX_TOKEN);
        token->position = (int)*mailbox_word(mailbox, MAILBOX_TOKEN + 4);
        for (int t = 0; t < MAX_TOKENS; t++) {
            token->positions[t] = (int)*mailbox_word(mailbox, MAILBOX_TOKEN + 4 + 4 * t);
            token->sequences[t] = (int)*mailbox_word(mailbox, MAILBOX_TOKEN + 4 + 4 * MAX_TOKENS + 4 * t);
        }
        token->dead = 0;
        token->skip = 1;
        token->spare[SPARE_WAITED] = 0;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) post_x(
    const float* src, float* post_x, int n, unsigned char* mailbox, Token* token, int job) {
    if (token->dead) return;
    for (int i = threadIdx.x; i < n / 4; i += THREADS) ((float4*)post_x)[i] = ((const float4*)src)[i];
    __syncthreads();
    if (threadIdx.x == 0) {
        token->skip = 0;
        post(mailbox, token, job);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) take_reply(
    float* dst, const float* reply, int n, unsigned char* mailbox, Token* token, int job, int limit_ms) {
    if (!block_waits_for_reply(mailbox, token, job, limit_ms)) return;
    for (int i = threadIdx.x; i < n / 4; i += THREADS) ((float4*)dst)[i] = ((const float4*)reply)[i];
}

extern "C" __global__ void __launch_bounds__(THREADS) finish(
    const float* src, float* dst, int n, const unsigned* counts, unsigned* counts_to, int n_counts,
    unsigned char* mailbox, Token* token, int job) {
    int first = blockIdx.x * THREADS + threadIdx.x, step = gridDim.x * THREADS;
    for (int i = first; i < n / 4; i += step) ((float4*)dst)[i] = ((const float4*)src)[i];
    for (int i = n / 4 * 4 + first; i < n; i += step) dst[i] = src[i];
    for (int i = first; i < n_counts; i += step) counts_to[i] = counts[i];
    bool any;
    if (last_block_of(token, gridDim.x, false, &any)) {
        *mailbox_word(mailbox, MAILBOX_WAITED) = token->spare[SPARE_WAITED];
        store_release_system(mailbox_word(mailbox, MAILBOX_DONE), token->first_ticket + (unsigned)job);
    }
}
