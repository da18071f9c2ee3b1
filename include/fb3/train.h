/* Where the modules meet: a session (this process among the ranks), a run (data, folds, starting weights), a replica
 * (the model on this rank's device), a fold in training.
 *
 * Read in this order: src/train/step.c (one optimizer step), trainer.c (a fold), run.c (what a run needs), evaluate.c,
 * predict.c. All functions are collective over the ranks unless they say otherwise, and all fail on every rank. */
#ifndef FB3_TRAIN_H
#define FB3_TRAIN_H

#include "fb3/checkpoint.h"
#include "fb3/clock.h"
#include "fb3/comm.h"
#include "fb3/deberta.h"
#include "fb3/folds.h"
#include "fb3/hf_dir.h"
#include "fb3/oof.h"
#include "fb3/optim.h"
#include "fb3/progress.h"
#include "fb3/sampler.h"
#include "fb3/worker.h"

/* --- session.c, device.c: what every distributed verb starts with ------------------------------------------------- */

typedef struct fb3_session {
    fb3_config *config; /* borrowed */
    fb3_comm *world;    /* all ranks */
    fb3_comm *comm;     /* the world, or, once there are groups of ranks for folds (groups.c), this rank's group */
    fb3_worker *io;     /* owns every HDF5 call while a fold is in training; before that the main thread does */
    fb3_device device;  /* that the whole world uses: CPU or CUDA */
    char why_not_cuda[256];
    fb3_backend *backend; /* NULL until fb3_session_open_backend() */
    fb3_reducer *reducer; /* NULL until fb3_session_reducer() */
    fb3_rank_info *ranks; /* [world size]; NULL until fb3_session_open_backend() */
    int rank, size;       /* of comm */
    bool root;
    bool first; /* rank 0 of the world: it writes what all folds share */
} fb3_session;

/* Starts MPI, binds, checks that all ranks have the same configuration. */
fb3_status fb3_session_open(fb3_session *session, fb3_config *config);
/* For verbs that compute: resolves device and bf16, opens the backend. */
fb3_status fb3_session_open_backend(fb3_session *session);
/* The start table, on rank 0, unless `quiet`: a row for each rank. `note(context, rank)` is the end of its row, or
 * NULL.
 */
void fb3_session_print_ranks(const fb3_session *session, void (*note)(const void *context, int rank),
                             const void *context);
/* A number that no other session has, the same on all ranks of comm: for the names of files that are no one else's.
 * Collective. */
fb3_status fb3_session_token(fb3_session *session, uint64_t *token);
/* From here on the session's comm, rank, size and root are those of a group. Collective over the world. */
fb3_status fb3_session_join(fb3_session *session, int number, int groups);
/* The gradient all-reduce between the ranks' devices, borrowed; the first call connects them. Collective. */
fb3_status fb3_session_reducer(fb3_session *session, fb3_reducer **reducer);
/* After a run, before another: gives up its device, its group and the memory that its nodes shared. Collective. */
fb3_status fb3_session_end_run(fb3_session *session);
void fb3_session_close(fb3_session *session);
/* profile.c: begins the trace that `profile` asks for, on the root; fb3_trace_finish() writes it. Local. */
fb3_status fb3_profile_begin(fb3_session *session);
/* CSV files made into `h5_path` by the root (reused while unchanged), then opened by all; .h5 `sources` are opened
 * where they are. `labelled`: the label columns are required. */
fb3_status fb3_session_prepare(fb3_session *session, fb3_dataset **dataset, const fb3_strings *sources,
                               const char *h5_path, const fb3_tokenizer *tokenizer, int max_length, bool labelled,
                               int64_t max_samples);
/* start_model.c: the root's tokenizer, whose model file has `bytes` bytes, on every rank. */
fb3_status fb3_session_share_tokenizer(fb3_session *session, fb3_tokenizer **tokenizer, size_t bytes);
/* The library versions that `io` and `data` were built with, for callers that must not see HDF5's headers. */
const char *fb3_h5_version(void);
/* JSON object with the versions of the program and its libraries. Caller frees. */
char *fb3_versions_json(void);

/* --- signals.c ---------------------------------------------------------------------------------------------------- */

/* SIGTERM and SIGUSR1 ask for a stop; SIGUSR2 and the rest are left alone. */
fb3_status fb3_signals_catch(void);
/* This rank was asked to stop, or the scheduler's end time minus `stop_before_end` seconds has passed. */
bool fb3_signals_stop_wanted(int64_t stop_before_end);
/* SIGINT ends the process as ever, and takes the live block off the terminal first. */
fb3_status fb3_signals_clear_terminal(void);

