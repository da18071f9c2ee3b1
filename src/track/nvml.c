/* The few functions that are needed are declared here, by NVML's documentation, so that its header is not: a build
 * needs no CUDA for it. */
#include "nvml.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { NVML_SUCCESS = 0, NVML_TEMPERATURE_GPU = 0 };

typedef struct nvml_device *nvml_device;
typedef struct nvml_utilization {
    unsigned int gpu, memory;
} nvml_utilization;
typedef struct nvml_memory {
    unsigned long long total, free, used;
} nvml_memory;

struct fb3_nvml {
    void *library;
    int (*init)(void);
    int (*shutdown)(void);
    int (*handle)(unsigned int index, nvml_device *device);
    int (*utilization)(nvml_device device, nvml_utilization *rates);
    int (*memory)(nvml_device device, nvml_memory *memory);
    int (*temperature)(nvml_device device, int sensor, unsigned int *celsius);
    int (*power)(nvml_device device, unsigned int *milliwatts);
};

/* C has no cast from an object's pointer to a function's. */
static bool find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol;
}

static bool find_all(fb3_nvml *nvml)
{
    return find(nvml->library, "nvmlInit_v2", &nvml->init) && find(nvml->library, "nvmlShutdown", &nvml->shutdown) &&
           find(nvml->library, "nvmlDeviceGetHandleByIndex_v2", &nvml->handle) &&
           find(nvml->library, "nvmlDeviceGetUtilizationRates", &nvml->utilization) &&
           find(nvml->library, "nvmlDeviceGetMemoryInfo", &nvml->memory) &&
           find(nvml->library, "nvmlDeviceGetTemperature", &nvml->temperature) &&
           find(nvml->library, "nvmlDeviceGetPowerUsage", &nvml->power);
}

fb3_nvml *fb3_nvml_open(void)
{
    fb3_nvml *nvml = calloc(1, sizeof *nvml);
    if (!nvml) return NULL;
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (nvml->library && find_all(nvml) && nvml->init() == NVML_SUCCESS) return nvml;
    if (nvml->library) dlclose(nvml->library);
    free(nvml);
    return NULL;
}

void fb3_nvml_close(fb3_nvml *nvml)
{
    if (!nvml) return;
    nvml->shutdown();
    dlclose(nvml->library);
    free(nvml);
}

bool fb3_nvml_read(const fb3_nvml *nvml, int device, fb3_nvml_state *state)
{
    nvml_device handle;
    nvml_utilization rates;
    nvml_memory memory;
    unsigned int celsius = 0, milliwatts = 0;
    if (nvml->handle((unsigned int)device, &handle) != NVML_SUCCESS) return false;
    if (nvml->utilization(handle, &rates) != NVML_SUCCESS || nvml->memory(handle, &memory) != NVML_SUCCESS)
        return false;
    if (nvml->temperature(handle, NVML_TEMPERATURE_GPU, &celsius) != NVML_SUCCESS) celsius = 0;
    if (nvml->power(handle, &milliwatts) != NVML_SUCCESS) milliwatts = 0;
    *state = (fb3_nvml_state){.busy = rates.gpu,
                              .memory_busy = rates.memory,
                              .memory_used = (double)memory.used,
                              .memory_total = (double)memory.total,
                              .celsius = celsius,
                              .watts = milliwatts * 1e-3};
    return memory.total > 0;
}
