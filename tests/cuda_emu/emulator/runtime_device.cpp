/* Entry points of cudart: devices, versions, errors, functions. */
#include "runtime.h"
#include "memory.h"
#include "ptx.h"
#include "scheduler.h"

#include <cstdio>
#include <cstring>
#include <map>

namespace cudaemu
{

thread_local int current_device;
static thread_local cudaError_t last_error = cudaSuccess;
static std::map<const void *, int> dynamic_shared_max; /* by kernel: cudaFuncSetAttribute */

cudaError_t remember(cudaError_t error)
{
    if (error != cudaSuccess) last_error = error;
    return error;
}

/* A driver runs programs of its own and earlier toolkits; within a major version, of later ones too. */
bool driver_suffices()
{
    return options.driver / 1000 >= CUDART_VERSION / 1000;
}

enum : size_t { SHARED_DEFAULT = 48 << 10 };

size_t shared_bytes_max()
{
    int capability = 10 * options.major + options.minor;
    if (capability >= 120) return 99 << 10;
    if (capability >= 90) return 227 << 10;
    if (capability == 80 || capability == 87) return 163 << 10;
    return 99 << 10;
}
static size_t shared_bytes_multiprocessor()
{
    return shared_bytes_max() + 1024 <= 100 << 10 ? 100 << 10 : shared_bytes_max() == 163 << 10 ? 164 << 10 : 228 << 10;
}
static int multiprocessors()
{
    return options.major >= 10 ? 148 : options.major == 9 ? 132 : 108;
}

static const char *launch_problem(const Launch &l)
{
    const dim3 &g = l.grid, &b = l.block;
    if (!g.x || !g.y || !g.z || !b.x || !b.y || !b.z) return "an empty grid or block";
    if (g.x > 2147483647u || g.y > 65535 || g.z > 65535) return "the grid is too large";
    if (b.x > 1024 || b.y > 1024 || b.z > 64 || (size_t)b.x * b.y * b.z > 1024) return "the block is too large";
    return nullptr;
}

cudaError_t launch(Launch l, cudaStream_t stream_)
{
    CUDAEMU_ENTRY;
    if (current) fail("a launch inside a kernel");
    if (launch_problem(l)) return remember(cudaErrorInvalidConfiguration);
    auto limit = dynamic_shared_max.find(l.kernel);
    size_t most = limit == dynamic_shared_max.end() ? (size_t)SHARED_DEFAULT : (size_t)limit->second;
    if (l.dynamic_shared > most) return remember(cudaErrorInvalidValue);
    if (ptx_active()) {
        cudaError_t error = ptx_check_launch(l, most > SHARED_DEFAULT ? shared_bytes_max() : SHARED_DEFAULT);
        if (error != cudaSuccess) return remember(error);
    }
    Stream *stream = stream_of(stream_, l.text);
    if (stream && stream->device != current_device) return remember(cudaErrorInvalidResourceHandle);
    auto shared = std::make_shared<Launch>(std::move(l));
    Operation operation;
    operation.run = [shared] {
        run_grid(*shared);
        return true;
    };
    enqueue(stream, std::move(operation));
    return cudaSuccess;
}

} // namespace cudaemu

using namespace cudaemu;

