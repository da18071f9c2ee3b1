/* fb3_node_memory on MPI shared windows: the node's rank 0 owns the bytes, the others look at them.
 *
 * The window's memory begins on a page in every process, so rounding the address up to 64 bytes gives the same place
 * for all of them. */
#include "comm_internal.h"

#include <limits.h>
#include <stdlib.h>

enum { ALIGNMENT = 64, WRITER = 0 };

typedef struct fb3_node_windows {
    fb3_comm *comm;
    MPI_Win *windows; // [count]
    int count;
} fb3_node_windows;

static fb3_status reserve_slot(fb3_node_windows *owner)
{
    MPI_Win *grown = realloc(owner->windows, (size_t)(owner->count + 1) * sizeof(MPI_Win));
    FB3_REQUIRE(grown, FB3_FAILED, "out of memory; free memory and run again");
    owner->windows = grown;
    return FB3_OK;
}

static fb3_status map_window(fb3_node_windows *owner, size_t bytes, void **memory)
{
    MPI_Win window = MPI_WIN_NULL;
    MPI_Aint mine = owner->comm->node_rank == WRITER ? (MPI_Aint)(bytes + ALIGNMENT) : 0;
    MPI_Aint size = 0;
    int unit = 0;
    char *base = NULL;
    FB3_TRY(reserve_slot(owner));
    FB3_MPI(MPI_Win_allocate_shared(mine, 1, MPI_INFO_NULL, owner->comm->node, &base, &window));
    owner->windows[owner->count++] = window;
    FB3_MPI(MPI_Win_set_errhandler(window, MPI_ERRORS_RETURN));
    FB3_MPI(MPI_Win_lock_all(MPI_MODE_NOCHECK, window)); /* opens the epoch that MPI_Win_sync needs */
    FB3_MPI(MPI_Win_shared_query(window, WRITER, &size, &unit, &base));
    *memory = base + (ALIGNMENT - (uintptr_t)base % ALIGNMENT) % ALIGNMENT;
    return FB3_OK;
}

static fb3_status allocate_window(void *context, size_t bytes, void **memory)
{
    fb3_node_windows *owner = context;
    *memory = NULL;
    FB3_REQUIRE(bytes <= PTRDIFF_MAX - ALIGNMENT, FB3_FAILED, "%zu bytes are more than this machine can address",
                bytes);
    fb3_watchdog_begin(owner->comm->watchdog, FB3_WATCH_PEERS, "memory shared by the node", FB3_WATCH_NO_STEP);
    fb3_status status = map_window(owner, bytes, memory);
    fb3_watchdog_end(owner->comm->watchdog);
    if (status != FB3_OK)
        return fb3_fail_context(status, "no %zu bytes of memory shared by the node (is /dev/shm large enough?)", bytes);
    return FB3_OK;
}

static fb3_status publish_windows(void *context, fb3_status mine)
{
    fb3_node_windows *owner = context;
    fb3_comm *comm = owner->comm;
    for (int i = 0; i < owner->count; i++) FB3_MPI(MPI_Win_sync(owner->windows[i]));
    fb3_status status = fb3_comm_worst(comm, comm->node, mine, "memory shared by the node", NULL);
    for (int i = 0; i < owner->count; i++) FB3_MPI(MPI_Win_sync(owner->windows[i]));
    return status;
}

fb3_status fb3_node_windows_open(fb3_comm *comm)
{
    if (comm->node_size == 1) return fb3_node_memory_private(&comm->memory);
    comm->windows = calloc(1, sizeof *comm->windows);
    FB3_REQUIRE(comm->windows, FB3_FAILED, "out of memory; free memory and run again");
    comm->windows->comm = comm;
    comm->memory = (fb3_node_memory){comm->windows, comm->node_rank == WRITER, allocate_window, publish_windows};
    return FB3_OK;
}

void fb3_node_windows_close(fb3_comm *comm)
{
    if (!comm->windows) {
        fb3_node_memory_private_free(&comm->memory);
        return;
    }
    for (int i = comm->windows->count - 1; i >= 0; i--) {
        MPI_Win_unlock_all(comm->windows->windows[i]);
        MPI_Win_free(&comm->windows->windows[i]);
    }
    free(comm->windows->windows);
    free(comm->windows);
    comm->windows = NULL;
}
