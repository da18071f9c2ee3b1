/* Opening a data set: everything that later reads rely on is checked once, here; rows are then read through hyperslabs
 * (dataset_read.c), so that memory holds what was asked for and the offsets (shared by the ranks of a node), nothing
 * else. Several files are opened one by one, each a data set of its own, and joined. The file's layout is told in
 * fb3/dataset.h; dataset_prepare.c writes it. */
#include "dataset_file.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHA256_DIGITS = FB3_SHA256_HEX - 1 };

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

hid_t fb3_dataset_id_type(size_t bytes)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type < 0) return H5I_INVALID_HID;
    if (H5Tset_size(type, bytes) >= 0 && H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0 &&
        H5Tset_cset(type, H5T_CSET_UTF8) >= 0)
        return type;
    (void)H5Tclose(type);
    return H5I_INVALID_HID;
}

fb3_status fb3_dataset_sources_sha256(const char (*sha256)[FB3_SHA256_HEX], int count, char hex[FB3_SHA256_HEX])
{
    memmove(hex, sha256[0], FB3_SHA256_HEX);
    return count == 1 ? FB3_OK : fb3_sha256_memory(sha256, (size_t)count * sizeof *sha256, hex);
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

/* offsets [rows + 1] of a file start at 0, end at its number of tokens, and each sample has 1..max_length of them. */
static fb3_status check_offsets(const struct fb3_dataset_file *file, const int64_t *offsets, int max_length)
{
    FB3_REQUIRE(
        offsets[0] == 0 && offsets[file->rows] == file->tokens_count, FB3_INPUT,
        "/offsets runs from %lld to %lld instead of 0 to %lld, the number of tokens; prepare the data set again",
        (long long)offsets[0], (long long)offsets[file->rows], (long long)file->tokens_count);
    for (int64_t row = 0; row < file->rows; row++) {
        /* The start is 0 or more by induction, so the difference cannot overflow. */
        bool good = offsets[row] < offsets[row + 1] && offsets[row + 1] - offsets[row] <= max_length;
        FB3_REQUIRE(
            good, FB3_INPUT,
            "/offsets gives row %lld the tokens %lld to %lld, but rows have 1 to %d; prepare the data set again",
            (long long)row, (long long)offsets[row], (long long)offsets[row + 1], max_length);
    }
    return FB3_OK;
}

static fb3_status check_labels(const fb3_dataset *dataset, const struct fb3_dataset_file *file)
{
    if (dataset->targets == 0) return FB3_OK;
    int64_t block_rows = FB3_DATASET_BLOCK_BYTES / (int64_t)sizeof(float) / dataset->targets;
    float *block = malloc((size_t)(block_rows * dataset->targets) * sizeof *block); // [block_rows, Y]
    FB3_REQUIRE(block, FB3_FAILED, "out of memory for reading labels");
    fb3_status status = FB3_OK;
    for (int64_t first = 0; first < file->rows; first += block_rows) {
        int64_t rows = first + block_rows < file->rows ? block_rows : file->rows - first;
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

/* Those of one file, from the place of its first row on, counted in the tokens of the whole. */
static fb3_status read_offsets(const fb3_dataset *dataset, const struct fb3_dataset_file *file, int64_t *offsets)
{
    hsize_t dims[1] = {(hsize_t)file->rows + 1};
    int64_t *mine = offsets + file->first_row;
    FB3_TRY(fb3_h5_read(file->file, "offsets", H5T_NATIVE_INT64, 1, dims, mine));
    FB3_TRY(check_offsets(file, mine, dataset->max_length));
    for (int64_t row = 0; row <= file->rows; row++) mine[row] += file->first_token;
    return check_labels(dataset, file);
}

static fb3_status unless_usable(fb3_status status, const struct fb3_dataset_file *file)
{
    return status == FB3_OK ? FB3_OK : fb3_fail_context(status, "%s is not a usable data set", file->path);
}

static fb3_status read_all_offsets(const fb3_dataset *dataset, int64_t *offsets)
{
    for (int f = 0; f < dataset->files; f++)
        FB3_TRY(unless_usable(read_offsets(dataset, &dataset->file[f], offsets), &dataset->file[f]));
    return FB3_OK;
}

/* The collective part; `mine` is how this rank fared before it. */
static fb3_status share_offsets(fb3_dataset *dataset, fb3_node_memory *memory, fb3_status mine)
{
    void *shared = NULL;
    FB3_TRY(memory->publish(memory->context, mine)); /* all have the file open, or none goes on */
    assert(dataset && dataset->file);
    FB3_TRY(memory->allocate(memory->context, ((size_t)dataset->n + 1) * sizeof(int64_t), &shared));
    mine = memory->writer ? read_all_offsets(dataset, shared) : FB3_OK;
    FB3_TRY(memory->publish(memory->context, mine));
    dataset->offsets = shared;
    return FB3_OK;
}

static void close_file(struct fb3_dataset_file *file)
{
    if (file->file >= 0) (void)fb3_h5_close(file->file, file->path); /* closes what was opened in it, too */
    free(file->path);
}

/* One file is there and its columns fit together. */
static fb3_status open_file(fb3_dataset **dataset, const char *h5_path)
{
    fb3_dataset *opened = calloc(1, sizeof *opened);
    struct fb3_dataset_file *file = calloc(1, sizeof *file);
    *dataset = opened;
    if (!opened || !file) {
        free(file);
        return fb3_fail(FB3_FAILED, "out of memory for a data set");
    }
    opened->file = file;
    opened->files = 1;
    file->file = file->tokens = file->labels = file->ids = file->folds = H5I_INVALID_HID;
    file->path = strdup(h5_path);
    FB3_REQUIRE(file->path, FB3_FAILED, "out of memory for a data set");
    FB3_TRY(fb3_h5_open(&file->file, h5_path));
    FB3_TRY(unless_usable(open_columns(opened, file), file));
    file->rows = opened->n;
    return FB3_OK;
}

/* --- several files as one ----------------------------------------------------------------------------------------- */

static bool same_columns(const fb3_strings *a, const fb3_strings *b)
{
    bool same = a->count == b->count;
    for (int i = 0; same && i < a->count; i++) same = strcmp(a->item[i], b->item[i]) == 0;
    return same;
}

static fb3_status check_alike(const fb3_dataset *whole, const fb3_dataset *part)
{
    const char *first = whole->file->path, *path = part->file->path;
    FB3_REQUIRE(strcmp(whole->tokenizer_sha256, part->tokenizer_sha256) == 0, FB3_INPUT,
                "%s was made with another tokenizer than %s; prepare both with one", path, first);
    FB3_REQUIRE(same_columns(&whole->label_columns, &part->label_columns), FB3_INPUT,
                "%s has other label columns than %s; prepare both with the same", path, first);
    FB3_REQUIRE(whole->has_folds == part->has_folds, FB3_INPUT,
                "of %s and %s only one has a fold column; prepare both with one, or none", first, path);
    FB3_REQUIRE(whole->n <= INT32_MAX - part->n, FB3_INPUT, "the data sets up to %s have more than %d samples", path,
                INT32_MAX);
    return FB3_OK;
}

/* The union of two ascending lists. */
static fb3_status join_vocabularies(fb3_dataset *whole, const fb3_dataset *part)
{
    size_t a = 0, b = 0, n = 0, ours = (size_t)whole->active, theirs = (size_t)part->active;
    uint32_t *both = malloc((ours + theirs) * sizeof *both);
    FB3_REQUIRE(both, FB3_FAILED, "out of memory for a vocabulary");
    while (a < ours || b < theirs) {
        bool take_ours = b == theirs || (a < ours && whole->vocabulary[a] <= part->vocabulary[b]);
        uint32_t id = take_ours ? whole->vocabulary[a++] : part->vocabulary[b++];
        if (n == 0 || both[n - 1] != id) both[n++] = id;
    }
    free(whole->vocabulary);
    whole->vocabulary = both;
    whole->active = (int)n;
    return FB3_OK;
}

/* Moves the one file of `part` to the end of `whole`. */
static fb3_status join(fb3_dataset *whole, fb3_dataset *part)
{
    FB3_TRY(check_alike(whole, part));
    FB3_TRY(join_vocabularies(whole, part));
    struct fb3_dataset_file *files = realloc(whole->file, ((size_t)whole->files + 1) * sizeof *files);
    FB3_REQUIRE(files, FB3_FAILED, "out of memory for a data set");
    whole->file = files;
    const struct fb3_dataset_file *last = &files[whole->files - 1];
    struct fb3_dataset_file *added = &files[whole->files++];
    *added = *part->file;
    part->files = 0;
    added->first_row = whole->n;
    added->first_token = last->first_token + last->tokens_count;
    whole->n += added->rows;
    if (part->max_length > whole->max_length) whole->max_length = part->max_length;
    return FB3_OK;
}

/* This rank's part of opening. *dataset is set in any case, unless there is no memory for it. */
static fb3_status open_all(fb3_dataset **dataset, const fb3_strings *paths)
{
    fb3_status status = FB3_OK;
    char(*sources)[FB3_SHA256_HEX] = calloc((size_t)paths->count, sizeof *sources);
    FB3_REQUIRE(sources, FB3_FAILED, "out of memory for a data set");
    FB3_TRY_GOTO(open_file(dataset, paths->item[0]), done);
    memcpy(sources[0], (*dataset)->source_sha256, FB3_SHA256_HEX);
    for (int f = 1; f < paths->count; f++) {
        fb3_dataset *part = NULL;
        status = open_file(&part, paths->item[f]);
        if (status == FB3_OK) memcpy(sources[f], part->source_sha256, FB3_SHA256_HEX);
        if (status == FB3_OK) status = join(*dataset, part);
        fb3_dataset_close(part);
        if (status != FB3_OK) goto done;
    }
    status = fb3_dataset_sources_sha256(sources, paths->count, (*dataset)->source_sha256);
done:
    free(sources);
    return status;
}

fb3_status fb3_dataset_open_files(fb3_dataset **dataset, const fb3_strings *h5_paths, fb3_node_memory *memory)
{
    fb3_dataset *opened = NULL;
    fb3_status mine = open_all(&opened, h5_paths);
    fb3_status status = memory ? share_offsets(opened, memory, mine) : mine;
    *dataset = status == FB3_OK ? opened : NULL;
    if (status != FB3_OK) fb3_dataset_close(opened);
    return status;
}

fb3_status fb3_dataset_open(fb3_dataset **dataset, const char *h5_path, fb3_node_memory *memory)
{
    char *path = (char *)h5_path; /* a list of one, which is only read */
    return fb3_dataset_open_files(dataset, &(fb3_strings){.item = &path, .count = 1}, memory);
}

void fb3_dataset_close(fb3_dataset *dataset)
{
    if (!dataset) return;
    for (int f = 0; f < dataset->files; f++) close_file(&dataset->file[f]);
    free(dataset->file);
    fb3_strings_free(&dataset->label_columns);
    free(dataset->vocabulary);
    free(dataset);
}
