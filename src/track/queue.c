#include "queue.h"

#include "fb3/clock.h"
#include "fb3/log.h"
#include "fb3/worker.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Steps and console lines leave the last places to the few events that a record cannot do without. */
enum { PLACES = 1024, PLACES_FOR_MANY = PLACES - 64, MOST_TRACKERS = 4, EVENT_TEXTS = 3, STALLED_SECONDS = 120 };

typedef struct track_event {
    fb3_track_kind kind;
    union {
        fb3_run_record run;
        fb3_step_record step;
        fb3_eval_record eval;
        fb3_checkpoint_record artifact;
        fb3_end_record end;
        fb3_model_record model;
    } of;
    fb3_scores scores;       /* of an eval */
    char *text[EVENT_TEXTS]; /* copies that the record points to */
} track_event;

struct fb3_track_queue {
    fb3_track_place place;
    char *directory;
    const fb3_tracker_kind *kind[MOST_TRACKERS];
    fb3_tracker *tracker[MOST_TRACKERS]; /* NULL: not open, or failed to open. The thread's */
    int count;
    fb3_worker *worker;
    long ticket;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    track_event *event; /* [PLACES] a ring */
    int first, waiting;
    long delivered;
    bool left_out, closing, ended;
    fb3_status left;
};

/* --- events ------------------------------------------------------------------------------------------------------- */

/* The i-th text of an event is a copy of what *field points to, and *field points to the copy. */
static bool keep_text(track_event *event, int i, const char **field)
{
    if (!*field) return true;
    event->text[i] = strdup(*field);
    *field = event->text[i];
    return event->text[i] != NULL;
}

static void free_texts(track_event *event)
{
    for (int i = 0; i < EVENT_TEXTS; i++) free(event->text[i]);
}

/* False without memory. */
static bool copy_record(track_event *event, fb3_track_kind kind, const void *record)
{
    memset(event, 0, sizeof *event);
    event->kind = kind;
    switch (kind) {
    case FB3_TRACK_CONFIG:
        event->of.run = *(const fb3_run_record *)record;
        return keep_text(event, 0, &event->of.run.config_text) && keep_text(event, 1, &event->of.run.device) &&
               keep_text(event, 2, &event->of.run.versions);
    case FB3_TRACK_STEP:
        event->of.step = *(const fb3_step_record *)record;
        event->of.step.samples = NULL;
        return true;
    case FB3_TRACK_EVAL:
        event->of.eval = *(const fb3_eval_record *)record;
        event->scores = *event->of.eval.scores;
        event->of.eval.scores = NULL; /* set when it is taken out: the event moves until then */
        return true;
    case FB3_TRACK_ARTIFACT:
        event->of.artifact = *(const fb3_checkpoint_record *)record;
        return keep_text(event, 0, &event->of.artifact.path);
    case FB3_TRACK_END:
        event->of.end = *(const fb3_end_record *)record;
        return keep_text(event, 0, &event->of.end.best_model_checkpoint);
    case FB3_TRACK_MODEL:
        event->of.model = *(const fb3_model_record *)record;
        return keep_text(event, 0, &event->of.model.directory);
    case FB3_TRACK_CONSOLE:
        event->text[0] = strdup(record);
        return event->text[0] != NULL;
    }
    return false;
}

static fb3_status deliver_to(fb3_tracker *tracker, track_event *event)
{
    const fb3_tracker_ops *ops = tracker->ops;
    switch (event->kind) {
    case FB3_TRACK_CONFIG:
        return ops->config(tracker, &event->of.run);
    case FB3_TRACK_STEP:
        return ops->step(tracker, &event->of.step);
    case FB3_TRACK_EVAL:
        event->of.eval.scores = &event->scores;
        return ops->eval(tracker, &event->of.eval);
    case FB3_TRACK_ARTIFACT:
        return ops->artifact(tracker, &event->of.artifact);
    case FB3_TRACK_END:
        return ops->end(tracker, &event->of.end);
    case FB3_TRACK_MODEL:
        return ops->model ? ops->model(tracker, &event->of.model) : FB3_OK;
    case FB3_TRACK_CONSOLE:
        return ops->console ? ops->console(tracker, event->text[0]) : FB3_OK;
    }
    return FB3_OK;
}

/* --- the thread --------------------------------------------------------------------------------------------------- */

static void give_up(const char *name)
{
    fb3_log_warn("%s: %s; training goes on without it", name, fb3_error_text());
}

static void deliver(fb3_track_queue *queue, track_event *event)
{
    for (int i = 0; i < queue->count; i++) {
        fb3_tracker *tracker = queue->tracker[i];
        if (!tracker || tracker->failed || deliver_to(tracker, event) == FB3_OK) continue;
        tracker->failed = true;
        give_up(queue->kind[i]->name);
    }
}

