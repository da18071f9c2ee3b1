/* The option table: every key of the program, once. A new key is a field in fb3_config and a row here. */
#include "options.h"

#include <string.h>

/* Names of enum values. */

static const option_word LOSSES[] = {
    {"rmse", FB3_LOSS_RMSE}, {"l1_eps", FB3_LOSS_RMSE},         {"mse", FB3_LOSS_MSE},       {"l1", FB3_LOSS_L1},
    {"mae", FB3_LOSS_L1},    {"smooth_l1", FB3_LOSS_SMOOTH_L1}, {"mcrmse", FB3_LOSS_MCRMSE}, {0}};
static const option_word SCHEDULERS[] = {
    {"linear", FB3_SCHEDULER_LINEAR},         {"cosine", FB3_SCHEDULER_COSINE},
    {"constant", FB3_SCHEDULER_CONSTANT},     {"constant_with_warmup", FB3_SCHEDULER_CONSTANT_WITH_WARMUP},
    {"polynomial", FB3_SCHEDULER_POLYNOMIAL}, {0}};
static const option_word STRATEGIES[] = {
    {"no", FB3_STRATEGY_NO}, {"epoch", FB3_STRATEGY_EPOCH}, {"steps", FB3_STRATEGY_STEPS}, {0}};
static const option_word FOLD_METHODS[] = {
    {"iterstrat-compat", FB3_FOLD_ITERSTRAT_COMPAT}, {"binned", FB3_FOLD_BINNED}, {0}};
static const option_word DEVICES[] = {
    {"auto", FB3_DEVICE_AUTO}, {"cpu", FB3_DEVICE_CPU}, {"cuda", FB3_DEVICE_CUDA}, {"gpu", FB3_DEVICE_CUDA}, {0}};
static const option_word ATTENTION[] = {
    {"auto", FB3_ATTENTION_AUTO}, {"fused", FB3_ATTENTION_FUSED}, {"reference", FB3_ATTENTION_REFERENCE}, {0}};
static const option_word BINDS[] = {{"auto", FB3_BIND_AUTO}, {"keep", FB3_BIND_KEEP}, {0}};
static const option_word FORMATS[] = {{"hf", FB3_EXPORT_HF}, {"torch", FB3_EXPORT_TORCH}, {0}};
static const option_word DTYPES[] = {{"float32", FB3_EXPORT_FLOAT32},
                                     {"fp32", FB3_EXPORT_FLOAT32},
                                     {"float16", FB3_EXPORT_FLOAT16},
                                     {"fp16", FB3_EXPORT_FLOAT16},
                                     {"bfloat16", FB3_EXPORT_BFLOAT16},
                                     {"bf16", FB3_EXPORT_BFLOAT16},
                                     {0}};
/* train_sampling_strategy of newer TrainingArguments spells the boolean so. */
static const option_word SAMPLING[] = {{"random", 0}, {"group_by_length", 1}, {0}};
static const option_word ALL_FOLDS[] = {{"all", 0}, {0}};
static const option_word RESUMES[] = {{"auto", FB3_RESUME_AUTO},
                                      {"never", FB3_RESUME_NEVER},
                                      {"true", FB3_RESUME_AUTO},
                                      {"false", FB3_RESUME_NEVER},
                                      {0}};
static const option_word SCHEDULER_KWARGS[] = {{"lr_end", 0}, {"num_cycles", 1}, {"power", 2}, {0}};

/* Which verbs take an option on the command line. */
enum {
    T = VERB_TRAIN,
    DATA = VERB_TRAIN | VERB_PREPARE | VERB_FOLDS,
    SCORING = VERB_PREDICT | VERB_EVALUATE,
    COMPUTING = VERB_TRAIN | VERB_PREDICT | VERB_EVALUATE | VERB_BENCH,
};

/* Largest values that are no typing mistake. */
#define MANY         1e9
#define LONGEST_TEXT 65536
#define MOST_FOLDS   100
#define SEED_MAX     4294967295.0 /* numpy's RandomState takes 32 bits */
#define WEEK         604800       /* seconds */

#define AT(field) .offset = offsetof(fb3_config, field)

