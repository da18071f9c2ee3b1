/* Writing model.safetensors (the format is described in safetensors.c), a block at a time. */
#include "export_weights.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BLOCK_ELEMENTS = 1 << 16,
    LENGTH_BYTES = 8,
    ALIGNMENT = 8, /* of the data in the file: the header is padded with spaces */
};

/* The type's name in safetensors, by fb3_export_dtype. */
static const char *const dtype_names[] = {
    [FB3_EXPORT_FLOAT32] = "F32",
    [FB3_EXPORT_FLOAT16] = "F16",
    [FB3_EXPORT_BFLOAT16] = "BF16",
};

size_t fb3_export_element_bytes(fb3_export_dtype dtype)
{
    return dtype == FB3_EXPORT_FLOAT32 ? sizeof(float) : sizeof(uint16_t);
}

int fb3_export_shape(const fb3_param *param, int64_t shape[2])
{
    shape[0] = param->full_rows;
    shape[1] = param->cols;
    return param->cols ? 2 : 1;
}

int64_t fb3_export_elements(const fb3_param *param)
{
    return (int64_t)param->full_rows * (param->cols ? param->cols : 1);
}

static fb3_status encode_half(const fb3_param *param, const float *from, int64_t count, uint16_t *out)
{
    for (int64_t i = 0; i < count; i++) {
        out[i] = fb3_float_to_half(from[i]);
        FB3_REQUIRE(!isfinite(from[i]) || isfinite(fb3_half_to_float(out[i])), FB3_FAILED,
                    "%s holds %g, which float16 cannot; export with --dtype bfloat16 or float32", param->name,
                    (double)from[i]);
    }
    return FB3_OK;
}

static fb3_status encode_bfloat16(const fb3_param *param, const float *from, int64_t count, uint16_t *out)
{
    for (int64_t i = 0; i < count; i++) {
        out[i] = fb3_float_to_bfloat16(from[i]);
        FB3_REQUIRE(!isfinite(from[i]) || isfinite(fb3_bfloat16_to_float(out[i])), FB3_FAILED,
                    "%s holds %g, which bfloat16 cannot; export with --dtype float32", param->name, (double)from[i]);
    }
    return FB3_OK;
}

fb3_status fb3_export_encode(const fb3_export *export, const fb3_param *param, int64_t first, int64_t count, void *out)
{
    bool is_word = param->kind == FB3_PARAM_WORD;
    const float *from = (is_word ? export->weights->word_full : export->weights->arena + param->offset) + first;
    switch (export->dtype) {
    case FB3_EXPORT_FLOAT16:
        return encode_half(param, from, count, out);
    case FB3_EXPORT_BFLOAT16:
        return encode_bfloat16(param, from, count, out);
    default:
        memcpy(out, from, (size_t)count * sizeof *from);
        return FB3_OK;
    }
}

/* One entry of the header; *end moves past the tensor. */
static json_t *header_entry(const fb3_export *export, const fb3_param *param, int64_t *end)
{
    int64_t shape[2], begin = *end;
    int dims = fb3_export_shape(param, shape);
    *end += fb3_export_elements(param) * (int64_t)fb3_export_element_bytes(export->dtype);
    json_t *sizes = json_array();
    for (int d = 0; d < dims; d++) json_array_append_new(sizes, json_integer(shape[d]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_names[export->dtype], "shape", sizes, "data_offsets",
                     (json_int_t)begin, (json_int_t)*end);
}

/* transformers wants to know which framework's layout the tensors have: "pt". */
static char *header_text(const fb3_export *export)
{
    int64_t end = 0;
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    bool complete = header != NULL;
    for (int i = 0; i < export->table->count && complete; i++) {
        const fb3_param *param = &export->table->param[i];
        complete = json_object_set_new(header, param->name, header_entry(export, param, &end)) == 0;
    }
    char *text = complete ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    return text;
}

static fb3_status write_failed(const char *path)
{
    return fb3_fail(FB3_FAILED, "cannot write %s: %s; check the file system and its space", path, strerror(errno));
}

static fb3_status write_bytes(FILE *file, const char *path, const void *data, size_t bytes)
{
    return fwrite(data, 1, bytes, file) == bytes ? FB3_OK : write_failed(path);
}

static fb3_status write_header(const fb3_export *export, FILE *file, const char *path)
{
    fb3_status status = FB3_OK;
    unsigned char length[LENGTH_BYTES];
    char *text = header_text(export);
    FB3_REQUIRE(text, FB3_FAILED, "out of memory to write %s", path);
    size_t text_bytes = strlen(text), bytes = (text_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    for (int i = 0; i < LENGTH_BYTES; i++) length[i] = (unsigned char)(bytes >> 8 * i);
    FB3_TRY_GOTO(write_bytes(file, path, length, sizeof length), done);
    FB3_TRY_GOTO(write_bytes(file, path, text, text_bytes), done);
    FB3_TRY_GOTO(write_bytes(file, path, "        ", bytes - text_bytes), done);
done:
    free(text);
    return status;
}

static fb3_status write_tensor(const fb3_export *export, const fb3_param *param, void *block, FILE *file,
                               const char *path)
{
    int64_t elements = fb3_export_elements(param);
    size_t bytes = fb3_export_element_bytes(export->dtype);
    for (int64_t at = 0; at < elements; at += BLOCK_ELEMENTS) {
        int64_t some = elements - at < BLOCK_ELEMENTS ? elements - at : BLOCK_ELEMENTS;
        FB3_TRY(fb3_export_encode(export, param, at, some, block));
        FB3_TRY(write_bytes(file, path, block, (size_t)some * bytes));
    }
    return FB3_OK;
}

fb3_status fb3_safetensors_write(const fb3_export *export, const char *path)
{
    fb3_status status = FB3_OK;
    void *block = malloc(BLOCK_ELEMENTS * sizeof(float));
    FILE *file = fopen(path, "wbe");
    FB3_REQUIRE_GOTO(block, done, FB3_FAILED, "out of memory to write %s", path);
    if (!file) {
        status = write_failed(path);
        goto done;
    }
    FB3_TRY_GOTO(write_header(export, file, path), done);
    for (int i = 0; i < export->table->count; i++)
        FB3_TRY_GOTO(write_tensor(export, &export->table->param[i], block, file, path), done);
    if (fflush(file) != 0 || fsync(fileno(file)) != 0) status = write_failed(path);
done:
    free(block);
    if (file && fclose(file) != 0 && status == FB3_OK) status = write_failed(path);
    return status;
}
