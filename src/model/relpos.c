/* Relative positions. All layers share one table, rel = LayerNorm(rel_embeddings) [P, C]; each drops it out and
 * projects it by its own query and key weights (biases included, `share_att_key`), which are neighbours in the arena,
 * so both projections are one product with a [2C, C] matrix:
 *
 *     pos [R, 2C] = dropout(rel)[pos_first .. pos_first + R - 1] [Wq; Wk]^T + [bq; bk]
 *
 * Only rows that the batch can reach take part: a longest sequence of n tokens reaches x(-(n-1)) .. x(n-1); on both
 * sides up to the next multiple of REACH_STEP, so that products over them can load 16 bytes of activations at a time.
 * Rows that no pair reaches have the gradient 0. Dropout counts rows from the start of the whole table, so a row's mask
 * does not depend on the batch. */
#include "internal.h"

#include <string.h>

enum { REACH_STEP = 8 };

fb3_status fb3_relpos_prepare(fb3_deberta *m)
{
    int reach = m->limits.max_len - 1; /* the largest |i - j| */
    for (int delta = -reach; delta <= reach; delta++)
        m->bucket_host[delta + reach] = (int16_t)fb3_position_index(delta, &m->table->model);
    m->attention.bucket = m->bucket + reach;
    m->table_start_host[0] = 0;
    m->table_start_host[1] = m->P;
    m->table_rows = (fb3_ragged){.T = m->P,
                                 .B = 1,
                                 .max_len = m->P,
                                 .seq_start = m->table_start,
                                 .token_seq = m->table_seq,
                                 .sample = m->table_sample,
                                 .seq_start_host = m->table_start_host};

    const fb3_ops *op = m->be->ops;
    const uint32_t sample = FB3_SAMPLE_POSITION;
    FB3_TRY(op->upload(m->be, m->bucket, m->bucket_host, (2 * (size_t)reach + 1) * sizeof *m->bucket));
    FB3_TRY(op->upload(m->be, m->table_start, m->table_start_host, sizeof m->table_start_host));
    FB3_TRY(op->upload(m->be, m->table_sample, &sample, sizeof sample));
    return op->zero(m->be, m->table_seq, (size_t)m->P * sizeof *m->table_seq);
}

void fb3_relpos_reach(fb3_deberta *m)
{
    int reach = m->ragged.max_len - 1;
    int first = fb3_position_index(-reach, &m->table->model), end = fb3_position_index(reach, &m->table->model) + 1;
    first = first / REACH_STEP * REACH_STEP;
    end = (end + REACH_STEP - 1) / REACH_STEP * REACH_STEP;
    m->attention.pos_first = first;
    m->attention.R = (end < m->P ? end : m->P) - first;
}

/* The rows in reach of a table act [P, C]. */
static void *reach_of(const fb3_deberta *m, void *table)
{
    return (char *)table + (size_t)m->attention.pos_first * (size_t)m->C * fb3_dtype_size(m->be->act);
}

static fb3_dropout position_dropout(const fb3_deberta *m, int l)
{
    return fb3_dropout_in_layer(m, m->rates.hidden, l, FB3_SITE_POSITION);
}

/* The table as layer l sees it. */
static fb3_status dropped_table(fb3_deberta *m, int l, void **table)
{
    fb3_dropout drop = position_dropout(m, l);
    *table = drop.p > 0 ? m->rel_dropped : m->rel;
    if (drop.p == 0) return FB3_OK;
    return m->be->ops->dropout_fwd(m->be, m->rel_dropped, m->rel, &m->table_rows, m->C, &drop);
}

fb3_status fb3_relpos_forward(fb3_deberta *m)
{
    const float *rel_embeddings = m->arenas.param + fb3_param_find(m->table, FB3_PARAM_REL_EMBEDDINGS, -1)->offset;
    return m->be->ops->layernorm_fwd(m->be, m->rel, m->rel_mean, m->rel_rstd, rel_embeddings, m->rel_norm.gamma,
                                     m->rel_norm.beta, m->table->model.layer_norm_eps, m->P, m->C);
}

fb3_status fb3_relpos_project(fb3_deberta *m, int l, void *pos)
{
    const fb3_linear *qkv = &m->layer[l].qkv;
    void *table; // act [P, C]
    FB3_TRY(dropped_table(m, l, &table));
    return m->be->ops->linear_fwd(m->be, pos, reach_of(m, table), qkv->w, qkv->b, m->attention.R, m->C, 2 * m->C);
}

fb3_status fb3_relpos_backward_begin(fb3_deberta *m)
{
    size_t elements = (size_t)m->P * (size_t)m->C;
    FB3_TRY(m->be->ops->zero(m->be, m->drel, elements * sizeof *m->drel));
    if (m->rates.hidden == 0) return FB3_OK;
    return m->be->ops->zero(m->be, m->drel_layer, elements * fb3_dtype_size(m->be->act)); /* where no row reaches */
}

fb3_status fb3_relpos_project_backward(fb3_deberta *m, int l)
{
    const fb3_ops *op = m->be->ops;
    const fb3_linear *qkv = &m->layer[l].qkv;
    const fb3_dropout drop = position_dropout(m, l);
    const int R = m->attention.R;
    void *table; // act [P, C]
    FB3_TRY(dropped_table(m, l, &table));
    FB3_TRY(op->linear_bwd_weight(m->be, qkv->dw, qkv->db, m->dpos, reach_of(m, table), R, m->C, 2 * m->C));
    if (drop.p == 0) {
        float *drel = m->drel + (size_t)m->attention.pos_first * (size_t)m->C; // [R, C]
        return op->linear_bwd_input_float(m->be, drel, m->dpos, qkv->w, R, m->C, 2 * m->C);
    }
    FB3_TRY(op->linear_bwd_input(m->be, reach_of(m, m->drel_layer), m->dpos, qkv->w, R, m->C, 2 * m->C, false));
    return op->dropout_bwd_add(m->be, m->drel, m->drel_layer, &m->table_rows, m->C, &drop);
}

fb3_status fb3_relpos_backward(fb3_deberta *m)
{
    int64_t offset = fb3_param_find(m->table, FB3_PARAM_REL_EMBEDDINGS, -1)->offset;
    return m->be->ops->layernorm_bwd(m->be, m->arenas.grad + offset, m->rel_norm.dgamma, m->rel_norm.dbeta, m->drel,
                                     m->arenas.param + offset, m->rel_mean, m->rel_rstd, m->rel_norm.gamma, m->P, m->C);
}
