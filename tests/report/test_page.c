/* Escaping, numbers and scales of a page. */
#include "../../src/report/page.h"
#include "../../src/report/svg.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void assert_written(const char *text, int characters, const char *expected)
{
    char *got = NULL;
    size_t bytes;
    page p = {.out = open_memstream(&got, &bytes)};
    assert_non_null(p.out);
    if (characters < 0) {
        page_text(&p, text);
    } else {
        page_text_cut(&p, text, characters);
    }
    assert_int_equal(fclose(p.out), 0);
    assert_string_equal(got, expected);
    free(got);
}

#define REPLACED "\xEF\xBF\xBD"

static void texts_are_escaped(void **state)
{
    (void)state;
    assert_written("plain \xC3\xA9 \xF0\x9F\x98\x80", -1, "plain \xC3\xA9 \xF0\x9F\x98\x80");
    assert_written("<a href=\"x\">'&'</a>", -1, "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
    assert_written("\x01\x1B[0m\x7F", -1, REPLACED REPLACED "[0m" REPLACED);                       /* controls */
    assert_written("\xFF\xC3(\xED\xA0\x80", -1, REPLACED REPLACED "(" REPLACED REPLACED REPLACED); /* not UTF-8 */
    assert_written("\xEF\xBF\xBE\xE2\x80\xAE", -1, REPLACED REPLACED);                             /* U+FFFE, U+202E */
    assert_written("\xC2\x85", -1, REPLACED);                                                      /* C1 */
    assert_written("", -1, "");
}

static void texts_are_cut_between_characters(void **state)
{
    (void)state;
    assert_written("\xC3\xA9\xC3\xA9\xC3\xA9", 2, "\xC3\xA9\xC3\xA9\xE2\x80\xA6");
    assert_written("ab", 2, "ab");
    assert_written("<<<", 1, "&lt;\xE2\x80\xA6");
}

static void assert_number(double value, int decimals, const char *expected)
{
    char text[PAGE_NUMBER_BYTES];
    assert_string_equal(page_number(text, value, decimals), expected);
}

static void numbers(void **state)
{
    (void)state;
    assert_number(0, 0, "0");
    assert_number(999, 0, "999");
    assert_number(1000, 0, "1,000");
    assert_number(-1234567.891, 2, "-1,234,567.89");
    assert_number(-100, 0, "-100");
    assert_number(0.63449, 4, "0.6345");
    assert_number(1e-7, 4, "1e-07");
    assert_number(2e-5, -1, "2e-05");
    assert_number(1e300, 2, "1e+300");
    assert_number(NAN, 2, "\xE2\x80\x93");
    assert_number(INFINITY, 2, "\xE2\x80\x93");
}

static void durations_and_sizes(void **state)
{
    (void)state;
    char text[PAGE_NUMBER_BYTES];
    assert_string_equal(page_duration(text, 12.34), "12.3 s");
    assert_string_equal(page_duration(text, 220), "3 min 40 s");
    assert_string_equal(page_duration(text, 7320), "2 h 02 min");
    assert_string_equal(page_duration(text, NAN), "\xE2\x80\x93");
    assert_string_equal(page_bytes(text, 999), "999 bytes");
    assert_string_equal(page_bytes(text, 12345678), "12.3 MB");
    assert_string_equal(page_bytes(text, 123456789012.0), "123 GB");
}

static void scales(void **state)
{
    (void)state;
    svg_scale s = svg_scale_fit(2, 4, true, true);
    assert_true(s.low == 0 && s.high > 4 && !s.log);
    s = svg_scale_fit(0.01, 10, true, true);
    assert_true(s.log && s.low < 0.01 && s.high > 10);
    s = svg_scale_fit(3, 3, false, false);
    assert_true(s.low < 3 && s.high > 3);
    s = svg_scale_fit(0, 0, true, true);
    assert_true(s.low == 0 && s.high > 0 && !s.log);
    s = svg_scale_fit(-1, 1, true, true);
    assert_true(s.low < -1 && s.high > 1);
    s = svg_scale_fit(NAN, NAN, false, true);
    assert_true(s.low == 0 && s.high == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts_are_escaped),
                                       cmocka_unit_test(texts_are_cut_between_characters), cmocka_unit_test(numbers),
                                       cmocka_unit_test(durations_and_sizes), cmocka_unit_test(scales)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
