/* Which micro-batches this rank computes, step after step.
 *
 * A global batch is dealt to the ranks, and a rank's share to its micro-batches, by the same rule: counts as even as
 * can be, then costs (sampler.h). In a run that is reproducible it is first cut by position into leaves, and whole
 * leaves are dealt: what is in a leaf does not depend on the ranks. Everything follows from (data_seed, fold, step), so
 * every rank knows the whole plan and nothing is sent. While a micro-batch is computed the I/O worker reads the next
 * one. */
#include "fb3/train.h"

#include <stdlib.h>
#include <string.h>

struct fb3_feed {
    fb3_session *session;
    const fb3_sampler *sampler;
    const fb3_dataset *dataset;
    fb3_prefetch *prefetch;
    fb3_split split;
    int hidden, visits;
    int64_t total_steps;
    fb3_step_plan plan[2]; /* the step that is computed, and the one after it */
    int current;
    int submitted, taken; /* micro-batches of the current step, over all visits */
    double *cost;         /* [global_batch, or leaves where they are more] */
    int32_t *owner;       /* the same */
};

static fb3_status plan_alloc(fb3_step_plan *plan, int64_t global_batch, int accumulation)
{
    plan->rows = calloc((size_t)global_batch, sizeof *plan->rows);
    plan->my_rows = calloc((size_t)global_batch, sizeof *plan->my_rows);
    plan->micro_start = calloc((size_t)accumulation + 1, sizeof *plan->micro_start);
    plan->leaf = calloc((size_t)accumulation, sizeof *plan->leaf);
    FB3_REQUIRE(plan->rows && plan->my_rows && plan->micro_start && plan->leaf, FB3_FAILED,
                "out of memory for a global batch of %lld", (long long)global_batch);
    return FB3_OK;
}

static void plan_free(fb3_step_plan *plan)
{
    free(plan->rows);
    free(plan->my_rows);
    free(plan->micro_start);
    free(plan->leaf);
}

static void measure_costs(fb3_feed *feed, const int64_t *rows, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        feed->cost[i] = fb3_sample_cost(fb3_dataset_length(feed->dataset, rows[i]), feed->hidden);
    }
}

/* Puts the rows that belong to `bin` at out[0..], in their order; returns how many. */
static int collect(const int64_t *rows, const int32_t *owner, int64_t count, int bin, int64_t *out)
{
    int taken = 0;
    for (int64_t i = 0; i < count; i++) {
        if (owner[i] == bin) out[taken++] = rows[i];
    }
    return taken;
}

/* Samples to ranks, then this rank's to its micro-batches. */
static fb3_status deal_samples(fb3_feed *feed, fb3_step_plan *plan)
{
    measure_costs(feed, plan->rows, plan->samples);
    FB3_TRY(fb3_deal_ranks(feed->cost, plan->samples, feed->session->size, feed->owner));
    int64_t *mine = malloc((size_t)feed->sampler->global_batch * sizeof *mine);
    FB3_REQUIRE(mine, FB3_FAILED, "out of memory for a global batch");
    int count = collect(plan->rows, feed->owner, plan->samples, feed->session->rank, mine);

    measure_costs(feed, mine, count);
    fb3_status status = fb3_deal_ranks(feed->cost, count, feed->split.accumulation, feed->owner);
    plan->micro_start[0] = 0;
    for (int k = 0; status == FB3_OK && k < feed->split.accumulation; k++) {
        int at = plan->micro_start[k];
        plan->leaf[k] = -1;
        plan->micro_start[k + 1] = at + collect(mine, feed->owner, count, k, plan->my_rows + at);
    }
    free(mine);
    return status;
}

/* Whole leaves to ranks; leaf l is samples n l / leaves .. n (l + 1) / leaves - 1 of the global batch. */
static fb3_status deal_leaves(fb3_feed *feed, fb3_step_plan *plan)
{
    const int64_t n = plan->samples, leaves = feed->split.leaves;
    for (int64_t l = 0; l < leaves; l++) {
        feed->cost[l] = 0;
        for (int64_t i = n * l / leaves; i < n * (l + 1) / leaves; i++)
            feed->cost[l] += fb3_sample_cost(fb3_dataset_length(feed->dataset, plan->rows[i]), feed->hidden);
    }
    FB3_TRY(fb3_deal_ranks(feed->cost, leaves, feed->session->size, feed->owner));
    int micro = 0, taken = 0;
    for (int64_t l = 0; l < leaves; l++) {
        if (feed->owner[l] != feed->session->rank) continue;
        plan->leaf[micro] = (int)l;
        plan->micro_start[micro++] = taken;
        for (int64_t i = n * l / leaves; i < n * (l + 1) / leaves; i++) plan->my_rows[taken++] = plan->rows[i];
    }
    for (; micro < feed->split.accumulation; micro++) { /* other ranks have one more */
        plan->leaf[micro] = -1;
        plan->micro_start[micro] = taken;
    }
    plan->micro_start[micro] = taken;
    return FB3_OK;
}

