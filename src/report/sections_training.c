/* Curves by step and by epoch. */
#include "sections.h"

#include <math.h>
#include <string.h>

enum { DESCRIBED_LINES = 6, DESCRIPTION_BYTES = 1200, LISTED_EVALUATIONS = 400 };

/* A curve of several folds. */
typedef struct curve_kind {
    int curve; /* CURVE_ */
    const char *title, *axis, *note;
    int decimals;
    bool zero, log; /* how its axis may be */
} curve_kind;
static const curve_kind CURVES[CURVE_COUNT] = {
    [CURVE_LOSS] = {CURVE_LOSS, "Loss", "training loss",
                    "Of the whole global batch of each step, as loss_type defines it.", 4, true, true},
    [CURVE_RATE] = {CURVE_RATE, "Learning rate", "learning rate", "The rate that the step used.", -1, true, false},
    [CURVE_NORM] = {CURVE_NORM, "Gradient norm", "gradient norm", "Before clipping.", 4, true, true},
    [CURVE_SPEED] = {CURVE_SPEED, "Throughput", "samples per second",
                     "Of a step alone, without evaluation and checkpoints.", 1, true, false},
};

/* --- curves by step ----------------------------------------------------------------------------------------------- */

/* What someone hears who does not see the chart. */
static void describe(char *text, size_t bytes, const curve_kind *kind, const line_of *line, int lines)
{
    size_t at = 0;
    *text = 0;
    for (int i = 0; i < lines && i < DESCRIBED_LINES && at < bytes; i++) {
        const series *s = &line[i].log->curve[kind->curve];
        if (s->values == 0) continue;
        at += (size_t)snprintf(text + at, bytes - at,
                               "%s: %.4g at step %lld, %.4g at step %lld, lowest %.4g at step %lld, highest %.4g. ",
                               line[i].name, s->first, (long long)s->first_step, s->last, (long long)s->last_step,
                               s->low, (long long)s->low_step, s->high);
    }
    if (lines > DESCRIBED_LINES && at < bytes) snprintf(text + at, bytes - at, "The table below has the others.");
}

static void curve_table(page *p, const curve_kind *kind, const line_of *line, int lines)
{
    page_details_begin(p, "The same in numbers");
    page_table_begin(p, kind->title);
    page_head_begin(p);
    static const char *const HEAD[] = {"Fold",    "First",   "Last",    "Lowest",
                                       "at step", "Highest", "at step", "Not finite"};
    for (size_t i = 0; i < sizeof HEAD / sizeof *HEAD; i++) page_head(p, HEAD[i]);
    page_head_end(p);
    for (int i = 0; i < lines; i++) {
        const series *s = &line[i].log->curve[kind->curve];
        if (s->values + s->missing == 0) continue;
        page_row_begin(p, line[i].name);
        page_cell_number(p, s->first, kind->decimals);
        page_cell_number(p, s->last, kind->decimals);
        page_cell_number(p, s->low, kind->decimals);
        page_cell_number(p, s->values ? (double)s->low_step : NAN, 0);
        page_cell_number(p, s->high, kind->decimals);
        page_cell_number(p, s->values ? (double)s->high_step : NAN, 0);
        page_cell_number(p, (double)s->missing, 0);
        page_row_end(p);
    }
    page_table_end(p);
    page_details_end(p);
}

/* What is drawn about the values themselves, after the kind's own sentence. */
static void curve_note(char *text, size_t bytes, const curve_kind *kind, const line_of *line, int lines)
{
    int64_t missing = 0;
    for (int i = 0; i < lines; i++) {
        missing += line[i].log->curve[kind->curve].missing;
    }
    int at = snprintf(text, bytes, "%s", kind->note);
    if (missing > 0) {
        snprintf(text + at, bytes - (size_t)at, " Red crosses: %lld steps whose value was not finite.",
                 (long long)missing);
    }
}

