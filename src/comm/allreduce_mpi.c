/* The gradient all-reduce over MPI: fb3_reducer_ops named "mpi".
 *
 * A range is cut into pieces of a constant size, each an in-place MPI_Iallreduce. A few of them are in flight, in the
 * order in which they were posted, which is the same on all ranks; the rest wait in a queue. The cuts follow from the
 * ranges alone, never from timing, so the same run gives the same bits, and every rank gets the same ones (a test
 * says so).
 *
 * Measured with 100 MB on two ranks of one node: 4 MB pieces, four in flight, Rabenseifner's algorithm, 5.7
 * GB/s; more bytes in flight run out of the cache and into page faults of the library's own buffers (16 MB pieces 3.4
 * GB/s, one piece 3.0 GB/s). MPI does not move on by itself: poll() does. */
#include "comm_internal.h"
#include "fb3/trace.h"

#include <assert.h>
#include <malloc.h>
#include <stdlib.h>

enum { PIECE_BYTES = 1 << 22, IN_FLIGHT_MAX = 4, QUEUE_FIRST_CAPACITY = 64 };

enum { IN_FLIGHT_BYTES = IN_FLIGHT_MAX * PIECE_BYTES };

typedef struct piece {
    void *x; // [count]
    int count;
    MPI_Datatype type;
} piece;

typedef struct mpi_reducer {
    fb3_reducer base;
    fb3_comm *comm;
    MPI_Comm channel; /* the pieces never meet the control collectives */
    MPI_Request in_flight[IN_FLIGHT_MAX];
    int flying;
    piece *queue; // [capacity], pieces [head, tail) wait to be posted
    int64_t head, tail, capacity;
} mpi_reducer;

static fb3_status queue_piece(mpi_reducer *reducer, piece next)
{
    if (reducer->head == reducer->tail) reducer->head = reducer->tail = 0;
    if (reducer->tail == reducer->capacity) {
        int64_t capacity = reducer->capacity ? 2 * reducer->capacity : QUEUE_FIRST_CAPACITY;
        piece *grown = realloc(reducer->queue, (size_t)capacity * sizeof *grown);
        FB3_REQUIRE(grown, FB3_FAILED, "out of memory; free memory and run again");
        reducer->queue = grown;
        reducer->capacity = capacity;
    }
    reducer->queue[reducer->tail++] = next;
    return FB3_OK;
}

static fb3_status post_pieces(mpi_reducer *reducer)
{
    while (reducer->flying < IN_FLIGHT_MAX && reducer->head < reducer->tail) {
        piece next = reducer->queue[reducer->head++];
        FB3_MPI(MPI_Iallreduce(MPI_IN_PLACE, next.x, next.count, next.type, MPI_SUM, reducer->channel,
                               &reducer->in_flight[reducer->flying++]));
    }
    return FB3_OK;
}

static fb3_status start(fb3_reducer *base, void *x, int64_t count, int bytes_each, MPI_Datatype type)
{
    mpi_reducer *reducer = (mpi_reducer *)base;
    const int64_t whole = PIECE_BYTES / bytes_each;
    assert(count >= 0);
    if (reducer->comm->size == 1) return FB3_OK;
    for (int64_t at = 0; at < count; at += whole) {
        int size = (int)(count - at < whole ? count - at : whole);
        FB3_TRY(queue_piece(reducer, (piece){(char *)x + at * bytes_each, size, type}));
    }
    base->bytes += count * bytes_each;
    return post_pieces(reducer);
}

static fb3_status start_mpi(fb3_reducer *base, float *x, int64_t count)
{
    return start(base, x, count, sizeof *x, MPI_FLOAT);
}

static fb3_status start_int64_mpi(fb3_reducer *base, int64_t *x, int64_t count)
{
    return start(base, x, count, sizeof *x, MPI_INT64_T);
}

/* Looks at the pieces in flight and posts the next ones; `landed` says how many are done. */
static fb3_status move_on(mpi_reducer *reducer, int *landed)
{
    int indices[IN_FLIGHT_MAX];
    *landed = 0;
    if (reducer->flying == 0) return FB3_OK;
    FB3_MPI(MPI_Testsome(reducer->flying, reducer->in_flight, landed, indices, MPI_STATUSES_IGNORE));
    if (*landed == 0) return FB3_OK;
    int still_flying = 0;
    for (int i = 0; i < reducer->flying; i++)
        if (reducer->in_flight[i] != MPI_REQUEST_NULL) reducer->in_flight[still_flying++] = reducer->in_flight[i];
    reducer->flying = still_flying;
    return post_pieces(reducer);
}

static fb3_status poll_mpi(fb3_reducer *base)
{
    int landed;
    return move_on((mpi_reducer *)base, &landed);
}

