/* Short collectives: tables of a few bytes a rank, maxima, agreements.
 *
 * MPI has them, but a wait with a deadline needs the non-blocking ones, and those of Open MPI (coll/libnbc 4.1) do not
 * scale: an all-gather is a message from every rank to every other, and an all-reduce of less than an element a rank
 * goes once around a ring, with the algorithm that the gradients need (allreduce_mpi.c). At 512 ranks that would be
 * 260,000 messages for the loss of a step, and a thousand hops one after another to agree whether to stop. Here each
 * rank sends ceil(log2 ranks) messages, in as many rounds. */
#include "comm_internal.h"
#include "fb3/trace.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* One round: `out` goes `distance` ranks down, and what comes from as many ranks up is in `in`. */
static int exchange(MPI_Comm channel, int rank, int size, int distance, const void *out, void *in, int bytes)
{
    MPI_Request requests[2];
    int down = (rank - distance + size) % size, up = (rank + distance) % size;
    int code = MPI_Irecv(in, bytes, MPI_BYTE, up, FB3_TAG_SHORT, channel, &requests[0]);
    if (code == MPI_SUCCESS) code = MPI_Isend(out, bytes, MPI_BYTE, down, FB3_TAG_SHORT, channel, &requests[1]);
    return code == MPI_SUCCESS ? fb3_comm_wait_all(requests, 2) : code;
}

static double begin_watch(fb3_comm *comm, const char *what)
{
    fb3_watchdog_begin(comm->watchdog, FB3_WATCH_PEERS, what, FB3_WATCH_NO_STEP);
    return fb3_trace_begin();
}

static fb3_status end_watch(fb3_comm *comm, const char *what, double begin, int code)
{
    fb3_watchdog_end(comm->watchdog);
    fb3_trace_end(begin, "communication", what, NULL, 0);
    return code == MPI_SUCCESS ? FB3_OK : fb3_fail_context(fb3_mpi_failed(code, "a message between ranks"), "%s", what);
}

/* Bruck's algorithm: `known` begins with this rank's row, then the next ranks'; each round doubles what is known. */
static int share_rows(const fb3_comm *comm, char *known, size_t row_bytes)
{
    int code = MPI_SUCCESS;
    for (int rows = 1; code == MPI_SUCCESS && rows < comm->size; rows *= 2) {
        int more = comm->size - rows < rows ? comm->size - rows : rows;
        code = exchange(comm->all, comm->rank, comm->size, rows, known, known + (size_t)rows * row_bytes,
                        (int)((size_t)more * row_bytes));
    }
    return code;
}

fb3_status fb3_comm_share_table(fb3_comm *comm, void *table, size_t row_bytes, const char *what)
{
    const size_t size = (size_t)comm->size, rank = (size_t)comm->rank;
    if (size == 1) return FB3_OK;
    FB3_REQUIRE(row_bytes <= INT_MAX / size, FB3_FAILED, "%s: %zu bytes of each of %zu ranks are too many", what,
                row_bytes, size);
    char *rows = table, *known = malloc(size * row_bytes); // [size, row_bytes]
    FB3_REQUIRE(known, FB3_FAILED, "%s: out of memory; free memory and run again", what);
    memcpy(known, rows + rank * row_bytes, row_bytes);
    double begin = begin_watch(comm, what);
    fb3_status status = end_watch(comm, what, begin, share_rows(comm, known, row_bytes));
    memcpy(rows + rank * row_bytes, known, (size - rank) * row_bytes);
    memcpy(rows, known + (size - rank) * row_bytes, rank * row_bytes);
    free(known);
    return status;
}

/* Each round doubles the ranks whose values are in `mine`; the last one may bring some of them twice. */
static int share_values(MPI_Comm channel, void *mine, void *theirs, int bytes,
                        void (*keep)(void *mine, const void *theirs, size_t bytes))
{
    int rank = 0, size = 0, code = MPI_Comm_rank(channel, &rank);
    if (code == MPI_SUCCESS) code = MPI_Comm_size(channel, &size);
    for (int distance = 1; code == MPI_SUCCESS && distance < size; distance *= 2) {
        code = exchange(channel, rank, size, distance, mine, theirs, bytes);
        if (code == MPI_SUCCESS) keep(mine, theirs, (size_t)bytes);
    }
    return code;
}

fb3_status fb3_comm_share_best(fb3_comm *comm, MPI_Comm channel, void *mine, size_t bytes,
                               void (*keep)(void *mine, const void *theirs, size_t bytes), const char *what)
{
    FB3_REQUIRE(bytes <= INT_MAX, FB3_FAILED, "%s: %zu bytes are too many", what, bytes);
    void *theirs = malloc(bytes);
    FB3_REQUIRE(theirs, FB3_FAILED, "%s: out of memory; free memory and run again", what);
    double begin = begin_watch(comm, what);
    fb3_status status = end_watch(comm, what, begin, share_values(channel, mine, theirs, (int)bytes, keep));
    free(theirs);
    return status;
}
