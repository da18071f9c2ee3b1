/* Writing pytorch_model.bin (the format is described in torch_zip.c and pickle.c) so that
 * torch.load(weights_only=True) gives the notebook's state dict: an OrderedDict of contiguous tensors, each with a
 * storage of its own. libzip makes the archive and reads each storage, a block at a time, when it closes it; all
 * members are stored, and ZIP64 where they need it. */
#include "export_weights.h"
#include "tensor_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

enum {
    BLOCK_ELEMENTS = 1 << 14,
    PROTOCOL = 2,
    DOS_TIME = 0,
    DOS_DATE = 1 << 5 | 1, /* 1980-01-01: the same weights give the same bytes */
    MEMBER_NAME_MAX = 64,
    LONG_BYTES = 8,
};

static const char FOLDER[] = "pytorch_model";

/* --- the pickle: opcodes as in pickle.c --------------------------------------------------------------------------- */

/* The storage's class in torch, by fb3_export_dtype. */
static const char *const storage_types[] = {
    [FB3_EXPORT_FLOAT32] = "FloatStorage",
    [FB3_EXPORT_FLOAT16] = "HalfStorage",
    [FB3_EXPORT_BFLOAT16] = "BFloat16Storage",
};

static void put_little_endian(FILE *out, uint64_t number, int bytes)
{
    for (int i = 0; i < bytes; i++) fputc((int)(number >> 8 * i & 0xff), out);
}

static void put_global(FILE *out, const char *module, const char *name)
{
    fprintf(out, "c%s\n%s\n", module, name); /* GLOBAL */
}

static void put_text(FILE *out, const char *text)
{
    fputc('X', out); /* BINUNICODE */
    put_little_endian(out, strlen(text), sizeof(uint32_t));
    fputs(text, out);
}

static void put_integer(FILE *out, int64_t number)
{
    if (number <= INT32_MAX) {
        fputc('J', out); /* BININT */
        put_little_endian(out, (uint64_t)number, sizeof(int32_t));
    } else {
        fputc(0x8a, out); /* LONG1 */
        fputc(LONG_BYTES, out);
        put_little_endian(out, (uint64_t)number, LONG_BYTES);
    }
}

static void put_tuple(FILE *out, const int64_t *number, int count)
{
    fputc('(', out); /* MARK */
    for (int i = 0; i < count; i++) put_integer(out, number[i]);
    fputc('t', out); /* TUPLE */
}

static void put_ordered_dict(FILE *out)
{
    put_global(out, "collections", "OrderedDict");
    fputs(")R", out); /* EMPTY_TUPLE REDUCE */
}

/* ("storage", type, key, "cpu", elements), as a persistent id */
static void put_storage(FILE *out, const char *type, int key, int64_t elements)
{
    char digits[16];
    snprintf(digits, sizeof digits, "%d", key);
    fputc('(', out); /* MARK */
    put_text(out, "storage");
    put_global(out, "torch", type);
    put_text(out, digits);
    put_text(out, "cpu");
    put_integer(out, elements);
    fputs("tQ", out); /* TUPLE BINPERSID */
}

/* torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, requires_grad=False, backward_hooks=OrderedDict()) */
static void put_tensor(FILE *out, const fb3_param *param, const char *type, int key)
{
    int64_t shape[2], stride[2] = {0};
    int dims = fb3_export_shape(param, shape);
    fb3_shape_strides(dims, shape, stride);
    put_global(out, "torch._utils", "_rebuild_tensor_v2");
    fputc('(', out); /* MARK */
    put_storage(out, type, key, fb3_export_elements(param));
    put_integer(out, 0);
    put_tuple(out, shape, dims);
    put_tuple(out, stride, dims);
    fputc(0x89, out); /* NEWFALSE */
    put_ordered_dict(out);
    fputs("tR", out); /* TUPLE REDUCE */
}

static bool is_head(const fb3_param *param)
{
    return param->kind == FB3_PARAM_HEAD_WEIGHT || param->kind == FB3_PARAM_HEAD_BIAS;
}

