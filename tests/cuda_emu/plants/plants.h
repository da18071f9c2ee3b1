/* Small programs, each right as it stands and with one bug that can be planted, to test the emulator: plants.tsv says
 * who must find it. The same sources are compiled for each flavour and by nvcc. */
#ifndef FB3_PLANTS_H
#define FB3_PLANTS_H

#include <kernel.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plant {
    const char *name;
    int (*run)(int bug); /* 0, or how wrong it went */
};
extern const plant SYNC_PLANTS[], MEMORY_PLANTS[], STREAM_PLANTS[];

enum { N = 256 };

/* What CUDA itself refuses: the program reports it, as ours does. */
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        cudaError_t error_ = (call);                                                                                   \
        if (error_ != cudaSuccess) {                                                                                   \
            fprintf(stderr, "REFUSED: %s: %s\n", #call, cudaGetErrorName(error_));                                     \
            return 2;                                                                                                  \
        }                                                                                                              \
    } while (0)

static inline int wrong(const char *what, double got, double expected)
{
    fprintf(stderr, "WRONG RESULT: %s is %g, not %g\n", what, got, expected);
    return 1;
}

/* x[i] = i, in device memory */
static inline float *device_numbers(int n)
{
    float *host = (float *)malloc(n * sizeof *host), *x = NULL;
    for (int i = 0; i < n; i++) host[i] = (float)i;
    if (cudaMalloc((void **)&x, n * sizeof *x) != cudaSuccess) abort();
    if (cudaMemcpy(x, host, n * sizeof *x, cudaMemcpyHostToDevice) != cudaSuccess) abort();
    free(host);
    return x;
}
static inline float *device_zeros(int n)
{
    float *x = NULL;
    if (cudaMalloc((void **)&x, n * sizeof *x) != cudaSuccess) abort();
    if (cudaMemset(x, 0, n * sizeof *x) != cudaSuccess) abort();
    return x;
}
static inline float device_get(const float *x, int i)
{
    float value = 0.0f;
    if (cudaMemcpy(&value, x + i, sizeof value, cudaMemcpyDeviceToHost) != cudaSuccess) abort();
    return value;
}
/* out[i] == expected(i) for all i < n */
#define EXPECT(out, n, expected)                                                                                       \
    for (int i = 0; i < (n); i++) {                                                                                    \
        float got_ = device_get(out, i);                                                                               \
        if (!(got_ == (float)(expected))) return wrong(#out, got_, expected);                                          \
    }

#endif
