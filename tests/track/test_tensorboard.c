/* TensorBoard's event files: CRC-32C by the vectors of RFC 3720, the frames of a file, and what a resume tells. That
 * TensorBoard itself reads them is checked by tests/cli/test_tensorboard.py. */
#include "../../src/track/crc32c.h"
#include "../../src/track/trackers.h"
#include "fb3/file.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char folder[] = "/tmp/fb3-tensorboard-XXXXXX";

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return fb3_folder_remove(folder) == FB3_OK ? 0 : -1;
}

/* RFC 3720, appendix B.4, and the check value of the catalogues of CRCs. */
static void crc_of_the_rfc(void **state)
{
    (void)state;
    unsigned char block[32];
    static const unsigned char READ_PDU[48] = {0x01, 0xc0, 0, 0, 0, 0, 0,    0, 0,    0, 0, 0,    0, 0, 0, 0,
                                               0x14, 0,    0, 0, 0, 0, 0x04, 0, 0,    0, 0, 0x14, 0, 0, 0, 0x18,
                                               0x28, 0,    0, 0, 0, 0, 0,    0, 0x02, 0, 0, 0,    0, 0, 0, 0};
    memset(block, 0, sizeof block);
    assert_int_equal(fb3_crc32c(block, sizeof block), 0x8A9136AAu);
    memset(block, 0xFF, sizeof block);
    assert_int_equal(fb3_crc32c(block, sizeof block), 0x62A8AB43u);
    for (int i = 0; i < 32; i++) block[i] = (unsigned char)i;
    assert_int_equal(fb3_crc32c(block, sizeof block), 0x46DD794Eu);
    for (int i = 0; i < 32; i++) block[i] = (unsigned char)(31 - i);
    assert_int_equal(fb3_crc32c(block, sizeof block), 0x113FDB5Cu);
    assert_int_equal(fb3_crc32c(READ_PDU, sizeof READ_PDU), 0xD9963A56u);
    assert_int_equal(fb3_crc32c("123456789", 9), 0xE3069283u);
    assert_int_equal(fb3_crc32c("", 0), 0);
}

/* --- a file ------------------------------------------------------------------------------------------------------- */

static char *only_file(void)
{
    char *found = NULL;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (strncmp(entry->d_name, "events.out.tfevents.", 20) != 0) continue;
        assert_null(found);
        found = fb3_path_join(folder, entry->d_name);
    }
    closedir(entries);
    assert_non_null(found);
    return found;
}

static uint64_t little_endian(const unsigned char *data, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes; i-- > 0;) value = value << 8 | data[i];
    return value;
}

static uint32_t masked(const void *data, size_t bytes)
{
    uint32_t crc = fb3_crc32c(data, bytes);
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

/* Checks the frame at `at`, and returns where the next begins. *event is its content. */
static size_t next_frame(const unsigned char *file, size_t bytes, size_t at, const unsigned char **event,
                         size_t *length)
{
    assert_true(at + 12 <= bytes);
    *length = little_endian(file + at, 8);
    assert_int_equal(little_endian(file + at + 8, 4), masked(file + at, 8));
    assert_true(at + 16 + *length <= bytes);
    *event = file + at + 12;
    assert_int_equal(little_endian(*event + *length, 4), masked(*event, *length));
    return at + 16 + *length;
}

static bool holds(const unsigned char *event, size_t length, const void *what, size_t bytes)
{
    return memmem(event, length, what, bytes) != NULL;
}

static void write_file(int64_t resume_step)
{
    static const fb3_config config;
    char *names[] = {"cohesion"};
    const fb3_strings targets = {.item = names, .count = 1};
    fb3_tracker *t = NULL;
    fb3_track_place place = {.config = &config, .directory = folder, .folds = 1, .resume_step = resume_step};
    fb3_scores scores = {.targets = 1, .samples = 2, .mcrmse = 0.5, .rmse = {0.5}, .loss = 0.25};
    assert_int_equal(fb3_tracker_open_tensorboard(&t, &place), FB3_OK);
    assert_int_equal(t->ops->config(t, &(fb3_run_record){.config_text = "a: 1\nb: 2\n"}), FB3_OK);
    assert_int_equal(t->ops->step(t, &(fb3_step_record){.step = 300, .loss = 1.5}), FB3_OK);
    assert_int_equal(t->ops->eval(t, &(fb3_eval_record){.step = 300, .scores = &scores, .targets = &targets}), FB3_OK);
    assert_int_equal(t->ops->artifact(t, &(fb3_checkpoint_record){.step = 300, .path = "best.h5"}), FB3_OK);
    assert_int_equal(t->ops->end(t, &(fb3_end_record){.step = 300}), FB3_OK);
    t->ops->close(t, FB3_OK);
}

static void frames(void **state)
{
    (void)state;
    static const char *const HOLDS[] = {
        "brain.Event:2", "", "args/text_summary", "train/loss", "eval/COHESION_RMSE", "train/train_runtime"};
    write_file(299);
    char *path = only_file(), *text;
    size_t bytes, at = 0, length;
    const unsigned char *event;
    assert_int_equal(fb3_file_read(path, 1 << 20, &text, &bytes), FB3_OK);
    for (size_t i = 0; i < sizeof HOLDS / sizeof *HOLDS; i++) {
        at = next_frame((unsigned char *)text, bytes, at, &event, &length);
        assert_int_equal(event[0], 1 << 3 | 1);        /* wall_time, a double */
        if (i > 0) assert_int_equal(event[9], 2 << 3); /* step, a varint; 0 goes without saying */
        assert_true(holds(event, length, HOLDS[i], strlen(HOLDS[i])));
        /* step 300 is 0xAC 0x02; the resume says that it is done again, and the text is of step 299 */
        if (i == 1) assert_memory_equal(event + 9, "\x10\xAC\x02\x3A\x02\x08\x01", length - 9);
        if (i == 2) assert_true(holds(event, length, "    a: 1\n    b: 2\n", 18));
        if (i == 2) assert_memory_equal(event + 10, "\xAB\x02", 2);
        if (i == 3) assert_true(holds(event, length, "\x15\x00\x00\xC0\x3F", 5)); /* simple_value 1.5f */
    }
    assert_int_equal(at, bytes);
    free(text);
    assert_int_equal(remove(path), 0);
    free(path);
}

static void a_fresh_start_forgets_everything(void **state)
{
    (void)state;
    write_file(0);
    char *path = only_file(), *text;
    size_t bytes, length;
    const unsigned char *event;
    assert_int_equal(fb3_file_read(path, 1 << 20, &text, &bytes), FB3_OK);
    size_t at = next_frame((unsigned char *)text, bytes, 0, &event, &length);
    (void)next_frame((unsigned char *)text, bytes, at, &event, &length);
    assert_memory_equal(event + 9, "\x3A\x02\x08\x01", length - 9); /* step 0 goes without saying */
    free(text);
    free(path);
}

static void a_directory_that_is_not_there(void **state)
{
    (void)state;
    fb3_tracker *t = NULL;
    assert_int_equal(fb3_tracker_open_tensorboard(&t, &(fb3_track_place){.directory = "/nowhere/at/all"}), FB3_FAILED);
    assert_non_null(strstr(fb3_error_text(), "/nowhere/at/all"));
    assert_null(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(crc_of_the_rfc), cmocka_unit_test(frames),
                                       cmocka_unit_test(a_fresh_start_forgets_everything),
                                       cmocka_unit_test(a_directory_that_is_not_there)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