/* False when the queue is being closed and empty. */
static bool take(fb3_track_queue *queue, track_event *event)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->waiting == 0 && !queue->closing) pthread_cond_wait(&queue->changed, &queue->lock);
    bool taken = queue->waiting > 0;
    if (taken) {
        *event = queue->event[queue->first];
        queue->first = (queue->first + 1) % PLACES;
        queue->waiting--;
        queue->delivered++;
    }
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
    return taken;
}

/* The one job of the thread. */
static fb3_status work(void *context)
{
    fb3_track_queue *queue = context;
    track_event event;
    for (int i = 0; i < queue->count; i++) {
        if (queue->kind[i]->open(&queue->tracker[i], &queue->place) == FB3_OK) continue;
        queue->tracker[i] = NULL;
        give_up(queue->kind[i]->name);
    }
    while (take(queue, &event)) {
        deliver(queue, &event);
        free_texts(&event);
    }
    for (int i = 0; i < queue->count; i++)
        if (queue->tracker[i]) queue->tracker[i]->ops->close(queue->tracker[i], queue->left);
    pthread_mutex_lock(&queue->lock);
    queue->ended = true;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
    return FB3_OK;
}

/* --- the other side ----------------------------------------------------------------------------------------------- */

static void free_queue(fb3_track_queue *queue)
{
    pthread_cond_destroy(&queue->changed);
    pthread_mutex_destroy(&queue->lock);
    free(queue->event);
    free(queue->directory);
    free(queue);
}

static void make_locks(fb3_track_queue *queue)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&queue->lock, NULL);
}

fb3_status fb3_track_queue_open(fb3_track_queue **queue, const fb3_track_place *place,
                                const fb3_tracker_kind *const *kinds, int count)
{
    fb3_status status = FB3_OK;
    fb3_track_queue *made = calloc(1, sizeof *made);
    FB3_REQUIRE(made, FB3_FAILED, "out of memory for the trackers");
    make_locks(made);
    made->event = calloc(PLACES, sizeof *made->event);
    made->directory = strdup(place->directory);
    FB3_REQUIRE_GOTO(made->event && made->directory, failed, FB3_FAILED, "out of memory for the trackers");
    made->place = *place;
    made->place.directory = made->directory;
    for (int i = 0; i < count && made->count < MOST_TRACKERS; i++) made->kind[made->count++] = kinds[i];
    FB3_TRY_GOTO(fb3_worker_start(&made->worker, "trackers"), failed);
    FB3_TRY_GOTO(fb3_worker_submit(made->worker, work, made, &made->ticket), failed);
    *queue = made;
    return FB3_OK;
failed:
    fb3_worker_stop(made->worker);
    free_queue(made);
    return status;
}

void fb3_track_queue_put(fb3_track_queue *queue, fb3_track_kind kind, const void *record)
{
    if (!queue) return;
    const bool many = kind == FB3_TRACK_STEP || kind == FB3_TRACK_CONSOLE;
    track_event event;
    bool copied = copy_record(&event, kind, record), first_loss = false;
    pthread_mutex_lock(&queue->lock);
    bool put = copied && queue->waiting < (many ? PLACES_FOR_MANY : PLACES);
    if (put) {
        queue->event[(queue->first + queue->waiting++) % PLACES] = event;
        pthread_cond_broadcast(&queue->changed);
    } else {
        first_loss = !queue->left_out;
        queue->left_out = true;
    }
    pthread_mutex_unlock(&queue->lock);
    if (!put) free_texts(&event);
    if (first_loss)
        fb3_log_warn("report_to cannot keep up with training: steps are left out there, metrics.jsonl has them all");
}

int fb3_track_queue_waiting(fb3_track_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    int waiting = queue->waiting;
    pthread_mutex_unlock(&queue->lock);
    return waiting;
}

/* False when nothing has been delivered for so long that the file system must be hanging. With the lock. */
static bool wait_for_end(fb3_track_queue *queue)
{
    while (!queue->ended) {
        const long before = queue->delivered;
        struct timespec deadline;
        clock_gettime(CLOCK_MONOTONIC, &deadline);
        deadline.tv_sec += STALLED_SECONDS;
        int error = 0;
        while (!queue->ended && queue->delivered == before && error == 0)
            error = pthread_cond_timedwait(&queue->changed, &queue->lock, &deadline);
        if (error && queue->delivered == before && !queue->ended) return false;
    }
    return true;
}

void fb3_track_queue_close(fb3_track_queue *queue, fb3_status left)
{
    if (!queue) return;
    pthread_mutex_lock(&queue->lock);
    queue->left = left;
    queue->closing = true;
    pthread_cond_broadcast(&queue->changed);
    bool ended = wait_for_end(queue);
    pthread_mutex_unlock(&queue->lock);
    if (!ended) { /* the thread goes on with what is its own as long as the process lives */
        fb3_log_warn("report_to: nothing could be written for %d s; going on without it", STALLED_SECONDS);
        return;
    }
    (void)fb3_worker_wait(queue->worker, queue->ticket);
    fb3_worker_stop(queue->worker);
    free_queue(queue);
}
