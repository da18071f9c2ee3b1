/* The emulator: CUDA kernels and the CUDA runtime on a CPU, for tests on machines without a GPU. It is ours, and part
 * of the tests only. docs of how the tests use it: tests/cuda_emu.
 *
 * The project's real .cu and .c files are compiled for the host with this directory first on the include path and are
 * linked with the sources in sources.txt, which define the entry points of cudart. Each CUDA thread is a fiber with its
 * own stack; blocks run one after the other; streams are queues whose operations run as late, and in as odd an order,
 * as CUDA allows. Three flavours and one mode:
 *
 *   fast    g++ -O2. Finds what gives wrong results in some schedule, misused barriers and warp functions, host code
 * that touches device memory. asan    g++ -O1 -fsanitize=address,bounds,alignment. Also accesses outside allocations,
 * arrays and alignment. check   clang++ -fsanitize=thread,bounds -DCUDAEMU_CHECK, without libtsan: check.h. Also races
 * between threads and between blocks, uninitialised reads, host pointers in kernels, whatever the schedule. PTX
 * CUDAEMU_PTX, with the fast flavour: not the compiled kernels run but the PTX that nvcc made of them (ptx.h).
 *
 *   variable               meaning (default)
 *   CUDAEMU_SEED=n         of the schedule: threads, blocks, streams, asynchronous copies (1)
 *   CUDAEMU_ORDER=random|seq|rev   which runnable thread or block goes next (random)
 *   CUDAEMU_LAZY=0|1       stream operations wait until something needs them; 0: they run at the call (1)
 *   CUDAEMU_DEVICES=n      number of devices (1)
 *   CUDAEMU_MEMORY=bytes   of each device, with K, M or G; more is cudaErrorMemoryAllocation (8G)
 *   CUDAEMU_CAPABILITY=x.y compute capability (9.0)
 *   CUDAEMU_DRIVER=version CUDA version of the driver; 0: no driver (the toolkit's, CUDART_VERSION)
 *   CUDAEMU_PTX=path       a .ptx file, or a directory: all its .ptx files
 *   CUDAEMU_STATS=1|path   at exit, counts of each kernel: a short table on stderr, or a tab-separated file; %p in the
 *                          path is the process number (stats.h)
 *   CUDAEMU_TRACE=path     appended to: a row for each kernel, copy, fill and product, in the order of execution
 (stats.h) CUDAEMU_KERNELS=count  kernels are counted, not run; what they would write keeps its contents
   CUDAEMU_PRODUCTS=count the same for the matrix products of the shims, which leave zeros
   CUDAEMU_REPORTS=n      the checker stops after n reports (5)
 *   CUDAEMU_PROTECT=0|1    device memory is out of reach of host code (1)
 *
 * A finding is a line "==cudaemu== ERROR: ..." (or RACE, UNINITIALISED, ...) on stderr and, at once or at exit, status
 * 99. What no flavour can find: weak memory order beyond the protocol of check.h, blocks that wait for each other (they
 * hang here), timing, and everything below PTX. */
#ifndef CUDAEMU_OPTIONS_H
#define CUDAEMU_OPTIONS_H

#include <cstddef>
#include <cstdint>

namespace cudaemu
{

enum class Order { RANDOM, SEQUENTIAL, REVERSE };

struct Options {
    Order order = Order::RANDOM;
    bool lazy = true, protect = true, run_kernels = true, run_products = true;
    int devices = 1, major = 9, minor = 0, driver = 0, reports = 5;
    size_t memory = (size_t)8 << 30;
    const char *ptx = nullptr, *stats = nullptr, *trace = nullptr;
};
extern Options options;

/* Reads the environment and sets everything up, once. Every entry point calls it. */
void initialise();

/* Pseudo-random numbers of the schedule. */
extern uint64_t random_state;
inline unsigned random_bits()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 32);
}
inline unsigned random_below(unsigned n)
{
    return (unsigned)(((uint64_t)random_bits() * n) >> 32);
}

} // namespace cudaemu

#endif
