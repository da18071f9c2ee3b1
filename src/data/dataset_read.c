/* Reading rows of an open data set, wherever in its files they are. */
#include "dataset_file.h"
#include "hash_list.h"

#include "fb3/utf8.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SLAB_ELEMENTS = 1 << 20 }; /* neighbours are merged into one read up to this */

/* --- a range of a column, over the files -------------------------------------------------------------------------- */

typedef enum column { TOKENS, LABELS, IDS, FOLDS } column;

static hid_t column_of(const struct fb3_dataset_file *file, column which)
{
    return (const hid_t[]){
        [TOKENS] = file->tokens, [LABELS] = file->labels, [IDS] = file->ids, [FOLDS] = file->folds}[which];
}

/* `width`: bytes of an element in memory, which `type` tells HDF5. */
typedef struct element_type {
    hid_t type;
    size_t width;
} element_type;

static fb3_status read_range(const fb3_dataset *dataset, column which, element_type element, int64_t first,
                             int64_t count, void *out)
{
    for (int f = 0; f < dataset->files; f++) {
        const struct fb3_dataset_file *file = &dataset->file[f];
        const int64_t start = which == TOKENS ? file->first_token : file->first_row;
        const int64_t end = start + (which == TOKENS ? file->tokens_count : file->rows);
        const int64_t low = first > start ? first : start, high = first + count < end ? first + count : end;
        if (low >= high) continue;
        FB3_TRY(fb3_h5_read_rows(column_of(file, which), element.type, (hsize_t)(low - start), (hsize_t)(high - low),
                                 (char *)out + (size_t)(low - first) * element.width));
    }
    return FB3_OK;
}

static element_type label_type(const fb3_dataset *dataset)
{
    return (element_type){H5T_NATIVE_FLOAT, (size_t)dataset->targets * sizeof(float)};
}

fb3_status fb3_dataset_label_range(const fb3_dataset *dataset, int64_t first, int64_t count, float *labels)
{
    if (dataset->targets == 0) return FB3_OK;
    return read_range(dataset, LABELS, label_type(dataset), first, count, labels);
}

/* Of rows of one file, counted in it. */
static fb3_status read_lengths(const fb3_dataset *dataset, const struct fb3_dataset_file *file, int64_t first,
                               int64_t count, int *lengths)
{
    fb3_status status = FB3_OK;
    hid_t offsets = H5I_INVALID_HID;
    int64_t *block = malloc((size_t)(count + 1) * sizeof *block);
    FB3_REQUIRE(block, FB3_FAILED, "out of memory for the lengths of %lld rows", (long long)count);
    FB3_TRY_GOTO(fb3_h5_open_dataset(&offsets, file->file, "offsets"), done);
    FB3_TRY_GOTO(fb3_h5_read_rows(offsets, H5T_NATIVE_INT64, (hsize_t)first, (hsize_t)count + 1, block), done);
    for (int64_t i = 0; i < count; i++) {
        const bool good = block[i] >= 0 && block[i + 1] > block[i] && block[i + 1] - block[i] <= dataset->max_length;
        FB3_REQUIRE_GOTO(good, done, FB3_INPUT, "%s: /offsets is wrong at row %lld; prepare the data set again",
                         file->path, (long long)(first + i));
        lengths[i] = (int)(block[i + 1] - block[i]);
    }
done:
    if (offsets >= 0) (void)H5Dclose(offsets);
    free(block);
    return status;
}

fb3_status fb3_dataset_length_range(const fb3_dataset *dataset, int64_t first, int64_t count, int *lengths)
{
    for (int f = 0; f < dataset->files; f++) {
        const struct fb3_dataset_file *file = &dataset->file[f];
        const int64_t start = file->first_row, end = start + file->rows;
        const int64_t low = first > start ? first : start, high = first + count < end ? first + count : end;
        if (low < high) FB3_TRY(read_lengths(dataset, file, low - start, high - low, lengths + (low - first)));
    }
    return FB3_OK;
}

