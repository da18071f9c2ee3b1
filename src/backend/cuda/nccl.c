/* The gradient all-reduce over NCCL: fb3_reducer_ops named "nccl".
 *
 * Sums run on a stream of their own, beside the backward pass: an event says that a layer's gradients are final, and
 * `wait` makes the compute stream go on only after the last sum. The host never waits here. It waits in the backend's
 * sync, and there `look` is called again and again: a communicator that reports an error, or a sum that takes longer
 * than the timeout, is aborted, and the error says which operation and step it was. */
#include "reducer_nccl.h"
#include "cuda.h"
#include "fb3/clock.h"

#include <nccl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct nccl_reducer {
    fb3_reducer base;
    fb3_backend *be;
    ncclComm_t comm;     /* NULL in a world of one, and after an abort */
    cudaStream_t stream; /* the sums, in order */
    cudaEvent_t ready;   /* what was posted last may start */
    cudaEvent_t done;    /* all sums of a step are there */
    int rank, size;
    int64_t timeout_seconds;
    bool waited_for; /* the sums: by the compute stream */
    double deadline; /* fb3_seconds(), of these */
    int64_t posted;  /* ranges since the last wait, for messages */
} nccl_reducer;

int fb3_nccl_version(void)
{
    int version = 0;
    (void)ncclGetVersion(&version);
    return version;
}

static fb3_status nccl_error(ncclResult_t result, const ncclComm_t comm, const char *call)
{
    const char *more = comm ? ncclGetLastError(comm) : "";
    return fb3_fail(FB3_FAILED, "NCCL: %s from %s%s%s", ncclGetErrorString(result), call, *more ? ": " : "", more);
}

