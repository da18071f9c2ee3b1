/* The HDF5 idioms of the program: what a file of ours looks like, and how HDF5's failures become errors as values.
 *
 * Format: library bounds V110, so that every piece of metadata carries a checksum (the default format leaves some
 * without), fletcher32 on every chunk, texts of fixed size (variable ones live in a heap without a checksum), no times,
 * so that the same content gives the same bytes. File locks stay off, because Lustre and NFS may refuse them.
 * Reading trusts nothing: a shape is believed only where the file has the bytes for it, links and raw data that lead to
 * other files are refused, and filters are never loaded from plug-ins. */
#include "h5_internal.h"
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    MAX_RANK = 8,
    MESSAGE_BYTES = 400,
    TEXT_BYTES = 800,
    DEFAULT_CHUNK_BYTES = 1 << 20,
    CHUNK_CACHE_BYTES = 4 << 20, /* of each column; holds all tokens of a few thousand essays */
    CHUNK_CACHE_SLOTS = 6421,    /* a prime a hundred times the number of chunks that fit */
};

/* HDF5 prints its error stack by itself unless told otherwise (a thread-safe build keeps that switch per thread), and
 * cleans up at exit, where it crashes when a file could not be closed, as on a full disk. Every file of ours is closed
 * by hand. */
void fb3_h5_start(void)
{
    static _Thread_local bool started;
    if (started) return;
    started = true;
    (void)H5dont_atexit(); /* fails, without harm, when another thread was here before */
    (void)H5open();
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    (void)H5PLset_loading_state(0);
}

typedef struct innermost {
    bool operating_system; /* a read or write of the file itself failed */
    char text[MESSAGE_BYTES];
} innermost;

/* H5Ewalk2 upward: entry 0 is where the error was detected. The file driver's text is long; the errno in it is what
 * a person needs. */
static herr_t keep_innermost(unsigned entry, const H5E_error2_t *error, void *context)
{
    innermost *kept = context;
    if (entry != 0 || !error->desc) return 0;
    static const char errno_mark[] = "error message = '";
    const char *from = strstr(error->desc, errno_mark);
    size_t bytes = strlen(error->desc);
    if (from) {
        from += sizeof errno_mark - 1;
        bytes = strcspn(from, "'");
        kept->operating_system = strstr(error->desc, "read failed") || strstr(error->desc, "write failed");
    } else {
        from = error->desc;
    }
    if (bytes >= sizeof kept->text) bytes = sizeof kept->text - 1;
    memcpy(kept->text, from, bytes);
    kept->text[bytes] = 0;
    for (char *c = kept->text; *c; c++) {
        if ((unsigned char)*c < ' ') *c = ' ';
    }
    return 0;
}

fb3_status(fb3_h5_fail)(fb3_status code, const char *format, ...)
{
    char what[TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);

    innermost kept = {.text = ""};
    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &kept);
    (void)H5Eclear2(H5E_DEFAULT);
    if (code == FB3_INPUT && kept.operating_system) code = FB3_FAILED;
    if (!kept.text[0]) return fb3_fail(code, "%s", what);

    char *advice = strstr(what, "; ");
    if (!advice) return fb3_fail(code, "%s (HDF5: %s)", what, kept.text);
    return fb3_fail(code, "%.*s (HDF5: %s)%s", (int)(advice - what), what, kept.text, advice);
}

/* The names of an object's file and of the object, for messages. Every call of HDF5 clears its error stack, so the
 * stack is put aside: these run while the message of a failure is being put together. */
const char *fb3_h5_file_of(hid_t object, char name[FB3_H5_NAME_BYTES])
{
    hid_t stack = H5Eget_current_stack();
    if (H5Fget_name(object, name, FB3_H5_NAME_BYTES) < 0) snprintf(name, FB3_H5_NAME_BYTES, "an HDF5 file");
    if (stack >= 0) (void)H5Eset_current_stack(stack);
    return name;
}

static const char *name_of(hid_t object, char name[FB3_H5_NAME_BYTES])
{
    hid_t stack = H5Eget_current_stack();
    if (H5Iget_name(object, name, FB3_H5_NAME_BYTES) <= 0) snprintf(name, FB3_H5_NAME_BYTES, "a data set");
    if (stack >= 0) (void)H5Eset_current_stack(stack);
    return name;
}

