/* The HDF5 idioms: what is written comes back, and what is damaged, missing, misshapen or led astray is an error of one
 * line that names file and object. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fb3/h5.h"
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROWS = 500, COLUMNS = 3 };
static char path[] = "/tmp/fb3-h5-XXXXXX";
static const hsize_t DIMS[2] = {ROWS, COLUMNS};
static float table[ROWS * COLUMNS];

static void check(fb3_status status, fb3_status code, const char *part, int line)
{
    const char *text = status == FB3_OK ? "" : fb3_error_text();
    if (status == code && (code == FB3_OK || (strstr(text, part) && !strchr(text, '\n')))) return;
    print_error("line %d: %d \"%s\" instead of %d with \"%s\"\n", line, (int)status, text, (int)code, part);
    fail();
}
#define ok(call)                check((call), FB3_OK, "", __LINE__)
#define fails(call, code, part) check((call), (code), (part), __LINE__)

static int make_file(void **state)
{
    (void)state;
    int descriptor = mkstemp(path);
    if (descriptor < 0) return -1;
    for (int i = 0; i < ROWS * COLUMNS; i++) table[i] = (float)i * 0.25f - 7.0f;
    return close(descriptor);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static hid_t create(void)
{
    hid_t file;
    ok(fb3_h5_create(&file, path));
    return file;
}

static hid_t reopen(void)
{
    hid_t file;
    ok(fb3_h5_open(&file, path));
    return file;
}

static void test_arrays_come_back(void **state)
{
    (void)state;
    static float back[ROWS * COLUMNS];
    hsize_t none[2] = {0, COLUMNS}, grows[2] = {H5S_UNLIMITED, COLUMNS}, dims[2];
    hid_t dataset, file = create();
    int rank;
    ok(fb3_h5_write(file, "table", H5T_NATIVE_FLOAT, 2, DIMS, table));
    ok(fb3_h5_write(file, "empty", H5T_NATIVE_FLOAT, 2, none, NULL));
    ok(fb3_h5_create_dataset(&dataset, file, "rows", H5T_IEEE_F32LE, 2, none, grows, 256));
    for (hsize_t row = 0; row < ROWS; row += 100)
        ok(fb3_h5_write_rows(dataset, H5T_NATIVE_FLOAT, row, 100, table + row * COLUMNS));
    ok(fb3_h5_write_rows(dataset, H5T_NATIVE_FLOAT, 0, 0, NULL));
    ok(fb3_h5_close(file, path));

    file = reopen();
    ok(fb3_h5_read(file, "table", H5T_NATIVE_FLOAT, 2, DIMS, back));
    assert_memory_equal(back, table, sizeof table);
    ok(fb3_h5_read(file, "empty", H5T_NATIVE_FLOAT, 2, none, NULL));
    memset(back, 0, sizeof back);
    ok(fb3_h5_read(file, "rows", H5T_NATIVE_FLOAT, 2, DIMS, back));
    assert_memory_equal(back, table, sizeof table);
    ok(fb3_h5_open_dataset(&dataset, file, "rows"));
    ok(fb3_h5_read_rows(dataset, H5T_NATIVE_FLOAT, 123, 77, back));
    assert_memory_equal(back, table + 123 * COLUMNS, 77 * COLUMNS * sizeof *back);
    fails(fb3_h5_read_rows(dataset, H5T_NATIVE_FLOAT, ROWS - 1, 2, back), FB3_INPUT, "/rows");
    ok(fb3_h5_shape(file, "rows", 4, &rank, dims));
    assert_int_equal(rank, 2);
    assert_int_equal(dims[0], ROWS);
    assert_int_equal(dims[1], COLUMNS);
    fails(fb3_h5_shape(file, "rows", 1, &rank, dims), FB3_INPUT, "rows");
    ok(fb3_h5_close(file, path)); /* closes the open data set, too */
}

static void test_attributes_come_back(void **state)
{
    (void)state;
    char *text;
    int64_t integer;
    double real;
    hid_t file = create();
    ok(fb3_h5_set_text(file, "text", "zwei\nZeilen, ü"));
    ok(fb3_h5_set_text(file, "empty", ""));
    ok(fb3_h5_set_int(file, "integer", INT64_MIN + 1));
    ok(fb3_h5_set_double(file, "real", 0.1));
    fails(fb3_h5_set_int(file, "integer", 1), FB3_FAILED, "integer");
    char *long_text = malloc(200001);
    assert_non_null(long_text);
    memset(long_text, 'x', 200000);
    long_text[200000] = 0;
    ok(fb3_h5_set_text(file, "long", long_text));
    ok(fb3_h5_close(file, path));

    file = reopen();
    ok(fb3_h5_get_text(file, "text", 100, &text));
    assert_string_equal(text, "zwei\nZeilen, ü");
    free(text);
    ok(fb3_h5_get_text(file, "empty", 100, &text));
    assert_string_equal(text, "");
    free(text);
    ok(fb3_h5_get_text(file, "long", 200000, &text));
    assert_string_equal(text, long_text);
    free(text);
    free(long_text);
    ok(fb3_h5_get_int(file, "integer", &integer));
    assert_true(integer == INT64_MIN + 1);
    ok(fb3_h5_get_double(file, "real", &real));
    assert_true(real == 0.1);
    fails(fb3_h5_get_text(file, "long", 199999, &text), FB3_INPUT, "longer than 199999");
    assert_null(text);
    fails(fb3_h5_get_text(file, "integer", 100, &text), FB3_INPUT, "integer");
    fails(fb3_h5_get_int(file, "text", &integer), FB3_INPUT, "text");
    fails(fb3_h5_get_int(file, "real", &integer), FB3_INPUT, "real");
    fails(fb3_h5_get_double(file, "integer", &real), FB3_INPUT, "integer");
    fails(fb3_h5_get_double(file, "nothing", &real), FB3_INPUT, "no attribute nothing");
    assert_true(fb3_h5_has_attribute(file, "text"));
    assert_false(fb3_h5_has_attribute(file, "nothing"));
    ok(fb3_h5_close(file, path));
}

