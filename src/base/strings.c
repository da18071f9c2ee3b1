/* A growing list of owned strings. */
#include "fb3/config.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

void fb3_strings_free(fb3_strings *strings)
{
    for (int i = 0; i < strings->count; i++) free(strings->item[i]);
    free(strings->item);
    *strings = (fb3_strings){0};
}

fb3_status fb3_strings_add(fb3_strings *strings, const char *text)
{
    char *copy = strdup(text);
    char **grown = NULL;
    if (copy && strings->count < INT_MAX)
        grown = reallocarray(strings->item, (size_t)strings->count + 1, sizeof *strings->item);
    if (!grown) {
        free(copy);
        return fb3_fail(FB3_FAILED, "out of memory for a list of %d words; free memory and run again", strings->count);
    }
    grown[strings->count++] = copy;
    strings->item = grown;
    return FB3_OK;
}
