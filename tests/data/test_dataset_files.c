/* Data sets that are incomplete, misshapen, damaged or no data sets at all: FB3_INPUT, one line that names the file,
 * and never another value than was written. */
#include "data_fixture.h"

#include "fb3/h5.h"
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VOCABULARY = 1000, ROWS = 3, TOKENS = 12 };

static void drop(hid_t file, const char *name)
{
    assert_true(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
}

static void drop_attribute(hid_t file, const char *name)
{
    assert_true(H5Adelete(file, name) >= 0);
}

static void put(hid_t file, const char *name, hid_t type, hsize_t rows, hsize_t columns, const void *data)
{
    const hsize_t dims[2] = {rows, columns};
    drop(file, name);
    assert_ok(fb3_h5_write(file, name, type, columns ? 2 : 1, dims, data));
}

static void put_int(hid_t file, const char *name, int64_t value)
{
    drop_attribute(file, name);
    assert_ok(fb3_h5_set_int(file, name, value));
}

static void put_text(hid_t file, const char *name, const char *value)
{
    drop_attribute(file, name);
    assert_ok(fb3_h5_set_text(file, name, value));
}

static void put_offsets(hid_t file, int64_t a, int64_t b, int64_t c, int64_t d)
{
    const int64_t offsets[4] = {a, b, c, d};
    put(file, "offsets", H5T_NATIVE_INT64, 4, 0, offsets);
}

static void no_format(hid_t f)
{
    drop_attribute(f, "format");
}
static void other_format(hid_t f)
{
    put_text(f, "format", "fb3-dist data set 2");
}
static void no_complete(hid_t f)
{
    drop_attribute(f, "complete");
}
static void incomplete(hid_t f)
{
    put_int(f, "complete", 0);
}
static void no_tokenizer(hid_t f)
{
    drop_attribute(f, "tokenizer_sha256");
}
static void odd_tokenizer(hid_t f)
{
    put_text(f, "tokenizer_sha256", "0123");
}
static void long_source(hid_t f)
{
    put_text(f, "source_sha256", "0123456789012345678901234567890123456789012345678901234567890123456");
}
static void no_max_length(hid_t f)
{
    drop_attribute(f, "max_length");
}
static void short_max_length(hid_t f)
{
    put_int(f, "max_length", 3);
}
static void negative_max_length(hid_t f)
{
    put_int(f, "max_length", -1);
}
static void huge_max_length(hid_t f)
{
    put_int(f, "max_length", INT64_MAX);
}
static void text_max_length(hid_t f)
{
    put_text(f, "max_length", "512");
}
static void no_columns(hid_t f)
{
    drop_attribute(f, "label_columns");
}
static void more_columns(hid_t f)
{
    put_text(f, "label_columns", "a\nb\nc");
}
static void no_offsets(hid_t f)
{
    drop(f, "offsets");
}
static void late_start(hid_t f)
{
    put_offsets(f, 1, 4, 8, TOKENS);
}
static void negative_start(hid_t f)
{
    put_offsets(f, INT64_MIN, 4, 8, TOKENS);
}
static void descending(hid_t f)
{
    put_offsets(f, 0, 8, 4, TOKENS);
}
static void empty_row(hid_t f)
{
    put_offsets(f, 0, 4, 4, TOKENS);
}
static void far_offset(hid_t f)
{
    put_offsets(f, 0, INT64_MAX, 8, TOKENS);
}
static void negative_offset(hid_t f)
{
    put_offsets(f, 0, INT64_MIN, 8, TOKENS);
}
static void early_end(hid_t f)
{
    put_offsets(f, 0, 4, 8, TOKENS - 1);
}
static void late_end(hid_t f)
{
    put_offsets(f, 0, 4, 8, TOKENS + 1);
}
static void no_rows(hid_t f)
{
    put(f, "offsets", H5T_NATIVE_INT64, 1, 0, (int64_t[]){0});
}
static void fewer_rows(hid_t f)
{
    put(f, "offsets", H5T_NATIVE_INT64, 3, 0, (int64_t[]){0, 4, TOKENS});
}
static void flat_offsets(hid_t f)
{
    put(f, "offsets", H5T_NATIVE_INT64, 2, 2, (int64_t[]){0, 4, 8, TOKENS});
}
static void float_offsets(hid_t f)
{
    put(f, "offsets", H5T_NATIVE_DOUBLE, 4, 0, (double[]){0, 4, 8, TOKENS});
}
static void no_tokens(hid_t f)
{
    drop(f, "tokens");
}
static void signed_tokens(hid_t f)
{
    put(f, "tokens", H5T_NATIVE_INT32, TOKENS, 0, (int32_t[TOKENS]){0});
}
static void byte_tokens(hid_t f)
{
    put(f, "tokens", H5T_NATIVE_UINT8, TOKENS, 0, (uint8_t[TOKENS]){0});
}
static void table_tokens(hid_t f)
{
    put(f, "tokens", H5T_NATIVE_UINT32, 4, 3, (uint32_t[TOKENS]){0});
}
static void no_labels(hid_t f)
{
    drop(f, "labels");
}
static void fewer_labels(hid_t f)
{
    put(f, "labels", H5T_NATIVE_FLOAT, 2, 2, (float[4]){0});
}
static void narrow_labels(hid_t f)
{
    put(f, "labels", H5T_NATIVE_FLOAT, 3, 1, (float[3]){0});
}
static void flat_labels(hid_t f)
{
    put(f, "labels", H5T_NATIVE_FLOAT, 3, 0, (float[3]){0});
}
static void integer_labels(hid_t f)
{
    put(f, "labels", H5T_NATIVE_INT, 3, 2, (int[6]){0});
}
static void nan_label(hid_t f)
{
    put(f, "labels", H5T_NATIVE_FLOAT, 3, 2, (float[6]){1, 2, 3, NAN, 5, 6});
}
static void infinite_label(hid_t f)
{
    put(f, "labels", H5T_NATIVE_FLOAT, 3, 2, (float[6]){1, 2, 3, 4, -INFINITY, 6});
}
static void no_ids(hid_t f)
{
    drop(f, "ids");
}
static void numbers_as_ids(hid_t f)
{
    put(f, "ids", H5T_NATIVE_INT, 3, 0, (int[3]){1, 2, 3});
}
static void no_vocabulary(hid_t f)
{
    drop(f, "vocabulary");
}
static void unsorted_vocabulary(hid_t f)
{
    put(f, "vocabulary", H5T_NATIVE_UINT32, 3, 0, (uint32_t[3]){1, 3, 3});
}
static void endless_vocabulary(hid_t f)
{
    put(f, "vocabulary", H5T_NATIVE_UINT32, 3, 0, (uint32_t[3]){1, 2, UINT32_MAX});
}
static void large_vocabulary(hid_t f)
{
    put(f, "vocabulary", H5T_NATIVE_UINT32, TOKENS + 1, 0, (uint32_t[TOKENS + 1]){0});
}

static void add_ids(hid_t f, size_t bytes, hsize_t rows)
{
    static const char zeros[1 << 16];
    hid_t type = H5Tcopy(H5T_C_S1);
    (void)H5Tset_size(type, bytes);
    drop(f, "ids");
    assert_ok(fb3_h5_write(f, "ids", type, 1, &rows, zeros));
    (void)H5Tclose(type);
}

/* As h5py writes a list of strings: no checksum is possible there. */
static void variable_ids(hid_t f)
{
    const hsize_t rows = ROWS;
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate_simple(1, &rows, NULL);
    (void)H5Tset_size(type, H5T_VARIABLE);
    drop(f, "ids");
    hid_t ids = H5Dcreate2(f, "ids", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(ids, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, (const char *[ROWS]){"a", "b", "c"}) >= 0);
    (void)H5Dclose(ids);
    (void)H5Sclose(space);
    (void)H5Tclose(type);
}

static void fewer_ids(hid_t f)
{
    add_ids(f, 4, 2);
}
static void giant_ids(hid_t f)
{
    add_ids(f, 2000, 3);
}
static void add_folds(hid_t f, hid_t type, hsize_t rows)
{
    assert_ok(fb3_h5_write(f, "folds", type, 1, &rows, (int64_t[8]){0}));
}
static void fewer_folds(hid_t f)
{
    add_folds(f, H5T_NATIVE_INT8, 2);
}
static void wide_folds(hid_t f)
{
    add_folds(f, H5T_NATIVE_INT64, 3);
}

typedef struct damage {
    void (*apply)(hid_t file);
    const char *message;
} damage;

static const damage DAMAGES[] = {
    {no_format, "no attribute format"},
    {other_format, "the format attribute is not"},
    {no_complete, "no attribute complete"},
    {incomplete, "not written to its end"},
    {no_tokenizer, "no attribute tokenizer_sha256"},
    {odd_tokenizer, "attribute tokenizer_sha256 is not a sha256"},
    {long_source, "source_sha256"},
    {no_max_length, "no attribute max_length"},
    {short_max_length, "/offsets gives row 0 the tokens 0 to 4, but rows have 1 to 3"},
    {negative_max_length, "max_length -1 is out of range"},
    {huge_max_length, "max_length 9223372036854775807 is out of range"},
    {text_max_length, "attribute max_length"},
    {no_columns, "no attribute label_columns"},
    {more_columns, "/labels must be [3, 3]"},
    {no_offsets, "has no offsets"},
    {late_start, "/offsets runs from 1"},
    {negative_start, "/offsets runs from -9223372036854775808"},
    {descending, "/offsets gives row 1 the tokens 8 to 4"},
    {empty_row, "/offsets gives row 1 the tokens 4 to 4"},
    {far_offset, "/offsets gives row 0 the tokens 0 to 9223372036854775807"},
    {negative_offset, "/offsets gives row 0 the tokens 0 to -9223372036854775808"},
    {early_end, "to 11 instead of 0 to 12"},
    {late_end, "to 13 instead of 0 to 12"},
    {no_rows, "/offsets has 1 entries"},
    {fewer_rows, "/labels must be [2, 2]"},
    {flat_offsets, "offsets"},
    {float_offsets, "offsets"},
    {no_tokens, "has no tokens"},
    {signed_tokens, "/tokens must be uint16 or uint32"},
    {byte_tokens, "/tokens must be uint16 or uint32"},
    {table_tokens, "tokens"},
    {no_labels, "has no labels"},
    {fewer_labels, "/labels must be [3, 2]"},
    {narrow_labels, "/labels must be [3, 2]"},
    {flat_labels, "/labels must be [3, 2]"},
    {integer_labels, "/labels must be float32"},
    {nan_label, "not finite in row 1, column b"},
    {infinite_label, "not finite in row 2, column a"},
    {no_ids, "has no ids"},
    {numbers_as_ids, "/ids must be texts"},
    {fewer_ids, "/ids has 2 entries for 3 samples"},
    {giant_ids, "/ids must be texts"},
    {variable_ids, "/ids must be texts"},
    {no_vocabulary, "has no vocabulary"},
    {unsorted_vocabulary, "/vocabulary does not ascend at entry 2"},
    {endless_vocabulary, "/vocabulary has the token id 4294967295"},
    {large_vocabulary, "/vocabulary has 13 ids for 12 tokens"},
    {fewer_folds, "/folds has 2 entries for 3 samples"},
    {wide_folds, "/folds must be int8"},
};

static void make_good(const char *name)
{
    make_dataset(name, "text_id,full_text,a,b\nr0,x y,1,2\nr1,x z,3,4\nr2,y z,5,1.5\n", 2, VOCABULARY);
}

static void test_almost_data_sets(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof DAMAGES / sizeof *DAMAGES; i++) {
        fb3_node_memory memory;
        fb3_dataset *dataset;
        (void)unlink(scratch_path("almost.h5"));
        make_good("almost.h5");
        hid_t file = H5Fopen(scratch_path("almost.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
        assert_true(file >= 0);
        DAMAGES[i].apply(file);
        assert_ok(fb3_h5_close(file, "almost.h5"));
        assert_ok(fb3_node_memory_private(&memory));
        assert_fails(fb3_dataset_open(&dataset, scratch_path("almost.h5"), &memory), FB3_INPUT, DAMAGES[i].message);
        assert_non_null(strstr(fb3_error_text(), "almost.h5"));
        assert_null(dataset);
        fb3_node_memory_private_free(&memory);
    }
}

/* Opening cannot know all tokens; reading them all does. */
static void test_token_outside_the_vocabulary(void **state)
{
    (void)state;
    fb3_node_memory memory;
    fb3_dataset *dataset;
    make_good("tokens.h5");
    hid_t file = H5Fopen(scratch_path("tokens.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    put(file, "tokens", H5T_NATIVE_UINT32, TOKENS, 0, (uint32_t[TOKENS]){1, 1, 1, 1, 1, 1, 1, 4000000000u, 1, 1, 1, 1});
    assert_ok(fb3_h5_close(file, "tokens.h5"));
    assert_ok(fb3_node_memory_private(&memory));
    assert_ok(fb3_dataset_open(&dataset, scratch_path("tokens.h5"), &memory));
    assert_fails(fb3_dataset_verify(dataset), FB3_INPUT, "tokens.h5 has the token id 4000000000 at 7");
    fb3_dataset_close(dataset);
    fb3_node_memory_private_free(&memory);
}

static void test_files_that_are_none(void **state)
{
    (void)state;
    fb3_node_memory memory;
    fb3_dataset *dataset;
    assert_ok(fb3_node_memory_private(&memory));
    assert_fails(fb3_dataset_open(&dataset, scratch_path("nowhere.h5"), &memory), FB3_INPUT, "nowhere.h5");
    write_text("text.h5", "text_id,full_text,a,b\n1,x,1,2\n");
    assert_fails(fb3_dataset_open(&dataset, scratch_path("text.h5"), &memory), FB3_INPUT, "text.h5");
    write_text("empty.h5", "");
    assert_fails(fb3_dataset_open(&dataset, scratch_path("empty.h5"), &memory), FB3_INPUT, "empty.h5");
    assert_fails(fb3_dataset_open(&dataset, scratch_path(""), &memory), FB3_INPUT, "is not a file");
    fb3_node_memory_private_free(&memory);
}

typedef struct content {
    uint32_t tokens[TOKENS];
    float labels[2 * ROWS];
    fb3_strings ids;
    int64_t offsets[ROWS + 1];
    char tokenizer_sha256[FB3_SHA256_HEX];
} content;

/* Opens, verifies and reads everything. */
static fb3_status read_content(content *c, const char *name)
{
    static const int64_t rows[ROWS] = {0, 1, 2};
    fb3_status status = FB3_OK;
    fb3_node_memory memory;
    fb3_dataset *dataset = NULL;
    memset(c, 0, sizeof *c);
    assert_ok(fb3_node_memory_private(&memory));
    FB3_TRY_GOTO(fb3_dataset_open(&dataset, scratch_path(name), &memory), done);
    FB3_TRY_GOTO(fb3_dataset_verify(dataset), done);
    assert_int_equal(dataset->n, ROWS);
    FB3_TRY_GOTO(fb3_dataset_read_tokens(dataset, rows, ROWS, c->tokens), done);
    FB3_TRY_GOTO(fb3_dataset_read_labels(dataset, rows, ROWS, c->labels), done);
    FB3_TRY_GOTO(fb3_dataset_id_range(dataset, 0, ROWS, &c->ids), done);
    memcpy(c->offsets, dataset->offsets, sizeof c->offsets);
    memcpy(c->tokenizer_sha256, dataset->tokenizer_sha256, sizeof c->tokenizer_sha256);
done:
    fb3_dataset_close(dataset);
    fb3_node_memory_private_free(&memory);
    return status;
}

static void assert_same(const content *a, const content *b)
{
    assert_memory_equal(a->tokens, b->tokens, sizeof a->tokens);
    assert_memory_equal(a->labels, b->labels, sizeof a->labels);
    assert_memory_equal(a->offsets, b->offsets, sizeof a->offsets);
    assert_memory_equal(a->tokenizer_sha256, b->tokenizer_sha256, sizeof a->tokenizer_sha256);
    for (int i = 0; i < ROWS; i++) assert_string_equal(a->ids.item[i], b->ids.item[i]);
}

/* Metadata, chunks, gaps: a flipped bit is an error of one line, or changes nothing that is read. */
static void test_flipped_bits(void **state)
{
    (void)state;
    size_t bytes;
    int noticed = 0, flips = 0;
    content good, now;
    make_good("flip.h5");
    char *data = read_bytes("flip.h5", &bytes);
    assert_ok(read_content(&good, "flip.h5"));
    FILE *file = fopen(scratch_path("flip.h5"), "r+b");
    assert_non_null(file);
    for (size_t at = 0; at < bytes; at += 37, flips++) {
        char bad = (char)(data[at] ^ 1 << at % 8);
        assert_int_equal(pwrite(fileno(file), &bad, 1, (off_t)at), 1);
        fb3_status status = read_content(&now, "flip.h5");
        if (status == FB3_OK) {
            assert_same(&now, &good);
        } else {
            noticed++;
            assert_int_equal(status, FB3_INPUT);
            assert_non_null(strstr(fb3_error_text(), "flip.h5"));
            assert_null(strchr(fb3_error_text(), '\n'));
        }
        fb3_strings_free(&now.ids);
        assert_int_equal(pwrite(fileno(file), &data[at], 1, (off_t)at), 1);
    }
    (void)fclose(file);
    print_message("%d of %d flipped bits noticed, the others harmless\n", noticed, flips);
    assert_true(noticed > flips / 2);
    assert_ok(read_content(&now, "flip.h5"));
    fb3_strings_free(&now.ids);
    fb3_strings_free(&good.ids);
    free(data);
}

static void test_truncated_files(void **state)
{
    (void)state;
    size_t bytes;
    content now;
    make_good("cut.h5");
    free(read_bytes("cut.h5", &bytes));
    for (size_t left = bytes; left > 0; left -= left > 701 ? 701 : left) {
        assert_int_equal(truncate(scratch_path("cut.h5"), (off_t)left - 1), 0);
        assert_fails(read_content(&now, "cut.h5"), FB3_INPUT, "cut.h5");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_almost_data_sets),    cmocka_unit_test(test_token_outside_the_vocabulary),
        cmocka_unit_test(test_files_that_are_none), cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_truncated_files),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
