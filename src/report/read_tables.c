/* The out-of-fold tables, in two passes, each row by row: the first finds the ranges and sums, the second fills what
 * needs the ranges. So memory does not grow with the rows. Lengths of essays come from the data set: a fold's table has
 * its essays in the data set's order, so all tables and the data set are walked along together. */
#include "report.h"

#include "fb3/file.h"
#include "fb3/oof.h"
#include "fb3/run_directory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { IDS_AT_ONCE = 1 << 14, ROWS_BEFORE_PAUSE = 4096 };

/* An open table, on a row or at its end. */
typedef struct reader {
    fb3_oof_reader *table;
    bool on_row;
    fb3_oof_row row;
} reader;

typedef struct row {
    const char *id;
    int fold, length;          /* -1: not known */
    const float *truth, *pred; // [Y]
} row;

typedef struct pass {
    run_report *report;
    tables *t;
    reader reader[FB3_MAX_FOLDS];
    fb3_status (*take)(struct pass *pass, const row *row);
    int64_t rows;
} pass;

/* --- reading ------------------------------------------------------------------------------------------------------ */

static fb3_status next_row(reader *r)
{
    return fb3_oof_next(r->table, &r->row, &r->on_row);
}

static fb3_status open_table(reader *r, const fb3_config *config, const char *path)
{
    FB3_TRY(fb3_oof_open(&r->table, path, config->id_column, &config->label_columns));
    return next_row(r);
}

/* A table that cannot be read any further ends there, with a note. */
static fb3_status settle(pass *p, reader *r, fb3_status status)
{
    if (status != FB3_OK) r->on_row = false;
    return run_report_tolerate(p->report, status);
}

static fb3_status open_tables(pass *p)
{
    for (int k = 0; k < p->report->folds; k++) {
        char *path = fb3_fold_path(p->report->directory, k, "oof.csv");
        FB3_REQUIRE(path, FB3_FAILED, "out of memory for a report");
        fb3_status status = FB3_OK;
        if (fb3_file_exists(path)) {
            status = settle(p, &p->reader[k], open_table(&p->reader[k], &p->report->config, path));
        }
        free(path);
        FB3_TRY(status);
    }
    return FB3_OK;
}

static void close_tables(pass *p)
{
    for (int k = 0; k < FB3_MAX_FOLDS; k++) fb3_oof_close(p->reader[k].table);
}

/* Takes the row that the reader of a fold is on, and goes to the next one. */
static fb3_status take_row(pass *p, int fold, int length)
{
    reader *r = &p->reader[fold];
    const row one = {.fold = fold, .length = length, .id = r->row.id, .truth = r->row.truth, .pred = r->row.pred};
    FB3_TRY(p->take(p, &one));
    if (p->rows++ % ROWS_BEFORE_PAUSE == 0) FB3_TRY(run_report_pause(p->report));
    return settle(p, r, next_row(r));
}

static fb3_status take_rest(pass *p)
{
    for (int k = 0; k < p->report->folds; k++)
        while (p->reader[k].on_row) FB3_TRY(take_row(p, k, -1));
    return FB3_OK;
}

static fb3_status take_id(pass *p, const char *id, int length)
{
    for (int k = 0; k < p->report->folds; k++) {
        const reader *r = &p->reader[k];
        if (r->on_row && strcmp(r->row.id, id) == 0) return take_row(p, k, length);
    }
    return FB3_OK; /* a fold that was not trained */
}

/* lengths[count], or -1 each where they cannot be read. */
static fb3_status read_lengths(pass *p, const fb3_dataset *data, int64_t first, int64_t count, int *lengths)
{
    fb3_status status = fb3_dataset_length_range(data, first, count, lengths);
    for (int64_t i = 0; status != FB3_OK && i < count; i++) lengths[i] = -1;
    return run_report_tolerate(p->report, status);
}

static fb3_status take_along(pass *p, const fb3_dataset *data)
{
    fb3_status status = FB3_OK;
    int *lengths = malloc(IDS_AT_ONCE * sizeof *lengths);
    FB3_REQUIRE(lengths, FB3_FAILED, "out of memory for a report");
    for (int64_t first = 0; status == FB3_OK && first < data->n; first += IDS_AT_ONCE) {
        int64_t count = data->n - first < IDS_AT_ONCE ? data->n - first : IDS_AT_ONCE;
        fb3_strings ids = {0};
        status = read_lengths(p, data, first, count, lengths);
        if (status == FB3_OK) status = fb3_dataset_id_range(data, first, count, &ids);
        for (int i = 0; status == FB3_OK && i < ids.count; i++) status = take_id(p, ids.item[i], lengths[i]);
        fb3_strings_free(&ids);
    }
    free(lengths);
    return status;
}

