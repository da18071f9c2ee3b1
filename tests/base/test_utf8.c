/* UTF-8 by the table of well-formed sequences, and foreign text in messages. */
#include "fb3/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

/* Every code point, encoded here by the definition in RFC 3629, comes back; surrogates do not. */
static void every_code_point(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x110000; code++) {
        char text[4];
        int length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        static const unsigned char LEAD[] = {0, 0, 0xC0, 0xE0, 0xF0};
        for (int i = length - 1, left = (int)code; i >= 0; i--, left >>= 6) {
            text[i] = (char)(i > 0 ? 0x80 | (left & 0x3F) : LEAD[length] | left);
        }
        uint32_t got = 0;
        bool valid = code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
        assert_int_equal(fb3_utf8_decode(text, (size_t)length, &got), valid ? length : 0);
        if (valid) assert_int_equal(got, code);
        if (length > 1) assert_int_equal(fb3_utf8_decode(text, (size_t)length - 1, &got), 0);
        if (valid && code > 0) assert_int_equal(fb3_utf8_length(text[0]), length);
    }
}

static void overlong_and_broken(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "\x80",  "\xC0\x80",  "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF", "\xF8\x88\x80\x80",
        "\xC3(", "\xE2\x82(", "\xFF",     "\xED\xA0\x80"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        char text[16] = "ok\xC3\xA9";
        strcat(text, BAD[i]);
        assert_int_equal(fb3_utf8_valid(text, strlen(text)), 4);
    }
}

static void shown(void **state)
{
    (void)state;
    char text[FB3_SHOWN_BYTES];
    assert_string_equal(fb3_shown(text, "a\nb\x7F\xFF", 5), "a?b??");
    assert_string_equal(fb3_shown(text, "ends\0here", 9), "ends");
    assert_string_equal(fb3_shown(text, "", 0), "");
    /* one byte more than fits is cut between characters, with dots behind */
    char exact[FB3_SHOWN_BYTES], longer[FB3_SHOWN_BYTES + 1];
    memset(exact, 'x', sizeof exact - 1);
    exact[sizeof exact - 1] = 0;
    assert_string_equal(fb3_shown(text, exact, strlen(exact)), exact);
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    memcpy(longer + FB3_SHOWN_BYTES - 5, "\xC3\xA9", 2);
    fb3_shown(text, longer, strlen(longer));
    assert_int_equal(strlen(text), FB3_SHOWN_BYTES - 5 + 3);
    assert_string_equal(text + strlen(text) - 4, "x...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_code_point), cmocka_unit_test(overlong_and_broken),
                                       cmocka_unit_test(shown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
