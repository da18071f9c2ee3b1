/* The error text of each thread. A fixed buffer, so that reporting an error cannot fail itself; line breaks and other
 * control characters that come in with a file name or a library's message become spaces, so that a text is one line
 * always and cannot steer a terminal. */
#include "fb3/status.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES = 2048, DELETE = 0x7F };

static _Thread_local char error_text[TEXT_BYTES];

/* Arguments may point into the old text, so the new one is built aside. */
static void set_text(const char *text)
{
    size_t length = strnlen(text, TEXT_BYTES - 1);
    memmove(error_text, text, length);
    error_text[length] = 0;
    for (char *c = error_text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == DELETE) *c = ' ';
    while (length > 0 && error_text[length - 1] == ' ') error_text[--length] = 0;
}

fb3_status fb3_fail_v(fb3_status code, const char *format, va_list arguments)
{
    char text[TEXT_BYTES];
    vsnprintf(text, sizeof text, format, arguments);
    set_text(text);
    return code;
}

fb3_status fb3_fail_context_v(fb3_status code, const char *format, va_list arguments)
{
    char text[TEXT_BYTES];
    vsnprintf(text, sizeof text, format, arguments);
    char joined[2 * TEXT_BYTES + 2]; /* both texts, ": " between them */
    snprintf(joined, sizeof joined, "%s: %s", text, error_text);
    set_text(joined);
    return code;
}

/* The parentheses keep a macro of the same name away (tools/lint gives the analyser one). */
fb3_status(fb3_fail)(fb3_status code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fb3_status status = fb3_fail_v(code, format, arguments);
    va_end(arguments);
    return status;
}

fb3_status(fb3_fail_context)(fb3_status code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fb3_status status = fb3_fail_context_v(code, format, arguments);
    va_end(arguments);
    return status;
}

const char *fb3_error_text(void)
{
    return error_text;
}