static fb3_status walk(pass *p, const fb3_dataset *data)
{
    fb3_status status = open_tables(p);
    if (status == FB3_OK && data) status = take_along(p, data);
    if (status == FB3_OK) status = take_rest(p);
    close_tables(p);
    return status;
}

/* --- first pass: ranges and sums ---------------------------------------------------------------------------------- */

static void widen(double *low, double *high, double value, bool first)
{
    *low = first ? value : fmin(*low, value);
    *high = first ? value : fmax(*high, value);
}

static fb3_status measure(pass *p, const row *one)
{
    tables *t = p->t;
    t->has[one->fold] = true;
    for (int y = 0; y < t->targets; y++) {
        target_sums *sums = &t->fold[one->fold][y];
        double truth = one->truth[y], pred = one->pred[y], residual = pred - truth;
        sums->n++;
        sums->truth += truth;
        sums->truth2 += truth * truth;
        sums->sse += residual * residual;
        t->pred_sum[y] += pred;
        t->pred_sum2[y] += pred * pred;
        t->cross[y] += truth * pred;
        widen(&t->truth_low[y], &t->truth_high[y], truth, p->rows == 0);
        widen(&t->pred_low[y], &t->pred_high[y], pred, p->rows == 0);
    }
    return FB3_OK;
}

/* Half points where scores are as FB3's; else a step of 1, 2 or 5 times a power of ten that makes a dozen groups. */
static double group_step(double range)
{
    const double most = BOX_GROUPS - 2; /* groups are centred, so both ends may need one more */
    if (range >= 2 && range / 0.5 <= most) return 0.5;
    if (!(range > 0) || !isfinite(range)) return 1;
    double power = pow(10, floor(log10(range / most)));
    for (int i = 0; i < 3; i++) {
        static const double STEP[] = {1, 2, 5};
        if (range / (STEP[i] * power) <= most) return STEP[i] * power;
    }
    return 10 * power;
}

static fb3_status make_boxes(tables *t)
{
    for (int y = 0; y < t->targets; y++) {
        boxes *b = &t->box[y];
        double range = t->truth_high[y] - t->truth_low[y], room = 2 * (range > 0 ? range : 1);
        b->truth_step = group_step(range);
        b->truth_low = b->truth_step * round(t->truth_low[y] / b->truth_step);
        double groups = round((t->truth_high[y] - b->truth_low) / b->truth_step) + 1;
        b->groups = groups >= 1 && groups <= BOX_GROUPS ? (int)groups : BOX_GROUPS;
        b->low = fmax(t->pred_low[y], t->truth_low[y] - room); /* one wild prediction must not take all the bins */
        b->high = fmin(t->pred_high[y], t->truth_high[y] + room);
        if (!(b->high > b->low)) b->high = b->low + 1e-6 * fmax(1, fabs(b->low));
        b->bin = calloc((size_t)b->groups, sizeof *b->bin);
        FB3_REQUIRE(b->bin, FB3_FAILED, "out of memory for a report");
    }
    return FB3_OK;
}

/* --- second pass -------------------------------------------------------------------------------------------------- */

static int clamped(double x, int count)
{
    return x >= count ? count - 1 : x > 0 ? (int)x : 0; /* NaN is 0 */
}

static void add_to_box(boxes *b, double truth, double pred)
{
    int g = clamped(round((truth - b->truth_low) / b->truth_step), b->groups);
    b->n[g]++;
    b->bin[g][clamped((pred - b->low) / (b->high - b->low) * BOX_BINS, BOX_BINS)]++;
}

static void add_length(tables *t, const row *one, int max_length)
{
    int bin = 0;
    if (one->length < 0) {
        t->without_length++;
        return;
    }
    while (bin < LENGTH_BINS - 1 && one->length > length_edge(bin, LENGTH_BINS, max_length)) bin++;
    if (one->length == max_length) bin = LENGTH_BINS;
    t->length_n[bin]++;
    for (int y = 0; y < t->targets; y++) {
        double residual = (double)one->pred[y] - one->truth[y];
        t->length_sse[bin][y] += residual * residual;
    }
}

static double essay_error(const row *one, int targets)
{
    double sum = 0;
    for (int y = 0; y < targets; y++) sum += pow((double)one->pred[y] - one->truth[y], 2) / targets;
    return sqrt(sum);
}

