/* metrics.jsonl: one JSON object a line, "event" first (INTERFACE 4). The truth about a run: every line is written
 * whole and flushed, so that a reader, or a run that is resumed after a kill, never sees half a line as the last one
 * but one. */
#include "fb3/file.h"
#include "fb3/scores_json.h"
#include "fb3/track.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* metrics.jsonl of 10^6 steps with sample ids stays below this. */
#define LARGEST_LOG ((size_t)8 << 30)

typedef struct jsonl_tracker {
    fb3_tracker base;
    char *path;
    FILE *file;
    bool resumed; /* the run is described already */
} jsonl_tracker;

/* Takes the reference to `event`. */
static fb3_status write_event(fb3_tracker *tracker, json_t *event)
{
    jsonl_tracker *jsonl = (jsonl_tracker *)tracker;
    char *line = event ? json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(event);
    FB3_REQUIRE(line, FB3_FAILED, "%s: out of memory for an event", jsonl->path);
    bool written = fputs(line, jsonl->file) >= 0 && fputc('\n', jsonl->file) != EOF && fflush(jsonl->file) == 0;
    free(line);
    FB3_REQUIRE(written, FB3_FAILED, "cannot write %s: %s; check the file system and its space", jsonl->path,
                strerror(errno));
    return FB3_OK;
}

static json_t *texts(const fb3_strings *strings)
{
    json_t *array = json_array();
    for (int i = 0; i < strings->count; i++) json_array_append_new(array, json_string(strings->item[i]));
    return array;
}

static json_t *memory_of(const fb3_memory_record *memory)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "parameters", (json_int_t)memory->parameters, "gradients",
                     (json_int_t)memory->gradients, "moments", (json_int_t)memory->moments, "activations",
                     (json_int_t)memory->activations, "workspace", (json_int_t)memory->workspace);
}

static fb3_status jsonl_config(fb3_tracker *tracker, const fb3_run_record *run)
{
    if (((jsonl_tracker *)tracker)->resumed) return FB3_OK;
    json_t *versions = json_loads(run->versions, 0, NULL);
    return write_event(tracker,
                       json_pack("{s:s, s:i, s:i, s:i, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:s}", "event",
                                 "run", "fold", run->fold, "folds", run->folds, "world_size", run->world_size, "ranks",
                                 run->group_size, "device", run->device, "parameters", (json_int_t)run->parameters,
                                 "active_vocabulary", (json_int_t)run->active_vocabulary, "total_steps",
                                 (json_int_t)run->total_steps, "train_samples", (json_int_t)run->train_samples,
                                 "eval_samples", (json_int_t)run->eval_samples, "memory_bytes", memory_of(&run->memory),
                                 "versions", versions ? versions : json_null(), "config", run->config_text));
}

static fb3_status jsonl_step(fb3_tracker *tracker, const fb3_step_record *step)
{
    json_t *event =
        json_pack("{s:s, s:i, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "event", "step", "fold", step->fold, "step",
                  (json_int_t)step->step, "epoch", fb3_json_number(step->epoch), "loss", fb3_json_number(step->loss),
                  "grad_norm", fb3_json_number(step->grad_norm), "learning_rate", fb3_json_number(step->learning_rate),
                  "samples_per_second", fb3_json_number(step->samples_per_second), "tokens_per_second",
                  fb3_json_number(step->tokens_per_second), "peak_memory_mb", fb3_json_number(step->peak_memory_mb));
    if (event && step->skipped) json_object_set_new(event, "skipped", json_true());
    if (event && step->samples) json_object_set_new(event, "samples", texts(step->samples));
    return write_event(tracker, event);
}

static fb3_status jsonl_eval(fb3_tracker *tracker, const fb3_eval_record *eval)
{
    json_t *event =
        json_pack("{s:s, s:i, s:I, s:o, s:o}", "event", "eval", "fold", eval->fold, "step", (json_int_t)eval->step,
                  "epoch", fb3_json_number(eval->epoch), "eval_loss", fb3_json_number(eval->scores->loss));
    fb3_json_set_scores(event, "eval_", eval->scores->mcrmse, eval->scores->rmse, eval->targets);
    if (event) json_object_set_new(event, "eval_samples_per_second", fb3_json_number(eval->samples_per_second));
    return write_event(tracker, event);
}

