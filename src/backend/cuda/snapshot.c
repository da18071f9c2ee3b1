/* Copies of device memory for checkpoints, made while training goes on.
 *
 *   compute  ... | the next step: forward, backward        | AdamW, which writes src ...
 *   takes        \ src -> shadow                           /
 *   copies                       \ shadow -> host, piece by piece ...
 *
 * The shadow is device memory: filling it takes about a millisecond a gigabyte, beside the kernels of the next step,
 * which only read the source; the first operation that writes there waits for it (fb3_snapshots_before_write). The way
 * to the host is the slow part. Where the device has no room for a shadow the source goes to the host on the compute
 * stream: later operations wait for that, nothing else changes.
 *
 * Shadows are kept for the next checkpoint, and freed when an allocation finds no room (fb3_snapshots_make_room). */
#include "cuda.h"

#include <stdlib.h>

enum {
    SHADOWS = 3,           /* the parameters and their two moments */
    PIECE_BYTES = 8 << 20, /* the step's own small transfers get in between */
};

/* What is left to the rest of the program: libraries take memory when they are first used. */
static const size_t MARGIN_BYTES = (size_t)1 << 30;

typedef struct shadow {
    void *memory;
    size_t bytes;
    bool in_use;
} shadow;

struct fb3_cuda_snapshots {
    cudaStream_t takes, copies;
    cudaEvent_t asked; /* the place in the compute stream that the last snapshot is of */
    cudaEvent_t taken; /* of the shadow that was filled last */
    struct {
        const char *begin;
        size_t bytes;
    } taking[SHADOWS]; /* sources that nobody may write before `taken` */
    int takings;
    cudaEvent_t arrived[2]; /* at the host: of what went by the copy stream, and by the compute stream */
    shadow shadow[SHADOWS];
};

fb3_status fb3_snapshots_open(fb3_backend *be)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    fb3_cuda_snapshots *s = calloc(1, sizeof *s);
    FB3_REQUIRE(s, FB3_FAILED, "out of memory for copies of the device's memory");
    cuda->snapshots = s;
    FB3_CUDA(cudaStreamCreateWithFlags(&s->takes, cudaStreamNonBlocking));
    FB3_CUDA(cudaStreamCreateWithFlags(&s->copies, cudaStreamNonBlocking));
    FB3_CUDA(cudaEventCreateWithFlags(&s->asked, cudaEventDisableTiming));
    FB3_CUDA(cudaEventCreateWithFlags(&s->taken, cudaEventDisableTiming));
    for (int i = 0; i < 2; i++) FB3_CUDA(cudaEventCreateWithFlags(&s->arrived[i], cudaEventDisableTiming));
    return FB3_OK;
}

void fb3_snapshots_close(fb3_backend *be)
{
    fb3_cuda_snapshots *s = fb3_cuda_of(be)->snapshots;
    if (!s) return;
    if (s->takes) (void)cudaStreamSynchronize(s->takes);
    if (s->copies) (void)cudaStreamSynchronize(s->copies);
    for (int i = 0; i < SHADOWS; i++) (void)cudaFree(s->shadow[i].memory);
    for (int i = 0; i < 2; i++)
        if (s->arrived[i]) (void)cudaEventDestroy(s->arrived[i]);
    if (s->taken) (void)cudaEventDestroy(s->taken);
    if (s->asked) (void)cudaEventDestroy(s->asked);
    if (s->takes) (void)cudaStreamDestroy(s->takes);
    if (s->copies) (void)cudaStreamDestroy(s->copies);
    free(s);
    fb3_cuda_of(be)->snapshots = NULL;
}

