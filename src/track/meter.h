/* What this process and the devices of its node are doing. */
#ifndef FB3_TRACK_METER_H
#define FB3_TRACK_METER_H

#include <stdbool.h>

typedef struct fb3_meter_value {
    char key[40];
    double number;
} fb3_meter_value;

enum { FB3_METER_DEVICES = 16, FB3_METER_VALUES = 8 + 6 * FB3_METER_DEVICES };

typedef struct fb3_meter {
    double wall, cpu;         /* seconds, at the last reading */
    struct fb3_nvml *devices; /* NULL: none are looked at */
} fb3_meter;

/* `devices`: NVIDIA's too, where their library is found. */
void fb3_meter_open(fb3_meter *meter, bool devices);
void fb3_meter_close(fb3_meter *meter);
/* Fills values with W&B's names for them; returns how many. */
int fb3_meter_read(fb3_meter *meter, fb3_meter_value values[FB3_METER_VALUES]);

#endif
