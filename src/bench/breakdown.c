/* An observer that adds up the time and work of each operation. */
#include "fb3/bench.h"

#include <stdlib.h>
#include <string.h>

static fb3_status before(void *context, fb3_backend *be)
{
    fb3_breakdown *b = context;
    (void)be;
    b->begin = fb3_seconds();
    return FB3_OK;
}

static fb3_op_total *total_of(fb3_breakdown *b, const char *op)
{
    int i = 0;
    while (i < b->count && strcmp(b->total[i].op, op) != 0) i++;
    if (i == FB3_BENCH_OPS) return NULL;
    if (i == b->count) b->total[b->count++].op = op;
    return &b->total[i];
}

static fb3_status after(void *context, fb3_backend *be, const char *op, fb3_work work)
{
    fb3_breakdown *b = context;
    FB3_TRY(fb3_backend_device_ops(be)->sync(be));
    fb3_op_total *total = total_of(b, op);
    FB3_REQUIRE(total, FB3_FAILED, "more than %d kinds of operations", FB3_BENCH_OPS);
    total->calls++;
    total->seconds += fb3_seconds() - b->begin;
    total->work.flops += work.flops;
    total->work.bytes += work.bytes;
    return FB3_OK;
}

fb3_status fb3_breakdown_begin(fb3_breakdown *breakdown, fb3_backend *be)
{
    *breakdown = (fb3_breakdown){0};
    return fb3_backend_observe(
        be, &(fb3_observer){.name = "bench", .context = breakdown, .before = before, .after = after});
}

static int slower_first(const void *a, const void *b)
{
    double x = ((const fb3_op_total *)a)->seconds, y = ((const fb3_op_total *)b)->seconds;
    return (x < y) - (x > y);
}

void fb3_breakdown_end(fb3_breakdown *breakdown, fb3_backend *be)
{
    fb3_backend_observe_end(be);
    qsort(breakdown->total, (size_t)breakdown->count, sizeof *breakdown->total, slower_first);
}
