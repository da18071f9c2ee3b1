/* Whether a replica fits into its device's memory, asked before anything is taken: what would fit is then part of the
 * answer. A processor's memory is not asked about: what is free there changes from one moment to the next. */
#include "fb3/train.h"

#include <stdio.h>

typedef struct demand {
    const fb3_param_table *table;
    fb3_backend *be;
    int sequences, longest; /* of a micro-batch */
    fb3_model_mode mode;
    bool reproducible;
} demand;

static double arena_bytes(const demand *d)
{
    const double parameters = (double)d->table->size;
    const double arenas = d->mode == FB3_INFERENCE ? 1 : 4; /* parameters; gradients and two moments */
    double copy = d->be->act == FB3_F32 ? 0 : parameters * (double)fb3_dtype_size(d->be->act);
    double fixed = d->reproducible && d->mode != FB3_INFERENCE ? parameters * sizeof(int64_t) : 0;
    return arenas * parameters * sizeof(float) + copy + fixed;
}

static double bytes_of(const demand *d)
{
    const fb3_limits limits = {.T = d->sequences * d->longest, .B = d->sequences, .max_len = d->longest};
    const fb3_limits full = fb3_deberta_limits(d->table, &limits);
    return arena_bytes(d) + (double)fb3_deberta_memory(d->table, &limits, d->be->act, d->mode) +
           (double)d->be->ops->scratch_bytes(d->be, &full);
}

/* The most sequences that fit; 0: not one. */
static int most_sequences(demand d, double bytes)
{
    while (d.sequences > 0 && bytes_of(&d) > bytes) d.sequences--;
    return d.sequences;
}

static double gib(double bytes)
{
    return bytes / (double)(1 << 30);
}

static fb3_status refuse(const demand *d, double left, double total)
{
    const bool training = d->mode != FB3_INFERENCE;
    const char *key = training ? "per_device_train_batch_size" : "per_device_eval_batch_size";
    demand checkpointed = *d;
    char cure[256];
    int smaller = most_sequences(*d, left), again = 0;
    checkpointed.mode = FB3_TRAINING_CHECKPOINTED;
    if (d->mode == FB3_TRAINING) again = most_sequences(checkpointed, left);
    if (smaller > 0 && again > smaller)
        snprintf(cure, sizeof cure, "%s: %d fits, or %d with gradient_checkpointing: true", key, smaller, again);
    else if (smaller > 0)
        snprintf(cure, sizeof cure, "%s: %d fits", key, smaller);
    else if (again > 0)
        snprintf(cure, sizeof cure, "gradient_checkpointing: true with %s: %d fits", key, again);
    else
        snprintf(cure, sizeof cure, "not even one sequence fits; use a smaller model or max_length");
    return fb3_fail(
        FB3_FAILED,
        "the model and batches of %d sequences of %d tokens need %.2f GiB of the device's memory, and %.2f of "
        "its %.2f GiB are left; %s",
        d->sequences, d->longest, gib(bytes_of(d)), gib(left), gib(total), cure);
}

fb3_status fb3_replica_check_memory(const fb3_session *session, const fb3_param_table *table, int sequences,
                                    int longest, fb3_model_mode mode)
{
    fb3_backend *be = session->backend;
    const demand d = {.table = table,
                      .be = be,
                      .sequences = sequences,
                      .longest = longest,
                      .mode = mode,
                      .reproducible = session->config->reproducible};
    size_t left, total;
    if (be->ops->host_memory) return FB3_OK;
    FB3_TRY(be->ops->memory_left(be, &left, &total));
    return bytes_of(&d) <= (double)left ? FB3_OK : refuse(&d, (double)left, (double)total);
}
