/* The replica: its memory plan, the loaded batch, and the calls of fb3/deberta.h. */
#include "internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Buffers one behind the other in one allocation. Without memory only their bytes are counted. */
typedef struct memory_plan {
    char *memory; /* or NULL */
    size_t bytes; /* so far */
} memory_plan;

/* What every device wants its buffers to begin on. */
enum { BUFFER_ALIGNMENT = 256 };

static void *take(memory_plan *plan, int64_t elements, size_t element_bytes)
{
    char *buffer = plan->memory ? plan->memory + plan->bytes : NULL;
    size_t bytes = (size_t)elements * element_bytes;
    plan->bytes += (bytes + BUFFER_ALIGNMENT - 1) / BUFFER_ALIGNMENT * BUFFER_ALIGNMENT;
    return buffer;
}

/* What the forward pass of a layer leaves for the backward pass, besides its output. */
static void lay_out_layer(const fb3_deberta *m, memory_plan *plan, size_t act, fb3_layer_saved *s)
{
    const int64_t T = m->limits.T, C = m->C, H = m->H, F = m->F, P = m->P;
    const size_t f32 = sizeof(float);
    s->pos = take(plan, P * 2 * C, act); // [R, 2C], R <= P
    s->qkv = take(plan, T * 3 * C, act); // [T, 3C]
    s->context = take(plan, T * C, act); // [T, C]
    s->lse = take(plan, H * T, f32);     // [H, T]
    s->s1 = take(plan, T * C, act);      // [T, C]
    s->y1 = take(plan, T * C, act);      // [T, C]
    s->mean1 = take(plan, T, f32);
    s->rstd1 = take(plan, T, f32);
    s->pre = take(plan, T * F, act); // [T, F]
    s->s2 = take(plan, T * C, act);  // [T, C]
    s->mean2 = take(plan, T, f32);
    s->rstd2 = take(plan, T, f32);
}

/* Every buffer of a replica besides the arenas. */
static void lay_out(fb3_deberta *m, memory_plan *plan, fb3_dtype act_type)
{
    const int64_t T = m->limits.T, B = m->limits.B, C = m->C, F = m->F, P = m->P, Y = m->Y;
    const size_t act = fb3_dtype_size(act_type), f32 = sizeof(float), i32 = sizeof(int32_t);

    m->ids = take(plan, T, i32);
    m->token_seq = take(plan, T, i32);
    m->by_id = take(plan, T, i32);
    m->id_start = take(plan, T + 1, i32); // [U+1], U <= T
    m->id_value = take(plan, T, i32);     // [U]
    m->seq_start = take(plan, B + 1, i32);
    m->sample = take(plan, B, sizeof *m->sample);
    m->targets = take(plan, B * Y, f32); // [B, Y]

    m->bucket = take(plan, 2 * (int64_t)m->limits.max_len - 1, sizeof *m->bucket);
    m->table_start = take(plan, 2, i32);
    m->table_seq = take(plan, P, i32);
    m->table_sample = take(plan, 1, sizeof *m->table_sample);
    m->rel = take(plan, P * C, act);         // [P, C]
    m->rel_dropped = take(plan, P * C, act); // [P, C]
    m->rel_mean = take(plan, P, f32);
    m->rel_rstd = take(plan, P, f32);

    m->embedded = take(plan, T * C, act); // [T, C]
    m->embedded_mean = take(plan, T, f32);
    m->embedded_rstd = take(plan, T, f32);
    for (int l = 0; l < (m->mode == FB3_INFERENCE ? 1 : m->L); l++) {
        fb3_layer_saved *s = &m->saved[l];
        if (l == 0 || m->mode == FB3_TRAINING)
            lay_out_layer(m, plan, act, s);
        else
            *s = m->saved[0]; /* computed again for the backward pass, in one place for all layers */
        // Evaluation keeps nothing: each layer's output takes the place of its input.
        s->y2 = m->mode == FB3_INFERENCE ? m->embedded : take(plan, T * C, act); // [T, C]
    }
    m->gelu = take(plan, T * F, act);   // [T, F]
    m->pooled = take(plan, B * C, f32); // [B, C]
    m->pred = take(plan, B * Y, f32);   // [B, Y]
    m->sums = take(plan, FB3_LOSS_SUMS(Y), sizeof *m->sums);

    if (m->mode == FB3_INFERENCE) return;
    m->dy = take(plan, T * C, act);         // [T, C]
    m->dbranch = take(plan, T * C, act);    // [T, C]
    m->dcontext = take(plan, T * C, act);   // [T, C]
    m->dffn = take(plan, T * F, act);       // [T, F]
    m->dqkv = take(plan, T * 3 * C, act);   // [T, 3C]
    m->dpos = take(plan, P * 2 * C, act);   // [R, 2C]
    m->drel = take(plan, P * C, f32);       // [P, C]
    m->drel_layer = take(plan, P * C, act); // [P, C]
    m->dpooled = take(plan, B * C, f32);    // [B, C]
    m->dpred = take(plan, B * Y, f32);      // [B, Y]
}

