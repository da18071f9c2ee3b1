/* The configuration of a run, and the one option table it comes from (DESIGN 5.6).
 *
 * src/base/options.c holds the table: key, aliases, type, default, range, the verbs that know it, what it means. The
 * command line, the YAML reader, the environment, --help, "did you mean", the text stored in a checkpoint and the check
 * on resume are all loops over that table; no other list of keys exists.
 * Precedence: command line, YAML, environment FB3_KEY, default. */
#ifndef FB3_CONFIG_H
#define FB3_CONFIG_H

#include "fb3/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum fb3_strategy { FB3_STRATEGY_NO, FB3_STRATEGY_EPOCH, FB3_STRATEGY_STEPS } fb3_strategy;
typedef enum fb3_tristate { FB3_AUTO = -1, FB3_OFF = 0, FB3_ON = 1 } fb3_tristate;
typedef enum fb3_device { FB3_DEVICE_AUTO, FB3_DEVICE_CPU, FB3_DEVICE_CUDA } fb3_device;
#define FB3_RMSE_EPSILON 1e-9 /* under the root of the rmse losses, as in the reference recipe */
typedef enum fb3_loss_kind {
    FB3_LOSS_RMSE, /* mean over elements of sqrt((p-t)^2 + epsilon): the notebook's RMSELoss, alias l1_eps */
    FB3_LOSS_MSE,
    FB3_LOSS_L1,
    FB3_LOSS_SMOOTH_L1,
    FB3_LOSS_MCRMSE, /* mean over targets of sqrt(mse over the global batch + epsilon) */
} fb3_loss_kind;
typedef enum fb3_scheduler {
    FB3_SCHEDULER_LINEAR,
    FB3_SCHEDULER_COSINE,
    FB3_SCHEDULER_CONSTANT,
    FB3_SCHEDULER_CONSTANT_WITH_WARMUP,
    FB3_SCHEDULER_POLYNOMIAL,
} fb3_scheduler;
typedef enum fb3_fold_method { FB3_FOLD_ITERSTRAT_COMPAT, FB3_FOLD_BINNED } fb3_fold_method;
typedef enum fb3_attention_impl { FB3_ATTENTION_AUTO, FB3_ATTENTION_FUSED, FB3_ATTENTION_REFERENCE } fb3_attention_impl;
typedef enum fb3_bind { FB3_BIND_AUTO, FB3_BIND_KEEP } fb3_bind;
typedef enum fb3_resume { FB3_RESUME_AUTO, FB3_RESUME_NEVER, FB3_RESUME_PATH } fb3_resume;
typedef enum fb3_export_format { FB3_EXPORT_HF, FB3_EXPORT_TORCH } fb3_export_format;
typedef enum fb3_export_dtype { FB3_EXPORT_FLOAT32, FB3_EXPORT_FLOAT16, FB3_EXPORT_BFLOAT16 } fb3_export_dtype;

/* A list of strings: label_columns, paths on the command line, train_folds as text. */
typedef struct fb3_strings {
    char **item; /* [count], owned */
    int count;
} fb3_strings;

/* Unset numbers: integers are FB3_UNSET_INT, reals are NaN, strings are NULL (never ""). */
#define FB3_UNSET_INT INT64_MIN

