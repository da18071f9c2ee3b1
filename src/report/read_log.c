/* metrics.jsonl of a fold: as far as it was written, a line at a time. */
#include "report.h"

#include "fb3/run_directory.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* All folds' curves together have about so many points, so that the page stays small with many folds. */
enum { POINTS_OF_A_FOLD = 256, POINTS_OF_ALL = 2048, LEAST_POINTS = 32, LINES_BEFORE_PAUSE = 4096 };

static double number(const json_t *event, const char *key)
{
    const json_t *value = json_object_get(event, key);
    return json_is_number(value) ? json_number_value(value) : NAN; /* null is how JSON says it */
}

static int64_t whole(const json_t *event, const char *key)
{
    return json_integer_value(json_object_get(event, key));
}

static void take_run(fold_log *log, const json_t *event)
{
    const char *device = json_string_value(json_object_get(event, "device"));
    log->total_steps = whole(event, "total_steps");
    log->train_samples = whole(event, "train_samples");
    log->eval_samples = whole(event, "eval_samples");
    log->parameters = whole(event, "parameters");
    log->active_vocabulary = whole(event, "active_vocabulary");
    log->ranks = (int)whole(event, "ranks");
    log->world_size = (int)whole(event, "world_size");
    free(log->device);
    log->device = device ? strdup(device) : NULL;
    json_decref(log->versions);
    log->versions = json_incref(json_object_get(event, "versions"));
    json_decref(log->memory);
    log->memory = json_incref(json_object_get(event, "memory_bytes"));
}

static void take_step(fold_log *log, const json_t *event, double batch)
{
    int64_t step = whole(event, "step");
    double speed = number(event, "samples_per_second"), memory = number(event, "peak_memory_mb");
    double epoch = number(event, "epoch");
    series_add(&log->curve[CURVE_LOSS], step, number(event, "loss"));
    series_add(&log->curve[CURVE_RATE], step, number(event, "learning_rate"));
    series_add(&log->curve[CURVE_NORM], step, number(event, "grad_norm"));
    series_add(&log->curve[CURVE_SPEED], step, speed);
    log->logged_steps++;
    log->skipped_steps += json_is_true(json_object_get(event, "skipped"));
    if (speed > 0) log->logged_seconds += batch / speed;
    log->peak_memory_mb = fmax(log->peak_memory_mb, memory); /* fmax takes the one that is a number */
    if (step > log->step) log->step = step;
    if (epoch > log->epoch) log->epoch = epoch;
}

static void keep_evaluation(evaluations *all, const evaluation *one)
{
    if (all->seen++ % all->stride != 0) return;
    if (all->count == EVALUATIONS_KEPT) {
        for (int i = 0; i < EVALUATIONS_KEPT; i += 2) all->kept[i / 2] = all->kept[i];
        all->count /= 2;
        all->stride *= 2;
        if ((all->seen - 1) % all->stride != 0) return;
    }
    all->kept[all->count++] = *one;
}

static void take_eval(fold_log *log, const json_t *event)
{
    evaluations *all = &log->evaluations;
    double speed = number(event, "eval_samples_per_second");
    evaluation one = {.step = whole(event, "step"),
                      .epoch = number(event, "epoch"),
                      .mcrmse = number(event, "eval_MCRMSE"),
                      .loss = number(event, "eval_loss")};
    if (speed > 0) all->seconds += (double)log->eval_samples / speed;
    if (all->seen == 0) all->best = one;
    if (one.mcrmse < all->best.mcrmse || isnan(all->best.mcrmse)) all->best = one;
    all->last = one;
    keep_evaluation(all, &one);
}

static void take_event(fold_log *log, const json_t *event, double batch)
{
    const char *kind = json_string_value(json_object_get(event, "event"));
    if (!kind) {
        log->unreadable_lines++;
    } else if (strcmp(kind, "run") == 0) {
        take_run(log, event);
    } else if (strcmp(kind, "step") == 0) {
        take_step(log, event, batch);
    } else if (strcmp(kind, "eval") == 0) {
        take_eval(log, event);
    } else if (strcmp(kind, "checkpoint") == 0) {
        log->checkpoints++;
    } else if (strcmp(kind, "end") == 0) {
        log->ended = true;
        log->runtime = number(event, "train_runtime");
    }
}

static void take_line(fold_log *log, const char *line, size_t bytes, double batch)
{
    json_t *event = json_loadb(line, bytes, 0, NULL);
    if (event) {
        take_event(log, event, batch);
    } else {
        log->unreadable_lines++;
    }
    json_decref(event);
}

/* A last line without its end is being written: it is nobody's fault. */
static fb3_status read_lines(const run_report *report, fold_log *log, FILE *file, double batch)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t bytes;
    fb3_status status = FB3_OK;
    for (int64_t lines = 0; (bytes = getline(&line, &capacity, file)) > 0 && line[bytes - 1] == '\n'; lines++) {
        take_line(log, line, (size_t)bytes, batch);
        if (lines % LINES_BEFORE_PAUSE == 0) FB3_TRY_GOTO(run_report_pause(report), done);
    }
done:
    free(line);
    return status;
}

static int points_of_a_fold(int folds)
{
    int points = POINTS_OF_ALL / folds;
    if (points > POINTS_OF_A_FOLD) points = POINTS_OF_A_FOLD;
    return points < LEAST_POINTS ? LEAST_POINTS : points;
}

static fb3_status read_file(run_report *report, int fold, const char *path)
{
    fold_log *log = &report->log[fold];
    const fb3_config *config = &report->config;
    double batch = config->total_train_batch_size == FB3_UNSET_INT ? NAN : (double)config->total_train_batch_size;
    FILE *file = fopen(path, "r");
    if (!file && errno == ENOENT) return FB3_OK; /* not begun */
    if (!file) return run_report_note(report, "%s cannot be read: %s", path, strerror(errno));
    log->begun = true;
    fb3_status status = read_lines(report, log, file, batch);
    (void)fclose(file);
    FB3_TRY(status);
    if (log->unreadable_lines == 0) return FB3_OK;
    return run_report_note(report, "%s: %lld lines are not events and were left out.", path,
                           (long long)log->unreadable_lines);
}

fb3_status read_log(run_report *report, int fold)
{
    fold_log *log = &report->log[fold];
    log->evaluations.stride = 1;
    log->runtime = NAN;
    log->peak_memory_mb = NAN;
    for (int c = 0; c < CURVE_COUNT; c++)
        FB3_TRY(series_make(&log->curve[c], points_of_a_fold(report->folds * report->sharing)));
    char *path = fb3_fold_path(report->directory, fold, "metrics.jsonl");
    FB3_REQUIRE(path, FB3_FAILED, "out of memory for a report");
    fb3_status status = read_file(report, fold, path);
    free(path);
    return status;
}

void fold_log_free(fold_log *log)
{
    for (int c = 0; c < CURVE_COUNT; c++) series_free(&log->curve[c]);
    json_decref(log->versions);
    json_decref(log->memory);
    free(log->device);
}
