/* Scores: RMSE per target, MCRMSE (their mean), Pearson r, bootstrap intervals. Sums in double, in row order. */
#ifndef FB3_METRICS_H
#define FB3_METRICS_H

#include "fb3/backend.h"
#include "fb3/dataset.h"

typedef struct fb3_scores {
    int targets;
    int64_t samples;
    double mcrmse, rmse[FB3_MAX_TARGETS];
    double loss; /* the training loss over the same rows; NaN where it does not apply */
} fb3_scores;

/* truth, pred [n, Y]. n = 0 gives NaN. */
void fb3_scores_compute(fb3_scores *scores, const float *truth, const float *pred, int64_t n, int targets);

/* The training loss of a whole table, as loss_type defines it (DESIGN 4). */
double fb3_table_loss(const float *truth, const float *pred, int64_t n, int targets, fb3_loss_kind kind, double beta);

/* Pearson's r per target and the mean over targets; NaN where a column is constant. */
void fb3_pearson(double *r, double *mean, const float *truth, const float *pred, int64_t n, int targets);

/* Percentile bootstrap over samples of the MCRMSE: 95 % interval from `draws` resamples, by Philox(seed). */
fb3_status fb3_bootstrap_mcrmse(double *low, double *high, const float *truth, const float *pred, int64_t n,
                                int targets, int draws, uint64_t seed);

/* "COHESION_RMSE" from "cohesion". */
void fb3_metric_name(char *name, size_t bytes, const char *target);

#endif
