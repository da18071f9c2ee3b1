/* Conversions, checks and dropout of row tensors. */
#include "act.h"
#include "dropout.h"
#include "ops.h"
#include <math.h>
#include <string.h>

enum { BLOCK = 1 << 14 }; /* elements that a thread takes at a time */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void cast_block(act *dst, const float *src, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) act_store(dst + i, vf_load(src + i, n - i), n - i);
}

fb3_status CPU(cast_to_act)(fb3_backend *be, void *dst, const float *src, int64_t n)
{
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < n; start += BLOCK)
        cast_block((act *)dst + start, src + start, least(BLOCK, n - start));
    return FB3_OK;
}

fb3_status CPU(fixed_add)(fb3_backend *be, int64_t *sum, const float *x, int64_t n, float limit)
{
    (void)be;
    int64_t beyond = 0;
#pragma omp parallel for schedule(static) reduction(+ : beyond)
    for (int64_t i = 0; i < n; i++) {
        bool fits = fabsf(x[i]) < limit; /* false for what is not a number, too */
        sum[i] += fits ? (int64_t)rint((double)x[i] * FB3_FIXED_ONE) : 0;
        beyond += !fits;
    }
    sum[n] += beyond;
    return FB3_OK;
}

fb3_status CPU(fixed_to_float)(fb3_backend *be, float *x, const int64_t *sum, int64_t n)
{
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) x[i] = (float)((double)sum[i] * (1 / FB3_FIXED_ONE));
    if (n > 0 && sum[n] != 0) x[0] = NAN;
    return FB3_OK;
}

fb3_status CPU(count_nonfinite)(fb3_backend *be, int64_t *count, const void *x, fb3_dtype dtype, int64_t n)
{
    (void)be;
    const uint32_t *word = x;
    const uint16_t *half = x;
    int64_t found = 0;
    /* all bits of the exponent, which both types share, are 1 */
#pragma omp parallel for schedule(static) reduction(+ : found)
    for (int64_t i = 0; i < n; i++) found += ((dtype == FB3_F32 ? word[i] >> 16 : half[i]) & 0x7F80) == 0x7F80;
    *count += found;
    return FB3_OK;
}

fb3_status CPU(dropout_fwd)(fb3_backend *be, void *y, const void *x, const fb3_ragged *ragged, int C,
                            const fb3_dropout *drop)
{
    (void)be;
    const act *in = x;
    act *out = y;
    if (!dropout_on(drop) && in == out) return FB3_OK;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < ragged->T; t++) {
        float room[FB3_HIDDEN_MAX], y_room[FB3_HIDDEN_MAX];
        const float *x_t = row_read(in + (int64_t)t * C, room, C);
        float *y_t = row_begin(out + (int64_t)t * C, y_room);
        if (dropout_on(drop))
            dropout_apply_row(y_t, x_t, C, drop, ragged, t);
        else
            memcpy(y_t, x_t, (size_t)C * sizeof *y_t);
        row_end(out + (int64_t)t * C, y_t, C);
    }
    return FB3_OK;
}

fb3_status CPU(dropout_bwd_add)(fb3_backend *be, float *dx, const void *dy, const fb3_ragged *ragged, int C,
                                const fb3_dropout *drop)
{
    (void)be;
    const act *dout = dy;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < ragged->T; t++) {
        float room[FB3_HIDDEN_MAX], kept_room[FB3_HIDDEN_MAX], *row = dx + (int64_t)t * C;
        const float *d = row_read(dout + (int64_t)t * C, room, C);
        if (dropout_on(drop)) {
            dropout_apply_row(kept_room, d, C, drop, ragged, t);
            d = kept_room;
        }
        for (int c = 0; c < C; c += LANES) vf_store(row + c, vf_load(row + c, C - c) + vf_load(d + c, C - c), C - c);
    }
    return FB3_OK;
}
