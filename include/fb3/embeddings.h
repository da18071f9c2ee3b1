/* `predict --embeddings_file`: the pooled embeddings of every model, in HDF5. */
#ifndef FB3_EMBEDDINGS_H
#define FB3_EMBEDDINGS_H

#include "fb3/config.h"

/* Writes /embeddings float32 [models, n, C] and /ids UTF-8 [n], atomically. */
fb3_status fb3_embeddings_write(const char *path, const float *pooled, int models, int64_t n, int hidden,
                                const fb3_strings *ids);

#endif
