/* Binding: the ranks of a machine divide the cores that they may use (DESIGN 5.8).
 *
 * Ranks that run under one kernel and may use the same CPUs divide these CPUs; a rank whose CPUs are its own (srun
 * with --cpu-bind) keeps them. More ranks than CPUs: one thread each, on any of them; what keeps such ranks from
 * standing in each other's way is that a waiting rank gives its core away (comm.c). */
#include "comm_internal.h"
#include "cores.h"

#include "fb3/log.h"
#include <errno.h>
#include <limits.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a rank tells the others. Two ranks with equal contents share cores. */
typedef struct neighbourhood {
    char kernel[64]; /* boot id: the same in all containers of a machine, where host names differ */
    cpu_set_t allowed;
} neighbourhood;

static void kernel_identity(const fb3_comm *comm, char *kernel, size_t bytes)
{
    snprintf(kernel, bytes, "%s", comm->host);
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!file) return;
    char id[64];
    if (fgets(id, sizeof id, file)) snprintf(kernel, bytes, "%s", id);
    fclose(file);
}

/* How many ranks share this rank's CPUs, and which of them it is. */
static fb3_status find_neighbours(fb3_comm *comm, const cpu_set_t *allowed, int *members, int *index)
{
    *members = 1;
    *index = 0;
    if (comm->size == 1) return FB3_OK;
    fb3_status status = FB3_OK;
    neighbourhood *all = calloc((size_t)comm->size, sizeof *all); // [size]
    FB3_REQUIRE(all, FB3_FAILED, "out of memory; free memory and run again");
    neighbourhood *mine = &all[comm->rank];
    kernel_identity(comm, mine->kernel, sizeof mine->kernel);
    mine->allowed = *allowed;
    FB3_TRY_GOTO(fb3_comm_share_table(comm, all, sizeof *all, "division of the cores"), done);
    for (int r = 0; r < comm->size; r++) {
        if (r == comm->rank || strcmp(all[r].kernel, mine->kernel) != 0) continue;
        if (!CPU_EQUAL(&all[r].allowed, &mine->allowed)) continue;
        (*members)++;
        if (r < comm->rank) (*index)++;
    }
done:
    free(all);
    return status;
}

static void set_threads(fb3_comm *comm, int threads)
{
    /* OMP_NUM_THREADS is the user's word; OpenMP has read it already. */
    if (!getenv("OMP_NUM_THREADS")) omp_set_num_threads(threads);
    comm->threads = omp_get_max_threads();
}

static void keep_binding(fb3_comm *comm, const cpu_set_t *launch)
{
    fb3_cores_move(launch);
    comm->cores = CPU_COUNT(launch);
    set_threads(comm, comm->cores);
}

fb3_status fb3_comm_bind(fb3_comm *comm, bool keep)
{
    cpu_set_t launch, allowed, share;
    fb3_cores_at_launch(&launch);
    fb3_cores_allowed(&allowed);
    int members, index;
    FB3_TRY(find_neighbours(comm, &allowed, &members, &index));
    if (CPU_COUNT(&launch) == 0) {
        fb3_log_warn("cannot read which cores this process may use; it runs on those that it was given");
        return FB3_OK;
    }
    if (keep) {
        keep_binding(comm, &launch);
        return FB3_OK;
    }
    fb3_cpu_place places[CPU_SETSIZE];
    int count = fb3_cores_places(&allowed, places);
    int threads = fb3_cores_share(places, count, members, index, &share);
    if (fb3_cores_move(&share) != 0) fb3_log_warn("cannot bind to cores: %s; use --bind keep", strerror(errno));
    comm->cores = members > count ? count : threads;
    int quota = fb3_cores_quota();
    if (quota != INT_MAX && threads > quota / members) threads = quota / members > 1 ? quota / members : 1;
    set_threads(comm, threads);
    return FB3_OK;
}