static hid_t access_properties(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0) return H5I_INVALID_HID;
    bool good = H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
                H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0;
#if H5_VERSION_GE(1, 12, 1) || (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
    good = good && H5Pset_file_locking(access, false, true) >= 0;
#endif
    if (good) return access;
    (void)H5Pclose(access);
    return H5I_INVALID_HID;
}

fb3_status fb3_h5_create(hid_t *file, const char *path)
{
    fb3_h5_start();
    *file = H5I_INVALID_HID;
    fb3_status status = FB3_OK;
    hid_t creation = H5I_INVALID_HID, access = access_properties();
    FB3_H5_GOTO(access, done, FB3_FAILED, "cannot set up HDF5 for %s", path);
    FB3_H5_GOTO(creation = H5Pcreate(H5P_FILE_CREATE), done, FB3_FAILED, "cannot set up HDF5 for %s", path);
    FB3_H5_GOTO(H5Pset_obj_track_times(creation, false), done, FB3_FAILED, "cannot set up HDF5 for %s", path);
    FB3_H5_GOTO(*file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access), done, FB3_FAILED,
                "cannot create %s; check that its folder exists and can be written", path);
done:
    if (creation >= 0) (void)H5Pclose(creation);
    if (access >= 0) (void)H5Pclose(access);
    return status;
}

fb3_status fb3_h5_open(hid_t *file, const char *path)
{
    fb3_h5_start();
    *file = H5I_INVALID_HID;
    struct stat about;
    FB3_REQUIRE(stat(path, &about) == 0, FB3_INPUT, "cannot open %s: %s; check the path", path, strerror(errno));
    FB3_REQUIRE(S_ISREG(about.st_mode), FB3_INPUT, "%s is not a file; give the path of an HDF5 file", path);
    hid_t access = access_properties();
    FB3_H5(access, FB3_FAILED, "cannot set up HDF5 for %s", path);
    *file = H5Fopen(path, H5F_ACC_RDONLY, access);
    fb3_status status = FB3_OK;
    if (*file < 0) {
        status =
            fb3_h5_fail(FB3_INPUT, "cannot open %s as HDF5; it is another kind of file, incomplete or damaged", path);
    }
    (void)H5Pclose(access);
    return status;
}

fb3_status fb3_h5_close(hid_t file, const char *path)
{
    fb3_h5_start();
    fb3_status status = FB3_OK;
    if (H5Fflush(file, H5F_SCOPE_LOCAL) < 0) {
        status = fb3_h5_fail(FB3_FAILED, "cannot write %s; check the free space", path);
    }
    if (H5Fclose(file) < 0 && status == FB3_OK) {
        status = fb3_h5_fail(FB3_FAILED, "cannot close %s; check the free space", path);
    }
    return status;
}

/* Chunks of whole rows where a row fits into the target, else of parts of a row. */
static void choose_chunk(int rank, const hsize_t *dims, const hsize_t *max, size_t elements, hsize_t *chunk)
{
    hsize_t left = elements > 0 ? elements : 1;
    for (int d = rank - 1; d >= 0; d--) {
        hsize_t length = max && max[d] == H5S_UNLIMITED ? left : max && max[d] > dims[d] ? max[d] : dims[d];
        if (length == 0) length = 1;
        hsize_t count = (length + left - 1) / left;
        chunk[d] = (length + count - 1) / count; /* even: a chunk at the edge takes the room of a whole one */
        left /= chunk[d];
        if (left == 0) left = 1;
    }
}

static bool holds_nothing(int rank, const hsize_t *dims, const hsize_t *max)
{
    for (int d = 0; d < rank; d++) {
        if ((max ? max[d] : dims[d]) == 0) return true;
    }
    return false;
}

