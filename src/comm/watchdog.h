/* A thread that ends the process when the main thread waits too long. It makes no MPI call (DESIGN 5.4). */
#ifndef FB3_WATCHDOG_H
#define FB3_WATCHDOG_H

#include "fb3/status.h"
#include <stdint.h>

typedef struct fb3_watchdog fb3_watchdog;

/* What the main thread waits for decides what the last words advise. */
typedef enum fb3_watch_kind { FB3_WATCH_PEERS, FB3_WATCH_FILES, FB3_WATCH_DEVICE } fb3_watch_kind;

enum { FB3_WATCH_NO_STEP = -1 };

fb3_status fb3_watchdog_start(fb3_watchdog **watchdog, int64_t timeout_seconds);
/* Who this process is, for the message, once MPI has said so. */
void fb3_watchdog_identify(fb3_watchdog *watchdog, int rank, int size, const char *host);
void fb3_watchdog_stop(fb3_watchdog *watchdog); /* NULL is fine */

/* Between the two calls the deadline counts. `what` must live until the end. Not nested. */
void fb3_watchdog_begin(fb3_watchdog *watchdog, fb3_watch_kind kind, const char *what, int64_t step);
void fb3_watchdog_end(fb3_watchdog *watchdog);

#endif
