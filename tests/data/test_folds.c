/* Folds against the PyPI package iterative-stratification (golden/folds.txt, made by make_folds_golden.py), and
 * folds.csv. */
#include "data_fixture.h"

#include "fb3/folds.h"
#include "../../src/data/mt19937.h"

#include <zlib.h>

enum { MAX_NUMBERS = 128, LINE_BYTES = 4096, SHOWN = 12 };

typedef struct golden {
    char kind[16];
    int64_t n;
    int k;
    uint32_t seed, crc;
    unsigned long long label_seed;
    int64_t zero_step;
    unsigned number[MAX_NUMBERS]; /* densities or levels */
    int count;
    int first[SHOWN], shown;
} golden;

static void parse_golden(golden *g, char *line)
{
    char numbers[LINE_BYTES];
    int used = 0;
    *g = (golden){0};
    int fields = sscanf(line, "%15s %ld %d %u %llu %ld %4095s %x%n", g->kind, &g->n, &g->k, &g->seed, &g->label_seed,
                        &g->zero_step, numbers, &g->crc, &used);
    assert_int_equal(fields, 8);
    char *rest = numbers;
    for (char *word = strsep(&rest, ","); word; word = strsep(&rest, ",")) {
        assert_true(g->count < MAX_NUMBERS);
        g->number[g->count++] = (unsigned)strtoul(word, NULL, 10);
    }
    char *at = line + used;
    for (char *end; g->shown < SHOWN; at = end) {
        long value = strtol(at, &end, 10);
        if (end == at) break;
        g->first[g->shown++] = (int)value;
    }
}

