/* Dropout masks on the CPU: the Philox counters of fb3_dropout (fb3/backend.h), LANES blocks of four at a time.
 * The mask is never stored; forward and backward draw the same one. */
#ifndef FB3_BACKEND_CPU_DROPOUT_H
#define FB3_BACKEND_CPU_DROPOUT_H

#include "fb3/backend.h"
#include "vec.h"
#include <math.h>

enum {
    DROPOUT_WORDS = 4,    /* of a Philox block */
    DROPOUT_COLUMNS = 256 /* row tensors are masked this many columns at a time */
};

static inline bool dropout_on(const fb3_dropout *drop)
{
    return drop != NULL && drop->p > 0.0f;
}

/* High and low halves of a * factor. */
static inline void vu_multiply(vu a, uint32_t factor, vu *high, vu *low)
{
    *low = a * factor;
#if defined(__AVX512F__)
    __m512i f = _mm512_set1_epi32((int)factor);
    __m512i even = _mm512_srli_epi64(_mm512_mul_epu32((__m512i)a, f), 32);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), f);
    *high = (vu)_mm512_mask_blend_epi32(0xAAAA, even, odd);
#elif defined(__AVX2__)
    __m256i f = _mm256_set1_epi32((int)factor);
    __m256i even = _mm256_srli_epi64(_mm256_mul_epu32((__m256i)a, f), 32);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), f);
    *high = (vu)_mm256_blend_epi32(even, odd, 0xAA);
#else
    *high = (vu){0};
    for (int lane = 0; lane < LANES; lane++) (*high)[lane] = (uint32_t)(((uint64_t)a[lane] * factor) >> 32);
#endif
}

/* The words of LANES consecutive blocks (fb3_philox4x32 of fb3/rng.h, lane by lane). */
static inline void dropout_words(vu word[DROPOUT_WORDS], const fb3_dropout *drop, uint32_t sample, uint32_t block)
{
    vu c0 = (vu)vi_lanes() + block, c1 = vu_set(drop->site), c2 = vu_set(sample), c3 = vu_set(drop->step);
    uint32_t k0 = drop->key.k0, k1 = drop->key.k1;
    for (int round = 0; round < 10; round++) {
        vu high0, low0, high1, low1;
        vu_multiply(c0, 0xD2511F53u, &high0, &low0);
        vu_multiply(c2, 0xCD9E8D57u, &high1, &low1);
        c0 = high1 ^ c1 ^ k0;
        c2 = high0 ^ c3 ^ k1;
        c1 = low1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    word[0] = c0;
    word[1] = c1;
    word[2] = c2;
    word[3] = c3;
}

/* keep[e] = 0 or 1/(1-p) for the n >= 1 elements first, first + 1, ... of a sample. */
static inline void dropout_scales(float *keep, int n, const fb3_dropout *drop, uint32_t sample, uint64_t first)
{
    const uint32_t threshold = fb3_dropout_threshold(drop);
    const vf scale = vf_set(fb3_dropout_scale(drop));
    int skip = (int)(first % DROPOUT_WORDS);
    int done = -skip;
    do {
        uint32_t block = (uint32_t)((first + (uint64_t)(int64_t)done) / DROPOUT_WORDS);
        vu word[DROPOUT_WORDS];
        dropout_words(word, drop, sample, block);
        float value[DROPOUT_WORDS][LANES], chunk[LANES][DROPOUT_WORDS];
        for (int w = 0; w < DROPOUT_WORDS; w++) vf_store_all(value[w], (vf)((vi)(word[w] >= threshold) & (vi)scale));
        for (int lane = 0; lane < LANES; lane++)
            for (int w = 0; w < DROPOUT_WORDS; w++) chunk[lane][w] = value[w][lane];
        int from = done < 0 ? skip : 0;
        int to = n - done < DROPOUT_WORDS * LANES ? n - done : DROPOUT_WORDS * LANES;
        memcpy(keep + done + from, &chunk[0][0] + from, (size_t)(to - from) * sizeof *keep);
        done += DROPOUT_WORDS * LANES;
    } while (done < n);
}

/* The first element of row t of a row tensor with `width` columns. */
static inline uint64_t dropout_row(const fb3_ragged *ragged, int t, int width)
{
    return (uint64_t)(t - ragged->seq_start[ragged->token_seq[t]]) * (uint64_t)width;
}

/* y = x * keep for row t; x may be y. */
static inline void dropout_apply_row(float *y, const float *x, int width, const fb3_dropout *drop,
                                     const fb3_ragged *ragged, int t)
{
    uint32_t sample = ragged->sample[ragged->token_seq[t]];
    uint64_t first = dropout_row(ragged, t, width);
    float keep[DROPOUT_COLUMNS];
    for (int start = 0; start < width; start += DROPOUT_COLUMNS) {
        int columns = width - start < DROPOUT_COLUMNS ? width - start : DROPOUT_COLUMNS;
        dropout_scales(keep, columns, drop, sample, first + (uint64_t)start);
        for (int c = 0; c < columns; c += LANES) {
            vf v = vf_load(x + start + c, columns - c) * vf_load(keep + c, columns - c);
            vf_store(y + start + c, v, columns - c);
        }
    }
}

#endif
