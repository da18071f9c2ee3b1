/* Ranks: the world, fold groups, nodes; collectives with deadlines; who runs on which cores.
 *
 * The only module that sees MPI. MPI_THREAD_FUNNELED: every call below is made by the main thread. A watchdog thread
 * (no MPI in it) holds a deadline for whatever the main thread is waiting for, and ends the process with one line when
 * it passes (DESIGN 5.4). In a world of one nothing is ever sent. */
#ifndef FB3_COMM_H
#define FB3_COMM_H

#include "fb3/node_memory.h"
#include "fb3/reducer.h"
#include "fb3/status.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct fb3_comm fb3_comm;

/* One row of the start table. */
typedef struct fb3_rank_info {
    char host[64];
    int rank, node_rank, node; /* world rank; rank within the node; node number */
    int cores;                 /* cores that this rank may use after binding */
    int threads;               /* OpenMP threads */
    char device[128];
    char device_id[16]; /* its PCI address; "" for the processor */
} fb3_rank_info;

/* Starts MPI. `distributed` (train, predict, evaluate over ranks): a lonely world - MPI size 1 although
 * SLURM_STEP_NUM_TASKS > 1 and OMPI_COMM_WORLD_SIZE is unset - is FB3_INPUT with the cure. */
fb3_status fb3_comm_start(fb3_comm **comm, bool distributed, int64_t timeout_seconds);
/* Ends MPI in order. NULL is fine. */
void fb3_comm_finish(fb3_comm *comm);
/* Ends every rank at once (MPI_Abort) with this exit code, which the launcher passes on; the error line was printed
 * before. No clean-up runs. Does not return. */
void fb3_comm_abort(int code);

/* Divides the machine's cores among its ranks (sched_setaffinity, OpenMP threads) unless `keep` (DESIGN 5.8). A number
 * of threads given by OMP_NUM_THREADS stands. Collective. */
fb3_status fb3_comm_bind(fb3_comm *comm, bool keep);

int fb3_comm_rank(const fb3_comm *comm);
int fb3_comm_size(const fb3_comm *comm);
bool fb3_comm_root(const fb3_comm *comm);

/* This rank among those of its node, and how many they are. */
int fb3_comm_node_rank(const fb3_comm *comm);
int fb3_comm_node_size(const fb3_comm *comm);

/* Fills info[size] on every rank; `device` and `device_id` describe this rank's. */
fb3_status fb3_comm_gather_info(fb3_comm *comm, const char *device, const char *device_id, fb3_rank_info *info);

/* Memory shared by the ranks of this node. */
fb3_node_memory *fb3_comm_node_memory(fb3_comm *comm);
/* Frees all of it; what it hands out afterwards is new. Collective. */
fb3_status fb3_comm_forget_memory(fb3_comm *comm);

/* --- groups: parts of the world that work side by side (group.c) -------------------------------------------------- */

/* Divides the world: the ranks that give the same `number`, 0 .. groups - 1, become a communicator of their own, in the
 * world's order. Every group has a rank. fb3_comm_leave() gives it back, before the world ends. Collective over the
 * world. */
fb3_status fb3_comm_join(fb3_comm *world, int number, int groups, fb3_comm **group);
void fb3_comm_leave(fb3_comm *group); /* NULL is fine */
/* Lets the other groups know that this one stops, so that they stop too. To be called by all of its ranks. */
fb3_status fb3_comm_tell_stop(fb3_comm *group);
/* Another group has stopped. Known to one rank of a group at least. False for the world. */
fb3_status fb3_comm_stop_told(fb3_comm *comm, bool *told);
/* Waits for all ranks of the world without a deadline: another group may work for hours yet, and watches over itself.
 * Meanwhile `meanwhile(context)` is called now and then. */
fb3_status fb3_comm_await_all(fb3_comm *world, fb3_status (*meanwhile)(void *context), void *context);

/* Collectives over the whole communicator. `what` names the operation in messages ("step control sums"). */
fb3_status fb3_comm_barrier(fb3_comm *comm, const char *what);
fb3_status fb3_comm_broadcast(fb3_comm *comm, void *data, size_t bytes, int root, const char *what);
fb3_status fb3_comm_sum_double(fb3_comm *comm, double *x, int count, const char *what); /* in rank order */
fb3_status fb3_comm_max_int64(fb3_comm *comm, int64_t *x, int count, const char *what);
/* root receives [sum of counts] from all, in rank order; counts [size] are known to all. Others pass all = NULL. */
fb3_status fb3_comm_gather_floats(fb3_comm *comm, const float *mine, float *all, const int64_t *counts, int root,
                                  const char *what);
/* Every rank gets the worst status of any rank, with its text: "rank 3: ...". The worst is FB3_INPUT, then FB3_FAILED,
 * then FB3_STOPPED; of equals that of the lowest rank. Collective. */
fb3_status fb3_comm_agree(fb3_comm *comm, fb3_status mine, const char *what);
/* FB3_FAILED naming a rank when `hex` (a sha256) is not the same on all ranks. Collective. */
fb3_status fb3_comm_check_same(fb3_comm *comm, const char *hex, const char *what);

/* Work that the root does alone while the others wait, for as long as it takes (a CSV of ten million essays): the
 * deadline is for the time between two signs of life. All ranks call `begins` and, with how they fared, `ends`, which
 * returns as fb3_comm_agree(); between the two the root works and calls `goes_on` every now and then (cheap). */
void fb3_comm_root_begins(fb3_comm *comm, const char *what);
fb3_status fb3_comm_root_goes_on(fb3_comm *comm);
fb3_status fb3_comm_root_ends(fb3_comm *comm, fb3_status mine);

/* A deadline for something that is not a collective (a file operation); `end` clears it. Not nested. */
void fb3_comm_watch_begin(fb3_comm *comm, const char *what, int64_t step);
void fb3_comm_watch_end(fb3_comm *comm);
/* The same for the host's waiting for its device; `end` clears it. */
void fb3_comm_watch_device_begin(fb3_comm *comm, int64_t step);

/* The gradient all-reduce of host memory (fb3/reducer.h). */
fb3_status fb3_reducer_create_mpi(fb3_reducer **reducer, fb3_comm *comm);

const char *fb3_comm_library_version(void);

#endif
