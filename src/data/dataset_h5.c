/* Reading a data set: everything that later reads rely on is checked once in fb3_dataset_open, and rows are then read
 * through hyperslabs, so that memory holds what was asked for and the offsets (shared by the ranks of a node), nothing
 * else. The file's layout is told in fb3/dataset.h; dataset_prepare.c writes it. */
#include "dataset_file.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_BYTES = 4 << 20,     /* whole columns are read in pieces of this size */
    MAX_SLAB_TOKENS = 1 << 20, /* neighbours are merged into one read up to this */
    SHA256_DIGITS = FB3_SHA256_HEX - 1,
};

char *fb3_dataset_join_columns(const fb3_strings *columns)
{
    size_t bytes = 1;
    for (int i = 0; i < columns->count; i++) bytes += strlen(columns->item[i]) + 1;
    char *text = calloc(bytes, 1), *end = text;
    for (int i = 0; text && i < columns->count; i++) {
        if (i > 0) *end++ = '\n';
        end = stpcpy(end, columns->item[i]);
    }
    return text;
}

fb3_status fb3_dataset_split_columns(fb3_strings *columns, const char *text)
{
    fb3_status status = FB3_OK;
    char *copy = strdup(text), *rest = copy;
    FB3_REQUIRE(copy, FB3_FAILED, "out of memory for column names");
    for (char *name = *text ? strsep(&rest, "\n") : NULL; name; name = strsep(&rest, "\n")) {
        FB3_TRY_GOTO(fb3_strings_add(columns, name), done);
    }
done:
    free(copy);
    return status;
}

static fb3_status read_digest(hid_t file, const char *name, char hex[FB3_SHA256_HEX])
{
    char *text;
    FB3_TRY(fb3_h5_get_text(file, name, SHA256_DIGITS, &text));
    bool good = strlen(text) == SHA256_DIGITS && strspn(text, "0123456789abcdef") == SHA256_DIGITS;
    if (good) memcpy(hex, text, FB3_SHA256_HEX);
    free(text);
    FB3_REQUIRE(good, FB3_INPUT, "attribute %s is not a sha256; prepare the data set again", name);
    return FB3_OK;
}

static fb3_status read_attributes(fb3_dataset *dataset, hid_t file)
{
    int64_t complete = 0, max_length = 0;
    char *text;
    FB3_TRY(fb3_h5_get_text(file, "format", FB3_DATASET_MAX_TEXT_BYTES, &text));
    bool ours = strcmp(text, FB3_DATASET_FORMAT) == 0;
    free(text);
    FB3_REQUIRE(ours, FB3_INPUT, "the format attribute is not \"%s\"; prepare the data set with this program",
                FB3_DATASET_FORMAT);
    FB3_TRY(fb3_h5_get_int(file, "complete", &complete));
    FB3_REQUIRE(complete == 1, FB3_INPUT, "the file was not written to its end; prepare the data set again");
    FB3_TRY(read_digest(file, "tokenizer_sha256", dataset->tokenizer_sha256));
    FB3_TRY(read_digest(file, "source_sha256", dataset->source_sha256));
    FB3_TRY(fb3_h5_get_int(file, "max_length", &max_length));
    FB3_REQUIRE(max_length >= 1 && max_length <= FB3_DATASET_MAX_LENGTH, FB3_INPUT,
                "max_length %lld is out of range; prepare the data set again", (long long)max_length);
    dataset->max_length = (int)max_length;
    FB3_TRY(fb3_h5_get_text(file, "label_columns", FB3_DATASET_MAX_TEXT_BYTES, &text));
    fb3_status status = fb3_dataset_split_columns(&dataset->label_columns, text);
    free(text);
    return status;
}

/* The one dimension of a list. */
static fb3_status list_length(hid_t file, const char *name, int64_t *length)
{
    int rank;
    hsize_t dims[1];
    FB3_TRY(fb3_h5_shape(file, name, 1, &rank, dims));
    *length = (int64_t)dims[0]; /* fits: the file has as many bytes at least */
    return FB3_OK;
}

typedef struct element {
    H5T_class_t class;
    size_t bytes;
    bool is_unsigned, is_variable_text;
} element;

static fb3_status element_of(hid_t dataset, element *kind)
{
    hid_t type = H5Dget_type(dataset);
    FB3_H5(type, FB3_INPUT, "the type of a data set cannot be read");
    *kind = (element){.class = H5Tget_class(type), .bytes = H5Tget_size(type)};
    kind->is_unsigned = kind->class == H5T_INTEGER && H5Tget_sign(type) == H5T_SGN_NONE;
    kind->is_variable_text = kind->class == H5T_STRING && H5Tis_variable_str(type) != 0;
    (void)H5Tclose(type);
    return FB3_OK;
}

