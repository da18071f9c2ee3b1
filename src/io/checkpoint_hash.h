/* The hash files beside a checkpoint, and putting a new one in its place. Private to src/io. */
#ifndef FB3_IO_CHECKPOINT_HASH_H
#define FB3_IO_CHECKPOINT_HASH_H

#include "fb3/status.h"
#include <stdbool.h>

/* The hashes that are on record for `path`: <path>.<hash>.sha256. */
typedef struct fb3_hashes {
    char **hex; /* [count] */
    int count;
} fb3_hashes;

fb3_status fb3_hashes_find(fb3_hashes *hashes, const char *path);
void fb3_hashes_free(fb3_hashes *hashes);

/* FB3_INPUT when hashes are on record for `path` and its content has none of them. *on_record: there were any. */
fb3_status fb3_hash_verify(const char *path, bool *on_record);

/* Makes `temporary` the file `path` and, when `previous` is not NULL, what `path` was the file `previous`, so that a
 * complete file with its hash is there at every instant. */
fb3_status fb3_hash_publish(const char *temporary, const char *path, const char *previous);

#endif
