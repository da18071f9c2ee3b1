/* Comparisons, ragged batches, dropout and gradients on the host, for the references of the tests: see support.h. */
#include "support.h"
#include <math.h>
#include <stdlib.h>

const fb3_dropout no_dropout = {0};
const fb3_dropout some_dropout = {.p = 0.25f, .key = {0x12345678u, 0x9abcdef0u}, .step = 7, .site = 21};

/* --- comparisons -------------------------------------------------------------------------------------------------- */

void expect_close_columns(const char *what, const buffer *got, const double *want, int width, int first, int count,
                          double tolerance)
{
    double largest = 0.0, worst = 0.0;
    int64_t at = 0;
    if (got->is_act && act_type() == FB3_BF16) tolerance = fmax(tolerance, BF16_TOLERANCE);
    for (int64_t i = 0; i < got->n; i++) {
        int column = (int)(i % width);
        if (column < first || column >= first + count) continue;
        if (!isfinite(got->data[i]))
            fail_msg("%s[%lld] is %g (%s)", what, (long long)i, (double)got->data[i], backend_name());
        double error = fabs((double)got->data[i] - want[i]);
        largest = fmax(largest, fabs(want[i]));
        if (error > worst) {
            worst = error;
            at = i;
        }
    }
    if (worst > tolerance * largest)
        fail_msg("%s[%lld] is %.9g, not %.9g: off by %.3g of the largest value %.3g, allowed %.3g (%s)", what,
                 (long long)at, (double)got->data[at], want[at], worst / largest, largest, tolerance, backend_name());
}

void expect_close(const char *what, const buffer *got, const double *want, double tolerance)
{
    expect_close_columns(what, got, want, 1, 0, 1, tolerance);
}

/* --- ragged batches and dropout ----------------------------------------------------------------------------------- */

layout layout_make(const int *lengths, int B)
{
    layout l = {.ragged.B = B};
    for (int b = 0; b < B; b++) {
        l.ragged.T += lengths[b];
        if (lengths[b] > l.ragged.max_len) l.ragged.max_len = lengths[b];
    }
    l.arrays[0] = array_make(B + 1, sizeof *l.seq_start, NULL);
    l.arrays[1] = array_make(l.ragged.T, sizeof *l.token_seq, NULL);
    l.arrays[2] = array_make(B, sizeof *l.sample, NULL);
    l.seq_start = l.arrays[0].host;
    l.token_seq = l.arrays[1].host;
    l.sample = l.arrays[2].host;
    for (int b = 0; b < B; b++) {
        l.seq_start[b + 1] = l.seq_start[b] + lengths[b];
        l.sample[b] = 1000u + 17u * (uint32_t)b;
        for (int t = l.seq_start[b]; t < l.seq_start[b + 1]; t++) l.token_seq[t] = b;
    }
    return l;
}

const fb3_ragged *ragged_of(layout *l)
{
    l->ragged.seq_start = device(&l->arrays[0]);
    l->ragged.token_seq = device(&l->arrays[1]);
    l->ragged.sample = device(&l->arrays[2]);
    l->ragged.seq_start_host = l->seq_start;
    return &l->ragged;
}

void layout_free(layout *l)
{
    for (size_t i = 0; i < sizeof l->arrays / sizeof *l->arrays; i++) array_free(&l->arrays[i]);
}

double reference_keep(const fb3_dropout *drop, uint32_t sample, uint64_t e)
{
    if (!drop || drop->p <= 0.0f) return 1.0;
    fb3_philox block = fb3_philox4x32((uint32_t)(e >> 2), drop->site, sample, drop->step, drop->key.k0, drop->key.k1);
    return (double)block.word[e & 3] >= (double)drop->p * 4294967296.0 ? 1.0 / (1.0 - (double)drop->p) : 0.0;
}

double reference_keep_row(const fb3_dropout *drop, const layout *l, int t, int width, int c)
{
    int b = l->token_seq[t];
    return reference_keep(drop, l->sample[b], (uint64_t)(t - l->seq_start[b]) * (uint64_t)width + (uint64_t)c);
}

/* --- gradients of references -------------------------------------------------------------------------------------- */

static double weighted(reference_forward forward, void *context, double *y, const double *weights, int64_t y_count)
{
    forward(y, context);
    double sum = 0.0;
    for (int64_t i = 0; i < y_count; i++) sum += weights[i] * y[i];
    return sum;
}

void expect_gradient(const char *what, reference_forward forward, void *context, double *x, int64_t x_count,
                     const double *gradient, const double *weights, int64_t y_count)
{
    const double step = 1e-5, tolerance = 1e-7; /* error of the difference about step^2 and 1e-16 / step */
    double *y = zeros(y_count), largest = 0.0;
    for (int64_t i = 0; i < x_count; i++) largest = fmax(largest, fabs(gradient[i]));
    int64_t stride = x_count > 40 ? x_count / 40 : 1;
    for (int64_t i = 0; i < x_count; i += stride) {
        double saved = x[i];
        x[i] = saved + step;
        double above = weighted(forward, context, y, weights, y_count);
        x[i] = saved - step;
        double below = weighted(forward, context, y, weights, y_count);
        x[i] = saved;
        double slope = (above - below) / (2.0 * step);
        if (fabs(slope - gradient[i]) > tolerance * (largest + 1.0))
            fail_msg("reference gradient %s[%lld] is %.12g, differences say %.12g", what, (long long)i, gradient[i],
                     slope);
    }
    free(y);
}
