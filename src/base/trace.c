/* The Chrome trace: complete events ("ph":"X") in microseconds since the trace began, one row per thread. */
#include "fb3/trace.h"
#include "fb3/clock.h"
#include "fb3/file.h"
#include "fb3/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LARGEST_TRACE = 1 << 20, THREADS_MAX = 64 };

typedef struct span {
    double begin, seconds, number;
    const char *category, *name, *key;
    int thread;
} span;

static struct trace {
    bool on, full;
    double begin;
    char *path, *process;
    span *spans; /* [capacity] */
    int count, capacity;
    pthread_t thread[THREADS_MAX];
    int threads;
    pthread_mutex_t lock;
} trace = {.lock = PTHREAD_MUTEX_INITIALIZER};

fb3_status fb3_trace_start(const char *path, const char *process)
{
    trace.path = strdup(path);
    trace.process = strdup(process);
    FB3_REQUIRE(trace.path && trace.process, FB3_FAILED, "out of memory for the trace");
    FB3_TRY(fb3_file_write(path, "", 0)); /* better to fail now than after hours */
    trace.begin = fb3_seconds();
    trace.on = true;
    return FB3_OK;
}

bool fb3_trace_on(void)
{
    return trace.on;
}

double fb3_trace_begin(void)
{
    return trace.on ? fb3_seconds() : 0;
}

static int thread_number(void)
{
    pthread_t self = pthread_self();
    for (int t = 0; t < trace.threads; t++)
        if (pthread_equal(trace.thread[t], self)) return t;
    if (trace.threads == THREADS_MAX) return THREADS_MAX - 1;
    trace.thread[trace.threads] = self;
    return trace.threads++;
}

static bool grow(void)
{
    int capacity = trace.capacity ? 2 * trace.capacity : 1 << 12;
    span *grown = capacity > LARGEST_TRACE ? NULL : realloc(trace.spans, (size_t)capacity * sizeof *grown);
    if (!grown) {
        trace.full = true;
        fb3_log_warn("%s: the trace is full after %d spans; later steps are not in it", trace.path, trace.count);
        return false;
    }
    trace.spans = grown;
    trace.capacity = capacity;
    return true;
}

void fb3_trace_end(double begin, const char *category, const char *name, const char *key, double number)
{
    if (!trace.on) return;
    double end = fb3_seconds();
    pthread_mutex_lock(&trace.lock);
    if (!trace.full && (trace.count < trace.capacity || grow())) {
        trace.spans[trace.count++] = (span){.begin = begin - trace.begin,
                                            .seconds = end - begin,
                                            .number = number,
                                            .category = category,
                                            .name = name,
                                            .key = key,
                                            .thread = thread_number()};
    }
    pthread_mutex_unlock(&trace.lock);
}

static void write_spans(FILE *file)
{
    fprintf(file, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
    fprintf(file, "{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":\"%s\"}}", trace.process);
    for (int i = 0; i < trace.count; i++) {
        const span *s = &trace.spans[i];
        fprintf(file, ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"cat\":\"%s\",\"name\":\"%s\",\"ts\":%.3f,\"dur\":%.3f",
                s->thread, s->category, s->name, 1e6 * s->begin, 1e6 * s->seconds);
        if (s->key) fprintf(file, ",\"args\":{\"%s\":%.6g}", s->key, s->number);
        fputc('}', file);
    }
    fprintf(file, "\n]}\n");
}

fb3_status fb3_trace_finish(void)
{
    if (!trace.on) return FB3_OK;
    trace.on = false;
    char *text = NULL;
    size_t bytes = 0;
    FILE *file = open_memstream(&text, &bytes);
    fb3_status status = FB3_OK;
    if (file) {
        write_spans(file);
        if (fclose(file) != 0) status = fb3_fail(FB3_FAILED, "out of memory for the trace");
    } else {
        status = fb3_fail(FB3_FAILED, "out of memory for the trace");
    }
    if (status == FB3_OK) status = fb3_file_write(trace.path, text, bytes);
    free(text);
    free(trace.spans);
    free(trace.path);
    free(trace.process);
    trace.spans = NULL;
    trace.path = trace.process = NULL;
    trace.count = trace.capacity = 0;
    return status;
}
