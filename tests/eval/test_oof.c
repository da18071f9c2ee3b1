/* The tables of predictions: round trips, pooling, the mean predictor, submissions, hostile files. */
#include "fb3/file.h"
#include "fb3/oof.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/fb3-oof-XXXXXX";
static char path[128];
static char *const TARGET_NAMES[] = {"cohesion", "syntax"};
static const fb3_strings TARGETS = {.item = (char **)TARGET_NAMES, .count = 2};

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/table.csv", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return fb3_folder_remove(folder) == FB3_OK ? 0 : -1;
}

/* Four samples in two folds; ids that need quoting. */
static void fill(fb3_oof *oof)
{
    static const char *const IDS[] = {"a", "b,c", "d\"e", "f\ng"};
    static const float TRUTH[] = {1, 2, 3, 4, 2, 2.5f, 4, 1}, PRED[] = {1.1f, 2.2f, 2.9f, 4.4f, 1.f / 3, 2, 5, 0.1f};
    assert_int_equal(fb3_oof_alloc(oof, 4, 2), FB3_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(fb3_strings_add(&oof->ids, IDS[i]), FB3_OK);
        oof->fold[i] = (int8_t)(i / 2);
    }
    memcpy(oof->truth, TRUTH, sizeof TRUTH);
    memcpy(oof->pred, PRED, sizeof PRED);
}

static void round_trip(void **state)
{
    (void)state;
    fb3_oof oof, back;
    fill(&oof);
    assert_int_equal(fb3_oof_write(&oof, path, "text_id", &TARGETS), FB3_OK);
    assert_int_equal(fb3_oof_read(&back, path, "text_id", &TARGETS), FB3_OK);
    assert_int_equal(back.n, 4);
    assert_memory_equal(back.truth, oof.truth, 8 * sizeof(float));
    assert_memory_equal(back.pred, oof.pred, 8 * sizeof(float)); /* 9 digits give every float back */
    assert_memory_equal(back.fold, oof.fold, 4);
    for (int i = 0; i < 4; i++) assert_string_equal(back.ids.item[i], oof.ids.item[i]);
    assert_int_equal(fb3_oof_append(&back, &oof), FB3_OK);
    assert_int_equal(back.n, 8);
    assert_string_equal(back.ids.item[6], "d\"e");
    assert_true(back.pred[8 + 7] == oof.pred[7]);
    fb3_oof_free(&oof);
    fb3_oof_free(&back);
}

static void mean_predictor(void **state)
{
    (void)state;
    fb3_oof oof;
    fb3_scores scores;
    fill(&oof);
    /* fold 0 (1,2),(3,4) is predicted by the mean of fold 1, (3, 1.75), and fold 1 by (2, 3) */
    assert_int_equal(fb3_oof_mean_predictor(&scores, &oof, 2), FB3_OK);
    assert_float_equal(scores.rmse[0], sqrt((4 + 0 + 0 + 4) / 4.0), 1e-6);
    assert_float_equal(scores.rmse[1], sqrt((0.0625 + 5.0625 + 0.25 + 4) / 4.0), 1e-6);
    fb3_oof_free(&oof);
}

static void submission(void **state)
{
    (void)state;
    fb3_oof oof;
    char *text, sample[128];
    size_t bytes;
    fill(&oof);
    assert_int_equal(fb3_submission_write(path, "text_id", &TARGETS, &oof.ids, oof.pred, 1, 4.2), FB3_OK);
    assert_int_equal(fb3_file_read(path, 1000, &text, &bytes), FB3_OK);
    assert_string_equal(text,
                        "text_id,cohesion,syntax\na,1.10000002,2.20000005\n\"b,c\",2.9000001,4.2\n\"d\"\"e\",1,2\n"
                        "\"f\ng\",4.2,1\n");
    free(text);
    assert_int_equal(fb3_submission_check(path, "text_id", &TARGETS, &oof.ids), FB3_OK);
    static const char *const BAD[] = {
        "text_id,cohesion\na,1\n",
        "text_id,cohesion,syntax,more\na,1,2,3\n",
        "id,cohesion,syntax\na,1,2\n",
        "text_id,cohesion,syntax\na,1,2\n",
        "text_id,cohesion,syntax\nb,1,2\n\"b,c\",1,2\n\"d\"\"e\",1,2\n\"f\ng\",1,2\n",
        "text_id,cohesion,syntax\na,1,2\n\"b,c\",1,2\n\"d\"\"e\",1,2\n\"f\ng\",1,2\nz,1,2\n",
    };
    snprintf(sample, sizeof sample, "%s/sample.csv", folder);
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        assert_int_equal(fb3_file_write(sample, BAD[i], strlen(BAD[i])), FB3_OK);
        assert_int_equal(fb3_submission_check(sample, "text_id", &TARGETS, &oof.ids), FB3_INPUT);
        assert_null(strchr(fb3_error_text(), '\n'));
    }
    fb3_oof_free(&oof);
}

static void bad_tables(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "",
        "text_id,fold,cohesion,syntax,pred_cohesion\na,0,1,2,3\n",
        "text_id,cohesion,syntax,pred_cohesion,pred_syntax\na,1,2,3,4\n",
        "text_id,fold,cohesion,syntax,pred_cohesion,pred_syntax\na,-1,1,2,3,4\n",
        "text_id,fold,cohesion,syntax,pred_cohesion,pred_syntax\na,100,1,2,3,4\n",
        "text_id,fold,cohesion,syntax,pred_cohesion,pred_syntax\na,0.5,1,2,3,4\n",
        "text_id,fold,cohesion,syntax,pred_cohesion,pred_syntax\na,0,x,2,3,4\n",
        "text_id,fold,cohesion,syntax,pred_cohesion,pred_syntax\na,0,1,2,nan,4\n",
        "text_id,fold,cohesion,syntax,pred_cohesion,pred_syntax\na,0,1,2,3,inf\n",
        "text_id,fold,cohesion,syntax,pred_cohesion,pred_syntax\na,0,1,2,3\n",
        "text_id,fold,cohesion,syntax,pred_cohesion,pred_syntax\na,0,1,2,3,\n",
    };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        fb3_oof oof;
        assert_int_equal(fb3_file_write(path, BAD[i], strlen(BAD[i])), FB3_OK);
        if (fb3_oof_read(&oof, path, "text_id", &TARGETS) != FB3_INPUT) fail_msg("case %zu was accepted", i);
        assert_null(strchr(fb3_error_text(), '\n'));
    }
}

static void ensemble(void **state)
{
    (void)state;
    const float a[] = {1, 2}, b[] = {2, 4}, c[] = {6, 0};
    double sum[2] = {0};
    float mean[2];
    fb3_ensemble_add(sum, a, 2);
    fb3_ensemble_add(sum, b, 2);
    fb3_ensemble_add(sum, c, 2);
    fb3_ensemble_mean(mean, sum, 2, 3);
    assert_true(mean[0] == 3 && mean[1] == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip), cmocka_unit_test(mean_predictor),
                                       cmocka_unit_test(submission), cmocka_unit_test(bad_tables),
                                       cmocka_unit_test(ensemble)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
