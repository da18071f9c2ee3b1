/* Several runs on one page: scores, curves, time, and the keys of their configurations that differ. */
#include "sections.h"

#include "fb3/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct comparison {
    run_report *run; /* [runs] */
    int runs;
    line_of *line; /* the folds of all runs, in the colour of their run */
    int lines;
} comparison;

static bool has_scores(const run_report *r)
{
    return tables_essays(&r->tables, r->folds) > 0;
}

/* --- scores ------------------------------------------------------------------------------------------------------- */

static bool same_targets(const comparison *c)
{
    const fb3_strings *first = &c->run[0].config.label_columns;
    for (int i = 1; i < c->runs; i++) {
        const fb3_strings *other = &c->run[i].config.label_columns;
        if (other->count != first->count) return false;
        for (int y = 0; y < first->count; y++)
            if (strcmp(first->item[y], other->item[y]) != 0) return false;
    }
    return true;
}

/* The score of a run: of a target, or their mean (-1). */
static double score_of(const run_report *r, int target)
{
    if (!has_scores(r)) return NAN;
    return target < 0 ? tables_mcrmse(&r->tables, r->folds, -1) : tables_rmse(&r->tables, r->folds, -1, target);
}

static void score_cell(page *p, const comparison *c, int i, int target)
{
    char text[PAGE_NUMBER_BYTES];
    double mine = score_of(&c->run[i], target), best = NAN;
    for (int j = 0; j < c->runs; j++) best = fmin(best, score_of(&c->run[j], target));
    page_markup(p, "<td%s>%s</td>", mine == best ? " class=\"far\"" : "", page_number(text, mine, 4));
}

static void score_row(page *p, const comparison *c, int i, bool targets)
{
    const run_report *r = &c->run[i];
    page_row_begin(p, r->directory);
    page_cell_number(p, run_report_folds_ended(r), 0);
    page_cell_number(p, tables_essays(&r->tables, r->folds), 0);
    page_cell_number(p, has_scores(r) ? tables_mean_predictor_mcrmse(&r->tables, r->folds) : NAN, 4);
    score_cell(p, c, i, -1);
    for (int y = 0; targets && y < r->tables.targets; y++) score_cell(p, c, i, y);
    page_row_end(p);
}

static void section_compared_scores(page *p, const comparison *c)
{
    bool targets = same_targets(c), same_essays = true;
    for (int i = 1; i < c->runs; i++) {
        same_essays &=
            tables_essays(&c->run[i].tables, c->run[i].folds) == tables_essays(&c->run[0].tables, c->run[0].folds);
    }
    page_section_begin(p, "scores", "Scores");
    if (!targets) page_markup(p, "<p>The runs have different targets, so only the means over them stand here.</p>\n");
    if (!same_essays)
        page_markup(p, "<p>The runs are scored on different numbers of essays: their scores are not of the "
                       "same essays.</p>\n");
    page_table_begin(p, "Out of fold, pooled over the folds; the best of each column is bold");
    page_head_begin(p);
    static const char *const HEAD[] = {"run", "folds complete", "essays", "mean predictor", "MCRMSE"};
    for (size_t i = 0; i < sizeof HEAD / sizeof *HEAD; i++) page_head(p, HEAD[i]);
    for (int y = 0; targets && y < c->run[0].tables.targets; y++) page_head(p, c->run[0].config.label_columns.item[y]);
    page_head_end(p);
    for (int i = 0; i < c->runs; i++) score_row(p, c, i, targets);
    page_table_end(p);
    page_section_end(p);
}

/* --- curves ------------------------------------------------------------------------------------------------------- */

static fb3_status collect_lines(comparison *c)
{
    int folds = 0;
    for (int i = 0; i < c->runs; i++) folds += c->run[i].folds;
    c->line = calloc((size_t)folds, sizeof *c->line);
    FB3_REQUIRE(c->line, FB3_FAILED, "out of memory for a report");
    for (int i = 0; i < c->runs; i++) {
        for (int k = 0; k < c->run[i].folds; k++) {
            line_of *line = &c->line[c->lines];
            if (!c->run[i].log[k].begun) continue;
            *line = (line_of){.log = &c->run[i].log[k], .index = i};
            snprintf(line->name, sizeof line->name, "%.44s, fold %d", c->run[i].name, k);
            c->lines++;
        }
    }
    return FB3_OK;
}

static void section_compared_training(page *p, const comparison *c)
{
    page_section_begin(p, "training", "Training");
    page_markup(p, "<p>A colour is a run; each of its folds is a line.</p>\n");
    svg_legend_begin(p);
    for (int i = 0; i < c->runs; i++) svg_legend_line(p, i, c->run[i].directory);
    svg_legend_end(p);
    draw_training(p, c->line, c->lines, NAN);
    page_section_end(p);
}

