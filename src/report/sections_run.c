/* About the run as a whole: how far it is, and its configuration. */
#include "sections.h"

#include "fb3/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- numbers of a run --------------------------------------------------------------------------------------------- */

double run_samples_per_second(const run_report *r)
{
    double samples = 0, seconds = 0, batch = (double)r->config.total_train_batch_size;
    for (int k = 0; k < r->folds; k++) {
        if (!(r->log[k].logged_seconds > 0)) continue;
        samples += (double)r->log[k].logged_steps * batch;
        seconds += r->log[k].logged_seconds;
    }
    return seconds > 0 ? samples / seconds : NAN;
}

double run_peak_memory_mb(const run_report *r)
{
    double peak = NAN;
    for (int k = 0; k < r->folds; k++) peak = fmax(peak, r->log[k].peak_memory_mb);
    return peak;
}

/* --- head --------------------------------------------------------------------------------------------------------- */

enum { SHOWN_FOLDS = 10 }; /* of more the table is folded up */

static const char *model_name(const run_report *r)
{
    return r->config.model_name_or_path ? r->config.model_name_or_path
           : r->config.model_preset     ? r->config.model_preset
                                        : "unnamed model";
}

static bool is_complete(const run_report *r)
{
    return run_report_folds_ended(r) == run_report_folds_selected(r);
}

static void state_of_fold(char *text, size_t bytes, const fold_log *log)
{
    if (log->ended) {
        snprintf(text, bytes, "complete");
    } else if (!log->begun) {
        snprintf(text, bytes, "not begun");
    } else if (log->total_steps > 0) {
        snprintf(text, bytes, "%.0f %%", 100 * fmin((double)log->step / (double)log->total_steps, 1));
    } else {
        snprintf(text, bytes, "begun");
    }
}

static void fold_row(page *p, const run_report *r, int k)
{
    char name[32], state[32];
    const fold_log *log = &r->log[k];
    const evaluations *e = &log->evaluations;
    snprintf(name, sizeof name, "fold %d", k);
    state_of_fold(state, sizeof state, log);
    page_row_begin(p, name);
    page_cell_text(p, state);
    page_cell_number(p, log->begun ? (double)log->step : NAN, 0);
    page_cell_number(p, log->total_steps > 0 ? (double)log->total_steps : NAN, 0);
    page_cell_number(p, log->begun ? log->epoch : NAN, 2);
    page_cell_number(p, e->seen ? e->best.mcrmse : NAN, 4);
    page_cell_number(p, e->seen ? e->best.epoch : NAN, 2);
    page_cell_number(p, e->seen ? e->last.mcrmse : NAN, 4);
    page_cell_number(p, (double)log->skipped_steps, 0);
    page_row_end(p);
}

static void fold_table(page *p, const run_report *r)
{
    static const char *const HEAD[] = {"",      "state",       "step",   "of", "epoch", "best MCRMSE",
                                       "epoch", "last MCRMSE", "skipped"};
    page_table_begin(p, "Progress of the folds");
    page_head_begin(p);
    for (size_t i = 0; i < sizeof HEAD / sizeof *HEAD; i++) {
        if (i == 1) {
            page_head_text(p, HEAD[i]);
        } else {
            page_head(p, HEAD[i]);
        }
    }
    page_head_end(p);
    for (int k = 0; k < r->folds; k++)
        if (r->selected[k] || r->log[k].begun) fold_row(p, r, k);
    page_table_end(p);
}

static void tile(page *p, const char *name, const char *value, const char *detail)
{
    page_markup(p, "<div><dt>");
    page_text(p, name);
    page_markup(p, "</dt><dd>");
    page_text(p, value);
    page_markup(p, "<small>");
    page_text(p, detail);
    page_markup(p, "</small></dd></div>\n");
}

static void score_tile(page *p, const run_report *r)
{
    char value[PAGE_NUMBER_BYTES], mean[PAGE_NUMBER_BYTES], detail[96];
    const tables *t = &r->tables;
    if (tables_essays(t, r->folds) == 0) {
        tile(p, "MCRMSE", "\xE2\x80\x93", "no predictions yet");
        return;
    }
    page_number(value, tables_mcrmse(t, r->folds, -1), 4);
    page_number(mean, tables_mean_predictor_mcrmse(t, r->folds), 4);
    snprintf(detail, sizeof detail, "mean predictor: %s", mean);
    tile(p, "MCRMSE, out of fold", value, detail);
}

