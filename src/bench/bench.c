/* fb3-dist bench: training steps on a made-up batch, with each step beside the products that limit it, because clocks
 * change from second to second; one more step taken apart; and what a step does not show: the all-reduce alone, files.
 */
#include "fb3/bench.h"
#include "fb3/file.h"
#include "fb3/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { USUAL_STEPS = 5, MOST_STEPS = 1000 };

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts x. */
static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static fb3_status choose_model(const fb3_config *config, fb3_model_config *model, const char **name)
{
    *name = config->model_preset ? config->model_preset : "deberta-v3-base";
    return fb3_model_config_preset(model, *name, 128100);
}

/* The forward products of a layer; the backward ones have the same sizes. */
static void choose_products(fb3_bench_result *r, const fb3_model_config *model, int tokens)
{
    int C = model->hidden, F = model->intermediate;
    r->product[0] = (fb3_bench_product){.name = "query, key, value", .M = tokens, .N = 3 * C, .K = C};
    r->product[1] = (fb3_bench_product){.name = "attention output", .M = tokens, .N = C, .K = C};
    r->product[2] = (fb3_bench_product){.name = "feed-forward in", .M = tokens, .N = F, .K = C};
    r->product[3] = (fb3_bench_product){.name = "feed-forward out", .M = tokens, .N = C, .K = F};
}

/* The library's rate over all shapes, once; each shape's best is kept. */
static fb3_status measure_limit(fb3_bench_result *r, fb3_backend *be, double *rate)
{
    double flops = 0, seconds = 0;
    for (int p = 0; p < FB3_BENCH_PRODUCTS; p++) {
        fb3_bench_product *product = &r->product[p];
        double took, work = 2.0 * product->M * product->N * (double)product->K;
        FB3_TRY(be->ops->library_product(be, product->M, product->N, product->K, &took));
        product->flops_per_second = fmax(product->flops_per_second, work / took);
        flops += work;
        seconds += took;
    }
    *rate = flops / seconds;
    return FB3_OK;
}

static fb3_status measure_steps(fb3_bench_result *r, fb3_trial *trial, int steps)
{
    fb3_backend *be = trial->session->backend;
    double seconds[MOST_STEPS], limit[MOST_STEPS + 1], share[MOST_STEPS], waited;
    FB3_TRY(fb3_trial_step(trial, &seconds[0])); /* touches the memory for the first time */
    FB3_TRY(measure_limit(r, be, &limit[0]));
    waited = trial->reducer->wait_seconds;
    for (int s = 0; s < steps; s++) {
        FB3_TRY(fb3_trial_step(trial, &seconds[s]));
        FB3_TRY(measure_limit(r, be, &limit[s + 1]));
        share[s] = r->step_flops / seconds[s] / (0.5 * (limit[s] + limit[s + 1]));
    }
    r->exposed_seconds = (trial->reducer->wait_seconds - waited) / steps;
    r->step_seconds = median(seconds, steps);
    r->product_rate = median(limit, steps + 1);
    r->utilisation = median(share, steps);
    return FB3_OK;
}

static fb3_status take_apart(fb3_bench_result *r, fb3_trial *trial, fb3_breakdown *breakdown)
{
    fb3_backend *be = trial->session->backend;
    FB3_TRY(fb3_breakdown_begin(breakdown, be));
    fb3_status status = fb3_trial_step(trial, &r->breakdown_seconds);
    fb3_breakdown_end(breakdown, be);
    return status;
}

/* Bytes as every rank sees them: each is sent and received once by the usual algorithms. */
static fb3_status measure_all_reduce(fb3_bench_result *r, fb3_trial *trial)
{
    fb3_reducer *reducer = trial->reducer;
    if (r->ranks == 1) return FB3_OK;
    FB3_TRY(fb3_comm_barrier(trial->session->comm, "all-reduce alone"));
    double started = fb3_seconds();
    FB3_TRY(reducer->ops->start(reducer, trial->replica.arenas.grad, trial->table->size));
    FB3_TRY(reducer->ops->wait(reducer, 0));
    FB3_TRY(trial->session->backend->ops->sync(trial->session->backend));
    r->all_reduce_seconds = fb3_seconds() - started;
    r->all_reduce_bytes = 2.0 * (r->ranks - 1) / r->ranks * (double)trial->table->size * sizeof(float);
    return FB3_OK;
}

