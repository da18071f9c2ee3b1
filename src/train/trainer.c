/* A fold, from its starting weights (or its last checkpoint) to best.h5, last.h5 and oof.csv. */
#include "fold_run.h"

#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/run_directory.h"
#include "fb3/trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- preparing ---------------------------------------------------------------------------------------------------- */

static fb3_status open_writer(fb3_fold_run *f)
{
    const fb3_run *run = f->run;
    fb3_fold_writer *w = &f->writer;
    char *folder = fb3_fold_path(run->config->output_dir, f->fold, NULL);
    FB3_REQUIRE(folder, FB3_FAILED, "out of memory");
    fb3_track_place place = {
        .config = run->config, .directory = folder, .fold = f->fold, .folds = run->folds, .resume_step = f->state.step};
    fb3_status status = fb3_folder_make(folder);
    if (status == FB3_OK) status = fb3_track_open(&w->track, &place);
    free(folder);
    return status;
}

static fb3_status record_start(fb3_fold_run *f)
{
    const fb3_run *run = f->run;
    const fb3_replica *replica = &f->replica;
    const fb3_limits limits = {.T = replica->max_tokens, .B = replica->max_sequences, .max_len = run->longest};
    char device[128], *versions = fb3_versions_json(), *config = fb3_config_text(run->config);
    fb3_backend_describe(run->session->backend, device, sizeof device);
    fb3_run_record record = {.config_text = config,
                             .fold = f->fold,
                             .folds = run->folds,
                             .world_size = fb3_comm_size(run->session->world),
                             .group_size = run->session->size,
                             .device = device,
                             .parameters = run->table->full_parameters,
                             .active_vocabulary = run->vocabulary.count,
                             .total_steps = f->total_steps,
                             .train_samples = f->rows.train_count,
                             .eval_samples = f->rows.eval_count,
                             .memory =
                                 fb3_replica_memory(run->session, run->table, &limits, fb3_training_mode(run->config)),
                             .versions = versions};
    fb3_status status =
        versions && config ? fb3_track_config(&f->writer.track, &record) : fb3_fail(FB3_FAILED, "out of memory");
    free(versions);
    free(config);
    return status;
}

/* What a checkpoint says about this run, before any progress. */
static fb3_status begin_state(fb3_fold_run *f)
{
    const fb3_run *run = f->run;
    const fb3_config *config = run->config;
    fb3_checkpoint_state *state = &f->state;
    *state = (fb3_checkpoint_state){.seed = config->seed,
                                    .total_steps = f->total_steps,
                                    .total_train_batch_size = config->total_train_batch_size,
                                    .fold = f->fold,
                                    .best_metric = NAN,
                                    .max_length = (int)config->max_length};
    memcpy(state->data_sha256, run->data->source_sha256, FB3_SHA256_HEX);
    memcpy(state->weights_sha256, run->weights_sha256, FB3_SHA256_HEX);
    memcpy(state->tokenizer_sha256, run->data->tokenizer_sha256, FB3_SHA256_HEX);
    state->label_columns = fb3_labels_json(&config->label_columns);
    state->config = fb3_config_text(config);
    FB3_REQUIRE(state->label_columns && state->config, FB3_FAILED, "out of memory");
    return FB3_OK;
}

static fb3_status choose_rows(fb3_fold_run *f)
{
    fb3_run *run = f->run;
    FB3_TRY(fb3_run_fold_rows(run, f->fold, &f->rows));
    f->eval_data = run->validation ? run->validation : run->data;
    return FB3_OK;
}

static void plan_steps(fb3_fold_run *f)
{
    const fb3_config *config = f->run->config;
    int64_t data_seed = config->data_seed == FB3_UNSET_INT ? config->seed : config->data_seed;
    f->sampler = (fb3_sampler){.train_rows = f->rows.train,
                               .n = f->rows.train_count,
                               .offsets = f->run->data->offsets,
                               .global_batch = config->total_train_batch_size,
                               .group_by_length = config->group_by_length,
                               .key = fb3_rng_key_make((uint64_t)data_seed, f->fold)};
    f->steps_per_epoch = fb3_sampler_steps_per_epoch(&f->sampler);
    f->total_steps = fb3_run_total_steps(f->run, f->rows.train_count);
    double eval_steps = isnan(config->eval_steps) ? (double)config->logging_steps : config->eval_steps;
    f->eval_steps = fb3_config_steps(eval_steps, f->total_steps);
    f->save_steps = isnan(config->save_steps) ? f->eval_steps : fb3_config_steps(config->save_steps, f->total_steps);
}

