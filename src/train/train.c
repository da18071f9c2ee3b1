/* The main job: folds one after another, then the scores. */
#include "fb3/log.h"
#include "fb3/trace.h"
#include "fb3/train.h"

static fb3_status train_folds(fb3_run *run)
{
    for (int fold = 0; fold < run->folds; fold++) {
        bool complete;
        if (!run->selected[fold]) continue;
        FB3_TRY(fb3_fold_complete(run, fold, &complete));
        if (complete) {
            fb3_log_info("fold %d is complete already", fold);
            continue;
        }
        fb3_status status = fb3_fold_train(run, fold);
        if (status != FB3_OK && status != FB3_STOPPED) return fb3_fail_context(status, "fold %d", fold);
        FB3_TRY(status);
    }
    fb3_status mine = run->session->root ? fb3_summarise(run) : FB3_OK;
    return fb3_comm_agree(run->session->comm, mine, "pooling the folds");
}

fb3_status fb3_train(fb3_session *session)
{
    fb3_run run;
    FB3_TRY(fb3_signals_catch());
    fb3_status status = fb3_run_open(&run, session);
    if (status == FB3_OK) status = session->config->dry_run ? fb3_run_print_plan(&run) : train_folds(&run);
    fb3_run_close(&run);
    fb3_status traced = fb3_trace_finish(); /* of a stopped run, too */
    return status == FB3_OK ? fb3_comm_agree(session->comm, traced, "writing the trace") : status;
}
