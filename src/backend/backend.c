/* Opens a backend by name, and the two ways to look at one. */
#include "fb3/backend.h"
#include "fb3/cuda_library.h"

#include <stdlib.h>
#include <string.h>

fb3_status fb3_ops_check(const fb3_ops *ops)
{
    for (size_t at = offsetof(fb3_ops, close); at < sizeof *ops; at += sizeof(void *)) {
        void *function;
        memcpy(&function, (const char *)ops + at, sizeof function);
        FB3_REQUIRE(function != NULL, FB3_FAILED,
                    "backend %s: slot %zu of the operation table is empty; this build is broken, rebuild it", ops->name,
                    (at - offsetof(fb3_ops, close)) / sizeof function);
    }
    return FB3_OK;
}

static fb3_status open_device(fb3_backend *be, const fb3_backend_options *options)
{
    if (options->device != FB3_DEVICE_CUDA) return fb3_backend_open_cpu(be, options);
    const fb3_cuda_library *library;
    FB3_TRY(fb3_cuda_library_open(&library));
    return library->open(be, options);
}

fb3_status fb3_backend_open(fb3_backend **backend, const fb3_backend_options *options)
{
    *backend = NULL;
    fb3_backend *be = calloc(1, sizeof *be);
    FB3_REQUIRE(be != NULL, FB3_FAILED, "out of memory for the backend; free some");
    be->act = options->act;
    be->layer = -1;
    fb3_status status = open_device(be, options);
    if (status == FB3_OK) status = fb3_ops_check(be->ops);
    if (status != FB3_OK) {
        fb3_backend_close(be);
        return status;
    }
    *backend = be;
    return FB3_OK;
}

void fb3_backend_close(fb3_backend *backend)
{
    if (backend == NULL) return;
    if (backend->ops && backend->ops->close) backend->ops->close(backend);
    free(backend);
}

void fb3_backend_describe(const fb3_backend *backend, char *text, size_t bytes)
{
    backend->ops->describe(backend, text, bytes);
}