static fb3_status open_trainer(fb3_fold_run *f)
{
    fb3_run *run = f->run;
    const fb3_config *config = run->config;
    fb3_trainer *trainer = &f->trainer;
    int train_tokens = run->micro_sequences * run->longest;
    if (config->reproducible && run->micro_sequences < config->per_device_eval_batch_size)
        train_tokens = (int)config->per_device_eval_batch_size * run->longest; /* evaluation takes whole batches */
    int sequences = run->micro_sequences > (int)config->per_device_eval_batch_size
                        ? run->micro_sequences
                        : (int)config->per_device_eval_batch_size;
    *trainer = (fb3_trainer){.session = run->session,
                             .replica = &f->replica,
                             .config = config,
                             .dropout = {.hidden = (float)config->hidden_dropout_prob,
                                         .attention = (float)config->attention_probs_dropout_prob,
                                         .head = (float)config->head_dropout},
                             .dropout_key = fb3_rng_key_make((uint64_t)config->seed, f->fold),
                             .targets = run->data->targets,
                             .split = run->split};
    if (run->split.leaves > 0) {
        trainer->leaf_sums = calloc((size_t)run->split.leaves * FB3_LOSS_SUMS(trainer->targets), sizeof(double));
        FB3_REQUIRE(trainer->leaf_sums, FB3_FAILED, "out of memory for the sums of the leaves");
    }
    FB3_TRY(fb3_schedule_make(&trainer->schedule, config, f->total_steps));
    FB3_TRY(fb3_replica_open(&f->replica, run->session, run->table, train_tokens, sequences, run->longest,
                             fb3_training_mode(config)));
    FB3_TRY(fb3_optimizer_create(&trainer->optimizer, run->session->backend, run->table, &f->replica.arenas, config));
    return fb3_session_reducer(run->session, &trainer->reducer);
}

static fb3_status open_feed(fb3_fold_run *f)
{
    const fb3_run *run = f->run;
    int visits = run->config->loss_type == FB3_LOSS_MCRMSE && run->split.accumulation > 1 ? 2 : 1;
    return fb3_feed_open(&f->trainer.feed, run->session, &f->sampler, run->data, &run->vocabulary, run->model.hidden,
                         run->split, visits, f->replica.max_tokens, f->replica.max_sequences, f->state.step,
                         f->total_steps);
}

/* --- the loop ----------------------------------------------------------------------------------------------------- */

static double epoch_of(const fb3_fold_run *f)
{
    return (double)f->trainer.step / (double)f->steps_per_epoch;
}

static bool at_end(const fb3_fold_run *f)
{
    return f->trainer.step >= f->total_steps || f->stop_early;
}

/* An epoch's end; the end of training counts as one. */
static bool at_epoch_end(const fb3_fold_run *f)
{
    return f->trainer.step % f->steps_per_epoch == 0 || f->trainer.step >= f->total_steps;
}

static bool strategy_due(const fb3_fold_run *f, fb3_strategy strategy, int64_t every)
{
    if (strategy == FB3_STRATEGY_EPOCH) return at_epoch_end(f);
    return strategy == FB3_STRATEGY_STEPS && (f->trainer.step % every == 0 || f->trainer.step >= f->total_steps);
}

static bool eval_due(const fb3_fold_run *f)
{
    const fb3_config *config = f->run->config;
    double position = config->eval_strategy == FB3_STRATEGY_EPOCH ? epoch_of(f) : (double)f->trainer.step;
    return f->rows.eval_count > 0 && strategy_due(f, config->eval_strategy, f->eval_steps) &&
           (position >= config->eval_delay || at_end(f));
}

/* The ids of a global batch, read by the I/O worker, which owns HDF5. */
typedef struct id_request {
    const fb3_dataset *data;
    const fb3_step_plan *plan;
    fb3_strings ids;
} id_request;

