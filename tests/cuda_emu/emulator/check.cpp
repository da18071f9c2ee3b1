#ifdef CUDAEMU_CHECK
#include "check.h"
#include "check_order.h"
#include "memory.h"
#include "scheduler.h"
#include "stats.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <link.h>
#include <set>
#include <string>
#include <unistd.h>

/* The linker makes these for the section of the __shared__ variables; of this library, not of another. */
extern "C" __attribute__((weak, visibility("hidden"))) char __start_cudaemu_shared[], __stop_cudaemu_shared[];

namespace cudaemu
{

/* What is known of two bytes. A write or a read is compared with the last ones. Epoch 0: none yet. */
struct Cell {
    uint32_t write_block, write_epoch, write_warp_epoch, read_block, read_epoch, read_warp_epoch;
    uint16_t write_thread, read_thread, write_fences, flags;
};
enum {
    INITIALISED = 1,
    WRITTEN_ATOMICALLY = 2,
    READ_BY_WARPS = 4,  /* read by several warps: read_thread is one of them */
    READ_BY_BLOCKS = 8, /* read by several blocks */
    COPYING = 16,       /* a cp.async was not waited for */
};

/* Cells are made page by page, when a kernel first comes there; until then a page is all alike. */
enum { CELLS = PAGE / 2 };
struct CellPage {
    Cell *cells;
    uint16_t flags;
};
struct Region {
    uintptr_t low, high;
    const char *what;
    std::vector<CellPage> pages;
};
static Region dynamic_shared = {0, 0, "dynamic shared memory", {}}, static_shared = {0, 0, "static shared memory", {}};

bool check_paused = true;
static bool in_launch;
static uint32_t epoch = 1, launch_epoch = 1, block_number;
static uint32_t warp_epoch[THREADS_MAX]; /* __syncwarps passed since the block's last barrier */

/* --- cells -------------------------------------------------------------------------------------------------------- */

static void set_range(Region &r, uintptr_t low, uintptr_t high)
{
    r.low = low;
    r.high = high;
    r.pages.resize((high - low + PAGE - 1) / PAGE);
}

static inline Cell &cell_at(Region &r, size_t i)
{
    CellPage &page = r.pages[i / CELLS];
    if (__builtin_expect(!page.cells, 0)) {
        page.cells = (Cell *)calloc(CELLS, sizeof(Cell));
        if (!page.cells) fail("no memory for the checker");
        for (int k = 0; page.flags && k < CELLS; k++) page.cells[k].flags = page.flags;
    }
    return page.cells[i % CELLS];
}

void check_allocated(Allocation *a)
{
    auto *r = new Region{0, 0, "device", {}};
    set_range(*r, a->low, a->high);
    a->cells = r;
}

void check_freed(Allocation *a)
{
    Region *r = (Region *)a->cells;
    for (CellPage &page : r->pages) free(page.cells);
    delete r;
    a->cells = nullptr;
}

void check_written(void *p, size_t bytes)
{
    Allocation *a = bytes ? allocation_at(p) : nullptr;
    if (!a || !a->cells) return;
    Region &r = *(Region *)a->cells;
    size_t i = ((uintptr_t)p - r.low) / 2, end = ((uintptr_t)p - r.low + bytes + 1) / 2;
    while (i < end) {
        CellPage &page = r.pages[i / CELLS];
        size_t page_end = std::min(end, (i / CELLS + 1) * CELLS);
        bool to_end = page_end == (i / CELLS + 1) * CELLS || page_end == (r.high - r.low + 1) / 2;
        if (i % CELLS == 0 && to_end) { /* all of it */
            free(page.cells);
            page = {nullptr, INITIALISED};
        } else {
            for (size_t k = i; k < page_end; k++) {
                Cell &c = cell_at(r, k);
                c = Cell();
                c.flags = INITIALISED;
            }
        }
        i = page_end;
    }
}

static void report(const char *what, const void *p, unsigned bytes, bool write, const void *pc, const Region *r,
                   const std::string &more);

void check_read_by_library(const void *p, size_t bytes)
{
    Allocation *a = bytes ? allocation_at(p) : nullptr;
    if (!a || !a->cells) return;
    Region &r = *(Region *)a->cells;
    for (size_t i = ((uintptr_t)p - r.low) / 2; i < ((uintptr_t)p - r.low + bytes) / 2; i++) {
        const CellPage &page = r.pages[i / CELLS];
        uint16_t flags = page.cells ? page.cells[i % CELLS].flags : page.flags;
        if (flags & INITIALISED) continue;
        report("UNINITIALISED", (const void *)(r.low + 2 * i), 2, false, __builtin_return_address(0), &r,
               "by a library function");
        return;
    }
}

/* --- reports ------------------------------------------------------------------------------------------------------ */

static int reports;

/* " at f, x.cu:12", by addr2line. */
static void print_source(const void *pc)
{
    Dl_info info;
    if (!dladdr(pc, &info)) return;
    uintptr_t at = (uintptr_t)pc - 1, base = (uintptr_t)info.dli_fbase;
    if (((const ElfW(Ehdr) *)base)->e_type == ET_DYN) at -= base;
    char command[1024];
    snprintf(command, sizeof command, "addr2line -Cfipse '%s' 0x%lx | sed 's/^/==cudaemu==     /' 1>&2", info.dli_fname,
             (unsigned long)at);
    fflush(nullptr);
    if (system(command) != 0) fprintf(stderr, "==cudaemu==     (no addr2line)\n");
}

static void report(const char *what, const void *p, unsigned bytes, bool write, const void *pc, const Region *r,
                   const std::string &more)
{
    static std::set<std::pair<const void *, std::string>> known;
    if (!known.insert({pc, what}).second) return;
    if (reports == 0)
        atexit([] {
            fflush(nullptr);
            _exit(99);
        });
    fprintf(stderr, "\n==cudaemu== %s: %u-byte %s at %p", what, bytes, write ? "write" : "read", p);
    if (current) fprintf(stderr, " in %s", where());
    fprintf(stderr, "%s%s\n", more.empty() ? "" : "\n==cudaemu==   ", more.c_str());
    const Allocation *a = in_arena(p) ? allocation_at(p) : nullptr;
    if (a)
        fprintf(stderr, "==cudaemu==   device allocation %u of %zu bytes, offset %zd%s\n", a->number,
                (size_t)(a->high - a->low), (ssize_t)((uintptr_t)p - a->low), a->freed ? ", freed" : "");
    else if (r)
        fprintf(stderr, "==cudaemu==   %s, offset %zd of %zu\n", r->what, (ssize_t)((uintptr_t)p - r->low),
                (size_t)(r->high - r->low));
    print_source(pc);
    if (++reports >= options.reports) {
        fprintf(stderr, "==cudaemu== %d reports (CUDAEMU_REPORTS): stopping\n", reports);
        fflush(nullptr);
        _exit(99);
    }
}

/* --- memory that is neither device nor shared memory -------------------------------------------------------------- */

struct Range {
    uintptr_t low, high;
};
static std::vector<Range> constants; /* read-only parts of the library that this is in */

static int find_constants(struct dl_phdr_info *module, size_t, void *)
{
    const uintptr_t here = (uintptr_t)&find_constants;
    std::vector<Range> found;
    bool this_one = false;
    for (int i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) &segment = module->dlpi_phdr[i];
        Range range = {module->dlpi_addr + segment.p_vaddr, module->dlpi_addr + segment.p_vaddr + segment.p_memsz};
        if (here >= range.low && here < range.high && segment.p_type == PT_LOAD) this_one = true;
        if ((segment.p_type == PT_LOAD && !(segment.p_flags & PF_W)) || segment.p_type == PT_GNU_RELRO)
            found.push_back(range);
    }
    if (this_one) constants = found;
    return this_one;
}