static fb3_status open_tokens(struct fb3_dataset_file *file)
{
    element kind = {0};
    FB3_TRY(list_length(file->file, "tokens", &file->tokens_count));
    FB3_TRY(fb3_h5_open_dataset(&file->tokens, file->file, "tokens"));
    FB3_TRY(element_of(file->tokens, &kind));
    FB3_REQUIRE(kind.is_unsigned && (kind.bytes == sizeof(uint16_t) || kind.bytes == sizeof(uint32_t)), FB3_INPUT,
                "/tokens must be uint16 or uint32; prepare the data set again");
    return FB3_OK;
}

static fb3_status open_labels(fb3_dataset *dataset, struct fb3_dataset_file *file)
{
    element kind = {0};
    int rank;
    hsize_t dims[2];
    FB3_TRY(fb3_h5_shape(file->file, "labels", 2, &rank, dims));
    FB3_REQUIRE(rank == 2 && dims[0] == (hsize_t)dataset->n && dims[1] == (hsize_t)dataset->label_columns.count &&
                    dims[1] <= FB3_MAX_TARGETS,
                FB3_INPUT, "/labels must be [%lld, %d], one row a sample; prepare the data set again",
                (long long)dataset->n, dataset->label_columns.count);
    FB3_TRY(fb3_h5_open_dataset(&file->labels, file->file, "labels"));
    FB3_TRY(element_of(file->labels, &kind));
    FB3_REQUIRE(kind.class == H5T_FLOAT, FB3_INPUT, "/labels must be float32; prepare the data set again");
    dataset->targets = (int)dims[1];
    return FB3_OK;
}

static fb3_status open_ids(const fb3_dataset *dataset, struct fb3_dataset_file *file)
{
    element kind = {0};
    int64_t count;
    FB3_TRY(list_length(file->file, "ids", &count));
    FB3_REQUIRE(count == dataset->n, FB3_INPUT, "/ids has %lld entries for %lld samples; prepare the data set again",
                (long long)count, (long long)dataset->n);
    FB3_TRY(fb3_h5_open_dataset(&file->ids, file->file, "ids"));
    FB3_TRY(element_of(file->ids, &kind));
    FB3_REQUIRE(kind.class == H5T_STRING && !kind.is_variable_text && kind.bytes <= FB3_DATASET_MAX_ID_BYTES, FB3_INPUT,
                "/ids must be texts of a fixed size up to %d bytes; prepare the data set again",
                FB3_DATASET_MAX_ID_BYTES);
    file->id_bytes = kind.bytes;
    return FB3_OK;
}

static fb3_status open_folds(fb3_dataset *dataset, struct fb3_dataset_file *file)
{
    element kind = {0};
    int64_t count;
    dataset->has_folds = fb3_h5_has(file->file, "folds");
    if (!dataset->has_folds) return FB3_OK;
    FB3_TRY(list_length(file->file, "folds", &count));
    FB3_REQUIRE(count == dataset->n, FB3_INPUT, "/folds has %lld entries for %lld samples; prepare the data set again",
                (long long)count, (long long)dataset->n);
    FB3_TRY(fb3_h5_open_dataset(&file->folds, file->file, "folds"));
    FB3_TRY(element_of(file->folds, &kind));
    FB3_REQUIRE(kind.class == H5T_INTEGER && kind.bytes == sizeof(int8_t), FB3_INPUT,
                "/folds must be int8; prepare the data set again");
    return FB3_OK;
}

static fb3_status read_vocabulary(fb3_dataset *dataset, struct fb3_dataset_file *file)
{
    int64_t active;
    FB3_TRY(list_length(file->file, "vocabulary", &active));
    FB3_REQUIRE(active >= 1 && active <= FB3_DATASET_MAX_VOCABULARY && active <= file->tokens_count, FB3_INPUT,
                "/vocabulary has %lld ids for %lld tokens; prepare the data set again", (long long)active,
                (long long)file->tokens_count);
    dataset->vocabulary = malloc((size_t)active * sizeof *dataset->vocabulary);
    FB3_REQUIRE(dataset->vocabulary, FB3_FAILED, "out of memory for a vocabulary of %lld ids", (long long)active);
    hsize_t dims[1] = {(hsize_t)active};
    FB3_TRY(fb3_h5_read(file->file, "vocabulary", H5T_NATIVE_UINT32, 1, dims, dataset->vocabulary));
    dataset->active = (int)active;
    for (int64_t i = 1; i < active; i++) {
        FB3_REQUIRE(dataset->vocabulary[i - 1] < dataset->vocabulary[i], FB3_INPUT,
                    "/vocabulary does not ascend at entry %lld; prepare the data set again", (long long)i);
    }
    FB3_REQUIRE(dataset->vocabulary[active - 1] < FB3_DATASET_MAX_VOCABULARY, FB3_INPUT,
                "/vocabulary has the token id %u, which no tokenizer has; prepare the data set again",
                dataset->vocabulary[active - 1]);
    return FB3_OK;
}

