/* Reads a zip archive's central directory (PKWARE APPNOTE.TXT, sections 4.3 and 4.5.3), ZIP64 included.
 *
 *   [local header, content] ... [central directory: one entry per member] [ZIP64 end, locator] [end]
 *
 * pytorch_model.bin is such an archive with every member stored, so that a tensor can be read where it lies. libzip
 * reads members as streams and does not tell where they lie; that is why the directory is read here. */
#include "zip_index.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
    DIRECTORY_MAX = 32 << 20, /* FB3_TENSORS_MAX members with long names */
    COMMENT_MAX = UINT16_MAX,
    STORED = 0,
    FLAG_ENCRYPTED = 1,
    EXTRA_ZIP64 = 1,
    EXTRA_HEADER = 4, /* id and size, two bytes each */
};

/* Signatures, and fields by their offsets. */
enum local_header { LOCAL_SIGNATURE = 0x04034b50, LOCAL_NAME = 26, LOCAL_EXTRA = 28, LOCAL_BYTES = 30 };
enum entry_fields {
    ENTRY_SIGNATURE = 0x02014b50,
    ENTRY_FLAGS = 8,
    ENTRY_METHOD = 10,
    ENTRY_CRC = 16,
    ENTRY_PACKED = 20,
    ENTRY_SIZE = 24,
    ENTRY_NAME = 28,
    ENTRY_EXTRA = 30,
    ENTRY_COMMENT = 32,
    ENTRY_HEADER = 42,
    ENTRY_BYTES = 46,
};
enum end_fields {
    END_SIGNATURE = 0x06054b50,
    END_ENTRIES = 10,
    END_SIZE = 12,
    END_OFFSET = 16,
    END_COMMENT = 20,
    END_BYTES = 22,
};
enum end64_fields {
    LOCATOR_SIGNATURE = 0x07064b50,
    LOCATOR_END64 = 8,
    LOCATOR_BYTES = 20,
    END64_SIGNATURE = 0x06064b50,
    END64_ENTRIES = 32,
    END64_SIZE = 40,
    END64_OFFSET = 48,
    END64_BYTES = 56,
};

static uint64_t little_endian(const uint8_t *from, int bytes)
{
    uint64_t number = 0;
    while (bytes-- > 0) number = number << 8 | from[bytes];
    return number;
}

static uint16_t u16(const uint8_t *from)
{
    return (uint16_t)little_endian(from, 2);
}

static uint32_t u32(const uint8_t *from)
{
    return (uint32_t)little_endian(from, 4);
}

static uint64_t u64(const uint8_t *from)
{
    return little_endian(from, 8);
}

static fb3_status damaged(const fb3_tensor_file *file, const char *why)
{
    return fb3_fail(FB3_INPUT, "%s: the zip archive is damaged: %s; download or save the file again", file->path, why);
}

/* The central directory as the end record gives it. */
typedef struct directory {
    uint64_t offset, bytes, entries;
} directory;

/* The end record is the last 22 bytes, or more when a comment follows; its own comment size must lead to the end. */
static fb3_status find_end(const fb3_tensor_file *file, int64_t *end)
{
    int64_t tail_bytes = file->file_bytes < END_BYTES + COMMENT_MAX ? file->file_bytes : END_BYTES + COMMENT_MAX;
    int64_t tail_offset = file->file_bytes - tail_bytes;
    fb3_status status = FB3_OK;
    uint8_t *tail = malloc((size_t)tail_bytes + 1);
    FB3_REQUIRE(tail, FB3_FAILED, "out of memory to open %s", file->path);
    FB3_TRY_GOTO(fb3_tensor_file_pread(file, tail_offset, tail, (size_t)tail_bytes), done);
    *end = -1;
    for (int64_t at = tail_bytes - END_BYTES; at >= 0 && *end < 0; at--)
        if (u32(tail + at) == END_SIGNATURE && at + END_BYTES + u16(tail + at + END_COMMENT) == tail_bytes)
            *end = tail_offset + at;
    if (*end < 0) status = damaged(file, "it has no end record, so it may be incomplete");
done:
    free(tail);
    return status;
}

/* A file above 4 GiB has a second end record, which a locator before the first one points to. */
static fb3_status read_end64(const fb3_tensor_file *file, int64_t end, directory *found)
{
    uint8_t locator[LOCATOR_BYTES], record[END64_BYTES];
    if (end < LOCATOR_BYTES) return FB3_OK;
    FB3_TRY(fb3_tensor_file_pread(file, end - LOCATOR_BYTES, locator, sizeof locator));
    if (u32(locator) != LOCATOR_SIGNATURE) return FB3_OK;
    uint64_t at = u64(locator + LOCATOR_END64);
    if (at > (uint64_t)end - LOCATOR_BYTES) return damaged(file, "the ZIP64 locator points outside");
    FB3_TRY(fb3_tensor_file_pread(file, (int64_t)at, record, sizeof record));
    if (u32(record) != END64_SIGNATURE) return damaged(file, "the ZIP64 locator points at something else");
    *found = (directory){u64(record + END64_OFFSET), u64(record + END64_SIZE), u64(record + END64_ENTRIES)};
    return FB3_OK;
}

