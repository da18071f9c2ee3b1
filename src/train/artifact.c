/* The model of a fold that is over, as a directory for those who keep models: <output_dir>/artifacts/FB3-fold-<k>. It
 * is made before the fold is called complete, so that a run which is killed here makes it again. */
#include "fold_run.h"

#include "fb3/artifact.h"
#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/run_directory.h"

#include <stdlib.h>

char *fb3_run_artifact_path(const fb3_run *run, int fold)
{
    return fb3_format("%s/artifacts/FB3-fold-%d", run->config->output_dir, fold);
}

static fb3_status export_best(const fb3_fold_run *f, const char *best, const char *directory)
{
    fb3_model_file file;
    FB3_TRY(fb3_folder_remove(directory));
    FB3_TRY(fb3_model_file_open(&file, best));
    fb3_status status =
        fb3_model_file_export(&file, FB3_EXPORT_TORCH, FB3_EXPORT_FLOAT32, (int)f->run->config->max_length, directory);
    fb3_model_file_close(&file);
    FB3_TRY(status);
    return fb3_artifact_write_manifest(directory);
}

/* On the I/O worker, which owns HDF5. */
static fb3_status make_artifact(void *context)
{
    const fb3_fold_run *f = context;
    char *best = fb3_fold_path(f->run->config->output_dir, f->fold, "best.h5"),
         *directory = fb3_run_artifact_path(f->run, f->fold);
    fb3_status status = best && directory ? export_best(f, best, directory) : fb3_fail(FB3_FAILED, "out of memory");
    free(best);
    free(directory);
    return status;
}

static void record_artifact(fb3_fold_run *f)
{
    const fb3_checkpoint_state *state = &f->state;
    char *directory = fb3_run_artifact_path(f->run, f->fold);
    fb3_model_record model = {.fold = f->fold,
                              .step = state->best_step > 0 ? state->best_step : state->step,
                              .score = state->best_metric,
                              .directory = directory};
    if (directory) fb3_track_model(&f->writer.track, &model);
    free(directory);
}

void fb3_fold_keep_model(fb3_fold_run *f)
{
    if (!f->is_writer || !fb3_track_keeps_models(f->run->config)) return;
    fb3_comm *comm = f->run->session->comm;
    fb3_comm_watch_begin(comm, "exporting the model", f->state.step);
    fb3_status status = fb3_worker_run(f->run->session->io, make_artifact, f);
    fb3_comm_watch_end(comm);
    if (status == FB3_OK)
        record_artifact(f);
    else
        fb3_log_warn("the model of fold %d is not exported for report_to: %s", f->fold, fb3_error_text());
}
