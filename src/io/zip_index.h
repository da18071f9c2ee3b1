/* Where the members of a zip archive lie in its file. Private to src/io. */
#ifndef FB3_IO_ZIP_INDEX_H
#define FB3_IO_ZIP_INDEX_H

#include "tensor_file.h"

typedef struct fb3_zip_member {
    char *name;
    uint16_t flags, method;
    uint32_t crc;
    int64_t bytes;  /* of the content; in the file too, when the member is stored */
    int64_t packed; /* in the file */
    int64_t header; /* offset of the local header */
} fb3_zip_member;

typedef struct fb3_zip_index {
    fb3_zip_member *member; /* by name */
    int count;
    int64_t directory; /* offset of the central directory: members end before it */
} fb3_zip_index;

/* FB3_INPUT when the file is not a zip archive, is cut short, or has two members of one name. */
fb3_status fb3_zip_index_read(fb3_zip_index *index, const fb3_tensor_file *file);
void fb3_zip_index_free(fb3_zip_index *index);
/* NULL when there is none. */
const fb3_zip_member *fb3_zip_find(const fb3_zip_index *index, const char *name);
/* The offset of a stored member's content, after its local header. FB3_INPUT when it is compressed or encrypted. */
fb3_status fb3_zip_locate(const fb3_tensor_file *file, const fb3_zip_index *index, const fb3_zip_member *member,
                          int64_t *offset);
/* The content of a stored member of at most `limit` bytes, its CRC-32 checked. Caller frees *data. */
fb3_status fb3_zip_read(const fb3_tensor_file *file, const fb3_zip_index *index, const fb3_zip_member *member,
                        size_t limit, uint8_t **data);

#endif
