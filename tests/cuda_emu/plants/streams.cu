/* Plants: streams, events, pinned memory; and what the emulated device says of itself. The program's entry is here. */
#include "plants.h"

__global__ void fill(float *out, float value)
{
    out[threadIdx.x] = value;
}
__global__ void add_one(const float *x, float *out)
{
    out[threadIdx.x] = x[threadIdx.x] + 1.0f;
}

enum { NO_WAIT = 1, WAIT_TOO_EARLY };

/* One stream fills x, another reads it. */
static int two_streams(int bug)
{
    float *x = device_zeros(N), *out = device_zeros(N);
    cudaStream_t a, b;
    cudaEvent_t filled;
    TRY(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    TRY(cudaStreamCreateWithPriority(&b, cudaStreamNonBlocking, -1));
    TRY(cudaEventCreateWithFlags(&filled, cudaEventDisableTiming));
    if (bug == WAIT_TOO_EARLY) TRY(cudaStreamWaitEvent(b, filled, 0));
    TRY(FB3_LAUNCH(fill, 1, N, 0, a, x, 5.0f));
    TRY(cudaEventRecord(filled, a));
    if (bug == 0) TRY(cudaStreamWaitEvent(b, filled, 0));
    TRY(FB3_LAUNCH(add_one, 1, N, 0, b, x, out));
    TRY(cudaStreamSynchronize(b));
    TRY(cudaStreamSynchronize(a));
    EXPECT(out, N, 6);
    TRY(cudaEventDestroy(filled));
    TRY(cudaStreamDestroy(a));
    TRY(cudaStreamDestroy(b));
    return 0;
}
static int missing_event_wait(int bug)
{
    return two_streams(bug ? NO_WAIT : 0);
}
static int event_recorded_after_the_wait(int bug)
{
    return two_streams(bug ? WAIT_TOO_EARLY : 0);
}

enum { REUSED = 1, FREED, STREAM_GONE, DESTROYED_UNWAITED, EVENT_GONE };

static int upload(int bug)
{
    float *x = device_zeros(N), *pinned = NULL, *back = NULL;
    cudaStream_t stream;
    cudaEvent_t sent;
    TRY(cudaHostAlloc((void **)&pinned, N * sizeof *pinned, cudaHostAllocDefault));
    TRY(cudaHostAlloc((void **)&back, N * sizeof *back, cudaHostAllocDefault));
    TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    TRY(cudaEventCreate(&sent));
    for (int i = 0; i < N; i++) pinned[i] = (float)i, back[i] = -1.0f;
    TRY(cudaMemcpyAsync(x, pinned, N * sizeof *x, cudaMemcpyHostToDevice, stream));
    TRY(cudaEventRecord(sent, stream));
    if (bug == EVENT_GONE) TRY(cudaEventDestroy(sent));
    if (bug == FREED) TRY(cudaFreeHost(pinned));
    if (bug == 0 || bug == EVENT_GONE) TRY(cudaEventSynchronize(sent));
    if (bug == REUSED || bug == 0)
        for (int i = 0; i < N; i++) pinned[i] = -2.0f;
    if (bug == STREAM_GONE) TRY(cudaStreamDestroy(stream));
    TRY(cudaMemcpyAsync(back, x, N * sizeof *x, cudaMemcpyDeviceToHost, stream));
    if (bug != DESTROYED_UNWAITED) TRY(cudaStreamSynchronize(stream));
    TRY(cudaStreamDestroy(stream));
    for (int i = 0; i < N; i++)
        if (back[i] != (float)i) return wrong("back", back[i], i);
    TRY(cudaFreeHost(pinned));
    TRY(cudaFreeHost(back));
    TRY(cudaEventDestroy(sent));
    return 0;
}
static int pinned_buffer_reused(int bug)
{
    return upload(bug ? REUSED : 0);
}
static int pinned_buffer_freed(int bug)
{
    return upload(bug ? FREED : 0);
}
static int stream_used_after_destroy(int bug)
{
    return upload(bug ? STREAM_GONE : 0);
}
static int destroy_does_not_wait(int bug)
{
    return upload(bug ? DESTROYED_UNWAITED : 0);
}
static int event_used_after_destroy(int bug)
{
    return upload(bug ? EVENT_GONE : 0);
}

static void CUDART_CB count_call(void *counter)
{
    ++*(int *)counter;
}
static void CUDART_CB wait_for_device(void *counter)
{
    ++*(int *)counter;
    cudaDeviceSynchronize();
}
static int cuda_in_a_host_function(int bug)
{
    int calls = 0;
    cudaStream_t stream;
    TRY(cudaStreamCreate(&stream));
    TRY(cudaLaunchHostFunc(stream, bug ? wait_for_device : count_call, &calls));
    TRY(cudaStreamSynchronize(stream));
    return calls == 1 ? 0 : wrong("calls", calls, 1);
}

static int not_enough_memory(int bug)
{
    size_t left = 0, total = 0;
    void *all = NULL;
    TRY(cudaMemGetInfo(&left, &total));
    TRY(cudaMalloc(&all, bug ? total + 1 : 1));
    TRY(cudaFree(all));
    return 0;
}

/* Not a plant: run.py compares what it prints. */
static int describe_device(int bug)
{
    (void)bug;
    int count = -7, driver = -7, attribute = -7;
    char bus[32] = "";
    struct cudaDeviceProp p;
    cudaError_t error = cudaGetDeviceCount(&count);
    TRY(cudaDriverGetVersion(&driver));
    printf("driver %d, count %d, %s\n", driver, count, cudaGetErrorName(error));
    if (error != cudaSuccess) return 0;
    TRY(cudaSetDevice(count - 1));
    TRY(cudaGetDeviceProperties(&p, count - 1));
    TRY(cudaDeviceGetPCIBusId(bus, sizeof bus, count - 1));
    TRY(cudaDeviceGetAttribute(&attribute, cudaDevAttrMaxSharedMemoryPerBlockOptin, count - 1));
    printf("%s, capability %d.%d, %zu MiB, bus %s, shared %d\n", p.name, p.major, p.minor, p.totalGlobalMem >> 20, bus,
           attribute);
    return 0;
}

const plant STREAM_PLANTS[] = {
    {"missing_event_wait", missing_event_wait},
    {"event_recorded_after_the_wait", event_recorded_after_the_wait},
    {"pinned_buffer_reused", pinned_buffer_reused},
    {"pinned_buffer_freed", pinned_buffer_freed},
    {"stream_used_after_destroy", stream_used_after_destroy},
    {"destroy_does_not_wait", destroy_does_not_wait},
    {"event_used_after_destroy", event_used_after_destroy},
    {"cuda_in_a_host_function", cuda_in_a_host_function},
    {"not_enough_memory", not_enough_memory},
    {"describe_device", describe_device},
    {NULL, NULL},
};

/* Runs a plant, or ("all") each of them. */
extern "C" int plant_main(const char *name, int bug)
{
    const plant *const lists[] = {SYNC_PLANTS, MEMORY_PLANTS, STREAM_PLANTS};
    int found = 0, result = 0;
    for (const plant *list : lists)
        for (; list->name != NULL; list++) {
            if (strcmp(name, "all") != 0 && strcmp(name, list->name) != 0) continue;
            found++;
            int one = list->run(bug);
            if (one != 0) fprintf(stderr, "%s: %d\n", list->name, one);
            if (one > result) result = one;
        }
    if (!found)
        fprintf(stderr, "no plant is called %s\n", name);
    else
        printf("%d programs ran\n", found);
    return found ? result : 3;
}
