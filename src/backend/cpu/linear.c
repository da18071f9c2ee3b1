/* Linear layers y = x w^T + b and GELU: products through fb3_cpu_gemm, the rest on each tile while it is in the cache.
 */
#include "act.h"
#include "ops.h"
#include <string.h>

enum { BIAS_ROWS = 64 /* rows whose bias gradients are one partial */ };

/* A product that ends as activations. In float the tile is the output itself, in bf16 a copy that is rounded into it.
 */
static fb3_gemm to_act(void *y, fb3_gemm gemm)
{
    gemm.type = ACT_TYPE;
    gemm.c = act_floats(y);
    gemm.ldc = gemm.N;
    return gemm;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

typedef struct linear_tile {
    act *pre, *y;    // pre, y [T, O]; y NULL: no GELU
    const act *bias; // [O] or NULL
    int O;
} linear_tile;

/* GELU(x) = x Phi(x) (Hendrycks and Gimpel 2016). */
static void finish_forward(const void *context, float *product, int64_t ld, int row, int rows, int col, int cols)
{
    const linear_tile *tile = context;
    for (int t = 0; t < rows; t++) {
        int64_t at = (int64_t)(row + t) * tile->O + col;
        for (int c = 0; c < cols; c += LANES) {
            vf x = vf_load(product + t * ld + c, cols - c);
            if (tile->bias) x += act_load(tile->bias + col + c, cols - c);
            x = act_round(x); /* what the backward pass will see */
            act_store(tile->pre + at + c, x, cols - c);
            if (!tile->y) continue;
            vf cdf, density;
            vf_normal(x, &cdf, &density);
            act_store(tile->y + at + c, x * cdf, cols - c);
        }
    }
}

static fb3_status forward(fb3_backend *be, void *y, void *pre, const void *x, const void *w, const void *b, int T,
                          int I, int O)
{
    linear_tile tile = {.pre = pre, .y = y, .bias = b, .O = O};
    fb3_gemm gemm =
        to_act(pre, (fb3_gemm){.trans_b = true, .M = T, .N = O, .K = I, .a = x, .lda = I, .b = w, .ldb = I});
    if (b || y || !gemm.c) {
        gemm.epilogue = finish_forward;
        gemm.context = &tile;
    }
    return fb3_cpu_gemm(be, &gemm);
}

fb3_status CPU(linear_fwd)(fb3_backend *be, void *y, const void *x, const void *w, const void *b, int T, int I, int O)
{
    return forward(be, NULL, y, x, w, b, T, I, O);
}

fb3_status CPU(linear_gelu_fwd)(fb3_backend *be, void *y, void *pre, const void *x, const void *w, const void *b, int T,
                                int I, int O)
{
    return forward(be, y, pre, x, w, b, T, I, O);
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

typedef struct input_tile {
    act *dx; // dx [T, I]
    int I;
    bool accumulate;
} input_tile;

static void finish_input(const void *context, float *product, int64_t ld, int row, int rows, int col, int cols)
{
    const input_tile *tile = context;
    for (int t = 0; t < rows; t++) {
        act *dx = tile->dx + (int64_t)(row + t) * tile->I + col;
        for (int c = 0; c < cols; c += LANES) {
            vf x = vf_load(product + t * ld + c, cols - c);
            if (tile->accumulate) x += act_load(dx + c, cols - c);
            act_store(dx + c, x, cols - c);
        }
    }
}

/* dy [T,O] w, without a destination */
static fb3_gemm input_product(const void *dy, const void *w, int T, int I, int O)
{
    return (fb3_gemm){.type = ACT_TYPE, .M = T, .N = I, .K = O, .a = dy, .lda = O, .b = w, .ldb = I};
}

fb3_status CPU(linear_bwd_input)(fb3_backend *be, void *dx, const void *dy, const void *w, int T, int I, int O,
                                 bool accumulate)
{
    input_tile tile = {.dx = dx, .I = I, .accumulate = accumulate};
    fb3_gemm gemm = to_act(dx, input_product(dy, w, T, I, O));
    if (gemm.c) {
        gemm.accumulate = accumulate;
    } else {
        gemm.epilogue = finish_input;
        gemm.context = &tile;
    }
    return fb3_cpu_gemm(be, &gemm);
}

fb3_status CPU(linear_bwd_input_float)(fb3_backend *be, float *dx, const void *dy, const void *w, int T, int I, int O)
{
    fb3_gemm gemm = input_product(dy, w, T, I, O);
    gemm.accumulate = true;
    gemm.c = dx;
    gemm.ldc = I;
    return fb3_cpu_gemm(be, &gemm);
}

/* db [O] += column sums of dy [T,O], by blocks of rows that are read in one stream, then block by block. */
static fb3_status bias_gradient(fb3_backend *be, float *db, const act *dy, int T, int O)
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
                const act *row = dy + (int64_t)t * O;
                for (int o = 0; o < O; o += LANES)
                    vf_store(sum + o, vf_load(sum + o, O - o) + act_load(row + o, O - o), O - o);
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

typedef struct gelu_tile {
    act *dpre, *y;  // dpre, y [T, I]
    const act *pre; // pre [T, I]
    int I;
} gelu_tile;

/* GELU'(x) = Phi(x) + x phi(x). */
static void finish_gelu(const void *context, float *product, int64_t ld, int row, int rows, int col, int cols)
{
    const gelu_tile *tile = context;
    for (int t = 0; t < rows; t++) {
        int64_t at = (int64_t)(row + t) * tile->I + col;
        for (int c = 0; c < cols; c += LANES) {
            vf d = vf_load(product + t * ld + c, cols - c), x = act_load(tile->pre + at + c, cols - c), cdf, density;
            vf_normal(x, &cdf, &density);
            act_store(tile->y + at + c, x * cdf, cols - c);
            act_store(tile->dpre + at + c, d * vf_fma(x, density, cdf), cols - c);
        }
    }
}

fb3_status CPU(linear_gelu_bwd_input)(fb3_backend *be, void *dpre, void *y, float *dpre_sum, float *dy_sum,
                                      const void *dy, const void *w, const void *pre, int T, int I, int O)
{
    gelu_tile tile = {.dpre = dpre, .y = y, .pre = pre, .I = I};
    fb3_gemm gemm = to_act(dpre, input_product(dy, w, T, I, O));
    gemm.epilogue = finish_gelu;
    gemm.context = &tile;
    FB3_TRY(fb3_cpu_gemm(be, &gemm));
    FB3_TRY(bias_gradient(be, dpre_sum, dpre, T, I));
    return bias_gradient(be, dy_sum, dy, T, O);
}

fb3_status CPU(linear_bwd_weight)(fb3_backend *be, float *dw, float *db, const void *dy, const void *x, int T, int I,
                                  int O)
{
    if (T == 0) return FB3_OK;
    if (db) FB3_TRY(bias_gradient(be, db, dy, T, O));
    return fb3_cpu_gemm(be, &(fb3_gemm){.type = ACT_TYPE,
                                        .trans_a = true,
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
