/* fb3-dist export CHECKPOINT|RUN_DIR --output DIR: a directory that Hugging Face's classes, or the notebook, load. A
 * run directory gives one directory per fold: DIR/fold-<k>. */
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

/* ".../fold-2/best.h5" of a run goes to "<output>/fold-2". Caller frees. */
static char *fold_directory(const char *output, const char *model_path)
{
    const char *slash = strrchr(model_path, '/'), *name = slash;
    while (name && name > model_path && name[-1] != '/') name--;
    return slash ? fb3_format("%s/%.*s", output, (int)(slash - name), name) : fb3_format("%s/%s", output, model_path);
}

fb3_status cmd_export(fb3_config *config)
{
    fb3_strings models;
    fb3_status status = FB3_OK;
    FB3_REQUIRE(config->arguments.count > 0, FB3_INPUT, "export needs a checkpoint or a run directory");
    FB3_REQUIRE(config->output, FB3_INPUT, "export needs --output DIR");
    FB3_TRY(fb3_models_find(&models, &config->arguments));
    if (models.count > 1) FB3_TRY_GOTO(fb3_folder_make(config->output), done);
    for (int m = 0; m < models.count; m++) {
        char *directory = models.count > 1 ? fold_directory(config->output, models.item[m]) : strdup(config->output);
        FB3_REQUIRE_GOTO(directory, done, FB3_FAILED, "out of memory");
        status = export_model(config, models.item[m], directory);
        free(directory);
        FB3_TRY_GOTO(status, done);
    }
done:
    fb3_strings_free(&models);
    return status;
}
