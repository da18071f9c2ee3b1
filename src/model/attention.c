/* Disentangled self-attention (He, Liu, Gao, Chen, "DeBERTa: Decoding-enhanced BERT with Disentangled Attention",
 * section 3.1), inside each sequence:
 *
 *     q, k, v = x [Wq; Wk; Wv]^T + b
 *     scores(i, j) = (q_i . k_j + q_i . Kpos[x(i, j)] + k_j . Qpos[x(i, j)]) / sqrt(3 D)
 *     context = dropout(softmax(scores)) v
 *
 * Scores and probabilities are never stored: the backend's operation keeps their log-sum-exp. */
#include "internal.h"

fb3_status fb3_attention_forward(fb3_deberta *m, int l, const void *x, fb3_layer_saved *s)
{
    const fb3_linear *qkv = &m->layer[l].qkv;
    const fb3_dropout drop = fb3_dropout_in_layer(m, m->rates.attention, l, FB3_SITE_ATTENTION_PROBS);
    FB3_TRY(fb3_relpos_project(m, l, s->pos));
    FB3_TRY(m->be->ops->linear_fwd(m->be, s->qkv, x, qkv->w, qkv->b, m->ragged.T, m->C, 3 * m->C));
    return m->be->ops->attention_fwd(m->be, s->context, s->lse, s->qkv, s->pos, &m->attention, &m->ragged, &drop);
}

/* dcontext -> gradients of the projections; dy += dx. */
fb3_status fb3_attention_backward(fb3_deberta *m, int l, const void *x, const fb3_layer_saved *s)
{
    const fb3_ops *op = m->be->ops;
    const fb3_linear *qkv = &m->layer[l].qkv;
    const fb3_dropout drop = fb3_dropout_in_layer(m, m->rates.attention, l, FB3_SITE_ATTENTION_PROBS);
    const int T = m->ragged.T, C = m->C;
    FB3_TRY(op->attention_bwd(m->be, m->dqkv, m->dpos, m->dcontext, s->context, s->lse, s->qkv, s->pos, &m->attention,
                              &m->ragged, &drop));
    FB3_TRY(fb3_poll(m));
    FB3_TRY(fb3_relpos_project_backward(m, l));
    FB3_TRY(op->linear_bwd_weight(m->be, qkv->dw, qkv->db, m->dqkv, x, T, C, 3 * C));
    FB3_TRY(fb3_poll(m));
    FB3_TRY(op->linear_bwd_input(m->be, m->dy, m->dqkv, qkv->w, T, C, 3 * C, true));
    return fb3_poll(m);
}