fb3_status fb3_dataset_read_folds(const fb3_dataset *dataset, int8_t *folds)
{
    assert(dataset->has_folds);
    return read_range(dataset, FOLDS, (element_type){H5T_NATIVE_INT8, 1}, 0, dataset->n, folds);
}

/* --- listed rows -------------------------------------------------------------------------------------------------- */

/* A run of elements and where it goes in the caller's array, both counted in elements. */
typedef struct slab {
    int64_t start, length, out;
} slab;

static int compare_slabs(const void *left, const void *right)
{
    const slab *a = left, *b = right;
    if (a->start != b->start) return a->start < b->start ? -1 : 1;
    return a->out < b->out ? -1 : a->out > b->out;
}

/* Reads slabs in the files' order, neighbours together. */
static fb3_status read_slabs(const fb3_dataset *dataset, column which, element_type element, slab *slabs, int64_t count,
                             char *out)
{
    fb3_status status = FB3_OK;
    const size_t width = element.width;
    char *run = NULL;
    int64_t capacity = 0;
    qsort(slabs, (size_t)count, sizeof *slabs, compare_slabs);
    for (int64_t first = 0, end; first < count; first = end) {
        int64_t start = slabs[first].start, length = slabs[first].length;
        for (end = first + 1;
             end < count && slabs[end].start == start + length && length + slabs[end].length <= MAX_SLAB_ELEMENTS;
             end++) {
            length += slabs[end].length;
        }
        if (end == first + 1) {
            FB3_TRY_GOTO(read_range(dataset, which, element, start, length, out + (size_t)slabs[first].out * width),
                         done);
            continue;
        }
        if (!run || length > capacity) {
            char *grown = realloc(run, (size_t)length * width);
            FB3_REQUIRE_GOTO(grown, done, FB3_FAILED, "out of memory for reading %lld elements", (long long)length);
            run = grown;
            capacity = length;
        }
        FB3_TRY_GOTO(read_range(dataset, which, element, start, length, run), done);
        for (int64_t i = first; i < end; i++) {
            memcpy(out + (size_t)slabs[i].out * width, run + (size_t)(slabs[i].start - start) * width,
                   (size_t)slabs[i].length * width);
        }
    }
done:
    free(run);
    return status;
}

static fb3_status read_listed(const fb3_dataset *dataset, column which, element_type element, const int64_t *rows,
                              int64_t count, void *out)
{
    if (count == 0) return FB3_OK;
    slab *slabs = malloc((size_t)count * sizeof *slabs);
    FB3_REQUIRE(slabs, FB3_FAILED, "out of memory for reading %lld rows", (long long)count);
    int64_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        assert(rows[i] >= 0 && rows[i] < dataset->n);
        slabs[i] = (slab){rows[i], 1, at};
        if (which == TOKENS) slabs[i] = (slab){dataset->offsets[rows[i]], fb3_dataset_length(dataset, rows[i]), at};
        at += slabs[i].length;
    }
    fb3_status status = read_slabs(dataset, which, element, slabs, count, out);
    free(slabs);
    return status;
}

fb3_status fb3_dataset_read_tokens(const fb3_dataset *dataset, const int64_t *rows, int64_t count, uint32_t *tokens)
{
    return read_listed(dataset, TOKENS, (element_type){H5T_NATIVE_UINT32, sizeof *tokens}, rows, count, tokens);
}

fb3_status fb3_dataset_read_labels(const fb3_dataset *dataset, const int64_t *rows, int64_t count, float *labels)
{
    if (dataset->targets == 0) return FB3_OK;
    return read_listed(dataset, LABELS, label_type(dataset), rows, count, labels);
}

/* --- ids ---------------------------------------------------------------------------------------------------------- */

/* Ids as they are read, all of the width of the longest, padded with zeros. */
typedef struct id_block {
    element_type element;
    char *padded; /* [count, width] and a zero */
} id_block;

