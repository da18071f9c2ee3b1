/* Protocol buffers, as far as a tracker's records need them: fields written one after another into a buffer that grows,
 * and read one after another from bytes that may be damaged. https://protobuf.dev/programming-guides/encoding/ */
#ifndef FB3_TRACK_PROTOBUF_H
#define FB3_TRACK_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A message that is being written. Starts as {0}; memory that cannot be had is noted in `failed`, and nothing more is
 * written. */
typedef struct fb3_proto {
    unsigned char *data;
    size_t bytes, room;
    bool failed;
} fb3_proto;
void fb3_proto_clear(fb3_proto *proto); /* keeps the memory */
void fb3_proto_free(fb3_proto *proto);

/* Fields with proto3's default value (0, false, empty or NULL text) are left out. */
void fb3_proto_integer(fb3_proto *proto, int field, int64_t value);
void fb3_proto_text(fb3_proto *proto, int field, const char *text);
/* These are there whatever their value: members of a oneof. */
void fb3_proto_double(fb3_proto *proto, int field, double value);
void fb3_proto_float(fb3_proto *proto, int field, float value);
/* A message inside: what is written between begin and end. It is there even when it is empty. */
size_t fb3_proto_begin(fb3_proto *proto, int field);
void fb3_proto_end(fb3_proto *proto, size_t begun);

/* Bytes that are being read. */
typedef struct fb3_proto_reader {
    const unsigned char *data;
    size_t bytes;
} fb3_proto_reader;
typedef struct fb3_proto_field {
    int number;
    uint64_t value;           /* of a number */
    fb3_proto_reader content; /* of a text or message; data is NULL for a number */
} fb3_proto_field;
/* The next field; false at the end, or where the bytes make no sense. */
bool fb3_proto_next(fb3_proto_reader *reader, fb3_proto_field *field);

#endif
