/* The world of ranks: start, end, who is where.
 *
 * MPI is started with MPI_THREAD_FUNNELED: only the main thread speaks to it. Errors of MPI come back as values
 * (MPI_ERRORS_RETURN) and become fb3_status. Which ranks share memory is MPI's own answer (MPI_Comm_split_type). */
#include "comm_internal.h"

#include "fb3/log.h"
#include <assert.h>
#include <limits.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Seconds that MPI_Abort gets to reach the launcher before the process ends on its own. */
enum { ABORT_GRACE_SECONDS = 5 };

enum { PATIENCE_SLEEP_SHARE = 32 };
static const double PATIENCE_AWAKE_SECONDS = 2e-3, PATIENCE_SLEEP_MAX_SECONDS = 5e-3;

fb3_status fb3_mpi_failed(int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    MPI_Error_string(code, text, &length);
    int name = (int)strcspn(call, "(");
    return fb3_fail(FB3_FAILED, "%.*s: %s; look for the first error of the other ranks", name, call, text);
}

fb3_patience fb3_patience_begin(void)
{
    return (fb3_patience){fb3_seconds()};
}

void fb3_patience_pause(const fb3_patience *patience)
{
    double waited = fb3_seconds() - patience->since;
    if (waited < PATIENCE_AWAKE_SECONDS) {
        sched_yield();
        return;
    }
    double nap = waited / PATIENCE_SLEEP_SHARE;
    if (nap > PATIENCE_SLEEP_MAX_SECONDS) nap = PATIENCE_SLEEP_MAX_SECONDS;
    nanosleep(&(struct timespec){.tv_nsec = (long)(nap * 1e9)}, NULL);
}

static long environment_number(const char *name)
{
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : 0;
}

/* Settings that Open MPI reads from the environment in MPI_Init; what the user has set stays.
 * - An idle rank gives its core away inside blocking calls too (start, windows, end): ranks that outnumber the cores
 *   take milliseconds for each of them otherwise, and the library cannot always tell that they do.
 * - The algorithm of the gradients, where mpirun says that the ranks are few (allreduce_mpi.c tells why only there). */
static void prepare_environment(void)
{
    long ranks = environment_number("OMPI_COMM_WORLD_SIZE");
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    if (ranks > 1 && ranks <= FB3_FEW_RANKS) setenv("OMPI_MCA_" FB3_IALLREDUCE_ALGORITHM, FB3_RABENSEIFNER, 0);
}

/* A launcher that this MPI library does not understand starts N processes that each believe to be alone, and N
 * trainings would write the same files. */
static fb3_status refuse_lonely_world(int size)
{
    static const struct {
        const char *variable, *launcher, *cure;
    } launchers[] = {
        {"SLURM_STEP_NUM_TASKS", "srun", "use srun --mpi=pmix, or start it with mpirun inside the allocation"},
        {"PMI_SIZE", "the launcher", "use the mpirun of the Open MPI that this program was built with"},
    };
    if (size > 1 || getenv("OMPI_COMM_WORLD_SIZE")) return FB3_OK;
    for (size_t i = 0; i < sizeof launchers / sizeof launchers[0]; i++) {
        long tasks = environment_number(launchers[i].variable);
        FB3_REQUIRE(tasks <= 1, FB3_INPUT, "%s started %ld processes (%s), but MPI sees a world of one in each; %s",
                    launchers[i].launcher, tasks, launchers[i].variable, launchers[i].cure);
    }
    return FB3_OK;
}

static fb3_status start_mpi(void)
{
    int started = 0, ended = 0, provided = 0;
    FB3_MPI(MPI_Initialized(&started));
    FB3_MPI(MPI_Finalized(&ended));
    assert(!started && !ended);
    (void)started;
    (void)ended;
    prepare_environment();
    FB3_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
    FB3_REQUIRE(provided >= MPI_THREAD_FUNNELED, FB3_FAILED,
                "this MPI library has no thread support (MPI_THREAD_FUNNELED); use another build of it");
    return FB3_OK;
}

fb3_status fb3_comm_split_by_node(fb3_comm *comm)
{
    FB3_MPI(MPI_Comm_split_type(comm->all, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &comm->node));
    FB3_MPI(MPI_Comm_rank(comm->node, &comm->node_rank));
    FB3_MPI(MPI_Comm_size(comm->node, &comm->node_size));
    comm->node_leader = comm->rank;
    FB3_MPI(MPI_Bcast(&comm->node_leader, 1, MPI_INT, 0, comm->node));
    return FB3_OK;
}

static void short_host_name(char *host, size_t bytes)
{
    if (gethostname(host, bytes) != 0) host[0] = 0;
    host[bytes - 1] = 0;
    host[strcspn(host, ".")] = 0;
}

static fb3_status open_world(fb3_comm *comm, bool distributed)
{
    FB3_TRY(start_mpi());
    FB3_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    FB3_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &comm->rank));
    FB3_MPI(MPI_Comm_size(MPI_COMM_WORLD, &comm->size));
    fb3_log_identity(comm->rank, comm->size, comm->host);
    fb3_watchdog_identify(comm->watchdog, comm->rank, comm->size, comm->host);
    if (distributed) FB3_TRY(refuse_lonely_world(comm->size));
    FB3_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &comm->all));
    return fb3_comm_split_by_node(comm);
}