/* clang-format off */
const fb3_option fb3_option_table[] = {
    /* model */
    {"model_name_or_path", .type = OPTION_TEXT, AT(model_name_or_path), .flags = OPTION_IS_PATH | OPTION_IN_TEMPLATE,
     .section = SECTION_MODEL, .verbs = T | VERB_PREPARE, .holder = "DIR|NAME", .example = "microsoft/deberta-v3-base",
     .help = "a Hugging Face directory (config.json and model.safetensors or pytorch_model.bin), or a hub name found in the local Hugging Face cache"},
    {"model_revision", .type = OPTION_TEXT, AT(model_revision), .flags = OPTION_IS_PATH,
     .section = SECTION_MODEL, .verbs = T | VERB_PREPARE, .holder = "REVISION", .help = "branch, tag or commit of a hub name"},
    {"model_preset", .type = OPTION_TEXT, AT(model_preset),
     .section = SECTION_MODEL, .verbs = T | VERB_BENCH, .holder = "PRESET",
     .help = "deberta-v3-xsmall, -small, -base, -large or tiny: that shape with random weights; needs init: random and a tokenizer"},
    {"init", .type = OPTION_TEXT, AT(init),
     .section = SECTION_MODEL, .verbs = T | VERB_BENCH, .holder = "random", .help = "random: weights of a model_preset, drawn from seed"},
    {"tokenizer", "tokenizer_name", OPTION_TEXT, AT(tokenizer), .flags = OPTION_IS_PATH,
     .section = SECTION_MODEL, .verbs = T | VERB_PREPARE | SCORING, .holder = "DIR|FILE",
     .help = "a directory with spm.model, or that file; unset: the model's directory"},

    /* data */
    {"train_file", .type = OPTION_LIST, AT(train_file), .flags = OPTION_IS_PATH | OPTION_IN_TEMPLATE,
     .section = SECTION_DATA, .verbs = DATA, .holder = "FILE[,FILE]...", .example = "train.csv",
     .help = "CSV (RFC 4180), or the .h5 that prepare made; several of a kind are one after the other"},
    {"validation_file", .type = OPTION_TEXT, AT(validation_file), .flags = OPTION_IS_PATH | OPTION_STAYS_SET,
     .section = SECTION_DATA, .verbs = T, .holder = "FILE", .help = "evaluate on this CSV or .h5 instead of cross-validation"},
    {"test_file", .type = OPTION_TEXT, AT(test_file), .flags = OPTION_IS_PATH,
     .section = SECTION_DATA, .verbs = T | SCORING, .holder = "FILE", .help = "CSV to predict, or (evaluate) a labelled one to score"},
    {"id_column", .type = OPTION_TEXT, AT(id_column), .fallback = "text_id",
     .section = SECTION_DATA, .verbs = DATA | SCORING, .holder = "COLUMN", .help = "column of the essay's id"},
    {"text_column", .type = OPTION_TEXT, AT(text_column), .fallback = "full_text",
     .section = SECTION_DATA, .verbs = DATA | SCORING, .holder = "COLUMN", .help = "column of the essay"},
    {"label_columns", .type = OPTION_LIST, AT(label_columns),
     .fallback = "cohesion,syntax,vocabulary,phraseology,grammar,conventions",
     .section = SECTION_DATA, .verbs = DATA | SCORING, .holder = "A,B,...", .help = "columns of the scores, one target each"},
    {"max_length", .type = OPTION_INTEGER, AT(max_length), .fallback = "512", .low = 3, .high = LONGEST_TEXT,
     .section = SECTION_DATA, .verbs = T | VERB_PREPARE | VERB_BENCH | SCORING | VERB_EXPORT, .help = "most tokens of an essay, with [CLS] and [SEP]; the rest is cut off"},
    {"max_train_samples", .type = OPTION_INTEGER, AT(max_train_samples), .low = 1, .high = MANY,
     .section = SECTION_DATA, .verbs = DATA, .help = "use only the first so many essays"},
    {"max_eval_samples", .type = OPTION_INTEGER, AT(max_eval_samples), .low = 1, .high = MANY,
     .section = SECTION_DATA, .verbs = T | VERB_EVALUATE, .help = "evaluate on only the first so many of a fold"},
    {"max_predict_samples", .type = OPTION_INTEGER, AT(max_predict_samples), .low = 1, .high = MANY,
     .section = SECTION_DATA, .verbs = T | SCORING, .help = "predict only the first so many of test_file"},

    /* run directory and resume */
    {"output_dir", .type = OPTION_TEXT, AT(output_dir), .fallback = "outputs", .flags = OPTION_IS_PATH | OPTION_IN_TEMPLATE,
     .section = SECTION_RUN, .verbs = DATA | SCORING, .holder = "DIR", .example = "outputs",
     .help = "the run directory; a run that is there is continued, never overwritten by another configuration"},
    {"resume", "resume_from_checkpoint", OPTION_RESUME, AT(resume), .fallback = "auto", .words = RESUMES, .flags = OPTION_INVOCATION,
     .section = SECTION_RUN, .verbs = T, .holder = "auto|never|PATH", .help = "auto continues the run in output_dir; never refuses a directory that holds one; a path is a checkpoint to continue from"},
    {"stop_before_end", .type = OPTION_INTEGER, AT(stop_before_end), .fallback = "180", .low = 0, .high = WEEK, .flags = OPTION_MAY_CHANGE,
     .section = SECTION_RUN, .verbs = T, .holder = "SECONDS", .help = "checkpoint and exit 75 so long before the scheduler's end time (SLURM_JOB_END_TIME)"},

    /* batch and length of training */
    {"per_device_train_batch_size", .type = OPTION_INTEGER, AT(per_device_train_batch_size), .fallback = "8", .low = 1, .high = 65536, .flags = OPTION_SPLIT,
     .section = SECTION_BATCH, .verbs = T | VERB_BENCH, .help = "essays of a rank in one forward pass"},
    {"per_device_eval_batch_size", .type = OPTION_INTEGER, AT(per_device_eval_batch_size), .fallback = "16", .low = 1, .high = 65536,
     .section = SECTION_BATCH, .verbs = T | SCORING, .help = "the same without gradients"},
    {"gradient_accumulation_steps", .type = OPTION_INTEGER, AT(gradient_accumulation_steps), .fallback = "1", .low = 1, .high = 65536, .flags = OPTION_SPLIT | OPTION_STORED_IF_GIVEN,
     .section = SECTION_BATCH, .verbs = T, .help = "forward and backward passes per optimizer step"},
    {"total_train_batch_size", .type = OPTION_INTEGER, AT(total_train_batch_size), .low = 1, .high = MANY, .flags = OPTION_SPLIT,
     .section = SECTION_BATCH, .verbs = T, .help = "global batch per optimizer step; unset: per_device x accumulation x ranks, fixed at the first start and kept on resume"},
    {"num_train_epochs", .type = OPTION_REAL, AT(num_train_epochs), .fallback = "10", .low = 0, .high = 1e6, .flags = OPTION_LOW_OPEN,
     .section = SECTION_BATCH, .verbs = T, .help = "passes over the training essays; fractions allowed"},
    {"max_steps", .type = OPTION_INTEGER, AT(max_steps), .fallback = "-1", .low = -1, .high = MANY,
     .section = SECTION_BATCH, .verbs = T | VERB_BENCH, .help = "optimizer steps; when positive it wins over num_train_epochs"},

    /* optimizer and schedule */
    {"learning_rate", .type = OPTION_REAL, AT(learning_rate), .fallback = "1e-5", .low = 0, .high = 1,
     .section = SECTION_OPTIMIZER, .verbs = T, .help = "AdamW's rate at the end of the warm-up"},
    {"weight_decay", .type = OPTION_REAL, AT(weight_decay), .fallback = "1e-6", .low = 0, .high = 10,
     .section = SECTION_OPTIMIZER, .verbs = T, .help = "decoupled; none on biases and LayerNorm weights"},
    {"adam_beta1", .type = OPTION_REAL, AT(adam_beta1), .fallback = "0.9", .low = 0, .high = 1, .flags = OPTION_HIGH_OPEN,
     .section = SECTION_OPTIMIZER, .verbs = T, .help = "decay of the first moment"},
    {"adam_beta2", .type = OPTION_REAL, AT(adam_beta2), .fallback = "0.999", .low = 0, .high = 1, .flags = OPTION_HIGH_OPEN,
     .section = SECTION_OPTIMIZER, .verbs = T, .help = "decay of the second moment"},
    {"adam_epsilon", .type = OPTION_REAL, AT(adam_epsilon), .fallback = "1e-6", .low = 0, .high = 1, .flags = OPTION_LOW_OPEN,
     .section = SECTION_OPTIMIZER, .verbs = T, .help = "added to the root of the second moment"},
    {"max_grad_norm", .type = OPTION_REAL, AT(max_grad_norm), .fallback = "1000", .low = 0, .high = 1e30,
     .section = SECTION_OPTIMIZER, .verbs = T, .help = "clip the gradient's global norm to this; 0 is off"},
    {"lr_scheduler_type", .type = OPTION_WORD, AT(lr_scheduler_type), .fallback = "linear", .words = SCHEDULERS,
     .section = SECTION_OPTIMIZER, .verbs = T, .help = "how the rate falls after the warm-up"},
    {"lr_scheduler_kwargs", .type = OPTION_KWARGS, AT(lr_scheduler_kwargs), .fallback = "{}", .low = 0, .high = 1e6, .words = SCHEDULER_KWARGS,
     .section = SECTION_OPTIMIZER, .verbs = T, .holder = "{NAME: NUMBER}", .help = "cosine takes num_cycles; polynomial takes power and lr_end"},
    {"warmup_ratio", .type = OPTION_REAL, AT(warmup_ratio), .fallback = "0.1", .low = 0, .high = 1,
     .section = SECTION_OPTIMIZER, .verbs = T, .help = "share of the steps in which the rate rises from 0"},
    {"warmup_steps", .type = OPTION_REAL, AT(warmup_steps), .fallback = "0", .low = 0, .high = MANY, .flags = OPTION_WHOLE_ABOVE_ONE,
     .section = SECTION_OPTIMIZER, .verbs = T, .help = "steps of warm-up, or below 1 a share; above 0 it wins over warmup_ratio"},

    /* loss and dropout */
    {"loss_type", .type = OPTION_WORD, AT(loss_type), .fallback = "rmse", .words = LOSSES,
     .section = SECTION_LOSS, .verbs = T, .help = "rmse (alias l1_eps) is the notebook's mean of sqrt((p-t)^2 + 1e-9); mcrmse is the metric itself"},
    {"smooth_l1_beta", .type = OPTION_REAL, AT(smooth_l1_beta), .fallback = "1", .low = 0, .high = 1e6, .flags = OPTION_LOW_OPEN,
     .section = SECTION_LOSS, .verbs = T, .help = "where smooth_l1 turns from square to linear"},
    {"hidden_dropout_prob", .type = OPTION_REAL, AT(hidden_dropout_prob), .fallback = "0", .low = 0, .high = 1, .flags = OPTION_HIGH_OPEN,
     .section = SECTION_LOSS, .verbs = T, .help = "dropout inside the encoder"},
    {"attention_probs_dropout_prob", .type = OPTION_REAL, AT(attention_probs_dropout_prob), .fallback = "0", .low = 0, .high = 1, .flags = OPTION_HIGH_OPEN,
     .section = SECTION_LOSS, .verbs = T, .help = "dropout on attention probabilities"},
    {"head_dropout", .type = OPTION_REAL, AT(head_dropout), .fallback = "0.2", .low = 0, .high = 1, .flags = OPTION_HIGH_OPEN,
     .section = SECTION_LOSS, .verbs = T, .help = "dropout before the linear head"},

    /* folds and order */
    {"folds", .type = OPTION_INTEGER, AT(folds), .fallback = "3", .low = 1, .high = MOST_FOLDS,
     .section = SECTION_FOLDS, .verbs = T | VERB_FOLDS, .help = "models of the cross-validation; 1 trains on everything without evaluation"},
    {"fold_method", .type = OPTION_WORD, AT(fold_method), .fallback = "iterstrat-compat", .words = FOLD_METHODS,
     .section = SECTION_FOLDS, .verbs = T | VERB_FOLDS, .help = "iterstrat-compat gives the notebook's folds; binned really stratifies the scores"},
    {"folds_file", .type = OPTION_TEXT, AT(folds_file), .flags = OPTION_IS_PATH | OPTION_STAYS_SET,
     .section = SECTION_FOLDS, .verbs = T | VERB_FOLDS, .holder = "FILE", .help = "take the folds from this CSV of id and fold"},
    {"fold_column", .type = OPTION_TEXT, AT(fold_column),
     .section = SECTION_FOLDS, .verbs = T | VERB_FOLDS | VERB_PREPARE, .holder = "COLUMN", .help = "take the folds from this column of train_file"},
    {"train_folds", .type = OPTION_NUMBERS, AT(train_folds), .fallback = "all", .low = 0, .high = MOST_FOLDS - 1, .words = ALL_FOLDS, .flags = OPTION_WHOLE | OPTION_MAY_CHANGE,
     .section = SECTION_FOLDS, .verbs = T, .holder = "all|0,2", .help = "which folds to train, numbered from 0"},
    {"fold_groups", .type = OPTION_INTEGER, AT(fold_groups), .fallback = "auto", .low = 1, .high = MOST_FOLDS, .flags = OPTION_MAY_CHANGE,
     .section = SECTION_FOLDS, .verbs = T, .help = "how many folds train side by side"},
    {"group_by_length", "train_sampling_strategy", OPTION_BOOLEAN, AT(group_by_length), .fallback = "false", .words = SAMPLING,
     .section = SECTION_FOLDS, .verbs = T, .help = "Hugging Face's order by length; batches are ragged, so it saves nothing here"},
    {"seed", .type = OPTION_INTEGER, AT(seed), .fallback = "42", .low = 0, .high = SEED_MAX,
     .section = SECTION_FOLDS, .verbs = T | VERB_FOLDS | VERB_EVALUATE | VERB_BENCH | VERB_COMPARE, .help = "folds, dropout and random weights follow from it"},
    {"seeds", .type = OPTION_NUMBERS, AT(seeds), .low = 0, .high = SEED_MAX, .flags = OPTION_WHOLE | OPTION_INVOCATION,
     .section = SECTION_FOLDS, .verbs = VERB_TRAIN, .holder = "42,43,44", .help = "a run for each seed, in output_dir/seed-<seed>, and their mean and spread"},
    {"data_seed", .type = OPTION_INTEGER, AT(data_seed), .low = 0, .high = SEED_MAX,
     .section = SECTION_FOLDS, .verbs = T, .help = "order of the essays; unset: seed"},

    /* evaluation and checkpoints */
    {"eval_strategy", "evaluation_strategy", OPTION_WORD, AT(eval_strategy), .fallback = "epoch", .words = STRATEGIES,
     .section = SECTION_EVALUATION, .verbs = T, .help = "when to evaluate"},
    {"eval_steps", .type = OPTION_REAL, AT(eval_steps), .low = 0, .high = MANY, .flags = OPTION_LOW_OPEN | OPTION_WHOLE_ABOVE_ONE,
     .section = SECTION_EVALUATION, .verbs = T, .help = "with eval_strategy: steps; below 1 a share of training"},
    {"eval_delay", .type = OPTION_REAL, AT(eval_delay), .fallback = "0", .low = 0, .high = MANY,
     .section = SECTION_EVALUATION, .verbs = T, .help = "no evaluation in the first so many epochs or steps"},
    {"save_strategy", .type = OPTION_WORD, AT(save_strategy), .fallback = "epoch", .words = STRATEGIES,
     .section = SECTION_EVALUATION, .verbs = T, .help = "when to write a checkpoint"},
    {"save_steps", .type = OPTION_REAL, AT(save_steps), .low = 0, .high = MANY, .flags = OPTION_LOW_OPEN | OPTION_WHOLE_ABOVE_ONE,
     .section = SECTION_EVALUATION, .verbs = T, .help = "with save_strategy: steps; below 1 a share of training"},
    {"save_total_limit", .type = OPTION_INTEGER, AT(save_total_limit), .fallback = "1", .low = 1, .high = MANY,
     .section = SECTION_EVALUATION, .verbs = T, .help = "checkpoints kept per fold"},
    {"save_only_model", .type = OPTION_BOOLEAN, AT(save_only_model), .fallback = "false",
     .section = SECTION_EVALUATION, .verbs = T, .help = "checkpoints without optimizer state: smaller, but a run cannot be continued from them"},
    {"save_initial", .type = OPTION_BOOLEAN, AT(save_initial), .fallback = "false",
     .section = SECTION_EVALUATION, .verbs = T, .help = "also write initial.h5 before the first step"},
    {"load_best_model_at_end", .type = OPTION_BOOLEAN, AT(load_best_model_at_end), .fallback = "true",
     .section = SECTION_EVALUATION, .verbs = T, .help = "best.h5 and the out-of-fold table come from the best evaluation, not the last"},
    {"metric_for_best_model", .type = OPTION_TEXT, AT(metric_for_best_model), .fallback = "eval_MCRMSE",
     .section = SECTION_EVALUATION, .verbs = T, .holder = "METRIC", .help = "eval_MCRMSE, eval_loss or eval_<TARGET>_RMSE; lower is better"},
    {"early_stopping_patience", .type = OPTION_INTEGER, AT(early_stopping_patience), .fallback = "off", .low = 1, .high = MANY,
     .section = SECTION_EVALUATION, .verbs = T, .help = "stop after so many evaluations without a better one"},

    /* machine */
    {"device", .type = OPTION_WORD, AT(device), .fallback = "auto", .words = DEVICES, .flags = OPTION_MAY_CHANGE,
     .section = SECTION_MACHINE, .verbs = COMPUTING, .help = "auto is cuda where one answers, else cpu"},
    {"use_cpu", "no_cuda", OPTION_BOOLEAN, AT(use_cpu), .fallback = "false", .flags = OPTION_MAY_CHANGE,
     .section = SECTION_MACHINE, .verbs = COMPUTING, .help = "the same as device: cpu"},
    {"bf16", .type = OPTION_TRISTATE, AT(bf16), .fallback = "auto",
     .section = SECTION_MACHINE, .verbs = COMPUTING, .help = "arithmetic in bfloat16; weights, gradients, moments and statistics stay fp32"},
    {"fp16", .type = OPTION_BOOLEAN, AT(fp16), .fallback = "false",
     .section = SECTION_MACHINE, .verbs = COMPUTING, .help = "refused when true: use bf16"},
    {"gradient_checkpointing", .type = OPTION_BOOLEAN, AT(gradient_checkpointing), .fallback = "false",
     .section = SECTION_MACHINE, .verbs = T | VERB_BENCH, .help = "compute activations twice instead of keeping them"},
    {"reproducible", .type = OPTION_BOOLEAN, AT(reproducible), .fallback = "false",
     .section = SECTION_MACHINE, .verbs = T, .help = "the same bits on any number of ranks up to reproducible_leaves"},
    {"reproducible_leaves", .type = OPTION_INTEGER, AT(reproducible_leaves), .fallback = "8", .low = 1, .high = 1024,
     .section = SECTION_MACHINE, .verbs = T, .help = "parts of a global batch whose gradients are computed alone"},
    {"attention_impl", .type = OPTION_WORD, AT(attention_impl), .fallback = "auto", .words = ATTENTION,
     .section = SECTION_MACHINE, .verbs = COMPUTING, .help = "auto is fused, except for fp32 on CUDA"},
    {"tf32", .type = OPTION_BOOLEAN, AT(tf32), .fallback = "false",
     .section = SECTION_MACHINE, .verbs = COMPUTING, .help = "TF32 matrix products on CUDA"},
    {"max_nonfinite_steps", .type = OPTION_INTEGER, AT(max_nonfinite_steps), .fallback = "10", .low = 1, .high = MANY,
     .section = SECTION_MACHINE, .verbs = T, .help = "skipped steps in a row before the run ends"},
    {"bind", .type = OPTION_WORD, AT(bind), .fallback = "auto", .words = BINDS, .flags = OPTION_MAY_CHANGE,
     .section = SECTION_MACHINE, .verbs = COMPUTING, .help = "auto divides a node's cores among its ranks; keep leaves affinity and thread counts as the launcher set them"},
    {"ddp_timeout", .type = OPTION_INTEGER, AT(ddp_timeout), .fallback = "1800", .low = 1, .high = WEEK, .flags = OPTION_MAY_CHANGE,
     .section = SECTION_MACHINE, .verbs = COMPUTING, .holder = "SECONDS", .help = "how long a collective may take"},

    /* logging and tracking */
    {"logging_steps", .type = OPTION_INTEGER, AT(logging_steps), .fallback = "1", .low = 1, .high = MANY, .flags = OPTION_MAY_CHANGE,
     .section = SECTION_LOGGING, .verbs = T, .help = "steps between two lines of metrics.jsonl"},
    {"log_samples", .type = OPTION_BOOLEAN, AT(log_samples), .fallback = "false", .flags = OPTION_MAY_CHANGE,
     .section = SECTION_LOGGING, .verbs = T, .help = "each step's essay ids in metrics.jsonl, so that a run can be replayed elsewhere"},
    {"report_to", .type = OPTION_LIST, AT(report_to), .fallback = "none", .flags = OPTION_MAY_CHANGE,
     .section = SECTION_LOGGING, .verbs = T, .holder = "none|A,B", .help = "tensorboard, wandb; metrics.jsonl is written always"},
    {"run_name", .type = OPTION_TEXT, AT(run_name), .flags = OPTION_MAY_CHANGE,
     .section = SECTION_LOGGING, .verbs = T, .holder = "NAME", .help = "unset: FB3-fold-<k>"},
    {"wandb_project", .type = OPTION_TEXT, AT(wandb_project), .fallback = "FB3-deberta-v3", .flags = OPTION_MAY_CHANGE,
     .section = SECTION_LOGGING, .verbs = T, .holder = "NAME", .help = "project at W&B"},
    {"wandb_entity", .type = OPTION_TEXT, AT(wandb_entity), .flags = OPTION_MAY_CHANGE,
     .section = SECTION_LOGGING, .verbs = T, .holder = "NAME", .help = "user or team at W&B"},
    {"wandb_group", .type = OPTION_TEXT, AT(wandb_group), .fallback = "FB3-BASELINE-MODEL", .flags = OPTION_MAY_CHANGE,
     .section = SECTION_LOGGING, .verbs = T, .holder = "NAME", .help = "group that holds the folds' runs"},
    {"wandb_tags", .type = OPTION_LIST, AT(wandb_tags), .flags = OPTION_MAY_CHANGE,
     .section = SECTION_LOGGING, .verbs = T, .holder = "A,B,...", .help = "unset: model, loss and N-epochs"},
    {"wandb_notes", .type = OPTION_TEXT, AT(wandb_notes), .flags = OPTION_MAY_CHANGE,
     .section = SECTION_LOGGING, .verbs = T, .help = "free text"},
    {"wandb_dir", .type = OPTION_TEXT, AT(wandb_dir), .flags = OPTION_MAY_CHANGE,
     .section = SECTION_LOGGING, .verbs = T, .holder = "DIR", .help = "unset: output_dir"},
    {"profile", .type = OPTION_TEXT, AT(profile), .flags = OPTION_MAY_CHANGE,
     .section = SECTION_LOGGING, .verbs = T, .holder = "FILE", .help = "a Chrome trace of one rank's steps"},

    /* output of a verb */
    {"output", .type = OPTION_TEXT, AT(output), .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = VERB_PREPARE | VERB_EXPORT | VERB_REPORT, .holder = "PATH", .help = "prepare: the data set (unset: data.h5); export: the directory; report: the page"},
    {"output_file", .type = OPTION_TEXT, AT(output_file), .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = VERB_PREDICT, .holder = "FILE", .help = "CSV of the predictions; unset: submission.csv"},
    {"artifact", .type = OPTION_LIST, AT(artifact), .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = VERB_PREDICT, .holder = "DIR,...", .help = "downloaded model artifacts, such as artifacts/FB3-fold-0:v0, one per fold; more may follow as words"},
    {"per_fold", .type = OPTION_BOOLEAN, AT(per_fold), .fallback = "false", .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = VERB_PREDICT, .help = "also each fold model's predictions"},
    {"clip_predictions", .type = OPTION_NUMBERS, AT(clip_predictions), .low = -1e30, .high = 1e30, .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = SCORING, .holder = "LOW,HIGH", .help = "clip the predictions, such as 1,5"},
    {"sample_submission", .type = OPTION_TEXT, AT(sample_submission), .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = VERB_PREDICT, .holder = "FILE", .help = "check ids and columns of the output against this CSV"},
    {"embeddings_file", .type = OPTION_TEXT, AT(embeddings_file), .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = VERB_PREDICT, .holder = "FILE", .help = "also write the pooled embeddings to this .h5"},
    {"format", .type = OPTION_WORD, AT(format), .fallback = "hf", .words = FORMATS, .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = VERB_EXPORT, .help = "hf: model.safetensors and tokenizer.json; torch: pytorch_model.bin for the notebook"},
    {"dtype", .type = OPTION_WORD, AT(dtype), .fallback = "float32", .words = DTYPES, .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = VERB_EXPORT, .help = "type of the exported weights"},
    {"json", .type = OPTION_BOOLEAN, AT(json), .fallback = "false", .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = VERB_BENCH | VERB_STATUS | VERB_COMPARE, .help = "print JSON"},
    {"watch", .type = OPTION_BOOLEAN, AT(watch), .fallback = "false", .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = VERB_STATUS, .help = "again every two seconds, until the run is no longer alive"},
    {"full_length", .type = OPTION_BOOLEAN, AT(full_length), .fallback = "false", .flags = OPTION_INVOCATION,
     .section = SECTION_OUTPUT, .verbs = VERB_BENCH, .help = "essays of max_length tokens, not of the usual lengths"},

    /* this call of the program */
    {"dry_run", .type = OPTION_BOOLEAN, AT(dry_run), .fallback = "false", .flags = OPTION_INVOCATION,
     .section = SECTION_INVOCATION, .verbs = T, .help = "print the resolved configuration, steps, memory, disk and estimated time, and stop"},
    {"debug", .type = OPTION_BOOLEAN, AT(debug), .fallback = "false", .flags = OPTION_INVOCATION,
     .section = SECTION_INVOCATION, .verbs = COMPUTING, .help = "one rank, every operation checked for non-finite values, a few steps on a few essays unless told otherwise"},
    {"quiet", .type = OPTION_BOOLEAN, AT(quiet), .fallback = "false", .flags = OPTION_INVOCATION,
     .section = SECTION_INVOCATION, .verbs = VERB_ALL, .help = "no tables and no progress"},
    {"help", .type = OPTION_BOOLEAN, AT(help), .fallback = "false", .flags = OPTION_INVOCATION | OPTION_NOT_IN_FILE,
     .section = SECTION_INVOCATION, .verbs = VERB_ALL, .help = "this text"},
    {"version", .type = OPTION_BOOLEAN, AT(version), .fallback = "false", .flags = OPTION_INVOCATION | OPTION_NOT_IN_FILE,
     .section = SECTION_INVOCATION, .verbs = VERB_ALL, .help = "versions of the program and of every library"},
};
const int fb3_option_count = sizeof fb3_option_table / sizeof *fb3_option_table;