static void test_reading_checks(void **state)
{
    (void)state;
    static float back[ROWS * COLUMNS];
    const hsize_t more[2] = {ROWS + 1, COLUMNS}, flat[1] = {ROWS * COLUMNS};
    hid_t file = create();
    ok(fb3_h5_write(file, "table", H5T_NATIVE_FLOAT, 2, DIMS, table));
    fails(fb3_h5_write(file, "table", H5T_NATIVE_FLOAT, 2, DIMS, table), FB3_FAILED, "table");
    hid_t scalar = H5Screate(H5S_SCALAR),
          single = H5Dcreate2(file, "single", H5T_NATIVE_FLOAT, scalar, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(single >= 0);
    (void)H5Sclose(scalar);
    ok(fb3_h5_close(file, path));
    file = reopen();
    fails(fb3_h5_read(file, "table", H5T_NATIVE_FLOAT, 2, more, back), FB3_INPUT, "[500, 3], but [501, 3]");
    fails(fb3_h5_read(file, "table", H5T_NATIVE_FLOAT, 1, flat, back), FB3_INPUT, "but [1500]");
    fails(fb3_h5_read(file, "table", H5T_NATIVE_INT32, 2, DIMS, back), FB3_INPUT, "wrong type");
    fails(fb3_h5_read(file, "nothing", H5T_NATIVE_FLOAT, 2, DIMS, back), FB3_INPUT, "has no nothing");
    fails(fb3_h5_read(file, "single", H5T_NATIVE_FLOAT, 2, DIMS, back), FB3_INPUT, "not an array");
    assert_true(fb3_h5_has(file, "table"));
    assert_false(fb3_h5_has(file, "nothing"));
    ok(fb3_h5_close(file, path));
}

/* A file that claims a large shape, or whose data lie elsewhere, gets no memory and no read. */
static void test_hostile_data_sets(void **state)
{
    (void)state;
    int rank;
    hsize_t dims[2], huge[1] = {UINT64_C(1) << 60}, chunk[1] = {1024}, small[1] = {4};
    hid_t dataset, file = create();
    hid_t chunked = H5Pcreate(H5P_DATASET_CREATE), external = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(1, huge, NULL), small_space = H5Screate_simple(1, small, NULL);
    (void)H5Pset_chunk(chunked, 1, chunk);
    (void)H5Pset_external(external, "/etc/passwd", 0, H5F_UNLIMITED);
    assert_true(H5Dcreate2(file, "huge", H5T_NATIVE_INT64, space, H5P_DEFAULT, chunked, H5P_DEFAULT) >= 0);
    assert_true(H5Dcreate2(file, "external", H5T_NATIVE_INT8, small_space, H5P_DEFAULT, external, H5P_DEFAULT) >= 0);
    assert_true(H5Dcreate2(file, "unwritten", H5T_NATIVE_INT8, small_space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT) >=
                0);
    assert_true(H5Lcreate_external("other.h5", "/data", file, "elsewhere", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_soft("/huge", file, "soft", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT) >= 0);
    (void)H5Sclose(space);
    (void)H5Sclose(small_space);
    (void)H5Pclose(chunked);
    (void)H5Pclose(external);
    ok(fb3_h5_close(file, path));
    file = reopen();
    fails(fb3_h5_shape(file, "huge", 2, &rank, dims), FB3_INPUT, "more elements than the file holds");
    fails(fb3_h5_shape(file, "unwritten", 2, &rank, dims), FB3_INPUT, "more elements than the file holds");
    fails(fb3_h5_shape(file, "external", 2, &rank, dims), FB3_INPUT, "in another file");
    fails(fb3_h5_shape(file, "elsewhere", 2, &rank, dims), FB3_INPUT, "link to somewhere else");
    fails(fb3_h5_shape(file, "soft", 2, &rank, dims), FB3_INPUT, "link to somewhere else");
    fails(fb3_h5_open_dataset(&dataset, file, "group"), FB3_INPUT, "group");
    ok(fb3_h5_close(file, path));
}

static void test_files_that_are_none(void **state)
{
    (void)state;
    hid_t file;
    fails(fb3_h5_open(&file, "/nowhere/at all.h5"), FB3_INPUT, "/nowhere/at all.h5: No such file");
    fails(fb3_h5_open(&file, "/tmp"), FB3_INPUT, "/tmp is not a file");
    fails(fb3_h5_create(&file, "/nowhere/at all.h5"), FB3_FAILED, "No such file");
    FILE *text = fopen(path, "w");
    assert_non_null(text);
    fputs("text_id,full_text\n", text);
    assert_int_equal(fclose(text), 0);
    fails(fb3_h5_open(&file, path), FB3_INPUT, "signature");
    assert_int_equal(truncate(path, 0), 0);
    fails(fb3_h5_open(&file, path), FB3_INPUT, path);
}

static void flip(long at, int bit)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_true(fputc(byte ^ 1 << bit, file) != EOF);
    assert_int_equal(fclose(file), 0);
}

/* Every flipped bit is noticed or harmless: never silently another value. */
static void test_flipped_bits(void **state)
{
    (void)state;
    static float back[ROWS * COLUMNS];
    int64_t value;
    char *text;
    int noticed = 0, flips = 0;
    struct stat about;
    hid_t file = create();
    ok(fb3_h5_write(file, "table", H5T_NATIVE_FLOAT, 2, DIMS, table));
    ok(fb3_h5_set_int(file, "value", 77));
    ok(fb3_h5_set_text(file, "text", "words"));
    ok(fb3_h5_close(file, path));
    assert_int_equal(stat(path, &about), 0);
    for (long at = 0; at < about.st_size; at += 3) {
        int bit = (int)(at % 8);
        flip(at, bit);
        flips++;
        if (fb3_h5_open(&file, path) != FB3_OK) {
            noticed++;
        } else {
            bool good = fb3_h5_read(file, "table", H5T_NATIVE_FLOAT, 2, DIMS, back) == FB3_OK &&
                        fb3_h5_get_int(file, "value", &value) == FB3_OK;
            text = NULL;
            good = fb3_h5_get_text(file, "text", 100, &text) == FB3_OK && good;
            if (good) {
                assert_memory_equal(back, table, sizeof table);
                assert_int_equal(value, 77);
                assert_string_equal(text, "words");
            } else {
                noticed++;
                assert_null(strchr(fb3_error_text(), '\n'));
            }
            free(text);
            (void)fb3_h5_close(file, path);
        }
        flip(at, bit);
    }
    print_message("%d of %d flipped bits noticed, the others harmless\n", noticed, flips);
    assert_true(noticed > (int)(sizeof table / 3) - 8);
}

static void test_truncated_files(void **state)
{
    (void)state;
    struct stat about;
    hid_t file = create();
    ok(fb3_h5_write(file, "table", H5T_NATIVE_FLOAT, 2, DIMS, table));
    ok(fb3_h5_close(file, path));
    assert_int_equal(stat(path, &about), 0);
    for (long bytes = about.st_size - 1; bytes >= 0; bytes -= 97) {
        assert_int_equal(truncate(path, bytes), 0);
        fails(fb3_h5_open(&file, path), FB3_INPUT, path);
    }
}

/* The chunk is still in HDF5's cache when the limit strikes: only the close can tell. */
static void test_close_reports_a_full_disk(void **state)
{
    (void)state;
    struct rlimit before, tight;
    hid_t file = create();
    ok(fb3_h5_write(file, "table", H5T_NATIVE_FLOAT, 2, DIMS, table));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    tight = before;
    tight.rlim_cur = 0;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    fb3_status status = fb3_h5_close(file, path);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    fails(status, FB3_FAILED, "File too large");
}

static void test_same_content_same_bytes(void **state)
{
    (void)state;
    static char bytes[2][1 << 16];
    size_t count[2];
    for (int time = 0; time < 2; time++) {
        if (time) (void)sleep(1); /* past the resolution of a stored time */
        hid_t file = create();
        ok(fb3_h5_write(file, "table", H5T_NATIVE_FLOAT, 2, DIMS, table));
        ok(fb3_h5_set_text(file, "text", "words"));
        ok(fb3_h5_close(file, path));
        FILE *in = fopen(path, "rb");
        assert_non_null(in);
        count[time] = fread(bytes[time], 1, sizeof bytes[time], in);
        (void)fclose(in);
    }
    assert_int_equal(count[0], count[1]);
    assert_memory_equal(bytes[0], bytes[1], count[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrays_come_back),
        cmocka_unit_test(test_attributes_come_back),
        cmocka_unit_test(test_reading_checks),
        cmocka_unit_test(test_hostile_data_sets),
        cmocka_unit_test(test_files_that_are_none),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_truncated_files),
        cmocka_unit_test(test_same_content_same_bytes),
        cmocka_unit_test(test_close_reports_a_full_disk), /* last: HDF5 never lets go of a file that it cannot close */
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
