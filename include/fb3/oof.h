/* The out-of-fold table: a prediction for every sample by the fold model that has not seen it; and the tables made of
 * predictions (submission.csv).
 *
 * oof.csv: <id_column>, fold, the targets, pred_<target> for each. Written atomically. */
#ifndef FB3_OOF_H
#define FB3_OOF_H

#include "fb3/folds.h"
#include "fb3/metrics.h"
#include <stdio.h>

typedef struct fb3_oof_row {
    const char *id; /* borrowed; of a reader: valid until its next row */
    int fold;
    float truth[FB3_MAX_TARGETS], pred[FB3_MAX_TARGETS]; /* [Y] */
} fb3_oof_row;

/* A table that is being written, row after row; nothing is at its path before it is published. Starts from {0}. */
typedef struct fb3_oof_writer {
    FILE *file;
    char *path, *temporary;
    int targets;
} fb3_oof_writer;
fb3_status fb3_oof_begin(fb3_oof_writer *writer, const char *path, const char *id_column, const fb3_strings *targets);
void fb3_oof_add(fb3_oof_writer *writer, const char *id, int fold, const float *truth, const float *pred);
/* The table is whole and takes its place. FB3_FAILED: it could not be written, and what was there stays. */
fb3_status fb3_oof_publish(fb3_oof_writer *writer);
/* Forgets a table that was begun; does nothing where none was. */
void fb3_oof_discard(fb3_oof_writer *writer);

/* Reads a table row after row. FB3_INPUT when the columns are not those that the writer writes. */
typedef struct fb3_oof_reader fb3_oof_reader;
fb3_status fb3_oof_open(fb3_oof_reader **reader, const char *path, const char *id_column, const fb3_strings *targets);
fb3_status fb3_oof_next(fb3_oof_reader *reader, fb3_oof_row *row, bool *more);
void fb3_oof_close(fb3_oof_reader *reader);

/* A table in memory: for what needs its rows in any order. Starts from {.targets = Y}. */
typedef struct fb3_oof {
    int64_t n;
    int targets;
    fb3_strings ids;
    int8_t *fold;        /* [n] */
    float *truth, *pred; /* [n, Y] */
    int64_t capacity;    /* rows that fit */
} fb3_oof;
fb3_status fb3_oof_append(fb3_oof *oof, const fb3_oof_row *row);
/* Appends the rows of a file. */
fb3_status fb3_oof_read(fb3_oof *oof, const char *path, const char *id_column, const fb3_strings *targets);
void fb3_oof_free(fb3_oof *oof);

/* The rows of a table by id; borrows the ids. */
typedef struct fb3_oof_index {
    struct fb3_oof_entry *entry;
    int64_t n;
} fb3_oof_index;
fb3_status fb3_oof_index_make(fb3_oof_index *index, const fb3_oof *oof);
/* -1: the table has no such id. */
int64_t fb3_oof_index_find(const fb3_oof_index *index, const char *id);
void fb3_oof_index_free(fb3_oof_index *index);

/* The mean predictor: each fold is predicted by the mean of the other folds' scores (of all rows where there is no
 * other). First all rows are counted, then it predicts. Starts from {.targets = Y}. */
typedef struct fb3_mean_predictor {
    int targets;
    int64_t count[FB3_MAX_FOLDS], n;
    double sum[FB3_MAX_FOLDS][FB3_MAX_TARGETS], total[FB3_MAX_TARGETS];
} fb3_mean_predictor;
void fb3_mean_predictor_count(fb3_mean_predictor *predictor, int fold, const float *truth);
/* pred [Y] for a sample of that fold; of a fold that was not counted: by all. */
void fb3_mean_predictor_predict(const fb3_mean_predictor *predictor, int fold, float *pred);

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
