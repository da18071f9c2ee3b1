/* Collectives, agreement on errors, memory shared by a node: run in worlds of 1, 2, 3 and 4 ranks. Every rank makes
 * every test; a rank that fails leaves the others waiting, which the watchdog ends. */
#include "fb3/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { TIMEOUT_SECONDS = 30, RANKS_MAX = 16 };

static fb3_comm *comm;
static int rank, size, last;

static void knows_the_ranks(void **state)
{
    (void)state;
    fb3_rank_info info[RANKS_MAX];
    char device[32];
    snprintf(device, sizeof device, "device of %d", rank);
    assert_int_equal(fb3_comm_bind(comm, false), FB3_OK);
    assert_int_equal(fb3_comm_gather_info(comm, device, "", info), FB3_OK);
    for (int r = 0; r < size; r++) {
        assert_int_equal(info[r].rank, r);
        assert_int_equal(info[r].node, 0); /* the test runs on one machine */
        assert_int_equal(info[r].node_rank, r);
        assert_string_equal(info[r].host, info[0].host);
        assert_true(info[r].cores >= 1 && info[r].threads >= 1);
        snprintf(device, sizeof device, "device of %d", r);
        assert_string_equal(info[r].device, device);
    }
    assert_int_equal(fb3_comm_root(comm), rank == 0);
    assert_non_null(strstr(fb3_comm_library_version(), "MPI"));
}

static unsigned char pattern(size_t i)
{
    return (unsigned char)(i * 2654435761u >> 13);
}

static void broadcasts_more_than_one_piece(void **state)
{
    (void)state;
    size_t sizes[] = {0, 1, 4097, (1u << 26) + 5};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        unsigned char *data = calloc(sizes[s] + 1, 1);
        assert_non_null(data);
        if (rank == last)
            for (size_t i = 0; i < sizes[s]; i++) data[i] = pattern(i);
        data[sizes[s]] = 77;
        assert_int_equal(fb3_comm_broadcast(comm, data, sizes[s], last, "test broadcast"), FB3_OK);
        size_t wrong = 0;
        for (size_t i = 0; i < sizes[s]; i++) wrong += data[i] != pattern(i);
        assert_int_equal(wrong, 0);
        assert_int_equal(data[sizes[s]], 77);
        free(data);
    }
}

static void sums_doubles_in_rank_order(void **state)
{
    (void)state;
    static const double terms[4] = {1e16, 1.0, -1e16, 3.0}; /* any other order gives another sum */
    double x[3] = {terms[rank % 4], rank + 0.5, 0.0}, expected[3] = {0};
    for (int r = 0; r < size; r++) {
        expected[0] = r == 0 ? terms[0] : expected[0] + terms[r % 4];
        expected[1] += r + 0.5;
    }
    assert_int_equal(fb3_comm_sum_double(comm, x, 3, "test sum"), FB3_OK);
    assert_memory_equal(x, expected, sizeof x);
    assert_int_equal(fb3_comm_sum_double(comm, NULL, 0, "sum of nothing"), FB3_OK);
}

static void takes_the_largest_int64(void **state)
{
    (void)state;
    int64_t x[3] = {rank, -rank, (int64_t)1 << (40 + rank)};
    assert_int_equal(fb3_comm_max_int64(comm, x, 3, "test maximum"), FB3_OK);
    assert_int_equal(x[0], last);
    assert_int_equal(x[1], 0);
    assert_true(x[2] == (int64_t)1 << (40 + last));
}

static void gathers_floats_of_any_count(void **state)
{
    (void)state;
    enum { LARGE = (1 << 24) + 3 }; /* more than one piece */
    int64_t counts[RANKS_MAX];
    int64_t total = 0;
    for (int r = 0; r < size; r++) {
        counts[r] = r % 3 == 0 ? LARGE : r % 3 == 1 ? 5 : 0;
        total += counts[r];
    }
    float *mine = malloc((size_t)(counts[rank] + 1) * sizeof *mine);
    float *all = rank == last ? malloc((size_t)total * sizeof *all) : NULL;
    assert_non_null(mine);
    for (int64_t i = 0; i < counts[rank]; i++) mine[i] = (float)(i % 1000003) + 0.25f * (float)rank;
    assert_int_equal(fb3_comm_gather_floats(comm, mine, all, counts, last, "test gather"), FB3_OK);
    if (rank == last) {
        int64_t wrong = 0;
        const float *at = all;
        for (int r = 0; r < size; at += counts[r], r++)
            for (int64_t i = 0; i < counts[r]; i++) wrong += at[i] != (float)(i % 1000003) + 0.25f * (float)r;
        assert_int_equal(wrong, 0);
    }
    free(mine);
    free(all);
}

static void agrees_that_all_is_well(void **state)
{
    (void)state;
    assert_int_equal(fb3_comm_agree(comm, FB3_OK, "test"), FB3_OK);
}

static void brings_an_error_text_to_every_rank(void **state)
{
    (void)state;
    fb3_status mine = FB3_OK;
    if (rank == last) mine = fb3_fail(FB3_FAILED, "disk full while writing x.h5; free %d MB", 17);
    assert_int_equal(fb3_comm_agree(comm, mine, "test"), FB3_FAILED);
    char expected[128];
    if (size > 1)
        snprintf(expected, sizeof expected, "rank %d: disk full while writing x.h5; free 17 MB", last);
    else
        snprintf(expected, sizeof expected, "disk full while writing x.h5; free 17 MB");
    assert_string_equal(fb3_error_text(), expected);
}

