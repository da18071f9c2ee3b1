/* What the shims' tests share: checks that count, processes that must die, memory on the emulated device. */
#ifndef FB3_CUDA_EMU_TEST_SHIMS_H
#define FB3_CUDA_EMU_TEST_SHIMS_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern int test_checks, test_failures;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        test_checks++;                                                                                                 \
        if (!(condition)) {                                                                                            \
            test_failures++;                                                                                           \
            printf("FAIL %s:%d: %s: ", __FILE__, __LINE__, #condition);                                                \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
            fflush(stdout);                                                                                            \
        }                                                                                                              \
    } while (0)

/* For calls that prepare a test: 0 is success in all of these libraries. */
#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        int must_ = (int)(call);                                                                                       \
        if (must_) {                                                                                                   \
            printf("FAIL %s:%d: %s gives %d\n", __FILE__, __LINE__, #call, must_);                                     \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* `body` runs in a process of its own, which must end with `text` on stderr and not by returning. */
void expect_death(const char *name, void (*body)(void), const char *text);
/* While quiet, stderr goes nowhere: refusals that a test asks for are not worth a line. */
void set_quiet(bool quiet);

void *device_copy(const void *data, size_t bytes); /* data NULL: what fresh device memory holds */
void host_copy(void *to, const void *from, size_t bytes);

double test_random(void); /* in [-1, 1), the same in every run */

void test_products(void);
void test_softmax(void);
void test_nccl_alone(void);
int test_nccl_ranks(int argc, char **argv); /* under mpirun */

#endif
