/* The bootstrap over samples, and the interval of one table's score. */
#include "resample.h"

#include "fb3/metrics.h"

#include <math.h>
#include <stdlib.h>

void fb3_resample(int64_t *rows, int64_t n, uint32_t draw, fb3_rng_key key)
{
    for (int64_t i = 0; i < n; i++) {
        fb3_philox word = fb3_philox4x32((uint32_t)i, (uint32_t)(i >> 32), draw, FB3_STREAM_ORDER, key.k0, key.k1);
        uint64_t bits = ((uint64_t)word.word[0] << 32) | word.word[1];
        rows[i] = (int64_t)(((unsigned __int128)bits * (uint64_t)n) >> 64);
    }
}

double fb3_resampled_mcrmse(const float *truth, const float *pred, const int64_t *rows, int64_t n, int targets)
{
    double squared[FB3_MAX_TARGETS] = {0}, mcrmse = 0;
    for (int64_t i = 0; i < n; i++) {
        const float *t = truth + rows[i] * targets, *p = pred + rows[i] * targets;
        for (int y = 0; y < targets; y++) squared[y] += ((double)p[y] - t[y]) * ((double)p[y] - t[y]);
    }
    for (int y = 0; y < targets; y++) mcrmse += sqrt(squared[y] / (double)n) / targets;
    return mcrmse;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void fb3_percentiles(double *values, int count, double *low, double *high)
{
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    *low = values[(int)(0.025 * (count - 1) + 0.5)];
    *high = values[(int)(0.975 * (count - 1) + 0.5)];
}

fb3_status fb3_bootstrap_mcrmse(double *low, double *high, const float *truth, const float *pred, int64_t n,
                                int targets, int draws, uint64_t seed)
{
    fb3_status status = FB3_OK;
    double *value = malloc((size_t)draws * sizeof *value);
    int64_t *rows = malloc((size_t)(n > 0 ? n : 1) * sizeof *rows);
    FB3_REQUIRE_GOTO(value && rows, done, FB3_FAILED, "out of memory for %d bootstrap draws", draws);
    const fb3_rng_key key = fb3_rng_key_make(seed, -1);
    for (int d = 0; d < draws; d++) {
        fb3_resample(rows, n, (uint32_t)d, key);
        value[d] = fb3_resampled_mcrmse(truth, pred, rows, n, targets);
    }
    fb3_percentiles(value, draws, low, high);
done:
    free(value);
    free(rows);
    return status;
}
