/* What the models that had not seen them say about the essays. */
#include "sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- predicted against true --------------------------------------------------------------------------------------- */

enum { QUANTILES = 5 };
static const double QUANTILE[QUANTILES] = {0.05, 0.25, 0.5, 0.75, 0.95};

static void quantiles_of(const boxes *b, int group, double *q)
{
    for (int i = 0; i < QUANTILES; i++)
        q[i] = histogram_quantile(b->bin[group], BOX_BINS, b->low, b->high, QUANTILE[i]);
}

static double group_truth(const boxes *b, int group)
{
    return b->truth_low + group * b->truth_step;
}

/* One scale for both axes' values, so that the diagonal is where it should be. */
static void range_of_boxes(const boxes *b, double *low, double *high)
{
    *low = group_truth(b, 0) - 0.5 * b->truth_step;
    *high = group_truth(b, b->groups - 1) + 0.5 * b->truth_step;
    for (int g = 0; g < b->groups; g++) {
        double q[QUANTILES];
        if (b->n[g] == 0) continue;
        quantiles_of(b, g, q);
        *low = fmin(*low, q[0]);
        *high = fmax(*high, q[QUANTILES - 1]);
    }
}

static void draw_box(svg_chart *c, const boxes *b, int group)
{
    double q[QUANTILES], x = group_truth(b, group), half = 0.3 * b->truth_step;
    quantiles_of(b, group, q);
    svg_segment(c, x, q[0], x, q[1], "whisker");
    svg_segment(c, x, q[3], x, q[4], "whisker");
    svg_segment(c, x - half / 2, q[0], x + half / 2, q[0], "whisker");
    svg_segment(c, x - half / 2, q[4], x + half / 2, q[4], "whisker");
    svg_bar(c, x - half, x + half, q[1], q[3], "box");
    svg_segment(c, x - half, q[2], x + half, q[2], "median");
    page_markup(c->page, "\n");
}

static void box_table(page *p, const boxes *b, const char *target)
{
    page_details_begin(p, "The same in numbers");
    page_table_begin(p, target);
    page_head_begin(p);
    static const char *const HEAD[] = {"True score", "Essays", "5 %", "25 %", "Median", "75 %", "95 %"};
    for (size_t i = 0; i < sizeof HEAD / sizeof *HEAD; i++) page_head(p, HEAD[i]);
    page_head_end(p);
    for (int g = 0; g < b->groups; g++) {
        char name[32];
        double q[QUANTILES];
        if (b->n[g] == 0) continue;
        quantiles_of(b, g, q);
        snprintf(name, sizeof name, "%.6g", group_truth(b, g));
        page_row_begin(p, name);
        page_cell_number(p, (double)b->n[g], 0);
        for (int i = 0; i < QUANTILES; i++) page_cell_number(p, q[i], 2);
        page_row_end(p);
    }
    page_table_end(p);
    page_details_end(p);
}

/* Medians as words, for the description. */
static void describe_boxes(char *text, size_t bytes, const boxes *b)
{
    size_t at = (size_t)snprintf(text, bytes, "Median prediction by true score: ");
    for (int g = 0; g < b->groups && at < bytes; g++) {
        double q[QUANTILES];
        if (b->n[g] == 0) continue;
        quantiles_of(b, g, q);
        at += (size_t)snprintf(text + at, bytes - at, "%.6g: %.2f; ", group_truth(b, g), q[2]);
    }
}

static void box_chart(page *p, const run_report *r, int target)
{
    const boxes *b = &r->tables.box[target];
    const char *name = r->config.label_columns.item[target];
    char text[600];
    double low, high;
    range_of_boxes(b, &low, &high);
    page_figure_begin(p, name, NULL);
    describe_boxes(text, sizeof text, b);
    svg_chart c;
    svg_scale x = {.low = group_truth(b, 0) - 0.6 * b->truth_step,
                   .high = group_truth(b, b->groups - 1) + 0.6 * b->truth_step};
    svg_chart_begin(&c, p, name, text, x, svg_scale_fit(low, high, false, false), "true score", "predicted");
    svg_segment(&c, x.low, fmax(x.low, c.y.low), x.high, fmin(x.high, c.y.high), "r");
    for (int g = 0; g < b->groups; g++)
        if (b->n[g] > 0) draw_box(&c, b, g);
    svg_close(p);
    box_table(p, b, name);
    page_figure_end(p);
}

