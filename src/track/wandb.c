/* W&B without W&B: a run per fold, recorded offline, in the form that `wandb sync` uploads. The names of the values are
 * those of Hugging Face's callback, so that runs of both can be compared. No key is read and nothing is sent. */
#include "git.h"
#include "wandb.h"

#include "fb3/clock.h"
#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/scores_json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { METER_SECONDS = 10, KEY_BYTES = 160, MOST_VALUES = FB3_MAX_TARGETS + 8 };

static const char LOSS[] = "eval/loss", MCRMSE[] = "eval/MCRMSE";

/* "eval/COHESION_RMSE" */
static void target_key(char key[KEY_BYTES], const char *target)
{
    char name[KEY_BYTES - sizeof "eval/"];
    fb3_metric_name(name, sizeof name, target);
    snprintf(key, KEY_BYTES, "eval/%s", name);
}

/* --- the start of a run ------------------------------------------------------------------------------------------- */

static void set_number(json_t *config, const char *key, int64_t number)
{
    json_object_set_new(config, key, json_integer(number));
}

/* The whole configuration, and what the program has found out. */
static json_t *run_config(const fb3_wandb *w, const fb3_run_record *run)
{
    char *text = fb3_config_json(w->place.config);
    json_t *config = text ? json_loads(text, 0, NULL) : NULL, *versions = json_loads(run->versions, 0, NULL);
    free(text);
    if (config) {
        set_number(config, "fold", run->fold);
        set_number(config, "world_size", run->world_size);
        set_number(config, "ranks", run->group_size);
        set_number(config, "model/num_parameters", run->parameters);
        set_number(config, "active_vocabulary", run->active_vocabulary);
        set_number(config, "total_steps", run->total_steps);
        set_number(config, "train_samples", run->train_samples);
        set_number(config, "eval_samples", run->eval_samples);
        json_object_set_new(config, "devices", json_string(run->device));
        if (versions) json_object_set(config, "versions", versions);
    }
    json_decref(versions);
    return config;
}

static fb3_status write_metrics(fb3_wandb *w)
{
    static const char *const ERRORS[] = {LOSS, MCRMSE};
    static const char *const OTHERS[] = {"train/global_step",      "*",           "train/loss",
                                         "train/grad_norm",        "train/epoch", "train/learning_rate",
                                         "eval/samples_per_second"};
    const fb3_strings *targets = &w->place.config->label_columns;
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) FB3_TRY(fb3_wandb_write_metric(w, OTHERS[i], false));
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++) FB3_TRY(fb3_wandb_write_metric(w, ERRORS[i], true));
    for (int y = 0; y < targets->count; y++) {
        char key[KEY_BYTES];
        target_key(key, targets->item[y]);
        FB3_TRY(fb3_wandb_write_metric(w, key, true));
    }
    return FB3_OK;
}

static fb3_status write_start(fb3_wandb *w, const fb3_run_record *run, const json_t *config)
{
    static const char *const FILES[] = {"wandb-metadata.json"}; /* `wandb sync` makes the other two itself */
    char commit[FB3_COMMIT_BYTES];
    (void)fb3_git_commit(".", commit);
    FB3_TRY(fb3_wandb_write_header(w));
    FB3_TRY(fb3_wandb_write_run(w, config, commit));
    FB3_TRY(write_metrics(w));
    FB3_TRY(fb3_wandb_write_files(w, FILES, sizeof FILES / sizeof *FILES));
    if (json_object_size(w->summary) > 0) FB3_TRY(fb3_wandb_repeat_summary(w));
    FB3_TRY(fb3_wandb_write_config_file(w, config));
    FB3_TRY(fb3_wandb_write_metadata_file(w, run->device, commit));
    return fb3_wandb_write_summary_file(w);
}

/* Where no earlier part is found, _step still has to be above all that a run of so many steps can have used. */
static int64_t next_history(const fb3_wandb *w)
{
    bool lost = !w->is_new && w->past.parts == 0;
    return lost ? 2 * w->place.resume_step + 1 : w->past.history + 1;
}

static fb3_status create_log(fb3_wandb *w)
{
    char *path = fb3_format("%s/run-%s.wandb", w->directory, w->id);
    FB3_REQUIRE(path, FB3_FAILED, "out of memory for the run's record");
    fb3_status status = fb3_wandb_log_create(&w->log, path);
    free(path);
    return status;
}

