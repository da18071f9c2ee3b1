/* The one function that libfb3_cuda.so exports (fb3/cuda_library.h), and what the library needs of the program: errors
 * are written into the program's text, not into one of the library's own. */
#include "cuda.h"
#include "fb3/cuda_library.h"
#include "reducer_nccl.h"

#include <stdio.h>
#include <string.h>

static fb3_cuda_host host;

fb3_status(fb3_fail)(fb3_status code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fb3_status status = host.fail(code, format, arguments);
    va_end(arguments);
    return status;
}

fb3_status(fb3_fail_context)(fb3_status code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fb3_status status = host.fail_context(code, format, arguments);
    va_end(arguments);
    return status;
}

static fb3_status describe_device(int index, fb3_cuda_device *device)
{
    struct cudaDeviceProp properties;
    FB3_CUDA(cudaGetDeviceProperties(&properties, index));
    *device =
        (fb3_cuda_device){.major = properties.major, .minor = properties.minor, .memory = properties.totalGlobalMem};
    snprintf(device->name, sizeof device->name, "%.63s", properties.name);
    FB3_CUDA(cudaDeviceGetPCIBusId(device->bus_id, sizeof device->bus_id, index));
    return FB3_OK;
}

static fb3_status opened(const fb3_backend *be, fb3_cuda_device *device)
{
    return describe_device(fb3_cuda_of(be)->device, device);
}

/* CUDA: 1000 major + 10 minor; cuBLAS and cuDNN 9 and NCCL: 10000 major + 100 minor + patch. */
static void versions(char *text, size_t bytes)
{
    int driver = 0, runtime = 0, nccl = fb3_nccl_version();
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    size_t cublas = cublasLtGetVersion(), cudnn = cudnnGetVersion();
    char driver_text[32] = "no driver";
    if (driver > 0)
        snprintf(driver_text, sizeof driver_text, "driver for CUDA %d.%d", driver / 1000, driver % 1000 / 10);
    snprintf(text, bytes, "%s, runtime %d.%d, cuBLAS %zu.%zu.%zu, cuDNN %zu.%zu.%zu, NCCL %d.%d.%d", driver_text,
             runtime / 1000, runtime % 1000 / 10, cublas / 10000, cublas / 100 % 100, cublas % 100, cudnn / 10000,
             cudnn / 100 % 100, cudnn % 100, nccl / 10000, nccl / 100 % 100, nccl % 100);
}

static const fb3_cuda_library library = {
    .abi = FB3_BACKEND_ABI,
    .devices = fb3_cuda_devices,
    .device = describe_device,
    .versions = versions,
    .open = fb3_cuda_open,
    .opened = opened,
    .reducer_id = fb3_reducer_id_nccl,
    .reducer_create = fb3_reducer_create_nccl,
};

__attribute__((visibility("default"))) fb3_cuda_library_entry_function fb3_cuda_library_entry;

const fb3_cuda_library *fb3_cuda_library_entry(const fb3_cuda_host *given)
{
    host = *given;
    return &library;
}
