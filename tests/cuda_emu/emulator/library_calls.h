/* For the stand-ins of CUDA's libraries (tests/cuda_emu/shims): work that they put on a stream. C. */
#ifndef CUDAEMU_LIBRARY_CALLS_H
#define CUDAEMU_LIBRARY_CALLS_H

#include <cuda_runtime_api.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Queues run(arg). It is called with device memory accessible, and again, later, as long as it returns 0 (not yet: it
 * waits for another process, or for its turn). */
void cudaemu_enqueue(cudaStream_t stream, int (*run)(void *), void *arg);
/* Inside run: fail unless [p, p + n) is in one live device allocation. Bytes read must be initialised (check flavour);
 * those written then are. */
void cudaemu_written(void *p, size_t n);
void cudaemu_reads(const void *p, size_t n);

/* A row of CUDAEMU_TRACE: "product" and these numbers. */
void cudaemu_trace_product(const long long *numbers, int count);
/* 0: CUDAEMU_PRODUCTS=count, results are to be zeros. */
int cudaemu_products_run(void);

#ifdef __cplusplus
}
#endif

#endif
