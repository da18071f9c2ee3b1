/* The parts of a page about one run, in their order. Each says in a sentence what it has not got. Private to `report`.
 */
#ifndef FB3_REPORT_SECTIONS_H
#define FB3_REPORT_SECTIONS_H

#include "report.h"
#include "svg.h"

/* sections_run.c */
void section_head(page *p, const run_report *r);
void section_configuration(page *p, const run_report *r);
/* sections_time.c */
void section_time(page *p, const run_report *r);
/* sections_scores.c */
void section_scores(page *p, const run_report *r);
/* sections_training.c */
void section_training(page *p, const run_report *r);
/* sections_essays.c */
void section_predictions(page *p, const run_report *r);
/* sections_data.c */
void section_lengths(page *p, const run_report *r);

/* --- shared with the comparison of runs --------------------------------------------------------------------------- */

/* Lines to draw together. */
typedef struct line_of {
    const fold_log *log;
    int index; /* of its colour */
    char name[64];
} line_of;
/* MCRMSE by epoch and the curves by step. `mean_predictor` NaN: not drawn. */
void draw_training(page *p, const line_of *line, int lines, double mean_predictor);

/* Where a fold's time went, in seconds (sections_time.c). NaN: not known. */
typedef struct fold_time {
    double steps, evaluation, rest;
} fold_time;
fold_time run_fold_time(const fold_log *log);

/* The throughput of a run as its folds' logs tell it: samples per second of a step, without evaluation. NaN: none. */
double run_samples_per_second(const run_report *r);
double run_peak_memory_mb(const run_report *r);

#endif
