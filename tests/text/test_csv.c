/* The CSV reader: what it accepts, field by field; what it refuses, by its words; and that what the writer writes comes
 * back. */
#include "fb3/csv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { READ_BLOCK = 1 << 16 }; /* the reader's block: tokens must not care where it ends */

static char folder[] = "/tmp/fb3-test-csv-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/a.csv", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void write_bytes(const char *text, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* Bytes with their count, so that NUL bytes can be among them. */
#define TEXT(literal) literal, sizeof(literal) - 1

/* All of the file, header first, as "a|b\n1|2\n": '|' between fields, '\n' behind records; NULL on failure. */
static char *read_all(void)
{
    static char all[4096];
    fb3_csv *csv;
    if (fb3_csv_open(&csv, path) != FB3_OK) return NULL;
    size_t at = 0;
    for (int i = 0; i < fb3_csv_columns(csv); i++)
        at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", i ? "|" : "", fb3_csv_column_name(csv, i));
    at += (size_t)snprintf(all + at, sizeof all - at, "\n");
    bool more = true;
    fb3_status status;
    while ((status = fb3_csv_next(csv, &more)) == FB3_OK && more) {
        for (int i = 0; i < fb3_csv_columns(csv); i++) {
            int64_t bytes;
            const char *field = fb3_csv_field(csv, i, &bytes);
            assert_int_equal(strlen(field), bytes);
            at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", i ? "|" : "", field);
        }
        at += (size_t)snprintf(all + at, sizeof all - at, "\n");
        assert_true(at < sizeof all);
    }
    fb3_csv_close(csv);
    return status == FB3_OK ? all : NULL;
}

static void test_good(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
        const char *expected;
    } good[] = {
        {TEXT("a,b\n1,2\n"), "a|b\n1|2\n"},
        {TEXT("a,b\n1,2"), "a|b\n1|2\n"},
        {TEXT("a,b\r\n1,2\r\n"), "a|b\n1|2\n"},
        {TEXT("a,b\r1,2\r3,4"), "a|b\n1|2\n3|4\n"},
        {TEXT("a,b\n"), "a|b\n"},
        {TEXT("a"), "a\n"},
        {TEXT("\xEF\xBB\xBF"
              "a,b\n1,2\n"),
         "a|b\n1|2\n"},
        {TEXT("\xEF\xBB\xBF\"a\",b\n1,2\n"), "a|b\n1|2\n"},
        {TEXT("a,b\n\"1\",\"2\"\n"), "a|b\n1|2\n"},
        {TEXT("a,b\n\"x,y\",2\n"), "a|b\nx,y|2\n"},
        {TEXT("a,b\n\"x\ny\",2\n"), "a|b\nx\ny|2\n"},
        {TEXT("a,b\n\"x\r\ny\rz\",2\n"), "a|b\nx\r\ny\rz|2\n"},
        {TEXT("a,b\n\"say \"\"hi\"\"\",2\n"), "a|b\nsay \"hi\"|2\n"},
        {TEXT("a,b\n\"\"\"\",\"\"\"\"\"\"\n"), "a|b\n\"|\"\"\n"},
        {TEXT("a,b\n\"\",\n"), "a|b\n|\n"},
        {TEXT("a,b\n,\n"), "a|b\n|\n"},
        {TEXT("a,b\n1,"), "a|b\n1|\n"},
        {TEXT("a\n\"\"\n\nx\n"), "a\n\nx\n"},
        {TEXT("\n\r\na,b\n\n\n1,2\n\n\n"), "a|b\n1|2\n"},
        {TEXT("a,b\n it's 5\" tall,2\n"), "a|b\n it's 5\" tall|2\n"},
        {TEXT("a,b\nx\"\",2\n"), "a|b\nx\"\"|2\n"},
        {TEXT("a, b \n 1 ,2\n"), "a| b \n 1 |2\n"},
        {TEXT("a,b\n\"\xEF\xBB\xBF\",\xC3\xA9\n"), "a|b\n\xEF\xBB\xBF|\xC3\xA9\n"},
        {TEXT("\xC3\xA9t\xC3\xA9,b\n\xF0\x9F\x98\x80,\xF4\x8F\xBF\xBF\n"),
         "\xC3\xA9t\xC3\xA9|b\n\xF0\x9F\x98\x80|\xF4\x8F\xBF\xBF\n"},
        {TEXT("a,b\n\xED\x9F\xBF,\xEE\x80\x80\n"), "a|b\n\xED\x9F\xBF|\xEE\x80\x80\n"},
        {TEXT("a,b\n\x01\x7F,\t\n"), "a|b\n\x01\x7F|\t\n"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        write_bytes(good[i].text, good[i].bytes);
        const char *all = read_all();
        if (!all) fail_msg("case %zu: %s", i, fb3_error_text());
        assert_string_equal(all, good[i].expected);
    }
}

static void test_bad(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
        const char *error; /* what its message must say */
    } bad[] = {
        {TEXT(""), "is empty"},
        {TEXT("\n\r\n\n"), "is empty"},
        {TEXT("\xEF\xBB\xBF"), "is empty"},
        {TEXT("a,,c\n1,2,3\n"), "column 2 has no name"},
        {TEXT(",a\n0,1\n"), "column 1 has no name"},
        {TEXT("a,b,\n"), "column 3 has no name"},
        {TEXT("a,b,a\n1,2,3\n"), "two columns are named 'a'"},
        {TEXT("a,b\n1\n"), "record 1 (line 2) has 1 field where the header has 2"},
        {TEXT("a,b\n1,2\n\n1,2,3\n"), "record 2 (line 4) has 3 fields where the header has 2"},
        {TEXT("a,b\n\"x\n\ny\",2\n7\n"), "record 2 (line 5) has 1 field"},
        {TEXT("a,b\r\"x\ry\r\nz\",2\r7\r"), "record 2 (line 5) has 1 field"},
        {TEXT("a,b\n1,\"2\n3,4\n"), "record 1, column 'b' (line 2): a quote opens here and never closes"},
        {TEXT("a,b\n1,2\n\"x\ny\",\"z\n\n"), "record 2, column 'b' (line 4): a quote opens here and never closes"},
        {TEXT("a,\"b"), "the header, column 2 (line 1): a quote opens here"},
        {TEXT("a,b\n1,\""), "never closes"},
        {TEXT("a,b\n1,\"2\"\"\n"), "never closes"},
        {TEXT("a,b\n\"1\"x,2\n"), "record 1, column 'a' (line 2): text after a closing quote"},
        {TEXT("a,b\n\"1\" ,2\n"), "text after a closing quote"},
        {TEXT("\"a\"b,c\n"), "the header, column 1 (line 1): text after a closing quote"},
        {TEXT("a,b\n1,x\0y\n"), "record 1, column 'b' (line 2): a NUL byte"},
        {TEXT("a,b\n1,\"\0\"\n"), "a NUL byte"},
        {TEXT("a,\0\n"), "the header, column 2 (line 1): a NUL byte"},
        {TEXT("a,b\n1,2\n3,caf\xE9\n"), "record 2, column 'b' (line 3): byte 4 of the field (0xE9) is not valid UTF-8"},
        {TEXT("a,caf\xE9\n"), "the header, column 2 (line 1): byte 4"},
        {TEXT("a,b\n\x80,2\n"), "byte 1 of the field (0x80)"},             /* a continuation alone */
        {TEXT("a,b\n\xC0\xAF,2\n"), "byte 1 of the field (0xC0)"},         /* overlong, 2 bytes */
        {TEXT("a,b\n\xC1\xBF,2\n"), "byte 1 of the field (0xC1)"},         /* overlong, 2 bytes */
        {TEXT("a,b\n\xE0\x9F\xBF,2\n"), "byte 1 of the field (0xE0)"},     /* overlong, 3 bytes */
        {TEXT("a,b\n\xF0\x8F\xBF\xBF,2\n"), "byte 1 of the field (0xF0)"}, /* overlong, 4 bytes */
        {TEXT("a,b\nx\xED\xA0\x80,2\n"), "byte 2 of the field (0xED)"},    /* a surrogate */
        {TEXT("a,b\n\xED\xBF\xBF,2\n"), "byte 1 of the field (0xED)"},     /* a surrogate */
        {TEXT("a,b\n\xF4\x90\x80\x80,2\n"), "byte 1 of the field (0xF4)"}, /* above U+10FFFF */
        {TEXT("a,b\n\xF5\x80\x80\x80,2\n"), "byte 1 of the field (0xF5)"},
        {TEXT("a,b\n\xFF,2\n"), "byte 1 of the field (0xFF)"},
        {TEXT("a,b\nx,yz\xE2\x82\n"), "column 'b' (line 2): byte 3 of the field (0xE2)"}, /* cut off */
        {TEXT("a,b\nx,\xF0\x9F\x98"), "byte 1 of the field (0xF0)"},                      /* cut off by the end */
        {TEXT("\xFF\xFE"
              "a\0,\0"),
         "is UTF-16"},
        {TEXT("\xFE\xFF\0a\0,"), "is UTF-16"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_bytes(bad[i].text, bad[i].bytes);
        if (read_all()) fail_msg("case %zu is accepted", i);
        if (!strstr(fb3_error_text(), bad[i].error) || strncmp(fb3_error_text(), path, strlen(path)) != 0)
            fail_msg("case %zu: %s", i, fb3_error_text());
        assert_null(strchr(fb3_error_text(), '\n'));
    }
}

static void expect_refused(const char *name, const char *error)
{
    fb3_csv *csv = (fb3_csv *)name; /* must become NULL */
    assert_int_equal(fb3_csv_open(&csv, name), FB3_INPUT);
    assert_null(csv);
    assert_non_null(strstr(fb3_error_text(), error));
}

static void test_no_file(void **state)
{
    (void)state;
    expect_refused("/nowhere/a.csv", "/nowhere/a.csv: cannot be opened (No such file or directory)");
    expect_refused(folder, "is a directory");
}

static void test_too_many_columns(void **state)
{
    (void)state;
    enum { COLUMNS = 10001, NAME_BYTES = 6 };
    char *text = malloc(COLUMNS * (NAME_BYTES + 1));
    size_t at = 0;
    for (int i = 0; i < COLUMNS; i++) at += (size_t)sprintf(text + at, "%s%d", i ? "," : "", i);
    write_bytes(text, at);
    free(text);
    expect_refused(path, "has 10001 columns");
}

static void test_columns(void **state)
{
    (void)state;
    write_bytes(TEXT("grammar,text_id,full_text\n1,2,3\n"));
    fb3_csv *csv;
    int column;
    assert_int_equal(fb3_csv_open(&csv, path), FB3_OK);
    assert_string_equal(fb3_csv_path(csv), path);
    assert_int_equal(fb3_csv_columns(csv), 3);
    assert_int_equal(fb3_csv_column(csv, "full_text"), 2);
    assert_int_equal(fb3_csv_column(csv, "grammar"), 0);
    assert_int_equal(fb3_csv_column(csv, "Grammar"), -1);
    assert_int_equal(fb3_csv_need_column(csv, "text_id", &column), FB3_OK);
    assert_int_equal(column, 1);
    assert_int_equal(fb3_csv_need_column(csv, "syntax", &column), FB3_INPUT);
    assert_non_null(strstr(fb3_error_text(), "has no column 'syntax'; its columns are grammar, text_id, full_text"));
    fb3_csv_close(csv);
    fb3_csv_close(NULL);
}

/* A list of names that is too long for one message is cut, not written past its end. */
static void test_long_list_of_columns(void **state)
{
    (void)state;
    enum { COLUMNS = 200 };
    char text[COLUMNS * 16];
    size_t at = 0;
    for (int i = 0; i < COLUMNS; i++) at += (size_t)sprintf(text + at, "%scolumn_%d", i ? "," : "", i);
    write_bytes(text, at);
    fb3_csv *csv;
    int column;
    assert_int_equal(fb3_csv_open(&csv, path), FB3_OK);
    assert_int_equal(fb3_csv_need_column(csv, "x", &column), FB3_INPUT);
    assert_non_null(strstr(fb3_error_text(), "column_0, column_1, "));
    assert_string_equal(fb3_error_text() + strlen(fb3_error_text()) - 3, "...");
    fb3_csv_close(csv);
}

static void test_positions(void **state)
{
    (void)state;
    write_bytes(TEXT("a,b\r\n\r\n1,\"2\r\n\r\n\"\r\n3,4\n\n5,6"));
    static const int64_t lines[] = {3, 6, 8};
    fb3_csv *csv;
    bool more;
    assert_int_equal(fb3_csv_open(&csv, path), FB3_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fb3_csv_next(csv, &more), FB3_OK);
        assert_true(more);
        assert_int_equal(fb3_csv_record(csv), i + 1);
        assert_int_equal(fb3_csv_line(csv), lines[i]);
    }
    for (int again = 0; again < 2; again++) {
        assert_int_equal(fb3_csv_next(csv, &more), FB3_OK);
        assert_false(more);
        assert_int_equal(fb3_csv_record(csv), 3);
    }
    fb3_csv_close(csv);
}

