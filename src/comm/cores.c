/* Cores of this process, from the kernel: sched_getaffinity(2), /proc, sysfs, the control group's CPU limit.
 *
 * Open MPI's mpirun puts each rank on one core unless told otherwise (three and more ranks: on one socket), whatever
 * the number of cores, and does not look at the mask that it was itself given by taskset or a batch system (measured,
 * 4.1.4). The mask of the mpirun or orted process is therefore what a rank may use. */
#include "cores.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANCESTORS_MAX = 8, PATH_BYTES = 512, LINE_BYTES = 512 };

static cpu_set_t launch_mask;   /* what this process was started on */
static cpu_set_t launcher_mask; /* what the mpirun above it may use; empty when there is none */

/* Reads the name and the parent of a process from /proc/PID/stat: "PID (name) state parent ...". */
static bool read_process(pid_t pid, char *name, size_t name_bytes, pid_t *parent)
{
    char path[64], line[LINE_BYTES];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file) return false;
    bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    char *open = read ? strchr(line, '(') : NULL;
    char *close = read ? strrchr(line, ')') : NULL; /* a name may hold parentheses itself */
    if (!open || !close || strlen(close) < sizeof ") S " - 1) return false;
    snprintf(name, name_bytes, "%.*s", (int)(close - open - 1), open + 1);
    *parent = (pid_t)strtol(close + sizeof ") S " - 1, NULL, 10);
    return true;
}

static bool is_launcher(const char *name)
{
    static const char *const prefixes[] = {"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted"};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) return true;
    return false;
}

static void find_launcher_mask(void)
{
    pid_t pid = getppid();
    for (int i = 0; i < ANCESTORS_MAX && pid > 1; i++) {
        char name[LINE_BYTES];
        pid_t parent;
        if (!read_process(pid, name, sizeof name, &parent)) return;
        if (is_launcher(name)) {
            if (sched_getaffinity(pid, sizeof launcher_mask, &launcher_mask) != 0) CPU_ZERO(&launcher_mask);
            return;
        }
        pid = parent;
    }
}

/* GNU OpenMP counts the CPUs once, while it is being loaded; with more threads than it counted then, its threads go to
 * sleep at once between parallel regions, and each region costs some 40 us more (measured: 40 against 6). So the mask
 * must be wide before any library starts, which is what .preinit_array is for. fb3_comm_bind() narrows it again. */
static void widen_before_openmp(int argc, char **argv, char **environment)
{
    (void)argc;
    (void)argv;
    if (sched_getaffinity(0, sizeof launch_mask, &launch_mask) != 0) return;
    bool by_mpirun = false;
    for (char **variable = environment; *variable; variable++)
        if (strncmp(*variable, "OMPI_COMM_WORLD_SIZE=", strlen("OMPI_COMM_WORLD_SIZE=")) == 0) by_mpirun = true;
    if (!by_mpirun) return;
    find_launcher_mask();
    if (CPU_COUNT(&launcher_mask) > 0) sched_setaffinity(0, sizeof launcher_mask, &launcher_mask);
}

typedef void (*early_hook)(int argc, char **argv, char **environment);
__attribute__((section(".preinit_array"), used)) static const early_hook widen_first = widen_before_openmp;

void fb3_cores_at_launch(cpu_set_t *mask)
{
    *mask = launch_mask;
}

static bool on_one_core(const cpu_set_t *mask)
{
    fb3_cpu_place places[CPU_SETSIZE];
    int count = fb3_cores_places(mask, places);
    return count == 0 || places[0].core == places[count - 1].core;
}

void fb3_cores_allowed(cpu_set_t *mask)
{
    *mask = launch_mask;
    if (CPU_COUNT(&launcher_mask) == 0) return;
    CPU_AND(mask, &launch_mask, &launcher_mask);
    if (CPU_COUNT(mask) == 0 || on_one_core(&launch_mask)) *mask = launcher_mask;
}

static bool read_first_line(const char *path, char *line, size_t bytes)
{
    FILE *file = fopen(path, "re");
    if (!file) return false;
    bool read = fgets(line, (int)bytes, file) != NULL;
    fclose(file);
    return read;
}

/* CPUs granted by the control group in `directory`, rounded down, INT_MAX without a limit. Version 2 keeps "quota
 * period" or "max period" in one file, version 1 has two, and -1 is no limit. */
