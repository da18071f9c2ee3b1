/* CSV -> data set -> rows: what is written, what is reported, when a file is reused, and that neither threads nor the
 * order of reading change a bit. */
#include "data_fixture.h"

#include "fb3/h5.h"
#include <math.h>
#include <omp.h>
#include <sys/stat.h>

enum { VOCABULARY = 1000, MANY_ROWS = 1500, CSV_BYTES = 1 << 20 };

static const char FEW[] = "full_text,b,text_id,extra,a\r\n"
                          "\"one two\r\nthree\",1,x1,,1.5\r\n"
                          ",5, x 2,q,2\r\n"
                          "one one one one one one,0.5,\"\xc3\xbc,3\",,2.50\r\n";

typedef struct opened {
    fb3_dataset *dataset;
    fb3_node_memory memory;
} opened;

static opened open_file(const char *name)
{
    opened o;
    assert_ok(fb3_node_memory_private(&o.memory));
    assert_ok(fb3_dataset_open(&o.dataset, scratch_path(name), &o.memory));
    return o;
}

static void close_file(opened *o)
{
    fb3_dataset_close(o->dataset);
    fb3_node_memory_private_free(&o->memory);
}

static fb3_status prepare(const char *csv, const char *h5, const fb3_dataset_options *options, int vocabulary,
                          char tokenizer, fb3_dataset_report *report)
{
    return prepare_file(scratch_path(csv), scratch_path(h5), stand_in_tokenizer(vocabulary, tokenizer), options,
                        report);
}

static void test_few_rows(void **state)
{
    (void)state;
    fb3_strings columns, ids;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, 2);
    write_text("few.csv", FEW);
    assert_ok(prepare("few.csv", "few.h5", &options, VOCABULARY, 'A', &report));
    assert_false(fb3_file_exists(scratch_path("few.h5.tmp")));
    opened o = open_file("few.h5");
    const fb3_dataset *d = o.dataset;
    assert_int_equal(d->n, 3);
    assert_int_equal(d->targets, 2);
    assert_int_equal(d->max_length, 512);
    assert_false(d->has_folds);
    assert_int_equal(d->label_columns.count, 2);
    assert_string_equal(d->label_columns.item[0], "a");
    assert_string_equal(d->label_columns.item[1], "b");
    assert_string_equal(d->tokenizer_sha256, fb3_tokenizer_sha256(stand_in_tokenizer(VOCABULARY, 'A')));
    char sha256[FB3_SHA256_HEX];
    assert_ok(fb3_sha256_file(scratch_path("few.csv"), sha256));
    assert_string_equal(d->source_sha256, sha256);
    const int64_t offsets[4] = {0, 4, 6, 14}; /* the line break is inside a word of the stand-in */
    assert_memory_equal(d->offsets, offsets, sizeof offsets);

    const int64_t rows[3] = {0, 1, 2};
    uint32_t tokens[14], one = stand_in_id("one", 3, VOCABULARY), two = stand_in_id("two\r\nthree", 10, VOCABULARY);
    const uint32_t expected[14] = {WORD_CLS, one, two, WORD_SEP, WORD_CLS, WORD_SEP, WORD_CLS,
                                   one,      one, one, one,      one,      one,      WORD_SEP};
    assert_ok(fb3_dataset_read_tokens(d, rows, 3, tokens));
    assert_memory_equal(tokens, expected, sizeof expected);
    const float scores[6] = {1.5f, 1, 2, 5, 2.5f, 0.5f};
    float labels[6];
    assert_ok(fb3_dataset_read_labels(d, rows, 3, labels));
    assert_memory_equal(labels, scores, sizeof scores);
    assert_ok(fb3_dataset_id_range(d, 0, 3, &ids));
    assert_int_equal(ids.count, 3);
    assert_string_equal(ids.item[0], "x1");
    assert_string_equal(ids.item[1], " x 2");
    assert_string_equal(ids.item[2], "\xc3\xbc,3");
    fb3_strings_free(&ids);
    assert_ok(fb3_dataset_id_range(d, 2, 1, &ids));
    assert_string_equal(ids.item[0], "\xc3\xbc,3");
    fb3_strings_free(&ids);
    assert_ok(fb3_dataset_id_range(d, 3, 0, &ids));
    assert_int_equal(ids.count, 0);

    assert_int_equal(d->active, 4);
    assert_int_equal(d->vocabulary[0], WORD_CLS);
    assert_int_equal(d->vocabulary[1], WORD_SEP);
    assert_int_equal(d->vocabulary[2] + d->vocabulary[3], one + two);
    assert_true(d->vocabulary[2] < d->vocabulary[3]);
    assert_ok(fb3_dataset_verify(d));
    close_file(&o);
    fb3_strings_free(&columns);
}

