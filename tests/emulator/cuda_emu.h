// What a CUDA kernel needs to run on the CPU, unmodified: one fiber per CUDA thread (fibers.cpp), the built-in
// variables, vector types, barriers, warp operations, atomics and intrinsics. Only what this project's kernels may use
// is here: no __dp4a (NVRTC 12.0 leaves it unresolved), no float atomics (their order is not fixed), no dynamic shared
// memory. Included in front of every .cu by build.sh, which defines CUDA_EMU and __CUDA_ARCH__.
//
// Inline assembly belongs under `#ifndef CUDA_EMU`, with C++ in its place. For that there are
//   emu_globaltimer()    nanoseconds, for %globaltimer; also lets other threads of the block run
//   __nanosleep(ns)      lets other threads of the block, and of the machine, run: call it in polling loops
#pragma once
#ifdef EMU_SCAN // Only the names of kernels are wanted: see build.sh.
#define __global__ EMU_GLOBAL
#define __launch_bounds__(...)
#else
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __constant__ static
// Per stream thread, so that kernels of several streams can run at once; filled with a pattern before blocks run. Under
// a sanitizer it is static, which puts red zones around it, and one block runs at a time.
#ifdef EMU_STATIC_SHARED
#define __shared__ static
#else
#define __shared__ static __thread
#endif

#define EMU_VECTOR_TYPES(T, name, align1, align2, align4)                                                              \
    struct alignas(align1) name##1 { T x; };                                                                           \
    struct alignas(align2) name##2 { T x, y; };                                                                        \
    struct name##3 { T x, y, z; };                                                                                     \
    struct alignas(align4) name##4 { T x, y, z, w; };                                                                  \
    static inline name##1 make_##name##1(T x) { return {x}; }                                                          \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                  \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                          \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTOR_TYPES(signed char, char, 1, 2, 4)
EMU_VECTOR_TYPES(unsigned char, uchar, 1, 2, 4)
EMU_VECTOR_TYPES(short, short, 2, 4, 8)
EMU_VECTOR_TYPES(unsigned short, ushort, 2, 4, 8)
EMU_VECTOR_TYPES(int, int, 4, 8, 16)
EMU_VECTOR_TYPES(unsigned, uint, 4, 8, 16)
EMU_VECTOR_TYPES(long long, longlong, 8, 16, 16)
EMU_VECTOR_TYPES(unsigned long long, ulonglong, 8, 16, 16)
EMU_VECTOR_TYPES(float, float, 4, 8, 16)
EMU_VECTOR_TYPES(double, double, 8, 16, 16)
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emu {
using Place = std::source_location;
enum class Wait { ready, block, bar, shuffle, vote, done };

// One CUDA thread.
struct Fiber {
    void* sp = nullptr;
    uint3 tid{};
    unsigned linear = 0;
    Wait wait = Wait::ready;
    Place place{};
    uint64_t result = 0;
};

// The block that runs on this machine thread.
struct Block {
    uint3 index{};
    dim3 size, grid;
};
struct Running {
    Fiber* fiber = nullptr;
    Block block;
};
extern __thread Running* running;

uint64_t warp_op(Wait kind, unsigned mask, uint64_t value, int source, Place place);
int block_barrier(bool predicate, int want, Place place);
void yield(bool poll);
void maybe_yield();
[[noreturn]] void fail(const char* what, Place place);

template <class T> T shuffle(unsigned mask, T value, int source, Place place) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
    uint64_t word = 0;
    memcpy(&word, &value, sizeof(T));
    word = warp_op(Wait::shuffle, mask, word, source, place);
    memcpy(&value, &word, sizeof(T));
    return value;
}

// A kernel, as found by name.
struct Kernel {
    const char* name;
    int arch; // the compute capability that it is compiled for: 75
    size_t n_params;
    std::function<void()> (*bind)(void** params);
    std::vector<const void*> (*pointers)(void** params);
    Kernel* next;
    Kernel(const char* name, int arch, size_t n, std::function<void()> (*bind)(void**),
           std::vector<const void*> (*pointers)(void**));
    static Kernel*& first();
};
const Kernel* find(const char* name, int arch);
// Runs all blocks, one after another, in random order.
void launch(const char* name, dim3 grid, dim3 block, const std::function<void()>& call);

