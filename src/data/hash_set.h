/* A set of 64-bit hashes, for finding what occurs twice in a stream without keeping the stream. At most 16 bytes an
 * entry. Two things may share a hash: who needs certainty looks again. Private to `data`. */
#ifndef FB3_HASH_SET_H
#define FB3_HASH_SET_H

#include "fb3/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fb3_hash_set {
    uint64_t *slot; /* [capacity], a power of two; 0 is empty */
    size_t capacity, count;
} fb3_hash_set;

/* FNV-1a (Fowler, Noll, Vo), finished with MurmurHash3's 64-bit mixer so that all bits depend on all bytes. Never 0. */
uint64_t fb3_hash_bytes(const void *data, size_t bytes);

/* Starts from {0}. *seen: the hash was in the set before. */
fb3_status fb3_hash_set_add(fb3_hash_set *set, uint64_t hash, bool *seen);
void fb3_hash_set_free(fb3_hash_set *set);

#endif
