/* What the tests of `data` share: a scratch folder, assertions on errors, and a stand-in for the tokenizer, so that
 * these tests say something about `data` alone: a word's id is a hash of it, [CLS] is 1 and [SEP] is 2. */
#ifndef FB3_DATA_FIXTURE_H
#define FB3_DATA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fb3/dataset.h"
#include "fb3/file.h"
#include <stdio.h>

enum { PATH_BYTES = 512, WORD_NONE = 0, WORD_CLS = 1, WORD_SEP = 2, WORD_FIRST = 4 };

/* A text with this in it cannot be tokenised. */
#define UNTOKENISABLE "!!FAIL!!"

/* Group set-up and tear-down: the folder of scratch_path(). */
int make_scratch(void **state);
int remove_scratch(void **state);

/* A path in the scratch folder; the last eight results are valid. */
const char *scratch_path(const char *name);
void write_bytes(const char *name, const void *data, size_t bytes);
void write_text(const char *name, const char *text);
char *read_bytes(const char *name, size_t *bytes); /* caller frees */
char *read_text(const char *name);                 /* caller frees */

void check_ok(fb3_status status, const char *call, const char *file, int line);
/* The status is `code` and the error is one line that contains `part`. */
void check_fails(fb3_status status, fb3_status code, const char *part, const char *call, const char *file, int line);
#define assert_ok(call)                check_ok((call), #call, __FILE__, __LINE__)
#define assert_fails(call, code, part) check_fails((call), (code), (part), #call, __FILE__, __LINE__)

/* The stand-in (stand_in_tokenizer.c). `name` makes its sha256; the last eight are valid. */
fb3_tokenizer *stand_in_tokenizer(int vocabulary, char name);
uint32_t stand_in_id(const char *word, size_t bytes, int vocabulary);

/* Labels a, b, c, ... as many as `targets`; text_id, full_text; max_length 512. The strings live in `columns`. */
fb3_dataset_options make_options(fb3_strings *columns, int targets);

/* fb3_dataset_prepare() from one CSV. */
fb3_status prepare_file(const char *csv_path, const char *h5_path, const fb3_tokenizer *tokenizer,
                        const fb3_dataset_options *options, fb3_dataset_report *report);

/* Prepares `name` from the text of a CSV with those options and the stand-in. */
void make_dataset(const char *name, const char *csv_text, int targets, int vocabulary);

#endif
