/* All trackers of a fold: each event goes to each of them. */
#include "fb3/track.h"
#include "fb3/log.h"

fb3_status fb3_track_open(fb3_track *track, const fb3_config *config, const char *directory, int64_t resume_step)
{
    (void)config; /* report_to names the others; fb3_config_check_supported has refused them in this build */
    *track = (fb3_track){0};
    FB3_TRY(fb3_tracker_open_jsonl(&track->tracker[0], directory, resume_step));
    track->count = 1;
    return FB3_OK;
}

/* metrics.jsonl is the first tracker; its failure is the run's. Any other is left out after its first failure. */
static fb3_status settle(fb3_track *track, int index, fb3_status result)
{
    if (result == FB3_OK || index == 0) return result;
    fb3_tracker *tracker = track->tracker[index];
    tracker->failed = true;
    fb3_log_warn("%s: %s; training goes on without it", tracker->ops->name, fb3_error_text());
    return FB3_OK;
}

#define FOR_EACH_TRACKER(track, operation, record)                                                                     \
    for (int i = 0; i < (track)->count; i++) {                                                                         \
        fb3_tracker *tracker = (track)->tracker[i];                                                                    \
        if (!tracker->failed) FB3_TRY(settle(track, i, tracker->ops->operation(tracker, record)));                     \
    }                                                                                                                  \
    return FB3_OK

fb3_status fb3_track_config(fb3_track *track, const fb3_run_record *run)
{
    FOR_EACH_TRACKER(track, config, run);
}
fb3_status fb3_track_step(fb3_track *track, const fb3_step_record *step)
{
    FOR_EACH_TRACKER(track, step, step);
}
fb3_status fb3_track_eval(fb3_track *track, const fb3_eval_record *eval)
{
    FOR_EACH_TRACKER(track, eval, eval);
}
fb3_status fb3_track_artifact(fb3_track *track, const fb3_checkpoint_record *checkpoint)
{
    FOR_EACH_TRACKER(track, artifact, checkpoint);
}
fb3_status fb3_track_end(fb3_track *track, const fb3_end_record *end)
{
    FOR_EACH_TRACKER(track, end, end);
}

void fb3_track_close(fb3_track *track)
{
    for (int i = 0; i < track->count; i++) track->tracker[i]->ops->close(track->tracker[i]);
    *track = (fb3_track){0};
}