static void predicted_against_true(page *p, const run_report *r)
{
    page_markup(
        p, "<p class=\"note\">Predicted against true scores, for each target: a box reaches over the middle half of "
           "the predictions, its line is their median, and 5 %% lie beyond each whisker. On the dashed line they "
           "would be right.</p>\n<div class=\"grid\">\n");
    for (int y = 0; y < r->tables.targets; y++) box_chart(p, r, y);
    page_markup(p, "</div>\n");
}

/* --- error by length ---------------------------------------------------------------------------------------------- */

static double length_mcrmse(const tables *t, int bin)
{
    double sum = 0;
    for (int y = 0; y < t->targets; y++) sum += sqrt(t->length_sse[bin][y] / t->length_n[bin]) / t->targets;
    return t->length_n[bin] > 0 ? sum : NAN;
}

static double length_middle(int bin, int max_length)
{
    if (bin == LENGTH_BINS) return max_length;
    return 0.5 *
           ((bin ? length_edge(bin - 1, LENGTH_BINS, max_length) : 0) + length_edge(bin, LENGTH_BINS, max_length));
}

static void length_name(char *name, size_t bytes, int bin, int max_length)
{
    if (bin == LENGTH_BINS) {
        snprintf(name, bytes, "%d (max_length)", max_length);
    } else {
        int high = length_edge(bin, LENGTH_BINS, max_length);
        snprintf(name, bytes, "%d to %d", bin ? length_edge(bin - 1, LENGTH_BINS, max_length) + 1 : 1,
                 high == max_length ? max_length - 1 : high);
    }
}

static void length_error_table(page *p, const tables *t, int max_length)
{
    page_details_begin(p, "The same in numbers");
    page_table_begin(p, "MCRMSE by length");
    page_head_begin(p);
    page_head(p, "Tokens");
    page_head(p, "Essays");
    page_head(p, "MCRMSE");
    page_head_end(p);
    for (int bin = 0; bin <= LENGTH_BINS; bin++) {
        char name[48];
        if (t->length_n[bin] == 0) continue;
        length_name(name, sizeof name, bin, max_length);
        page_row_begin(p, name);
        page_cell_number(p, t->length_n[bin], 0);
        page_cell_number(p, length_mcrmse(t, bin), 4);
        page_row_end(p);
    }
    page_table_end(p);
    page_details_end(p);
}

static void error_by_length(page *p, const run_report *r)
{
    const tables *t = &r->tables;
    int max_length = r->data.max_length;
    double low = NAN, high = NAN, most = 0, x[LENGTH_BINS + 1], y[LENGTH_BINS + 1];
    int n = 0;
    for (int bin = 0; bin <= LENGTH_BINS; bin++) {
        if (t->length_n[bin] == 0) continue;
        x[n] = length_middle(bin, max_length);
        y[n++] = length_mcrmse(t, bin);
        low = fmin(low, y[n - 1]);
        high = fmax(high, y[n - 1]);
        most = fmax(most, t->length_n[bin]);
    }
    page_figure_begin(p, "Error by length of the essay",
                      "A disc stands for the essays of that length: the more, the larger. The last one is those of "
                      "max_length tokens, most of which were cut. Dashed: all essays.");
    if (n == 0) {
        page_markup(p, "<p>The lengths of the essays are not known.</p>\n");
        page_figure_end(p);
        return;
    }
    char text[160];
    double all = tables_mcrmse(t, r->folds, -1);
    snprintf(text, sizeof text, "From %.4f to %.4f; all essays: %.4f. The table below has the numbers.", low, high,
             all);
    svg_chart c;
    svg_chart_begin(&c, p, "MCRMSE by length", text, (svg_scale){.low = 0, .high = max_length * 1.03},
                    svg_scale_fit(fmin(low, all), fmax(high, all), false, false), "tokens", "MCRMSE");
    svg_rule(&c, all);
    svg_line(&c, x, y, n, 0);
    for (int bin = 0, i = 0; bin <= LENGTH_BINS; bin++) {
        if (t->length_n[bin] == 0) continue;
        svg_dot(&c, x[i], y[i], 2 + 6 * sqrt(t->length_n[bin] / most), bin == LENGTH_BINS ? 1 : 0);
        i++;
    }
    svg_close(p);
    length_error_table(p, t, max_length);
    page_figure_end(p);
}

