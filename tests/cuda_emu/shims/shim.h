/* What the library shims share. A shim stands in for the functions of a CUDA library that need a device; descriptors,
 * layouts and preferences stay those of the real library. Work is queued on the emulator's streams.
 *
 *   cublaslt.c   cublasLtCreate Destroy MatmulAlgoGetHeuristic Matmul        gemm.c   their arithmetic
 *   cudnn.c      cudnnCreate Destroy SetStream GetStream SoftmaxForward SoftmaxBackward
 *   nccl.c       NCCL's calls                 nccl_collective.c   collectives over MPI, faults on demand
 *   nccl_join.c  how the ranks of a communicator find each other
 *
 * What a library answers with a status, its shim answers with that status and one line on stderr that says why. What a
 * library leaves undefined (a pointer that breaks a promise, overlapping matrices, ranks that disagree) ends the
 * process: `==<library> shim== ...` and abort(). */
#ifndef FB3_CUDA_EMU_SHIM_H
#define FB3_CUDA_EMU_SHIM_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The emulator's entry points for shims. `run` is called when the stream reaches the work, with the device memory
 * open; 0 means "not yet": it is called again later, and what is queued behind it waits. */
void cudaemu_enqueue(cudaStream_t stream, int (*run)(void *arg), void *arg);
/* Both end the process when the range is not live device memory. */
void cudaemu_written(void *memory, size_t bytes);
void cudaemu_reads(const void *memory, size_t bytes);
/* "product" and these numbers go into the trace (emulator/stats.h). */
void cudaemu_trace_product(const long long *numbers, int count);
/* 0: products are counted, and their results are zeros. */
int cudaemu_products_run(void);

/* printf-like; the library's name is the prefix of the line. */
_Noreturn void shim_misuse(const char *library, const char *format, ...) __attribute__((format(printf, 2, 3)));
void shim_note(const char *library, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* malloc that ends the process when there is no memory; 0 bytes give a pointer too. */
void *shim_alloc(size_t bytes);

/* --- gemm.c ------------------------------------------------------------------------------------------------------- */

typedef enum { SHIM_F32, SHIM_BF16 } shim_type;

typedef struct shim_matrix {
    const void *data;
    shim_type type;
    int64_t row_stride, col_stride; /* in elements */
} shim_matrix;

/* out[i + j * m] = sum over k, in order, of a(i,k) b(k,j), in fp32: one order of summation whatever m and n are.
 * tf32: both operands are rounded to TF32's 10 mantissa bits first. */
void shim_gemm(float *out, int m, int n, int k, const shim_matrix *a, const shim_matrix *b, bool tf32);

float shim_load(const void *data, shim_type type, int64_t index);
void shim_store(void *data, shim_type type, int64_t index, float value); /* bf16: to nearest, ties to even */

static inline size_t shim_type_bytes(shim_type type)
{
    return type == SHIM_BF16 ? 2 : 4;
}

#endif