static void draw_curve(page *p, const curve_kind *kind, const line_of *line, int lines)
{
    char text[DESCRIPTION_BYTES];
    double low = NAN, high = NAN, last = NAN;
    int64_t values = 0, missing = 0;
    for (int i = 0; i < lines; i++) {
        const series *s = &line[i].log->curve[kind->curve];
        low = fmin(low, s->low); /* fmin and fmax take the one that is a number */
        high = fmax(high, s->high);
        last = fmax(last, s->values > 0 ? (double)s->last_step : NAN);
        if (s->missing > 0) last = fmax(last, (double)s->count * (double)s->width);
        values += s->values;
        missing += s->missing;
    }
    curve_note(text, sizeof text, kind, line, lines);
    page_figure_begin(p, kind->title, text);
    if (values + missing == 0) {
        page_markup(p, "<p>No step is logged yet.</p>\n");
        page_figure_end(p);
        return;
    }
    svg_chart c;
    describe(text, sizeof text, kind, line, lines);
    svg_scale x = {.low = 0, .high = fmax(last, 1)};
    svg_chart_begin(&c, p, kind->title, text, x, svg_scale_fit(low, high, kind->zero, kind->log), "optimizer step",
                    kind->axis);
    for (int i = 0; i < lines; i++) svg_series(&c, &line[i].log->curve[kind->curve], line[i].index);
    svg_close(p);
    curve_table(p, kind, line, lines);
    page_figure_end(p);
}

/* --- MCRMSE by epoch ---------------------------------------------------------------------------------------------- */

static void describe_evaluations(char *text, size_t bytes, const line_of *line, int lines, double mean_predictor)
{
    size_t at = 0;
    *text = 0;
    if (isfinite(mean_predictor)) {
        at = (size_t)snprintf(text, bytes, "The mean predictor has %.4f. ", mean_predictor);
    }
    for (int i = 0; i < lines && i < DESCRIBED_LINES && at < bytes; i++) {
        const evaluations *e = &line[i].log->evaluations;
        if (e->seen == 0) continue;
        at += (size_t)snprintf(text + at, bytes - at, "%s: best %.4f at epoch %.2f, last %.4f at epoch %.2f. ",
                               line[i].name, e->best.mcrmse, e->best.epoch, e->last.mcrmse, e->last.epoch);
    }
}

static void evaluation_row(page *p, const char *name, const evaluation *e, bool best)
{
    page_row_begin(p, name);
    page_cell_number(p, (double)e->step, 0);
    page_cell_number(p, e->epoch, 2);
    page_cell_number(p, e->mcrmse, 4);
    page_cell_number(p, e->loss, 4);
    page_cell_text(p, best ? "best" : "");
    page_row_end(p);
}

/* All of them, or the best and the last of each line where they are too many. */
static void evaluation_table(page *p, const line_of *line, int lines)
{
    int listed = 0;
    for (int i = 0; i < lines; i++) listed += line[i].log->evaluations.count;
    page_details_begin(p, "The same in numbers");
    page_table_begin(p, listed > LISTED_EVALUATIONS ? "Evaluations: the best and the last" : "Evaluations");
    page_head_begin(p);
    static const char *const HEAD[] = {"Fold", "Step", "Epoch", "MCRMSE", "Loss", ""};
    for (size_t i = 0; i + 1 < sizeof HEAD / sizeof *HEAD; i++) page_head(p, HEAD[i]);
    page_markup(p, "<td></td>");
    page_head_end(p);
    for (int i = 0; i < lines; i++) {
        const evaluations *e = &line[i].log->evaluations;
        if (e->seen == 0) continue;
        if (listed > LISTED_EVALUATIONS || e->stride > 1) {
            evaluation_row(p, line[i].name, &e->best, true);
            if (e->last.step != e->best.step) evaluation_row(p, line[i].name, &e->last, false);
            continue;
        }
        for (int j = 0; j < e->count; j++) {
            evaluation_row(p, line[i].name, &e->kept[j], e->kept[j].step == e->best.step);
        }
    }
    page_table_end(p);
    page_details_end(p);
}

