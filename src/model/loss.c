/* The loss. A replica adds up sums over its own samples; the caller adds those up over the ranks. */
#include "internal.h"

#include "fb3/element_loss.h"

double fb3_loss_value(fb3_loss_kind kind, const double *sums, int64_t samples, int Y)
{
    if (kind != FB3_LOSS_MCRMSE) return sums[0] / ((double)samples * Y);
    double total = 0;
    for (int y = 0; y < Y; y++) total += fb3_column_rmse(sums[1 + y], (double)samples);
    return total / Y;
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

double *fb3_deberta_loss_sums(fb3_deberta *m)
{
    return m->sums;
}

fb3_status fb3_deberta_loss_set(fb3_deberta *m, const double *sums_host)
{
    return m->be->ops->upload(m->be, m->sums, sums_host, sums_bytes(m));
}

fb3_status fb3_loss_backward(fb3_deberta *m, fb3_loss_kind kind, float beta, int64_t samples)
{
    FB3_REQUIRE(m->has_targets, FB3_FAILED, "a gradient was asked of samples without scores");
    return m->be->ops->loss_bwd(m->be, m->dpred, m->pred, m->targets, m->ragged.B, m->Y, kind, beta, m->sums, samples);
}
