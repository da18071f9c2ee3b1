/* folds.csv: which fold each id belongs to, written for people and other programs and read back from either, rows in
 * any order. Memory for reading: nothing that grows where the rows are in the order of the data set, as they are
 * written; else the ids and a table of 8 to 16 bytes a sample, on the rank that reads. */
#include "fb3/folds.h"

#include "dataset_file.h"
#include "hash_list.h"
#include "source_csv.h"

#include "fb3/csv.h"
#include "fb3/file.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_ROWS = 1 << 14, NOT_SEEN = -1 };
static const char FOLD_COLUMN[] = "fold";

/* The ids of a data set and a hash table that leads from an id to its row. */
typedef struct id_index {
    fb3_strings ids; /* [n] */
    int32_t *row;    /* [capacity], a power of two of at least 2 n; -1: empty */
    size_t capacity;
} id_index;

static void free_index(id_index *index)
{
    fb3_strings_free(&index->ids);
    free(index->row);
}

/* The slot of an id, or the empty one where it would go. */
static int32_t *find_slot(const id_index *index, const char *id)
{
    size_t at = fb3_hash_bytes(id, strlen(id)) & (index->capacity - 1);
    while (index->row[at] >= 0 && strcmp(index->ids.item[index->row[at]], id) != 0)
        at = (at + 1) & (index->capacity - 1);
    return &index->row[at];
}

static fb3_status make_index(id_index *index, const fb3_dataset *dataset)
{
    FB3_TRY(fb3_dataset_id_range(dataset, 0, dataset->n, &index->ids));
    for (index->capacity = 2; index->capacity < 2 * (size_t)dataset->n;) index->capacity *= 2;
    index->row = malloc(index->capacity * sizeof *index->row);
    FB3_REQUIRE(index->row, FB3_FAILED, "out of memory for %lld ids", (long long)dataset->n);
    memset(index->row, -1, index->capacity * sizeof *index->row);
    for (int64_t row = 0; row < dataset->n; row++) {
        char shown[FB3_SHOWN_BYTES];
        int32_t *slot = find_slot(index, index->ids.item[row]);
        FB3_REQUIRE(*slot < 0, FB3_INPUT, "%s has the id %s twice; prepare the data set again", dataset->file->path,
                    fb3_shown(shown, index->ids.item[row], strlen(index->ids.item[row])));
        *slot = (int32_t)row;
    }
    return FB3_OK;
}

/* A folds.csv that is being read. */
typedef struct record_reader {
    fb3_csv *csv;
    int id_column, fold_column;
} record_reader;

static fb3_status open_reader(record_reader *reader, const char *path, const char *id_column)
{
    *reader = (record_reader){0};
    FB3_TRY(fb3_csv_open(&reader->csv, path));
    FB3_TRY(fb3_csv_need_column(reader->csv, id_column, &reader->id_column));
    return fb3_csv_need_column(reader->csv, FOLD_COLUMN, &reader->fold_column);
}

static fb3_status parse_fold(const record_reader *reader, int8_t *fold)
{
    const char *text = fb3_csv_field(reader->csv, reader->fold_column, NULL);
    char shown[FB3_SHOWN_BYTES];
    FB3_REQUIRE(fb3_parse_fold(text, fold), FB3_INPUT,
                "%s, row %lld (line %lld): \"%s\" is not a fold; folds are whole numbers from 0 to %d",
                fb3_csv_path(reader->csv), (long long)fb3_csv_record(reader->csv), (long long)fb3_csv_line(reader->csv),
                fb3_shown(shown, text, strlen(text)), FB3_MAX_FOLDS - 1);
    return FB3_OK;
}

/* --- rows in the order of the data set ---------------------------------------------------------------------------- */

/* The records that belong to ids[count], which stand in this order. */
static fb3_status read_ordered_block(record_reader *reader, const fb3_strings *ids, int8_t *fold, bool *ordered)
{
    for (int i = 0; *ordered && i < ids->count; i++) {
        bool more;
        FB3_TRY(fb3_csv_next(reader->csv, &more));
        *ordered = more && strcmp(fb3_csv_field(reader->csv, reader->id_column, NULL), ids->item[i]) == 0;
        if (*ordered) FB3_TRY(parse_fold(reader, &fold[i]));
    }
    return FB3_OK;
}

/* *ordered is false where the rows are in another order, or are not those of the data set; `fold` is then void. */
static fb3_status read_ordered(int8_t *fold, const char *path, const char *id_column, const fb3_dataset *dataset,
                               bool *ordered)
{
    record_reader reader;
    bool more = true;
    fb3_status status = open_reader(&reader, path, id_column);
    *ordered = true;
    for (int64_t first = 0; status == FB3_OK && *ordered && first < dataset->n; first += BLOCK_ROWS) {
        int64_t rows = first + BLOCK_ROWS < dataset->n ? BLOCK_ROWS : dataset->n - first;
        fb3_strings ids = {0};
        status = fb3_dataset_id_range(dataset, first, rows, &ids);
        if (status == FB3_OK) status = read_ordered_block(&reader, &ids, fold + first, ordered);
        fb3_strings_free(&ids);
    }
    if (status == FB3_OK && *ordered) status = fb3_csv_next(reader.csv, &more);
    if (more) *ordered = false;
    fb3_csv_close(reader.csv);
    return status;
}

/* --- rows in any order -------------------------------------------------------------------------------------------- */

