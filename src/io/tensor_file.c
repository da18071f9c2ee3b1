/* A list of named tensors in a file, whatever the format: opening, looking up, reading as float.
 *
 * Tensors are read with pread where they lie; nothing is mapped, because a file that another process shortens must give
 * an error, not a signal. */
#include "tensor_file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum {
    BLOCK_BYTES = 1 << 16,
    CHECKSUM_BYTES = 1 << 20,
    FIRST_CAPACITY = 256,
};

static const char LFS_POINTER[] = "version https://git-lfs.github.com/spec/";

bool fb3_shape_elements(int dims, const int64_t *shape, int64_t *elements)
{
    *elements = 1;
    for (int d = 0; d < dims; d++)
        if (shape[d] < 0 || __builtin_mul_overflow(*elements, shape[d], elements)) return false;
    return true;
}

void fb3_shape_strides(int dims, const int64_t *shape, int64_t *stride)
{
    int64_t step = 1;
    for (int d = dims - 1; d >= 0; d--) {
        stride[d] = step;
        /* Only beside a dimension of 0 can this overflow, and then no stride is ever used. */
        (void)__builtin_mul_overflow(step, shape[d], &step);
    }
}

fb3_status fb3_tensor_file_pread(const fb3_tensor_file *file, int64_t offset, void *data, size_t bytes)
{
    FB3_REQUIRE(offset >= 0 && offset <= file->file_bytes && bytes <= (uint64_t)(file->file_bytes - offset), FB3_INPUT,
                "%s ends early; it is incomplete, download or copy it again", file->path);
    char *to = data;
    while (bytes > 0) {
        ssize_t got = pread(file->fd, to, bytes, offset);
        if (got < 0 && errno == EINTR) continue;
        FB3_REQUIRE(got > 0, FB3_FAILED, "cannot read %s: %s; check the file system", file->path,
                    got < 0 ? strerror(errno) : "it became shorter while it was read");
        to += got;
        offset += got;
        bytes -= (size_t)got;
    }
    return FB3_OK;
}

/* A clone made without git-lfs holds small text files in place of the weights. */
static fb3_status refuse_lfs_pointer(const fb3_tensor_file *file)
{
    char start[sizeof LFS_POINTER - 1];
    if (file->file_bytes < (int64_t)sizeof start) return FB3_OK;
    FB3_TRY(fb3_tensor_file_pread(file, 0, start, sizeof start));
    FB3_REQUIRE(memcmp(start, LFS_POINTER, sizeof start) != 0, FB3_INPUT,
                "%s is a Git LFS pointer, not the weights themselves; run `git lfs pull` in its folder", file->path);
    return FB3_OK;
}

fb3_status fb3_tensor_file_begin(fb3_tensor_file **out, const char *path)
{
    *out = NULL;
    fb3_status status = FB3_OK;
    struct stat about;
    fb3_tensor_file *file = calloc(1, sizeof *file);
    FB3_REQUIRE(file, FB3_FAILED, "out of memory to open %s", path);
    file->fd = -1;
    file->path = strdup(path);
    FB3_REQUIRE_GOTO(file->path, done, FB3_FAILED, "out of memory to open %s", path);
    /* O_NONBLOCK: opening a pipe by mistake must not wait for a writer. */
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    FB3_REQUIRE_GOTO(file->fd >= 0, done, FB3_INPUT, "cannot open %s: %s; check the path and its permissions", path,
                     strerror(errno));
    FB3_REQUIRE_GOTO(fstat(file->fd, &about) == 0, done, FB3_FAILED, "cannot examine %s: %s; check the file system",
                     path, strerror(errno));
    FB3_REQUIRE_GOTO(S_ISREG(about.st_mode), done, FB3_INPUT, "%s is not a regular file; give a weights file", path);
    file->file_bytes = about.st_size;
    FB3_TRY_GOTO(refuse_lfs_pointer(file), done);
    *out = file;
    file = NULL;
done:
    fb3_tensor_file_close(file);
    return status;
}

void fb3_tensor_file_close(fb3_tensor_file *file)
{
    if (!file) return;
    for (int i = 0; i < file->count; i++) free(file->tensor[i].name);
    free(file->tensor);
    free(file->storage);
    free(file->path);
    if (file->fd >= 0) close(file->fd);
    free(file);
}

static bool name_is_printable(const char *name, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)name[i];
        if (!isascii(c) || !isgraph(c)) return false;
    }
    return bytes > 0 && bytes <= FB3_TENSOR_NAME_MAX;
}

/* Capacities are powers of two, so a full array is one whose count is a power of two. */
static fb3_status make_room(fb3_tensor_file *file)
{
    bool full = file->count == 0 || (file->count >= FIRST_CAPACITY && (file->count & (file->count - 1)) == 0);
    if (!full) return FB3_OK;
    size_t capacity = file->count == 0 ? FIRST_CAPACITY : 2 * (size_t)file->count;
    fb3_tensor *grown = realloc(file->tensor, capacity * sizeof *grown);
    FB3_REQUIRE(grown, FB3_FAILED, "out of memory for the %zu tensors of %s", capacity, file->path);
    file->tensor = grown;
    return FB3_OK;
}

fb3_status fb3_tensor_file_add(fb3_tensor_file *file, const fb3_tensor *tensor, const char *name, size_t name_bytes)
{
    char shown[FB3_SHOWN_BYTES];
    FB3_REQUIRE(file->count < FB3_TENSORS_MAX, FB3_INPUT,
                "%s has more than %d tensors; it is not a model that can be read here", file->path, FB3_TENSORS_MAX);
    FB3_REQUIRE(name_is_printable(name, name_bytes), FB3_INPUT,
                "%s has a tensor with the name '%s', empty, too long or not printable; rename it", file->path,
                fb3_shown(shown, name, name_bytes));
    FB3_TRY(make_room(file));
    char *copy = strndup(name, name_bytes);
    FB3_REQUIRE(copy, FB3_FAILED, "out of memory for the tensor names of %s", file->path);
    file->tensor[file->count] = *tensor;
    file->tensor[file->count++].name = copy;
    return FB3_OK;
}

