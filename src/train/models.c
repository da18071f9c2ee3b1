/* Trained models on disk: the checkpoints of a run, and what `export` made of them. */
#include "fb3/artifact.h"
#include "fb3/file.h"
#include "fb3/run_directory.h"
#include "fb3/train.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Adds `path` (taken over; NULL: out of memory) when that file is there; *found says so. */
static fb3_status add_if_there(fb3_strings *models, char *path, bool *found)
{
    FB3_REQUIRE(path, FB3_FAILED, "out of memory");
    *found = fb3_file_exists(path);
    fb3_status status = *found ? fb3_strings_add(models, path) : FB3_OK;
    free(path);
    return status;
}

static fb3_status add_folds(fb3_strings *models, const char *run_directory)
{
    int before = models->count;
    for (int fold = 0; fold < FB3_MAX_FOLDS; fold++) {
        bool found;
        FB3_TRY(add_if_there(models, fb3_fold_path(run_directory, fold, "best.h5"), &found));
    }
    FB3_REQUIRE(models->count > before, FB3_INPUT, "%s has no fold-<k>/best.h5; train it first", run_directory);
    return FB3_OK;
}

/* Of a run of seeds all folds of all seeds. */
static fb3_status add_runs(fb3_strings *models, const char *path)
{
    fb3_strings runs = {0};
    fb3_status status = fb3_run_directories_add(&runs, path);
    for (int i = 0; status == FB3_OK && i < runs.count; i++) {
        if (fb3_run_directory_exists(runs.item[i]))
            status = add_folds(models, runs.item[i]);
        else
            status = fb3_fail(FB3_INPUT,
                              "%s is neither a run directory (run.yaml), nor a fold (best.h5), nor an exported model "
                              "(config.json)",
                              path);
    }
    fb3_strings_free(&runs);
    return status;
}

static fb3_status add_path(fb3_strings *models, const char *path)
{
    bool found;
    if (!fb3_folder_exists(path)) {
        FB3_REQUIRE(fb3_file_exists(path), FB3_INPUT,
                    "%s is not there; give a run directory, a checkpoint or an exported "
                    "directory",
                    path);
        return fb3_strings_add(models, path);
    }
    FB3_TRY(add_if_there(models, fb3_path_join(path, "best.h5"), &found));
    if (found) return FB3_OK;
    char *config = fb3_path_join(path, "config.json");
    bool is_export = config && fb3_file_exists(config);
    free(config);
    return is_export ? fb3_strings_add(models, path) : add_runs(models, path);
}

fb3_status fb3_models_find(fb3_strings *models, const fb3_strings *paths)
{
    *models = (fb3_strings){0};
    for (int i = 0; i < paths->count; i++) {
        fb3_status status = add_path(models, paths->item[i]);
        if (status != FB3_OK) {
            fb3_strings_free(models);
            return status;
        }
    }
    return FB3_OK;
}

void fb3_model_info_free(fb3_model_info *info)
{
    fb3_strings_free(&info->labels);
    fb3_tokenizer_close(info->tokenizer);
    *info = (fb3_model_info){0};
}

char *fb3_labels_json(const fb3_strings *labels)
{
    json_t *array = json_array();
    for (int y = 0; y < labels->count; y++) json_array_append_new(array, json_string(labels->item[y]));
    char *text = json_dumps(array, JSON_COMPACT);
    json_decref(array);
    return text;
}

static fb3_status parse_labels(fb3_strings *labels, const char *json, const char *path)
{
    json_t *array = json_loads(json, 0, NULL), *label;
    size_t index;
    fb3_status status = FB3_OK;
    if (!json_is_array(array)) status = fb3_fail(FB3_INPUT, "%s: label_columns is not a list", path);
    json_array_foreach(array, index, label)
    {
        const char *text = json_string_value(label);
        if (status == FB3_OK && !text) status = fb3_fail(FB3_INPUT, "%s: a label column has no name", path);
        if (status == FB3_OK) status = fb3_strings_add(labels, text);
    }
    json_decref(array);
    return status;
}

