/* The tokenised data set: HDF5, ragged, never padded (INTERFACE 6).
 *
 *   /tokens uint16|uint32 [sum of lengths]   /offsets int64 [n+1]   /labels float32 [n, Y]   /ids UTF-8 [n]
 *   /vocabulary uint32 [active]: the token ids that occur, ascending
 *   /folds int8 [n]: only where the CSV has the fold_column
 *   /report/... : what was noticed in the source (fb3_dataset_report), kept for runs that reuse the file
 *   attributes: format, tokenizer_sha256, max_length, source_sha256, label_columns (one a line), options, complete
 *
 * n may be 10^7: nothing here holds a row in memory that was not asked for; offsets are shared per node. */
#ifndef FB3_DATASET_H
#define FB3_DATASET_H

#include "fb3/config.h"
#include "fb3/hash.h"
#include "fb3/node_memory.h"
#include "fb3/tokenizer.h"

#define FB3_MAX_TARGETS 64

/* What was noticed while reading a CSV; the caller turns it into one warning line each. */
typedef struct fb3_dataset_report {
    int64_t samples, truncated_samples, truncated_tokens, total_tokens; /* after truncation */
    int64_t duplicate_texts;                                            /* rows whose text occurred before */
    int longest;                                                        /* tokens before truncation */
    int64_t out_of_range[FB3_MAX_TARGETS];                              /* scores outside 1..5 per target */
    bool constant[FB3_MAX_TARGETS];                                     /* every score of the column is the same */
    bool reused;                                                        /* the file was there and up to date */
} fb3_dataset_report;

typedef struct fb3_dataset_options {
    const char *id_column, *text_column, *fold_column; /* fold_column NULL: none */
    const fb3_strings *label_columns;                  /* count 0: a test file without labels */
    int max_length;
    int64_t max_samples; /* FB3_UNSET_INT: all */
    /* Called every few thousand rows with the rows of this pass so far (two passes: check, tokenise); an error ends the
     * preparation. NULL: not called. */
    fb3_status (*progress)(void *context, const char *pass, int64_t rows);
    void *progress_context;
} fb3_dataset_options;

/* CSV files, one after the other -> tokens -> HDF5 at `h5_path`, atomically, by one rank; tokenises on all its threads,
 * and needs 16 bytes of memory a sample while it looks for duplicates. When the file is there
 * and its source, tokenizer and options are the same, nothing is written and report->reused is true. FB3_INPUT, with
 * row and column: no such column, a score that is not a finite number, a duplicate or empty id, invalid UTF-8, no
 * rows. An empty text is a sample of [CLS] [SEP]. `tokenizer` NULL: ids
 * and labels are all that is wanted (the `folds` verb), and every text is the single token 0. */
fb3_status fb3_dataset_prepare(const fb3_strings *csv_paths, const char *h5_path, const fb3_tokenizer *tokenizer,
                               const fb3_dataset_options *options, fb3_dataset_report *report);

/* One line per thing noticed, by fb3_log_warn / fb3_log_info. */
void fb3_dataset_report_log(const fb3_dataset_report *report, const fb3_dataset_options *options);

/* The sha256 that a data set carries for this tokenizer: 64 zeros for none. */
const char *fb3_dataset_tokenizer_sha256(const fb3_tokenizer *tokenizer);

typedef struct fb3_dataset {
    int64_t n;
    int targets; /* Y; 0 for a test set */
    int max_length;
    const int64_t *offsets; /* [n+1], node memory */
    uint32_t *vocabulary;   /* [active], ascending, owned; of all files */
    int active;
    fb3_strings label_columns;
    char tokenizer_sha256[FB3_SHA256_HEX], source_sha256[FB3_SHA256_HEX];
    bool has_folds;
    struct fb3_dataset_file *file; /* [files] HDF5 handles, private */
    int files;
} fb3_dataset;

/* Opens one file, or several whose samples are taken one after the other (with ids that differ between them, which
 * fb3_dataset_verify looks at). Collective over the node. Checks everything that later reads rely on: shapes, monotone
 * offsets, `complete`, one tokenizer and the same label columns in all files; token ids below the tokenizer's
 * vocabulary are the caller's check against /vocabulary. FB3_INPUT: not such a file.
 * `memory` NULL: local, and without the offsets: only ranges and the report can be read. */
fb3_status fb3_dataset_open_files(fb3_dataset **dataset, const fb3_strings *h5_paths, fb3_node_memory *memory);
fb3_status fb3_dataset_open(fb3_dataset **dataset, const char *h5_path, fb3_node_memory *memory);
void fb3_dataset_close(fb3_dataset *dataset);

static inline int fb3_dataset_length(const fb3_dataset *dataset, int64_t row)
{
    return (int)(dataset->offsets[row + 1] - dataset->offsets[row]);
}

/* Tokens of the longest sample. */
static inline int fb3_dataset_longest(const fb3_dataset *dataset)
{
    int longest = 0;
    for (int64_t row = 0; row < dataset->n; row++) {
        int length = fb3_dataset_length(dataset, row);
        if (length > longest) longest = length;
    }
    return longest;
}

/* Tokens of `count` rows, concatenated in the order of `rows`: tokens [sum of lengths] (caller sizes it by
 * fb3_dataset_length). Reads only these rows; neighbours are read together. */
fb3_status fb3_dataset_read_tokens(const fb3_dataset *dataset, const int64_t *rows, int64_t count, uint32_t *tokens);
/* labels [count, Y] of `rows`. */
fb3_status fb3_dataset_read_labels(const fb3_dataset *dataset, const int64_t *rows, int64_t count, float *labels);
/* ids of `rows`, malloc'ed strings: fb3_strings_free() them. */
fb3_status fb3_dataset_read_ids(const fb3_dataset *dataset, const int64_t *rows, int64_t count, fb3_strings *ids);
/* The same of rows first, first + 1, ... first + count - 1. */
fb3_status fb3_dataset_label_range(const fb3_dataset *dataset, int64_t first, int64_t count, float *labels);
fb3_status fb3_dataset_id_range(const fb3_dataset *dataset, int64_t first, int64_t count, fb3_strings *ids);
/* Tokens of each of these rows: lengths [count]. */
fb3_status fb3_dataset_length_range(const fb3_dataset *dataset, int64_t first, int64_t count, int *lengths);
/* Reads every token: all checksums hold and every id is in /vocabulary; and that ids differ between files, which takes
 * 8 bytes of memory a sample. FB3_INPUT when not. */
fb3_status fb3_dataset_verify(const fb3_dataset *dataset);
/* The fold column, int8 [n], into caller's memory. Only when has_folds. */
fb3_status fb3_dataset_read_folds(const fb3_dataset *dataset, int8_t *folds);
/* What was noticed in the source when the data set was made. */
fb3_status fb3_dataset_read_report(const fb3_dataset *dataset, fb3_dataset_report *report);

#endif
