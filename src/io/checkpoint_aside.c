/* The helper is a worker of its own, so that errors keep their texts. It opens and closes files, but HDF5 is never
 * called on it. */
#include "checkpoint_aside.h"
#include "checkpoint_hash.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

enum {
    FLUSH_BYTES = 64 << 20,    /* the disk begins with so much at a time, and the fsync at the end finds little left */
    LOOK_NANOSECONDS = 500000, /* how long a job may wait for us while the helper works */
};

void fb3_aside_begin(fb3_aside *aside, const char *temporary, fb3_worker *give_way_to)
{
    *aside = (fb3_aside){.temporary = temporary, .give_way_to = give_way_to};
    if (give_way_to && fb3_worker_start(&aside->helper, "publish") != FB3_OK)
        aside->helper = NULL; /* slower, no more */
}

void fb3_aside_end(fb3_aside *aside)
{
    fb3_worker_stop(aside->helper);
    aside->helper = NULL;
}

/* Starts writing back what the kernel holds of the file. A hint: what it cannot do the fsync does. */
static fb3_status begin_write_back(void *context)
{
    const fb3_aside *aside = context;
    int file = open(aside->temporary, O_RDONLY | O_CLOEXEC);
    if (file < 0) return FB3_OK;
    (void)sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE);
    close(file);
    return FB3_OK;
}

void fb3_aside_wrote(fb3_aside *aside, size_t bytes)
{
    long ticket;
    aside->unflushed += bytes;
    if (aside->helper && aside->unflushed >= FLUSH_BYTES) {
        aside->unflushed = 0;
        (void)fb3_worker_submit(aside->helper, begin_write_back, aside, &ticket);
    }
    fb3_worker_give_way(aside->give_way_to);
}

typedef struct publication {
    const char *temporary, *path, *previous;
} publication;

static fb3_status publish(void *context)
{
    const publication *p = context;
    return fb3_hash_publish(p->temporary, p->path, p->previous);
}

fb3_status fb3_aside_publish(fb3_aside *aside, const char *path, const char *previous)
{
    const struct timespec moment = {.tv_nsec = LOOK_NANOSECONDS};
    publication p = {.temporary = aside->temporary, .path = path, .previous = previous};
    long ticket;
    if (!aside->helper) return publish(&p);
    FB3_TRY(fb3_worker_submit(aside->helper, publish, &p, &ticket));
    while (!fb3_worker_finished(aside->helper, ticket)) {
        fb3_worker_give_way(aside->give_way_to);
        nanosleep(&moment, NULL);
    }
    return fb3_worker_wait(aside->helper, ticket);
}
