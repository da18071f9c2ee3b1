/* Reading ahead: two batches, one in use by the step, one being filled by the I/O worker. */
#include "fb3/trace.h"
#include "fb3/train.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct fb3_prefetch {
    fb3_worker *io;
    const fb3_dataset *dataset;
    const fb3_vocabulary *vocabulary;
    fb3_batch *batch[2];
    int64_t *rows; /* [max_sequences] of the job in flight */
    int count;
    int filling; /* which batch the job in flight fills */
    bool in_flight;
    long ticket;
};

static fb3_status fill(void *context)
{
    fb3_prefetch *p = context;
    double begin = fb3_trace_begin();
    fb3_status status =
        fb3_batch_build(p->batch[p->filling], p->dataset, p->vocabulary->row, p->vocabulary->size, p->rows, p->count);
    fb3_trace_end(begin, "io", "read a batch", "samples", p->count);
    return status;
}

fb3_status fb3_prefetch_open(fb3_prefetch **prefetch, fb3_worker *io, const fb3_dataset *dataset,
                             const fb3_vocabulary *vocabulary, int max_tokens, int max_sequences)
{
    fb3_status status = FB3_OK;
    fb3_prefetch *p = calloc(1, sizeof *p);
    FB3_REQUIRE(p, FB3_FAILED, "out of memory for reading ahead");
    p->io = io;
    p->dataset = dataset;
    p->vocabulary = vocabulary;
    p->rows = calloc((size_t)max_sequences, sizeof *p->rows);
    FB3_REQUIRE_GOTO(p->rows, failed, FB3_FAILED, "out of memory for reading ahead");
    for (int i = 0; i < 2; i++) {
        FB3_TRY_GOTO(fb3_batch_create(&p->batch[i], max_tokens, max_sequences, dataset->targets), failed);
    }
    *prefetch = p;
    return FB3_OK;
failed:
    fb3_prefetch_close(p);
    return status;
}

void fb3_prefetch_close(fb3_prefetch *p)
{
    if (!p) return;
    if (p->in_flight) (void)fb3_worker_wait(p->io, p->ticket); /* the job must not outlive its buffers */
    for (int i = 0; i < 2; i++) fb3_batch_free(p->batch[i]);
    free(p->rows);
    free(p);
}

fb3_status fb3_prefetch_submit(fb3_prefetch *p, const int64_t *rows, int count)
{
    assert(!p->in_flight);
    memcpy(p->rows, rows, (size_t)count * sizeof *rows);
    p->count = count;
    FB3_TRY(fb3_worker_submit(p->io, fill, p, &p->ticket));
    p->in_flight = true;
    return FB3_OK;
}

fb3_status fb3_prefetch_take(fb3_prefetch *p, const fb3_batch **batch)
{
    assert(p->in_flight);
    p->in_flight = false;
    FB3_TRY(fb3_worker_wait(p->io, p->ticket));
    *batch = p->batch[p->filling];
    p->filling = 1 - p->filling;
    return FB3_OK;
}
