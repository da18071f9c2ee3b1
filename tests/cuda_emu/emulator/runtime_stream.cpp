/* Entry points of cudart: streams, events, host functions. */
#include "runtime.h"
#include "scheduler.h"

#include <chrono>

namespace cudaemu
{

static bool in_host_function;

void refuse_in_host_function(const char *call)
{
    if (in_host_function) fail("%s inside a function of cudaLaunchHostFunc, which must not call CUDA", call);
}

static double seconds()
{
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

} // namespace cudaemu

using namespace cudaemu;

extern "C" {

/* --- streams ------------------------------------------------------------------------------------------------------ */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    CUDAEMU_ENTRY;
    if (flags & ~(unsigned)cudaStreamNonBlocking) return remember(cudaErrorInvalidValue);
    *stream = (cudaStream_t)stream_create(!(flags & cudaStreamNonBlocking), priority, current_device);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    CUDAEMU_ENTRY;
    Stream *s = stream_of(stream, __func__);
    if (!s) return remember(cudaErrorInvalidResourceHandle);
    stream_destroy(s);
    return cudaSuccess;
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority)
{
    CUDAEMU_ENTRY;
    Stream *s = stream_of(stream, __func__);
    *priority = s ? s->priority : 0;
    return cudaSuccess;
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned *flags)
{
    CUDAEMU_ENTRY;
    Stream *s = stream_of(stream, __func__);
    *flags = s && !s->blocking ? cudaStreamNonBlocking : cudaStreamDefault;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    CUDAEMU_ENTRY;
    Stream *s = stream_of(stream, __func__);
    if (s)
        drain(s);
    else
        enqueue(nullptr, {[] { return true; }, nullptr, 0, false});
    return cudaSuccess;
}

/* Each question moves the device on by one operation, so polling ends. */
cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    CUDAEMU_ENTRY;
    Stream *s = stream_of(stream, __func__);
    if (!s || s->queue.empty()) return cudaSuccess;
    step_any();
    return cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize(void)
{
    CUDAEMU_ENTRY;
    drain_all();
    return cudaSuccess;
}

cudaError_t cudaDeviceReset(void)
{
    return cudaDeviceSynchronize();
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *argument)
{
    CUDAEMU_ENTRY;
    Operation operation;
    operation.run = [function, argument] {
        in_host_function = true;
        function(argument);
        in_host_function = false;
        return true;
    };
    enqueue(stream_of(stream, __func__), std::move(operation));
    return cudaSuccess;
}

/* --- events ------------------------------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    CUDAEMU_ENTRY;
    *event = event_create(!(flags & cudaEventDisableTiming));
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    CUDAEMU_ENTRY;
    event_destroy(event, __func__);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    CUDAEMU_ENTRY;
    auto e = event_of(event, __func__);
    unsigned long record = ++e->recorded;
    Operation operation;
    operation.run = [e, record] {
        e->done = max(e->done, record);
        e->time = seconds();
        return true;
    };
    enqueue(stream_of(stream, __func__), std::move(operation));
    return cudaSuccess;
}

/* For the record that is the last one now; an event that was never recorded holds nobody up. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    CUDAEMU_ENTRY;
    (void)flags;
    auto e = event_of(event, __func__);
    unsigned long record = e->recorded;
    Operation operation;
    operation.run = [e, record] { return e->done >= record; };
    enqueue(stream_of(stream, __func__), std::move(operation));
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    CUDAEMU_ENTRY;
    auto e = event_of(event, __func__);
    unsigned long record = e->recorded;
    run_until([e, record] { return e->done >= record; });
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    CUDAEMU_ENTRY;
    auto e = event_of(event, __func__);
    if (e->done >= e->recorded) return cudaSuccess;
    step_any();
    return cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    CUDAEMU_ENTRY;
    auto a = event_of(start, __func__), b = event_of(end, __func__);
    if (!a->timing || !b->timing || !a->recorded || !b->recorded) return remember(cudaErrorInvalidResourceHandle);
    if (a->done < a->recorded || b->done < b->recorded) return cudaErrorNotReady;
    *milliseconds = (float)((b->time - a->time) * 1e3);
    return cudaSuccess;
}

} // extern "C"
