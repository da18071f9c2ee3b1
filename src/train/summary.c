/* The end of a run: the fold tables pooled into oof.csv, summary.json, and the table of scores. */
#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/train.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *scores_json(const fb3_scores *scores, const fb3_strings *targets)
{
    json_t *object = json_pack("{s:I, s:f}", "samples", (json_int_t)scores->samples, "MCRMSE", scores->mcrmse);
    for (int y = 0; object && y < scores->targets; y++) {
        char name[128];
        fb3_metric_name(name, sizeof name, targets->item[y]);
        json_object_set_new(object, name, json_real(scores->rmse[y]));
    }
    return object;
}

/* The rows of the fold tables in the order of the data set; folds that were not trained are left out. */
typedef struct pool {
    fb3_oof table[FB3_MAX_FOLDS];
    bool present[FB3_MAX_FOLDS];
    fb3_oof all;
} pool;

static void pool_free(pool *p)
{
    for (int k = 0; k < FB3_MAX_FOLDS; k++) fb3_oof_free(&p->table[k]);
    fb3_oof_free(&p->all);
}

static fb3_status read_tables(pool *p, const fb3_run *run)
{
    const fb3_config *config = run->config;
    for (int k = 0; k < run->folds; k++) {
        char *path = fb3_run_fold_path(run, k, "oof.csv");
        FB3_REQUIRE(path, FB3_FAILED, "out of memory");
        p->present[k] = fb3_file_exists(path);
        fb3_status status =
            p->present[k] ? fb3_oof_read(&p->table[k], path, config->id_column, &config->label_columns) : FB3_OK;
        free(path);
        FB3_TRY(status);
    }
    return FB3_OK;
}

static void copy_row(fb3_oof *to, int64_t i, const fb3_oof *from, int64_t j)
{
    size_t width = (size_t)to->targets;
    to->fold[i] = from->fold[j];
    memcpy(to->truth + (size_t)i * width, from->truth + (size_t)j * width, width * sizeof *to->truth);
    memcpy(to->pred + (size_t)i * width, from->pred + (size_t)j * width, width * sizeof *to->pred);
}

static fb3_status pool_tables(pool *p, const fb3_run *run)
{
    int64_t n = 0, next[FB3_MAX_FOLDS] = {0}, i = 0;
    for (int k = 0; k < run->folds; k++) n += p->table[k].n;
    FB3_TRY(fb3_oof_alloc(&p->all, n, run->data->targets));
    int64_t rows = run->validation ? n : run->data->n;
    for (int64_t row = 0; row < rows; row++) {
        int k = run->validation ? 0 : run->fold[row];
        if (next[k] >= p->table[k].n) continue; /* not trained, or beyond max_eval_samples */
        copy_row(&p->all, i++, &p->table[k], next[k]);
        FB3_TRY(fb3_strings_add(&p->all.ids, p->table[k].ids.item[next[k]]));
        next[k]++;
    }
    return FB3_OK;
}

static json_t *inputs_json(const fb3_run *run)
{
    json_t *inputs = json_pack("{s:s, s:s}", "train_sha256", run->data->source_sha256, "tokenizer_sha256",
                               run->data->tokenizer_sha256);
    if (run->validation) {
        json_object_set_new(inputs, "validation_sha256", json_string(run->validation->source_sha256));
    }
    if (run->hf) json_object_set_new(inputs, "weights_sha256", json_string(run->weights_sha256));
    return inputs;
}

