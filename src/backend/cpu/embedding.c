/* Embeddings: rows of the active word table, LayerNorm, dropout. The gradient of a table row is the sum over the
 * positions of its token, in the order of the positions: fb3_batch lists them by id. */
#include "act.h"
#include "dropout.h"
#include "norm_row.h"
#include "ops.h"
#include <string.h>

size_t CPU(embedding_workspace)(int T, int C)
{
    return (size_t)T * (size_t)C + (size_t)norm_blocks(T) * 2 * (size_t)C;
}

fb3_status CPU(embedding_fwd)(fb3_backend *be, void *y, float *mean, float *rstd, const float *word, const int32_t *ids,
                              const float *gamma, const float *beta, float eps, const fb3_ragged *ragged, int C,
                              const fb3_dropout *drop)
{
    (void)be;
    act *out = y;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < ragged->T; t++) {
        float room[FB3_HIDDEN_MAX], *row = row_begin(out + (int64_t)t * C, room);
        norm_row_fwd(row, mean + t, rstd + t, word + (int64_t)ids[t] * C, gamma, beta, eps, C);
        if (dropout_on(drop)) dropout_apply_row(row, row, C, drop, ragged, t);
        row_end(out + (int64_t)t * C, row, C);
    }
    return FB3_OK;
}

/* drows [T,C]: the gradient of each position's table row; partials [blocks, 2, C] of the LayerNorm's parameters. */
static void position_gradients(float *drows, float *partials, const act *dy, const float *mean, const float *rstd,
                               const float *word, const int32_t *ids, const float *gamma, const fb3_ragged *ragged,
                               int C, const fb3_dropout *drop)
{
#pragma omp parallel for schedule(static)
    for (int block = 0; block < norm_blocks(ragged->T); block++) {
        float *partial = partials + (int64_t)block * 2 * C;
        memset(partial, 0, (size_t)C * 2 * sizeof *partial);
        for (int t = block * NORM_BLOCK; t < ragged->T && t < (block + 1) * NORM_BLOCK; t++) {
            float *drow = drows + (int64_t)t * C;
            float room[FB3_HIDDEN_MAX];
            const float *dy_t = row_read(dy + (int64_t)t * C, room, C);
            if (dropout_on(drop)) {
                dropout_apply_row(drow, dy_t, C, drop, ragged, t);
                dy_t = drow;
            }
            norm_row_bwd(drow, partial, partial + C, dy_t, word + (int64_t)ids[t] * C, mean[t], rstd[t], gamma, C,
                         false);
        }
    }
}

fb3_status CPU(embedding_bwd)(fb3_backend *be, float *dword, float *dgamma, float *dbeta, const void *dy,
                              const float *mean, const float *rstd, const float *word, const int32_t *ids,
                              const int32_t *by_id, const int32_t *id_start, const int32_t *id_value, int U,
                              const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    if (ragged->T == 0) return FB3_OK;
    float *drows;
    FB3_TRY(fb3_cpu_workspace(be, &drows, CPU(embedding_workspace)(ragged->T, C)));
    float *partials = drows + (size_t)ragged->T * (size_t)C;
    position_gradients(drows, partials, dy, mean, rstd, word, ids, gamma, ragged, C, drop);
    norm_add_partials(dgamma, dbeta, partials, norm_blocks(ragged->T), C);
#pragma omp parallel for schedule(dynamic, 16)
    for (int u = 0; u < U; u++) {
        float *row = dword + (int64_t)id_value[u] * C;
        for (int c = 0; c < C; c += LANES) {
            vf sum = {0};
            for (int i = id_start[u]; i < id_start[u + 1]; i++)
                sum += vf_load(drows + (int64_t)by_id[i] * C + c, C - c);
            vf_store(row + c, vf_load(row + c, C - c) + sum, C - c);
        }
    }
    return FB3_OK;
}