/* How a global batch is split into micro-batches. */
typedef struct fb3_split {
    int accumulation; /* micro-batches of a rank */
    int leaves;       /* reproducible: the global batch is cut by position into so many, each a micro-batch; else 0 */
} fb3_split;

/* --- replica.c: the model on this rank's device ------------------------------------------------------------------- */

typedef struct fb3_replica {
    fb3_session *session;
    const fb3_param_table *table; /* borrowed */
    fb3_arenas arenas;
    int64_t *fixed; /* [table->size + 1] the gradient in fixed point, in a training that is reproducible; else NULL */
    fb3_deberta *model;
    int max_tokens, max_sequences; /* of a micro-batch */
} fb3_replica;

/* Token id -> row of the active word table, for a data set. */
typedef struct fb3_vocabulary {
    uint32_t *active; /* [count] ascending token ids */
    int count;
    int32_t *row; /* [size]: row, or -1 */
    int size;
} fb3_vocabulary;
/* The union of the vocabularies of the data sets (b may be NULL). FB3_INPUT when an id does not fit the word table. */
fb3_status fb3_vocabulary_make(fb3_vocabulary *vocabulary, const fb3_dataset *a, const fb3_dataset *b, int size);
void fb3_vocabulary_free(fb3_vocabulary *vocabulary);

fb3_status fb3_replica_open(fb3_replica *replica, fb3_session *session, const fb3_param_table *table, int max_tokens,
                            int max_sequences, int max_length, fb3_model_mode mode);
/* memory.c: what a replica for such batches takes. */
fb3_memory_record fb3_replica_memory(const fb3_session *session, const fb3_param_table *table, const fb3_limits *limits,
                                     fb3_model_mode mode);
/* FB3_FAILED, with the numbers and what would fit, where the device has not so much memory left. Local. */
fb3_status fb3_replica_check_memory(const fb3_session *session, const fb3_param_table *table, const fb3_limits *limits,
                                    fb3_model_mode mode);
/* FB3_TRAINING, or with gradient_checkpointing FB3_TRAINING_CHECKPOINTED. */
fb3_model_mode fb3_training_mode(const fb3_config *config);
void fb3_replica_close(fb3_replica *replica);
/* Host arena -> device, with the activation-type copy. */
fb3_status fb3_replica_upload(fb3_replica *replica, const float *param);
/* Where an arena, as it is now, can be read on the host: in the arena itself on the CPU, until the next step; else in
 * `staging` (alloc_host on first use), from when the backend's snapshot_ready says so. */
fb3_status fb3_replica_snapshot(fb3_replica *replica, float *arena, float **staging, float **host);

/* --- prefetch.c: the next batch is read by the I/O worker while this one is computed ------------------------------ */

typedef struct fb3_prefetch fb3_prefetch;
fb3_status fb3_prefetch_open(fb3_prefetch **prefetch, fb3_worker *io, const fb3_dataset *dataset,
                             const fb3_vocabulary *vocabulary, int max_tokens, int max_sequences);
void fb3_prefetch_close(fb3_prefetch *prefetch);
/* Queues the reading of a batch (count 0: an empty one). One may be in flight while the one taken last is in use. */
fb3_status fb3_prefetch_submit(fb3_prefetch *prefetch, const int64_t *rows, int count);
/* Waits for the batch submitted first; it is valid until the next-but-one submit. */
fb3_status fb3_prefetch_take(fb3_prefetch *prefetch, const fb3_batch **batch);

/* --- feed.c: which micro-batches this rank computes, step after step ---------------------------------------------- */

typedef struct fb3_step_plan {
    int64_t step, epoch;
    int64_t *rows;    /* [samples] the global batch, in order */
    int64_t samples;  /* of all ranks */
    int64_t *my_rows; /* this rank's, micro-batch by micro-batch */
    int *micro_start; /* [accumulation + 1] into my_rows */
    int *leaf;        /* [accumulation] which leaf a micro-batch is; -1: none */
    int64_t tokens;   /* of all ranks */
} fb3_step_plan;

typedef struct fb3_feed fb3_feed;
/* `visits`: how often a step goes through its micro-batches (2 for mcrmse with accumulation). The feed starts at
 * optimizer step `first_step`, and reads ahead up to `total_steps`. */
fb3_status fb3_feed_open(fb3_feed **feed, fb3_session *session, const fb3_sampler *sampler, const fb3_dataset *dataset,
                         const fb3_vocabulary *vocabulary, int hidden, fb3_split split, int visits, int max_tokens,
                         int max_sequences, int64_t first_step, int64_t total_steps);