static fb3_status jsonl_artifact(fb3_tracker *tracker, const fb3_checkpoint_record *checkpoint)
{
    return write_event(tracker,
                       json_pack("{s:s, s:i, s:I, s:s, s:b}", "event", "checkpoint", "fold", checkpoint->fold, "step",
                                 (json_int_t)checkpoint->step, "path", checkpoint->path, "best", checkpoint->best));
}

static fb3_status jsonl_end(fb3_tracker *tracker, const fb3_end_record *end)
{
    return write_event(
        tracker, json_pack("{s:s, s:i, s:I, s:o, s:o, s:o, s:o, s:s}", "event", "end", "fold", end->fold, "step",
                           (json_int_t)end->step, "train_runtime", fb3_json_number(end->train_runtime),
                           "train_samples_per_second", fb3_json_number(end->samples_per_second),
                           "train_steps_per_second", fb3_json_number(end->steps_per_second), "best_metric",
                           fb3_json_number(end->best_metric), "best_model_checkpoint", end->best_model_checkpoint));
}

static void jsonl_close(fb3_tracker *tracker, fb3_status left)
{
    (void)left; /* "end", or its absence, says it */
    jsonl_tracker *jsonl = (jsonl_tracker *)tracker;
    if (jsonl->file) fclose(jsonl->file);
    free(jsonl->path);
    free(jsonl);
}

static const fb3_tracker_ops JSONL = {
    .name = "metrics.jsonl",
    .config = jsonl_config,
    .step = jsonl_step,
    .eval = jsonl_eval,
    .artifact = jsonl_artifact,
    .end = jsonl_end,
    .close = jsonl_close,
};

/* True for a whole line that belongs to the run up to `resume_step`. "end" goes too: the fold is not over. */
static bool belongs(const char *line, size_t bytes, int64_t resume_step)
{
    json_t *event = json_loadb(line, bytes, 0, NULL);
    if (!event) return false;
    json_t *step = json_object_get(event, "step");
    const char *kind = json_string_value(json_object_get(event, "event"));
    bool keep = kind && strcmp(kind, "end") != 0 && (!step || json_integer_value(step) <= resume_step);
    json_decref(event);
    return keep;
}

/* Rewrites the file without the events that will be done again and without a half-written last line. */
static fb3_status keep_until(const char *path, int64_t resume_step)
{
    char *text;
    size_t bytes, kept = 0;
    FB3_TRY(fb3_file_read(path, LARGEST_LOG, &text, &bytes));
    for (size_t start = 0; start < bytes;) {
        char *newline = memchr(text + start, '\n', bytes - start);
        if (!newline) break;
        size_t length = (size_t)(newline - (text + start)) + 1;
        if (belongs(text + start, length - 1, resume_step)) {
            memmove(text + kept, text + start, length);
            kept += length;
        }
        start += length;
    }
    fb3_status status = kept == bytes ? FB3_OK : fb3_file_write(path, text, kept);
    free(text);
    return status;
}

fb3_status fb3_tracker_open_jsonl(fb3_tracker **tracker, const fb3_track_place *place)
{
    fb3_status status = FB3_OK;
    jsonl_tracker *jsonl = calloc(1, sizeof *jsonl);
    FB3_REQUIRE(jsonl, FB3_FAILED, "out of memory for metrics.jsonl");
    jsonl->base.ops = &JSONL;
    jsonl->resumed = place->resume_step > 0;
    jsonl->path = fb3_path_join(place->directory, "metrics.jsonl");
    FB3_REQUIRE_GOTO(jsonl->path, failed, FB3_FAILED, "out of memory for metrics.jsonl");
    if (!jsonl->resumed) remove(jsonl->path); /* nothing was kept: the run begins again */
    if (fb3_file_exists(jsonl->path)) FB3_TRY_GOTO(keep_until(jsonl->path, place->resume_step), failed);
    jsonl->file = fopen(jsonl->path, "a");
    FB3_REQUIRE_GOTO(jsonl->file, failed, FB3_FAILED, "cannot write %s: %s; check its permissions and the file system",
                     jsonl->path, strerror(errno));
    *tracker = &jsonl->base;
    return FB3_OK;
failed:
    jsonl_close(&jsonl->base, status);
    return status;
}