enum { ANY_NUMBER = 1 << 20 };

/* name, bit, arguments, least, most, reads_yaml, reads_default, built, help */
const fb3_verb fb3_verb_table[] = {
    {"train", VERB_TRAIN, "", 0, 0, true, true, true, "fine-tune every fold: CSV in, models and out-of-fold table out (the verb when none is given)"},
    {"init", VERB_INIT, "[DIR]", 0, 1, false, false, true, "write a commented fb3.yaml"},
    {"prepare", VERB_PREPARE, "", 0, 0, true, true, true, "tokenise a CSV into a data set (--output data.h5)"},
    {"folds", VERB_FOLDS, "", 0, 0, true, true, true, "write folds.csv into --output_dir and stop"},
    {"predict", VERB_PREDICT, "[RUN_DIR|FOLD_DIR|CHECKPOINT]...", 0, ANY_NUMBER, true, false, true, "average the fold models' predictions of --test_file into --output_file"},
    {"evaluate", VERB_EVALUATE, "[RUN_DIR|SUBMISSION.csv]...", 0, ANY_NUMBER, true, false, true, "recompute the scores of a run, or score it (or a CSV) on a labelled --test_file"},
    {"export", VERB_EXPORT, "CHECKPOINT|RUN_DIR", 1, 1, false, false, true, "write a checkpoint as a Hugging Face or PyTorch directory"},
    {"inspect", VERB_INSPECT, "PATH...", 1, ANY_NUMBER, false, false, true, "say what a file or directory is and show it"},
    {"doctor", VERB_DOCTOR, "", 0, 0, false, false, true, "what this build can do on this machine"},
    {"bench", VERB_BENCH, "", 0, 0, true, false, true, "measured speed of the parts against what this machine can do"},
    {"report", VERB_REPORT, "[RUN_DIR]...", 0, ANY_NUMBER, false, false, true, "make a run's report.html again; of several runs, comparison.html with them side by side"},
    {"status", VERB_STATUS, "[RUN_DIR]...", 0, ANY_NUMBER, false, false, true, "how far a run is, whether it is alive, and how it ended: from anywhere that sees its directory"},
    {"compare", VERB_COMPARE, "RUN_DIR...", 2, ANY_NUMBER, false, false, true, "what differs between runs, and whether one is better"},
    {"ensemble", VERB_ENSEMBLE, "RUN_DIR...", 0, ANY_NUMBER, false, false, false, "weights for several runs"},
};
const int fb3_verb_count = sizeof fb3_verb_table / sizeof *fb3_verb_table;