template <auto K> struct Entry;
template <class... A, void (*K)(A...)> struct Entry<K> {
    template <size_t... I>
    static std::tuple<std::remove_cv_t<A>...> arguments(void** params, std::index_sequence<I...>) {
        static_assert((... && (std::is_pointer_v<A> || sizeof(A) == 4)), "parameters are pointers, int, unsigned, float");
        return {*static_cast<std::remove_cv_t<A>*>(params[I])...};
    }
    static std::function<void()> bind(void** params) {
        return [values = arguments(params, std::index_sequence_for<A...>{})] { std::apply(K, values); };
    }
    static std::vector<const void*> pointers(void** params) {
        std::vector<const void*> found;
        auto add = [&](auto value) {
            if constexpr (std::is_pointer_v<decltype(value)>) found.push_back((const void*)value);
            else found.push_back(nullptr);
        };
        std::apply([&](auto... values) { (add(values), ...); }, arguments(params, std::index_sequence_for<A...>{}));
        return found;
    }
    static constexpr size_t n = sizeof...(A);
};
} // namespace emu

#define EMU_KERNEL(function, name, arch)                                                                               \
    static emu::Kernel emu_kernel_##function(name, arch, emu::Entry<function>::n, &emu::Entry<function>::bind,         \
                                             &emu::Entry<function>::pointers);

#define threadIdx (emu::running->fiber->tid)
#define blockIdx (emu::running->block.index)
#define blockDim (emu::running->block.size)
#define gridDim (emu::running->block.grid)
static const int warpSize = 32;

// Barriers. Every thread of the block must come to the same line: anything else is an error here.
static inline void __syncthreads(emu::Place p = emu::Place::current()) { emu::block_barrier(false, 0, p); }
static inline int __syncthreads_count(int c, emu::Place p = emu::Place::current()) {
    return emu::block_barrier(c != 0, 0, p);
}
static inline int __syncthreads_or(int c, emu::Place p = emu::Place::current()) {
    return emu::block_barrier(c != 0, 0, p) != 0;
}
static inline int __syncthreads_and(int c, emu::Place p = emu::Place::current()) {
    return emu::block_barrier(c == 0, 0, p) == 0;
}
static inline void __syncwarp(unsigned mask = ~0u, emu::Place p = emu::Place::current()) {
    emu::warp_op(emu::Wait::bar, mask, 0, 0, p);
}

static inline int emu_lane() { return emu::running->fiber->linear & 31; }
template <class T>
T __shfl_sync(unsigned mask, T v, int lane, int width = 32, emu::Place p = emu::Place::current()) {
    return emu::shuffle(mask, v, (emu_lane() & ~(width - 1)) | (lane & (width - 1)), p);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, emu::Place p = emu::Place::current()) {
    int me = emu_lane(), from = me ^ bits;
    return emu::shuffle(mask, v, from <= (me | (width - 1)) ? from : me, p);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, emu::Place p = emu::Place::current()) {
    int me = emu_lane(), from = me + (int)delta;
    return emu::shuffle(mask, v, from <= (me | (width - 1)) ? from : me, p);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, emu::Place p = emu::Place::current()) {
    int me = emu_lane(), from = me - (int)delta;
    return emu::shuffle(mask, v, from >= (me & ~(width - 1)) ? from : me, p);
}
static inline unsigned __ballot_sync(unsigned mask, int c, emu::Place p = emu::Place::current()) {
    return (unsigned)emu::warp_op(emu::Wait::vote, mask, c != 0, 0, p);
}
static inline int __any_sync(unsigned mask, int c, emu::Place p = emu::Place::current()) {
    return __ballot_sync(mask, c, p) != 0;
}
static inline int __all_sync(unsigned mask, int c, emu::Place p = emu::Place::current()) {
    return __ballot_sync(mask, !c, p) == 0;
}

