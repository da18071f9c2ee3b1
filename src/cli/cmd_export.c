/* fb3-dist export CHECKPOINT|RUN_DIR --output DIR: a directory that Hugging Face's classes, or the notebook, load. A
 * run directory gives one directory per fold: DIR/fold-<k>; a run of seeds, DIR/seed-<n>/fold-<k>. */
#include "cli.h"
#include "fb3/file.h"
#include "fb3/log.h"

#include <stdlib.h>
#include <string.h>

static fb3_status export_model(const fb3_config *config, const char *path, const char *directory)
{
    fb3_model_file file;
    FB3_TRY(fb3_model_file_open(&file, path));
    fb3_status status = fb3_model_file_export(&file, config->format, config->dtype, (int)config->max_length, directory);
    fb3_model_file_close(&file);
    if (status == FB3_OK) fb3_log_info("%s is exported to %s", path, directory);
    return status;
}

/* "<run>/fold-2/best.h5" of `run`, or "<run>/seed-1/fold-2/best.h5", goes to "<output>/fold-2", or
 * "<output>/seed-1/fold-2". Caller frees. */
static char *fold_directory(const char *output, const char *run, const char *model)
{
    const char *name = model + strlen(run), *slash = strrchr(name, '/');
    while (*name == '/') name++;
    return fb3_format("%s/%.*s", output, (int)(slash - name), name);
}

static fb3_status export_folds(const fb3_config *config, const char *run, const fb3_strings *models)
{
    for (int m = 0; m < models->count; m++) {
        char *directory = fold_directory(config->output, run, models->item[m]);
        FB3_REQUIRE(directory, FB3_FAILED, "out of memory");
        fb3_status status = export_model(config, models->item[m], directory);
        free(directory);
        FB3_TRY(status);
    }
    return FB3_OK;
}

fb3_status cmd_export(fb3_config *config)
{
    fb3_strings models;
    FB3_REQUIRE(config->arguments.count > 0, FB3_INPUT, "export needs a checkpoint or a run directory");
    FB3_REQUIRE(config->output, FB3_INPUT, "export needs --output DIR");
    FB3_TRY(fb3_models_find(&models, &config->arguments));
    fb3_status status = models.count == 1 ? export_model(config, models.item[0], config->output)
                                          : export_folds(config, config->arguments.item[0], &models);
    fb3_strings_free(&models);
    return status;
}