/* Weights to a file in the current folder and back, by the root. */
static fb3_status measure_files(fb3_bench_result *r, fb3_trial *trial)
{
    static char nothing[] = "";
    const fb3_param_table *table = trial->table;
    fb3_status status = FB3_OK;
    fb3_weights weights = {0};
    fb3_checkpoint *checkpoint = NULL;
    fb3_checkpoint_state state = {.best_metric = NAN, .max_length = 512, .config = nothing, .label_columns = nothing};
    double bytes = 4.0 * (double)table->full_parameters, started;
    char *path = fb3_format("fb3-bench-%ld.h5", (long)getpid());
    FB3_REQUIRE_GOTO(path, done, FB3_FAILED, "out of memory");
    FB3_TRY_GOTO(fb3_weights_alloc(&weights, table), done);
    memset(weights.word_full, 0, (size_t)table->model.vocab * (size_t)table->model.hidden * sizeof(float));
    memset(weights.arena, 0, (size_t)table->size * sizeof(float));
    started = fb3_seconds();
    const fb3_checkpoint_content content = {
        .table = table, .weights = weights, .spm = nothing, .spm_bytes = 1, .state = &state};
    FB3_TRY_GOTO(fb3_checkpoint_write(path, NULL, &content, NULL), done);
    r->write_rate = bytes / (fb3_seconds() - started);
    started = fb3_seconds();
    FB3_TRY_GOTO(fb3_checkpoint_open(&checkpoint, path), done);
    FB3_TRY_GOTO(fb3_checkpoint_read_weights(checkpoint, table, &weights), done);
    r->read_rate = bytes / (fb3_seconds() - started);
done:
    fb3_checkpoint_close(checkpoint);
    if (path) fb3_checkpoint_remove(path);
    fb3_weights_free(&weights);
    free(path);
    return status;
}

static fb3_status measure(fb3_bench_result *r, fb3_trial *trial, fb3_breakdown *breakdown)
{
    const fb3_config *config = trial->session->config;
    int64_t steps = config->max_steps > 0 ? config->max_steps : USUAL_STEPS;
    FB3_REQUIRE(steps <= MOST_STEPS, FB3_INPUT, "max_steps: bench takes at most %d", MOST_STEPS);
    r->tokens = trial->batch->T;
    r->step_flops = fb3_step_flops(&trial->table->model, trial->batch->seq_start, trial->batch->B);
    choose_products(r, &trial->table->model, trial->batch->T);
    FB3_TRY(trial->session->backend->ops->memory_rate(trial->session->backend, &r->memory_rate));
    FB3_TRY(measure_steps(r, trial, (int)steps));
    FB3_TRY(take_apart(r, trial, breakdown));
    FB3_TRY(measure_all_reduce(r, trial));
    r->peak_memory_mb = fb3_peak_memory_mb();
    fb3_status mine = trial->session->root ? measure_files(r, trial) : FB3_OK;
    return fb3_comm_agree(trial->session->comm, mine, "measuring files");
}

fb3_status fb3_bench(fb3_session *session)
{
    const fb3_config *config = session->config;
    fb3_model_config model;
    fb3_breakdown breakdown;
    fb3_bench_result result = {
        .ranks = session->size, .sequences = (int)config->per_device_train_batch_size, .breakdown = &breakdown};
    fb3_trial trial;
    char device[128];
    if (config->json) session->config->quiet = true; /* nothing but JSON on standard output */
    FB3_TRY(choose_model(config, &model, &result.model));
    FB3_TRY(fb3_session_open_backend(session));
    fb3_session_print_ranks(session, NULL, NULL);
    fb3_backend_describe(session->backend, device, sizeof device);
    result.device = device;
    FB3_TRY(fb3_trial_open(&trial, session, &model, result.sequences, (int)config->max_length));
    fb3_status status = measure(&result, &trial, &breakdown);
    fb3_trial_close(&trial);
    FB3_TRY(status);
    return fb3_comm_agree(session->comm, session->root ? fb3_bench_print(&result, config->json) : FB3_OK, "printing");
}
