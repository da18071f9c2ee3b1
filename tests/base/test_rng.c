/* Philox against Random123's known answers (its kat_vectors file), and what is built on it against statistics. */
#include "fb3/rng.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void philox_gives_the_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } KNOWN[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        const uint32_t *c = KNOWN[i].counter, *k = KNOWN[i].key;
        fb3_philox random = fb3_philox4x32(c[0], c[1], c[2], c[3], k[0], k[1]);
        assert_memory_equal(random.word, KNOWN[i].answer, sizeof random.word);
    }
}

static void uniform_stays_below_one(void **state)
{
    (void)state;
    assert_true(fb3_uniform24(0) == 0.0f);
    assert_true(fb3_uniform24(UINT32_MAX) < 1.0f);
    assert_true(fb3_uniform24(UINT32_MAX) == 1.0f - 0x1p-24f);
    assert_true(fb3_uniform24(0x80000000u) == 0.5f);
}

static void keys_differ(void **state)
{
    (void)state;
    enum { SEEDS = 40, FOLDS = 11 };
    static fb3_rng_key key[SEEDS * 2 * FOLDS];
    int count = 0;
    for (int fold = -1; fold < FOLDS - 1; fold++) {
        for (uint64_t seed = 0; seed < SEEDS; seed++) key[count++] = fb3_rng_key_make(seed, fold);
        for (uint64_t seed = 0; seed < SEEDS; seed++) key[count++] = fb3_rng_key_make(seed << 32 | 5, fold);
    }
    int equal = 0;
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++) equal += key[i].k0 == key[j].k0 && key[i].k1 == key[j].k1;
    /* seed 5 stands in both lists, once per fold */
    assert_int_equal(equal, FOLDS);
    fb3_rng_key again = fb3_rng_key_make(42, 0), first = fb3_rng_key_make(42, 0);
    assert_memory_equal(&again, &first, sizeof first);
}

/* The averages of z, z^2, z^3, z^4 over n normals have variances 1, 2, 15 and 96 over n. */
static void normals_have_the_moments(void **state)
{
    (void)state;
    enum { N = 400000 };
    const double within = 4.5; /* standard errors */
    const float sigma = 0.02f;
    float *x = malloc(N * sizeof *x);
    fb3_rng_normal(x, N, sigma, fb3_rng_key_make(42, -1), 3);
    double moment[5] = {0};
    long beyond_two = 0;
    for (int i = 0; i < N; i++) {
        double z = x[i] / (double)sigma, power = 1;
        for (int m = 1; m <= 4; m++) moment[m] += (power *= z) / N;
        beyond_two += fabs(z) > 2;
    }
    free(x);
    double root = sqrt(N);
    assert_true(fabs(moment[1]) < within / root);
    assert_true(fabs(moment[2] - 1) < within * sqrt(2) / root);
    assert_true(fabs(moment[3]) < within * sqrt(15) / root);
    assert_true(fabs(moment[4] - 3) < within * sqrt(96) / root);
    double p = erfc(2 / sqrt(2)), error = sqrt(p * (1 - p) / N);
    assert_true(fabs((double)beyond_two / N - p) < within * error);
}

/* Also the two normals that come of one pair of words. */
static void normals_are_unrelated_to_their_neighbours(void **state)
{
    (void)state;
    enum { N = 100000, FARTHEST = 8 };
    float *x = malloc((N + FARTHEST) * sizeof *x);
    fb3_rng_normal(x, N + FARTHEST, 1, fb3_rng_key_make(3, -1), 0);
    for (int lag = 1; lag <= FARTHEST; lag++) {
        double sum = 0, sum_of_squares = 0;
        for (int i = 0; i < N; i++) {
            sum += (double)x[i] * x[i + lag];
            sum_of_squares += ((double)x[i] * x[i] - 1) * ((double)x[i + lag] * x[i + lag] - 1) / 2;
        }
        assert_true(fabs(sum) / sqrt(N) < 4.5);
        assert_true(fabs(sum_of_squares) / sqrt(N) < 4.5);
    }
    free(x);
}

static void normals_depend_on_key_tensor_and_element_only(void **state)
{
    (void)state;
    enum { N = 1003, GUARD = 4 };
    fb3_rng_key key = fb3_rng_key_make(1, 0);
    float whole[N], part[N + GUARD];
    fb3_rng_normal(whole, N, 1, key, 9);
    for (int count = 0; count <= N; count += 17) {
        for (int i = 0; i < N + GUARD; i++) part[i] = 77;
        fb3_rng_normal(part, count, 1, key, 9);
        assert_memory_equal(part, whole, (size_t)count * sizeof *part);
        for (int i = count; i < N + GUARD; i++) assert_true(part[i] == 77);
    }
    fb3_rng_normal(part, N, 1, key, 10);
    int same = 0;
    for (int i = 0; i < N; i++) same += part[i] == whole[i];
    assert_in_range(same, 0, 3);
    fb3_rng_normal(part, N, 1, fb3_rng_key_make(2, 0), 9);
    for (int i = 0; i < N; i++) same += part[i] == whole[i];
    assert_in_range(same, 0, 6);
}

static void check_permutation(int64_t n, fb3_rng_key key, uint32_t epoch)
{
    char *seen = calloc((size_t)n, 1);
    for (int64_t i = 0; i < n; i++) {
        int64_t value = fb3_permute(i, n, key, epoch);
        assert_true(value >= 0 && value < n);
        assert_false(seen[value]);
        seen[value] = 1;
    }
    free(seen);
}

