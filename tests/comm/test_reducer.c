/* The gradient all-reduce over MPI, in worlds of 1, 2, 3 and 4 ranks: right sums, nothing touched beside them, the same
 * bits on every rank and every time, whatever the timing. */
#include "fb3/comm.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { TIMEOUT_SECONDS = 60, GUARD = 16, PIECE = 1 << 20 };

static const float guard_value = -12345.0f;
static fb3_comm *comm;
static int rank, size;

/* A number of any sign and of sizes from 2^-12 to 2^11, the same on every machine. */
static float noise(int of_rank, int64_t i)
{
    uint32_t h = (uint32_t)i * 2654435761u ^ (uint32_t)(of_rank + 1) * 2246822519u;
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    return ldexpf((float)(h & 0xffff) / 65536.0f - 0.5f, (int)(h >> 16 & 15) * 3 / 2 - 11);
}

static float *guarded(int64_t count)
{
    float *x = malloc((size_t)(count + 2 * GUARD) * sizeof *x);
    assert_non_null(x);
    for (int i = 0; i < GUARD; i++) x[i] = x[count + GUARD + i] = guard_value;
    for (int64_t i = 0; i < count; i++) x[GUARD + i] = noise(rank, i);
    return x;
}

static void check_guards(const float *x, int64_t count)
{
    for (int i = 0; i < GUARD; i++) {
        assert_true(x[i] == guard_value);
        assert_true(x[count + GUARD + i] == guard_value);
    }
}

/* Posts x in ranges of `range` and lets them fly as the polls want it. */
static void reduce(float *x, int64_t count, int64_t range, int polls)
{
    fb3_reducer *reducer;
    assert_int_equal(fb3_reducer_create_mpi(&reducer, comm), FB3_OK);
    assert_string_equal(reducer->ops->name, "mpi");
    for (int64_t at = 0; at < count; at += range) {
        assert_int_equal(reducer->ops->start(reducer, x + at, count - at < range ? count - at : range), FB3_OK);
        for (int p = 0; p < polls; p++) assert_int_equal(reducer->ops->poll(reducer), FB3_OK);
    }
    assert_int_equal(reducer->ops->start(reducer, x, 0), FB3_OK);
    assert_int_equal(reducer->ops->wait(reducer, 1), FB3_OK);
    assert_int_equal(reducer->bytes, size == 1 ? 0 : count * (int64_t)sizeof *x);
    assert_true(reducer->wait_seconds >= 0);
    reducer->ops->destroy(reducer);
}

static void check_same_on_all_ranks(const float *x, int64_t count)
{
    float *first = malloc((size_t)(count + 1) * sizeof *first);
    assert_non_null(first);
    if (count > 0) memcpy(first, x, (size_t)count * sizeof *first);
    assert_int_equal(fb3_comm_broadcast(comm, first, (size_t)count * sizeof *first, 0, "compare"), FB3_OK);
    assert_int_equal(count > 0 ? memcmp(first, x, (size_t)count * sizeof *first) : 0, 0);
    free(first);
}

static void sums_are_right(void **state)
{
    (void)state;
    const int64_t counts[] = {0, 1, 2, 3, 7, 1000, PIECE - 1, PIECE, PIECE + 1, 9 * PIECE + 12345};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        float *x = guarded(counts[c]);
        reduce(x + GUARD, counts[c], counts[c] + 1, 0);
        int64_t wrong = 0;
        for (int64_t i = 0; i < counts[c]; i++) {
            double sum = 0, magnitude = 0;
            for (int r = 0; r < size; r++) {
                sum += noise(r, i);
                magnitude += fabs((double)noise(r, i));
            }
            /* size - 1 additions, each off by half a unit in the last place of at most the sum of magnitudes */
            wrong += !(fabs(x[GUARD + i] - sum) <= (size - 1) * 0.5 * FLT_EPSILON * magnitude);
        }
        assert_int_equal(wrong, 0);
        check_guards(x, counts[c]);
        check_same_on_all_ranks(x + GUARD, counts[c]);
        free(x);
    }
}

