/* The source of a data set, read twice: a survey that parses every field, finds duplicates and says how large things
 * are, so that a mistake in the last row is reported in seconds and not after tokenising; then the pass that writes.
 * Memory is one record and, in the survey, 64-bit hashes of ids and texts. */
#include "source_csv.h"

#include "dataset_file.h"
#include "hash_set.h"
#include "fb3/folds.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_PER_SIGN = 4096 }; /* options->progress is called once for so many */

static const float LOWEST_SCORE = 1.0f, HIGHEST_SCORE = 5.0f; /* of the competition; others only cause a warning */

static fb3_status fail_at(const fb3_source *source, int column, const char *what)
{
    char text[FB3_SHOWN_BYTES];
    const char *field = fb3_csv_field(source->csv, column, NULL);
    return fb3_fail(FB3_INPUT, "%s, row %lld (line %lld), column %s: \"%s\" %s", fb3_csv_path(source->csv),
                    (long long)fb3_csv_record(source->csv), (long long)fb3_csv_line(source->csv),
                    fb3_csv_column_name(source->csv, column), fb3_shown(text, field, strlen(field)), what);
}

/* A decimal number and nothing else; strtod alone would also take hexadecimal ones, "nan" and "inf". */
static bool parse_decimal(const char *text, double *value)
{
    if (text[strspn(text, "+-.0123456789eE \t")] != 0) return false;
    char *end;
    *value = strtod(text, &end);
    if (end == text) return false;
    return end[strspn(end, " \t")] == 0 && isfinite(*value);
}

bool fb3_parse_fold(const char *text, int8_t *fold)
{
    double value;
    if (!parse_decimal(text, &value)) return false;
    if (!(value >= 0 && value < FB3_MAX_FOLDS) || value != floor(value)) return false;
    *fold = (int8_t)value;
    return true;
}

static fb3_status find_labels(fb3_source *source, const fb3_strings *labels)
{
    FB3_REQUIRE(labels->count <= FB3_MAX_TARGETS, FB3_INPUT, "label_columns names %d columns, at most %d are possible",
                labels->count, FB3_MAX_TARGETS);
    source->targets = labels->count;
    for (int y = 0; y < labels->count; y++) {
        FB3_TRY(fb3_csv_need_column(source->csv, labels->item[y], &source->label_column[y]));
        FB3_REQUIRE(!strchr(labels->item[y], '\n'), FB3_INPUT,
                    "%s: the name of a label column has a line break; rename it", fb3_csv_path(source->csv));
        for (int before = 0; before < y; before++) {
            FB3_REQUIRE(source->label_column[before] != source->label_column[y], FB3_INPUT,
                        "label_columns names %s twice; name each column once", labels->item[y]);
        }
    }
    return FB3_OK;
}

fb3_status fb3_source_open(fb3_source *source, const char *path, const fb3_dataset_options *options)
{
    *source = (fb3_source){.fold_column = -1, .limit = options->max_samples};
    if (options->max_samples == FB3_UNSET_INT) source->limit = INT64_MAX;
    fb3_status status = FB3_OK;
    FB3_TRY(fb3_csv_open(&source->csv, path));
    FB3_TRY_GOTO(fb3_csv_need_column(source->csv, options->id_column, &source->id_column), failed);
    FB3_TRY_GOTO(fb3_csv_need_column(source->csv, options->text_column, &source->text_column), failed);
    if (options->fold_column)
        FB3_TRY_GOTO(fb3_csv_need_column(source->csv, options->fold_column, &source->fold_column), failed);
    FB3_TRY_GOTO(find_labels(source, options->label_columns), failed);
    return FB3_OK;
failed:
    fb3_source_close(source);
    return status;
}

void fb3_source_close(fb3_source *source)
{
    fb3_csv_close(source->csv);
    source->csv = NULL;
}

static fb3_status parse_score(const fb3_source *source, int column, float *score)
{
    const char *field = fb3_csv_field(source->csv, column, NULL);
    double value;
    if (!*field) return fail_at(source, column, "is no score; fill it in or remove the row");
    if (!parse_decimal(field, &value) || !isfinite((float)value))
        return fail_at(source, column, "is not a finite number; correct it or remove the row");
    *score = (float)value;
    return FB3_OK;
}

