/* The framing of a transaction log: records of all sizes over the borders of its blocks, and files that end anywhere.
 * tests/cli/test_wandb.py gives such files to W&B's own readers. */
#include "../../src/track/wandb_log.h"

#include "fb3/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { BLOCK = 32768, HEADER = 7, MOST = 4000 };

static char folder[] = "/tmp/fb3-wandb-log-XXXXXX";
static char path[128];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/run-x.wandb", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return fb3_folder_remove(folder) == FB3_OK ? 0 : -1;
}

/* The i-th record of a test is made of its number and its size. */
static void fill(unsigned char *record, size_t bytes, size_t i)
{
    for (size_t j = 0; j < bytes; j++) record[j] = (unsigned char)(i * 31 + j * 7 + (j >> 8));
}

static void write_records(const size_t *sizes, size_t count)
{
    fb3_wandb_log *log;
    size_t largest = 1;
    for (size_t i = 0; i < count; i++) largest = sizes[i] > largest ? sizes[i] : largest;
    unsigned char *record = malloc(largest);
    (void)unlink(path);
    assert_int_equal(fb3_wandb_log_create(&log, path), FB3_OK);
    for (size_t i = 0; i < count; i++) {
        fill(record, sizes[i], i);
        assert_int_equal(fb3_wandb_log_write(log, record, sizes[i]), FB3_OK);
    }
    fb3_wandb_log_close(log);
    free(record);
}

typedef struct expectation {
    const size_t *sizes;
    size_t seen;
} expectation;

static fb3_status compare(void *context, const void *record, size_t bytes)
{
    expectation *e = context;
    unsigned char *expected = malloc(bytes + 1);
    assert_int_equal(bytes, e->sizes[e->seen]);
    fill(expected, bytes, e->seen++);
    assert_memory_equal(record, expected, bytes);
    free(expected);
    return FB3_OK;
}

static size_t read_records(const size_t *sizes)
{
    expectation e = {.sizes = sizes};
    assert_int_equal(fb3_wandb_log_read(path, compare, &e), FB3_OK);
    return e.seen;
}

static size_t file_bytes(void)
{
    char *data;
    size_t bytes;
    assert_int_equal(fb3_file_read(path, (size_t)1 << 30, &data, &bytes), FB3_OK);
    free(data);
    return bytes;
}

/* Header, and one record "abc": the checksum is zlib's over the type and the data. */
static void bytes(void **state)
{
    (void)state;
    static const unsigned char EXPECTED[] = {':',  'W',  '&',  'B',  0xe1, 0xbe, 0, /* then the record */
                                             0xa9, 0x20, 0x9d, 0x53, 3,    0,    1, 'a', 'b', 'c'};
    fb3_wandb_log *log;
    char *data;
    size_t length;
    (void)unlink(path);
    assert_int_equal(fb3_wandb_log_create(&log, path), FB3_OK);
    assert_int_equal(fb3_wandb_log_write(log, "abc", 3), FB3_OK);
    assert_int_equal(fb3_file_read(path, BLOCK, &data, &length), FB3_OK); /* it is there before the file is closed */
    assert_int_equal(length, sizeof EXPECTED);
    assert_memory_equal(data, EXPECTED, sizeof EXPECTED);
    free(data);
    fb3_wandb_log_close(log);
    assert_int_equal(fb3_wandb_log_create(&log, path), FB3_FAILED); /* never over another */
}

/* One record up to every place near a block's end, a second behind it. */
static void every_place_near_a_border(void **state)
{
    (void)state;
    for (size_t first = BLOCK - 5 * HEADER; first <= BLOCK + HEADER; first++) {
        for (size_t second = 0; second <= 2 * HEADER; second += second < 3 ? 1 : HEADER - 1) {
            const size_t sizes[] = {first - HEADER, second, 5};
            write_records(sizes, 3);
            assert_int_equal(read_records(sizes), 3);
        }
    }
}

static void many_blocks(void **state)
{
    (void)state;
    static const size_t SIZES[] = {70000, 0, 1, BLOCK, BLOCK - HEADER, BLOCK - 2 * HEADER, 3 * BLOCK, 2, 500000, 0};
    write_records(SIZES, sizeof SIZES / sizeof *SIZES);
    assert_int_equal(read_records(SIZES), sizeof SIZES / sizeof *SIZES);
}

static void random_sizes(void **state)
{
    (void)state;
    static size_t sizes[MOST];
    uint64_t number = 42;
    for (int i = 0; i < MOST; i++) {
        number = number * 6364136223846793005u + 1442695040888963407u;
        size_t draw = (size_t)(number >> 33);
        sizes[i] = draw % 3 == 0 ? draw % 20 : draw % 3 == 1 ? draw % 1000 : draw % (2 * BLOCK);
    }
    write_records(sizes, MOST);
    assert_int_equal(read_records(sizes), MOST);
}

/* Cut anywhere: the records before the cut are there, and nothing else. */
static void any_end(void **state)
{
    (void)state;
    static const size_t SIZES[] = {10, 100, BLOCK, 3, 20};
    enum { COUNT = sizeof SIZES / sizeof *SIZES };
    write_records(SIZES, COUNT);
    size_t before = COUNT;
    for (size_t left = file_bytes(); left > HEADER; left--) {
        assert_int_equal(truncate(path, (off_t)left), 0);
        size_t seen = read_records(SIZES);
        assert_true(seen <= before && before - seen <= 1);
        before = seen;
        if (left > 2 * BLOCK) left -= 13;
    }
    assert_int_equal(before, 0);
}

static void a_changed_byte_ends_the_file(void **state)
{
    (void)state;
    static const size_t SIZES[] = {10, 100, 20};
    write_records(SIZES, 3);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, HEADER + HEADER + 10 + HEADER + 50, SEEK_SET);
    fputc('!', file);
    fclose(file);
    assert_int_equal(read_records(SIZES), 1);
}

static void a_full_disk_is_an_error(void **state)
{
    (void)state;
    fb3_wandb_log *log;
    char full[160];
    snprintf(full, sizeof full, "%s/no-such-folder/run-x.wandb", folder);
    assert_int_equal(fb3_wandb_log_create(&log, full), FB3_FAILED);
    assert_int_equal(fb3_wandb_log_read("/dev/null", compare, NULL), FB3_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bytes),
                                       cmocka_unit_test(every_place_near_a_border),
                                       cmocka_unit_test(many_blocks),
                                       cmocka_unit_test(random_sizes),
                                       cmocka_unit_test(any_end),
                                       cmocka_unit_test(a_changed_byte_ends_the_file),
                                       cmocka_unit_test(a_full_disk_is_an_error)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
