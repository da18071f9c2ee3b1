/* Cores: which ones this process may use, where they are, and how ranks divide them. */
#ifndef FB3_CORES_H
#define FB3_CORES_H

#include <sched.h>

/* One logical CPU. CPUs of one physical core (hyper-threads) have the same `package` and `core`. */
typedef struct fb3_cpu_place {
    int package;
    int core; /* the lowest CPU number of this physical core */
    int cpu;
} fb3_cpu_place;

/* The CPUs that the process was started on, before anything of ours changed them. */
void fb3_cores_at_launch(cpu_set_t *mask);

/* The CPUs that the process may use: those it was started on, except that mpirun's habit of putting each rank on one
 * core, whatever the number of cores, is undone: then it is what mpirun itself may use. */
void fb3_cores_allowed(cpu_set_t *mask);

/* Whole CPUs worth of time that the control group grants (docker --cpus, Slurm), INT_MAX without a limit; at least 1.
 */
int fb3_cores_quota(void);

/* The same for one control group below a mount point: the least of its limit and those of the groups above it. In a
 * container the group's path may be the host's; the mount point, which is the last step, is then the group itself. */
int fb3_cores_quota_in(const char *mount, const char *group);

/* Places of the CPUs in `mask`, sorted by package, core, cpu; `places` [CPU_SETSIZE]. Returns their number. */
int fb3_cores_places(const cpu_set_t *mask, fb3_cpu_place *places);

/* The part of `places` [count] that belongs to member `index` of `members` ranks, and the number of threads it should
 * run. Whole physical cores while there are enough of them, then single CPUs; with more ranks than CPUs all of
 * them, for one thread. */
int fb3_cores_share(const fb3_cpu_place *places, int count, int members, int index, cpu_set_t *share);

/* Moves every thread of this process to `mask`. 0, or -1 with errno. */
int fb3_cores_move(const cpu_set_t *mask);

#endif
