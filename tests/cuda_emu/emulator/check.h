/* The check flavour: kernels are compiled with clang++ -fsanitize=thread, but libtsan is not linked; the functions that
 * the compiler calls at each access are ours (check_callbacks.cpp). They know the CUDA thread, the barriers passed and
 * every allocation, so a verdict does not depend on the schedule that happened to run.
 *
 * An access is reported when it is
 *   OUT OF BOUNDS, USE AFTER FREE, ILLEGAL ADDRESS (host memory), MISALIGNED (by its size);
 *   UNINITIALISED: nothing has written there since it was allocated, or since the block began (shared memory);
 *   ASYNC COPY NOT WAITED FOR: a cp.async of this thread writes there, and its group was not waited for;
 *   a RACE: two accesses by different threads, one of them a write and not both atomic, with nothing between them that
 *   orders them: a barrier of the block; a __syncwarp of the warp; the end of the launch; or, between blocks, the
 *   protocol of check_order.cpp (write, __threadfence, atomic; atomic, __threadfence, read).
 *
 * It does not see: races on single bytes (two share a cell), order by volatile flags or by atomics without fences,
 * which of several readers was first, whether a __syncwarp with a partial mask names the lanes that matter. Internal.
 */
#ifndef CUDAEMU_CHECK_H
#define CUDAEMU_CHECK_H

#include <cstddef>
#include <cstdint>

namespace cudaemu
{

struct Allocation;

#ifdef CUDAEMU_CHECK

void check_launch_begin();
void check_launch_end();
void check_block_begin(unsigned threads);
void check_block_barrier();
void check_warp_barrier(unsigned warp, unsigned lanes);
/* While paused, accesses are the emulator's own. */
extern bool check_paused;
/* Around the emulator's own work on behalf of a kernel. */
struct CheckPause {
    const bool before = check_paused;
    CheckPause() { check_paused = true; }
    ~CheckPause() { check_paused = before; }
};
void check_access(const void *p, unsigned bytes, bool write, bool atomic, const void *pc);
void check_async_begin(void *shared, unsigned bytes);
void check_async_end(void *shared, unsigned bytes);
void check_undefined_shuffle(int lane, int source, unsigned arrived);

void check_allocated(Allocation *a);
void check_freed(Allocation *a);
void check_written(void *p, size_t bytes); /* by a copy or a library */
void check_read_by_library(const void *p, size_t bytes);

#else

inline void check_launch_begin() {}
inline void check_launch_end() {}
inline void check_block_begin(unsigned) {}
inline void check_block_barrier() {}
inline void check_warp_barrier(unsigned, unsigned) {}
struct CheckPause {
    CheckPause() {}
};
inline void check_access(const void *, unsigned, bool, bool, const void *) {}
inline void check_async_begin(void *, unsigned) {}
inline void check_async_end(void *, unsigned) {}
inline void check_undefined_shuffle(int, int, unsigned) {}
inline void check_allocated(Allocation *) {}
inline void check_freed(Allocation *) {}
inline void check_written(void *, size_t) {}
inline void check_read_by_library(const void *, size_t) {}

#endif

} // namespace cudaemu

#endif