static fb3_status open_columns(fb3_dataset *dataset, struct fb3_dataset_file *file)
{
    int64_t offsets;
    FB3_TRY(read_attributes(dataset, file->file));
    FB3_TRY(list_length(file->file, "offsets", &offsets));
    FB3_REQUIRE(
        offsets >= 2 && offsets - 1 <= INT32_MAX, FB3_INPUT,
        "/offsets has %lld entries, one more than samples, of which there are 1 to %d; prepare the data set again",
        (long long)offsets, INT32_MAX);
    dataset->n = offsets - 1;
    FB3_TRY(open_tokens(file));
    FB3_TRY(open_labels(dataset, file));
    FB3_TRY(open_ids(dataset, file));
    FB3_TRY(open_folds(dataset, file));
    return read_vocabulary(dataset, file);
}

/* offsets [n+1] start at 0, end at the number of tokens, and each sample has 1..max_length of them. */
static fb3_status check_offsets(const fb3_dataset *dataset, const int64_t *offsets, int64_t tokens)
{
    FB3_REQUIRE(
        offsets[0] == 0 && offsets[dataset->n] == tokens, FB3_INPUT,
        "/offsets runs from %lld to %lld instead of 0 to %lld, the number of tokens; prepare the data set again",
        (long long)offsets[0], (long long)offsets[dataset->n], (long long)tokens);
    for (int64_t row = 0; row < dataset->n; row++) {
        /* The start is 0 or more by induction, so the difference cannot overflow. */
        bool good = offsets[row] < offsets[row + 1] && offsets[row + 1] - offsets[row] <= dataset->max_length;
        FB3_REQUIRE(
            good, FB3_INPUT,
            "/offsets gives row %lld the tokens %lld to %lld, but rows have 1 to %d; prepare the data set again",
            (long long)row, (long long)offsets[row], (long long)offsets[row + 1], dataset->max_length);
    }
    return FB3_OK;
}

static fb3_status check_labels(const fb3_dataset *dataset, const struct fb3_dataset_file *file)
{
    if (dataset->targets == 0) return FB3_OK;
    int64_t block_rows = BLOCK_BYTES / (int64_t)sizeof(float) / dataset->targets;
    float *block = malloc((size_t)(block_rows * dataset->targets) * sizeof *block); // [block_rows, Y]
    FB3_REQUIRE(block, FB3_FAILED, "out of memory for reading labels");
    fb3_status status = FB3_OK;
    for (int64_t first = 0; first < dataset->n; first += block_rows) {
        int64_t rows = first + block_rows < dataset->n ? block_rows : dataset->n - first;
        FB3_TRY_GOTO(fb3_h5_read_rows(file->labels, H5T_NATIVE_FLOAT, (hsize_t)first, (hsize_t)rows, block), done);
        for (int64_t i = 0; i < rows * dataset->targets; i++) {
            FB3_REQUIRE_GOTO(
                isfinite(block[i]), done, FB3_INPUT,
                "/labels has a value that is not finite in row %lld, column %s; prepare the data set again",
                (long long)(first + i / dataset->targets), dataset->label_columns.item[i % dataset->targets]);
        }
    }
done:
    free(block);
    return status;
}

static fb3_status read_offsets(const fb3_dataset *dataset, const struct fb3_dataset_file *file, int64_t *offsets)
{
    hsize_t dims[1] = {(hsize_t)dataset->n + 1};
    FB3_TRY(fb3_h5_read(file->file, "offsets", H5T_NATIVE_INT64, 1, dims, offsets));
    FB3_TRY(check_offsets(dataset, offsets, file->tokens_count));
    return check_labels(dataset, file);
}

static fb3_status unless_usable(fb3_status status, const fb3_dataset *dataset)
{
    return status == FB3_OK ? FB3_OK : fb3_fail_context(status, "%s is not a usable data set", dataset->file->path);
}

