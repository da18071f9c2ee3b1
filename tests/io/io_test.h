/* What the tests of src/io share: a tiny model with known values, folders to write into, and the check that an error is
 * the user's and fits one line. */
#ifndef FB3_TESTS_IO_TEST_H
#define FB3_TESTS_IO_TEST_H

#include "fb3/hf_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != FB3_OK) fail_msg("%s", fb3_error_text());                                                        \
    } while (0)

/* The call fails as the user's fault, with one line that says `text`. */
#define assert_refused(call, text) assert_refused_at((call), (text), __FILE__, __LINE__)
void assert_refused_at(fb3_status status, const char *text, const char *file, int line);

/* The model of tests/io/make_goldens.py. */
enum { TINY_VOCAB = 40, TINY_TARGETS = 2 };
extern const fb3_model_config tiny_model;
/* Element `index` of the tensor `name` there: exact in float, half and bfloat16. */
float golden_value(const char *name, int64_t index);
/* Fills arena and word_full with golden values; `shift` is added to all (0 for the goldens' own). */
void fill_golden(const fb3_param_table *table, fb3_weights *weights, float shift);
/* Asserts that the weights are those; the head only where `with_head`. */
void assert_golden(const fb3_param_table *table, const fb3_weights *weights, float shift, bool with_head);

/* tests/io/golden/<name>. Static buffer. */
const char *golden_path(const char *name);
/* A path in this test's own scratch folder, which is made. Static buffers, 64 in turn. */
const char *scratch_path(const char *name);
/* Removes files and folders below the scratch folder. */
int clear_scratch(void **state);

void write_file(const char *path, const void *data, size_t bytes);
/* Caller frees. */
unsigned char *read_whole(const char *path, size_t *bytes);

/* A zip archive with these members, stored; a member of `data` NULL ends the list. */
typedef struct member {
    const char *name;
    const void *data;
    size_t bytes;
} member;
void write_archive(const char *path, const member *members);

/* A small fixed stream of random numbers (splitmix64). */
uint64_t next_random(uint64_t *state);

#endif