/* Every token of the grammar across the end of the reader's block, behind a field of several blocks. */
static void test_block_ends(void **state)
{
    (void)state;
    enum { RUN = 3 * READ_BLOCK, SHIFTS = 12 };
    static const struct {
        const char *head, *tail; /* around a run of x */
        int column;              /* that the run is in */
        const char *end;         /* of that field */
    } cases[] = {
        {"a,b\n,", "\r\n1,2\r\n", 1, "x"},
        {"a,b\n,", "\r1,2\r", 1, "x"},
        {"a,b\n,", "\n\r\n\r\n1,2", 1, "x"},
        {"a,b\n", ",z\n1,2\n", 0, "x"},
        {"a,b\n", ",\"\"\"\"\r\n1,2\n", 0, "x"},
        {"a,b\n,\"", "\"\r\n1,2\n", 1, "x"},
        {"a,b\n,\"", "\"\"\"\n1,2\n", 1, "x\""},
        {"a,b\n,\"", "\r\ny\"\n1,2\n", 1, "x\r\ny"},
        {"a,b\n,\"", "\xF0\x9F\x98\x80\"\n1,2\n", 1, "x\xF0\x9F\x98\x80"},
    };
    char *text = malloc(RUN + READ_BLOCK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t shift = 0; shift < SHIFTS; shift++) {
            size_t head = strlen(cases[i].head), tail = strlen(cases[i].tail), end = RUN - shift;
            memset(text, 'x', end);
            memcpy(text, cases[i].head, head);
            memcpy(text + end, cases[i].tail, tail);
            write_bytes(text, end + tail);
            fb3_csv *csv;
            bool more;
            int64_t bytes;
            assert_int_equal(fb3_csv_open(&csv, path), FB3_OK);
            assert_int_equal(fb3_csv_next(csv, &more), FB3_OK);
            const char *field = fb3_csv_field(csv, cases[i].column, &bytes);
            assert_int_equal(bytes, end - head + strlen(cases[i].end) - 1);
            assert_string_equal(field + bytes - strlen(cases[i].end), cases[i].end);
            assert_int_equal(fb3_csv_next(csv, &more), FB3_OK);
            assert_true(more);
            assert_string_equal(fb3_csv_field(csv, 0, NULL), "1");
            assert_string_equal(fb3_csv_field(csv, 1, NULL), "2");
            assert_int_equal(fb3_csv_next(csv, &more), FB3_OK);
            assert_false(more);
            fb3_csv_close(csv);
        }
    }
    free(text);
}

