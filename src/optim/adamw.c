/* The optimizer: global-norm clipping and AdamW over the arenas' segments, and the account of what a full table would
 * have done to the word rows that are not trained.
 *
 * A word row outside the active vocabulary has a zero gradient and zero moments, so AdamW only multiplies it by the
 * step's decay factor. These factors are recorded, and replayed one by one when somebody needs the full table: the
 * same multiplications in the same order give the same bits. A factor of exactly 1 changes nothing and is not kept; at
 * the default decay all are. */
#include "fb3/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct fb3_optimizer {
    fb3_backend *be;
    const fb3_param_table *table;
    fb3_arenas arenas;
    fb3_adamw_segment *segments_host, *segments; // [count]
    int count;
    double beta1, beta2, eps, max_norm;
    double *sum_squares; // the backend's memory
    double sum_squares_host;
    float decay_factor; // of inactive word rows, in the update that was queued last
    fb3_adamw_segment word;
    float *inactive_factor; // [recorded], in the order of the steps
    int64_t recorded, capacity;
};

static fb3_status upload_segments(fb3_optimizer *o)
{
    const size_t bytes = (size_t)o->count * sizeof *o->segments_host;
    void *memory;
    FB3_TRY(o->be->ops->alloc(o->be, &memory, bytes));
    o->segments = memory;
    return o->be->ops->upload(o->be, o->segments, o->segments_host, bytes);
}

static fb3_adamw_segment segment_of(const fb3_optimizer *o, const fb3_param *param)
{
    int i = 0;
    while (o->segments_host[i].offset + o->segments_host[i].count <= param->offset) i++;
    return o->segments_host[i];
}

fb3_status fb3_optimizer_create(fb3_optimizer **optimizer, fb3_backend *backend, const fb3_param_table *table,
                                const fb3_arenas *arenas, const fb3_config *config)
{
    fb3_status status;
    void *memory;
    *optimizer = NULL;
    fb3_optimizer *o = calloc(1, sizeof *o);
    FB3_REQUIRE(o, FB3_FAILED, "out of memory for the optimizer");
    o->be = backend;
    o->table = table;
    o->arenas = *arenas;
    o->beta1 = config->adam_beta1;
    o->beta2 = config->adam_beta2;
    o->eps = config->adam_epsilon;
    o->max_norm = config->max_grad_norm;
    FB3_TRY_GOTO(fb3_param_segments(table, (float)config->weight_decay, &o->segments_host, &o->count), failed);
    FB3_TRY_GOTO(upload_segments(o), failed);
    FB3_TRY_GOTO(backend->ops->alloc(backend, &memory, sizeof *o->sum_squares), failed);
    o->sum_squares = memory;
    o->word = segment_of(o, fb3_param_find(table, FB3_PARAM_WORD, -1));
    *optimizer = o;
    return FB3_OK;
failed:
    fb3_optimizer_free(o);
    return status;
}

void fb3_optimizer_free(fb3_optimizer *o)
{
    if (!o) return;
    o->be->ops->free(o->be, o->segments);
    o->be->ops->free(o->be, o->sum_squares);
    free(o->segments_host);
    free(o->inactive_factor);
    free(o);
}

static fb3_status record_inactive(fb3_optimizer *o, float factor)
{
    enum { FIRST_CAPACITY = 1024 };
    if (factor == 1.0f) return FB3_OK;
    if (o->recorded == o->capacity) {
        int64_t capacity = o->capacity ? 2 * o->capacity : FIRST_CAPACITY;
        float *grown = realloc(o->inactive_factor, (size_t)capacity * sizeof *grown);
        FB3_REQUIRE(grown, FB3_FAILED, "out of memory for %lld decay factors", (long long)capacity);
        o->inactive_factor = grown;
        o->capacity = capacity;
    }
    o->inactive_factor[o->recorded++] = factor;
    return FB3_OK;
}

fb3_status fb3_optimizer_step(fb3_optimizer *o, double lr, int64_t update)
{
    const fb3_ops *op = o->be->ops;
    const fb3_adamw args = {
        .lr = lr,
        .beta1 = o->beta1,
        .beta2 = o->beta2,
        .eps = o->eps,
        .correction1 = 1.0 - pow(o->beta1, (double)update),
        .correction2 = 1.0 - pow(o->beta2, (double)update),
        .max_norm = o->max_norm,
    };
    void *act_copy = o->arenas.param_act == o->arenas.param ? NULL : o->arenas.param_act;
    o->decay_factor = fb3_adamw_decay_factor(&args, &o->word);
    // Padding is zero in the gradient arena, so the whole arena is one range.
    FB3_TRY(op->sum_squares(o->be, o->sum_squares, o->arenas.grad, o->table->size));
    FB3_TRY(op->fetch(o->be, &o->sum_squares_host, o->sum_squares, sizeof o->sum_squares_host));
    return op->adamw(o->be, o->arenas.param, o->arenas.m, o->arenas.v, o->arenas.grad, act_copy, o->segments,
                     o->segments_host, o->count, &args, o->sum_squares);
}

fb3_status fb3_optimizer_outcome(fb3_optimizer *o, double *norm)
{
    *norm = sqrt(o->sum_squares_host);
    // The operation refuses a gradient that is not finite, so the inactive rows must not move either.
    return isfinite(o->sum_squares_host) ? record_inactive(o, o->decay_factor) : FB3_OK;
}

fb3_status fb3_optimizer_zero_grad(fb3_optimizer *o)
{
    return o->be->ops->zero(o->be, o->arenas.grad, (size_t)o->table->size * sizeof *o->arenas.grad);
}

void fb3_optimizer_replay_inactive(fb3_optimizer *o, float *word_full, const uint32_t *active_ids)
{
    const int C = o->table->model.hidden;
    int next_active = 0; // active_ids are ascending
    for (int id = 0; id < o->table->model.vocab && o->recorded > 0; id++) {
        if (next_active < o->table->active && active_ids[next_active] == (uint32_t)id) {
            next_active++;
            continue;
        }
        float *row = word_full + (size_t)id * (size_t)C; // [C], in the cache while all steps pass over it
        for (int64_t step = 0; step < o->recorded; step++)
            for (int c = 0; c < C; c++) row[c] *= o->inactive_factor[step];
    }
    o->recorded = 0;
}
