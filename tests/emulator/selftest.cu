// Small kernels that show what the emulator does and finds. Run by selftest.cpp.
#include <cuda_fp16.h>

// out[block] = sum of in[0..n), one block of 256.
extern "C" __global__ void __launch_bounds__(256) block_sum(const float* in, float* out, int n) {
    __shared__ float part[8];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += in[i];
    for (int o = 16; o > 0; o >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < 8; w++) sum += part[w];
        out[blockIdx.x] = sum;
    }
}

// The same with its barrier left out.
extern "C" __global__ void __launch_bounds__(256) block_sum_without_barrier(const float* in, float* out, int n) {
    __shared__ float part[8];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += in[i];
    for (int o = 16; o > 0; o >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = sum;
    if (threadIdx.x == 0) {
        for (int w = 1; w < 8; w++) sum += part[w];
        out[blockIdx.x] = sum;
    }
}

// Positive values of in, in order; *count of them. One block.
extern "C" __global__ void __launch_bounds__(128) compact(const float* in, int* list, int* count, int n) {
    __shared__ int warp_count[4];
    int base = 0;
    for (int begin = 0; begin < n; begin += blockDim.x) {
        int i = begin + threadIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        bool keep = i < n && in[i] > 0.0f;
        unsigned votes = __ballot_sync(0xffffffffu, keep);
        if (lane == 0) warp_count[warp] = __popc(votes);
        __syncthreads();
        int at = base + __popc(votes & ((1u << lane) - 1));
        for (int w = 0; w < 4; w++) {
            if (w < warp) at += warp_count[w];
            base += warp_count[w];
        }
        if (keep) list[at] = i;
        __syncthreads();
    }
    if (threadIdx.x == 0) *count = base;
}

// The block that comes last adds what all have left, in order. *counter begins and ends as 0.
extern "C" __global__ void __launch_bounds__(64) last_block(float* part, float* out, unsigned* counter) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        part[blockIdx.x] = (float)(blockIdx.x + 1);
        __threadfence();
        last = atomicInc(counter, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last || threadIdx.x != 0) return;
    float sum = 0.0f;
    for (unsigned i = 0; i < gridDim.x; i++) sum += part[i];
    *out = sum;
}

// Warps of which some lanes have left; shuffles within halves.
extern "C" __global__ void __launch_bounds__(64) lanes(int* out) {
    int lane = threadIdx.x & 31;
    int v = threadIdx.x;
    unsigned half_mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    int down = __shfl_down_sync(0xffffffffu, v, 1), up = __shfl_up_sync(0xffffffffu, v, 1);
    int first = __shfl_sync(0xffffffffu, v, 0, 8);
    int sum = v;
    if (lane < 16) {
        for (int o = 8; o > 0; o >>= 1) sum += __shfl_xor_sync(half_mask, sum, o, 16);
    } else {
        for (int o = 8; o > 0; o >>= 1) sum -= __shfl_xor_sync(half_mask, sum, o, 16);
    }
    int any = __any_sync(0xffffffffu, lane == 7), all = __all_sync(0xffffffffu, lane == 7);
    int count = __syncthreads_count(threadIdx.x % 3 == 0);
    int or_ = __syncthreads_or(threadIdx.x == 63), and_ = __syncthreads_and(threadIdx.x < 63);
    int* o = out + threadIdx.x * 8;
    o[0] = down;
    o[1] = up;
    o[2] = first;
    o[3] = sum;
    o[4] = any * 2 + all;
    o[5] = count;
    o[6] = or_ * 2 + and_;
    if (lane >= 8) return;
    __syncwarp();
    o[7] = (int)__ballot_sync(0xffu, lane & 1);
}

// Half precision: out[i] = bits of float -> half of the i-th half's value; sums[i] = h + h.
extern "C" __global__ void __launch_bounds__(256) halves(unsigned short* out, unsigned short* sums, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    half h = __ushort_as_half((unsigned short)i);
    out[i] = __half_as_ushort(__float2half_rn(__half2float(h)));
    sums[i] = __half_as_ushort(__hadd(h, h));
}

extern "C" __global__ void __launch_bounds__(64) divergent_barrier(int* out) {
    if (threadIdx.x & 1) __syncthreads();
    else __syncwarp();
    out[threadIdx.x] = 1;
}
extern "C" __global__ void __launch_bounds__(64) two_barriers(int* out) {
    if (threadIdx.x < 32) {
        out[threadIdx.x] = 1;
        __syncthreads();
    } else {
        __syncthreads();
    }
}
extern "C" __global__ void __launch_bounds__(32) mask_of_absent_lanes(int* out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 16);
    else __syncthreads();
}
extern "C" __global__ void __launch_bounds__(32) out_of_bounds(float* out, int n) {
    out[n + threadIdx.x - 16] = 1.0f;
}
extern "C" __global__ void __launch_bounds__(32) out_of_shared_bounds(float* out, int n) {
    __shared__ float tile[32];
    tile[threadIdx.x] = 1.0f;
    __syncwarp();
    out[threadIdx.x] = tile[threadIdx.x + n];
}
extern "C" __global__ void __launch_bounds__(32) misaligned(const float* in, float* out) {
    float4 v = *(const float4*)(in + 1);
    out[threadIdx.x] = v.x;
}
