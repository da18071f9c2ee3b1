/* Device memory, transfers through pinned memory, scratch, and the one place where the host waits for the device.
 *
 * An upload copies into one half of a pinned buffer and queues the transfer from there, so that the source is free when
 * it returns. When a half is full the other one takes over, after the transfers that were queued from it; a batch fills
 * a small part of a half, so nobody waits. */
#include "cuda.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { HALF_BYTES = 8 << 20, ALIGNMENT = 256, FETCHES_MAX = 64 };

struct fb3_cuda_staging {
    char *half[2];          /* [HALF_BYTES], pinned */
    cudaEvent_t sent[2];    /* the transfers queued from a half */
    int current;            /* the half that is being filled */
    size_t used;            /* of it */
    char *fetched;          /* [FB3_FETCH_MAX], pinned: what `fetch` brings */
    cudaEvent_t waited_for; /* by sync */
    struct {
        void *dst_host;
        size_t at, bytes;
    } fetch[FETCHES_MAX];
    int fetches;
    size_t fetched_bytes;
};

fb3_status fb3_staging_open(fb3_backend *be)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    fb3_cuda_staging *s = calloc(1, sizeof *s);
    FB3_REQUIRE(s, FB3_FAILED, "out of memory for transfers to the device");
    cuda->staging = s;
    for (int i = 0; i < 2; i++) {
        FB3_CUDA(cudaHostAlloc((void **)&s->half[i], HALF_BYTES, cudaHostAllocDefault));
        FB3_CUDA(cudaEventCreateWithFlags(&s->sent[i], cudaEventDisableTiming));
    }
    FB3_CUDA(cudaHostAlloc((void **)&s->fetched, FB3_FETCH_MAX, cudaHostAllocDefault));
    FB3_CUDA(cudaEventCreateWithFlags(&s->waited_for, cudaEventDisableTiming));
    return FB3_OK;
}

void fb3_staging_close(fb3_backend *be)
{
    fb3_cuda_staging *s = fb3_cuda_of(be)->staging;
    if (!s) return;
    for (int i = 0; i < 2; i++) {
        if (s->sent[i]) (void)cudaEventDestroy(s->sent[i]);
        if (s->half[i]) (void)cudaFreeHost(s->half[i]);
    }
    if (s->waited_for) (void)cudaEventDestroy(s->waited_for);
    if (s->fetched) (void)cudaFreeHost(s->fetched);
    free(s);
    fb3_cuda_of(be)->staging = NULL;
}

static cudaError_t take(void **memory, size_t bytes)
{
    cudaError_t error = cudaMalloc(memory, bytes > 0 ? bytes : ALIGNMENT);
    if (error == cudaErrorMemoryAllocation) (void)cudaGetLastError(); /* it is answered by the caller */
    return error;
}

fb3_status fb3_alloc_cuda(fb3_backend *be, void **memory, size_t bytes)
{
    *memory = NULL;
    cudaError_t error = take(memory, bytes);
    if (error == cudaErrorMemoryAllocation && fb3_snapshots_make_room(be)) error = take(memory, bytes);
    if (error == cudaErrorMemoryAllocation) {
        size_t left = 0, total = 0;
        (void)cudaMemGetInfo(&left, &total);
        return fb3_fail(FB3_FAILED,
                        "the device has no %zu MiB more: %zu of its %zu MiB are left; use a smaller batch, "
                        "max_length or gradient_checkpointing: true",
                        bytes >> 20, left >> 20, total >> 20);
    }
    FB3_CUDA(error);
    return FB3_OK;
}

void fb3_free_cuda(fb3_backend *be, void *memory)
{
    (void)be;
    (void)cudaFree(memory);
}

fb3_status fb3_memory_left_cuda(fb3_backend *be, size_t *left, size_t *total)
{
    (void)be;
    FB3_CUDA(cudaMemGetInfo(left, total));
    return FB3_OK;
}

fb3_status fb3_cuda_scratch(fb3_backend *be, void **memory, size_t bytes)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    if (bytes > cuda->scratch_bytes) {
        FB3_CUDA(cudaStreamSynchronize(cuda->compute)); /* an operation may be using the old one */
        fb3_free_cuda(be, cuda->scratch);
        cuda->scratch = NULL;
        cuda->scratch_bytes = 0;
        FB3_TRY(fb3_alloc_cuda(be, &cuda->scratch, bytes));
        cuda->scratch_bytes = bytes;
    }
    *memory = cuda->scratch;
    return FB3_OK;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t fb3_scratch_bytes_cuda(const fb3_backend *be, const fb3_limits *limits)
{
    size_t bytes = fb3_cuda_optimizer_scratch();
    bytes = most(bytes, fb3_cuda_rows_scratch(limits));
    bytes = most(bytes, fb3_cuda_elementwise_scratch(limits));
    bytes = most(bytes, fb3_cuda_head_scratch(limits));
    return most(bytes, fb3_cuda_attention_scratch(be, limits));
}

fb3_status fb3_reserve_cuda(fb3_backend *be, const fb3_limits *limits)
{
    void *memory;
    return fb3_cuda_scratch(be, &memory, fb3_scratch_bytes_cuda(be, limits));
}

