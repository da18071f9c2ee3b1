/* fb3-dist compare RUN RUN...: what differs between runs, their scores on the essays that all have predicted, and for
 * each run beside the first whether it is better, worse, or nobody can tell. */
#include "cli.h"
#include "fb3/compare.h"
#include "fb3/file.h"
#include "fb3/run_directory.h"
#include "fb3/scores_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BOOTSTRAP_DRAWS = 2000, NAME_COLUMN = 28, RUN_COLUMN = 16 };
static const char *const VERDICTS[] = {
    [FB3_CANNOT_TELL] = "cannot tell", [FB3_BETTER] = "better", [FB3_WORSE] = "worse"};

/* The runs as they were read. */
typedef struct contest {
    fb3_comparison scores;
    const fb3_strings *names;
    char **yaml; /* [runs] the configuration of each, of a run of seeds its first */
    fb3_strings targets;
    fb3_difference *difference; /* [runs] from the first; [0] is not used */
    json_t *keys;               /* that differ, where JSON is wanted */
} contest;

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* The pooled table, or those of the folds that are there. */
static fb3_status read_tables(fb3_oof *table, const char *directory, const fb3_config *config)
{
    char *pooled = fb3_path_join(directory, "oof.csv");
    FB3_REQUIRE(pooled, FB3_FAILED, "out of memory");
    const bool whole = fb3_file_exists(pooled);
    fb3_status status = whole ? fb3_oof_read(table, pooled, config->id_column, &config->label_columns) : FB3_OK;
    free(pooled);
    for (int k = 0; !whole && status == FB3_OK && k < FB3_MAX_FOLDS; k++) {
        char *path = fb3_fold_path(directory, k, "oof.csv");
        FB3_REQUIRE(path, FB3_FAILED, "out of memory");
        if (fb3_file_exists(path)) status = fb3_oof_read(table, path, config->id_column, &config->label_columns);
        free(path);
    }
    FB3_TRY(status);
    FB3_REQUIRE(table->n > 0, FB3_INPUT, "%s has no out-of-fold predictions yet; train it first", directory);
    return FB3_OK;
}

static fb3_status check_targets(contest *c, const fb3_config *config, const char *directory)
{
    const fb3_strings *targets = &config->label_columns;
    const bool first = c->targets.count == 0;
    for (int y = 0; first && y < targets->count; y++) FB3_TRY(fb3_strings_add(&c->targets, targets->item[y]));
    bool same = targets->count == c->targets.count;
    for (int y = 0; same && y < targets->count; y++) same = strcmp(targets->item[y], c->targets.item[y]) == 0;
    FB3_REQUIRE(same, FB3_INPUT, "%s has other label columns than %s; compare runs that predict the same scores",
                directory, c->names->item[0]);
    c->scores.targets = targets->count;
    return FB3_OK;
}

/* A run directory's table is added to run `r`. */
static fb3_status read_run(contest *c, int r, const char *directory)
{
    fb3_contender *run = &c->scores.run[r];
    fb3_config config = {0};
    char *text = NULL;
    fb3_status status = fb3_run_yaml_read(directory, &text);
    FB3_TRY_GOTO(status, done);
    FB3_REQUIRE_GOTO(text, done, FB3_INPUT, "%s has no run.yaml; give run directories", directory);
    FB3_TRY_GOTO(fb3_config_load_text(&config, text, "run.yaml"), done);
    FB3_TRY_GOTO(check_targets(c, &config, directory), done);
    fb3_oof *grown = realloc(run->table, ((size_t)run->tables + 1) * sizeof *grown);
    FB3_REQUIRE_GOTO(grown, done, FB3_FAILED, "out of memory for a comparison");
    run->table = grown;
    grown[run->tables] = (fb3_oof){.targets = c->scores.targets};
    FB3_TRY_GOTO(read_tables(&grown[run->tables++], directory, &config), done);
    if (!c->yaml[r]) {
        c->yaml[r] = text;
        text = NULL;
    }
done:
    free(text);
    fb3_config_free(&config);
    return status;
}

/* A run, or those of its seeds. */
static fb3_status read_contender(contest *c, int r)
{
    fb3_strings runs = {0};
    fb3_status status = fb3_run_directories_add(&runs, c->names->item[r]);
    for (int i = 0; status == FB3_OK && i < runs.count; i++) status = read_run(c, r, runs.item[i]);
    fb3_strings_free(&runs);
    return status;
}

/* --- telling ------------------------------------------------------------------------------------------------------ */

/* The end of a long path says more than its beginning. */
static void print_cell(const char *text)
{
    static const char CUT[] = "...";
    const size_t bytes = strlen(text), room = RUN_COLUMN - (sizeof CUT - 1);
    if (bytes <= RUN_COLUMN) {
        printf("  %*s", RUN_COLUMN, text);
        return;
    }
    text += bytes - room;
    while ((*text & 0xC0) == 0x80) text++; /* not from the middle of a character */
    printf("  %s%*s", CUT, (int)room, text);
}

static fb3_status print_key(void *context, const char *key, const char *const *values)
{
    const contest *c = context;
    if (strcmp(key, "output_dir") == 0) return FB3_OK;
    printf("%-*s", NAME_COLUMN, key);
    for (int r = 0; r < c->scores.runs; r++) print_cell(values[r] ? values[r] : "");
    putchar('\n');
    return FB3_OK;
}

