/* The rows of a source, which is one CSV or several one after the other, each field turned into what the data set keeps
 * of it. Private to `data`. */
#ifndef FB3_SOURCE_CSV_H
#define FB3_SOURCE_CSV_H

#include "fb3/csv.h"
#include "fb3/dataset.h"
#include "fb3/utf8.h"

typedef struct fb3_source {
    const fb3_strings *paths; /* borrowed, like the options */
    const fb3_dataset_options *options;
    int file;                                /* which of the paths is open */
    fb3_csv *csv;                            /* it */
    int id_column, text_column, fold_column; /* positions; fold_column -1: none */
    int label_column[FB3_MAX_TARGETS];
    int targets;
    int64_t limit; /* rows to read at most */
    int64_t rows;  /* rows read so far */
} fb3_source;

typedef struct fb3_source_row {
    const char *id, *text; /* of the CSV reader: valid until the next row */
    int64_t id_bytes, text_bytes;
    float score[FB3_MAX_TARGETS]; /* [Y], finite */
    int8_t fold;
} fb3_source_row;

/* FB3_INPUT: cannot be opened, a column is missing; of a later file when its turn comes. */
fb3_status fb3_source_open(fb3_source *source, const fb3_strings *paths, const fb3_dataset_options *options);
void fb3_source_close(fb3_source *source);

/* *more is false behind the last row (or the limit). FB3_INPUT with file, row, line and column. */
fb3_status fb3_source_next(fb3_source *source, fb3_source_row *row, bool *more);

/* A fold number, "2" or, as pandas writes it beside missing values, "2.0": 0..FB3_MAX_FOLDS-1. */
bool fb3_parse_fold(const char *text, int8_t *fold);

/* What the first pass over a source finds out before anything is written. */
typedef struct fb3_survey {
    int64_t rows;
    int64_t longest_id; /* bytes */
} fb3_survey;

/* Reads all rows: parses every field, refuses duplicate ids, fills in the parts of the report that need no tokens. */
fb3_status fb3_source_survey(const fb3_strings *paths, const fb3_dataset_options *options, fb3_survey *survey,
                             fb3_dataset_report *report);

#endif
