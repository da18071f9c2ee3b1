/* The end of a run: the fold tables pooled into oof.csv, summary.json, and the table of scores. The tables are read row
 * by row, twice: for the mean predictor's means, and to pool them. */
#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/run_directory.h"
#include "fb3/scores_json.h"
#include "fb3/train.h"

#include <stdlib.h>
#include <string.h>

static json_t *scores_json(const fb3_scores *scores, const fb3_strings *targets)
{
    json_t *object = json_pack("{s:I}", "samples", (json_int_t)scores->samples);
    fb3_json_set_scores(object, "", scores->mcrmse, scores->rmse, targets);
    return object;
}

/* The fold tables, and what is computed of them. Folds that were not trained are left out. */
typedef struct pool {
    fb3_oof_reader *table[FB3_MAX_FOLDS];
    bool present[FB3_MAX_FOLDS];
    fb3_score_sums fold[FB3_MAX_FOLDS], all, mean_predictor;
    fb3_mean_predictor means;
    fb3_oof_writer pooled;
} pool;

static void close_tables(pool *p)
{
    for (int k = 0; k < FB3_MAX_FOLDS; k++) {
        fb3_oof_close(p->table[k]);
        p->table[k] = NULL;
    }
}

static fb3_status open_tables(pool *p, const fb3_run *run)
{
    const fb3_config *config = run->config;
    close_tables(p);
    for (int k = 0; k < run->folds; k++) {
        char *path = fb3_fold_path(run->config->output_dir, k, "oof.csv");
        FB3_REQUIRE(path, FB3_FAILED, "out of memory");
        p->present[k] = fb3_file_exists(path);
        fb3_status status =
            p->present[k] ? fb3_oof_open(&p->table[k], path, config->id_column, &config->label_columns) : FB3_OK;
        free(path);
        FB3_TRY(status);
    }
    return FB3_OK;
}

/* The rows that the mean predictor is made of: those of the other folds, or with a validation set all that are trained
 * on. */
static fb3_status count_means(pool *p, const fb3_run *run)
{
    enum { BLOCK_ROWS = 1 << 14 };
    const fb3_dataset *data = run->data;
    fb3_status status = FB3_OK;
    if (!run->validation) {
        for (int k = 0; k < run->folds; k++) {
            fb3_oof_row row;
            bool more = p->present[k];
            while (more) {
                FB3_TRY(fb3_oof_next(p->table[k], &row, &more));
                if (more) fb3_mean_predictor_count(&p->means, k, row.truth);
            }
        }
        return FB3_OK;
    }
    float *labels = malloc(BLOCK_ROWS * (size_t)data->targets * sizeof *labels);
    FB3_REQUIRE(labels, FB3_FAILED, "out of memory for the mean predictor");
    for (int64_t first = 0; status == FB3_OK && first < data->n; first += BLOCK_ROWS) {
        int64_t rows = first + BLOCK_ROWS < data->n ? BLOCK_ROWS : data->n - first;
        status = fb3_dataset_label_range(data, first, rows, labels);
        for (int64_t i = 0; status == FB3_OK && i < rows; i++)
            fb3_mean_predictor_count(&p->means, 0, labels + i * data->targets);
    }
    free(labels);
    return status;
}

static void pool_row(pool *p, int k, const fb3_oof_row *row)
{
    float mean[FB3_MAX_TARGETS];
    fb3_mean_predictor_predict(&p->means, k, mean);
    fb3_score_sums_add(&p->fold[k], row->truth, row->pred, 1);
    fb3_score_sums_add(&p->all, row->truth, row->pred, 1);
    fb3_score_sums_add(&p->mean_predictor, row->truth, mean, 1);
    fb3_oof_add(&p->pooled, row->id, k, row->truth, row->pred);
}

/* The rows in the order of the data set. A fold's table may end early: max_eval_samples. */
static fb3_status pool_rows(pool *p, const fb3_run *run)
{
    const int64_t rows = run->validation ? run->validation->n : run->data->n;
    for (int64_t i = 0; i < rows; i++) {
        fb3_oof_row row;
        const int k = run->validation ? 0 : run->fold[i];
        bool more = p->table[k] != NULL;
        if (!more) continue;
        FB3_TRY(fb3_oof_next(p->table[k], &row, &more));
        if (more) pool_row(p, k, &row);
        if (more) continue;
        fb3_oof_close(p->table[k]);
        p->table[k] = NULL;
    }
    return FB3_OK;
}

static fb3_status pool_tables(pool *p, const fb3_run *run)
{
    const fb3_config *config = run->config;
    FB3_TRY(open_tables(p, run));
    FB3_TRY(count_means(p, run));
    FB3_TRY(open_tables(p, run));
    char *path = fb3_path_join(config->output_dir, "oof.csv");
    FB3_REQUIRE(path, FB3_FAILED, "out of memory");
    fb3_status status = fb3_oof_begin(&p->pooled, path, config->id_column, &config->label_columns);
    free(path);
    FB3_TRY(status);
    FB3_TRY(pool_rows(p, run));
    return fb3_oof_publish(&p->pooled);
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

static void add_score(fb3_score_row *rows, int *count, const char *name, const fb3_score_sums *sums)
{
    rows[*count].name = name;
    fb3_scores_of(&rows[(*count)++].scores, sums);
}

static pool *make_pool(int targets)
{
    pool *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->means.targets = p->all.targets = p->mean_predictor.targets = targets;
    for (int k = 0; k < FB3_MAX_FOLDS; k++) p->fold[k].targets = targets;
    return p;
}

static fb3_status summarise(const fb3_run *run, pool *p)
{
    static char names[FB3_MAX_FOLDS][16];
    fb3_score_row rows[FB3_MAX_FOLDS + 2];
    int count = 0;
    FB3_TRY(pool_tables(p, run));
    for (int k = 0; k < run->folds; k++) {
        if (!p->present[k]) continue;
        snprintf(names[k], sizeof names[k], "fold %d", k);
        add_score(rows, &count, names[k], &p->fold[k]);
    }
    add_score(rows, &count, "pooled", &p->all);
    add_score(rows, &count, "mean predictor", &p->mean_predictor);
    FB3_TRY(write_summary(run, rows, count, p));
    fb3_print_scores(rows, count, &run->config->label_columns);
    return FB3_OK;
}

fb3_status fb3_summarise(const fb3_run *run)
{
    if (run->folds == 1 && !run->validation) {
        fb3_log_info("all samples were trained on: there are no scores to report; best.h5 holds the last weights");
        return FB3_OK;
    }
    pool *p = make_pool(run->data->targets);
    FB3_REQUIRE(p, FB3_FAILED, "out of memory for the scores");
    fb3_status status = summarise(run, p);
    close_tables(p);
    fb3_oof_discard(&p->pooled);
    free(p);
    return status;
}