static void print_scores(const contest *c)
{
    const fb3_comparison *s = &c->scores;
    printf("%-*s", NAME_COLUMN, "MCRMSE");
    for (int r = 0; r < s->runs; r++) printf("  %*.4f", RUN_COLUMN, s->run[r].mcrmse);
    printf("\n");
    for (int y = 0; y < s->targets; y++) {
        printf("  %-*s", NAME_COLUMN - 2, c->targets.item[y]);
        for (int r = 0; r < s->runs; r++) printf("  %*.4f", RUN_COLUMN, s->run[r].rmse[y]);
        printf("\n");
    }
    bool seeds = false;
    for (int r = 0; r < s->runs; r++) seeds |= s->run[r].tables > 1;
    if (!seeds) return;
    printf("%-*s", NAME_COLUMN, "spread over seeds");
    for (int r = 0; r < s->runs; r++) {
        char text[32] = "1 seed";
        if (s->run[r].tables > 1) snprintf(text, sizeof text, "%.4f, %d seeds", s->run[r].spread, s->run[r].tables);
        print_cell(text);
    }
    printf("\n");
}

static void print_verdict(const contest *c, int r)
{
    const fb3_difference *d = &c->difference[r];
    const bool certain = d->low > 0 || d->high < 0;
    printf("%s beside %s: %+.4f, 95 %% interval %+.4f to %+.4f: %s", c->names->item[r], c->names->item[0], d->mcrmse,
           d->low, d->high, VERDICTS[d->verdict]);
    if (d->verdict == FB3_CANNOT_TELL && certain)
        printf(" (other seeds alone give differences of %.4f)", d->noise);
    else if (d->verdict == FB3_CANNOT_TELL)
        printf(" (other essays could turn it round)");
    printf("\n");
}

static fb3_status print_contest(contest *c)
{
    const fb3_comparison *s = &c->scores;
    printf("%-*s", NAME_COLUMN, "");
    for (int r = 0; r < s->runs; r++) print_cell(c->names->item[r]);
    printf("\n");
    FB3_TRY(fb3_config_differences((const char *const *)c->yaml, s->runs, print_key, c));
    print_scores(c);
    printf("paired bootstrap over the %lld essays that all have predicted:\n", (long long)s->n);
    for (int r = 1; r < s->runs; r++) print_verdict(c, r);
    fflush(stdout);
    return FB3_OK;
}

/* --- the same as JSON --------------------------------------------------------------------------------------------- */

static fb3_status add_key(void *context, const char *key, const char *const *values)
{
    contest *c = context;
    json_t *list = json_array();
    for (int r = 0; r < c->scores.runs; r++)
        json_array_append_new(list, values[r] ? json_string(values[r]) : json_null());
    return json_object_set_new(c->keys, key, list) == 0 ? FB3_OK : fb3_fail(FB3_FAILED, "out of memory");
}

static json_t *run_json(const contest *c, int r)
{
    const fb3_contender *run = &c->scores.run[r];
    json_t *object = json_pack("{s:s, s:i, s:o}", "run", c->names->item[r], "tables", run->tables, "spread",
                               fb3_json_number(run->spread));
    fb3_json_set_scores(object, "", run->mcrmse, run->rmse, &c->targets);
    return object;
}

static json_t *difference_json(const contest *c, int r)
{
    const fb3_difference *d = &c->difference[r];
    return json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:s}", "run", c->names->item[r], "baseline", c->names->item[0],
                     "MCRMSE", d->mcrmse, "low", d->low, "high", d->high, "noise", d->noise, "verdict",
                     VERDICTS[d->verdict]);
}

static fb3_status print_json(contest *c)
{
    json_t *runs = json_array(), *differences = json_array();
    c->keys = json_object();
    fb3_status status = fb3_config_differences((const char *const *)c->yaml, c->scores.runs, add_key, c);
    for (int r = 0; r < c->scores.runs; r++) json_array_append_new(runs, run_json(c, r));
    for (int r = 1; r < c->scores.runs; r++) json_array_append_new(differences, difference_json(c, r));
    json_t *all = json_pack("{s:I, s:o, s:o, s:o}", "essays", (json_int_t)c->scores.n, "runs", runs, "differences",
                            differences, "keys", c->keys);
    char *text = all ? json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    if (status == FB3_OK && text) puts(text);
    if (status == FB3_OK && !text) status = fb3_fail(FB3_FAILED, "out of memory");
    free(text);
    json_decref(all);
    return status;
}

/* --- all together ------------------------------------------------------------------------------------------------- */

static fb3_status compare(contest *c, const fb3_config *config)
{
    fb3_comparison *s = &c->scores;
    s->run = calloc((size_t)s->runs, sizeof *s->run);
    c->yaml = calloc((size_t)s->runs, sizeof *c->yaml);
    c->difference = calloc((size_t)s->runs, sizeof *c->difference);
    FB3_REQUIRE(s->run && c->yaml && c->difference, FB3_FAILED, "out of memory for a comparison");
    for (int r = 0; r < s->runs; r++) FB3_TRY(read_contender(c, r));
    FB3_TRY(fb3_comparison_make(s));
    for (int r = 1; r < s->runs; r++)
        FB3_TRY(fb3_comparison_difference(&c->difference[r], s, 0, r, BOOTSTRAP_DRAWS, (uint64_t)config->seed));
    return config->json ? print_json(c) : print_contest(c);
}

static void free_contest(contest *c)
{
    fb3_comparison *s = &c->scores;
    if (s->run) fb3_comparison_free(s);
    for (int r = 0; r < s->runs; r++) {
        for (int t = 0; s->run && t < s->run[r].tables; t++) fb3_oof_free(&s->run[r].table[t]);
        if (s->run) free(s->run[r].table);
        if (c->yaml) free(c->yaml[r]);
    }
    free(s->run);
    free(c->yaml);
    free(c->difference);
    fb3_strings_free(&c->targets);
}

fb3_status cmd_compare(fb3_config *config)
{
    contest c = {.names = &config->arguments, .scores = {.runs = config->arguments.count}};
    fb3_status status = compare(&c, config);
    free_contest(&c);
    return status;
}
