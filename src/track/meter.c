#include "meter.h"
#include "nvml.h"

#include "fb3/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

static const double MB = 1 << 20;

static double cpu_seconds(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* Bytes of this process in memory; 0 where that cannot be read. */
static double resident_bytes(void)
{
    unsigned long all, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file) return 0;
    if (fscanf(file, "%lu %lu", &all, &resident) != 2) resident = 0;
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

__attribute__((format(printf, 4, 5))) static void add(fb3_meter_value *values, int *count, double number,
                                                      const char *format, ...)
{
    fb3_meter_value *value = &values[(*count)++];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value->key, sizeof value->key, format, arguments);
    va_end(arguments);
    value->number = number;
}

static void read_process(fb3_meter *meter, fb3_meter_value *values, int *count)
{
    struct sysinfo system;
    const double wall = fb3_seconds(), cpu = cpu_seconds(), resident = resident_bytes();
    const double cores = (double)sysconf(_SC_NPROCESSORS_ONLN);
    if (wall > meter->wall && cores > 0)
        add(values, count, 100 * (cpu - meter->cpu) / (wall - meter->wall) / cores, "cpu");
    add(values, count, resident / MB, "proc.memory.rssMB");
    if (sysinfo(&system) == 0 && system.totalram > 0)
        add(values, count, 100 * resident / ((double)system.totalram * system.mem_unit), "proc.memory.percent");
    meter->wall = wall;
    meter->cpu = cpu;
}

static void read_devices(const fb3_meter *meter, fb3_meter_value *values, int *count)
{
    for (int i = 0; i < FB3_METER_DEVICES; i++) {
        fb3_nvml_state state;
        if (!fb3_nvml_read(meter->devices, i, &state)) continue;
        add(values, count, state.busy, "gpu.%d.gpu", i);
        add(values, count, state.memory_busy, "gpu.%d.memory", i);
        add(values, count, 100 * state.memory_used / state.memory_total, "gpu.%d.memoryAllocated", i);
        add(values, count, state.memory_used, "gpu.%d.memoryAllocatedBytes", i);
        if (state.celsius > 0) add(values, count, state.celsius, "gpu.%d.temp", i);
        if (state.watts > 0) add(values, count, state.watts, "gpu.%d.powerWatts", i);
    }
}

void fb3_meter_open(fb3_meter *meter, bool devices)
{
    *meter = (fb3_meter){.wall = fb3_seconds(), .cpu = cpu_seconds(), .devices = devices ? fb3_nvml_open() : NULL};
}

void fb3_meter_close(fb3_meter *meter)
{
    fb3_nvml_close(meter->devices);
    *meter = (fb3_meter){0};
}

int fb3_meter_read(fb3_meter *meter, fb3_meter_value values[FB3_METER_VALUES])
{
    int count = 0;
    read_process(meter, values, &count);
    if (meter->devices) read_devices(meter, values, &count);
    return count;
}
