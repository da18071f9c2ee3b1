/* The verbs that score: `predict` writes submission.csv, `evaluate` says how good predictions are. */
#include "fb3/csv.h"
#include "fb3/embeddings.h"
#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/run_directory.h"
#include "fb3/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BOOTSTRAP_DRAWS = 2000 };

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* The models that the command line names (--artifact first), else those of output_dir. */
static fb3_status paths_given(const fb3_config *config, fb3_strings *paths)
{
    *paths = (fb3_strings){0};
    for (int i = 0; i < config->artifact.count; i++) FB3_TRY(fb3_strings_add(paths, config->artifact.item[i]));
    if (config->arguments.count + paths->count == 0) return fb3_strings_add(paths, config->output_dir);
    for (int i = 0; i < config->arguments.count; i++) FB3_TRY(fb3_strings_add(paths, config->arguments.item[i]));
    return FB3_OK;
}

/* --- predict ------------------------------------------------------------------------------------------------------ */

/* "1,5" */
static fb3_status parse_clip(const char *text, double *low, double *high)
{
    char rest;
    *low = *high = NAN;
    if (!text) return FB3_OK;
    FB3_REQUIRE(sscanf(text, "%lf,%lf%c", low, high, &rest) == 2 && *low < *high, FB3_INPUT,
                "clip_predictions: \"%s\" is not two numbers LOW,HIGH", text);
    return FB3_OK;
}

/* "submission.csv" -> "submission-2.csv" for the third model. Caller frees. */
static char *per_model_path(const char *output, int model)
{
    size_t stem = ends_with(output, ".csv") ? strlen(output) - 4 : strlen(output);
    return fb3_format("%.*s-%d.csv", (int)stem, output, model);
}

static fb3_status write_predictions(const fb3_config *config, const char *output, const fb3_predictions *p)
{
    double low, high;
    FB3_TRY(parse_clip(config->clip_predictions, &low, &high));
    if (config->sample_submission) {
        FB3_TRY(fb3_submission_check(config->sample_submission, config->id_column, &p->labels, &p->ids));
    }
    if (config->embeddings_file) {
        FB3_TRY(fb3_embeddings_write(config->embeddings_file, p->pooled, p->models, p->n, p->hidden, &p->ids));
    }
    for (int m = 0; config->per_fold && m < p->models; m++) {
        char *path = per_model_path(output, m);
        FB3_REQUIRE(path, FB3_FAILED, "out of memory");
        fb3_status status = fb3_submission_write(path, config->id_column, &p->labels, &p->ids, p->pred[m], low, high);
        free(path);
        FB3_TRY(status);
    }
    FB3_TRY(fb3_submission_write(output, config->id_column, &p->labels, &p->ids, p->mean, low, high));
    fb3_log_info("%s: %lld predictions, the average of %d model(s)", output, (long long)p->n, p->models);
    return FB3_OK;
}

fb3_status fb3_predict(fb3_session *session)
{
    fb3_config *config = session->config;
    fb3_strings paths = {0};
    fb3_predictions p = {0};
    fb3_status status = FB3_OK;
    FB3_REQUIRE(config->test_file, FB3_INPUT, "predict needs --test_file TEST.csv");
    FB3_TRY_GOTO(paths_given(config, &paths), done);
    const char *output = config->output_file ? config->output_file : "submission.csv";
    FB3_TRY_GOTO(
        fb3_predict_file(session, &paths, config->test_file, output, false, config->embeddings_file != NULL, &p), done);
    status = fb3_comm_agree(session->comm, session->root ? write_predictions(config, output, &p) : FB3_OK,
                            "writing predictions");
done:
    fb3_predictions_free(&p);
    fb3_strings_free(&paths);
    return status;
}

/* --- evaluate ----------------------------------------------------------------------------------------------------- */

/* MCRMSE with its interval, the RMSEs and Pearson's r, on standard output. */
static fb3_status print_report(const char *name, const fb3_strings *targets, const float *truth, const float *pred,
                               int64_t n, uint64_t seed)
{
    fb3_score_row row = {.name = name};
    double low, high, r[FB3_MAX_TARGETS], mean_r;
    int Y = targets->count;
    fb3_scores_compute(&row.scores, truth, pred, n, Y);
    fb3_print_scores(&row, 1, targets);
    FB3_TRY(fb3_bootstrap_mcrmse(&low, &high, truth, pred, n, Y, BOOTSTRAP_DRAWS, seed));
    fb3_pearson(r, &mean_r, truth, pred, n, Y);
    printf("MCRMSE %.4f, 95 %% interval %.4f to %.4f (bootstrap over %lld samples)\n", row.scores.mcrmse, low, high,
           (long long)n);
    printf("Pearson r %.4f:", mean_r);
    for (int y = 0; y < Y; y++) printf(" %s %.4f", targets->item[y], r[y]);
    putchar('\n');
    fflush(stdout);
    return FB3_OK;
}

