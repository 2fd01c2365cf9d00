// The device's side of the mailbox: tickets, posting, waiting for the host's answer. Words and their offsets are in
// common.cuh; src/gpu/mailbox.rs says who writes which.
#pragma once
#include "common.cuh"

// Word of Token.spare that last_block_of keeps for itself; zero between kernels.
#define SPARE_BLOCKS 0
// Word of Token.spare with the time that this token has waited for answers, in units of 64 ns.
#define SPARE_WAITED 1

DEVICE unsigned* mailbox_word(unsigned char* mailbox, int offset) { return (unsigned*)(mailbox + offset); }

// Raises the flag of a job. The host then sees what this thread has written, what its block had before a barrier, and what
// other blocks had before last_block_of.
DEVICE void post(unsigned char* mailbox, const Token* token, int job) {
    store_release_system(mailbox_word(mailbox, MAILBOX_POSTED), token->first_ticket + (unsigned)job);
}

// Waits in one thread until the host has answered the job. False where there is no answer: nothing was posted, a wait of
// this token has run out before, or this one does. The clock and the host's wish to stop are looked at now and then:
// each look at the host's memory takes as long as the one for the answer.
DEVICE bool wait_for_reply(unsigned char* mailbox, Token* token, int job, int limit_ms) {
    // One load: first ticket, position, dead, skip.
    int4 state = *(const int4*)token;
    if (state.z != 0 || state.w != 0) return false;
    unsigned ticket = (unsigned)state.x + (unsigned)job;
    const unsigned* replied = mailbox_word(mailbox, MAILBOX_REPLIED);
    // With a sign: the driver may set the clock back a little, which must not look like an endless wait.
    long long begin = (long long)global_time(), limit = (long long)limit_ms * 1000000ll;
    for (unsigned n = 1;; n++) {
        if ((int)(load_acquire_system(replied) - ticket) >= 0) {
            // Blocks that wait for one answer wait together.
            if (blockIdx.x == 0) token->spare[SPARE_WAITED] += (unsigned)(((long long)global_time() - begin) >> 6);
            return true;
        }
        if (n % 16 == 0) {
            bool stopped = load_acquire_system(mailbox_word(mailbox, MAILBOX_STOP)) != 0;
            if (stopped || (long long)global_time() - begin > limit) {
                if (!stopped) store_release_system(mailbox_word(mailbox, MAILBOX_FAILED), 1u + (unsigned)job);
                token->dead = 1;
                return false;
            }
        }
        wait_a_little();
    }
}

// The same for a whole block, which then sees what the host wrote; all threads take part and get the answer.
DEVICE bool block_waits_for_reply(unsigned char* mailbox, Token* token, int job, int limit_ms) {
    __shared__ int came;
    if (threadIdx.x == 0) came = wait_for_reply(mailbox, token, job, limit_ms);
    __syncthreads();
    return came != 0;
}

// True in thread 0 of the last of `n_blocks` blocks to come here; what it releases then is behind what all of them wrote.
// `any` becomes whether any block's thread 0 had a `flag`. All threads take part; one such kernel runs at a time.
DEVICE bool last_block_of(Token* token, int n_blocks, bool flag, bool* any) {
    const unsigned one_flag = 1u << 16;
    __syncthreads();
    if (threadIdx.x != 0) return false;
    // On the device suffices, also for what lies in the host's memory: the blocks' writes come before the counter, and the
    // last block's release for the system comes behind all that it has seen there.
    __threadfence();
    unsigned mine = 1u + (flag ? one_flag : 0u), now = add_acquire(&token->spare[SPARE_BLOCKS], mine) + mine;
    if (now % one_flag != (unsigned)n_blocks) return false;
    token->spare[SPARE_BLOCKS] = 0;
    *any = now >= one_flag;
    return true;
}