static size_t token_bytes(const char *name)
{
    hid_t file, dataset;
    assert_ok(fb3_h5_open(&file, scratch_path(name)));
    assert_ok(fb3_h5_open_dataset(&dataset, file, "tokens"));
    hid_t type = H5Dget_type(dataset);
    size_t bytes = H5Tget_size(type);
    (void)H5Tclose(type);
    assert_ok(fb3_h5_close(file, name));
    return bytes;
}

static void test_token_width_follows_the_vocabulary(void **state)
{
    (void)state;
    static const char text[] = "text_id,full_text\n1,some words here\n";
    make_dataset("narrow.h5", text, 0, 65536);
    make_dataset("wide.h5", text, 0, 65537);
    assert_int_equal(token_bytes("narrow.h5"), 2);
    assert_int_equal(token_bytes("wide.h5"), 4);
}

/* The largest id that fits survives the narrow type. */
static void test_largest_narrow_id(void **state)
{
    (void)state;
    char csv[128], word[16];
    for (int i = 0;; i++) {
        snprintf(word, sizeof word, "w%d", i);
        if (stand_in_id(word, strlen(word), 65536) == 65535) break;
    }
    snprintf(csv, sizeof csv, "text_id,full_text\n1,%s\n", word);
    make_dataset("largest.h5", csv, 0, 65536);
    opened o = open_file("largest.h5");
    const int64_t row = 0;
    uint32_t tokens[3];
    assert_ok(fb3_dataset_read_tokens(o.dataset, &row, 1, tokens));
    assert_int_equal(tokens[1], 65535);
    close_file(&o);
}

static void test_report(void **state)
{
    (void)state;
    fb3_strings columns;
    fb3_dataset_report report, again;
    fb3_dataset_options options = make_options(&columns, 3);
    options.max_length = 5;
    write_text("report.csv",
               "text_id,full_text,a,b,c\n1,u v w x y z,3,1,0\n2,u v w,3,5.5,6\n3,u v w,3,2,-1\n4,u v w x,3,2,5\n"
               "5,u v w,3,2,1\n");
    assert_ok(prepare("report.csv", "report.h5", &options, VOCABULARY, 'A', &report));
    assert_int_equal(report.samples, 5);
    assert_int_equal(report.truncated_samples, 2);
    assert_int_equal(report.truncated_tokens, 3 + 1);
    assert_int_equal(report.total_tokens, 25);
    assert_int_equal(report.duplicate_texts, 2);
    assert_int_equal(report.longest, 8);
    assert_int_equal(report.out_of_range[0], 0);
    assert_int_equal(report.out_of_range[1], 1);
    assert_int_equal(report.out_of_range[2], 3);
    assert_true(report.constant[0]);
    assert_false(report.constant[1] || report.constant[2]);
    assert_false(report.reused);
    assert_ok(prepare("report.csv", "report.h5", &options, VOCABULARY, 'A', &again));
    assert_true(again.reused);
    again.reused = false;
    assert_memory_equal(&again, &report, sizeof report);
    fb3_strings_free(&columns);
}

static ino_t file_number(const char *name)
{
    struct stat about;
    assert_int_equal(stat(scratch_path(name), &about), 0);
    return about.st_ino;
}

/* A file that is made anew is another file: the old one is replaced, never changed. */
static void expect_reuse(bool expected, const fb3_dataset_options *options, int vocabulary, char tokenizer)
{
    fb3_dataset_report report;
    ino_t before = file_number("reuse.h5");
    assert_ok(prepare("reuse.csv", "reuse.h5", options, vocabulary, tokenizer, &report));
    assert_int_equal(report.reused, expected);
    assert_int_equal(before == file_number("reuse.h5"), expected);
    assert_false(fb3_file_exists(scratch_path("reuse.h5.tmp")));
}

static void test_reuse(void **state)
{
    (void)state;
    fb3_strings columns, one_column;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, 2), changed;
    const char csv[] = "text_id,full_text,a,b,fold,other\n1,u v w,1,2,0,i\n2,u v,3,4,1,j\n";
    write_text("reuse.csv", csv);
    assert_ok(prepare("reuse.csv", "reuse.h5", &options, VOCABULARY, 'A', &report));
    assert_false(report.reused);
    expect_reuse(true, &options, VOCABULARY, 'A');
    expect_reuse(false, &options, VOCABULARY, 'B');
    expect_reuse(true, &options, VOCABULARY, 'B');

    changed = options, changed.max_length = 4;
    expect_reuse(false, &changed, VOCABULARY, 'B');
    changed = options, changed.max_samples = 1;
    expect_reuse(false, &changed, VOCABULARY, 'B');
    changed = options, changed.fold_column = "fold";
    expect_reuse(false, &changed, VOCABULARY, 'B');
    changed = options, changed.id_column = "other";
    expect_reuse(false, &changed, VOCABULARY, 'B');
    changed = options, changed.text_column = "other";
    expect_reuse(false, &changed, VOCABULARY, 'B');
    (void)make_options(&one_column, 1);
    changed = options, changed.label_columns = &one_column;
    expect_reuse(false, &changed, VOCABULARY, 'B');
    expect_reuse(true, &changed, VOCABULARY, 'B');
    expect_reuse(false, &options, VOCABULARY, 'B');

    write_text("reuse.csv", "text_id,full_text,a,b\n1,u v w,1,2\n2,u x,3,4\n");
    expect_reuse(false, &options, VOCABULARY, 'B');
    expect_reuse(true, &options, VOCABULARY, 'B');
    fb3_strings_free(&columns);
    fb3_strings_free(&one_column);
}