static fb3_status read_sample_ids(void *context)
{
    id_request *request = context;
    return fb3_dataset_read_ids(request->data, request->plan->rows, request->plan->samples, &request->ids);
}

static fb3_status log_step(fb3_fold_run *f, const fb3_step_plan *plan, const fb3_step_result *result, double seconds)
{
    fb3_fold_writer *w = &f->writer;
    id_request samples = {.data = f->run->data, .plan = plan};
    const bool logged = f->trainer.step % f->run->config->logging_steps == 0 || at_end(f);
    const bool ids = logged && f->run->config->log_samples;
    fb3_step_record record = {.fold = f->fold,
                              .step = f->trainer.step,
                              .epoch = epoch_of(f),
                              .loss = result->loss,
                              .grad_norm = result->grad_norm,
                              .learning_rate = result->learning_rate,
                              .samples_per_second = (double)result->samples / seconds,
                              .tokens_per_second = (double)result->tokens / seconds,
                              .peak_memory_mb = fb3_peak_memory_mb(),
                              .skipped = result->skipped,
                              .samples = ids ? &samples.ids : NULL};
    fb3_status status = ids ? fb3_worker_run(f->run->session->io, read_sample_ids, &samples) : FB3_OK;
    if (status == FB3_OK && logged) status = fb3_track_step(&w->track, &record);
    fb3_progress_step(f->run->progress, &record);
    fb3_strings_free(&samples.ids);
    return status;
}

static fb3_status count_nonfinite(fb3_fold_run *f, const fb3_step_plan *plan, const fb3_step_result *result)
{
    int64_t limit = f->run->config->max_nonfinite_steps;
    f->state.nonfinite_in_a_row = result->skipped ? f->state.nonfinite_in_a_row + 1 : 0;
    if (result->skipped) FB3_TRY(fb3_fold_report_nonfinite(f, plan));
    FB3_REQUIRE(
        f->state.nonfinite_in_a_row <= limit, FB3_FAILED,
        "the gradient was not finite in %lld steps in a row, up to step %lld of fold %d; lower learning_rate or "
        "look at the data (--debug names the operation)",
        (long long)f->state.nonfinite_in_a_row, (long long)f->trainer.step, f->fold);
    return FB3_OK;
}

static void note_progress(fb3_fold_run *f, const fb3_step_result *result)
{
    f->state.step = f->trainer.step;
    f->state.updates = f->trainer.updates;
    f->state.samples_seen += result->samples;
    f->state.epoch = epoch_of(f);
    f->trained_samples += (double)result->samples;
    f->run->trained_samples += (double)result->samples;
}

/* The value of metric_for_best_model: eval_MCRMSE, eval_loss or eval_<TARGET>_RMSE. Lower is better. */
static fb3_status best_metric_value(const fb3_run *run, const fb3_scores *scores, double *value)
{
    const char *metric = run->config->metric_for_best_model;
    if (strncmp(metric, "eval_", 5) == 0) metric += 5;
    if (strcmp(metric, "MCRMSE") == 0) *value = scores->mcrmse;
    if (strcmp(metric, "loss") == 0) *value = scores->loss;
    if (strcmp(metric, "MCRMSE") == 0 || strcmp(metric, "loss") == 0) return FB3_OK;
    for (int y = 0; y < scores->targets; y++) {
        char name[128];
        fb3_metric_name(name, sizeof name, run->config->label_columns.item[y]);
        if (strcmp(metric, name) == 0) {
            *value = scores->rmse[y];
            return FB3_OK;
        }
    }
    return fb3_fail(FB3_INPUT, "metric_for_best_model: %s is none of eval_MCRMSE, eval_loss, eval_<TARGET>_RMSE",
                    run->config->metric_for_best_model);
}