static fb3_status find_directory(const fb3_tensor_file *file, directory *found)
{
    int64_t end = 0;
    uint8_t record[END_BYTES];
    FB3_TRY(find_end(file, &end));
    FB3_TRY(fb3_tensor_file_pread(file, end, record, sizeof record));
    *found = (directory){u32(record + END_OFFSET), u32(record + END_SIZE), u16(record + END_ENTRIES)};
    FB3_TRY(read_end64(file, end, found));
    if (found->bytes > (uint64_t)end || found->offset > (uint64_t)end - found->bytes)
        return damaged(file, "the directory lies outside");
    FB3_REQUIRE(found->bytes <= DIRECTORY_MAX && found->entries <= FB3_TENSORS_MAX, FB3_INPUT,
                "%s: the zip archive has %llu members, more than any model; check that it is the right file",
                file->path, (unsigned long long)found->entries);
    if (found->entries > found->bytes / ENTRY_BYTES) return damaged(file, "the directory is too small for its members");
    return FB3_OK;
}

/* Fields that are all ones in the entry stand, in this order, in the ZIP64 extra field. */
static bool apply_zip64(const uint8_t *extra, size_t bytes, uint64_t *fields[], int count)
{
    while (bytes >= EXTRA_HEADER) {
        size_t size = u16(extra + 2);
        if (size > bytes - EXTRA_HEADER) return false;
        if (u16(extra) == EXTRA_ZIP64) {
            const uint8_t *from = extra + EXTRA_HEADER;
            for (int i = 0; i < count; i++) {
                if (*fields[i] != UINT32_MAX) continue;
                if (size < sizeof(uint64_t)) return false;
                *fields[i] = u64(from);
                from += sizeof(uint64_t);
                size -= sizeof(uint64_t);
            }
            return true;
        }
        extra += EXTRA_HEADER + size;
        bytes -= EXTRA_HEADER + size;
    }
    return true;
}

/* Reads one entry of the central directory; *used is its length. */
static fb3_status read_entry(const fb3_tensor_file *file, fb3_zip_index *index, const uint8_t *entry, size_t left,
                             size_t *used)
{
    if (left < ENTRY_BYTES || u32(entry) != ENTRY_SIGNATURE) return damaged(file, "the directory ends early");
    size_t name_bytes = u16(entry + ENTRY_NAME), extra_bytes = u16(entry + ENTRY_EXTRA);
    *used = ENTRY_BYTES + name_bytes + extra_bytes + u16(entry + ENTRY_COMMENT);
    if (*used > left) return damaged(file, "the directory ends early");
    const uint8_t *name = entry + ENTRY_BYTES, *extra = name + name_bytes;
    uint64_t bytes = u32(entry + ENTRY_SIZE), packed = u32(entry + ENTRY_PACKED), header = u32(entry + ENTRY_HEADER);
    uint64_t *fields[] = {&bytes, &packed, &header};
    if (!apply_zip64(extra, extra_bytes, fields, sizeof fields / sizeof fields[0]))
        return damaged(file, "an extra field is malformed");
    if (header >= (uint64_t)index->directory || bytes > INT64_MAX || packed > (uint64_t)index->directory)
        return damaged(file, "a member lies outside");
    if (name_bytes == 0 || memchr(name, 0, name_bytes)) return damaged(file, "a member has no proper name");
    fb3_zip_member *member = &index->member[index->count];
    member->name = strndup((const char *)name, name_bytes);
    FB3_REQUIRE(member->name, FB3_FAILED, "out of memory for the members of %s", file->path);
    index->count++;
    member->flags = u16(entry + ENTRY_FLAGS);
    member->method = u16(entry + ENTRY_METHOD);
    member->crc = u32(entry + ENTRY_CRC);
    member->bytes = (int64_t)bytes;
    member->packed = (int64_t)packed;
    member->header = (int64_t)header;
    return FB3_OK;
}

static int compare_members(const void *a, const void *b)
{
    const fb3_zip_member *left = a, *right = b;
    return strcmp(left->name, right->name);
}