static fb3_status write_summary(const fb3_run *run, const fb3_score_row *rows, int count, const pool *p)
{
    const fb3_strings *targets = &run->config->label_columns;
    double seconds = fb3_seconds() - run->started;
    char device[128], *versions = fb3_versions_json();
    fb3_backend_describe(run->session->backend, device, sizeof device);
    json_t *folds = json_array();
    for (int r = 0, k = 0; r < count - 2; r++, k++) {
        while (!p->present[k]) k++;
        json_t *fold = scores_json(&rows[r].scores, targets);
        json_object_set_new(fold, "fold", json_integer(k));
        json_array_append_new(folds, fold);
    }
    json_t *summary = json_pack("{s:o, s:o, s:o, s:f, s:f, s:i, s:[s], s:o, s:o}", "pooled",
                                scores_json(&rows[count - 2].scores, targets), "folds", folds, "mean_predictor",
                                scores_json(&rows[count - 1].scores, targets), "seconds", seconds, "samples_per_second",
                                seconds > 0 ? run->trained_samples / seconds : 0.0, "ranks",
                                fb3_comm_size(run->session->world), "devices", device, "versions",
                                versions ? json_loads(versions, 0, NULL) : json_null(), "inputs", inputs_json(run));
    char *text = summary ? json_dumps(summary, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    char *path = fb3_path_join(run->config->output_dir, "summary.json");
    fb3_status status = text && path ? fb3_file_write(path, text, strlen(text)) : fb3_fail(FB3_FAILED, "out of memory");
    json_decref(summary);
    free(versions);
    free(text);
    free(path);
    return status;
}

/* The means of the scores that are trained on, added to mean[Y], which starts at zero. */
static fb3_status training_means(const fb3_dataset *data, double *mean)
{
    int Y = data->targets;
    float *labels = malloc((size_t)data->n * (size_t)Y * sizeof *labels);
    FB3_REQUIRE(labels, FB3_FAILED, "out of memory for the mean predictor");
    fb3_status status = fb3_dataset_read_labels(data, NULL, data->n, labels);
    for (int64_t i = 0; status == FB3_OK && i < data->n * Y; i++) mean[i % Y] += labels[i] / (double)data->n;
    free(labels);
    return status;
}

/* The mean predictor of a validation set knows the training scores only. */
static fb3_status mean_predictor(fb3_scores *scores, const fb3_run *run, const fb3_oof *all)
{
    if (!run->validation) return fb3_oof_mean_predictor(scores, all, run->folds);
    double mean[FB3_MAX_TARGETS] = {0};
    FB3_TRY(training_means(run->data, mean));
    size_t cells = (size_t)all->n * (size_t)all->targets;
    float *pred = malloc((cells + 1) * sizeof *pred);
    FB3_REQUIRE(pred, FB3_FAILED, "out of memory for the mean predictor");
    for (size_t i = 0; i < cells; i++) pred[i] = (float)mean[i % (size_t)all->targets];
    fb3_scores_compute(scores, all->truth, pred, all->n, all->targets);
    free(pred);
    return FB3_OK;
}

static fb3_status summarise(const fb3_run *run, pool *p)
{
    const fb3_config *config = run->config;
    const fb3_strings *targets = &config->label_columns;
    static char names[FB3_MAX_FOLDS][16];
    fb3_score_row rows[FB3_MAX_FOLDS + 2];
    int count = 0;
    FB3_TRY(read_tables(p, run));
    FB3_TRY(pool_tables(p, run));
    for (int k = 0; k < run->folds; k++) {
        if (!p->present[k]) continue;
        snprintf(names[k], sizeof names[k], "fold %d", k);
        rows[count].name = names[k];
        const fb3_oof *table = &p->table[k];
        fb3_scores_compute(&rows[count++].scores, table->truth, table->pred, table->n, table->targets);
    }
    rows[count].name = "pooled";
    fb3_scores_compute(&rows[count++].scores, p->all.truth, p->all.pred, p->all.n, p->all.targets);
    rows[count].name = "mean predictor";
    FB3_TRY(mean_predictor(&rows[count++].scores, run, &p->all));

    char *path = fb3_path_join(config->output_dir, "oof.csv");
    FB3_REQUIRE(path, FB3_FAILED, "out of memory");
    fb3_status status = fb3_oof_write(&p->all, path, config->id_column, targets);
    free(path);
    FB3_TRY(status);
    FB3_TRY(write_summary(run, rows, count, p));
    fb3_print_scores(rows, count, targets);
    return FB3_OK;
}

fb3_status fb3_summarise(const fb3_run *run)
{
    if (run->folds == 1 && !run->validation) {
        fb3_log_info("all samples were trained on: there are no scores to report; best.h5 holds the last weights");
        return FB3_OK;
    }
    pool *p = calloc(1, sizeof *p);
    FB3_REQUIRE(p, FB3_FAILED, "out of memory for the scores");
    fb3_status status = summarise(run, p);
    pool_free(p);
    free(p);
    return status;
}