fb3_status fb3_h5_create_dataset(hid_t *dataset, hid_t parent, const char *name, hid_t type, int rank,
                                 const hsize_t *dims, const hsize_t *max, size_t chunk_bytes)
{
    assert(rank >= 1 && rank <= MAX_RANK);
    fb3_h5_start();
    *dataset = H5I_INVALID_HID;
    fb3_status status = FB3_OK;
    hid_t space = H5Screate_simple(rank, dims, max), creation = H5Pcreate(H5P_DATASET_CREATE);
    size_t type_bytes = H5Tget_size(type);
    FB3_H5_GOTO(space, done, FB3_FAILED, "cannot create %s in HDF5", name);
    FB3_H5_GOTO(creation, done, FB3_FAILED, "cannot create %s in HDF5", name);
    FB3_H5_GOTO(type_bytes > 0 ? 0 : -1, done, FB3_FAILED, "cannot create %s in HDF5", name);
    FB3_H5_GOTO(H5Pset_obj_track_times(creation, false), done, FB3_FAILED, "cannot create %s in HDF5", name);
    /* HDF5 cannot chunk what has no elements and never will; such a data set has no bytes to protect. */
    if (!holds_nothing(rank, dims, max)) {
        hsize_t chunk[MAX_RANK];
        choose_chunk(rank, dims, max, chunk_bytes / type_bytes, chunk);
        FB3_H5_GOTO(H5Pset_chunk(creation, rank, chunk), done, FB3_FAILED, "cannot create %s in HDF5", name);
        FB3_H5_GOTO(H5Pset_fletcher32(creation), done, FB3_FAILED, "cannot create %s in HDF5", name);
    }
    FB3_H5_GOTO(*dataset = H5Dcreate2(parent, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT), done, FB3_FAILED,
                "cannot create %s in HDF5", name);
done:
    if (space >= 0) (void)H5Sclose(space);
    if (creation >= 0) (void)H5Pclose(creation);
    return status;
}

fb3_status fb3_h5_chunk_rows(hid_t dataset, hsize_t *rows)
{
    char name[FB3_H5_NAME_BYTES], file[FB3_H5_NAME_BYTES];
    hsize_t chunk[MAX_RANK];
    hid_t creation = H5Dget_create_plist(dataset);
    bool good = creation >= 0 && H5Pget_chunk(creation, MAX_RANK, chunk) >= 1;
    if (creation >= 0) (void)H5Pclose(creation);
    if (!good)
        return fb3_h5_fail(FB3_FAILED, "cannot read how %s in %s is stored", name_of(dataset, name),
                           fb3_h5_file_of(dataset, file));
    *rows = chunk[0];
    return FB3_OK;
}

/* Rank and dims (H5S_MAX_RANK of them) of an open data set. FB3_INPUT for a scalar or null data space. */
static fb3_status dataset_dims(hid_t dataset, int *rank, hsize_t dims[H5S_MAX_RANK])
{
    char name[FB3_H5_NAME_BYTES], file[FB3_H5_NAME_BYTES];
    hid_t space = H5Dget_space(dataset);
    FB3_H5(space, FB3_INPUT, "cannot read the shape of %s in %s", name_of(dataset, name),
           fb3_h5_file_of(dataset, file));
    *rank = H5Sget_simple_extent_type(space) == H5S_SIMPLE ? H5Sget_simple_extent_dims(space, dims, NULL) : -1;
    (void)H5Sclose(space);
    FB3_REQUIRE(*rank >= 1, FB3_INPUT, "%s in %s is not an array; the file was not written by this program",
                name_of(dataset, name), fb3_h5_file_of(dataset, file));
    return FB3_OK;
}

/* A file may claim any shape; memory is only ever given for what it really holds. */
static fb3_status check_stored_size(hid_t dataset, const char *name)
{
    char file[FB3_H5_NAME_BYTES];
    int rank;
    hsize_t dims[H5S_MAX_RANK], file_bytes = 0, bytes;
    FB3_TRY(dataset_dims(dataset, &rank, dims));
    hid_t type = H5Dget_type(dataset), container = H5Iget_file_id(dataset);
    bytes = type < 0 ? 0 : H5Tget_size(type);
    bool good = bytes > 0 && container >= 0 && H5Fget_filesize(container, &file_bytes) >= 0;
    for (int d = 0; d < rank && good; d++) {
        good = !__builtin_mul_overflow(bytes, dims[d], &bytes);
    }
    good = good && bytes <= file_bytes && bytes <= H5Dget_storage_size(dataset);
    if (type >= 0) (void)H5Tclose(type);
    if (container >= 0) (void)H5Fclose(container);
    if (good) return FB3_OK;
    return fb3_h5_fail(FB3_INPUT,
                       "%s in %s claims more elements than the file holds; the file is incomplete or damaged", name,
                       fb3_h5_file_of(dataset, file));
}

