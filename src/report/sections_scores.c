/* The scores: as the table that the program prints at the end, and the RMSE of each target as a chart. */
#include "sections.h"

#include <math.h>

enum { ROW_HEIGHT = 26, NAME_WIDTH = 112, NAME_CHARACTERS = 16, ABOVE = 8, BELOW = 42 };

static void score_row(page *p, const run_report *r, const char *name, int fold)
{
    const tables *t = &r->tables;
    double n = fold >= 0 ? t->fold[fold][0].n : tables_essays(t, r->folds);
    page_row_begin(p, name);
    page_cell_number(p, n, 0);
    page_cell_number(p, tables_mcrmse(t, r->folds, fold), 4);
    for (int y = 0; y < t->targets; y++) page_cell_number(p, tables_rmse(t, r->folds, fold, y), 4);
    page_row_end(p);
}

static void mean_predictor_row(page *p, const run_report *r)
{
    const tables *t = &r->tables;
    page_row_begin(p, "mean predictor");
    page_cell_number(p, tables_essays(t, r->folds), 0);
    page_cell_number(p, tables_mean_predictor_mcrmse(t, r->folds), 4);
    for (int y = 0; y < t->targets; y++) page_cell_number(p, tables_mean_predictor(t, r->folds, y), 4);
    page_row_end(p);
}

static void pearson_row(page *p, const run_report *r)
{
    const tables *t = &r->tables;
    double n = tables_essays(t, r->folds), sum = 0, value[FB3_MAX_TARGETS];
    for (int y = 0; y < t->targets; y++) {
        double truth = 0, truth2 = 0;
        for (int k = 0; k < r->folds; k++) {
            truth += t->fold[k][y].truth;
            truth2 += t->fold[k][y].truth2;
        }
        double tt = truth2 - truth * truth / n, pp = t->pred_sum2[y] - t->pred_sum[y] * t->pred_sum[y] / n;
        double tp = t->cross[y] - truth * t->pred_sum[y] / n;
        value[y] = tt > 1e-9 * truth2 && pp > 1e-12 * t->pred_sum2[y] ? tp / sqrt(tt * pp) : NAN;
        sum += value[y] / t->targets;
    }
    page_row_begin(p, "Pearson r");
    page_cell_number(p, n, 0);
    page_cell_number(p, sum, 4);
    for (int y = 0; y < t->targets; y++) page_cell_number(p, value[y], 4);
    page_row_end(p);
}

static void score_table(page *p, const run_report *r)
{
    page_table_begin(p, "Root mean squared error of each target, and their mean (MCRMSE); lower is better");
    page_head_begin(p);
    page_head(p, "");
    page_head(p, "essays");
    page_head(p, "MCRMSE");
    for (int y = 0; y < r->tables.targets; y++) page_head(p, r->config.label_columns.item[y]);
    page_head_end(p);
    score_row(p, r, "pooled", -1);
    mean_predictor_row(p, r);
    pearson_row(p, r);
    for (int k = 0; k < r->folds; k++) {
        char name[32];
        snprintf(name, sizeof name, "fold %d", k);
        if (r->tables.has[k]) score_row(p, r, name, k);
    }
    page_table_end(p);
}

/* --- the chart ---------------------------------------------------------------------------------------------------- */

static void range_of_scores(const run_report *r, double *low, double *high)
{
    *low = *high = NAN;
    for (int y = 0; y < r->tables.targets; y++) {
        double mean = tables_mean_predictor(&r->tables, r->folds, y);
        *low = fmin(*low, mean);
        *high = fmax(*high, mean);
        for (int k = -1; k < r->folds; k++) {
            *low = fmin(*low, tables_rmse(&r->tables, r->folds, k, y));
            *high = fmax(*high, tables_rmse(&r->tables, r->folds, k, y));
        }
    }
}

static double row_middle(int row)
{
    return ABOVE + ROW_HEIGHT * (row + 0.5);
}

/* Names on the left, a scale below. */
static svg_chart open_rows(page *p, const run_report *r, const char *description)
{
    double low, high;
    range_of_scores(r, &low, &high);
    int rows = r->tables.targets, height = ABOVE + rows * ROW_HEIGHT + BELOW;
    svg_chart c = {.page = p,
                   .left = NAME_WIDTH,
                   .right = SVG_WIDTH - 16,
                   .top = ABOVE,
                   .bottom = height - BELOW,
                   .x = svg_scale_fit(low, high, false, false)};
    svg_open(p, height, "RMSE of each target", description);
    svg_x_axis(&c, "RMSE");
    for (int y = 0; y < rows; y++) {
        page_markup(p, "<path class=\"g\" d=\"M%d %.1fH%.1f\"/><text class=\"y\" x=\"%d\" y=\"%.1f\">", NAME_WIDTH,
                    row_middle(y), c.right, NAME_WIDTH - 8, row_middle(y) + 4);
        page_text_cut(p, r->config.label_columns.item[y], NAME_CHARACTERS);
        page_markup(p, "</text>\n");
    }
    return c;
}

static void draw_row(const svg_chart *c, const run_report *r, int y)
{
    const tables *t = &r->tables;
    page *p = c->page;
    double model = svg_x(c, tables_rmse(t, r->folds, -1, y)), mean = svg_x(c, tables_mean_predictor(t, r->folds, y));
    page_markup(p, "<path class=\"l c0\" d=\"");
    for (int k = 0; k < r->folds; k++) {
        if (t->has[k]) page_markup(p, "M%.1f %.1fv8", svg_x(c, tables_rmse(t, r->folds, k, y)), row_middle(y) - 4);
    }
    page_markup(p, "\"/>");
    page_markup(p, "<path class=\"h\" d=\"M%.1f %.1fl6 6l-6 6l-6-6Z\"/>", mean, row_middle(y) - 6);
    page_markup(p, "<circle class=\"m c0\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>\n", model, row_middle(y));
}

static void score_chart(page *p, const run_report *r)
{
    const tables *t = &r->tables;
    char text[600];
    double model = tables_mcrmse(t, r->folds, -1), mean = tables_mean_predictor_mcrmse(t, r->folds);
    page_figure_begin(p, "RMSE of each target",
                      "Disc: pooled over the folds; strokes: each fold; open diamond: the mean predictor, which gives "
                      "every essay the mean score of the other folds. Further left is better.");
    int better = 0;
    for (int y = 0; y < t->targets; y++) {
        better += tables_rmse(t, r->folds, -1, y) < tables_mean_predictor(t, r->folds, y);
    }
    snprintf(text, sizeof text,
             "%d targets. The mean over the targets is %.4f, that of the mean predictor %.4f. The model is better than "
             "the mean predictor in %d of them. The table above has the numbers.",
             t->targets, model, mean, better);
    svg_chart c = open_rows(p, r, text);
    for (int y = 0; y < t->targets; y++) draw_row(&c, r, y);
    svg_close(p);
    page_figure_end(p);
}

void section_scores(page *p, const run_report *r)
{
    page_section_begin(p, "scores", "Scores");
    if (r->folds == 1 && !r->config.validation_file) {
        page_markup(p, "<p>All essays were trained on, so there are no scores.</p>\n");
    } else if (tables_essays(&r->tables, r->folds) == 0) {
        page_markup(p, "<p>No fold has been evaluated yet.</p>\n");
    } else {
        score_table(p, r);
        score_chart(p, r);
    }
    page_section_end(p);
}
