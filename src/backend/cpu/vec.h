/* Vectors of floats: one width per instruction set, written with the vector extensions of GCC and Clang, so that one
 * source serves AVX-512 (16 lanes), AVX2 (8) and everything else (4: SSE2, NEON). Sums are written out, never left to
 * the compiler's vectoriser: the order of additions, and with it the bits, depends on shapes and the width alone.
 *
 * `n` in a load or store is how many elements are left: min(n, LANES) lanes move, the others read as 0. */
#ifndef FB3_BACKEND_CPU_VEC_H
#define FB3_BACKEND_CPU_VEC_H

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));

static inline vf vf_set(float x)
{
    return x - (vf){0};
}
static inline vi vi_set(int32_t x)
{
    return x + (vi){0};
}
static inline vu vu_set(uint32_t x)
{
    return x + (vu){0};
}

/* 0, 1, 2, ... */
static inline vi vi_lanes(void)
{
    vi v = {0};
    for (int lane = 0; lane < LANES; lane++) v[lane] = lane;
    return v;
}

/* mask ? a : b, lane by lane; a comparison of vectors gives such a mask (-1 or 0). */
static inline vf vf_select(vi mask, vf a, vf b)
{
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
}
static inline vi vi_select(vi mask, vi a, vi b)
{
    return (mask & a) | (~mask & b);
}