/* Whatever byte of a reusable file is wrong, the file is made anew or is as good as before. */
static void test_damaged_file_is_not_reused(void **state)
{
    (void)state;
    fb3_strings columns;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, 2);
    size_t bytes;
    int anew = 0, flips = 0;
    write_text("few.csv", FEW);
    assert_ok(prepare("few.csv", "damaged.h5", &options, VOCABULARY, 'A', &report));
    char *good = read_bytes("damaged.h5", &bytes);
    char *bad = malloc(bytes);
    assert_non_null(bad);
    for (size_t at = 1; at < bytes; at += 1009) {
        memcpy(bad, good, bytes);
        bad[at] ^= (char)(1 << at % 8);
        write_bytes("damaged.h5", bad, bytes);
        fb3_status status = prepare("few.csv", "damaged.h5", &options, VOCABULARY, 'A', &report);
        if (status == FB3_INPUT) continue; /* no longer recognisable as a data set, so it is left alone */
        assert_ok(status);
        if (!report.reused) anew++;
        flips++;
        size_t now_bytes;
        char *now = read_bytes("damaged.h5", &now_bytes);
        if (!report.reused) {
            assert_int_equal(now_bytes, bytes);
            assert_memory_equal(now, good, bytes);
        }
        free(now);
    }
    assert_true(anew > flips / 2);
    write_bytes("damaged.h5", good, bytes / 2);
    assert_ok(prepare("few.csv", "damaged.h5", &options, VOCABULARY, 'A', &report));
    assert_false(report.reused);
    free(good);
    free(bad);
    fb3_strings_free(&columns);
}

/* Texts of 0 to 400 words, so that blocks end at their number of rows. */
static void write_many(const char *name)
{
    static char text[4 << 20];
    size_t used = (size_t)snprintf(text, sizeof text, "text_id,full_text,a,b,fold\n");
    for (int i = 0; i < MANY_ROWS; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "row-%d,", i);
        for (int w = 0; w < i * 37 % 401; w++)
            used += (size_t)snprintf(text + used, sizeof text - used, "w%d ", (i * 11 + w * w) % 3001);
        used += (size_t)snprintf(text + used, sizeof text - used, ",%d,%g,%d\n", i % 5 + 1, i * 0.125, i % 3);
        assert_true(used < sizeof text);
    }
    write_text(name, text);
}

static void test_threads_do_not_change_bits(void **state)
{
    (void)state;
    fb3_strings columns;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, 2);
    size_t bytes[3];
    char *data[3];
    write_many("many.csv");
    for (int threads = 1; threads <= 3; threads++) {
        const char *names[] = {"one.h5", "two.h5", "three.h5"};
        omp_set_num_threads(threads);
        assert_ok(prepare("many.csv", names[threads - 1], &options, VOCABULARY, 'A', &report));
        data[threads - 1] = read_bytes(names[threads - 1], &bytes[threads - 1]);
    }
    for (int i = 1; i < 3; i++) {
        assert_int_equal(bytes[i], bytes[0]);
        assert_memory_equal(data[i], data[0], bytes[0]);
    }
    for (int i = 0; i < 3; i++) free(data[i]);
    fb3_strings_free(&columns);
}