/* Raw data in other files (external or virtual storage) are refused. */
static fb3_status check_storage_kind(hid_t dataset, const char *name)
{
    char file[FB3_H5_NAME_BYTES];
    hid_t creation = H5Dget_create_plist(dataset);
    FB3_H5(creation, FB3_INPUT, "cannot read how %s in %s is stored", name, fb3_h5_file_of(dataset, file));
    H5D_layout_t layout = H5Pget_layout(creation);
    bool good = (layout == H5D_CHUNKED || layout == H5D_CONTIGUOUS || layout == H5D_COMPACT) &&
                H5Pget_external_count(creation) == 0;
    (void)H5Pclose(creation);
    if (good) return FB3_OK;
    return fb3_fail(FB3_INPUT, "the data of %s in %s lie in another file; write them into the file itself", name,
                    fb3_h5_file_of(dataset, file));
}

static fb3_status check_link(hid_t parent, const char *name)
{
    char file[FB3_H5_NAME_BYTES];
    htri_t there = H5Lexists(parent, name, H5P_DEFAULT);
    FB3_H5(there, FB3_INPUT, "cannot read what is in %s; the file is damaged", fb3_h5_file_of(parent, file));
    FB3_REQUIRE(there, FB3_INPUT, "%s has no %s; it is not a file of the kind that is needed here",
                fb3_h5_file_of(parent, file), name);
    H5L_info_t link;
    FB3_H5(H5Lget_info(parent, name, &link, H5P_DEFAULT), FB3_INPUT, "cannot read %s in %s", name,
           fb3_h5_file_of(parent, file));
    FB3_REQUIRE(link.type == H5L_TYPE_HARD, FB3_INPUT,
                "%s in %s is a link to somewhere else; put the data there itself", name, fb3_h5_file_of(parent, file));
    return FB3_OK;
}

fb3_status fb3_h5_open_dataset(hid_t *dataset, hid_t parent, const char *name)
{
    fb3_h5_start();
    *dataset = H5I_INVALID_HID;
    char file[FB3_H5_NAME_BYTES];
    FB3_TRY(check_link(parent, name));
    fb3_status status = FB3_OK;
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    FB3_H5_GOTO(access, done, FB3_FAILED, "cannot set up HDF5 for %s", name);
    FB3_H5_GOTO(H5Pset_chunk_cache(access, CHUNK_CACHE_SLOTS, CHUNK_CACHE_BYTES, H5D_CHUNK_CACHE_W0_DEFAULT), done,
                FB3_FAILED, "cannot set up HDF5 for %s", name);
    FB3_H5_GOTO(*dataset = H5Dopen2(parent, name, access), done, FB3_INPUT, "cannot open %s in %s", name,
                fb3_h5_file_of(parent, file));
    FB3_TRY_GOTO(check_storage_kind(*dataset, name), done);
    FB3_TRY_GOTO(check_stored_size(*dataset, name), done);
done:
    if (access >= 0) (void)H5Pclose(access);
    if (status != FB3_OK && *dataset >= 0) {
        (void)H5Dclose(*dataset);
        *dataset = H5I_INVALID_HID;
    }
    return status;
}

/* Selects rows first .. first+count-1 and makes the memory space for them. */
static fb3_status select_rows(hid_t dataset, hsize_t first, hsize_t count, hid_t *rows, hid_t *memory)
{
    char name[FB3_H5_NAME_BYTES], file[FB3_H5_NAME_BYTES];
    int rank;
    hsize_t dims[H5S_MAX_RANK], start[H5S_MAX_RANK] = {first};
    FB3_TRY(dataset_dims(dataset, &rank, dims));
    FB3_REQUIRE(first <= dims[0] && count <= dims[0] - first, FB3_INPUT,
                "%s in %s has %llu rows, but rows %llu to %llu are needed; the file does not belong to this run",
                name_of(dataset, name), fb3_h5_file_of(dataset, file), (unsigned long long)dims[0],
                (unsigned long long)first, (unsigned long long)(first + count - 1));
    dims[0] = count;
    *memory = H5Screate_simple(rank, dims, NULL);
    *rows = H5Dget_space(dataset);
    bool good = *memory >= 0 && *rows >= 0 && H5Sselect_hyperslab(*rows, H5S_SELECT_SET, start, NULL, dims, NULL) >= 0;
    if (good) return FB3_OK;
    return fb3_h5_fail(FB3_FAILED, "cannot select rows of %s in %s", name_of(dataset, name),
                       fb3_h5_file_of(dataset, file));
}