typedef struct fb3_config {
    /* model */
    char *model_name_or_path, *model_revision, *model_preset, *tokenizer;
    char *init; /* "random" or NULL */
    /* data */
    fb3_strings train_file; /* one or several */
    char *test_file, *validation_file, *id_column, *text_column;
    fb3_strings label_columns;
    char *output_dir;
    int64_t max_length;
    int64_t max_train_samples, max_eval_samples, max_predict_samples;
    /* batch and length of training */
    int64_t per_device_train_batch_size, per_device_eval_batch_size, gradient_accumulation_steps;
    int64_t total_train_batch_size; /* FB3_UNSET_INT until resolved for the world */
    double num_train_epochs;
    int64_t max_steps; /* -1: by epochs */
    /* optimizer */
    double learning_rate, weight_decay, adam_beta1, adam_beta2, adam_epsilon, max_grad_norm;
    fb3_scheduler lr_scheduler_type;
    char *lr_scheduler_kwargs; /* JSON object */
    double warmup_ratio, warmup_steps;
    fb3_loss_kind loss_type;
    double smooth_l1_beta;
    double hidden_dropout_prob, attention_probs_dropout_prob, head_dropout;
    /* folds and order */
    int64_t folds;
    fb3_fold_method fold_method;
    char *folds_file, *fold_column;
    char *seeds;         /* "42,43,44"; NULL: one run, of `seed` */
    char *train_folds;   /* "all" or "0,2" */
    int64_t fold_groups; /* FB3_UNSET_INT: auto */
    bool group_by_length;
    int64_t seed, data_seed; /* data_seed FB3_UNSET_INT: seed */
    /* evaluation and checkpoints */
    fb3_strategy eval_strategy, save_strategy;
    double eval_steps, eval_delay, save_steps; /* steps; below 1: a share of training; NaN: unset */
    int64_t save_total_limit;
    bool save_only_model, save_initial, load_best_model_at_end;
    char *metric_for_best_model;
    int64_t early_stopping_patience; /* FB3_UNSET_INT: off */
    /* machine */
    fb3_tristate bf16;
    bool fp16, gradient_checkpointing, use_cpu;
    fb3_device device;
    bool reproducible;
    int64_t reproducible_leaves;
    fb3_attention_impl attention_impl;
    bool tf32;
    int64_t max_nonfinite_steps;
    fb3_bind bind;
    char *profile;
    int64_t ddp_timeout, stop_before_end; /* seconds */
    /* reporting */
    fb3_strings report_to;
    char *wandb_project, *wandb_entity, *wandb_group, *wandb_notes, *wandb_dir, *run_name;
    fb3_strings wandb_tags;
    int64_t logging_steps;
    bool log_samples;
    fb3_resume resume;
    char *resume_path;
    /* verbs */
    bool debug, dry_run, quiet, help, version, json, full_length, watch;
    char *output, *output_file, *sample_submission, *embeddings_file, *clip_predictions;
    bool per_fold;
    fb3_strings artifact;
    fb3_export_format format;
    fb3_export_dtype dtype;
    /* what was given on the command line besides options */
    char *verb;                /* "train" when none was given */
    char *config_file;         /* the YAML, or NULL */
    fb3_strings arguments;     /* positional words after the verb that are not the YAML: checkpoints, run directories */
    struct fb3_origin *origin; /* where each key came from: parallel to the option table, owned by src/base */
} fb3_config;

/* Reads environment, YAML and command line into *config (all defaults filled in, every value checked against the
 * table and the verb). `argv[0]` is skipped. FB3_INPUT with one line naming file:line or the option, with a "did you
 * mean" where a near or synonymous key exists. A missing ./fb3.yaml is reported with `fb3-dist init` only when nothing
 * else was given. On failure *config is still safe to free. */
fb3_status fb3_config_parse(fb3_config *config, int argc, char **argv);
void fb3_config_free(fb3_config *config);

/* Defaults, then the YAML `text` (a run.yaml, the `config` of a checkpoint; `what` names it in errors). Neither the
 * environment nor a command line takes part. On failure *config is still safe to free. */
fb3_status fb3_config_load_text(fb3_config *config, const char *text, const char *what);

/* True when the user gave the key (command line, YAML or environment), by its canonical name. */
bool fb3_config_given(const fb3_config *config, const char *key);

/* Names the first key set to something that this build does not do yet ("device: cuda is not in this build yet; ...").
 * FB3_INPUT then. One list, shrinking with every issue. */
fb3_status fb3_config_check_supported(const fb3_config *config);

/* The resolved configuration as YAML text, keys in table order; parsing it gives the same configuration. Stored in
 * run.yaml and in checkpoints. Left out: what concerns one call only (resume, debug, output_file, ...), and
 * gradient_accumulation_steps where it was not given, since it follows from total_train_batch_size and the ranks.
 * Caller frees; NULL: out of memory. */
char *fb3_config_text(const fb3_config *config);

/* The same as a JSON object: numbers, booleans, lists and maps as such, words and paths as texts, null for what is not
 * set. Caller frees; NULL: out of memory. */
char *fb3_config_json(const fb3_config *config);

/* Compares a stored text with `now`: FB3_INPUT naming the first key that differs and may not change on resume (the
 * table says which may). Paths are not compared here: their content hashes are (dataset, weights). */
fb3_status fb3_config_check_resume(const char *stored_text, const fb3_config *now);

/* Help for a verb (or the whole program when NULL), from the table, on standard output. */
void fb3_config_help(const char *verb);

/* The commented fb3.yaml of `fb3-dist init`, from the table. Caller frees. */
char *fb3_config_template(void);

/* Called for each key that differs between stored configurations, with its value in each; NULL where it is not there.
 */
typedef fb3_status (*fb3_config_difference)(void *context, const char *key, const char *const *values);
fb3_status fb3_config_differences(const char *const *texts, int count, fb3_config_difference visit, void *context);

/* The path of a data set that was prepared before: it ends in .h5. */
bool fb3_is_prepared(const char *path);

/* Steps for a *_steps value: below 1 it is a share of `total_steps`, rounded up. */
int64_t fb3_config_steps(double value, int64_t total_steps);

/* train_folds as flags: selected[f] for f in 0..folds-1. FB3_INPUT for a fold out of range or a malformed list. */
fb3_status fb3_config_train_folds(const fb3_config *config, int folds, bool *selected);

void fb3_strings_free(fb3_strings *strings);
fb3_status fb3_strings_add(fb3_strings *strings, const char *text);

#endif
