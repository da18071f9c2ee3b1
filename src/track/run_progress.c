/* A run from outside: which folds it has (run.yaml), how far they are (progress.json), whether it is alive (its lock),
 * and if not, how it ended. */
#include "progress_json.h"

#include "fb3/file.h"
#include "fb3/folds.h"
#include "fb3/run_directory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* run.yaml and summary.json are a few kilobytes. */
#define LARGEST_TEXT ((size_t)1 << 20)

/* Where there are no locks: a writer gives a sign of life every few seconds (console.c). */
#define ALIVE_SECONDS 30.0

static const char *const STATE[FB3_RUN_STATES] = {
    [FB3_RUN_STARTING] = "starting", [FB3_RUN_TRAINING] = "training", [FB3_RUN_FINISHING] = "finishing",
    [FB3_RUN_COMPLETE] = "complete", [FB3_RUN_STOPPED] = "stopped",   [FB3_RUN_FAILED] = "failed",
    [FB3_RUN_KILLED] = "killed",
};

const char *fb3_run_state_name(fb3_run_state state)
{
    return STATE[state];
}

/* Tells of a file that cannot be used, and goes on without it. */
static fb3_status tolerate(fb3_run_progress *run, fb3_status status)
{
    if (status == FB3_OK) return FB3_OK;
    char *why = strdup(fb3_error_text());
    FB3_REQUIRE(why, FB3_FAILED, "out of memory for the progress of a run");
    status = fb3_strings_add(&run->notes, why);
    free(why);
    return status;
}

/* --- which folds there are ---------------------------------------------------------------------------------------- */

static fb3_status selection(const char *yaml, bool *selected)
{
    fb3_config config = {0};
    fb3_status status = fb3_config_load_text(&config, yaml, "run.yaml");
    if (status == FB3_OK) {
        int64_t folds = config.validation_file ? 1 : config.folds;
        status = folds >= 1 && folds <= FB3_MAX_FOLDS
                     ? fb3_config_train_folds(&config, (int)folds, selected)
                     : fb3_fail(FB3_INPUT, "run.yaml has %lld folds", (long long)folds);
    }
    fb3_config_free(&config);
    return status;
}

static fb3_status read_selection(fb3_run_progress *run, const char *path, bool *selected)
{
    char *yaml = NULL;
    size_t bytes;
    fb3_status status = fb3_file_read(path, LARGEST_TEXT, &yaml, &bytes);
    if (status == FB3_OK) status = selection(yaml, selected);
    free(yaml);
    return tolerate(run, status);
}

/* A start may train other folds than the first one did, which wrote run.yaml. */
static fb3_status add_folder(const fb3_run_progress *run, int fold, bool *selected)
{
    char *folder = fb3_fold_path(run->directory, fold, NULL);
    FB3_REQUIRE(folder, FB3_FAILED, "out of memory for the progress of a run");
    if (fb3_folder_exists(folder)) selected[fold] = true;
    free(folder);
    return FB3_OK;
}

static fb3_status read_fold(fb3_run_progress *run, int fold)
{
    char *path = fb3_fold_path(run->directory, fold, "progress.json");
    FB3_REQUIRE(path, FB3_FAILED, "out of memory for the progress of a run");
    fb3_fold_progress *progress = &run->fold[run->count++];
    *progress = fb3_fold_progress_none(fold);
    fb3_status status = fb3_file_exists(path) ? tolerate(run, fb3_fold_progress_read(path, fold, progress)) : FB3_OK;
    free(path);
    return status;
}

static fb3_status read_folds(fb3_run_progress *run, const char *yaml_path)
{
    bool selected[FB3_MAX_FOLDS] = {false};
    if (fb3_file_exists(yaml_path)) FB3_TRY(read_selection(run, yaml_path, selected));
    for (int k = 0; k < FB3_MAX_FOLDS; k++) FB3_TRY(add_folder(run, k, selected));
    run->fold = calloc(FB3_MAX_FOLDS, sizeof *run->fold);
    FB3_REQUIRE(run->fold, FB3_FAILED, "out of memory for the progress of a run");
    for (int k = 0; k < FB3_MAX_FOLDS; k++)
        if (selected[k]) FB3_TRY(read_fold(run, k));
    return FB3_OK;
}

/* --- what it comes to --------------------------------------------------------------------------------------------- */

static double newest_word(const fb3_run_progress *run)
{
    double newest = NAN;
    for (int i = 0; i < run->count; i++) newest = fmax(newest, run->fold[i].updated); /* a number wins over NaN */
    return newest;
}

/* A file system that keeps the locks of a node to itself shows them free elsewhere: then the last word decides. */
static bool is_alive(fb3_run_progress *run, fb3_lock_state lock, const char *host)
{
    run->by_lock = true;
    if (lock == FB3_LOCK_HELD) return true;
    bool elsewhere = false;
    for (int i = 0; i < run->count; i++)
        elsewhere |= fb3_phase_active(run->fold[i].phase) && strcmp(run->fold[i].host, host) != 0;
    if (lock == FB3_LOCK_FREE && !elsewhere) return false;
    bool active = false;
    for (int i = 0; i < run->count; i++) active |= fb3_phase_active(run->fold[i].phase);
    bool recent = active && fabs((double)time(NULL) - run->updated) < ALIVE_SECONDS;
    run->by_lock = lock == FB3_LOCK_FREE && !recent;
    return recent;
}

