/* One background thread that runs jobs in the order in which they were submitted. After start-up the I/O worker of a
 * rank owns every HDF5 call (DESIGN 5.2). */
#ifndef FB3_WORKER_H
#define FB3_WORKER_H

#include "fb3/status.h"
#include <stdbool.h>

typedef struct fb3_worker fb3_worker;
typedef fb3_status (*fb3_job)(void *context);

fb3_status fb3_worker_start(fb3_worker **worker, const char *name);
/* Waits for the jobs that are queued, then ends the thread. NULL is fine. */
void fb3_worker_stop(fb3_worker *worker);

/* Queues a job. *ticket names it for fb3_worker_wait. `context` must live until the wait returns. */
fb3_status fb3_worker_submit(fb3_worker *worker, fb3_job job, void *context, long *ticket);
/* Blocks until that job has run; returns its status with its error text on the calling thread. Tickets are waited for
 * once each, in any order (so a fb3_worker_run may pass an earlier job that nobody has waited for yet). */
fb3_status fb3_worker_wait(fb3_worker *worker, long ticket);
/* submit + wait. */
fb3_status fb3_worker_run(fb3_worker *worker, fb3_job job, void *context);
/* That job has run, so that a wait for it will not block. Its ticket must not have been waited for. */
bool fb3_worker_finished(fb3_worker *worker, long ticket);

/* For a job that takes long, called on the worker's own thread every now and then: the jobs that were queued meanwhile
 * are run, in order, before it returns. Those that are queued while they run have to wait for the next call, so that
 * the long job comes to its end however many there are. A job that runs here may give way in turn. Not to be called
 * between a failure and the return from the job: the text of an error is the thread's. NULL: does nothing. */
void fb3_worker_give_way(fb3_worker *worker);

#endif
