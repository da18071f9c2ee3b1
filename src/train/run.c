/* What a run needs before its first fold: a directory that is its own, the tokenizer, the tokenised data, the folds,
 * the model's shape, and the configuration with every `auto` resolved for the whole world. */
#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* A run.yaml is a few kilobytes. */
#define LARGEST_RUN_YAML ((size_t)1 << 20)

double fb3_peak_memory_mb(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (double)usage.ru_maxrss / 1024 : NAN;
}

static char *output_path(const fb3_run *run, const char *name)
{
    return fb3_path_join(run->config->output_dir, name);
}

/* --- data and folds ----------------------------------------------------------------------------------------------- */

static fb3_status need_train_file(const fb3_config *config)
{
    FB3_REQUIRE(config->train_file.count > 0, FB3_INPUT, "no data: set train_file to a CSV or a prepared .h5");
    return FB3_OK;
}

static fb3_status open_data(fb3_run *run)
{
    fb3_config *config = run->config;
    FB3_TRY(need_train_file(config));
    char *data = output_path(run, "data.h5"), *validation = output_path(run, "validation.h5");
    fb3_status status = data && validation ? FB3_OK : fb3_fail(FB3_FAILED, "out of memory");
    if (status == FB3_OK) {
        status = fb3_session_prepare(run->session, &run->data, &config->train_file, data, run->tokenizer,
                                     (int)config->max_length, true, FB3_UNSET_INT);
    }
    if (status == FB3_OK && config->validation_file) {
        const fb3_strings one = {.item = &config->validation_file, .count = 1};
        status = fb3_session_prepare(run->session, &run->validation, &one, validation, run->tokenizer,
                                     (int)config->max_length, true, FB3_UNSET_INT);
    }
    free(data);
    free(validation);
    FB3_TRY(status);
    FB3_REQUIRE(run->data->n <= INT32_MAX, FB3_INPUT, "%s has %lld samples; more than 2^31 - 1 are not supported",
                config->train_file.item[0], (long long)run->data->n);
    return fb3_vocabulary_make(&run->vocabulary, run->data, run->validation, run->model.vocab);
}

static fb3_status read_scores(const void *dataset, int64_t first, int64_t count, float *scores)
{
    return fb3_dataset_label_range(dataset, first, count, scores);
}

/* fold[n] by the configured method; *folds is the number of folds. */
static fb3_status assign_folds(const fb3_run *run, int8_t *fold, int *folds)
{
    const fb3_config *config = run->config;
    const fb3_dataset *data = run->data;
    uint32_t seed = (uint32_t)config->seed;
    int k = *folds;
    if (config->validation_file || k == 1) {
        memset(fold, 0, (size_t)data->n);
        *folds = 1;
        return FB3_OK;
    }
    if (config->folds_file) {
        return fb3_folds_read_csv(fold, config->folds_file, config->id_column, data, folds);
    }
    if (config->fold_column) {
        FB3_TRY(fb3_dataset_read_folds(data, fold));
        return fb3_folds_count(fold, data->n, config->fold_column, folds);
    }
    FB3_REQUIRE(k <= data->n, FB3_INPUT, "folds: %d is more than the %lld samples", k, (long long)data->n);
    const fb3_score_source scores = {.n = data->n, .targets = data->targets, .read = read_scores, .context = data};
    return config->fold_method == FB3_FOLD_BINNED ? fb3_folds_binned(fold, &scores, k, seed)
                                                  : fb3_folds_compat(fold, &scores, k, seed);
}

static fb3_status make_folds(fb3_run *run)
{
    fb3_comm *comm = run->session->comm;
    fb3_node_memory *node = fb3_comm_node_memory(comm);
    void *fold;
    int64_t folds = run->config->folds;
    FB3_TRY(node->allocate(node->context, (size_t)run->data->n * sizeof *run->fold, &fold));
    run->fold = fold;
    fb3_status status = FB3_OK;
    if (node->writer) {
        int k = (int)folds;
        status = assign_folds(run, run->fold, &k);
        folds = k;
    }
    FB3_TRY(node->publish(node->context, status));
    FB3_TRY(fb3_comm_broadcast(comm, &folds, sizeof folds, 0, "number of folds"));
    FB3_REQUIRE(!fb3_config_given(run->config, "folds") || run->config->folds == folds || run->validation, FB3_INPUT,
                "folds: %lld was given, and the fold assignment has %lld folds", (long long)run->config->folds,
                (long long)folds);
    run->folds = (int)folds;
    run->config->folds = folds;
    return fb3_config_train_folds(run->config, run->folds, run->selected);
}

/* A group's own: groups that share a node train different folds. */
static fb3_status allocate_rows(fb3_run *run)
{
    fb3_node_memory *node = fb3_comm_node_memory(run->session->comm);
    void *rows;
    FB3_TRY(node->allocate(node->context, (size_t)run->data->n * sizeof *run->rows, &rows));
    run->rows = rows;
    return FB3_OK;
}

