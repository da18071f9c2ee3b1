/* Collective operations with names and deadlines.
 *
 * Each one is a non-blocking MPI call, looked at until it is done: a rank that waits neither burns a core that others
 * need nor waits past the watchdog's deadline. A world of one sends nothing. */
#include "comm_internal.h"
#include "fb3/trace.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* MPI counts are int, so large transfers go in pieces. */
enum { PIECE_BYTES = 1 << 26, PIECE_FLOATS = PIECE_BYTES / (int)sizeof(float) };

enum { STATUS_TEXT_BYTES = 2048 };

int fb3_comm_wait_all(MPI_Request *requests, int count)
{
    fb3_patience patience = fb3_patience_begin();
    int done = 0, code = MPI_SUCCESS;
    while (!done && code == MPI_SUCCESS) {
        code = MPI_Testall(count, requests, &done, MPI_STATUSES_IGNORE);
        if (!done) fb3_patience_pause(&patience);
    }
    return code;
}

fb3_status fb3_comm_complete(fb3_comm *comm, MPI_Request *request, const char *what)
{
    double begin = fb3_trace_begin();
    fb3_watchdog_begin(comm->watchdog, FB3_WATCH_PEERS, what, FB3_WATCH_NO_STEP);
    int code = fb3_comm_wait_all(request, 1);
    fb3_watchdog_end(comm->watchdog);
    fb3_trace_end(begin, "communication", what, NULL, 0);
    if (code != MPI_SUCCESS) return fb3_fail_context(fb3_mpi_failed(code, "MPI_Testall"), "%s", what);
    return FB3_OK;
}

fb3_status fb3_comm_barrier(fb3_comm *comm, const char *what)
{
    if (comm->size == 1) return FB3_OK;
    MPI_Request request;
    FB3_MPI(MPI_Ibarrier(comm->all, &request));
    return fb3_comm_complete(comm, &request, what);
}

fb3_status fb3_comm_broadcast(fb3_comm *comm, void *data, size_t bytes, int root, const char *what)
{
    if (comm->size == 1) return FB3_OK;
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        size_t piece = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
        MPI_Request request;
        FB3_MPI(MPI_Ibcast((char *)data + at, (int)piece, MPI_BYTE, root, comm->all, &request));
        FB3_TRY(fb3_comm_complete(comm, &request, what));
    }
    return FB3_OK;
}

/* MPI leaves the order of a sum to the library, so the terms are gathered and added here. */
fb3_status fb3_comm_sum_double(fb3_comm *comm, double *x, int count, const char *what)
{
    if (comm->size == 1 || count == 0) return FB3_OK;
    fb3_status status = FB3_OK;
    double *all = malloc((size_t)comm->size * (size_t)count * sizeof *all); // [size, count]
    FB3_REQUIRE(all, FB3_FAILED, "%s: out of memory; free memory and run again", what);
    memcpy(all + (size_t)comm->rank * (size_t)count, x, (size_t)count * sizeof *x);
    FB3_TRY_GOTO(fb3_comm_share_table(comm, all, (size_t)count * sizeof *all, what), done);
    for (int i = 0; i < count; i++) {
        double sum = all[i];
        for (int r = 1; r < comm->size; r++) sum += all[(size_t)r * (size_t)count + (size_t)i];
        x[i] = sum;
    }
done:
    free(all);
    return status;
}

static void keep_larger(void *mine, const void *theirs, size_t bytes)
{
    int64_t *x = mine;
    const int64_t *y = theirs;
    for (size_t i = 0; i < bytes / sizeof *x; i++)
        if (y[i] > x[i]) x[i] = y[i];
}

fb3_status fb3_comm_max_int64(fb3_comm *comm, int64_t *x, int count, const char *what)
{
    if (comm->size == 1 || count == 0) return FB3_OK;
    return fb3_comm_share_best(comm, comm->all, x, (size_t)count * sizeof *x, keep_larger, what);
}

static fb3_status receive_floats(fb3_comm *comm, float *x, int64_t count, int from, const char *what)
{
    for (int64_t at = 0; at < count; at += PIECE_FLOATS) {
        int piece = (int)(count - at < PIECE_FLOATS ? count - at : PIECE_FLOATS);
        MPI_Request request;
        FB3_MPI(MPI_Irecv(x + at, piece, MPI_FLOAT, from, FB3_TAG_GATHER, comm->all, &request));
        FB3_TRY(fb3_comm_complete(comm, &request, what));
    }
    return FB3_OK;
}

static fb3_status send_floats(fb3_comm *comm, const float *x, int64_t count, int to, const char *what)
{
    for (int64_t at = 0; at < count; at += PIECE_FLOATS) {
        int piece = (int)(count - at < PIECE_FLOATS ? count - at : PIECE_FLOATS);
        MPI_Request request;
        FB3_MPI(MPI_Isend(x + at, piece, MPI_FLOAT, to, FB3_TAG_GATHER, comm->all, &request));
        FB3_TRY(fb3_comm_complete(comm, &request, what));
    }
    return FB3_OK;
}

fb3_status fb3_comm_gather_floats(fb3_comm *comm, const float *mine, float *all, const int64_t *counts, int root,
                                  const char *what)
{
    if (comm->rank != root) return send_floats(comm, mine, counts[comm->rank], root, what);
    for (int r = 0; r < comm->size; r++) {
        if (r != root)
            FB3_TRY(receive_floats(comm, all, counts[r], r, what));
        else if (counts[r] > 0)
            memmove(all, mine, (size_t)counts[r] * sizeof *all);
        all += counts[r];
    }
    return FB3_OK;
}

