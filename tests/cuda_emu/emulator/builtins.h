/* CUDA C++ on a CPU: qualifiers, built-in variables, barriers, warp functions, atomics and the intrinsics that the
 * project's kernels use. Intrinsics are computed at full float precision, so tolerances come from CUDA's tables of ULPs
 * and not from what is seen here. */
#ifndef CUDAEMU_BUILTINS_H
#define CUDAEMU_BUILTINS_H

#include <cuda_runtime.h> /* for a host compiler: types and prototypes only */
#include <cuda_bf16.h>    /* conversions and plain arithmetic have host forms */

#include "warp.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__ __attribute__((visibility("default"))) /* PTX mode finds a kernel's name by dladdr */
#define __device__
#define __host__
#define __constant__    static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

#ifdef CUDAEMU_CHECK
/* One section, so that the checker knows where it is (clang++; g++ refuses sections in templates). */
#define __shared__        static __attribute__((section("cudaemu_shared"), aligned(16)))
#define CUDAEMU_UNCHECKED __attribute__((no_sanitize("thread"), noinline))
#else
#define __shared__ static
#define CUDAEMU_UNCHECKED
#endif

#define threadIdx (::cudaemu::builtins.thread)
#define blockIdx  (::cudaemu::builtins.block)
#define blockDim  (::cudaemu::builtins.block_dim)
#define gridDim   (::cudaemu::builtins.grid_dim)
static constexpr int warpSize = 32;

/* The last parameters of a function that may complain: where it was called. */
#define CUDAEMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* --- barriers and fences ------------------------------------------------------------------------------------------ */

