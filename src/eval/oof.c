/* The tables of predictions: oof.csv and submission.csv, written atomically, read back with every cell checked. */
#include "fb3/oof.h"
#include "fb3/csv.h"
#include "fb3/file.h"
#include "fb3/folds.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

fb3_status fb3_oof_alloc(fb3_oof *oof, int64_t n, int targets)
{
    size_t cells = (size_t)(n > 0 ? n : 1) * (size_t)targets;
    *oof = (fb3_oof){.n = n, .targets = targets};
    oof->fold = calloc((size_t)(n > 0 ? n : 1), sizeof *oof->fold);
    oof->truth = calloc(cells, sizeof *oof->truth);
    oof->pred = calloc(cells, sizeof *oof->pred);
    if (oof->fold && oof->truth && oof->pred) return FB3_OK;
    fb3_oof_free(oof);
    return fb3_fail(FB3_FAILED, "out of memory for a table of %lld predictions", (long long)n);
}

void fb3_oof_free(fb3_oof *oof)
{
    fb3_strings_free(&oof->ids);
    free(oof->fold);
    free(oof->truth);
    free(oof->pred);
    *oof = (fb3_oof){0};
}

/* A file being written: the temporary and its final name. */
typedef struct table_file {
    FILE *file;
    char *temporary;
} table_file;

static fb3_status table_begin(table_file *table, const char *path)
{
    *table = (table_file){.temporary = fb3_file_temporary(path)};
    FB3_REQUIRE(table->temporary, FB3_FAILED, "out of memory");
    table->file = fopen(table->temporary, "w");
    if (table->file) return FB3_OK;
    fb3_status status = fb3_fail(FB3_FAILED, "cannot write %s: %s", table->temporary, strerror(errno));
    free(table->temporary);
    return status;
}

static fb3_status table_end(table_file *table, const char *path)
{
    bool written = !ferror(table->file);
    if (fclose(table->file) != 0) written = false;
    fb3_status status = written ? fb3_file_publish(table->temporary, path)
                                : fb3_fail(FB3_FAILED, "cannot write %s: %s", path, strerror(errno));
    if (!written) remove(table->temporary);
    free(table->temporary);
    return status;
}

static void write_header(FILE *file, const char *id_column, const fb3_strings *targets)
{
    fb3_csv_write_field(file, id_column);
    for (int y = 0; y < targets->count; y++) {
        fputc(',', file);
        fb3_csv_write_field(file, targets->item[y]);
    }
}

fb3_status fb3_oof_write(const fb3_oof *oof, const char *path, const char *id_column, const fb3_strings *targets)
{
    table_file table;
    FB3_TRY(table_begin(&table, path));
    fb3_csv_write_field(table.file, id_column);
    fputs(",fold", table.file);
    for (int y = 0; y < targets->count; y++) {
        fputc(',', table.file);
        fb3_csv_write_field(table.file, targets->item[y]);
    }
    for (int y = 0; y < targets->count; y++) fprintf(table.file, ",pred_%s", targets->item[y]);
    fputc('\n', table.file);
    for (int64_t i = 0; i < oof->n; i++) {
        fb3_csv_write_field(table.file, oof->ids.item[i]);
        fprintf(table.file, ",%d", oof->fold[i]);
        const float *truth = oof->truth + i * oof->targets, *pred = oof->pred + i * oof->targets;
        for (int y = 0; y < oof->targets; y++) fprintf(table.file, ",%.9g", (double)truth[y]);
        for (int y = 0; y < oof->targets; y++) fprintf(table.file, ",%.9g", (double)pred[y]);
        fputc('\n', table.file);
    }
    return table_end(&table, path);
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
    return FB3_OK;
}

/* Where the columns of oof.csv are. */
typedef struct oof_columns {
    int id, fold, truth[FB3_MAX_TARGETS], pred[FB3_MAX_TARGETS];
} oof_columns;

static fb3_status find_columns(oof_columns *columns, const fb3_csv *csv, const char *id_column,
                               const fb3_strings *targets)
{
    FB3_TRY(fb3_csv_need_column(csv, id_column, &columns->id));
    FB3_TRY(fb3_csv_need_column(csv, "fold", &columns->fold));
    for (int y = 0; y < targets->count; y++) {
        FB3_TRY(fb3_csv_need_column(csv, targets->item[y], &columns->truth[y]));
        char *name = fb3_format("pred_%s", targets->item[y]);
        FB3_REQUIRE(name, FB3_FAILED, "out of memory");
        fb3_status status = fb3_csv_need_column(csv, name, &columns->pred[y]);
        free(name);
        FB3_TRY(status);
    }
    return FB3_OK;
}