fb3_status fb3_alloc_host_cuda(fb3_backend *be, void **memory, size_t bytes)
{
    (void)be;
    *memory = NULL;
    cudaError_t error = cudaHostAlloc(memory, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
    if (error != cudaErrorMemoryAllocation)
        return error == cudaSuccess ? FB3_OK : fb3_cuda_error(error, "cudaHostAlloc");
    (void)cudaGetLastError(); /* it is answered here */
    return fb3_fail(FB3_FAILED,
                    "the host has no %zu MiB more for a copy of the device's memory; free memory, or use a "
                    "smaller model",
                    bytes >> 20);
}

void fb3_free_host_cuda(fb3_backend *be, void *memory)
{
    (void)be;
    if (memory) (void)cudaFreeHost(memory);
}

bool fb3_snapshots_make_room(fb3_backend *be)
{
    fb3_cuda_snapshots *s = fb3_cuda_of(be)->snapshots;
    bool freed = false;
    for (int i = 0; s && i < SHADOWS; i++) {
        shadow *kept = &s->shadow[i];
        if (!kept->memory || kept->in_use) continue;
        (void)cudaFree(kept->memory);
        *kept = (shadow){0};
        freed = true;
    }
    return freed;
}

/* A shadow that is kept, or a new one; NULL where there is no room. */
static shadow *find_shadow(fb3_cuda_snapshots *s, size_t bytes)
{
    size_t left = 0, total = 0;
    shadow *empty = NULL;
    for (int i = 0; i < SHADOWS; i++) {
        shadow *kept = &s->shadow[i];
        if (kept->memory && !kept->in_use && kept->bytes >= bytes) return kept;
        if (!kept->memory) empty = kept;
    }
    if (!empty || cudaMemGetInfo(&left, &total) != cudaSuccess || left < MARGIN_BYTES || left - MARGIN_BYTES < bytes)
        return NULL;
    if (cudaMalloc(&empty->memory, bytes) != cudaSuccess) {
        (void)cudaGetLastError(); /* there is another way */
        empty->memory = NULL;
        return NULL;
    }
    empty->bytes = bytes;
    return empty;
}

static fb3_status copy_out(void *dst_host, const void *src, size_t bytes, cudaStream_t stream)
{
    for (size_t done = 0; done < bytes; done += PIECE_BYTES) {
        size_t piece = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;
        FB3_CUDA(
            cudaMemcpyAsync((char *)dst_host + done, (const char *)src + done, piece, cudaMemcpyDeviceToHost, stream));
    }
    return FB3_OK;
}

fb3_status fb3_snapshot_cuda(fb3_backend *be, void *dst_host, const void *src, size_t bytes)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    fb3_cuda_snapshots *s = cuda->snapshots;
    if (bytes == 0) return FB3_OK;
    shadow *aside = find_shadow(s, bytes);
    if (!aside) {
        FB3_TRY(copy_out(dst_host, src, bytes, cuda->compute));
        FB3_CUDA(cudaEventRecord(s->arrived[1], cuda->compute));
        return FB3_OK;
    }
    aside->in_use = true;
    FB3_CUDA(cudaEventRecord(s->asked, cuda->compute));
    FB3_CUDA(cudaStreamWaitEvent(s->takes, s->asked, 0));
    FB3_CUDA(cudaMemcpyAsync(aside->memory, src, bytes, cudaMemcpyDeviceToDevice, s->takes));
    FB3_CUDA(cudaEventRecord(s->taken, s->takes));
    s->taking[s->takings].begin = src; /* as many as there are shadows */
    s->taking[s->takings++].bytes = bytes;
    FB3_CUDA(cudaStreamWaitEvent(s->copies, s->taken, 0));
    FB3_TRY(copy_out(dst_host, aside->memory, bytes, s->copies));
    FB3_CUDA(cudaEventRecord(s->arrived[0], s->copies));
    return FB3_OK;
}

fb3_status fb3_snapshots_before_write(fb3_backend *be, const void *memory, size_t bytes)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    fb3_cuda_snapshots *s = cuda->snapshots;
    const char *begin = memory;
    for (int i = 0; i < s->takings; i++) {
        if (begin >= s->taking[i].begin + s->taking[i].bytes || s->taking[i].begin >= begin + bytes) continue;
        FB3_CUDA(cudaStreamWaitEvent(cuda->compute, s->taken, 0));
        s->takings = 0;
    }
    return FB3_OK;
}

fb3_status fb3_snapshot_ready_cuda(fb3_backend *be, bool *ready)
{
    fb3_cuda_snapshots *s = fb3_cuda_of(be)->snapshots;
    *ready = false;
    for (int i = 0; i < 2; i++) {
        cudaError_t error = cudaEventQuery(s->arrived[i]); /* succeeds for an event that was never recorded */
        if (error != cudaSuccess && error != cudaErrorNotReady)
            return fb3_cuda_error(error, "copying a checkpoint out of the device");
        if (error == cudaSuccess) continue;
        (void)cudaGetLastError(); /* "not ready" is no error */
        return FB3_OK;
    }
    for (int i = 0; i < SHADOWS; i++) s->shadow[i].in_use = false;
    s->takings = 0;
    *ready = true;
    return FB3_OK;
}
