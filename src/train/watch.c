/* Being watched: what progress.json says before a fold is begun anew, and who tells a person how far the run is. */
#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/run_directory.h"
#include "fb3/train.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- rank 0 of the world: what an earlier start has left ---------------------------------------------------------- */

/* A fold that is complete on disk, whatever its last word was. HDF5 is still the main thread's. */
static fb3_status describe_complete(const fb3_run *run, fb3_fold_progress *p)
{
    fb3_checkpoint *checkpoint;
    char *last = fb3_fold_path(run->config->output_dir, p->fold, "last.h5");
    FB3_REQUIRE(last, FB3_FAILED, "out of memory");
    fb3_status status = fb3_checkpoint_open(&checkpoint, last);
    free(last);
    FB3_TRY(status);
    const fb3_checkpoint_state *state = fb3_checkpoint_state_of(checkpoint);
    p->phase = FB3_PHASE_COMPLETE;
    p->step = state->step;
    p->total_steps = state->total_steps > state->step ? state->total_steps : state->step;
    p->first_step = p->first_step < state->step ? p->first_step : state->step;
    p->epoch = state->epoch;
    p->best_metric = state->best_metric;
    p->best_step = state->best_step;
    if (!p->metric[0]) snprintf(p->metric, sizeof p->metric, "%s", run->config->metric_for_best_model);
    fb3_checkpoint_close(checkpoint);
    return FB3_OK;
}

/* Nobody must take the last word of an earlier start for this one's. */
static fb3_status correct_fold(const fb3_run *run, int fold, const char *path)
{
    fb3_fold_progress p;
    const bool complete = run->group_of_fold[fold] < 0;
    const bool known = fb3_file_exists(path) && fb3_fold_progress_read(path, fold, &p) == FB3_OK;
    if (!known) p = fb3_fold_progress_none(fold);
    if (known && p.phase == (complete ? FB3_PHASE_COMPLETE : FB3_PHASE_WAITING)) return FB3_OK;
    if (!known && !complete) return FB3_OK;
    p.phase = FB3_PHASE_WAITING;
    p.error[0] = 0;
    if (!(p.updated > 0)) p.updated = (double)time(NULL);
    if (complete) FB3_TRY(describe_complete(run, &p));
    return fb3_fold_progress_write(path, &p);
}

static void correct_folds(const fb3_run *run)
{
    bool warned = false;
    for (int k = 0; k < run->folds; k++) {
        char *path = run->selected[k] ? fb3_fold_path(run->config->output_dir, k, "progress.json") : NULL;
        if (path && correct_fold(run, k, path) != FB3_OK && !warned) {
            fb3_log_warn("%s", fb3_error_text());
            warned = true;
        }
        free(path);
    }
}

/* --- all ranks ---------------------------------------------------------------------------------------------------- */

static fb3_status open_progress(fb3_run *run, bool live)
{
    const fb3_session *session = run->session;
    bool mine[FB3_MAX_FOLDS] = {false};
    for (int k = 0; k < run->folds; k++) mine[k] = run->group_of_fold[k] == run->group;
    const fb3_progress_options options = {.run_directory = run->config->output_dir,
                                          .folds = run->folds,
                                          .selected = run->selected,
                                          .mine = mine,
                                          .metric = run->config->metric_for_best_model,
                                          .host = session->ranks[fb3_comm_rank(session->world)].host,
                                          .ranks = session->size,
                                          .plain = !live && !run->config->quiet,
                                          .live = live && session->first,
                                          .quiet = run->config->quiet};
    return fb3_progress_open(&run->progress, &options);
}

static bool person_looks(const fb3_run *run)
{
    if (run->config->quiet) return false;
    fb3_terminal terminal = fb3_terminal_find(STDERR_FILENO);
    bool found = terminal.file >= 0;
    fb3_terminal_close(&terminal);
    return found;
}

fb3_status fb3_run_watch(fb3_run *run)
{
    fb3_session *session = run->session;
    int64_t live = session->first && person_looks(run);
    if (session->first) correct_folds(run);
    FB3_TRY(fb3_comm_broadcast(session->world, &live, sizeof live, 0, "whether a terminal is there"));
    if (live) fb3_log_has_foot();
    if (live && session->first) FB3_TRY(fb3_signals_clear_terminal());
    if (!session->root || open_progress(run, live) == FB3_OK) return FB3_OK;
    fb3_log_warn("%s; training goes on without it", fb3_error_text());
    return FB3_OK;
}

void fb3_run_watch_end(fb3_run *run)
{
    fb3_progress_close(run->progress);
    run->progress = NULL;
}