static fb3_status wandb_config(fb3_tracker *tracker, const fb3_run_record *run)
{
    fb3_wandb *w = (fb3_wandb *)tracker;
    FB3_TRY(fb3_wandb_identify(w));
    FB3_TRY(fb3_wandb_recall(w));
    w->history = next_history(w);
    w->summary = json_incref(w->past.summary);
    w->began = fb3_seconds();
    w->start_time = fb3_wandb_now(); /* with its fraction: parts are put in order by it */
    FB3_TRY(fb3_sha256_memory(run->config_text, strlen(run->config_text), w->config_sha256));
    fb3_meter_open(&w->meter, strncmp(run->device, "cuda", strlen("cuda")) == 0);
    FB3_TRY(fb3_wandb_make_directory(w));
    FB3_TRY(create_log(w));
    json_t *config = run_config(w, run);
    fb3_status status = config ? write_start(w, run, config) : fb3_fail(FB3_FAILED, "out of memory");
    json_decref(config);
    if (status == FB3_OK)
        fb3_log_info("wandb: the run is recorded in %s%s", w->directory,
                     w->entity[0] ? "" : "; set wandb_entity: without it wandb sync cannot place the artifact");
    return status;
}

/* --- steps and evaluations ---------------------------------------------------------------------------------------- */

static fb3_status write_meter(fb3_wandb *w, const fb3_step_record *step)
{
    fb3_meter_value values[FB3_METER_VALUES + 2];
    int count = fb3_meter_read(&w->meter, values);
    w->metered = fb3_seconds();
    values[count++] = (fb3_meter_value){"samples_per_second", step->samples_per_second};
    values[count++] = (fb3_meter_value){"tokens_per_second", step->tokens_per_second};
    return fb3_wandb_write_stats(w, values, count);
}

static fb3_status wandb_step(fb3_tracker *tracker, const fb3_step_record *step)
{
    fb3_wandb *w = (fb3_wandb *)tracker;
    const fb3_wandb_value values[] = {{"train/loss", step->loss, false},
                                      {"train/grad_norm", step->grad_norm, false},
                                      {"train/learning_rate", step->learning_rate, false},
                                      {"train/epoch", step->epoch, false},
                                      {"train/global_step", (double)step->step, false}};
    if (step->step <= w->past.step) return FB3_OK; /* done again after a kill, with the same result */
    if (w->metered == 0 || fb3_seconds() - w->metered >= METER_SECONDS) FB3_TRY(write_meter(w, step));
    return fb3_wandb_write_history(w, values, sizeof values / sizeof *values);
}