fb3_status fb3_run_fold_rows(fb3_run *run, int fold, fb3_fold_rows *rows)
{
    const fb3_config *config = run->config;
    fb3_node_memory *node = fb3_comm_node_memory(run->session->comm);
    int64_t n = run->data->n, train = 0, eval = 0;
    bool cross = run->folds > 1;
    for (int64_t i = 0; i < n; i++) train += !cross || run->fold[i] != fold;
    FB3_TRY(fb3_comm_barrier(run->session->comm, "change of fold")); /* nobody reads the rows of the fold before */
    if (node->writer) {
        int64_t t = 0, e = train;
        for (int64_t i = 0; i < n; i++) run->rows[!cross || run->fold[i] != fold ? t++ : e++] = (int32_t)i;
    }
    FB3_TRY(node->publish(node->context, FB3_OK));
    eval = run->validation ? run->validation->n : n - train;
    *rows = (fb3_fold_rows){.train = run->rows, .eval = run->rows + train, .train_count = train, .eval_count = eval};
    if (config->max_train_samples != FB3_UNSET_INT && train > config->max_train_samples) {
        rows->train_count = config->max_train_samples;
    }
    if (config->max_eval_samples != FB3_UNSET_INT && eval > config->max_eval_samples) {
        rows->eval_count = config->max_eval_samples;
    }
    if (run->validation) rows->eval = NULL; /* all rows of the validation set, in order */
    FB3_REQUIRE(rows->train_count > 0, FB3_INPUT, "fold %d has no samples to train on", fold);
    return FB3_OK;
}

/* --- resolution --------------------------------------------------------------------------------------------------- */

