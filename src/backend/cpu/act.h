/* The activation type of a table of operations: float, or bf16 with FB3_CPU_ACT_BF16 on the compiler's command line.
 * Arithmetic is in float either way: values widen when they are loaded, and round to nearest, ties to even, when they
 * are stored. */
#ifndef FB3_BACKEND_CPU_ACT_H
#define FB3_BACKEND_CPU_ACT_H

#include "fb3/backend.h"
#include "vec.h"

#if defined(FB3_CPU_ACT_BF16)

#if !defined(__AVX512BF16__)
#error "bf16 activations are for processors with AVX512-BF16"
#endif

typedef uint16_t act;
#define ACT_TYPE FB3_BF16

static inline vf act_load_all(const act *p)
{
    __m256i half;
    memcpy(&half, p, sizeof half);
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
}
static inline void act_store_all(act *p, vf v)
{
    __m256bh half = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &half, sizeof half);
}
static inline vf act_load(const act *p, int64_t n)
{
    if (n >= LANES) return act_load_all(p);
    if (n <= 0) return (vf){0};
    __m256i half = _mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1u), p);
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
}
static inline void act_store(act *p, vf v, int64_t n)
{
    if (n >= LANES) {
        act_store_all(p, v);
    } else if (n > 0) {
        __m256bh half = _mm512_cvtneps_pbh((__m512)v);
        _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1u), (__m256i)half);
    }
}

#else

typedef float act;
#define ACT_TYPE FB3_F32

static inline vf act_load_all(const act *p)
{
    return vf_load_all(p);
}
static inline void act_store_all(act *p, vf v)
{
    vf_store_all(p, v);
}
static inline vf act_load(const act *p, int64_t n)
{
    return vf_load(p, n);
}
static inline void act_store(act *p, vf v, int64_t n)
{
    vf_store(p, v, n);
}

#endif

/* Rows of activations for code that works on rows of floats. `room` [n] is used in bf16 only; in float the row itself
 * is read and written. */
static inline const float *row_read(const act *x, float *room, int n)
{
#if defined(FB3_CPU_ACT_BF16)
    for (int i = 0; i < n; i += LANES) vf_store(room + i, act_load(x + i, n - i), n - i);
    return room;
#else
    (void)room, (void)n;
    return x;
#endif
}
/* Where to write a row, and what makes it the row x. */
static inline float *row_begin(act *x, float *room)
{
#if defined(FB3_CPU_ACT_BF16)
    (void)x;
    return room;
#else
    (void)room;
    return x;
#endif
}
static inline void row_end(act *x, const float *row, int n)
{
#if defined(FB3_CPU_ACT_BF16)
    for (int i = 0; i < n; i += LANES) act_store(x + i, vf_load(row + i, n - i), n - i);
#else
    (void)x, (void)row, (void)n;
#endif
}

/* The activations as floats to compute in, NULL where they are not floats. */
static inline float *act_floats(void *x)
{
#if defined(FB3_CPU_ACT_BF16)
    (void)x;
    return NULL;
#else
    return x;
#endif
}

/* The value that a store would leave behind. */
static inline vf act_round(vf v)
{
#if defined(FB3_CPU_ACT_BF16)
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)v)), 16);
#else
    return v;
#endif
}

#endif
