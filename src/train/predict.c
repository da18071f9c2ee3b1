/* Predicting: every model over all ranks, then the average of the models, as the notebook does with its folds.
 *
 * The root opens a model file and tells the others what they need: the shape, the tokenizer, the weights. */
#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the ranks must know of a model to build a replica of it. */
typedef struct announcement {
    fb3_model_config model;
    int targets, max_length;
    size_t spm_bytes;
} announcement;

/* Opens a model on the root and tells all ranks about it. */
static fb3_status open_everywhere(fb3_session *session, fb3_model_file *file, const char *path)
{
    *file = (fb3_model_file){0};
    fb3_status mine = session->root ? fb3_model_file_open(file, path) : FB3_OK;
    FB3_TRY(fb3_comm_agree(session->comm, mine, "opening a model"));
    fb3_model_info *info = &file->info;
    announcement about = {.model = info->model, .targets = info->targets, .max_length = info->max_length};
    if (session->root) (void)fb3_tokenizer_model(info->tokenizer, &about.spm_bytes);
    FB3_TRY(fb3_comm_broadcast(session->comm, &about, sizeof about, 0, "model"));
    info->model = about.model;
    info->targets = about.targets;
    info->max_length = about.max_length;
    return fb3_session_share_tokenizer(session, &info->tokenizer, about.spm_bytes);
}

/* The data set of the CSV for a model; made again only when the tokenizer or the length differ. */
typedef struct test_data {
    fb3_dataset *dataset;
    int max_length;
    char *h5_path;
} test_data;

static fb3_status prepare_data(fb3_session *session, test_data *data, const fb3_model_info *info, const char *csv,
                               bool labelled)
{
    const fb3_config *config = session->config;
    int max_length =
        info->max_length > 0 && !fb3_config_given(config, "max_length") ? info->max_length : (int)config->max_length;
    if (data->dataset && data->max_length == max_length &&
        strcmp(data->dataset->tokenizer_sha256, fb3_tokenizer_sha256(info->tokenizer)) == 0) {
        return FB3_OK;
    }
    fb3_dataset_close(data->dataset);
    data->dataset = NULL;
    data->max_length = max_length;
    char *path = (char *)csv; /* a list of one, which is only read */
    return fb3_session_prepare(session, &data->dataset, &(fb3_strings){.item = &path, .count = 1}, data->h5_path,
                               info->tokenizer, max_length, labelled, config->max_predict_samples);
}

static fb3_status upload_weights(fb3_session *session, fb3_replica *replica, const fb3_model_file *file,
                                 const fb3_vocabulary *vocabulary)
{
    const fb3_param_table *table = replica->table;
    fb3_weights weights = {0};
    fb3_status mine = FB3_OK;
    if (session->root) {
        mine = fb3_model_file_weights(file, table, &weights);
        if (mine == FB3_OK) fb3_weights_gather_word(&weights, table, vocabulary->active);
    } else {
        weights.arena = malloc((size_t)table->size * sizeof *weights.arena);
        if (!weights.arena) mine = fb3_fail(FB3_FAILED, "out of memory for the weights");
    }
    fb3_status status = fb3_comm_agree(session->comm, mine, "reading the weights");
    if (status == FB3_OK) {
        status = fb3_comm_broadcast(session->comm, weights.arena, (size_t)table->size * sizeof *weights.arena, 0,
                                    "spreading the weights");
    }
    if (status == FB3_OK) status = fb3_replica_upload(replica, weights.arena);
    fb3_weights_free(&weights);
    return status;
}

/* Predictions of one open model, and on request its pooled embeddings, on the root. */
static fb3_status predict_model(fb3_session *session, const fb3_model_file *file, const fb3_dataset *dataset,
                                float *pred, float *pooled)
{
    fb3_status status = FB3_OK;
    fb3_vocabulary vocabulary = {0};
    fb3_param_table *table = NULL;
    fb3_replica replica = {0};
    int batch = (int)session->config->per_device_eval_batch_size, longest = fb3_dataset_longest(dataset);
    int32_t *rows = malloc((size_t)dataset->n * sizeof *rows);
    FB3_REQUIRE_GOTO(rows, done, FB3_FAILED, "out of memory for %lld rows", (long long)dataset->n);
    for (int64_t i = 0; i < dataset->n; i++) rows[i] = (int32_t)i;
    FB3_TRY_GOTO(fb3_vocabulary_make(&vocabulary, dataset, NULL, file->info.model.vocab), done);
    FB3_TRY_GOTO(fb3_param_table_create(&table, &file->info.model, vocabulary.count, file->info.targets), done);
    FB3_TRY_GOTO(fb3_replica_open(&replica, session, table, batch * longest, batch, longest, FB3_INFERENCE), done);
    FB3_TRY_GOTO(upload_weights(session, &replica, file, &vocabulary), done);
    FB3_TRY_GOTO(fb3_evaluate_rows(&replica, dataset, &vocabulary, rows, dataset->n, pred, pooled), done);
done:
    fb3_replica_close(&replica);
    fb3_param_table_free(table);
    fb3_vocabulary_free(&vocabulary);
    free(rows);
    return status;
}

