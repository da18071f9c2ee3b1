/* Seconds of a monotonic clock. */
#ifndef FB3_CLOCK_H
#define FB3_CLOCK_H

double fb3_seconds(void);

#endif