inline void __syncthreads(CUDAEMU_HERE)
{
    cudaemu::block_barrier(file, line);
}
inline int __syncthreads_count(int predicate, CUDAEMU_HERE)
{
    return cudaemu::block_barrier_reduce(cudaemu::Reduce::COUNT, predicate != 0, file, line);
}
inline int __syncthreads_and(int predicate, CUDAEMU_HERE)
{
    return cudaemu::block_barrier_reduce(cudaemu::Reduce::AND, predicate != 0, file, line);
}
inline int __syncthreads_or(int predicate, CUDAEMU_HERE)
{
    return cudaemu::block_barrier_reduce(cudaemu::Reduce::OR, predicate != 0, file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDAEMU_HERE)
{
    cudaemu::warp_collective(mask, cudaemu::SYNCWARP, {nullptr, nullptr, 0}, file, line);
}
/* Memory is never weak here; only the checker knows what a fence is for. */
inline void __threadfence()
{
#ifdef CUDAEMU_CHECK
    cudaemu::fence();
#endif
}
inline void __threadfence_system()
{
    __threadfence();
}
inline void __threadfence_block() {}

/* --- shuffles and votes ------------------------------------------------------------------------------------------- */

namespace cudaemu
{
template <class T> CUDAEMU_UNCHECKED T shuffle(unsigned mask, T value, int source, const char *file, int line)
{
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "a shuffle moves at most 8 plain bytes");
    ShuffleIn in{0, source};
    __builtin_memcpy(&in.value, &value, sizeof value);
    uint64_t out = 0;
    warp_collective(mask, SHUFFLE, {&in, &out, 0}, file, line);
    __builtin_memcpy(&value, &out, sizeof value);
    return value;
}
CUDAEMU_UNCHECKED inline unsigned ballot(unsigned mask, bool predicate, const char *file, int line)
{
    unsigned out = 0;
    warp_collective(mask, BALLOT, {nullptr, &out, predicate}, file, line);
    return out;
}
template <class T> CUDAEMU_UNCHECKED T warp_reduce(char kind, unsigned mask, T value, const char *file, int line)
{
    static_assert(std::is_integral<T>::value && sizeof(T) == 4, "__reduce_*_sync takes int or unsigned");
    ReduceIn in{value, kind};
    int64_t out = 0;
    warp_collective(mask, REDUCE, {&in, &out, 0}, file, line);
    return (T)out;
}
/* The first lane of this lane's segment. */
inline int segment(int width)
{
    return (int)builtins.lane & ~(width - 1);
}
} // namespace cudaemu

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDAEMU_HERE)
{
    return cudaemu::shuffle(mask, value, cudaemu::segment(width) + (source & (width - 1)), file, line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUDAEMU_HERE)
{
    int me = (int)cudaemu::builtins.lane, source = me ^ lanes;
    return cudaemu::shuffle(mask, value, source < cudaemu::segment(width) + width ? source : me, file, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDAEMU_HERE)
{
    int me = (int)cudaemu::builtins.lane, source = me + (int)delta;
    return cudaemu::shuffle(mask, value, source < cudaemu::segment(width) + width ? source : me, file, line);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDAEMU_HERE)
{
    int me = (int)cudaemu::builtins.lane, source = me - (int)delta;
    return cudaemu::shuffle(mask, value, source >= cudaemu::segment(width) ? source : me, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDAEMU_HERE)
{
    return cudaemu::ballot(mask, predicate != 0, file, line);
}
inline int __any_sync(unsigned mask, int predicate, CUDAEMU_HERE)
{
    return cudaemu::ballot(mask, predicate != 0, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDAEMU_HERE)
{
    return cudaemu::ballot(mask, predicate == 0, file, line) == 0;
}
#define CUDAEMU_REDUCE(name, kind)                                                                                     \
    template <class T> T name(unsigned mask, T value, CUDAEMU_HERE)                                                    \
    {                                                                                                                  \
        return cudaemu::warp_reduce(kind, mask, value, file, line);                                                    \
    }
CUDAEMU_REDUCE(__reduce_add_sync, '+')
CUDAEMU_REDUCE(__reduce_min_sync, '<')
CUDAEMU_REDUCE(__reduce_max_sync, '>')
CUDAEMU_REDUCE(__reduce_and_sync, '&')
CUDAEMU_REDUCE(__reduce_or_sync, '|')
CUDAEMU_REDUCE(__reduce_xor_sync, '^')
#undef CUDAEMU_REDUCE

/* --- atomics: one thread runs at a time, so plain reads and writes, which the checker is told are atomic ---------- */

namespace cudaemu
{
#ifdef CUDAEMU_CHECK
void atomic_access(void *p, unsigned bytes, const void *pc);
#else
inline void atomic_access(void *, unsigned, const void *) {}
#endif
} // namespace cudaemu

#define CUDAEMU_ATOMIC(name, value_after)                                                                              \
    template <class T> CUDAEMU_UNCHECKED T name(T *p, typename std::common_type<T>::type v)                            \
    {                                                                                                                  \
        cudaemu::atomic_access(p, sizeof(T), __builtin_return_address(0));                                             \
        T old = *p;                                                                                                    \
        *p = (value_after);                                                                                            \
        return old;                                                                                                    \
    }
CUDAEMU_ATOMIC(atomicAdd, (T)(old + v))
CUDAEMU_ATOMIC(atomicSub, (T)(old - v))
CUDAEMU_ATOMIC(atomicMax, old > v ? old : v)
CUDAEMU_ATOMIC(atomicMin, old < v ? old : v)
CUDAEMU_ATOMIC(atomicExch, v)
CUDAEMU_ATOMIC(atomicOr, (T)(old | v))
CUDAEMU_ATOMIC(atomicAnd, (T)(old &v))
CUDAEMU_ATOMIC(atomicXor, (T)(old ^ v))
CUDAEMU_ATOMIC(atomicInc, old >= v ? (T)0 : (T)(old + 1))
CUDAEMU_ATOMIC(atomicDec, old == 0 || old > v ? v : (T)(old - 1))
#undef CUDAEMU_ATOMIC
template <class T>
CUDAEMU_UNCHECKED T atomicCAS(T *p, typename std::common_type<T>::type expected, typename std::common_type<T>::type v)
{
    cudaemu::atomic_access(p, sizeof(T), __builtin_return_address(0));
    T old = *p;
    if (old == expected) *p = v;
    return old;
}

/* --- memory intrinsics -------------------------------------------------------------------------------------------- */

#define CUDAEMU_LOAD(name)                                                                                             \
    template <class T> inline T name(const T *p)                                                                       \
    {                                                                                                                  \
        return *p;                                                                                                     \
    }
CUDAEMU_LOAD(__ldg)
CUDAEMU_LOAD(__ldca)
CUDAEMU_LOAD(__ldcg)
CUDAEMU_LOAD(__ldcs)
CUDAEMU_LOAD(__ldcv)
CUDAEMU_LOAD(__ldlu)
#undef CUDAEMU_LOAD
#define CUDAEMU_STORE(name)                                                                                            \
    template <class T> inline void name(T *p, typename std::common_type<T>::type value)                                \
    {                                                                                                                  \
        *p = value;                                                                                                    \
    }
CUDAEMU_STORE(__stwb)
CUDAEMU_STORE(__stcg)
CUDAEMU_STORE(__stcs)
CUDAEMU_STORE(__stwt)
#undef CUDAEMU_STORE
inline size_t __cvta_generic_to_shared(const void *p)
{
    return (size_t)p;
}

/* --- arithmetic intrinsics ---------------------------------------------------------------------------------------- */

#define CUDAEMU_BITS(name, To, From)                                                                                   \
    inline To name(From from)                                                                                          \
    {                                                                                                                  \
        To to;                                                                                                         \
        __builtin_memcpy(&to, &from, sizeof to);                                                                       \
        return to;                                                                                                     \
    }
CUDAEMU_BITS(__int_as_float, float, int)
CUDAEMU_BITS(__uint_as_float, float, unsigned)
CUDAEMU_BITS(__float_as_int, int, float)
CUDAEMU_BITS(__float_as_uint, unsigned, float)
CUDAEMU_BITS(__longlong_as_double, double, long long)
CUDAEMU_BITS(__double_as_longlong, long long, double)
#undef CUDAEMU_BITS

inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
inline float __expf(float x)
{
    return expf(x);
}
inline float __exp10f(float x)
{
    return powf(10.0f, x);
}
inline float __logf(float x)
{
    return logf(x);
}
inline float __log2f(float x)
{
    return log2f(x);
}
inline float __powf(float x, float y)
{
    return powf(x, y);
}
inline float __sinf(float x)
{
    return sinf(x);
}
inline float __cosf(float x)
{
    return cosf(x);
}
inline float __tanhf(float x)
{
    return tanhf(x);
}
inline float __fdividef(float a, float b)
{
    return a / b;
}
inline float __frcp_rn(float a)
{
    return 1.0f / a;
}
inline float __frsqrt_rn(float a)
{
    return (float)(1.0 / sqrt((double)a));
}
inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}
inline float __fadd_rn(float a, float b)
{
    return a + b;
}
inline float __fsub_rn(float a, float b)
{
    return a - b;
}
inline float __fmul_rn(float a, float b)
{
    return a * b;
}
inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
inline float __saturatef(float a)
{
    return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f;
}
inline float __int2float_rn(int a)
{
    return (float)a;
}
inline float __uint2float_rn(unsigned a)
{
    return (float)a;
}
inline float __ll2float_rn(long long a)
{
    return (float)a;
}
inline float __ull2float_rn(unsigned long long a)
{
    return (float)a;
}
inline float __double2float_rn(double a)
{
    return (float)a;
}
inline int __float2int_rn(float a)
{
    return (int)nearbyintf(a);
}
inline int __float2int_rz(float a)
{
    return (int)a;
}
inline int __float2int_rd(float a)
{
    return (int)floorf(a);
}
inline int __float2int_ru(float a)
{
    return (int)ceilf(a);
}
inline long long __float2ll_rn(float a)
{
    return (long long)nearbyintf(a);
}
inline long long __double2ll_rn(double a)
{
    return (long long)nearbyint(a);
}

inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
inline int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
inline int __mulhi(int a, int b)
{
    return (int)(((long long)a * b) >> 32);
}
inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)(((unsigned long long)a * b) >> 32);
}
inline long long __mul64hi(long long a, long long b)
{
    return (long long)(((__int128)a * b) >> 64);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
inline unsigned __brev(unsigned x)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (x >> i & 1u) << (31 - i);
    return r;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select)
{
    uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= (unsigned)(bytes >> 8 * (select >> 4 * i & 7) & 0xff) << 8 * i;
    return r;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift)
{
    return (unsigned)(((uint64_t)high << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift)
{
    return (unsigned)(((uint64_t)high << 32 | low) >> (shift & 31));
}

template <class T, class U> inline typename std::common_type<T, U>::type min(T a, U b)
{
    return b < a ? b : a;
}
template <class T, class U> inline typename std::common_type<T, U>::type max(T a, U b)
{
    return a < b ? b : a;
}
using std::isfinite;
using std::isinf;
using std::isnan;

[[noreturn]] inline void __trap(CUDAEMU_HERE)
{
    cudaemu::fail("%s:%d: __trap", file, line);
}

#endif
