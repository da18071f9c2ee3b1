/* Streams and events: queues whose operations run as late, and in as odd an order, as CUDA allows. Internal. */
#ifndef CUDAEMU_STREAM_H
#define CUDAEMU_STREAM_H

#include "options.h"

#include <cuda_runtime.h>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace cudaemu
{

extern std::recursive_mutex api_mutex; /* host threads take turns */

struct Operation {
    std::function<bool()> run;  /* false: not yet */
    const char *host = nullptr; /* the host memory that it will use, */
    size_t host_bytes = 0;
    bool outside = false; /* it may wait for another process */
};
struct Stream {
    std::deque<Operation> queue;
    int device = 0, priority = 0;
    bool blocking = true;   /* waits for the default stream and is waited for by it */
    bool destroyed = false; /* to be deleted when its queue is empty */
};
struct Event {
    unsigned long recorded = 0, done = 0; /* numbers of records: queued, reached */
    double time = 0.0;                    /* of the last one reached, in seconds */
    bool timing = true;
};

/* Null for the default stream; fails on a stream that is not alive. */
Stream *stream_of(cudaStream_t stream, const char *what);
Stream *stream_create(bool blocking, int priority, int device);
void stream_destroy(Stream *stream);
std::shared_ptr<Event> event_of(cudaEvent_t event, const char *what);
cudaEvent_t event_create(bool timing);
void event_destroy(cudaEvent_t event, const char *what);

/* Queues an operation; on the default stream it runs before the call returns. */
void enqueue(Stream *stream, Operation operation);
/* Runs one operation of any stream that can run; false: none can. */
bool step_any();
void run_until(const std::function<bool()> &done);
void drain(Stream *stream);
void drain_all();
/* A queued operation that uses host memory of [p, p + bytes). */
bool host_memory_in_use(const void *p, size_t bytes);

} // namespace cudaemu

#endif
