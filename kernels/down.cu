// The second half of an FFN: the weighted sum of neurons' output vectors.
//
// down_<type>: y[c] = sum over r < n of h[r] * w[r][c] for c < n_embd; 0 times anything is 0.
//   w        [n_stored][n_embd] in planes (common.cuh), one row per neuron, as floats what the file's type says
//   h        [n], by row
//   all      not 0: rows whose h is 0 are read, too, which changes nothing but the time
//   scratch  first 1024 ints, which are 0 before the first launch and after each, then floats for gridDim.x * gridDim.y
//            tiles of 8 units
// For several tokens, along z of the grid, the same for each: h is h_stride floats apart, y n_embd, scratch scratch_stride words. They
// meet in rows that the nearest caches have, as each has an order of sums of its own.
//
// experts_down_<type>: the same for the groups that a router has chosen, all in one launch: y[c] = sum over the n_chosen
// groups j of the sum over r < n_hot of h[j * stride + r] * w[r][c], of group experts[chosen[j]]. Grid: x tiles, y splits
// times n_chosen; split s of group j is number j * splits + s.
//
// Block: 256 threads on a tile of columns: 8 units of 16 bytes of quants (128 bytes of a row, a whole cache line), times
// 32 row lanes. Grid: x tiles (n_embd divided by the columns of 8 units, rounded up), y splits of the rows.
// Order of sums: split s and row lane l add the rows (k * splits + s) * 32 + l for k = 0, 1, ...; then the row lanes of a
// warp in a tree, the warps in order, the splits in order, by the last block of the tile. Which rows have an h that is 0
// changes nothing in it, as adding them would not: so the result depends on h, n and the grid alone. Rows are dealt out, for hot
// ones, which fire most, come first.
// Bytes read: the rows whose h is not 0 once, and h. Partial sums: written and read once, 4 bytes for each column and split.
// Registers (ptxas 12.9, sm_75/sm_90): f32 40/40, f16 47/46, bf16 47/46, q8_0 77/78, q4_0 77/78, q5_0 77/77, q5_1 76/75,
// iq4_nl 80/80, q4_k 80/80, q5_k 80/79, q6_k 80/80.
#include "experts.cuh"
#include "rows.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)
#define TILE_UNITS 8
#define ROW_LANES (THREADS / TILE_UNITS)
#define MAX_TILES 1024

// How a unit of TYPE is spread over columns. N columns; `load` takes unit u of a row; `add` adds h times its values to
// acc, `finish` what is left to do after the last row; `column` says where acc[a] of unit u belongs.
template <int TYPE> struct Columns;

// All ones, or all zeros where h is zero: a weight masked with it contributes exactly nothing.
DEVICE unsigned keep(float h) { return h == 0.0f ? 0u : ~0u; }

// A factor that contains h, or zero where h is zero and the rest may be anything.
DEVICE float factor(float h, float rest) { return h == 0.0f ? 0.0f : h * rest; }

// acc[I] += f * (byte I of w - offset)
DEVICE void add_bytes(float* acc, int w, float f, float offset) {
    float above = 8388608.0f + offset;
    acc[0] = fmaf(f, byte_above_2_23<0>(w) - above, acc[0]);
    acc[1] = fmaf(f, byte_above_2_23<1>(w) - above, acc[1]);
    acc[2] = fmaf(f, byte_above_2_23<2>(w) - above, acc[2]);
    acc[3] = fmaf(f, byte_above_2_23<3>(w) - above, acc[3]);
}
DEVICE void add_bytes(float* acc, const int4& w, float f, float offset) {
    add_bytes(acc, w.x, f, offset);
    add_bytes(acc + 4, w.y, f, offset);
    add_bytes(acc + 8, w.z, f, offset);
    add_bytes(acc + 12, w.w, f, offset);
}

template <> struct Columns<TYPE_F32> {
    enum { N = 4 };
    struct W { int4 v; };
    struct Acc { float v[N]; };
    DEVICE W load(const unsigned char* q, const unsigned char*, int u) { return {stream16(q + 16 * u)}; }
    DEVICE void add(Acc& acc, const W& w, float h, int) {
        unsigned mask = keep(h);
        acc.v[0] = fmaf(h, float_of_bits(w.v.x & mask), acc.v[0]);
        acc.v[1] = fmaf(h, float_of_bits(w.v.y & mask), acc.v[1]);
        acc.v[2] = fmaf(h, float_of_bits(w.v.z & mask), acc.v[2]);
        acc.v[3] = fmaf(h, float_of_bits(w.v.w & mask), acc.v[3]);
    }
    DEVICE void finish(Acc&) {}
    DEVICE int column(int u, int a) { return 4 * u + a; }
};

