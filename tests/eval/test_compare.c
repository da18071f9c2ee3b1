/* Runs side by side: which essays count, the interval of a difference whose law is known, and the verdicts. */
#include "fb3/compare.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N = 400, DRAWS = 2000 };

static double uniform(int i, int stream)
{
    fb3_philox word = fb3_philox4x32((uint32_t)i, (uint32_t)stream, 0, 0, 11, 12);
    return (word.word[0] + 0.5) / 4294967296.0;
}

/* Predictions of one target that are off by +-(error + extra noise of the table); ids count from `first`. */
static fb3_oof table(int first, int n, double error, int stream)
{
    fb3_oof oof = {.targets = 1};
    for (int i = first; i < first + n; i++) {
        char id[16];
        snprintf(id, sizeof id, "e%d", i);
        fb3_oof_row row = {.id = id, .truth = {(float)(1 + i % 9 * 0.5)}};
        double off = error * (0.5 + uniform(i, 0)) + 0.1 * (uniform(i, stream) - 0.5);
        row.pred[0] = row.truth[0] + (float)(i % 2 ? off : -off);
        assert_int_equal(fb3_oof_append(&oof, &row), FB3_OK);
    }
    return oof;
}

static fb3_difference difference_of(fb3_oof *a, int tables_a, fb3_oof *b, int tables_b, int64_t *common)
{
    fb3_difference d;
    fb3_contender runs[2] = {{.table = a, .tables = tables_a}, {.table = b, .tables = tables_b}};
    fb3_comparison c = {.runs = 2, .targets = 1, .run = runs};
    assert_int_equal(fb3_comparison_make(&c), FB3_OK);
    assert_int_equal(fb3_comparison_difference(&d, &c, 0, 1, DRAWS, 42), FB3_OK);
    if (common) *common = c.n;
    fb3_comparison_free(&c);
    for (int i = 0; i < tables_a; i++) fb3_oof_free(&a[i]);
    for (int i = 0; i < tables_b; i++) fb3_oof_free(&b[i]);
    return d;
}

static void common_essays(void **state)
{
    (void)state;
    int64_t n;
    fb3_oof a = table(0, N, 0.5, 1), b = table(100, N, 0.5, 1);
    fb3_difference d = difference_of(&a, 1, &b, 1, &n);
    assert_int_equal(n, N - 100);
    assert_true(d.mcrmse == 0 && d.low == 0 && d.high == 0 &&
                d.verdict == FB3_CANNOT_TELL); /* they are the same there */
}

static void verdicts(void **state)
{
    (void)state;
    fb3_oof a = table(0, N, 0.5, 1), b = table(0, N, 0.45, 2);
    fb3_difference d = difference_of(&a, 1, &b, 1, NULL);
    assert_int_equal(d.verdict, FB3_BETTER);
    assert_true(d.mcrmse < -0.03 && d.low < d.mcrmse && d.mcrmse < d.high && d.high < 0);
    a = table(0, N, 0.45, 2), b = table(0, N, 0.5, 1);
    fb3_difference other = difference_of(&a, 1, &b, 1, NULL);
    assert_int_equal(other.verdict, FB3_WORSE);
    assert_true(other.mcrmse == -d.mcrmse && fabs(other.low + d.high) < 1e-3 && fabs(other.high + d.low) < 1e-3);
    a = table(0, N, 0.5, 1), b = table(0, N, 0.5, 2);
    d = difference_of(&a, 1, &b, 1, NULL);
    assert_int_equal(d.verdict, FB3_CANNOT_TELL);
    assert_true(d.low < 0 && d.high > 0);
    /* surely different, and by less than seeds do */
    a = table(0, N, 0.5, 1), b = table(0, N, 0.499, 1);
    d = difference_of(&a, 1, &b, 1, NULL);
    assert_true(d.high < 0 && d.mcrmse > -FB3_SEED_NOISE);
    assert_int_equal(d.verdict, FB3_CANNOT_TELL);
}

/* Pairing: of two runs whose errors are those of the essays, the difference is far more certain than either score. */
static void pairs_cancel(void **state)
{
    (void)state;
    double low, high;
    fb3_oof a = table(0, N, 0.5, 1), b = table(0, N, 0.48, 1);
    assert_int_equal(fb3_bootstrap_mcrmse(&low, &high, a.truth, a.pred, a.n, 1, DRAWS, 42), FB3_OK);
    fb3_difference d = difference_of(&a, 1, &b, 1, NULL);
    assert_true(d.high - d.low < 0.2 * (high - low));
}

/* Runs of several seeds: means over the seeds; and what the seeds do is noise. */
static void seeds(void **state)
{
    (void)state;
    fb3_oof a[3] = {table(0, N, 0.49, 1), table(0, N, 0.50, 2), table(0, N, 0.51, 3)};
    fb3_oof b[3] = {table(0, N, 0.483, 4), table(0, N, 0.493, 5), table(0, N, 0.503, 6)};
    fb3_difference d = difference_of(a, 3, b, 3, NULL);
    assert_true(d.noise > FB3_SEED_NOISE);
    assert_true(fabs(d.noise - 2 * sqrt(2 * 0.0105 * 0.0105 / 3)) < 2e-3); /* their spread is about 0.0105 each */
    assert_int_equal(d.verdict, FB3_CANNOT_TELL);
}

static void refused(void **state)
{
    (void)state;
    fb3_oof a = table(0, 10, 0.5, 1), b = table(0, 10, 0.5, 1), elsewhere = table(50, 10, 0.5, 1);
    fb3_contender runs[2] = {{.table = &a, .tables = 1}, {.table = &b, .tables = 1}};
    fb3_comparison c = {.runs = 2, .targets = 1, .run = runs};
    b.truth[3] += 0.5f;
    assert_int_equal(fb3_comparison_make(&c), FB3_INPUT);
    assert_non_null(strstr(fb3_error_text(), "e3 has different scores"));
    fb3_comparison_free(&c);
    runs[1].table = &elsewhere;
    assert_int_equal(fb3_comparison_make(&c), FB3_INPUT);
    assert_non_null(strstr(fb3_error_text(), "no essay in common"));
    fb3_comparison_free(&c);
    fb3_oof_free(&a);
    fb3_oof_free(&b);
    fb3_oof_free(&elsewhere);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(common_essays), cmocka_unit_test(verdicts),
                                       cmocka_unit_test(pairs_cancel), cmocka_unit_test(seeds),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
