/* NCCL's collectives over MPI, on the emulator's streams.
 *
 * A collective runs when its stream reaches it: the ranks first exchange what each is about to do and abort when they
 * differ (real NCCL hangs or corrupts memory), then the data. Every rank gets all contributions and adds them up in the
 * order of ranks, so the sums have the same bits on every rank and in every run; real NCCL has its own fixed order per
 * topology. Collectives of one communicator run in the order of their calls, whatever streams they are on.
 *
 * On a non-blocking communicator a call only returns ncclInProgress; NCCL launches in a thread of its own (group.cc),
 * and until ncclCommGetAsyncError has said ncclSuccess nothing need be on the stream. Here nothing is until then, so an
 * event recorded too early is recorded before the collective.
 *
 * Faults: CUDAEMU_NCCL_FAIL=<rank>:<n>:<kind>, rank of MPI_COMM_WORLD, n counted from 1 in that process.
 *   error   the n-th collective returns ncclSystemError at once
 *   async   the n-th collective never ends, and ncclCommGetAsyncError reports ncclRemoteError
 *   hang    the n-th collective never ends
 *   init    the n-th creation of a communicator fails with ncclInternalError */
#include "nccl_shim.h"

#include <limits.h>

struct nccl_operation {
    ncclComm_t comm;
    unsigned long number; /* in its communicator */
    nccl_kind kind;
    const void *send;
    void *receive;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t reduction;
    int root;
    cudaStream_t stream;
    enum { SOUND, HANGS, HANGS_WITH_ERROR } fault;
    enum { WAITING, COMPARING, MOVING } stage;
    MPI_Request request;
    long mine[5], *theirs;   /* what each rank is about to do: [ranks][5] */
    char *staged, *gathered; /* MPI reads and writes these: device memory is closed while the program runs */
    nccl_operation *next;
};

static nccl_operation *group; /* calls between ncclGroupStart and ncclGroupEnd, in order */
static int group_depth;
static nccl_operation *parked; /* aborted while MPI has their buffers */

static const char *const kind_names[] = {"ncclAllReduce", "ncclBroadcast", "ncclReduceScatter", "ncclAllGather"};

static size_t type_bytes(ncclDataType_t type)
{
    switch (type) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclFloat16:
        return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
        return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
        return 8;
    default:
        return 0;
    }
}

static MPI_Datatype mpi_type(ncclDataType_t type)
{
    switch (type_bytes(type)) {
    case 1:
        return MPI_UINT8_T;
    case 2:
        return MPI_UINT16_T;
    case 4:
        return MPI_UINT32_T;
    default:
        return MPI_UINT64_T;
    }
}

/* --- faults ------------------------------------------------------------------------------------------------------- */

typedef enum { NO_FAULT, FAULT_ERROR, FAULT_ASYNC, FAULT_HANG, FAULT_INIT } fault_kind;

static struct {
    bool is_read;
    fault_kind kind; /* NO_FAULT where it is not this rank's */
    long at;
} fault;

static void read_fault(void)
{
    static const char *const names[] = {"", "error", "async", "hang", "init"};
    if (fault.is_read) return;
    fault.is_read = true;
    const char *text = getenv("CUDAEMU_NCCL_FAIL");
    if (!text || !*text) return;
    char *end, *kind;
    long rank = strtol(text, &end, 10);
    long at = *end == ':' ? strtol(end + 1, &kind, 10) : 0;
    fault_kind found = NO_FAULT;
    for (int i = FAULT_ERROR; at > 0 && *kind == ':' && i <= FAULT_INIT; i++)
        if (!strcmp(kind + 1, names[i])) found = (fault_kind)i;
    if (!found || rank < 0)
        shim_misuse(NCCL_SHIM, "CUDAEMU_NCCL_FAIL=%s: not <rank>:<n>:<error, async, hang or init>", text);
    int me = 0, begun;
    MPI_Initialized(&begun);
    if (begun) MPI_Comm_rank(MPI_COMM_WORLD, &me);
    if (me == rank) fault.kind = found, fault.at = at;
}

