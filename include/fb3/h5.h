/* The few HDF5 idioms that dataset_h5.c and checkpoint_h5.c share: errors as values, V110 format, no file locking,
 * fletcher32 on every chunk, attributes. Private to `data` and `io` (the only modules that link HDF5). */
#ifndef FB3_H5_H
#define FB3_H5_H

#include "fb3/status.h"
#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

/* FB3_H5(call, code, "what"): a negative result becomes an error that carries HDF5's own innermost message. */
#define FB3_H5(call, ...)                                                                                              \
    do {                                                                                                               \
        if ((call) < 0) return fb3_h5_fail(__VA_ARGS__);                                                               \
    } while (0)
#define FB3_H5_GOTO(call, label, ...)                                                                                  \
    do {                                                                                                               \
        if ((call) < 0) {                                                                                              \
            status = fb3_h5_fail(__VA_ARGS__);                                                                         \
            goto label;                                                                                                \
        }                                                                                                              \
    } while (0)
/* "what (HDF5: its message); what to do". FB3_INPUT becomes FB3_FAILED where it was the operating system that could not
 * read or write: then the file is not at fault. */
fb3_status fb3_h5_fail(fb3_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

fb3_status fb3_h5_create(hid_t *file, const char *path); /* truncates */
fb3_status fb3_h5_open(hid_t *file, const char *path);   /* read only; FB3_INPUT: not there, not HDF5, damaged */
/* Flush and close, with every object in it that is still open; a failure of either is reported (a full disk shows
 * here). */
fb3_status fb3_h5_close(hid_t file, const char *path);

/* A chunked (fletcher32), possibly extendible data set. dims[rank]; max NULL: fixed. chunk_bytes is a target. */
fb3_status fb3_h5_create_dataset(hid_t *dataset, hid_t parent, const char *name, hid_t type, int rank,
                                 const hsize_t *dims, const hsize_t *max, size_t chunk_bytes);
/* Opens a data set after checking that a read of it needs no more memory than the file has bytes, and that its data
 * are in this very file. FB3_INPUT otherwise, or when it is not there. */
fb3_status fb3_h5_open_dataset(hid_t *dataset, hid_t parent, const char *name);
/* Rows first .. first+count-1 of the first dimension (all of the others). Writing extends the data set where its
 * maximum allows. `data` holds count rows of the memory type `type`. count 0 does nothing. */
fb3_status fb3_h5_write_rows(hid_t dataset, hid_t type, hsize_t first, hsize_t count, const void *data);
fb3_status fb3_h5_read_rows(hid_t dataset, hid_t type, hsize_t first, hsize_t count, void *data);

/* How many rows a chunk of the data set has: writes of that many at a time touch every chunk once. */
fb3_status fb3_h5_chunk_rows(hid_t dataset, hsize_t *rows);

/* Whole small or large arrays. Reading checks that the file's shape is exactly rank/dims and its type of the same
 * class (integer, float, string). */
fb3_status fb3_h5_write(hid_t parent, const char *name, hid_t type, int rank, const hsize_t *dims, const void *data);
fb3_status fb3_h5_read(hid_t parent, const char *name, hid_t type, int rank, const hsize_t *dims, void *data);
/* The shape of a data set: *rank <= max_rank. The product of dims and the size of an element fits into the file. */
fb3_status fb3_h5_shape(hid_t parent, const char *name, int max_rank, int *rank, hsize_t *dims);
/* Groups, without the time that HDF5 would put into a new one. The caller closes them by H5Gclose. */
fb3_status fb3_h5_create_group(hid_t *group, hid_t parent, const char *name);
fb3_status fb3_h5_open_group(hid_t *group, hid_t parent, const char *name);
/* Is there a data set or group (or attribute) of this name? */
bool fb3_h5_has(hid_t parent, const char *name);
bool fb3_h5_has_attribute(hid_t object, const char *name);

/* Attributes are scalars; texts are UTF-8 of fixed size, because only those lie where HDF5 keeps a checksum. */
fb3_status fb3_h5_set_text(hid_t object, const char *name, const char *text);
fb3_status fb3_h5_get_text(hid_t object, const char *name, size_t limit, char **text); /* caller frees */
fb3_status fb3_h5_set_int(hid_t object, const char *name, int64_t value);
fb3_status fb3_h5_get_int(hid_t object, const char *name, int64_t *value);
fb3_status fb3_h5_set_double(hid_t object, const char *name, double value);
fb3_status fb3_h5_get_double(hid_t object, const char *name, double *value);

const char *fb3_h5_version(void);

#endif