/* Every rank gets root's status and error text. */
static fb3_status share_status(fb3_comm *comm, MPI_Comm channel, int root, fb3_status root_status, const char *what)
{
    struct {
        int32_t status;
        char text[STATUS_TEXT_BYTES];
    } message = {.status = (int32_t)root_status};
    if (root_status != FB3_OK) snprintf(message.text, sizeof message.text, "%s", fb3_error_text());
    MPI_Request request;
    FB3_MPI(MPI_Ibcast(&message, (int)sizeof message, MPI_BYTE, root, channel, &request));
    FB3_TRY(fb3_comm_complete(comm, &request, what));
    if (message.status == FB3_OK) return FB3_OK;
    return fb3_fail((fb3_status)message.status, "%s", message.text);
}

/* A stop that was asked for is hardly an error; what the user can mend explains more than what it led to. */
static const fb3_status by_severity[] = {FB3_OK, FB3_STOPPED, FB3_FAILED, FB3_INPUT};

static int severity(fb3_status status)
{
    int level = 0;
    while (by_severity[level] != status) level++;
    return level;
}

typedef struct outcome {
    int severity, rank;
} outcome;

/* Of equals, the lowest rank. */
static void keep_worse(void *mine, const void *theirs, size_t bytes)
{
    outcome *a = mine;
    const outcome *b = theirs;
    (void)bytes;
    if (b->severity > a->severity || (b->severity == a->severity && b->rank < a->rank)) *a = *b;
}

fb3_status fb3_comm_worst(fb3_comm *comm, MPI_Comm channel, fb3_status mine, const char *what, int *rank)
{
    outcome worst = {.severity = severity(mine)};
    if (rank) *rank = -1;
    FB3_MPI(MPI_Comm_rank(channel, &worst.rank));
    FB3_TRY(fb3_comm_share_best(comm, channel, &worst, sizeof worst, keep_worse, what));
    if (worst.severity == severity(FB3_OK)) return FB3_OK;
    if (rank) *rank = worst.rank;
    return share_status(comm, channel, worst.rank, mine, what);
}

fb3_status fb3_comm_agree(fb3_comm *comm, fb3_status mine, const char *what)
{
    int rank;
    if (comm->size == 1) return mine;
    fb3_status status = fb3_comm_worst(comm, comm->all, mine, what, &rank);
    return rank < 0 ? status : fb3_fail_context(status, "rank %d", fb3_comm_world_rank(comm, rank));
}

fb3_status fb3_comm_check_same(fb3_comm *comm, const char *hex, const char *what)
{
    char first[128] = "";
    snprintf(first, sizeof first, "%s", hex);
    FB3_TRY(fb3_comm_broadcast(comm, first, sizeof first, 0, what));
    fb3_status status = FB3_OK;
    if (strcmp(first, hex) != 0)
        status = fb3_fail(FB3_FAILED,
                          "%s: its hash %.12s is not rank 0's %.12s; check that all nodes see the same files, program "
                          "and configuration",
                          what, hex, first);
    return fb3_comm_agree(comm, status, what);
}

void fb3_comm_watch_begin(fb3_comm *comm, const char *what, int64_t step)
{
    fb3_watchdog_begin(comm->watchdog, FB3_WATCH_FILES, what, step);
}

void fb3_comm_watch_device_begin(fb3_comm *comm, int64_t step)
{
    fb3_watchdog_begin(comm->watchdog, FB3_WATCH_DEVICE, "work on the device", step);
}

void fb3_comm_watch_end(fb3_comm *comm)
{
    fb3_watchdog_end(comm->watchdog);
}

/* --- work of the root that the others wait for -------------------------------------------------------------------- */

/* Signs of life per deadline: several, so that one that is late does no harm. */
enum { SIGNS_PER_DEADLINE = 8 };

static fb3_status send_sign(fb3_comm *comm, int alive)
{
    comm->last_sign = fb3_seconds();
    return fb3_comm_broadcast(comm, &alive, sizeof alive, 0, comm->root_work);
}

void fb3_comm_root_begins(fb3_comm *comm, const char *what)
{
    comm->root_work = what;
    comm->last_sign = fb3_seconds();
    if (comm->rank == 0) fb3_watchdog_begin(comm->watchdog, FB3_WATCH_FILES, what, FB3_WATCH_NO_STEP);
}

fb3_status fb3_comm_root_goes_on(fb3_comm *comm)
{
    fb3_watchdog_end(comm->watchdog);
    fb3_status status = FB3_OK;
    double silent = fb3_seconds() - comm->last_sign;
    if (silent > (double)comm->timeout / SIGNS_PER_DEADLINE) status = send_sign(comm, 1);
    fb3_watchdog_begin(comm->watchdog, FB3_WATCH_FILES, comm->root_work, FB3_WATCH_NO_STEP);
    return status;
}

fb3_status fb3_comm_root_ends(fb3_comm *comm, fb3_status mine)
{
    if (comm->rank == 0) {
        fb3_watchdog_end(comm->watchdog);
        fb3_status sent = send_sign(comm, 0);
        if (mine == FB3_OK) mine = sent;
    } else {
        for (int alive = 1; alive;) {
            FB3_TRY(fb3_comm_broadcast(comm, &alive, sizeof alive, 0, comm->root_work));
        }
    }
    return fb3_comm_agree(comm, mine, comm->root_work);
}