static fb3_status make_id_block(id_block *block, const fb3_dataset *dataset, int64_t count)
{
    size_t width = 1;
    for (int f = 0; f < dataset->files; f++)
        if (dataset->file[f].id_bytes > width) width = dataset->file[f].id_bytes;
    *block = (id_block){.element = {fb3_dataset_id_type(width), width},
                        .padded = calloc((size_t)count * width + 1, sizeof *block->padded)};
    FB3_H5(block->element.type, FB3_FAILED, "the type of /ids cannot be made");
    FB3_REQUIRE(block->padded, FB3_FAILED, "out of memory for %lld ids", (long long)count);
    return FB3_OK;
}

static void free_id_block(id_block *block)
{
    if (block->element.type >= 0) (void)H5Tclose(block->element.type);
    free(block->padded);
}

static size_t id_length(const id_block *block, int64_t i)
{
    return strnlen(block->padded + (size_t)i * block->element.width, block->element.width);
}

static fb3_status add_ids(fb3_strings *ids, const id_block *block, int64_t count)
{
    fb3_status status = FB3_OK;
    char *one = malloc(block->element.width + 1);
    FB3_REQUIRE(one, FB3_FAILED, "out of memory for an id");
    for (int64_t i = 0; i < count; i++) {
        const size_t bytes = id_length(block, i);
        memcpy(one, block->padded + (size_t)i * block->element.width, bytes);
        one[bytes] = 0;
        FB3_TRY_GOTO(fb3_strings_add(ids, one), done);
    }
done:
    free(one);
    return status;
}

/* Of `rows`, or where that is NULL of first, first + 1, ... */
static fb3_status read_ids(const fb3_dataset *dataset, const int64_t *rows, int64_t first, int64_t count,
                           fb3_strings *ids)
{
    id_block block;
    *ids = (fb3_strings){0};
    fb3_status status = make_id_block(&block, dataset, count);
    if (status == FB3_OK)
        status = rows ? read_listed(dataset, IDS, block.element, rows, count, block.padded)
                      : read_range(dataset, IDS, block.element, first, count, block.padded);
    if (status == FB3_OK) status = add_ids(ids, &block, count);
    if (status != FB3_OK) fb3_strings_free(ids);
    free_id_block(&block);
    return status;
}

fb3_status fb3_dataset_read_ids(const fb3_dataset *dataset, const int64_t *rows, int64_t count, fb3_strings *ids)
{
    return read_ids(dataset, rows, 0, count, ids);
}

fb3_status fb3_dataset_id_range(const fb3_dataset *dataset, int64_t first, int64_t count, fb3_strings *ids)
{
    return read_ids(dataset, NULL, first, count, ids);
}

/* --- a look at everything ----------------------------------------------------------------------------------------- */

static const struct fb3_dataset_file *file_of_token(const fb3_dataset *dataset, int64_t token)
{
    const struct fb3_dataset_file *file = dataset->file;
    while (token >= file->first_token + file->tokens_count) file++;
    return file;
}

static fb3_status verify_tokens(const fb3_dataset *dataset)
{
    fb3_status status = FB3_OK;
    int64_t block_tokens = FB3_DATASET_BLOCK_BYTES / (int64_t)sizeof(uint32_t), total = dataset->offsets[dataset->n];
    size_t known_bytes = (size_t)dataset->vocabulary[dataset->active - 1] + 1;
    uint32_t *block = calloc((size_t)block_tokens, sizeof *block);
    bool *known = calloc(known_bytes, sizeof *known);
    FB3_REQUIRE_GOTO(block && known, done, FB3_FAILED, "out of memory for checking a data set");
    for (int i = 0; i < dataset->active; i++) known[dataset->vocabulary[i]] = true;
    for (int64_t first = 0; first < total; first += block_tokens) {
        int64_t count = first + block_tokens < total ? block_tokens : total - first;
        FB3_TRY_GOTO(read_range(dataset, TOKENS, (element_type){H5T_NATIVE_UINT32, sizeof *block}, first, count, block),
                     done);
        for (int64_t i = 0; i < count; i++) {
            FB3_REQUIRE_GOTO(block[i] < known_bytes && known[block[i]], done, FB3_INPUT,
                             "%s has the token id %u at %lld, which is not in its /vocabulary; prepare it again",
                             file_of_token(dataset, first + i)->path, block[i], (long long)(first + i));
        }
    }
done:
    free(known);
    free(block);
    return status;
}

