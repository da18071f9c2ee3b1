/* LayerNorm of the position table, and the residual connection of a post-LN layer: y = LayerNorm(dropout(x) +
 * residual). */
#include "act.h"
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
    act *out = y;
#pragma omp parallel for schedule(static)
    for (int r = 0; r < R; r++) {
        float room[FB3_HIDDEN_MAX], *y_r = row_begin(out + (int64_t)r * C, room);
        norm_row_fwd(y_r, mean + r, rstd + r, x + (int64_t)r * C, gamma, beta, eps, C);
        row_end(out + (int64_t)r * C, y_r, C);
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
    const act *in = x, *skip = residual;
    act *sum = s, *out = y;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < ragged->T; t++) {
        int64_t row = (int64_t)t * C;
        float branch_room[FB3_HIDDEN_MAX], sum_room[FB3_HIDDEN_MAX], y_room[FB3_HIDDEN_MAX];
        const float *branch = row_read(in + row, branch_room, C);
        float *sum_t = row_begin(sum + row, sum_room), *y_t = row_begin(out + row, y_room);
        if (dropout_on(drop)) {
            dropout_apply_row(sum_t, branch, C, drop, ragged, t);
            branch = sum_t;
        }
        for (int c = 0; c < C; c += LANES) /* rounded as it is kept: the backward pass sees this sum */
            vf_store(sum_t + c, act_round(vf_load(branch + c, C - c) + act_load(skip + row + c, C - c)), C - c);
        row_end(sum + row, sum_t, C);
        norm_row_fwd(y_t, mean + t, rstd + t, sum_t, gamma, beta, eps, C);
        row_end(out + row, y_t, C);
    }
    return FB3_OK;
}

fb3_status CPU(add_layernorm_bwd)(fb3_backend *be, void *dx, void *dresidual, float *dgamma, float *dbeta,
                                  const void *dy, const void *s, const float *mean, const float *rstd,
                                  const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    const act *dout = dy, *sum = s;
    act *dbranch = dx, *dskip = dresidual;
    float *partials; // partials [blocks, 2, C]: dgamma | dbeta
    FB3_TRY(fb3_cpu_workspace(be, &partials, CPU(norm_workspace)(ragged->T, C)));
    int blocks = norm_blocks(ragged->T);
#pragma omp parallel for schedule(static)
    for (int block = 0; block < blocks; block++) {
        float *partial = partials + (int64_t)block * 2 * C;
        memset(partial, 0, (size_t)C * 2 * sizeof *partial);
        for (int t = block * NORM_BLOCK; t < ragged->T && t < (block + 1) * NORM_BLOCK; t++) {
            int64_t row = (int64_t)t * C;
            float dy_room[FB3_HIDDEN_MAX], sum_room[FB3_HIDDEN_MAX], ds_room[FB3_HIDDEN_MAX];
            const float *dy_t = row_read(dout + row, dy_room, C), *sum_t = row_read(sum + row, sum_room, C);
            float *ds_t = row_begin(dskip + row, ds_room);
            norm_row_bwd(ds_t, partial, partial + C, dy_t, sum_t, mean[t], rstd[t], gamma, C, false);
            row_end(dskip + row, ds_t, C);
            if (dbranch == dskip) continue;
            float *dx_t = row_begin(dbranch + row, dy_room);
            if (dropout_on(drop))
                dropout_apply_row(dx_t, ds_t, C, drop, ragged, t);
            else
                memcpy(dx_t, ds_t, (size_t)C * sizeof *dx_t);
            row_end(dbranch + row, dx_t, C);
        }
    }
    norm_add_partials(dgamma, dbeta, partials, blocks, C);
    return FB3_OK;
}