static int at_least_one(int n)
{
    return n > 1 ? n : 1;
}

fb3_limits fb3_deberta_limits(const fb3_param_table *table, const fb3_limits *limits)
{
    const fb3_model_config *model = &table->model;
    return (fb3_limits){.T = at_least_one(limits->T),
                        .B = at_least_one(limits->B),
                        .max_len = at_least_one(limits->max_len),
                        .C = model->hidden,
                        .H = model->heads,
                        .F = model->intermediate,
                        .R = fb3_model_rel_rows(model),
                        .A = table->active,
                        .Y = table->targets};
}

static void set_shape(fb3_deberta *m, const fb3_param_table *table, const fb3_limits *limits, fb3_model_mode mode)
{
    m->table = table;
    m->mode = mode;
    m->limits = fb3_deberta_limits(table, limits);
    m->C = m->limits.C;
    m->H = m->limits.H;
    m->F = m->limits.F;
    m->L = table->model.layers;
    m->P = m->limits.R;
    m->Y = m->limits.Y;
}

size_t fb3_deberta_memory(const fb3_param_table *table, const fb3_limits *limits, fb3_dtype act, fb3_model_mode mode)
{
    fb3_deberta m = {0};
    memory_plan plan = {0};
    set_shape(&m, table, limits, mode);
    m.saved = calloc((size_t)m.L, sizeof *m.saved);
    if (!m.saved) return 0;
    lay_out(&m, &plan, act);
    free(m.saved);
    return plan.bytes;
}

/* Where a parameter's gradient is; NULL for inference. */
static float *grad_of(const fb3_deberta *m, const fb3_param *param)
{
    return m->arenas.grad ? m->arenas.grad + param->offset : NULL;
}

static fb3_linear linear_of(const fb3_deberta *m, fb3_param_kind weight, fb3_param_kind bias, int l)
{
    const fb3_param *w = fb3_param_find(m->table, weight, l), *b = fb3_param_find(m->table, bias, l);
    const char *param = m->arenas.param_act;
    return (fb3_linear){
        .w = param + (size_t)w->offset * fb3_dtype_size(m->be->act),
        .b = param + (size_t)b->offset * fb3_dtype_size(m->be->act),
        .dw = grad_of(m, w),
        .db = grad_of(m, b),
    };
}

static fb3_norm norm_of(const fb3_deberta *m, fb3_param_kind weight, fb3_param_kind bias, int l)
{
    const fb3_param *gamma = fb3_param_find(m->table, weight, l), *beta = fb3_param_find(m->table, bias, l);
    return (fb3_norm){
        .gamma = m->arenas.param + gamma->offset,
        .beta = m->arenas.param + beta->offset,
        .dgamma = grad_of(m, gamma),
        .dbeta = grad_of(m, beta),
    };
}

