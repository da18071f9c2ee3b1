/* Memory of the CPU backend: the host's own, on cache lines, and the workspace that operations share. */
#include "cpu.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    ALIGNMENT = 64,
    ZERO_BLOCK = 1 << 20,
    HUGE_PAGE = 2 << 20, /* where large arrays begin, and what they ask for: fewer page faults and TLB misses */
    LARGE = 4 << 20,
};

fb3_status fb3_alloc_cpu(fb3_backend *be, void **memory, size_t bytes)
{
    (void)be;
    *memory = NULL;
    if (bytes <= SIZE_MAX - ALIGNMENT) {
        size_t lines = bytes / ALIGNMENT + (bytes % ALIGNMENT != 0 || bytes == 0);
        bool large = bytes >= LARGE;
        if (posix_memalign(memory, large ? HUGE_PAGE : ALIGNMENT, lines * ALIGNMENT) != 0) *memory = NULL;
        if (*memory && large) (void)madvise(*memory, lines * ALIGNMENT, MADV_HUGEPAGE); /* a wish */
    }
    FB3_REQUIRE(*memory != NULL, FB3_FAILED, "out of memory for %zu bytes; use a smaller batch or model", bytes);
    return FB3_OK;
}

void fb3_free_cpu(fb3_backend *be, void *memory)
{
    (void)be;
    free(memory);
}

fb3_status fb3_upload_cpu(fb3_backend *be, void *dst, const void *src_host, size_t bytes)
{
    (void)be;
    if (bytes > 0) memcpy(dst, src_host, bytes);
    return FB3_OK;
}

fb3_status fb3_download_cpu(fb3_backend *be, void *dst_host, const void *src, size_t bytes)
{
    (void)be;
    if (bytes > 0) memcpy(dst_host, src, bytes);
    return FB3_OK;
}

fb3_status fb3_zero_cpu(fb3_backend *be, void *memory, size_t bytes)
{
    (void)be;
#pragma omp parallel for schedule(static)
    for (size_t start = 0; start < bytes; start += ZERO_BLOCK)
        memset((char *)memory + start, 0, bytes - start < ZERO_BLOCK ? bytes - start : ZERO_BLOCK);
    return FB3_OK;
}

fb3_status fb3_sync_cpu(fb3_backend *be)
{
    (void)be;
    return FB3_OK;
}

fb3_status fb3_snapshot_ready_cpu(fb3_backend *be, bool *ready)
{
    (void)be;
    *ready = true;
    return FB3_OK;
}

/* What the kernel says could be given to a new program without swapping (MemAvailable of /proc/meminfo). */
fb3_status fb3_memory_left_cpu(fb3_backend *be, size_t *left, size_t *total)
{
    (void)be;
    char line[128];
    size_t kib;
    *left = *total = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "MemTotal: %zu", &kib) == 1) *total = kib << 10;
        if (sscanf(line, "MemAvailable: %zu", &kib) == 1) *left = kib << 10;
    }
    if (file) fclose(file);
    FB3_REQUIRE(*left > 0 && *total > 0, FB3_FAILED, "/proc/meminfo does not say how much memory is left");
    return FB3_OK;
}

fb3_status fb3_cpu_workspace(fb3_backend *be, float **memory, size_t floats)
{
    fb3_cpu_state *state = be->state;
    FB3_REQUIRE(floats <= SIZE_MAX / sizeof(float), FB3_FAILED, "out of memory for %zu floats; use a smaller batch",
                floats);
    if (floats * sizeof(float) > state->workspace_bytes) {
        free(state->workspace); /* first: the old contents are not needed, the memory may be */
        state->workspace = NULL;
        state->workspace_bytes = 0;
        FB3_TRY(fb3_alloc_cpu(be, &state->workspace, floats * sizeof(float)));
        state->workspace_bytes = floats * sizeof(float);
    }
    *memory = state->workspace;
    return FB3_OK;
}

void fb3_close_cpu(fb3_backend *be)
{
    fb3_cpu_state *state = be->state;
    if (state) free(state->workspace);
    free(state);
    be->state = NULL;
}