static uint64_t hash_of(const golden *g, int64_t i, int j)
{
    uint64_t x = (g->label_seed << 40) + ((uint64_t)i << 8) + (uint64_t)j + UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

static void compute_labels(const golden *g, int8_t *fold)
{
    uint8_t *labels = calloc((size_t)g->n * (size_t)g->count, 1);
    assert_non_null(labels);
    for (int64_t i = 0; i < g->n; i++) {
        if (g->zero_step && i % g->zero_step == 0) continue;
        for (int j = 0; j < g->count; j++) labels[i * g->count + j] = hash_of(g, i, j) % 1000 < g->number[j];
    }
    assert_ok(fb3_folds_iterstrat(fold, labels, g->n, g->count, g->k, g->seed));
    free(labels);
}

/* scores [n, Y] in memory as a source. */
typedef struct score_array {
    const float *scores;
    int targets;
} score_array;

static fb3_status read_array(const void *context, int64_t first, int64_t count, float *scores)
{
    const score_array *array = context;
    memcpy(scores, array->scores + first * array->targets, (size_t)(count * array->targets) * sizeof *scores);
    return FB3_OK;
}

static fb3_score_source source_of(const score_array *array, int64_t n)
{
    return (fb3_score_source){.n = n, .targets = array->targets, .read = read_array, .context = array};
}

static fb3_status binned(int8_t *fold, const float *scores, int64_t n, int targets, int k, uint32_t seed)
{
    const score_array array = {scores, targets};
    const fb3_score_source source = source_of(&array, n);
    return fb3_folds_binned(fold, &source, k, seed);
}

static fb3_status compat(int8_t *fold, const float *scores, int64_t n, int targets, int k, uint32_t seed)
{
    const score_array array = {scores, targets};
    const fb3_score_source source = source_of(&array, n);
    return fb3_folds_compat(fold, &source, k, seed);
}

static void compute_binned(const golden *g, int8_t *fold)
{
    float *scores = calloc((size_t)g->n * (size_t)g->count, sizeof *scores);
    assert_non_null(scores);
    for (int64_t i = 0; i < g->n; i++) {
        for (int j = 0; j < g->count; j++)
            scores[i * g->count + j] = 1.0f + 0.5f * (float)(hash_of(g, i, j) % g->number[j]);
    }
    assert_ok(binned(fold, scores, g->n, g->count, g->k, g->seed));
    free(scores);
}

static void test_folds_equal_the_package(void **state)
{
    (void)state;
    char path[PATH_BYTES], *line = NULL;
    size_t capacity = 0;
    int cases = 0;
    snprintf(path, sizeof path, "%s/tests/data/golden/folds.txt", getenv("FB3_SOURCE_DIR"));
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (getline(&line, &capacity, file) > 0) {
        golden g;
        parse_golden(&g, line);
        int8_t *fold = malloc((size_t)g.n);
        assert_non_null(fold);
        if (strcmp(g.kind, "binned") == 0)
            compute_binned(&g, fold);
        else
            compute_labels(&g, fold);
        for (int i = 0; i < g.shown; i++) assert_int_equal(fold[i], g.first[i]);
        uint32_t crc = (uint32_t)crc32(0, (const unsigned char *)fold, (unsigned)g.n);
        if (crc != g.crc) print_message("case %d: %s", cases + 1, line);
        assert_int_equal(crc, g.crc);
        free(fold);
        cases++;
    }
    free(line);
    (void)fclose(file);
    assert_true(cases >= 50);
}

/* numpy.random.RandomState(5489): the published first outputs of mt19937ar, and the 10,000th that C++ demands. */
static void test_mt19937_known_values(void **state)
{
    (void)state;
    fb3_mt19937 random;
    fb3_mt19937_seed(&random, 5489);
    assert_int_equal(fb3_mt19937_next(&random), 3499211612u);
    assert_int_equal(fb3_mt19937_next(&random), 581869302u);
    for (int i = 3; i < 10000; i++) (void)fb3_mt19937_next(&random);
    assert_int_equal(fb3_mt19937_next(&random), 4123659995u);
    int next = random.next;
    assert_int_equal(fb3_mt19937_bounded(&random, 0), 0);
    assert_int_equal(random.next, next);
}

static void test_compat_is_all_true_on_scores(void **state)
{
    (void)state;
    enum { N = 3911, Y = 6, K = 4 };
    float *scores = malloc(sizeof *scores * N * Y);
    int8_t *fold = malloc(N);
    assert_non_null(scores);
    assert_non_null(fold);
    for (int i = 0; i < N * Y; i++) scores[i] = 1.0f + 0.5f * (float)(i % 9);
    assert_ok(compat(fold, scores, N, Y, K, 42));
    assert_int_equal(crc32(0, (const unsigned char *)fold, N), 0x359703a0);
    free(scores);
    free(fold);
}

/* Every level's share of a fold is within one sample of its share of the whole, where levels are common. */
static void test_binned_stratifies(void **state)
{
    (void)state;
    enum { N = 3000, Y = 2, K = 3, LEVELS = 5 };
    static float scores[N * Y];
    static int8_t fold[N];
    int count[Y][LEVELS] = {0}, in_fold[K][Y][LEVELS] = {0};
    golden g = {.label_seed = 900};
    for (int i = 0; i < N * Y; i++) scores[i] = 2.0f + 0.5f * (float)(hash_of(&g, i, 0) % LEVELS);
    assert_ok(binned(fold, scores, N, Y, K, 1));
    for (int i = 0; i < N * Y; i++) {
        int level = (int)(2 * scores[i]) - 4;
        count[i % Y][level]++;
        in_fold[fold[i / Y]][i % Y][level]++;
    }
    for (int f = 0; f < K; f++) {
        for (int y = 0; y < Y; y++) {
            for (int level = 0; level < LEVELS; level++)
                assert_true(abs(K * in_fold[f][y][level] - count[y][level]) <= 2 * K);
        }
    }
}

static void test_bad_counts(void **state)
{
    (void)state;
    int8_t fold[2000];
    uint8_t labels[4] = {1, 1, 1, 1};
    static float scores[1100];
    for (int i = 0; i < 1100; i++) scores[i] = (float)i;
    assert_fails(fb3_folds_iterstrat(fold, labels, 4, 1, 1, 0), FB3_INPUT, "between 2 and 100");
    assert_fails(fb3_folds_iterstrat(fold, labels, 4, 1, 101, 0), FB3_INPUT, "between 2 and 100");
    assert_fails(fb3_folds_iterstrat(fold, labels, 4, 1, 5, 0), FB3_INPUT, "fewer than 5 folds");
    assert_fails(binned(fold, scores, 1100, 1, 3, 0), FB3_INPUT, "more than 1000 score levels");
    assert_fails(compat(fold, scores, 1100, 0, 3, 0), FB3_INPUT, "no scores");
}

static const char ESSAYS[] = "text_id,full_text,a\n"
                             "one,x,1\n\"t,wo\",y,2\nthree,z,3\nvier,w,4\n";

typedef struct opened {
    fb3_dataset *dataset;
    fb3_node_memory memory;
} opened;

static void open_essays(opened *o)
{
    make_dataset("folds.h5", ESSAYS, 1, 1000);
    assert_ok(fb3_node_memory_private(&o->memory));
    assert_ok(fb3_dataset_open(&o->dataset, scratch_path("folds.h5"), &o->memory));
}

static void close_essays(opened *o)
{
    fb3_dataset_close(o->dataset);
    fb3_node_memory_private_free(&o->memory);
}

static void test_csv_round_trip_in_any_order(void **state)
{
    (void)state;
    opened o;
    open_essays(&o);
    const int8_t folds[4] = {1, 0, 2, 1};
    int8_t back[4];
    int k = 0;
    assert_ok(fb3_folds_write_csv(folds, scratch_path("folds.csv"), "text_id", o.dataset));
    char *text = read_text("folds.csv");
    assert_string_equal(text, "text_id,fold\none,1\n\"t,wo\",0\nthree,2\nvier,1\n");
    free(text);
    assert_ok(fb3_folds_read_csv(back, scratch_path("folds.csv"), "text_id", o.dataset, &k));
    assert_int_equal(k, 3);
    assert_memory_equal(back, folds, sizeof folds);

    write_text("other.csv", "fold,more,text_id\r\n2.0,,three\r\n1,q,vier\r\n0,,\"t,wo\"\r\n1,,one\r\n");
    assert_ok(fb3_folds_read_csv(back, scratch_path("other.csv"), "text_id", o.dataset, &k));
    assert_memory_equal(back, folds, sizeof folds);
    close_essays(&o);
}

static void test_bad_folds_files(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"text_id,fold\none,0\n\"t,wo\",1\nthree,0\nvier,1\nfive,0\n",
         "row 5 (line 6): the id five is not in the data set"},
        {"text_id,fold\none,0\n\"t,wo\",1\nthree,0\n", "no row for the id vier"},
        {"text_id,fold\none,0\none,1\n", "row 2 (line 3): the id one occurs a second time"},
        {"text_id,fold\none,0\n\"t,wo\",2\nthree,0\nvier,2\n", "no sample in fold 1"},
        {"text_id,fold\none,0\n\"t,wo\",0\nthree,0\nvier,0\n", "at least two folds"},
        {"text_id,fold\none,100\n", "\"100\" is not a fold"},
        {"text_id,fold\none,-1\n", "\"-1\" is not a fold"},
        {"text_id,fold\none,0.5\n", "\"0.5\" is not a fold"},
        {"text_id,fold\none,nan\n", "\"nan\" is not a fold"},
        {"text_id,fold\none,0x1\n", "\"0x1\" is not a fold"},
        {"text_id,fold\none,\n", "\"\" is not a fold"},
        {"id,fold\none,1\n", "text_id"},
        {"text_id,folds\none,1\n", "fold"},
        {"", "bad.csv"},
    };
    opened o;
    open_essays(&o);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int8_t fold[4];
        int k;
        write_text("bad.csv", cases[i].text);
        assert_fails(fb3_folds_read_csv(fold, scratch_path("bad.csv"), "text_id", o.dataset, &k), FB3_INPUT,
                     cases[i].message);
    }
    int8_t fold[4];
    int k;
    assert_fails(fb3_folds_read_csv(fold, scratch_path("nowhere.csv"), "text_id", o.dataset, &k), FB3_INPUT,
                 "nowhere.csv");
    assert_fails(fb3_folds_write_csv(fold, scratch_path("no/folder/f.csv"), "text_id", o.dataset), FB3_FAILED,
                 "no/folder/f.csv");
    close_essays(&o);
}

static void test_fold_numbers_are_checked(void **state)
{
    (void)state;
    int k;
    const int8_t good[4] = {0, 1, 2, 0}, negative[2] = {0, -1}, gap[2] = {0, 2}, lone[1] = {0};
    assert_ok(fb3_folds_count(good, 4, "x", &k));
    assert_int_equal(k, 3);
    assert_fails(fb3_folds_count(negative, 2, "column f", &k), FB3_INPUT, "column f: sample 1 has the fold -1");
    assert_fails(fb3_folds_count(gap, 2, "column f", &k), FB3_INPUT, "no sample in fold 1");
    assert_fails(fb3_folds_count(lone, 1, "column f", &k), FB3_INPUT, "at least two folds");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mt19937_known_values),
        cmocka_unit_test(test_folds_equal_the_package),
        cmocka_unit_test(test_compat_is_all_true_on_scores),
        cmocka_unit_test(test_binned_stratifies),
        cmocka_unit_test(test_bad_counts),
        cmocka_unit_test(test_csv_round_trip_in_any_order),
        cmocka_unit_test(test_bad_folds_files),
        cmocka_unit_test(test_fold_numbers_are_checked),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