static bool allowed(uintptr_t a, bool write)
{
    if (a - (uintptr_t)running.argument < running.argument_bytes) return true;
    if (write) return false;
    for (const Range &r : constants)
        if (a >= r.low && a < r.high) return true;
    return false;
}

/* --- one access --------------------------------------------------------------------------------------------------- */

struct Me {
    uint32_t warp_epoch;
    uint16_t thread;
};

/* Whether an earlier access is ordered before what this thread does now. */
static inline bool ordered(const Me &me, const Access &access, uint32_t access_warp_epoch, bool by_one_thread)
{
    if (access.epoch < launch_epoch) return true;
    if (access.block != block_number) return order_happened_before(access, me.thread);
    if (access.epoch != epoch) return true; /* a barrier lies between */
    if (!by_one_thread) return false;
    if (access.thread == me.thread) return true;
    return access.thread / 32 == me.thread / 32 && access_warp_epoch < me.warp_epoch; /* a __syncwarp lies between */
}

static std::string describe(const char *what, const Access &access, bool others, const Me &me)
{
    char text[400];
    bool same = access.block == block_number;
    snprintf(text, sizeof text, "after an unordered %s by thread %u%s of %s block%s%s", what, access.thread,
             others ? " and others" : "", same ? "the same" : "another", same ? "" : ": ",
             same ? "" : order_missing(access, me.thread));
    return text;
}