/* --- correlation of residuals ------------------------------------------------------------------------------------- */

static double residual_correlation(const tables *t, int y, int z)
{
    double n = t->rows, yy = t->product[y][y] - t->residual[y] * t->residual[y] / n;
    double zz = t->product[z][z] - t->residual[z] * t->residual[z] / n;
    double yz = (y > z ? t->product[y][z] : t->product[z][y]) - t->residual[y] * t->residual[z] / n;
    bool varies = yy > 1e-9 * t->product[y][y] && zz > 1e-9 * t->product[z][z];
    return varies ? fmin(fmax(yz / sqrt(yy * zz), -1), 1) : NAN;
}

enum {
    MATRIX_LEFT = 124,
    MATRIX_TOP = 22,
    MATRIX_WIDTH = SVG_WIDTH - MATRIX_LEFT - 8,
    NAMED_TARGETS = 16,
    PAIRS_LISTED = 12
};

static void matrix_cell(page *p, double r, double x, double y, double size, bool written)
{
    const double strongest = 0.6; /* a text on it still has contrast */
    if (isfinite(r)) {
        page_markup(p,
                    "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill-opacity=\"%.2f\"/>",
                    r < 0 ? "minus" : "plus", x, y, size - 1, size - 1, strongest * fabs(r));
    }
    if (!written) return;
    char text[PAGE_NUMBER_BYTES];
    page_markup(p, "<text class=\"x\" x=\"%.1f\" y=\"%.1f\">%s</text>", x + size / 2, y + size / 2 + 4,
                isfinite(r) ? (snprintf(text, sizeof text, "%.2f", r), text) : page_number(text, r, 2));
}

static void draw_matrix(page *p, const run_report *r, const char *description)
{
    const tables *t = &r->tables;
    bool named = t->targets <= NAMED_TARGETS;
    double left = named ? MATRIX_LEFT : 8, size = fmin((SVG_WIDTH - 8 - left) / t->targets, 44);
    bool written = size >= 30;
    svg_open(p, (int)(MATRIX_TOP + size * t->targets + 8), "Correlation of residuals", description);
    for (int y = 0; y < t->targets; y++) {
        if (named) {
            page_markup(p, "<text class=\"x q\" x=\"%.1f\" y=\"%d\">%d</text>", left + size * (y + 0.5), MATRIX_TOP - 6,
                        y + 1);
            page_markup(p, "<text class=\"y\" x=\"%.1f\" y=\"%.1f\">", left - 8, MATRIX_TOP + size * (y + 0.5) + 4);
            page_text_cut(p, r->config.label_columns.item[y], 14);
            page_markup(p, " <tspan class=\"q\">%d</tspan></text>\n", y + 1);
        }
        for (int z = 0; z < y; z++) {
            matrix_cell(p, residual_correlation(t, y, z), left + size * z, MATRIX_TOP + size * y, size, written);
        }
        page_markup(p, "<rect class=\"frame\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
                    left + size * y, MATRIX_TOP + size * y, size - 1, size - 1);
    }
    svg_close(p);
}

typedef struct pair {
    int y, z;
    double r;
} pair;

static int compare_pairs(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    if (fabs(x->r) != fabs(y->r)) return fabs(x->r) < fabs(y->r) ? 1 : -1;
    return x->y != y->y ? x->y - y->y : x->z - y->z;
}

/* All pairs whose correlation is known, the strongest first. Returns how many. */
static int sorted_pairs(const tables *t, pair *list)
{
    int count = 0;
    for (int y = 0; y < t->targets; y++) {
        for (int z = 0; z < y; z++) {
            double r = residual_correlation(t, y, z);
            if (isfinite(r)) list[count++] = (pair){y, z, r};
        }
    }
    qsort(list, (size_t)count, sizeof *list, compare_pairs);
    return count;
}

static void pair_table(page *p, const run_report *r, const pair *list, int count)
{
    page_details_begin(p, count > PAIRS_LISTED ? "The strongest in numbers" : "The same in numbers");
    page_table_begin(p, "Correlation of residuals");
    page_head_begin(p);
    page_head(p, "Targets");
    page_head(p, "");
    page_head(p, "Correlation");
    page_head_end(p);
    for (int i = 0; i < count && i < PAIRS_LISTED; i++) {
        page_row_begin(p, r->config.label_columns.item[list[i].z]);
        page_cell_text(p, r->config.label_columns.item[list[i].y]);
        page_cell_number(p, list[i].r, 3);
        page_row_end(p);
    }
    page_table_end(p);
    page_details_end(p);
}