/* The collective part; `mine` is how this rank fared before it. */
static fb3_status share_offsets(fb3_dataset *dataset, fb3_node_memory *memory, fb3_status mine)
{
    void *shared = NULL;
    FB3_TRY(memory->publish(memory->context, mine)); /* all have the file open, or none goes on */
    assert(dataset && dataset->file);
    FB3_TRY(memory->allocate(memory->context, ((size_t)dataset->n + 1) * sizeof(int64_t), &shared));
    mine = memory->writer ? unless_usable(read_offsets(dataset, dataset->file, shared), dataset) : FB3_OK;
    FB3_TRY(memory->publish(memory->context, mine));
    dataset->offsets = shared;
    return FB3_OK;
}

/* This rank's part: the file is there and its columns fit together. */
static fb3_status open_file(fb3_dataset **dataset, const char *h5_path)
{
    fb3_dataset *opened = calloc(1, sizeof *opened);
    struct fb3_dataset_file *file = calloc(1, sizeof *file);
    if (opened) opened->file = file;
    *dataset = opened;
    if (!opened || !file) {
        free(file);
        if (opened) opened->file = NULL;
        return fb3_fail(FB3_FAILED, "out of memory for a data set");
    }
    file->file = file->tokens = file->labels = file->ids = file->folds = H5I_INVALID_HID;
    file->path = strdup(h5_path);
    FB3_REQUIRE(file->path, FB3_FAILED, "out of memory for a data set");
    FB3_TRY(fb3_h5_open(&file->file, h5_path));
    return unless_usable(open_columns(opened, file), opened);
}

fb3_status fb3_dataset_open(fb3_dataset **dataset, const char *h5_path, fb3_node_memory *memory)
{
    fb3_dataset *opened = NULL;
    fb3_status mine = open_file(&opened, h5_path);
    fb3_status status = share_offsets(opened, memory, mine);
    *dataset = status == FB3_OK ? opened : NULL;
    if (status != FB3_OK) fb3_dataset_close(opened);
    return status;
}

void fb3_dataset_close(fb3_dataset *dataset)
{
    if (!dataset) return;
    struct fb3_dataset_file *file = dataset->file;
    if (file) {
        if (file->file >= 0) (void)fb3_h5_close(file->file, file->path); /* closes what was opened in it, too */
        free(file->path);
        free(file);
    }
    fb3_strings_free(&dataset->label_columns);
    free(dataset->vocabulary);
    free(dataset);
}

/* A run of file elements and where it goes in the caller's array, both counted in elements. */
typedef struct slab {
    int64_t start, length, out;
} slab;

static int compare_slabs(const void *left, const void *right)
{
    const slab *a = left, *b = right;
    if (a->start != b->start) return a->start < b->start ? -1 : 1;
    return a->out < b->out ? -1 : a->out > b->out;
}

/* Reads slabs in the file's order, neighbours together. An element has `width` bytes in memory. */
static fb3_status read_slabs(hid_t dataset, hid_t type, size_t width, slab *slabs, int64_t count, char *out)
{
    fb3_status status = FB3_OK;
    char *run = NULL;
    int64_t capacity = 0;
    qsort(slabs, (size_t)count, sizeof *slabs, compare_slabs);
    for (int64_t first = 0, end; first < count; first = end) {
        int64_t length = slabs[first].length;
        for (end = first + 1; end < count && slabs[end].start == slabs[first].start + length &&
                              length + slabs[end].length <= MAX_SLAB_TOKENS;
             end++) {
            length += slabs[end].length;
        }
        if (end == first + 1) {
            FB3_TRY_GOTO(fb3_h5_read_rows(dataset, type, (hsize_t)slabs[first].start, (hsize_t)length,
                                          out + (size_t)slabs[first].out * width),
                         done);
            continue;
        }
        if (!run || length > capacity) {
            char *grown = realloc(run, (size_t)length * width);
            FB3_REQUIRE_GOTO(grown, done, FB3_FAILED, "out of memory for reading %lld elements", (long long)length);
            run = grown;
            capacity = length;
        }
        FB3_TRY_GOTO(fb3_h5_read_rows(dataset, type, (hsize_t)slabs[first].start, (hsize_t)length, run), done);
        for (int64_t i = first; i < end; i++) {
            memcpy(out + (size_t)slabs[i].out * width, run + (size_t)(slabs[i].start - slabs[first].start) * width,
                   (size_t)slabs[i].length * width);
        }
    }
done:
    free(run);
    return status;
}

static slab token_slab(const fb3_dataset *dataset, int64_t row, int64_t out)
{
    return (slab){dataset->offsets[row], fb3_dataset_length(dataset, row), out};
}

static slab label_slab(const fb3_dataset *dataset, int64_t row, int64_t out)
{
    (void)dataset;
    return (slab){row, 1, out};
}

