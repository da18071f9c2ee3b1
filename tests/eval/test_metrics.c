/* Scores against values worked out by hand or by numpy (the command is beside each). */
#include "fb3/metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void close_to(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.17g is not %.17g", a, b);
}

/* t = np.array([[1,2],[3,4],[5,1.5]]); p = np.array([[1.5,2],[2,4.5],[5,1]]) */
static const float TRUTH[] = {1, 2, 3, 4, 5, 1.5f}, PRED[] = {1.5f, 2, 2, 4.5f, 5, 1};

static void scores(void **state)
{
    (void)state;
    fb3_scores s;
    fb3_scores_compute(&s, TRUTH, PRED, 3, 2);
    close_to(s.rmse[0], 0.6454972243679028, 1e-15); /* np.sqrt(((t-p)**2).mean(0)) */
    close_to(s.rmse[1], 0.408248290463863, 1e-15);
    close_to(s.mcrmse, 0.5268727574158829, 1e-15);
    assert_int_equal(s.samples, 3);
    fb3_scores_compute(&s, TRUTH, PRED, 0, 2);
    assert_true(isnan(s.mcrmse));
}

/* The loss of the table in one piece, and row by row. */
static void loss_is(fb3_loss_kind kind, double beta, double expected)
{
    fb3_scores whole, rows;
    fb3_score_sums one = {.targets = 2, .loss_type = kind, .smooth_l1_beta = beta}, many = one;
    fb3_score_sums_add(&one, TRUTH, PRED, 3);
    for (int i = 0; i < 3; i++) fb3_score_sums_add(&many, TRUTH + 2 * i, PRED + 2 * i, 1);
    fb3_scores_of(&whole, &one);
    fb3_scores_of(&rows, &many);
    close_to(whole.loss, expected, 1e-15);
    assert_memory_equal(&whole, &rows, sizeof whole);
}

static void losses(void **state)
{
    (void)state;
    loss_is(FB3_LOSS_L1, 1, 2.5 / 6);
    loss_is(FB3_LOSS_MSE, 1, 1.75 / 6);
    loss_is(FB3_LOSS_RMSE, 1, 0.41667720817553394);                    /* np.sqrt((t-p)**2 + 1e-9).mean() */
    loss_is(FB3_LOSS_SMOOTH_L1, 0.5, (0.25 + 0.75 + 0.25 + 0.25) / 6); /* np.where(a < .5, .5*a*a/.5, a - .25) */
    loss_is(FB3_LOSS_MCRMSE, 1, (sqrt(1.25 / 3 + 1e-9) + sqrt(0.5 / 3 + 1e-9)) / 2);
}

static void pearson(void **state)
{
    (void)state;
    double r[2], mean;
    fb3_pearson(r, &mean, TRUTH, PRED, 3, 2);
    close_to(r[0], 0.924473451641905, 1e-14); /* np.corrcoef(t[:,0], p[:,0])[0,1] */
    close_to(r[1], 0.9958705948858224, 1e-14);
    const float constant[] = {1, 1, 1};
    fb3_pearson(r, &mean, constant, PRED, 3, 1);
    assert_true(isnan(r[0]));
}

/* The interval of a mean of known variance: for errors of +-1 half of the time and 0 else, MCRMSE^2 is a binomial mean,
 * so the 95 % interval of n = 400 is about sqrt(0.5 +- 1.96 * 0.025). */
static void bootstrap(void **state)
{
    (void)state;
    enum { N = 400 };
    float truth[N] = {0}, pred[N];
    double low, high, low2, high2;
    for (int i = 0; i < N; i++) pred[i] = (float)(i % 2);
    assert_int_equal(fb3_bootstrap_mcrmse(&low, &high, truth, pred, N, 1, 4000, 7), FB3_OK);
    close_to(low, sqrt(0.5 - 1.96 * 0.025), 4e-3);
    close_to(high, sqrt(0.5 + 1.96 * 0.025), 4e-3);
    assert_int_equal(fb3_bootstrap_mcrmse(&low2, &high2, truth, pred, N, 1, 4000, 7), FB3_OK);
    assert_true(low == low2 && high == high2);
}

static void names(void **state)
{
    (void)state;
    char name[32];
    fb3_metric_name(name, sizeof name, "cohesion");
    assert_string_equal(name, "COHESION_RMSE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(scores), cmocka_unit_test(losses), cmocka_unit_test(pearson),
                                       cmocka_unit_test(bootstrap), cmocka_unit_test(names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