// Eight 16-bit floats.
template <int TYPE> struct Columns16 {
    enum { N = 8 };
    struct W { int4 v; };
    struct Acc { float v[N]; };
    DEVICE W load(const unsigned char* q, const unsigned char*, int u) { return {stream16(q + 16 * u)}; }
    DEVICE void add_pair(float* acc, int w, unsigned mask, float h) {
        float2 v = pair_to_floats<TYPE>(w & mask);
        acc[0] = fmaf(h, v.x, acc[0]);
        acc[1] = fmaf(h, v.y, acc[1]);
    }
    DEVICE void add(Acc& acc, const W& w, float h, int) {
        unsigned mask = keep(h);
        add_pair(acc.v, w.v.x, mask, h);
        add_pair(acc.v + 2, w.v.y, mask, h);
        add_pair(acc.v + 4, w.v.z, mask, h);
        add_pair(acc.v + 6, w.v.w, mask, h);
    }
    DEVICE void finish(Acc&) {}
    DEVICE int column(int u, int a) { return 8 * u + a; }
};
template <> struct Columns<TYPE_F16> : Columns16<TYPE_F16> {};
template <> struct Columns<TYPE_BF16> : Columns16<TYPE_BF16> {};

template <> struct Columns<TYPE_Q8_0> {
    enum { N = 16 };
    struct W { int4 q; unsigned short d; };
    struct Acc { float v[N]; };
    DEVICE W load(const unsigned char* q, const unsigned char* scales, int u) {
        return {stream16(q + 16 * u), load2(scales + u / 2 * 2)};
    }
    DEVICE void add(Acc& acc, const W& w, float h, int) {
        // Turned to unsigned bytes: 128 more.
        const int top = (int)0x80808080;
        int4 q = {w.q.x ^ top, w.q.y ^ top, w.q.z ^ top, w.q.w ^ top};
        add_bytes(acc.v, q, factor(h, half_to_float(w.d)), 128.0f);
    }
    DEVICE void finish(Acc&) {}
    DEVICE int column(int u, int a) { return 16 * u + a; }
};

template <> struct Columns<TYPE_Q4_0> {
    enum { N = 32 };
    struct W { int4 q; unsigned short d; };
    struct Acc { float v[N]; };
    DEVICE W load(const unsigned char* q, const unsigned char* scales, int u) {
        return {stream16(q + 16 * u), load2(scales + 2 * u)};
    }
    DEVICE void add(Acc& acc, const W& w, float h, int) {
        float f = factor(h, half_to_float(w.d));
        add_bytes(acc.v, low_halves(w.q), f, 8.0f);
        add_bytes(acc.v + 16, high_halves(w.q), f, 8.0f);
    }
    DEVICE void finish(Acc&) {}
    DEVICE int column(int u, int a) { return 32 * u + a; }
};

// As Q4_0, with fifth bits.
template <> struct Columns<TYPE_Q5_0> {
    enum { N = 32 };
    typedef Unit<TYPE_Q5_0>::W W;
    struct Acc { float v[N]; };
    DEVICE W load(const unsigned char* q, const unsigned char* scales, int u) {
        return Unit<TYPE_Q5_0>::load_w(q, scales, u);
    }
    DEVICE void add(Acc& acc, const W& w, float h, int) {
        float f = factor(h, half_to_float(w.d));
        add_bytes(acc.v, five_bits(low_halves(w.q), w.fifth), f, 16.0f);
        add_bytes(acc.v + 16, five_bits(high_halves(w.q), w.fifth >> 16), f, 16.0f);
    }
    DEVICE void finish(Acc&) {}
    DEVICE int column(int u, int a) { return 32 * u + a; }
};

