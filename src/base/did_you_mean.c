/* What a person probably meant: a table of the words that users of Hugging Face's TrainingArguments and of Kaggle
 * notebooks type for our keys, and the edit distance for the rest. */
#include "options.h"

#include <stdio.h>
#include <string.h>

/* A foreign word, and our key for it or a sentence about it. Written with '_' and in lower case. */
typedef struct synonym {
    const char *word;
    const char *key;
    const char *note;
} synonym;

#define RANKS      "the launcher says how many ranks there are (mpirun -np N, srun -n N)"
#define VERB       "the verb says what to do (fb3-dist train, evaluate, predict)"
#define NOT_NEEDED "nothing here needs it; leave it out"
#define ONE_RATE   "there is one learning rate, learning_rate"
#define LOCAL      "nothing is sent to a hub; fb3-dist export writes a directory to upload"

static const synonym SYNONYMS[] = {
    /* rates and schedule */
    {"lr", "learning_rate", NULL},
    {"encoder_lr", "learning_rate", ONE_RATE},
    {"decoder_lr", "learning_rate", ONE_RATE},
    {"head_lr", "learning_rate", ONE_RATE},
    {"max_lr", "learning_rate", NULL},
    {"base_lr", "learning_rate", NULL},
    {"min_lr", "lr_scheduler_kwargs", "polynomial takes lr_scheduler_kwargs: {lr_end: ...}"},
    {"lr_end", "lr_scheduler_kwargs", NULL},
    {"num_cycles", "lr_scheduler_kwargs", NULL},
    {"power", "lr_scheduler_kwargs", NULL},
    {"scheduler", "lr_scheduler_type", NULL},
    {"lr_scheduler", "lr_scheduler_type", NULL},
    {"schedule", "lr_scheduler_type", NULL},
    {"scheduler_type", "lr_scheduler_type", NULL},
    {"warmup", "warmup_ratio", NULL},
    {"warmup_proportion", "warmup_ratio", NULL},
    {"warmup_prop", "warmup_ratio", NULL},
    {"num_warmup_steps", "warmup_steps", NULL},
    {"optim", NULL, "the optimizer is AdamW; leave it out"},
    {"optimizer", NULL, "the optimizer is AdamW; leave it out"},
    {"optim_args", NULL, "the optimizer is AdamW; leave it out"},
    {"adafactor", NULL, "the optimizer is AdamW; leave it out"},
    {"beta1", "adam_beta1", NULL},
    {"beta2", "adam_beta2", NULL},
    {"betas", "adam_beta1", "give adam_beta1 and adam_beta2"},
    {"eps", "adam_epsilon", NULL},
    {"epsilon", "adam_epsilon", NULL},
    {"adam_eps", "adam_epsilon", NULL},
    {"wd", "weight_decay", NULL},
    {"max_norm", "max_grad_norm", NULL},
    {"grad_clip", "max_grad_norm", NULL},
    {"clip_grad", "max_grad_norm", NULL},
    {"clip_grad_norm", "max_grad_norm", NULL},
    {"gradient_clip_val", "max_grad_norm", NULL},
    {"llrd", NULL, ONE_RATE},
    {"layerwise_learning_rate_decay", NULL, ONE_RATE},
    /* length and batches */
    {"epochs", "num_train_epochs", NULL},
    {"epoch", "num_train_epochs", NULL},
    {"n_epochs", "num_train_epochs", NULL},
    {"num_epochs", "num_train_epochs", NULL},
    {"max_epochs", "num_train_epochs", NULL},
    {"steps", "max_steps", NULL},
    {"max_train_steps", "max_steps", NULL},
    {"max_len", "max_length", NULL},
    {"maxlen", "max_length", NULL},
    {"max_seq_len", "max_length", NULL},
    {"max_seq_length", "max_length", NULL},
    {"seq_len", "max_length", NULL},
    {"max_tokens", "max_length", NULL},
    {"model_max_length", "max_length", NULL},
    {"pad_to_max_length", NULL, "batches are ragged and never padded; leave it out"},
    {"batch_size", "per_device_train_batch_size", NULL},
    {"bs", "per_device_train_batch_size", NULL},
    {"train_batch_size", "per_device_train_batch_size", NULL},
    {"per_gpu_train_batch_size", "per_device_train_batch_size", NULL},
    {"valid_batch_size", "per_device_eval_batch_size", NULL},
    {"val_batch_size", "per_device_eval_batch_size", NULL},
    {"eval_batch_size", "per_device_eval_batch_size", NULL},
    {"test_batch_size", "per_device_eval_batch_size", NULL},
    {"per_gpu_eval_batch_size", "per_device_eval_batch_size", NULL},
    {"auto_find_batch_size", "per_device_train_batch_size", NULL},
    {"accumulation_steps", "gradient_accumulation_steps", NULL},
    {"grad_accum", "gradient_accumulation_steps", NULL},
    {"grad_accumulation_steps", "gradient_accumulation_steps", NULL},
    {"accumulate_grad_batches", "gradient_accumulation_steps", NULL},
    {"global_batch_size", "total_train_batch_size", NULL},
    {"total_batch_size", "total_train_batch_size", NULL},
    {"eval_accumulation_steps", NULL, NOT_NEEDED},
    {"dataloader_num_workers", NULL, NOT_NEEDED},
    {"num_workers", NULL, NOT_NEEDED},
    {"dataloader_pin_memory", NULL, NOT_NEEDED},
    {"preprocessing_num_workers", NULL, NOT_NEEDED},
    {"remove_unused_columns", NULL, NOT_NEEDED},
    {"dataloader_drop_last", NULL, "no sample is ever dropped: a short last batch is weighted exactly"},
    {"drop_last", NULL, "no sample is ever dropped: a short last batch is weighted exactly"},
    /* model and arithmetic */
    {"model", "model_name_or_path", NULL},
    {"model_name", "model_name_or_path", NULL},
    {"model_path", "model_name_or_path", NULL},
    {"backbone", "model_name_or_path", NULL},
    {"checkpoint", "model_name_or_path", NULL},
    {"pretrained_model_name_or_path", "model_name_or_path", NULL},
    {"config_name", "model_name_or_path", NULL},
    {"revision", "model_revision", NULL},
    {"tokenizer_path", "tokenizer", NULL},
    {"spm", "tokenizer", NULL},
    {"apex", "bf16", NULL},
    {"amp", "bf16", NULL},
    {"mixed_precision", "bf16", NULL},
    {"precision", "bf16", NULL},
    {"half", "bf16", NULL},
    {"fp16_full_eval", "bf16", "evaluation uses the arithmetic of training (bf16)"},
    {"bf16_full_eval", "bf16", "evaluation uses the arithmetic of training (bf16)"},
    {"fp16_opt_level", "bf16", NULL},
    {"fp16_backend", "bf16", NULL},
    {"half_precision_backend", "bf16", NULL},
    {"gradient_checkpointing_kwargs", "gradient_checkpointing", NULL},
    {"attn_implementation", "attention_impl", NULL},
    {"torch_compile", NULL, "there is nothing to compile at run time; leave it out"},
    {"dropout", "head_dropout", NULL},
    {"fc_dropout", "head_dropout", NULL},
    {"hidden_dropout", "hidden_dropout_prob", NULL},
    {"attention_dropout", "attention_probs_dropout_prob", NULL},
    {"pooling", NULL, "the head is the mean over the tokens; leave it out"},
    {"criterion", "loss_type", NULL},
    {"loss", "loss_type", NULL},
    {"loss_fn", "loss_type", NULL},
    {"loss_func", "loss_type", NULL},
    {"loss_function", "loss_type", NULL},
    {"beta", "smooth_l1_beta", NULL},
    {"label_smoothing_factor", NULL, "the targets are scores, not classes; leave it out"},
    {"num_labels", "label_columns", NULL},
    /* data and folds */
    {"target_cols", "label_columns", NULL},
    {"target_columns", "label_columns", NULL},
    {"targets", "label_columns", NULL},
    {"target", "label_columns", NULL},
    {"labels", "label_columns", NULL},
    {"label_cols", "label_columns", NULL},
    {"label_names", "label_columns", NULL},
    {"text_col", "text_column", NULL},
    {"text_column_name", "text_column", NULL},
    {"text_column_names", "text_column", NULL},
    {"id_col", "id_column", NULL},
    {"train", "train_file", NULL},
    {"train_csv", "train_file", NULL},
    {"train_path", "train_file", NULL},
    {"train_data", "train_file", NULL},
    {"data_path", "train_file", NULL},
    {"dataset_name", "train_file", NULL},
    {"test", "test_file", NULL},
    {"test_csv", "test_file", NULL},
    {"test_path", "test_file", NULL},
    {"valid_file", "validation_file", NULL},
    {"val_file", "validation_file", NULL},
    {"eval_file", "validation_file", NULL},
    {"dev_file", "validation_file", NULL},
    {"validation_csv", "validation_file", NULL},
    {"n_fold", "folds", NULL},
    {"n_folds", "folds", NULL},
    {"nfold", "folds", NULL},
    {"num_folds", "folds", NULL},
    {"k_fold", "folds", NULL},
    {"kfold", "folds", NULL},
    {"n_splits", "folds", NULL},
    {"fold", "train_folds", NULL},
    {"trn_fold", "train_folds", NULL},
    {"trn_folds", "train_folds", NULL},
    {"selected_folds", "train_folds", NULL},
    {"stratify", "fold_method", NULL},
    {"fold_strategy", "fold_method", NULL},
    {"cv_strategy", "fold_method", NULL},
    {"random_state", "seed", NULL},
    {"random_seed", "seed", NULL},
    {"length_column_name", "group_by_length", NULL},
    /* directories, evaluation, checkpoints */
    {"out_dir", "output_dir", NULL},
    {"save_dir", "output_dir", NULL},
    {"output_path", "output_dir", NULL},
    {"overwrite_output_dir", NULL,
     "a run is continued or kept, never overwritten: give another output_dir, or remove the old one yourself"},
    {"logging_dir", "output_dir", "logs are in the run directory, output_dir"},
    {"submission_file", "output_file", NULL},
    {"do_train", NULL, VERB},
    {"do_eval", NULL, VERB},
    {"do_predict", NULL, VERB},
    {"evaluate_during_training", "eval_strategy", NULL},
    {"eval_on_start", NULL, NOT_NEEDED},
    {"logging_strategy", "logging_steps", NULL},
    {"print_freq", "logging_steps", NULL},
    {"log_interval", "logging_steps", NULL},
    {"greater_is_better", NULL, "lower is better for every metric here; leave it out"},
    {"metric", "metric_for_best_model", NULL},
    {"patience", "early_stopping_patience", NULL},
    {"early_stopping", "early_stopping_patience", NULL},
    {"early_stopping_threshold", "early_stopping_patience", NULL},
    {"save_safetensors", NULL, "fb3-dist export writes model.safetensors; leave it out"},
    {"resume_from", "resume", NULL},
    {"push_to_hub", NULL, LOCAL},
    {"hub_model_id", NULL, LOCAL},
    {"hub_token", NULL, LOCAL},
    {"prediction_loss_only", NULL, NOT_NEEDED},
    /* machine and trackers */
    {"cpu", "use_cpu", NULL},
    {"gpu", "device", NULL},
    {"cuda", "device", NULL},
    {"local_rank", NULL, RANKS},
    {"n_gpu", NULL, RANKS},
    {"num_gpus", NULL, RANKS},
    {"gpus", NULL, RANKS},
    {"world_size", NULL, RANKS},
    {"num_processes", NULL, RANKS},
    {"nproc_per_node", NULL, RANKS},
    {"ddp_backend", NULL, RANKS},
    {"ddp_find_unused_parameters", NULL, NOT_NEEDED},
    {"ddp_bucket_cap_mb", NULL, NOT_NEEDED},
    {"fsdp", NULL, "a replica of the model is on every rank; leave it out"},
    {"deepspeed", NULL, "a replica of the model is on every rank; leave it out"},
    {"full_determinism", "reproducible",
     "two runs alike give the same bits anyway; on any number of ranks: reproducible"},
    {"deterministic", "reproducible", NULL},
    {"timeout", "ddp_timeout", NULL},
    {"tracker", "report_to", NULL},
    {"wandb", "report_to", NULL},
    {"tensorboard", "report_to", NULL},
    {"use_wandb", "report_to", NULL},
    {"project", "wandb_project", NULL},
    {"entity", "wandb_entity", NULL},
    {"group", "wandb_group", NULL},
    {"tags", "wandb_tags", NULL},
    {"notes", "wandb_notes", NULL},
    {"exp_name", "run_name", NULL},
    {"verbose", "quiet", NULL},
    {"log_level", "quiet", NULL},
    {"disable_tqdm", "quiet", NULL},
    {"config", NULL, "the configuration is a word of its own: fb3-dist train CONFIG.yaml"},
    {"config_file", NULL, "the configuration is a word of its own: fb3-dist train CONFIG.yaml"},
};