static fb3_status load_run_config(fb3_config *config, const char *run_directory)
{
    char *text;
    FB3_TRY(fb3_run_yaml_read(run_directory, &text));
    FB3_REQUIRE(text, FB3_INPUT, "%s has no run.yaml; give a run directory", run_directory);
    fb3_status status = fb3_config_load_text(config, text, "run.yaml");
    free(text);
    return status;
}

/* Adds fold-<k>'s row to the table of scores and its samples to the pool, where that fold has a table. */
static fb3_status score_fold(const char *run_directory, const fb3_config *stored, int fold, fb3_oof *pool,
                             fb3_score_row *rows, int *count)
{
    static char names[FB3_MAX_FOLDS][16];
    const int64_t before = pool->n;
    char *path = fb3_fold_path(run_directory, fold, "oof.csv");
    FB3_REQUIRE(path, FB3_FAILED, "out of memory");
    bool present = fb3_file_exists(path);
    fb3_status status = present ? fb3_oof_read(pool, path, stored->id_column, &stored->label_columns) : FB3_OK;
    free(path);
    if (!present || status != FB3_OK) return status;
    snprintf(names[fold], sizeof names[fold], "fold %d", fold);
    rows[*count].name = names[fold];
    const int64_t at = before * pool->targets;
    fb3_scores_compute(&rows[(*count)++].scores, pool->truth + at, pool->pred + at, pool->n - before, pool->targets);
    return FB3_OK;
}

static fb3_status score_mean_predictor(fb3_scores *scores, const fb3_oof *pool)
{
    fb3_mean_predictor *predictor = calloc(1, sizeof *predictor);
    FB3_REQUIRE(predictor, FB3_FAILED, "out of memory for the mean predictor");
    fb3_score_sums sums = {.targets = predictor->targets = pool->targets};
    for (int64_t i = 0; i < pool->n; i++)
        fb3_mean_predictor_count(predictor, pool->fold[i], pool->truth + i * pool->targets);
    for (int64_t i = 0; i < pool->n; i++) {
        float pred[FB3_MAX_TARGETS];
        fb3_mean_predictor_predict(predictor, pool->fold[i], pred);
        fb3_score_sums_add(&sums, pool->truth + i * pool->targets, pred, 1);
    }
    fb3_scores_of(scores, &sums);
    free(predictor);
    return FB3_OK;
}

static fb3_status evaluate_run(const char *run_directory, uint64_t seed)
{
    fb3_config stored = {0};
    fb3_oof pool = {0};
    fb3_score_row rows[FB3_MAX_FOLDS + 2];
    int count = 0;
    fb3_status status = load_run_config(&stored, run_directory);
    pool.targets = stored.label_columns.count;
    for (int fold = 0; status == FB3_OK && fold < FB3_MAX_FOLDS; fold++) {
        status = score_fold(run_directory, &stored, fold, &pool, rows, &count);
    }
    FB3_TRY_GOTO(status, done);
    FB3_REQUIRE_GOTO(count > 0, done, FB3_INPUT, "%s has no fold-<k>/oof.csv; train it first", run_directory);
    rows[count].name = "mean predictor";
    FB3_TRY_GOTO(score_mean_predictor(&rows[count++].scores, &pool), done);
    fb3_print_scores(rows, count, &stored.label_columns);
    status = print_report("pooled", &stored.label_columns, pool.truth, pool.pred, pool.n, seed);
done:
    fb3_oof_free(&pool);
    fb3_config_free(&stored);
    return status;
}

static fb3_status evaluate_models(fb3_session *session, const fb3_strings *paths)
{
    fb3_predictions p;
    fb3_status status = fb3_predict_file(session, paths, session->config->test_file, NULL, true, false, &p);
    if (status == FB3_OK) {
        fb3_status mine =
            session->root ? print_report("test file", &p.labels, p.truth, p.mean, p.n, (uint64_t)session->config->seed)
                          : FB3_OK;
        status = fb3_comm_agree(session->comm, mine, "scoring");
    }
    fb3_predictions_free(&p);
    return status;
}

