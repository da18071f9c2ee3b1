/* Looking at a backend while it works: an observer is told of every operation. */
#ifndef FB3_OBSERVER_H
#define FB3_OBSERVER_H

#include "fb3/backend.h"

/* What an operation executed: flops of matrix products, or bytes that it has to move at least, where that is what it
 * does. */
typedef struct fb3_work {
    double flops, bytes;
} fb3_work;

/* Every function may be NULL. */
typedef struct fb3_observer {
    const char *name; /* of the mode, for messages: "checked" */
    void *context;
    bool poison; /* fresh memory is filled with NaN */
    fb3_status (*before)(void *context, fb3_backend *be);
    /* `op` is the slot of the table; the operation may still be running on the device */
    fb3_status (*after)(void *context, fb3_backend *be, const char *op, fb3_work work);
    /* one output of the operation: `n` values of x; or one of the n doubles of an output. Both or none of the two. */
    fb3_status (*output)(void *context, fb3_backend *be, const char *op, const char *output, const void *x,
                         fb3_dtype type, int64_t n);
    fb3_status (*output_double)(void *context, fb3_backend *be, const char *op, const char *output, double value,
                                int n);
    void (*end)(void *context, fb3_backend *be); /* frees the context */
} fb3_observer;

/* Wraps the backend's table until the backend closes or fb3_backend_observe_end(). One observer at a time. */
fb3_status fb3_backend_observe(fb3_backend *backend, const fb3_observer *observer);
void fb3_backend_observe_end(fb3_backend *backend);
/* The device's own table, for an observer that calls operations itself. */
const fb3_ops *fb3_backend_device_ops(const fb3_backend *backend);

#endif