static inline vf vf_load_all(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void vf_store_all(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}
static inline vi vi_load_all(const int32_t *p)
{
    vi v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline vf vf_load(const float *p, int64_t n)
{
    if (n >= LANES) return vf_load_all(p);
    vf v = {0};
#if defined(__AVX512F__)
    if (n > 0) v = (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
#else
    for (int lane = 0; lane < n; lane++) v[lane] = p[lane];
#endif
    return v;
}
static inline void vf_store(float *p, vf v, int64_t n)
{
    if (n >= LANES) {
        vf_store_all(p, v);
        return;
    }
#if defined(__AVX512F__)
    if (n > 0) _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), (__m512)v);
#else
    for (int lane = 0; lane < n; lane++) p[lane] = v[lane];
#endif
}

/* Lanes 0 .. n-1 of v, 0 in the others. */
static inline vf vf_first(vf v, int64_t n)
{
    return n >= LANES ? v : (vf)((vi_lanes() < vi_set((int32_t)n)) & (vi)v);
}

/* a * b + c, rounded once where the instruction set can. */
static inline vf vf_fma(vf a, vf b, vf c)
{
#if defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

static inline vf vf_sqrt(vf x)
{
#if defined(__AVX512F__)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    return (vf)_mm256_sqrt_ps((__m256)x);
#else
    for (int lane = 0; lane < LANES; lane++) x[lane] = __builtin_sqrtf(x[lane]);
    return x;
#endif
}

/* table[index] of every lane. */
static inline vf vf_gather(const float *table, vi index)
{
#if defined(__AVX512F__)
    return (vf)_mm512_i32gather_ps((__m512i)index, table, sizeof(float));
#elif defined(__AVX2__)
    return (vf)_mm256_i32gather_ps(table, (__m256i)index, sizeof(float));
#else
    vf v = {0};
    for (int lane = 0; lane < LANES; lane++) v[lane] = table[index[lane]];
    return v;
#endif
}

/* v[index] of every lane, 0 <= index < LANES. */
static inline vf vf_permute(vf v, vi index)
{
#if defined(__AVX512F__)
    return (vf)_mm512_permutexvar_ps((__m512i)index, (__m512)v);
#elif defined(__AVX2__)
    return (vf)_mm256_permutevar8x32_ps((__m256)v, (__m256i)index);
#else
    vf result;
    for (int lane = 0; lane < LANES; lane++) result[lane] = v[index[lane]];
    return result;
#endif
}

/* Lane c of v[r] and lane r of v[c] change places, by butterflies: rows and lanes whose numbers differ in one bit swap,
 * one bit at a time. */
#define VF_LOW(c, bit)     (((c) & (bit)) ? LANES + (c) - (bit) : (c))
#define VF_HIGH(c, bit)    (((c) & (bit)) ? LANES + (c) : (c) + (bit))
#define VF_4(pick, c, bit) pick(c, bit), pick((c) + 1, bit), pick((c) + 2, bit), pick((c) + 3, bit)
#if LANES == 16
#define VF_ALL(pick, bit) VF_4(pick, 0, bit), VF_4(pick, 4, bit), VF_4(pick, 8, bit), VF_4(pick, 12, bit)
#elif LANES == 8
#define VF_ALL(pick, bit) VF_4(pick, 0, bit), VF_4(pick, 4, bit)
#else
#define VF_ALL(pick, bit) VF_4(pick, 0, bit)
#endif
#define VF_SWAP_BIT(v, bit)                                                                                            \
    _Pragma("GCC unroll 16") for (int r = 0; r < LANES; r++)                                                           \
    {                                                                                                                  \
        if (r & (bit)) continue;                                                                                       \
        vf low = (v)[r], high = (v)[r + (bit)];                                                                        \
        (v)[r] = __builtin_shufflevector(low, high, VF_ALL(VF_LOW, bit));                                              \
        (v)[r + (bit)] = __builtin_shufflevector(low, high, VF_ALL(VF_HIGH, bit));                                     \
    }

static inline void vf_transpose(vf v[LANES])
{
    VF_SWAP_BIT(v, 1)
    VF_SWAP_BIT(v, 2)
#if LANES > 4
    VF_SWAP_BIT(v, 4)
#endif
#if LANES > 8
    VF_SWAP_BIT(v, 8)
#endif
}

static inline vf vf_abs(vf x)
{
    return (vf)((vi)x & INT32_MAX);
}
static inline vf vf_max(vf a, vf b)
{
    return vf_select(a > b, a, b);
}

/* The sum of all lanes, as a tree. */
static inline float vf_sum(vf v)
{
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++) v[lane] += v[lane + half];
    return v[0];
}
static inline float vf_maximum(vf v)
{
    float most = v[0];
    for (int lane = 1; lane < LANES; lane++) most = v[lane] > most ? v[lane] : most;
    return most;
}

/* exp(x) for x <= 88, about 1 ulp; 0 below the smallest normal number; NaN stays NaN.
 * exp(x) = 2^n exp(r) with x = n ln 2 + r, |r| <= ln(2)/2, and exp(r) = 1 + r + r^2 q(r): q is a minimax polynomial,
 * relative error 3.3e-9 (tests/backend/make_coefficients.py). */
static inline vf vf_exp(vf x)
{
    const float log2_e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    const float round_magic = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    const float smallest = -87.33654f;
    vi normal = ~(x < smallest);
    vf shifted = vf_fma(x, vf_set(log2_e), vf_set(round_magic));
    vi n = (vi)shifted - (vi)vf_set(round_magic);
    vf whole = shifted - round_magic;
    vf r = vf_fma(whole, vf_set(-ln2_high), x);
    r = vf_fma(whole, vf_set(-ln2_low), r);
    vf q = vf_set(0.0013813145f);
    q = vf_fma(q, r, vf_set(0.008369419f));
    q = vf_fma(q, r, vf_set(0.041668456f));
    q = vf_fma(q, r, vf_set(0.16666515f));
    q = vf_fma(q, r, vf_set(0.49999994f));
    vf value = vf_fma(r * r, q, r) + 1.0f;
    vf power = (vf)((n + 127) << 23);
    return (vf)(normal & (vi)(value * power));
}

/* The normal distribution's cdf Phi(x) and density phi(x) = exp(-x^2/2)/sqrt(2 pi), absolute error below 1e-7. With
 * u = 0.28|x| / (1 + 0.28|x|) the tail is Phi(-|x|) = exp(-x^2/2) (1/2 + u P(u)) (after Abramowitz and Stegun 26.2.17);
 * P is a minimax polynomial, error of the tail 2.4e-10 before rounding (tests/backend/make_coefficients.py). */
static inline void vf_normal(vf x, vf *cdf, vf *density)
{
    const float tail_scale = 0.28f, inverse_sqrt_2pi = 0.398942280f, largest = 1e18f; /* its square is a float */
    vf a = vf_abs(x);
    a = vf_select(a > largest, vf_set(largest), a);
    vf e = vf_exp(-0.5f * (a * a));
    vf scaled = tail_scale * a, u = scaled / (1.0f + scaled);
    vf p = vf_set(0.04103858f);
    p = vf_fma(p, u, vf_set(-0.104654275f));
    p = vf_fma(p, u, vf_set(-0.0045125554f));
    p = vf_fma(p, u, vf_set(0.19665325f));
    p = vf_fma(p, u, vf_set(0.13747175f));
    p = vf_fma(p, u, vf_set(-1.1051313f));
    p = vf_fma(p, u, vf_set(1.7639855f));
    p = vf_fma(p, u, vf_set(-1.424794f));
    vf tail = e * vf_fma(p, u, vf_set(0.5f));
    *cdf = vf_select(x < 0.0f, tail, 1.0f - tail);
    *density = inverse_sqrt_2pi * e;
}

#endif
