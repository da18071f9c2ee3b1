/* Statistics of the process, and of devices by a stand-in for NVIDIA's library. */
#include "../../src/track/meter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

/* The value of that name; -1: there is none. */
static double value(const fb3_meter_value *values, int count, const char *key)
{
    for (int i = 0; i < count; i++)
        if (strcmp(values[i].key, key) == 0) return values[i].number;
    return -1;
}

static void process(void **state)
{
    (void)state;
    fb3_meter meter;
    fb3_meter_value values[FB3_METER_VALUES];
    const struct timespec moment = {.tv_nsec = 20000000};
    fb3_meter_open(&meter, false);
    nanosleep(&moment, NULL);
    int count = fb3_meter_read(&meter, values);
    assert_in_range(count, 3, FB3_METER_VALUES);
    double cpu = value(values, count, "cpu"), resident = value(values, count, "proc.memory.rssMB");
    double share = value(values, count, "proc.memory.percent");
    assert_true(cpu >= 0 && cpu <= 101);
    assert_true(resident > 0.5 && resident < 100000);
    assert_true(share > 0 && share < 100);
    assert_true(value(values, count, "gpu.0.gpu") < 0);
    fb3_meter_close(&meter);
}

static void devices(void **state)
{
    (void)state;
    fb3_meter meter;
    fb3_meter_value values[FB3_METER_VALUES];
    fb3_meter_open(&meter, true);
    assert_non_null(meter.devices); /* the stand-in is found by LD_LIBRARY_PATH */
    int count = fb3_meter_read(&meter, values);
    assert_true(value(values, count, "gpu.0.gpu") == 90);
    assert_true(value(values, count, "gpu.1.gpu") == 91);
    assert_true(value(values, count, "gpu.0.memory") == 40);
    assert_true(value(values, count, "gpu.0.memoryAllocated") == 25);
    assert_true(value(values, count, "gpu.0.memoryAllocatedBytes") == 250);
    assert_true(value(values, count, "gpu.0.temp") == 65);
    assert_true(value(values, count, "gpu.0.powerWatts") == 300.5);
    assert_true(value(values, count, "gpu.1.temp") < 0); /* not told */
    assert_true(value(values, count, "gpu.2.gpu") < 0);  /* not there */
    fb3_meter_close(&meter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(process), cmocka_unit_test(devices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