static int compare_names(const void *a, const void *b)
{
    const fb3_tensor *left = a, *right = b;
    return strverscmp(left->name, right->name);
}

fb3_status fb3_tensor_file_finish(fb3_tensor_file *file)
{
    FB3_REQUIRE(file->count > 0, FB3_INPUT, "%s has no tensors; it is not the weights of a model", file->path);
    qsort(file->tensor, (size_t)file->count, sizeof *file->tensor, compare_names);
    for (int i = 1; i < file->count; i++)
        FB3_REQUIRE(strcmp(file->tensor[i - 1].name, file->tensor[i].name) != 0, FB3_INPUT,
                    "%s has two tensors of the name %s; it is damaged or was made to mislead", file->path,
                    file->tensor[i].name);
    return FB3_OK;
}

const fb3_tensor *fb3_tensor_file_find(const fb3_tensor_file *file, const char *name)
{
    fb3_tensor key = {.name = (char *)name};
    return bsearch(&key, file->tensor, (size_t)file->count, sizeof *file->tensor, compare_names);
}

static size_t element_bytes(fb3_file_dtype dtype)
{
    switch (dtype) {
    case FB3_FILE_F16:
    case FB3_FILE_BF16:
        return 2;
    case FB3_FILE_F32:
        return 4;
    case FB3_FILE_F64:
        return 8;
    default:
        return 0;
    }
}

/* A dimension of size 1 may carry any stride; so may every dimension of a tensor without elements. */
static bool is_contiguous(const fb3_tensor *tensor)
{
    int64_t step = 1;
    if (tensor->elements == 0) return true;
    for (int d = tensor->dims - 1; d >= 0; d--) {
        if (tensor->shape[d] != 1 && tensor->stride[d] != step) return false;
        step *= tensor->shape[d];
    }
    return true;
}

static void convert(float *out, const void *block, size_t count, fb3_file_dtype dtype)
{
    const uint16_t *half = block;
    const double *real = block;
    switch (dtype) {
    case FB3_FILE_F16:
        for (size_t i = 0; i < count; i++) out[i] = fb3_half_to_float(half[i]);
        break;
    case FB3_FILE_BF16:
        for (size_t i = 0; i < count; i++) out[i] = fb3_bfloat16_to_float(half[i]);
        break;
    case FB3_FILE_F64:
        for (size_t i = 0; i < count; i++) out[i] = (float)real[i];
        break;
    default:
        memcpy(out, block, count * sizeof *out);
    }
}

fb3_status fb3_tensor_read(const fb3_tensor_file *file, const fb3_tensor *tensor, int64_t first, int64_t count,
                           float *out)
{
    size_t bytes = element_bytes(tensor->dtype);
    FB3_REQUIRE(bytes > 0, FB3_INPUT, "%s in %s is not a tensor of floating point numbers; save it as float32",
                tensor->name, file->path);
    FB3_REQUIRE(is_contiguous(tensor), FB3_INPUT,
                "%s in %s is not contiguous; save it with .contiguous() or as safetensors", tensor->name, file->path);
    FB3_REQUIRE(first >= 0 && count >= 0 && first <= tensor->elements && count <= tensor->elements - first, FB3_INPUT,
                "%s in %s has %lld elements, but %lld from %lld are needed; config.json belongs to another file",
                tensor->name, file->path, (long long)tensor->elements, (long long)count, (long long)first);
    _Alignas(double) unsigned char block[BLOCK_BYTES];
    while (count > 0) {
        int64_t fit = (int64_t)(sizeof block / bytes), some = count < fit ? count : fit;
        FB3_TRY(fb3_tensor_file_pread(file, tensor->file_offset + first * (int64_t)bytes, block, (size_t)some * bytes));
        convert(out, block, (size_t)some, tensor->dtype);
        first += some;
        count -= some;
        out += some;
    }
    return FB3_OK;
}

static fb3_status verify_storage(const fb3_tensor_file *file, const fb3_tensor_storage *storage, unsigned char *buffer)
{
    uLong crc = crc32(0, NULL, 0);
    for (int64_t done = 0; done < storage->bytes;) {
        int64_t left = storage->bytes - done, some = left < CHECKSUM_BYTES ? left : CHECKSUM_BYTES;
        FB3_TRY(fb3_tensor_file_pread(file, storage->file_offset + done, buffer, (size_t)some));
        crc = crc32(crc, buffer, (uInt)some);
        done += some;
    }
    FB3_REQUIRE(crc == storage->crc, FB3_INPUT,
                "%s is damaged: the checksum of the %lld bytes at %lld is %08lx, not %08x; download or save it again",
                file->path, (long long)storage->bytes, (long long)storage->file_offset, crc, storage->crc);
    return FB3_OK;
}

fb3_status fb3_tensor_file_verify(const fb3_tensor_file *file)
{
    if (file->storages == 0) return FB3_OK;
    fb3_status status = FB3_OK;
    unsigned char *buffer = malloc(CHECKSUM_BYTES);
    FB3_REQUIRE(buffer, FB3_FAILED, "out of memory to check %s", file->path);
    for (int i = 0; i < file->storages; i++) FB3_TRY_GOTO(verify_storage(file, &file->storage[i], buffer), done);
done:
    free(buffer);
    return status;
}
