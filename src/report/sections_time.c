/* Where a run's time and memory went. */
#include "sections.h"

#include "fb3/file.h"
#include "fb3/run_directory.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

/* --- time --------------------------------------------------------------------------------------------------------- */

/* Not every step is logged, so the logged ones stand for all. The runtime is that of the last start alone: where it is
 * shorter than the steps, the fold was continued, and what is left over is not known. */
fold_time run_fold_time(const fold_log *log)
{
    fold_time t = {.steps = NAN, .evaluation = log->evaluations.seconds, .rest = NAN};
    if (log->logged_steps > 0) t.steps = log->logged_seconds * (double)log->step / (double)log->logged_steps;
    double rest = log->runtime - t.steps - t.evaluation;
    if (rest >= 0) t.rest = rest;
    return t;
}

enum { BAR_ROW = 26, BAR_LEFT = 64, BAR_TOP = 8, BAR_BELOW = 42 };

/* Parts side by side along the x axis, from 0 on, up to the first that is not known. */
static void draw_bar(svg_chart *c, int y, const double *part, const char *const *class, int parts)
{
    double from = 0;
    for (int i = 0; i < parts && isfinite(part[i]); i++) {
        const double to = from + part[i];
        page_markup(c->page, "<rect class=\"%s\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>", class[i],
                    svg_x(c, from), y + 4, svg_x(c, to) - svg_x(c, from), BAR_ROW - 8);
        from = to;
    }
}

static void draw_time(page *p, const run_report *r)
{
    double longest = 0;
    int rows = 0;
    char text[160];
    for (int k = 0; k < r->folds; k++) {
        fold_time t = run_fold_time(&r->log[k]);
        double all = t.steps + t.evaluation + (isfinite(t.rest) ? t.rest : 0);
        if (isfinite(all)) rows++;
        longest = fmax(longest, all);
    }
    if (rows == 0) {
        page_markup(p, "<p>No step is logged yet.</p>\n");
        return;
    }
    int height = BAR_TOP + rows * BAR_ROW + BAR_BELOW;
    svg_chart c = {.page = p,
                   .left = BAR_LEFT,
                   .right = SVG_WIDTH - 16,
                   .top = BAR_TOP,
                   .bottom = height - BAR_BELOW,
                   .x = svg_scale_fit(0, longest, true, false)};
    snprintf(text, sizeof text, "%d folds; the longest took %.0f seconds. The table below has the numbers.", rows,
             longest);
    svg_open(p, height, "Time of each fold", text);
    svg_x_axis(&c, "seconds");
    for (int k = 0, row = 0; k < r->folds; k++) {
        fold_time t = run_fold_time(&r->log[k]);
        const double part[] = {t.steps, t.evaluation, t.rest};
        const int y = BAR_TOP + BAR_ROW * row;
        static const char *const CLASS[] = {"bar", "cut", "wait"};
        if (!isfinite(t.steps)) continue;
        page_markup(p, "<text class=\"y\" x=\"%d\" y=\"%.1f\">fold %d</text>", BAR_LEFT - 8, y + BAR_ROW / 2.0 + 4, k);
        draw_bar(&c, y, part, CLASS, 3);
        page_markup(p, "\n");
        row++;
    }
    svg_close(p);
}

static double size_of_file(const run_report *r, int fold, const char *name)
{
    struct stat file;
    char *path = fold >= 0 ? fb3_fold_path(r->directory, fold, name) : fb3_path_join(r->directory, name);
    double bytes = path && stat(path, &file) == 0 ? (double)file.st_size : NAN;
    free(path);
    return bytes;
}

static void cell_duration(page *p, double seconds)
{
    char text[PAGE_NUMBER_BYTES];
    page_markup(p, "<td>%s</td>", page_duration(text, seconds));
}

static void cell_bytes(page *p, double bytes)
{
    char text[PAGE_NUMBER_BYTES];
    page_markup(p, "<td>%s</td>", page_bytes(text, bytes));
}

static void time_row(page *p, const run_report *r, int k)
{
    char name[32];
    const fold_log *log = &r->log[k];
    fold_time t = run_fold_time(log);
    snprintf(name, sizeof name, "fold %d", k);
    page_row_begin(p, name);
    page_cell_number(p, log->ranks > 0 ? log->ranks : NAN, 0);
    cell_duration(p, t.steps);
    cell_duration(p, t.evaluation);
    cell_duration(p, t.rest);
    cell_duration(p, log->runtime);
    cell_bytes(p, 1e6 * log->peak_memory_mb);
    cell_bytes(p, size_of_file(r, k, "best.h5"));
    cell_bytes(p, size_of_file(r, k, "last.h5"));
    page_row_end(p);
}