/* Room for the next model's predictions. The ranks that are not the root need a place to point at only. */
static fb3_status add_model(fb3_session *session, fb3_predictions *p, const fb3_model_info *info, int64_t n,
                            bool pooled)
{
    if (p->models == 0) {
        p->n = n;
        p->targets = info->targets;
        p->hidden = info->model.hidden;
    }
    FB3_REQUIRE(p->targets == info->targets, FB3_INPUT, "the models have different numbers of targets: %d and %d",
                p->targets, info->targets);
    FB3_REQUIRE(!pooled || p->hidden == info->model.hidden, FB3_INPUT,
                "--embeddings_file needs models of one hidden size: %d and %d", p->hidden, info->model.hidden);
    size_t rows = session->root ? (size_t)n : 1, models = (size_t)p->models + 1;
    float **pred = realloc(p->pred, models * sizeof *pred);
    FB3_REQUIRE(pred, FB3_FAILED, "out of memory for predictions");
    p->pred = pred;
    pred[p->models] = malloc(rows * (size_t)p->targets * sizeof **pred);
    FB3_REQUIRE(pred[p->models], FB3_FAILED, "out of memory for %lld predictions", (long long)n);
    p->models++;
    if (!pooled) return FB3_OK;
    float *all = realloc(p->pooled, models * rows * (size_t)p->hidden * sizeof *all);
    FB3_REQUIRE(all, FB3_FAILED, "out of memory for %lld embeddings", (long long)n);
    p->pooled = all;
    return FB3_OK;
}

static fb3_status take_labels(fb3_session *session, fb3_predictions *p, const fb3_model_info *info)
{
    const fb3_strings *labels = info->labels.count > 0 ? &info->labels : &session->config->label_columns;
    if (!session->root || p->labels.count > 0) return FB3_OK;
    FB3_REQUIRE(labels->count == info->targets, FB3_INPUT,
                "the model predicts %d targets and label_columns names %d; set label_columns", info->targets,
                labels->count);
    for (int y = 0; y < labels->count; y++) FB3_TRY(fb3_strings_add(&p->labels, labels->item[y]));
    return FB3_OK;
}

static fb3_status predict_one(fb3_session *session, fb3_predictions *p, test_data *data, const char *path,
                              const char *csv, bool labelled, bool pooled)
{
    fb3_model_file file;
    fb3_status status = open_everywhere(session, &file, path);
    if (status == FB3_OK) status = fb3_comm_agree(session->comm, take_labels(session, p, &file.info), "label columns");
    if (status == FB3_OK) status = prepare_data(session, data, &file.info, csv, labelled);
    if (status == FB3_OK) status = add_model(session, p, &file.info, data->dataset->n, pooled);
    if (status == FB3_OK) {
        size_t rows = session->root ? (size_t)p->n : 0;
        float *embeddings = pooled ? p->pooled + (size_t)(p->models - 1) * rows * (size_t)p->hidden : NULL;
        if (session->root) fb3_log_info("predicting %lld samples with %s", (long long)p->n, path);
        status = predict_model(session, &file, data->dataset, p->pred[p->models - 1], embeddings);
    }
    fb3_model_file_close(&file);
    return status;
}

/* On the root: the average, the ids and the truth. */
static fb3_status complete(fb3_predictions *p, const fb3_dataset *dataset, bool labelled)
{
    size_t cells = (size_t)p->n * (size_t)p->targets;
    double *sum = calloc(cells, sizeof *sum);
    p->mean = malloc(cells * sizeof *p->mean);
    if (!sum || !p->mean) {
        free(sum);
        return fb3_fail(FB3_FAILED, "out of memory for the average");
    }
    for (int m = 0; m < p->models; m++) fb3_ensemble_add(sum, p->pred[m], (int64_t)cells);
    fb3_ensemble_mean(p->mean, sum, (int64_t)cells, p->models);
    free(sum);
    FB3_TRY(fb3_dataset_id_range(dataset, 0, p->n, &p->ids));
    if (!labelled) return FB3_OK;
    p->truth = malloc(cells * sizeof *p->truth);
    FB3_REQUIRE(p->truth, FB3_FAILED, "out of memory for the labels");
    return fb3_dataset_label_range(dataset, 0, p->n, p->truth);
}

/* Where the tokenised CSV lies meanwhile. Not beside the CSV: that folder need not be ours to write to. Without an
 * output its name is no one else's: several may score at the same moment. */
static fb3_status tokens_path(fb3_session *session, const char *output, char **path)
{
    uint64_t token;
    if (output) {
        *path = fb3_format("%s.tokens.h5", output);
    } else {
        FB3_TRY(fb3_session_token(session, &token));
        *path = fb3_format("evaluation-%016" PRIx64 ".tokens.h5", token);
    }
    return *path ? FB3_OK : fb3_fail(FB3_FAILED, "out of memory");
}

fb3_status fb3_predict_file(fb3_session *session, const fb3_strings *paths, const char *csv, const char *output,
                            bool labelled, bool pooled, fb3_predictions *p)
{
    fb3_status status = FB3_OK;
    test_data data = {0};
    *p = (fb3_predictions){0};
    FB3_TRY_GOTO(tokens_path(session, output, &data.h5_path), done);
    FB3_TRY_GOTO(fb3_models_find(&p->names, paths), done);
    FB3_TRY_GOTO(fb3_session_open_backend(session), done);
    fb3_session_print_ranks(session, NULL, NULL);
    for (int m = 0; m < p->names.count; m++) {
        FB3_TRY_GOTO(predict_one(session, p, &data, p->names.item[m], csv, labelled, pooled), done);
    }
    status = fb3_comm_agree(session->comm, session->root ? complete(p, data.dataset, labelled) : FB3_OK, "averaging");
done:
    fb3_dataset_close(data.dataset);
    if (session->root && data.h5_path) remove(data.h5_path);
    free(data.h5_path);
    return status;
}

void fb3_predictions_free(fb3_predictions *p)
{
    for (int m = 0; m < p->models; m++) free(p->pred[m]);
    free(p->pred);
    free(p->mean);
    free(p->truth);
    free(p->pooled);
    fb3_strings_free(&p->names);
    fb3_strings_free(&p->labels);
    fb3_strings_free(&p->ids);
    *p = (fb3_predictions){0};
}
