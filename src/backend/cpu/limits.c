/* What this processor can do at best: one oneDNN product on all threads, and a pass over memory. */
#include "cpu.h"
#include "fb3/clock.h"
#include "onednn.h"
#include <string.h>

fb3_status fb3_library_product_cpu(fb3_backend *be, int M, int N, int K, double *seconds)
{
    size_t size = fb3_dtype_size(be->act), a = (size_t)M * (size_t)K * size, b = (size_t)N * (size_t)K * size;
    size_t c = (size_t)M * (size_t)N * sizeof(float), a_lines = (a + 63) / 64 * 64, b_lines = (b + 63) / 64 * 64;
    void *memory;
    FB3_TRY(fb3_alloc_cpu(be, &memory, a_lines + b_lines + c));
    char *bytes = memory;
    memset(bytes, 0x3c, a_lines + b_lines + c); /* 0.0115, in float and in bf16 */
    bool done = true;
    for (int run = 0; run < 2; run++) { /* the first one warms up */
        double started = fb3_seconds();
        done = done && fb3_onednn_gemm(be->act, false, true, M, N, K, bytes, K, bytes + a_lines, K, false,
                                       (float *)(void *)(bytes + a_lines + b_lines), N);
        *seconds = fb3_seconds() - started;
    }
    fb3_free_cpu(be, memory);
    FB3_REQUIRE(done, FB3_FAILED, "out of memory for a matrix product [%d, %d] x [%d, %d]", M, K, K, N);
    return FB3_OK;
}

fb3_status fb3_memory_rate_cpu(fb3_backend *be, double *bytes_per_second)
{
    enum { FLOATS = 1 << 24, RUNS = 4, PASSES = 3 };
    void *memory;
    FB3_TRY(fb3_alloc_cpu(be, &memory, (size_t)2 * FLOATS * sizeof(float)));
    float *a = memory, *b = a + FLOATS;
    double best = 1e9;
    for (int run = 0; run < RUNS; run++) { /* the first one touches the pages */
        double started = fb3_seconds();
#pragma omp parallel for schedule(static)
        for (int i = 0; i < FLOATS; i++) {
            if (run == 0) a[i] = b[i] = 1.0f;
            a[i] += b[i];
        }
        double seconds = fb3_seconds() - started;
        if (seconds < best) best = seconds;
    }
    fb3_free_cpu(be, memory);
    *bytes_per_second = (double)PASSES * FLOATS * sizeof(float) / best;
    return FB3_OK;
}