const char *const fb3_section_title[SECTION_COUNT] = {
    [SECTION_MODEL] = "Model",
    [SECTION_DATA] = "Data",
    [SECTION_RUN] = "Run directory and resume",
    [SECTION_BATCH] = "Batch and length of training",
    [SECTION_OPTIMIZER] = "Optimizer and schedule",
    [SECTION_LOSS] = "Loss and dropout",
    [SECTION_FOLDS] = "Folds and order",
    [SECTION_EVALUATION] = "Evaluation and checkpoints",
    [SECTION_MACHINE] = "Machine",
    [SECTION_LOGGING] = "Logging and tracking",
    [SECTION_OUTPUT] = "Output",
    [SECTION_INVOCATION] = "This call",
};
/* clang-format on */

static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        char x = *a == '-' ? '_' : *a, y = *b == '-' ? '_' : *b;
        if (x != y) return false;
    }
    return *a == *b;
}

bool fb3_option_next_alias(const fb3_option *option, const char **cursor, char name[FB3_OPTION_NAME_BYTES])
{
    const char *start = *cursor ? *cursor : option->aliases;
    if (!start) return false;
    start += strspn(start, " ");
    size_t length = strcspn(start, " ");
    if (length == 0 || length >= FB3_OPTION_NAME_BYTES) return false;
    memcpy(name, start, length);
    name[length] = 0;
    *cursor = start + length;
    return true;
}

const fb3_option *fb3_option_find(const char *name)
{
    for (int i = 0; i < fb3_option_count; i++) {
        const fb3_option *option = &fb3_option_table[i];
        if (same_name(name, option->key)) return option;
        const char *cursor = NULL;
        char alias[FB3_OPTION_NAME_BYTES];
        while (fb3_option_next_alias(option, &cursor, alias))
            if (same_name(name, alias)) return option;
    }
    return NULL;
}

const fb3_verb *fb3_verb_find(const char *name)
{
    for (int i = 0; i < fb3_verb_count; i++)
        if (strcmp(name, fb3_verb_table[i].name) == 0) return &fb3_verb_table[i];
    return NULL;
}

int fb3_option_index(const fb3_option *option)
{
    return (int)(option - fb3_option_table);
}

bool fb3_option_is(const fb3_option *option, const char *key)
{
    return strcmp(option->key, key) == 0;
}
