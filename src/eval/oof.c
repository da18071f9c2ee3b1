/* The tables of predictions: oof.csv and submission.csv, written atomically, read back with every cell checked. */
#include "fb3/oof.h"
#include "fb3/csv.h"
#include "fb3/file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- writing ------------------------------------------------------------------------------------------------------ */

static fb3_status begin(fb3_oof_writer *writer, const char *path)
{
    *writer = (fb3_oof_writer){.path = strdup(path), .temporary = fb3_file_temporary(path)};
    fb3_status status = FB3_OK;
    FB3_REQUIRE_GOTO(writer->path && writer->temporary, failed, FB3_FAILED, "out of memory");
    writer->file = fopen(writer->temporary, "w");
    FB3_REQUIRE_GOTO(writer->file, failed, FB3_FAILED, "cannot write %s: %s", writer->temporary, strerror(errno));
    return FB3_OK;
failed:
    fb3_oof_discard(writer);
    return status;
}

void fb3_oof_discard(fb3_oof_writer *writer)
{
    if (writer->file) {
        (void)fclose(writer->file);
        (void)remove(writer->temporary);
    }
    free(writer->path);
    free(writer->temporary);
    *writer = (fb3_oof_writer){0};
}

fb3_status fb3_oof_publish(fb3_oof_writer *writer)
{
    bool written = !ferror(writer->file);
    if (fclose(writer->file) != 0) written = false;
    writer->file = NULL;
    fb3_status status = written ? fb3_file_publish(writer->temporary, writer->path)
                                : fb3_fail(FB3_FAILED, "cannot write %s: %s", writer->path, strerror(errno));
    if (!written) (void)remove(writer->temporary);
    fb3_oof_discard(writer);
    return status;
}

static void write_names(FILE *file, const char *before, const fb3_strings *targets)
{
    for (int y = 0; y < targets->count; y++) {
        fputc(',', file);
        char *name = fb3_format("%s%s", before, targets->item[y]);
        fb3_csv_write_field(file, name ? name : targets->item[y]);
        free(name);
    }
}

static void write_values(FILE *file, const float *value, int count)
{
    for (int y = 0; y < count; y++) fprintf(file, ",%.9g", (double)value[y]);
}

fb3_status fb3_oof_begin(fb3_oof_writer *writer, const char *path, const char *id_column, const fb3_strings *targets)
{
    FB3_TRY(begin(writer, path));
    writer->targets = targets->count;
    fb3_csv_write_field(writer->file, id_column);
    fputs(",fold", writer->file);
    write_names(writer->file, "", targets);
    write_names(writer->file, "pred_", targets);
    fputc('\n', writer->file);
    return FB3_OK;
}