static fault_kind fault_at_collective(void)
{
    static long calls;
    read_fault();
    return ++calls == fault.at && fault.kind != FAULT_INIT ? fault.kind : NO_FAULT;
}

bool nccl_fault_at_init(void)
{
    static long calls;
    read_fault();
    return ++calls == fault.at && fault.kind == FAULT_INIT;
}

/* --- running ------------------------------------------------------------------------------------------------------ */

#define REDUCE(T, combine)                                                                                             \
    for (size_t i = 0; i < o->count; i++) {                                                                            \
        T sum = ((const T *)first)[i];                                                                                 \
        for (int r = 1; r < o->comm->size; r++) {                                                                      \
            T x = ((const T *)(first + (size_t)r * stride))[i];                                                        \
            sum = (combine);                                                                                           \
        }                                                                                                              \
        ((T *)o->receive)[i] = sum;                                                                                    \
    }

/* `first`: rank 0's contribution to what this rank gets; the others follow `stride` bytes apart. */
static void reduce(const nccl_operation *o, const char *first, size_t stride)
{
    bool max = o->reduction == ncclMax;
    if (o->type == ncclFloat32 && max)
        REDUCE(float, x > sum ? x : sum)
    else if (o->type == ncclFloat32)
        REDUCE(float, sum + x)
    else if (o->type == ncclFloat64 && max)
        REDUCE(double, x > sum ? x : sum)
    else if (o->type == ncclFloat64)
        REDUCE(double, sum + x)
    else if (max)
        REDUCE(int64_t, x > sum ? x : sum)
    else
        REDUCE(uint64_t, sum + x) /* as int64, without undefined overflow */
}

static size_t sent_bytes(const nccl_operation *o)
{
    size_t parts = o->kind == NCCL_REDUCE_SCATTER ? (size_t)o->comm->size : 1;
    return o->count * parts * type_bytes(o->type);
}

static size_t received_bytes(const nccl_operation *o)
{
    size_t parts = o->kind == NCCL_ALL_GATHER ? (size_t)o->comm->size : 1;
    return o->count * parts * type_bytes(o->type);
}

static bool sends(const nccl_operation *o)
{
    return o->kind != NCCL_BROADCAST || o->comm->rank == o->root;
}

static void operation_free(nccl_operation *o)
{
    free(o->theirs);
    free(o->staged);
    free(o->gathered);
    free(o);
}

static void begin_compare(nccl_operation *o)
{
    long mine[5] = {o->kind, (long)o->count, o->type, o->reduction, o->root};
    memcpy(o->mine, mine, sizeof mine);
    o->theirs = shim_alloc(sizeof mine * (size_t)o->comm->size);
    o->stage = COMPARING;
    o->request = MPI_REQUEST_NULL;
    if (o->comm->size > 1)
        MPI_Iallgather(o->mine, 5, MPI_LONG, o->theirs, 5, MPI_LONG, o->comm->mpi, &o->request);
    else
        memcpy(o->theirs, mine, sizeof mine);
}

static void compare(const nccl_operation *o)
{
    for (int r = 0; r < o->comm->size; r++) {
        const long *x = o->theirs + 5 * r;
        if (memcmp(x, o->mine, sizeof o->mine) != 0)
            shim_misuse(NCCL_SHIM,
                        "collective %lu differs: rank %d calls %s count %ld type %ld reduction %ld root %ld, rank %d "
                        "%s count %ld type %ld reduction %ld root %ld",
                        o->number, o->comm->rank, kind_names[o->kind], o->mine[1], o->mine[2], o->mine[3], o->mine[4],
                        r, kind_names[x[0] & 3], x[1], x[2], x[3], x[4]);
    }
}

