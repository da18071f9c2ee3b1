/* Fields are read back as they were written; damaged bytes end the reading. */
#include "../../src/track/protobuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static fb3_proto_reader reader_of(const fb3_proto *proto)
{
    return (fb3_proto_reader){.data = proto->data, .bytes = proto->bytes};
}

static void bytes_are_those_of_the_encoding_guide(void **state)
{
    (void)state;
    static const unsigned char expected[] = {0x08, 0x96, 0x01, 0x12, 0x07, 't',  'e',  's', 't',
                                             'i',  'n',  'g',  0x1a, 0x03, 0x08, 0x96, 0x01};
    fb3_proto proto = {0};
    fb3_proto_integer(&proto, 1, 150);
    fb3_proto_integer(&proto, 7, 0); /* the default value is left out */
    fb3_proto_text(&proto, 8, "");   /* so is this */
    fb3_proto_text(&proto, 9, NULL); /* and this */
    fb3_proto_text(&proto, 2, "testing");
    size_t begun = fb3_proto_begin(&proto, 3);
    fb3_proto_integer(&proto, 1, 150);
    fb3_proto_end(&proto, begun);
    assert_int_equal(proto.bytes, sizeof expected);
    assert_memory_equal(proto.data, expected, sizeof expected);
    fb3_proto_free(&proto);
}

static void numbers_come_back(void **state)
{
    (void)state;
    static const int64_t NUMBERS[] = {1, 127, 128, 16383, 16384, INT32_MAX, INT64_MAX, -1, INT64_MIN};
    enum { COUNT = sizeof NUMBERS / sizeof *NUMBERS };
    fb3_proto proto = {0};
    fb3_proto_field field;
    for (int i = 0; i < COUNT; i++) fb3_proto_integer(&proto, i + 1, NUMBERS[i]);
    fb3_proto_reader reader = reader_of(&proto);
    for (int i = 0; i < COUNT; i++) {
        assert_true(fb3_proto_next(&reader, &field));
        assert_int_equal(field.number, i + 1);
        assert_true((int64_t)field.value == NUMBERS[i]);
    }
    assert_false(fb3_proto_next(&reader, &field));
    fb3_proto_free(&proto);
}

static void texts_are_utf8(void **state)
{
    (void)state;
    static const char *const TEXTS[][2] = {{"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
                                           {"\xff", "?"},
                                           {"a\xc3", "a?"},
                                           {"\xc3(\xa0\xc3\xbc", "?(?\xc3\xbc"},
                                           {"\xed\xa0\x80.", "???."}};
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        fb3_proto proto = {0};
        fb3_proto_field field;
        fb3_proto_text(&proto, 1, TEXTS[i][0]);
        fb3_proto_reader reader = reader_of(&proto);
        assert_true(fb3_proto_next(&reader, &field));
        assert_int_equal(field.content.bytes, strlen(TEXTS[i][1]));
        assert_memory_equal(field.content.data, TEXTS[i][1], field.content.bytes);
        fb3_proto_free(&proto);
    }
}

/* Lengths of one, two and three bytes, three levels deep. */
static void messages_nest(void **state)
{
    (void)state;
    static const size_t LENGTHS[] = {0, 1, 100, 127, 128, 5000, 40000};
    for (size_t i = 0; i < sizeof LENGTHS / sizeof *LENGTHS; i++) {
        fb3_proto proto = {0};
        fb3_proto_field field;
        char *text = calloc(LENGTHS[i] + 1, 1);
        memset(text, 'x', LENGTHS[i]);
        size_t outer = fb3_proto_begin(&proto, 17), inner = fb3_proto_begin(&proto, 4);
        fb3_proto_text(&proto, 200, text);
        fb3_proto_end(&proto, inner);
        fb3_proto_end(&proto, outer);
        fb3_proto_reader reader = reader_of(&proto);
        assert_true(fb3_proto_next(&reader, &field) && field.number == 17);
        reader = field.content;
        assert_true(fb3_proto_next(&reader, &field) && field.number == 4);
        reader = field.content;
        assert_true(fb3_proto_next(&reader, &field) == (LENGTHS[i] > 0));
        assert_int_equal(field.content.bytes, LENGTHS[i]);
        free(text);
        fb3_proto_free(&proto);
    }
}

/* Every beginning of a message, and every byte of it changed: the reader ends, and stays inside. */
static void damage_is_survived(void **state)
{
    (void)state;
    fb3_proto proto = {0};
    fb3_proto_field field;
    fb3_proto_integer(&proto, 1, INT64_MAX);
    fb3_proto_text(&proto, 2, "some text");
    for (size_t cut = 0; cut <= proto.bytes; cut++) {
        for (int change = 0; change < 256; change++) {
            unsigned char *copy = malloc(cut + 1); /* of its own size, for the sanitizer */
            memcpy(copy, proto.data, cut);
            if (cut > 0) copy[change % cut] ^= (unsigned char)change;
            fb3_proto_reader reader = {.data = copy, .bytes = cut};
            for (int n = 0; fb3_proto_next(&reader, &field); n++) assert_true(n < 64);
            free(copy);
        }
    }
    fb3_proto_free(&proto);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bytes_are_those_of_the_encoding_guide),
                                       cmocka_unit_test(numbers_come_back), cmocka_unit_test(texts_are_utf8),
                                       cmocka_unit_test(messages_nest), cmocka_unit_test(damage_is_survived)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