static void draw_evaluation_line(svg_chart *c, const evaluations *e, int index)
{
    enum { MOST_DOTS = 40 };
    double x[EVALUATIONS_KEPT + 1], y[EVALUATIONS_KEPT + 1];
    int n = 0;
    if (e->seen == 0) return;
    for (; n < e->count; n++) {
        x[n] = e->kept[n].epoch;
        y[n] = e->kept[n].mcrmse;
    }
    if (n > 0 && e->kept[n - 1].step != e->last.step) {
        x[n] = e->last.epoch;
        y[n++] = e->last.mcrmse;
    }
    svg_line(c, x, y, n, index);
    for (int i = 0; n <= MOST_DOTS && i < n; i++) svg_dot(c, x[i], y[i], 2.4, index);
    svg_dot(c, e->best.epoch, e->best.mcrmse, 4.5, index);
}

static void draw_evaluations(page *p, const line_of *line, int lines, double mean_predictor)
{
    double low = mean_predictor, high = mean_predictor, last = NAN;
    int64_t seen = 0;
    for (int i = 0; i < lines; i++) {
        const evaluations *e = &line[i].log->evaluations;
        for (int j = 0; j < e->count; j++) {
            low = fmin(low, e->kept[j].mcrmse);
            high = fmax(high, e->kept[j].mcrmse);
        }
        if (e->seen == 0) continue;
        low = fmin(low, fmin(e->best.mcrmse, e->last.mcrmse));
        high = fmax(high, e->last.mcrmse);
        last = fmax(last, e->last.epoch);
        seen += e->seen;
    }
    page_figure_begin(p, "MCRMSE by epoch",
                      isfinite(mean_predictor)
                          ? "On the essays that the fold has not seen; lower is better. The large dot is the best "
                            "evaluation, the dashed line the mean predictor."
                          : "On the essays that the fold has not seen; lower is better. The large dot is the best "
                            "evaluation.");
    if (seen == 0) {
        page_markup(p, "<p>No evaluation is logged yet.</p>\n");
        page_figure_end(p);
        return;
    }
    char text[DESCRIPTION_BYTES];
    svg_chart c;
    describe_evaluations(text, sizeof text, line, lines, mean_predictor);
    svg_chart_begin(&c, p, "MCRMSE by epoch", text, (svg_scale){.low = 0, .high = fmax(last, 1e-3) * 1.02},
                    svg_scale_fit(low, high, false, false), "epoch", "MCRMSE");
    svg_rule(&c, mean_predictor);
    for (int i = 0; i < lines; i++) draw_evaluation_line(&c, &line[i].log->evaluations, line[i].index);
    svg_close(p);
    evaluation_table(p, line, lines);
    page_figure_end(p);
}

void draw_training(page *p, const line_of *line, int lines, double mean_predictor)
{
    bool thinned = false;
    for (int i = 0; i < lines; i++) thinned |= series_is_thinned(&line[i].log->curve[CURVE_LOSS]);
    if (thinned) {
        page_markup(
            p, "<p class=\"note\">There are more steps than points: a line is the mean of neighbouring steps, and its "
               "band reaches from the lowest of them to the highest.</p>\n");
    }
    page_markup(p, "<div class=\"grid\">\n");
    draw_evaluations(p, line, lines, mean_predictor);
    for (int c = 0; c < CURVE_COUNT; c++) draw_curve(p, &CURVES[c], line, lines);
    page_markup(p, "</div>\n");
}

/* --- the section -------------------------------------------------------------------------------------------------- */

static int lines_of_run(const run_report *r, line_of *line)
{
    int lines = 0;
    for (int k = 0; k < r->folds; k++) {
        if (!r->log[k].begun) continue;
        line[lines] = (line_of){.log = &r->log[k], .index = k};
        snprintf(line[lines++].name, sizeof line->name, "fold %d", k);
    }
    return lines;
}

void section_training(page *p, const run_report *r)
{
    line_of line[FB3_MAX_FOLDS];
    int lines = lines_of_run(r, line);
    page_section_begin(p, "training", "Training");
    if (lines == 0) page_markup(p, "<p>No fold has begun yet.</p>\n");
    if (lines > 1) {
        svg_legend_begin(p);
        for (int i = 0; i < lines; i++) svg_legend_line(p, line[i].index, line[i].name);
        svg_legend_end(p);
    }
    double mean = tables_essays(&r->tables, r->folds) > 0 ? tables_mean_predictor_mcrmse(&r->tables, r->folds) : NAN;
    draw_training(p, line, lines, mean);
    page_section_end(p);
}
