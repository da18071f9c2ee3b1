/* Schedules against transformers' get_scheduler, every step (golden/schedule.json), and the configuration's ways to ask
 * for warm-up and arguments. */
#include "fb3/optim.h"
#include "model/fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double tolerance = 1e-15; /* factors are at most 1: a rounding or two */

static fb3_scheduler kind_of(const char *name)
{
    static const char *const names[] = {[FB3_SCHEDULER_LINEAR] = "linear",
                                        [FB3_SCHEDULER_COSINE] = "cosine",
                                        [FB3_SCHEDULER_CONSTANT] = "constant",
                                        [FB3_SCHEDULER_CONSTANT_WITH_WARMUP] = "constant_with_warmup",
                                        [FB3_SCHEDULER_POLYNOMIAL] = "polynomial"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0) return (fb3_scheduler)i;
    fail_msg("no scheduler '%s'", name);
    return FB3_SCHEDULER_LINEAR;
}

static void test_every_step_of_transformers(void **state)
{
    (void)state;
    json_t *golden = fixture_golden("optim", "schedule.json");
    size_t i;
    const json_t *item;
    assert_true(json_array_size(golden) > 0);
    json_array_foreach(golden, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "type"));
        const json_t *factors = json_object_get(item, "factors");
        char *kwargs = json_dumps(json_object_get(item, "kwargs"), 0);
        const fb3_config config = {
            .lr_scheduler_type = kind_of(name),
            .lr_scheduler_kwargs = kwargs,
            .learning_rate = 1e-5,
            .warmup_steps = (double)json_integer_value(json_object_get(item, "warmup")),
        };
        fb3_schedule schedule;
        must(fb3_schedule_make(&schedule, &config, json_integer_value(json_object_get(item, "total"))));
        assert_true(json_array_size(factors) > 3);
        for (size_t step = 0; step < json_array_size(factors); step++) {
            double expected = json_number_value(json_array_get(factors, step));
            double factor = fb3_schedule_factor(&schedule, (int64_t)step);
            if (!(fabs(factor - expected) <= tolerance))
                fail_msg("%s, step %zu: %.17g, transformers says %.17g", name, step, factor, expected);
        }
        free(kwargs);
    }
    json_decref(golden);
}

static int64_t warmup_of(double steps, double ratio, int64_t total)
{
    const fb3_config config = {.learning_rate = 1e-5, .warmup_steps = steps, .warmup_ratio = ratio};
    fb3_schedule schedule;
    must(fb3_schedule_make(&schedule, &config, total));
    return schedule.warmup_steps;
}

static void test_warmup(void **state)
{
    (void)state;
    assert_int_equal(warmup_of(0, 0.1, 95), 10); // a share is rounded up
    assert_int_equal(warmup_of(0.25, 0.1, 95), 24);
    assert_int_equal(warmup_of(7, 0.1, 95), 7); // steps win over the share
    assert_int_equal(warmup_of(1, 0.1, 95), 1);
    assert_int_equal(warmup_of(0, 0, 95), 0);
}

static void expect_refused(fb3_scheduler kind, const char *kwargs, const char *word)
{
    char text[128];
    snprintf(text, sizeof text, "%s", kwargs);
    const fb3_config config = {.lr_scheduler_type = kind, .lr_scheduler_kwargs = text, .learning_rate = 1e-5};
    fb3_schedule schedule;
    if (fb3_schedule_make(&schedule, &config, 10) != FB3_INPUT) fail_msg("%s was accepted", kwargs);
    if (!strstr(fb3_error_text(), word)) fail_msg("%s is refused by '%s'", kwargs, fb3_error_text());
}

static void test_arguments(void **state)
{
    (void)state;
    expect_refused(FB3_SCHEDULER_COSINE, "{\"power\": 2}", "power");
    expect_refused(FB3_SCHEDULER_LINEAR, "{\"num_cycles\": 1}", "num_cycles");
    expect_refused(FB3_SCHEDULER_POLYNOMIAL, "{\"power\": \"two\"}", "power");
    expect_refused(FB3_SCHEDULER_POLYNOMIAL, "{\"lr_end\": 1e-5}", "lr_end");
    expect_refused(FB3_SCHEDULER_POLYNOMIAL, "power=2", "lr_scheduler_kwargs");
    expect_refused(FB3_SCHEDULER_POLYNOMIAL, "[2]", "lr_scheduler_kwargs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_step_of_transformers),
        cmocka_unit_test(test_warmup),
        cmocka_unit_test(test_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
