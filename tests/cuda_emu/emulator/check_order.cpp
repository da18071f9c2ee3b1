/* Order between the blocks of one launch, as "the last block adds up the partial sums" needs it:
 *
 *     a block                                     the block that arrives last
 *     partial[b] = ...           (any threads)    n = atomicAdd(&counter, 1)         (one thread)
 *     __threadfence()                             __threadfence()                    (the same thread)
 *     __syncthreads()                             __syncthreads()
 *     atomicAdd(&counter, 1)     (one thread)     reads partial[...]                 (any threads)
 *
 * An atomic releases the writes of its block that
 *   - its own thread made before a fence of its own, or any thread made before a barrier that came before that fence;
 * or
 *   - another thread made before a fence of that thread, followed by a barrier.
 * A later atomic on the same address, by another block, observes it (and all earlier ones: read-modify-writes form a
 * chain). After a fence of the observing thread (or, when a barrier lies between, of the reading one) what was released
 * is ordered before: for that thread at once, for its block after the next barrier. The CUDA memory model asks for both
 * fences: without the second one, the reads may be served by a stale first-level cache. */
#ifdef CUDAEMU_CHECK
#include "check_order.h"
#include "scheduler.h"

#include <unordered_map>
#include <vector>

namespace cudaemu
{

struct Release {
    uint32_t number;      /* in the address's chain */
    uint32_t epoch;       /* of the atomic */
    uint32_t fence_epoch; /* of its thread's last fence; 0: none */
    uint16_t thread, own_fences;
    std::vector<uint16_t> fences; /* by thread: those before the last barrier */
};
/* The atomics on an address, in this launch. */
struct Chain {
    uint32_t length = 0;
    std::unordered_map<uint32_t, std::vector<Release>> by_block;
};
/* The first `length` atomics of a chain. */
struct Seen {
    const Chain *chain;
    uint32_t length;
};
typedef std::vector<Seen> View;

static std::unordered_map<uintptr_t, Chain> chains;
static bool any_fence; /* in this launch; without one there is no order, and nothing to do */
static uint32_t this_block;
static unsigned thread_count;
static uint16_t fences[THREADS_MAX], fences_at_barrier[THREADS_MAX];
static uint32_t fence_epoch[THREADS_MAX];
static View observed[THREADS_MAX], acquired[THREADS_MAX], block_observed, block_acquired;

static void add(View &view, const View &more)
{
    for (const Seen &s : more) {
        bool known = false;
        for (Seen &v : view)
            if (v.chain == s.chain) {
                known = true;
                if (v.length < s.length) v.length = s.length;
            }
        if (!known) view.push_back(s);
    }
}

void order_launch_begin()
{
    chains.clear();
    any_fence = false;
}

void order_block_begin(uint32_t block, unsigned threads)
{
    this_block = block;
    thread_count = threads;
    for (unsigned t = 0; t < threads; t++) {
        fences[t] = fences_at_barrier[t] = 0;
        fence_epoch[t] = 0;
        observed[t].clear();
        acquired[t].clear();
    }
    block_observed.clear();
    block_acquired.clear();
}

void order_block_barrier()
{
    if (!any_fence) return;
    for (unsigned t = 0; t < thread_count; t++) {
        fences_at_barrier[t] = fences[t];
        add(block_observed, observed[t]);
        add(block_acquired, acquired[t]);
        observed[t].clear();
        acquired[t].clear();
    }
}

void order_fence(unsigned thread, uint32_t epoch)
{
    any_fence = true;
    fences[thread]++;
    fence_epoch[thread] = epoch;
    add(acquired[thread], observed[thread]);
    add(acquired[thread], block_observed);
}

uint16_t order_fences(unsigned thread)
{
    return fences[thread];
}

void order_atomic(uintptr_t address, unsigned thread, uint32_t epoch)
{
    if (!any_fence) return;
    Chain &chain = chains[address];
    if (chain.length) add(observed[thread], View{{&chain, chain.length}});
    Release release = {chain.length++, epoch, fence_epoch[thread], (uint16_t)thread, fences[thread], {}};
    release.fences.assign(fences_at_barrier, fences_at_barrier + thread_count);
    chain.by_block[this_block].push_back(std::move(release));
}

static bool covers(const Release &r, const Access &a)
{
    if (a.epoch < r.fence_epoch) return true;
    if (a.thread == r.thread && a.fences < r.own_fences) return true;
    return a.thread < r.fences.size() && a.fences < r.fences[a.thread];
}

static bool released_in(const View &view, const Access &access)
{
    for (const Seen &seen : view) {
        auto block = seen.chain->by_block.find(access.block);
        if (block == seen.chain->by_block.end()) continue;
        for (const Release &r : block->second)
            if (r.number < seen.length && covers(r, access)) return true;
    }
    return false;
}

bool order_happened_before(const Access &access, unsigned me)
{
    return any_fence && (released_in(block_acquired, access) || released_in(acquired[me], access));
}

const char *order_missing(const Access &access, unsigned me)
{
    if (released_in(block_observed, access) || released_in(observed[me], access))
        return "this block saw the other one's atomic, but made no __threadfence after its own";
    if (!chains.empty())
        return "no atomic of this block comes after one that releases the write: a __threadfence is missing before "
               "that atomic, or this access comes too early";
    return "blocks of one launch run in any order";
}

} // namespace cudaemu
#endif
