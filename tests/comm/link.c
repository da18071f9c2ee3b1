/* What the ranks' network does, for tools/scale-model --validate: every number by itself, none from a training.
 *
 *   comm_link REPEATS BYTES...      the ranges of a gradient, in bytes; an even number of ranks
 *
 * Prints, as JSON: `hop`, seconds that four bytes take from rank 0 to rank 1; `rate`, bytes per second from rank
 * 0 to rank 1, while all other pairs of neighbours do the same; `control`, seconds of a short collective;
 * `all_reduce`, seconds of the sum of the ranges by the program's own reducer, one for each repeat. */
#include "fb3/clock.h"
#include "fb3/comm.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_SECONDS = 120, TRIES = 200, MESSAGE_BYTES = 4 << 20, IN_FLIGHT = 4, WARM_UP = 4, MESSAGES = 24 };

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts x. Other processes take the cores now and then, which is not the network's. */
static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return x[n / 2];
}

static double hop(int rank)
{
    int token = 0;
    double seconds[TRIES];
    for (int i = 0; i < TRIES && rank < 2; i++) {
        seconds[i] = fb3_seconds();
        for (int sender = 0; sender < 2; sender++) {
            if (rank == sender)
                MPI_Send(&token, 1, MPI_INT, 1 - rank, 0, MPI_COMM_WORLD);
            else
                MPI_Recv(&token, 1, MPI_INT, 1 - rank, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        }
        seconds[i] = (fb3_seconds() - seconds[i]) / 2;
    }
    return rank < 2 ? median(seconds, TRIES) : 0;
}

/* From each even rank to the odd one after it, some messages in flight all the time. Not both ways at once: the library
 * asks before it sends a large message, and on a slow link the answer would wait behind what goes the other way. */
static double rate(int rank, char *memory)
{
    MPI_Request requests[IN_FLIGHT];
    double started = 0;
    for (int i = 0; i < WARM_UP + MESSAGES + IN_FLIGHT; i++) {
        int slot = i % IN_FLIGHT;
        char *at = memory + (size_t)slot * MESSAGE_BYTES;
        if (i >= IN_FLIGHT) MPI_Wait(&requests[slot], MPI_STATUS_IGNORE);
        if (i == WARM_UP + IN_FLIGHT - 1) started = fb3_seconds(); /* the last of the warm-up has arrived */
        if (i >= WARM_UP + MESSAGES) continue;
        if (rank % 2 == 0)
            MPI_Isend(at, MESSAGE_BYTES, MPI_BYTE, rank + 1, 0, MPI_COMM_WORLD, &requests[slot]);
        else
            MPI_Irecv(at, MESSAGE_BYTES, MPI_BYTE, rank - 1, 0, MPI_COMM_WORLD, &requests[slot]);
    }
    double here = (double)MESSAGES * MESSAGE_BYTES / (fb3_seconds() - started), there = 0;
    if (rank == 1) MPI_Send(&here, 1, MPI_DOUBLE, 0, 0, MPI_COMM_WORLD); /* who receives knows when it is there */
    if (rank == 0) MPI_Recv(&there, 1, MPI_DOUBLE, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return there;
}

static fb3_status control(fb3_comm *comm, double *seconds)
{
    int64_t flag = 0;
    double each[TRIES];
    for (int i = 0; i < TRIES; i++) {
        each[i] = fb3_seconds();
        FB3_TRY(fb3_comm_max_int64(comm, &flag, 1, "control"));
        each[i] = fb3_seconds() - each[i];
    }
    *seconds = median(each, TRIES);
    return FB3_OK;
}

static fb3_status all_reduce(fb3_comm *comm, fb3_reducer *reducer, int ranges, char **bytes, double *seconds)
{
    double total = 0;
    for (int i = 0; i < ranges; i++) total += strtod(bytes[i], NULL);
    float *x = calloc((size_t)total, 1), *at = x;
    FB3_REQUIRE(x, FB3_FAILED, "out of memory");
    fb3_status status = fb3_comm_barrier(comm, "before the sum");
    double started = fb3_seconds();
    for (int i = 0; status == FB3_OK && i < ranges; i++) {
        int64_t count = strtoll(bytes[i], NULL, 10) / (int64_t)sizeof *x;
        status = reducer->ops->start(reducer, at, count);
        at += count;
    }
    if (status == FB3_OK) status = reducer->ops->wait(reducer, 0);
    *seconds = fb3_seconds() - started;
    free(x);
    return status;
}

static fb3_status measure(fb3_comm *comm, int repeats, int ranges, char **bytes)
{
    int rank = fb3_comm_rank(comm);
    double short_seconds = 0, seconds = 0;
    fb3_reducer *reducer;
    char *memory = calloc(IN_FLIGHT, MESSAGE_BYTES);
    FB3_REQUIRE(memory && fb3_comm_size(comm) % 2 == 0, FB3_INPUT, "an even number of ranks, and memory, are needed");
    double one_way = hop(rank);
    FB3_TRY(fb3_comm_barrier(comm, "hops"));
    double bytes_per_second = rate(rank, memory);
    free(memory);
    FB3_TRY(control(comm, &short_seconds));
    if (rank == 0)
        printf("{\"ranks\": %d, \"hop\": %.9f, \"rate\": %.0f, \"control\": %.9f, \"all_reduce\": [",
               fb3_comm_size(comm), one_way, bytes_per_second, short_seconds);
    FB3_TRY(fb3_reducer_create_mpi(&reducer, comm));
    for (int i = -1; i < repeats; i++) { /* the first one touches memory for the first time */
        FB3_TRY(all_reduce(comm, reducer, ranges, bytes, &seconds));
        if (rank == 0 && i >= 0) printf("%s%.6f", i ? ", " : "", seconds);
    }
    if (rank == 0) printf("]}\n");
    reducer->ops->destroy(reducer);
    return FB3_OK;
}

int main(int argc, char **argv)
{
    fb3_comm *comm = NULL;
    if (argc < 3) return FB3_INPUT;
    fb3_status status = fb3_comm_start(&comm, true, TIMEOUT_SECONDS);
    if (status == FB3_OK) status = fb3_comm_bind(comm, true);
    if (status == FB3_OK) status = measure(comm, atoi(argv[1]), argc - 2, argv + 2);
    if (status != FB3_OK) fprintf(stderr, "%s\n", fb3_error_text());
    fb3_comm_finish(comm);
    return status;
}
