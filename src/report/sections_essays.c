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
    double q[QUANTILES], truth = group_truth(b, group), half = 0.3 * b->truth_step;
    double x = svg_x(c, truth), left = svg_x(c, truth - half / 2), right = svg_x(c, truth + half / 2);
    quantiles_of(b, group, q);
    for (int i = 0; i < QUANTILES; i++) q[i] = svg_y(c, q[i]);
    page_markup(c->page, "<path class=\"whisker\" d=\"M%.1f %.1fH%.1fM%.1f %.1fV%.1fM%.1f %.1fV%.1fM%.1f %.1fH%.1f\"/>",
                left, q[0], right, x, q[0], q[1], x, q[3], q[4], left, q[4], right);
    left = svg_x(c, truth - half);
    right = svg_x(c, truth + half);
    page_markup(c->page, "<path class=\"box\" d=\"M%.1f %.1fH%.1fV%.1fH%.1fZ\"/>", left, q[3], right, q[1], left);
    page_markup(c->page, "<path class=\"median\" d=\"M%.1f %.1fH%.1f\"/>\n", left, q[2], right);
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

/* Neighbouring bins joined until they hold enough essays to say something. */
typedef struct length_group {
    int first, last; /* bins */
    double n, middle, mcrmse;
} length_group;

static int bin_begin(int bin, int max_length)
{
    return bin ? length_edge(bin - 1, LENGTH_BINS, max_length) + 1 : 1;
}

static int bin_end(int bin, int max_length)
{
    if (bin == LENGTH_BINS) return max_length;
    int end = length_edge(bin, LENGTH_BINS, max_length);
    return end == max_length ? max_length - 1 : end;
}

static length_group group_of(const tables *t, int first, int last, int max_length)
{
    length_group g = {.first = first, .last = last};
    double position = 0;
    for (int bin = first; bin <= last; bin++) {
        double begin = bin == LENGTH_BINS ? max_length : bin_begin(bin, max_length);
        g.n += t->length_n[bin];
        position += t->length_n[bin] * (begin + bin_end(bin, max_length)) / 2;
    }
    for (int y = 0; y < t->targets; y++) {
        double sse = 0;
        for (int bin = first; bin <= last; bin++) sse += t->length_sse[bin][y];
        g.mcrmse += sqrt(sse / g.n) / t->targets;
    }
    g.middle = position / g.n;
    return g;
}

/* The bin of max_length stays alone, being of another kind. */
static int length_groups(const tables *t, int max_length, length_group *group)
{
    double least = fmax(10, 0.01 * (t->rows - (double)t->without_length)), n = 0;
    int count = 0, first = 0;
    for (int bin = 0; bin < LENGTH_BINS; bin++) {
        n += t->length_n[bin];
        bool last = bin == LENGTH_BINS - 1;
        if (n == 0 || (n < least && !last)) continue;
        if (last && n < least && count > 0) first = group[--count].first; /* too few at the end join those before */
        group[count++] = group_of(t, first, bin, max_length);
        first = bin + 1;
        n = 0;
    }
    if (t->length_n[LENGTH_BINS] > 0) group[count++] = group_of(t, LENGTH_BINS, LENGTH_BINS, max_length);
    return count;
}

static void length_error_table(page *p, const length_group *group, int count, int max_length)
{
    page_details_begin(p, "The same in numbers");
    page_table_begin(p, "MCRMSE by length");
    page_head_begin(p);
    page_head(p, "Tokens");
    page_head(p, "Essays");
    page_head(p, "MCRMSE");
    page_head_end(p);
    for (int i = 0; i < count; i++) {
        char name[48];
        const length_group *g = &group[i];
        if (g->first == LENGTH_BINS) {
            snprintf(name, sizeof name, "%d (max_length)", max_length);
        } else {
            snprintf(name, sizeof name, "%d to %d", bin_begin(g->first, max_length), bin_end(g->last, max_length));
        }
        page_row_begin(p, name);
        page_cell_number(p, g->n, 0);
        page_cell_number(p, g->mcrmse, 4);
        page_row_end(p);
    }
    page_table_end(p);
    page_details_end(p);
}

static void draw_error_by_length(page *p, const run_report *r, const length_group *group, int count)
{
    int max_length = r->data.max_length;
    double all = tables_mcrmse(&r->tables, r->folds, -1), low = all, high = all, most = 0;
    double x[LENGTH_BINS + 1], y[LENGTH_BINS + 1];
    char text[160];
    for (int i = 0; i < count; i++) {
        x[i] = group[i].middle;
        y[i] = group[i].mcrmse;
        low = fmin(low, y[i]);
        high = fmax(high, y[i]);
        most = fmax(most, group[i].n);
    }
    snprintf(text, sizeof text, "From %.4f to %.4f; all essays: %.4f. The table below has the numbers.", low, high,
             all);
    svg_chart c;
    svg_chart_begin(&c, p, "MCRMSE by length", text, (svg_scale){.low = 0, .high = max_length * 1.03},
                    svg_scale_fit(low, high, false, false), "tokens", "MCRMSE");
    svg_rule(&c, all);
    svg_line(&c, x, y, count, 0);
    for (int i = 0; i < count; i++) {
        svg_dot(&c, x[i], y[i], 2 + 6 * sqrt(group[i].n / most), group[i].first == LENGTH_BINS ? 1 : 0);
    }
    svg_close(p);
}