/* Called with the ids of a block of rows. */
typedef fb3_status (*id_visit)(void *context, const id_block *block, int64_t first, int64_t count);

static fb3_status visit_ids(const fb3_dataset *dataset, id_visit visit, void *context)
{
    enum { BLOCK_ROWS = 1 << 14 };
    id_block block;
    fb3_status status = make_id_block(&block, dataset, BLOCK_ROWS);
    for (int64_t first = 0; status == FB3_OK && first < dataset->n; first += BLOCK_ROWS) {
        int64_t count = first + BLOCK_ROWS < dataset->n ? BLOCK_ROWS : dataset->n - first;
        status = read_range(dataset, IDS, block.element, first, count, block.padded);
        if (status == FB3_OK) status = visit(context, &block, first, count);
    }
    free_id_block(&block);
    return status;
}

static uint64_t id_hash(const id_block *block, int64_t i)
{
    return fb3_hash_bytes(block->padded + (size_t)i * block->element.width, id_length(block, i));
}

static fb3_status list_hashes(void *context, const id_block *block, int64_t first, int64_t count)
{
    (void)first;
    for (int64_t i = 0; i < count; i++) FB3_TRY(fb3_hash_list_add(context, id_hash(block, i)));
    return FB3_OK;
}

/* Ids whose hashes occur more than once, with the rows where they were seen first. */
typedef struct repeats {
    const fb3_dataset *dataset;
    uint64_t *hash; // [count], ascending
    size_t count;
    int64_t *row; // [count] the first of that hash, or -1
} repeats;

/* Two ids with one hash are the same for all that anybody will ever see: of 10^7 different ids two share one in one of
 * 400,000 data sets. So the message says what is known. */
static fb3_status refuse_repeated(void *context, const id_block *block, int64_t first, int64_t count)
{
    const repeats *r = context;
    for (int64_t i = 0; i < count; i++) {
        char text[FB3_SHOWN_BYTES];
        int64_t at = fb3_hash_find(r->hash, r->count, id_hash(block, i));
        if (at < 0) continue;
        FB3_REQUIRE(r->row[at] < 0, FB3_INPUT,
                    "the samples %lld and %lld of %s and the files after it have the same id %s; ids must differ",
                    (long long)r->row[at], (long long)(first + i), r->dataset->file->path,
                    fb3_shown(text, block->padded + (size_t)i * block->element.width, id_length(block, i)));
        r->row[at] = first + i;
    }
    return FB3_OK;
}

static fb3_status verify_ids(const fb3_dataset *dataset)
{
    fb3_hash_list list = {0};
    repeats r = {.dataset = dataset};
    int64_t surplus;
    fb3_status status = FB3_OK;
    FB3_TRY_GOTO(visit_ids(dataset, list_hashes, &list), done);
    FB3_TRY_GOTO(fb3_hash_list_repeats(&list, &r.hash, &r.count, &surplus), done);
    if (r.count == 0) goto done;
    r.row = malloc(r.count * sizeof *r.row);
    FB3_REQUIRE_GOTO(r.row, done, FB3_FAILED, "out of memory for finding duplicates");
    memset(r.row, -1, r.count * sizeof *r.row);
    FB3_TRY_GOTO(visit_ids(dataset, refuse_repeated, &r), done);
done:
    fb3_hash_list_free(&list);
    free(r.hash);
    free(r.row);
    return status;
}

fb3_status fb3_dataset_verify(const fb3_dataset *dataset)
{
    FB3_TRY(verify_tokens(dataset));
    return dataset->files > 1 ? verify_ids(dataset) : FB3_OK; /* those of one file were compared when it was made */
}