/* Random fields of the characters that matter, written and read back. */
static void test_round_trip(void **state)
{
    (void)state;
    enum { RECORDS = 500, COLUMNS = 3, MOST_CHARACTERS = 8 };
    static const char *const characters[] = {"a", ",", "\"", "\n", "\r", "\r\n", " ", "\xC3\xA9", "\t", "'"};
    static char fields[RECORDS][COLUMNS][2 * MOST_CHARACTERS + 1];
    unsigned seed = 1;
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs("x,y,z\n", file);
    for (int r = 0; r < RECORDS; r++) {
        for (int c = 0; c < COLUMNS; c++) {
            int length = rand_r(&seed) % MOST_CHARACTERS;
            for (int i = 0; i < length; i++)
                strcat(fields[r][c], characters[(size_t)rand_r(&seed) % (sizeof characters / sizeof *characters)]);
            if (c) fputc(',', file);
            fb3_csv_write_field(file, fields[r][c]);
        }
        fputc('\n', file);
    }
    assert_int_equal(fclose(file), 0);
    fb3_csv *csv;
    bool more;
    assert_int_equal(fb3_csv_open(&csv, path), FB3_OK);
    for (int r = 0; r < RECORDS; r++) {
        assert_int_equal(fb3_csv_next(csv, &more), FB3_OK);
        assert_true(more);
        for (int c = 0; c < COLUMNS; c++) assert_string_equal(fb3_csv_field(csv, c, NULL), fields[r][c]);
    }
    assert_int_equal(fb3_csv_next(csv, &more), FB3_OK);
    assert_false(more);
    fb3_csv_close(csv);
}

