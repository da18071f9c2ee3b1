/* An encoder layer, LayerNorm after each residual sum:
 *
 *     s1 = x + dropout(context Wo^T + bo)                       y1 = LayerNorm(s1)
 *     s2 = y1 + dropout(GELU(y1 W1^T + b1) W2^T + b2)           y2 = LayerNorm(s2)
 *
 * The backward pass walks the same lines upwards. dy enters as the gradient of y2 and leaves as the gradient of x; at
 * each residual sum it continues along the skip connection, while dbranch enters the branch. Without dropout both are
 * the same array. */
#include "internal.h"

fb3_status fb3_layer_forward(fb3_deberta *m, int l, const void *x, fb3_layer_saved *s)
{
    const fb3_ops *op = m->be->ops;
    const fb3_layer *w = &m->layer[l];
    const fb3_dropout drop1 = fb3_dropout_in_layer(m, m->rates.hidden, l, FB3_SITE_ATTENTION_OUT);
    const fb3_dropout drop2 = fb3_dropout_in_layer(m, m->rates.hidden, l, FB3_SITE_FFN_OUT);
    const float eps = m->table->model.layer_norm_eps;
    const int T = m->ragged.T, C = m->C, F = m->F;
    m->be->layer = l;

    FB3_TRY(fb3_attention_forward(m, l, x, s));
    FB3_TRY(op->linear_fwd(m->be, s->s1, s->context, w->attention_out.w, w->attention_out.b, T, C, C));
    FB3_TRY(op->add_layernorm_fwd(m->be, s->y1, s->s1, s->mean1, s->rstd1, s->s1, x, w->attention_norm.gamma,
                                  w->attention_norm.beta, eps, &m->ragged, C, &drop1));

    FB3_TRY(op->linear_gelu_fwd(m->be, m->gelu, s->pre, s->y1, w->ffn_in.w, w->ffn_in.b, T, C, F));
    FB3_TRY(op->linear_fwd(m->be, s->s2, m->gelu, w->ffn_out.w, w->ffn_out.b, T, F, C));
    return op->add_layernorm_fwd(m->be, s->y2, s->s2, s->mean2, s->rstd2, s->s2, s->y1, w->ffn_norm.gamma,
                                 w->ffn_norm.beta, eps, &m->ragged, C, &drop2);
}

/* dy [T, C]: gradient of y2 -> gradient of y1. */
static fb3_status ffn_backward(fb3_deberta *m, int l, const fb3_layer_saved *s, void *dbranch)
{
    const fb3_ops *op = m->be->ops;
    const fb3_layer *w = &m->layer[l];
    const fb3_dropout drop = fb3_dropout_in_layer(m, m->rates.hidden, l, FB3_SITE_FFN_OUT);
    const int T = m->ragged.T, C = m->C, F = m->F;

    FB3_TRY(op->add_layernorm_bwd(m->be, dbranch, m->dy, w->ffn_norm.dgamma, w->ffn_norm.dbeta, m->dy, s->s2, s->mean2,
                                  s->rstd2, w->ffn_norm.gamma, &m->ragged, C, &drop));
    FB3_TRY(op->linear_gelu_bwd_input(m->be, m->dffn, m->gelu, w->ffn_in.db, w->ffn_out.db, dbranch, w->ffn_out.w,
                                      s->pre, T, F, C));
    FB3_TRY(fb3_poll(m));
    FB3_TRY(op->linear_bwd_weight(m->be, w->ffn_out.dw, NULL, dbranch, m->gelu, T, F, C));
    FB3_TRY(fb3_poll(m));
    FB3_TRY(op->linear_bwd_weight(m->be, w->ffn_in.dw, NULL, m->dffn, s->y1, T, C, F));
    FB3_TRY(fb3_poll(m));
    FB3_TRY(op->linear_bwd_input(m->be, m->dy, m->dffn, w->ffn_in.w, T, C, F, true));
    return fb3_poll(m);
}

/* dy [T, C]: gradient of y1 -> gradient of x. */
static fb3_status attention_block_backward(fb3_deberta *m, int l, const void *x, const fb3_layer_saved *s,
                                           void *dbranch)
{
    const fb3_ops *op = m->be->ops;
    const fb3_layer *w = &m->layer[l];
    const fb3_dropout drop = fb3_dropout_in_layer(m, m->rates.hidden, l, FB3_SITE_ATTENTION_OUT);
    const int T = m->ragged.T, C = m->C;

    FB3_TRY(op->add_layernorm_bwd(m->be, dbranch, m->dy, w->attention_norm.dgamma, w->attention_norm.dbeta, m->dy,
                                  s->s1, s->mean1, s->rstd1, w->attention_norm.gamma, &m->ragged, C, &drop));
    FB3_TRY(op->linear_bwd_input(m->be, m->dcontext, dbranch, w->attention_out.w, T, C, C, false));
    FB3_TRY(op->linear_bwd_weight(m->be, w->attention_out.dw, w->attention_out.db, dbranch, s->context, T, C, C));
    FB3_TRY(fb3_poll(m));
    return fb3_attention_backward(m, l, x, s);
}

fb3_status fb3_layer_backward(fb3_deberta *m, int l, const void *x, const fb3_layer_saved *s)
{
    void *dbranch = m->rates.hidden > 0 ? m->dbranch : m->dy; // act [T, C]
    m->be->layer = l;
    FB3_TRY(ffn_backward(m, l, s, dbranch));
    return attention_block_backward(m, l, x, s, dbranch);
}
