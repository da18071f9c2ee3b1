/* The gradient all-reduce: one table per kind of memory that gradients lie in. "mpi" (src/comm/allreduce_mpi.c) sums
 * host memory, "nccl" (src/backend/cuda/nccl.c) the memory of CUDA devices. */
#ifndef FB3_REDUCER_H
#define FB3_REDUCER_H

#include "fb3/status.h"
#include <stdint.h>

typedef struct fb3_reducer fb3_reducer;
typedef struct fb3_reducer_ops {
    const char *name; /* "mpi", "nccl" */
    /* Posts the in-place sum of x[0..count) over the ranks. Ranges must not overlap; every rank posts the same ranges
     * in the same order. Large ranges are cut into pieces of a constant size. */
    fb3_status (*start)(fb3_reducer *reducer, float *x, int64_t count);
    fb3_status (*start_int64)(fb3_reducer *reducer, int64_t *x, int64_t count); /* the same of integers */
    fb3_status (*poll)(fb3_reducer *reducer);                                   /* moves posted sums on; cheap */
    /* Operations after it see the sums. On the host they are done when it returns; on a device it only puts the
     * operations behind them, and the backend's sync fails where a sum failed or took too long. */
    fb3_status (*wait)(fb3_reducer *reducer, int64_t step);
    /* The sum of a few doubles over the ranks, in place, with no range posted: start and wait in one. */
    fb3_status (*sum_double)(fb3_reducer *reducer, double *x, int count);
    void (*destroy)(fb3_reducer *reducer);
} fb3_reducer_ops;
struct fb3_reducer {
    const fb3_reducer_ops *ops;
    int64_t bytes; /* sent so far, for the log */
    double wait_seconds;
};

#endif
