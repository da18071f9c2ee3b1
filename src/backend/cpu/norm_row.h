/* LayerNorm of one row, forward and backward (Ba, Kiros, Hinton 2016), for embedding.c and layernorm.c:
 *   xhat = (x - mean) rstd,  y = gamma xhat + beta,  rstd = 1/sqrt(variance + eps), biased variance
 *   dx = rstd (g - mean(g) - xhat mean(g xhat)) with g = gamma dy;  dgamma = sum dy xhat;  dbeta = sum dy
 * Parameter gradients are summed per block of rows, then over the blocks in order, whatever the threads do. */
#ifndef FB3_BACKEND_CPU_NORM_ROW_H
#define FB3_BACKEND_CPU_NORM_ROW_H

#include "vec.h"
#include <math.h>

enum { NORM_BLOCK = 64 }; /* rows whose parameter gradients are summed into one partial */

static inline void norm_row_statistics(const float *x, int C, float eps, float *mean, float *rstd)
{
    vf sum = {0}, squares = {0};
    for (int c = 0; c < C; c += LANES) sum += vf_load(x + c, C - c);
    *mean = vf_sum(sum) / (float)C;
    for (int c = 0; c < C; c += LANES) {
        vf centred = vf_first(vf_load(x + c, C - c) - *mean, C - c);
        squares = vf_fma(centred, centred, squares);
    }
    *rstd = 1.0f / sqrtf(vf_sum(squares) / (float)C + eps);
}

static inline void norm_row_fwd(float *y, float *mean, float *rstd, const float *x, const float *gamma,
                                const float *beta, float eps, int C)
{
    norm_row_statistics(x, C, eps, mean, rstd);
    for (int c = 0; c < C; c += LANES) {
        vf xhat = (vf_load(x + c, C - c) - *mean) * *rstd;
        vf_store(y + c, vf_fma(xhat, vf_load(gamma + c, C - c), vf_load(beta + c, C - c)), C - c);
    }
}

/* dx [C] (+)= ..., dgamma [C] and dbeta [C] += ...; dx may be dy. */
static inline void norm_row_bwd(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x, float mean,
                                float rstd, const float *gamma, int C, bool accumulate)
{
    vf sum_g = {0}, sum_gx = {0};
    for (int c = 0; c < C; c += LANES) {
        vf xhat = (vf_load(x + c, C - c) - mean) * rstd, dy_c = vf_load(dy + c, C - c);
        vf g = dy_c * vf_load(gamma + c, C - c);
        sum_g += g;
        sum_gx = vf_fma(g, xhat, sum_gx); /* g is 0 past the end of the row */
        vf_store(dgamma + c, vf_fma(dy_c, xhat, vf_load(dgamma + c, C - c)), C - c);
        vf_store(dbeta + c, vf_load(dbeta + c, C - c) + dy_c, C - c);
    }
    float mean_g = vf_sum(sum_g) / (float)C, mean_gx = vf_sum(sum_gx) / (float)C;
    for (int c = 0; c < C; c += LANES) {
        vf xhat = (vf_load(x + c, C - c) - mean) * rstd;
        vf g = vf_load(dy + c, C - c) * vf_load(gamma + c, C - c);
        vf dx_c = rstd * (g - mean_g - xhat * mean_gx);
        if (accumulate) dx_c += vf_load(dx + c, C - c);
        vf_store(dx + c, dx_c, C - c);
    }
}

static inline int norm_blocks(int rows)
{
    return rows / NORM_BLOCK + (rows % NORM_BLOCK != 0);
}

/* dgamma, dbeta [C] += partials [blocks, 2, C], block by block. */
static inline void norm_add_partials(float *dgamma, float *dbeta, const float *partials, int blocks, int C)
{
    int64_t stride = (int64_t)2 * C;
#pragma omp parallel for schedule(static)
    for (int c = 0; c < C; c += LANES) {
        vf gamma_sum = vf_load(dgamma + c, C - c), beta_sum = vf_load(dbeta + c, C - c);
        for (int block = 0; block < blocks; block++) {
            gamma_sum += vf_load(partials + block * stride + c, C - c);
            beta_sum += vf_load(partials + block * stride + C + c, C - c);
        }
        vf_store(dgamma + c, gamma_sum, C - c);
        vf_store(dbeta + c, beta_sum, C - c);
    }
}

#endif
