/* What the YAML reader and writer share. */
#ifndef FB3_YAML_TEXT_H
#define FB3_YAML_TEXT_H

#include "options.h"

/* Replaces the references in `text`; caller frees *expanded. */
fb3_status fb3_yaml_expand(const char *text, char **expanded);

/* The code point at *text, which moves on; -1 where the bytes are not UTF-8. */
long fb3_utf8_next(const char **text);

#endif
