/* The space that a run's files take, known and checked before training begins. */
#include "fb3/run_directory.h"
#include "fb3/train.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

static double weights_bytes(const fb3_run *run)
{
    return (double)run->table->full_parameters * sizeof(float);
}

static double moments_bytes(const fb3_run *run)
{
    return 2.0 * (double)run->table->parameters * sizeof(float);
}

fb3_fold_disk fb3_run_fold_disk(const fb3_run *run)
{
    const double weights = weights_bytes(run), resumable = weights + moments_bytes(run);
    const int64_t limit = run->config->save_total_limit;
    const double kept = limit > 1 ? (double)(limit - 1) : 0;
    const double artifact = fb3_track_keeps_models(run->config) ? weights : 0;
    return (fb3_fold_disk){
        /* best.h5; last.h5, previous.h5 and what is being written */
        .training = weights + (3 + kept) * resumable + artifact,
        .complete = 2 * weights + artifact, /* best.h5 and last.h5 */
    };
}

/* The bytes of the files in `folder`, which is freed. */
static double folder_bytes(char *folder)
{
    double bytes = 0;
    DIR *open = folder ? opendir(folder) : NULL;
    for (const struct dirent *entry; open && (entry = readdir(open));) {
        struct stat file;
        if (fstatat(dirfd(open), entry->d_name, &file, 0) == 0 && S_ISREG(file.st_mode)) bytes += (double)file.st_size;
    }
    if (open) closedir(open);
    free(folder);
    return bytes;
}

/* What there is of a fold already. */
static double present_bytes(const fb3_run *run, int fold)
{
    double bytes = folder_bytes(fb3_fold_path(run->config->output_dir, fold, NULL));
    if (fb3_track_keeps_models(run->config)) bytes += folder_bytes(fb3_run_artifact_path(run, fold));
    return bytes;
}

fb3_status fb3_run_check_disk(const fb3_run *run)
{
    const fb3_fold_disk fold = fb3_run_fold_disk(run);
    struct statvfs system;
    double needed = 0;
    int folds = 0;
    for (int k = 0; k < run->folds; k++) {
        if (run->group_of_fold[k] < 0) continue;
        folds++;
        needed += fold.complete - present_bytes(run, k);
    }
    needed += (folds < run->groups ? folds : run->groups) * (fold.training - fold.complete);
    if (folds == 0 || statvfs(run->config->output_dir, &system) != 0) return FB3_OK;
    const double left = (double)system.f_bavail * (double)system.f_frsize;
    FB3_REQUIRE(
        needed <= left, FB3_FAILED,
        "%s: the checkpoints of %d fold(s) need %.1f MB more, and its file system has %.1f MB left; make room, or "
        "choose another output_dir",
        run->config->output_dir, folds, needed * 1e-6, left * 1e-6);
    return FB3_OK;
}
