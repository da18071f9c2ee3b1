#include "memory.h"
#include "check.h"
#include "scheduler.h"

#include <cstring>
#include <deque>
#include <map>
#include <sys/mman.h>
#include <unistd.h>
#ifdef CUDAEMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace cudaemu
{

std::vector<Allocation *> allocation_of_page;
static std::deque<Allocation> allocations; /* all that there ever were */
static uintptr_t top = ARENA;              /* of what was handed out */
static std::map<int, size_t> used;         /* by device */
static int open_depth;
static int key = -1; /* a memory protection key, where the processor has them: no page tables to change at a launch */
static std::map<uintptr_t, size_t> pinned;

/* --- protection --------------------------------------------------------------------------------------------------- */

static void set_access(bool accessible)
{
    if (key >= 0)
        pkey_set(key, accessible ? 0 : PKEY_DISABLE_ACCESS);
    else if (top > ARENA)
        mprotect((void *)ARENA, top - ARENA, accessible ? PROT_READ | PROT_WRITE : PROT_NONE);
}

void memory_open()
{
    if (open_depth++ == 0 && options.protect) set_access(true);
}
void memory_close()
{
    if (--open_depth == 0 && options.protect) set_access(false);
}

void memory_setup()
{
    void *arena = mmap((void *)ARENA, ARENA_BYTES, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (arena != (void *)ARENA) fail("cannot reserve addresses for device memory");
    madvise(arena, ARENA_BYTES, MADV_DONTDUMP);
    if (options.protect) key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
#ifdef CUDAEMU_ASAN
    ASAN_POISON_MEMORY_REGION((void *)ARENA, (size_t)1 << 30); /* further memory is poisoned as it is handed out */
#endif
}

/* --- allocations -------------------------------------------------------------------------------------------------- */

size_t memory_used(int device)
{
    return used[device];
}

void *memory_allocate(size_t bytes, int device)
{
    size_t pages = (bytes + PAGE - 1) / PAGE, span = (pages + 1) * PAGE; /* with the guard page */
    if (bytes > options.memory || used[device] > options.memory - bytes || span > ARENA + ARENA_BYTES - top)
        return nullptr;
    void *p = (void *)top;
    int access = PROT_READ | PROT_WRITE;
    if (key >= 0 ? pkey_mprotect(p, pages * PAGE, access, key) != 0 : mprotect(p, pages * PAGE, access) != 0)
        return nullptr;
#ifdef CUDAEMU_ASAN
    ASAN_POISON_MEMORY_REGION(p, span);
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
#endif
    top += span;
    allocations.push_back(
        {(uintptr_t)p, (uintptr_t)p + bytes, (unsigned)allocations.size() + 1, device, false, nullptr});
    Allocation *a = &allocations.back();
    allocation_of_page.resize((top - ARENA) / PAGE);
    for (size_t i = 0; i <= pages; i++) allocation_of_page[(a->low - ARENA) / PAGE + i] = a;
    used[device] += bytes;
    if (key >= 0) memory_open();
    memset(p, 0xff, bytes);
    if (key >= 0) memory_close();
    if (key < 0 && options.protect && open_depth == 0) set_access(false);
    check_allocated(a);
    return p;
}

bool memory_free(void *p)
{
    Allocation *a = in_arena(p) ? allocation_at(p) : nullptr;
    if (!a || a->low != (uintptr_t)p || a->freed) return false;
    size_t span = (a->high - a->low + PAGE - 1) / PAGE * PAGE;
    a->freed = true;
    used[a->device] -= a->high - a->low;
    check_freed(a);
#ifdef CUDAEMU_ASAN
    ASAN_POISON_MEMORY_REGION(p, span);
#endif
    madvise(p, span, MADV_DONTNEED);
    if (key >= 0) mprotect(p, span, PROT_NONE);
    return true;
}

void memory_check_range(const void *p, size_t bytes, const char *what)
{
    if (!in_arena(p) || bytes == 0) return;
    const Allocation *a = allocation_at(p);
    if (!a || a->freed || (uintptr_t)p < a->low || (uintptr_t)p + bytes > a->high)
        fail("%s: [%p, +%zu) is not inside one live device allocation%s", what, p, bytes,
             a && a->freed ? ": it is freed" : "");
}

/* --- pinned host memory ------------------------------------------------------------------------------------------- */

void pinned_add(void *p, size_t bytes)
{
    pinned[(uintptr_t)p] = bytes;
}
bool pinned_remove(void *p)
{
    return pinned.erase((uintptr_t)p) != 0;
}
size_t pinned_bytes(void *p)
{
    auto it = pinned.find((uintptr_t)p);
    return it == pinned.end() ? 0 : it->second;
}
bool pinned_contains(const void *p)
{
    auto it = pinned.upper_bound((uintptr_t)p);
    if (it == pinned.begin()) return false;
    --it;
    return (uintptr_t)p < it->first + it->second;
}

} // namespace cudaemu