enum { LONGEST = 48 }; /* bytes of a name that is compared; longer ones are near to nothing */

/* Lower case, '_' for '-'. False: too long. */
static bool normalise(const char *name, char plain[LONGEST + 1])
{
    size_t length = strlen(name);
    if (length > LONGEST) return false;
    for (size_t i = 0; i <= length; i++) {
        char c = name[i];
        if (c >= 'A' && c <= 'Z') c = (char)(c - 'A' + 'a');
        plain[i] = c == '-' ? '_' : c;
    }
    return true;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours (Damerau 1964). */
static int edit_distance(const char *a, const char *b)
{
    int rows = (int)strlen(a), columns = (int)strlen(b);
    int cost[LONGEST + 1][LONGEST + 1];
    for (int i = 0; i <= rows; i++) cost[i][0] = i;
    for (int j = 0; j <= columns; j++) cost[0][j] = j;
    for (int i = 1; i <= rows; i++) {
        for (int j = 1; j <= columns; j++) {
            int change = cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            cost[i][j] = least(change, 1 + least(cost[i - 1][j], cost[i][j - 1]));
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped) cost[i][j] = least(cost[i][j], cost[i - 2][j - 2] + 1);
        }
    }
    return cost[rows][columns];
}

/* A third of the letters may be wrong. */
static int tolerated(const char *name)
{
    return least(4, ((int)strlen(name) + 1) / 3);
}