template <> struct Columns<TYPE_Q5_1> {
    enum { N = 32 };
    typedef Unit<TYPE_Q5_1>::W W;
    // What the value of 0 adds is the same for all columns of a block.
    struct Acc { float v[N], zero; };
    DEVICE W load(const unsigned char* q, const unsigned char* scales, int u) {
        return Unit<TYPE_Q5_1>::load_w(q, scales, u);
    }
    DEVICE void add(Acc& acc, const W& w, float h, int) {
        float2 d = halves_to_floats(w.scales.x);
        float f = factor(h, d.x);
        add_bytes(acc.v, five_bits(low_halves(w.q), w.scales.y), f, 0.0f);
        add_bytes(acc.v + 16, five_bits(high_halves(w.q), w.scales.y >> 16), f, 0.0f);
        acc.zero += factor(h, d.y);
    }
    DEVICE void finish(Acc& acc) {
#pragma unroll
        for (int a = 0; a < N; a++) acc.v[a] += acc.zero;
    }
    DEVICE int column(int u, int a) { return 32 * u + a; }
};

template <> struct Columns<TYPE_IQ4_NL> {
    enum { N = 32 };
    typedef Unit<TYPE_IQ4_NL>::W W;
    struct Acc { float v[N]; };
    DEVICE W load(const unsigned char* q, const unsigned char* scales, int u) {
        return Unit<TYPE_IQ4_NL>::load_w(q, scales, u);
    }
    // Levels of four bytes' low halves, and of their high halves, turned to unsigned bytes.
    DEVICE void add_levels(float* acc, int q, float f) {
        Levels levels = levels_of(q);
        add_bytes(acc, levels.low ^ (int)0x80808080, f, 128.0f);
        add_bytes(acc + 16, levels.high ^ (int)0x80808080, f, 128.0f);
    }
    DEVICE void add(Acc& acc, const W& w, float h, int) {
        float f = factor(h, half_to_float(w.d));
        add_levels(acc.v, w.q.x, f);
        add_levels(acc.v + 4, w.q.y, f);
        add_levels(acc.v + 8, w.q.z, f);
        add_levels(acc.v + 12, w.q.w, f);
    }
    DEVICE void finish(Acc&) {}
    DEVICE int column(int u, int a) { return 32 * u + a; }
};

template <> struct Columns<TYPE_Q4_K> {
    enum { N = 32 };
    struct W { int4 q, head; };
    // What the minima of the two sub-blocks take away is the same for all their columns.
    struct Acc { float v[N], min_low, min_high; };
    DEVICE W load(const unsigned char* q, const unsigned char*, int u) {
        const unsigned char* block = q + (size_t)(u / 8) * Layout<TYPE_Q4_K>::QUANTS;
        return {stream16(block + 16 + 16 * (u % 8)), load16(block)};
    }
    DEVICE void add(Acc& acc, const W& w, float h, int u) {
        unsigned scales, mins;
        scales_and_mins_of_q4_k(w.head, u % 8 / 2, &scales, &mins);
        float2 d = halves_to_floats(w.head.x);
        float f = factor(h, d.x), m = factor(h, d.y);
        add_bytes(acc.v, low_halves(w.q), f * (float)(scales & 0xff), 0.0f);
        add_bytes(acc.v + 16, high_halves(w.q), f * (float)(scales >> 8), 0.0f);
        acc.min_low = fmaf(m, (float)(mins & 0xff), acc.min_low);
        acc.min_high = fmaf(m, (float)(mins >> 8), acc.min_high);
    }
    DEVICE void finish(Acc& acc) {
#pragma unroll
        for (int a = 0; a < N; a++) acc.v[a] -= a < 16 ? acc.min_low : acc.min_high;
    }
    DEVICE int column(int u, int a) { return 64 * (u / 2) + 16 * (u % 2) + (a < 16 ? a : a + 16); }
};

