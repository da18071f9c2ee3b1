/* What a page is made of: a run as it was read from its files. read_run.c, read_log.c and read_tables.c fill it in,
 * sections_*.c draw it. Private to `report`. */
#ifndef FB3_REPORT_PRIVATE_H
#define FB3_REPORT_PRIVATE_H

#include "fb3/dataset.h"
#include "fb3/folds.h"
#include "fb3/report.h"
#include "series.h"

#include <jansson.h>

/* Curves of a fold, by optimizer step. */
enum { CURVE_LOSS, CURVE_RATE, CURVE_NORM, CURVE_SPEED, CURVE_COUNT };

typedef struct evaluation {
    int64_t step;
    double epoch, mcrmse, loss;
} evaluation;

/* Evaluations in order, every stride-th where there are more than fit; the best and the last one are kept beside. */
enum { EVALUATIONS_KEPT = 256 };
typedef struct evaluations {
    evaluation kept[EVALUATIONS_KEPT], best, last;
    int count;
    int64_t stride, seen;
    double seconds;
} evaluations;

typedef struct fold_log {
    bool begun, ended; /* has a log; has an "end" in it */
    series curve[CURVE_COUNT];
    evaluations evaluations;
    int64_t step, total_steps, logged_steps, skipped_steps, train_samples, eval_samples, parameters, active_vocabulary;
    int64_t checkpoints, unreadable_lines;
    int ranks, world_size;
    double epoch, logged_seconds /* of the logged steps, an estimate */, runtime /* NaN: not ended */, peak_memory_mb;
    char *device;
    json_t *versions, *memory; /* objects, or NULL */
} fold_log;

/* Scores of one target in one fold: what RMSE and mean predictor need. */
typedef struct target_sums {
    double n, truth, truth2, sse;
} target_sums;

/* Predictions by true score: a group per half point, each a histogram of the predictions. */
enum { BOX_GROUPS = 13, BOX_BINS = 512 };
typedef struct boxes {
    double truth_low, truth_step; /* group g is around truth_low + g * truth_step */
    int groups;
    double low, high; /* of the predictions' histogram; what lies outside is in the first or last bin */
    int64_t n[BOX_GROUPS];
    uint32_t (*bin)[BOX_BINS]; /* [groups] */
} boxes;

enum { LENGTH_BINS = 12, HISTOGRAM_BINS = 32, WORST_ESSAYS = 20 };

typedef struct essay {
    char *id;
    int fold, length; /* tokens; -1: not known */
    double error;     /* root of the mean squared error over the targets */
    float truth[FB3_MAX_TARGETS], pred[FB3_MAX_TARGETS];
} essay;

/* What the out-of-fold tables say. */
typedef struct tables {
    int targets;
    bool has[FB3_MAX_FOLDS];
    target_sums (*fold)[FB3_MAX_TARGETS];                           /* [folds] */
    double truth_low[FB3_MAX_TARGETS], truth_high[FB3_MAX_TARGETS]; /* ranges over all folds */
    double pred_low[FB3_MAX_TARGETS], pred_high[FB3_MAX_TARGETS];
    double pred_sum[FB3_MAX_TARGETS], pred_sum2[FB3_MAX_TARGETS], cross[FB3_MAX_TARGETS];
    boxes box[FB3_MAX_TARGETS];
    double residual[FB3_MAX_TARGETS], product[FB3_MAX_TARGETS][FB3_MAX_TARGETS];    /* sums */
    double rows;                                                                    /* of the second pass */
    double length_n[LENGTH_BINS + 1], length_sse[LENGTH_BINS + 1][FB3_MAX_TARGETS]; /* the last: of max_length */
    int64_t without_length;
    essay worst[WORST_ESSAYS]; /* descending */
    int worst_count;
} tables;

typedef struct data_facts {
    bool known;
    fb3_dataset_report report;
    int max_length;
    int64_t histogram[HISTOGRAM_BINS + 1]; /* essays by tokens; the last: of max_length */
    int64_t n;
    double tokens;
} data_facts;

typedef struct run_report {
    /* by the caller */
    int sharing; /* so many runs are drawn on one page, so each has fewer points */
    fb3_status (*pause)(void *context);
    void *context;
    /* from the files */
    char *directory, *name, *yaml;
    fb3_config config;
    int folds;
    bool selected[FB3_MAX_FOLDS];
    fold_log *log; /* [folds] */
    tables tables;
    data_facts data;
    json_t *summary; /* NULL: none */
    fb3_strings notes;
    char made_at[32];
} run_report;

fb3_status run_report_read(run_report *report, const char *directory);
void run_report_free(run_report *report);
/* To be called every few thousand rows. */
fb3_status run_report_pause(const run_report *report);
/* A sentence for the page's list of things to know. */
fb3_status run_report_note(run_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The text of the error that was just seen becomes a note; only a lack of memory stays an error. */
fb3_status run_report_tolerate(run_report *report, fb3_status status);

/* read_log.c: fold-<k>/metrics.jsonl, as far as it goes. */
fb3_status read_log(run_report *report, int fold);
void fold_log_free(fold_log *log);

/* read_tables.c: all fold-<k>/oof.csv. `data` NULL: lengths are not known. */
fb3_status read_tables(run_report *report, const fb3_dataset *data);
void tables_free(tables *t);

/* --- what sections ask a run -------------------------------------------------------------------------------------- */

double tables_essays(const tables *t, int folds);
/* RMSE of a target: of a fold, or pooled (fold -1). NaN: there is none. */
double tables_rmse(const tables *t, int folds, int fold, int target);
/* The mean over the targets. */
double tables_mcrmse(const tables *t, int folds, int fold);
/* Each fold predicted by the mean of the other folds' scores, or of its own where it is alone. */
double tables_mean_predictor(const tables *t, int folds, int target);
double tables_mean_predictor_mcrmse(const tables *t, int folds);
int run_report_folds_with_tables(const run_report *report);
/* Folds that are to be trained, and those of them that have come to their end. */
int run_report_folds_selected(const run_report *report);
int run_report_folds_ended(const run_report *report);
/* Upper edge of bin `bin` of `bins` over 1..max_length. */
int length_edge(int bin, int bins, int max_length);

#endif