// Other streams and the host run at the same time, so these are real atomics.
template <class T, class V> T emu_atomic(T* at, V change) {
    static_assert(std::is_integral_v<T>, "no float atomics: the order of the sum would not be fixed");
    emu::maybe_yield();
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &old, change(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return old;
}
template <class T> T atomicAdd(T* at, std::type_identity_t<T> v) {
    return emu_atomic(at, [=](T old) { return (T)((std::make_unsigned_t<T>)old + (std::make_unsigned_t<T>)v); });
}
template <class T> T atomicSub(T* at, std::type_identity_t<T> v) {
    return emu_atomic(at, [=](T old) { return (T)((std::make_unsigned_t<T>)old - (std::make_unsigned_t<T>)v); });
}
template <class T> T atomicMax(T* at, std::type_identity_t<T> v) {
    return emu_atomic(at, [=](T old) { return old > v ? old : v; });
}
template <class T> T atomicMin(T* at, std::type_identity_t<T> v) {
    return emu_atomic(at, [=](T old) { return old < v ? old : v; });
}
template <class T> T atomicExch(T* at, std::type_identity_t<T> v) {
    return emu_atomic(at, [=](T) { return v; });
}
template <class T> T atomicOr(T* at, std::type_identity_t<T> v) {
    return emu_atomic(at, [=](T old) { return old | v; });
}
template <class T> T atomicAnd(T* at, std::type_identity_t<T> v) {
    return emu_atomic(at, [=](T old) { return old & v; });
}
template <class T> T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
    return emu_atomic(at, [=](T old) { return old == expected ? v : old; });
}
static inline unsigned atomicInc(unsigned* at, unsigned last) {
    return emu_atomic(at, [=](unsigned old) { return old >= last ? 0u : old + 1; });
}
static inline unsigned atomicDec(unsigned* at, unsigned last) {
    return emu_atomic(at, [=](unsigned old) { return old == 0 || old > last ? last : old - 1; });
}
static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

unsigned long long emu_globaltimer();
static inline long long clock64() { return (long long)emu_globaltimer(); }
static inline void __nanosleep(unsigned) { emu::yield(true); }

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldca(const T* p) { return *p; }
template <class T> T __ldcv(const T* p) { return *p; }
template <class T> void __stcg(T* p, std::type_identity_t<T> v) { *p = v; }
template <class T> void __stcs(T* p, std::type_identity_t<T> v) { *p = v; }

static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __ffsll(long long v) { return __builtin_ffsll(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
static inline unsigned __brev(unsigned v) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (v >> i & 1u) << (31 - i);
    return r;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    uint64_t both = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned pick = s >> 4 * i & 15, byte = both >> 8 * (pick & 7) & 255;
        r |= (pick & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return r;
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned s) {
    return (unsigned)(((uint64_t)hi << 32 | lo) << (s & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned s) {
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (s & 31));
}
static inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

#define EMU_MIN_MAX(T)                                                                                                 \
    static inline T min(T a, T b) { return b < a ? b : a; }                                                            \
    static inline T max(T a, T b) { return a < b ? b : a; }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)
static inline unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
static inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
static inline unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
static inline unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

static inline int __float_as_int(float v) { return __builtin_bit_cast(int, v); }
static inline unsigned __float_as_uint(float v) { return __builtin_bit_cast(unsigned, v); }
static inline float __int_as_float(int v) { return __builtin_bit_cast(float, v); }
static inline float __uint_as_float(unsigned v) { return __builtin_bit_cast(float, v); }
static inline long long __double_as_longlong(double v) { return __builtin_bit_cast(long long, v); }
static inline double __longlong_as_double(long long v) { return __builtin_bit_cast(double, v); }

// Conversions saturate and turn NaN into 0, as the hardware's do.
static inline int emu_to_int(float v) {
    return v != v ? 0 : v >= 2147483648.0f ? 2147483647 : v < -2147483648.0f ? -2147483647 - 1 : (int)v;
}
static inline unsigned emu_to_uint(float v) {
    return !(v > 0) ? 0u : v >= 4294967296.0f ? 4294967295u : (unsigned)v;
}
static inline int __float2int_rn(float v) { return emu_to_int(rintf(v)); }
static inline int __float2int_rz(float v) { return emu_to_int(v); }
static inline int __float2int_rd(float v) { return emu_to_int(floorf(v)); }
static inline int __float2int_ru(float v) { return emu_to_int(ceilf(v)); }
static inline unsigned __float2uint_rn(float v) { return emu_to_uint(rintf(v)); }
static inline unsigned __float2uint_rz(float v) { return emu_to_uint(v); }
static inline float __int2float_rn(int v) { return (float)v; }
static inline float __uint2float_rn(unsigned v) { return (float)v; }

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __frsqrt_rn(float a) { return (float)(1.0 / sqrt((double)a)); }
static inline float rsqrtf(float a) { return (float)(1.0 / sqrt((double)a)); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1.0f) : 0.0f; }
// Macros, because glibc declares functions of these names.
#define __expf(a) expf(a)
#define __exp10f(a) exp10f(a)
#define __logf(a) logf(a)
#define __log2f(a) log2f(a)
#define __log10f(a) log10f(a)
#define __sinf(a) sinf(a)
#define __cosf(a) cosf(a)
#define __tanf(a) tanf(a)
#define __powf(a, b) powf(a, b)
#define __sincosf(a, s, c) sincosf(a, s, c)
#endif
