/* Progress as lines: for each fold as much as fits, what matters most first.
 *
 *   fold-0  [########################]  120/120  complete  best 0.6269
 *   fold-1  [##########..............]   50/120  ETA 02:31  best 0.6344  8.1 samples/s  812 MB  last 0.6402
 *   all     [#################.......]      71%  ETA 02:31
 */
#include "fb3/progress.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELD_BYTES = 96, MOST_CELLS = 100 };

#define GREEN  "\033[32m"
#define YELLOW "\033[33m"
#define RED    "\033[31m"
#define PLAIN  "\033[0m"

void fb3_duration_format(char text[FB3_DURATION_BYTES], double seconds)
{
    if (!isfinite(seconds) || seconds > 1e9) {
        snprintf(text, FB3_DURATION_BYTES, "--:--");
        return;
    }
    long s = lround(seconds < 0 ? 0 : seconds);
    if (s >= 3600)
        snprintf(text, FB3_DURATION_BYTES, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, FB3_DURATION_BYTES, "%02ld:%02ld", s / 60, s % 60);
}

/* --- what all lines have in common -------------------------------------------------------------------------------- */

typedef struct layout {
    const fb3_lines_style *style;
    int label, steps; /* columns of these two */
    int cells;        /* of a bar; 0: none */
} layout;

/* A part of a line. Parts are shown in the order in which they are added; those with the highest `rank` are left out
 * first where the line is narrow. */
typedef struct field {
    char text[FIELD_BYTES]; // printable ASCII: as many columns as bytes
    int rank;
    const char *colour; // NULL: none
} field;

typedef struct line {
    field field[12];
    int fields;
} line;

static void add(line *l, int rank, const char *colour, const char *format, ...) __attribute__((format(printf, 4, 5)));
static void add(line *l, int rank, const char *colour, const char *format, ...)
{
    assert(l->fields < (int)(sizeof l->field / sizeof *l->field));
    field *f = &l->field[l->fields++];
    *f = (field){.rank = rank, .colour = colour};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(f->text, sizeof f->text, format, arguments);
    va_end(arguments);
}

static int columns(const line *l)
{
    int sum = 0;
    for (int i = 0; i < l->fields; i++) sum += (int)strlen(l->field[i].text) + (i > 0 ? 2 : 0);
    return sum;
}

static void drop_last_rank(line *l)
{
    int last = 0;
    for (int i = 1; i < l->fields; i++)
        if (l->field[i].rank >= l->field[last].rank) last = i;
    memmove(&l->field[last], &l->field[last + 1], (size_t)(l->fields - last - 1) * sizeof(field));
    l->fields--;
}

/* The last column stays free: a terminal may go to the next line when it is written. */
static void print(FILE *out, line *l, const fb3_lines_style *style)
{
    while (l->fields > 1 && columns(l) >= style->width) drop_last_rank(l);
    int room = style->width - 1;
    for (int i = 0; i < l->fields && room > 0; i++) {
        const field *f = &l->field[i];
        const char *colour = style->colour ? f->colour : NULL;
        int gap = i > 0 ? 2 : 0, wide = (int)strlen(f->text);
        if (gap + wide > room) wide = room - gap; /* one part that is too wide by itself */
        fprintf(out, "%*s%s%.*s%s", gap, "", colour ? colour : "", wide, f->text, colour ? PLAIN : "");
        room -= gap + wide;
    }
    fputc('\n', out);
}

static void add_bar(line *l, const layout *shape, int rank, double share)
{
    char bar[MOST_CELLS + 3];
    if (shape->cells == 0) return;
    int filled = (int)(shape->cells * fmin(fmax(share, 0), 1));
    bar[0] = '[';
    for (int i = 0; i < shape->cells; i++) bar[1 + i] = i < filled ? '#' : '.';
    memcpy(bar + 1 + shape->cells, "]", 2);
    add(l, rank, GREEN, "%s", bar);
}

/* --- a fold ------------------------------------------------------------------------------------------------------- */

static double share_of(const fb3_fold_progress *p)
{
    return p->phase == FB3_PHASE_COMPLETE ? 1 : p->total_steps > 0 ? (double)p->step / (double)p->total_steps : 0;
}

static void steps_text(char *text, size_t bytes, const fb3_fold_progress *p)
{
    if (p->total_steps > 0)
        snprintf(text, bytes, "%lld/%lld", (long long)p->step, (long long)p->total_steps);
    else
        snprintf(text, bytes, "-");
}

static const char *colour_of(fb3_fold_phase phase)
{
    if (phase == FB3_PHASE_FAILED || phase == FB3_PHASE_KILLED) return RED;
    return phase == FB3_PHASE_STOPPED ? YELLOW : NULL;
}

static void add_measures(line *l, const fb3_fold_progress *p)
{
    if (isfinite(p->samples_per_second)) add(l, 6, NULL, "%.1f samples/s", p->samples_per_second);
    if (isfinite(p->peak_memory_mb)) add(l, 7, NULL, "%.0f MB", p->peak_memory_mb);
    if (p->last_step > 0 && p->last_step != p->best_step) add(l, 8, NULL, "last %.4f", p->last_metric);
    if (isfinite(p->loss)) add(l, 9, NULL, "loss %.4f", p->loss);
    if (isfinite(p->epoch)) add(l, 10, NULL, "epoch %.2f", p->epoch);
}

