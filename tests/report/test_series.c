/* Thinned curves keep what a reader looks for, and quantiles of a histogram are those of its values. */
#include "../../src/report/series.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

static void few_values_stay_as_they_are(void **state)
{
    (void)state;
    series s;
    assert_int_equal(series_make(&s, 8), FB3_OK);
    for (int step = 1; step <= 8; step++) series_add(&s, step, 10.0 * step);
    assert_int_equal(s.count, 8);
    assert_false(series_is_thinned(&s));
    for (int i = 0; i < 8; i++) {
        assert_int_equal(s.point[i].count, 1);
        assert_true(s.point[i].low == 10.0 * (i + 1) && s.point[i].steps == i + 1);
    }
    series_free(&s);
}

static void many_values_are_joined_and_none_is_lost(void **state)
{
    (void)state;
    enum { STEPS = 100003, SPIKE = 54321 };
    series s;
    double sum = 0, expected = 0;
    int64_t count = 0;
    assert_int_equal(series_make(&s, 64), FB3_OK);
    for (int64_t step = 1; step <= STEPS; step++) {
        double value = step == SPIKE ? 1e6 : sin(0.001 * (double)step);
        series_add(&s, step, value);
        expected += value;
    }
    assert_true(series_is_thinned(&s));
    assert_true(s.count > 32 && s.count <= 64);
    for (int i = 0; i < s.count; i++) {
        const series_point *p = &s.point[i];
        assert_true(p->count == s.width || i == s.count - 1);
        assert_true(p->low <= p->sum / (double)p->count && p->sum / (double)p->count <= p->high);
        sum += p->sum;
        count += p->count;
    }
    assert_int_equal(count, STEPS);
    assert_true(fabs(sum - expected) < 1e-6);
    assert_true(s.point[(SPIKE - 1) / s.width].high == 1e6);
    assert_true(s.high == 1e6 && s.high_step == SPIKE && s.last_step == STEPS);
    series_free(&s);
}

static void what_is_not_finite_is_counted(void **state)
{
    (void)state;
    series s;
    assert_int_equal(series_make(&s, 4), FB3_OK);
    series_add(&s, 1, NAN);
    series_add(&s, 2, 5);
    for (int step = 3; step <= 16; step++) series_add(&s, step, step % 2 ? INFINITY : 1);
    assert_int_equal(s.missing, 8);
    assert_int_equal(s.values, 8);
    assert_true(s.low == 1 && s.high == 5 && s.first == 5);
    series_add(&s, 0, 1); /* not steps */
    series_add(&s, -7, 1);
    series_add(&s, INT64_MAX, 1);
    assert_int_equal(s.values, 8);
    series_add(&s, INT64_MAX / 2, 1);
    assert_true(s.values == 9 && s.count <= 4);
    series_free(&s);
}

static void quantiles(void **state)
{
    (void)state;
    uint32_t bin[100] = {0};
    assert_true(isnan(histogram_quantile(bin, 100, 0, 1, 0.5)));
    for (int i = 0; i < 1000; i++) bin[i / 10]++;
    for (double q = 0.05; q < 1; q += 0.05) assert_true(fabs(histogram_quantile(bin, 100, 0, 1, q) - q) < 1e-9);
    uint32_t one[4] = {0, 7, 0, 0};
    assert_true(histogram_quantile(one, 4, 0, 4, 0.5) == 1.5);
    assert_true(histogram_quantile(one, 4, 0, 4, 1) == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_values_stay_as_they_are),
                                       cmocka_unit_test(many_values_are_joined_and_none_is_lost),
                                       cmocka_unit_test(what_is_not_finite_is_counted), cmocka_unit_test(quantiles)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