/* A start makes a waiting fold of each that it has still to train, so what they say is of the last start. A rank that
 * is killed makes those stop that outlive it. */
static fb3_run_state state_of(const fb3_run_progress *run)
{
    int in[FB3_PHASES] = {0}, active = 0;
    for (int i = 0; i < run->count; i++) {
        in[run->fold[i].phase]++;
        active += fb3_phase_active(run->fold[i].phase);
    }
    bool all = run->count > 0 && in[FB3_PHASE_COMPLETE] == run->count;
    if (run->alive) return all ? FB3_RUN_FINISHING : active > 0 ? FB3_RUN_TRAINING : FB3_RUN_STARTING;
    if (all) return FB3_RUN_COMPLETE;
    if (in[FB3_PHASE_FAILED] > 0) return FB3_RUN_FAILED;
    return active == 0 && in[FB3_PHASE_STOPPED] > 0 ? FB3_RUN_STOPPED : FB3_RUN_KILLED;
}

static void bury(fb3_run_progress *run)
{
    for (int i = 0; i < run->count; i++)
        if (fb3_phase_active(run->fold[i].phase)) run->fold[i].phase = FB3_PHASE_KILLED;
}

/* MCRMSE of all folds; that of the only one where there is no cross-validation. */
static fb3_status read_pooled(fb3_run_progress *run, const char *path)
{
    char *text = NULL;
    size_t bytes;
    json_error_t error;
    if (!fb3_file_exists(path)) return FB3_OK;
    fb3_status status = fb3_file_read(path, LARGEST_TEXT, &text, &bytes);
    json_t *summary = status == FB3_OK ? json_loadb(text, bytes, 0, &error) : NULL;
    free(text);
    const json_t *score = json_object_get(json_object_get(summary, "pooled"), "MCRMSE");
    run->pooled = json_is_number(score) ? json_number_value(score) : NAN;
    if (status == FB3_OK && !summary) status = fb3_fail(FB3_INPUT, "%s is damaged (%s)", path, error.text);
    json_decref(summary);
    return tolerate(run, status);
}

static const char *this_host(char *name, size_t bytes)
{
    name[0] = 0;
    if (gethostname(name, bytes) == 0) name[bytes - 1] = 0;
    return name;
}

static fb3_status read_run(fb3_run_progress *run, const char *yaml, const char *lock_path, const char *summary)
{
    char host[sizeof run->fold->host];
    fb3_lock_state lock = fb3_file_lock_look(lock_path);
    FB3_REQUIRE(fb3_file_exists(yaml) || lock == FB3_LOCK_HELD, FB3_INPUT,
                "%s holds no run (it has no run.yaml); give a run directory", run->directory);
    FB3_TRY(read_pooled(run, summary));
    FB3_TRY(read_folds(run, yaml));
    run->updated = newest_word(run);
    run->alive = is_alive(run, lock, this_host(host, sizeof host));
    run->state = state_of(run);
    if (!run->alive) bury(run);
    run->eta = run->state == FB3_RUN_TRAINING ? fb3_progress_eta(run->fold, run->count) : NAN;
    return FB3_OK;
}

fb3_status fb3_run_progress_read(fb3_run_progress *run, const char *directory)
{
    *run = (fb3_run_progress){.eta = NAN, .updated = NAN, .pooled = NAN, .directory = strdup(directory)};
    char *yaml = fb3_path_join(directory, "run.yaml"), *lock = fb3_path_join(directory, ".lock");
    char *summary = fb3_path_join(directory, "summary.json");
    fb3_status status = run->directory && yaml && lock && summary ? read_run(run, yaml, lock, summary)
                                                                  : fb3_fail(FB3_FAILED, "out of memory");
    free(yaml);
    free(lock);
    free(summary);
    if (status != FB3_OK) fb3_run_progress_free(run);
    return status;
}

void fb3_run_progress_free(fb3_run_progress *run)
{
    fb3_strings_free(&run->notes);
    free(run->fold);
    free(run->directory);
    *run = (fb3_run_progress){0};
}

/* --- as JSON ------------------------------------------------------------------------------------------------------ */

static json_t *pack_folds(const fb3_run_progress *run)
{
    json_t *folds = json_array();
    for (int i = 0; folds && i < run->count; i++) {
        json_t *fold = fb3_fold_progress_pack(&run->fold[i]);
        bool good = fold && json_object_set_new(fold, "eta_seconds",
                                                fb3_json_number(fb3_fold_progress_eta(&run->fold[i]))) == 0;
        if (good && json_array_append(folds, fold) == 0) {
            json_decref(fold);
            continue;
        }
        json_decref(fold);
        json_decref(folds);
        folds = NULL;
    }
    return folds;
}

static json_t *pack_notes(const fb3_run_progress *run)
{
    json_t *notes = json_array();
    for (int i = 0; notes && i < run->notes.count; i++) json_array_append_new(notes, json_string(run->notes.item[i]));
    return notes;
}

char *fb3_run_progress_json(const fb3_run_progress *run)
{
    json_t *object =
        json_pack("{s:s, s:s, s:b, s:s, s:o, s:o, s:o, s:o, s:o}", "run", run->directory, "state", STATE[run->state],
                  "alive", run->alive, "alive_by", run->by_lock ? "lock" : "age", "eta_seconds",
                  fb3_json_number(run->eta), "updated", fb3_json_number(run->updated), "pooled_MCRMSE",
                  fb3_json_number(run->pooled), "folds", pack_folds(run), "notes", pack_notes(run));
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text;
}
