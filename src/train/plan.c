/* --dry_run: what a run would do, before it does it. */
#include "fb3/train.h"

#include <stdio.h>
#include <stdlib.h>

static double gigabytes(double bytes)
{
    return bytes / (1024.0 * 1024.0 * 1024.0);
}

/* The rate at which a rank trains, in flop/s of the usual count, from a step on made-up essays. Collective. */
static fb3_status measure_rate(const fb3_run *run, double *rate)
{
    enum { TOKENS = 2048 }; /* a few essays say enough */
    fb3_trial trial;
    int sequences = TOKENS / run->longest > 1 ? TOKENS / run->longest : 1;
    if (sequences > run->micro_sequences) sequences = run->micro_sequences;
    FB3_TRY(fb3_trial_open(&trial, run->session, &run->model, sequences, run->longest));
    double seconds = 0, flops = fb3_step_flops(&run->model, trial.batch->seq_start, trial.batch->B);
    fb3_status status = fb3_trial_step(&trial, &seconds); /* warms up */
    if (status == FB3_OK) status = fb3_trial_step(&trial, &seconds);
    fb3_trial_close(&trial);
    *rate = flops / seconds;
    return status;
}

static void print_memory(const fb3_run *run)
{
    const fb3_limits limits = {
        .T = run->micro_sequences * run->longest, .B = run->micro_sequences, .max_len = run->longest};
    const fb3_memory_record memory =
        fb3_replica_memory(run->session, run->table, &limits, fb3_training_mode(run->config));
    const double arenas = memory.parameters + memory.gradients + memory.moments;
    const double activations = memory.activations + memory.workspace;
    double words = (double)run->model.vocab * run->model.hidden * sizeof(float);
    printf("memory per rank     %.2f GB: parameters, gradients and moments %.2f, activations at most %.2f; the writer "
           "holds "
           "the whole word table too: %.2f\n",
           gigabytes(arenas + activations), gigabytes(arenas), gigabytes(activations), gigabytes(words));
    const fb3_fold_disk disk = fb3_run_fold_disk(run);
    printf("disk per fold       %.2f GB at most while it trains, %.2f GB when it is complete\n",
           gigabytes(disk.training), gigabytes(disk.complete));
}

static void print_time(const fb3_run *run, double steps, double samples, double rate)
{
    const fb3_dataset *data = run->data;
    double flops = 0;
    for (int64_t row = 0; row < data->n; row++) {
        const int32_t bounds[] = {0, fb3_dataset_length(data, row)};
        flops += fb3_step_flops(&run->model, bounds, 1);
    }
    double seconds = samples * flops / (double)data->n / (rate * fb3_comm_size(run->session->world));
    printf("time                about ");
    if (seconds < 5400)
        printf("%.2g minutes", seconds / 60);
    else
        printf("%.2g hours", seconds / 3600);
    printf(" for %.0f steps, evaluation and checkpoints not counted, from a measured %.0f GFLOP/s per rank\n", steps,
           rate * 1e-9);
}

static fb3_status print_plan(fb3_run *run, double rate)
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
    printf("global batch        %lld: %d group(s) of %d rank(s), %d micro-batch(es) of at most %d\n",
           (long long)config->total_train_batch_size, run->groups, run->session->size, run->split.accumulation,
           run->micro_sequences);
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
    print_memory(run);
    print_time(run, steps, samples, rate);
    return FB3_OK;
}

fb3_status fb3_run_print_plan(fb3_run *run)
{
    double rate;
    FB3_TRY(measure_rate(run, &rate));
    fb3_status mine = run->session->first ? print_plan(run, rate) : FB3_OK;
    fflush(stdout);
    return fb3_comm_agree(run->session->world, mine, "dry run");
}
