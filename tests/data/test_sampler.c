/* The order of samples and how a global batch is dealt to ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fb3/sampler.h"
#include <math.h>

enum { MAX_ROWS = 5000 };
static int32_t train_rows[MAX_ROWS];
static int64_t offsets[2 * MAX_ROWS + 2];

/* Lengths that are spread as essays' are: 2 .. 1500, most of them a few hundred. */
static int length_of(int64_t row)
{
    fb3_philox random = fb3_philox4x32((uint32_t)row, 0, 0, 0, 1, 2);
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += fb3_uniform24(random.word[i]);
    return 2 + (int)(1498.0 * pow(sum / 4.0, 1.6));
}

/* Every other row of the data set is in this fold's training part. */
static fb3_sampler make_sampler(int64_t n, int64_t global_batch, bool grouped)
{
    for (int64_t i = 0; i < 2 * n + 1; i++) offsets[i + 1] = offsets[i] + length_of(i);
    for (int64_t i = 0; i < n; i++) train_rows[i] = (int32_t)(2 * i + 1);
    return (fb3_sampler){.train_rows = train_rows,
                         .n = n,
                         .offsets = offsets,
                         .global_batch = global_batch,
                         .group_by_length = grouped,
                         .key = fb3_rng_key_make(42, 1)};
}

static void read_epoch(const fb3_sampler *sampler, int64_t epoch, int64_t *rows)
{
    int64_t steps = fb3_sampler_steps_per_epoch(sampler), at = 0;
    int64_t *batch = calloc((size_t)sampler->global_batch, sizeof *batch);
    assert_non_null(batch);
    for (int64_t step = 0; step < steps; step++) {
        int64_t count = -1;
        assert_int_equal(fb3_sampler_batch(sampler, epoch, step, batch, &count), FB3_OK);
        int64_t expected = step + 1 < steps ? sampler->global_batch : sampler->n - (steps - 1) * sampler->global_batch;
        assert_int_equal(count, expected);
        memcpy(rows + at, batch, (size_t)count * sizeof *rows);
        at += count;
    }
    assert_int_equal(at, sampler->n);
    free(batch);
}

static void assert_permutation(const int64_t *rows, int64_t n)
{
    static bool seen[2 * MAX_ROWS];
    memset(seen, 0, sizeof seen);
    for (int64_t i = 0; i < n; i++) {
        assert_true(rows[i] % 2 == 1 && rows[i] < 2 * n + 1);
        assert_false(seen[rows[i]]);
        seen[rows[i]] = true;
    }
}

static void test_every_epoch_is_a_permutation(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = {{1, 1},    {1, 8},    {7, 8},    {8, 8},      {9, 8},      {100, 7},
                                       {255, 16}, {256, 16}, {257, 16}, {4999, 128}, {5000, 5000}};
    static int64_t rows[MAX_ROWS], again[MAX_ROWS], other[MAX_ROWS];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int grouped = 0; grouped < 2; grouped++) {
            int64_t n = sizes[i][0];
            fb3_sampler sampler = make_sampler(n, sizes[i][1], grouped);
            for (int64_t epoch = 0; epoch < 3; epoch++) {
                read_epoch(&sampler, epoch, rows);
                assert_permutation(rows, n);
            }
            read_epoch(&sampler, 2, again);
            assert_memory_equal(rows, again, (size_t)n * sizeof *rows);
            if (n < 100 || (grouped && n <= sizes[i][1])) continue; /* one sorted batch has one order */
            read_epoch(&sampler, 3, other);
            assert_memory_not_equal(rows, other, (size_t)n * sizeof *rows);
            sampler.key = fb3_rng_key_make(42, 2);
            read_epoch(&sampler, 2, other);
            assert_memory_not_equal(rows, other, (size_t)n * sizeof *rows);
        }
    }
}

static void test_steps(void **state)
{
    (void)state;
    fb3_sampler sampler = {.n = 0, .global_batch = 8};
    assert_int_equal(fb3_sampler_steps_per_epoch(&sampler), 0);
    sampler.n = 1;
    assert_int_equal(fb3_sampler_steps_per_epoch(&sampler), 1);
    sampler.n = 16;
    assert_int_equal(fb3_sampler_steps_per_epoch(&sampler), 2);
    sampler.n = 17;
    assert_int_equal(fb3_sampler_steps_per_epoch(&sampler), 3);
}

static int length_at(const fb3_sampler *sampler, int64_t row)
{
    return (int)(sampler->offsets[row + 1] - sampler->offsets[row]);
}

/* Inside a pool of 50 batches (fewer in a short epoch) lengths never grow, equal ones keep the random order, and the
 * pool has the samples that it has without grouping. */
static void check_grouping(int64_t n, int64_t global_batch, int64_t pool_batches)
{
    static int64_t rows[MAX_ROWS], plain[MAX_ROWS], order[2 * MAX_ROWS];
    static bool in_pool[2 * MAX_ROWS];
    int64_t pool = pool_batches * global_batch;
    fb3_sampler sampler = make_sampler(n, global_batch, true);
    read_epoch(&sampler, 5, rows);
    sampler.group_by_length = false;
    read_epoch(&sampler, 5, plain);
    for (int64_t i = 0; i < n; i++) order[plain[i]] = i;
    for (int64_t first = 0; first < n; first += pool) {
        int64_t end = first + pool < n ? first + pool : n;
        memset(in_pool, 0, sizeof in_pool);
        for (int64_t i = first; i < end; i++) in_pool[plain[i]] = true;
        for (int64_t i = first; i < end; i++) {
            assert_true(in_pool[rows[i]]);
            if (i == first) continue;
            int before = length_at(&sampler, rows[i - 1]), now = length_at(&sampler, rows[i]);
            assert_true(before > now || (before == now && order[rows[i - 1]] < order[rows[i]]));
        }
    }
}

