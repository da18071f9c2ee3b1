/* One optimizer step, from a ragged batch to AdamW: the table of contents of the program.
 *
 *   for each micro-batch of this rank's share
 *       forward -> loss -> backward        (the last backward posts each layer's all-reduce as it goes)
 *   all-reduce -> clip -> AdamW -> wait
 *
 * All of it is queued on the device, and the host waits once, at the end, for the loss and the norm of the gradient.
 *
 * With reproducible: true a micro-batch is a leaf of the global batch, whose gradient goes into a sum of integers that
 * has the same bits on any number of ranks; the all-reduce then waits for the last leaf.
 *
 * Sums are reduced, never averages, and divided by one global divisor: 1 rank x B, R ranks x B/R and accumulation
 * give the same gradient to rounding (DESIGN 4). */
#include "leaves.h"

#include "fb3/trace.h"

#include <math.h>

/* Backward tells us when a layer's gradients are final; the reducer sums them over the ranks meanwhile. */
static fb3_status post_all_reduce(void *context, int64_t offset, int64_t count)
{
    fb3_trainer *trainer = context;
    return trainer->reducer->ops->start(trainer->reducer, trainer->replica->arenas.grad + offset, count);
}

static fb3_status move_communication_on(void *context)
{
    fb3_trainer *trainer = context;
    return trainer->reducer->ops->poll(trainer->reducer);
}

/* The ranks agree to stop as soon as one of them was asked to, or has heard that another group was. */
static fb3_status stop_wanted_anywhere(fb3_trainer *trainer, bool *stop)
{
    bool told;
    FB3_TRY(fb3_comm_stop_told(trainer->session->comm, &told));
    int64_t flag = told || fb3_signals_stop_wanted(trainer->config->stop_before_end);
    FB3_TRY(fb3_comm_max_int64(trainer->session->comm, &flag, 1, "agreeing whether to stop"));
    *stop = flag != 0;
    return FB3_OK;
}

/* The next micro-batch goes forward. *empty: it has no samples, and no other rank waits for its gradient. */
static fb3_status forward(fb3_trainer *trainer, bool *empty)
{
    const fb3_batch *batch;
    fb3_deberta *model = trainer->replica->model;
    FB3_TRY(fb3_feed_next(trainer->feed, &batch));
    *empty = batch->B == 0 && trainer->split.leaves > 0;
    if (*empty) return FB3_OK;
    FB3_TRY(fb3_deberta_load(model, batch));
    return fb3_deberta_forward(model, &trainer->dropout, trainer->dropout_key, (uint32_t)trainer->step);
}

/* The host waits for the device. What it fetched is there then. */
static fb3_status wait_for_device(fb3_trainer *trainer)
{
    fb3_backend *be = trainer->session->backend;
    double begin = fb3_trace_begin();
    fb3_comm_watch_device_begin(trainer->session->comm, trainer->step + 1);
    fb3_status status = be->ops->sync(be);
    fb3_comm_watch_end(trainer->session->comm);
    fb3_trace_end(begin, "train", "wait for the device", NULL, 0);
    return status;
}

static fb3_status add_loss(fb3_trainer *trainer, int micro)
{
    const fb3_config *config = trainer->config;
    const int leaf = fb3_feed_plan(trainer->feed)->leaf[micro];
    FB3_TRY(fb3_deberta_loss_add(trainer->replica->model, config->loss_type, (float)config->smooth_l1_beta));
    return leaf >= 0 ? fb3_leaves_take_sums(trainer, leaf) : FB3_OK;
}

/* The host's copies, where the device's are not those of the global batch yet. */
static fb3_status reduce_sums(fb3_trainer *trainer, double *sums)
{
    if (trainer->split.leaves > 0) return fb3_leaves_reduce_sums(trainer, sums);
    return fb3_comm_sum_double(trainer->session->comm, sums, FB3_LOSS_SUMS(trainer->targets), "summing the loss");
}

/* The device's, for what is queued next. Those of leaves the host has already; it adds them in order. */
static fb3_status reduce_sums_on_device(fb3_trainer *trainer, double *sums)
{
    fb3_deberta *model = trainer->replica->model;
    fb3_reducer *reducer = trainer->reducer;
    if (trainer->split.leaves == 0)
        return reducer->ops->sum_double(reducer, fb3_deberta_loss_sums(model), FB3_LOSS_SUMS(trainer->targets));
    FB3_TRY(fb3_leaves_reduce_sums(trainer, sums));
    return fb3_deberta_loss_set(model, sums);
}

