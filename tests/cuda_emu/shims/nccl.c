/* NCCL's calls for the emulated build. libnccl is not linked: a call that is not here does not link.
 *
 * Rules and where they come from. [H] nccl.h of 2.28; [S] NCCL's source, init.cc, group.cc, argcheck.cc; [M] NCCL's
 * manual; [G] a guess on the strict side.
 *
 *   a configuration not made by NCCL_CONFIG_INITIALIZER is ncclInvalidArgument [S]
 *   blocking = 0: creation, finalising and collectives return ncclInProgress; the state is asked with
 *     ncclCommGetAsyncError; a call before that has said ncclSuccess is ncclInvalidArgument [S: ncclCommEnsureReady]
 *   after an asynchronous error every call returns that error, but for abort [S: ncclCommEnsureReady]
 *   destroying a communicator with unfinished collectives aborts [G: the real one waits for them, or hangs]
 *   any use after destroy or abort aborts [G: undefined]
 *   ncclCommAbort ends what is on the device, so streams go on [H]; all ranks have to call it [M] */
#include "nccl_shim.h"

#include <sched.h>
#include <stdarg.h>

static ncclComm_t communicators; /* all ever made: those destroyed stay, to tell their use */
static char last_error[256];

ncclResult_t nccl_fail(ncclResult_t result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    shim_note(NCCL_SHIM, "%s", last_error);
    return result;
}

static bool is_known(ncclComm_t comm)
{
    for (ncclComm_t c = communicators; c; c = c->next)
        if (c == comm) return true;
    return false;
}

static ncclResult_t check_alive(ncclComm_t comm, const char *call)
{
    if (!comm) return nccl_fail(ncclInvalidArgument, "%s: the communicator is NULL", call);
    if (!is_known(comm)) shim_misuse(NCCL_SHIM, "%s: %p is not a communicator", call, (void *)comm);
    if (comm->state == NCCL_DESTROYED || comm->state == NCCL_ABORTED)
        shim_misuse(NCCL_SHIM, "%s: the communicator was %s", call,
                    comm->state == NCCL_ABORTED ? "aborted" : "destroyed");
    return ncclSuccess;
}

/* What every call but ncclCommGetAsyncError and ncclCommAbort checks first. */
static ncclResult_t check_ready(ncclComm_t comm, const char *call)
{
    ncclResult_t result = check_alive(comm, call);
    if (result) return result;
    if (comm->error) return nccl_fail(comm->error, "%s: the communicator has failed", call);
    if (comm->state == NCCL_JOINING || comm->polls || comm->launch)
        return nccl_fail(ncclInvalidArgument,
                         "%s: attempt to use communicator before the previous operation returned ncclSuccess", call);
    return ncclSuccess;
}

/* --- creation ----------------------------------------------------------------------------------------------------- */

ncclResult_t ncclGetVersion(int *version)
{
    if (!version) return nccl_fail(ncclInvalidArgument, "ncclGetVersion: NULL");
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    if (!id) return nccl_fail(ncclInvalidArgument, "ncclGetUniqueId: NULL");
    return nccl_id_make(id);
}

/* Has everybody come? */
static void look_at_join(ncclComm_t comm)
{
    if (comm->state == NCCL_JOINING && comm->join && nccl_join_poll(comm->join, &comm->mpi)) {
        comm->join = NULL;
        comm->state = NCCL_READY;
    }
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    static const char call[] = "ncclCommInitRank";
    if (!comm) return nccl_fail(ncclInvalidArgument, "%s: NULL", call);
    *comm = NULL;
    if (size < 1 || rank < 0 || rank >= size)
        return nccl_fail(ncclInvalidArgument, "%s: rank %d of %d", call, rank, size);
    if (!nccl_id_is_valid(&id)) return nccl_fail(ncclInvalidArgument, "%s: not an id of ncclGetUniqueId", call);
    static const ncclConfig_t initializer = NCCL_CONFIG_INITIALIZER;
    if (config && (config->magic != initializer.magic || config->size != initializer.size))
        return nccl_fail(ncclInvalidArgument, "%s: the configuration was not made by NCCL_CONFIG_INITIALIZER", call);
    if (config && config->blocking != NCCL_CONFIG_UNDEF_INT && config->blocking != 0 && config->blocking != 1)
        return nccl_fail(ncclInvalidArgument, "%s: blocking is %d", call, config->blocking);
    if (nccl_in_group()) shim_misuse(NCCL_SHIM, "%s in a group is not emulated", call);

    ncclComm_t made = shim_alloc(sizeof *made);
    *made = (struct ncclComm){.mpi = MPI_COMM_NULL, .rank = rank, .size = size, .next = communicators};
    made->blocking = !config || config->blocking != 0;
    if (cudaGetDevice(&made->device)) return nccl_fail(ncclUnhandledCudaError, "%s: no current device", call);
    communicators = made;
    made->state = NCCL_JOINING;
    bool fails = nccl_fault_at_init();
    if (!fails) made->join = nccl_join_begin(&id, size, rank);
    if (made->blocking) {
        if (fails) {
            made->state = NCCL_ABORTED;
            return nccl_fail(ncclInternalError, "%s fails as CUDAEMU_NCCL_FAIL says", call);
        }
        while (look_at_join(made), made->state == NCCL_JOINING) sched_yield(); /* as long as the real one */
        *comm = made;
        return ncclSuccess;
    }
    if (fails) made->error = ncclInternalError;
    made->polls = NCCL_SHIM_POLLS;
    *comm = made;
    return ncclInProgress;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank)
{
    return ncclCommInitRankConfig(comm, size, id, rank, NULL);
}

