/* What the device can do at best, for bench: one product of the library, and a pass over memory. */
#include <kernel.h>

#include "cuda.h"

/* a float[4n] += b */
__global__ void add_kernel(float4 *a, const float4 *b, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float4 x = a[i], y = b[i];
    a[i] = make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
}

/* Device memory and a pair of events around what is timed. */
struct stopwatch {
    cudaEvent_t begin, end;
    void *memory;
};

static void stopwatch_free(fb3_backend *be, stopwatch *watch)
{
    if (watch->begin) (void)cudaEventDestroy(watch->begin);
    if (watch->end) (void)cudaEventDestroy(watch->end);
    fb3_free_cuda(be, watch->memory);
}

static fb3_status stopwatch_make(fb3_backend *be, stopwatch *watch, size_t bytes)
{
    *watch = stopwatch();
    FB3_CUDA(cudaEventCreate(&watch->begin));
    FB3_CUDA(cudaEventCreate(&watch->end));
    FB3_TRY(fb3_alloc_cuda(be, &watch->memory, bytes));
    return fb3_zero_cuda(be, watch->memory, bytes);
}

static fb3_status stopwatch_read(fb3_backend *be, const stopwatch *watch, double *seconds)
{
    float milliseconds = 0;
    FB3_TRY(fb3_sync_cuda(be));
    FB3_CUDA(cudaEventElapsedTime(&milliseconds, watch->begin, watch->end));
    *seconds = milliseconds * 1e-3;
    return FB3_OK;
}

static fb3_status time_product(fb3_backend *be, stopwatch *watch, int M, int N, int K, size_t b_at, size_t c_at,
                               double *seconds)
{
    fb3_product product = {};
    product.trans_b = true;
    product.M = M, product.N = N, product.K = K;
    product.a = watch->memory, product.lda = K;
    product.b = (char *)watch->memory + b_at, product.ldb = K;
    product.c = (char *)watch->memory + c_at, product.ldc = N;
    product.c_type = be->act;
    FB3_TRY(fb3_product_cuda(be, &product)); /* warms up */
    FB3_CUDA(cudaEventRecord(watch->begin, fb3_cuda_of(be)->compute));
    FB3_TRY(fb3_product_cuda(be, &product));
    FB3_CUDA(cudaEventRecord(watch->end, fb3_cuda_of(be)->compute));
    return stopwatch_read(be, watch, seconds);
}

fb3_status fb3_library_product_cuda(fb3_backend *be, int M, int N, int K, double *seconds)
{
    const size_t size = fb3_dtype_size(be->act), line = 256;
    const size_t a = ((size_t)M * K * size + line - 1) / line * line,
                 b = ((size_t)N * K * size + line - 1) / line * line;
    stopwatch watch;
    fb3_status status = stopwatch_make(be, &watch, a + b + (size_t)M * N * size);
    if (status == FB3_OK) status = time_product(be, &watch, M, N, K, a, a + b, seconds);
    stopwatch_free(be, &watch);
    return status;
}

static fb3_status time_pass(fb3_backend *be, stopwatch *watch, int vectors, double *seconds)
{
    const int threads = 256, blocks = (vectors + threads - 1) / threads;
    cudaStream_t stream = fb3_cuda_of(be)->compute;
    float4 *a = (float4 *)watch->memory;
    FB3_CUDA(FB3_LAUNCH((add_kernel), blocks, threads, 0, stream, a, a + vectors, vectors));
    FB3_CUDA(cudaEventRecord(watch->begin, stream));
    FB3_CUDA(FB3_LAUNCH((add_kernel), blocks, threads, 0, stream, a, a + vectors, vectors));
    FB3_CUDA(cudaEventRecord(watch->end, stream));
    return stopwatch_read(be, watch, seconds);
}

fb3_status fb3_memory_rate_cuda(fb3_backend *be, double *bytes_per_second)
{
    enum { VECTORS = 1 << 24, PASSES = 3 }; /* two arrays of 256 MiB: more than any cache */
    double seconds = 0;
    stopwatch watch;
    fb3_status status = stopwatch_make(be, &watch, 2 * (size_t)VECTORS * sizeof(float4));
    if (status == FB3_OK) status = time_pass(be, &watch, VECTORS, &seconds);
    stopwatch_free(be, &watch);
    if (status == FB3_OK) *bytes_per_second = (double)PASSES * VECTORS * sizeof(float4) / seconds;
    return status;
}
