/* What the files of this module share: the communicator, how a call of MPI becomes a status, how a rank waits. */
#ifndef FB3_COMM_INTERNAL_H
#define FB3_COMM_INTERNAL_H

#include "fb3/clock.h"
#include "fb3/comm.h"
#include "watchdog.h"
#include <mpi.h>

struct fb3_comm {
    MPI_Comm all;  /* a duplicate of MPI_COMM_WORLD, or a group of it */
    MPI_Comm node; /* those of them that share memory with this one */
    int rank, size;
    int node_rank, node_size;
    int node_leader; /* world rank of the node's rank 0 */
    char host[64];
    int cores, threads; /* set by fb3_comm_bind() */
    int64_t timeout;    /* seconds that a collective may take */
    fb3_watchdog *watchdog;
    const char *root_work; /* what the root does while the others wait; fb3_comm_root_begins() */
    double last_sign;      /* of its life, on the root */
    fb3_node_memory memory;
    struct fb3_comm_group *group;     /* of a group; NULL for the world */
    struct fb3_node_windows *windows; /* NULL where the node has one rank: plain memory then */
};

/* Open MPI's variable for the algorithm of all its non-blocking all-reduces, and the value that suits gradients. */
#define FB3_IALLREDUCE_ALGORITHM "coll_libnbc_iallreduce_algorithm"
#define FB3_RABENSEIFNER         "3"
enum { FB3_FEW_RANKS = 4 };

/* Sets the error text "<call>: <MPI's own words> ..." and returns FB3_FAILED. */
fb3_status fb3_mpi_failed(int code, const char *call);

/* Turns the result of an MPI call into a status and returns from the enclosing function when it failed. */
#define FB3_MPI(call)                                                                                                  \
    do {                                                                                                               \
        int fb3_mpi_code_ = (call);                                                                                    \
        if (fb3_mpi_code_ != MPI_SUCCESS) return fb3_mpi_failed(fb3_mpi_code_, #call);                                 \
    } while (0)

#define FB3_MPI_GOTO(call, label)                                                                                      \
    do {                                                                                                               \
        int fb3_mpi_code_ = (call);                                                                                    \
        if (fb3_mpi_code_ != MPI_SUCCESS) {                                                                            \
            status = fb3_mpi_failed(fb3_mpi_code_, #call);                                                             \
            goto label;                                                                                                \
        }                                                                                                              \
    } while (0)

/* How a rank waits: it yields the core at once, so that it never keeps a rank on the same core from working, and after
 * a while it sleeps, a fixed share of the time already waited, so that waiting for minutes costs nothing and a short
 * wait answers at once. Call fb3_patience_pause() between two looks at MPI. */
typedef struct fb3_patience {
    double since; /* start of the wait, seconds */
} fb3_patience;
fb3_patience fb3_patience_begin(void);
void fb3_patience_pause(const fb3_patience *patience);

/* What messages between two ranks are about; collectives of MPI have none. */
enum { FB3_TAG_GATHER = 1, FB3_TAG_STOP, FB3_TAG_SHORT };

/* Waits for requests, patiently and without a deadline of its own; MPI's code. */
int fb3_comm_wait_all(MPI_Request *requests, int count);

/* Waits for one request under the watchdog. */
fb3_status fb3_comm_complete(fb3_comm *comm, MPI_Request *request, const char *what);

/* Short collectives (short.c): under the watchdog, in ceil(log2 ranks) messages of each rank.
 * _table: `table` [size of comm->all][row_bytes] has this rank's row, and then all of them.
 * _best: `mine` [bytes] of every rank in one; `keep(mine, theirs, bytes)` keeps the better of the two, in whatever
 * order and however often it is called. */
fb3_status fb3_comm_share_table(fb3_comm *comm, void *table, size_t row_bytes, const char *what);
fb3_status fb3_comm_share_best(fb3_comm *comm, MPI_Comm channel, void *mine, size_t bytes,
                               void (*keep)(void *mine, const void *theirs, size_t bytes), const char *what);

/* Collective over `channel`: every rank gets the worst status of any, as fb3_comm_agree() ranks them, with its error
 * text; `*rank` (may be NULL) is whose it was, -1 where all is well. */
fb3_status fb3_comm_worst(fb3_comm *comm, MPI_Comm channel, fb3_status mine, const char *what, int *rank);

/* The number that a rank of this communicator has in the world. */
int fb3_comm_world_rank(const fb3_comm *comm, int rank);

/* Which ranks of comm->all share memory: fills comm->node and its numbers. Collective. */
fb3_status fb3_comm_split_by_node(fb3_comm *comm);

/* Node memory (node_window.c). */
fb3_status fb3_node_windows_open(fb3_comm *comm);
void fb3_node_windows_close(fb3_comm *comm);

#endif