static void find_parameters(fb3_deberta *m)
{
    for (int l = 0; l < m->L; l++) {
        m->layer[l] = (fb3_layer){
            .qkv = linear_of(m, FB3_PARAM_QUERY_WEIGHT, FB3_PARAM_QUERY_BIAS, l),
            .attention_out = linear_of(m, FB3_PARAM_ATTENTION_OUT_WEIGHT, FB3_PARAM_ATTENTION_OUT_BIAS, l),
            .attention_norm = norm_of(m, FB3_PARAM_ATTENTION_NORM_WEIGHT, FB3_PARAM_ATTENTION_NORM_BIAS, l),
            .ffn_in = linear_of(m, FB3_PARAM_FFN_IN_WEIGHT, FB3_PARAM_FFN_IN_BIAS, l),
            .ffn_out = linear_of(m, FB3_PARAM_FFN_OUT_WEIGHT, FB3_PARAM_FFN_OUT_BIAS, l),
            .ffn_norm = norm_of(m, FB3_PARAM_FFN_NORM_WEIGHT, FB3_PARAM_FFN_NORM_BIAS, l),
        };
    }
    m->embedding_norm = norm_of(m, FB3_PARAM_EMBEDDING_NORM_WEIGHT, FB3_PARAM_EMBEDDING_NORM_BIAS, -1);
    m->rel_norm = norm_of(m, FB3_PARAM_REL_NORM_WEIGHT, FB3_PARAM_REL_NORM_BIAS, -1);
}

/* Terms of the scores: content to content, content to position, position to content. */
enum { SCORE_TERMS = 3 };

static fb3_attention attention_shape(const fb3_deberta *m)
{
    const int D = m->C / m->H;
    return (fb3_attention){.H = m->H, .D = D, .scale = (float)(1.0 / sqrt((double)(SCORE_TERMS * D)))};
}

static fb3_status allocate(fb3_deberta *m)
{
    memory_plan count = {0}, plan = {0};
    size_t relative = 2 * (size_t)m->limits.max_len - 1;
    m->layer = calloc((size_t)m->L, sizeof *m->layer);
    m->saved = calloc((size_t)m->L, sizeof *m->saved);
    m->seq_start_host = calloc((size_t)m->limits.B + 1, sizeof *m->seq_start_host);
    m->bucket_host = calloc(relative, sizeof *m->bucket_host);
    FB3_REQUIRE(m->layer && m->saved && m->seq_start_host && m->bucket_host, FB3_FAILED,
                "out of memory for a model of %d layers", m->L);
    lay_out(m, &count, m->be->act);
    fb3_status status = m->be->ops->alloc(m->be, &m->memory, count.bytes);
    if (status != FB3_OK)
        return fb3_fail_context(status, "%zu MiB for batches of %d tokens (a smaller per-device batch needs less)",
                                count.bytes >> 20, m->limits.T);
    plan.memory = m->memory;
    lay_out(m, &plan, m->be->act);
    return m->be->ops->reserve(m->be, &m->limits);
}

fb3_status fb3_deberta_create(fb3_deberta **model, fb3_backend *backend, const fb3_param_table *table,
                              const fb3_arenas *arenas, const fb3_limits *limits, fb3_model_mode mode)
{
    fb3_status status;
    *model = NULL;
    FB3_REQUIRE(table->targets <= FB3_MAX_TARGETS, FB3_INPUT, "%d target columns; at most %d are supported",
                table->targets, FB3_MAX_TARGETS);
    fb3_deberta *m = calloc(1, sizeof *m);
    FB3_REQUIRE(m, FB3_FAILED, "out of memory for a model");
    m->be = backend;
    m->arenas = *arenas;
    set_shape(m, table, limits, mode);
    FB3_TRY_GOTO(allocate(m), failed);
    find_parameters(m);
    m->attention = attention_shape(m);
    FB3_TRY_GOTO(fb3_relpos_prepare(m), failed);
    *model = m;
    return FB3_OK;
failed:
    fb3_deberta_free(m);
    return status;
}

void fb3_deberta_free(fb3_deberta *m)
{
    if (!m) return;
    m->be->ops->free(m->be, m->memory);
    free(m->layer);
    free(m->saved);
    free(m->seq_start_host);
    free(m->bucket_host);
    free(m);
}

