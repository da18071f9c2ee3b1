/* What no single row of the option table can say: keys that need or exclude each other, and what this build leaves to
 * later ones. */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TARGETS = 64, NAME_BYTES = 160, SHOWN = 60 };

/* --- model and machine -------------------------------------------------------------------------------------------- */

static fb3_status check_preset(const fb3_config *config)
{
    static const char *const PRESETS[] = {"deberta-v3-xsmall", "deberta-v3-small", "deberta-v3-base",
                                          "deberta-v3-large", "tiny"};
    enum { PRESET_COUNT = sizeof PRESETS / sizeof *PRESETS };
    for (int i = 0; i < PRESET_COUNT; i++)
        if (strcmp(config->model_preset, PRESETS[i]) == 0) return FB3_OK;
    const char *near = fb3_nearest(config->model_preset, PRESETS, PRESET_COUNT);
    return fb3_config_refuse(config, "model_preset",
                             "'%.*s' is no preset; give deberta-v3-xsmall, -small, -base, -large or tiny%s%s%s", SHOWN,
                             config->model_preset, near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

static fb3_status check_model(const fb3_config *config)
{
    if (config->init && strcmp(config->init, "random") != 0)
        return fb3_config_refuse(config, "init", "'%.*s' is unknown; give random, or leave it out", SHOWN,
                                 config->init);
    if (config->model_preset) FB3_TRY(check_preset(config));
    if (config->model_preset && config->model_name_or_path)
        return fb3_config_refuse(config, "model_preset", "contradicts model_name_or_path; keep one of them");
    if (config->model_preset && !config->init && strcmp(config->verb, "bench") != 0) /* bench learns nothing */
        return fb3_config_refuse(config, "model_preset", "has random weights; add init: random if that is meant");
    if (config->init && !config->model_preset)
        return fb3_config_refuse(config, "init",
                                 "random weights need a model_preset; add model_preset: deberta-v3-base "
                                 "or another, or leave init out");
    return FB3_OK;
}

static fb3_status check_machine(fb3_config *config)
{
    if (config->fp16) return fb3_config_refuse(config, "fp16", "DeBERTa's scores overflow in half precision; use bf16");
    if (!config->use_cpu) return FB3_OK;
    if (config->device == FB3_DEVICE_CUDA)
        return fb3_config_refuse(config, "use_cpu", "true contradicts device: cuda; keep one of them");
    config->device = FB3_DEVICE_CPU;
    return FB3_OK;
}

/* --- data and folds ----------------------------------------------------------------------------------------------- */

static fb3_status check_columns(const fb3_config *config)
{
    const fb3_strings *labels = &config->label_columns;
    if (labels->count > MOST_TARGETS)
        return fb3_config_refuse(config, "label_columns", "%d columns; at most %d are trained together", labels->count,
                                 MOST_TARGETS);
    if (strcmp(config->id_column, config->text_column) == 0)
        return fb3_config_refuse(config, "id_column", "'%.*s' is the text_column too; name two columns", SHOWN,
                                 config->id_column);
    for (int y = 0; y < labels->count; y++) {
        const char *label = labels->item[y];
        if (strcmp(label, config->id_column) == 0 || strcmp(label, config->text_column) == 0)
            return fb3_config_refuse(config, "label_columns",
                                     "'%.*s' is the id_column or the text_column; name score "
                                     "columns",
                                     SHOWN, label);
    }
    return FB3_OK;
}

static bool folds_are_read(const fb3_config *config)
{
    return config->folds_file || config->fold_column || config->validation_file;
}

static fb3_status check_folds(const fb3_config *config)
{
    if (config->folds_file && config->fold_column)
        return fb3_config_refuse(config, "folds_file", "contradicts fold_column; keep one of them");
    if (config->validation_file && (config->folds_file || config->fold_column))
        return fb3_config_refuse(config, "validation_file", "replaces cross-validation; leave %s out",
                                 config->folds_file ? "folds_file" : "fold_column");
    bool *selected = folds_are_read(config) ? NULL : calloc((size_t)config->folds, sizeof *selected);
    if (!selected) return FB3_OK; /* how many there are is known later */
    fb3_status status = fb3_config_train_folds(config, (int)config->folds, selected);
    free(selected);
    return status;
}

fb3_status fb3_config_train_folds(const fb3_config *config, int folds, bool *selected)
{
    const char *text = config->train_folds;
    bool all = strcmp(text, "all") == 0;
    for (int f = 0; f < folds; f++) selected[f] = all;
    while (!all && *text) {
        char *end = NULL;
        long fold = strtol(text, &end, 10);
        if (end == text || (*end && *end != ','))
            return fb3_config_refuse(config, "train_folds", "'%.*s' is no list; give all, or numbers like 0,2", SHOWN,
                                     config->train_folds);
        if (fold < 0 || fold >= folds)
            return fb3_config_refuse(config, "train_folds", "there is no fold %ld; the %d fold(s) are numbered from 0",
                                     fold, folds);
        selected[fold] = true;
        text = end + (*end == ',');
    }
    return FB3_OK;
}

/* --- schedule and evaluation -------------------------------------------------------------------------------------- */

/* A word of lr_scheduler_kwargs and the schedule that reads it. */
static const struct kwarg_owner {
    const char *name;
    fb3_scheduler scheduler;
} KWARG_OWNERS[] = {
    {"num_cycles", FB3_SCHEDULER_COSINE}, {"power", FB3_SCHEDULER_POLYNOMIAL}, {"lr_end", FB3_SCHEDULER_POLYNOMIAL}};

static fb3_status check_schedule(const fb3_config *config)
{
    for (size_t i = 0; i < sizeof KWARG_OWNERS / sizeof *KWARG_OWNERS; i++) {
        const struct kwarg_owner *owner = &KWARG_OWNERS[i];
        if (!strstr(config->lr_scheduler_kwargs, owner->name) || config->lr_scheduler_type == owner->scheduler)
            continue;
        return fb3_config_refuse(config, "lr_scheduler_kwargs",
                                 "this lr_scheduler_type takes no %s; cosine takes "
                                 "num_cycles, polynomial takes power and lr_end",
                                 owner->name);
    }
    return FB3_OK;
}

static fb3_status check_strategies(const fb3_config *config)
{
    bool evaluates = config->eval_strategy != FB3_STRATEGY_NO && (config->folds > 1 || folds_are_read(config));
    if (config->eval_steps > 0 && config->eval_strategy != FB3_STRATEGY_STEPS)
        return fb3_config_refuse(config, "eval_steps",
                                 "has no effect without eval_strategy: steps; add that or leave "
                                 "it out");
    if (config->save_steps > 0 && config->save_strategy != FB3_STRATEGY_STEPS)
        return fb3_config_refuse(config, "save_steps",
                                 "has no effect without save_strategy: steps; add that or leave "
                                 "it out");
    if (config->early_stopping_patience != FB3_UNSET_INT && !evaluates)
        return fb3_config_refuse(config, "early_stopping_patience",
                                 "nothing is evaluated (eval_strategy: no, or one "
                                 "fold); set eval_strategy or leave it out");
    return FB3_OK;
}

/* "cohesion" -> "eval_COHESION_RMSE" */
static void metric_name(const char *label, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "eval_%.*s_RMSE", NAME_BYTES / 2, label);
    for (char *c = name + strlen("eval_"); *c; c++)
        if (*c >= 'a' && *c <= 'z') *c = (char)(*c - 'a' + 'A');
}

/* As in TrainingArguments, "eval_" may be left out; the stored name has it. */
static fb3_status complete_metric(fb3_config *config)
{
    char wanted[NAME_BYTES], name[NAME_BYTES];
    bool prefixed = strncmp(config->metric_for_best_model, "eval_", strlen("eval_")) == 0;
    snprintf(wanted, sizeof wanted, "%s%s", prefixed ? "" : "eval_", config->metric_for_best_model);
    bool known = strcasecmp(wanted, "eval_MCRMSE") == 0 || strcmp(wanted, "eval_loss") == 0;
    snprintf(name, sizeof name, "%s", strcmp(wanted, "eval_loss") == 0 ? "eval_loss" : "eval_MCRMSE");
    for (int y = 0; y < config->label_columns.count && !known; y++) {
        metric_name(config->label_columns.item[y], name);
        known = strcasecmp(wanted, name) == 0;
    }
    if (!known)
        return fb3_config_refuse(config, "metric_for_best_model",
                                 "'%.*s' is no metric; give eval_MCRMSE, eval_loss or eval_<TARGET>_RMSE", SHOWN,
                                 config->metric_for_best_model);
    char *copy = strdup(name);
    FB3_REQUIRE(copy, FB3_FAILED, "out of memory for the configuration; free memory and run again");
    free(config->metric_for_best_model);
    config->metric_for_best_model = copy;
    return FB3_OK;
}

/* --- reports and output ------------------------------------------------------------------------------------------- */

static fb3_status check_trackers(const fb3_config *config)
{
    static const char *const TRACKERS[] = {"none", "tensorboard", "wandb"};
    enum { TRACKER_COUNT = sizeof TRACKERS / sizeof *TRACKERS };
    for (int i = 0; i < config->report_to.count; i++) {
        const char *name = config->report_to.item[i];
        bool known = false;
        for (int t = 0; t < TRACKER_COUNT; t++) known |= strcmp(name, TRACKERS[t]) == 0;
        if (!known)
            return fb3_config_refuse(config, "report_to",
                                     "'%.*s' is unknown; give none, tensorboard, wandb, or the "
                                     "last two",
                                     SHOWN, name);
        if (strcmp(name, "none") == 0 && config->report_to.count > 1)
            return fb3_config_refuse(config, "report_to", "none and a tracker contradict each other; keep one");
    }
    return FB3_OK;
}

static fb3_status check_clip(const fb3_config *config)
{
    if (!config->clip_predictions) return FB3_OK;
    char *end = NULL;
    double low = strtod(config->clip_predictions, &end), high = *end == ',' ? strtod(end + 1, &end) : low;
    if (*end || !(low < high))
        return fb3_config_refuse(config, "clip_predictions",
                                 "'%.*s' is no range; give the lower and the upper bound, "
                                 "such as 1,5",
                                 SHOWN, config->clip_predictions);
    return FB3_OK;
}

/* --- what a verb cannot do without -------------------------------------------------------------------------------- */

bool fb3_is_prepared(const char *path)
{
    size_t length = strlen(path);
    return length > 3 && strcasecmp(path + length - 3, ".h5") == 0;
}

/* Text is tokenised into one data set of the run; data sets are read where they are. */
static fb3_status check_train_files(const fb3_config *config)
{
    const fb3_strings *files = &config->train_file;
    for (int i = 1; i < files->count; i++) {
        if (fb3_is_prepared(files->item[i]) != fb3_is_prepared(files->item[0]))
            return fb3_config_refuse(config, "train_file",
                                     "%.*s and %.*s are of two kinds; give CSV files only, or prepared .h5 files only",
                                     SHOWN, files->item[0], SHOWN, files->item[i]);
    }
    return FB3_OK;
}

static fb3_status check_needs(const fb3_config *config, const fb3_verb *verb)
{
    bool trains = verb->bit == VERB_TRAIN, tokenises = trains || verb->bit == VERB_PREPARE;
    if (!verb->reads_default) return FB3_OK;
    FB3_REQUIRE(config->train_file.count > 0, FB3_INPUT,
                "train_file is not set; give --train_file train.csv or a line in the YAML");
    FB3_REQUIRE(!trains || config->model_name_or_path || config->model_preset, FB3_INPUT,
                "no model: set model_name_or_path to a Hugging Face directory or hub name, or model_preset with init: "
                "random to start from random weights");
    bool has_tokenizer = config->tokenizer || config->model_name_or_path || fb3_is_prepared(config->train_file.item[0]);
    FB3_REQUIRE(!tokenises || has_tokenizer, FB3_INPUT,
                "no tokenizer: set tokenizer to a directory with spm.model or to that file");
    return FB3_OK;
}

fb3_status fb3_config_check(fb3_config *config, const fb3_verb *verb)
{
    FB3_TRY(check_machine(config));
    FB3_TRY(check_model(config));
    FB3_TRY(check_columns(config));
    FB3_TRY(check_train_files(config));
    FB3_TRY(check_folds(config));
    FB3_TRY(check_schedule(config));
    FB3_TRY(check_strategies(config));
    FB3_TRY(complete_metric(config));
    FB3_TRY(check_trackers(config));
    FB3_TRY(check_clip(config));
    return verb->built ? check_needs(config, verb) : FB3_OK;
}
