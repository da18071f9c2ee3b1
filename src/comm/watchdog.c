/* The watchdog: nothing hangs for ever.
 *
 * A rank whose peer is gone, or whose file system does not answer, sits inside a call that never returns, so the way
 * out must be another thread. It looks at the deadline of whatever the main thread is waiting for a few times a
 * second; when that has passed it writes one line and ends the process with _exit(1), which takes no lock and runs no
 * clean-up that could hang in turn. The launcher then ends the other ranks. */
#include "watchdog.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NANOSECONDS = 1000000000, TICK_NANOSECONDS = 200000000 };

/* Work on the device may hold a sum between devices, which has the same deadline and knows better what to say. */
enum { DEVICE_GRACE_SECONDS = 2 };

struct fb3_watchdog {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    bool stop;
    bool armed;
    fb3_watch_kind kind;
    const char *what;
    int64_t step;
    struct timespec since;
    int64_t timeout; /* seconds */
    char who[128];   /* "[rank 3 node07] ", or nothing in a world of one */
};

static int64_t seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec - start->tv_sec - (now.tv_nsec < start->tv_nsec);
}

static void write_last_words(const fb3_watchdog *watchdog, int64_t age)
{
    static const char *const advice[] = {
        [FB3_WATCH_PEERS] = "another rank failed, stalled or is much slower: look for the first error of the other "
                            "ranks, or raise ddp_timeout",
        [FB3_WATCH_FILES] = "the file system or device does not answer: check it, or raise ddp_timeout",
        [FB3_WATCH_DEVICE] = "the device does not answer: check it (nvidia-smi), or raise ddp_timeout",
    };
    char step[48] = "";
    if (watchdog->step != FB3_WATCH_NO_STEP) snprintf(step, sizeof step, ", step %lld", (long long)watchdog->step);
    char line[512];
    int length = snprintf(line, sizeof line, "fb3-dist: %s%.160s%s: not finished after %lld s; %s\n", watchdog->who,
                          watchdog->what, step, (long long)age, advice[watchdog->kind]);
    ssize_t written = write(STDERR_FILENO, line, (size_t)length);
    (void)written; /* there is nobody left to tell */
}

static void *watch(void *argument)
{
    fb3_watchdog *watchdog = argument;
    pthread_mutex_lock(&watchdog->lock);
    while (!watchdog->stop) {
        int64_t age = watchdog->armed ? seconds_since(&watchdog->since) : 0;
        int64_t grace = watchdog->kind == FB3_WATCH_DEVICE ? DEVICE_GRACE_SECONDS : 0;
        if (watchdog->armed && age >= watchdog->timeout + grace) {
            write_last_words(watchdog, age);
            _exit(FB3_FAILED);
        }
        struct timespec next;
        clock_gettime(CLOCK_MONOTONIC, &next);
        next.tv_nsec += TICK_NANOSECONDS;
        if (next.tv_nsec >= NANOSECONDS) {
            next.tv_nsec -= NANOSECONDS;
            next.tv_sec++;
        }
        pthread_cond_timedwait(&watchdog->stopped, &watchdog->lock, &next);
    }
    pthread_mutex_unlock(&watchdog->lock);
    return NULL;
}

/* The thread takes no signals: stop requests are the main thread's. */
static int start_thread(fb3_watchdog *watchdog)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&watchdog->thread, NULL, watch, watchdog);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

fb3_status fb3_watchdog_start(fb3_watchdog **watchdog, int64_t timeout_seconds)
{
    assert(timeout_seconds > 0);
    *watchdog = NULL;
    fb3_watchdog *made = calloc(1, sizeof *made);
    FB3_REQUIRE(made, FB3_FAILED, "out of memory; free memory and run again");
    made->timeout = timeout_seconds;

    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&made->stopped, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&made->lock, NULL);

    int failed = start_thread(made);
    if (failed) {
        pthread_cond_destroy(&made->stopped);
        pthread_mutex_destroy(&made->lock);
        free(made);
        return fb3_fail(FB3_FAILED, "cannot start a thread: %s; raise the limit on processes (ulimit -u)",
                        strerror(failed));
    }
    *watchdog = made;
    return FB3_OK;
}

void fb3_watchdog_identify(fb3_watchdog *watchdog, int rank, int size, const char *host)
{
    pthread_mutex_lock(&watchdog->lock);
    if (size > 1) snprintf(watchdog->who, sizeof watchdog->who, "[rank %d%s%.64s] ", rank, host[0] ? " " : "", host);
    pthread_mutex_unlock(&watchdog->lock);
}

void fb3_watchdog_stop(fb3_watchdog *watchdog)
{
    if (!watchdog) return;
    pthread_mutex_lock(&watchdog->lock);
    watchdog->stop = true;
    pthread_cond_signal(&watchdog->stopped);
    pthread_mutex_unlock(&watchdog->lock);
    pthread_join(watchdog->thread, NULL);
    pthread_cond_destroy(&watchdog->stopped);
    pthread_mutex_destroy(&watchdog->lock);
    free(watchdog);
}

void fb3_watchdog_begin(fb3_watchdog *watchdog, fb3_watch_kind kind, const char *what, int64_t step)
{
    pthread_mutex_lock(&watchdog->lock);
    assert(!watchdog->armed);
    watchdog->armed = true;
    watchdog->kind = kind;
    watchdog->what = what;
    watchdog->step = step;
    clock_gettime(CLOCK_MONOTONIC, &watchdog->since);
    pthread_mutex_unlock(&watchdog->lock);
}

void fb3_watchdog_end(fb3_watchdog *watchdog)
{
    pthread_mutex_lock(&watchdog->lock);
    assert(watchdog->armed);
    watchdog->armed = false;
    pthread_mutex_unlock(&watchdog->lock);
}
