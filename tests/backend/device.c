/* The device under test: see device.h. */
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { EXIT_SKIPPED = 77 };

static bool is_set(const char *variable, const char *value)
{
    const char *text = getenv(variable);
    return text && strcmp(text, value) == 0;
}

bool device_is_cuda(void)
{
    return is_set("FB3_TEST_DEVICE", "cuda");
}

bool large_cases(void)
{
    return !is_set("FB3_TEST_SIZES", "small");
}

fb3_device device_under_test(void)
{
    return device_is_cuda() ? FB3_DEVICE_CUDA : FB3_DEVICE_CPU;
}

static fb3_status open_device(fb3_backend **be, fb3_device device, fb3_dtype act, fb3_attention_impl attention_impl)
{
    return fb3_backend_open(
        be, &(fb3_backend_options){.device = device, .act = act, .attention_impl = attention_impl, .node_ranks = 1});
}

fb3_backend *device_open(fb3_device device, fb3_dtype act, fb3_attention_impl attention_impl)
{
    fb3_backend *be = NULL;
    if (open_device(&be, device, act, attention_impl) != FB3_OK) fail_msg("%s", fb3_error_text());
    return be;
}

/* A variable that says something else than what is known must not quietly mean the default. */
static void refuse_other_values(const char *variable, const char *known)
{
    const char *text = getenv(variable);
    if (!text || strcmp(text, known) == 0 || text[0] == '\0') return;
    fprintf(stderr, "%s is '%s'; the one value that tests know is '%s'\n", variable, text, known);
    exit(EXIT_FAILURE);
}

void device_or_skip(void)
{
    refuse_other_values("FB3_TEST_DEVICE", "cuda");
    refuse_other_values("FB3_TEST_SIZES", "small");
    refuse_other_values("FB3_TEST_REQUIRED", "1");
    if (device_is_cuda()) {
        fb3_backend *be = NULL;
        const fb3_status status = open_device(&be, FB3_DEVICE_CUDA, FB3_F32, FB3_ATTENTION_AUTO);
        if (status != FB3_OK) {
            bool absent = status == FB3_INPUT && !is_set("FB3_TEST_REQUIRED", "1");
            printf("%s: %s\n", absent ? "skipped" : "no device", fb3_error_text());
            exit(absent ? EXIT_SKIPPED : EXIT_FAILURE);
        }
        char text[256];
        fb3_backend_describe(be, text, sizeof text);
        printf("on %s\n", text);
        fb3_backend_close(be);
    }
    if (!large_cases()) printf("FB3_TEST_SIZES=small: the largest cases are left out\n");
}
