#include "protobuf.h"

#include "fb3/utf8.h"

#include <stdlib.h>
#include <string.h>

/* Wire types. */
enum { VARINT = 0, FIXED_64 = 1, DELIMITED = 2, FIXED_32 = 5 };

enum { LONGEST_VARINT = 10, FIRST_ROOM = 4096, LARGEST_FIELD = (1 << 29) - 1 };

/* --- writing ------------------------------------------------------------------------------------------------------ */

void fb3_proto_clear(fb3_proto *proto)
{
    proto->bytes = 0;
    proto->failed = false;
}

void fb3_proto_free(fb3_proto *proto)
{
    free(proto->data);
    *proto = (fb3_proto){0};
}

static bool make_room(fb3_proto *proto, size_t more)
{
    size_t room = proto->room ? proto->room : FIRST_ROOM;
    if (proto->failed) return false;
    while (room - proto->bytes < more) room *= 2;
    if (room == proto->room) return true;
    unsigned char *data = realloc(proto->data, room);
    proto->failed = !data;
    if (!data) return false;
    proto->data = data;
    proto->room = room;
    return true;
}

static size_t encode_varint(unsigned char *bytes, uint64_t value)
{
    size_t n = 0;
    for (; value > 127; value >>= 7) bytes[n++] = (unsigned char)(value | 128);
    bytes[n++] = (unsigned char)value;
    return n;
}

static void put_varint(fb3_proto *proto, uint64_t value)
{
    if (make_room(proto, LONGEST_VARINT)) proto->bytes += encode_varint(proto->data + proto->bytes, value);
}

static void put_tag(fb3_proto *proto, int field, int wire)
{
    put_varint(proto, (uint64_t)field << 3 | (uint64_t)wire);
}

void fb3_proto_integer(fb3_proto *proto, int field, int64_t value)
{
    if (value == 0) return;
    put_tag(proto, field, VARINT);
    put_varint(proto, (uint64_t)value);
}

/* A reader refuses a whole message for one byte that is not UTF-8: such bytes are '?'. */
static void put_utf8(char *to, const char *text, size_t bytes)
{
    memcpy(to, text, bytes);
    for (size_t at = 0; (at += fb3_utf8_valid(to + at, bytes - at)) < bytes;) to[at] = '?';
}

void fb3_proto_text(fb3_proto *proto, int field, const char *text)
{
    size_t length = text ? strlen(text) : 0;
    if (length == 0) return;
    put_tag(proto, field, DELIMITED);
    put_varint(proto, length);
    if (!make_room(proto, length)) return;
    put_utf8((char *)proto->data + proto->bytes, text, length);
    proto->bytes += length;
}

size_t fb3_proto_begin(fb3_proto *proto, int field)
{
    put_tag(proto, field, DELIMITED);
    return proto->bytes;
}

/* The length stands before the content and is known after it, so the content moves up. */
void fb3_proto_end(fb3_proto *proto, size_t begun)
{
    unsigned char length[LONGEST_VARINT];
    size_t n = encode_varint(length, proto->bytes - begun);
    if (!make_room(proto, n)) return;
    memmove(proto->data + begun + n, proto->data + begun, proto->bytes - begun);
    memcpy(proto->data + begun, length, n);
    proto->bytes += n;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static bool take_varint(fb3_proto_reader *reader, uint64_t *value)
{
    *value = 0;
    for (size_t n = 0; n < reader->bytes && n < LONGEST_VARINT; n++) {
        *value |= (uint64_t)(reader->data[n] & 127) << 7 * n;
        if (reader->data[n] & 128) continue;
        reader->data += n + 1;
        reader->bytes -= n + 1;
        return true;
    }
    return false;
}

static bool take_bytes(fb3_proto_reader *reader, uint64_t bytes, fb3_proto_reader *content)
{
    if (bytes > reader->bytes) return false;
    *content = (fb3_proto_reader){.data = reader->data, .bytes = (size_t)bytes};
    reader->data += bytes;
    reader->bytes -= (size_t)bytes;
    return true;
}

bool fb3_proto_next(fb3_proto_reader *reader, fb3_proto_field *field)
{
    uint64_t tag, length;
    *field = (fb3_proto_field){0};
    if (reader->bytes == 0 || !take_varint(reader, &tag)) return false;
    if (tag >> 3 == 0 || tag >> 3 > LARGEST_FIELD) return false;
    field->number = (int)(tag >> 3);
    switch (tag & 7) {
    case VARINT:
        return take_varint(reader, &field->value);
    case DELIMITED:
        return take_varint(reader, &length) && take_bytes(reader, length, &field->content);
    case FIXED_64:
        return take_bytes(reader, sizeof(uint64_t), &field->content);
    case FIXED_32:
        return take_bytes(reader, sizeof(uint32_t), &field->content);
    default:
        return false;
    }
}
