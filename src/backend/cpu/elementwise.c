/* Conversions, checks and dropout of row tensors. */
#include "dropout.h"
#include "ops.h"
#include <assert.h>
#include <math.h>
#include <string.h>

enum { BLOCK = 1 << 14 }; /* elements that a thread takes at a time */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

fb3_status CPU(cast_to_act)(fb3_backend *be, void *dst, const float *src, int64_t n)
{
    (void)be;
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < n; start += BLOCK)
        memcpy((float *)dst + start, src + start, (size_t)least(BLOCK, n - start) * sizeof *src);
    return FB3_OK;
}

fb3_status CPU(count_nonfinite)(fb3_backend *be, int64_t *count, const void *x, fb3_dtype dtype, int64_t n)
{
    (void)be;
    assert(dtype == FB3_F32);
    (void)dtype;
    const float *value = x;
    int64_t found = 0;
#pragma omp parallel for schedule(static) reduction(+ : found)
    for (int64_t i = 0; i < n; i++) found += !isfinite(value[i]);
    *count += found;
    return FB3_OK;
}

fb3_status CPU(dropout_fwd)(fb3_backend *be, void *y, const void *x, const fb3_ragged *ragged, int C,
                            const fb3_dropout *drop)
{
    if (!dropout_on(drop)) return x == y ? FB3_OK : CPU(cast_to_act)(be, y, x, (int64_t)ragged->T * C);
    const float *in = x;
    float *out = y;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < ragged->T; t++)
        dropout_apply_row(out + (int64_t)t * C, in + (int64_t)t * C, C, drop, ragged, t);
    return FB3_OK;
}

fb3_status CPU(dropout_bwd_add)(fb3_backend *be, float *dx, const void *dy, const fb3_ragged *ragged, int C,
                                const fb3_dropout *drop)
{
    (void)be;
    const float *dout = dy;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < ragged->T; t++) {
        float *row = dx + (int64_t)t * C;
        for (int start = 0; start < C; start += DROPOUT_COLUMNS) {
            int columns = (int)least(DROPOUT_COLUMNS, C - start);
            float keep[DROPOUT_COLUMNS];
            if (dropout_on(drop))
                dropout_scales(keep, columns, drop, ragged->sample[ragged->token_seq[t]],
                               dropout_row(ragged, t, C) + (uint64_t)start);
            for (int c = start; c < start + columns; c += LANES) {
                vf d = vf_load(dout + (int64_t)t * C + c, start + columns - c);
                if (dropout_on(drop)) d *= vf_load(keep + c - start, start + columns - c);
                vf_store(row + c, vf_load(row + c, start + columns - c) + d, start + columns - c);
            }
        }
    }
    return FB3_OK;
}
