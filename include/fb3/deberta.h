/* DeBERTa-v2/v3 encoder, mean pooling and linear head over a backend: forward, and the hand-written backward.
 *
 * src/model: embeddings.c relpos.c attention.c layer.c encoder.c head.c loss.c - each forward beside its backward. The
 * model never sees MPI: it tells the caller through fb3_model_hooks when a range of gradients is final. */
#ifndef FB3_DEBERTA_H
#define FB3_DEBERTA_H

#include "fb3/batch.h"
#include "fb3/params.h"

typedef struct fb3_deberta fb3_deberta;

/* The replica's arenas, in the backend's memory, all in the table's layout. */
typedef struct fb3_arenas {
    float *param, *grad, *m, *v; /* grad, m, v NULL for inference */
    void *param_act;             /* activation-type copy of the parameters; == param on f32 */
} fb3_arenas;

typedef struct fb3_dropout_rates {
    float hidden, attention, head;
} fb3_dropout_rates;

/* Called during backward. Any may be NULL. */
typedef struct fb3_model_hooks {
    void *context;
    /* the gradients of this range of the arena are final for this backward */
    fb3_status (*grads_ready)(void *context, int64_t offset, int64_t count);
    /* between operations: a chance to move communication on */
    fb3_status (*poll)(void *context);
} fb3_model_hooks;

/* What a replica keeps. Checkpointed training keeps only the layers' outputs and computes the rest of a layer again
 * before its backward pass: the same bits, with about a third more arithmetic. */
typedef enum fb3_model_mode { FB3_INFERENCE, FB3_TRAINING, FB3_TRAINING_CHECKPOINTED } fb3_model_mode;

/* `limits`: the largest micro-batch (T, B, max_len are read). */
fb3_status fb3_deberta_create(fb3_deberta **model, fb3_backend *backend, const fb3_param_table *table,
                              const fb3_arenas *arenas, const fb3_limits *limits, fb3_model_mode mode);
void fb3_deberta_free(fb3_deberta *model);

/* Copies a batch to the backend; it is the one that the calls below work on. */
fb3_status fb3_deberta_load(fb3_deberta *model, const fb3_batch *batch);

/* Forward. rates NULL: evaluation, no dropout. `key`, `step` drive the dropout masks. Predictions stay on the device:
 * fb3_deberta_predictions copies [B, Y] of them; fb3_deberta_pooled the pooled embeddings [B, C]. */
fb3_status fb3_deberta_forward(fb3_deberta *model, const fb3_dropout_rates *rates, fb3_rng_key key, uint32_t step);
fb3_status fb3_deberta_predictions(fb3_deberta *model, float *pred_host);
fb3_status fb3_deberta_pooled(fb3_deberta *model, float *pooled_host);

/* The loss sums of a step (FB3_LOSS_SUMS): set to 0, those of the loaded batch added, fetched into sums_host[1 + Y],
 * which has them after the backend's sync. All are queued; nobody waits. */
fb3_status fb3_deberta_loss_begin(fb3_deberta *model);
fb3_status fb3_deberta_loss_add(fb3_deberta *model, fb3_loss_kind kind, float beta);
fb3_status fb3_deberta_loss_fetch(fb3_deberta *model, double *sums_host);
/* Where they lie, for a sum over ranks in place; and sums that were added up on the host. */
double *fb3_deberta_loss_sums(fb3_deberta *model);
fb3_status fb3_deberta_loss_set(fb3_deberta *model, const double *sums_host);

/* The loss of a global batch of `samples` from its sums over all ranks and micro-batches. */
double fb3_loss_value(fb3_loss_kind kind, const double *sums, int64_t samples, int Y);

/* Backward of the last forward, as a part of a global batch of so many `samples`: adds to arenas->grad. For
 * FB3_LOSS_MCRMSE the loss sums must be those of the global batch by now. A batch of T = 0 only calls the hooks, so
 * that every rank makes the same collective calls. */
fb3_status fb3_deberta_backward(fb3_deberta *model, fb3_loss_kind kind, float beta, int64_t samples,
                                const fb3_model_hooks *hooks);

/* T, B and max_len of `limits`, and what the model adds. */
fb3_limits fb3_deberta_limits(const fb3_param_table *table, const fb3_limits *limits);
/* Bytes that create() would take for the batch, activations and their gradients. The arenas and the backend's own
 * workspace (ops->scratch_bytes) come on top. */
size_t fb3_deberta_memory(const fb3_param_table *table, const fb3_limits *limits, fb3_dtype act, fb3_model_mode mode);

/* Dropout sites: the `site` counter of each place. */
enum {
    FB3_SITE_EMBEDDING = 0,
    FB3_SITE_HEAD = 1,
    FB3_SITE_LAYER = 16, /* + FB3_SITES_PER_LAYER * layer + one of the following */
    FB3_SITE_ATTENTION_PROBS = 0,
    FB3_SITE_ATTENTION_OUT = 1,
    FB3_SITE_FFN_OUT = 2,
    FB3_SITE_POSITION = 3,
    FB3_SITES_PER_LAYER = 4,
};
/* The whole position table, from its row 0, is one "sequence" of this pseudo sample: one mask a layer and step, the
 * same for every micro-batch and rank. */
#define FB3_SAMPLE_POSITION 0xFFFFFFFFu

#endif