static void tiles(page *p, const run_report *r)
{
    char value[PAGE_NUMBER_BYTES], detail[128];
    double seconds = 0;
    page_markup(p, "<dl class=\"tiles\">\n");
    score_tile(p, r);
    snprintf(value, sizeof value, "%d of %d", run_report_folds_ended(r), run_report_folds_selected(r));
    tile(p, "Folds", value, is_complete(r) ? "complete" : "complete so far");
    page_number(value, tables_essays(&r->tables, r->folds), 0);
    snprintf(detail, sizeof detail, "from %d fold(s)", run_report_folds_with_tables(r));
    tile(p, "Essays predicted", value, detail);
    for (int k = 0; k < r->folds; k++) {
        fold_time t = run_fold_time(&r->log[k]);
        if (isfinite(t.steps)) seconds += t.steps + t.evaluation;
    }
    tile(p, "Steps and evaluations", page_duration(value, seconds), "folds added up");
    page_number(value, run_samples_per_second(r), 1);
    tile(p, "Samples per second", value, "of the steps alone");
    page_bytes(value, 1e6 * run_peak_memory_mb(r));
    tile(p, "Peak memory", value, "of a rank that writes");
    page_markup(p, "</dl>\n");
}

static void say_state(page *p, const run_report *r)
{
    int ended = run_report_folds_ended(r), selected = run_report_folds_selected(r);
    page_markup(p, "<p>");
    if (is_complete(r)) {
        page_markup(p, "The run is complete: %d of %d folds, ", ended, selected);
    } else {
        page_markup(p, "The run is <strong>not complete</strong>: %d of %d folds are, ", ended, selected);
    }
    page_text(p, model_name(r));
    page_markup(p, ", loss ");
    page_text(p, (const char *[]){"rmse", "mse", "l1", "smooth_l1", "mcrmse"}[r->config.loss_type]);
    page_markup(p, ".</p>\n");
    page_markup(p, "<p class=\"made\">Made at %s from the files in <bdi>", r->made_at);
    page_text(p, r->directory);
    page_markup(p, "</bdi>. <code>fb3-dist report</code> makes it again.</p>\n");
}

static void contents(page *p)
{
    static const char *const PART[][2] = {{"scores", "Scores"},           {"training", "Training"},
                                          {"predictions", "Predictions"}, {"lengths", "Lengths"},
                                          {"time", "Time and memory"},    {"configuration", "Configuration"}};
    page_markup(p, "<nav aria-label=\"Contents\"><ul>");
    for (size_t i = 0; i < sizeof PART / sizeof *PART; i++) {
        page_markup(p, "<li><a href=\"#%s\">%s</a></li>", PART[i][0], PART[i][1]);
    }
    page_markup(p, "</ul></nav>\n");
}

static void notes(page *p, const run_report *r)
{
    if (r->notes.count == 0) return;
    page_markup(p, "<ul class=\"notes\">\n");
    for (int i = 0; i < r->notes.count; i++) {
        page_markup(p, "<li>");
        page_text(p, r->notes.item[i]);
        page_markup(p, "</li>\n");
    }
    page_markup(p, "</ul>\n");
}

void section_head(page *p, const run_report *r)
{
    page_markup(p, "<header>\n<h1><bdi>");
    page_text(p, r->name);
    page_markup(p, "</bdi></h1>\n");
    say_state(p, r);
    contents(p);
    page_markup(p, "</header>\n<main>\n");
    tiles(p, r);
    notes(p, r);
    bool folded = r->folds > SHOWN_FOLDS;
    if (folded) page_details_begin(p, "Progress of the folds");
    fold_table(p, r);
    if (folded) page_details_end(p);
}

/* --- configuration ------------------------------------------------------------------------------------------------ */

static void json_rows(page *p, json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (!json_is_string(value)) continue;
        page_row_begin(p, key);
        page_cell_text(p, json_string_value(value));
        page_row_end(p);
    }
}

static void versions_table(page *p, const run_report *r)
{
    const fold_log *log = NULL;
    for (int k = r->folds; k-- > 0;)
        if (r->log[k].begun && r->log[k].versions) log = &r->log[k];
    if (!log && !r->summary) return;
    page_table_begin(p, "Versions, device and inputs");
    page_head_begin(p);
    page_head(p, "what");
    page_head_text(p, "value");
    page_head_end(p);
    if (log) json_rows(p, log->versions);
    if (log && log->device) {
        page_row_begin(p, "device");
        page_cell_text(p, log->device);
        page_row_end(p);
    }
    json_rows(p, json_object_get(r->summary, "inputs"));
    page_table_end(p);
}

void section_configuration(page *p, const run_report *r)
{
    page_section_begin(p, "configuration", "Configuration and versions");
    versions_table(p, r);
    page_markup(p, "<details open=\"open\"><summary>run.yaml</summary>\n<pre>");
    page_text(p, r->yaml);
    page_markup(p, "</pre>\n");
    page_details_end(p);
    page_section_end(p);
}
