/* Groups of ranks that train different folds side by side.
 *
 * A group is a communicator like the world, with the world's watchdog, cores and host. Groups meet only at the end; in
 * between they exchange one thing, by messages without content from first rank to first rank: that one of them was
 * asked to stop. A launcher passes a signal on to some of the ranks only, so the others have to be told. */
#include "comm_internal.h"

#include <stdlib.h>

typedef struct fb3_comm_group {
    fb3_comm *world;
    int number, groups;
    int *first; /* [groups] world rank of each group's rank 0 */
    bool stop_told, stop_heard;
} fb3_comm_group;

static fb3_status find_first_ranks(fb3_comm_group *group, int number)
{
    fb3_comm *world = group->world;
    int *numbers = malloc((size_t)world->size * sizeof *numbers);
    FB3_REQUIRE(numbers, FB3_FAILED, "out of memory for the groups of ranks");
    fb3_status status = FB3_OK;
    numbers[world->rank] = number;
    FB3_TRY_GOTO(fb3_comm_share_table(world, numbers, sizeof *numbers, "groups of ranks"), done);
    for (int r = world->size - 1; r >= 0; r--) group->first[numbers[r]] = r;
done:
    free(numbers);
    return status;
}

static fb3_status open_group(fb3_comm *made, int number, int groups)
{
    fb3_comm_group *group = made->group;
    group->number = number;
    group->groups = groups;
    group->first = calloc((size_t)groups, sizeof *group->first);
    FB3_REQUIRE(group->first, FB3_FAILED, "out of memory for the groups of ranks");
    FB3_TRY(find_first_ranks(group, number));
    fb3_watchdog_begin(made->watchdog, FB3_WATCH_PEERS, "dividing the world into groups", FB3_WATCH_NO_STEP);
    int split = MPI_Comm_split(group->world->all, number, group->world->rank, &made->all);
    fb3_watchdog_end(made->watchdog);
    if (split != MPI_SUCCESS) return fb3_mpi_failed(split, "MPI_Comm_split");
    FB3_MPI(MPI_Comm_rank(made->all, &made->rank));
    FB3_MPI(MPI_Comm_size(made->all, &made->size));
    FB3_TRY(fb3_comm_split_by_node(made));
    return fb3_node_windows_open(made);
}

fb3_status fb3_comm_join(fb3_comm *world, int number, int groups, fb3_comm **group)
{
    fb3_comm *made = malloc(sizeof *made);
    *group = NULL;
    FB3_REQUIRE(made, FB3_FAILED, "out of memory for the groups of ranks");
    *made = *world;
    made->all = made->node = MPI_COMM_NULL;
    made->windows = NULL;
    made->memory = (fb3_node_memory){0};
    made->group = calloc(1, sizeof *made->group);
    fb3_status status = made->group ? FB3_OK : fb3_fail(FB3_FAILED, "out of memory for the groups of ranks");
    if (status == FB3_OK) {
        made->group->world = world;
        status = open_group(made, number, groups);
    }
    if (status == FB3_OK)
        *group = made;
    else
        fb3_comm_leave(made);
    return status;
}

void fb3_comm_leave(fb3_comm *group)
{
    if (!group) return;
    fb3_node_windows_close(group);
    if (group->node != MPI_COMM_NULL) MPI_Comm_free(&group->node);
    if (group->all != MPI_COMM_NULL) MPI_Comm_free(&group->all);
    if (group->group) free(group->group->first);
    free(group->group);
    free(group);
}

int fb3_comm_world_rank(const fb3_comm *comm, int rank)
{
    MPI_Group mine, world;
    int found = rank;
    if (!comm->group || MPI_Comm_group(comm->all, &mine) != MPI_SUCCESS) return rank;
    if (MPI_Comm_group(comm->group->world->all, &world) == MPI_SUCCESS) {
        MPI_Group_translate_ranks(mine, 1, &rank, world, &found);
        MPI_Group_free(&world);
    }
    MPI_Group_free(&mine);
    return found;
}

fb3_status fb3_comm_tell_stop(fb3_comm *group)
{
    fb3_comm_group *g = group->group;
    if (!g || g->stop_told || group->rank != 0) return FB3_OK;
    g->stop_told = true;
    for (int other = 0; other < g->groups; other++) {
        MPI_Request request;
        if (other == g->number) continue;
        FB3_MPI(MPI_Isend(NULL, 0, MPI_BYTE, g->first[other], FB3_TAG_STOP, g->world->all, &request));
        FB3_MPI(MPI_Request_free(&request)); /* nothing to keep until it has arrived */
    }
    return FB3_OK;
}

fb3_status fb3_comm_stop_told(fb3_comm *comm, bool *told)
{
    fb3_comm_group *g = comm->group;
    int arrived = g && comm->rank == 0;
    while (arrived) {
        MPI_Status message;
        FB3_MPI(MPI_Iprobe(MPI_ANY_SOURCE, FB3_TAG_STOP, g->world->all, &arrived, &message));
        if (!arrived) break;
        FB3_MPI(MPI_Recv(NULL, 0, MPI_BYTE, message.MPI_SOURCE, FB3_TAG_STOP, g->world->all, MPI_STATUS_IGNORE));
        g->stop_heard = true;
    }
    *told = g && g->stop_heard;
    return FB3_OK;
}

fb3_status fb3_comm_await_all(fb3_comm *world, fb3_status (*meanwhile)(void *context), void *context)
{
    if (world->size == 1) return FB3_OK;
    MPI_Request request;
    fb3_patience patience = fb3_patience_begin();
    FB3_MPI(MPI_Ibarrier(world->all, &request));
    for (int done = 0; !done;) {
        FB3_TRY(meanwhile(context));
        FB3_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
        if (!done) fb3_patience_pause(&patience);
    }
    return meanwhile(context); /* what came at the last moment */
}
