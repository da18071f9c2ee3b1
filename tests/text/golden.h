/* The ids that the Hugging Face fast tokenizer gives (make_goldens.py), and what compares ours with them. */
#ifndef TESTS_TEXT_GOLDEN_H
#define TESTS_TEXT_GOLDEN_H

#include "fb3/tokenizer.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { NO_LIMIT = 1 << 30 };

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != FB3_OK) fail_msg("%s", fb3_error_text());                                                        \
    } while (0)

/* A file below a folder that an environment variable of the tests names; in a buffer that the next call reuses. */
const char *test_path(const char *variable, const char *name);

/* Parses tests/text/NAME. */
json_t *golden_read(const char *name);

/* Every text of golden_strings.json with the ids under `key`. */
void golden_check_strings(const fb3_tokenizer *tokenizer, const char *key);

/* Every essay of the CSV with the checksums under `key` in golden_essays.json. */
void golden_check_essays(const fb3_tokenizer *tokenizer, const char *csv_path, const char *key);

/* Checks what tokenizer.json says against the tokenizer: special tokens, and that no piece is missing. */
void golden_check_json(const fb3_tokenizer *tokenizer, int pieces);

#endif
