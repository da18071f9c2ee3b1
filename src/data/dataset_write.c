/* Tokenising a CSV into a data set, a block of rows at a time: the rows of a block are read in order, tokenised by all
 * threads, and written in order, so memory is one block and the file does not depend on the number of threads. */
#include "dataset_file.h"
#include "source_csv.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_ROWS = 512,
    BLOCK_TEXT_BYTES = 8 << 20, /* a block is full at this many bytes, whatever its rows */
    CHUNK_BYTES = 64 << 10,     /* reading one essay reads and checks one chunk or two */
    ROWS_PER_TASK = 4,
};

typedef struct block {
    int rows;
    char *text; /* the rows' texts, concatenated */
    int64_t text_capacity;
    int64_t text_start[BLOCK_ROWS + 1];
    uint32_t *row_ids[BLOCK_ROWS]; /* each row's token ids, as the tokenizer grows them */
    int64_t row_capacity[BLOCK_ROWS];
    int length[BLOCK_ROWS], untruncated[BLOCK_ROWS];
    float *labels; // [BLOCK_ROWS, Y]
    char *ids;     // [BLOCK_ROWS, id_bytes], padded with zeros
    int8_t fold[BLOCK_ROWS];
    int file[BLOCK_ROWS]; /* where each row stands, for messages */
    int64_t record[BLOCK_ROWS];
    int64_t end[BLOCK_ROWS]; /* where each row's tokens end in the file */
    uint32_t *tokens;        /* the rows' tokens, concatenated */
    int64_t tokens_capacity;
} block;

typedef struct writer {
    const fb3_strings *csv_paths;
    const fb3_tokenizer *tokenizer;
    const fb3_dataset_options *options;
    const fb3_dataset_header *header;
    fb3_dataset_report *report;
    hid_t file, id_type, tokens, offsets, labels, ids, folds;
    fb3_source source;
    bool *occurs; // [vocabulary]
    int vocabulary;
    int64_t rows, tokens_count; /* written so far */
    block block;
} writer;

static fb3_status reserve(void **memory, int64_t *capacity, int64_t needed, size_t width)
{
    if (needed <= *capacity) return FB3_OK;
    int64_t grown_capacity = needed + needed / 2;
    void *grown = reallocarray(*memory, (size_t)grown_capacity, width);
    FB3_REQUIRE(grown, FB3_FAILED, "out of memory for %lld bytes of a block of essays",
                (long long)grown_capacity * (long long)width);
    *memory = grown;
    *capacity = grown_capacity;
    return FB3_OK;
}

static fb3_status create_columns(writer *w)
{
    hsize_t n = (hsize_t)w->header->rows, none = 0, any = H5S_UNLIMITED;
    hsize_t list[1] = {n}, offsets[1] = {n + 1}, table[2] = {n, (hsize_t)w->options->label_columns->count};
    hid_t token_type = w->vocabulary <= UINT16_MAX + 1 ? H5T_STD_U16LE : H5T_STD_U32LE;
    FB3_H5(w->id_type = fb3_dataset_id_type((size_t)w->header->longest_id), FB3_FAILED, "cannot make the type of /ids");
    FB3_TRY(fb3_h5_create_dataset(&w->tokens, w->file, "tokens", token_type, 1, &none, &any, CHUNK_BYTES));
    FB3_TRY(fb3_h5_create_dataset(&w->offsets, w->file, "offsets", H5T_STD_I64LE, 1, offsets, NULL, CHUNK_BYTES));
    FB3_TRY(fb3_h5_create_dataset(&w->labels, w->file, "labels", H5T_IEEE_F32LE, 2, table, NULL, CHUNK_BYTES));
    FB3_TRY(fb3_h5_create_dataset(&w->ids, w->file, "ids", w->id_type, 1, list, NULL, CHUNK_BYTES));
    if (w->options->fold_column)
        FB3_TRY(fb3_h5_create_dataset(&w->folds, w->file, "folds", H5T_STD_I8LE, 1, list, NULL, CHUNK_BYTES));
    const int64_t zero = 0;
    return fb3_h5_write_rows(w->offsets, H5T_NATIVE_INT64, 0, 1, &zero);
}

static fb3_status allocate(writer *w)
{
    int targets = w->options->label_columns->count;
    w->vocabulary = w->tokenizer ? fb3_tokenizer_vocabulary(w->tokenizer) : 1;
    w->occurs = calloc((size_t)w->vocabulary, sizeof *w->occurs);
    w->block.labels = calloc((size_t)BLOCK_ROWS * (size_t)(targets > 0 ? targets : 1), sizeof *w->block.labels);
    w->block.ids = calloc(BLOCK_ROWS, (size_t)w->header->longest_id);
    FB3_REQUIRE(w->occurs && w->block.labels && w->block.ids, FB3_FAILED, "out of memory for a block of essays");
    return FB3_OK;
}