typedef struct search {
    char plain[LONGEST + 1];
    int distance; /* of the nearest; at first, one more than is tolerated */
} search;

static bool search_begin(search *s, const char *name)
{
    if (!normalise(name, s->plain)) return false;
    s->distance = tolerated(s->plain) + 1;
    return true;
}

/* True when `candidate` is nearer than all before it. */
static bool search_try(search *s, const char *candidate)
{
    char plain[LONGEST + 1];
    if (!normalise(candidate, plain)) return false;
    int distance = edit_distance(s->plain, plain);
    if (distance >= s->distance) return false;
    s->distance = distance;
    return true;
}

const char *fb3_nearest(const char *name, const char *const *names, int count)
{
    const char *nearest = NULL;
    search s;
    if (!search_begin(&s, name)) return NULL;
    for (int i = 0; i < count; i++)
        if (search_try(&s, names[i])) nearest = names[i];
    return nearest;
}

static const char *nearest_key(const char *name)
{
    const char *nearest = NULL;
    search s;
    if (!search_begin(&s, name)) return NULL;
    for (int i = 0; i < fb3_option_count; i++) {
        const fb3_option *option = &fb3_option_table[i];
        if (search_try(&s, option->key)) nearest = option->key;
        const char *cursor = NULL;
        char alias[FB3_OPTION_NAME_BYTES];
        while (fb3_option_next_alias(option, &cursor, alias))
            if (search_try(&s, alias)) nearest = option->key;
    }
    return nearest;
}