static int quota_of(const char *directory)
{
    char path[PATH_BYTES + 32], line[LINE_BYTES];
    double quota = -1, period = 0;
    snprintf(path, sizeof path, "%s/cpu.max", directory);
    if (read_first_line(path, line, sizeof line)) {
        char *rest = line;
        quota = strtod(line, &rest);
        period = rest == line ? 0 : strtod(rest, NULL); /* "max" is no number */
    } else {
        snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", directory);
        if (read_first_line(path, line, sizeof line)) quota = strtod(line, NULL);
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory);
        if (read_first_line(path, line, sizeof line)) period = strtod(line, NULL);
    }
    if (!(quota > 0) || !(period > 0) || quota / period >= INT_MAX) return INT_MAX;
    return quota < period ? 1 : (int)(quota / period);
}

int fb3_cores_quota_in(const char *mount, const char *group)
{
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s%s", mount, group) >= (int)sizeof path) return INT_MAX;
    int least = INT_MAX;
    for (;;) {
        int quota = quota_of(path);
        if (quota < least) least = quota;
        char *slash = strrchr(path, '/');
        if (strlen(path) <= strlen(mount) || !slash) return least;
        *slash = 0;
    }
}

int fb3_cores_quota(void)
{
    int least = INT_MAX;
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file) return least;
    char line[PATH_BYTES]; /* "hierarchy:controllers:path" */
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *controllers++ = 0;
        *group++ = 0;
        int quota = INT_MAX;
        if (controllers[0] == 0)
            quota = fb3_cores_quota_in("/sys/fs/cgroup", group);
        else if (strcmp(controllers, "cpu") == 0 || strncmp(controllers, "cpu,", strlen("cpu,")) == 0)
            quota = fb3_cores_quota_in("/sys/fs/cgroup/cpu", group);
        if (quota < least) least = quota;
    }
    fclose(file);
    return least;
}

static int topology_number(int cpu, const char *file, int otherwise)
{
    char path[PATH_BYTES], line[LINE_BYTES];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, file);
    return read_first_line(path, line, sizeof line) ? (int)strtol(line, NULL, 10) : otherwise;
}

static int compare_places(const void *a, const void *b)
{
    const fb3_cpu_place *x = a, *y = b;
    if (x->package != y->package) return x->package < y->package ? -1 : 1;
    if (x->core != y->core) return x->core < y->core ? -1 : 1;
    return (x->cpu > y->cpu) - (x->cpu < y->cpu);
}

int fb3_cores_places(const cpu_set_t *mask, fb3_cpu_place *places)
{
    int count = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, mask))
            places[count++] = (fb3_cpu_place){.package = topology_number(cpu, "physical_package_id", 0),
                                              .core = topology_number(cpu, "thread_siblings_list", cpu),
                                              .cpu = cpu};
    qsort(places, (size_t)count, sizeof *places, compare_places);
    return count;
}

/* The first of `parts` items when member `index` of `members` takes its turn; the first ones get the remainder. */
static int first_part(int parts, int members, int index)
{
    int remainder = parts % members;
    return index * (parts / members) + (index < remainder ? index : remainder);
}

int fb3_cores_share(const fb3_cpu_place *places, int count, int members, int index, cpu_set_t *share)
{
    int core_of[CPU_SETSIZE]; // [count], which physical core, counted from 0
    int cores = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0 && places[i].core != places[i - 1].core) cores++;
        core_of[i] = cores;
    }
    if (count > 0) cores++;

    bool whole_cores = members <= cores, enough = members <= count;
    int parts = whole_cores ? cores : count;
    int from = enough ? first_part(parts, members, index) : 0;
    int to = enough ? first_part(parts, members, index + 1) : count;
    CPU_ZERO(share);
    for (int i = 0; i < count; i++) {
        int part = whole_cores ? core_of[i] : i;
        if (part >= from && part < to) CPU_SET(places[i].cpu, share);
    }
    return enough ? to - from : 1;
}

int fb3_cores_move(const cpu_set_t *mask)
{
    if (sched_setaffinity(0, sizeof *mask, mask) != 0) return -1;
    DIR *threads = opendir("/proc/self/task");
    if (!threads) return 0; /* new threads inherit the mask; there are hardly any others yet */
    for (struct dirent *entry = readdir(threads); entry; entry = readdir(threads)) {
        pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
        if (thread > 0) sched_setaffinity(thread, sizeof *mask, mask); /* a thread that just ended is no error */
    }
    closedir(threads);
    return 0;
}
