/* All trackers of a fold: each event goes to metrics.jsonl at once, and to the trackers of report_to by way of a queue.
 */
#include "queue.h"
#include "trackers.h"

#include "fb3/log.h"

#include <string.h>

/* A tracker is a row here. */
static const fb3_tracker_kind KINDS[] = {
    {"tensorboard", fb3_tracker_open_tensorboard},
    {"wandb", fb3_tracker_open_wandb},
    {NULL, NULL},
};

static bool wanted(const fb3_strings *report_to, const char *name)
{
    for (int i = 0; i < report_to->count; i++)
        if (strcmp(report_to->item[i], name) == 0) return true;
    return false;
}

/* Without its thread a tracker is one that failed. */
static void open_others(fb3_track *track, const fb3_track_place *place)
{
    const fb3_tracker_kind *kinds[sizeof KINDS / sizeof *KINDS];
    int count = 0;
    for (const fb3_tracker_kind *kind = KINDS; kind->name; kind++)
        if (wanted(&place->config->report_to, kind->name)) kinds[count++] = kind;
    if (count > 0 && fb3_track_queue_open(&track->others, place, kinds, count) != FB3_OK)
        fb3_log_warn("report_to: %s; training goes on without it", fb3_error_text());
}

static void hear(void *context, const char *line)
{
    fb3_track_queue_put(context, FB3_TRACK_CONSOLE, line);
}

fb3_status fb3_track_open(fb3_track *track, const fb3_track_place *place)
{
    *track = (fb3_track){0};
    FB3_TRY(fb3_tracker_open_jsonl(&track->jsonl, place));
    open_others(track, place);
    if (track->others) fb3_log_listen(hear, track->others);
    return FB3_OK;
}

fb3_status fb3_track_config(fb3_track *track, const fb3_run_record *run)
{
    fb3_track_queue_put(track->others, FB3_TRACK_CONFIG, run);
    return track->jsonl->ops->config(track->jsonl, run);
}
fb3_status fb3_track_step(fb3_track *track, const fb3_step_record *step)
{
    fb3_track_queue_put(track->others, FB3_TRACK_STEP, step);
    return track->jsonl->ops->step(track->jsonl, step);
}
fb3_status fb3_track_eval(fb3_track *track, const fb3_eval_record *eval)
{
    fb3_track_queue_put(track->others, FB3_TRACK_EVAL, eval);
    return track->jsonl->ops->eval(track->jsonl, eval);
}
fb3_status fb3_track_artifact(fb3_track *track, const fb3_checkpoint_record *checkpoint)
{
    fb3_track_queue_put(track->others, FB3_TRACK_ARTIFACT, checkpoint);
    return track->jsonl->ops->artifact(track->jsonl, checkpoint);
}
fb3_status fb3_track_end(fb3_track *track, const fb3_end_record *end)
{
    fb3_track_queue_put(track->others, FB3_TRACK_END, end);
    return track->jsonl->ops->end(track->jsonl, end);
}
bool fb3_track_keeps_models(const fb3_config *config)
{
    return wanted(&config->report_to, "wandb") && !fb3_wandb_disabled();
}

void fb3_track_model(fb3_track *track, const fb3_model_record *model)
{
    fb3_track_queue_put(track->others, FB3_TRACK_MODEL, model);
}

void fb3_track_close(fb3_track *track, fb3_status left)
{
    if (track->others) {
        fb3_log_listen(NULL, NULL);
        if (left != FB3_OK) fb3_track_queue_put(track->others, FB3_TRACK_CONSOLE, fb3_error_text());
    }
    fb3_track_queue_close(track->others, left);
    if (track->jsonl) track->jsonl->ops->close(track->jsonl, left);
    *track = (fb3_track){0};
}