static fb3_status extend_rows(hid_t dataset, hsize_t end)
{
    char name[FB3_H5_NAME_BYTES], file[FB3_H5_NAME_BYTES];
    int rank;
    hsize_t dims[H5S_MAX_RANK];
    FB3_TRY(dataset_dims(dataset, &rank, dims));
    if (end <= dims[0]) return FB3_OK;
    dims[0] = end;
    FB3_H5(H5Dset_extent(dataset, dims), FB3_FAILED, "cannot extend %s in %s", name_of(dataset, name),
           fb3_h5_file_of(dataset, file));
    return FB3_OK;
}

fb3_status fb3_h5_write_rows(hid_t dataset, hid_t type, hsize_t first, hsize_t count, const void *data)
{
    if (count == 0) return FB3_OK;
    fb3_h5_start();
    char name[FB3_H5_NAME_BYTES], file[FB3_H5_NAME_BYTES];
    fb3_status status = FB3_OK;
    hid_t rows = H5I_INVALID_HID, memory = H5I_INVALID_HID;
    FB3_TRY(extend_rows(dataset, first + count));
    FB3_TRY_GOTO(select_rows(dataset, first, count, &rows, &memory), done);
    FB3_H5_GOTO(H5Dwrite(dataset, type, memory, rows, H5P_DEFAULT, data), done, FB3_FAILED,
                "cannot write %s of %s; check the free space", name_of(dataset, name), fb3_h5_file_of(dataset, file));
done:
    if (rows >= 0) (void)H5Sclose(rows);
    if (memory >= 0) (void)H5Sclose(memory);
    return status;
}

fb3_status fb3_h5_read_rows(hid_t dataset, hid_t type, hsize_t first, hsize_t count, void *data)
{
    if (count == 0) return FB3_OK;
    fb3_h5_start();
    char name[FB3_H5_NAME_BYTES], file[FB3_H5_NAME_BYTES];
    fb3_status status = FB3_OK;
    hid_t rows = H5I_INVALID_HID, memory = H5I_INVALID_HID;
    FB3_TRY_GOTO(select_rows(dataset, first, count, &rows, &memory), done);
    FB3_H5_GOTO(H5Dread(dataset, type, memory, rows, H5P_DEFAULT, data), done, FB3_INPUT,
                "cannot read %s in %s; the file is damaged", name_of(dataset, name), fb3_h5_file_of(dataset, file));
done:
    if (rows >= 0) (void)H5Sclose(rows);
    if (memory >= 0) (void)H5Sclose(memory);
    return status;
}

fb3_status fb3_h5_write(hid_t parent, const char *name, hid_t type, int rank, const hsize_t *dims, const void *data)
{
    char file[FB3_H5_NAME_BYTES];
    fb3_status status = FB3_OK;
    hid_t dataset;
    FB3_TRY(fb3_h5_create_dataset(&dataset, parent, name, type, rank, dims, NULL, DEFAULT_CHUNK_BYTES));
    if (!holds_nothing(rank, dims, NULL)) {
        FB3_H5_GOTO(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), done, FB3_FAILED,
                    "cannot write %s of %s; check the free space", name, fb3_h5_file_of(parent, file));
    }
done:
    (void)H5Dclose(dataset);
    return status;
}

static void print_shape(char *text, size_t bytes, int rank, const hsize_t *dims)
{
    size_t used = 0;
    for (int d = 0; d < rank && used < bytes; d++) {
        used += (size_t)snprintf(text + used, bytes - used, "%s%llu", d ? ", " : "", (unsigned long long)dims[d]);
    }
}

static fb3_status check_shape(hid_t dataset, const char *name, int rank, const hsize_t *dims)
{
    char file[FB3_H5_NAME_BYTES], is[FB3_H5_NAME_BYTES] = "", needed[FB3_H5_NAME_BYTES] = "";
    int file_rank;
    hsize_t file_dims[H5S_MAX_RANK];
    FB3_TRY(dataset_dims(dataset, &file_rank, file_dims));
    if (file_rank == rank && memcmp(file_dims, dims, (size_t)rank * sizeof *dims) == 0) return FB3_OK;
    print_shape(is, sizeof is, file_rank, file_dims);
    print_shape(needed, sizeof needed, rank, dims);
    return fb3_fail(FB3_INPUT, "%s in %s has the shape [%s], but [%s] is needed; the file does not belong to this run",
                    name, fb3_h5_file_of(dataset, file), is, needed);
}

