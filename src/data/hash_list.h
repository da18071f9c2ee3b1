/* 64-bit hashes of a stream, for finding what occurs twice in it without keeping it: 8 bytes an entry, whatever their
 * number. Two things may share a hash: who needs certainty looks again. Private to `data`. */
#ifndef FB3_HASH_LIST_H
#define FB3_HASH_LIST_H

#include "fb3/status.h"
#include <stddef.h>
#include <stdint.h>

/* By their first byte, so that sorting needs room for a part only. */
enum { FB3_HASH_PARTS = 256 };

typedef struct fb3_hash_list {
    struct hash_chunk *part[FB3_HASH_PARTS];
} fb3_hash_list;

/* FNV-1a (Fowler, Noll, Vo), finished with MurmurHash3's 64-bit mixer so that all bits depend on all bytes. */
uint64_t fb3_hash_bytes(const void *data, size_t bytes);

/* Starts from {0}. */
fb3_status fb3_hash_list_add(fb3_hash_list *list, uint64_t hash);
/* What occurs more than once: (*repeated)[count], ascending, each once; the caller frees it. *surplus: how many entries
 * there are beyond the first of their hash. */
fb3_status fb3_hash_list_repeats(const fb3_hash_list *list, uint64_t **repeated, size_t *count, int64_t *surplus);
/* Where a hash stands among ascending ones; -1: nowhere. */
int64_t fb3_hash_find(const uint64_t *ascending, size_t count, uint64_t hash);
void fb3_hash_list_free(fb3_hash_list *list);

#endif
