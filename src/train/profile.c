/* --profile: the operations of rank 0 in the trace, between what comm, io and the trainer write into it. */
#include "fb3/observer.h"
#include "fb3/trace.h"
#include "fb3/train.h"

#include <stdio.h>
#include <stdlib.h>

static fb3_status before(void *context, fb3_backend *be)
{
    (void)be;
    *(double *)context = fb3_trace_begin();
    return FB3_OK;
}

static fb3_status after(void *context, fb3_backend *be, const char *op, fb3_work work)
{
    (void)work;
    fb3_trace_end(*(double *)context, "operation", op, "layer", be->layer);
    return FB3_OK;
}

static void end(void *context, fb3_backend *be)
{
    (void)be;
    free(context);
}

fb3_status fb3_profile_begin(fb3_session *session)
{
    const char *path = session->config->profile;
    if (!path || !session->root) return FB3_OK;
    char name[64];
    double *begin = calloc(1, sizeof *begin);
    FB3_REQUIRE(begin, FB3_FAILED, "out of memory for the trace");
    snprintf(name, sizeof name, "fb3-dist, rank %d of %d", session->rank, session->size);
    fb3_status status = fb3_trace_start(path, name);
    if (status == FB3_OK) {
        status = fb3_backend_observe(
            session->backend,
            &(fb3_observer){.name = "profile", .context = begin, .before = before, .after = after, .end = end});
    }
    if (status != FB3_OK) free(begin);
    return status;
}