/* Waits for an event of this backend. Meanwhile the collectives are looked after: a sum that failed, or whose peer does
 * not come, ends the waiting with an error. */
static fb3_status wait_for(fb3_cuda *cuda, cudaEvent_t event)
{
    for (;;) {
        cudaError_t error = cudaEventQuery(event);
        if (error == cudaSuccess) return FB3_OK;
        if (error != cudaErrorNotReady) return fb3_cuda_error(error, "waiting for the device");
        (void)cudaGetLastError(); /* "not ready" is no error */
        if (cuda->poll) FB3_TRY(cuda->poll(cuda->poll_context));
        sched_yield();
    }
}

/* Room for the next piece: *at in a half whose earlier contents are no longer needed. */
static fb3_status make_room(fb3_cuda *cuda)
{
    fb3_cuda_staging *s = cuda->staging;
    if (s->used < HALF_BYTES) return FB3_OK;
    FB3_CUDA(cudaEventRecord(s->sent[s->current], cuda->compute));
    s->current = 1 - s->current;
    s->used = 0;
    return wait_for(cuda, s->sent[s->current]); /* succeeds at once for an event that was never recorded */
}

fb3_status fb3_upload_cuda(fb3_backend *be, void *dst, const void *src_host, size_t bytes)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    fb3_cuda_staging *s = cuda->staging;
    FB3_TRY(fb3_snapshots_before_write(be, dst, bytes));
    for (size_t done = 0; done < bytes;) {
        FB3_TRY(make_room(cuda));
        size_t piece = bytes - done < HALF_BYTES - s->used ? bytes - done : HALF_BYTES - s->used;
        char *at = s->half[s->current] + s->used;
        memcpy(at, (const char *)src_host + done, piece);
        FB3_CUDA(cudaMemcpyAsync((char *)dst + done, at, piece, cudaMemcpyHostToDevice, cuda->compute));
        s->used += (piece + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        done += piece;
    }
    return FB3_OK;
}

static size_t piece_of(size_t bytes, size_t done)
{
    return bytes - done < HALF_BYTES ? bytes - done : HALF_BYTES;
}

static fb3_status queue_download(fb3_cuda *cuda, int half, const void *src, size_t bytes)
{
    FB3_CUDA(cudaMemcpyAsync(cuda->staging->half[half], src, bytes, cudaMemcpyDeviceToHost, cuda->compute));
    FB3_CUDA(cudaEventRecord(cuda->staging->sent[half], cuda->compute));
    return FB3_OK;
}

/* While one half is filled by the device, the other is copied out. */
fb3_status fb3_download_cuda(fb3_backend *be, void *dst_host, const void *src, size_t bytes)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    fb3_cuda_staging *s = cuda->staging;
    FB3_TRY(fb3_sync_cuda(be)); /* both halves are free now */
    if (bytes > 0) FB3_TRY(queue_download(cuda, 0, src, piece_of(bytes, 0)));
    int half = 0;
    for (size_t done = 0; done < bytes; half = 1 - half) {
        size_t piece = piece_of(bytes, done), next = done + piece;
        if (next < bytes) FB3_TRY(queue_download(cuda, 1 - half, (const char *)src + next, piece_of(bytes, next)));
        FB3_TRY(wait_for(cuda, s->sent[half]));
        memcpy((char *)dst_host + done, s->half[half], piece);
        done = next;
    }
    s->used = 0;
    return FB3_OK;
}

fb3_status fb3_fetch_cuda(fb3_backend *be, void *dst_host, const void *src, size_t bytes)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    fb3_cuda_staging *s = cuda->staging;
    FB3_REQUIRE(s->fetches < FETCHES_MAX && bytes <= FB3_FETCH_MAX - s->fetched_bytes, FB3_FAILED,
                "more than %d bytes are fetched between two syncs", FB3_FETCH_MAX);
    FB3_CUDA(cudaMemcpyAsync(s->fetched + s->fetched_bytes, src, bytes, cudaMemcpyDeviceToHost, cuda->compute));
    s->fetch[s->fetches].dst_host = dst_host;
    s->fetch[s->fetches].at = s->fetched_bytes;
    s->fetch[s->fetches++].bytes = bytes;
    s->fetched_bytes += bytes;
    return FB3_OK;
}

fb3_status fb3_zero_cuda(fb3_backend *be, void *memory, size_t bytes)
{
    FB3_TRY(fb3_snapshots_before_write(be, memory, bytes));
    if (bytes > 0) FB3_CUDA(cudaMemsetAsync(memory, 0, bytes, fb3_cuda_of(be)->compute));
    return FB3_OK;
}

fb3_status fb3_sync_cuda(fb3_backend *be)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    fb3_cuda_staging *s = cuda->staging;
    FB3_CUDA(cudaEventRecord(s->waited_for, cuda->compute));
    FB3_TRY(wait_for(cuda, s->waited_for));
    for (int i = 0; i < s->fetches; i++) memcpy(s->fetch[i].dst_host, s->fetched + s->fetch[i].at, s->fetch[i].bytes);
    s->fetches = 0;
    s->fetched_bytes = 0;
    return FB3_OK;
}
