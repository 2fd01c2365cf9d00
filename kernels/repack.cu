// Rows as they are in the file to planes.
//
// repack_<type>: takes the n_blocks blocks of `src` (packed one after the other, as in the file) apart into `quants` and
// `scales`, which point to where the first of them belongs in the two planes of a matrix (common.cuh). Uploads come in
// pieces: one launch for each. Types without a scale plane need no kernel: their bytes are copied.
//   src, scales  aligned to 2 bytes; what belongs to the second plane lies together in a block, too
//   quants       aligned to 16 bytes
// Grid: any size, 256 threads; a thread moves 16 bytes of quants at a time, and the first of a block its scales.
// Bytes: each read once and written once.
// Registers (ptxas 12.9, sm_75/sm_90): q8_0 24/24, q4_0 22/22, q5_0 26/28, q5_1 26/26, iq4_nl 22/22,
// q6_k 26/26.
#include "common.cuh"

#define THREADS 256

// Where quants and scale begin in a block of the file.
template <int TYPE, int QUANTS_AT, int SCALE_AT>
DEVICE void repack(unsigned char* quants, unsigned char* scales, const unsigned char* src, unsigned n_blocks) {
    const unsigned BYTES = Layout<TYPE>::QUANTS + Layout<TYPE>::SCALES, PARTS = Layout<TYPE>::QUANTS / 16;
    size_t n_parts = (size_t)n_blocks * PARTS;
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < n_parts; i += (size_t)gridDim.x * THREADS) {
        size_t block = i / PARTS;
        unsigned part = (unsigned)(i % PARTS);
        const unsigned char* from = src + block * BYTES;
        const unsigned char* p = from + QUANTS_AT + 16 * part;
        int word[4];
#pragma unroll
        for (int k = 0; k < 4; k++) word[k] = (int)(load2(p + 4 * k) | (unsigned)load2(p + 4 * k + 2) << 16);
        *(int4*)(quants + 16 * i) = {word[0], word[1], word[2], word[3]};
        if (part != 0) continue;
#pragma unroll
        for (int k = 0; k < Layout<TYPE>::SCALES; k += 2) {
            *(unsigned short*)(scales + Layout<TYPE>::SCALES * block + k) = load2(from + SCALE_AT + k);
        }
    }
}

#define REPACK(name, TYPE, QUANTS_AT, SCALE_AT)                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                \
        repack_##name(unsigned char* quants, unsigned char* scales, const unsigned char* src, unsigned n_blocks) {       \
        repack<TYPE, QUANTS_AT, SCALE_AT>(quants, scales, src, n_blocks);                                                \
    }

REPACK(q4_0, TYPE_Q4_0, 2, 0)
REPACK(q5_0, TYPE_Q5_0, 6, 0)
REPACK(q5_1, TYPE_Q5_1, 8, 0)
REPACK(iq4_nl, TYPE_IQ4_NL, 2, 0)
REPACK(q8_0, TYPE_Q8_0, 2, 0)
REPACK(q6_k, TYPE_Q6_K, 0, 208)