static void begin_move(nccl_operation *o)
{
    size_t bytes = sent_bytes(o), ranks = (size_t)o->comm->size;
    int count = (int)(bytes / type_bytes(o->type));
    o->staged = shim_alloc(bytes);
    if (sends(o)) {
        cudaemu_reads(o->send, bytes);
        memcpy(o->staged, o->send, bytes);
    }
    o->stage = MOVING;
    if (o->kind == NCCL_BROADCAST) {
        if (ranks > 1) MPI_Ibcast(o->staged, count, mpi_type(o->type), o->root, o->comm->mpi, &o->request);
        return;
    }
    o->gathered = shim_alloc(bytes * ranks);
    if (ranks > 1)
        MPI_Iallgather(o->staged, count, mpi_type(o->type), o->gathered, count, mpi_type(o->type), o->comm->mpi,
                       &o->request);
    else
        memcpy(o->gathered, o->staged, bytes);
}

static void deliver(nccl_operation *o)
{
    size_t part = o->count * type_bytes(o->type);
    cudaemu_written(o->receive, received_bytes(o)); /* before the stores: it checks the range */
    if (o->kind == NCCL_BROADCAST)
        memcpy(o->receive, o->staged, part);
    else if (o->kind == NCCL_ALL_GATHER)
        memcpy(o->receive, o->gathered, received_bytes(o));
    else if (o->kind == NCCL_REDUCE_SCATTER)
        reduce(o, o->gathered + part * (size_t)o->comm->rank, sent_bytes(o));
    else
        reduce(o, o->gathered, part);
}

static bool mpi_is_done(nccl_operation *o)
{
    int done = 1;
    if (o->request != MPI_REQUEST_NULL) MPI_Test(&o->request, &done, MPI_STATUS_IGNORE);
    return done;
}

static int run(void *arg)
{
    nccl_operation *o = arg;
    if (o->comm->state == NCCL_ABORTED) {
        if (o->stage != WAITING && o->request != MPI_REQUEST_NULL) { /* MPI cannot cancel a collective */
            o->next = parked;
            parked = o;
        } else {
            operation_free(o);
        }
        return 1;
    }
    if (o->fault != SOUND || o->comm->done != o->number) return 0;
    if (o->stage == WAITING) begin_compare(o);
    if (o->stage == COMPARING) {
        if (!mpi_is_done(o)) return 0;
        compare(o);
        begin_move(o);
    }
    if (!mpi_is_done(o)) return 0;
    deliver(o);
    o->comm->done++;
    operation_free(o);
    return 1;
}

/* --- issuing ------------------------------------------------------------------------------------------------------ */

static void put_on_stream(nccl_operation *o)
{
    if (o->fault == HANGS_WITH_ERROR) o->comm->error = ncclRemoteError;
    o->next = NULL;
    cudaemu_enqueue(o->stream, run, o);
}

static void append(nccl_operation **list, nccl_operation *o)
{
    while (*list) list = &(*list)->next;
    o->next = NULL;
    *list = o;
}

static ncclResult_t submit(nccl_operation *o)
{
    ncclComm_t comm = o->comm;
    if (comm->blocking) {
        put_on_stream(o);
        return ncclSuccess;
    }
    append(&comm->launch, o);
    comm->polls = NCCL_SHIM_POLLS;
    return ncclInProgress;
}

void nccl_launch(ncclComm_t comm)
{
    while (comm->launch) {
        nccl_operation *o = comm->launch;
        comm->launch = o->next;
        put_on_stream(o);
    }
}

void nccl_drop(ncclComm_t comm)
{
    while (comm->launch) {
        nccl_operation *o = comm->launch;
        comm->launch = o->next;
        operation_free(o);
    }
}

ncclResult_t nccl_group_begin(void)
{
    group_depth++;
    return ncclSuccess;
}

bool nccl_in_group(void)
{
    return group_depth > 0;
}

