/* The gradient all-reduce between devices (nccl.c). */
#ifndef FB3_BACKEND_CUDA_NCCL_H
#define FB3_BACKEND_CUDA_NCCL_H

#include "fb3/cuda_library.h"

int fb3_nccl_version(void);
fb3_status fb3_reducer_id_nccl(fb3_reducer_id *id);
fb3_status fb3_reducer_create_nccl(fb3_reducer **reducer, fb3_backend *be, const fb3_reducer_id *id, int rank, int size,
                                   int64_t timeout_seconds);

#endif