/* --- time --------------------------------------------------------------------------------------------------------- */

static void section_compared_time(page *p, const comparison *c)
{
    static const char *const HEAD[] = {"run", "samples per second", "last start", "ranks", "peak memory"};
    page_section_begin(p, "time", "Time and memory");
    page_table_begin(p, "Speed of the steps, and the last start of each run from beginning to end");
    page_head_begin(p);
    for (size_t i = 0; i < sizeof HEAD / sizeof *HEAD; i++) page_head(p, HEAD[i]);
    page_head_text(p, "device");
    page_head_end(p);
    for (int i = 0; i < c->runs; i++) {
        const run_report *r = &c->run[i];
        const char *device = r->log[0].device;
        char text[PAGE_NUMBER_BYTES];
        json_t *seconds = json_object_get(r->summary, "seconds"), *ranks = json_object_get(r->summary, "ranks");
        page_row_begin(p, r->directory);
        page_cell_number(p, run_samples_per_second(r), 1);
        page_markup(p, "<td>%s</td>", page_duration(text, seconds ? json_number_value(seconds) : NAN));
        page_cell_number(p, ranks ? json_number_value(ranks) : NAN, 0);
        page_markup(p, "<td>%s</td>", page_bytes(text, 1e6 * run_peak_memory_mb(r)));
        page_cell_text(p, device ? device : "");
        page_row_end(p);
    }
    page_table_end(p);
    page_section_end(p);
}

/* --- configuration ------------------------------------------------------------------------------------------------ */

typedef struct difference_rows {
    page *p;
    int runs, rows;
} difference_rows;

static fb3_status key_row(void *context, const char *key, const char *const *values)
{
    difference_rows *d = context;
    page_row_begin(d->p, key);
    for (int i = 0; i < d->runs; i++) page_cell_text(d->p, values[i] ? values[i] : "");
    page_row_end(d->p);
    d->rows++;
    return FB3_OK;
}

/* 0 rows where there is no memory for them: the page goes without. */
static int write_differences(page *p, const comparison *c)
{
    difference_rows d = {.p = p, .runs = c->runs};
    const char **texts = calloc((size_t)c->runs, sizeof *texts);
    if (!texts) return 0;
    for (int i = 0; i < c->runs; i++) texts[i] = c->run[i].yaml;
    (void)fb3_config_differences(texts, c->runs, key_row, &d);
    free(texts);
    return d.rows;
}

static void section_differences(page *p, const comparison *c)
{
    page_section_begin(p, "configuration", "Configuration");
    page_table_begin(p, "Keys that differ");
    page_head_begin(p);
    page_head(p, "key");
    for (int i = 0; i < c->runs; i++) page_head_text(p, c->run[i].directory);
    page_head_end(p);
    const int rows = write_differences(p, c);
    page_table_end(p);
    if (rows == 0) page_markup(p, "<p>The configurations are the same.</p>\n");
    page_section_end(p);
}

/* --- the page ----------------------------------------------------------------------------------------------------- */

static void write_page(page *p, const void *context)
{
    const comparison *c = context;
    char title[48];
    snprintf(title, sizeof title, "%d runs side by side", c->runs);
    page_begin(p, title);
    page_markup(p, "<header>\n<h1>%s</h1>\n<p class=\"made\">Made at %s.</p>\n", title, c->run[0].made_at);
    page_markup(p, "<nav aria-label=\"Contents\"><ul><li><a href=\"#scores\">Scores</a></li><li><a href=\"#training\">"
                   "Training</a></li><li><a href=\"#time\">Time and memory</a></li><li><a href=\"#configuration\">"
                   "Configuration</a></li></ul></nav>\n</header>\n<main>\n");
    section_compared_scores(p, c);
    section_compared_training(p, c);
    section_compared_time(p, c);
    section_differences(p, c);
    page_markup(p, "</main>\n");
    page_end(p);
}

static fb3_status read_runs(comparison *c, const fb3_strings *run_dirs)
{
    c->run = calloc((size_t)run_dirs->count, sizeof *c->run);
    FB3_REQUIRE(c->run, FB3_FAILED, "out of memory for a report");
    for (int i = 0; i < run_dirs->count; i++) {
        c->run[i].sharing = run_dirs->count;
        c->runs = i + 1; /* what was read of one that failed is freed, too */
        FB3_TRY(run_report_read(&c->run[i], run_dirs->item[i]));
    }
    return collect_lines(c);
}

fb3_status fb3_report_compare(const fb3_strings *run_dirs, const char *path)
{
    comparison c = {0};
    fb3_status status = read_runs(&c, run_dirs);
    if (status == FB3_OK) status = page_publish(path, write_page, &c);
    for (int i = 0; i < c.runs; i++) run_report_free(&c.run[i]);
    free(c.run);
    free(c.line);
    return status;
}