static void test_rows_in_any_order(void **state)
{
    (void)state;
    enum { PICKS = 700 };
    fb3_strings columns;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, 2);
    options.fold_column = "fold";
    write_many("many.csv");
    assert_ok(prepare("many.csv", "many.h5", &options, VOCABULARY, 'A', &report));
    opened o = open_file("many.h5");
    const fb3_dataset *d = o.dataset;
    int64_t total = d->offsets[d->n];
    int64_t *all = malloc(MANY_ROWS * sizeof *all), picks[PICKS];
    uint32_t *tokens = malloc((size_t)total * sizeof *tokens), *some = malloc(PICKS * 512 * sizeof *some);
    float labels[PICKS * 2];
    assert_true(all && tokens && some);
    for (int i = 0; i < MANY_ROWS; i++) all[i] = i;
    assert_int_equal(d->n, MANY_ROWS);
    assert_ok(fb3_dataset_read_tokens(d, all, MANY_ROWS, tokens));
    for (int round = 0; round < 4; round++) {
        /* scattered; with repetitions; descending; runs of neighbours */
        for (int i = 0; i < PICKS; i++) {
            const int64_t choices[4] = {(i * 997 + 3) % MANY_ROWS, i * i % 50, MANY_ROWS - 1 - i, i / 10 * 20 + i % 10};
            picks[i] = choices[round];
        }
        assert_ok(fb3_dataset_read_tokens(d, picks, PICKS, some));
        assert_ok(fb3_dataset_read_labels(d, picks, PICKS, labels));
        int64_t at = 0;
        for (int i = 0; i < PICKS; i++) {
            int length = fb3_dataset_length(d, picks[i]);
            assert_memory_equal(some + at, tokens + d->offsets[picks[i]], (size_t)length * sizeof *some);
            assert_true(labels[2 * i] == (float)(picks[i] % 5 + 1) && labels[2 * i + 1] == (float)picks[i] * 0.125f);
            at += length;
        }
    }
    int8_t folds[MANY_ROWS];
    assert_true(d->has_folds);
    assert_ok(fb3_dataset_read_folds(d, folds));
    for (int i = 0; i < MANY_ROWS; i++) assert_int_equal(folds[i], i % 3);
    assert_ok(fb3_dataset_verify(d));
    free(all);
    free(tokens);
    free(some);
    close_file(&o);
    fb3_strings_free(&columns);
}

static void test_max_samples(void **state)
{
    (void)state;
    fb3_strings columns, ids;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, 2);
    options.max_samples = 700;
    write_many("many.csv");
    assert_ok(prepare("many.csv", "limited.h5", &options, VOCABULARY, 'A', &report));
    assert_int_equal(report.samples, 700);
    opened o = open_file("limited.h5");
    assert_int_equal(o.dataset->n, 700);
    assert_ok(fb3_dataset_id_range(o.dataset, 699, 1, &ids));
    assert_string_equal(ids.item[0], "row-699");
    fb3_strings_free(&ids);
    close_file(&o);
    options.max_samples = 0;
    assert_fails(prepare("many.csv", "none.h5", &options, VOCABULARY, 'A', &report), FB3_INPUT, "no rows");
    fb3_strings_free(&columns);
}

static void test_without_labels(void **state)
{
    (void)state;
    make_dataset("test.h5", "text_id,full_text\nu,hello there\n", 0, VOCABULARY);
    opened o = open_file("test.h5");
    const int64_t row = 0;
    assert_int_equal(o.dataset->n, 1);
    assert_int_equal(o.dataset->targets, 0);
    assert_int_equal(o.dataset->label_columns.count, 0);
    assert_ok(fb3_dataset_read_labels(o.dataset, &row, 1, NULL));
    close_file(&o);
}

/* On a node one rank reads the offsets; the others take what it put into the shared memory, or its failure. */
static fb3_status share(void *context, size_t bytes, void **memory)
{
    (void)bytes;
    *memory = context;
    return FB3_OK;
}

static fb3_status publish_good(void *context, fb3_status status)
{
    (void)context;
    return status;
}

static fb3_status publish_bad(void *context, fb3_status status)
{
    (void)context;
    (void)status;
    return fb3_fail(FB3_INPUT, "the writer found a bad row");
}

static void test_other_ranks_of_a_node(void **state)
{
    (void)state;
    write_text("few.csv", FEW);
    fb3_strings columns;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, 2);
    fb3_dataset *reader;
    assert_ok(prepare("few.csv", "few.h5", &options, VOCABULARY, 'A', &report));
    int64_t offsets[4] = {0, 1, 2, 3};
    fb3_node_memory memory = {offsets, false, share, publish_good};
    assert_ok(fb3_dataset_open(&reader, scratch_path("few.h5"), &memory));
    assert_ptr_equal(reader->offsets, offsets);
    assert_int_equal(offsets[3], 3);
    fb3_dataset_close(reader);
    memory.publish = publish_bad;
    assert_fails(fb3_dataset_open(&reader, scratch_path("few.h5"), &memory), FB3_INPUT, "the writer found a bad row");
    assert_null(reader);
    fb3_dataset_close(NULL);
    fb3_strings_free(&columns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few_rows),
        cmocka_unit_test(test_token_width_follows_the_vocabulary),
        cmocka_unit_test(test_largest_narrow_id),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_damaged_file_is_not_reused),
        cmocka_unit_test(test_threads_do_not_change_bits),
        cmocka_unit_test(test_rows_in_any_order),
        cmocka_unit_test(test_max_samples),
        cmocka_unit_test(test_without_labels),
        cmocka_unit_test(test_other_ranks_of_a_node),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
