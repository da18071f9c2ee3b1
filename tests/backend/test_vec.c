/* The vector functions that the operations are made of, at the width that this file is compiled for: exp to 2 ulp, the
 * normal distribution to 1e-7, partial loads and stores. The operations' own tests run every width. */
#include "support.h"
#include "cpu/vec.h"
#include <math.h>

static float exp_of(float x)
{
    return vf_exp(vf_set(x))[0];
}

static void test_exp(void **state)
{
    (void)state;
    double worst = 0.0;
    for (double x = -87.3; x < 88.0; x += 0.000731) {
        float rounded = (float)x;
        double want = exp((double)rounded), ulp = ldexp(1.0, ilogb(want) - 23);
        worst = fmax(worst, fabs((double)exp_of(rounded) - want) / ulp);
    }
    if (worst > 2.0) fail_msg("exp is off by %g ulp", worst);
    assert_true(exp_of(0.0f) == 1.0f);
    assert_true(exp_of(-88.0f) == 0.0f);
    assert_true(exp_of(-1e30f) == 0.0f);
    assert_true(exp_of(-INFINITY) == 0.0f);
    assert_true(isnan(exp_of(NAN)));
}

static void test_normal(void **state)
{
    (void)state;
    double worst = 0.0;
    for (double x = -15.0; x <= 15.0; x += 0.00037) {
        float rounded = (float)x;
        vf cdf, density;
        vf_normal(vf_set(rounded), &cdf, &density);
        double exact = 0.5 * erfc(-(double)rounded / sqrt(2.0));
        double exact_density = exp(-0.5 * (double)rounded * (double)rounded) / sqrt(2.0 * acos(-1.0));
        worst = fmax(worst, fabs((double)cdf[0] - exact));
        worst = fmax(worst, fabs((double)density[0] - exact_density));
    }
    if (worst > 1e-7) fail_msg("the normal distribution is off by %g", worst);
    vf cdf, density;
    vf_normal(vf_set(INFINITY), &cdf, &density);
    assert_true(cdf[0] == 1.0f && density[0] == 0.0f);
    vf_normal(vf_set(-INFINITY), &cdf, &density);
    assert_true(cdf[0] == 0.0f && density[0] == 0.0f);
    vf_normal(vf_set(NAN), &cdf, &density);
    assert_true(isnan(cdf[0]) && isnan(density[0]));
}

static void test_partial(void **state)
{
    (void)state;
    float from[2 * LANES], to[2 * LANES];
    for (int i = 0; i < 2 * LANES; i++) from[i] = (float)(i + 1);
    for (int n = 0; n <= LANES + 1; n++) {
        for (int i = 0; i < 2 * LANES; i++) to[i] = -1.0f;
        vf v = vf_load(from, n);
        vf_store(to, v, n);
        int moved = n < LANES ? n : LANES;
        for (int lane = 0; lane < LANES; lane++) {
            assert_true(v[lane] == (lane < moved ? from[lane] : 0.0f));
            assert_true(vf_first(vf_set(7.0f), n)[lane] == (lane < moved ? 7.0f : 0.0f));
            assert_true(to[lane] == (lane < moved ? from[lane] : -1.0f));
        }
        assert_true(vf_sum(v) == (float)(moved * (moved + 1) / 2));
        if (n > 0) assert_true(vf_maximum(v) == (float)moved);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_partial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
