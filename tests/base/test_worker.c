/* The background thread: order, errors, waiting, stopping. */
#include "fb3/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>
#include <time.h>

enum { JOBS = 200 };

typedef struct task {
    int number;
    fb3_status result;
    bool slow;
} task;

static int done[JOBS], done_count;

static fb3_status note(void *context)
{
    task *t = context;
    const struct timespec moment = {.tv_nsec = 2 * 1000 * 1000};
    if (t->slow) nanosleep(&moment, NULL);
    done[done_count++] = t->number;
    return t->result == FB3_OK ? FB3_OK : fb3_fail(t->result, "job %d failed", t->number);
}

static int reset(void **state)
{
    (void)state;
    done_count = 0;
    return 0;
}

static void jobs_run_in_order(void **state)
{
    (void)state;
    fb3_worker *worker = NULL;
    static task tasks[JOBS];
    long tickets[JOBS];
    assert_int_equal(fb3_worker_start(&worker, "test"), FB3_OK);
    for (int i = 0; i < JOBS; i++) {
        tasks[i] = (task){.number = i, .slow = i % 50 == 0};
        assert_int_equal(fb3_worker_submit(worker, note, &tasks[i], &tickets[i]), FB3_OK);
    }
    for (int i = 0; i < JOBS; i++) assert_int_equal(fb3_worker_wait(worker, tickets[i]), FB3_OK);
    assert_int_equal(done_count, JOBS);
    for (int i = 0; i < JOBS; i++) assert_int_equal(done[i], i);
    fb3_worker_stop(worker);
}

static void errors_cross_to_the_waiting_thread(void **state)
{
    (void)state;
    fb3_worker *worker = NULL;
    task good = {.number = 1}, bad = {.number = 2, .result = FB3_FAILED}, worse = {.number = 3, .result = FB3_INPUT};
    long tickets[3];
    assert_int_equal(fb3_worker_start(&worker, "a name longer than Linux allows"), FB3_OK);
    fb3_fail(FB3_OK, "mine");
    assert_int_equal(fb3_worker_submit(worker, note, &bad, &tickets[0]), FB3_OK);
    assert_int_equal(fb3_worker_submit(worker, note, &worse, &tickets[1]), FB3_OK);
    assert_int_equal(fb3_worker_submit(worker, note, &good, &tickets[2]), FB3_OK);
    assert_string_equal(fb3_error_text(), "mine");
    assert_int_equal(fb3_worker_wait(worker, tickets[0]), FB3_FAILED);
    assert_string_equal(fb3_error_text(), "job 2 failed");
    assert_int_equal(fb3_worker_wait(worker, tickets[1]), FB3_INPUT);
    assert_string_equal(fb3_error_text(), "job 3 failed");
    assert_int_equal(fb3_worker_wait(worker, tickets[2]), FB3_OK);
    assert_int_equal(fb3_worker_run(worker, note, &worse), FB3_INPUT);
    fb3_worker_stop(worker);
}

static void waits_may_pass_each_other(void **state)
{
    (void)state;
    fb3_worker *worker = NULL;
    task tasks[] = {{.number = 0, .result = FB3_FAILED}, {.number = 1}, {.number = 2, .result = FB3_INPUT}};
    long tickets[3];
    assert_int_equal(fb3_worker_start(&worker, "test"), FB3_OK);
    for (int i = 0; i < 3; i++) assert_int_equal(fb3_worker_submit(worker, note, &tasks[i], &tickets[i]), FB3_OK);
    assert_int_equal(fb3_worker_wait(worker, tickets[2]), FB3_INPUT);
    assert_int_equal(fb3_worker_run(worker, note, &tasks[1]), FB3_OK);
    assert_int_equal(fb3_worker_wait(worker, tickets[0]), FB3_FAILED);
    assert_string_equal(fb3_error_text(), "job 0 failed");
    assert_int_equal(fb3_worker_wait(worker, tickets[1]), FB3_OK);
    assert_int_equal(fb3_worker_run(worker, note, &tasks[1]), FB3_OK);
    assert_int_equal(done_count, 5);
    fb3_worker_stop(worker);
}

static void stopping_finishes_what_is_queued(void **state)
{
    (void)state;
    fb3_worker *worker = NULL;
    static task tasks[JOBS];
    long ticket;
    assert_int_equal(fb3_worker_start(&worker, "test"), FB3_OK);
    for (int i = 0; i < JOBS; i++) {
        tasks[i] = (task){.number = i, .slow = i < 5, .result = i % 2 ? FB3_FAILED : FB3_OK};
        assert_int_equal(fb3_worker_submit(worker, note, &tasks[i], &ticket), FB3_OK);
    }
    fb3_worker_stop(worker);
    assert_int_equal(done_count, JOBS);
    fb3_worker_stop(NULL);
}

static fb3_status read_mask(void *context)
{
    return pthread_sigmask(SIG_SETMASK, NULL, context) == 0 ? FB3_OK : fb3_fail(FB3_FAILED, "no signal mask");
}

static void signals_stay_with_the_main_thread(void **state)
{
    (void)state;
    fb3_worker *worker = NULL;
    sigset_t there, here;
    assert_int_equal(fb3_worker_start(&worker, "test"), FB3_OK);
    assert_int_equal(fb3_worker_run(worker, read_mask, &there), FB3_OK);
    assert_int_equal(sigismember(&there, SIGTERM), 1);
    assert_int_equal(sigismember(&there, SIGUSR1), 1);
    assert_int_equal(read_mask(&here), FB3_OK);
    assert_int_equal(sigismember(&here, SIGTERM), 0);
    fb3_worker_stop(worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(jobs_run_in_order, reset),
        cmocka_unit_test_setup(errors_cross_to_the_waiting_thread, reset),
        cmocka_unit_test_setup(waits_may_pass_each_other, reset),
        cmocka_unit_test_setup(stopping_finishes_what_is_queued, reset),
        cmocka_unit_test(signals_stay_with_the_main_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
