/* One rank of a small job, for test_jobs.py: says on which cores it runs, or ends in one of the ways in which a rank
 * can end. The last rank is the one that does something wrong, the others wait for it.
 *
 *   comm_job TIMEOUT_SECONDS bind | bind-keep | abort CODE | exit CODE | kill | leave | late | late-sum | watch | agree
 * | node-agree | root-works SIGNS
 */
#include "fb3/comm.h"
#include "fb3/log.h"

#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LONGER_THAN_ANY_TEST = 100, STEP = 12 };

static fb3_status say_cores(fb3_comm *comm, bool keep)
{
    FB3_TRY(fb3_comm_bind(comm, keep));
    cpu_set_t mask;
    sched_getaffinity(0, sizeof mask, &mask);
    char line[1024];
    int at = snprintf(line, sizeof line, "rank %d threads %d cpus", fb3_comm_rank(comm), omp_get_max_threads());
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &mask) && at < (int)sizeof line - 8)
            at += snprintf(line + at, sizeof line - (size_t)at, " %d", cpu);
    printf("%s\n", line);
    fflush(stdout);
    return FB3_OK;
}

static fb3_status sum_late(fb3_comm *comm, bool late)
{
    float x[4] = {1, 2, 3, 4};
    fb3_reducer *reducer;
    FB3_TRY(fb3_reducer_create_mpi(&reducer, comm));
    if (late) sleep(LONGER_THAN_ANY_TEST);
    fb3_status status = reducer->ops->start(reducer, x, 4);
    if (status == FB3_OK) status = reducer->ops->wait(reducer, STEP);
    reducer->ops->destroy(reducer);
    return status;
}

/* The root works for 3 seconds and gives a sign of life before each tenth of a second, `signs` times. */
static fb3_status let_root_work(fb3_comm *comm, int signs)
{
    fb3_status mine = FB3_OK;
    fb3_comm_root_begins(comm, "long work");
    for (int i = 0; mine == FB3_OK && fb3_comm_root(comm) && i < 30; i++) {
        if (i < signs) mine = fb3_comm_root_goes_on(comm);
        usleep(100000);
    }
    if (fb3_comm_root(comm)) mine = fb3_fail(FB3_INPUT, "no rows; give it some");
    return fb3_comm_root_ends(comm, mine);
}

static fb3_status agree_on_node(fb3_comm *comm, bool fail)
{
    fb3_node_memory *memory = fb3_comm_node_memory(comm);
    return memory->publish(memory->context, fail ? fb3_fail(FB3_INPUT, "no such file here; copy it") : FB3_OK);
}

static fb3_status act(fb3_comm *comm, const char *scene, int code)
{
    bool last = fb3_comm_rank(comm) == fb3_comm_size(comm) - 1;
    if (strcmp(scene, "bind") == 0 || strcmp(scene, "bind-keep") == 0)
        return say_cores(comm, strcmp(scene, "bind-keep") == 0);
    if (strcmp(scene, "exit") == 0) return (fb3_status)code;
    if (strcmp(scene, "watch") == 0) {
        fb3_comm_watch_begin(comm, "writing last.h5", STEP);
        if (last) sleep(LONGER_THAN_ANY_TEST);
        fb3_comm_watch_end(comm);
    }
    if (strcmp(scene, "agree") == 0)
        return fb3_comm_agree(comm, last ? fb3_fail(FB3_INPUT, "no such column; mend it") : FB3_OK, "columns");
    if (strcmp(scene, "node-agree") == 0) return agree_on_node(comm, last);
    if (strcmp(scene, "root-works") == 0) return let_root_work(comm, code);
    if (last && strcmp(scene, "abort") == 0) {
        fb3_log_error("boom; mend it");
        fb3_comm_abort(code);
    }
    if (last && strcmp(scene, "kill") == 0) raise(SIGKILL);
    if (last && strcmp(scene, "leave") == 0) _exit(0);
    if (strcmp(scene, "late-sum") == 0) return sum_late(comm, last);
    if (last && strcmp(scene, "late") == 0) sleep(LONGER_THAN_ANY_TEST);
    return fb3_comm_barrier(comm, "meeting point");
}

int main(int argc, char **argv)
{
    if (argc < 3) return FB3_INPUT;
    fb3_comm *comm = NULL;
    fb3_status status = fb3_comm_start(&comm, true, strtol(argv[1], NULL, 10));
    if (status == FB3_OK) status = act(comm, argv[2], argc > 3 ? (int)strtol(argv[3], NULL, 10) : 0);
    if (fb3_error_text()[0] && (!comm || fb3_comm_root(comm))) fb3_log_error(fb3_error_text());
    fb3_comm_finish(comm);
    return status;
}