static fb3_status open_checkpoint(fb3_model_file *file)
{
    void *spm;
    size_t bytes;
    FB3_TRY(fb3_checkpoint_open(&file->checkpoint, file->path));
    const fb3_checkpoint_state *state = fb3_checkpoint_state_of(file->checkpoint);
    file->info.model = *fb3_checkpoint_model(file->checkpoint);
    file->info.targets = fb3_checkpoint_targets(file->checkpoint);
    file->info.max_length = state->max_length;
    FB3_TRY(parse_labels(&file->info.labels, state->label_columns, file->path));
    FB3_REQUIRE(file->info.labels.count == file->info.targets, FB3_INPUT, "%s has %d targets and %d label columns",
                file->path, file->info.targets, file->info.labels.count);
    FB3_TRY(fb3_checkpoint_tokenizer(file->checkpoint, &spm, &bytes));
    fb3_status status = fb3_tokenizer_open_memory(&file->info.tokenizer, spm, bytes);
    free(spm);
    return status;
}

static fb3_status open_export(fb3_model_file *file)
{
    FB3_TRY(fb3_artifact_check(file->path));
    FB3_TRY(fb3_hf_open(&file->hf, file->path));
    FB3_REQUIRE(file->hf->has_head, FB3_INPUT,
                "%s has no head (fc.weight, fc.bias): it is an encoder that was not "
                "fine-tuned by fb3-dist",
                file->path);
    file->info.model = file->hf->model;
    file->info.targets = file->hf->targets;
    file->info.max_length = file->hf->max_length;
    if (file->hf->label_names) FB3_TRY(parse_labels(&file->info.labels, file->hf->label_names, file->path));
    return fb3_tokenizer_open(&file->info.tokenizer, file->path);
}

fb3_status fb3_model_file_open(fb3_model_file *file, const char *path)
{
    *file = (fb3_model_file){.path = strdup(path)};
    FB3_REQUIRE(file->path, FB3_FAILED, "out of memory");
    fb3_status status = fb3_folder_exists(path) ? open_export(file) : open_checkpoint(file);
    if (status != FB3_OK) fb3_model_file_close(file);
    return status;
}

void fb3_model_file_close(fb3_model_file *file)
{
    fb3_checkpoint_close(file->checkpoint);
    fb3_hf_close(file->hf);
    fb3_model_info_free(&file->info);
    free(file->path);
    *file = (fb3_model_file){0};
}

fb3_status fb3_model_file_weights(const fb3_model_file *file, const fb3_param_table *table, fb3_weights *weights)
{
    bool has_head = true;
    FB3_TRY(fb3_weights_alloc(weights, table));
    fb3_status status = file->checkpoint ? fb3_checkpoint_read_weights(file->checkpoint, table, weights)
                                         : fb3_hf_load_weights(file->hf, table, weights, &has_head);
    if (status != FB3_OK) fb3_weights_free(weights);
    return status;
}

/* --- export ------------------------------------------------------------------------------------------------------- */

/* All word rows are wanted, so one active row is enough for the table: the whole table travels beside the arena. */
enum { NO_ACTIVE_ROWS = 1 };

fb3_status fb3_model_file_export(const fb3_model_file *file, fb3_export_format format, fb3_export_dtype dtype,
                                 int max_length, const char *directory)
{
    fb3_param_table *table = NULL;
    fb3_weights weights = {0};
    fb3_status status = FB3_OK;
    char *labels = fb3_labels_json(&file->info.labels);
    fb3_export export = {.weights = &weights,
                         .label_names = labels,
                         .dtype = dtype,
                         .max_length = file->info.max_length > 0 ? file->info.max_length : max_length};
    FB3_REQUIRE_GOTO(labels, done, FB3_FAILED, "out of memory");
    FB3_TRY_GOTO(fb3_param_table_create(&table, &file->info.model, NO_ACTIVE_ROWS, file->info.targets), done);
    FB3_TRY_GOTO(fb3_model_file_weights(file, table, &weights), done);
    export.table = table;
    export.spm = fb3_tokenizer_model(file->info.tokenizer, &export.spm_bytes);
    status = format == FB3_EXPORT_TORCH ? fb3_export_torch(&export, directory) : fb3_export_hf(&export, directory);
done:
    fb3_weights_free(&weights);
    fb3_param_table_free(table);
    free(labels);
    return status;
}
