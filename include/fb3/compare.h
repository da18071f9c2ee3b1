/* Runs side by side, honestly: over the essays that all of them have predicted, with an interval that says how much of
 * a difference is chance. A run has one table of out-of-fold predictions, or one for each seed. */
#ifndef FB3_COMPARE_H
#define FB3_COMPARE_H

#include "fb3/oof.h"

/* Differences of MCRMSE that other seeds give as well. */
#define FB3_SEED_NOISE 0.002

typedef struct fb3_contender {
    fb3_oof *table; /* [tables], as they were read; the caller's */
    int tables;
    float **pred;                         /* [tables] of [n, Y]: of the common essays */
    double mcrmse, rmse[FB3_MAX_TARGETS]; /* means over the tables */
    double spread;                        /* standard deviation of the tables' MCRMSE; NaN of a single one */
} fb3_contender;

typedef struct fb3_comparison {
    int runs, targets;
    int64_t n;          /* essays that every table has */
    float *truth;       /* [n, Y] */
    fb3_contender *run; /* [runs] */
} fb3_comparison;

/* Finds the common essays and scores all runs on them. On entry `run`, `runs`, `targets` and each run's tables are
 * there. FB3_INPUT: no essay is common, or an essay has different scores in two tables. */
fb3_status fb3_comparison_make(fb3_comparison *comparison);
/* What fb3_comparison_make has allocated. */
void fb3_comparison_free(fb3_comparison *comparison);

typedef enum fb3_verdict { FB3_CANNOT_TELL, FB3_BETTER, FB3_WORSE } fb3_verdict;

typedef struct fb3_difference {
    double mcrmse;    /* of `run` less that of `baseline`; lower is better */
    double low, high; /* 95 % of paired resamples of the essays */
    double noise; /* what seeds alone may do: FB3_SEED_NOISE, or twice the standard error over the runs' own seeds */
    fb3_verdict verdict; /* better or worse only where the interval leaves out 0 and the difference exceeds the noise */
} fb3_difference;
/* Percentile bootstrap: `draws` times n essays with replacement, the same for both, by Philox(seed). */
fb3_status fb3_comparison_difference(fb3_difference *difference, const fb3_comparison *comparison, int baseline,
                                     int run, int draws, uint64_t seed);

#endif
