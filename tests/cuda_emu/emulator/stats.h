/* Counts of what kernels did (CUDAEMU_STATS), and what the device was given to do (CUDAEMU_TRACE). Internal.
 *
 * The trace has a row for each operation, tab-separated; other programs may put rows of their own between them:
 *   kernel name grid.x grid.y grid.z block.x shared_bytes counters...    in the order of struct Counters
 *   copy|fill bytes                                                      within the device, or to and from the host
 *   product M N K batch a_bytes b_bytes c_bytes d_bytes beta bias        in the library's column order; bytes of the
 *                                                                        matrices, all of the batch; c_bytes 0: beta 0
 *
 * The table of counts has one row per kernel; columns, tab-separated, are named in the first row:
 *   kernel launches blocks threads block_barriers warp_operations shuffles mma ldmatrix async_copies
 *   global_read global_written     bytes that threads asked for; PTX mode and the check flavour
 *   unique_read unique_written     of these, different bytes per launch, summed over launches: what must cross the
 *                                  device's memory at least once, were the caches perfect
 *   shared_read shared_written     bytes; PTX mode and the check flavour
 *   instructions fp32 fp32_fma fp32_special   of threads; PTX mode; fp32: add, sub, mul, min, max, fma; special: div,
 *                                  sqrt, ex2 and such
 *   warp_instructions              PTX mode; once for a warp, and again where its lanes run it again
 *   warp_narrow_loads warp_shared_loads warp_shared_stores    of these, those of shared memory: loads of less than 4
 *                                  bytes a lane, other loads without ldmatrix, stores
 *
 * A count of -1: the flavour cannot tell. */
#ifndef CUDAEMU_STATS_H
#define CUDAEMU_STATS_H

#include <cstdint>

namespace cudaemu
{

struct Counters {
    int64_t launches, blocks, threads, block_barriers, warp_operations, shuffles, mma, ldmatrix, async_copies;
    int64_t global_read, global_written, unique_read, unique_written, shared_read, shared_written;
    int64_t instructions, fp32, fp32_fma, fp32_special;
    int64_t warp_instructions, warp_narrow_loads, warp_shared_loads, warp_shared_stores;
};
extern Counters counters;

/* Whether accesses to memory are to be counted: then count_access is told of each. */
extern bool count_accesses;
void count_access(const void *p, unsigned bytes, bool write, bool shared);

void stats_setup();
void stats_launch_begin();
void stats_launch_end();
/* A row of the trace; printf-like. Nothing where there is no trace. */
void trace_row(const char *format, ...) __attribute__((format(printf, 1, 2)));

} // namespace cudaemu

#endif
