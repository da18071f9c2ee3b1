/* Strict UTF-8 (RFC 3629): no overlong form, no surrogate, nothing above U+10FFFF. */
#ifndef FB3_UTF8_H
#define FB3_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The character at the start of `text`: its length in bytes (1 to 4) and its code point, or 0 when the bytes there are
 * not UTF-8 or `bytes` is 0. */
int fb3_utf8_decode(const char *text, size_t bytes, uint32_t *code);

/* How many bytes of `text` are valid UTF-8: `bytes` when all are, else the position of the first character that is
 * not. */
size_t fb3_utf8_valid(const char *text, size_t bytes);

/* The length of the character that starts with `byte`, in text that is known to be valid. */
int fb3_utf8_length(char byte);

/* Foreign text as a one-line message may show it: cut, with "..." behind, between characters; control characters and
 * bytes that are not UTF-8 are '?'. A zero byte ends it. Returns `shown`. */
enum { FB3_SHOWN_BYTES = 64 };
const char *fb3_shown(char shown[FB3_SHOWN_BYTES], const void *text, size_t bytes);

#endif
