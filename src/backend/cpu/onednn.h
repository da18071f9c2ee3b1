/* The only file that speaks to oneDNN: single matrix products, in float and bf16. The calls are the same in 2.x and
 * 3.x. */
#ifndef FB3_BACKEND_CPU_ONEDNN_H
#define FB3_BACKEND_CPU_ONEDNN_H

#include "fb3/backend.h"

/* c float[M,N] (+)= op(a) [M,K] op(b) [K,N], row major; a and b are of `type`, op transposes where trans_* says so.
 * On as many threads as OpenMP gives it. False: out of memory. */
bool fb3_onednn_gemm(fb3_dtype type, bool trans_a, bool trans_b, int M, int N, int K, const void *a, int64_t lda,
                     const void *b, int64_t ldb, bool accumulate, float *c, int64_t ldc);

/* The library has bf16 products. It does them on any processor; only those with AVX512-BF16 do them fast. */
bool fb3_onednn_has_bf16(void);

#endif
