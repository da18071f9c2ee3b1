/* Memory that the ranks of a node share (an MPI window in a job, plain memory in a test): one writer, many readers.
 * `data` sees only this interface; `comm` provides it. */
#ifndef FB3_NODE_MEMORY_H
#define FB3_NODE_MEMORY_H

#include "fb3/status.h"
#include <stdbool.h>
#include <stddef.h>

typedef struct fb3_node_memory {
    void *context;
    bool writer; /* true on one rank of the node */
    /* Collective over the node: the same `bytes` bytes on every rank, 64-byte aligned. Lives until `context` ends. */
    fb3_status (*allocate)(void *context, size_t bytes, void **memory);
    /* Collective over the node: what the writer wrote is visible to all. `mine` is how this rank fared; the worst of
     * all is returned on every rank, with its error text. */
    fb3_status (*publish)(void *context, fb3_status mine);
} fb3_node_memory;

/* For one process: plain memory. fb3_node_memory_private_free() releases all of it. */
fb3_status fb3_node_memory_private(fb3_node_memory *memory);
void fb3_node_memory_private_free(fb3_node_memory *memory);

#endif