template <> struct Columns<TYPE_Q5_K> {
    enum { N = 32 };
    typedef Unit<TYPE_Q5_K>::W W;
    typedef Columns<TYPE_Q4_K>::Acc Acc;
    DEVICE W load(const unsigned char* q, const unsigned char* scales, int u) {
        return Unit<TYPE_Q5_K>::load_w(q, scales, u);
    }
    DEVICE void add(Acc& acc, const W& w, float h, int u) {
        unsigned scales, mins;
        int j = u % 8 / 2;
        scales_and_mins_of_q4_k(w.head, j, &scales, &mins);
        float2 d = halves_to_floats(w.head.x);
        float f = factor(h, d.x), m = factor(h, d.y);
        add_bytes(acc.v, fifth_of_bytes(low_halves(w.q), w.fifth, 2 * j), f * (float)(scales & 0xff), 0.0f);
        add_bytes(acc.v + 16, fifth_of_bytes(high_halves(w.q), w.fifth, 2 * j + 1), f * (float)(scales >> 8), 0.0f);
        acc.min_low = fmaf(m, (float)(mins & 0xff), acc.min_low);
        acc.min_high = fmaf(m, (float)(mins >> 8), acc.min_high);
    }
    DEVICE void finish(Acc& acc) { Columns<TYPE_Q4_K>::finish(acc); }
    DEVICE int column(int u, int a) { return Columns<TYPE_Q4_K>::column(u, a); }
};

template <> struct Columns<TYPE_Q6_K> {
    enum { N = 32 };
    struct W { int4 q, top; int scale_low, scale_high; unsigned short d; };
    struct Acc { float v[N]; };
    DEVICE W load(const unsigned char* q, const unsigned char* scales, int u) {
        const unsigned char* block = q + (size_t)(u / 8) * Layout<TYPE_Q6_K>::QUANTS;
        int k = u % 8;
        const unsigned char* sub = block + 192 + k / 4 * 8 + k % 4;
        return {stream16(block + 16 * k), load16(block + 128 + k / 4 * 32 + k % 2 * 16), load_signed_byte(sub),
                load_signed_byte(sub + 4), load2(scales + u / 8 * 2)};
    }
    DEVICE void add(Acc& acc, const W& w, float h, int u) {
        int shift = u % 4 / 2 * 2;
        float f = factor(h, half_to_float(w.d));
        add_bytes(acc.v, six_bits(low_halves(w.q), w.top, shift), f * (float)w.scale_low, 32.0f);
        add_bytes(acc.v + 16, six_bits(high_halves(w.q), w.top, shift + 4), f * (float)w.scale_high, 32.0f);
    }
    DEVICE void finish(Acc&) {}
    DEVICE int column(int u, int a) { return 128 * (u / 4) + 16 * (u % 4) + (a < 16 ? a : a + 48); }
};

// Halves what each lane keeps: it gives one half of its N sums to the lane `offset` away and adds what it gets to the
// other half.
template <int N> DEVICE void halve(float* acc, int offset) {
    bool upper = threadIdx.x & offset;
#pragma unroll
    for (int a = 0; a < N / 2; a++) {
        float give = upper ? acc[a] : acc[a + N / 2], mine = upper ? acc[a + N / 2] : acc[a];
        acc[a] = mine + __shfl_xor_sync(ALL_LANES, give, offset);
    }
}

// Which of the 32 rows (k + 0, 1, ..., 31) * stride + first of a row lane count, as bits. Its eight threads look at four
// rows each. All threads of a warp take part, with the same k.
DEVICE unsigned rows_of_lane(const float* h, int n, int all, int first, int stride, int k) {
    int sub = threadIdx.x % TILE_UNITS;
    unsigned rows = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int row = first + (k + TILE_UNITS * j + sub) * stride;
        unsigned vote = __ballot_sync(ALL_LANES, row < n && (all || h[row] != 0.0f));
        rows |= (vote >> (threadIdx.x % 32 & ~(TILE_UNITS - 1)) & ((1u << TILE_UNITS) - 1)) << (TILE_UNITS * j);
    }
    return rows;
}

