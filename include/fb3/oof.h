/* The out-of-fold table: a prediction for every sample by the fold model that has not seen it; and the tables made of
 * predictions (submission.csv).
 *
 * oof.csv: <id_column>, fold, the targets, pred_<target> for each. Written atomically. */
#ifndef FB3_OOF_H
#define FB3_OOF_H

#include "fb3/metrics.h"

typedef struct fb3_oof {
    int64_t n;
    int targets;
    fb3_strings ids;
    int8_t *fold;        /* [n] */
    float *truth, *pred; /* [n, Y] */
} fb3_oof;

fb3_status fb3_oof_alloc(fb3_oof *oof, int64_t n, int targets);
void fb3_oof_free(fb3_oof *oof);

fb3_status fb3_oof_write(const fb3_oof *oof, const char *path, const char *id_column, const fb3_strings *targets);
/* FB3_INPUT when the columns are not those of fb3_oof_write. */
fb3_status fb3_oof_read(fb3_oof *oof, const char *path, const char *id_column, const fb3_strings *targets);
/* Appends other's rows. */
fb3_status fb3_oof_append(fb3_oof *oof, const fb3_oof *other);

/* The mean predictor: each fold is predicted by the mean of the other folds' scores (of all rows with one fold). */
fb3_status fb3_oof_mean_predictor(fb3_scores *scores, const fb3_oof *oof, int folds);

/* submission.csv: id, predictions [n, Y]; `clip` low < high or NaNs. Written atomically. */
fb3_status fb3_submission_write(const char *path, const char *id_column, const fb3_strings *targets,
                                const fb3_strings *ids, const float *pred, double clip_low, double clip_high);
/* Checks ids, their order and the columns against Kaggle's sample_submission.csv: FB3_INPUT naming the first
 * difference. */
fb3_status fb3_submission_check(const char *sample_path, const char *id_column, const fb3_strings *targets,
                                const fb3_strings *ids);

/* sum[i] += pred[i], and the mean at the end: the average of fold models, in fold order, in double. */
void fb3_ensemble_add(double *sum, const float *pred, int64_t count);
void fb3_ensemble_mean(float *mean, const double *sum, int64_t count, int models);

#endif
