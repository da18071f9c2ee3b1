/* Entry points of cudart: memory and copies. */
#include "runtime.h"
#include "check.h"
#include "memory.h"
#include "scheduler.h"
#include "stats.h"

#include <cstdlib>
#include <cstring>

namespace cudaemu
{

/* Rows of a copy; a plain one has one row. */
struct Area {
    void *to;
    const void *from;
    size_t to_pitch, from_pitch, width, height;
};

static size_t span(size_t pitch, const Area &a)
{
    return a.height == 0 ? 0 : (a.height - 1) * pitch + a.width;
}

static void check_area(const Area &a)
{
    memory_check_range(a.to, span(a.to_pitch, a), "memcpy destination");
    memory_check_range(a.from, span(a.from_pitch, a), "memcpy source");
}

static bool do_copy(const Area &a)
{
    check_area(a);
    trace_row("copy\t%zu", a.width * a.height);
    memory_open();
    for (size_t r = 0; r < a.height; r++) {
        char *to = (char *)a.to + r * a.to_pitch;
        memmove(to, (const char *)a.from + r * a.from_pitch, a.width);
        if (in_arena(to)) check_written(to, a.width);
    }
    memory_close();
    return true;
}

static bool kind_fits(enum cudaMemcpyKind kind, bool to_device, bool from_device)
{
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
        return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
        return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
        return to_device && from_device;
    default:
        return kind == cudaMemcpyDefault;
    }
}

static cudaError_t copy(Area a, enum cudaMemcpyKind kind, cudaStream_t stream_, const char *call)
{
    bool to_device = in_arena(a.to), from_device = in_arena(a.from);
    Stream *stream = stream_of(stream_, call);
    if (!kind_fits(kind, to_device, from_device)) return remember(cudaErrorInvalidValue);
    if (a.width > a.to_pitch || a.width > a.from_pitch) return remember(cudaErrorInvalidValue);
    if (a.width == 0 || a.height == 0) return cudaSuccess;
    check_area(a);
    Operation operation;
    if (!from_device && !pinned_contains(a.from)) { /* pageable: staged at the call */
        auto staged =
            std::make_shared<std::vector<char>>((const char *)a.from, (const char *)a.from + span(a.from_pitch, a));
        operation.run = [a, staged] {
            Area b = a;
            b.from = staged->data();
            return do_copy(b);
        };
    } else {
        operation.run = [a] { return do_copy(a); };
        operation.host = from_device ? (to_device ? nullptr : (const char *)a.to) : (const char *)a.from;
        operation.host_bytes = from_device ? span(a.to_pitch, a) : span(a.from_pitch, a);
    }
    enqueue(stream, std::move(operation));
    if (!to_device && !pinned_contains(a.to) && stream) drain(stream); /* to pageable memory: synchronous */
    return cudaSuccess;
}

static cudaError_t set(void *p, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream_,
                       const char *call)
{
    Area a = {p, nullptr, pitch, 0, width, height};
    Stream *stream = stream_of(stream_, call);
    if (width == 0 || height == 0) return cudaSuccess;
    if (!in_arena(p) || width > pitch) return remember(cudaErrorInvalidValue);
    memory_check_range(p, span(pitch, a), call);
    Operation operation;
    operation.run = [=] {
        memory_check_range(p, span(pitch, a), call);
        trace_row("fill\t%zu", width * height);
        memory_open();
        for (size_t r = 0; r < height; r++) {
            memset((char *)p + r * pitch, value, width);
            check_written((char *)p + r * pitch, width);
        }
        memory_close();
        return true;
    };
    enqueue(stream, std::move(operation));
    return cudaSuccess;
}

} // namespace cudaemu

using namespace cudaemu;

extern "C" {

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    CUDAEMU_ENTRY;
    *p = nullptr;
    if (bytes == 0) return cudaSuccess;
    *p = memory_allocate(bytes, current_device);
    return *p ? cudaSuccess : remember(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void *p)
{
    CUDAEMU_ENTRY;
    if (!p) return cudaSuccess;
    drain_all();
    return memory_free(p) ? cudaSuccess : remember(cudaErrorInvalidValue);
}

cudaError_t cudaMallocAsync(void **p, size_t bytes, cudaStream_t stream)
{
    CUDAEMU_ENTRY;
    stream_of(stream, __func__);
    return cudaMalloc(p, bytes);
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t stream)
{
    CUDAEMU_ENTRY;
    Operation operation;
    operation.run = [p] {
        if (!memory_free(p)) fail("cudaFreeAsync of %p, which is not a live allocation", p);
        return true;
    };
    if (p) enqueue(stream_of(stream, __func__), std::move(operation));
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags)
{
    CUDAEMU_ENTRY;
    (void)flags;
    if (posix_memalign(p, 4096, bytes ? bytes : 1) != 0) return remember(cudaErrorMemoryAllocation);
    pinned_add(*p, bytes);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    return cudaHostAlloc(p, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *p)
{
    CUDAEMU_ENTRY;
    if (!p) return cudaSuccess;
    if (host_memory_in_use(p, pinned_bytes(p))) fail("cudaFreeHost of %p: a queued copy still uses it", p);
    if (!pinned_remove(p)) return remember(cudaErrorInvalidValue);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned flags)
{
    CUDAEMU_ENTRY;
    (void)flags;
    if (!p || bytes == 0) return remember(cudaErrorInvalidValue);
    if (pinned_contains(p)) return remember(cudaErrorHostMemoryAlreadyRegistered);
    pinned_add(p, bytes);
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *p)
{
    CUDAEMU_ENTRY;
    if (host_memory_in_use(p, pinned_bytes(p))) fail("cudaHostUnregister of %p: a queued copy still uses it", p);
    return pinned_remove(p) ? cudaSuccess : remember(cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *total)
{
    CUDAEMU_ENTRY;
    *total = options.memory;
    *left = options.memory - memory_used(current_device);
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p)
{
    CUDAEMU_ENTRY;
    memset(a, 0, sizeof *a);
    const Allocation *allocation = in_arena(p) ? allocation_at(p) : nullptr;
    bool device = allocation && !allocation->freed;
    a->type = device ? cudaMemoryTypeDevice : pinned_contains(p) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    a->device = device ? allocation->device : -1;
    if (device) a->devicePointer = const_cast<void *>(p);
    if (!device) a->hostPointer = const_cast<void *>(p);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    CUDAEMU_ENTRY;
    return copy({to, from, bytes, bytes, bytes, 1}, kind, stream, __func__);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    CUDAEMU_ENTRY;
    return copy({to, from, bytes, bytes, bytes, 1}, kind, nullptr, __func__);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    CUDAEMU_ENTRY;
    return copy({to, from, to_pitch, from_pitch, width, height}, kind, stream, __func__);
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height,
                         enum cudaMemcpyKind kind)
{
    CUDAEMU_ENTRY;
    return copy({to, from, to_pitch, from_pitch, width, height}, kind, nullptr, __func__);
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    CUDAEMU_ENTRY;
    return set(p, bytes, value, bytes, 1, stream, __func__);
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    CUDAEMU_ENTRY;
    return set(p, bytes, value, bytes, 1, nullptr, __func__);
}

cudaError_t cudaMemset2DAsync(void *p, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream)
{
    CUDAEMU_ENTRY;
    return set(p, pitch, value, width, height, stream, __func__);
}

cudaError_t cudaMemset2D(void *p, size_t pitch, int value, size_t width, size_t height)
{
    CUDAEMU_ENTRY;
    return set(p, pitch, value, width, height, nullptr, __func__);
}

} // extern "C"