static fb3_status plan_step(fb3_feed *feed, fb3_step_plan *plan, int64_t step)
{
    int64_t steps_per_epoch = fb3_sampler_steps_per_epoch(feed->sampler);
    plan->step = step;
    plan->epoch = step / steps_per_epoch;
    plan->tokens = 0;
    FB3_TRY(fb3_sampler_batch(feed->sampler, plan->epoch, step % steps_per_epoch, plan->rows, &plan->samples));
    for (int64_t i = 0; i < plan->samples; i++) plan->tokens += fb3_dataset_length(feed->dataset, plan->rows[i]);

    return feed->split.leaves > 0 ? deal_leaves(feed, plan) : deal_samples(feed, plan);
}

/* Asks for the micro-batch after the one asked for last: of this step, or the first of the next. */
static fb3_status submit_next(fb3_feed *feed)
{
    const fb3_step_plan *plan = &feed->plan[feed->current];
    int micro = feed->submitted % feed->split.accumulation;
    if (feed->submitted == feed->split.accumulation * feed->visits) {
        fb3_step_plan *next = &feed->plan[1 - feed->current];
        if (plan->step + 1 >= feed->total_steps) return FB3_OK;
        FB3_TRY(plan_step(feed, next, plan->step + 1));
        plan = next;
        micro = 0;
    }
    feed->submitted++;
    int first = plan->micro_start[micro];
    return fb3_prefetch_submit(feed->prefetch, plan->my_rows + first, plan->micro_start[micro + 1] - first);
}

fb3_status fb3_feed_open(fb3_feed **feed, fb3_session *session, const fb3_sampler *sampler, const fb3_dataset *dataset,
                         const fb3_vocabulary *vocabulary, int hidden, fb3_split split, int visits, int max_tokens,
                         int max_sequences, int64_t first_step, int64_t total_steps)
{
    fb3_status status = FB3_OK;
    fb3_feed *f = calloc(1, sizeof *f);
    FB3_REQUIRE(f, FB3_FAILED, "out of memory for the feed");
    *f = (fb3_feed){.session = session,
                    .sampler = sampler,
                    .dataset = dataset,
                    .hidden = hidden,
                    .split = split,
                    .visits = visits,
                    .total_steps = total_steps};
    const int64_t most = sampler->global_batch > split.leaves ? sampler->global_batch : split.leaves;
    f->cost = calloc((size_t)most, sizeof *f->cost);
    f->owner = calloc((size_t)most, sizeof *f->owner);
    FB3_REQUIRE_GOTO(f->cost && f->owner, failed, FB3_FAILED, "out of memory for the feed");
    for (int i = 0; i < 2; i++)
        FB3_TRY_GOTO(plan_alloc(&f->plan[i], sampler->global_batch, split.accumulation), failed);
    FB3_TRY_GOTO(fb3_prefetch_open(&f->prefetch, session->io, dataset, vocabulary, max_tokens, max_sequences), failed);
    if (first_step < total_steps) {
        FB3_TRY_GOTO(plan_step(f, &f->plan[0], first_step), failed);
        FB3_TRY_GOTO(submit_next(f), failed);
    }
    *feed = f;
    return FB3_OK;
failed:
    fb3_feed_close(f);
    return status;
}

void fb3_feed_close(fb3_feed *feed)
{
    if (!feed) return;
    fb3_prefetch_close(feed->prefetch);
    for (int i = 0; i < 2; i++) plan_free(&feed->plan[i]);
    free(feed->cost);
    free(feed->owner);
    free(feed);
}

const fb3_step_plan *fb3_feed_plan(const fb3_feed *feed)
{
    return &feed->plan[feed->current];
}

fb3_status fb3_feed_next(fb3_feed *feed, const fb3_batch **batch)
{
    FB3_TRY(fb3_prefetch_take(feed->prefetch, batch));
    feed->taken++;
    return submit_next(feed);
}

void fb3_feed_advance(fb3_feed *feed)
{
    feed->submitted -= feed->taken; /* the first micro-batch of the next step is on its way already */
    feed->taken = 0;
    feed->current = 1 - feed->current;
}