static fb3_status wandb_eval(fb3_tracker *tracker, const fb3_eval_record *eval)
{
    fb3_wandb *w = (fb3_wandb *)tracker;
    const fb3_scores *scores = eval->scores;
    fb3_wandb_value values[MOST_VALUES];
    char keys[FB3_MAX_TARGETS][KEY_BYTES];
    int count = 0;
    if (eval->step <= w->past.eval_step) return FB3_OK;
    values[count++] = (fb3_wandb_value){LOSS, scores->loss, true};
    values[count++] = (fb3_wandb_value){MCRMSE, scores->mcrmse, true};
    for (int y = 0; y < scores->targets; y++) {
        target_key(keys[y], eval->targets->item[y]);
        values[count++] = (fb3_wandb_value){keys[y], scores->rmse[y], true};
    }
    values[count++] = (fb3_wandb_value){"eval/samples_per_second", eval->samples_per_second, false};
    values[count++] = (fb3_wandb_value){"train/epoch", eval->epoch, false};
    values[count++] = (fb3_wandb_value){"train/global_step", (double)eval->step, false};
    FB3_TRY(fb3_wandb_write_history(w, values, count));
    return fb3_wandb_write_summary_file(w);
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */

/* Checkpoints stay where they are; the model is what is kept. */
static fb3_status wandb_artifact(fb3_tracker *tracker, const fb3_checkpoint_record *checkpoint)
{
    (void)tracker;
    (void)checkpoint;
    return FB3_OK;
}

static fb3_status wandb_end(fb3_tracker *tracker, const fb3_end_record *end)
{
    fb3_wandb *w = (fb3_wandb *)tracker;
    const fb3_wandb_value values[] = {{"train_runtime", end->train_runtime, false},
                                      {"train_samples_per_second", end->samples_per_second, false},
                                      {"train_steps_per_second", end->steps_per_second, false},
                                      {"best_metric", end->best_metric, false}};
    FB3_TRY(fb3_wandb_write_summary(w, values, sizeof values / sizeof *values));
    w->ended = true;
    return fb3_wandb_write_summary_file(w);
}

static char *model_metadata(const fb3_wandb *w, const fb3_model_record *model)
{
    json_t *score = fb3_json_number(model->score);
    json_t *metadata =
        json_pack("{s:o, s:s, s:I, s:i, s:s}", "score", score, "metric", w->place.config->metric_for_best_model, "step",
                  (json_int_t)model->step, "fold", model->fold, "config_sha256", w->config_sha256);
    char *text = metadata ? json_dumps(metadata, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(metadata);
    return text;
}

static fb3_status wandb_model(fb3_tracker *tracker, const fb3_model_record *model)
{
    fb3_wandb *w = (fb3_wandb *)tracker;
    fb3_artifact artifact;
    FB3_TRY(fb3_artifact_read(&artifact, model->directory));
    char *metadata = model_metadata(w, model);
    fb3_status status = metadata ? fb3_wandb_write_artifact(w, &artifact, model->directory, metadata)
                                 : fb3_fail(FB3_FAILED, "out of memory for an artifact");
    free(metadata);
    fb3_artifact_free(&artifact);
    return status;
}

static fb3_status wandb_console(fb3_tracker *tracker, const char *line)
{
    fb3_wandb *w = (fb3_wandb *)tracker;
    return w->log ? fb3_wandb_write_console(w, line) : FB3_OK; /* said before the run was described */
}

/* A process that was killed leaves no exit: that is how a reader sees it. */
static fb3_status write_exit(fb3_wandb *w, fb3_status left)
{
    if (left == FB3_STOPPED) FB3_TRY(fb3_wandb_write_preempting(w));
    return fb3_wandb_write_exit(w, left == FB3_OK && !w->ended ? FB3_FAILED : left);
}

static void free_run(fb3_wandb *w)
{
    free(w->fold_directory);
    free(w->id);
    free(w->project);
    free(w->entity);
    free(w->group);
    free(w->name);
    free(w->notes);
    free(w->tags);
    free(w->root);
    free(w->directory);
    free(w->files);
    json_decref(w->past.summary);
    json_decref(w->summary);
    fb3_proto_free(&w->record);
    free(w);
}

static void wandb_close(fb3_tracker *tracker, fb3_status left)
{
    fb3_wandb *w = (fb3_wandb *)tracker;
    if (w->log && !tracker->failed && write_exit(w, left) != FB3_OK)
        fb3_log_warn("wandb: %s; the run will be seen as crashed", fb3_error_text());
    fb3_wandb_log_close(w->log);
    fb3_meter_close(&w->meter);
    free_run(w);
}

static const fb3_tracker_ops WANDB = {
    .name = "wandb",
    .config = wandb_config,
    .step = wandb_step,
    .eval = wandb_eval,
    .artifact = wandb_artifact,
    .end = wandb_end,
    .model = wandb_model,
    .console = wandb_console,
    .close = wandb_close,
};

fb3_status fb3_tracker_open_wandb(fb3_tracker **tracker, const fb3_track_place *place)
{
    *tracker = NULL;
    if (fb3_wandb_disabled()) {
        fb3_log_info("wandb: disabled by the environment (WANDB_MODE or WANDB_DISABLED)");
        return FB3_OK;
    }
    fb3_wandb *w = calloc(1, sizeof *w);
    FB3_REQUIRE(w, FB3_FAILED, "out of memory for the run's record");
    w->base.ops = &WANDB;
    w->place = *place;
    w->fold_directory = strdup(place->directory);
    w->place.directory = w->fold_directory;
    if (!w->fold_directory) {
        free_run(w);
        return fb3_fail(FB3_FAILED, "out of memory for the run's record");
    }
    *tracker = &w->base;
    return FB3_OK;
}