#define FB3_NCCL(comm, call)                                                                                           \
    do {                                                                                                               \
        ncclResult_t fb3_nccl_result_ = (call);                                                                        \
        if (fb3_nccl_result_ != ncclSuccess && fb3_nccl_result_ != ncclInProgress)                                     \
            return nccl_error(fb3_nccl_result_, comm, #call);                                                          \
    } while (0)

/* Ends what the communicator is doing on this rank; without it a sum whose peer is gone would never end. */
static fb3_status abandon(nccl_reducer *reducer, fb3_status status)
{
    if (reducer->comm) (void)ncclCommAbort(reducer->comm);
    reducer->comm = NULL;
    return status;
}

fb3_status fb3_reducer_id_nccl(fb3_reducer_id *id)
{
    ncclUniqueId unique;
    _Static_assert(sizeof unique == sizeof id->bytes, "FB3_REDUCER_ID_BYTES is not NCCL's");
    FB3_NCCL(NULL, ncclGetUniqueId(&unique));
    memcpy(id->bytes, &unique, sizeof unique);
    return FB3_OK;
}

/* An error of the sums: who, and in which step. */
static fb3_status sum_failed(nccl_reducer *reducer, const char *what, const char *cure)
{
    return abandon(reducer, fb3_fail(FB3_FAILED, "gradient all-reduce of step %lld, rank %d of %d: %s; %s",
                                     (long long)reducer->be->step, reducer->rank, reducer->size, what, cure));
}

static fb3_status sum_failed_nccl(nccl_reducer *reducer, ncclResult_t result)
{
    char what[128];
    snprintf(what, sizeof what, "NCCL: %s", ncclGetErrorString(result));
    return sum_failed(reducer, what, "another rank or the network has failed, look at the first error of the job");
}

static fb3_status sum_timed_out(nccl_reducer *reducer)
{
    char what[64];
    snprintf(what, sizeof what, "nothing came for %lld s (ddp_timeout)", (long long)reducer->timeout_seconds);
    return sum_failed(reducer, what, "another rank hangs or is gone");
}

/* Calls of a communicator that does not block go on behind the caller's back, and the next call, and events on its
 * stream, have to wait for them. */
static fb3_status settle(const nccl_reducer *reducer, ncclResult_t *state)
{
    double deadline = fb3_seconds() + (double)reducer->timeout_seconds;
    for (*state = ncclInProgress; *state == ncclInProgress && fb3_seconds() < deadline;) {
        ncclResult_t asked = ncclCommGetAsyncError(reducer->comm, state);
        if (asked != ncclSuccess) *state = asked;
        if (*state == ncclInProgress) sched_yield();
    }
    return *state == ncclSuccess ? FB3_OK : FB3_FAILED;
}

/* While the host waits for the device. */
static fb3_status look(void *context)
{
    nccl_reducer *reducer = context;
    ncclResult_t state = ncclSuccess;
    if (!reducer->comm || !reducer->waited_for) return FB3_OK;
    if (cudaEventQuery(reducer->done) == cudaSuccess)
        reducer->waited_for = false; /* what is waited for is something else */
    (void)cudaGetLastError();        /* "not ready" is no error */
    if (!reducer->waited_for) return FB3_OK;
    ncclResult_t asked = ncclCommGetAsyncError(reducer->comm, &state);
    if (asked != ncclSuccess) state = asked;
    if (state != ncclSuccess && state != ncclInProgress) return sum_failed_nccl(reducer, state);
    return fb3_seconds() > reducer->deadline ? sum_timed_out(reducer) : FB3_OK;
}

static fb3_status start(fb3_reducer *base, void *x, int64_t count, int64_t bytes_each, ncclDataType_t type)
{
    nccl_reducer *reducer = (nccl_reducer *)base;
    fb3_cuda *cuda = fb3_cuda_of(reducer->be);
    if (reducer->size == 1 || count == 0) return FB3_OK;
    FB3_REQUIRE(reducer->comm, FB3_FAILED, "the communicator of the gradients was given up");
    FB3_CUDA(cudaEventRecord(reducer->ready, cuda->compute));
    FB3_CUDA(cudaStreamWaitEvent(reducer->stream, reducer->ready, 0));
    ncclResult_t state = ncclAllReduce(x, x, (size_t)count, type, ncclSum, reducer->comm, reducer->stream);
    if (state == ncclInProgress) (void)settle(reducer, &state);
    if (state == ncclInProgress) return sum_timed_out(reducer);
    if (state != ncclSuccess) return sum_failed_nccl(reducer, state);
    reducer->posted++;
    base->bytes += count * bytes_each;
    return FB3_OK;
}

static fb3_status start_nccl(fb3_reducer *base, float *x, int64_t count)
{
    return start(base, x, count, sizeof *x, ncclFloat32);
}

static fb3_status start_int64_nccl(fb3_reducer *base, int64_t *x, int64_t count)
{
    return start(base, x, count, sizeof *x, ncclInt64);
}

static fb3_status poll_nccl(fb3_reducer *base)
{
    (void)base; /* the device moves by itself */
    return FB3_OK;
}

static fb3_status wait_nccl(fb3_reducer *base, int64_t step)
{
    (void)step; /* be->step */
    nccl_reducer *reducer = (nccl_reducer *)base;
    fb3_cuda *cuda = fb3_cuda_of(reducer->be);
    if (reducer->posted == 0) return FB3_OK;
    reducer->posted = 0;
    FB3_CUDA(cudaEventRecord(reducer->done, reducer->stream));
    FB3_CUDA(cudaStreamWaitEvent(cuda->compute, reducer->done, 0));
    reducer->waited_for = true;
    reducer->deadline = fb3_seconds() + (double)reducer->timeout_seconds;
    return FB3_OK;
}

static fb3_status sum_double_nccl(fb3_reducer *base, double *x, int count)
{
    FB3_TRY(start(base, x, count, sizeof *x, ncclFloat64));
    return wait_nccl(base, ((nccl_reducer *)base)->be->step);
}

static void destroy_nccl(fb3_reducer *base)
{
    nccl_reducer *reducer = (nccl_reducer *)base;
    if (!reducer) return;
    fb3_cuda *cuda = fb3_cuda_of(reducer->be);
    cuda->poll = NULL;
    if (reducer->stream) (void)cudaStreamSynchronize(reducer->stream);
    if (reducer->comm) (void)ncclCommDestroy(reducer->comm);
    if (reducer->ready) (void)cudaEventDestroy(reducer->ready);
    if (reducer->done) (void)cudaEventDestroy(reducer->done);
    if (reducer->stream) (void)cudaStreamDestroy(reducer->stream);
    free(reducer);
}

static const fb3_reducer_ops reducer_ops_nccl = {
    .name = "nccl",
    .start = start_nccl,
    .start_int64 = start_int64_nccl,
    .poll = poll_nccl,
    .wait = wait_nccl,
    .sum_double = sum_double_nccl,
    .destroy = destroy_nccl,
};

/* Creation does not block, so that a peer that never comes is an error and not a hang. */
static fb3_status connect(nccl_reducer *reducer, const fb3_reducer_id *id)
{
    ncclUniqueId unique;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    memcpy(&unique, id->bytes, sizeof unique);
    config.blocking = 0;
    FB3_NCCL(NULL, ncclCommInitRankConfig(&reducer->comm, reducer->size, unique, reducer->rank, &config));
    ncclResult_t state;
    if (settle(reducer, &state) == FB3_OK) return FB3_OK;
    return abandon(reducer, fb3_fail(FB3_FAILED, "connecting the devices of %d ranks, rank %d: NCCL: %s%s",
                                     reducer->size, reducer->rank, ncclGetErrorString(state),
                                     state == ncclInProgress ? " after ddp_timeout: a rank did not come" : ""));
}

static fb3_status open_reducer(nccl_reducer *reducer, const fb3_reducer_id *id)
{
    fb3_cuda *cuda = fb3_cuda_of(reducer->be);
    int least = 0, greatest = 0;
    FB3_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    /* the sums use few multiprocessors, and whoever waits for them waits for all */
    FB3_CUDA(cudaStreamCreateWithPriority(&reducer->stream, cudaStreamNonBlocking, greatest));
    FB3_CUDA(cudaEventCreateWithFlags(&reducer->ready, cudaEventDisableTiming));
    FB3_CUDA(cudaEventCreateWithFlags(&reducer->done, cudaEventDisableTiming));
    if (reducer->size > 1) FB3_TRY(connect(reducer, id));
    cuda->poll = look;
    cuda->poll_context = reducer;
    return FB3_OK;
}

fb3_status fb3_reducer_create_nccl(fb3_reducer **reducer, fb3_backend *be, const fb3_reducer_id *id, int rank, int size,
                                   int64_t timeout_seconds)
{
    *reducer = NULL;
    nccl_reducer *made = calloc(1, sizeof *made);
    FB3_REQUIRE(made, FB3_FAILED, "out of memory for the gradient all-reduce");
    *made = (nccl_reducer){
        .base.ops = &reducer_ops_nccl, .be = be, .rank = rank, .size = size, .timeout_seconds = timeout_seconds};
    fb3_status status = open_reducer(made, id);
    if (status != FB3_OK) {
        destroy_nccl(&made->base);
        return status;
    }
    *reducer = &made->base;
    return FB3_OK;
}
