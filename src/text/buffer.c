/* A growing array of bytes (buffer.h). */
#include "buffer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 256 };

fb3_status fb3_buffer_reserve(fb3_buffer *buffer, size_t more)
{
    FB3_REQUIRE(more <= SIZE_MAX / 4 && buffer->bytes <= SIZE_MAX / 4, FB3_FAILED,
                "a text of more than %zu bytes; split the file", SIZE_MAX / 4);
    size_t need = buffer->bytes + more;
    if (need <= buffer->capacity) return FB3_OK;
    size_t capacity = buffer->capacity ? buffer->capacity : FIRST_CAPACITY;
    while (capacity < need) capacity *= 2;
    char *data = realloc(buffer->data, capacity);
    FB3_REQUIRE(data, FB3_FAILED, "out of memory for a text of %zu bytes; run fewer ranks on this node", capacity);
    buffer->data = data;
    buffer->capacity = capacity;
    return FB3_OK;
}

fb3_status fb3_buffer_append(fb3_buffer *buffer, const void *data, size_t bytes)
{
    if (bytes == 0) return FB3_OK;
    FB3_TRY(fb3_buffer_reserve(buffer, bytes));
    memcpy(buffer->data + buffer->bytes, data, bytes);
    buffer->bytes += bytes;
    return FB3_OK;
}

fb3_status fb3_buffer_append_text(fb3_buffer *buffer, const char *text)
{
    return fb3_buffer_append(buffer, text, strlen(text));
}

fb3_status fb3_buffer_append_byte(fb3_buffer *buffer, char byte)
{
    if (buffer->bytes == buffer->capacity) FB3_TRY(fb3_buffer_reserve(buffer, 1));
    buffer->data[buffer->bytes++] = byte;
    return FB3_OK;
}

void fb3_buffer_free(fb3_buffer *buffer)
{
    free(buffer->data);
    *buffer = (fb3_buffer){0};
}
