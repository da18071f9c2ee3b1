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

/* What scores are made of, so that a table of any length can be scored block by block. The caller sets the first three
 * fields. */
typedef struct fb3_score_sums {
    int targets;
    fb3_loss_kind loss_type;
    double smooth_l1_beta;
    int64_t samples;
    double squared[FB3_MAX_TARGETS]; /* of the errors */
    double loss;                     /* of the elements; 0 for mcrmse, which is no sum over them */
} fb3_score_sums;
/* truth, pred [n, Y]. The same sums however the rows are divided into blocks. */
void fb3_score_sums_add(fb3_score_sums *sums, const float *truth, const float *pred, int64_t n);
/* The scores, and the training loss of the whole table as loss_type defines it (DESIGN 4). Without rows they are NaN.
 */
void fb3_scores_of(fb3_scores *scores, const fb3_score_sums *sums);

/* The scores of a whole table without its loss. truth, pred [n, Y]. */
void fb3_scores_compute(fb3_scores *scores, const float *truth, const float *pred, int64_t n, int targets);

/* Pearson's r per target and the mean over targets; NaN where a column is constant. */
void fb3_pearson(double *r, double *mean, const float *truth, const float *pred, int64_t n, int targets);

/* Percentile bootstrap over samples of the MCRMSE: 95 % interval from `draws` resamples, by Philox(seed). */
fb3_status fb3_bootstrap_mcrmse(double *low, double *high, const float *truth, const float *pred, int64_t n,
                                int targets, int draws, uint64_t seed);

/* "COHESION_RMSE" from "cohesion". */
void fb3_metric_name(char *name, size_t bytes, const char *target);

#endif
