/* Device memory: an arena of its own, out of reach of host code except while a kernel or a copy runs. Every allocation
 * ends before an inaccessible page, fresh memory holds NaNs, and addresses are never used twice, so that a use after
 * free shows. Internal. */
#ifndef CUDAEMU_MEMORY_H
#define CUDAEMU_MEMORY_H

#include "options.h"

#include <vector>

namespace cudaemu
{

enum : uintptr_t { ARENA = 0x6d0000000000, ARENA_BYTES = (uintptr_t)1 << 40, PAGE = 4096 };

struct Allocation {
    uintptr_t low, high; /* what was asked for */
    unsigned number;     /* the n-th of the process */
    int device;
    bool freed;
    void *cells; /* the checker's */
};
/* By page of the arena; the page after an allocation belongs to it too. */
extern std::vector<Allocation *> allocation_of_page;

inline bool in_arena(const void *p)
{
    return (uintptr_t)p - ARENA < ARENA_BYTES;
}
/* The allocation at, or right before, an address; null if there never was one. */
inline Allocation *allocation_at(const void *p)
{
    size_t page = ((uintptr_t)p - ARENA) / PAGE;
    return page < allocation_of_page.size() ? allocation_of_page[page] : nullptr;
}
/* Fails unless [p, p + bytes) lies in one live allocation or is host memory. */
void memory_check_range(const void *p, size_t bytes, const char *what);

void memory_setup();
void *memory_allocate(size_t bytes, int device); /* null: no room */
bool memory_free(void *p);                       /* false: not a live allocation's start */
size_t memory_used(int device);

/* Device memory is accessible to this thread between the two; they nest. */
void memory_open();
void memory_close();

/* Pinned host memory. */
void pinned_add(void *p, size_t bytes);
bool pinned_remove(void *p);
bool pinned_contains(const void *p);
size_t pinned_bytes(void *p); /* of the block that starts at p, or 0 */

} // namespace cudaemu

#endif
