/* LayerNorm of the position table, and the residual connection of a post-LN layer: y = LayerNorm(dropout(x) +
 * residual). */
#include "dropout.h"
#include "norm_row.h"
#include "ops.h"
#include <string.h>

size_t CPU(norm_workspace)(int rows, int C)
{
    return (size_t)norm_blocks(rows) * 2 * (size_t)C;
}

fb3_status CPU(layernorm_fwd)(fb3_backend *be, void *y, float *mean, float *rstd, const float *x, const float *gamma,
                              const float *beta, float eps, int R, int C)
{
    (void)be;
    float *out = y;
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++) {
        int64_t row = (int64_t)r * C;
        norm_row_fwd(out + row, mean + r, rstd + r, x + row, gamma, beta, eps, C);
    }
    return FB3_OK;
}

fb3_status CPU(layernorm_bwd)(fb3_backend *be, float *dx, float *dgamma, float *dbeta, const float *dy, const float *x,
                              const float *mean, const float *rstd, const float *gamma, int R, int C)
{
    float *partials; // partials [blocks, 2, C]: dgamma | dbeta
    FB3_TRY(fb3_cpu_workspace(be, &partials, CPU(norm_workspace)(R, C)));
    int blocks = norm_blocks(R);
#pragma omp parallel for schedule(static)
    for (int block = 0; block < blocks; block++) {
        float *partial = partials + (int64_t)block * 2 * C;
        memset(partial, 0, (size_t)C * 2 * sizeof *partial);
        for (int r = block * NORM_BLOCK; r < R && r < (block + 1) * NORM_BLOCK; r++) {
            int64_t row = (int64_t)r * C;
            norm_row_bwd(dx + row, partial, partial + C, dy + row, x + row, mean[r], rstd[r], gamma, C, true);
        }
    }
    norm_add_partials(dgamma, dbeta, partials, blocks, C);
    return FB3_OK;
}

fb3_status CPU(add_layernorm_fwd)(fb3_backend *be, void *y, void *s, float *mean, float *rstd, const void *x,
                                  const void *residual, const float *gamma, const float *beta, float eps,
                                  const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    (void)be;
    const float *in = x, *skip = residual;
    float *sum = s, *out = y;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < ragged->T; t++) {
        int64_t row = (int64_t)t * C;
        const float *branch = in + row;
        if (dropout_on(drop)) {
            dropout_apply_row(sum + row, branch, C, drop, ragged, t);
            branch = sum + row;
        }
        for (int c = 0; c < C; c += LANES)
            vf_store(sum + row + c, vf_load(branch + c, C - c) + vf_load(skip + row + c, C - c), C - c);
        norm_row_fwd(out + row, mean + t, rstd + t, sum + row, gamma, beta, eps, C);
    }
    return FB3_OK;
}

fb3_status CPU(add_layernorm_bwd)(fb3_backend *be, void *dx, void *dresidual, float *dgamma, float *dbeta,
                                  const void *dy, const void *s, const float *mean, const float *rstd,
                                  const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    const float *dout = dy, *sum = s;
    float *dbranch = dx, *dskip = dresidual;
    float *partials; // partials [blocks, 2, C]: dgamma | dbeta
    FB3_TRY(fb3_cpu_workspace(be, &partials, CPU(norm_workspace)(ragged->T, C)));
    int blocks = norm_blocks(ragged->T);
#pragma omp parallel for schedule(static)
    for (int block = 0; block < blocks; block++) {
        float *partial = partials + (int64_t)block * 2 * C;
        memset(partial, 0, (size_t)C * 2 * sizeof *partial);
        for (int t = block * NORM_BLOCK; t < ragged->T && t < (block + 1) * NORM_BLOCK; t++) {
            int64_t row = (int64_t)t * C;
            norm_row_bwd(dskip + row, partial, partial + C, dout + row, sum + row, mean[t], rstd[t], gamma, C, false);
            if (dropout_on(drop))
                dropout_apply_row(dbranch + row, dskip + row, C, drop, ragged, t);
            else if (dbranch != dskip)
                memcpy(dbranch + row, dskip + row, (size_t)C * sizeof *dbranch);
        }
    }
    norm_add_partials(dgamma, dbeta, partials, blocks, C);
    return FB3_OK;
}