static fb3_status drain(mpi_reducer *reducer)
{
    fb3_patience patience = fb3_patience_begin();
    while (reducer->flying > 0) {
        int landed;
        FB3_TRY(move_on(reducer, &landed));
        if (landed > 0)
            patience = fb3_patience_begin(); /* the sums are moving: no reason to sleep */
        else
            fb3_patience_pause(&patience);
    }
    return FB3_OK;
}

static fb3_status wait_mpi(fb3_reducer *base, int64_t step)
{
    mpi_reducer *reducer = (mpi_reducer *)base;
    if (reducer->flying == 0) return FB3_OK;
    double start = fb3_seconds(), begin = fb3_trace_begin();
    fb3_watchdog_begin(reducer->comm->watchdog, FB3_WATCH_PEERS, "gradient all-reduce", step);
    fb3_status status = drain(reducer);
    fb3_watchdog_end(reducer->comm->watchdog);
    base->wait_seconds += fb3_seconds() - start;
    fb3_trace_end(begin, "communication", "wait for the gradient all-reduce", "bytes so far", (double)base->bytes);
    return status;
}

static fb3_status sum_double_mpi(fb3_reducer *base, double *x, int count)
{
    return fb3_comm_sum_double(((mpi_reducer *)base)->comm, x, count, "summing the loss");
}

static void destroy_mpi(fb3_reducer *base)
{
    mpi_reducer *reducer = (mpi_reducer *)base;
    if (!reducer) return;
    if (reducer->channel != MPI_COMM_NULL) MPI_Comm_free(&reducer->channel);
    free(reducer->queue);
    free(reducer);
}

static const fb3_reducer_ops reducer_ops_mpi = {
    .name = "mpi",
    .start = start_mpi,
    .start_int64 = start_int64_mpi,
    .poll = poll_mpi,
    .wait = wait_mpi,
    .sum_double = sum_double_mpi,
    .destroy = destroy_mpi,
};

/* MPI takes a buffer of a piece's size from malloc for every piece. Unless malloc is told to keep such memory, it goes
 * back to the kernel each time and comes again page by page: up to 7,000 page faults per 100 MB, or none (measured). */
static void keep_buffers_in_the_heap(void)
{
    mallopt(M_MMAP_THRESHOLD, 2 * PIECE_BYTES);
    mallopt(M_TRIM_THRESHOLD, 2 * IN_FLIGHT_BYTES);
}

/* Rabenseifner's all-reduce moves each byte twice, whatever the number of ranks. The default for in-place sums is a
 * tree, which was half as fast with two ranks on one node. Open MPI has one setting for all non-blocking all-reduces,
 * and with this one those of an element, of which the library itself makes several for every new communicator, go
 * around a ring of all ranks (measured: 12 x ranks messages of each rank for two communicators). So it is set here,
 * when there are communicators enough; but that takes 0.2 s, as the library looks at all of its plugins again, so few
 * ranks have it from the start (comm.c). Another library has no such variable: its default does. What the user has set
 * stays. */
static void choose_algorithm(void)
{
    int provided, index, count, value = atoi(FB3_RABENSEIFNER);
    MPI_T_cvar_handle handle;
    if (getenv("OMPI_MCA_" FB3_IALLREDUCE_ALGORITHM)) return;
    if (MPI_T_init_thread(MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) return;
    if (MPI_T_cvar_get_index(FB3_IALLREDUCE_ALGORITHM, &index) == MPI_SUCCESS &&
        MPI_T_cvar_handle_alloc(index, NULL, &handle, &count) == MPI_SUCCESS) {
        if (count == 1) (void)MPI_T_cvar_write(handle, &value);
        (void)MPI_T_cvar_handle_free(&handle);
    }
    MPI_T_finalize();
}

static fb3_status open_channel(mpi_reducer *reducer)
{
    MPI_Request request;
    keep_buffers_in_the_heap();
    FB3_MPI(MPI_Comm_idup(reducer->comm->all, &reducer->channel, &request));
    FB3_TRY(fb3_comm_complete(reducer->comm, &request, "channel of the gradients"));
    choose_algorithm();
    return FB3_OK;
}

fb3_status fb3_reducer_create_mpi(fb3_reducer **reducer, fb3_comm *comm)
{
    *reducer = NULL;
    mpi_reducer *made = calloc(1, sizeof *made);
    FB3_REQUIRE(made, FB3_FAILED, "out of memory; free memory and run again");
    made->base.ops = &reducer_ops_mpi;
    made->comm = comm;
    made->channel = MPI_COMM_NULL;
    fb3_status status = comm->size > 1 ? open_channel(made) : FB3_OK;
    if (status != FB3_OK) {
        free(made);
        return status;
    }
    *reducer = &made->base;
    return FB3_OK;
}
