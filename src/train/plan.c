/* --dry_run: what a run would do, before it does it. */
#include "fb3/train.h"

#include <stdio.h>
#include <stdlib.h>

/* Time of a training step per token: 3 products (forward, input gradient, weight gradient) of 2 flops per weight. */
#define FLOPS_PER_WEIGHT_AND_TOKEN 6.0
/* The share of the measured product rate that a whole step reaches, roughly; the estimate is rounded anyway. */
#define STEP_EFFICIENCY 0.6

static double gigabytes(double bytes)
{
    return bytes / (1024.0 * 1024.0 * 1024.0);
}

/* Rate of one linear layer's forward product at the model's shape, in flop/s. */
static fb3_status measure_product_rate(const fb3_run *run, double *rate)
{
    enum { TOKENS = 512, TIMES = 4 };
    fb3_backend *be = run->session->backend;
    int C = run->model.hidden, F = run->model.intermediate;
    void *x = NULL, *w = NULL, *y = NULL;
    fb3_status status = FB3_OK;
    size_t size = fb3_dtype_size(be->act);
    FB3_TRY_GOTO(be->ops->alloc(be, &x, (size_t)TOKENS * (size_t)C * size), done);
    FB3_TRY_GOTO(be->ops->alloc(be, &w, (size_t)F * (size_t)C * size), done);
    FB3_TRY_GOTO(be->ops->alloc(be, &y, (size_t)TOKENS * (size_t)F * size), done);
    FB3_TRY_GOTO(be->ops->zero(be, x, (size_t)TOKENS * (size_t)C * size), done);
    FB3_TRY_GOTO(be->ops->zero(be, w, (size_t)F * (size_t)C * size), done);
    double started = 0;
    for (int i = 0; i <= TIMES; i++) {
        if (i == 1) started = fb3_seconds(); /* the first one warms up */
        FB3_TRY_GOTO(be->ops->linear_fwd(be, y, x, w, NULL, TOKENS, C, F), done);
        FB3_TRY_GOTO(be->ops->sync(be), done);
    }
    *rate = 2.0 * TIMES * TOKENS * C * (double)F / (fb3_seconds() - started);
done:
    be->ops->free(be, x);
    be->ops->free(be, w);
    be->ops->free(be, y);
    return status;
}

static fb3_status print_memory(const fb3_run *run)
{
    const fb3_param_table *table = run->table;
    fb3_limits limits = {.T = run->micro_sequences * run->longest, .B = run->micro_sequences, .max_len = run->longest};
    double arenas = 4.0 * (double)table->size * sizeof(float);
    double words = (double)run->model.vocab * run->model.hidden * sizeof(float);
    double activations =
        (double)fb3_deberta_memory(table, &limits, run->session->backend->act, fb3_training_mode(run->config));
    printf("memory per rank     %.2f GB: parameters, gradients and moments %.2f, activations at most %.2f; the writer "
           "holds "
           "the whole word table too: %.2f\n",
           gigabytes(arenas + activations), gigabytes(arenas), gigabytes(activations), gigabytes(words));
    double weights = 4.0 * (double)table->full_parameters;
    double moments = 2.0 * (double)table->parameters * sizeof(float);
    printf("disk per fold       %.2f GB while it trains (best.h5, last.h5, previous.h5), %.2f GB when it is complete\n",
           gigabytes(3 * weights + 2 * moments), gigabytes(2 * weights));
    return FB3_OK;
}

static fb3_status print_time(fb3_run *run, double steps, double samples)
{
    double rate = 0;
    FB3_TRY(measure_product_rate(run, &rate));
    const fb3_param_table *table = run->table;
    double weights = (double)table->parameters - (double)run->vocabulary.count * run->model.hidden;
    double tokens = samples * (double)run->data->offsets[run->data->n] / (double)run->data->n;
    double seconds = tokens * weights * FLOPS_PER_WEIGHT_AND_TOKEN / (rate * STEP_EFFICIENCY * run->session->size);
    printf("time                about %.2g hours for %.0f steps, from a measured %.0f GFLOP/s per rank in matrix "
           "products\n",
           seconds / 3600, steps, rate * 1e-9);
    return FB3_OK;
}

static fb3_status print_plan(fb3_run *run)
{
    const fb3_config *config = run->config;
    double steps = 0, samples = 0;
    char *text = fb3_config_text(config);
    FB3_REQUIRE(text, FB3_FAILED, "out of memory");
    printf("%s\n", text);
    free(text);
    printf("samples             %lld, %lld tokens, %d different ones\n", (long long)run->data->n,
           (long long)run->data->offsets[run->data->n], run->vocabulary.count);
    printf("parameters          %lld\n", (long long)run->table->full_parameters);
    printf("global batch        %lld: %d rank(s), %d micro-batch(es) of at most %d\n",
           (long long)config->total_train_batch_size, run->session->size, run->accumulation, run->micro_sequences);
    for (int fold = 0; fold < run->folds; fold++) {
        int64_t train = 0;
        if (!run->selected[fold]) continue;
        for (int64_t i = 0; i < run->data->n; i++) train += run->folds == 1 || run->fold[i] != fold;
        if (config->max_train_samples != FB3_UNSET_INT && train > config->max_train_samples) {
            train = config->max_train_samples;
        }
        int64_t fold_steps = fb3_run_total_steps(run, train);
        printf("fold %-3d            %lld samples to train on, %lld steps\n", fold, (long long)train,
               (long long)fold_steps);
        steps += (double)fold_steps;
        samples += (double)fold_steps * (double)config->total_train_batch_size;
    }
    FB3_TRY(print_memory(run));
    return print_time(run, steps, samples);
}

fb3_status fb3_run_print_plan(fb3_run *run)
{
    fb3_status mine = run->session->root ? print_plan(run) : FB3_OK;
    fflush(stdout);
    return fb3_comm_agree(run->session->comm, mine, "dry run");
}
