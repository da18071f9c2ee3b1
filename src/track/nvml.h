/* NVIDIA's management library, opened where a driver has installed it. It looks at devices without using them. */
#ifndef FB3_TRACK_NVML_H
#define FB3_TRACK_NVML_H

#include <stdbool.h>

typedef struct fb3_nvml fb3_nvml;
typedef struct fb3_nvml_state {
    double busy, memory_busy;         /* percent of the time */
    double memory_used, memory_total; /* bytes */
    double celsius, watts;            /* 0: unknown */
} fb3_nvml_state;

fb3_nvml *fb3_nvml_open(void); /* NULL: no library, or no devices */
void fb3_nvml_close(fb3_nvml *nvml);
/* The device of that number of the node; false where there is none. */
bool fb3_nvml_read(const fb3_nvml *nvml, int device, fb3_nvml_state *state);

#endif
