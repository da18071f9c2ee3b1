/* The loss. A replica only ever has sums over its own samples; the caller adds them up over ranks and micro-batches
 * and hands back one coefficient per target, so that every split of a global batch gives the same gradient. */
#include "internal.h"

#include <math.h>

static const double mcrmse_epsilon = 1e-9; /* under the root, as the recipe's RMSELoss has it */

/* sqrt of target y's mean squared error over the global batch. */
static double column_rmse(const double *sums, int64_t samples, int y)
{
    return sqrt(sums[1 + y] / (double)samples + mcrmse_epsilon);
}

double fb3_loss_value(fb3_loss_kind kind, const double *sums, int64_t samples, int Y)
{
    if (kind != FB3_LOSS_MCRMSE) return sums[0] / ((double)samples * Y);
    double total = 0;
    for (int y = 0; y < Y; y++) total += column_rmse(sums, samples, y);
    return total / Y;
}

void fb3_loss_coefficients(fb3_loss_kind kind, const double *sums, int64_t samples, int Y, float *coefficient)
{
    const double mean = 1.0 / ((double)samples * Y);
    for (int y = 0; y < Y; y++)
        coefficient[y] = (float)(kind == FB3_LOSS_MCRMSE ? mean / column_rmse(sums, samples, y) : mean);
}

static size_t sums_bytes(const fb3_deberta *m)
{
    return FB3_LOSS_SUMS((size_t)m->Y) * sizeof *m->sums;
}

fb3_status fb3_deberta_loss_begin(fb3_deberta *m)
{
    return m->be->ops->zero(m->be, m->sums, sums_bytes(m));
}

fb3_status fb3_deberta_loss_add(fb3_deberta *m, fb3_loss_kind kind, float beta)
{
    if (m->ragged.B == 0) return FB3_OK;
    FB3_REQUIRE(m->has_targets, FB3_FAILED, "a loss was asked of samples without scores");
    return m->be->ops->loss_fwd(m->be, m->sums, m->pred, m->targets, m->ragged.B, m->Y, kind, beta);
}

fb3_status fb3_deberta_loss_fetch(fb3_deberta *m, double *sums_host)
{
    return m->be->ops->fetch(m->be, sums_host, m->sums, sums_bytes(m));
}

fb3_status fb3_loss_backward(fb3_deberta *m, fb3_loss_kind kind, float beta, const float *coefficient_host)
{
    const fb3_ops *op = m->be->ops;
    FB3_REQUIRE(m->has_targets, FB3_FAILED, "a gradient was asked of samples without scores");
    FB3_TRY(op->upload(m->be, m->coefficient, coefficient_host, (size_t)m->Y * sizeof *coefficient_host));
    return op->loss_bwd(m->be, m->dpred, m->pred, m->targets, m->ragged.B, m->Y, kind, beta, m->coefficient);
}
