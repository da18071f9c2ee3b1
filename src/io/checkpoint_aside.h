/* What of writing a checkpoint may take long and needs no HDF5 - write-back, hash, flush, renames -, done by a thread
 * of its own while the I/O worker gives way to other jobs. */
#ifndef FB3_CHECKPOINT_ASIDE_H
#define FB3_CHECKPOINT_ASIDE_H

#include "fb3/worker.h"
#include <stddef.h>

typedef struct fb3_aside {
    const char *temporary;
    fb3_worker *give_way_to; /* the worker whose job this is; NULL: nobody waits */
    fb3_worker *helper;      /* NULL: everything is done on the calling thread */
    size_t unflushed;
} fb3_aside;

/* `temporary`, the file that is being written, is borrowed. Without a thread to be had it goes without. */
void fb3_aside_begin(fb3_aside *aside, const char *temporary, fb3_worker *give_way_to);
/* So many more bytes of the file are written: gives way, and has the disk begin with what has come together. */
void fb3_aside_wrote(fb3_aside *aside, size_t bytes);
/* fb3_hash_publish() of the closed file. */
fb3_status fb3_aside_publish(fb3_aside *aside, const char *path, const char *previous);
void fb3_aside_end(fb3_aside *aside);

#endif