static fb3_status read_listed_rows(const fb3_dataset *dataset, slab (*slab_of)(const fb3_dataset *, int64_t, int64_t),
                                   hid_t column, hid_t type, size_t width, const int64_t *rows, int64_t count,
                                   void *out)
{
    if (count == 0) return FB3_OK;
    slab *slabs = malloc((size_t)count * sizeof *slabs);
    FB3_REQUIRE(slabs, FB3_FAILED, "out of memory for reading %lld rows", (long long)count);
    int64_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        assert(rows[i] >= 0 && rows[i] < dataset->n);
        slabs[i] = slab_of(dataset, rows[i], at);
        at += slabs[i].length;
    }
    fb3_status status = read_slabs(column, type, width, slabs, count, out);
    free(slabs);
    return status;
}

fb3_status fb3_dataset_read_tokens(const fb3_dataset *dataset, const int64_t *rows, int64_t count, uint32_t *tokens)
{
    return read_listed_rows(dataset, token_slab, dataset->file->tokens, H5T_NATIVE_UINT32, sizeof *tokens, rows, count,
                            tokens);
}

fb3_status fb3_dataset_read_labels(const fb3_dataset *dataset, const int64_t *rows, int64_t count, float *labels)
{
    assert(count <= dataset->n || rows);
    if (count == 0 || dataset->targets == 0) return FB3_OK;
    if (!rows) return fb3_h5_read_rows(dataset->file->labels, H5T_NATIVE_FLOAT, 0, (hsize_t)count, labels);
    return read_listed_rows(dataset, label_slab, dataset->file->labels, H5T_NATIVE_FLOAT,
                            (size_t)dataset->targets * sizeof *labels, rows, count, labels);
}

fb3_status fb3_dataset_read_ids(const fb3_dataset *dataset, int64_t first, int64_t count, fb3_strings *ids)
{
    *ids = (fb3_strings){0};
    if (count == 0) return FB3_OK;
    assert(first >= 0 && count > 0 && count <= dataset->n - first);
    size_t width = dataset->file->id_bytes;
    fb3_status status = FB3_OK;
    hid_t type = H5Dget_type(dataset->file->ids);
    char *padded = malloc((size_t)count * width), *one = calloc(width + 1, 1);
    FB3_H5_GOTO(type, done, FB3_INPUT, "the type of /ids cannot be read");
    FB3_REQUIRE_GOTO(padded && one, done, FB3_FAILED, "out of memory for %lld ids", (long long)count);
    FB3_TRY_GOTO(fb3_h5_read_rows(dataset->file->ids, type, (hsize_t)first, (hsize_t)count, padded), done);
    for (int64_t i = 0; i < count; i++) {
        memcpy(one, padded + (size_t)i * width, width);
        FB3_TRY_GOTO(fb3_strings_add(ids, one), done);
    }
done:
    if (type >= 0) (void)H5Tclose(type);
    free(padded);
    free(one);
    if (status != FB3_OK) fb3_strings_free(ids);
    return status;
}

fb3_status fb3_dataset_read_folds(const fb3_dataset *dataset, int8_t *folds)
{
    assert(dataset->has_folds);
    return fb3_h5_read_rows(dataset->file->folds, H5T_NATIVE_INT8, 0, (hsize_t)dataset->n, folds);
}

fb3_status fb3_dataset_verify(const fb3_dataset *dataset)
{
    fb3_status status = FB3_OK;
    int64_t block_tokens = BLOCK_BYTES / (int64_t)sizeof(uint32_t), total = dataset->offsets[dataset->n];
    size_t known_bytes = (size_t)dataset->vocabulary[dataset->active - 1] + 1;
    uint32_t *block = malloc((size_t)block_tokens * sizeof *block);
    bool *known = calloc(known_bytes, sizeof *known);
    FB3_REQUIRE_GOTO(block && known, done, FB3_FAILED, "out of memory for checking a data set");
    for (int i = 0; i < dataset->active; i++) known[dataset->vocabulary[i]] = true;
    for (int64_t first = 0; first < total; first += block_tokens) {
        int64_t count = first + block_tokens < total ? block_tokens : total - first;
        FB3_TRY_GOTO(fb3_h5_read_rows(dataset->file->tokens, H5T_NATIVE_UINT32, (hsize_t)first, (hsize_t)count, block),
                     done);
        for (int64_t i = 0; i < count; i++) {
            FB3_REQUIRE_GOTO(block[i] < known_bytes && known[block[i]], done, FB3_INPUT,
                             "%s has the token id %u at %lld, which is not in its /vocabulary; prepare it again",
                             dataset->file->path, block[i], (long long)(first + i));
        }
    }
done:
    free(known);
    free(block);
    return status;
}