static fb3_status evaluate(fb3_fold_run *f)
{
    fb3_run *run = f->run;
    fb3_scores scores;
    double value = NAN, started = fb3_seconds(), begin = fb3_trace_begin();
    fb3_progress_phase(run->progress, FB3_PHASE_EVALUATING);
    FB3_TRY(fb3_fold_evaluate(f, &scores));
    double seconds = fb3_seconds() - started;
    fb3_trace_end(begin, "train", "evaluate", "samples", (double)f->rows.eval_count);
    FB3_TRY(best_metric_value(run, &scores, &value));
    FB3_REQUIRE(isfinite(value), FB3_FAILED, "the evaluation of fold %d at step %lld gave %s = %g; lower learning_rate",
                f->fold, (long long)f->trainer.step, run->config->metric_for_best_model, value);
    bool best = isnan(f->state.best_metric) || value < f->state.best_metric;
    f->state.patience_used = best ? 0 : f->state.patience_used + 1;
    if (best) {
        f->state.best_metric = value;
        f->state.best_step = f->trainer.step;
    }
    if (run->config->early_stopping_patience != FB3_UNSET_INT) {
        f->stop_early = f->state.patience_used >= run->config->early_stopping_patience;
    }
    fb3_status mine = FB3_OK;
    if (f->is_writer) {
        fb3_eval_record record = {.fold = f->fold,
                                  .step = f->trainer.step,
                                  .epoch = epoch_of(f),
                                  .samples_per_second = (double)f->rows.eval_count / seconds,
                                  .scores = &scores,
                                  .targets = &run->config->label_columns};
        fb3_progress_eval(run->progress, &record, value, best);
        mine = fb3_track_eval(&f->writer.track, &record);
    }
    FB3_TRY(fb3_comm_agree(run->session->comm, mine, "recording the evaluation"));
    fb3_progress_phase(run->progress, FB3_PHASE_WRITING);
    FB3_TRY(fb3_fold_keep_table(f, best)); /* the predictions of the best weights are the fold's out-of-fold rows */
    if (best) FB3_TRY(fb3_fold_save_best(f));
    fb3_progress_phase(run->progress, FB3_PHASE_TRAINING);
    fb3_run_page(run);
    return FB3_OK;
}

/* On a stop signal: the state before the dropped step is written, and the program ends to be run again - so the
 * optimizer's state is needed, whatever save_only_model says of ordinary checkpoints. */
static fb3_status stop(fb3_fold_run *f)
{
    fb3_progress_phase(f->run->progress, FB3_PHASE_WRITING);
    FB3_TRY(fb3_fold_save_last(f, true));
    FB3_TRY(fb3_fold_save_settle(f));
    return fb3_fail(FB3_STOPPED,
                    "stopped after step %lld of %lld of fold %d with a complete checkpoint; run again to go on",
                    (long long)f->state.step, (long long)f->total_steps, f->fold);
}

static fb3_status train_to_the_end(fb3_fold_run *f)
{
    const fb3_config *config = f->run->config;
    fb3_step_result result;
    while (!at_end(f)) {
        double started = fb3_seconds();
        const fb3_step_plan *plan = fb3_feed_plan(f->trainer.feed);
        double begin = fb3_trace_begin();
        FB3_TRY(fb3_train_step(&f->trainer, &result));
        fb3_trace_end(begin, "train", "step", "step", (double)f->trainer.step);
        if (result.stopped) return stop(f);
        FB3_TRY(fb3_fold_save_poll(f));
        note_progress(f, &result);
        FB3_TRY(count_nonfinite(f, plan, &result));
        if (f->is_writer) FB3_TRY(log_step(f, plan, &result, fb3_seconds() - started));
        if (eval_due(f)) FB3_TRY(evaluate(f));
        if (strategy_due(f, config->save_strategy, f->save_steps) && !at_end(f)) {
            fb3_progress_phase(f->run->progress, FB3_PHASE_WRITING);
            FB3_TRY(fb3_fold_save_last(f, !config->save_only_model));
            fb3_progress_phase(f->run->progress, FB3_PHASE_TRAINING);
        }
    }
    return FB3_OK;
}

/* --- a whole fold ------------------------------------------------------------------------------------------------- */

static fb3_status record_end(fb3_fold_run *f)
{
    double seconds = fb3_seconds() - f->started;
    fb3_end_record record = {.fold = f->fold,
                             .step = f->trainer.step,
                             .train_runtime = seconds,
                             .samples_per_second = f->trained_samples / seconds,
                             .steps_per_second = (double)f->trainer.step / seconds,
                             .best_metric = f->state.best_metric,
                             .best_model_checkpoint = "best.h5"};
    return fb3_track_end(&f->writer.track, &record);
}

