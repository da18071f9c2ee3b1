/* One line at a time on standard error. A line is built whole and written by one call under a lock, so lines of
 * several threads do not mix. */
#include "fb3/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 4096, HOST_BYTES = 256 };

/* To the start of the line, and everything from there on goes. */
#define CLEAR "\r\033[J"

static struct {
    int rank, size;
    char host[HOST_BYTES];
    char group[32]; /* "group 1: ", in front of lines of the first rank of another group than rank 0's */
} identity = {.rank = 0, .size = 1};

static pthread_mutex_t line_lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
    fb3_log_listener heard;
    void *context;
    pthread_mutex_t lock; /* recursive: a listener may have something to say itself */
} listener = {.lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP};

static struct {
    atomic_bool known;   /* there may be one: lines clear it */
    atomic_bool over;    /* there will be none any more */
    atomic_bool drawing; /* a thread is about to write one; set before `over` is looked at */
    char *text;          /* NULL: it is not drawn. Like `lines` under line_lock */
    int lines;
} foot;

void fb3_log_identity(int rank, int size, const char *host)
{
    identity.rank = rank;
    identity.size = size;
    snprintf(identity.host, sizeof identity.host, "%s", host ? host : "");
}

bool fb3_log_speaks(void)
{
    return identity.rank == 0 || identity.group[0];
}

void fb3_log_group(int group)
{
    snprintf(identity.group, sizeof identity.group, "group %d: ", group);
}

void fb3_log_listen(fb3_log_listener heard, void *context)
{
    pthread_mutex_lock(&listener.lock);
    listener.heard = heard;
    listener.context = context;
    pthread_mutex_unlock(&listener.lock);
}

void fb3_log_overhear(const char *line)
{
    pthread_mutex_lock(&listener.lock);
    if (listener.heard) listener.heard(listener.context, line);
    pthread_mutex_unlock(&listener.lock);
}

/* With the lock. */
static void draw_foot(void)
{
    foot.drawing = true;
    if (foot.text && !foot.over) fprintf(stderr, CLEAR "\n%s\033[%dA", foot.text, foot.lines + 1);
    foot.drawing = false;
}

void fb3_log_write(const char *line)
{
    pthread_mutex_lock(&line_lock);
    fprintf(stderr, "%s%s\n", foot.known && !foot.over ? CLEAR : "", line);
    draw_foot();
    fflush(stderr);
    pthread_mutex_unlock(&line_lock);
}

void fb3_log_has_foot(void)
{
    foot.known = true;
}

void fb3_log_foot(const char *text, int lines)
{
    pthread_mutex_lock(&line_lock);
    if (foot.text && !text && !foot.over) fputs(CLEAR, stderr);
    free(foot.text);
    foot.text = text ? strdup(text) : NULL; /* without memory nothing is drawn */
    foot.lines = lines;
    draw_foot();
    fflush(stderr);
    pthread_mutex_unlock(&line_lock);
}

/* A foot that another thread is drawing must be there before it is cleared. A signal handler that has interrupted the
 * very thread that draws waits in vain, but not long. */
void fb3_log_drop_foot(void)
{
    enum { TRIES = 20, MILLISECONDS = 10 };
    if (!foot.known || atomic_exchange(&foot.over, true)) return;
    int interrupted = errno;
    for (int i = 0; i < TRIES && foot.drawing; i++) poll(NULL, 0, MILLISECONDS);
    ssize_t written = write(STDERR_FILENO, CLEAR, sizeof CLEAR - 1);
    (void)written;
    errno = interrupted;
}

static void write_line(const char *prefix, const char *text)
{
    char line[LINE_BYTES + HOST_BYTES + 128];
    snprintf(line, sizeof line, "%s%s%s", prefix, identity.group, text);
    fb3_log_write(line);
    fb3_log_overhear(line);
}

void fb3_log_info(const char *format, ...)
{
    if (!fb3_log_speaks()) return;
    char text[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    write_line("fb3-dist: ", text);
}

void fb3_log_warn(const char *format, ...)
{
    if (!fb3_log_speaks()) return;
    char text[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    write_line("fb3-dist: warning: ", text);
}

void fb3_log_error(const char *text)
{
    char prefix[HOST_BYTES + 64] = "fb3-dist: ";
    if (identity.size > 1)
        snprintf(prefix, sizeof prefix, "fb3-dist: [rank %d%s%s] ", identity.rank, identity.host[0] ? " " : "",
                 identity.host);
    fb3_log_drop_foot();
    write_line(prefix, text);
}
