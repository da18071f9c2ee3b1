/* See fb3/compare.h. The bootstrap is paired: both runs are scored on the same resample, so that what makes an essay
 * hard for both cancels (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993). */
#include "fb3/compare.h"
#include "resample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the common essays -------------------------------------------------------------------------------------------- */

/* An essay that `table` has not is no longer common. Scores must agree. */
static fb3_status match(const fb3_oof *first, const fb3_oof *table, bool *common)
{
    fb3_status status = FB3_OK;
    const size_t width = (size_t)first->targets;
    fb3_oof_index index;
    FB3_TRY(fb3_oof_index_make(&index, table));
    for (int64_t i = 0; i < first->n; i++) {
        if (!common[i]) continue;
        const int64_t row = fb3_oof_index_find(&index, first->ids.item[i]);
        common[i] = row >= 0;
        FB3_REQUIRE_GOTO(row < 0 || memcmp(first->truth + (size_t)i * width, table->truth + (size_t)row * width,
                                           width * sizeof *first->truth) == 0,
                         done, FB3_INPUT,
                         "the essay %s has different scores in two of the runs; compare runs on one "
                         "training set",
                         first->ids.item[i]);
    }
done:
    fb3_oof_index_free(&index);
    return status;
}

static fb3_status take_rows(float *pred, const fb3_oof *first, const bool *common, const fb3_oof *table)
{
    const size_t width = (size_t)table->targets;
    fb3_oof_index index;
    FB3_TRY(fb3_oof_index_make(&index, table));
    for (int64_t i = 0; i < first->n; i++) {
        if (!common[i]) continue;
        const int64_t row = fb3_oof_index_find(&index, first->ids.item[i]);
        memcpy(pred, table->pred + (size_t)row * width, width * sizeof *pred);
        pred += width;
    }
    fb3_oof_index_free(&index);
    return FB3_OK;
}

/* --- scores ------------------------------------------------------------------------------------------------------- */

/* Means, and the sum of squares about the mean as it grows (Welford 1962). */
static void score(fb3_contender *run, const fb3_comparison *c)
{
    double squares = 0;
    run->mcrmse = 0;
    memset(run->rmse, 0, sizeof run->rmse);
    for (int t = 0; t < run->tables; t++) {
        fb3_scores one;
        fb3_scores_compute(&one, c->truth, run->pred[t], c->n, c->targets);
        const double off = one.mcrmse - run->mcrmse;
        run->mcrmse += off / (t + 1);
        squares += off * (one.mcrmse - run->mcrmse);
        for (int y = 0; y < c->targets; y++) run->rmse[y] += one.rmse[y] / run->tables;
    }
    run->spread = run->tables > 1 ? sqrt(squares / (run->tables - 1)) : NAN;
}

static fb3_status take_run(fb3_comparison *c, fb3_contender *run, const fb3_oof *first, const bool *common)
{
    const size_t cells = (size_t)c->n * (size_t)c->targets;
    run->pred = calloc((size_t)run->tables, sizeof *run->pred);
    FB3_REQUIRE(run->pred, FB3_FAILED, "out of memory for a comparison");
    for (int t = 0; t < run->tables; t++) {
        run->pred[t] = malloc(cells * sizeof **run->pred);
        FB3_REQUIRE(run->pred[t], FB3_FAILED, "out of memory for a comparison");
        FB3_TRY(take_rows(run->pred[t], first, common, &run->table[t]));
    }
    score(run, c);
    return FB3_OK;
}

fb3_status fb3_comparison_make(fb3_comparison *c)
{
    fb3_status status = FB3_OK;
    const fb3_oof *first = &c->run[0].table[0];
    const size_t width = (size_t)c->targets;
    bool *common = malloc((size_t)first->n + 1);
    FB3_REQUIRE(common, FB3_FAILED, "out of memory for a comparison");
    memset(common, true, (size_t)first->n);
    for (int r = 0; r < c->runs; r++)
        for (int t = 0; t < c->run[r].tables; t++) FB3_TRY_GOTO(match(first, &c->run[r].table[t], common), done);
    c->n = 0;
    for (int64_t i = 0; i < first->n; i++) c->n += common[i];
    FB3_REQUIRE_GOTO(c->n > 0, done, FB3_INPUT, "the runs have predicted no essay in common");
    c->truth = malloc((size_t)c->n * width * sizeof *c->truth);
    FB3_REQUIRE_GOTO(c->truth, done, FB3_FAILED, "out of memory for a comparison");
    float *to = c->truth;
    for (int64_t i = 0; i < first->n; i++) {
        if (!common[i]) continue;
        memcpy(to, first->truth + (size_t)i * width, width * sizeof *to);
        to += width;
    }
    for (int r = 0; r < c->runs; r++) FB3_TRY_GOTO(take_run(c, &c->run[r], first, common), done);
done:
    free(common);
    return status;
}

void fb3_comparison_free(fb3_comparison *c)
{
    for (int r = 0; r < c->runs; r++) {
        for (int t = 0; c->run[r].pred && t < c->run[r].tables; t++) free(c->run[r].pred[t]);
        free(c->run[r].pred);
        c->run[r].pred = NULL;
    }
    free(c->truth);
    c->truth = NULL;
}

/* --- differences -------------------------------------------------------------------------------------------------- */

static double seed_noise(const fb3_contender *a, const fb3_contender *b)
{
    if (a->tables < 2 || b->tables < 2) return FB3_SEED_NOISE;
    return fmax(FB3_SEED_NOISE, 2 * sqrt(a->spread * a->spread / a->tables + b->spread * b->spread / b->tables));
}

/* The mean MCRMSE of a run's tables on a resample. */
static double resampled(const fb3_contender *run, const fb3_comparison *c, const int64_t *rows)
{
    double mean = 0;
    for (int t = 0; t < run->tables; t++)
        mean += fb3_resampled_mcrmse(c->truth, run->pred[t], rows, c->n, c->targets) / run->tables;
    return mean;
}

fb3_status fb3_comparison_difference(fb3_difference *difference, const fb3_comparison *c, int baseline, int run,
                                     int draws, uint64_t seed)
{
    const fb3_contender *before = &c->run[baseline], *now = &c->run[run];
    const fb3_rng_key key = fb3_rng_key_make(seed, -1);
    double *value = malloc((size_t)draws * sizeof *value);
    int64_t *rows = malloc((size_t)c->n * sizeof *rows);
    if (!value || !rows) {
        free(value);
        free(rows);
        return fb3_fail(FB3_FAILED, "out of memory for %d bootstrap draws", draws);
    }
    *difference = (fb3_difference){.mcrmse = now->mcrmse - before->mcrmse, .noise = seed_noise(before, now)};
    for (int d = 0; d < draws; d++) {
        fb3_resample(rows, c->n, (uint32_t)d, key);
        value[d] = resampled(now, c, rows) - resampled(before, c, rows);
    }
    fb3_percentiles(value, draws, &difference->low, &difference->high);
    const bool certain = difference->low > 0 || difference->high < 0;
    if (certain && fabs(difference->mcrmse) >= difference->noise)
        difference->verdict = difference->mcrmse < 0 ? FB3_BETTER : FB3_WORSE;
    free(value);
    free(rows);
    return FB3_OK;
}
