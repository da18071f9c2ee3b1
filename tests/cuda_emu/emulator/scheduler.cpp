/* One block at a time: its threads are fibers that run until they wait in a barrier or in an operation of their warp.
 * The schedule is random (or in order, or reversed), so what depends on it shows. */
#include "scheduler.h"
#include "check.h"
#include "memory.h"
#include "ptx.h"
#include "stats.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <dlfcn.h>
#include <map>
#include <string>
#include <unistd.h>
#include <unordered_map>

namespace cudaemu
{

Builtins builtins;
Fiber fibers[THREADS_MAX], main_fiber;
Fiber *current;
Running running;

/* An operation that lanes of a warp have begun and that waits for the rest of its mask. */
struct Pending {
    unsigned mask, arrived;
    const WarpOperation *operation;
    Lane lanes[32];
};
/* Lanes may be in several operations at once, with disjoint masks. */
enum { PENDING_MAX = 4 };
struct Warp {
    unsigned live;
    Pending pending[PENDING_MAX];
};
static Warp warps[WARPS_MAX];

/* The first thread that arrives at a barrier notes where it is; the others must arrive at the same one. */
struct BlockState {
    unsigned threads, live, arrived;
    const char *file, *other_file;
    int line, other_line;
    bool diverged;
    int reduced, result;
};
static BlockState block;

static unsigned run_queue[THREADS_MAX], run_count;

/* --- who runs ----------------------------------------------------------------------------------------------------- */

const char *where()
{
    static char text[512];
    const uint3 &b = builtins.block, &t = builtins.thread;
    snprintf(text, sizeof text, "kernel '%s' (launch %lu), block (%u,%u,%u), thread (%u,%u,%u)", running.kernel,
             running.number, b.x, b.y, b.z, t.x, t.y, t.z);
    return text;
}

[[noreturn]] static void deadlock()
{
    fprintf(
        stderr,
        "\n==cudaemu== ERROR: deadlock in kernel '%s', block (%u,%u,%u): %u of %u threads are left and none can run\n",
        running.kernel, builtins.block.x, builtins.block.y, builtins.block.z, block.live, block.threads);
    std::map<std::string, std::pair<unsigned, unsigned>> waiting; /* place: count, first thread */
    for (unsigned i = 0; i < block.threads; i++) {
        const Fiber &f = fibers[i];
        if (f.state != State::AT_BLOCK_BARRIER && f.state != State::AT_WARP_OPERATION) continue;
        auto &place = waiting[std::string(f.waits_in) + " at " + f.file + ":" + std::to_string(f.line)];
        if (place.first++ == 0) place.second = i;
    }
    for (auto &place : waiting)
        fprintf(stderr, "==cudaemu==   %u threads (the first is %u) wait in %s\n", place.second.first,
                place.second.second, place.first.c_str());
    fflush(nullptr);
    _exit(99);
}

static inline void make_runnable(unsigned i)
{
    fibers[i].state = State::RUNNABLE;
    run_queue[run_count++] = i;
}

/* The fiber to run next; the main one when the block is done. */
static inline Fiber *pick()
{
    if (run_count == 0) {
        if (block.live) deadlock();
        return &main_fiber;
    }
    if (options.order == Order::RANDOM) std::swap(run_queue[random_below(run_count)], run_queue[run_count - 1]);
    return &fibers[run_queue[--run_count]];
}

static inline void become(Fiber *fiber)
{
    fiber->state = State::RUNNING;
    current = fiber;
    builtins.thread = fiber->thread;
    builtins.lane = fiber->lane;
}

/* Runs another fiber; returns when `me` is picked again. Whoever switches sets the built-ins of whom it switches to. */
static inline void run_another(Fiber *me)
{
    Fiber *next = pick();
    become(next);
    if (next != me) fiber_switch(me, next);
}

/* --- barriers ----------------------------------------------------------------------------------------------------- */

static void release_block()
{
    if (block.diverged)
        fail("divergent __syncthreads(): some threads are at %s:%d, others at %s:%d", block.file, block.line,
             block.other_file, block.other_line);
    block.arrived = 0;
    counters.block_barriers++;
    check_block_barrier();
    ptx_block_barrier();
    for (unsigned i = 0; i < block.threads; i++)
        if (fibers[i].state == State::AT_BLOCK_BARRIER) make_runnable(i);
}

static void arrive(const char *what, const char *file, int line)
{
    Fiber *me = current;
    if (!me) fail("%s:%d: %s outside a kernel", file, line, what);
    if (block.arrived == 0) {
        block.file = file;
        block.line = line;
        block.diverged = false;
    } else if (block.line != line || (block.file != file && strcmp(block.file, file) != 0)) {
        block.diverged = true;
        block.other_file = file;
        block.other_line = line;
    }
    me->waits_in = what;
    me->file = file;
    me->line = line;
    me->state = State::AT_BLOCK_BARRIER;
    block.arrived++;
}

void block_barrier(const char *file, int line)
{
    arrive("__syncthreads", file, line);
    if (block.arrived == block.live) release_block();
    run_another(current);
}

int block_barrier_reduce(Reduce kind, bool predicate, const char *file, int line)
{
    if (block.arrived == 0) block.reduced = kind == Reduce::AND;
    arrive("__syncthreads_count/and/or", file, line);
    if (kind == Reduce::COUNT) block.reduced += predicate;
    if (kind == Reduce::AND) block.reduced &= predicate;
    if (kind == Reduce::OR) block.reduced |= predicate;
    block.result = block.reduced; /* stays until every thread has passed the next barrier */
    if (block.arrived == block.live) release_block();
    run_another(current);
    return block.result;
}

/* --- operations of a warp ----------------------------------------------------------------------------------------- */

static void release_warp(Pending &pending, unsigned first)
{
    const WarpOperation &operation = *pending.operation;
    unsigned arrived = pending.arrived;
    if (operation.whole_warp && arrived != 0xffffffffu)
        fail("%s with an incomplete warp (lanes %08x)", operation.name, arrived);
    counters.warp_operations++;
    if (operation.orders_memory) check_warp_barrier(first / 32, arrived);
    {
        const CheckPause pause;
        operation.run(pending.lanes, arrived);
    }
    pending.mask = pending.arrived = 0;
    for (; arrived; arrived &= arrived - 1) {
        unsigned i = first + (unsigned)__builtin_ctz(arrived);
        if (fibers[i].state == State::AT_WARP_OPERATION) make_runnable(i);
    }
}

void warp_collective(unsigned mask, const WarpOperation &operation, Lane mine, const char *file, int line)
{
    Fiber *me = current;
    if (!me) fail("%s:%d: %s outside a kernel", file, line, operation.name);
    if (!(mask >> me->lane & 1))
        fail("%s:%d: %s: the calling lane %u is not in its mask %08x", file, line, operation.name, me->lane, mask);
    Warp &warp = warps[me->warp];
    Pending *pending = nullptr;
    for (Pending &p : warp.pending) {
        if (p.mask == mask) {
            pending = &p;
            break;
        }
        if (!p.mask && !pending) pending = &p;
    }
    if (!pending)
        fail("%s:%d: %s: more than %d different masks at once in a warp", file, line, operation.name, PENDING_MAX);
    if (!pending->mask) {
        pending->mask = mask;
        pending->operation = &operation;
    } else if (pending->operation != &operation) {
        fail("%s:%d: lanes of one warp and mask %08x are in different warp functions: %s and %s", file, line, mask,
             pending->operation->name, operation.name);
    }
    pending->lanes[me->lane] = mine;
    pending->arrived |= 1u << me->lane;
    if (pending->arrived == (mask & warp.live)) {
        release_warp(*pending, me->warp * 32); /* this lane runs on; the others become runnable */
        if (options.order != Order::RANDOM || (random_bits() & 7) != 0) return;
        make_runnable(me->linear);
    } else {
        me->waits_in = operation.name;
        me->file = file;
        me->line = line;
        me->state = State::AT_WARP_OPERATION;
    }
    run_another(me);
}

/* --- threads and blocks ------------------------------------------------------------------------------------------- */

/* What the end of a thread means for those who wait for it. */
static void leave_block(Fiber *me)
{
    if (!me->copies.empty()) fail("the thread ends with cp.async copies that it never waited for");
    me->copy_group = 0;
    me->state = State::DONE;
    block.live--;
    Warp &warp = warps[me->warp];
    warp.live &= ~(1u << me->lane);
    if (block.live && block.arrived == block.live) release_block();
    for (Pending &p : warp.pending)
        if (p.mask && p.arrived && p.arrived == (p.mask & warp.live)) release_warp(p, me->warp * 32);
}

/* The life of a fiber: a thread of each block after the other. */
static void fiber_life()
{
    for (;;) {
        Fiber *me = current;
        running.enter(running.argument);
        leave_block(me);
        Fiber *next = pick();
        if (next == &main_fiber)
            current = nullptr;
        else
            become(next);
        fiber_switch(me, next);
    }
}

static void run_block(unsigned threads)
{
    memset(&block, 0, sizeof block);
    block.threads = block.live = threads;
    for (unsigned w = 0; w * 32 < threads; w++) {
        unsigned lanes = threads - w * 32;
        warps[w].live = lanes >= 32 ? 0xffffffffu : (1u << lanes) - 1;
        for (Pending &p : warps[w].pending) p.mask = p.arrived = 0;
    }
    run_count = 0;
    if (options.order == Order::REVERSE)
        for (unsigned i = 0; i < threads; i++) make_runnable(i);
    else
        for (unsigned i = threads; i-- > 0;) make_runnable(i);
    Fiber *first = pick();
    become(first);
    fiber_switch(&main_fiber, first);
    current = nullptr;
}

const char *kernel_name(const Launch &launch)
{
    static std::unordered_map<const void *, std::string> names;
    std::string &name = names[launch.kernel];
    if (!name.empty()) return name.c_str();
    name = launch.text;
    Dl_info info;
    if (!dladdr(launch.kernel, &info) || !info.dli_sname || info.dli_saddr != launch.kernel) return name.c_str();
    int status = 0;
    char *readable = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    name = readable ? readable : info.dli_sname;
    free(readable);
    size_t end = name.rfind(")"), depth = 0; /* without the parameters and, before a template's name, "void " */
    for (size_t i = end; readable && end != std::string::npos && i-- > 0;) {
        if (name[i] == ')') depth++;
        if (name[i] == '(' && depth-- == 0) {
            name.resize(i);
            break;
        }
    }
    if (name.compare(0, 5, "void ") == 0) name.erase(0, 5);
    return name.c_str();
}

static void place_threads(dim3 shape)
{
    unsigned i = 0;
    for (unsigned z = 0; z < shape.z; z++)
        for (unsigned y = 0; y < shape.y; y++)
            for (unsigned x = 0; x < shape.x; x++, i++) {
                fibers[i].thread = make_uint3(x, y, z);
                fibers[i].linear = i;
                fibers[i].lane = i & 31;
                fibers[i].warp = i >> 5;
                fiber_make(&fibers[i], i, fiber_life);
            }
}

void run_grid(const Launch &launch)
{
    const dim3 grid = launch.grid;
    const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
    const size_t blocks = (size_t)grid.x * grid.y * grid.z;
    running.kernel = kernel_name(launch);
    running.number++;
    running.function = launch.kernel;
    running.enter = launch.enter;
    running.argument = launch.call.get();
    running.argument_bytes = launch.call_bytes;
    running.shared_bytes = launch.dynamic_shared;
    if (ptx_active()) running.shared_bytes += ptx_prepare(launch, &running.enter);
    char *shared = nullptr;
    if (running.shared_bytes && posix_memalign((void **)&shared, 1024, running.shared_bytes) != 0)
        fail("no memory for shared memory");
    builtins.dynamic_shared = shared;
    builtins.grid_dim = grid;
    builtins.block_dim = launch.block;
    place_threads(launch.block);
    fiber_enter_main();
    stats_launch_begin();
    memory_open();
    check_launch_begin();

    std::vector<unsigned> order; /* of the blocks */
    if (options.order == Order::RANDOM && blocks <= (1u << 20)) {
        order.resize(blocks);
        for (size_t i = 0; i < blocks; i++) order[i] = (unsigned)i;
        for (size_t i = blocks; i > 1; i--) std::swap(order[i - 1], order[random_below((unsigned)i)]);
    }
    for (size_t k = 0; k < blocks && options.run_kernels; k++) {
        size_t b = !order.empty() ? order[k] : options.order == Order::REVERSE ? blocks - 1 - k : k;
        builtins.block =
            make_uint3((unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y));
        if (shared) memset(shared, 0xff, running.shared_bytes); /* a new block finds garbage: NaN */
        check_block_begin(threads);
        run_block(threads);
        ptx_block_barrier();
    }
    check_launch_end();
    memory_close();
    if (ptx_active()) ptx_launch_end();
    counters.launches++;
    counters.blocks += blocks;
    counters.threads += blocks * threads;
    stats_launch_end();
    free(shared);
    builtins.dynamic_shared = nullptr;
}

} // namespace cudaemu
