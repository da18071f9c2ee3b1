/* A queue of jobs and one thread that runs them in order. A job stays in the list until it is waited for, because
 * its status and its error text belong to whoever waits. */
#include "fb3/worker.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREAD_NAME_BYTES = 16 }; /* Linux's limit, with the terminating 0 */

typedef struct job {
    struct job *next;
    long ticket;
    fb3_job run;
    void *context;
    enum { QUEUED, RUNNING, FINISHED } stage;
    fb3_status status;
    char *error; /* text of a failure, NULL when there was none or no memory for it */
} job;

struct fb3_worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t submitted, finished;
    job *first, *last; /* in order of submission. Several are running at once where one gives way to others */
    long next_ticket;
    bool stopping;
};

static job *next_queued(fb3_worker *worker)
{
    job *candidate = worker->first;
    while (candidate && candidate->stage != QUEUED) candidate = candidate->next;
    return candidate;
}

/* With the lock, which is given up while the job runs. */
static void run_job(fb3_worker *worker, job *current)
{
    current->stage = RUNNING;
    pthread_mutex_unlock(&worker->lock);
    fb3_status status = current->run(current->context);
    char *error = status == FB3_OK ? NULL : strdup(fb3_error_text());
    pthread_mutex_lock(&worker->lock);
    current->status = status;
    current->error = error;
    current->stage = FINISHED;
    pthread_cond_broadcast(&worker->finished);
}

static void *work(void *argument)
{
    fb3_worker *worker = argument;
    pthread_mutex_lock(&worker->lock);
    for (;;) {
        job *current = next_queued(worker);
        if (current)
            run_job(worker, current);
        else if (worker->stopping)
            break;
        else
            pthread_cond_wait(&worker->submitted, &worker->lock);
    }
    pthread_mutex_unlock(&worker->lock);
    return NULL;
}

void fb3_worker_give_way(fb3_worker *worker)
{
    if (!worker) return;
    assert(pthread_equal(pthread_self(), worker->thread));
    pthread_mutex_lock(&worker->lock);
    long end = worker->next_ticket;
    for (job *waiting; (waiting = next_queued(worker)) && waiting->ticket < end;) run_job(worker, waiting);
    pthread_mutex_unlock(&worker->lock);
}

/* The thread is started with all signals blocked: they are the main thread's business. */
static int start_without_signals(fb3_worker *worker)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&worker->thread, NULL, work, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

fb3_status fb3_worker_start(fb3_worker **worker, const char *name)
{
    *worker = NULL;
    fb3_worker *made = calloc(1, sizeof *made);
    FB3_REQUIRE(made, FB3_FAILED, "out of memory for the %s thread; free memory and run again", name);
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->submitted, NULL);
    pthread_cond_init(&made->finished, NULL);
    int error = start_without_signals(made);
    if (error) {
        pthread_cond_destroy(&made->finished);
        pthread_cond_destroy(&made->submitted);
        pthread_mutex_destroy(&made->lock);
        free(made);
        return fb3_fail(FB3_FAILED, "cannot start the %s thread: %s; check the limits on processes (ulimit -u)", name,
                        strerror(error));
    }
    char short_name[THREAD_NAME_BYTES];
    snprintf(short_name, sizeof short_name, "%s", name);
    pthread_setname_np(made->thread, short_name);
    *worker = made;
    return FB3_OK;
}

static void free_job(job *gone)
{
    free(gone->error);
    free(gone);
}

void fb3_worker_stop(fb3_worker *worker)
{
    if (!worker) return;
    pthread_mutex_lock(&worker->lock);
    worker->stopping = true;
    pthread_cond_signal(&worker->submitted);
    pthread_mutex_unlock(&worker->lock);
    pthread_join(worker->thread, NULL);
    while (worker->first) {
        job *gone = worker->first;
        worker->first = gone->next;
        free_job(gone);
    }
    pthread_cond_destroy(&worker->finished);
    pthread_cond_destroy(&worker->submitted);
    pthread_mutex_destroy(&worker->lock);
    free(worker);
}

fb3_status fb3_worker_submit(fb3_worker *worker, fb3_job run, void *context, long *ticket)
{
    job *queued = calloc(1, sizeof *queued);
    FB3_REQUIRE(queued, FB3_FAILED, "out of memory for a background job; free memory and run again");
    queued->run = run;
    queued->context = context;
    pthread_mutex_lock(&worker->lock);
    queued->ticket = *ticket = worker->next_ticket++;
    if (worker->last)
        worker->last->next = queued;
    else
        worker->first = queued;
    worker->last = queued;
    pthread_cond_signal(&worker->submitted);
    pthread_mutex_unlock(&worker->lock);
    return FB3_OK;
}

static job *find_job(fb3_worker *worker, long ticket)
{
    job *found = worker->first;
    while (found && found->ticket != ticket) found = found->next;
    return found;
}

static void unlink_job(fb3_worker *worker, job *gone)
{
    job *before = NULL;
    for (job *other = worker->first; other != gone; other = other->next) before = other;
    if (before)
        before->next = gone->next;
    else
        worker->first = gone->next;
    if (worker->last == gone) worker->last = before;
}

fb3_status fb3_worker_wait(fb3_worker *worker, long ticket)
{
    assert(!pthread_equal(pthread_self(), worker->thread)); /* a job that waits for a job would wait for ever */
    pthread_mutex_lock(&worker->lock);
    job *awaited = find_job(worker, ticket);
    assert(awaited); /* a ticket is waited for once */
    while (awaited->stage != FINISHED) pthread_cond_wait(&worker->finished, &worker->lock);
    unlink_job(worker, awaited);
    pthread_mutex_unlock(&worker->lock);

    fb3_status status = awaited->status;
    if (status != FB3_OK)
        fb3_fail(status, "%s", awaited->error ? awaited->error : "a background job failed; free memory and run again");
    free_job(awaited);
    return status;
}

bool fb3_worker_finished(fb3_worker *worker, long ticket)
{
    pthread_mutex_lock(&worker->lock);
    const job *asked = find_job(worker, ticket);
    assert(asked);
    bool finished = asked->stage == FINISHED;
    pthread_mutex_unlock(&worker->lock);
    return finished;
}

fb3_status fb3_worker_run(fb3_worker *worker, fb3_job run, void *context)
{
    long ticket;
    FB3_TRY(fb3_worker_submit(worker, run, context, &ticket));
    return fb3_worker_wait(worker, ticket);
}