/* Reads ids and targets of a CSV into an fb3_oof's ids and `truth`. */
static fb3_status read_table(const char *path, const fb3_config *config, fb3_oof *table)
{
    fb3_csv *csv = NULL;
    fb3_status status = FB3_OK;
    int id, column[FB3_MAX_TARGETS], targets = config->label_columns.count;
    fb3_oof_row row = {0};
    table->targets = targets;
    FB3_TRY_GOTO(fb3_csv_open(&csv, path), done);
    FB3_TRY_GOTO(fb3_csv_need_column(csv, config->id_column, &id), done);
    for (int y = 0; y < targets; y++) {
        FB3_TRY_GOTO(fb3_csv_need_column(csv, config->label_columns.item[y], &column[y]), done);
    }
    for (bool more = true;;) {
        int64_t bytes;
        FB3_TRY_GOTO(fb3_csv_next(csv, &more), done);
        if (!more) break;
        for (int y = 0; y < targets; y++) FB3_TRY_GOTO(fb3_csv_number(csv, column[y], &row.truth[y]), done);
        row.id = fb3_csv_field(csv, id, &bytes);
        FB3_TRY_GOTO(fb3_oof_append(table, &row), done);
    }
done:
    fb3_csv_close(csv);
    return status;
}

/* Puts the predictions of a submission into the order of the labelled file. */
static fb3_status match_ids(fb3_oof *labelled, const fb3_oof *submission, const char *path)
{
    fb3_status status = FB3_OK;
    const size_t width = (size_t)labelled->targets;
    fb3_oof_index index;
    FB3_TRY(fb3_oof_index_make(&index, submission));
    for (int64_t i = 0; i < labelled->n; i++) {
        const char *id = labelled->ids.item[i];
        const int64_t row = fb3_oof_index_find(&index, id);
        FB3_REQUIRE_GOTO(row >= 0, done, FB3_INPUT, "%s has no row for %s", path, id);
        memcpy(labelled->pred + (size_t)i * width, submission->truth + (size_t)row * width,
               width * sizeof *labelled->pred);
    }
done:
    fb3_oof_index_free(&index);
    return status;
}

static fb3_status evaluate_submission(const fb3_config *config, const char *path)
{
    fb3_oof labelled = {0}, submission = {0};
    fb3_status status = read_table(config->test_file, config, &labelled);
    if (status == FB3_OK) status = read_table(path, config, &submission);
    if (status == FB3_OK) status = match_ids(&labelled, &submission, path);
    if (status == FB3_OK) {
        status = print_report("submission", &config->label_columns, labelled.truth, labelled.pred, labelled.n,
                              (uint64_t)config->seed);
    }
    fb3_oof_free(&labelled);
    fb3_oof_free(&submission);
    return status;
}

/* The runs' own tables; the name is said where there are several. */
static fb3_status evaluate_runs(const fb3_config *config, const fb3_strings *paths)
{
    fb3_strings runs = {0};
    fb3_status status = FB3_OK;
    for (int i = 0; status == FB3_OK && i < paths->count; i++) status = fb3_run_directories_add(&runs, paths->item[i]);
    for (int i = 0; status == FB3_OK && i < runs.count; i++) {
        if (runs.count > 1) printf("%s%s\n", i > 0 ? "\n" : "", runs.item[i]);
        status = evaluate_run(runs.item[i], (uint64_t)config->seed);
    }
    fb3_strings_free(&runs);
    return status;
}

static fb3_status evaluate_submissions(const fb3_config *config, const fb3_strings *paths)
{
    for (int i = 0; i < paths->count; i++) FB3_TRY(evaluate_submission(config, paths->item[i]));
    return FB3_OK;
}

/* On the root alone. */
static fb3_status evaluate_tables(const fb3_config *config, const fb3_strings *paths)
{
    return config->test_file ? evaluate_submissions(config, paths) : evaluate_runs(config, paths);
}

fb3_status fb3_evaluate(fb3_session *session)
{
    fb3_strings paths = {0};
    fb3_status status = paths_given(session->config, &paths);
    bool submission = status == FB3_OK && paths.count > 0 && ends_with(paths.item[0], ".csv");
    if (status == FB3_OK && submission && !session->config->test_file) {
        status = fb3_fail(FB3_INPUT, "scoring %s needs --test_file LABELLED.csv", paths.item[0]);
    } else if (status == FB3_OK && session->config->test_file && !submission) {
        status = evaluate_models(session, &paths);
    } else if (status == FB3_OK) {
        fb3_status mine = session->root ? evaluate_tables(session->config, &paths) : FB3_OK;
        status = fb3_comm_agree(session->comm, mine, "scoring");
    }
    fb3_strings_free(&paths);
    return status;
}