static void test_grouping_sorts_pools(void **state)
{
    (void)state;
    check_grouping(5000, 16, 50);
    check_grouping(4999, 16, 50);
    check_grouping(1000, 16, 15); /* 1000 / (4 * 16) */
    check_grouping(100, 16, 1);   /* 100 / (4 * 16) */
    check_grouping(10, 16, 1);
}

static void test_cost(void **state)
{
    (void)state;
    assert_true(fb3_sample_cost(0, 768) == 0);
    assert_true(fb3_sample_cost(100, 768) == 100.0 * (24.0 * 768 * 768 + 8.0 * 768 * 100));
    assert_true(fb3_sample_cost(512, 1) > 0 && fb3_sample_cost(1 << 20, 1 << 14) < INFINITY);
}

static void deal(const double *cost, int64_t count, int ranks, int32_t *owner, double *load)
{
    int64_t samples[64] = {0};
    assert_true(ranks <= 64);
    memset(load, 0, (size_t)ranks * sizeof *load);
    assert_int_equal(fb3_deal_ranks(cost, count, ranks, owner), FB3_OK);
    for (int64_t i = 0; i < count; i++) {
        assert_true(owner[i] >= 0 && owner[i] < ranks);
        samples[owner[i]]++;
        load[owner[i]] += cost[i];
    }
    for (int r = 0; r < ranks; r++) assert_int_equal(samples[r], count / ranks + (r < count % ranks));
}

static void test_dealing_counts(void **state)
{
    (void)state;
    static double cost[200], load[64];
    static int32_t owner[200], again[200];
    for (int64_t count = 0; count <= 200; count += count < 20 ? 1 : 37) {
        for (int64_t i = 0; i < count; i++) cost[i] = fb3_sample_cost(length_of(i), 768);
        for (int ranks = 1; ranks <= 64; ranks = ranks * 2 + 1) {
            deal(cost, count, ranks, owner, load);
            deal(cost, count, ranks, again, load);
            assert_memory_equal(owner, again, (size_t)count * sizeof *owner);
        }
    }
}

/* Equal costs go round the ranks from the lowest; the dearest sample goes to rank 0. */
static void test_dealing_ties(void **state)
{
    (void)state;
    const double equal[7] = {1, 1, 1, 1, 1, 1, 1}, unequal[4] = {1, 5, 2, 4};
    const int32_t round_robin[7] = {0, 1, 2, 0, 1, 2, 0}, longest_first[4] = {0, 0, 1, 1};
    int32_t owner[7];
    assert_int_equal(fb3_deal_ranks(equal, 7, 3, owner), FB3_OK);
    assert_memory_equal(owner, round_robin, sizeof owner);
    assert_int_equal(fb3_deal_ranks(unequal, 4, 2, owner), FB3_OK);
    assert_memory_equal(owner, longest_first, sizeof longest_first); /* 5 + 1 and 4 + 2 */
    assert_int_equal(fb3_deal_ranks(equal, 2, 5, owner), FB3_OK);
    assert_int_equal(owner[0], 0);
    assert_int_equal(owner[1], 1);
}

/* The dearest rank's cost over the mean, minus 1, is what the others wait: less than a quarter of what they would wait
 * if the batch were cut up in its order. */
static void test_dealing_balances(void **state)
{
    (void)state;
    static const struct {
        int per_rank, ranks;
    } cases[] = {{8, 2}, {8, 8}, {16, 8}, {4, 16}, {32, 4}};
    enum { BATCHES = 50 };
    static double cost[256], load[64];
    static int32_t owner[256];
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int count = cases[c].per_rank * cases[c].ranks;
        double sum = 0, unsorted = 0;
        for (int batch = 0; batch < BATCHES; batch++) {
            double total = 0, largest = 0, in_order = 0;
            for (int i = 0; i < count; i++) {
                int length = length_of((int64_t)batch * count + i);
                total += cost[i] = fb3_sample_cost(length < 512 ? length : 512, 768);
            }
            deal(cost, count, cases[c].ranks, owner, load);
            for (int r = 0; r < cases[c].ranks; r++) {
                double block = 0;
                for (int i = 0; i < cases[c].per_rank; i++) block += cost[r * cases[c].per_rank + i];
                largest = fmax(largest, load[r]);
                in_order = fmax(in_order, block);
            }
            sum += largest * cases[c].ranks / total;
            unsorted += in_order * cases[c].ranks / total;
        }
        print_message("%2d ranks x %2d: dearest rank over mean %.4f (dealt in order: %.4f)\n", cases[c].ranks,
                      cases[c].per_rank, sum / BATCHES, unsorted / BATCHES);
        assert_true(sum - BATCHES < (unsorted - BATCHES) / 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_epoch_is_a_permutation),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_grouping_sorts_pools),
        cmocka_unit_test(test_cost),
        cmocka_unit_test(test_dealing_counts),
        cmocka_unit_test(test_dealing_ties),
        cmocka_unit_test(test_dealing_balances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
