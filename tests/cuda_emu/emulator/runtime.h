/* What the files of the CUDA runtime's entry points share. Internal. */
#ifndef CUDAEMU_RUNTIME_H
#define CUDAEMU_RUNTIME_H

#include "kernel.h"
#include "options.h"
#include "stream.h"

namespace cudaemu
{

extern thread_local int current_device;

/* Remembers an error for cudaGetLastError. */
cudaError_t remember(cudaError_t error);
bool driver_suffices();
/* Fails inside a function of cudaLaunchHostFunc, which must not call CUDA. */
void refuse_in_host_function(const char *call);

size_t shared_bytes_max(); /* per block, that a kernel can opt in to */

} // namespace cudaemu

/* The beginning of an entry point that needs a driver. */
#define CUDAEMU_ENTRY                                                                                                  \
    std::lock_guard<std::recursive_mutex> lock_(cudaemu::api_mutex);                                                   \
    cudaemu::initialise();                                                                                             \
    cudaemu::refuse_in_host_function(__func__);                                                                        \
    if (!cudaemu::driver_suffices()) return cudaemu::remember(cudaErrorInsufficientDriver)

#endif