static int64_t ceil_divide(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Micro-batches in which so many ranks take a global batch. */
static int64_t micro_batches(const fb3_config *config, int64_t ranks)
{
    return ceil_divide(config->total_train_batch_size, config->per_device_train_batch_size * ranks);
}

/* Into leaves, which do not depend on the ranks, or evenly. Local. */
static fb3_status split_batch(fb3_run *run)
{
    const fb3_config *config = run->config;
    const int64_t ranks = run->session->size, leaves = config->reproducible_leaves;
    const int64_t total = config->total_train_batch_size, per_device = config->per_device_train_batch_size;
    if (!config->reproducible) {
        run->split.accumulation = (int)micro_batches(config, ranks);
        run->micro_sequences = (int)ceil_divide(ceil_divide(total, ranks), run->split.accumulation);
        return FB3_OK;
    }
    FB3_REQUIRE(
        ranks <= leaves, FB3_INPUT,
        "reproducible: %lld ranks train a fold, and a global batch has %lld leaves; use at most as many ranks, or "
        "begin a run with reproducible_leaves: %lld",
        (long long)ranks, (long long)leaves, (long long)ranks);
    run->split = (fb3_split){.accumulation = (int)ceil_divide(leaves, ranks), .leaves = (int)leaves};
    run->micro_sequences = (int)ceil_divide(total, leaves);
    FB3_REQUIRE(
        run->micro_sequences <= per_device, FB3_INPUT,
        "reproducible: a leaf of the global batch has %d samples, more than per_device_train_batch_size: %lld; use "
        "at least reproducible_leaves: %lld",
        run->micro_sequences, (long long)per_device, (long long)ceil_divide(total, per_device));
    return FB3_OK;
}

/* The global batch is one number for all folds, fixed at the first start: what the smallest group takes. */
static fb3_status resolve_batch(fb3_run *run, bool first_start)
{
    fb3_config *config = run->config;
    int64_t ranks = run->smallest_group, accumulation = config->gradient_accumulation_steps;
    if (config->total_train_batch_size == FB3_UNSET_INT)
        config->total_train_batch_size = config->per_device_train_batch_size * accumulation * ranks;
    int64_t needed = micro_batches(config, ranks);
    FB3_REQUIRE(
        !first_start || !fb3_config_given(config, "gradient_accumulation_steps") || accumulation == needed, FB3_INPUT,
        "gradient_accumulation_steps: %lld contradicts total_train_batch_size: %lld, which on %lld ranks of %lld "
        "takes %lld; leave one of them out",
        (long long)accumulation, (long long)config->total_train_batch_size, (long long)ranks,
        (long long)config->per_device_train_batch_size, (long long)needed);
    config->gradient_accumulation_steps = needed;
    FB3_TRY(fb3_comm_agree(run->session->world, split_batch(run), "splitting the global batch"));
    run->longest = fb3_dataset_longest(run->data);
    if (run->validation && fb3_dataset_longest(run->validation) > run->longest) {
        run->longest = fb3_dataset_longest(run->validation);
    }
    return FB3_OK;
}

int64_t fb3_run_total_steps(const fb3_run *run, int64_t train_count)
{
    const fb3_config *config = run->config;
    if (config->max_steps > 0) return config->max_steps;
    int64_t per_epoch = ceil_divide(train_count, config->total_train_batch_size);
    return (int64_t)ceil(config->num_train_epochs * (double)per_epoch);
}

/* --- the run directory -------------------------------------------------------------------------------------------- */

static fb3_status check_resume_path(const fb3_config *config)
{
    FB3_REQUIRE(config->resume != FB3_RESUME_PATH || fb3_file_exists(config->resume_path), FB3_INPUT,
                "resume: there is no checkpoint %s; give a last.h5, or auto", config->resume_path);
    return FB3_OK;
}

/* One run at a time works in a directory. Ranks whose launcher was killed live on for a moment: that long we wait. */
static fb3_status lock_directory(fb3_run *run)
{
    enum { WAIT_SECONDS = 10 };
    char *path = output_path(run, ".lock");
    FB3_REQUIRE(path, FB3_FAILED, "out of memory");
    fb3_status status = fb3_file_lock(path, WAIT_SECONDS, &run->lock);
    free(path);
    return status;
}

fb3_status fb3_run_yaml_read(const char *run_directory, char **text)
{
    size_t bytes;
    *text = NULL;
    char *path = fb3_path_join(run_directory, "run.yaml");
    FB3_REQUIRE(path, FB3_FAILED, "out of memory");
    fb3_status status = fb3_file_exists(path) ? fb3_file_read(path, LARGEST_RUN_YAML, text, &bytes) : FB3_OK;
    free(path);
    return status;
}

/* The directory is there and ours; *text as fb3_run_yaml_read(). Local. */
static fb3_status enter_directory(fb3_run *run, char **text)
{
    const fb3_config *config = run->config;
    FB3_TRY(check_resume_path(config));
    FB3_TRY(fb3_folder_make(config->output_dir));
    if (!config->dry_run) FB3_TRY(lock_directory(run));
    FB3_TRY(fb3_run_yaml_read(config->output_dir, text));
    FB3_REQUIRE(!*text || config->resume != FB3_RESUME_NEVER, FB3_INPUT,
                "%s holds a run and resume is never; choose another output_dir", config->output_dir);
    return FB3_OK;
}

static bool sees(const char *path)
{
    enum { TRIES = 50 };
    const struct timespec pause = {.tv_nsec = 100000000};
    for (int i = 0; i < TRIES; i++) { /* network file systems show a new file to other nodes after a while */
        if (fb3_file_exists(path)) return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

/* A directory of the same name on each node would leave parts of a run everywhere. */
static fb3_status check_shared(const fb3_run *run)
{
    fb3_session *session = run->session;
    uint64_t token;
    FB3_TRY(fb3_session_token(session, &token));
    char *path = fb3_format("%s/.seen-%016" PRIx64, run->config->output_dir, token);
    FB3_REQUIRE(path, FB3_FAILED, "out of memory");
    fb3_status status = session->root ? fb3_file_write(path, "", 0) : FB3_OK;
    status = fb3_comm_agree(session->comm, status, "writing to the run directory");
    if (status == FB3_OK) {
        if (!sees(path))
            status =
                fb3_fail(FB3_INPUT,
                         "%s of this node is not the directory that rank 0 writes to; choose an output_dir on a file "
                         "system that all nodes share",
                         run->config->output_dir);
        status = fb3_comm_agree(session->comm, status, "looking at the run directory");
    }
    if (session->root) remove(path);
    free(path);
    return status;
}

/* *text is the run.yaml of a run that is there already, or NULL. The root reads, all ranks get it. */
static fb3_status read_stored(fb3_run *run, char **text)
{
    *text = NULL;
    fb3_status mine = run->session->root ? enter_directory(run, text) : FB3_OK;
    int64_t length = *text ? (int64_t)strlen(*text) : -1;
    FB3_TRY(fb3_comm_agree(run->session->comm, mine, "opening the run directory"));
    if (run->session->size > 1 && !run->config->dry_run) FB3_TRY(check_shared(run));
    FB3_TRY(fb3_comm_broadcast(run->session->comm, &length, sizeof length, 0, "stored configuration"));
    if (length < 0) return FB3_OK;
    if (!*text) *text = calloc((size_t)length + 1, 1);
    FB3_REQUIRE(*text, FB3_FAILED, "out of memory for run.yaml");
    return fb3_comm_broadcast(run->session->comm, *text, (size_t)length, 0, "stored configuration");
}

static fb3_status write_folds(const fb3_run *run)
{
    char *path = output_path(run, "folds.csv");
    FB3_REQUIRE(path, FB3_FAILED, "out of memory");
    fb3_status status = fb3_folds_write_csv(run->fold, path, run->config->id_column, run->data);
    free(path);
    return status;
}

/* run.yaml comes last: a directory with it holds a run. */
static fb3_status write_run_files(const fb3_run *run)
{
    if (run->folds > 1) FB3_TRY(write_folds(run));
    char *path = output_path(run, "run.yaml"), *text = fb3_config_text(run->config);
    fb3_status status = path && text ? fb3_file_write(path, text, strlen(text)) : fb3_fail(FB3_FAILED, "out of memory");
    free(path);
    free(text);
    return status;
}

/* What the first start resolved stays as it was; what the user says now must agree with it. Nothing of the run is
 * touched before this check. */
static fb3_status adopt_stored(fb3_run *run, const char *text, fb3_config *stored)
{
    fb3_config *config = run->config;
    FB3_TRY(fb3_config_load_text(stored, text, "run.yaml"));
    if (config->total_train_batch_size == FB3_UNSET_INT) {
        config->total_train_batch_size = stored->total_train_batch_size;
    }
    if (!fb3_config_given(config, "folds")) config->folds = stored->folds;
    if (config->bf16 == FB3_AUTO) config->bf16 = stored->bf16;
    return fb3_config_check_resume(text, config);
}

/* The directory is locked, and no rank has gone on to training: nobody writes (but a user's `report` in this very
 * moment, which would say so). The directory may hold files of others. */
static void tidy(const fb3_run *run)
{
    fb3_file_remove_temporaries(run->config->output_dir, "report.html");
    for (int k = 0; k < run->folds; k++)
        if (run->selected[k]) fb3_fold_tidy(run, k, run->group_of_fold[k] < 0);
}

static fb3_status open_run(fb3_run *run, char **stored_text, fb3_config *stored)
{
    fb3_session *session = run->session;
    FB3_TRY(read_stored(run, stored_text));
    if (*stored_text) FB3_TRY(adopt_stored(run, *stored_text, stored));
    FB3_TRY(fb3_session_open_backend(session));
    FB3_TRY(fb3_run_open_model(run));
    FB3_TRY(open_data(run));
    FB3_TRY(make_folds(run));
    FB3_TRY(fb3_run_form_groups(run));
    FB3_TRY(fb3_run_identify_weights(run));
    FB3_TRY(allocate_rows(run));
    FB3_TRY(resolve_batch(run, *stored_text == NULL));
    FB3_TRY(fb3_param_table_create(&run->table, &run->model, run->vocabulary.count, run->data->targets));
    if (run->config->dry_run) return FB3_OK;
    if (session->first) tidy(run);
    FB3_TRY(fb3_comm_agree(session->world, session->first ? fb3_run_check_disk(run) : FB3_OK, "space for checkpoints"));
    fb3_status mine = session->first && !*stored_text ? write_run_files(run) : FB3_OK;
    return fb3_comm_agree(session->world, mine, "writing the run directory");
}

fb3_status fb3_run_open(fb3_run *run, fb3_session *session)
{
    *run = (fb3_run){.session = session, .config = session->config, .lock = -1, .started = fb3_seconds()};
    char *stored_text = NULL;
    fb3_config stored = {0};
    fb3_status status = open_run(run, &stored_text, &stored);
    if (stored_text) fb3_config_free(&stored);
    free(stored_text);
    return status;
}

fb3_status fb3_run_open_folds(fb3_run *run, fb3_session *session)
{
    *run = (fb3_run){.session = session, .config = session->config, .lock = -1, .started = fb3_seconds()};
    char *labels = output_path(run, "labels.h5");
    FB3_REQUIRE(labels, FB3_FAILED, "out of memory");
    fb3_status mine = session->root ? fb3_folder_make(run->config->output_dir) : FB3_OK;
    fb3_status status = fb3_comm_agree(session->comm, mine, "making the output directory");
    if (status == FB3_OK) status = need_train_file(run->config);
    if (status == FB3_OK) {
        status = fb3_session_prepare(session, &run->data, &run->config->train_file, labels, NULL,
                                     (int)run->config->max_length, true, FB3_UNSET_INT);
    }
    if (status == FB3_OK) status = make_folds(run);
    if (status == FB3_OK)
        status = fb3_comm_agree(session->comm, session->root ? write_folds(run) : FB3_OK, "folds.csv");
    if (session->root) remove(labels);
    free(labels);
    return status;
}

void fb3_run_close(fb3_run *run)
{
    fb3_run_watch_end(run);
    fb3_file_unlock(run->lock);
    free(run->group_of_rank);
    fb3_param_table_free(run->table);
    fb3_hf_close(run->hf);
    fb3_vocabulary_free(&run->vocabulary);
    fb3_dataset_close(run->validation);
    fb3_dataset_close(run->data);
    fb3_tokenizer_close(run->tokenizer);
    *run = (fb3_run){0};
}