// DEPTH rows of a thread are loaded at once.
template <int TYPE, int DEPTH>
DEVICE void down(const unsigned char* w, int n_stored, int n, const float* h, int all, int n_embd, float* y, int* scratch,
                 int split, int splits) {
    typedef Columns<TYPE> C;
    const int N = C::N, TILE = TILE_UNITS * N;
    // Every 32 columns are followed by a gap, so that lanes a power of two apart do not meet in one bank.
    __shared__ float sums[WARPS][TILE + TILE / 32];
    __shared__ int last;
    // The rows of the matrix are dealt to its splits; there may be those of other matrices.
    int n_parts = gridDim.y, part_of_all = blockIdx.y, tile = blockIdx.x;
    int u = tile * TILE_UNITS + threadIdx.x % TILE_UNITS;
    int first = split * ROW_LANES + threadIdx.x / TILE_UNITS, stride = splits * ROW_LANES;
    size_t row_bytes = row_quants<TYPE>(n_embd);
    bool there = u * N < n_embd;

    typename C::Acc acc = {};
    // As many rounds for all threads of a block: those of its first row lane.
    for (int k = 0; split * ROW_LANES + k * stride < n; k += 32) {
        unsigned rows = rows_of_lane(h, n, all, first, stride, k);
        if (!there) continue;
        while (rows) {
            typename C::W part[DEPTH] = {};
            float factors[DEPTH];
#pragma unroll
            for (int d = 0; d < DEPTH; d++) {
                factors[d] = 0.0f;
                if (!rows) continue;
                int row = first + (k + __ffs(rows) - 1) * stride;
                rows &= rows - 1;
                factors[d] = h[row];
                part[d] = C::load(w + row * row_bytes, row_scales<TYPE>(w, n_stored, n_embd, row), u);
            }
#pragma unroll
            for (int d = 0; d < DEPTH; d++) C::add(acc, part[d], factors[d], u);
        }
    }
    if (there) C::finish(acc);

    // The four row lanes of a warp: each ends with a quarter of the columns.
    halve<N>(acc.v, 16);
    halve<N / 2>(acc.v, 8);
    int begin = (threadIdx.x & 16 ? N / 2 : 0) + (threadIdx.x & 8 ? N / 4 : 0);
#pragma unroll
    for (int a = 0; a < N / 4; a++) {
        int column = C::column(threadIdx.x % TILE_UNITS, begin + a);
        sums[threadIdx.x / 32][column + column / 32] = acc.v[a];
    }
    __syncthreads();
    int t = threadIdx.x, column = tile * TILE + t;
    bool mine = t < TILE && column < n_embd;
    float sum = 0.0f;
    if (mine) {
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) sum += sums[warp][t + t / 32];
    }
    if (n_parts == 1) {
        if (mine) y[column] = sum;
        return;
    }
    float* partial = (float*)(scratch + MAX_TILES) + (size_t)tile * TILE + t;
    size_t split_stride = (size_t)gridDim.x * TILE;
    if (mine) partial[part_of_all * split_stride] = sum;
    __threadfence();
    __syncthreads();
    if (t == 0) last = atomicAdd(&scratch[tile], 1) == n_parts - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    if (mine) {
        sum = 0.0f;
#pragma unroll 8
        for (int s = 0; s < n_parts; s++) sum += load_fresh(partial + s * split_stride);
        y[column] = sum;
    }
    if (t == 0) scratch[tile] = 0;
}

#define DOWN(name, TYPE, DEPTH)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, 3)                                                             \
        down_##name(const unsigned char* w, int n_stored, int n, const float* h, int all, int n_embd, float* y,          \
                    int* scratch, int h_stride, int scratch_stride) {                                                    \
        size_t t = blockIdx.z;                                                                                           \
        h += t * h_stride, y += t * n_embd, scratch += t * scratch_stride;                                               \
        down<TYPE, DEPTH>(w, n_stored, n, h, all, n_embd, y, scratch, blockIdx.y, gridDim.y);                            \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 3)                                                             \
        experts_down_##name(const Expert* groups, const unsigned* chosen, int splits, const float* h, int stride,        \
                            int all, int n_embd, float* y, int* scratch) {                                               \
        int j = blockIdx.y / splits;                                                                                     \
        Expert group = groups[chosen[j]];                                                                                \
        down<TYPE, DEPTH>(group.down, group.n_hot, group.n_hot, h + (size_t)j * stride, all, n_embd, y, scratch,         \
                          blockIdx.y % splits, splits);                                                                  \
    }

DOWN(f32, TYPE_F32, 4)
DOWN(f16, TYPE_F16, 4)
DOWN(bf16, TYPE_BF16, 4)
DOWN(q8_0, TYPE_Q8_0, 4)
DOWN(q4_0, TYPE_Q4_0, 4)
DOWN(q5_0, TYPE_Q5_0, 3)
DOWN(q5_1, TYPE_Q5_1, 3)
DOWN(iq4_nl, TYPE_IQ4_NL, 4)
DOWN(q4_k, TYPE_Q4_K, 3)
DOWN(q5_k, TYPE_Q5_K, 2)
DOWN(q6_k, TYPE_Q6_K, 2)
