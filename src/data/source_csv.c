/* The source of a data set, read twice: a survey that parses every field, finds duplicates and says how large things
 * are, so that a mistake in the last row is reported in seconds and not after tokenising; then the pass that writes.
 * Memory is one record and, in the survey, a hash of 8 bytes of each id and text. */
#include "source_csv.h"

#include "dataset_file.h"
#include "hash_list.h"
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

/* The file whose turn it is; the one before is closed. */
static fb3_status open_file(fb3_source *source)
{
    const fb3_dataset_options *options = source->options;
    fb3_source_close(source);
    FB3_TRY(fb3_csv_open(&source->csv, source->paths->item[source->file]));
    FB3_TRY(fb3_csv_need_column(source->csv, options->id_column, &source->id_column));
    FB3_TRY(fb3_csv_need_column(source->csv, options->text_column, &source->text_column));
    source->fold_column = -1;
    if (options->fold_column) FB3_TRY(fb3_csv_need_column(source->csv, options->fold_column, &source->fold_column));
    return find_labels(source, options->label_columns);
}

fb3_status fb3_source_open(fb3_source *source, const fb3_strings *paths, const fb3_dataset_options *options)
{
    *source = (fb3_source){.paths = paths, .options = options, .limit = options->max_samples};
    if (options->max_samples == FB3_UNSET_INT) source->limit = INT64_MAX;
    fb3_status status = open_file(source);
    if (status != FB3_OK) fb3_source_close(source);
    return status;
}

void fb3_source_close(fb3_source *source)
{
    fb3_csv_close(source->csv);
    source->csv = NULL;
}