/* --- state -------------------------------------------------------------------------------------------------------- */

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    ncclResult_t result = check_alive(comm, "ncclCommGetAsyncError");
    if (result) return result;
    if (!error) return nccl_fail(ncclInvalidArgument, "ncclCommGetAsyncError: NULL");
    look_at_join(comm);
    bool waits = comm->state == NCCL_JOINING && !comm->error;
    if (comm->polls) {
        comm->polls--;
        waits = true;
    }
    if (!waits && !comm->error) nccl_launch(comm); /* may bring the fault's error */
    if (!waits && !comm->error && comm->finalizing && comm->state == NCCL_READY) {
        if (comm->issued == comm->done)
            comm->state = NCCL_FINALIZED;
        else
            waits = true;
    }
    *error = waits ? ncclInProgress : comm->error;
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count)
{
    ncclResult_t result = check_ready(comm, "ncclCommCount");
    if (!result) *count = comm->size;
    return result;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank)
{
    ncclResult_t result = check_ready(comm, "ncclCommUserRank");
    if (!result) *rank = comm->rank;
    return result;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device)
{
    ncclResult_t result = check_ready(comm, "ncclCommCuDevice");
    if (!result) *device = comm->device;
    return result;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclUnhandledCudaError:
        return "unhandled cuda error";
    case ncclSystemError:
        return "unhandled system error";
    case ncclInternalError:
        return "internal error";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclInvalidUsage:
        return "invalid usage";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    case ncclInProgress:
        return "NCCL operation in progress";
    default:
        return "unknown result code";
    }
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm; /* the real one does not look at it either [M] */
    return last_error;
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    ncclResult_t result = check_ready(comm, "ncclCommFinalize");
    if (result) return result;
    if (comm->finalizing) return nccl_fail(ncclInvalidArgument, "ncclCommFinalize: called twice");
    comm->finalizing = true;
    if (!comm->blocking) {
        comm->polls = NCCL_SHIM_POLLS;
        return ncclInProgress;
    }
    if (comm->issued != comm->done) cudaDeviceSynchronize(); /* it flushes what was issued [H] */
    comm->state = NCCL_FINALIZED;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    ncclResult_t result = check_ready(comm, "ncclCommDestroy");
    if (result) return result;
    if (comm->issued != comm->done)
        shim_misuse(NCCL_SHIM, "ncclCommDestroy with %lu collectives unfinished", comm->issued - comm->done);
    int ended;
    MPI_Finalized(&ended);
    if (!ended && comm->mpi != MPI_COMM_NULL) MPI_Comm_free(&comm->mpi);
    comm->state = NCCL_DESTROYED;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    if (!comm) return ncclSuccess; /* [S] */
    ncclResult_t result = check_alive(comm, "ncclCommAbort");
    if (result) return result;
    if (comm->join) nccl_join_cancel(comm->join);
    comm->join = NULL;
    nccl_drop(comm);
    comm->state = NCCL_ABORTED; /* its MPI communicator stays: collectives may still be under way in MPI */
    return ncclSuccess;
}

/* --- collectives -------------------------------------------------------------------------------------------------- */

static ncclResult_t check_open(ncclComm_t comm, const char *call)
{
    ncclResult_t result = check_ready(comm, call);
    if (!result && comm->finalizing) shim_misuse(NCCL_SHIM, "%s after ncclCommFinalize", call);
    return result;
}

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t reduction,
                           ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t result = check_open(comm, "ncclAllReduce");
    return result ? result : nccl_issue(comm, NCCL_ALL_REDUCE, send, receive, count, type, reduction, 0, stream);
}

ncclResult_t ncclReduceScatter(const void *send, void *receive, size_t count, ncclDataType_t type,
                               ncclRedOp_t reduction, ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t result = check_open(comm, "ncclReduceScatter");
    return result ? result : nccl_issue(comm, NCCL_REDUCE_SCATTER, send, receive, count, type, reduction, 0, stream);
}

ncclResult_t ncclAllGather(const void *send, void *receive, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream)
{
    ncclResult_t result = check_open(comm, "ncclAllGather");
    return result ? result : nccl_issue(comm, NCCL_ALL_GATHER, send, receive, count, type, ncclSum, 0, stream);
}

ncclResult_t ncclBroadcast(const void *send, void *receive, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t result = check_open(comm, "ncclBroadcast");
    return result ? result : nccl_issue(comm, NCCL_BROADCAST, send, receive, count, type, ncclSum, root, stream);
}

/* nccl.h declares these two without `void` */
ncclResult_t ncclGroupStart(void); /* NOLINT(readability-redundant-declaration) */
ncclResult_t ncclGroupEnd(void);   /* NOLINT(readability-redundant-declaration) */

ncclResult_t ncclGroupStart(void)
{
    return nccl_group_begin();
}

ncclResult_t ncclGroupEnd(void)
{
    return nccl_group_end();
}
