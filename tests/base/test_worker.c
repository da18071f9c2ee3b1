/* The background thread: order, errors, waiting, stopping. */
#include "fb3/worker.h"

#include <pthread.h>
#include <semaphore.h>
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

/* --- giving way --------------------------------------------------------------------------------------------------- */

/* A job that lets the test go on between its pieces, and gives way after each. */
typedef struct long_job {
    fb3_worker *worker;
    int number, pieces;
    sem_t begun, go_on; /* posted once a piece */
    fb3_status result;
} long_job;

static fb3_status work_long(void *context)
{
    long_job *l = context;
    for (int piece = 0; piece < l->pieces; piece++) {
        sem_post(&l->begun);
        sem_wait(&l->go_on);
        fb3_worker_give_way(l->worker);
        done[done_count++] = l->number + piece;
    }
    return l->result == FB3_OK ? FB3_OK : fb3_fail(l->result, "the long job failed");
}

static void begin_long(long_job *l, fb3_worker *worker, int number, int pieces, long *ticket)
{
    *l = (long_job){.worker = worker, .number = number, .pieces = pieces};
    sem_init(&l->begun, 0, 0);
    sem_init(&l->go_on, 0, 0);
    assert_int_equal(fb3_worker_submit(worker, work_long, l, ticket), FB3_OK);
}

static void next_piece(long_job *l)
{
    sem_wait(&l->begun);
    sem_post(&l->go_on);
}

static void assert_done(const int *wanted, int count)
{
    assert_int_equal(done_count, count);
    for (int i = 0; i < count; i++) assert_int_equal(done[i], wanted[i]);
}

/* Jobs queued during a long one run at its next pause, in order, each with its own status; the long job's is its own.
 */
static void a_long_job_gives_way(void **state)
{
    (void)state;
    fb3_worker *worker = NULL;
    long_job l;
    task tasks[] = {{.number = 1}, {.number = 2, .result = FB3_INPUT}, {.number = 3}, {.number = 4}};
    long ticket, tickets[4];
    assert_int_equal(fb3_worker_start(&worker, "test"), FB3_OK);
    fb3_worker_give_way(NULL);
    begin_long(&l, worker, 100, 3, &ticket);
    sem_wait(&l.begun);
    for (int i = 0; i < 2; i++) assert_int_equal(fb3_worker_submit(worker, note, &tasks[i], &tickets[i]), FB3_OK);
    assert_false(fb3_worker_finished(worker, tickets[0]));
    sem_post(&l.go_on);
    assert_int_equal(fb3_worker_wait(worker, tickets[1]), FB3_INPUT);
    assert_string_equal(fb3_error_text(), "job 2 failed");
    assert_true(fb3_worker_finished(worker, tickets[0]));
    assert_int_equal(fb3_worker_wait(worker, tickets[0]), FB3_OK);
    assert_false(fb3_worker_finished(worker, ticket));
    next_piece(&l); /* nobody waits at this one */
    sem_wait(&l.begun);
    for (int i = 2; i < 4; i++) assert_int_equal(fb3_worker_submit(worker, note, &tasks[i], &tickets[i]), FB3_OK);
    l.result = FB3_FAILED;
    sem_post(&l.go_on);
    assert_int_equal(fb3_worker_wait(worker, ticket), FB3_FAILED);
    assert_string_equal(fb3_error_text(), "the long job failed");
    for (int i = 2; i < 4; i++) assert_int_equal(fb3_worker_wait(worker, tickets[i]), FB3_OK);
    assert_done((const int[]){1, 2, 100, 101, 3, 4, 102}, 7);
    fb3_worker_stop(worker);
}

/* What is queued by, or during, a job that runs in a pause waits for the next one: a long job comes to its end. */
typedef struct chain {
    fb3_worker *worker;
    int left;
} chain;

static fb3_status queue_another(void *context)
{
    chain *c = context;
    long ticket;
    done[done_count++] = c->left;
    return --c->left > 0 ? fb3_worker_submit(c->worker, queue_another, c, &ticket) : FB3_OK;
}