static void time_table(page *p, const run_report *r)
{
    static const char *const HEAD[] = {"",           "ranks",       "steps",   "evaluation", "the rest",
                                       "last start", "peak memory", "best.h5", "last.h5"};
    page_table_begin(p, "Time, memory and disk of each fold");
    page_head_begin(p);
    for (size_t i = 0; i < sizeof HEAD / sizeof *HEAD; i++) page_head(p, HEAD[i]);
    page_head_end(p);
    for (int k = 0; k < r->folds; k++)
        if (r->log[k].begun) time_row(p, r, k);
    page_table_end(p);
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

/* The parts of "memory_bytes" in metrics.jsonl, in the order in which they are drawn. */
static const struct {
    const char *key, *name, *class;
} PART[] = {{"parameters", "parameters", "m c0"},
            {"gradients", "gradients", "m c1"},
            {"moments", "moments of AdamW", "m c2"},
            {"activations", "activations, at most", "m c3"},
            {"workspace", "workspace of the operations, at most", "m c4"}};
enum { PARTS = sizeof PART / sizeof *PART };

static double bytes_of_part(const fold_log *log, int part)
{
    return fmax(0, json_number_value(json_object_get(log->memory, PART[part].key))); /* 0 where there is none */
}

static double bytes_of_all(const fold_log *log)
{
    double bytes = 0;
    for (int i = 0; i < PARTS; i++) bytes += bytes_of_part(log, i);
    return bytes;
}

static void draw_memory(page *p, const fold_log *log)
{
    const int height = BAR_TOP + BAR_ROW + BAR_BELOW;
    char text[128], bytes[PAGE_NUMBER_BYTES];
    svg_chart c = {.page = p,
                   .left = 16,
                   .right = SVG_WIDTH - 16,
                   .top = BAR_TOP,
                   .bottom = height - BAR_BELOW,
                   .x = svg_scale_fit(0, bytes_of_all(log) / 1e6, true, false)};
    snprintf(text, sizeof text, "%s in all. The table below has the parts.", page_bytes(bytes, bytes_of_all(log)));
    svg_open(p, height, "Memory of a rank", text);
    svg_x_axis(&c, "MB");
    double part[PARTS];
    const char *class[PARTS];
    for (int i = 0; i < PARTS; i++) {
        part[i] = bytes_of_part(log, i) / 1e6;
        class[i] = PART[i].class;
    }
    draw_bar(&c, BAR_TOP, part, class, PARTS);
    svg_close(p);
}

static void memory_row(page *p, const char *name, double bytes, double all)
{
    page_row_begin(p, name);
    cell_bytes(p, bytes);
    page_cell_number(p, 100 * bytes / all, 1);
    page_row_end(p);
}

static void show_memory(page *p, const fold_log *log)
{
    const double all = bytes_of_all(log);
    page_figure_begin(
        p, "Memory of a rank",
        "What its model, its optimizer and its batches take, in the memory of its device. The processor's "
        "libraries, the tokenised data and what the writer of a fold holds besides are not in it.");
    svg_legend_begin(p);
    for (int i = 0; i < PARTS; i++) svg_legend_area(p, PART[i].class, PART[i].name);
    svg_legend_end(p);
    draw_memory(p, log);
    page_figure_end(p);
    page_table_begin(p, "Memory of a rank by its parts");
    page_head_begin(p);
    page_head(p, "");
    page_head(p, "size");
    page_head(p, "percent");
    page_head_end(p);
    for (int i = 0; i < PARTS; i++) memory_row(p, PART[i].name, bytes_of_part(log, i), all);
    memory_row(p, "together", all, all);
    page_table_end(p);
}

/* --- both --------------------------------------------------------------------------------------------------------- */

/* What the whole run took. */
static void say_resources(page *p, const run_report *r, const fold_log *log)
{
    char number[PAGE_NUMBER_BYTES], rows[PAGE_NUMBER_BYTES], bytes[PAGE_NUMBER_BYTES];
    if (log) {
        page_markup(p, "<p>The model has %s parameters; of its word table the %s rows are trained whose tokens occur.",
                    page_number(number, (double)log->parameters, 0),
                    page_number(rows, (double)log->active_vocabulary, 0));
        page_markup(p, "</p>\n");
    }
    double data = size_of_file(r, -1, "data.h5");
    if (isfinite(data)) page_markup(p, "<p>The data set on disk has %s.</p>\n", page_bytes(bytes, data));
    double seconds = json_number_value(json_object_get(r->summary, "seconds"));
    if (seconds > 0) {
        page_markup(p, "<p>From its last start to its scores the program took %s on %lld rank(s).</p>\n",
                    page_duration(number, seconds),
                    (long long)json_integer_value(json_object_get(r->summary, "ranks")));
    }
}

void section_time(page *p, const run_report *r)
{
    const fold_log *log = NULL; /* the first that says what is trained; they all say the same */
    for (int k = r->folds; k-- > 0;)
        if (r->log[k].begun && r->log[k].parameters > 0) log = &r->log[k];
    page_section_begin(p, "time", "Time and memory");
    say_resources(p, r, log);
    page_figure_begin(p, "Time of each fold",
                      "Steps are estimated from those that are logged. The rest is checkpoints and the like; it is not "
                      "known of a fold that was continued or has not ended.");
    svg_legend_begin(p);
    svg_legend_area(p, "bar", "optimizer steps");
    svg_legend_area(p, "cut", "evaluations");
    svg_legend_area(p, "wait", "the rest");
    svg_legend_end(p);
    draw_time(p, r);
    page_figure_end(p);
    time_table(p, r);
    page_markup(
        p, "<p class=\"note\">Peak memory is the resident memory of the process that writes a fold's files, whatever "
           "it trained before; memory of a GPU is not in it.</p>\n");
    if (log && bytes_of_all(log) > 0) show_memory(p, log);
    page_section_end(p);
}
