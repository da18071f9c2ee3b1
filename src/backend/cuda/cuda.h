/* What the files of the CUDA backend share: its state, its scratch memory, and how errors of the libraries are said.
 *
 *   cuda.c        opens a device, the table of operations        memory.c     memory, transfers, scratch
 *   linear.c      linear layers by cuBLASLt                      rows.cu      LayerNorm, residual sums, embeddings
 *   elementwise.cu  casts, GELU, dropout, column sums            head.cu      pooling, head, loss
 *   optimizer.cu  norm of the gradient, AdamW                    attention*.c attention*.cu   disentangled attention
 *   nccl.c        the gradient all-reduce                        limits.c     what bench holds operations against
 *   snapshot.c    copies of device memory for checkpoints
 *
 * Everything is queued on one stream, `compute`; the gradient all-reduce and snapshots have their own. Host code never
 * waits for the device except in sync and download. Sums are over fixed blocks in a fixed order: no float atomics. */
#ifndef FB3_BACKEND_CUDA_H
#define FB3_BACKEND_CUDA_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "fb3/backend.h"

typedef struct fb3_cuda_staging fb3_cuda_staging;     /* memory.c: pinned memory that transfers go through */
typedef struct fb3_cuda_snapshots fb3_cuda_snapshots; /* snapshot.c */
typedef struct fb3_cuda_products fb3_cuda_products;   /* product.c: cuBLASLt's plans */

typedef struct fb3_cuda {
    int device;
    struct cudaDeviceProp properties;
    cudaStream_t compute;
    fb3_cuda_staging *staging;
    fb3_cuda_snapshots *snapshots;
    fb3_cuda_products *products;
    cudnnHandle_t cudnn;
    void *scratch; /* of the running operation; grows outside the steps only (reserve) */
    size_t scratch_bytes;
    unsigned *arrivals; /* [FB3_CUDA_ARRIVALS], all 0 between operations: which block of a sum is the last one */
    bool tf32;
    bool fused, fused_only; /* attention by our own kernels; never by the reference */
    fb3_status (*poll)(
        void *context); /* while the host waits for the device: NULL, or the collectives' look at errors */
    void *poll_context;
} fb3_cuda;

enum { FB3_CUDA_ARRIVALS = 4096 };

static inline fb3_cuda *fb3_cuda_of(const fb3_backend *be)
{
    return (fb3_cuda *)be->state;
}

/* At least `bytes` of device memory, 256-byte aligned, contents undefined, valid until the next call. */
fb3_status fb3_cuda_scratch(fb3_backend *be, void **memory, size_t bytes);

/* cuda.c */
fb3_status fb3_cuda_devices(int *count);
fb3_status fb3_cuda_open(fb3_backend *be, const fb3_backend_options *options);

/* memory.c: the pinned memory of an open backend. */
fb3_status fb3_staging_open(fb3_backend *be);
void fb3_staging_close(fb3_backend *be);

/* snapshot.c */
fb3_status fb3_snapshots_open(fb3_backend *be);
void fb3_snapshots_close(fb3_backend *be);
/* To be called before an operation that writes there is queued: the compute stream then waits until it is taken. */
fb3_status fb3_snapshots_before_write(fb3_backend *be, const void *memory, size_t bytes);
/* Frees the device memory that snapshots keep and do not use now; false: there was none. */
bool fb3_snapshots_make_room(fb3_backend *be);

/* Turns a library's error into a status with the call and the library's own words. */
fb3_status fb3_cuda_error(cudaError_t error, const char *call);
fb3_status fb3_cublas_error(cublasStatus_t error, const char *call);
fb3_status fb3_cudnn_error(cudnnStatus_t error, const char *call);

