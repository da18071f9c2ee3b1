/* Read by clang-tidy before every file (tools/lint), never by a compiler: tells the analyser, which does not look into
 * other files, that a failure returns the code that it was given. Without it every error path looks like a success
 * that left its results unset. The files that define these functions put their names in parentheses, so that the
 * macros leave the definitions alone. */
#include "fb3/status.h"

#define fb3_fail(code, ...)         (fb3_fail(code, __VA_ARGS__), (code))
#define fb3_fail_context(code, ...) (fb3_fail_context(code, __VA_ARGS__), (code))

#if __has_include(<hdf5.h>)
#include "fb3/h5.h"
#define fb3_h5_fail(code, ...) (fb3_h5_fail(code, __VA_ARGS__), (code))
#endif
