/* The main job: each group's folds one after another, then the scores of all. */
#include "fb3/trace.h"
#include "fb3/train.h"

static fb3_status train_folds(fb3_run *run)
{
    for (int fold = 0; fold < run->folds; fold++) {
        if (run->group_of_fold[fold] != run->group) continue;
        fb3_status status = fb3_fold_train(run, fold);
        if (status == FB3_STOPPED) return status;
        if (status != FB3_OK) return fb3_fail_context(status, "fold %d", fold);
    }
    return FB3_OK;
}

/* While other groups still work: a signal that came here only must reach them. */
static fb3_status pass_on_stop(void *context)
{
    fb3_session *session = context;
    bool told;
    if (fb3_signals_stop_wanted(session->config->stop_before_end)) FB3_TRY(fb3_comm_tell_stop(session->comm));
    return fb3_comm_stop_told(session->comm, &told);
}

/* All groups have trained their folds, or have stopped because one of them was asked to. A group that fails ends the
 * whole job at once, so only these two meet here. */
static fb3_status meet(fb3_session *session, fb3_status mine)
{
    if (mine == FB3_STOPPED) FB3_TRY(fb3_comm_tell_stop(session->comm));
    if (session->comm != session->world) FB3_TRY(fb3_comm_await_all(session->world, pass_on_stop, session));
    return fb3_comm_agree(session->world, mine, "meeting of the groups");
}

static fb3_status train(fb3_run *run)
{
    fb3_session *session = run->session;
    FB3_TRY(fb3_run_watch(run));
    fb3_status status = train_folds(run);
    if (status != FB3_OK && status != FB3_STOPPED) return status;
    status = meet(session, status);
    fb3_run_watch_end(run);
    if (status == FB3_STOPPED) return fb3_run_last_page(run, status);
    FB3_TRY(status);
    if (!session->root) run->trained_samples = 0; /* every rank has counted its group's */
    FB3_TRY(fb3_comm_sum_double(session->world, &run->trained_samples, 1, "counting samples"));
    FB3_TRY(fb3_comm_agree(session->world, session->first ? fb3_summarise(run) : FB3_OK, "pooling the folds"));
    return fb3_run_last_page(run, FB3_OK);
}

static fb3_status train_once(fb3_session *session)
{
    fb3_run run;
    fb3_status status = fb3_run_open(&run, session);
    if (status == FB3_OK) status = session->config->dry_run ? fb3_run_print_plan(&run) : train(&run);
    fb3_run_close(&run);
    fb3_status traced = fb3_trace_finish(); /* of a stopped run, too */
    return status == FB3_OK ? fb3_comm_agree(session->world, traced, "writing the trace") : status;
}

fb3_status fb3_train(fb3_session *session)
{
    FB3_TRY(fb3_signals_catch());
    return session->config->seeds ? fb3_train_seeds(session, train_once) : train_once(session);
}