static void bits_do_not_depend_on_timing(void **state)
{
    (void)state;
    const int64_t count = 6 * PIECE + 77, range = PIECE + 1001;
    float *reference = guarded(count);
    reduce(reference + GUARD, count, range, 0);
    for (int run = 1; run < 4; run++) {
        float *x = guarded(count);
        /* Ranks come late by turns, and poll differently often. */
        if (rank == run % size) nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        reduce(x + GUARD, count, range, run * (rank + 1));
        assert_memory_equal(x + GUARD, reference + GUARD, (size_t)count * sizeof *x);
        check_guards(x, count);
        free(x);
    }
    free(reference);
}

static void non_finite_values_arrive(void **state)
{
    (void)state;
    const int64_t count = 2 * PIECE + 5, nan_at = PIECE + 3, inf_at = 17;
    float *x = guarded(count);
    if (rank == size - 1) {
        x[GUARD + nan_at] = NAN;
        x[GUARD + inf_at] = INFINITY;
    }
    reduce(x + GUARD, count, count, 1);
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; i++) {
        float y = x[GUARD + i];
        wrong += i == nan_at ? !isnan(y) : i == inf_at ? !(isinf(y) && y > 0) : !isfinite(y);
    }
    assert_int_equal(wrong, 0);
    free(x);
}

static void a_reducer_is_used_again(void **state)
{
    (void)state;
    enum { COUNT = 3 * PIECE / 2, STEPS = 20 };
    fb3_reducer *reducer;
    assert_int_equal(fb3_reducer_create_mpi(&reducer, comm), FB3_OK);
    float *x = malloc(COUNT * sizeof *x);
    assert_non_null(x);
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < COUNT; i++) x[i] = (float)(rank + step);
        assert_int_equal(reducer->ops->start(reducer, x + COUNT / 2, COUNT - COUNT / 2), FB3_OK);
        assert_int_equal(reducer->ops->poll(reducer), FB3_OK);
        assert_int_equal(reducer->ops->start(reducer, x, COUNT / 2), FB3_OK);
        assert_int_equal(reducer->ops->wait(reducer, step), FB3_OK);
        float expected = (float)(size * step + size * (size - 1) / 2);
        int wrong = 0;
        for (int i = 0; i < COUNT; i++) wrong += x[i] != expected;
        assert_int_equal(wrong, 0);
    }
    free(x);
    reducer->ops->destroy(reducer);
}

/* Integers of all sizes, over more than one piece. */
static void test_integers(void **state)
{
    (void)state;
    enum { COUNT = PIECE + 1234 };
    fb3_reducer *reducer;
    int64_t *x = malloc(COUNT * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < COUNT; i++) x[i] = (i - COUNT / 2) * (INT64_C(1) << i % 40) + rank;
    assert_int_equal(fb3_reducer_create_mpi(&reducer, comm), FB3_OK);
    assert_int_equal(reducer->ops->start_int64(reducer, x, COUNT), FB3_OK);
    assert_int_equal(reducer->ops->wait(reducer, 1), FB3_OK);
    for (int64_t i = 0; i < COUNT; i++) {
        int64_t want = 0;
        for (int r = 0; r < size; r++) want += (i - COUNT / 2) * (INT64_C(1) << i % 40) + r;
        assert_true(x[i] == want);
    }
    reducer->ops->destroy(reducer);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),
        cmocka_unit_test(sums_are_right),
        cmocka_unit_test(bits_do_not_depend_on_timing),
        cmocka_unit_test(non_finite_values_arrive),
        cmocka_unit_test(a_reducer_is_used_again),
    };
    if (fb3_comm_start(&comm, true, TIMEOUT_SECONDS) != FB3_OK) {
        fprintf(stderr, "%s\n", fb3_error_text());
        return 1;
    }
    rank = fb3_comm_rank(comm);
    size = fb3_comm_size(comm);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    fb3_comm_finish(comm);
    return failures;
}
