/* PTX mode: the kernels of the .cu files do not run; the PTX that nvcc made of the same files does, on the same fibers,
 * memory and barriers. It shows what compiling the source for the host cannot: the asm strings, what depends on
 * __CUDA_ARCH__, nvcc's own view of the source. A launch finds its PTX by the host function's symbol, so kernels need
 * external linkage. What PTX it cannot run it refuses, with file and line. Internal.
 *
 * ptx_parse.cpp reads text into statements, ptx_decode.cpp turns them into instructions, ptx_flow.cpp looks for
 * registers that may be read before they are written, ptx_run.cpp runs. */
#ifndef CUDAEMU_PTX_H
#define CUDAEMU_PTX_H

#include <cuda_runtime.h>

namespace cudaemu
{

struct Launch;

#ifndef CUDAEMU_CHECK

bool ptx_active();
void ptx_load(const char *path); /* a file, or all of a directory */
/* Of the launch's static and dynamic shared memory and its block, as the kernel declares them. */
cudaError_t ptx_check_launch(const Launch &launch, size_t shared_max);
/* Before the blocks of a launch: how its threads run, and the bytes of its static shared memory. */
size_t ptx_prepare(const Launch &launch, void (**enter)(void *));
void ptx_block_barrier(); /* when a block meets at a barrier, and at its end */
void ptx_launch_end();

#else /* the checker is for compiled kernels */

inline bool ptx_active()
{
    return false;
}
inline void ptx_load(const char *) {}
inline cudaError_t ptx_check_launch(const Launch &, size_t)
{
    return cudaSuccess;
}
inline size_t ptx_prepare(const Launch &, void (**)(void *))
{
    return 0;
}
inline void ptx_block_barrier() {}
inline void ptx_launch_end() {}

#endif

} // namespace cudaemu

#endif