static void free_writer(writer *w)
{
    if (w->id_type >= 0) (void)H5Tclose(w->id_type);
    if (w->source.csv) fb3_source_close(&w->source);
    for (int i = 0; i < BLOCK_ROWS; i++) free(w->block.row_ids[i]);
    free(w->block.text);
    free(w->block.labels);
    free(w->block.ids);
    free(w->block.tokens);
    free(w->occurs);
    free(w);
}

static fb3_status keep_row(writer *w, const fb3_source_row *row)
{
    block *b = &w->block;
    int targets = w->source.targets;
    int64_t start = b->text_start[b->rows];
    FB3_REQUIRE(w->rows + b->rows < w->header->rows && row->id_bytes <= w->header->longest_id, FB3_FAILED,
                "%s was changed while it was being read; run again", w->csv_paths->item[w->source.file]);
    FB3_TRY(reserve((void **)&b->text, &b->text_capacity, start + row->text_bytes + 1, 1)); /* 1: never NULL */
    memcpy(b->text + start, row->text, (size_t)row->text_bytes);
    b->text_start[b->rows + 1] = start + row->text_bytes;
    memcpy(b->labels + (size_t)b->rows * (size_t)targets, row->score, (size_t)targets * sizeof *row->score);
    char *id = b->ids + (size_t)b->rows * (size_t)w->header->longest_id;
    memset(id, 0, (size_t)w->header->longest_id);
    memcpy(id, row->id, (size_t)row->id_bytes);
    b->fold[b->rows] = row->fold;
    b->file[b->rows] = w->source.file;
    b->record[b->rows] = fb3_csv_record(w->source.csv);
    b->rows++;
    return FB3_OK;
}

static fb3_status read_block(writer *w)
{
    block *b = &w->block;
    bool more = true;
    b->rows = 0;
    b->text_start[0] = 0;
    while (more && b->rows < BLOCK_ROWS && b->text_start[b->rows] < BLOCK_TEXT_BYTES) {
        fb3_source_row row;
        FB3_TRY(fb3_source_next(&w->source, &row, &more));
        if (more) FB3_TRY(keep_row(w, &row));
    }
    return FB3_OK;
}

/* The text of an error is its thread's own, so the first row's is carried to the calling thread. */
typedef struct failure {
    int row;
    fb3_status status;
    char *text;
} failure;

static void keep_failure(failure *first, int row, fb3_status status)
{
    if (row >= first->row) return;
    free(first->text);
    *first = (failure){row, status, strdup(fb3_error_text())};
}

/* Without a tokenizer a text is the single token 0. */
static fb3_status no_tokens(block *b, int row)
{
    if (!b->row_ids[row]) b->row_ids[row] = malloc(sizeof *b->row_ids[row]);
    FB3_REQUIRE(b->row_ids[row], FB3_FAILED, "out of memory for a token");
    b->row_capacity[row] = b->length[row] = b->untruncated[row] = 1;
    b->row_ids[row][0] = 0;
    return FB3_OK;
}

static fb3_status tokenise_row(const writer *w, block *b, int row)
{
    if (!w->tokenizer) return no_tokens(b, row);
    return fb3_tokenizer_encode(w->tokenizer, b->text + b->text_start[row], b->text_start[row + 1] - b->text_start[row],
                                w->options->max_length, &b->row_ids[row], &b->row_capacity[row], &b->length[row],
                                &b->untruncated[row]);
}

static fb3_status tokenise_block(writer *w)
{
    block *b = &w->block;
    failure first = {.row = INT_MAX, .status = FB3_OK};
#pragma omp parallel for schedule(dynamic, ROWS_PER_TASK)
    for (int i = 0; i < b->rows; i++) {
        fb3_status status = tokenise_row(w, b, i);
        if (status != FB3_OK) {
#pragma omp critical
            keep_failure(&first, i, status);
        }
    }
    if (first.status == FB3_OK) return FB3_OK;
    fb3_status status = fb3_fail(first.status, "%s, row %lld: %s", w->csv_paths->item[b->file[first.row]],
                                 (long long)b->record[first.row], first.text ? first.text : "cannot be tokenised");
    free(first.text);
    return status;
}

static void count_row(fb3_dataset_report *report, int length, int untruncated)
{
    report->total_tokens += length;
    if (untruncated > report->longest) report->longest = untruncated;
    if (untruncated <= length) return;
    report->truncated_samples++;
    report->truncated_tokens += untruncated - length;
}

/* The rows' tokens one after the other, and where each row ends. */
static fb3_status gather_tokens(writer *w, int64_t *count)
{
    block *b = &w->block;
    *count = 0;
    for (int i = 0; i < b->rows; i++) *count += b->length[i];
    FB3_TRY(reserve((void **)&b->tokens, &b->tokens_capacity, *count, sizeof *b->tokens));
    int64_t at = 0;
    for (int i = 0; i < b->rows; i++) {
        for (int t = 0; t < b->length[i]; t++) {
            uint32_t id = b->row_ids[i][t];
            assert(id < (uint32_t)w->vocabulary);
            w->occurs[id] = true;
            b->tokens[at++] = id;
        }
        b->end[i] = w->tokens_count + at;
        count_row(w->report, b->length[i], b->untruncated[i]);
    }
    return FB3_OK;
}