/* The next record, of this file or of the next that has one. */
static fb3_status next_record(fb3_source *source, bool *more)
{
    FB3_TRY(fb3_csv_next(source->csv, more));
    while (!*more && source->file + 1 < source->paths->count) {
        source->file++;
        FB3_TRY(open_file(source));
        FB3_TRY(fb3_csv_next(source->csv, more));
    }
    return FB3_OK;
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
    FB3_TRY(next_record(source, more));
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

/* --- ids that occur twice: a second pass over the source, over the ids whose hashes do --------------------------- */

/* Where an id stands. */
typedef struct place {
    struct place *next; /* of the same hash */
    char *id;
    int file;
    int64_t record, line;
} place;

/* The ids seen so far that have a certain hash. */
typedef struct place_list {
    place *last;
} place_list;

static fb3_status note_place(place_list *list, const fb3_source *source, const fb3_source_row *row)
{
    place *noted = calloc(1, sizeof *noted);
    FB3_REQUIRE(noted, FB3_FAILED, "out of memory for finding duplicates");
    *noted = (place){.next = list->last,
                     .id = strdup(row->id),
                     .file = source->file,
                     .record = fb3_csv_record(source->csv),
                     .line = fb3_csv_line(source->csv)};
    list->last = noted; /* freed with the list, with an id or without */
    FB3_REQUIRE(noted->id, FB3_FAILED, "out of memory for finding duplicates");
    return FB3_OK;
}

/* The row that is being read has the id of one before it. */
static fb3_status refuse_repeated(const fb3_source *source, const place *first)
{
    char text[FB3_SHOWN_BYTES];
    const char *id = fb3_shown(text, first->id, strlen(first->id)), *path = fb3_csv_path(source->csv);
    const long long row = (long long)fb3_csv_record(source->csv), line = (long long)fb3_csv_line(source->csv);
    if (first->file == source->file)
        return fb3_fail(FB3_INPUT,
                        "%s: rows %lld and %lld (line %lld) have the same id %s in column %s; ids must differ", path,
                        (long long)first->record, row, line, id, source->options->id_column);
    return fb3_fail(FB3_INPUT, "%s: row %lld (line %lld) has the id %s, and so has row %lld of %s; ids must differ",
                    path, row, line, id, (long long)first->record, source->paths->item[first->file]);
}

static fb3_status check_row(const fb3_source *source, const fb3_source_row *row, place_list *same_hash)
{
    for (const place *before = same_hash->last; before; before = before->next)
        if (strcmp(before->id, row->id) == 0) return refuse_repeated(source, before);
    return note_place(same_hash, source, row);
}

static void free_places(place_list *list, size_t count)
{
    for (size_t i = 0; list && i < count; i++) {
        for (place *one = list[i].last, *next; one; one = next) {
            next = one->next;
            free(one->id);
            free(one);
        }
    }
    free(list);
}

/* FB3_INPUT at the first row whose id a row before it has; different ids may share a hash. */
static fb3_status find_repeated(const fb3_strings *paths, const fb3_dataset_options *options, const uint64_t *hashes,
                                size_t count)
{
    fb3_status status = FB3_OK;
    fb3_source source = {0};
    fb3_source_row row;
    place_list *list = calloc(count, sizeof *list); /* [count] */
    FB3_REQUIRE(list, FB3_FAILED, "out of memory for finding duplicates");
    FB3_TRY_GOTO(fb3_source_open(&source, paths, options), done);
    for (bool more = true;;) {
        FB3_TRY_GOTO(fb3_source_next(&source, &row, &more), done);
        if (!more) break;
        int64_t at = fb3_hash_find(hashes, count, fb3_hash_bytes(row.id, (size_t)row.id_bytes));
        if (at >= 0) FB3_TRY_GOTO(check_row(&source, &row, &list[at]), done);
    }
done:
    free_places(list, count);
    fb3_source_close(&source);
    return status;
}

static fb3_status check_ids_differ(const fb3_strings *paths, const fb3_dataset_options *options,
                                   const fb3_hash_list *ids)
{
    uint64_t *repeated;
    size_t count;
    int64_t surplus;
    FB3_TRY(fb3_hash_list_repeats(ids, &repeated, &count, &surplus));
    fb3_status status = count > 0 ? find_repeated(paths, options, repeated, count) : FB3_OK;
    free(repeated);
    return status;
}

static fb3_status count_repeated_texts(const fb3_hash_list *texts, int64_t *surplus)
{
    uint64_t *repeated;
    size_t count;
    FB3_TRY(fb3_hash_list_repeats(texts, &repeated, &count, surplus));
    free(repeated);
    return FB3_OK;
}

/* --- the survey --------------------------------------------------------------------------------------------------- */

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

static fb3_status survey_row(const fb3_source *source, const fb3_source_row *row, fb3_survey *survey,
                             fb3_hash_list *ids, fb3_hash_list *texts)
{
    FB3_TRY(fb3_hash_list_add(ids, fb3_hash_bytes(row->id, (size_t)row->id_bytes)));
    FB3_TRY(fb3_hash_list_add(texts, fb3_hash_bytes(row->text, (size_t)row->text_bytes)));
    if (row->id_bytes > survey->longest_id) survey->longest_id = row->id_bytes;
    const fb3_dataset_options *options = source->options;
    if (!options->progress || source->rows % ROWS_PER_SIGN != 0) return FB3_OK;
    return options->progress(options->progress_context, "checked", source->rows);
}

fb3_status fb3_source_survey(const fb3_strings *paths, const fb3_dataset_options *options, fb3_survey *survey,
                             fb3_dataset_report *report)
{
    *survey = (fb3_survey){0};
    fb3_status status = FB3_OK;
    fb3_source source;
    fb3_source_row row;
    fb3_hash_list ids = {0}, texts = {0};
    float first[FB3_MAX_TARGETS] = {0};
    FB3_TRY(fb3_source_open(&source, paths, options));
    for (bool more = true;;) {
        FB3_TRY_GOTO(fb3_source_next(&source, &row, &more), done);
        if (!more) break;
        FB3_TRY_GOTO(survey_row(&source, &row, survey, &ids, &texts), done);
        notice_scores(report, &source, &row, first);
    }
    survey->rows = report->samples = source.rows;
    FB3_REQUIRE_GOTO(source.rows > 0, done, FB3_INPUT, "%s has no rows below its header; give it at least one essay",
                     paths->item[0]);
    FB3_REQUIRE_GOTO(source.rows <= INT32_MAX, done, FB3_INPUT, "%s has %lld rows, at most %d are possible",
                     paths->item[0], (long long)source.rows, INT32_MAX);
    if (source.rows == 1) memset(report->constant, 0, sizeof report->constant); /* says nothing about one score */
    FB3_TRY_GOTO(check_ids_differ(paths, options, &ids), done);
    FB3_TRY_GOTO(count_repeated_texts(&texts, &report->duplicate_texts), done);
done:
    fb3_hash_list_free(&ids);
    fb3_hash_list_free(&texts);
    fb3_source_close(&source);
    return status;
}
