/* Extended grapheme clusters (UAX #29, Unicode 16.0): what a reader takes for one character. The Hugging Face
 * normaliser works cluster by cluster, so the ids depend on where clusters end. The tables are our own, and not those
 * of whatever library a machine has, because ids must not change with the machine. */
#ifndef FB3_TEXT_GRAPHEME_H
#define FB3_TEXT_GRAPHEME_H

#include <stddef.h>

/* The length in bytes of the first cluster of `text`, which is valid UTF-8 and not empty. */
size_t fb3_grapheme_length(const char *text, size_t bytes);

#endif
