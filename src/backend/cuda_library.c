/* Finds and opens libfb3_cuda.so. */
#include "fb3/cuda_library.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIBRARY_NAME "libfb3_cuda.so"

static const fb3_cuda_library *opened;

static const fb3_cuda_host host = {.fail = fb3_fail_v, .fail_context = fb3_fail_context_v};

/* Beside the program (a build folder) or in ../lib (installed). False: in neither place. */
static bool find_library(char path[PATH_MAX])
{
    const char *places[] = {"", "../lib/"};
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0) return false;
    program[length] = 0;
    char *name = strrchr(program, '/');
    if (!name) return false;
    *name = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        int written = snprintf(path, PATH_MAX, "%s/%s" LIBRARY_NAME, program, places[i]);
        if (written < PATH_MAX && access(path, R_OK) == 0) return true;
    }
    return false;
}

static fb3_status load(const char *path, const fb3_cuda_library **library)
{
    /* NOW: a symbol that is missing is said here and not in the middle of a step */
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    FB3_REQUIRE(handle, FB3_INPUT, "%s does not load: %s", path, dlerror());
    fb3_cuda_library_entry_function *entry;
    void *symbol = dlsym(handle, "fb3_cuda_library_entry");
    FB3_REQUIRE(symbol, FB3_INPUT, "%s is not a library of this program; take the one that was built with it", path);
    memcpy(&entry, &symbol, sizeof entry);
    const fb3_cuda_library *found = entry(&host);
    FB3_REQUIRE(strcmp(found->abi, FB3_BACKEND_ABI) == 0, FB3_INPUT,
                "%s belongs to another build of this program; take the one that was built with it", path);
    *library = found; /* never closed: CUDA does not like to be unloaded */
    return FB3_OK;
}

fb3_status fb3_cuda_library_open(const fb3_cuda_library **library)
{
    char path[PATH_MAX];
    const char *given = getenv("FB3_CUDA_LIBRARY");
    if (opened) {
        *library = opened;
        return FB3_OK;
    }
    FB3_REQUIRE((given && *given) || find_library(path), FB3_INPUT,
                "this build has no " LIBRARY_NAME "; build it where the CUDA toolkit is installed");
    FB3_TRY(load(given && *given ? given : path, &opened));
    *library = opened;
    return FB3_OK;
}