static inline void note_read(Cell &c, const Me &me)
{
    if (c.read_epoch == epoch && c.read_block == block_number) {
        if (c.read_thread / 32 != me.thread / 32) c.flags |= READ_BY_WARPS;
    } else if (c.read_epoch >= launch_epoch && c.read_block != block_number) {
        c.flags |= READ_BY_BLOCKS | READ_BY_WARPS;
    } else {
        c.flags &= (uint16_t) ~(READ_BY_BLOCKS | READ_BY_WARPS);
    }
    c.read_block = block_number;
    c.read_epoch = epoch;
    c.read_thread = me.thread;
    c.read_warp_epoch = me.warp_epoch;
}

static inline void note_write(Cell &c, const Me &me, bool atomic)
{
    c.write_block = block_number;
    c.write_epoch = epoch;
    c.write_thread = me.thread;
    c.write_warp_epoch = me.warp_epoch;
    c.write_fences = order_fences(me.thread);
    c.flags = (uint16_t)((c.flags & ~WRITTEN_ATOMICALLY) | INITIALISED | (atomic ? WRITTEN_ATOMICALLY : 0));
}

static inline void check_cell(Cell &c, Region *r, const void *p, unsigned bytes, bool write, bool atomic,
                              const void *pc)
{
    const Me me = {warp_epoch[current->linear], (uint16_t)current->linear};
    if ((!write || atomic) && !(c.flags & INITIALISED)) {
        report("UNINITIALISED", p, bytes, write, pc, r, "");
        c.flags |= INITIALISED;
    }
    if (c.flags & COPYING) {
        report("ASYNC COPY NOT WAITED FOR", p, bytes, write, pc, r, "");
        c.flags &= (uint16_t)~COPYING;
    }
    if (bytes == 1) { /* two bytes share a cell: no race is looked for */
        if (write) {
            c.flags |= INITIALISED;
            c.write_block = block_number;
        }
        return;
    }
    if (c.write_epoch) {
        Access last = {c.write_block, c.write_epoch, c.write_thread, c.write_fences};
        bool both_atomic = atomic && (c.flags & WRITTEN_ATOMICALLY);
        if (!both_atomic && !ordered(me, last, c.write_warp_epoch, true))
            report(write ? "RACE (write after write)" : "RACE (read after write)", p, bytes, write, pc, r,
                   describe(c.flags & WRITTEN_ATOMICALLY ? "atomic" : "write", last, false, me));
    }
    if (write && c.read_epoch) {
        Access last = {c.read_block, c.read_epoch, c.read_thread, 0};
        bool several_blocks = (c.flags & READ_BY_BLOCKS) && c.read_epoch >= launch_epoch;
        if (several_blocks || !ordered(me, last, c.read_warp_epoch, !(c.flags & READ_BY_WARPS)))
            report("RACE (write after read)", p, bytes, write, pc, r,
                   describe("read", last, c.flags & READ_BY_WARPS, me));
    }
    if (write)
        note_write(c, me, atomic);
    else
        note_read(c, me);
}

static inline Region *region_of(uintptr_t a)
{
    if (in_arena((void *)a)) {
        const Allocation *allocation = allocation_at((void *)a);
        return allocation ? (Region *)allocation->cells : nullptr;
    }
    if (a >= dynamic_shared.low && a < dynamic_shared.high + 64)
        return &dynamic_shared; /* a little beyond: said better */
    if (a >= static_shared.low && a < static_shared.high) return &static_shared;
    return nullptr;
}

static void report_stray(const void *p, unsigned bytes, bool write, const void *pc)
{
    const Allocation *a = in_arena(p) ? allocation_at(p) : nullptr;
    const char *what = a && a->freed ? "USE AFTER FREE"
                       : in_arena(p) ? "OUT OF BOUNDS (no allocation is there)"
                                     : "ILLEGAL ADDRESS (not device memory: a host pointer?)";
    report(what, p, bytes, write, pc, nullptr, "");
}

