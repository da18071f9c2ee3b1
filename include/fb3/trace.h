/* --profile: what this process did when, as a Chrome trace (open it in Perfetto or chrome://tracing).
 *
 * One trace a process, like the log; off unless fb3_trace_start() was called, and then a span costs a branch. Spans may
 * come from any thread. They are kept in memory, up to a limit that is said once, and written when the trace ends. */
#ifndef FB3_TRACE_H
#define FB3_TRACE_H

#include "fb3/status.h"
#include <stdbool.h>

/* Begins a trace that fb3_trace_finish() writes to `path`; `process` names this process in it. */
fb3_status fb3_trace_start(const char *path, const char *process);
bool fb3_trace_on(void);
/* Seconds of a monotonic clock: the begin of a span; 0 while the trace is off. */
double fb3_trace_begin(void);
/* Ends a span. `category` and `name` must live as long as the trace (string literals). `number` is shown with it under
 * the name `key`; key NULL: nothing. */
void fb3_trace_end(double begin, const char *category, const char *name, const char *key, double number);
/* Writes the file. FB3_FAILED when that cannot be done. Nothing when the trace is off. */
fb3_status fb3_trace_finish(void);

#endif
