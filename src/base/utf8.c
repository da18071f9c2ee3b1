/* Strict UTF-8 by the table of well-formed byte sequences (Unicode 16.0, table 3-7): the first byte gives the length
 * and, where an overlong form, a surrogate or a value above U+10FFFF is possible, a narrower range for the second. */
#include "fb3/utf8.h"

#include <stdbool.h>
#include <string.h>

static const struct lead {
    uint8_t first, last;  /* lead bytes */
    uint8_t low, high;    /* range of the second byte */
    int length;           /* of the whole character */
    uint8_t payload_mask; /* bits of the lead byte that belong to the code point */
} leads[] = {
    {0xC2, 0xDF, 0x80, 0xBF, 2, 0x1F}, {0xE0, 0xE0, 0xA0, 0xBF, 3, 0x0F}, {0xE1, 0xEC, 0x80, 0xBF, 3, 0x0F},
    {0xED, 0xED, 0x80, 0x9F, 3, 0x0F}, {0xEE, 0xEF, 0x80, 0xBF, 3, 0x0F}, {0xF0, 0xF0, 0x90, 0xBF, 4, 0x07},
    {0xF1, 0xF3, 0x80, 0xBF, 4, 0x07}, {0xF4, 0xF4, 0x80, 0x8F, 4, 0x07},
};

int fb3_utf8_decode(const char *text, size_t bytes, uint32_t *code)
{
    const uint8_t *byte = (const uint8_t *)text;
    if (bytes == 0) return 0;
    if (byte[0] < 0x80) {
        *code = byte[0];
        return 1;
    }
    for (size_t i = 0; i < sizeof leads / sizeof leads[0]; i++) {
        const struct lead *lead = &leads[i];
        if (byte[0] < lead->first || byte[0] > lead->last) continue;
        if (bytes < (size_t)lead->length || byte[1] < lead->low || byte[1] > lead->high) return 0;
        uint32_t value = (uint32_t)(byte[0] & lead->payload_mask) << 6 | (byte[1] & 0x3F);
        for (int k = 2; k < lead->length; k++) {
            if ((byte[k] & 0xC0) != 0x80) return 0;
            value = value << 6 | (byte[k] & 0x3F);
        }
        *code = value;
        return lead->length;
    }
    return 0;
}

size_t fb3_utf8_valid(const char *text, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        uint32_t code;
        int length = fb3_utf8_decode(text + at, bytes - at, &code);
        if (length == 0) break;
        at += (size_t)length;
    }
    return at;
}

int fb3_utf8_length(char byte)
{
    uint8_t lead = (uint8_t)byte;
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* The character at the start of `text` as it is shown: itself, or one '?'. Returns its length in `text`. */
static size_t shown_character(const char *text, size_t bytes, const char **as, size_t *as_bytes)
{
    enum { DELETE = 0x7F };
    uint32_t code = 0;
    size_t size = (size_t)fb3_utf8_decode(text, bytes, &code);
    bool printable = size > 0 && code >= ' ' && code != DELETE;
    *as = printable ? text : "?";
    *as_bytes = printable ? size : 1;
    return size > 0 ? size : 1;
}

const char *fb3_shown(char shown[FB3_SHOWN_BYTES], const void *text, size_t bytes)
{
    static const char cut[] = "...";
    const char *from = text, *as;
    size_t length = strnlen(from, bytes), used = 0, room_for_cut = 0, as_bytes;
    for (size_t at = 0; at < length; used += as_bytes) {
        at += shown_character(from + at, length - at, &as, &as_bytes);
        if (used + as_bytes > FB3_SHOWN_BYTES - 1) {
            memcpy(shown + room_for_cut, cut, sizeof cut);
            return shown;
        }
        memcpy(shown + used, as, as_bytes);
        if (used + as_bytes + sizeof cut <= FB3_SHOWN_BYTES) room_for_cut = used + as_bytes;
    }
    shown[used] = 0;
    return shown;
}