#define FB3_CUDA(call)                                                                                                 \
    do {                                                                                                               \
        cudaError_t fb3_cuda_error_ = (call);                                                                          \
        if (fb3_cuda_error_ != cudaSuccess) return fb3_cuda_error(fb3_cuda_error_, #call);                             \
    } while (0)
#define FB3_CUBLAS(call)                                                                                               \
    do {                                                                                                               \
        cublasStatus_t fb3_cublas_error_ = (call);                                                                     \
        if (fb3_cublas_error_ != CUBLAS_STATUS_SUCCESS) return fb3_cublas_error(fb3_cublas_error_, #call);             \
    } while (0)
#define FB3_CUDNN(call)                                                                                                \
    do {                                                                                                               \
        cudnnStatus_t fb3_cudnn_error_ = (call);                                                                       \
        if (fb3_cudnn_error_ != CUDNN_STATUS_SUCCESS) return fb3_cudnn_error(fb3_cudnn_error_, #call);                 \
    } while (0)

/* Operations, declared with the type of their slot in the table, so a definition that differs does not compile. */
#define FB3_CUDA_DECLARE(op) __typeof__(*((const fb3_ops *)0)->op) fb3_##op##_cuda

FB3_CUDA_DECLARE(close);
FB3_CUDA_DECLARE(describe);
FB3_CUDA_DECLARE(alloc);
FB3_CUDA_DECLARE(free);
FB3_CUDA_DECLARE(upload);
FB3_CUDA_DECLARE(download);
FB3_CUDA_DECLARE(zero);
FB3_CUDA_DECLARE(fetch);
FB3_CUDA_DECLARE(sync);
FB3_CUDA_DECLARE(reserve);
FB3_CUDA_DECLARE(scratch_bytes);
FB3_CUDA_DECLARE(memory_left);
FB3_CUDA_DECLARE(alloc_host);
FB3_CUDA_DECLARE(free_host);
FB3_CUDA_DECLARE(snapshot);
FB3_CUDA_DECLARE(snapshot_ready);
FB3_CUDA_DECLARE(library_product);
FB3_CUDA_DECLARE(memory_rate);
FB3_CUDA_DECLARE(cast_to_act);
FB3_CUDA_DECLARE(fixed_add);
FB3_CUDA_DECLARE(fixed_to_float);
FB3_CUDA_DECLARE(count_nonfinite);
FB3_CUDA_DECLARE(embedding_fwd);
FB3_CUDA_DECLARE(embedding_bwd);
FB3_CUDA_DECLARE(layernorm_fwd);
FB3_CUDA_DECLARE(layernorm_bwd);
FB3_CUDA_DECLARE(dropout_fwd);
FB3_CUDA_DECLARE(dropout_bwd_add);
FB3_CUDA_DECLARE(linear_fwd);
FB3_CUDA_DECLARE(linear_gelu_fwd);
FB3_CUDA_DECLARE(linear_bwd_input);
FB3_CUDA_DECLARE(linear_bwd_weight);
FB3_CUDA_DECLARE(linear_bwd_input_float);
FB3_CUDA_DECLARE(linear_gelu_bwd_input);
FB3_CUDA_DECLARE(attention_fwd);
FB3_CUDA_DECLARE(attention_bwd);
FB3_CUDA_DECLARE(add_layernorm_fwd);
FB3_CUDA_DECLARE(add_layernorm_bwd);
FB3_CUDA_DECLARE(mean_pool_fwd);
FB3_CUDA_DECLARE(mean_pool_bwd);
FB3_CUDA_DECLARE(head_fwd);
FB3_CUDA_DECLARE(head_bwd);
FB3_CUDA_DECLARE(loss_fwd);
FB3_CUDA_DECLARE(loss_bwd);
FB3_CUDA_DECLARE(sum_squares);
FB3_CUDA_DECLARE(adamw);

/* Scratch bytes that the largest operations of a file take, for `reserve`. */
size_t fb3_cuda_rows_scratch(const fb3_limits *limits);
size_t fb3_cuda_elementwise_scratch(const fb3_limits *limits);
size_t fb3_cuda_head_scratch(const fb3_limits *limits);
size_t fb3_cuda_optimizer_scratch(void);
size_t fb3_cuda_attention_scratch(const fb3_backend *be, const fb3_limits *limits);

/* --- elementwise.cu: pieces of the linear layers ------------------------------------------------------------------ */

/* y act[n] = GELU(pre act[n]) */
fb3_status fb3_gelu_fwd_cuda(fb3_backend *be, void *y, const void *pre, int64_t n);
/* dpre act[T,I] *= GELU'(pre act[T,I]), y act[T,I] = GELU(pre); */
/* and, in the same launch, dpre_sum float[I] += column sums of dpre, dy_sum float[O] += column sums of dy act[T,O] */
fb3_status fb3_gelu_bwd_cuda(fb3_backend *be, void *dpre, void *y, float *dpre_sum, float *dy_sum, const void *dy,
                             const void *pre, int T, int I, int O);
/* sum float[O] += column sums of x act[T,O], in a fixed order */
fb3_status fb3_column_sums_cuda(fb3_backend *be, float *sum, const void *x, int T, int O);

/* --- product.c: matrix products by cuBLASLt ----------------------------------------------------------------------- */

/* c [M,N] = op(a) [M,K] op(b) [K,N] (+ c) (+ bias), row major, op transposes where trans_* says so; `batch` of them,
 * the strides in elements. a and b are of the activation type, c of `c_type`; the arithmetic is fp32. */
typedef struct fb3_product {
    bool trans_a, trans_b, accumulate;
    int M, N, K, batch;       /* batch 0 is 1 */
    const void *a, *b, *bias; /* bias [N] in c's type, or NULL */
    void *c;
    fb3_dtype c_type;
    int64_t lda, ldb, ldc, stride_a, stride_b, stride_c;
} fb3_product;
fb3_status fb3_product_cuda(fb3_backend *be, const fb3_product *product);
fb3_status fb3_products_open(fb3_backend *be);
void fb3_products_close(fb3_backend *be);

#ifdef __cplusplus
}
#endif

#endif
