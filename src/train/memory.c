/* What a replica takes, and whether its device has so much, asked before anything is taken: what would fit is then part
 * of the answer. A processor's memory is not asked about: what is free there changes from one moment to the next. */
#include "fb3/train.h"

#include <stdio.h>

typedef struct demand {
    const fb3_param_table *table;
    fb3_backend *be;
    fb3_limits limits; /* of a batch */
    fb3_model_mode mode;
    bool reproducible;
} demand;

static fb3_memory_record memory_of(const demand *d)
{
    const double values = (double)d->table->size, arena = values * sizeof(float);
    const double copy = d->be->act == FB3_F32 ? 0 : values * (double)fb3_dtype_size(d->be->act);
    const fb3_limits full = fb3_deberta_limits(d->table, &d->limits);
    fb3_memory_record memory = {.parameters = arena + copy,
                                .activations = (double)fb3_deberta_memory(d->table, &d->limits, d->be->act, d->mode),
                                .workspace = (double)d->be->ops->scratch_bytes(d->be, &full)};
    if (d->mode == FB3_INFERENCE) return memory;
    memory.gradients = arena + (d->reproducible ? values * sizeof(int64_t) : 0);
    memory.moments = 2 * arena;
    return memory;
}

static double bytes_of(const demand *d)
{
    const fb3_memory_record memory = memory_of(d);
    return memory.parameters + memory.gradients + memory.moments + memory.activations + memory.workspace;
}

/* Sequences as long as any that a batch may have. */
static int sequences_of(const demand *d)
{
    return d->limits.T / d->limits.max_len;
}

/* The most sequences that fit; 0: not one. */
static int most_sequences(demand d, double bytes)
{
    for (d.limits.B = sequences_of(&d); d.limits.B > 0; d.limits.B--) {
        d.limits.T = d.limits.B * d.limits.max_len;
        if (bytes_of(&d) <= bytes) break;
    }
    return d.limits.B;
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
        sequences_of(d), d->limits.max_len, gib(bytes_of(d)), gib(left), gib(total), cure);
}

static demand demand_of(const fb3_session *session, const fb3_param_table *table, const fb3_limits *limits,
                        fb3_model_mode mode)
{
    return (demand){.table = table,
                    .be = session->backend,
                    .limits = *limits,
                    .mode = mode,
                    .reproducible = session->config->reproducible};
}

fb3_memory_record fb3_replica_memory(const fb3_session *session, const fb3_param_table *table, const fb3_limits *limits,
                                     fb3_model_mode mode)
{
    const demand d = demand_of(session, table, limits, mode);
    return memory_of(&d);
}

fb3_status fb3_replica_check_memory(const fb3_session *session, const fb3_param_table *table, const fb3_limits *limits,
                                    fb3_model_mode mode)
{
    fb3_backend *be = session->backend;
    const demand d = demand_of(session, table, limits, mode);
    size_t left, total;
    if (be->ops->host_memory) return FB3_OK;
    FB3_TRY(be->ops->memory_left(be, &left, &total));
    return bytes_of(&d) <= (double)left ? FB3_OK : refuse(&d, (double)left, (double)total);
}
