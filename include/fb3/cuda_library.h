/* The seam to libfb3_cuda.so, which is opened at run time so that the program runs where CUDA is not installed. The
 * library is found beside the program or in ../lib of its folder; FB3_CUDA_LIBRARY names another one. It exports one
 * function, fb3_cuda_library_entry, and takes what it needs from the program through fb3_cuda_host. */
#ifndef FB3_CUDA_LIBRARY_H
#define FB3_CUDA_LIBRARY_H

#include "fb3/backend.h"
#include "fb3/reducer.h"
#include <stdarg.h>

/* Names the ranks' communicator: what ncclGetUniqueId gives. */
enum { FB3_REDUCER_ID_BYTES = 128 };
typedef struct fb3_reducer_id {
    char bytes[FB3_REDUCER_ID_BYTES];
} fb3_reducer_id;

/* What the library calls in the program. */
typedef struct fb3_cuda_host {
    fb3_status (*fail)(fb3_status code, const char *format, va_list arguments);
    fb3_status (*fail_context)(fb3_status code, const char *format, va_list arguments);
} fb3_cuda_host;

/* A visible device, for doctor and the start table. */
typedef struct fb3_cuda_device {
    char name[64];
    char bus_id[16];  /* PCI: tells two ranks on one device */
    int major, minor; /* compute capability */
    size_t memory;    /* bytes */
} fb3_cuda_device;

typedef struct fb3_cuda_library {
    const char *abi; /* FB3_BACKEND_ABI of its build */
    /* FB3_INPUT with the reason when no device can be used. Cheap: no context is made. */
    fb3_status (*devices)(int *count);
    fb3_status (*device)(int index, fb3_cuda_device *device);
    /* "driver 13.0, CUDA runtime 13.0, cuBLAS 13.1.0, cuDNN 9.19.0, NCCL 2.28.9" */
    void (*versions)(char *text, size_t bytes);
    fb3_status (*open)(fb3_backend *backend, const fb3_backend_options *options);
    /* The device that an open backend uses. */
    fb3_status (*opened)(const fb3_backend *backend, fb3_cuda_device *device);
    /* One rank makes the id, all create with it. `timeout_seconds` is for creation and for each sum. Collective. */
    fb3_status (*reducer_id)(fb3_reducer_id *id);
    fb3_status (*reducer_create)(fb3_reducer **reducer, fb3_backend *backend, const fb3_reducer_id *id, int rank,
                                 int size, int64_t timeout_seconds);
} fb3_cuda_library;

typedef const fb3_cuda_library *fb3_cuda_library_entry_function(const fb3_cuda_host *host);

/* Opens the library, once. FB3_INPUT with the reason where there is none, or where it is not of this build. */
fb3_status fb3_cuda_library_open(const fb3_cuda_library **library);

#endif
