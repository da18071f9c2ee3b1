/* Word rows: y = dropout(LayerNorm(word[id])). DeBERTa-v3 adds no absolute positions and no token types. */
#include "internal.h"

static const float *word_table(const fb3_deberta *m)
{
    return m->arenas.param + fb3_param_find(m->table, FB3_PARAM_WORD, -1)->offset; // [A, C]
}

fb3_status fb3_embeddings_forward(fb3_deberta *m)
{
    const fb3_norm *norm = &m->embedding_norm;
    fb3_dropout drop = fb3_dropout_at(m, m->rates.hidden, FB3_SITE_EMBEDDING);
    return m->be->ops->embedding_fwd(m->be, m->embedded, m->embedded_mean, m->embedded_rstd, word_table(m), m->ids,
                                     norm->gamma, norm->beta, m->table->model.layer_norm_eps, &m->ragged, m->C, &drop);
}

fb3_status fb3_embeddings_backward(fb3_deberta *m)
{
    const fb3_norm *norm = &m->embedding_norm;
    float *dword = m->arenas.grad + fb3_param_find(m->table, FB3_PARAM_WORD, -1)->offset; // [A, C]
    fb3_dropout drop = fb3_dropout_at(m, m->rates.hidden, FB3_SITE_EMBEDDING);
    return m->be->ops->embedding_bwd(m->be, dword, norm->dgamma, norm->dbeta, m->dy, m->embedded_mean, m->embedded_rstd,
                                     word_table(m), m->ids, m->by_id, m->id_start, m->id_value, m->U, norm->gamma,
                                     &m->ragged, m->C, &drop);
}