fb3_status fb3_source_next(fb3_source *source, fb3_source_row *row, bool *more)
{
    *more = false;
    if (source->rows >= source->limit) return FB3_OK;
    FB3_TRY(fb3_csv_next(source->csv, more));
    if (!*more) return FB3_OK;
    source->rows++;
    row->id = fb3_csv_field(source->csv, source->id_column, &row->id_bytes);
    row->text = fb3_csv_field(source->csv, source->text_column, &row->text_bytes);
    if (row->id_bytes == 0) return fail_at(source, source->id_column, "is an empty id; give every row an id");
    if (row->id_bytes > FB3_DATASET_MAX_ID_BYTES)
        return fail_at(source, source->id_column, "is an id of more than 1,024 bytes; shorten it");
    for (int y = 0; y < source->targets; y++) {
        FB3_TRY(parse_score(source, source->label_column[y], &row->score[y]));
    }
    row->fold = 0;
    if (source->fold_column >= 0 && !fb3_parse_fold(fb3_csv_field(source->csv, source->fold_column, NULL), &row->fold))
        return fail_at(source, source->fold_column, "is not a fold; folds are whole numbers from 0 to 99");
    return FB3_OK;
}

/* The row before `before` that has this id, or 0: then two different ids merely share a hash. */
static fb3_status find_earlier_row(const char *path, const fb3_dataset_options *options, const char *id, int64_t before,
                                   int64_t *found)
{
    *found = 0;
    fb3_status status = FB3_OK;
    fb3_source again;
    fb3_source_row row;
    bool more = true;
    FB3_TRY(fb3_source_open(&again, path, options));
    while (more && *found == 0 && again.rows < before - 1) {
        FB3_TRY_GOTO(fb3_source_next(&again, &row, &more), done);
        if (more && strcmp(row.id, id) == 0) *found = again.rows;
    }
done:
    fb3_source_close(&again);
    return status;
}

static fb3_status check_id(const fb3_source *source, const fb3_dataset_options *options, const fb3_source_row *row,
                           fb3_hash_set *ids)
{
    bool seen;
    int64_t earlier;
    char text[FB3_SHOWN_BYTES];
    FB3_TRY(fb3_hash_set_add(ids, fb3_hash_bytes(row->id, (size_t)row->id_bytes), &seen));
    if (!seen) return FB3_OK;
    FB3_TRY(find_earlier_row(fb3_csv_path(source->csv), options, row->id, source->rows, &earlier));
    FB3_REQUIRE(earlier == 0, FB3_INPUT,
                "%s: rows %lld and %lld (line %lld) have the same id %s in column %s; ids must differ",
                fb3_csv_path(source->csv), (long long)earlier, (long long)source->rows,
                (long long)fb3_csv_line(source->csv), fb3_shown(text, row->id, strlen(row->id)), options->id_column);
    return FB3_OK;
}

static void notice_scores(fb3_dataset_report *report, const fb3_source *source, const fb3_source_row *row,
                          float first[FB3_MAX_TARGETS])
{
    for (int y = 0; y < source->targets; y++) {
        if (source->rows == 1) {
            first[y] = row->score[y];
            report->constant[y] = true;
        }
        if (row->score[y] != first[y]) report->constant[y] = false;
        if (row->score[y] < LOWEST_SCORE || row->score[y] > HIGHEST_SCORE) report->out_of_range[y]++;
    }
}

fb3_status fb3_source_survey(const char *path, const fb3_dataset_options *options, fb3_survey *survey,
                             fb3_dataset_report *report)
{
    *survey = (fb3_survey){0};
    fb3_status status = FB3_OK;
    fb3_source source;
    fb3_source_row row;
    fb3_hash_set ids = {0}, texts = {0};
    float first[FB3_MAX_TARGETS] = {0};
    FB3_TRY(fb3_source_open(&source, path, options));
    for (;;) {
        bool more, seen;
        FB3_TRY_GOTO(fb3_source_next(&source, &row, &more), done);
        if (!more) break;
        FB3_TRY_GOTO(check_id(&source, options, &row, &ids), done);
        FB3_TRY_GOTO(fb3_hash_set_add(&texts, fb3_hash_bytes(row.text, (size_t)row.text_bytes), &seen), done);
        if (seen) report->duplicate_texts++;
        notice_scores(report, &source, &row, first);
        if (row.id_bytes > survey->longest_id) survey->longest_id = row.id_bytes;
        if (options->progress && source.rows % ROWS_PER_SIGN == 0) {
            FB3_TRY_GOTO(options->progress(options->progress_context, "checked", source.rows), done);
        }
    }
    survey->rows = report->samples = source.rows;
    FB3_REQUIRE_GOTO(source.rows > 0, done, FB3_INPUT, "%s has no rows below its header; give it at least one essay",
                     path);
    FB3_REQUIRE_GOTO(source.rows <= INT32_MAX, done, FB3_INPUT, "%s has %lld rows, at most %d are possible", path,
                     (long long)source.rows, INT32_MAX);
    if (source.rows == 1) memset(report->constant, 0, sizeof report->constant); /* says nothing about one score */
done:
    fb3_hash_set_free(&ids);
    fb3_hash_set_free(&texts);
    fb3_source_close(&source);
    return status;
}
