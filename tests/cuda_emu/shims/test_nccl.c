/* The NCCL shim: alone in a process, and on several ranks under mpirun (run_nccl_tests.sh). */
#include "test_shims.h"

#include <mpi.h>
#include <nccl.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Asks until the communicator is not in progress, or `seconds` have gone. */
static ncclResult_t settle(ncclComm_t comm, double seconds)
{
    double end = now() + seconds;
    ncclResult_t state = ncclInProgress;
    while (state == ncclInProgress && now() < end) MUST(ncclCommGetAsyncError(comm, &state));
    return state;
}

/* Did the stream end within `seconds`? As the program waits: it never blocks in a synchronisation. */
static bool stream_ends(cudaStream_t stream, double seconds)
{
    cudaEvent_t event;
    MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    MUST(cudaEventRecord(event, stream));
    double end = now() + seconds;
    cudaError_t state;
    while ((state = cudaEventQuery(event)) == cudaErrorNotReady && now() < end) {}
    if (state == cudaSuccess) MUST(cudaEventDestroy(event)); /* else it is still on the stream */
    return state == cudaSuccess;
}

static ncclComm_t create(int size, ncclUniqueId id, int rank, bool blocking)
{
    ncclComm_t comm;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = blocking;
    ncclResult_t result = ncclCommInitRankConfig(&comm, size, id, rank, &config);
    CHECK(result == (blocking ? ncclSuccess : ncclInProgress), "creation gives %d", result);
    if (blocking) return comm;
    int count;
    set_quiet(true);
    CHECK(ncclCommCount(comm, &count) == ncclInvalidArgument, "a call before the creation has ended");
    set_quiet(false);
    CHECK(settle(comm, 20) == ncclSuccess, "creation does not end");
    return comm;
}

/* A collective's result, in progress or at once. */
static void settled(ncclComm_t comm, ncclResult_t result)
{
    if (result == ncclInProgress) result = settle(comm, 20);
    CHECK(result == ncclSuccess, "a collective gives %d: %s", result, ncclGetErrorString(result));
}

static void destroy(ncclComm_t comm)
{
    settled(comm, ncclCommFinalize(comm));
    MUST(ncclCommDestroy(comm));
}

/* --- in one process, without MPI ---------------------------------------------------------------------------------- */

static ncclComm_t alone_comm;
static cudaStream_t stream;
static float *buffer; /* [16] */

static void use_after_destroy(void)
{
    MUST(ncclCommDestroy(alone_comm));
    ncclAllReduce(buffer, buffer, 4, ncclFloat32, ncclSum, alone_comm, stream);
}

static void use_after_abort(void)
{
    MUST(ncclCommAbort(alone_comm));
    ncclAllReduce(buffer, buffer, 4, ncclFloat32, ncclSum, alone_comm, stream);
}

static void destroy_unfinished(void)
{
    MUST(ncclAllReduce(buffer, buffer, 4, ncclFloat32, ncclSum, alone_comm, stream));
    ncclCommDestroy(alone_comm);
}

static void overlapping(void)
{
    ncclAllReduce(buffer, buffer + 1, 4, ncclFloat32, ncclSum, alone_comm, stream);
}

static void misaligned(void)
{
    ncclAllReduce((char *)buffer + 2, (char *)buffer + 2, 2, ncclFloat32, ncclSum, alone_comm, stream);
}

static void other_type(void)
{
    ncclAllReduce(buffer, buffer, 4, ncclFloat16, ncclSum, alone_comm, stream);
}

static void beyond_allocation(void)
{
    MUST(ncclAllReduce(buffer, buffer, 17, ncclFloat32, ncclSum, alone_comm, stream));
    cudaStreamSynchronize(stream);
}

static void on_host(void)
{
    static float host[16];
    MUST(ncclAllReduce(host, buffer, 16, ncclFloat32, ncclSum, alone_comm, stream));
    cudaStreamSynchronize(stream);
}

static void not_a_communicator(void)
{
    static char anything[256];
    ncclAllReduce(buffer, buffer, 4, ncclFloat32, ncclSum, (ncclComm_t)(void *)anything, stream);
}

static void bad_fault(void)
{
    setenv("CUDAEMU_NCCL_FAIL", "0:1:explode", 1);
    ncclUniqueId id;
    ncclComm_t comm;
    MUST(ncclGetUniqueId(&id));
    ncclCommInitRank(&comm, 1, id, 0);
}

