/* A growing array of bytes: what the CSV reader, the normaliser and the tokenizer.json writer fill. */
#ifndef FB3_TEXT_BUFFER_H
#define FB3_TEXT_BUFFER_H

#include "fb3/status.h"
#include <stddef.h>

typedef struct fb3_buffer {
    char *data; /* NULL while nothing was reserved */
    size_t bytes;
    size_t capacity;
} fb3_buffer;

/* Room for `more` bytes behind what is there. FB3_FAILED when memory is out; the buffer is then as it was. */
fb3_status fb3_buffer_reserve(fb3_buffer *buffer, size_t more);
fb3_status fb3_buffer_append(fb3_buffer *buffer, const void *data, size_t bytes);
fb3_status fb3_buffer_append_text(fb3_buffer *buffer, const char *text);
fb3_status fb3_buffer_append_byte(fb3_buffer *buffer, char byte);
void fb3_buffer_free(fb3_buffer *buffer);

#endif