/* Without an evaluation of its own a fold still gets best.h5 and its out-of-fold rows: from the last weights. */
static fb3_status finish(fb3_fold_run *f)
{
    if (f->state.best_step == 0 && f->rows.eval_count > 0) FB3_TRY(evaluate(f));
    fb3_progress_phase(f->run->progress, FB3_PHASE_WRITING);
    if (f->rows.eval_count == 0) FB3_TRY(fb3_fold_save_best(f));
    FB3_TRY(fb3_fold_save_settle(f)); /* before the record of the end: that is the last word */
    fb3_status mine = f->is_writer ? record_end(f) : FB3_OK;
    FB3_TRY(fb3_comm_agree(f->run->session->comm, mine, "recording the end of the fold"));
    fb3_fold_keep_model(f);
    return fb3_fold_save_complete(f);
}

static fb3_status prepare(fb3_fold_run *f)
{
    fb3_comm *comm = f->run->session->comm;
    FB3_TRY(choose_rows(f));
    plan_steps(f);
    FB3_TRY(begin_state(f));
    FB3_TRY(open_trainer(f));
    FB3_TRY(fb3_fold_restore(f));
    fb3_status mine = f->is_writer ? open_writer(f) : FB3_OK;
    if (mine == FB3_OK && f->is_writer) mine = record_start(f);
    FB3_TRY(fb3_comm_agree(comm, mine, "opening the fold"));
    FB3_TRY(open_feed(f)); /* from here on the I/O worker owns HDF5 */
    if (f->run->config->save_initial && f->state.step == 0) FB3_TRY(fb3_fold_save_initial(f));
    return FB3_OK;
}

static void close_fold(fb3_fold_run *f, fb3_status left)
{
    fb3_fold_writer *w = &f->writer;
    fb3_backend *be = f->run->session->backend;
    fb3_fold_save_abandon(f);
    fb3_feed_close(f->trainer.feed);
    fb3_optimizer_free(f->trainer.optimizer);
    fb3_replica_close(&f->replica);
    fb3_checkpoint_state_free(&f->state);
    fb3_track_close(&w->track, left);
    fb3_oof_discard(&w->table);
    free(w->word_full);
    for (int i = 0; i < 3; i++) be->ops->free_host(be, w->staging[i]);
    free(f->trainer.leaf_sums);
}

static void begin_progress(const fb3_fold_run *f)
{
    fb3_fold_progress from = fb3_fold_progress_none(f->fold);
    from.step = f->state.step;
    from.total_steps = f->total_steps;
    from.epoch = epoch_of(f);
    from.best_metric = f->state.best_metric;
    from.best_step = f->state.best_step;
    fb3_progress_begin(f->run->progress, &from);
}

fb3_status fb3_fold_train(fb3_run *run, int fold)
{
    fb3_status status = FB3_OK;
    fb3_fold_run f = {.run = run, .fold = fold, .is_writer = run->session->root};
    FB3_TRY_GOTO(prepare(&f), done);
    f.started = fb3_seconds();
    begin_progress(&f);
    FB3_TRY_GOTO(train_to_the_end(&f), done);
    FB3_TRY_GOTO(finish(&f), done);
done:
    fb3_progress_end(run->progress, status);
    fb3_run_page_settle(status);
    close_fold(&f, status);
    return status;
}

/* A missing or unfinished last.h5 is no error: the fold has to be trained. */
static bool complete_on_disk(const char *last)
{
    fb3_checkpoint *checkpoint = NULL;
    bool complete = fb3_file_exists(last) && fb3_checkpoint_open(&checkpoint, last) == FB3_OK &&
                    fb3_checkpoint_state_of(checkpoint)->fold_complete;
    fb3_checkpoint_close(checkpoint);
    return complete;
}

bool fb3_fold_complete(const fb3_run *run, int fold)
{
    char *last = fb3_fold_path(run->config->output_dir, fold, "last.h5");
    bool complete = last && complete_on_disk(last);
    free(last);
    return complete;
}
