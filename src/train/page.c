/* report.html while a run goes on: made by rank 0 of the world from the files on disk, on the I/O worker, which owns
 * HDF5 then and gives way to batches and checkpoints. Training neither waits for it nor fails with it. */
#include "fb3/log.h"
#include "fb3/report.h"
#include "fb3/train.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The next page is due a minute after the last one, and later where pages take long: they get a fiftieth of the time.
 */
#define PAUSE_SECONDS 60.0
#define PAUSE_FACTOR  50.0

/* One run a process. It outlives fb3_run: a job may still be under way when training has failed. */
static struct {
    char output_dir[PATH_MAX];
    fb3_worker *io;
    double seconds; /* that the last page took */
    long ticket;
    bool in_flight, warned;
    double due;
} job;

static fb3_status make_page(void *context)
{
    (void)context;
    double started = fb3_seconds();
    fb3_status status = fb3_report_write(job.output_dir, NULL, job.io);
    job.seconds = fb3_seconds() - started;
    return status;
}

static void warn_once(fb3_status status)
{
    if (status == FB3_OK || job.warned) return;
    job.warned = true;
    fb3_log_warn("report.html: %s; training goes on without it", fb3_error_text());
}

/* Takes leave of the page that is under way. */
static void settle(void)
{
    if (!job.in_flight) return;
    job.in_flight = false;
    warn_once(fb3_worker_wait(job.io, job.ticket));
    job.due = fb3_seconds() + PAUSE_SECONDS + PAUSE_FACTOR * job.seconds;
}

void fb3_run_page(const fb3_run *run)
{
    const fb3_session *session = run->session;
    if (!session->first) return;
    if (job.in_flight && fb3_worker_finished(job.io, job.ticket)) settle();
    if (job.in_flight || fb3_seconds() < job.due) return;
    job.io = session->io;
    int bytes = snprintf(job.output_dir, sizeof job.output_dir, "%s", run->config->output_dir);
    if (bytes >= (int)sizeof job.output_dir) return; /* no file system has it */
    fb3_status status = fb3_worker_submit(job.io, make_page, NULL, &job.ticket);
    job.in_flight = status == FB3_OK;
    warn_once(status);
}

void fb3_run_last_page(const fb3_run *run)
{
    if (!run->session->first) return;
    char *why = strdup(fb3_error_text()); /* why the run stops is still to be told */
    settle();
    warn_once(fb3_report_write(run->config->output_dir, NULL, NULL));
    if (why) (void)fb3_fail(FB3_FAILED, "%s", why);
    free(why);
}
