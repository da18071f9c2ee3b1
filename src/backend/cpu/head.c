/* The head, in float throughout: mean pooling over the real tokens, dropout, a linear layer to Y targets, and the
 * losses (formulas at fb3_loss_kind). A batch has few rows here, so most of it runs on one thread. */
#include "act.h"
#include "dropout.h"
#include "ops.h"

#include "fb3/element_loss.h"

enum { POOL_COLS = 64 };

/* --- pooling ------------------------------------------------------------------------------------------------------ */

fb3_status CPU(mean_pool_fwd)(fb3_backend *be, float *pooled, const void *x, const fb3_ragged *ragged, int C)
{
    (void)be;
    const act *in = x;
#pragma omp parallel for collapse(2) schedule(static)
    for (int b = 0; b < ragged->B; b++) {
        for (int strip = 0; strip < C; strip += POOL_COLS) {
            int start = ragged->seq_start[b], end = ragged->seq_start[b + 1];
            float share = end > start ? 1.0f / (float)(end - start) : 0.0f;
            for (int c = strip; c < C && c < strip + POOL_COLS; c += LANES) {
                vf sum = {0};
                for (int t = start; t < end; t++) sum += act_load(in + (int64_t)t * C + c, C - c);
                vf_store(pooled + (int64_t)b * C + c, sum * share, C - c);
            }
        }
    }
    return FB3_OK;
}

fb3_status CPU(mean_pool_bwd)(fb3_backend *be, void *dx, const float *dpooled, const fb3_ragged *ragged, int C)
{
    (void)be;
    act *din = dx;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < ragged->T; t++) {
        int b = ragged->token_seq[t];
        float share = 1.0f / (float)(ragged->seq_start[b + 1] - ragged->seq_start[b]);
        for (int c = 0; c < C; c += LANES)
            act_store(din + (int64_t)t * C + c, vf_load(dpooled + (int64_t)b * C + c, C - c) * share, C - c);
    }
    return FB3_OK;
}

/* --- linear ------------------------------------------------------------------------------------------------------- */

/* keep[0..columns-1] of columns start, start + 1, ... of sample b: all 1 without dropout. */
static void head_keep(float *keep, int start, int columns, const fb3_ragged *ragged, int b, const fb3_dropout *drop)
{
    if (dropout_on(drop)) {
        dropout_scales(keep, columns, drop, ragged->sample[b], (uint64_t)start);
    } else {
        for (int c = 0; c < columns; c++) keep[c] = 1.0f;
    }
}

fb3_status CPU(head_fwd)(fb3_backend *be, float *pred, const float *pooled, const float *w, const float *b,
                         const fb3_ragged *ragged, int C, int Y, const fb3_dropout *drop)
{
    (void)be;
    for (int s = 0; s < ragged->B; s++) {
        for (int y = 0; y < Y; y++) pred[(int64_t)s * Y + y] = b[y];
        for (int start = 0; start < C; start += DROPOUT_COLUMNS) {
            int columns = C - start < DROPOUT_COLUMNS ? C - start : DROPOUT_COLUMNS;
            float keep[DROPOUT_COLUMNS];
            head_keep(keep, start, columns, ragged, s, drop);
            for (int y = 0; y < Y; y++) {
                vf sum = {0};
                for (int c = 0; c < columns; c += LANES) {
                    vf x = vf_load(pooled + (int64_t)s * C + start + c, columns - c) * vf_load(keep + c, columns - c);
                    sum = vf_fma(x, vf_load(w + (int64_t)y * C + start + c, columns - c), sum);
                }
                pred[(int64_t)s * Y + y] += vf_sum(sum);
            }
        }
    }
    return FB3_OK;
}

fb3_status CPU(head_bwd)(fb3_backend *be, float *dpooled, float *dw, float *db, const float *dpred, const float *pooled,
                         const float *w, const fb3_ragged *ragged, int C, int Y, const fb3_dropout *drop)
{
    (void)be;
    for (int s = 0; s < ragged->B; s++) {
        const float *dpred_s = dpred + (int64_t)s * Y;
        for (int y = 0; y < Y; y++) db[y] += dpred_s[y];
        for (int start = 0; start < C; start += DROPOUT_COLUMNS) {
            int columns = C - start < DROPOUT_COLUMNS ? C - start : DROPOUT_COLUMNS;
            float keep[DROPOUT_COLUMNS];
            head_keep(keep, start, columns, ragged, s, drop);
            for (int c = 0; c < columns; c += LANES) {
                int left = columns - c;
                vf k = vf_load(keep + c, left), sum = {0};
                vf x = vf_load(pooled + (int64_t)s * C + start + c, left) * k;
                for (int y = 0; y < Y; y++) {
                    int64_t at = (int64_t)y * C + start + c;
                    sum = vf_fma(vf_set(dpred_s[y]), vf_load(w + at, left), sum);
                    vf_store(dw + at, vf_fma(vf_set(dpred_s[y]), x, vf_load(dw + at, left)), left);
                }
                vf_store(dpooled + (int64_t)s * C + start + c, sum * k, left);
            }
        }
    }
    return FB3_OK;
}

/* --- losses ------------------------------------------------------------------------------------------------------- */

fb3_status CPU(loss_fwd)(fb3_backend *be, double *sums, const float *pred, const float *target, int B, int Y,
                         fb3_loss_kind kind, float beta)
{
    (void)be;
    for (int b = 0; b < B; b++) {
        for (int y = 0; y < Y; y++) {
            double d = (double)pred[(int64_t)b * Y + y] - (double)target[(int64_t)b * Y + y];
            sums[0] += fb3_element_loss(d, kind, (double)beta);
            sums[1 + y] += d * d;
        }
    }
    return FB3_OK;
}

fb3_status CPU(loss_bwd)(fb3_backend *be, float *dpred, const float *pred, const float *target, int B, int Y,
                         fb3_loss_kind kind, float beta, const double *sums, int64_t samples)
{
    (void)be;
    for (int y = 0; y < Y; y++) {
        const double factor = fb3_slope_factor(kind, sums, (double)samples, Y, y);
        for (int b = 0; b < B; b++) {
            int64_t i = (int64_t)b * Y + y;
            double d = (double)pred[i] - (double)target[i];
            dpred[i] = (float)(fb3_element_slope(d, kind, (double)beta) * factor);
        }
    }
    return FB3_OK;
}
