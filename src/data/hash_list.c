/* Nothing is copied when a list grows. Its chunks are mapped and unmapped, not taken from the heap, which might keep
 * them for good; of a chunk that is not full only the pages that were written take memory. */
#include "hash_list.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CHUNK_HASHES = 8190, PART_SHIFT = 56 };

typedef struct hash_chunk {
    struct hash_chunk *next;
    size_t used;
    uint64_t hash[CHUNK_HASHES];
} hash_chunk;

uint64_t fb3_hash_bytes(const void *data, size_t bytes)
{
    const unsigned char *byte = data;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    hash = (hash ^ hash >> 33) * UINT64_C(0xff51afd7ed558ccd);
    hash = (hash ^ hash >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return hash ^ hash >> 33;
}

fb3_status fb3_hash_list_add(fb3_hash_list *list, uint64_t hash)
{
    hash_chunk **part = &list->part[hash >> PART_SHIFT], *chunk = *part;
    if (!chunk || chunk->used == CHUNK_HASHES) {
        chunk = mmap(NULL, sizeof *chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        FB3_REQUIRE(chunk != MAP_FAILED, FB3_FAILED, "out of memory for finding duplicates");
        chunk->next = *part;
        chunk->used = 0;
        *part = chunk;
    }
    chunk->hash[chunk->used++] = hash;
    return FB3_OK;
}

static int compare_hashes(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* The hashes of a part, ascending. *sorted is malloc'ed, NULL where there are none. */
static fb3_status sort_part(const hash_chunk *part, uint64_t **sorted, size_t *count)
{
    *sorted = NULL;
    *count = 0;
    for (const hash_chunk *chunk = part; chunk; chunk = chunk->next) *count += chunk->used;
    if (*count == 0) return FB3_OK;
    *sorted = malloc(*count * sizeof **sorted);
    FB3_REQUIRE(*sorted, FB3_FAILED, "out of memory for finding duplicates");
    size_t at = 0;
    for (const hash_chunk *chunk = part; chunk; chunk = chunk->next) {
        memcpy(*sorted + at, chunk->hash, chunk->used * sizeof **sorted);
        at += chunk->used;
    }
    qsort(*sorted, *count, sizeof **sorted, compare_hashes);
    return FB3_OK;
}

fb3_status fb3_hash_list_repeats(const fb3_hash_list *list, uint64_t **repeated, size_t *count, int64_t *surplus)
{
    fb3_status status = FB3_OK;
    uint64_t *sorted = NULL;
    size_t n;
    *repeated = NULL;
    *count = 0;
    *surplus = 0;
    for (int p = 0; p < FB3_HASH_PARTS; p++) {
        FB3_TRY_GOTO(sort_part(list->part[p], &sorted, &n), failed);
        size_t found = 0; /* to the front of the part, which is sorted and not needed behind it */
        for (size_t i = 1; i < n; i++) {
            if (sorted[i] != sorted[i - 1]) continue;
            ++*surplus;
            if (found == 0 || sorted[found - 1] != sorted[i]) sorted[found++] = sorted[i];
        }
        if (found > 0) {
            uint64_t *grown = realloc(*repeated, (*count + found) * sizeof *grown);
            FB3_REQUIRE_GOTO(grown, failed, FB3_FAILED, "out of memory for finding duplicates");
            *repeated = grown;
            memcpy(grown + *count, sorted, found * sizeof *grown);
            *count += found;
        }
        free(sorted);
        sorted = NULL;
    }
    return FB3_OK;
failed:
    free(sorted);
    free(*repeated);
    *repeated = NULL;
    return status;
}

int64_t fb3_hash_find(const uint64_t *ascending, size_t count, uint64_t hash)
{
    const uint64_t *found = count > 0 ? bsearch(&hash, ascending, count, sizeof hash, compare_hashes) : NULL;
    return found ? found - ascending : -1;
}

void fb3_hash_list_free(fb3_hash_list *list)
{
    for (int p = 0; p < FB3_HASH_PARTS; p++) {
        for (hash_chunk *chunk = list->part[p], *next; chunk; chunk = next) {
            next = chunk->next;
            (void)munmap(chunk, sizeof *chunk);
        }
    }
    *list = (fb3_hash_list){0};
}
