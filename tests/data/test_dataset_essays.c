/* The real essays with the real tokenizer, where they are at hand: every row of the data set is what the tokenizer
 * gives for the text, and the counts are those that are known of the corpus. Prints how long preparing and reading
 * take. */
#include "data_fixture.h"

#include "fb3/csv.h"
#include "fb3/rng.h"
#include <math.h>
#include <time.h>
#include <unistd.h>

enum { SKIPPED = 77, ESSAYS = 2057, BATCH = 16, EPOCHS = 3 };
static const char *const SCORES[] = {"cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions"};
enum { TARGETS = sizeof SCORES / sizeof *SCORES };

static char csv_path[PATH_BYTES], spm_path[PATH_BYTES];
static fb3_tokenizer *tokenizer;
static fb3_strings columns;

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static fb3_dataset_options options_of(int max_length)
{
    return (fb3_dataset_options){.id_column = "text_id",
                                 .text_column = "full_text",
                                 .label_columns = &columns,
                                 .max_length = max_length,
                                 .max_samples = FB3_UNSET_INT};
}

static int set_up(void **state)
{
    for (int y = 0; y < TARGETS; y++) assert_ok(fb3_strings_add(&columns, SCORES[y]));
    assert_ok(fb3_tokenizer_open(&tokenizer, spm_path));
    return make_scratch(state);
}

static int tear_down(void **state)
{
    fb3_tokenizer_close(tokenizer);
    fb3_strings_free(&columns);
    return remove_scratch(state);
}

static void prepare(const char *name, int max_length, fb3_dataset_report *report)
{
    fb3_dataset_options options = options_of(max_length);
    double start = now();
    assert_ok(prepare_file(csv_path, scratch_path(name), tokenizer, &options, report));
    print_message("max_length %d: %lld essays, %lld tokens %s in %.2f s\n", max_length, (long long)report->samples,
                  (long long)report->total_tokens, report->reused ? "reused" : "prepared", now() - start);
}

static void test_known_counts(void **state)
{
    (void)state;
    fb3_dataset_report report;
    prepare("whole.h5", 2048, &report);
    assert_int_equal(report.samples, ESSAYS);
    assert_int_equal(report.longest, 1504);
    assert_int_equal(report.truncated_samples, 0);
    assert_int_equal((int)lround((double)report.total_tokens / ESSAYS), 479);
    prepare("essays.h5", 512, &report);
    assert_int_equal((int)lround(100.0 * (double)report.truncated_samples / ESSAYS), 36);
    for (int y = 0; y < TARGETS; y++) assert_true(!report.constant[y] && report.out_of_range[y] == 0);
    prepare("essays.h5", 512, &report);
    assert_true(report.reused);
}

static void check_row(const fb3_dataset *dataset, const fb3_csv *csv, int64_t row, const int *column)
{
    static uint32_t *ids, stored[512];
    static int64_t capacity;
    int64_t bytes;
    int count, untruncated;
    float labels[TARGETS];
    fb3_strings id;
    const char *text = fb3_csv_field(csv, fb3_csv_column(csv, "full_text"), &bytes);
    assert_ok(fb3_tokenizer_encode(tokenizer, text, bytes, 512, &ids, &capacity, &count, &untruncated));
    assert_int_equal(fb3_dataset_length(dataset, row), count);
    assert_ok(fb3_dataset_read_tokens(dataset, &row, 1, stored));
    assert_memory_equal(stored, ids, (size_t)count * sizeof *ids);
    assert_ok(fb3_dataset_read_labels(dataset, &row, 1, labels));
    for (int y = 0; y < TARGETS; y++) assert_true(labels[y] == strtof(fb3_csv_field(csv, column[y], NULL), NULL));
    assert_ok(fb3_dataset_id_range(dataset, row, 1, &id));
    assert_string_equal(id.item[0], fb3_csv_field(csv, fb3_csv_column(csv, "text_id"), NULL));
    fb3_strings_free(&id);
    if (row + 1 == dataset->n) free(ids);
}

static void test_rows_are_the_tokenizers(void **state)
{
    (void)state;
    fb3_dataset_report report;
    fb3_node_memory memory;
    fb3_dataset *dataset;
    fb3_csv *csv;
    int column[TARGETS];
    bool more;
    prepare("essays.h5", 512, &report);
    assert_ok(fb3_node_memory_private(&memory));
    assert_ok(fb3_dataset_open(&dataset, scratch_path("essays.h5"), &memory));
    assert_ok(fb3_csv_open(&csv, csv_path));
    for (int y = 0; y < TARGETS; y++) column[y] = fb3_csv_column(csv, SCORES[y]);
    for (int64_t row = 0;; row++) {
        assert_ok(fb3_csv_next(csv, &more));
        if (!more) break;
        check_row(dataset, csv, row, column);
    }
    fb3_csv_close(csv);
    assert_ok(fb3_dataset_verify(dataset));
    print_message("active vocabulary: %d of %d\n", dataset->active, fb3_tokenizer_vocabulary(tokenizer));
    fb3_dataset_close(dataset);
    fb3_node_memory_private_free(&memory);
}

/* All rows in random batches of 16, each read once an epoch, as training reads them. */
static void test_reading_random_batches(void **state)
{
    (void)state;
    static uint32_t tokens[BATCH * 512];
    fb3_dataset_report report;
    fb3_node_memory memory;
    fb3_dataset *dataset;
    prepare("essays.h5", 512, &report);
    assert_ok(fb3_node_memory_private(&memory));
    assert_ok(fb3_dataset_open(&dataset, scratch_path("essays.h5"), &memory));
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        double start = now();
        float labels[BATCH * TARGETS];
        int64_t read = 0;
        for (int64_t first = 0; first < dataset->n; first += BATCH) {
            int64_t rows[BATCH], count = first + BATCH < dataset->n ? BATCH : dataset->n - first;
            for (int64_t i = 0; i < count; i++) {
                rows[i] = fb3_permute(first + i, dataset->n, fb3_rng_key_make(1, 0), epoch);
                read += fb3_dataset_length(dataset, rows[i]);
            }
            assert_ok(fb3_dataset_read_tokens(dataset, rows, count, tokens));
            assert_ok(fb3_dataset_read_labels(dataset, rows, count, labels));
        }
        assert_int_equal(read, report.total_tokens);
        print_message("epoch %u: all rows in batches of %d in %.1f ms\n", epoch, BATCH, 1e3 * (now() - start));
    }
    fb3_dataset_close(dataset);
    fb3_node_memory_private_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_counts),
        cmocka_unit_test(test_rows_are_the_tokenizers),
        cmocka_unit_test(test_reading_random_batches),
    };
    const char *shared = getenv("FB3_SHARED_DIR");
    snprintf(csv_path, sizeof csv_path, "%s/data/ellipse/train.csv", shared ? shared : "");
    snprintf(spm_path, sizeof spm_path, "%s/data/deberta-v3-tokenizer", shared ? shared : "");
    if (access(csv_path, R_OK) != 0 || access(spm_path, R_OK) != 0) {
        printf("skipped: %s or %s is missing\n", csv_path, spm_path);
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