extern "C" {

/* --- devices ------------------------------------------------------------------------------------------------------ */

cudaError_t cudaGetDeviceCount(int *n)
{
    CUDAEMU_ENTRY;
    if (options.devices <= 0) return remember(cudaErrorNoDevice);
    *n = options.devices;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    CUDAEMU_ENTRY;
    if (device < 0 || device >= options.devices) return remember(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    CUDAEMU_ENTRY;
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int bytes, int device)
{
    CUDAEMU_ENTRY;
    if (device < 0 || device >= options.devices) return remember(cudaErrorInvalidDevice);
    if (!id || bytes < 13) return remember(cudaErrorInvalidValue);
    snprintf(id, (size_t)bytes, "0000:%02X:00.0", (unsigned)(0x10 + device) & 0xff);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) /* a macro, with CUDA 12, for ..._v2 */
{
    CUDAEMU_ENTRY;
    if (device < 0 || device >= options.devices) return remember(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated device");
    memset(&p->uuid, 0xE0 + device, sizeof p->uuid);
    p->totalGlobalMem = options.memory;
    p->sharedMemPerBlock = SHARED_DEFAULT;
    p->sharedMemPerBlockOptin = shared_bytes_max();
    p->sharedMemPerMultiprocessor = shared_bytes_multiprocessor();
    p->reservedSharedMemPerBlock = 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxBlocksPerMultiProcessor = 32;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 65536;
    p->major = options.major;
    p->minor = options.minor;
    p->multiProcessorCount = multiprocessors();
    p->textureAlignment = 512;
    p->memPitch = 2147483647;
    p->concurrentKernels = 1;
    p->asyncEngineCount = 2;
    p->unifiedAddressing = 1;
    p->canMapHostMemory = 0;
    p->ECCEnabled = 1;
    p->l2CacheSize = 50 << 20;
    p->memoryBusWidth = 5120;
    p->streamPrioritiesSupported = 1;
    p->globalL1CacheSupported = p->localL1CacheSupported = 1;
    p->pciBusID = 0x10 + device;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    CUDAEMU_ENTRY;
    if (device < 0 || device >= options.devices) return remember(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        break;
    case cudaDevAttrMaxBlockDimX:
        *value = 1024;
        break;
    case cudaDevAttrMaxBlockDimY:
        *value = 1024;
        break;
    case cudaDevAttrMaxBlockDimZ:
        *value = 64;
        break;
    case cudaDevAttrMaxGridDimX:
        *value = 2147483647;
        break;
    case cudaDevAttrMaxGridDimY:
        *value = 65535;
        break;
    case cudaDevAttrMaxGridDimZ:
        *value = 65535;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = SHARED_DEFAULT;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)shared_bytes_max();
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)shared_bytes_multiprocessor();
        break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
        *value = 1024;
        break;
    case cudaDevAttrWarpSize:
        *value = 32;
        break;
    case cudaDevAttrMaxRegistersPerBlock:
        *value = 65536;
        break;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
        *value = 65536;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = multiprocessors();
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = 2048;
        break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
        *value = 32;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = options.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = options.minor;
        break;
    case cudaDevAttrPciBusId:
        *value = 0x10 + device;
        break;
    case cudaDevAttrPciDeviceId:
        *value = 0;
        break;
    case cudaDevAttrPciDomainId:
        *value = 0;
        break;
    case cudaDevAttrL2CacheSize:
        *value = 50 << 20;
        break;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = 5120;
        break;
    case cudaDevAttrClockRate:
        *value = 1000000;
        break;
    case cudaDevAttrMemoryClockRate:
        *value = 1000000;
        break;
    case cudaDevAttrConcurrentKernels:
        *value = 1;
        break;
    case cudaDevAttrUnifiedAddressing:
        *value = 1;
        break;
    case cudaDevAttrStreamPrioritiesSupported:
        *value = 1;
        break;
    case cudaDevAttrMemoryPoolsSupported:
        *value = 1;
        break;
    case cudaDevAttrCooperativeLaunch:
        *value = 0;
        break;
    default:
        return remember(cudaErrorNotSupported);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    CUDAEMU_ENTRY;
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    CUDAEMU_ENTRY;
    (void)device, (void)peer;
    *can = 0;
    return cudaSuccess;
}

/* --- versions ----------------------------------------------------------------------------------------------------- */

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    std::lock_guard<std::recursive_mutex> lock(api_mutex);
    initialise();
    *version = options.driver;
    return cudaSuccess;
}

/* --- errors ------------------------------------------------------------------------------------------------------- */

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

static const struct {
    cudaError_t error;
    const char *name, *text;
} ERRORS[] = {
#define CUDAEMU_ERROR(name, text)                                                                                      \
    {                                                                                                                  \
        name, #name, text                                                                                              \
    }
    CUDAEMU_ERROR(cudaSuccess, "no error"),
    CUDAEMU_ERROR(cudaErrorInvalidValue, "invalid argument"),
    CUDAEMU_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    CUDAEMU_ERROR(cudaErrorInitializationError, "initialization error"),
    CUDAEMU_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    CUDAEMU_ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    CUDAEMU_ERROR(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    CUDAEMU_ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    CUDAEMU_ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    CUDAEMU_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    CUDAEMU_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    CUDAEMU_ERROR(cudaErrorNotReady, "device not ready"),
    CUDAEMU_ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    CUDAEMU_ERROR(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    CUDAEMU_ERROR(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is already mapped"),
    CUDAEMU_ERROR(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region"),
    CUDAEMU_ERROR(cudaErrorNotSupported, "operation not supported"),
    CUDAEMU_ERROR(cudaErrorUnknown, "unknown error"),
#undef CUDAEMU_ERROR
};

const char *cudaGetErrorName(cudaError_t error)
{
    for (const auto &e : ERRORS)
        if (e.error == error) return e.name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (const auto &e : ERRORS)
        if (e.error == error) return e.text;
    return "unrecognized error code";
}

/* --- functions ---------------------------------------------------------------------------------------------------- */

cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value)
{
    CUDAEMU_ENTRY;
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value < 0 || (size_t)value > shared_bytes_max()) return remember(cudaErrorInvalidValue);
        dynamic_shared_max[function] = value;
    }
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *function)
{
    CUDAEMU_ENTRY;
    auto limit = dynamic_shared_max.find(function);
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024;
    a->numRegs = 32;
    a->binaryVersion = a->ptxVersion = 10 * options.major + options.minor;
    a->maxDynamicSharedSizeBytes = limit == dynamic_shared_max.end() ? (int)SHARED_DEFAULT : limit->second;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads,
                                                                   size_t dynamic_shared, unsigned flags)
{
    CUDAEMU_ENTRY;
    (void)function, (void)flags;
    if (threads <= 0 || threads > 1024 || dynamic_shared > shared_bytes_max()) return remember(cudaErrorInvalidValue);
    int by_threads = 64 / ((threads + 31) / 32),
        by_shared = (int)(shared_bytes_multiprocessor() / (dynamic_shared + 1024));
    *blocks = min(min(by_threads, by_shared), 32); /* registers are not known here */
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int threads,
                                                          size_t dynamic_shared)
{
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, dynamic_shared, 0);
}

} // extern "C"
