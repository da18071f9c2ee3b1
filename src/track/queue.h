/* The trackers of report_to, behind a queue: events go in on the thread that trains, which never waits for them, and
 * are handed to the trackers one after another on a thread of their own. */
#ifndef FB3_TRACK_QUEUE_H
#define FB3_TRACK_QUEUE_H

#include "fb3/track.h"

/* A kind of tracker: its name in report_to, and how one is opened. */
typedef struct fb3_tracker_kind {
    const char *name;
    fb3_status (*open)(fb3_tracker **tracker, const fb3_track_place *place);
} fb3_tracker_kind;

/* Opens one tracker of each kind, on the thread. `kinds` ends with a NULL name; the texts of `place` are copied, its
 * configuration is not. */
fb3_status fb3_track_queue_open(fb3_track_queue **queue, const fb3_track_place *place,
                                const fb3_tracker_kind *const *kinds, int count);
/* Waits as fb3_track_close() says. NULL is fine. */
void fb3_track_queue_close(fb3_track_queue *queue, fb3_status left);

typedef enum fb3_track_kind {
    FB3_TRACK_CONFIG,
    FB3_TRACK_STEP,
    FB3_TRACK_EVAL,
    FB3_TRACK_ARTIFACT,
    FB3_TRACK_END,
    FB3_TRACK_MODEL,
    FB3_TRACK_CONSOLE, /* the record is a text */
} fb3_track_kind;
/* Copies the record. Never blocks and cannot fail: what finds no room is left out, steps and console lines first, and
 * the first time that it happens there is a warning. NULL queue: nothing happens. Thread safe. */
void fb3_track_queue_put(fb3_track_queue *queue, fb3_track_kind kind, const void *record);
/* Events that no tracker has been given yet. Thread safe. */
int fb3_track_queue_waiting(fb3_track_queue *queue);

#endif