static void test_writer_quotes_when_it_must(void **state)
{
    (void)state;
    static const char *const written[][2] = {{"plain text", "plain text"}, {"", ""},
                                             {"a,b", "\"a,b\""},           {"a\"b", "\"a\"\"b\""},
                                             {"a\nb", "\"a\nb\""},         {"a\rb", "\"a\rb\""}};
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        char *text;
        size_t bytes;
        FILE *file = open_memstream(&text, &bytes);
        fb3_csv_write_field(file, written[i][0]);
        fclose(file);
        assert_string_equal(text, written[i][1]);
        free(text);
    }
}

/* Random bytes: any answer but a crash, and an error is one line. */
static void test_random_bytes(void **state)
{
    (void)state;
    enum { FILES = 3000, MOST_BYTES = 60 };
    static const char likely[] = "a,\"\n\r,\"\n\xC3\xA9\xFF"
                                 "b";
    unsigned seed = 2;
    for (int f = 0; f < FILES; f++) {
        char text[MOST_BYTES];
        size_t bytes = (size_t)rand_r(&seed) % MOST_BYTES;
        for (size_t i = 0; i < bytes; i++)
            text[i] = rand_r(&seed) % 8 ? likely[(size_t)rand_r(&seed) % sizeof likely] : (char)rand_r(&seed);
        write_bytes(text, bytes);
        if (!read_all()) {
            assert_true(strlen(fb3_error_text()) > 0);
            assert_null(strchr(fb3_error_text(), '\n'));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),         cmocka_unit_test(test_bad),
        cmocka_unit_test(test_no_file),      cmocka_unit_test(test_too_many_columns),
        cmocka_unit_test(test_columns),      cmocka_unit_test(test_long_list_of_columns),
        cmocka_unit_test(test_positions),    cmocka_unit_test(test_block_ends),
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_writer_quotes_when_it_must),
        cmocka_unit_test(test_random_bytes),
    };
    return cmocka_run_group_tests_name("csv", tests, make_folder, remove_folder);
}
