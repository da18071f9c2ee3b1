/* The state dict of a PyTorch pickle, as data. Private to src/io. */
#ifndef FB3_IO_PICKLE_H
#define FB3_IO_PICKLE_H

#include "fb3/hf_dir.h"

enum { FB3_STORAGE_KEY_MAX = 20 }; /* digits of a uint64 */

/* A tensor of the pickle. Shape, strides and offset are checked against `storage_elements`. */
typedef struct fb3_pickled_tensor {
    const char *name; /* in the pickle's bytes, not terminated */
    size_t name_bytes;
    fb3_file_dtype dtype;
    int element_bytes;
    int dims;
    int64_t shape[FB3_TENSOR_MAX_DIMS], stride[FB3_TENSOR_MAX_DIMS]; /* in elements */
    int64_t elements;
    char storage[FB3_STORAGE_KEY_MAX + 1]; /* key: decimal digits, the member data/<key> */
    int64_t storage_elements, storage_offset;
} fb3_pickled_tensor;

/* Reads the state dict: the pickle's root, or the one dict in the root that holds tensors ({"model": state_dict}).
 * *tensors is malloc'ed and points into `data`. `what` names the file in messages. */
fb3_status fb3_unpickle_state_dict(fb3_pickled_tensor **tensors, int *count, const uint8_t *data, size_t bytes,
                                   const char *what);

#endif