fb3_status fb3_deberta_load(fb3_deberta *m, const fb3_batch *batch)
{
    const fb3_ops *op = m->be->ops;
    const size_t i32 = sizeof(int32_t), T = (size_t)batch->T, B = (size_t)batch->B, U = (size_t)batch->U;
    FB3_REQUIRE(batch->T <= m->limits.T && batch->B <= m->limits.B && batch->max_len <= m->limits.max_len, FB3_FAILED,
                "a batch of %d tokens in %d sequences is larger than the %d in %d that memory was laid out for",
                batch->T, batch->B, m->limits.T, m->limits.B);
    FB3_REQUIRE(!batch->targets || batch->Y == m->Y, FB3_FAILED, "samples with %d scores for a model of %d", batch->Y,
                m->Y);
    memcpy(m->seq_start_host, batch->seq_start, (B + 1) * i32);
    m->U = batch->U;
    m->has_targets = batch->targets != NULL;
    m->ragged = (fb3_ragged){.T = batch->T,
                             .B = batch->B,
                             .max_len = batch->max_len,
                             .seq_start = m->seq_start,
                             .token_seq = m->token_seq,
                             .sample = m->sample,
                             .seq_start_host = m->seq_start_host};
    if (batch->T == 0) return FB3_OK;
    fb3_relpos_reach(m);
    FB3_TRY(op->upload(m->be, m->ids, batch->ids, T * i32));
    FB3_TRY(op->upload(m->be, m->seq_start, batch->seq_start, (B + 1) * i32));
    FB3_TRY(op->upload(m->be, m->token_seq, batch->token_seq, T * i32));
    FB3_TRY(op->upload(m->be, m->sample, batch->sample, B * sizeof *m->sample));
    FB3_TRY(op->upload(m->be, m->by_id, batch->by_id, T * i32));
    FB3_TRY(op->upload(m->be, m->id_start, batch->id_start, (U + 1) * i32));
    FB3_TRY(op->upload(m->be, m->id_value, batch->id_value, U * i32));
    if (!m->has_targets) return FB3_OK;
    return op->upload(m->be, m->targets, batch->targets, B * (size_t)m->Y * sizeof *m->targets);
}

fb3_status fb3_deberta_forward(fb3_deberta *m, const fb3_dropout_rates *rates, fb3_rng_key key, uint32_t step)
{
    m->rates = rates ? *rates : (fb3_dropout_rates){0};
    m->key = key;
    m->step = step;
    if (m->ragged.T == 0) return FB3_OK;
    FB3_TRY(fb3_encoder_forward(m));
    return fb3_head_forward(m);
}

fb3_status fb3_deberta_predictions(fb3_deberta *m, float *pred_host)
{
    size_t elements = (size_t)m->ragged.B * (size_t)m->Y;
    return elements ? m->be->ops->download(m->be, pred_host, m->pred, elements * sizeof *pred_host) : FB3_OK;
}

fb3_status fb3_deberta_pooled(fb3_deberta *m, float *pooled_host)
{
    size_t elements = (size_t)m->ragged.B * (size_t)m->C;
    return elements ? m->be->ops->download(m->be, pooled_host, m->pooled, elements * sizeof *pooled_host) : FB3_OK;
}

fb3_status fb3_deberta_backward(fb3_deberta *m, fb3_loss_kind kind, float beta, int64_t samples,
                                const fb3_model_hooks *hooks)
{
    FB3_REQUIRE(m->mode != FB3_INFERENCE && m->arenas.grad, FB3_FAILED,
                "a gradient was asked of a model that only predicts");
    m->hooks = hooks;
    m->ranges_ready = 0;
    if (m->ragged.T == 0) {
        // A rank without samples has nothing to add, but the same collective calls to make.
        while (m->ranges_ready < m->table->ranges) FB3_TRY(fb3_range_ready(m));
        return FB3_OK;
    }
    FB3_TRY(fb3_loss_backward(m, kind, beta, samples));
    FB3_TRY(fb3_head_backward(m));
    return fb3_encoder_backward(m);
}
