#include "stream.h"
#include "check.h"
#include "memory.h"
#include "scheduler.h"
#include "library_calls.h"

#include <algorithm>
#include <map>
#include <sched.h>

namespace cudaemu
{

std::recursive_mutex api_mutex;
static std::vector<Stream *> streams;
static std::map<cudaEvent_t, std::shared_ptr<Event>> events;

/* --- handles ------------------------------------------------------------------------------------------------------ */

Stream *stream_of(cudaStream_t stream, const char *what)
{
    if (!stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread) return nullptr;
    auto it = std::find(streams.begin(), streams.end(), (Stream *)stream);
    if (it == streams.end() || (*it)->destroyed) fail("%s: stream %p is not alive: destroyed?", what, (void *)stream);
    return *it;
}

Stream *stream_create(bool blocking, int priority, int device)
{
    Stream *s = new Stream;
    s->blocking = blocking;
    s->priority = priority;
    s->device = device;
    streams.push_back(s);
    return s;
}

static void delete_if_done(Stream *s)
{
    if (!s->destroyed || !s->queue.empty()) return;
    streams.erase(std::find(streams.begin(), streams.end(), s));
    delete s;
}

/* What is queued still runs, some time: destroying a stream does not wait for it. */
void stream_destroy(Stream *s)
{
    s->destroyed = true;
    delete_if_done(s);
}

std::shared_ptr<Event> event_of(cudaEvent_t event, const char *what)
{
    auto it = events.find(event);
    if (it == events.end()) fail("%s: event %p is not alive: destroyed?", what, (void *)event);
    return it->second;
}

cudaEvent_t event_create(bool timing)
{
    auto e = std::make_shared<Event>();
    e->timing = timing;
    events[(cudaEvent_t)e.get()] = e;
    return (cudaEvent_t)e.get();
}

void event_destroy(cudaEvent_t event, const char *what)
{
    event_of(event, what);
    events.erase(event);
}

/* --- running ------------------------------------------------------------------------------------------------------ */

static bool step(Stream *s)
{
    auto run = s->queue.front().run; /* a copy: it may queue more */
    if (!run()) return false;
    s->queue.pop_front();
    delete_if_done(s);
    return true;
}

bool step_any()
{
    std::vector<Stream *> ready;
    for (Stream *s : streams)
        if (!s->queue.empty()) ready.push_back(s);
    while (!ready.empty()) {
        unsigned k = random_below((unsigned)ready.size());
        if (step(ready[k])) return true;
        ready.erase(ready.begin() + k);
    }
    return false;
}

void run_until(const std::function<bool()> &done)
{
    while (!done()) {
        if (step_any()) continue;
        bool outside = false;
        for (Stream *s : streams) outside = outside || (!s->queue.empty() && s->queue.front().outside);
        if (!outside) fail("the streams wait for each other");
        sched_yield();
    }
}

void drain(Stream *stream)
{
    run_until([stream] { return stream->queue.empty(); });
}

void drain_all()
{
    run_until([] { return std::all_of(streams.begin(), streams.end(), [](Stream *s) { return s->queue.empty(); }); });
}

/* The default stream's work begins when what the blocking streams hold has ended. */
static void drain_blocking()
{
    run_until([] {
        return std::all_of(streams.begin(), streams.end(), [](Stream *s) { return !s->blocking || s->queue.empty(); });
    });
}

void enqueue(Stream *stream, Operation operation)
{
    if (!stream) {
        drain_blocking();
        while (!operation.run())
            if (!step_any()) {
                if (!operation.outside) fail("an operation of the default stream waits for ever");
                sched_yield();
            }
        return;
    }
    stream->queue.push_back(std::move(operation));
    if (!options.lazy) drain(stream);
}

bool host_memory_in_use(const void *p, size_t bytes)
{
    const char *low = (const char *)p;
    for (Stream *s : streams)
        for (const Operation &o : s->queue)
            if (o.host && o.host < low + bytes && low < o.host + o.host_bytes) return true;
    return false;
}

} // namespace cudaemu

/* --- for the libraries' stand-ins --------------------------------------------------------------------------------- */

using namespace cudaemu;

void cudaemu_enqueue(cudaStream_t stream, int (*run)(void *), void *arg)
{
    std::lock_guard<std::recursive_mutex> lock(api_mutex);
    initialise();
    Operation operation;
    operation.outside = true;
    operation.run = [run, arg] {
        memory_open();
        int done = run(arg);
        memory_close();
        return done != 0;
    };
    enqueue(stream_of(stream, "a library call"), std::move(operation));
}

static void check_library_range(const void *p, size_t n, const char *what)
{
    if (n == 0) return;
    if (!in_arena(p)) fail("%s: %p is not device memory", what, p);
    memory_check_range(p, n, what);
}

void cudaemu_written(void *p, size_t n)
{
    check_library_range(p, n, "a library's output");
    check_written(p, n);
}

void cudaemu_reads(const void *p, size_t n)
{
    check_library_range(p, n, "a library's input");
    check_read_by_library(p, n);
}
