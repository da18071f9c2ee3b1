/* The text normaliser of the Hugging Face fast tokenizer: strip white space at both ends, apply SentencePiece's
 * precompiled_charsmap, make runs of spaces one. */
#ifndef FB3_TEXT_NORMALIZER_H
#define FB3_TEXT_NORMALIZER_H

#include "buffer.h"
#include <stdint.h>

/* A precompiled_charsmap: a double array trie whose leaves are positions in `text`, where the replacement stands,
 * 0-terminated. */
typedef struct fb3_charsmap {
    uint32_t *unit; /* [units] */
    size_t units;
    char *text;
    size_t text_bytes;
} fb3_charsmap;

/* Reads `data`; 0 bytes give an empty map, which replaces nothing. FB3_INPUT when sizes or texts are not right. */
fb3_status fb3_charsmap_read(fb3_charsmap *map, const void *data, size_t bytes);
void fb3_charsmap_free(fb3_charsmap *map);

/* Replaces the content of `out` by the normal form of `text` (valid UTF-8, and so is the result). */
fb3_status fb3_normalize(const fb3_charsmap *map, const char *text, size_t bytes, fb3_buffer *out);

#endif
