/* A run for each seed: what one run says is partly luck, and the spread over seeds says how much of it. Each run is one
 * like any other, in a directory of its own; a seed that is complete is not trained again. */
#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/run_directory.h"
#include "fb3/scores_json.h"
#include "fb3/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SEEDS = 100 };

typedef struct seed_list {
    int64_t seed[MOST_SEEDS];
    int count;
} seed_list;

/* The option table has seen to it that these are whole numbers. */
static fb3_status parse(seed_list *list, const char *text)
{
    list->count = 0;
    for (char *end; *text; text = end + (*end == ',')) {
        const int64_t seed = strtoll(text, &end, 10);
        FB3_REQUIRE(end != text && list->count < MOST_SEEDS, FB3_INPUT,
                    "seeds: give up to %d whole numbers, like 42,43,44", MOST_SEEDS);
        for (int i = 0; i < list->count; i++)
            FB3_REQUIRE(list->seed[i] != seed, FB3_INPUT, "seeds: %lld stands there twice", (long long)seed);
        list->seed[list->count++] = seed;
    }
    return FB3_OK;
}

/* --- the scores of all seeds -------------------------------------------------------------------------------------- */

/* `pooled` of a run's summary.json; the caller's reference. NULL: there is none (nothing was evaluated). */
static json_t *pooled_of(const char *output_dir, int64_t seed)
{
    char *directory = fb3_seed_path(output_dir, seed);
    char *path = directory ? fb3_path_join(directory, "summary.json") : NULL;
    json_t *summary = path ? json_load_file(path, 0, NULL) : NULL;
    json_t *pooled = json_incref(json_object_get(summary, "pooled"));
    json_decref(summary);
    free(path);
    free(directory);
    return pooled;
}

static fb3_scores scores_of(const json_t *pooled, const fb3_strings *targets)
{
    fb3_scores scores = {.targets = targets->count,
                         .samples = json_integer_value(json_object_get(pooled, "samples")),
                         .mcrmse = json_number_value(json_object_get(pooled, "MCRMSE"))};
    for (int y = 0; y < targets->count; y++) {
        char name[128];
        fb3_metric_name(name, sizeof name, targets->item[y]);
        scores.rmse[y] = json_number_value(json_object_get(pooled, name));
    }
    return scores;
}

/* Mean and standard deviation over the first `count` rows. */
static double mean_of(const fb3_score_row *rows, int count, int target, double *spread)
{
    double mean = 0, squares = 0;
    for (int i = 0; i < count; i++) mean += (target < 0 ? rows[i].scores.mcrmse : rows[i].scores.rmse[target]) / count;
    for (int i = 0; i < count; i++) {
        const double d = (target < 0 ? rows[i].scores.mcrmse : rows[i].scores.rmse[target]) - mean;
        squares += d * d;
    }
    *spread = count > 1 ? sqrt(squares / (count - 1)) : NAN;
    return mean;
}

/* rows[count], [count + 1] the spread: filled in from the seeds' rows. */
static void add_mean_and_spread(fb3_score_row *rows, int count, int targets)
{
    rows[count] = (fb3_score_row){.name = "mean", .scores = rows[0].scores};
    rows[count + 1] = (fb3_score_row){.name = "spread", .scores = rows[0].scores};
    rows[count].scores.mcrmse = mean_of(rows, count, -1, &rows[count + 1].scores.mcrmse);
    for (int y = 0; y < targets; y++)
        rows[count].scores.rmse[y] = mean_of(rows, count, y, &rows[count + 1].scores.rmse[y]);
}

static json_t *row_json(const fb3_scores *scores, const fb3_strings *targets)
{
    json_t *object = json_object();
    fb3_json_set_scores(object, "", scores->mcrmse, scores->rmse, targets);
    return object;
}

static fb3_status write_summary(const char *output_dir, const seed_list *list, const fb3_score_row *rows,
                                const fb3_strings *targets)
{
    json_t *seeds = json_array();
    for (int i = 0; i < list->count; i++) {
        json_t *row = row_json(&rows[i].scores, targets);
        json_object_set_new(row, "seed", json_integer(list->seed[i]));
        json_array_append_new(seeds, row);
    }
    json_t *summary = json_pack("{s:o, s:o, s:o}", "seeds", seeds, "mean", row_json(&rows[list->count].scores, targets),
                                "spread", row_json(&rows[list->count + 1].scores, targets));
    char *text = summary ? json_dumps(summary, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    char *path = fb3_path_join(output_dir, "summary.json");
    fb3_status status = text && path ? fb3_file_write(path, text, strlen(text)) : fb3_fail(FB3_FAILED, "out of memory");
    json_decref(summary);
    free(text);
    free(path);
    return status;
}

static fb3_status summarise(const fb3_config *config, const char *output_dir, const seed_list *list)
{
    static char names[MOST_SEEDS][32];
    fb3_score_row rows[MOST_SEEDS + 2] = {0};
    for (int i = 0; i < list->count; i++) {
        json_t *pooled = pooled_of(output_dir, list->seed[i]);
        if (!pooled) return FB3_OK; /* trained on everything: nothing to report */
        snprintf(names[i], sizeof names[i], "seed %lld", (long long)list->seed[i]);
        rows[i] = (fb3_score_row){.name = names[i], .scores = scores_of(pooled, &config->label_columns)};
        json_decref(pooled);
    }
    add_mean_and_spread(rows, list->count, config->label_columns.count);
    FB3_TRY(write_summary(output_dir, list, rows, &config->label_columns));
    fb3_print_scores(rows, list->count + 2, &config->label_columns);
    return FB3_OK;
}

/* --- the runs ----------------------------------------------------------------------------------------------------- */

static fb3_status train_seed(fb3_session *session, const char *output_dir, int64_t seed,
                             fb3_status (*train)(fb3_session *session))
{
    fb3_config *config = session->config;
    free(config->output_dir);
    config->output_dir = fb3_seed_path(output_dir, seed);
    FB3_REQUIRE(config->output_dir, FB3_FAILED, "out of memory");
    config->seed = seed;
    fb3_log_info("seed %lld, in %s", (long long)seed, config->output_dir);
    FB3_TRY(train(session));
    return fb3_session_end_run(session);
}

/* The directory that holds those of the seeds must not be a run itself. */
static fb3_status prepare_directory(const char *output_dir)
{
    FB3_TRY(fb3_folder_make(output_dir));
    FB3_REQUIRE(!fb3_run_directory_exists(output_dir), FB3_INPUT,
                "%s holds a run of its own; give seeds another output_dir", output_dir);
    return FB3_OK;
}

fb3_status fb3_train_seeds(fb3_session *session, fb3_status (*train)(fb3_session *session))
{
    const fb3_config *config = session->config;
    seed_list list;
    FB3_TRY(parse(&list, config->seeds));
    char *output_dir = strdup(config->output_dir);
    FB3_REQUIRE(output_dir, FB3_FAILED, "out of memory");
    fb3_status mine = session->first ? prepare_directory(output_dir) : FB3_OK;
    fb3_status status = fb3_comm_agree(session->world, mine, "making the output directory");
    for (int i = 0; status == FB3_OK && i < list.count; i++) {
        status = train_seed(session, output_dir, list.seed[i], train);
        if (status != FB3_OK && status != FB3_STOPPED)
            status = fb3_fail_context(status, "seed %lld", (long long)list.seed[i]);
    }
    if (status == FB3_OK && !config->dry_run) {
        mine = session->first ? summarise(config, output_dir, &list) : FB3_OK;
        status = fb3_comm_agree(session->world, mine, "the scores of all seeds");
    }
    free(output_dir);
    return status;
}