ncclResult_t nccl_group_end(void)
{
    if (!group_depth) return nccl_fail(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    if (--group_depth) return ncclSuccess;
    ncclResult_t result = ncclSuccess;
    while (group) {
        nccl_operation *o = group;
        group = o->next;
        if (o->comm->state == NCCL_ABORTED)
            operation_free(o);
        else if (submit(o) == ncclInProgress)
            result = ncclInProgress;
    }
    return result;
}

/* In place is one exact position per operation (NCCL's manual, In-place Operations); else buffers are apart. */
static void check_buffers(const nccl_operation *o)
{
    size_t element = type_bytes(o->type), part = o->count * element;
    uintptr_t send = (uintptr_t)o->send, receive = (uintptr_t)o->receive;
    const char *name = kind_names[o->kind];
    if (!receive || (sends(o) && !send)) shim_misuse(NCCL_SHIM, "%s: a buffer is NULL", name);
    if (!element || receive % element || (sends(o) && send % element))
        shim_misuse(NCCL_SHIM, "%s: a buffer is not aligned to its elements", name);
    if (!sends(o)) return;
    if (o->kind == NCCL_REDUCE_SCATTER && receive == send + part * (size_t)o->comm->rank) return;
    if (o->kind == NCCL_ALL_GATHER && send == receive + part * (size_t)o->comm->rank) return;
    if ((o->kind == NCCL_ALL_REDUCE || o->kind == NCCL_BROADCAST) && send == receive) return;
    if (send < receive + received_bytes(o) && receive < send + sent_bytes(o))
        shim_misuse(NCCL_SHIM, "%s: the buffers overlap, and not in place", name);
}

static ncclResult_t check_arguments(const nccl_operation *o)
{
    const char *name = kind_names[o->kind];
    bool reduces = o->kind == NCCL_ALL_REDUCE || o->kind == NCCL_REDUCE_SCATTER;
    if (o->root < 0 || o->root >= o->comm->size) return nccl_fail(ncclInvalidArgument, "%s: root %d", name, o->root);
    if ((int)o->type < 0 || o->type >= ncclNumTypes)
        return nccl_fail(ncclInvalidArgument, "%s: type %d", name, o->type);
    if (reduces && ((int)o->reduction < 0 || o->reduction >= ncclNumOps))
        return nccl_fail(ncclInvalidArgument, "%s: reduction %d", name, o->reduction);
    bool emulated = type_bytes(o->type) && o->count <= INT_MAX / (size_t)o->comm->size;
    if (reduces)
        emulated = emulated && (o->type == ncclFloat32 || o->type == ncclFloat64 || o->type == ncclInt64) &&
                   (o->reduction == ncclSum || o->reduction == ncclMax);
    if (!emulated)
        shim_misuse(NCCL_SHIM, "%s: type %d, reduction %d, count %zu are not emulated", name, o->type, o->reduction,
                    o->count);
    return ncclSuccess;
}

ncclResult_t nccl_issue(ncclComm_t comm, nccl_kind kind, const void *send, void *receive, size_t count,
                        ncclDataType_t type, ncclRedOp_t reduction, int root, cudaStream_t stream)
{
    nccl_operation made = {.comm = comm,
                           .kind = kind,
                           .send = send,
                           .receive = receive,
                           .count = count,
                           .type = type,
                           .reduction = reduction,
                           .root = root,
                           .stream = stream,
                           .request = MPI_REQUEST_NULL};
    ncclResult_t result = check_arguments(&made);
    if (result || !count) return result; /* NCCL discards empty collectives (enqueue.cc) */
    check_buffers(&made);
    switch (fault_at_collective()) {
    case FAULT_ERROR:
        comm->error = ncclSystemError;
        return nccl_fail(ncclSystemError, "%s fails as CUDAEMU_NCCL_FAIL says", kind_names[kind]);
    case FAULT_ASYNC:
        made.fault = HANGS_WITH_ERROR;
        break;
    case FAULT_HANG:
        made.fault = HANGS;
        break;
    default:
        break;
    }
    nccl_operation *o = shim_alloc(sizeof *o);
    *o = made;
    o->number = comm->issued++;
    if (!group_depth) return submit(o);
    append(&group, o);
    return ncclSuccess;
}