static fb3_status take_record(int8_t *fold, const record_reader *reader, const id_index *index)
{
    const fb3_csv *csv = reader->csv;
    const char *id = fb3_csv_field(csv, reader->id_column, NULL);
    long long record = (long long)fb3_csv_record(csv), line = (long long)fb3_csv_line(csv);
    char shown[FB3_SHOWN_BYTES];
    int32_t row = *find_slot(index, id);
    FB3_REQUIRE(row >= 0, FB3_INPUT, "%s, row %lld (line %lld): the id %s is not in the data set; remove the row",
                fb3_csv_path(csv), record, line, fb3_shown(shown, id, strlen(id)));
    FB3_REQUIRE(fold[row] == NOT_SEEN, FB3_INPUT, "%s, row %lld (line %lld): the id %s occurs a second time; remove it",
                fb3_csv_path(csv), record, line, fb3_shown(shown, id, strlen(id)));
    return parse_fold(reader, &fold[row]);
}

static fb3_status read_any_order(int8_t *fold, const char *path, const char *id_column, const fb3_dataset *dataset)
{
    fb3_status status = FB3_OK;
    id_index index = {0};
    record_reader reader;
    memset(fold, NOT_SEEN, (size_t)dataset->n);
    FB3_TRY_GOTO(open_reader(&reader, path, id_column), done);
    FB3_TRY_GOTO(make_index(&index, dataset), done);
    for (bool more = true;;) {
        FB3_TRY_GOTO(fb3_csv_next(reader.csv, &more), done);
        if (!more) break;
        FB3_TRY_GOTO(take_record(fold, &reader, &index), done);
    }
    char shown[FB3_SHOWN_BYTES];
    for (int64_t row = 0; row < dataset->n; row++) {
        FB3_REQUIRE_GOTO(fold[row] != NOT_SEEN, done, FB3_INPUT,
                         "%s has no row for the id %s of the data set; give every id a fold", path,
                         fb3_shown(shown, index.ids.item[row], strlen(index.ids.item[row])));
    }
done:
    fb3_csv_close(reader.csv);
    free_index(&index);
    return status;
}

fb3_status fb3_folds_count(const int8_t *fold, int64_t n, const char *where, int *k)
{
    int64_t samples[FB3_MAX_FOLDS] = {0};
    *k = 0;
    for (int64_t i = 0; i < n; i++) {
        FB3_REQUIRE(fold[i] >= 0 && fold[i] < FB3_MAX_FOLDS, FB3_INPUT,
                    "%s: sample %lld has the fold %d; folds are whole numbers from 0 to %d", where, (long long)i,
                    fold[i], FB3_MAX_FOLDS - 1);
        samples[fold[i]]++;
        if (fold[i] >= *k) *k = fold[i] + 1;
    }
    FB3_REQUIRE(*k >= 2, FB3_INPUT, "%s has fold 0 only; give at least two folds", where);
    for (int f = 0; f < *k; f++) {
        FB3_REQUIRE(samples[f] > 0, FB3_INPUT,
                    "%s has folds up to %d, but no sample in fold %d; number them without gaps", where, *k - 1, f);
    }
    return FB3_OK;
}

fb3_status fb3_folds_read_csv(int8_t *fold, const char *path, const char *id_column, const fb3_dataset *dataset, int *k)
{
    bool ordered;
    FB3_TRY(read_ordered(fold, path, id_column, dataset, &ordered));
    if (!ordered) FB3_TRY(read_any_order(fold, path, id_column, dataset));
    return fb3_folds_count(fold, dataset->n, path, k);
}

static fb3_status write_records(FILE *file, const int8_t *fold, const char *id_column, const fb3_dataset *dataset)
{
    fb3_csv_write_field(file, id_column);
    fprintf(file, ",%s\n", FOLD_COLUMN);
    for (int64_t first = 0; first < dataset->n; first += BLOCK_ROWS) {
        int64_t rows = first + BLOCK_ROWS < dataset->n ? BLOCK_ROWS : dataset->n - first;
        fb3_strings ids = {0};
        FB3_TRY(fb3_dataset_id_range(dataset, first, rows, &ids));
        for (int64_t i = 0; i < rows; i++) {
            fb3_csv_write_field(file, ids.item[i]);
            fprintf(file, ",%d\n", fold[first + i]);
        }
        fb3_strings_free(&ids);
    }
    return FB3_OK;
}

fb3_status fb3_folds_write_csv(const int8_t *fold, const char *path, const char *id_column, const fb3_dataset *dataset)
{
    char *temporary = fb3_file_temporary(path);
    FB3_REQUIRE(temporary, FB3_FAILED, "out of memory for a file name");
    FILE *file = fopen(temporary, "wb");
    fb3_status status;
    if (!file) {
        status = fb3_fail(FB3_FAILED, "cannot create %s: %s; check its folder", temporary, strerror(errno));
        free(temporary);
        return status;
    }
    status = write_records(file, fold, id_column, dataset);
    bool written = !ferror(file);
    written = fclose(file) == 0 && written;
    if (status == FB3_OK && !written)
        status = fb3_fail(FB3_FAILED, "cannot write %s: %s; check the free space", temporary, strerror(errno));
    if (status == FB3_OK)
        status = fb3_file_publish(temporary, path);
    else
        (void)unlink(temporary);
    free(temporary);
    return status;
}
