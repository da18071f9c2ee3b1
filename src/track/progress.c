/* progress.json: written by the fold's writer, read by anybody, so it may be damaged or not be ours at all. */
#include "progress_json.h"

#include "fb3/file.h"
#include "fb3/folds.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* It is below a kilobyte. */
#define LARGEST ((size_t)1 << 16)
#define MOST    ((json_int_t)1 << 53)

static const char *const PHASE[FB3_PHASES] = {
    [FB3_PHASE_WAITING] = "waiting", [FB3_PHASE_TRAINING] = "training", [FB3_PHASE_EVALUATING] = "evaluating",
    [FB3_PHASE_WRITING] = "writing", [FB3_PHASE_COMPLETE] = "complete", [FB3_PHASE_STOPPED] = "stopped",
    [FB3_PHASE_FAILED] = "failed",   [FB3_PHASE_KILLED] = "killed",
};

const char *fb3_phase_name(fb3_fold_phase phase)
{
    return PHASE[phase];
}

bool fb3_phase_active(fb3_fold_phase phase)
{
    return phase == FB3_PHASE_TRAINING || phase == FB3_PHASE_EVALUATING || phase == FB3_PHASE_WRITING;
}

fb3_fold_progress fb3_fold_progress_none(int fold)
{
    return (fb3_fold_progress){.fold = fold,
                               .epoch = NAN,
                               .loss = NAN,
                               .last_metric = NAN,
                               .best_metric = NAN,
                               .samples_per_second = NAN,
                               .peak_memory_mb = NAN,
                               .seconds = NAN,
                               .updated = NAN};
}

double fb3_fold_progress_eta(const fb3_fold_progress *progress)
{
    int64_t done = progress->step - progress->first_step;
    if (!fb3_phase_active(progress->phase) || done <= 0) return NAN;
    return progress->seconds / (double)done * (double)(progress->total_steps - progress->step);
}

json_t *fb3_fold_progress_pack(const fb3_fold_progress *p)
{
    return json_pack(
        "{s:i, s:s, s:I, s:I, s:I, s:o, s:o, s:s, s:o, s:I, s:o, s:I, s:o, s:o, s:o, s:o, s:s, s:I, s:i, s:s}", "fold",
        p->fold, "state", PHASE[p->phase], "step", (json_int_t)p->step, "first_step", (json_int_t)p->first_step,
        "total_steps", (json_int_t)p->total_steps, "epoch", fb3_json_number(p->epoch), "loss", fb3_json_number(p->loss),
        "metric", p->metric, "last_metric", fb3_json_number(p->last_metric), "last_metric_step",
        (json_int_t)p->last_step, "best_metric", fb3_json_number(p->best_metric), "best_metric_step",
        (json_int_t)p->best_step, "samples_per_second", fb3_json_number(p->samples_per_second), "peak_memory_mb",
        fb3_json_number(p->peak_memory_mb), "seconds", fb3_json_number(p->seconds), "updated",
        fb3_json_number(p->updated), "host", p->host, "pid", (json_int_t)p->pid, "ranks", p->ranks, "error", p->error);
}

fb3_status fb3_fold_progress_write(const char *path, const fb3_fold_progress *progress)
{
    json_t *object = fb3_fold_progress_pack(progress);
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    FB3_REQUIRE(text, FB3_FAILED, "%s: out of memory", path);
    fb3_status status = fb3_file_write_lightly(path, text, strlen(text));
    free(text);
    return status;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* NaN for whatever is no number. */
static double real_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* -1 for whatever is no count. */
static int64_t count_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    json_int_t count = json_is_integer(value) ? json_integer_value(value) : -1;
    return count >= 0 && count <= MOST ? count : -1;
}

void fb3_make_printable(char *text)
{
    for (char *c = text; *c; c++)
        if (*c < ' ' || *c > '~') *c = '?';
}

static void copy_text(char *text, size_t bytes, const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    snprintf(text, bytes, "%s", value ? value : "");
    fb3_make_printable(text);
}

static bool read_phase(const json_t *object, fb3_fold_phase *phase)
{
    const char *name = json_string_value(json_object_get(object, "state"));
    for (int i = 0; name && i < FB3_PHASES; i++) {
        *phase = (fb3_fold_phase)i;
        if (strcmp(name, PHASE[i]) == 0) return true;
    }
    return false;
}

/* False where something is missing that every writer gives, or cannot be. */
static bool unpack(const json_t *object, fb3_fold_progress *p)
{
    int64_t ranks = count_of(object, "ranks");
    if (count_of(object, "fold") != p->fold || !read_phase(object, &p->phase)) return false;
    p->step = count_of(object, "step");
    p->first_step = count_of(object, "first_step");
    p->total_steps = count_of(object, "total_steps");
    p->last_step = count_of(object, "last_metric_step");
    p->best_step = count_of(object, "best_metric_step");
    p->pid = count_of(object, "pid");
    p->ranks = ranks <= INT32_MAX ? (int)ranks : -1;
    p->epoch = real_of(object, "epoch");
    p->loss = real_of(object, "loss");
    p->last_metric = real_of(object, "last_metric");
    p->best_metric = real_of(object, "best_metric");
    p->samples_per_second = real_of(object, "samples_per_second");
    p->peak_memory_mb = real_of(object, "peak_memory_mb");
    p->seconds = real_of(object, "seconds");
    p->updated = real_of(object, "updated");
    copy_text(p->metric, sizeof p->metric, object, "metric");
    copy_text(p->host, sizeof p->host, object, "host");
    copy_text(p->error, sizeof p->error, object, "error");
    return p->step >= 0 && p->first_step >= 0 && p->first_step <= p->step && p->total_steps >= p->step &&
           p->last_step >= 0 && p->best_step >= 0 && p->pid >= 0 && p->ranks >= 0;
}

fb3_status fb3_fold_progress_read(const char *path, int fold, fb3_fold_progress *progress)
{
    char *text;
    size_t bytes;
    json_error_t error;
    *progress = fb3_fold_progress_none(fold);
    FB3_TRY(fb3_file_read(path, LARGEST, &text, &bytes));
    json_t *object = json_loadb(text, bytes, 0, &error);
    free(text);
    FB3_REQUIRE(object, FB3_INPUT, "%s is damaged (%s); the next start writes it anew", path, error.text);
    bool whole = unpack(object, progress);
    json_decref(object);
    if (whole) return FB3_OK;
    *progress = fb3_fold_progress_none(fold);
    return fb3_fail(FB3_INPUT, "%s does not tell the progress of fold %d; the next start writes it anew", path, fold);
}
