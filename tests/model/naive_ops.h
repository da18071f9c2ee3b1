/* A backend of plain double loops for tests: see naive_ops.c. */
#ifndef FB3_TESTS_NAIVE_OPS_H
#define FB3_TESTS_NAIVE_OPS_H

#include "fb3/backend.h"

void fb3_naive_backend(fb3_backend *backend);

#endif
