/* Error texts and log lines. */
#include "fb3/log.h"
#include "fb3/status.h"

#include "base/capture.h"

#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void the_text_is_what_was_said(void **state)
{
    (void)state;
    assert_int_equal(fb3_fail(FB3_INPUT, "row %d is short; add a column", 7), FB3_INPUT);
    assert_string_equal(fb3_error_text(), "row 7 is short; add a column");
    assert_int_equal(fb3_fail(FB3_FAILED, "again"), FB3_FAILED);
    assert_string_equal(fb3_error_text(), "again");
}

static void context_goes_in_front(void **state)
{
    (void)state;
    fb3_fail(FB3_FAILED, "no space");
    assert_int_equal(fb3_fail_context(FB3_FAILED, "writing %s", "best.h5"), FB3_FAILED);
    assert_int_equal(fb3_fail_context(FB3_FAILED, "fold %d", 2), FB3_FAILED);
    assert_string_equal(fb3_error_text(), "fold 2: writing best.h5: no space");
}

static void the_old_text_can_be_an_argument(void **state)
{
    (void)state;
    fb3_fail(FB3_FAILED, "inner");
    fb3_fail(FB3_INPUT, "outer (%s)", fb3_error_text());
    assert_string_equal(fb3_error_text(), "outer (inner)");
}

static void a_text_is_one_line(void **state)
{
    (void)state;
    fb3_fail(FB3_INPUT, "a\nb\r\nc\033[31m\x7f\n");
    assert_string_equal(fb3_error_text(), "a b  c [31m");
}

static void long_texts_are_cut(void **state)
{
    (void)state;
    char long_text[10000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    fb3_fail(FB3_FAILED, "%s", long_text);
    size_t length = strlen(fb3_error_text());
    assert_in_range(length, 1000, 9000);
    for (int i = 0; i < 3; i++) fb3_fail_context(FB3_FAILED, "%s", long_text);
    assert_int_equal(strlen(fb3_error_text()), length);
}

static void *fail_elsewhere(void *text)
{
    fb3_fail(FB3_FAILED, "elsewhere");
    strcpy(text, fb3_error_text());
    return NULL;
}

static void threads_have_texts_of_their_own(void **state)
{
    (void)state;
    char text[64] = "";
    pthread_t thread;
    fb3_fail(FB3_INPUT, "here");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, text), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(text, "elsewhere");
    assert_string_equal(fb3_error_text(), "here");
}

static fb3_status fail_when(bool failing)
{
    FB3_REQUIRE(!failing, FB3_INPUT, "asked to fail");
    return FB3_OK;
}

static fb3_status try_return(bool failing, int *reached)
{
    FB3_TRY(fail_when(failing));
    *reached = 1;
    return FB3_OK;
}

static fb3_status try_goto(bool failing, int *freed)
{
    fb3_status status = FB3_OK;
    FB3_TRY_GOTO(fail_when(failing), done);
    FB3_REQUIRE_GOTO(!failing, done, FB3_FAILED, "never said");
done:
    ++*freed;
    return status;
}

static void the_macros_leave_at_the_first_failure(void **state)
{
    (void)state;
    int reached = 0, freed = 0;
    assert_int_equal(try_return(true, &reached), FB3_INPUT);
    assert_int_equal(reached, 0);
    assert_int_equal(try_return(false, &reached), FB3_OK);
    assert_int_equal(reached, 1);
    assert_int_equal(try_goto(true, &freed), FB3_INPUT);
    assert_string_equal(fb3_error_text(), "asked to fail");
    assert_int_equal(try_goto(false, &freed), FB3_OK);
    assert_int_equal(freed, 2);
}

static char *logged(void (*speak)(void))
{
    capture_begin(STDERR_FILENO);
    speak();
    return capture_end();
}

static void speak(void)
{
    fb3_log_info("%d folds", 3);
    fb3_log_warn("%s", "a constant column");
    fb3_log_error("what; what to do");
}

static void check_log(int rank, int size, const char *host, const char *expected)
{
    fb3_log_identity(rank, size, host);
    char *text = logged(speak);
    assert_string_equal(text, expected);
    free(text);
}

static void only_rank_0_speaks_but_all_have_last_words(void **state)
{
    (void)state;
    char *text = logged(speak);
    assert_string_equal(text, "fb3-dist: 3 folds\nfb3-dist: warning: a constant column\nfb3-dist: what; what to do\n");
    free(text);
    check_log(0, 1, "node01", "fb3-dist: 3 folds\nfb3-dist: warning: a constant column\nfb3-dist: what; what to do\n");
    check_log(0, 4, "node01",
              "fb3-dist: 3 folds\nfb3-dist: warning: a constant column\nfb3-dist: [rank 0 node01] what; what to do\n");
    check_log(3, 4, "node07", "fb3-dist: [rank 3 node07] what; what to do\n");
    check_log(3, 4, NULL, "fb3-dist: [rank 3] what; what to do\n");
    assert_false(fb3_log_speaks());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_is_what_was_said),
        cmocka_unit_test(context_goes_in_front),
        cmocka_unit_test(the_old_text_can_be_an_argument),
        cmocka_unit_test(a_text_is_one_line),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(threads_have_texts_of_their_own),
        cmocka_unit_test(the_macros_leave_at_the_first_failure),
        cmocka_unit_test(only_rank_0_speaks_but_all_have_last_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
