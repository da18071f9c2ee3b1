/* The device that the tests of the operation table, the model and the optimizer run on, by environment:
 *
 *   FB3_TEST_DEVICE=cuda   the CUDA backend, in float and in bf16, instead of the CPU's tables
 *   FB3_TEST_SIZES=small   the largest cases are left out, for devices that are interpreted
 *   FB3_TEST_REQUIRED=1    a device that does not answer is a failure; without it the test is skipped by name
 */
#ifndef FB3_TESTS_DEVICE_H
#define FB3_TESTS_DEVICE_H

#include "fb3/backend.h"

bool device_is_cuda(void);
/* The largest sizes run too. */
bool large_cases(void);

/* The device under test, or another one; the test ends with the error's text. */
fb3_backend *device_open(fb3_device device, fb3_dtype act, fb3_attention_impl attention_impl);
fb3_device device_under_test(void);

/* For main(), before anything else: ends the program with status 77 when there is no such device (FB3_INPUT; another
 * status is a failure), and says in one line what runs where that is not the default. */
void device_or_skip(void);

#endif