/* Caller frees *pickle. */
static fb3_status make_pickle(const fb3_export *export, char **pickle, size_t *bytes)
{
    *pickle = NULL;
    FILE *out = open_memstream(pickle, bytes);
    FB3_REQUIRE(out, FB3_FAILED, "out of memory for the state dict");
    fputc(0x80, out); /* PROTO */
    fputc(PROTOCOL, out);
    put_ordered_dict(out);
    fputc('(', out); /* MARK */
    for (int i = 0; i < export->table->count; i++) {
        const fb3_param *param = &export->table->param[i];
        char name[sizeof "model." + sizeof param->name];
        snprintf(name, sizeof name, "%s%s", is_head(param) ? "" : "model.", param->name);
        put_text(out, name);
        put_tensor(out, param, storage_types[export->dtype], i);
    }
    fputs("u.", out); /* SETITEMS STOP */
    bool failed = ferror(out) != 0;
    if (fclose(out) == 0 && !failed) return FB3_OK;
    free(*pickle);
    *pickle = NULL;
    return fb3_fail(FB3_FAILED, "out of memory for the state dict");
}

/* --- storages, as libzip's sources -------------------------------------------------------------------------------- */

/* Shared by all sources of an archive; `status` keeps the first failure. */
typedef struct archive_writer {
    const fb3_export *export;
    const char *path;
    fb3_status status;
} archive_writer;

typedef struct storage_reader {
    archive_writer *writer;
    const fb3_param *param;
    int64_t next;      /* element */
    size_t used, have; /* bytes of block */
    unsigned char block[BLOCK_ELEMENTS * sizeof(float)];
    zip_error_t error;
} storage_reader;

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static fb3_status fill_block(storage_reader *storage)
{
    int64_t left = fb3_export_elements(storage->param) - storage->next;
    int64_t some = left < BLOCK_ELEMENTS ? left : BLOCK_ELEMENTS;
    const fb3_export *export = storage->writer->export;
    FB3_TRY(fb3_export_encode(export, storage->param, storage->next, some, storage->block));
    storage->next += some;
    storage->used = 0;
    storage->have = (size_t)some * fb3_export_element_bytes(export->dtype);
    return FB3_OK;
}

static zip_int64_t read_storage(storage_reader *storage, unsigned char *out, size_t bytes)
{
    size_t done = 0;
    while (done < bytes) {
        if (storage->used == storage->have) {
            storage->writer->status = fill_block(storage);
            if (storage->writer->status != FB3_OK) {
                zip_error_set(&storage->error, ZIP_ER_READ, 0);
                return -1;
            }
            if (storage->have == 0) break;
        }
        size_t some = least(bytes - done, storage->have - storage->used);
        memcpy(out + done, storage->block + storage->used, some);
        storage->used += some;
        done += some;
    }
    return (zip_int64_t)done;
}

static zip_int64_t stat_storage(const storage_reader *storage, zip_stat_t *about)
{
    size_t bytes = fb3_export_element_bytes(storage->writer->export->dtype);
    zip_stat_init(about);
    about->size = (zip_uint64_t)fb3_export_elements(storage->param) * bytes;
    about->valid = ZIP_STAT_SIZE;
    return sizeof *about;
}

/* What libzip asks of a source (zip_source_function(3)). */
static zip_int64_t serve_storage(void *context, void *data, zip_uint64_t bytes, zip_source_cmd_t command)
{
    storage_reader *storage = context;
    switch (command) {
    case ZIP_SOURCE_OPEN:
        storage->next = 0;
        storage->used = storage->have = 0;
        return 0;
    case ZIP_SOURCE_READ:
        return read_storage(storage, data, bytes);
    case ZIP_SOURCE_CLOSE:
        return 0;
    case ZIP_SOURCE_STAT:
        return stat_storage(storage, data);
    case ZIP_SOURCE_ERROR:
        return zip_error_to_data(&storage->error, data, bytes);
    case ZIP_SOURCE_FREE:
        free(storage);
        return 0;
    case ZIP_SOURCE_SUPPORTS:
        return zip_source_make_command_bitmap(ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_CLOSE, ZIP_SOURCE_STAT,
                                              ZIP_SOURCE_ERROR, ZIP_SOURCE_FREE, -1);
    default:
        zip_error_set(&storage->error, ZIP_ER_OPNOTSUPP, 0);
        return -1;
    }
}

