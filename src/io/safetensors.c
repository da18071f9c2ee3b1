/* Reading model.safetensors (format: github.com/huggingface/safetensors, README "Format").
 *
 *   8 bytes   N, little-endian
 *   N bytes   JSON: {"name": {"dtype": "F16", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {}}
 *   the rest  the tensors, row major, without holes or overlaps; offsets count from here
 *
 * Everything in the header is checked against the file's size, as the reference reader does. */
#include "tensor_file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum {
    LENGTH_BYTES = 8,
    HEADER_MAX = 16 << 20, /* the format allows 100 MB; a DeBERTa's header has some 50 KB */
};

static const char METADATA[] = "__metadata__";

typedef struct byte_range {
    int64_t begin, end; /* in bytes of the data */
} byte_range;

typedef struct file_dtype {
    const char *name;
    int bytes;
    fb3_file_dtype dtype;
} file_dtype;

static const file_dtype file_dtypes[] = {
    {"F32", 4, FB3_FILE_F32},    {"F16", 2, FB3_FILE_F16},       {"BF16", 2, FB3_FILE_BF16},
    {"F64", 8, FB3_FILE_F64},    {"I64", 8, FB3_FILE_I64},       {"I32", 4, FB3_FILE_OTHER},
    {"I16", 2, FB3_FILE_OTHER},  {"I8", 1, FB3_FILE_OTHER},      {"U64", 8, FB3_FILE_OTHER},
    {"U32", 4, FB3_FILE_OTHER},  {"U16", 2, FB3_FILE_OTHER},     {"U8", 1, FB3_FILE_OTHER},
    {"BOOL", 1, FB3_FILE_OTHER}, {"F8_E4M3", 1, FB3_FILE_OTHER}, {"F8_E5M2", 1, FB3_FILE_OTHER},
};

static const file_dtype *dtype_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof file_dtypes / sizeof file_dtypes[0]; i++)
        if (name && strcmp(name, file_dtypes[i].name) == 0) return &file_dtypes[i];
    return NULL;
}

/* A non-negative integer of the header; -1 for anything else. */
static int64_t size_of(const json_t *item)
{
    return json_is_integer(item) && json_integer_value(item) >= 0 ? (int64_t)json_integer_value(item) : -1;
}

static fb3_status parse_shape(fb3_tensor *tensor, const json_t *shape, const char *name, const char *path)
{
    FB3_REQUIRE(json_is_array(shape), FB3_INPUT, "%s: tensor %s has no shape; the header is damaged", path, name);
    size_t dims = json_array_size(shape);
    FB3_REQUIRE(dims <= FB3_TENSOR_MAX_DIMS, FB3_INPUT,
                "%s: tensor %s has %zu dimensions, at most %d are read; it is not of a DeBERTa", path, name, dims,
                FB3_TENSOR_MAX_DIMS);
    tensor->dims = (int)dims;
    for (size_t d = 0; d < dims; d++) tensor->shape[d] = size_of(json_array_get(shape, d));
    FB3_REQUIRE(fb3_shape_elements(tensor->dims, tensor->shape, &tensor->elements), FB3_INPUT,
                "%s: the shape of tensor %s is not possible; the header is damaged", path, name);
    fb3_shape_strides(tensor->dims, tensor->shape, tensor->stride);
    return FB3_OK;
}

/* The header while it is read. */
typedef struct header_layout {
    fb3_tensor_file *file;
    int64_t data;       /* where the tensors begin in the file */
    byte_range *ranges; /* parallel to file->tensor */
} header_layout;

static fb3_status parse_tensor(header_layout *layout, const char *key, const json_t *entry)
{
    fb3_tensor_file *file = layout->file;
    char name[FB3_SHOWN_BYTES], shown[FB3_SHOWN_BYTES];
    fb3_tensor tensor = {0};
    fb3_shown(name, key, strlen(key));
    FB3_REQUIRE(json_is_object(entry), FB3_INPUT, "%s: entry %s is not an object; the header is damaged", file->path,
                name);
    const char *dtype_name = json_string_value(json_object_get(entry, "dtype"));
    const file_dtype *dtype = dtype_by_name(dtype_name);
    FB3_REQUIRE(dtype, FB3_INPUT, "%s: tensor %s has the type '%s', which is not known; save it as float32", file->path,
                name, dtype_name ? fb3_shown(shown, dtype_name, strlen(dtype_name)) : "");
    tensor.dtype = dtype->dtype;
    FB3_TRY(parse_shape(&tensor, json_object_get(entry, "shape"), name, file->path));

    const json_t *offsets = json_object_get(entry, "data_offsets");
    byte_range range = {-1, -1};
    int64_t bytes, size = file->file_bytes - layout->data;
    if (json_is_array(offsets) && json_array_size(offsets) == 2) {
        range.begin = size_of(json_array_get(offsets, 0));
        range.end = size_of(json_array_get(offsets, 1));
    }
    FB3_REQUIRE(range.begin >= 0 && range.end >= range.begin, FB3_INPUT,
                "%s: tensor %s has no valid data_offsets; the header is damaged", file->path, name);
    FB3_REQUIRE(range.end <= size, FB3_INPUT,
                "%s: tensor %s ends at byte %lld of the data, but there are only %lld; the file is incomplete, "
                "download or copy it again",
                file->path, name, (long long)range.end, (long long)size);
    FB3_REQUIRE(!__builtin_mul_overflow(tensor.elements, (int64_t)dtype->bytes, &bytes) &&
                    bytes == range.end - range.begin,
                FB3_INPUT, "%s: tensor %s has %lld elements of type %s in %lld bytes; the header is damaged",
                file->path, name, (long long)tensor.elements, dtype->name, (long long)(range.end - range.begin));
    tensor.file_offset = layout->data + range.begin;
    FB3_TRY(fb3_tensor_file_add(file, &tensor, key, strlen(key)));
    layout->ranges[file->count - 1] = range;
    return FB3_OK;
}

