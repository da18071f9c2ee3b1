/* A stand-in for libnvidia-ml.so.1 with two devices, of which the second tells neither temperature nor power. */
#include <stddef.h>

typedef struct device {
    int number;
} device;
typedef struct rates {
    unsigned int gpu, memory;
} rates;
typedef struct memory {
    unsigned long long total, free, used;
} memory;

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, DEVICES = 2 };

static device devices[DEVICES] = {{0}, {1}};

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device **found);
int nvmlDeviceGetUtilizationRates(const device *d, rates *found);
int nvmlDeviceGetMemoryInfo(const device *d, memory *found);
int nvmlDeviceGetTemperature(const device *d, int sensor, unsigned int *celsius);
int nvmlDeviceGetPowerUsage(const device *d, unsigned int *milliwatts);

int nvmlInit_v2(void)
{
    return SUCCESS;
}

int nvmlShutdown(void)
{
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device **found)
{
    if (index >= DEVICES) return INVALID_ARGUMENT;
    *found = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(const device *d, rates *found)
{
    *found = (rates){.gpu = 90 + (unsigned int)d->number, .memory = 40};
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(const device *d, memory *found)
{
    (void)d;
    *found = (memory){.total = 1000, .free = 750, .used = 250};
    return SUCCESS;
}

int nvmlDeviceGetTemperature(const device *d, int sensor, unsigned int *celsius)
{
    *celsius = 65;
    return d->number == 0 && sensor == 0 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetPowerUsage(const device *d, unsigned int *milliwatts)
{
    *milliwatts = 300500;
    return d->number == 0 ? SUCCESS : NOT_SUPPORTED;
}
