/* Linear layers y = x w^T + b and GELU: products through fb3_cpu_gemm, the rest on each tile while it is in the cache.
 */
#include "ops.h"
#include "vec.h"
#include <string.h>

enum {
    GELU_BLOCK = 1 << 13, /* elements that a thread takes at a time */
    BIAS_ROWS = 64,       /* rows whose bias gradients are one partial */
};

/* --- GELU(x) = x Phi(x), GELU'(x) = Phi(x) + x phi(x) (Hendrycks and Gimpel 2016) --------------------------------- */

static inline vf gelu(vf x)
{
    vf cdf, density;
    vf_normal(x, &cdf, &density);
    return x * cdf;
}

fb3_status CPU(gelu_bwd)(fb3_backend *be, void *dpre, void *y, const void *dy, const void *pre, int64_t n)
{
    (void)be;
    const float *dout = dy, *in = pre;
    float *din = dpre, *out = y;
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < n; start += GELU_BLOCK) {
        int64_t end = n - start < GELU_BLOCK ? n : start + GELU_BLOCK;
        for (int64_t i = start; i < end; i += LANES) {
            vf x = vf_load(in + i, end - i), d = vf_load(dout + i, end - i), cdf, density;
            vf_normal(x, &cdf, &density);
            vf_store(out + i, x * cdf, end - i);
            vf_store(din + i, d * vf_fma(x, density, cdf), end - i);
        }
    }
    return FB3_OK;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

typedef struct linear_tile {
    float *pre, *y;    // pre, y [T, O]; y NULL: no GELU
    const float *bias; // [O] or NULL
    int O;
} linear_tile;

static void finish_tile(const void *context, int row, int rows, int col, int cols)
{
    const linear_tile *tile = context;
    for (int t = row; t < row + rows; t++) {
        float *pre = tile->pre + (int64_t)t * tile->O + col;
        for (int c = 0; c < cols; c += LANES) {
            vf x = vf_load(pre + c, cols - c);
            if (tile->bias) x += vf_load(tile->bias + col + c, cols - c);
            vf_store(pre + c, x, cols - c);
            if (tile->y) vf_store(tile->y + (int64_t)t * tile->O + col + c, gelu(x), cols - c);
        }
    }
}

static fb3_status forward(fb3_backend *be, float *y, float *pre, const float *x, const float *w, const float *b, int T,
                          int I, int O)
{
    linear_tile tile = {.pre = pre, .y = y, .bias = b, .O = O};
    fb3_gemm gemm = {.trans_b = true, .M = T, .N = O, .K = I, .a = x, .lda = I, .b = w, .ldb = I, .c = pre, .ldc = O};
    if (b || y) {
        gemm.epilogue = finish_tile;
        gemm.context = &tile;
    }
    return fb3_cpu_gemm(be, &gemm);
}

fb3_status CPU(linear_fwd)(fb3_backend *be, void *y, const void *x, const void *w, const float *b, int T, int I, int O)
{
    return forward(be, NULL, y, x, w, b, T, I, O);
}

fb3_status CPU(linear_gelu_fwd)(fb3_backend *be, void *y, void *pre, const void *x, const void *w, const float *b,
                                int T, int I, int O)
{
    return forward(be, y, pre, x, w, b, T, I, O);
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

fb3_status CPU(linear_bwd_input)(fb3_backend *be, void *dx, const void *dy, const void *w, int T, int I, int O,
                                 bool accumulate)
{
    return fb3_cpu_gemm(
        be,
        &(fb3_gemm){
            .M = T, .N = I, .K = O, .a = dy, .lda = O, .b = w, .ldb = I, .c = dx, .ldc = I, .accumulate = accumulate});
}

/* db [O] += column sums of dy [T,O], by blocks of rows that are read in one stream, then block by block. */
static fb3_status bias_gradient(fb3_backend *be, float *db, const float *dy, int T, int O)
{
    int blocks = T / BIAS_ROWS + (T % BIAS_ROWS != 0);
    float *partials; // partials [blocks, O]
    FB3_TRY(fb3_cpu_workspace(be, &partials, (size_t)blocks * (size_t)O));
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int block = 0; block < blocks; block++) {
            float *sum = partials + (int64_t)block * O;
            memset(sum, 0, (size_t)O * sizeof *sum);
            for (int t = block * BIAS_ROWS; t < T && t < (block + 1) * BIAS_ROWS; t++) {
                const float *row = dy + (int64_t)t * O;
                for (int o = 0; o < O; o += LANES)
                    vf_store(sum + o, vf_load(sum + o, O - o) + vf_load(row + o, O - o), O - o);
            }
        }
#pragma omp for schedule(static)
        for (int o = 0; o < O; o += LANES) {
            vf sum = vf_load(db + o, O - o);
            for (int block = 0; block < blocks; block++) sum += vf_load(partials + (int64_t)block * O + o, O - o);
            vf_store(db + o, sum, O - o);
        }
    }
    return FB3_OK;
}

fb3_status CPU(linear_bwd_weight)(fb3_backend *be, float *dw, float *db, const void *dy, const void *x, int T, int I,
                                  int O)
{
    if (T == 0) return FB3_OK;
    if (db) FB3_TRY(bias_gradient(be, db, dy, T, O));
    return fb3_cpu_gemm(be, &(fb3_gemm){.trans_a = true,
                                        .M = O,
                                        .N = I,
                                        .K = T,
                                        .a = dy,
                                        .lda = O,
                                        .b = x,
                                        .ldb = I,
                                        .c = dw,
                                        .ldc = I,
                                        .accumulate = true});
}
