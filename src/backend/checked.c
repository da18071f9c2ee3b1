/* --debug: every operation runs, is waited for, and its outputs are searched for values that are not finite. The first
 * one fails with operation, output, layer and step, so that a NaN is reported where it is born and not where it is
 * noticed. Fresh memory is filled with NaN, so that reading what nobody wrote is found as well. */
#include "fb3/observer.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static fb3_status report(const fb3_backend *be, const char *op, const char *output, int64_t found, int64_t n)
{
    if (found == 0) return FB3_OK;
    char where[32] = "outside the layers";
    if (be->layer >= 0) snprintf(where, sizeof where, "layer %d", be->layer);
    return fb3_fail(FB3_FAILED,
                    "%s: %" PRId64 " of the %" PRId64 " values of %s are not finite (%s, step %" PRId64
                    "); look at this operation's inputs, or lower learning_rate",
                    op, found, n, output, where, be->step);
}

/* `context` is an int64 in the backend's memory that counts. */
static fb3_status check(void *context, fb3_backend *be, const char *op, const char *output, const void *x,
                        fb3_dtype type, int64_t n)
{
    const fb3_ops *ops = fb3_backend_device_ops(be);
    int64_t found = 0;
    FB3_TRY(ops->zero(be, context, sizeof found));
    FB3_TRY(ops->count_nonfinite(be, context, x, type, n));
    FB3_TRY(ops->download(be, &found, context, sizeof found));
    return report(be, op, output, found, n);
}

static fb3_status check_double(void *context, fb3_backend *be, const char *op, const char *output, double value, int n)
{
    (void)context;
    return report(be, op, output, !isfinite(value), n);
}

static void end(void *context, fb3_backend *be)
{
    fb3_backend_device_ops(be)->free(be, context);
}

fb3_status fb3_backend_make_checked(fb3_backend *backend)
{
    void *count = NULL;
    const fb3_ops *ops = fb3_backend_device_ops(backend);
    FB3_TRY(ops->alloc(backend, &count, sizeof(int64_t)));
    fb3_status status = fb3_backend_observe(backend, &(fb3_observer){.name = "checked",
                                                                     .context = count,
                                                                     .poison = true,
                                                                     .output = check,
                                                                     .output_double = check_double,
                                                                     .end = end});
    if (status != FB3_OK) ops->free(backend, count);
    return status;
}
