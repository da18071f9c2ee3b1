/* What the files of the CPU backend share: its state, its workspace, and the one entry for matrix products.
 *
 * Operations live in embedding.c layernorm.c linear.c attention.c head.c optimizer.c elementwise.c. They are compiled
 * once per instruction set (ops.h); cpu.c picks a table when the backend opens. This header's functions exist once. */
#ifndef FB3_BACKEND_CPU_H
#define FB3_BACKEND_CPU_H

#include "fb3/backend.h"

/* An operation table: an instruction set and an activation type. */
typedef enum fb3_cpu_table {
    FB3_CPU_BASELINE,
    FB3_CPU_AVX2,
    FB3_CPU_AVX512,
    FB3_CPU_AVX512_BF16, /* the only one with bf16 activations */
    FB3_CPU_TABLES
} fb3_cpu_table;

typedef struct fb3_cpu_state {
    fb3_cpu_table table;
    void *workspace; /* scratch of the running operation; grows, never shrinks */
    size_t workspace_bytes;
} fb3_cpu_state;

/* The backend with one table, be->act being that table's type; FB3_INPUT where this processor or this build has it
 * not. Tests run every table; the program takes the best one of its type (fb3_backend_open_cpu). */
fb3_status fb3_backend_open_cpu_table(fb3_backend *be, fb3_cpu_table table);
bool fb3_cpu_has_table(fb3_cpu_table table);

/* --- memory.c: the same for every instruction set ----------------------------------------------------------------- */
fb3_status fb3_alloc_cpu(fb3_backend *be, void **memory, size_t bytes);
void fb3_free_cpu(fb3_backend *be, void *memory);
fb3_status fb3_upload_cpu(fb3_backend *be, void *dst, const void *src_host, size_t bytes);
fb3_status fb3_download_cpu(fb3_backend *be, void *dst_host, const void *src, size_t bytes);
fb3_status fb3_zero_cpu(fb3_backend *be, void *memory, size_t bytes);
fb3_status fb3_sync_cpu(fb3_backend *be);
fb3_status fb3_memory_left_cpu(fb3_backend *be, size_t *left, size_t *total);
fb3_status fb3_snapshot_ready_cpu(fb3_backend *be, bool *ready);
void fb3_close_cpu(fb3_backend *be);
void fb3_describe_cpu(const fb3_backend *be, char *text, size_t bytes);

/* --- limits.c ----------------------------------------------------------------------------------------------------- */
fb3_status fb3_library_product_cpu(fb3_backend *be, int M, int N, int K, double *seconds);
fb3_status fb3_memory_rate_cpu(fb3_backend *be, double *bytes_per_second);

/* At least `floats` floats of 64-byte aligned scratch, contents undefined, valid until the next call. */
fb3_status fb3_cpu_workspace(fb3_backend *be, float **memory, size_t floats);

/* --- gemm.c ------------------------------------------------------------------------------------------------------- */

/* Runs on every finished output tile while it is in the cache: tile [rows, cols], ld apart, is c[row .. row + rows - 1,
 * col .. col + cols - 1] itself, or where c is NULL a copy that is gone afterwards. */
typedef void fb3_gemm_epilogue(const void *context, float *tile, int64_t ld, int row, int rows, int col, int cols);

/* c float[M,N] (+)= op(a) [M,K] op(b) [K,N], row major; a and b are of `type`, op transposes where trans_* says so. */
typedef struct fb3_gemm {
    fb3_dtype type;
    bool trans_a, trans_b, accumulate;
    int M, N, K;
    const void *a, *b;
    float *c; /* NULL: the product is for the epilogue only */
    int64_t lda, ldb, ldc;
    fb3_gemm_epilogue *epilogue; /* NULL: none */
    const void *context;
} fb3_gemm;

/* All threads. The bits of c depend on the shape and the values, not on the number of threads. */
fb3_status fb3_cpu_gemm(fb3_backend *be, const fb3_gemm *gemm);

/* The same product on the calling thread of a parallel region; `epilogue` is not used. False: out of memory. */
bool fb3_cpu_gemm_serial(const fb3_gemm *gemm);

/* Called at the start of a parallel region that makes serial products. */
void fb3_cpu_gemm_serial_begin(void);

#endif
