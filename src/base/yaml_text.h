/* What the YAML reader and its variables share. */
#ifndef FB3_YAML_TEXT_H
#define FB3_YAML_TEXT_H

#include "options.h"

/* Replaces the references in `text`; caller frees *expanded. */
fb3_status fb3_yaml_expand(const char *text, char **expanded);

#endif