fb3_status fb3_comm_start(fb3_comm **comm, bool distributed, int64_t timeout_seconds)
{
    *comm = NULL;
    fb3_status status = FB3_OK;
    fb3_comm *made = calloc(1, sizeof *made);
    FB3_REQUIRE(made, FB3_FAILED, "out of memory; free memory and run again");
    made->all = made->node = MPI_COMM_NULL;
    made->size = made->node_size = 1;
    made->threads = omp_get_max_threads();
    made->cores = omp_get_num_procs();
    short_host_name(made->host, sizeof made->host);
    made->timeout = timeout_seconds;
    FB3_TRY_GOTO(fb3_watchdog_start(&made->watchdog, timeout_seconds), failed);
    fb3_watchdog_begin(made->watchdog, FB3_WATCH_PEERS, "start of MPI", FB3_WATCH_NO_STEP);
    status = open_world(made, distributed);
    fb3_watchdog_end(made->watchdog);
    if (status != FB3_OK) goto failed;
    FB3_TRY_GOTO(fb3_node_windows_open(made), failed);
    *comm = made;
    return FB3_OK;
failed:
    fb3_comm_finish(made);
    return status;
}

void fb3_comm_finish(fb3_comm *comm)
{
    if (!comm) return;
    if (comm->watchdog) fb3_watchdog_begin(comm->watchdog, FB3_WATCH_PEERS, "end of MPI", FB3_WATCH_NO_STEP);
    fb3_node_windows_close(comm);
    if (comm->node != MPI_COMM_NULL) MPI_Comm_free(&comm->node);
    if (comm->all != MPI_COMM_NULL) MPI_Comm_free(&comm->all);
    int started = 0, ended = 0;
    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    if (started && !ended) MPI_Finalize();
    fb3_watchdog_stop(comm->watchdog);
    free(comm);
}

/* MPI_Abort asks the launcher to end the job, and waits; when nobody answers, the process still ends. */
static void *end_after_grace(void *code)
{
    sleep(ABORT_GRACE_SECONDS);
    _exit(*(const int *)code);
}

void fb3_comm_abort(int code)
{
    pthread_t grace;
    bool guarded = pthread_create(&grace, NULL, end_after_grace, &code) == 0;
    fflush(stdout);
    int started = 0, ended = 0, size = 1;
    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    if (started && !ended) MPI_Comm_size(MPI_COMM_WORLD, &size);
    /* A world of one has nobody to tell, and MPI_Abort would add its own lines to ours. */
    if (size > 1 && guarded) {
        /* The launcher reads our error line and learns of the abort by two ways: the line is to come out first. */
        const struct timespec head_start = {.tv_nsec = 200 * 1000 * 1000};
        nanosleep(&head_start, NULL);
        MPI_Abort(MPI_COMM_WORLD, code);
    }
    _exit(code);
}

int fb3_comm_rank(const fb3_comm *comm)
{
    return comm->rank;
}

int fb3_comm_size(const fb3_comm *comm)
{
    return comm->size;
}

int fb3_comm_node_rank(const fb3_comm *comm)
{
    return comm->node_rank;
}

int fb3_comm_node_size(const fb3_comm *comm)
{
    return comm->node_size;
}

bool fb3_comm_root(const fb3_comm *comm)
{
    return comm->rank == 0;
}

fb3_node_memory *fb3_comm_node_memory(fb3_comm *comm)
{
    return &comm->memory;
}

fb3_status fb3_comm_forget_memory(fb3_comm *comm)
{
    fb3_watchdog_begin(comm->watchdog, FB3_WATCH_PEERS, "memory shared by the node", FB3_WATCH_NO_STEP);
    fb3_node_windows_close(comm);
    fb3_status status = fb3_node_windows_open(comm);
    fb3_watchdog_end(comm->watchdog);
    return status;
}

/* Node numbers count the nodes in the order of their first ranks. On entry `node` holds the leader's world rank. */
static void number_nodes(fb3_rank_info *info, int size)
{
    int nodes = 0;
    for (int r = 0; r < size; r++) {
        int leader = info[r].node;
        info[r].node = leader == r ? nodes++ : info[leader].node;
    }
}

fb3_status fb3_comm_gather_info(fb3_comm *comm, const char *device, const char *device_id, fb3_rank_info *info)
{
    fb3_rank_info mine = {.rank = comm->rank,
                          .node_rank = comm->node_rank,
                          .node = comm->node_leader,
                          .cores = comm->cores,
                          .threads = comm->threads};
    snprintf(mine.host, sizeof mine.host, "%s", comm->host);
    snprintf(mine.device, sizeof mine.device, "%s", device);
    snprintf(mine.device_id, sizeof mine.device_id, "%s", device_id);
    info[comm->rank] = mine;
    FB3_TRY(fb3_comm_share_table(comm, info, sizeof mine, "table of ranks"));
    number_nodes(info, comm->size);
    return FB3_OK;
}

const char *fb3_comm_library_version(void)
{
    static char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    if (MPI_Get_library_version(version, &length) != MPI_SUCCESS) return "unknown MPI";
    version[strcspn(version, ",\n")] = 0; /* "Open MPI v4.1.4", without the build's host and user */
    return version;
}
