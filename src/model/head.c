/* The head: pooled = mean over the real tokens of a sequence, pred = dropout(pooled) w^T + b. */
#include "internal.h"

static int64_t offset_of(const fb3_deberta *m, fb3_param_kind kind)
{
    return fb3_param_find(m->table, kind, -1)->offset;
}

fb3_status fb3_head_forward(fb3_deberta *m)
{
    const float *w = m->arenas.param + offset_of(m, FB3_PARAM_HEAD_WEIGHT); // [Y, C]
    const float *b = m->arenas.param + offset_of(m, FB3_PARAM_HEAD_BIAS);   // [Y]
    fb3_dropout drop = fb3_dropout_at(m, m->rates.head, FB3_SITE_HEAD);
    FB3_TRY(m->be->ops->mean_pool_fwd(m->be, m->pooled, fb3_encoder_output(m), &m->ragged, m->C));
    return m->be->ops->head_fwd(m->be, m->pred, m->pooled, w, b, &m->ragged, m->C, m->Y, &drop);
}

fb3_status fb3_head_backward(fb3_deberta *m)
{
    const float *w = m->arenas.param + offset_of(m, FB3_PARAM_HEAD_WEIGHT); // [Y, C]
    float *dw = m->arenas.grad + offset_of(m, FB3_PARAM_HEAD_WEIGHT);
    float *db = m->arenas.grad + offset_of(m, FB3_PARAM_HEAD_BIAS);
    fb3_dropout drop = fb3_dropout_at(m, m->rates.head, FB3_SITE_HEAD);
    FB3_TRY(m->be->ops->head_bwd(m->be, m->dpooled, dw, db, m->dpred, m->pooled, w, &m->ragged, m->C, m->Y, &drop));
    FB3_TRY(fb3_range_ready(m));
    return m->be->ops->mean_pool_bwd(m->be, m->dy, m->dpooled, &m->ragged, m->C);
}