void test_nccl_alone(void)
{
    ncclUniqueId id, nonsense;
    ncclComm_t comm;
    int version, count, rank, device;
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    expect_death("fault that does not exist", bad_fault, "CUDAEMU_NCCL_FAIL"); /* before anything reads it */
    MUST(ncclGetVersion(&version));
    CHECK(version == NCCL_VERSION_CODE, "version %d", version);
    MUST(ncclGetUniqueId(&id));
    memset(&nonsense, 7, sizeof nonsense);
    ncclConfig_t config = {0};
    set_quiet(true);
    CHECK(ncclCommInitRank(&comm, 1, nonsense, 0) == ncclInvalidArgument, "an id of one's own");
    CHECK(ncclCommInitRank(&comm, 1, id, 1) == ncclInvalidArgument, "rank 1 of 1");
    CHECK(ncclCommInitRankConfig(&comm, 1, id, 0, &config) == ncclInvalidArgument, "configuration not initialised");
    CHECK(ncclGroupEnd() == ncclInvalidUsage, "the end of no group");
    set_quiet(false);
    for (int blocking = 0; blocking < 2; blocking++) {
        MUST(ncclGetUniqueId(&id));
        comm = create(1, id, 0, blocking);
        MUST(ncclCommCount(comm, &count));
        MUST(ncclCommUserRank(comm, &rank));
        MUST(ncclCommCuDevice(comm, &device));
        CHECK(count == 1 && rank == 0 && device == 0, "%d %d %d", count, rank, device);
        float host[16] = {1, 2, 3}, got[16] = {0};
        buffer = device_copy(host, sizeof host);
        settled(comm, ncclAllReduce(buffer, buffer + 8, 8, ncclFloat32, ncclSum, comm, stream));
        CHECK(stream_ends(stream, 5), "a group of one waits");
        host_copy(got, buffer + 8, 32);
        CHECK(!memcmp(host, got, 32), "sum of one");
        set_quiet(true);
        CHECK(ncclBroadcast(buffer, buffer, 4, ncclFloat32, 1, comm, stream) == ncclInvalidArgument, "root 1 of 1");
        CHECK(ncclAllReduce(buffer, buffer, 4, (ncclDataType_t)99, ncclSum, comm, stream) == ncclInvalidArgument,
              "type 99");
        CHECK(ncclAllReduce(buffer, buffer, 4, ncclFloat32, ncclSum, NULL, stream) == ncclInvalidArgument, "no comm");
        set_quiet(false);
        destroy(comm);
    }
    MUST(ncclGetUniqueId(&id));
    alone_comm = create(1, id, 0, true);
    expect_death("use after destroy", use_after_destroy, "was destroyed");
    expect_death("use after abort", use_after_abort, "was aborted");
    expect_death("destroy with work under way", destroy_unfinished, "1 collectives unfinished");
    expect_death("buffers overlap", overlapping, "overlap, and not in place");
    expect_death("buffer misaligned", misaligned, "not aligned to its elements");
    expect_death("type that is not emulated", other_type, "not emulated");
    expect_death("beyond the allocation", beyond_allocation, "==cudaemu==");
    expect_death("buffer on the host", on_host, "==cudaemu==");
    expect_death("not a communicator", not_a_communicator, "is not a communicator");
    destroy(alone_comm);
}

/* --- under mpirun ------------------------------------------------------------------------------------------------- */

static int world_rank, world_size;

/* Everyone in `of` (a communicator of MPI) makes one NCCL communicator; its first rank makes the id. */
static ncclComm_t create_for(MPI_Comm of, bool blocking)
{
    int rank, size;
    ncclUniqueId id;
    MPI_Comm_rank(of, &rank);
    MPI_Comm_size(of, &size);
    if (rank == 0) MUST(ncclGetUniqueId(&id));
    MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, of);
    return create(size, id, rank, blocking);
}

enum { N = 1000 };

/* x(i) of a rank, chosen so that the order of additions shows in the last bits. */
static double value(int rank, int i)
{
    return (i % 7 - 3) * 0.1 + rank * 1e-3 * i + (rank == 1 ? 1e5 : 0);
}

static void finish(cudaStream_t on)
{
    CHECK(stream_ends(on, 20), "a collective does not end");
}