fb3_status fb3_zip_index_read(fb3_zip_index *index, const fb3_tensor_file *file)
{
    *index = (fb3_zip_index){0};
    fb3_status status = FB3_OK;
    directory where = {0};
    FB3_TRY(find_directory(file, &where));
    uint8_t *entries = malloc((size_t)where.bytes + 1);
    index->directory = (int64_t)where.offset;
    index->member = calloc((size_t)where.entries + 1, sizeof *index->member);
    FB3_REQUIRE_GOTO(entries && index->member, done, FB3_FAILED, "out of memory for the directory of %s", file->path);
    FB3_TRY_GOTO(fb3_tensor_file_pread(file, index->directory, entries, (size_t)where.bytes), done);
    size_t at = 0, used = 0;
    for (uint64_t i = 0; i < where.entries; i++, at += used)
        FB3_TRY_GOTO(read_entry(file, index, entries + at, (size_t)where.bytes - at, &used), done);
    qsort(index->member, (size_t)index->count, sizeof *index->member, compare_members);
    for (int i = 1; i < index->count; i++)
        if (compare_members(&index->member[i - 1], &index->member[i]) == 0) {
            status = damaged(file, "two members have one name");
            goto done;
        }
done:
    free(entries);
    if (status != FB3_OK) fb3_zip_index_free(index);
    return status;
}

void fb3_zip_index_free(fb3_zip_index *index)
{
    for (int i = 0; i < index->count; i++) free(index->member[i].name);
    free(index->member);
    *index = (fb3_zip_index){0};
}

const fb3_zip_member *fb3_zip_find(const fb3_zip_index *index, const char *name)
{
    fb3_zip_member key = {.name = (char *)name};
    return bsearch(&key, index->member, (size_t)index->count, sizeof *index->member, compare_members);
}

/* The local header repeats the name; another name there means that the directory points somewhere else. */
static fb3_status check_local_name(const fb3_tensor_file *file, const fb3_zip_member *member, size_t bytes)
{
    char name[UINT16_MAX];
    if (bytes != strlen(member->name)) return damaged(file, "a local header has another name than the directory");
    FB3_TRY(fb3_tensor_file_pread(file, member->header + LOCAL_BYTES, name, bytes));
    if (memcmp(name, member->name, bytes) != 0)
        return damaged(file, "a local header has another name than the directory");
    return FB3_OK;
}

fb3_status fb3_zip_locate(const fb3_tensor_file *file, const fb3_zip_index *index, const fb3_zip_member *member,
                          int64_t *offset)
{
    uint8_t header[LOCAL_BYTES];
    char shown[FB3_SHOWN_BYTES];
    FB3_REQUIRE(member->method == STORED && !(member->flags & FLAG_ENCRYPTED), FB3_INPUT,
                "%s: member %s is compressed or encrypted, which torch.save does not do; save the file again",
                file->path, fb3_shown(shown, member->name, strlen(member->name)));
    if (member->bytes != member->packed) return damaged(file, "the sizes of a stored member differ");
    FB3_TRY(fb3_tensor_file_pread(file, member->header, header, sizeof header));
    if (u32(header) != LOCAL_SIGNATURE) return damaged(file, "a member has no local header");
    FB3_TRY(check_local_name(file, member, u16(header + LOCAL_NAME)));
    *offset = member->header + LOCAL_BYTES + u16(header + LOCAL_NAME) + u16(header + LOCAL_EXTRA);
    if (*offset > index->directory || member->bytes > index->directory - *offset)
        return damaged(file, "a member runs into the directory");
    return FB3_OK;
}

fb3_status fb3_zip_read(const fb3_tensor_file *file, const fb3_zip_index *index, const fb3_zip_member *member,
                        size_t limit, uint8_t **data)
{
    char shown[FB3_SHOWN_BYTES];
    int64_t offset = 0;
    *data = NULL;
    fb3_shown(shown, member->name, strlen(member->name));
    FB3_TRY(fb3_zip_locate(file, index, member, &offset));
    FB3_REQUIRE((uint64_t)member->bytes <= limit, FB3_INPUT, "%s: member %s has %lld bytes, at most %zu are expected",
                file->path, shown, (long long)member->bytes, limit);
    uint8_t *content = malloc((size_t)member->bytes + 1);
    FB3_REQUIRE(content, FB3_FAILED, "out of memory for member %s of %s", shown, file->path);
    fb3_status status = fb3_tensor_file_pread(file, offset, content, (size_t)member->bytes);
    if (status == FB3_OK && crc32(crc32(0, NULL, 0), content, (uInt)member->bytes) != member->crc)
        status = damaged(file, "a checksum does not match");
    if (status == FB3_OK)
        *data = content;
    else
        free(content);
    return status;
}
