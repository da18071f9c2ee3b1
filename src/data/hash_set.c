/* Open addressing with linear probing, at most three quarters full. */
#include "hash_set.h"

#include <stdlib.h>

enum { FIRST_CAPACITY = 1024 };

uint64_t fb3_hash_bytes(const void *data, size_t bytes)
{
    const unsigned char *byte = data;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    hash = (hash ^ hash >> 33) * UINT64_C(0xff51afd7ed558ccd);
    hash = (hash ^ hash >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    hash ^= hash >> 33;
    return hash ? hash : 1;
}

static uint64_t *find(const fb3_hash_set *set, uint64_t hash)
{
    size_t at = hash & (set->capacity - 1);
    while (set->slot[at] != 0 && set->slot[at] != hash) at = (at + 1) & (set->capacity - 1);
    return &set->slot[at];
}

static fb3_status grow(fb3_hash_set *set)
{
    fb3_hash_set grown = {.capacity = set->capacity ? set->capacity * 2 : FIRST_CAPACITY, .count = set->count};
    grown.slot = calloc(grown.capacity, sizeof *grown.slot);
    FB3_REQUIRE(grown.slot, FB3_FAILED, "out of memory for finding duplicates among %zu entries", set->count);
    for (size_t i = 0; i < set->capacity; i++) {
        if (set->slot[i] != 0) *find(&grown, set->slot[i]) = set->slot[i];
    }
    free(set->slot);
    *set = grown;
    return FB3_OK;
}

fb3_status fb3_hash_set_add(fb3_hash_set *set, uint64_t hash, bool *seen)
{
    if (set->count >= set->capacity - set->capacity / 4) FB3_TRY(grow(set));
    uint64_t *slot = find(set, hash);
    *seen = *slot == hash;
    if (*seen) return FB3_OK;
    *slot = hash;
    set->count++;
    return FB3_OK;
}

void fb3_hash_set_free(fb3_hash_set *set)
{
    free(set->slot);
    *set = (fb3_hash_set){0};
}