static void permute_is_a_permutation(void **state)
{
    (void)state;
    fb3_rng_key key = fb3_rng_key_make(42, 1);
    for (int64_t n = 1; n <= 1000; n++) check_permutation(n, key, (uint32_t)n);
    static const int64_t LARGE[] = {1024, 1025, 4096, 12345, 65535, 65536, 65537, 300000};
    for (size_t i = 0; i < sizeof LARGE / sizeof *LARGE; i++) check_permutation(LARGE[i], key, 0);
}

static void permute_stays_inside_the_largest_ranges(void **state)
{
    (void)state;
    static const int64_t LARGE[] = {(int64_t)1 << 32, ((int64_t)1 << 40) + 7, INT64_MAX};
    fb3_rng_key key = fb3_rng_key_make(7, 0);
    for (size_t i = 0; i < sizeof LARGE / sizeof *LARGE; i++) {
        for (int64_t k = 0; k < 100; k++) {
            int64_t value = fb3_permute(k, LARGE[i], key, 3);
            assert_true(value >= 0 && value < LARGE[i]);
        }
        int64_t last = fb3_permute(LARGE[i] - 1, LARGE[i], key, 3);
        assert_true(last >= 0 && last < LARGE[i]);
    }
}

/* Pearson's statistic has mean `freedom` and variance 2 freedom. */
static void check_chi_square(const int *count, int cells, double expected, double freedom)
{
    double chi_square = 0;
    for (int i = 0; i < cells; i++) chi_square += (count[i] - expected) * (count[i] - expected) / expected;
    assert_true(fabs(chi_square - freedom) < 4.5 * sqrt(2 * freedom));
}

/* How often each value stands at each position, over many epochs and keys. */
static void every_value_visits_every_position(void **state)
{
    (void)state;
    enum { LARGEST = 37, ORDERS = 6000 };
    static const int SIZES[] = {2, 3, 5, 16, 17, LARGEST};
    static int count[LARGEST * LARGEST];
    for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++) {
        int n = SIZES[s];
        memset(count, 0, sizeof count);
        for (int order = 0; order < ORDERS; order++) {
            fb3_rng_key key = fb3_rng_key_make((uint64_t)order / 60, 0);
            for (int i = 0; i < n; i++) count[i * n + (int)fb3_permute(i, n, key, (uint32_t)order % 60)]++;
        }
        check_chi_square(count, n * n, (double)ORDERS / n, (n - 1.0) * (n - 1.0));
    }
}

static void every_order_of_four_is_as_likely(void **state)
{
    (void)state;
    enum { N = 4, ORDERS = 24, TRIES = 24000, CODES = 256 };
    int by_code[CODES] = {0}, count[ORDERS] = {0}, orders = 0;
    for (int t = 0; t < TRIES; t++) {
        int code = 0;
        for (int i = 0; i < N; i++) code = code * N + (int)fb3_permute(i, N, fb3_rng_key_make(99, 0), (uint32_t)t);
        by_code[code]++;
    }
    for (int code = 0; code < CODES; code++)
        if (by_code[code]) count[orders++ % ORDERS] = by_code[code];
    assert_int_equal(orders, ORDERS);
    check_chi_square(count, ORDERS, (double)TRIES / ORDERS, ORDERS - 1.0);
}

/* Half of the orders take an even number of swaps, half an odd one. */
static void orders_of_both_parities_come(void **state)
{
    (void)state;
    enum { N = 16, TRIES = 4000 };
    int odd_orders = 0;
    for (int t = 0; t < TRIES; t++) {
        int64_t value[N], inversions = 0;
        for (int i = 0; i < N; i++) value[i] = fb3_permute(i, N, fb3_rng_key_make(8, 1), (uint32_t)t);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < i; j++) inversions += value[j] > value[i];
        odd_orders += inversions % 2;
    }
    assert_true(fabs(odd_orders - TRIES / 2.0) < 4.5 * sqrt(TRIES) / 2);
}

/* Neighbours do not stay neighbours: the correlation of position and value is that of chance, 1 / sqrt(n). */
static void orders_are_unrelated_to_positions(void **state)
{
    (void)state;
    enum { N = 20000 };
    for (uint32_t epoch = 0; epoch < 5; epoch++) {
        double sum = 0, mean = (N - 1) / 2.0, variance = ((double)N * N - 1) / 12;
        int follows = 0;
        int64_t before = -1;
        for (int i = 0; i < N; i++) {
            int64_t value = fb3_permute(i, N, fb3_rng_key_make(5, 2), epoch);
            sum += (i - mean) * ((double)value - mean);
            follows += value == before + 1;
            before = value;
        }
        assert_true(fabs(sum / N / variance) < 4.5 / sqrt(N));
        assert_in_range(follows, 0, 8); /* Poisson with mean 1 */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(uniform_stays_below_one),
        cmocka_unit_test(keys_differ),
        cmocka_unit_test(normals_have_the_moments),
        cmocka_unit_test(normals_are_unrelated_to_their_neighbours),
        cmocka_unit_test(normals_depend_on_key_tensor_and_element_only),
        cmocka_unit_test(permute_is_a_permutation),
        cmocka_unit_test(permute_stays_inside_the_largest_ranges),
        cmocka_unit_test(every_value_visits_every_position),
        cmocka_unit_test(every_order_of_four_is_as_likely),
        cmocka_unit_test(orders_of_both_parities_come),
        cmocka_unit_test(orders_are_unrelated_to_positions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
