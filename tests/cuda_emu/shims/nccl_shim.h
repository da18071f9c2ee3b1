/* NCCL over MPI: what its three files share. Everything runs on the main thread (MPI_THREAD_FUNNELED) and no call of
 * MPI waits: joining and collectives are non-blocking MPI calls that are looked at again, so a peer that never comes
 * leaves a creation in progress or a stream unfinished, as with the real library. */
#ifndef FB3_CUDA_EMU_NCCL_SHIM_H
#define FB3_CUDA_EMU_NCCL_SHIM_H

#include "shim.h"

#include <mpi.h>
#include <nccl.h>

#define NCCL_SHIM "nccl"

/* How often ncclCommGetAsyncError says ncclInProgress, at the least, after a call on a non-blocking communicator. */
enum { NCCL_SHIM_POLLS = 2 };

/* --- nccl_join.c: the ranks of a communicator find each other ----------------------------------------------------- */

/* The contents of ncclUniqueId. */
typedef struct nccl_id {
    uint64_t magic, nonce; /* the nonce differs between runs and between ids of one rank */
    int32_t root, serial;  /* who made it (rank of MPI_COMM_WORLD), and which of that rank's ids it is */
} nccl_id;

typedef struct nccl_join nccl_join;

ncclResult_t nccl_id_make(ncclUniqueId *id);
bool nccl_id_is_valid(const ncclUniqueId *id);

nccl_join *nccl_join_begin(const ncclUniqueId *id, int size, int rank);
/* True when every rank has come: *comm then has this group's ranks in NCCL's order (MPI_COMM_NULL for a group of one),
 * and the join is freed. */
bool nccl_join_poll(nccl_join *join, MPI_Comm *comm);
void nccl_join_cancel(nccl_join *join);

/* --- nccl_collective.c: collectives on streams, and faults -------------------------------------------------------- */

typedef enum { NCCL_ALL_REDUCE, NCCL_BROADCAST, NCCL_REDUCE_SCATTER, NCCL_ALL_GATHER } nccl_kind;

typedef struct nccl_operation nccl_operation;

struct ncclComm {
    MPI_Comm mpi;
    int rank, size, device;
    bool blocking;
    enum { NCCL_JOINING, NCCL_READY, NCCL_FINALIZED, NCCL_ABORTED, NCCL_DESTROYED } state;
    ncclResult_t error;         /* asynchronous; ncclSuccess while there is none */
    int polls;                  /* how often ncclInProgress is still to be said */
    nccl_join *join;            /* while joining */
    unsigned long issued, done; /* collectives */
    nccl_operation *launch;     /* issued, and not on their streams yet: a list in order of issue */
    bool finalizing;
    struct ncclComm *next;
};

/* Queues a collective (blocking communicator), or leaves it for nccl_launch (non-blocking). */
ncclResult_t nccl_issue(ncclComm_t comm, nccl_kind kind, const void *send, void *receive, size_t count,
                        ncclDataType_t type, ncclRedOp_t reduction, int root, cudaStream_t stream);
/* Puts what was left on its streams. */
void nccl_launch(ncclComm_t comm);
/* Forgets what was left; what is on streams goes when they reach it. */
void nccl_drop(ncclComm_t comm);

ncclResult_t nccl_group_begin(void);
ncclResult_t nccl_group_end(void);
bool nccl_in_group(void);

/* Is this creation of a communicator, the n-th of this process, to fail? See nccl_collective.c. */
bool nccl_fault_at_init(void);

/* Prints a line, keeps it for ncclGetLastError, and gives back `result`. */
ncclResult_t nccl_fail(ncclResult_t result, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