static void a_pause_has_an_end(void **state)
{
    (void)state;
    fb3_worker *worker = NULL;
    long_job l;
    chain c = {.left = 4};
    long ticket, other;
    assert_int_equal(fb3_worker_start(&worker, "test"), FB3_OK);
    c.worker = worker;
    begin_long(&l, worker, 100, 2, &ticket);
    sem_wait(&l.begun);
    assert_int_equal(fb3_worker_submit(worker, queue_another, &c, &other), FB3_OK);
    sem_post(&l.go_on);
    next_piece(&l);
    assert_int_equal(fb3_worker_wait(worker, ticket), FB3_OK);
    fb3_worker_stop(worker);
    assert_done((const int[]){4, 100, 3, 101, 2, 1}, 6);
}

/* A long job in the pause of another gives way in turn, and the outer one goes on when it is done. */
static void long_jobs_nest(void **state)
{
    (void)state;
    fb3_worker *worker = NULL;
    long_job outer, inner;
    task t = {.number = 1};
    long tickets[3];
    assert_int_equal(fb3_worker_start(&worker, "test"), FB3_OK);
    begin_long(&outer, worker, 100, 1, &tickets[0]);
    sem_wait(&outer.begun);
    begin_long(&inner, worker, 200, 2, &tickets[1]);
    sem_post(&outer.go_on);
    sem_wait(&inner.begun);
    assert_int_equal(fb3_worker_submit(worker, note, &t, &tickets[2]), FB3_OK);
    sem_post(&inner.go_on);
    assert_int_equal(fb3_worker_wait(worker, tickets[2]), FB3_OK);
    assert_false(fb3_worker_finished(worker, tickets[1]));
    next_piece(&inner);
    assert_int_equal(fb3_worker_wait(worker, tickets[0]), FB3_OK);
    assert_int_equal(fb3_worker_wait(worker, tickets[1]), FB3_OK);
    assert_done((const int[]){1, 200, 201, 100}, 4);
    fb3_worker_stop(worker);
}

static void *let_go_on(void *context)
{
    const struct timespec moment = {.tv_nsec = 20 * 1000 * 1000};
    nanosleep(&moment, NULL); /* the main thread is in fb3_worker_stop() by now */
    for (int piece = 0; piece < 2; piece++) sem_post(&((long_job *)context)->go_on);
    return NULL;
}

static void stopping_while_a_job_gives_way(void **state)
{
    (void)state;
    fb3_worker *worker = NULL;
    long_job l;
    task tasks[] = {{.number = 1}, {.number = 2, .result = FB3_FAILED}};
    long ticket;
    pthread_t helper;
    assert_int_equal(fb3_worker_start(&worker, "test"), FB3_OK);
    begin_long(&l, worker, 100, 2, &ticket);
    sem_wait(&l.begun);
    for (int i = 0; i < 2; i++) assert_int_equal(fb3_worker_submit(worker, note, &tasks[i], &ticket), FB3_OK);
    assert_int_equal(pthread_create(&helper, NULL, let_go_on, &l), 0);
    fb3_worker_stop(worker);
    pthread_join(helper, NULL);
    assert_done((const int[]){1, 2, 100, 101}, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(jobs_run_in_order, reset),
        cmocka_unit_test_setup(errors_cross_to_the_waiting_thread, reset),
        cmocka_unit_test_setup(waits_may_pass_each_other, reset),
        cmocka_unit_test_setup(stopping_finishes_what_is_queued, reset),
        cmocka_unit_test(signals_stay_with_the_main_thread),
        cmocka_unit_test_setup(a_long_job_gives_way, reset),
        cmocka_unit_test_setup(a_pause_has_an_end, reset),
        cmocka_unit_test_setup(long_jobs_nest, reset),
        cmocka_unit_test_setup(stopping_while_a_job_gives_way, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
