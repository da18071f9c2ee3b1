/* Errors are values: every function that can fail returns fb3_status.
 *
 * The code says who is at fault (and is the exit code of the program); the text says what happened and what to do.
 * The text lives in a per-thread buffer that the failing function fills by fb3_fail(); whoever handles the error on
 * the same thread reads it by fb3_error_text(). A second fb3_fail() replaces the text, so add context with
 * fb3_fail_context() instead. Nothing below main() prints an error or ends the process. */
#ifndef FB3_STATUS_H
#define FB3_STATUS_H

#include <stdarg.h>

typedef enum fb3_status {
    FB3_OK = 0,
    FB3_FAILED = 1,   /* failed at run time: a file system, a peer, a device, memory */
    FB3_INPUT = 2,    /* the user's input or command line */
    FB3_STOPPED = 75, /* stopped on a signal after a complete checkpoint: run again */
} fb3_status;

/* Sets the thread's error text and returns `code`. One line, no trailing newline: "what is wrong; what to do". */
fb3_status fb3_fail(fb3_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "context: " before the thread's error text and returns `code` unchanged. */
fb3_status fb3_fail_context(fb3_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with the arguments in a list. */
fb3_status fb3_fail_v(fb3_status code, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));
fb3_status fb3_fail_context_v(fb3_status code, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));

/* The text of the thread's last error. Never NULL; valid until the next failure on this thread. */
const char *fb3_error_text(void);

/* Returns from the enclosing function when `call` fails. */
#define FB3_TRY(call)                                                                                                  \
    do {                                                                                                               \
        fb3_status fb3_try_status_ = (call);                                                                           \
        if (fb3_try_status_ != FB3_OK) return fb3_try_status_;                                                         \
    } while (0)

/* Jumps to `label` when `call` fails; the enclosing function declares `fb3_status status = FB3_OK`. */
#define FB3_TRY_GOTO(call, label)                                                                                      \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != FB3_OK) goto label;                                                                              \
    } while (0)

/* FB3_REQUIRE(cond, code, "what is wrong; what to do", ...): returns fb3_fail(...) when `cond` is false. */
#define FB3_REQUIRE(cond, ...)                                                                                         \
    do {                                                                                                               \
        if (!(cond)) return fb3_fail(__VA_ARGS__);                                                                     \
    } while (0)

#define FB3_REQUIRE_GOTO(cond, label, ...)                                                                             \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            status = fb3_fail(__VA_ARGS__);                                                                            \
            goto label;                                                                                                \
        }                                                                                                              \
    } while (0)

#endif