static zip_source_t *storage_source(zip_t *archive, archive_writer *writer, const fb3_param *param)
{
    storage_reader *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    made->writer = writer;
    made->param = param;
    zip_error_init(&made->error);
    zip_source_t *source = zip_source_function(archive, serve_storage, made);
    if (!source) free(made);
    return source;
}

/* --- the archive -------------------------------------------------------------------------------------------------- */

static fb3_status zip_failed(archive_writer *writer, zip_t *archive)
{
    if (writer->status != FB3_OK) return writer->status; /* its text stands */
    return fb3_fail(FB3_FAILED, "cannot write %s: %s; check the file system and its space", writer->path,
                    zip_strerror(archive));
}

/* Takes over `source`, also when it is NULL or fails. */
static fb3_status add_member(archive_writer *writer, zip_t *archive, const char *name, zip_source_t *source)
{
    char path[MEMBER_NAME_MAX];
    snprintf(path, sizeof path, "%s/%s", FOLDER, name);
    zip_int64_t index = source ? zip_file_add(archive, path, source, ZIP_FL_ENC_UTF_8) : -1;
    if (index < 0) {
        zip_source_free(source);
        return zip_failed(writer, archive);
    }
    if (zip_set_file_compression(archive, (zip_uint64_t)index, ZIP_CM_STORE, 0) != 0 ||
        zip_file_set_dostime(archive, (zip_uint64_t)index, DOS_TIME, DOS_DATE, 0) != 0)
        return zip_failed(writer, archive);
    return FB3_OK;
}

static fb3_status add_text(archive_writer *writer, zip_t *archive, const char *name, const char *text)
{
    return add_member(writer, archive, name, zip_source_buffer(archive, text, strlen(text), 0));
}

static fb3_status add_members(archive_writer *writer, zip_t *archive, const char *pickle, size_t pickle_bytes)
{
    FB3_TRY(add_member(writer, archive, "data.pkl", zip_source_buffer(archive, pickle, pickle_bytes, 0)));
    FB3_TRY(add_text(writer, archive, "byteorder", "little"));
    for (int i = 0; i < writer->export->table->count; i++) {
        char name[MEMBER_NAME_MAX];
        snprintf(name, sizeof name, "data/%d", i);
        FB3_TRY(add_member(writer, archive, name, storage_source(archive, writer, &writer->export->table->param[i])));
    }
    return add_text(writer, archive, "version", "3\n"); /* of the format: kProducedFileFormatVersion's minimum */
}

static fb3_status sync_file(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    bool synced = file >= 0 && fsync(file) == 0;
    int error = errno;
    if (file >= 0) close(file);
    FB3_REQUIRE(synced, FB3_FAILED, "cannot flush %s: %s; check the file system and its space", path, strerror(error));
    return FB3_OK;
}

fb3_status fb3_torch_zip_write(const fb3_export *export, const char *path)
{
    fb3_status status = FB3_OK;
    archive_writer writer = {.export = export, .path = path};
    char *pickle = NULL;
    size_t pickle_bytes = 0;
    int error = 0;
    zip_t *archive = NULL;
    FB3_TRY(make_pickle(export, &pickle, &pickle_bytes));
    archive = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &error);
    FB3_REQUIRE_GOTO(archive, done, FB3_FAILED, "cannot create %s: %s; check the path and its permissions", path,
                     strerror(errno));
    FB3_TRY_GOTO(add_members(&writer, archive, pickle, pickle_bytes), done);
    if (zip_close(archive) != 0) {
        status = zip_failed(&writer, archive);
        goto done;
    }
    archive = NULL;
    status = sync_file(path);
done:
    if (archive) zip_discard(archive);
    free(pickle);
    return status;
}