static void error_by_length(page *p, const run_report *r)
{
    length_group group[LENGTH_BINS + 1];
    int max_length = r->data.max_length, count = max_length > 0 ? length_groups(&r->tables, max_length, group) : 0;
    page_figure_begin(
        p, "Error by length of the essay",
        "A disc stands for the essays of about that length: the more, the larger. The last one is those of "
        "max_length tokens, most of which were cut. Dashed: all essays.");
    if (count == 0) {
        page_markup(p, "<p>The lengths of the essays are not known.</p>\n");
    } else {
        draw_error_by_length(p, r, group, count);
        length_error_table(p, group, count, max_length);
    }
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

enum { MATRIX_LEFT = 130, MATRIX_TOP = 22, MATRIX_LEVELS = 20, NAMED_TARGETS = 16, PAIRS_LISTED = 12 };

typedef struct matrix {
    double left, size; /* of a cell, in units */
    bool named, written;
} matrix;

static void name_row(page *p, const run_report *r, const matrix *m, int y)
{
    double middle = m->size * (y + 0.5);
    page_markup(p, "<text class=\"x q\" x=\"%.1f\" y=\"%d\">%d</text>", m->left + middle, MATRIX_TOP - 6, y + 1);
    page_markup(p, "<text class=\"y\" x=\"%.1f\" y=\"%.1f\">", m->left - 8, MATRIX_TOP + middle + 5);
    page_text_cut(p, r->config.label_columns.item[y], 14);
    page_markup(p, " <tspan class=\"q\">%d</tspan></text>\n", y + 1);
}

/* Cells of about the same correlation are one path: there may be two thousand. */
static void fill_cells(page *p, const tables *t, const matrix *m, int level)
{
    const double strongest = 0.45; /* a text on it still has contrast */
    bool any = false;
    for (int y = 0; y < t->targets; y++) {
        for (int z = 0; z < y; z++) {
            double r = residual_correlation(t, y, z);
            if (!isfinite(r) || (int)round(r * MATRIX_LEVELS) != level) continue;
            if (!any) {
                page_markup(p, "<path class=\"%s\" fill-opacity=\"%.2f\" d=\"", level < 0 ? "minus" : "plus",
                            strongest * abs(level) / MATRIX_LEVELS);
            }
            any = true;
            page_markup(p, "M%.1f %.1fh%.1fv%.1fh-%.1fz", m->left + m->size * z, MATRIX_TOP + m->size * y, m->size - 1,
                        m->size - 1, m->size - 1);
        }
    }
    if (any) page_markup(p, "\"/>\n");
}

static void write_cells(page *p, const tables *t, const matrix *m, int y)
{
    for (int z = 0; z < y; z++) {
        char text[PAGE_NUMBER_BYTES];
        double r = residual_correlation(t, y, z);
        if (isfinite(r)) {
            snprintf(text, sizeof text, "%.2f", r);
        } else {
            page_number(text, r, 2);
        }
        page_markup(p, "<text class=\"x\" x=\"%.1f\" y=\"%.1f\">%s</text>", m->left + m->size * (z + 0.5),
                    MATRIX_TOP + m->size * (y + 0.5) + 5, text);
    }
}

static void draw_matrix(page *p, const run_report *r, const char *description)
{
    const tables *t = &r->tables;
    matrix m = {.named = t->targets <= NAMED_TARGETS};
    m.left = m.named ? MATRIX_LEFT : 8;
    m.size = fmin((SVG_WIDTH - 8 - m.left) / t->targets, 44);
    m.written = m.size >= 30;
    svg_open(p, (int)(MATRIX_TOP + m.size * t->targets + 8), "Correlation of residuals", description);
    for (int y = 0; y < t->targets; y++) {
        if (m.named) name_row(p, r, &m, y);
        page_markup(p, "<rect class=\"frame\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
                    m.left + m.size * y, MATRIX_TOP + m.size * y, m.size - 1, m.size - 1);
    }
    for (int level = -MATRIX_LEVELS; level <= MATRIX_LEVELS; level++) fill_cells(p, t, &m, level);
    for (int y = 0; m.written && y < t->targets; y++) write_cells(p, t, &m, y);
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
    page_head_text(p, "");
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
    pair list[FB3_MAX_TARGETS * FB3_MAX_TARGETS / 2] = {{0}};
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

enum { TARGET_COLUMNS = 12, ID_CHARACTERS = 64 };

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
    page_markup(p, "<tr><th scope=\"row\"><bdi>");
    page_text_cut(p, e->id, ID_CHARACTERS);
    page_markup(p, "</bdi></th>");
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
        page_head_text(p, "target");
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
