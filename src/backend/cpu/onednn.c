/* oneDNN's matrix products. dnnl_sgemm is public. Its bf16 sister is exported by the library, with the same meaning in
 * 2.x and 3.x, but declared in none of its headers; a weak reference leaves it NULL in a library that lacks it, and
 * then this build has no bf16. Unlike the matmul primitive, neither compiles code for each new shape, which with ragged
 * batches would be every step. */
#include "onednn.h"
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

extern dnnl_status_t dnnl_gemm_bf16bf16f32(char trans_a, char trans_b, dnnl_dim_t M, dnnl_dim_t N, dnnl_dim_t K,
                                           float alpha, const uint16_t *a, dnnl_dim_t lda, const uint16_t *b,
                                           dnnl_dim_t ldb, float beta, float *c, dnnl_dim_t ldc) __attribute__((weak));

bool fb3_onednn_has_bf16(void)
{
    return dnnl_gemm_bf16bf16f32 != NULL;
}

bool fb3_onednn_gemm(fb3_dtype type, bool trans_a, bool trans_b, int M, int N, int K, const void *a, int64_t lda,
                     const void *b, int64_t ldb, bool accumulate, float *c, int64_t ldc)
{
    char op_a = trans_a ? 'T' : 'N', op_b = trans_b ? 'T' : 'N';
    float beta = accumulate ? 1.0f : 0.0f;
    if (type == FB3_BF16)
        return dnnl_gemm_bf16bf16f32(op_a, op_b, M, N, K, 1.0f, a, lda, b, ldb, beta, c, ldc) == dnnl_success;
    return dnnl_sgemm(op_a, op_b, M, N, K, 1.0f, a, lda, b, ldb, beta, c, ldc) == dnnl_success;
}

const char *fb3_backend_library_version(void)
{
    static char text[32];
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, sizeof text, "%d.%d.%d", version->major, version->minor, version->patch);
    return text;
}