/* HDF5 would turn integers into floats, and more, without a word. */
static fb3_status check_class(hid_t dataset, const char *name, hid_t memory_type)
{
    char file[FB3_H5_NAME_BYTES];
    hid_t type = H5Dget_type(dataset);
    FB3_H5(type, FB3_INPUT, "cannot read the type of %s in %s", name, fb3_h5_file_of(dataset, file));
    bool same = H5Tget_class(type) == H5Tget_class(memory_type);
    (void)H5Tclose(type);
    FB3_REQUIRE(same, FB3_INPUT, "%s in %s has elements of the wrong type; the file was not written by this program",
                name, fb3_h5_file_of(dataset, file));
    return FB3_OK;
}

fb3_status fb3_h5_read(hid_t parent, const char *name, hid_t type, int rank, const hsize_t *dims, void *data)
{
    char file[FB3_H5_NAME_BYTES];
    fb3_status status = FB3_OK;
    hid_t dataset;
    FB3_TRY(fb3_h5_open_dataset(&dataset, parent, name));
    FB3_TRY_GOTO(check_shape(dataset, name, rank, dims), done);
    FB3_TRY_GOTO(check_class(dataset, name, type), done);
    if (!holds_nothing(rank, dims, NULL)) {
        FB3_H5_GOTO(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), done, FB3_INPUT,
                    "cannot read %s in %s; the file is damaged", name, fb3_h5_file_of(parent, file));
    }
done:
    (void)H5Dclose(dataset);
    return status;
}

fb3_status fb3_h5_shape(hid_t parent, const char *name, int max_rank, int *rank, hsize_t *dims)
{
    char file[FB3_H5_NAME_BYTES];
    hid_t dataset;
    hsize_t all[H5S_MAX_RANK];
    FB3_TRY(fb3_h5_open_dataset(&dataset, parent, name));
    fb3_status status = dataset_dims(dataset, rank, all);
    if (status == FB3_OK && *rank > max_rank) {
        status = fb3_fail(FB3_INPUT, "%s in %s has %d dimensions, at most %d are expected", name,
                          fb3_h5_file_of(parent, file), *rank, max_rank);
    }
    if (status == FB3_OK) memcpy(dims, all, (size_t)*rank * sizeof *dims);
    (void)H5Dclose(dataset);
    return status;
}

fb3_status fb3_h5_create_group(hid_t *group, hid_t parent, const char *name)
{
    fb3_h5_start();
    *group = H5I_INVALID_HID;
    fb3_status status = FB3_OK;
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE);
    FB3_H5_GOTO(creation, done, FB3_FAILED, "cannot create %s in HDF5", name);
    FB3_H5_GOTO(H5Pset_obj_track_times(creation, false), done, FB3_FAILED, "cannot create %s in HDF5", name);
    FB3_H5_GOTO(*group = H5Gcreate2(parent, name, H5P_DEFAULT, creation, H5P_DEFAULT), done, FB3_FAILED,
                "cannot create %s in HDF5", name);
done:
    if (creation >= 0) (void)H5Pclose(creation);
    return status;
}

fb3_status fb3_h5_open_group(hid_t *group, hid_t parent, const char *name)
{
    fb3_h5_start();
    *group = H5I_INVALID_HID;
    char file[FB3_H5_NAME_BYTES];
    FB3_TRY(check_link(parent, name));
    FB3_H5(*group = H5Gopen2(parent, name, H5P_DEFAULT), FB3_INPUT, "cannot open %s in %s", name,
           fb3_h5_file_of(parent, file));
    return FB3_OK;
}

bool fb3_h5_has(hid_t parent, const char *name)
{
    fb3_h5_start();
    bool there = H5Lexists(parent, name, H5P_DEFAULT) > 0;
    (void)H5Eclear2(H5E_DEFAULT);
    return there;
}

const char *fb3_h5_version(void)
{
    static char version[32];
    unsigned major = 0, minor = 0, release = 0;
    fb3_h5_start();
    (void)H5get_libversion(&major, &minor, &release);
    snprintf(version, sizeof version, "%u.%u.%u", major, minor, release);
    return version;
}
