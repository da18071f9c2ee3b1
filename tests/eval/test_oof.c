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
static fb3_oof table(void)
{
    static const fb3_oof_row ROWS[] = {
        {"a", 0, {1, 2}, {1.1f, 2.2f}},
        {"b,c", 0, {3, 4}, {2.9f, 4.4f}},
        {"d\"e", 1, {2, 2.5f}, {1.f / 3, 2}},
        {"f\ng", 1, {4, 1}, {5, 0.1f}},
    };
    fb3_oof oof = {.targets = 2};
    for (int i = 0; i < 4; i++) assert_int_equal(fb3_oof_append(&oof, &ROWS[i]), FB3_OK);
    return oof;
}

static void write_rows(fb3_oof_writer *writer, const fb3_oof *oof)
{
    assert_int_equal(fb3_oof_begin(writer, path, "text_id", &TARGETS), FB3_OK);
    for (int64_t i = 0; i < oof->n; i++)
        fb3_oof_add(writer, oof->ids.item[i], oof->fold[i], oof->truth + 2 * i, oof->pred + 2 * i);
}

static void round_trip(void **state)
{
    (void)state;
    fb3_oof oof = table(), back = {.targets = 2};
    fb3_oof_writer writer;
    write_rows(&writer, &oof);
    assert_int_equal(fb3_oof_publish(&writer), FB3_OK);
    assert_int_equal(fb3_oof_read(&back, path, "text_id", &TARGETS), FB3_OK);
    assert_int_equal(back.n, 4);
    assert_memory_equal(back.truth, oof.truth, 8 * sizeof(float));
    assert_memory_equal(back.pred, oof.pred, 8 * sizeof(float)); /* 9 digits give every float back */
    assert_memory_equal(back.fold, oof.fold, 4);
    for (int i = 0; i < 4; i++) assert_string_equal(back.ids.item[i], oof.ids.item[i]);
    assert_int_equal(fb3_oof_read(&back, path, "text_id", &TARGETS), FB3_OK); /* appends */
    assert_int_equal(back.n, 8);
    assert_string_equal(back.ids.item[6], "d\"e");
    assert_true(back.pred[8 + 7] == oof.pred[7]);
    fb3_oof_free(&oof);
    fb3_oof_free(&back);
}

/* What was there stays until a whole table takes its place, and nothing else is left behind. */
static void discarded(void **state)
{
    (void)state;
    fb3_oof oof = table();
    fb3_oof_writer writer;
    char *text;
    size_t bytes;
    assert_int_equal(fb3_file_write(path, "before", 6), FB3_OK);
    write_rows(&writer, &oof);
    char temporary[256];
    snprintf(temporary, sizeof temporary, "%s", writer.temporary);
    assert_true(fb3_file_exists(temporary));
    fb3_oof_discard(&writer);
    assert_false(fb3_file_exists(temporary));
    fb3_oof_discard(&writer); /* there is none any more */
    assert_int_equal(fb3_file_read(path, 1000, &text, &bytes), FB3_OK);
    assert_string_equal(text, "before");
    free(text);
    fb3_oof_free(&oof);
}

static void mean_predictor(void **state)
{
    (void)state;
    fb3_oof oof = table();
    fb3_mean_predictor predictor = {.targets = 2};
    float pred[2];
    for (int64_t i = 0; i < oof.n; i++) fb3_mean_predictor_count(&predictor, oof.fold[i], oof.truth + 2 * i);
    fb3_mean_predictor_predict(&predictor, 0, pred); /* by the mean of fold 1 */
    assert_true(pred[0] == 3 && pred[1] == 1.75f);
    fb3_mean_predictor_predict(&predictor, 1, pred);
    assert_true(pred[0] == 2 && pred[1] == 3);
    fb3_mean_predictor_predict(&predictor, 2, pred); /* by all */
    assert_true(pred[0] == 2.5f && pred[1] == 2.375f);
    fb3_mean_predictor alone = {.targets = 1};
    fb3_mean_predictor_count(&alone, 0, (const float[]){4});
    fb3_mean_predictor_predict(&alone, 0, pred); /* there is no other */
    assert_true(pred[0] == 4);
    fb3_oof_free(&oof);
}

static void submission(void **state)
{
    (void)state;
    fb3_oof oof = table();
    char *text, sample[128];
    size_t bytes;
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
        fb3_oof oof = {.targets = 2};
        assert_int_equal(fb3_file_write(path, BAD[i], strlen(BAD[i])), FB3_OK);
        if (fb3_oof_read(&oof, path, "text_id", &TARGETS) != FB3_INPUT) fail_msg("case %zu was accepted", i);
        fb3_oof_free(&oof);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip),     cmocka_unit_test(discarded),
                                       cmocka_unit_test(mean_predictor), cmocka_unit_test(submission),
                                       cmocka_unit_test(bad_tables),     cmocka_unit_test(ensemble)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