static void reductions(ncclComm_t comm)
{
    int rank, size;
    MUST(ncclCommUserRank(comm, &rank));
    MUST(ncclCommCount(comm, &size));
    float f[N], want_f[N], max_f[N], got_f[N];
    double d[N], want_d[N], got_d[N];
    int64_t l[N], want_l[N], max_l[N], got_l[N];
    for (int i = 0; i < N; i++) {
        for (int r = 0; r < size; r++) {
            float fv = (float)value(r, i);
            double dv = value(r, i);
            int64_t lv = (INT64_C(1) << 60) - 3 * r * i; /* beyond what a double holds */
            want_f[i] = r ? want_f[i] + fv : fv, max_f[i] = r && max_f[i] > fv ? max_f[i] : fv;
            want_d[i] = r ? want_d[i] + dv : dv;
            want_l[i] = r ? (int64_t)((uint64_t)want_l[i] + (uint64_t)lv) : lv;
            max_l[i] = r && max_l[i] > lv ? max_l[i] : lv;
            if (r == rank) f[i] = fv, d[i] = dv, l[i] = lv;
        }
    }
    float *df = device_copy(f, sizeof f), *of = device_copy(NULL, sizeof f), *mf = device_copy(f, sizeof f);
    double *dd = device_copy(d, sizeof d);
    int64_t *dl = device_copy(l, sizeof l), *ml = device_copy(l, sizeof l);
    settled(comm, ncclAllReduce(df, of, N, ncclFloat32, ncclSum, comm, stream));
    settled(comm, ncclAllReduce(mf, mf, N, ncclFloat32, ncclMax, comm, stream));
    settled(comm, ncclAllReduce(dd, dd, N, ncclFloat64, ncclSum, comm, stream));
    settled(comm, ncclAllReduce(dl, dl, N, ncclInt64, ncclSum, comm, stream));
    settled(comm, ncclAllReduce(ml, ml, N, ncclInt64, ncclMax, comm, stream));
    finish(stream);
    host_copy(got_f, of, sizeof f);
    CHECK(!memcmp(got_f, want_f, sizeof f), "sum of floats in the order of ranks");
    host_copy(got_f, df, sizeof f);
    CHECK(!memcmp(got_f, f, sizeof f), "the input changed");
    host_copy(got_f, mf, sizeof f);
    CHECK(!memcmp(got_f, max_f, sizeof f), "maximum of floats");
    host_copy(got_d, dd, sizeof d);
    CHECK(!memcmp(got_d, want_d, sizeof d), "sum of doubles");
    host_copy(got_l, dl, sizeof l);
    CHECK(!memcmp(got_l, want_l, sizeof l), "sum of integers");
    host_copy(got_l, ml, sizeof l);
    CHECK(!memcmp(got_l, max_l, sizeof l), "maximum of integers");
    MUST(cudaFree(df));
    MUST(cudaFree(of));
    MUST(cudaFree(mf));
    MUST(cudaFree(dd));
    MUST(cudaFree(dl));
    MUST(cudaFree(ml));
}

static void movements(ncclComm_t comm)
{
    int rank, size;
    MUST(ncclCommUserRank(comm, &rank));
    MUST(ncclCommCount(comm, &size));
    enum { PART = 6 };
    float *all = malloc(sizeof(float) * (size_t)(size * PART)), *got = malloc(sizeof(float) * (size_t)(size * PART));
    float mine[PART], bytes[PART];
    for (int i = 0; i < size * PART; i++) all[i] = (float)(rank + 10 * i);
    for (int i = 0; i < PART; i++) mine[i] = (float)(100 * rank + i), bytes[i] = (float)(7 * rank + i);
    size_t whole = sizeof(float) * (size_t)(size * PART);
    float *scattered = device_copy(all, whole), *part = device_copy(mine, sizeof mine);
    float *gathered = device_copy(NULL, whole), *sent = device_copy(bytes, sizeof bytes);
    float *in_place = device_copy(NULL, whole);
    MUST(cudaMemcpy(in_place + rank * PART, mine, sizeof mine, cudaMemcpyHostToDevice));
    int root = size - 1;
    MUST(ncclGroupStart());
    MUST(ncclAllGather(part, gathered, PART, ncclFloat32, comm, stream));
    MUST(ncclAllGather(in_place + rank * PART, in_place, PART, ncclFloat32, comm, stream));
    MUST(ncclReduceScatter(scattered, scattered + rank * PART, PART, ncclFloat32, ncclSum, comm, stream));
    MUST(ncclBroadcast(sent, sent, sizeof bytes, ncclUint8, root, comm, stream));
    settled(comm, ncclGroupEnd());
    finish(stream);
    for (int pass = 0; pass < 2; pass++) {
        host_copy(got, pass ? in_place : gathered, whole);
        for (int i = 0; i < size * PART; i++) CHECK(got[i] == 100 * (i / PART) + i % PART, "gathered %d", i);
    }
    host_copy(got, scattered + rank * PART, sizeof mine);
    for (int i = 0; i < PART; i++) {
        float want = 0;
        for (int r = 0; r < size; r++) want += (float)(r + 10 * (rank * PART + i));
        CHECK(got[i] == want, "scattered sum %d: %g, not %g", i, got[i], want);
    }
    host_copy(got, sent, sizeof bytes);
    for (int i = 0; i < PART; i++) CHECK(got[i] == 7 * root + i, "broadcast %d", i);
    MUST(cudaFree(scattered));
    MUST(cudaFree(part));
    MUST(cudaFree(gathered));
    MUST(cudaFree(sent));
    MUST(cudaFree(in_place));
    free(all), free(got);
}