void fb3_feed_close(fb3_feed *feed);
/* The plan of the current step. */
const fb3_step_plan *fb3_feed_plan(const fb3_feed *feed);
/* The next micro-batch of the current step, in order. Local. */
fb3_status fb3_feed_next(fb3_feed *feed, const fb3_batch **batch);
/* Moves to the next step. */
void fb3_feed_advance(fb3_feed *feed);

/* --- run.c -------------------------------------------------------------------------------------------------------- */

typedef struct fb3_run {
    fb3_session *session;
    fb3_config *config;
    fb3_tokenizer *tokenizer;
    fb3_dataset *data, *validation; /* validation NULL unless there is a validation_file */
    fb3_vocabulary vocabulary;
    bool pretrained; /* not a random start */
    fb3_hf_dir *hf;  /* on the ranks that read weights, where there are any to read */
    fb3_model_config model;
    fb3_param_table *table;
    char weights_sha256[FB3_SHA256_HEX];
    int folds;                        /* 1: no cross-validation */
    int8_t *fold;                     /* [n] node memory */
    int32_t *rows;                    /* [n] node memory: train rows, then eval rows of the fold in training */
    bool selected[FB3_MAX_FOLDS];     /* the folds to train */
    int groups, group;                /* of ranks: how many, and this rank's */
    int *group_of_rank;               /* [world size] */
    int smallest_group;               /* ranks of it */
    int group_of_fold[FB3_MAX_FOLDS]; /* which trains it; -1: not selected, or complete already */
    fb3_split split;                  /* of the global batch, on this group */
    int micro_sequences, longest;     /* of a training micro-batch; of the data, in tokens */
    int lock;                         /* of the run directory, on the root; else -1 */
    fb3_progress *progress;           /* on the first rank of a group while folds are trained; NULL is fine */
    double started;                   /* fb3_seconds() */
    double trained_samples;           /* since then, by this process's group; in the end by all */
} fb3_run;

/* Everything before the first fold: directories, tokenizer, data set, folds, model, checks against a run that is
 * already in output_dir; writes run.yaml and folds.csv. */
fb3_status fb3_run_open(fb3_run *run, fb3_session *session);
/* Only as far as the folds go: tokenizer, data set, folds, folds.csv (the `folds` verb). */
fb3_status fb3_run_open_folds(fb3_run *run, fb3_session *session);
void fb3_run_close(fb3_run *run);
/* The run.yaml of a run directory, for the caller to free; *text is NULL where there is none. Local. */
fb3_status fb3_run_yaml_read(const char *run_directory, char **text);
/* "<output_dir>/artifacts/FB3-fold-<k>": artifact.c's export for trackers that keep models. Caller frees. */
char *fb3_run_artifact_path(const fb3_run *run, int fold);
/* --dry_run: the resolved configuration, steps, memory, disk and an estimate of the time, on standard output. */
fb3_status fb3_run_print_plan(fb3_run *run);

/* --- start_model.c: what is read of the model a run starts from, and by whom ---------------------------------------
 */

/* The shape and the tokenizer, on every rank. */
fb3_status fb3_run_open_model(fb3_run *run);
/* weights_sha256, by the first rank of each group; all of them must see the same file. Nothing for a random start. */
fb3_status fb3_run_identify_weights(fb3_run *run);
/* The weights that every fold starts from. `weights` is allocated. On the first rank of a group. Local. */
fb3_status fb3_run_starting_weights(const fb3_run *run, fb3_weights *weights);

/* --- disk.c ------------------------------------------------------------------------------------------------------- */

/* Bytes of a fold's checkpoints: the most while it trains, and when it is complete. */
typedef struct fb3_fold_disk {
    double training, complete;
} fb3_fold_disk;
fb3_fold_disk fb3_run_fold_disk(const fb3_run *run);
/* FB3_FAILED, with the numbers, where the run directory's file system has not enough left for the folds that are to be
 * trained. Local. */
fb3_status fb3_run_check_disk(const fb3_run *run);

/* --- groups.c ----------------------------------------------------------------------------------------------------- */

/* group[size]: the group of each rank, and how many there are. `wanted`: fold_groups, FB3_UNSET_INT is auto: the
 * largest number that divides both the folds and the nodes, else 1. `selected` folds were asked for, `folds` of them
 * are still to be trained; a number that was wanted for all of them becomes smaller where fewer are left. Groups are
 * whole nodes, in their order, or equal runs of a node's ranks. FB3_INPUT where the wanted number does not divide the
 * world. Local. */