static void correlations(page *p, const run_report *r)
{
    pair list[FB3_MAX_TARGETS * FB3_MAX_TARGETS / 2];
    const tables *t = &r->tables;
    char text[160];
    page_figure_begin(
        p, "Correlation of residuals between targets",
        "1 where the model errs on two targets in the same essays, to the same side; 0 where the errors have "
        "nothing to do with each other.");
    int count = t->targets > 1 ? sorted_pairs(t, list) : 0;
    if (count == 0) {
        page_markup(p, t->targets > 1 ? "<p>The residuals do not vary.</p>\n" : "<p>There is one target.</p>\n");
    } else {
        snprintf(text, sizeof text, "%d pairs, from %.2f to %.2f in size. The table below has the strongest.", count,
                 fabs(list[count - 1].r), fabs(list[0].r));
        draw_matrix(p, r, text);
        pair_table(p, r, list, count);
    }
    page_figure_end(p);
}

/* --- the worst essays --------------------------------------------------------------------------------------------- */

enum { TARGET_COLUMNS = 12 };

static void essay_cell(page *p, float truth, float pred, double error)
{
    bool far = fabs((double)pred - truth) > 1.5 * error; /* this target has more than its share in it */
    page_markup(p, "<td%s>%.6g &#8594; %.2f</td>", far ? " class=\"far\"" : "", (double)truth, (double)pred);
}

static int worst_target(const essay *e, int targets)
{
    int worst = 0;
    for (int y = 1; y < targets; y++)
        if (fabs((double)e->pred[y] - e->truth[y]) > fabs((double)e->pred[worst] - e->truth[worst])) worst = y;
    return worst;
}

static void essay_row(page *p, const run_report *r, const essay *e)
{
    int targets = r->tables.targets;
    page_row_begin(p, e->id);
    page_cell_number(p, e->fold, 0);
    page_cell_number(p, e->length >= 0 ? (double)e->length : NAN, 0);
    page_cell_number(p, e->error, 3);
    if (targets <= TARGET_COLUMNS) {
        for (int y = 0; y < targets; y++) essay_cell(p, e->truth[y], e->pred[y], e->error);
    } else {
        int y = worst_target(e, targets);
        page_cell_text(p, r->config.label_columns.item[y]);
        essay_cell(p, e->truth[y], e->pred[y], INFINITY);
    }
    page_row_end(p);
}

static void worst_essays(page *p, const run_report *r)
{
    int targets = r->tables.targets;
    page_markup(p, "<h3>The essays with the largest errors</h3>\n");
    page_table_begin(p, targets <= TARGET_COLUMNS
                            ? "Error: root mean square over the targets. Then each target, true \xE2\x86\x92 "
                              "predicted."
                            : "Error: root mean square over the targets. Then the target with the "
                              "largest error, true \xE2\x86\x92 predicted.");
    page_head_begin(p);
    page_head(p, r->config.id_column);
    page_head(p, "fold");
    page_head(p, "tokens");
    page_head(p, "error");
    for (int y = 0; targets <= TARGET_COLUMNS && y < targets; y++) page_head(p, r->config.label_columns.item[y]);
    if (targets > TARGET_COLUMNS) {
        page_head(p, "target");
        page_head(p, "scores");
    }
    page_head_end(p);
    for (int i = 0; i < r->tables.worst_count; i++) essay_row(p, r, &r->tables.worst[i]);
    page_table_end(p);
}

void section_predictions(page *p, const run_report *r)
{
    page_section_begin(p, "predictions", "Predictions");
    if (tables_essays(&r->tables, r->folds) == 0) {
        page_markup(p, "<p>There are no predictions yet: no fold has been evaluated.</p>\n");
    } else {
        predicted_against_true(p, r);
        page_markup(p, "<div class=\"grid below\">\n");
        error_by_length(p, r);
        correlations(p, r);
        page_markup(p, "</div>\n");
        worst_essays(p, r);
    }
    page_section_end(p);
}
