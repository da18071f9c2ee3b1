/* Linear layers: products by cuBLASLt with the bias in its epilogue, GELU and bias gradients by our own kernels.
 * cuBLASLt's GELU is the tanh approximation and DeBERTa's is not; its bias gradients overwrite, and ours add up. */
#include "cuda.h"

fb3_status fb3_linear_fwd_cuda(fb3_backend *be, void *y, const void *x, const void *w, const void *b, int T, int I,
                               int O)
{
    return fb3_product_cuda(be, &(fb3_product){.trans_b = true,
                                               .M = T,
                                               .N = O,
                                               .K = I,
                                               .a = x,
                                               .lda = I,
                                               .b = w,
                                               .ldb = I,
                                               .bias = b,
                                               .c = y,
                                               .c_type = be->act,
                                               .ldc = O});
}

fb3_status fb3_linear_gelu_fwd_cuda(fb3_backend *be, void *y, void *pre, const void *x, const void *w, const void *b,
                                    int T, int I, int O)
{
    FB3_TRY(fb3_linear_fwd_cuda(be, pre, x, w, b, T, I, O));
    return fb3_gelu_fwd_cuda(be, y, pre, (int64_t)T * O);
}

/* dx [T,I] (+)= dy [T,O] w */
static fb3_status input_gradient(fb3_backend *be, void *dx, fb3_dtype dx_type, const void *dy, const void *w, int T,
                                 int I, int O, bool accumulate)
{
    return fb3_product_cuda(be, &(fb3_product){.accumulate = accumulate,
                                               .M = T,
                                               .N = I,
                                               .K = O,
                                               .a = dy,
                                               .lda = O,
                                               .b = w,
                                               .ldb = I,
                                               .c = dx,
                                               .c_type = dx_type,
                                               .ldc = I});
}

fb3_status fb3_linear_bwd_input_cuda(fb3_backend *be, void *dx, const void *dy, const void *w, int T, int I, int O,
                                     bool accumulate)
{
    return input_gradient(be, dx, be->act, dy, w, T, I, O, accumulate);
}

fb3_status fb3_linear_bwd_input_float_cuda(fb3_backend *be, float *dx, const void *dy, const void *w, int T, int I,
                                           int O)
{
    return input_gradient(be, dx, FB3_F32, dy, w, T, I, O, true);
}

fb3_status fb3_linear_bwd_weight_cuda(fb3_backend *be, float *dw, float *db, const void *dy, const void *x, int T,
                                      int I, int O)
{
    if (T == 0) return FB3_OK;
    if (db) FB3_TRY(fb3_column_sums_cuda(be, db, dy, T, O));
    return fb3_product_cuda(be, &(fb3_product){.trans_a = true,
                                               .accumulate = true,
                                               .M = O,
                                               .N = I,
                                               .K = T,
                                               .a = dy,
                                               .lda = O,
                                               .b = x,
                                               .ldb = I,
                                               .c = dw,
                                               .c_type = FB3_F32,
                                               .ldc = I});
}

fb3_status fb3_linear_gelu_bwd_input_cuda(fb3_backend *be, void *dpre, void *y, float *dpre_sum, float *dy_sum,
                                          const void *dy, const void *w, const void *pre, int T, int I, int O)
{
    FB3_TRY(fb3_linear_bwd_input_cuda(be, dpre, dy, w, T, I, O, false));
    return fb3_gelu_bwd_cuda(be, dpre, y, dpre_sum, dy_sum, dy, pre, T, I, O);
}