fb3_status fb3_groups_choose(const fb3_rank_info *ranks, int size, int64_t wanted, int selected, int folds, int *group,
                             int *groups);
/* Finds the folds that are still to be trained, divides the ranks into groups for them (`fold_groups`), prints the
 * start table, and enters this rank's group. */
fb3_status fb3_run_form_groups(fb3_run *run);

/* The samples of a fold, rows of run->rows: trained on, and evaluated on (of run->validation where there is one). */
typedef struct fb3_fold_rows {
    const int32_t *train, *eval;
    int64_t train_count, eval_count;
} fb3_fold_rows;
fb3_status fb3_run_fold_rows(fb3_run *run, int fold, fb3_fold_rows *rows);
/* Optimizer steps of a fold with that many training samples. */
int64_t fb3_run_total_steps(const fb3_run *run, int64_t train_count);
/* The peak resident memory of this process in MB. */
double fb3_peak_memory_mb(void);

/* --- step.c ------------------------------------------------------------------------------------------------------- */

/* What an optimizer step works with, and what came of it. */
typedef struct fb3_trainer {
    fb3_session *session;
    fb3_replica *replica;
    fb3_feed *feed;
    fb3_reducer *reducer;
    fb3_optimizer *optimizer;
    fb3_schedule schedule;
    const fb3_config *config;
    fb3_dropout_rates dropout;
    fb3_rng_key dropout_key;
    int targets;
    fb3_split split;
    double *leaf_sums; /* [leaves, FB3_LOSS_SUMS(targets)] of this step, where there are leaves */
    int64_t step;      /* finished optimizer steps */
    int64_t updates;   /* those that changed the weights: AdamW's t */
} fb3_trainer;

typedef struct fb3_step_result {
    bool stopped; /* a rank was asked to stop: the step was dropped, nothing has changed */
    bool skipped; /* the gradient was not finite */
    double loss, grad_norm, learning_rate;
    int64_t samples, tokens;
} fb3_step_result;

fb3_status fb3_train_step(fb3_trainer *trainer, fb3_step_result *result);

/* --- trainer.c ---------------------------------------------------------------------------------------------------- */

/* Trains one fold to its end, continuing from its last checkpoint. FB3_STOPPED after a checkpoint on a stop signal. */
fb3_status fb3_fold_train(fb3_run *run, int fold);
/* True when fold-<k> is complete already. Local. */
bool fb3_fold_complete(const fb3_run *run, int fold);
/* Removes what a kill left in a fold's folder: half-written files and, where the fold is complete, previous.h5.
 * Local; only while nobody writes there. */
void fb3_fold_tidy(const fb3_run *run, int fold, bool complete);

/* --- evaluate.c --------------------------------------------------------------------------------------------------- */

/* Predictions for `rows`, shared out over all ranks. On the root: pred [n, Y] and pooled [n, C], in the order of
 * `rows`; elsewhere they are not touched. `pooled` is NULL on all ranks or on none. */
fb3_status fb3_evaluate_rows(fb3_replica *replica, const fb3_dataset *dataset, const fb3_vocabulary *vocabulary,
                             const int32_t *rows, int64_t n, float *pred, float *pooled);

/* --- models.c: trained models on disk ----------------------------------------------------------------------------- */

/* The models that paths stand for, in order: a run directory is its folds' best.h5, a fold directory its best.h5, an
 * .h5 file itself, a directory with config.json an exported model. FB3_INPUT for anything else. Local. */
fb3_status fb3_models_find(fb3_strings *models, const fb3_strings *paths);

/* What a model needs besides its weights. */
typedef struct fb3_model_info {
    fb3_model_config model;
    int targets, max_length; /* max_length 0: not recorded */
    fb3_strings labels;      /* count 0: not recorded */
    fb3_tokenizer *tokenizer;
} fb3_model_info;
void fb3_model_info_free(fb3_model_info *info);
/* Label names as checkpoints and exports keep them: a JSON list. Caller frees; NULL without memory. */
char *fb3_labels_json(const fb3_strings *labels);

