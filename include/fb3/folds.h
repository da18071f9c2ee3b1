/* Which fold each sample belongs to: int8 fold[n], 0..k-1. */
#ifndef FB3_FOLDS_H
#define FB3_FOLDS_H

#include "fb3/dataset.h"

#define FB3_MAX_FOLDS 100

/* `MultilabelStratifiedKFold(n_splits=k, shuffle=True, random_state=seed)` of the PyPI package
 * iterative-stratification (Sechidis, Tsoumakas, Vlahavas 2011), bit for bit, numpy's MT19937 stream included.
 * labels [n, L] are 0 or 1. 2 <= k <= FB3_MAX_FOLDS, k <= n. seed is a uint32. */
fb3_status fb3_folds_iterstrat(int8_t *fold, const uint8_t *labels, int64_t n, int label_count, int k, uint32_t seed);

/* Scores [n, Y], read block by block. */
typedef struct fb3_score_source {
    int64_t n;
    int targets;
    fb3_status (*read)(const void *context, int64_t first, int64_t count, float *scores);
    const void *context;
} fb3_score_source;

/* What the notebook's recipe computes on scores: the labels are (score != 0), which on FB3 are all true. While it works
 * it needs 4 bytes a sample and a bit a label. */
fb3_status fb3_folds_compat(int8_t *fold, const fb3_score_source *scores, int k, uint32_t seed);

/* Really stratified: one label per (target, score level), levels rounded to half points, through the same algorithm. */
fb3_status fb3_folds_binned(int8_t *fold, const fb3_score_source *scores, int k, uint32_t seed);

/* Checks folds that were read (a fold column of the data set): 0..k-1 with k = largest + 1 >= 2, none empty. *k is
 * set. FB3_INPUT naming `where` they came from. */
fb3_status fb3_folds_count(const int8_t *fold, int64_t n, const char *where, int *k);

/* folds.csv (id, fold): every id of the data set exactly once, folds 0..k-1 (k = largest + 1), none empty. *k is set.
 */
fb3_status fb3_folds_read_csv(int8_t *fold, const char *path, const char *id_column, const fb3_dataset *dataset,
                              int *k);
/* Writes folds.csv atomically. */
fb3_status fb3_folds_write_csv(const int8_t *fold, const char *path, const char *id_column, const fb3_dataset *dataset);

#endif
