/* Reading pytorch_model.bin as torch.save writes it since PyTorch 1.6: a zip archive with every member stored.
 *
 *   <name>/data.pkl       the state dict; its tensors refer to storages by key (pickle.c)
 *   <name>/data/<key>     the bytes of one storage, little-endian
 *   <name>/byteorder      "little" (PyTorch 2.1 and later)
 *   <name>/version, ...   not needed
 *
 * Layout: caffe2/serialize/inline_container.h and torch/serialization.py in pytorch/pytorch. */
#include "fb3/file.h"
#include "pickle.h"
#include "zip_index.h"

#include <stdlib.h>
#include <string.h>

enum {
    PICKLE_MEMBER_MAX = 4 << 20,
    BYTEORDER_MAX = 16,
    MAGIC_BYTES = 4,
};

static const char DATA_PKL[] = "/data.pkl";

static const uint8_t zip_magic[MAGIC_BYTES] = {'P', 'K', 3, 4};
static const uint8_t legacy_magic[MAGIC_BYTES] = {0x80, 2, 0x8a, 10}; /* a pickled number of ten bytes */

static fb3_status check_magic(const fb3_tensor_file *file)
{
    uint8_t magic[MAGIC_BYTES] = {0};
    if (file->file_bytes >= MAGIC_BYTES) FB3_TRY(fb3_tensor_file_pread(file, 0, magic, sizeof magic));
    FB3_REQUIRE(memcmp(magic, legacy_magic, sizeof magic) != 0, FB3_INPUT,
                "%s is in PyTorch's format of before version 1.6; convert it with "
                "torch.save(torch.load(old, weights_only=True), new) in a current PyTorch",
                file->path);
    FB3_REQUIRE(memcmp(magic, zip_magic, sizeof magic) == 0, FB3_INPUT,
                "%s is not a file of torch.save; it is damaged or another kind of file", file->path);
    return FB3_OK;
}

/* The one member <name>/data.pkl; *folder is the length of <name>. */
static fb3_status find_pickle(const fb3_tensor_file *file, const fb3_zip_index *index, const fb3_zip_member **pickle,
                              size_t *folder)
{
    *pickle = NULL;
    for (int i = 0; i < index->count; i++) {
        const char *slash = strchr(index->member[i].name, '/');
        if (!slash || strcmp(slash, DATA_PKL) != 0) continue;
        FB3_REQUIRE(!*pickle, FB3_INPUT, "%s has more than one data.pkl; save the file again", file->path);
        *pickle = &index->member[i];
        *folder = (size_t)(slash - index->member[i].name);
    }
    FB3_REQUIRE(*pickle, FB3_INPUT, "%s is a zip archive without a data.pkl; it was not written by torch.save",
                file->path);
    return FB3_OK;
}

/* The archive while it is read. */
typedef struct archive {
    fb3_tensor_file *file;
    fb3_zip_index index;
    const char *folder; /* not terminated */
    size_t folder_bytes;
    uint8_t *pickle;
    fb3_pickled_tensor *tensor;
    int tensors;
    bool *located; /* parallel to index.member: its range is in file->storage */
} archive;

/* The member <folder>/<name>, or NULL. */
static fb3_status find_member(const archive *a, const char *name, const fb3_zip_member **member)
{
    char *path = fb3_format("%.*s/%s", (int)a->folder_bytes, a->folder, name);
    FB3_REQUIRE(path, FB3_FAILED, "out of memory to read %s", a->file->path);
    *member = fb3_zip_find(&a->index, path);
    free(path);
    return FB3_OK;
}

static fb3_status check_byteorder(const archive *a)
{
    static const char little[] = "little";
    const fb3_zip_member *member = NULL;
    uint8_t *order = NULL;
    FB3_TRY(find_member(a, "byteorder", &member));
    if (!member) return FB3_OK;
    FB3_TRY(fb3_zip_read(a->file, &a->index, member, BYTEORDER_MAX, &order));
    bool is_little = member->bytes == (int64_t)strlen(little) && memcmp(order, little, strlen(little)) == 0;
    free(order);
    FB3_REQUIRE(is_little, FB3_INPUT,
                "%s was saved on a big-endian machine; save it again on a little-endian one, or as safetensors",
                a->file->path);
    return FB3_OK;
}

