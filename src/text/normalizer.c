/* The normaliser of the Hugging Face fast tokenizer (tokenizers 0.22: Strip, Precompiled, Replace " {2,}" by " ").
 *
 * SentencePiece itself looks for the longest match of its charsmap at every byte. The fast tokenizer does otherwise,
 * and its ids are the ones that models were trained with:
 *   - it takes one grapheme cluster at a time;
 *   - a cluster shorter than 6 bytes that begins with an entry of the map is replaced as a whole by the *shortest* such
 *     entry's text, so that a mark behind a replaced letter is lost;
 *   - any other cluster is replaced character by character.
 *
 * The map's format (sentencepiece, normalizer.cc): 4 bytes, little endian, the trie's size in bytes; the trie, a
 * Darts-clone double array of 32-bit units; the replacements' text. */
#include "normalizer.h"

#include "grapheme.h"
#include "fb3/utf8.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE_BYTES = 4, UNIT_BYTES = 4, WHOLE_CLUSTER_BYTES = 6 };

static uint32_t little_endian(const uint8_t *byte)
{
    return (uint32_t)byte[0] | (uint32_t)byte[1] << 8 | (uint32_t)byte[2] << 16 | (uint32_t)byte[3] << 24;
}

fb3_status fb3_charsmap_read(fb3_charsmap *map, const void *data, size_t bytes)
{
    *map = (fb3_charsmap){0};
    if (bytes == 0) return FB3_OK;
    const uint8_t *byte = data;
    uint32_t trie_bytes = bytes > SIZE_BYTES ? little_endian(byte) : 0;
    FB3_REQUIRE(trie_bytes >= UNIT_BYTES && trie_bytes % UNIT_BYTES == 0 && trie_bytes <= bytes - SIZE_BYTES, FB3_INPUT,
                "its character map is damaged (a trie of %u bytes in %zu); fetch the file again", trie_bytes, bytes);
    const char *text = (const char *)byte + SIZE_BYTES + trie_bytes;
    size_t text_bytes = bytes - SIZE_BYTES - trie_bytes;
    FB3_REQUIRE(text_bytes > 0 && text[text_bytes - 1] == 0 && fb3_utf8_valid(text, text_bytes) == text_bytes,
                FB3_INPUT, "its character map is damaged (the replacements are not UTF-8); fetch the file again");

    map->units = trie_bytes / UNIT_BYTES;
    map->unit = malloc(trie_bytes);
    map->text = malloc(text_bytes);
    map->text_bytes = text_bytes;
    if (!map->unit || !map->text) {
        fb3_charsmap_free(map);
        return fb3_fail(FB3_FAILED, "out of memory for a character map of %zu bytes", bytes);
    }
    for (size_t i = 0; i < map->units; i++) map->unit[i] = little_endian(byte + SIZE_BYTES + UNIT_BYTES * i);
    memcpy(map->text, text, text_bytes);
    return FB3_OK;
}

void fb3_charsmap_free(fb3_charsmap *map)
{
    free(map->unit);
    free(map->text);
    *map = (fb3_charsmap){0};
}

/* The fields of a Darts-clone unit. */
static uint32_t unit_label(uint32_t unit)
{
    return unit & ((1U << 31) | 0xFF);
}
static bool unit_has_leaf(uint32_t unit)
{
    return unit >> 8 & 1;
}
static size_t unit_offset(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1U << 9)) >> 6);
}
static size_t unit_value(uint32_t unit)
{
    return unit & ((1U << 31) - 1);
}

/* The replacement of the shortest entry that begins `text`, or NULL. Steps and positions that a damaged map could send
 * outside, or into the middle of a character, end the search. */
static const char *shortest_replacement(const fb3_charsmap *map, const char *text, size_t bytes)
{
    if (map->units == 0) return NULL;
    size_t node = unit_offset(map->unit[0]);
    for (size_t i = 0; i < bytes && text[i]; i++) {
        uint8_t label = (uint8_t)text[i];
        node ^= label;
        if (node >= map->units || unit_label(map->unit[node]) != label) return NULL;
        bool leaf = unit_has_leaf(map->unit[node]);
        node ^= unit_offset(map->unit[node]);
        if (!leaf) continue;
        if (node >= map->units) return NULL;
        size_t at = unit_value(map->unit[node]);
        bool starts_character = at < map->text_bytes && ((uint8_t)map->text[at] & 0xC0) != 0x80;
        return starts_character ? map->text + at : NULL;
    }
    return NULL;
}

/* Appends, with runs of spaces as one. */
static fb3_status append_squeezed(fb3_buffer *out, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == ' ' && out->bytes > 0 && out->data[out->bytes - 1] == ' ') continue;
        FB3_TRY(fb3_buffer_append_byte(out, text[i]));
    }
    return FB3_OK;
}

static fb3_status append_cluster(const fb3_charsmap *map, const char *text, size_t bytes, fb3_buffer *out)
{
    if (bytes < WHOLE_CLUSTER_BYTES) {
        const char *replacement = shortest_replacement(map, text, bytes);
        if (replacement) return append_squeezed(out, replacement, strlen(replacement));
    }
    for (size_t at = 0; at < bytes;) {
        size_t length = (size_t)fb3_utf8_length(text[at]);
        const char *replacement = shortest_replacement(map, text + at, length);
        if (replacement)
            FB3_TRY(append_squeezed(out, replacement, strlen(replacement)));
        else
            FB3_TRY(append_squeezed(out, text + at, length));
        at += length;
    }
    return FB3_OK;
}

/* The Unicode property White_Space. */
static bool is_white_space(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
           code == 0x3000;
}

static size_t leading_white_space(const char *text, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        uint32_t code;
        int length = fb3_utf8_decode(text + at, bytes - at, &code);
        if (!is_white_space(code)) break;
        at += (size_t)length;
    }
    return at;
}

/* The length of `text` without the white space at its end. */
static size_t without_trailing_white_space(const char *text, size_t bytes)
{
    while (bytes > 0) {
        size_t at = bytes - 1;
        while (at > 0 && ((uint8_t)text[at] & 0xC0) == 0x80) at--;
        uint32_t code;
        fb3_utf8_decode(text + at, bytes - at, &code);
        if (!is_white_space(code)) break;
        bytes = at;
    }
    return bytes;
}

fb3_status fb3_normalize(const fb3_charsmap *map, const char *text, size_t bytes, fb3_buffer *out)
{
    out->bytes = 0;
    size_t at = leading_white_space(text, bytes);
    bytes = without_trailing_white_space(text, bytes);
    while (at < bytes) {
        size_t length = fb3_grapheme_length(text + at, bytes - at);
        FB3_TRY(append_cluster(map, text + at, length, out));
        at += length;
    }
    return FB3_OK;
}