void check_access(const void *p, unsigned bytes, bool write, bool atomic, const void *pc)
{
    if (check_paused || !current || !in_launch) return;
    const CheckPause pause;
    const uintptr_t a = (uintptr_t)p;
    if (a - (uintptr_t)current->stack < current->stack_bytes) return;
    if (a - (uintptr_t)&builtins < sizeof builtins) return;
    Region *r = region_of(a);
    if (!r) {
        if (!allowed(a, write)) report_stray(p, bytes, write, pc);
        return;
    }
    if (a < r->low || a + bytes > r->high) {
        report("OUT OF BOUNDS", p, bytes, write, pc, r, "");
        return;
    }
    if (a & (bytes - 1)) {
        report("MISALIGNED", p, bytes, write, pc, r, "");
        return;
    }
    const bool shared = r == &dynamic_shared || r == &static_shared;
    if (count_accesses) {
        if (!write || atomic) count_access(p, bytes, false, shared);
        if (write) count_access(p, bytes, true, shared);
    }
    for (size_t i = (a - r->low) / 2; i <= (a + bytes - 1 - r->low) / 2; i++) {
        Cell &c = cell_at(*r, i);
        if (shared && c.write_block != block_number && c.read_block != block_number)
            c = Cell(); /* of an earlier block */
        check_cell(c, r, p, bytes, write, atomic, pc);
    }
    if (atomic && !shared) order_atomic(a, current->linear, epoch);
}

void atomic_access(void *p, unsigned bytes, const void *pc)
{
    check_access(p, bytes, true, true, pc);
}

void fence()
{
    const CheckPause pause;
    if (current) order_fence(current->linear, epoch);
}

static void mark_copying(void *p, unsigned bytes, bool copying)
{
    Region *r = region_of((uintptr_t)p);
    if (!r || (uintptr_t)p + bytes > r->high) return;
    for (size_t i = ((uintptr_t)p - r->low) / 2; i < ((uintptr_t)p - r->low + bytes) / 2; i++) {
        Cell &c = cell_at(*r, i);
        c.flags = (uint16_t)(copying ? c.flags | COPYING : c.flags & ~COPYING);
    }
}
void check_async_begin(void *shared, unsigned bytes)
{
    mark_copying(shared, bytes, true);
}
void check_async_end(void *shared, unsigned bytes)
{
    mark_copying(shared, bytes, false);
}

void check_undefined_shuffle(int lane, int source, unsigned arrived)
{
    fail("shuffle: lane %d reads from lane %d, which takes no part (lanes %08x)", lane, source, arrived);
}

/* --- launches, blocks, barriers ----------------------------------------------------------------------------------- */

void check_launch_begin()
{
    if (constants.empty()) {
        dl_iterate_phdr(find_constants, nullptr);
        if (__start_cudaemu_shared != nullptr)
            set_range(static_shared, (uintptr_t)__start_cudaemu_shared, (uintptr_t)__stop_cudaemu_shared);
    }
    launch_epoch = ++epoch;
    order_launch_begin();
    uintptr_t shared = (uintptr_t)builtins.dynamic_shared;
    dynamic_shared.low = shared;
    dynamic_shared.high = shared + running.shared_bytes;
    size_t pages = (running.shared_bytes + PAGE - 1) / PAGE; /* cells of earlier launches are of earlier blocks */
    if (dynamic_shared.pages.size() < pages) dynamic_shared.pages.resize(pages);
    in_launch = true;
    check_paused = false;
}

void check_launch_end()
{
    in_launch = false;
    check_paused = true;
    epoch++;
}

void check_block_begin(unsigned threads)
{
    block_number++;
    epoch++;
    memset(warp_epoch, 0, sizeof warp_epoch);
    order_block_begin(block_number, threads);
    if (static_shared.low) memset((void *)static_shared.low, 0xff, static_shared.high - static_shared.low);
}

void check_block_barrier()
{
    const CheckPause pause;
    epoch++;
    memset(warp_epoch, 0, sizeof warp_epoch);
    order_block_barrier();
}

void check_warp_barrier(unsigned warp, unsigned lanes)
{
    uint32_t most = 0;
    for (unsigned left = lanes; left; left &= left - 1)
        most = std::max(most, warp_epoch[warp * 32 + __builtin_ctz(left)]);
    for (unsigned left = lanes; left; left &= left - 1) warp_epoch[warp * 32 + __builtin_ctz(left)] = most + 1;
}

} // namespace cudaemu
#endif
