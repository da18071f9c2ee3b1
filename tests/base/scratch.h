/* An empty folder to work in, and configurations parsed from words. */
#ifndef TESTS_BASE_SCRATCH_H
#define TESTS_BASE_SCRATCH_H

#include "fb3/config.h"

/* cmocka group fixtures: the current directory is a new folder, without FB3_ variables but the tests' own. */
int scratch_enter(void **state);
int scratch_leave(void **state);

void scratch_write(const char *name, const char *text);
/* Parses "fb3-dist" and the words, which end with NULL. */
fb3_status scratch_parse(fb3_config *config, const char *const *words);
#define PARSE(config, ...) scratch_parse(config, (const char *const[]){__VA_ARGS__, NULL})

#endif
