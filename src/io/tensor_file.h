/* What the readers of tensor files (safetensors.c, torch_zip.c) share. Private to src/io. */
#ifndef FB3_IO_TENSOR_FILE_H
#define FB3_IO_TENSOR_FILE_H

#include "fb3/hf_dir.h"
#include "fb3/utf8.h"

enum {
    FB3_TENSORS_MAX = 1 << 16, /* in a file; a DeBERTa has some hundreds */
    FB3_TENSOR_NAME_MAX = 255,
};

/* Opens `path` for pread; no tensors yet. FB3_INPUT when it is not a regular file, or a Git LFS pointer to one. */
fb3_status fb3_tensor_file_begin(fb3_tensor_file **file, const char *path);
/* Adds a tensor (its name is copied). Names must be printable ASCII without spaces, so that a message can show them. */
fb3_status fb3_tensor_file_add(fb3_tensor_file *file, const fb3_tensor *tensor, const char *name, size_t name_bytes);
/* Sorts by name ("layer.2" before "layer.10") and refuses two tensors of one name. */
fb3_status fb3_tensor_file_finish(fb3_tensor_file *file);

/* Exactly `bytes` bytes from `offset`, which must lie in the file. */
fb3_status fb3_tensor_file_pread(const fb3_tensor_file *file, int64_t offset, void *data, size_t bytes);

/* The product of the shape; false when it overflows or a dimension is negative. */
bool fb3_shape_elements(int dims, const int64_t *shape, int64_t *elements);
/* Row-major strides of the shape. */
void fb3_shape_strides(int dims, const int64_t *shape, int64_t *stride);

#endif