/* The list is kept in order; of equal errors the one read first comes first. */
static fb3_status add_if_worst(tables *t, const row *one)
{
    double error = essay_error(one, t->targets);
    int at = t->worst_count;
    if (at == WORST_ESSAYS && error <= t->worst[at - 1].error) return FB3_OK;
    essay e = {.id = strdup(one->id), .fold = one->fold, .length = one->length, .error = error};
    FB3_REQUIRE(e.id, FB3_FAILED, "out of memory for a report");
    memcpy(e.truth, one->truth, sizeof e.truth);
    memcpy(e.pred, one->pred, sizeof e.pred);
    if (at == WORST_ESSAYS) free(t->worst[--at].id);
    for (; at > 0 && t->worst[at - 1].error < error; at--) t->worst[at] = t->worst[at - 1];
    t->worst[at] = e;
    if (t->worst_count < WORST_ESSAYS) t->worst_count++;
    return FB3_OK;
}

static fb3_status spread(pass *p, const row *one)
{
    tables *t = p->t;
    double residual[FB3_MAX_TARGETS];
    t->rows++;
    for (int y = 0; y < t->targets; y++) {
        residual[y] = (double)one->pred[y] - one->truth[y];
        t->residual[y] += residual[y];
        add_to_box(&t->box[y], one->truth[y], one->pred[y]);
        for (int z = 0; z <= y; z++) t->product[y][z] += residual[y] * residual[z];
    }
    add_length(t, one, p->report->data.max_length);
    return add_if_worst(t, one);
}

/* --- both --------------------------------------------------------------------------------------------------------- */

fb3_status read_tables(run_report *report, const fb3_dataset *data)
{
    tables *t = &report->tables;
    pass *p = calloc(1, sizeof *p);
    fb3_status status = FB3_OK;
    t->targets = report->config.label_columns.count;
    t->fold = calloc((size_t)report->folds, sizeof *t->fold);
    FB3_REQUIRE_GOTO(p && t->fold, done, FB3_FAILED, "out of memory for a report");
    *p = (pass){.report = report, .t = t, .take = measure};
    FB3_TRY_GOTO(walk(p, NULL), done);
    if (p->rows == 0) goto done;
    FB3_TRY_GOTO(make_boxes(t), done);
    int notes = report->notes.count; /* the first pass has made the same ones */
    *p = (pass){.report = report, .t = t, .take = spread};
    FB3_TRY_GOTO(walk(p, data), done);
    while (report->notes.count > notes) free(report->notes.item[--report->notes.count]);
    if (data && t->without_length > 0) {
        status = run_report_note(report,
                                 "%lld essays of the tables are not found in the data set, in its order: their "
                                 "lengths are not known.",
                                 (long long)t->without_length);
    }
done:
    free(p);
    return status;
}

void tables_free(tables *t)
{
    for (int y = 0; y < FB3_MAX_TARGETS; y++) free(t->box[y].bin);
    for (int i = 0; i < t->worst_count; i++) free(t->worst[i].id);
    free(t->fold);
}

/* --- scores ------------------------------------------------------------------------------------------------------- */

double tables_essays(const tables *t, int folds)
{
    double n = 0;
    for (int k = 0; k < folds; k++) n += t->fold[k][0].n;
    return n;
}

double tables_rmse(const tables *t, int folds, int fold, int target)
{
    double n = 0, sse = 0;
    for (int k = 0; k < folds; k++) {
        if (fold >= 0 && k != fold) continue;
        n += t->fold[k][target].n;
        sse += t->fold[k][target].sse;
    }
    return n > 0 ? sqrt(sse / n) : NAN;
}

double tables_mcrmse(const tables *t, int folds, int fold)
{
    double sum = 0;
    for (int y = 0; y < t->targets; y++) sum += tables_rmse(t, folds, fold, y) / t->targets;
    return sum;
}

double tables_mean_predictor(const tables *t, int folds, int target)
{
    double n = 0, truth = 0, sse = 0;
    for (int k = 0; k < folds; k++) {
        n += t->fold[k][target].n;
        truth += t->fold[k][target].truth;
    }
    for (int k = 0; k < folds; k++) {
        const target_sums *s = &t->fold[k][target];
        bool alone = s->n == n;
        double mean = alone ? truth / n : (truth - s->truth) / (n - s->n);
        if (s->n > 0) sse += s->truth2 - 2 * mean * s->truth + s->n * mean * mean;
    }
    return n > 0 ? sqrt(fmax(sse, 0) / n) : NAN;
}

double tables_mean_predictor_mcrmse(const tables *t, int folds)
{
    double sum = 0;
    for (int y = 0; y < t->targets; y++) sum += tables_mean_predictor(t, folds, y) / t->targets;
    return sum;
}