static fb3_status read_row(fb3_oof *oof, const fb3_csv *csv, const oof_columns *columns)
{
    int64_t i = oof->n, bytes;
    float fold;
    FB3_TRY(fb3_csv_number(csv, columns->fold, &fold));
    FB3_REQUIRE(fold >= 0 && fold < FB3_MAX_FOLDS && fold == floorf(fold), FB3_INPUT,
                "%s: record %lld: fold %g is not a fold number", fb3_csv_path(csv), (long long)fb3_csv_record(csv),
                (double)fold);
    oof->fold[i] = (int8_t)fold;
    for (int y = 0; y < oof->targets; y++) {
        FB3_TRY(fb3_csv_number(csv, columns->truth[y], &oof->truth[i * oof->targets + y]));
        FB3_TRY(fb3_csv_number(csv, columns->pred[y], &oof->pred[i * oof->targets + y]));
    }
    FB3_TRY(fb3_strings_add(&oof->ids, fb3_csv_field(csv, columns->id, &bytes)));
    oof->n++;
    return FB3_OK;
}

fb3_status fb3_oof_read(fb3_oof *oof, const char *path, const char *id_column, const fb3_strings *targets)
{
    fb3_status status = FB3_OK;
    fb3_csv *csv = NULL;
    oof_columns columns;
    int64_t capacity = 0;
    bool more;
    *oof = (fb3_oof){.targets = targets->count};
    FB3_TRY_GOTO(fb3_csv_open(&csv, path), done);
    FB3_TRY_GOTO(find_columns(&columns, csv, id_column, targets), done);
    for (;;) {
        FB3_TRY_GOTO(fb3_csv_next(csv, &more), done);
        if (!more) break;
        if (oof->n == capacity) FB3_TRY_GOTO(resize(oof, capacity = capacity ? 2 * capacity : 256), done);
        FB3_TRY_GOTO(read_row(oof, csv, &columns), done);
    }
done:
    fb3_csv_close(csv);
    if (status != FB3_OK) fb3_oof_free(oof);
    return status;
}

fb3_status fb3_oof_append(fb3_oof *oof, const fb3_oof *other)
{
    int64_t n = oof->n + other->n;
    if (other->n == 0) return FB3_OK;
    oof->targets = other->targets;
    FB3_TRY(resize(oof, n));
    size_t at = (size_t)oof->n * (size_t)oof->targets, cells = (size_t)other->n * (size_t)oof->targets;
    memcpy(oof->fold + oof->n, other->fold, (size_t)other->n);
    memcpy(oof->truth + at, other->truth, cells * sizeof *oof->truth);
    memcpy(oof->pred + at, other->pred, cells * sizeof *oof->pred);
    for (int64_t i = 0; i < other->n; i++) FB3_TRY(fb3_strings_add(&oof->ids, other->ids.item[i]));
    oof->n = n;
    return FB3_OK;
}

fb3_status fb3_oof_mean_predictor(fb3_scores *scores, const fb3_oof *oof, int folds)
{
    int targets = oof->targets;
    double sum[FB3_MAX_FOLDS][FB3_MAX_TARGETS] = {{0}}, total[FB3_MAX_TARGETS] = {0};
    int64_t count[FB3_MAX_FOLDS] = {0};
    float *pred = malloc((size_t)(oof->n > 0 ? oof->n : 1) * (size_t)targets * sizeof *pred);
    FB3_REQUIRE(pred, FB3_FAILED, "out of memory for the mean predictor");
    for (int64_t i = 0; i < oof->n; i++) {
        count[oof->fold[i]]++;
        for (int y = 0; y < targets; y++) {
            sum[oof->fold[i]][y] += oof->truth[i * targets + y];
            total[y] += oof->truth[i * targets + y];
        }
    }
    for (int64_t i = 0; i < oof->n; i++) {
        uint8_t f = (uint8_t)oof->fold[i];
        int64_t others = oof->n - count[f];
        bool single = folds == 1 || others == 0;
        for (int y = 0; y < targets; y++) {
            double s = single ? total[y] : total[y] - sum[f][y];
            pred[i * targets + y] = (float)(s / (double)(single ? oof->n : others));
        }
    }
    fb3_scores_compute(scores, oof->truth, pred, oof->n, targets);
    free(pred);
    return FB3_OK;
}

fb3_status fb3_submission_write(const char *path, const char *id_column, const fb3_strings *targets,
                                const fb3_strings *ids, const float *pred, double clip_low, double clip_high)
{
    table_file table;
    FB3_TRY(table_begin(&table, path));
    write_header(table.file, id_column, targets);
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
    return table_end(&table, path);
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