static fb3_status write_block(writer *w)
{
    const block *b = &w->block;
    hsize_t first = (hsize_t)w->rows, rows = (hsize_t)b->rows;
    int64_t count;
    FB3_TRY(gather_tokens(w, &count));
    FB3_TRY(fb3_h5_write_rows(w->tokens, H5T_NATIVE_UINT32, (hsize_t)w->tokens_count, (hsize_t)count, b->tokens));
    FB3_TRY(fb3_h5_write_rows(w->offsets, H5T_NATIVE_INT64, first + 1, rows, b->end));
    if (w->source.targets > 0) FB3_TRY(fb3_h5_write_rows(w->labels, H5T_NATIVE_FLOAT, first, rows, b->labels));
    FB3_TRY(fb3_h5_write_rows(w->ids, w->id_type, first, rows, b->ids));
    if (w->options->fold_column) FB3_TRY(fb3_h5_write_rows(w->folds, H5T_NATIVE_INT8, first, rows, b->fold));
    w->rows += b->rows;
    w->tokens_count += count;
    return FB3_OK;
}

static fb3_status write_vocabulary(const writer *w)
{
    hsize_t active = 0;
    for (int id = 0; id < w->vocabulary; id++) active += w->occurs[id];
    uint32_t *ids = malloc((size_t)active * sizeof *ids);
    FB3_REQUIRE(ids, FB3_FAILED, "out of memory for the vocabulary");
    for (int id = 0, at = 0; id < w->vocabulary; id++) {
        if (w->occurs[id]) ids[at++] = (uint32_t)id;
    }
    fb3_status status = fb3_h5_write(w->file, "vocabulary", H5T_NATIVE_UINT32, 1, &active, ids);
    free(ids);
    return status;
}

static fb3_status write_attributes(const writer *w)
{
    char *columns = fb3_dataset_join_columns(w->options->label_columns);
    FB3_REQUIRE(columns, FB3_FAILED, "out of memory for column names");
    fb3_status status = fb3_h5_set_text(w->file, "label_columns", columns);
    free(columns);
    FB3_TRY(status);
    FB3_TRY(fb3_h5_set_text(w->file, "format", FB3_DATASET_FORMAT));
    FB3_TRY(fb3_h5_set_text(w->file, "tokenizer_sha256", fb3_dataset_tokenizer_sha256(w->tokenizer)));
    FB3_TRY(fb3_h5_set_text(w->file, "source_sha256", w->header->source_sha256));
    FB3_TRY(fb3_h5_set_text(w->file, "options", w->header->options_text));
    FB3_TRY(fb3_h5_set_int(w->file, "max_length", w->options->max_length));
    FB3_TRY(fb3_dataset_report_write(w->file, w->report, w->source.targets));
    return fb3_h5_set_int(w->file, "complete", 1); /* the last thing written */
}

static fb3_status write_content(writer *w)
{
    FB3_TRY(allocate(w));
    FB3_TRY(create_columns(w));
    FB3_TRY(fb3_source_open(&w->source, w->csv_paths, w->options));
    for (;;) {
        FB3_TRY(read_block(w));
        if (w->block.rows == 0) break;
        FB3_TRY(tokenise_block(w));
        FB3_TRY(write_block(w));
        if (w->options->progress) {
            FB3_TRY(w->options->progress(w->options->progress_context, "tokenised", w->rows));
        }
    }
    FB3_REQUIRE(w->rows == w->header->rows, FB3_FAILED, "%s was changed while it was being read; run again",
                w->csv_paths->item[w->source.file]);
    FB3_TRY(write_vocabulary(w));
    return write_attributes(w);
}

fb3_status fb3_dataset_write(const char *path, const fb3_strings *csv_paths, const fb3_tokenizer *tokenizer,
                             const fb3_dataset_options *options, const fb3_dataset_header *header,
                             fb3_dataset_report *report)
{
    writer *w = calloc(1, sizeof *w);
    FB3_REQUIRE(w, FB3_FAILED, "out of memory for writing a data set");
    *w = (writer){
        .csv_paths = csv_paths, .tokenizer = tokenizer, .options = options, .header = header, .report = report};
    w->id_type = H5I_INVALID_HID;
    fb3_status status = fb3_h5_create(&w->file, path);
    if (status == FB3_OK) {
        status = write_content(w);
        if (status != FB3_OK) {
            /* Closing replaces nothing: the first failure is the one to tell. */
            (void)H5Fclose(w->file);
        } else {
            status = fb3_h5_close(w->file, path);
        }
    }
    free_writer(w);
    return status;
}