/* Where the storage of a tensor lies; the first time, its range and checksum are noted for fb3_tensor_file_verify. */
static fb3_status locate_storage(archive *a, const fb3_pickled_tensor *tensor, int64_t *offset)
{
    char name[sizeof "data/" + FB3_STORAGE_KEY_MAX];
    const fb3_zip_member *member = NULL;
    int64_t bytes;
    strcpy(stpcpy(name, "data/"), tensor->storage);
    FB3_TRY(find_member(a, name, &member));
    FB3_REQUIRE(member, FB3_INPUT, "%s has no member %s, which its pickle refers to; download or save it again",
                a->file->path, name);
    FB3_TRY(fb3_zip_locate(a->file, &a->index, member, offset));
    FB3_REQUIRE(!__builtin_mul_overflow(tensor->storage_elements, (int64_t)tensor->element_bytes, &bytes) &&
                    bytes == member->bytes,
                FB3_INPUT, "%s: member %s has %lld bytes, but its pickle says %lld elements of %d bytes; save it again",
                a->file->path, name, (long long)member->bytes, (long long)tensor->storage_elements,
                tensor->element_bytes);
    bool *located = &a->located[member - a->index.member];
    if (*located) return FB3_OK;
    *located = true;
    a->file->storage[a->file->storages++] =
        (fb3_tensor_storage){.file_offset = *offset, .bytes = member->bytes, .crc = member->crc};
    return FB3_OK;
}

static fb3_status add_tensor(archive *a, const fb3_pickled_tensor *from)
{
    fb3_tensor tensor = {.dtype = from->dtype, .dims = from->dims, .elements = from->elements};
    int64_t storage = 0;
    memcpy(tensor.shape, from->shape, sizeof tensor.shape);
    memcpy(tensor.stride, from->stride, sizeof tensor.stride);
    FB3_TRY(locate_storage(a, from, &storage));
    tensor.file_offset = storage + from->storage_offset * from->element_bytes; /* within the member: no overflow */
    return fb3_tensor_file_add(a->file, &tensor, from->name, from->name_bytes);
}

static int compare_storages(const void *x, const void *y)
{
    const fb3_tensor_storage *left = x, *right = y;
    return (left->file_offset > right->file_offset) - (left->file_offset < right->file_offset);
}

/* torch.save never lets two storages share bytes. */
static fb3_status check_overlaps(const fb3_tensor_file *file)
{
    qsort(file->storage, (size_t)file->storages, sizeof *file->storage, compare_storages);
    for (int i = 1; i < file->storages; i++)
        FB3_REQUIRE(file->storage[i - 1].file_offset + file->storage[i - 1].bytes <= file->storage[i].file_offset,
                    FB3_INPUT, "%s: two members overlap at byte %lld; it is damaged or was made to mislead", file->path,
                    (long long)file->storage[i].file_offset);
    return FB3_OK;
}

static fb3_status read_archive(archive *a)
{
    const fb3_zip_member *pickle = NULL;
    FB3_TRY(check_magic(a->file));
    FB3_TRY(fb3_zip_index_read(&a->index, a->file));
    FB3_TRY(find_pickle(a->file, &a->index, &pickle, &a->folder_bytes));
    a->folder = pickle->name;
    FB3_TRY(check_byteorder(a));
    FB3_TRY(fb3_zip_read(a->file, &a->index, pickle, PICKLE_MEMBER_MAX, &a->pickle));
    FB3_TRY(fb3_unpickle_state_dict(&a->tensor, &a->tensors, a->pickle, (size_t)pickle->bytes, a->file->path));
    a->located = calloc((size_t)a->index.count, sizeof *a->located);
    a->file->storage = calloc((size_t)a->index.count, sizeof *a->file->storage);
    FB3_REQUIRE(a->located && a->file->storage, FB3_FAILED, "out of memory to read %s", a->file->path);
    for (int i = 0; i < a->tensors; i++) FB3_TRY(add_tensor(a, &a->tensor[i]));
    FB3_TRY(check_overlaps(a->file));
    return fb3_tensor_file_finish(a->file);
}

fb3_status fb3_torch_zip_open(fb3_tensor_file **out, const char *path)
{
    *out = NULL;
    archive a = {0};
    FB3_TRY(fb3_tensor_file_begin(&a.file, path));
    fb3_status status = read_archive(&a);
    if (status == FB3_OK) {
        *out = a.file;
        a.file = NULL;
    }
    fb3_zip_index_free(&a.index);
    free(a.pickle);
    free(a.tensor);
    free(a.located);
    fb3_tensor_file_close(a.file);
    return status;
}
