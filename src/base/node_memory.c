/* Node memory for one process: what a test or a lonely rank uses where a job has an MPI window. */
#include "fb3/node_memory.h"

#include <stdint.h>
#include <stdlib.h>

enum { ALIGNMENT = 64 };

typedef struct block {
    struct block *next;
    void *memory;
} block;

typedef struct private_memory {
    block *first;
} private_memory;

static fb3_status allocate_private(void *context, size_t bytes, void **memory)
{
    private_memory *owner = context;
    *memory = NULL;
    FB3_REQUIRE(bytes <= SIZE_MAX - ALIGNMENT, FB3_FAILED, "%zu bytes are more than this machine can address", bytes);
    size_t rounded = bytes == 0 ? ALIGNMENT : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    block *made = calloc(1, sizeof *made);
    void *aligned = made ? aligned_alloc(ALIGNMENT, rounded) : NULL;
    if (!aligned) {
        free(made);
        return fb3_fail(FB3_FAILED, "out of memory for %zu bytes; free memory or use a smaller data set", bytes);
    }
    made->memory = aligned;
    made->next = owner->first;
    owner->first = made;
    *memory = aligned;
    return FB3_OK;
}

static fb3_status publish_private(void *context, fb3_status mine)
{
    (void)context;
    return mine;
}

fb3_status fb3_node_memory_private(fb3_node_memory *memory)
{
    private_memory *owner = calloc(1, sizeof *owner);
    *memory = (fb3_node_memory){owner, true, allocate_private, publish_private};
    FB3_REQUIRE(owner, FB3_FAILED, "out of memory; free memory and run again");
    return FB3_OK;
}

void fb3_node_memory_private_free(fb3_node_memory *memory)
{
    private_memory *owner = memory->context;
    while (owner && owner->first) {
        block *gone = owner->first;
        owner->first = gone->next;
        free(gone->memory);
        free(gone);
    }
    free(owner);
    memory->context = NULL;
}
