/* Resamples of the rows of a table. Private to `eval`. */
#ifndef FB3_EVAL_RESAMPLE_H
#define FB3_EVAL_RESAMPLE_H

#include "fb3/rng.h"
#include <stdint.h>

/* rows[n], drawn from 0..n-1 with replacement: a pure function of (key, draw). */
void fb3_resample(int64_t *rows, int64_t n, uint32_t draw, fb3_rng_key key);
/* The MCRMSE of truth, pred [n, Y] on a resample. */
double fb3_resampled_mcrmse(const float *truth, const float *pred, const int64_t *rows, int64_t n, int targets);
/* Where the middle 95 % of values[count] begin and end; sorts them. */
void fb3_percentiles(double *values, int count, double *low, double *high);

#endif