/* The gradient of mcrmse needs the sums of the whole global batch first. With one micro-batch its forward serves for
 * both; with more of them they all go forward once without a backward, with the same dropout. */
static fb3_status forward_all(fb3_trainer *trainer, double *sums, bool *stopped)
{
    for (int micro = 0; micro < trainer->split.accumulation; micro++) {
        bool empty;
        FB3_TRY(stop_wanted_anywhere(trainer, stopped));
        if (*stopped) return FB3_OK;
        FB3_TRY(forward(trainer, &empty));
        if (!empty) FB3_TRY(add_loss(trainer, micro));
    }
    return reduce_sums_on_device(trainer, sums);
}

static fb3_status backward(fb3_trainer *trainer, int64_t samples, bool last)
{
    const fb3_config *config = trainer->config;
    const fb3_model_hooks hooks = {
        .context = trainer, .grads_ready = last ? post_all_reduce : NULL, .poll = last ? move_communication_on : NULL};
    return fb3_deberta_backward(trainer->replica->model, config->loss_type, (float)config->smooth_l1_beta, samples,
                                &hooks);
}

/* The gradient of a leaf is made alone. */
static fb3_status backward_of_leaf(fb3_trainer *trainer, int64_t samples)
{
    FB3_TRY(fb3_optimizer_zero_grad(trainer->optimizer));
    FB3_TRY(backward(trainer, samples, false));
    return fb3_leaves_add_gradient(trainer);
}

/* Leaves the gradient of the whole global batch, on every rank, in the arena; `sums` are the host's, where it has them
 * already. */
static fb3_status accumulate_gradient(fb3_trainer *trainer, int64_t samples, double *sums, bool *stopped)
{
    const int micro_batches = trainer->split.accumulation;
    const bool leaves = trainer->split.leaves > 0;
    const bool whole_batch_first = trainer->config->loss_type == FB3_LOSS_MCRMSE;
    const bool twice = whole_batch_first && micro_batches > 1;
    FB3_TRY(leaves ? fb3_leaves_begin(trainer) : fb3_optimizer_zero_grad(trainer->optimizer));
    FB3_TRY(fb3_deberta_loss_begin(trainer->replica->model));
    if (twice) FB3_TRY(forward_all(trainer, sums, stopped));
    for (int micro = 0; micro < micro_batches && !*stopped; micro++) {
        bool empty;
        FB3_TRY(stop_wanted_anywhere(trainer, stopped));
        if (*stopped) return FB3_OK;
        FB3_TRY(forward(trainer, &empty));
        if (!twice && !empty) FB3_TRY(add_loss(trainer, micro));
        if (whole_batch_first && !twice) FB3_TRY(reduce_sums_on_device(trainer, sums));
        if (empty) continue;
        FB3_TRY(leaves ? backward_of_leaf(trainer, samples) : backward(trainer, samples, micro + 1 == micro_batches));
    }
    if (*stopped) return FB3_OK;
    return leaves ? fb3_leaves_reduce_gradient(trainer)
                  : trainer->reducer->ops->wait(trainer->reducer, trainer->step + 1);
}

fb3_status fb3_train_step(fb3_trainer *trainer, fb3_step_result *result)
{
    const fb3_step_plan *plan = fb3_feed_plan(trainer->feed);
    double sums[FB3_LOSS_SUMS(FB3_MAX_TARGETS)] = {0};
    *result = (fb3_step_result){.samples = plan->samples, .tokens = plan->tokens};
    trainer->session->backend->step = trainer->step + 1;

    FB3_TRY(accumulate_gradient(trainer, plan->samples, sums, &result->stopped));
    if (result->stopped) return FB3_OK;

    result->learning_rate = trainer->config->learning_rate * fb3_schedule_factor(&trainer->schedule, trainer->step);
    FB3_TRY(fb3_optimizer_step(trainer->optimizer, result->learning_rate, trainer->updates + 1));
    if (trainer->split.leaves == 0) FB3_TRY(fb3_deberta_loss_fetch(trainer->replica->model, sums));
    FB3_TRY(wait_for_device(trainer));
    if (trainer->config->loss_type != FB3_LOSS_MCRMSE) FB3_TRY(reduce_sums(trainer, sums));
    FB3_TRY(fb3_optimizer_outcome(trainer->optimizer, &result->grad_norm));
    result->loss = fb3_loss_value(trainer->config->loss_type, sums, plan->samples, trainer->targets);
    result->skipped = !isfinite(result->grad_norm);
    if (!result->skipped) trainer->updates++;
    trainer->step++;
    fb3_feed_advance(trainer->feed);
    return FB3_OK;
}