/* Two collectives on two streams keep the order of their calls, whichever stream is waited for first. */
static void two_streams(ncclComm_t comm)
{
    cudaStream_t other;
    MUST(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    int rank;
    MUST(ncclCommUserRank(comm, &rank));
    float x = 1, *first = device_copy(&x, sizeof x), *second = device_copy(&x, sizeof x);
    settled(comm, ncclAllReduce(first, first, 1, ncclFloat32, ncclSum, comm, stream));
    settled(comm, ncclAllReduce(second, second, 1, ncclFloat32, ncclMax, comm, other));
    finish(rank % 2 ? other : stream);
    finish(rank % 2 ? stream : other);
    MUST(cudaFree(first));
    MUST(cudaFree(second));
    MUST(cudaStreamDestroy(other));
}

/* An event recorded before ncclCommGetAsyncError has said ncclSuccess does not cover the collective. */
static void event_too_early(ncclComm_t comm)
{
    cudaStream_t other;
    cudaEvent_t event;
    int size;
    MUST(ncclCommCount(comm, &size));
    if (size == 1) return;
    MUST(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    float x = 1, *sum = device_copy(&x, sizeof x), *copy = device_copy(&x, sizeof x), got;
    CHECK(ncclAllReduce(sum, sum, 1, ncclFloat32, ncclSum, comm, stream) == ncclInProgress, "at once");
    MUST(cudaEventRecord(event, stream));
    MUST(cudaStreamWaitEvent(other, event, 0));
    MUST(cudaMemcpyAsync(copy, sum, sizeof x, cudaMemcpyDeviceToDevice, other));
    CHECK(stream_ends(other, 5), "the early event is not recorded");
    settled(comm, ncclSuccess + settle(comm, 5));
    finish(stream);
    host_copy(&got, copy, sizeof got);
    CHECK(got == 1, "the early event saw the sum");
    host_copy(&got, sum, sizeof got);
    CHECK(got == (float)size, "sum %g", got);
    MUST(cudaStreamDestroy(other));
    MUST(cudaEventDestroy(event));
    MUST(cudaFree(sum));
    MUST(cudaFree(copy));
}

static void basic(void)
{
    for (int blocking = 0; blocking < 2; blocking++) {
        ncclComm_t world = create_for(MPI_COMM_WORLD, blocking);
        reductions(world);
        movements(world);
        two_streams(world);
        if (!blocking) event_too_early(world);
        /* fold groups: even and odd ranks beside each other, in reverse order, while the world's lives */
        MPI_Comm half;
        MPI_Comm_split(MPI_COMM_WORLD, world_rank % 2, -world_rank, &half);
        ncclComm_t fold = create_for(half, blocking);
        reductions(fold);
        movements(fold);
        reductions(world);
        destroy(fold);
        destroy(world);
        MPI_Comm_free(&half);
    }
}

/* Ranks that disagree: the process dies, and says how. */
static void mismatch(const char *what)
{
    ncclComm_t comm = create_for(MPI_COMM_WORLD, false);
    float *x = device_copy(NULL, 64);
    bool odd = world_rank % 2;
    if (!strcmp(what, "count"))
        settled(comm, ncclAllReduce(x, x, odd ? 3 : 4, ncclFloat32, ncclSum, comm, stream));
    else if (!strcmp(what, "type"))
        settled(comm, ncclAllReduce(x, x, 4, odd ? ncclFloat64 : ncclFloat32, ncclSum, comm, stream));
    else if (odd)
        settled(comm, ncclBroadcast(x, x, 4, ncclFloat32, 0, comm, stream));
    else
        settled(comm, ncclAllReduce(x, x, 4, ncclFloat32, ncclSum, comm, stream));
    stream_ends(stream, 20);
}

/* A peer that never comes to the creation: it stays in progress, and can be given up. */
static void absent(void)
{
    ncclUniqueId id;
    if (world_rank == 0) MUST(ncclGetUniqueId(&id));
    MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
    if (world_rank != world_size - 1) {
        ncclComm_t comm;
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        CHECK(ncclCommInitRankConfig(&comm, world_size, id, world_rank, &config) == ncclInProgress, "begins");
        CHECK(settle(comm, 0.5) == ncclInProgress, "a creation without its last rank ended");
        MUST(ncclCommAbort(comm));
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

/* CUDAEMU_NCCL_FAIL=1:2:<kind>, on two ranks: what each of them sees. */
static void fault(const char *kind)
{
    bool faulty = world_rank == 1, at_init = !strcmp(kind, "init");
    ncclComm_t comm;
    if (at_init) { /* the second creation */
        comm = create_for(MPI_COMM_WORLD, false);
        destroy(comm);
        ncclUniqueId id;
        if (world_rank == 0) MUST(ncclGetUniqueId(&id));
        MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        CHECK(ncclCommInitRankConfig(&comm, world_size, id, world_rank, &config) == ncclInProgress, "begins");
        ncclResult_t state = settle(comm, 0.5);
        CHECK(state == (faulty ? ncclInternalError : ncclInProgress), "creation: %d", state);
        MUST(ncclCommAbort(comm));
        MPI_Barrier(MPI_COMM_WORLD);
        return;
    }
    comm = create_for(MPI_COMM_WORLD, false);
    float x[4] = {1, 2, 3, 4}, got[4], *sum = device_copy(x, sizeof x);
    settled(comm, ncclAllReduce(sum, sum, 4, ncclFloat32, ncclSum, comm, stream));
    finish(stream);
    host_copy(got, sum, sizeof got);
    CHECK(got[3] == 8, "the first collective is sound: %g", got[3]);

    ncclResult_t issued = ncclAllReduce(sum, sum, 4, ncclFloat32, ncclSum, comm, stream), state = ncclSuccess;
    if (!strcmp(kind, "error") && faulty) {
        CHECK(issued == ncclSystemError, "issued: %d", issued);
    } else {
        CHECK(issued == ncclInProgress, "issued: %d", issued);
        state = settle(comm, 5);
    }
    bool reports = !strcmp(kind, "async") && faulty;
    CHECK(state == (reports ? ncclRemoteError : ncclSuccess), "asynchronous error %d", state);
    bool on_stream = strcmp(kind, "error") || !faulty;
    CHECK(stream_ends(stream, 0.5) == !on_stream, "the stream ends though a peer is missing");
    if (reports) {
        set_quiet(true);
        CHECK(ncclAllReduce(sum, sum, 4, ncclFloat32, ncclSum, comm, stream) == ncclRemoteError, "use after an error");
        set_quiet(false);
    }
    MUST(ncclCommAbort(comm));
    CHECK(stream_ends(stream, 5), "an aborted collective holds its stream");
    MUST(cudaStreamSynchronize(stream));
    MUST(cudaFree(sum));
    MPI_Barrier(MPI_COMM_WORLD); /* MPI itself is sound */
}

int test_nccl_ranks(int argc, char **argv)
{
    int provided;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world_size);
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    const char *what = argc > 0 ? argv[0] : "basic", *which = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "basic"))
        basic();
    else if (!strcmp(what, "mismatch"))
        mismatch(which);
    else if (!strcmp(what, "absent"))
        absent();
    else if (!strcmp(what, "fault"))
        fault(which);
    else
        test_failures = 1;
    printf("rank %d: nccl %s %s: %d checks, %d failed\n", world_rank, what, which, test_checks, test_failures);
    fflush(stdout);
    MPI_Finalize();
    return test_failures != 0;
}