void fb3_oof_add(fb3_oof_writer *writer, const char *id, int fold, const float *truth, const float *pred)
{
    fb3_csv_write_field(writer->file, id);
    fprintf(writer->file, ",%d", fold);
    write_values(writer->file, truth, writer->targets);
    write_values(writer->file, pred, writer->targets);
    fputc('\n', writer->file); /* an error is seen when the table is published */
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

struct fb3_oof_reader {
    fb3_csv *csv;
    int targets, id, fold, truth[FB3_MAX_TARGETS], pred[FB3_MAX_TARGETS]; /* columns */
};

static fb3_status find_columns(fb3_oof_reader *reader, const char *id_column, const fb3_strings *targets)
{
    const fb3_csv *csv = reader->csv;
    FB3_TRY(fb3_csv_need_column(csv, id_column, &reader->id));
    FB3_TRY(fb3_csv_need_column(csv, "fold", &reader->fold));
    for (int y = 0; y < targets->count; y++) {
        FB3_TRY(fb3_csv_need_column(csv, targets->item[y], &reader->truth[y]));
        char *name = fb3_format("pred_%s", targets->item[y]);
        FB3_REQUIRE(name, FB3_FAILED, "out of memory");
        fb3_status status = fb3_csv_need_column(csv, name, &reader->pred[y]);
        free(name);
        FB3_TRY(status);
    }
    return FB3_OK;
}

fb3_status fb3_oof_open(fb3_oof_reader **reader, const char *path, const char *id_column, const fb3_strings *targets)
{
    *reader = NULL;
    fb3_status status = FB3_OK;
    fb3_oof_reader *opened = calloc(1, sizeof *opened);
    FB3_REQUIRE(opened, FB3_FAILED, "out of memory");
    opened->targets = targets->count;
    FB3_TRY_GOTO(fb3_csv_open(&opened->csv, path), failed);
    FB3_TRY_GOTO(find_columns(opened, id_column, targets), failed);
    *reader = opened;
    return FB3_OK;
failed:
    fb3_oof_close(opened);
    return status;
}

void fb3_oof_close(fb3_oof_reader *reader)
{
    if (!reader) return;
    fb3_csv_close(reader->csv);
    free(reader);
}

fb3_status fb3_oof_next(fb3_oof_reader *reader, fb3_oof_row *row, bool *more)
{
    const fb3_csv *csv = reader->csv;
    float fold;
    int64_t bytes;
    FB3_TRY(fb3_csv_next(reader->csv, more));
    if (!*more) return FB3_OK;
    FB3_TRY(fb3_csv_number(csv, reader->fold, &fold));
    FB3_REQUIRE(fold >= 0 && fold < FB3_MAX_FOLDS && fold == floorf(fold), FB3_INPUT,
                "%s: record %lld: fold %g is not a fold number", fb3_csv_path(csv), (long long)fb3_csv_record(csv),
                (double)fold);
    row->fold = (int)fold;
    for (int y = 0; y < reader->targets; y++) {
        FB3_TRY(fb3_csv_number(csv, reader->truth[y], &row->truth[y]));
        FB3_TRY(fb3_csv_number(csv, reader->pred[y], &row->pred[y]));
    }
    row->id = fb3_csv_field(csv, reader->id, &bytes);
    return FB3_OK;
}

/* --- in memory ---------------------------------------------------------------------------------------------------- */

void fb3_oof_free(fb3_oof *oof)
{
    fb3_strings_free(&oof->ids);
    free(oof->fold);
    free(oof->truth);
    free(oof->pred);
    *oof = (fb3_oof){0};
}

/* Room for `rows` rows. */
static fb3_status resize(fb3_oof *oof, int64_t rows)
{
    size_t cells = (size_t)rows * (size_t)oof->targets;
    int8_t *fold = realloc(oof->fold, (size_t)rows * sizeof *fold);
    if (fold) oof->fold = fold;
    float *truth = realloc(oof->truth, cells * sizeof *truth);
    if (truth) oof->truth = truth;
    float *pred = realloc(oof->pred, cells * sizeof *pred);
    if (pred) oof->pred = pred;
    FB3_REQUIRE(fold && truth && pred, FB3_FAILED, "out of memory for a table of %lld predictions", (long long)rows);
    oof->capacity = rows;
    return FB3_OK;
}

fb3_status fb3_oof_append(fb3_oof *oof, const fb3_oof_row *row)
{
    const size_t width = (size_t)oof->targets, at = (size_t)oof->n * width;
    if (oof->n == oof->capacity) FB3_TRY(resize(oof, oof->capacity ? 2 * oof->capacity : 256));
    FB3_TRY(fb3_strings_add(&oof->ids, row->id));
    oof->fold[oof->n++] = (int8_t)row->fold;
    memcpy(oof->truth + at, row->truth, width * sizeof *oof->truth);
    memcpy(oof->pred + at, row->pred, width * sizeof *oof->pred);
    return FB3_OK;
}

fb3_status fb3_oof_read(fb3_oof *oof, const char *path, const char *id_column, const fb3_strings *targets)
{
    fb3_oof_reader *reader;
    fb3_oof_row row;
    bool more = true;
    FB3_TRY(fb3_oof_open(&reader, path, id_column, targets));
    fb3_status status = fb3_oof_next(reader, &row, &more);
    while (status == FB3_OK && more) {
        status = fb3_oof_append(oof, &row);
        if (status == FB3_OK) status = fb3_oof_next(reader, &row, &more);
    }
    fb3_oof_close(reader);
    return status;
}

/* --- by id -------------------------------------------------------------------------------------------------------- */

struct fb3_oof_entry {
    const char *id;
    int64_t row;
};

static int compare_ids(const void *a, const void *b)
{
    return strcmp(((const struct fb3_oof_entry *)a)->id, ((const struct fb3_oof_entry *)b)->id);
}

fb3_status fb3_oof_index_make(fb3_oof_index *index, const fb3_oof *oof)
{
    *index = (fb3_oof_index){.entry = malloc((size_t)(oof->n + 1) * sizeof *index->entry), .n = oof->n};
    FB3_REQUIRE(index->entry, FB3_FAILED, "out of memory for the ids of %lld predictions", (long long)oof->n);
    for (int64_t i = 0; i < oof->n; i++) index->entry[i] = (struct fb3_oof_entry){oof->ids.item[i], i};
    qsort(index->entry, (size_t)oof->n, sizeof *index->entry, compare_ids);
    return FB3_OK;
}

int64_t fb3_oof_index_find(const fb3_oof_index *index, const char *id)
{
    const struct fb3_oof_entry key = {.id = id};
    const struct fb3_oof_entry *found =
        bsearch(&key, index->entry, (size_t)index->n, sizeof *index->entry, compare_ids);
    return found ? found->row : -1;
}

void fb3_oof_index_free(fb3_oof_index *index)
{
    free(index->entry);
    *index = (fb3_oof_index){0};
}

/* --- the mean predictor ------------------------------------------------------------------------------------------- */

void fb3_mean_predictor_count(fb3_mean_predictor *predictor, int fold, const float *truth)
{
    predictor->count[fold]++;
    predictor->n++;
    for (int y = 0; y < predictor->targets; y++) {
        predictor->sum[fold][y] += truth[y];
        predictor->total[y] += truth[y];
    }
}

void fb3_mean_predictor_predict(const fb3_mean_predictor *predictor, int fold, float *pred)
{
    const int64_t others = predictor->n - predictor->count[fold];
    for (int y = 0; y < predictor->targets; y++) {
        double sum = others > 0 ? predictor->total[y] - predictor->sum[fold][y] : predictor->total[y];
        pred[y] = (float)(sum / (double)(others > 0 ? others : predictor->n));
    }
}

/* --- submission.csv ----------------------------------------------------------------------------------------------- */

fb3_status fb3_submission_write(const char *path, const char *id_column, const fb3_strings *targets,
                                const fb3_strings *ids, const float *pred, double clip_low, double clip_high)
{
    fb3_oof_writer table;
    FB3_TRY(begin(&table, path));
    fb3_csv_write_field(table.file, id_column);
    write_names(table.file, "", targets);
    fputc('\n', table.file);
    for (int64_t i = 0; i < ids->count; i++) {
        fb3_csv_write_field(table.file, ids->item[i]);
        for (int y = 0; y < targets->count; y++) {
            double p = pred[i * targets->count + y];
            if (clip_low <= clip_high) p = fmin(fmax(p, clip_low), clip_high); /* NaN limits: no clipping */
            fprintf(table.file, ",%.9g", p);
        }
        fputc('\n', table.file);
    }
    return fb3_oof_publish(&table);
}

static fb3_status check_sample(fb3_csv *csv, const char *id_column, const fb3_strings *targets, const fb3_strings *ids)
{
    const char *path = fb3_csv_path(csv);
    int id, column;
    bool more;
    FB3_TRY(fb3_csv_need_column(csv, id_column, &id));
    for (int y = 0; y < targets->count; y++) FB3_TRY(fb3_csv_need_column(csv, targets->item[y], &column));
    FB3_REQUIRE(fb3_csv_columns(csv) == targets->count + 1, FB3_INPUT,
                "%s has %d columns; the submission has %d (%s and the targets)", path, fb3_csv_columns(csv),
                targets->count + 1, id_column);
    for (int64_t i = 0;; i++) {
        FB3_TRY(fb3_csv_next(csv, &more));
        if (!more) {
            FB3_REQUIRE(i == ids->count, FB3_INPUT, "%s has %lld rows; the test file has %d", path, (long long)i,
                        ids->count);
            return FB3_OK;
        }
        int64_t bytes;
        const char *expected = fb3_csv_field(csv, id, &bytes);
        FB3_REQUIRE(i < ids->count, FB3_INPUT, "%s has more rows than the test file (%d); the first extra id is %s",
                    path, ids->count, expected);
        FB3_REQUIRE(strcmp(expected, ids->item[i]) == 0, FB3_INPUT,
                    "%s: record %lld has the id %s where the test file has %s; the order must be the same", path,
                    (long long)i + 1, expected, ids->item[i]);
    }
}

fb3_status fb3_submission_check(const char *sample_path, const char *id_column, const fb3_strings *targets,
                                const fb3_strings *ids)
{
    fb3_csv *csv = NULL;
    fb3_status status = fb3_csv_open(&csv, sample_path);
    if (status == FB3_OK) status = check_sample(csv, id_column, targets, ids);
    fb3_csv_close(csv);
    return status;
}
