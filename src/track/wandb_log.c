#include "wandb_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { BLOCK = 32768, PIECE_HEADER = 7, FILE_HEADER = 7, FILE_MODE = 0666 };
enum { WHOLE = 1, FIRST = 2, MIDDLE = 3, LAST = 4 };

static const unsigned char MAGIC[FILE_HEADER] = {':', 'W', '&', 'B', 0xe1, 0xbe, 0};

struct fb3_wandb_log {
    FILE *file;
    char *path;
    size_t used; /* of the block */
};

static uint32_t checksum(unsigned char type, const void *data, size_t bytes)
{
    return (uint32_t)crc32(crc32(0, &type, 1), data, (uInt)bytes);
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static bool write_bytes(fb3_wandb_log *log, const void *data, size_t bytes)
{
    log->used += bytes;
    return fwrite(data, 1, bytes, log->file) == bytes;
}

static bool write_piece(fb3_wandb_log *log, unsigned char type, const void *data, size_t bytes)
{
    const uint32_t crc = checksum(type, data, bytes);
    const unsigned char header[PIECE_HEADER] = {(unsigned char)crc,
                                                (unsigned char)(crc >> 8),
                                                (unsigned char)(crc >> 16),
                                                (unsigned char)(crc >> 24),
                                                (unsigned char)bytes,
                                                (unsigned char)(bytes >> 8),
                                                type};
    return write_bytes(log, header, sizeof header) && write_bytes(log, data, bytes);
}

/* Ends a block that has no room for a piece's header. */
static bool start_piece(fb3_wandb_log *log)
{
    static const char zeros[PIECE_HEADER];
    size_t left = BLOCK - log->used;
    if (left >= PIECE_HEADER) return true;
    bool written = write_bytes(log, zeros, left);
    log->used = 0;
    return written;
}

static bool write_pieces(fb3_wandb_log *log, const unsigned char *data, size_t bytes)
{
    bool first = true;
    for (;;) {
        if (!start_piece(log)) return false;
        size_t room = BLOCK - log->used - PIECE_HEADER, now = bytes < room ? bytes : room;
        bool last = now == bytes;
        unsigned char type = last ? (first ? WHOLE : LAST) : (first ? FIRST : MIDDLE);
        if (!write_piece(log, type, data, now)) return false;
        if (log->used == BLOCK) log->used = 0;
        if (last) return true;
        data += now;
        bytes -= now;
        first = false;
    }
}

fb3_status fb3_wandb_log_create(fb3_wandb_log **log, const char *path)
{
    fb3_status status = FB3_OK;
    fb3_wandb_log *made = calloc(1, sizeof *made);
    FB3_REQUIRE(made, FB3_FAILED, "out of memory for %s", path);
    made->path = strdup(path);
    FB3_REQUIRE_GOTO(made->path, failed, FB3_FAILED, "out of memory for %s", path);
    int descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    made->file = descriptor < 0 ? NULL : fdopen(descriptor, "wb");
    if (!made->file && descriptor >= 0) close(descriptor);
    FB3_REQUIRE_GOTO(made->file && write_bytes(made, MAGIC, sizeof MAGIC), failed, FB3_FAILED, "cannot write %s: %s",
                     path, strerror(errno));
    *log = made;
    return FB3_OK;
failed:
    fb3_wandb_log_close(made);
    return status;
}

fb3_status fb3_wandb_log_write(fb3_wandb_log *log, const void *record, size_t bytes)
{
    bool written = write_pieces(log, record, bytes) && fflush(log->file) == 0;
    FB3_REQUIRE(written, FB3_FAILED, "cannot write %s: %s", log->path, strerror(errno));
    return FB3_OK;
}

void fb3_wandb_log_close(fb3_wandb_log *log)
{
    if (!log) return;
    if (log->file) fclose(log->file);
    free(log->path);
    free(log);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

typedef struct scanner {
    FILE *file;
    unsigned char block[BLOCK];
    size_t filled, at; /* of the block */
    unsigned char *record;
    size_t bytes, room;
    bool inside; /* a record has begun */
} scanner;

/* False at the file's end. */
static bool fill(scanner *s)
{
    s->filled = fread(s->block, 1, BLOCK, s->file);
    s->at = 0;
    return s->filled > 0;
}

static bool append(scanner *s, const unsigned char *data, size_t bytes)
{
    if (s->bytes + bytes + 1 > s->room) {
        size_t room = 2 * (s->bytes + bytes + 1);
        unsigned char *record = realloc(s->record, room);
        if (!record) return false;
        s->record = record;
        s->room = room;
    }
    memcpy(s->record + s->bytes, data, bytes);
    s->bytes += bytes;
    return true;
}

/* The next piece is appended to the record. 0: there is none that is whole and right. */
static unsigned char take_piece(scanner *s)
{
    if (BLOCK - s->at < PIECE_HEADER && !fill(s)) return 0;
    if (s->filled - s->at < PIECE_HEADER) return 0;
    const unsigned char *h = s->block + s->at;
    uint32_t crc = (uint32_t)h[0] | (uint32_t)h[1] << 8 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 24;
    size_t bytes = (size_t)h[4] | (size_t)h[5] << 8;
    unsigned char type = h[6];
    if (type < WHOLE || type > LAST || bytes > s->filled - s->at - PIECE_HEADER) return 0;
    if (checksum(type, h + PIECE_HEADER, bytes) != crc) return 0;
    bool continues = type == MIDDLE || type == LAST;
    if (continues != s->inside || !append(s, h + PIECE_HEADER, bytes)) return 0;
    s->inside = true;
    s->at += PIECE_HEADER + bytes;
    return type;
}

/* False at the end of what can be read. */
static bool take_record(scanner *s)
{
    s->bytes = 0;
    s->inside = false;
    for (unsigned char type; (type = take_piece(s));)
        if (type == WHOLE || type == LAST) return true;
    return false;
}

fb3_status fb3_wandb_log_read(const char *path, fb3_wandb_visit visit, void *context)
{
    fb3_status status = FB3_OK;
    scanner *s = calloc(1, sizeof *s);
    FB3_REQUIRE(s, FB3_FAILED, "out of memory to read %s", path);
    s->file = fopen(path, "rb");
    FB3_REQUIRE_GOTO(s->file, done, FB3_FAILED, "cannot read %s: %s", path, strerror(errno));
    bool ours = fill(s) && s->filled >= FILE_HEADER && memcmp(s->block, MAGIC, FILE_HEADER) == 0;
    FB3_REQUIRE_GOTO(ours, done, FB3_FAILED, "%s is no .wandb file", path);
    s->at = FILE_HEADER;
    while (take_record(s)) FB3_TRY_GOTO(visit(context, s->record, s->bytes), done);
done:
    if (s->file) fclose(s->file);
    free(s->record);
    free(s);
    return status;
}