static void print_fold(FILE *out, const fb3_fold_progress *p, const layout *shape)
{
    line l = {0};
    char steps[64];
    bool active = fb3_phase_active(p->phase);
    steps_text(steps, sizeof steps, p);
    add(&l, 0, NULL, "fold-%-*d", shape->label - 5, p->fold);
    add_bar(&l, shape, 5, share_of(p));
    add(&l, 1, NULL, "%*s", shape->steps, steps);
    if (p->phase != FB3_PHASE_TRAINING) add(&l, 2, colour_of(p->phase), "%s", fb3_phase_name(p->phase));
    if (active) {
        char eta[FB3_DURATION_BYTES];
        fb3_duration_format(eta, fb3_fold_progress_eta(p));
        add(&l, 3, NULL, "ETA %s", eta);
    }
    if (p->best_step > 0) add(&l, 4, NULL, "best %.4f", p->best_metric);
    if (active) add_measures(&l, p);
    print(out, &l, shape->style);
}

/* --- all folds ---------------------------------------------------------------------------------------------------- */

/* Steps of a fold that waits: as many as its neighbours have, as far as that is known. */
static int64_t usual_steps(const fb3_fold_progress *fold, int count)
{
    for (int i = 0; i < count; i++)
        if (fold[i].total_steps > 0) return fold[i].total_steps;
    return 0;
}

static double steps_left(const fb3_fold_progress *p, int64_t usual)
{
    if (p->phase == FB3_PHASE_COMPLETE) return 0;
    return (double)((p->total_steps > 0 ? p->total_steps : usual) - p->step);
}

double fb3_progress_eta(const fb3_fold_progress *fold, int count)
{
    double left = 0, pace = 0, longest = 0;
    int64_t usual = usual_steps(fold, count);
    for (int i = 0; i < count; i++) {
        double eta = fb3_fold_progress_eta(&fold[i]);
        left += steps_left(&fold[i], usual);
        if (isfinite(eta) && fold[i].seconds > 0) pace += (double)(fold[i].step - fold[i].first_step) / fold[i].seconds;
        if (isfinite(eta)) longest = fmax(longest, eta);
    }
    return pace > 0 ? fmax(longest, left / pace) : NAN;
}

static double share_of_all(const fb3_fold_progress *fold, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++) sum += share_of(&fold[i]);
    return sum / count;
}

static void print_all(FILE *out, const fb3_fold_progress *fold, int count, const layout *shape)
{
    line l = {0};
    char eta[FB3_DURATION_BYTES];
    double share = share_of_all(fold, count);
    fb3_duration_format(eta, fb3_progress_eta(fold, count));
    add(&l, 0, NULL, "%-*s", shape->label, "all");
    add_bar(&l, shape, 5, share);
    add(&l, 1, NULL, "%*d%%", shape->steps - 1, (int)(100 * share));
    if (share < 1) add(&l, 3, NULL, "ETA %s", eta);
    print(out, &l, shape->style);
}

static layout layout_of(const fb3_fold_progress *fold, int count, const fb3_lines_style *style)
{
    layout shape = {.style = style, .cells = style->width >= 100 ? 24 : style->width >= 60 ? 12 : 0};
    shape.label = (int)strlen("fold-0");
    shape.steps = (int)strlen("100%");
    for (int i = 0; i < count; i++) {
        char text[64];
        snprintf(text, sizeof text, "fold-%d", fold[i].fold);
        if ((int)strlen(text) > shape.label) shape.label = (int)strlen(text);
        steps_text(text, sizeof text, &fold[i]);
        if ((int)strlen(text) > shape.steps) shape.steps = (int)strlen(text);
    }
    return shape;
}

/* Which folds get a line where not all can: those at work first, then the others in order. */
static void choose(const fb3_fold_progress *fold, int count, int most, bool *shown)
{
    int left = most;
    for (int i = 0; i < count; i++) left -= shown[i] = left > 0 && fb3_phase_active(fold[i].phase);
    for (int i = 0; i < count; i++)
        if (!shown[i]) left -= shown[i] = left > 0;
}

static int print_lines(FILE *out, const fb3_fold_progress *fold, int count, const fb3_lines_style *style, bool *shown)
{
    const layout shape = layout_of(fold, count, style);
    int lines = 0, hidden = 0, room = count > 1 ? count + 1 : count;
    bool all_fit = style->rows <= 0 || room <= style->rows;
    choose(fold, count, all_fit ? count : style->rows > 2 ? style->rows - 2 : 0, shown);
    for (int i = 0; i < count; i++) {
        hidden += !shown[i];
        if (!shown[i]) continue;
        print_fold(out, &fold[i], &shape);
        lines++;
    }
    if (hidden > 0 && (style->rows <= 0 || lines + 2 <= style->rows)) {
        line l = {0};
        add(&l, 0, NULL, "and %d more", hidden);
        print(out, &l, style);
        lines++;
    }
    if (count > 1 && (style->rows <= 0 || lines < style->rows)) {
        print_all(out, fold, count, &shape);
        lines++;
    }
    return lines;
}

char *fb3_progress_lines(const fb3_fold_progress *fold, int count, const fb3_lines_style *style, int *lines)
{
    char *text = NULL;
    size_t bytes = 0;
    bool *shown = calloc((size_t)count + 1, sizeof *shown);
    FILE *out = shown ? open_memstream(&text, &bytes) : NULL;
    *lines = out ? print_lines(out, fold, count, style, shown) : 0;
    free(shown);
    if (!out) return NULL;
    bool written = !ferror(out);
    if (fclose(out) == 0 && written) return text;
    free(text);
    return NULL;
}