static const synonym *find_synonym(const char *name)
{
    char plain[LONGEST + 1];
    if (!normalise(name, plain)) return NULL;
    for (size_t i = 0; i < sizeof SYNONYMS / sizeof *SYNONYMS; i++)
        if (strcmp(plain, SYNONYMS[i].word) == 0) return &SYNONYMS[i];
    return NULL;
}

void fb3_option_suggest(const char *name, const char *dashes, char *text, size_t bytes)
{
    const synonym *known = find_synonym(name);
    const char *key = known ? known->key : nearest_key(name);
    if (known && known->note)
        snprintf(text, bytes, "%s", known->note);
    else if (key)
        snprintf(text, bytes, "did you mean %s%s?", dashes, key);
    else
        *text = 0;
}

fb3_status fb3_synonyms_check(void)
{
    for (size_t i = 0; i < sizeof SYNONYMS / sizeof *SYNONYMS; i++) {
        const synonym *s = &SYNONYMS[i];
        FB3_REQUIRE(!fb3_option_find(s->word), FB3_FAILED, "the synonym %s is a key itself", s->word);
        FB3_REQUIRE(s->key || s->note, FB3_FAILED, "the synonym %s says nothing", s->word);
        FB3_REQUIRE(!s->key || fb3_option_find(s->key), FB3_FAILED, "the synonym %s names no key", s->word);
        FB3_REQUIRE(find_synonym(s->word) == s, FB3_FAILED, "the synonym %s stands twice", s->word);
    }
    return FB3_OK;
}