static int compare_ranges(const void *a, const void *b)
{
    const byte_range *left = a, *right = b;
    if (left->begin != right->begin) return left->begin < right->begin ? -1 : 1;
    return (left->end > right->end) - (left->end < right->end);
}

/* The tensors must cover the data exactly, one after the other. */
static fb3_status check_ranges(header_layout *layout)
{
    const fb3_tensor_file *file = layout->file;
    int64_t end = 0;
    qsort(layout->ranges, (size_t)file->count, sizeof *layout->ranges, compare_ranges);
    for (int i = 0; i < file->count; i++) {
        FB3_REQUIRE(layout->ranges[i].begin == end, FB3_INPUT,
                    "%s: the tensors %s at byte %lld of the data; the header is damaged", file->path,
                    layout->ranges[i].begin < end ? "overlap" : "leave a hole", (long long)end);
        end = layout->ranges[i].end;
    }
    FB3_REQUIRE(end == file->file_bytes - layout->data, FB3_INPUT,
                "%s has %lld bytes behind its last tensor; it is damaged, download or copy it again", file->path,
                (long long)(file->file_bytes - layout->data - end));
    return FB3_OK;
}

static fb3_status parse_header(header_layout *layout, const json_t *header)
{
    const char *key;
    json_t *entry;
    json_object_foreach((json_t *)header, key, entry)
    {
        if (strcmp(key, METADATA) != 0) FB3_TRY(parse_tensor(layout, key, entry));
    }
    return check_ranges(layout);
}

/* Reads the header's text and parses it as JSON; the caller owns *header. */
static fb3_status load_header(const fb3_tensor_file *file, json_t **header, int64_t *data)
{
    unsigned char length[LENGTH_BYTES];
    uint64_t bytes = 0;
    *header = NULL;
    FB3_REQUIRE(file->file_bytes >= LENGTH_BYTES, FB3_INPUT,
                "%s has %lld bytes, too few for safetensors; download or copy it again", file->path,
                (long long)file->file_bytes);
    FB3_TRY(fb3_tensor_file_pread(file, 0, length, sizeof length));
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) bytes = bytes << 8 | length[i];
    FB3_REQUIRE(bytes <= HEADER_MAX && bytes <= (uint64_t)(file->file_bytes - LENGTH_BYTES), FB3_INPUT,
                "%s says that its header has %llu bytes, more than can be; it is incomplete or not safetensors",
                file->path, (unsigned long long)bytes);

    fb3_status status = FB3_OK;
    json_error_t error;
    char *text = malloc((size_t)bytes + 1);
    FB3_REQUIRE(text, FB3_FAILED, "out of memory for the header of %s", file->path);
    FB3_TRY_GOTO(fb3_tensor_file_pread(file, LENGTH_BYTES, text, (size_t)bytes), done);
    FB3_REQUIRE_GOTO(bytes > 0 && text[0] == '{', done, FB3_INPUT,
                     "%s has no safetensors header; it is damaged or another kind of file", file->path);
    *header = json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES, &error);
    if (!*header) {
        char shown[FB3_SHOWN_BYTES];
        status = fb3_fail(FB3_INPUT, "%s: the header is not valid JSON at byte %d: %s; the file is damaged", file->path,
                          error.position, fb3_shown(shown, error.text, sizeof error.text));
    }
    *data = LENGTH_BYTES + (int64_t)bytes;
done:
    free(text);
    return status;
}

fb3_status fb3_safetensors_open(fb3_tensor_file **out, const char *path)
{
    *out = NULL;
    fb3_status status = FB3_OK;
    header_layout layout = {0};
    json_t *header = NULL;
    FB3_TRY(fb3_tensor_file_begin(&layout.file, path));
    FB3_TRY_GOTO(load_header(layout.file, &header, &layout.data), done);
    layout.ranges = calloc(json_object_size(header) + 1, sizeof *layout.ranges);
    FB3_REQUIRE_GOTO(layout.ranges, done, FB3_FAILED, "out of memory for the header of %s", path);
    FB3_TRY_GOTO(parse_header(&layout, header), done);
    FB3_TRY_GOTO(fb3_tensor_file_finish(layout.file), done);
    *out = layout.file;
    layout.file = NULL;
done:
    json_decref(header);
    free(layout.ranges);
    fb3_tensor_file_close(layout.file);
    return status;
}