static void prefers_the_worst_error_of_the_lowest_rank(void **state)
{
    (void)state;
    if (size < 3) skip();
    fb3_status mine = fb3_fail(rank == 0 ? FB3_FAILED : FB3_INPUT, "text of %d", rank);
    assert_int_equal(fb3_comm_agree(comm, mine, "test"), FB3_INPUT);
    assert_string_equal(fb3_error_text(), "rank 1: text of 1");
    assert_int_equal(fb3_comm_agree(comm, rank == 1 ? FB3_STOPPED : FB3_OK, "test"), FB3_STOPPED);
    mine = rank == 1 ? FB3_STOPPED : rank == 2 ? fb3_fail(FB3_FAILED, "broken") : FB3_OK;
    assert_int_equal(fb3_comm_agree(comm, mine, "test"), FB3_FAILED);
    assert_string_equal(fb3_error_text(), "rank 2: broken");
}

static void finds_the_rank_that_differs(void **state)
{
    (void)state;
    char hex[65];
    memset(hex, 'a', 64);
    hex[64] = 0;
    assert_int_equal(fb3_comm_check_same(comm, hex, "parameters"), FB3_OK);
    if (size == 1) return;
    if (rank == 1) hex[63] = 'b';
    assert_int_equal(fb3_comm_check_same(comm, hex, "parameters"), FB3_FAILED);
    assert_non_null(strstr(fb3_error_text(), "rank 1: parameters"));
}

static void shares_memory_within_the_node(void **state)
{
    (void)state;
    fb3_node_memory *memory = fb3_comm_node_memory(comm);
    assert_int_equal(memory->writer, rank == 0);
    size_t sizes[] = {0, 1, 1000003, 64};
    unsigned char *parts[4];
    for (int i = 0; i < 4; i++) {
        void *part = NULL;
        assert_int_equal(memory->allocate(memory->context, sizes[i], &part), FB3_OK);
        assert_non_null(part);
        assert_int_equal((uintptr_t)part % 64, 0);
        parts[i] = part;
    }
    if (memory->writer)
        for (int i = 0; i < 4; i++)
            for (size_t k = 0; k < sizes[i]; k++) parts[i][k] = pattern(k + (size_t)i);
    assert_int_equal(memory->publish(memory->context, FB3_OK), FB3_OK);
    size_t wrong = 0;
    for (int i = 0; i < 4; i++)
        for (size_t k = 0; k < sizes[i]; k++) wrong += parts[i][k] != pattern(k + (size_t)i);
    assert_int_equal(wrong, 0);
    assert_int_equal(fb3_comm_barrier(comm, "all have read"), FB3_OK);

    if (memory->writer) parts[2][5] = 200; /* the same memory, not a copy */
    assert_int_equal(memory->publish(memory->context, FB3_OK), FB3_OK);
    assert_int_equal(parts[2][5], 200);
}

static void tells_the_node_what_went_wrong(void **state)
{
    (void)state;
    fb3_node_memory *memory = fb3_comm_node_memory(comm);
    fb3_status mine = memory->writer ? fb3_fail(FB3_INPUT, "row 3 of x.csv is short; mend it") : FB3_OK;
    assert_int_equal(memory->publish(memory->context, mine), FB3_INPUT);
    assert_string_equal(fb3_error_text(), "row 3 of x.csv is short; mend it");
}

static void refuses_impossible_memory(void **state)
{
    (void)state;
    fb3_node_memory *memory = fb3_comm_node_memory(comm);
    void *part = &part;
    assert_int_equal(memory->allocate(memory->context, SIZE_MAX - 3, &part), FB3_FAILED);
    assert_null(part);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void sleeps_while_it_waits(void **state)
{
    (void)state;
    assert_int_equal(fb3_comm_barrier(comm, "before"), FB3_OK);
    double before = cpu_seconds();
    if (rank == 0) sleep(1);
    assert_int_equal(fb3_comm_barrier(comm, "rank 0 is busy"), FB3_OK);
    assert_true(cpu_seconds() - before < 0.3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_the_ranks),
        cmocka_unit_test(broadcasts_more_than_one_piece),
        cmocka_unit_test(sums_doubles_in_rank_order),
        cmocka_unit_test(takes_the_largest_int64),
        cmocka_unit_test(gathers_floats_of_any_count),
        cmocka_unit_test(agrees_that_all_is_well),
        cmocka_unit_test(brings_an_error_text_to_every_rank),
        cmocka_unit_test(prefers_the_worst_error_of_the_lowest_rank),
        cmocka_unit_test(finds_the_rank_that_differs),
        cmocka_unit_test(shares_memory_within_the_node),
        cmocka_unit_test(tells_the_node_what_went_wrong),
        cmocka_unit_test(refuses_impossible_memory),
        cmocka_unit_test(sleeps_while_it_waits),
    };
    if (fb3_comm_start(&comm, true, TIMEOUT_SECONDS) != FB3_OK) {
        fprintf(stderr, "%s\n", fb3_error_text());
        return 1;
    }
    rank = fb3_comm_rank(comm);
    size = fb3_comm_size(comm);
    last = size - 1;
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    fb3_comm_finish(comm);
    return failures;
}