/* An open model: a checkpoint or an exported (Hugging Face) directory. Local; HDF5 is called on this thread. */
typedef struct fb3_model_file {
    char *path;
    fb3_checkpoint *checkpoint; /* one of the two */
    fb3_hf_dir *hf;
    fb3_model_info info;
} fb3_model_file;
fb3_status fb3_model_file_open(fb3_model_file *file, const char *path);
void fb3_model_file_close(fb3_model_file *file);
/* Allocates and fills weights. FB3_INPUT for an exported encoder without a head. */
fb3_status fb3_model_file_weights(const fb3_model_file *file, const fb3_param_table *table, fb3_weights *weights);
/* Writes the model as a Hugging Face or PyTorch directory, which must be new or empty. `max_length` is for a model that
 * has none recorded. */
fb3_status fb3_model_file_export(const fb3_model_file *file, fb3_export_format format, fb3_export_dtype dtype,
                                 int max_length, const char *directory);

/* --- predict.c ---------------------------------------------------------------------------------------------------- */

/* Predictions of several models for one CSV. On the root; elsewhere only `models`, `targets` and `n` are set. */
typedef struct fb3_predictions {
    int models, targets, hidden;
    int64_t n;
    fb3_strings names;  /* of the models: their paths */
    fb3_strings labels; /* of the targets */
    fb3_strings ids;    /* [n] */
    float **pred;       /* [models] of [n, Y] */
    float *mean;        /* [n, Y] */
    float *truth;       /* [n, Y], where it was asked for */
    float *pooled;      /* [models, n, C], where it was asked for */
} fb3_predictions;
/* The tokenised CSV lies beside `output` meanwhile, or, when that is NULL, in the working directory. `labelled`: the
 * CSV has the label columns, and truth is filled. `pooled`: the pooled embeddings are kept. */
fb3_status fb3_predict_file(fb3_session *session, const fb3_strings *paths, const char *csv, const char *output,
                            bool labelled, bool pooled, fb3_predictions *predictions);
void fb3_predictions_free(fb3_predictions *predictions);

/* --- trial.c: steps without data, to measure them ----------------------------------------------------------------- */

typedef struct fb3_trial {
    fb3_session *session;
    fb3_param_table *table;
    fb3_batch *batch;
    fb3_replica replica;
    fb3_optimizer *optimizer;
    fb3_reducer *reducer;
    int64_t steps;
} fb3_trial;
/* A model of that shape with random weights, and on every rank a batch of so many essays of usual lengths. */
fb3_status fb3_trial_open(fb3_trial *trial, fb3_session *session, const fb3_model_config *model, int sequences,
                          int max_length);
void fb3_trial_close(fb3_trial *trial);
/* One step over all ranks: forward, backward, all-reduce, clip, AdamW. */
fb3_status fb3_trial_step(fb3_trial *trial, double *seconds);
/* The arithmetic of a step by the usual count: 6 flops per token and weight of the encoder, and three times the forward
 * pass of attention, position terms over the whole table. What is computed again is not counted. */
double fb3_step_flops(const fb3_model_config *model, const int32_t *seq_start, int sequences);

/* --- page.c: report.html ------------------------------------------------------------------------------------------ */

/* After an evaluation: has the page made by the I/O worker of rank 0 of the world, if one is due. A failure is one
 * warning. Local. */
void fb3_run_page(const fb3_run *run);
/* The fold has ended so: the page that is being made is waited for a few seconds, or not at all after a failure, and
 * then given up. After it the worker makes no page. Local. */
void fb3_run_page_settle(fb3_status fold);
/* At the end of the run, or when it stops: rank 0 makes the page, in a few seconds or not at all where it stops.
 * Collective; returns `end`, with its text, unless the ranks fail each other. */
fb3_status fb3_run_last_page(const fb3_run *run, fb3_status end);

/* --- watch.c: progress.json, and the live block ------------------------------------------------------------------- */

/* Before the first fold: puts right what an earlier start has left, asks whether a person looks on, opens run->progress
 * on the first rank of each group. Collective over the world. */
fb3_status fb3_run_watch(fb3_run *run);
/* Local. */
void fb3_run_watch_end(fb3_run *run);

/* --- verbs -------------------------------------------------------------------------------------------------------- */

fb3_status fb3_train(fb3_session *session);
/* seeds.c: calls `train` once for each of config->seeds, as if seed and output_dir (<output_dir>/seed-<seed>) had been
 * given so; at the end <output_dir>/summary.json and a table have the mean and the spread. */
fb3_status fb3_train_seeds(fb3_session *session, fb3_status (*train)(fb3_session *session));
fb3_status fb3_predict(fb3_session *session);
fb3_status fb3_evaluate(fb3_session *session);
/* Pools the fold tables of a run directory: oof.csv, summary.json, the table of scores. Root only, local. */
fb3_status fb3_summarise(const fb3_run *run);

#endif
