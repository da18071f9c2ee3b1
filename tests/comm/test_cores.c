/* How ranks divide cores, on machines that this one is not; and the CPU limits of control groups, in both formats. */
#include "cores.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { CPUS_MAX = 64 };

/* A machine with `packages` x `cores` physical cores and two CPUs each where `twins`, numbered as Linux does on PCs:
 * first one CPU of each core, then the others. */
static int machine(int packages, int cores, int twins, fb3_cpu_place *places)
{
    int count = 0;
    for (int p = 0; p < packages; p++)
        for (int c = 0; c < cores; c++)
            for (int t = 0; t < 1 + twins; t++)
                places[count++] = (fb3_cpu_place){p, p * cores + c, t * packages * cores + p * cores + c};
    return count;
}

/* Every CPU of the machine is given to exactly one of the ranks. Returns the least number of threads of a rank. */
static int check_division(const fb3_cpu_place *places, int count, int members, int *threads_total)
{
    int owners[CPUS_MAX] = {0};
    int least = INT_MAX;
    *threads_total = 0;
    for (int index = 0; index < members; index++) {
        cpu_set_t share;
        int threads = fb3_cores_share(places, count, members, index, &share);
        assert_in_range(threads, 1, CPU_COUNT(&share));
        for (int cpu = 0; cpu < CPUS_MAX; cpu++) owners[cpu] += CPU_ISSET(cpu, &share) ? 1 : 0;
        if (threads < least) least = threads;
        *threads_total += threads;
    }
    for (int i = 0; i < count; i++) assert_int_equal(owners[places[i].cpu], 1);
    for (int i = 0, sum = 0; i < CPUS_MAX; i++) assert_in_range(sum += owners[i], 0, count);
    return least;
}

static void divides_whole_cores(void **state)
{
    (void)state;
    fb3_cpu_place places[CPUS_MAX];
    for (int twins = 0; twins < 2; twins++) {
        int count = machine(2, 8, twins, places);
        for (int members = 1; members <= 16; members++) {
            int total;
            assert_int_equal(check_division(places, count, members, &total), 16 / members);
            assert_int_equal(total, 16);
        }
    }
}

static void keeps_twins_and_packages_together(void **state)
{
    (void)state;
    fb3_cpu_place places[CPUS_MAX];
    int count = machine(2, 4, 1, places);
    cpu_set_t share;
    assert_int_equal(fb3_cores_share(places, count, 2, 1, &share), 4);
    for (int cpu = 0; cpu < 16; cpu++) assert_int_equal(!!CPU_ISSET(cpu, &share), cpu % 8 >= 4);
}

static void falls_back_to_single_cpus(void **state)
{
    (void)state;
    fb3_cpu_place places[CPUS_MAX];
    int count = machine(1, 4, 1, places), total;
    assert_int_equal(check_division(places, count, 6, &total), 1);
    assert_int_equal(check_division(places, count, 8, &total), 1);
    assert_int_equal(total, 8);
}

static void more_ranks_than_cpus_share_all(void **state)
{
    (void)state;
    fb3_cpu_place places[CPUS_MAX];
    int count = machine(1, 2, 0, places);
    for (int index = 0; index < 3; index++) {
        cpu_set_t share;
        assert_int_equal(fb3_cores_share(places, count, 3, index, &share), 1);
        assert_int_equal(CPU_COUNT(&share), 2);
    }
}

static void finds_places_of_this_machine(void **state)
{
    (void)state;
    static fb3_cpu_place places[CPU_SETSIZE];
    cpu_set_t mine, found;
    assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
    int count = fb3_cores_places(&mine, places);
    CPU_ZERO(&found);
    for (int i = 0; i < count; i++) {
        CPU_SET(places[i].cpu, &found);
        assert_true(places[i].core <= places[i].cpu && places[i].package >= 0);
    }
    assert_true(CPU_EQUAL(&mine, &found));
    assert_true(fb3_cores_quota() >= 1);
}

static void write_file(const char *directory, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void reads_cpu_limits(void **state)
{
    (void)state;
    static const struct {
        const char *max, *quota, *period; /* version 2 in one file, version 1 in two */
        int cpus;
    } cases[] = {
        {"max 100000\n", NULL, NULL, INT_MAX},
        {"250000 100000\n", NULL, NULL, 2},
        {"50000 100000\n", NULL, NULL, 1},
        {"400000 100000\n", NULL, NULL, 4},
        {"", NULL, NULL, INT_MAX},
        {"nonsense\n", NULL, NULL, INT_MAX},
        {"100000\n", NULL, NULL, INT_MAX},
        {"100000 0\n", NULL, NULL, INT_MAX},
        {NULL, "-1\n", "100000\n", INT_MAX},
        {NULL, "300000\n", "100000\n", 3},
        {NULL, "99000\n", "100000\n", 1},
        {NULL, NULL, NULL, INT_MAX},
        {"1e300 1e-300\n", NULL, NULL, INT_MAX},
        {NULL, "100000\n", NULL, INT_MAX},
    };
    char mount[] = "fb3-cgroup-XXXXXX";
    assert_non_null(mkdtemp(mount));
    char inner[sizeof mount + 8], command[64];
    snprintf(inner, sizeof inner, "%s/job", mount);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(mkdir(inner, 0700), 0);
        if (cases[i].max) write_file(inner, "cpu.max", cases[i].max);
        if (cases[i].quota) write_file(inner, "cpu.cfs_quota_us", cases[i].quota);
        if (cases[i].period) write_file(inner, "cpu.cfs_period_us", cases[i].period);
        assert_int_equal(fb3_cores_quota_in(mount, "/job"), cases[i].cpus);
        /* What the group above allows counts too, and so it does for a group whose own files are out of sight. */
        write_file(mount, "cpu.max", "200000 100000\n");
        assert_int_equal(fb3_cores_quota_in(mount, "/job"), cases[i].cpus < 2 ? cases[i].cpus : 2);
        assert_int_equal(fb3_cores_quota_in(mount, "/not/seen/here"), 2);
        assert_int_equal(fb3_cores_quota_in(mount, "/"), 2);
        snprintf(command, sizeof command, "rm -r %s/*", mount);
        assert_int_equal(system(command), 0);
    }
    assert_int_equal(rmdir(mount), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(divides_whole_cores),          cmocka_unit_test(keeps_twins_and_packages_together),
        cmocka_unit_test(falls_back_to_single_cpus),    cmocka_unit_test(more_ranks_than_cpus_share_all),
        cmocka_unit_test(finds_places_of_this_machine), cmocka_unit_test(reads_cpu_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
