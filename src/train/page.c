/* report.html while a run goes on: made by rank 0 of the world from the files on disk, after evaluations by the I/O
 * worker, which owns HDF5 then and gives way to batches and checkpoints. Training hardly waits for it, and never fails
 * with it. */
#include "fb3/log.h"
#include "fb3/report.h"
#include "fb3/train.h"

#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The next page is due a minute after the last one, and later where pages take long: they get a fiftieth of the time.
 */
#define PAUSE_SECONDS 60.0
#define PAUSE_FACTOR  50.0
/* So long a fold that has ended waits for a page that is being made, and a run that was asked to stop makes one. */
#define PATIENCE_SECONDS 5.0

/* One run a process. It outlives fb3_run: a failure does not wait for the worker. */
static struct {
    char output_dir[PATH_MAX];
    fb3_worker *io;
    double seconds; /* that the last page took */
    long ticket;
    bool in_flight, warned;
    double due;
    atomic_bool given_up;
} job;

/* --- in a fold: on the worker ------------------------------------------------------------------------------------- */

static fb3_status give_way(void *context)
{
    (void)context;
    fb3_worker_give_way(job.io);
    return atomic_load(&job.given_up) ? fb3_fail(FB3_STOPPED, "there was no more time") : FB3_OK;
}

static fb3_status make_page(void *context)
{
    (void)context;
    double started = fb3_seconds();
    fb3_status status = fb3_report_write(job.output_dir, NULL, give_way, NULL);
    job.seconds = fb3_seconds() - started;
    return status;
}

/* A page that was given up is no fault: the one before it stays. */
static void warn_once(fb3_status status)
{
    if (status == FB3_OK || status == FB3_STOPPED || job.warned) return;
    job.warned = true;
    fb3_log_warn("report.html: %s; training goes on without it", fb3_error_text());
}

static void take(void)
{
    job.in_flight = false;
    warn_once(fb3_worker_wait(job.io, job.ticket));
    job.due = fb3_seconds() + PAUSE_SECONDS + PAUSE_FACTOR * job.seconds;
}

void fb3_run_page(const fb3_run *run)
{
    const fb3_session *session = run->session;
    if (!session->first) return;
    if (job.in_flight && fb3_worker_finished(job.io, job.ticket)) take();
    if (job.in_flight || fb3_seconds() < job.due) return;
    job.io = session->io;
    atomic_store(&job.given_up, false);
    int bytes = snprintf(job.output_dir, sizeof job.output_dir, "%s", run->config->output_dir);
    if (bytes >= (int)sizeof job.output_dir) return; /* no file system has it */
    fb3_status status = fb3_worker_submit(job.io, make_page, NULL, &job.ticket);
    job.in_flight = status == FB3_OK;
    warn_once(status);
}

void fb3_run_page_settle(fb3_status fold)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    double end = fb3_seconds() + (fold == FB3_OK ? PATIENCE_SECONDS : 0);
    if (!job.in_flight) return;
    char *why = strdup(fb3_error_text()); /* of the fold's failure: it is still to be told */
    while (!fb3_worker_finished(job.io, job.ticket) && fb3_seconds() < end) nanosleep(&moment, NULL);
    atomic_store(&job.given_up, true);
    take();
    if (fold != FB3_OK && why) (void)fb3_fail(fold, "%s", why);
    free(why);
}

/* --- at the end: rank 0 alone, the others wait -------------------------------------------------------------------- */

typedef struct last_page {
    fb3_comm *world;
    double end;
} last_page;

static fb3_status show_life(void *context)
{
    const last_page *last = context;
    if (fb3_seconds() > last->end) return fb3_fail(FB3_STOPPED, "there was no more time");
    return fb3_comm_root_goes_on(last->world);
}

fb3_status fb3_run_last_page(const fb3_run *run, fb3_status end)
{
    const fb3_session *session = run->session;
    last_page last = {.world = session->world, .end = end == FB3_OK ? INFINITY : fb3_seconds() + PATIENCE_SECONDS};
    char *why = strdup(fb3_error_text());
    fb3_comm_root_begins(session->world, "report.html");
    if (session->first) warn_once(fb3_report_write(run->config->output_dir, NULL, show_life, &last));
    fb3_status status = fb3_comm_root_ends(session->world, FB3_OK);
    if (status == FB3_OK && end != FB3_OK && why) (void)fb3_fail(end, "%s", why);
    free(why);
    return status == FB3_OK ? end : status;
}
