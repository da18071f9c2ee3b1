/* metrics.jsonl: event first, the keys of the contract, and what a resume keeps. */
#include "fb3/file.h"
#include "fb3/track.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char folder[] = "/tmp/fb3-jsonl-XXXXXX";
static fb3_config config;

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

static void write_steps(int64_t resume_step, int64_t first, int64_t last)
{
    fb3_track track;
    fb3_track_place place = {.config = &config, .directory = folder, .fold = 1, .resume_step = resume_step};
    assert_int_equal(fb3_track_open(&track, &place), FB3_OK);
    for (int64_t step = first; step <= last; step++) {
        fb3_step_record record = {.fold = 1, .step = step, .epoch = 0.1 * (double)step, .loss = 0.5, .grad_norm = NAN};
        assert_int_equal(fb3_track_step(&track, &record), FB3_OK);
    }
    fb3_track_close(&track, FB3_OK);
}

static char *read_log(void)
{
    char path[128], *text;
    size_t bytes;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    assert_int_equal(fb3_file_read(path, 1 << 20, &text, &bytes), FB3_OK);
    return text;
}

/* The steps of the log in order, as "1 2 3 ". */
static void assert_steps(const char *expected)
{
    char *text = read_log(), got[256] = "", *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *event = json_loads(line, 0, NULL);
        assert_non_null(event);
        assert_memory_equal(line, "{\"event\":", 9);
        char step[32];
        snprintf(step, sizeof step, "%lld ", (long long)json_integer_value(json_object_get(event, "step")));
        strcat(got, step);
        json_decref(event);
    }
    assert_string_equal(got, expected);
    free(text);
}

static void resume_keeps_what_was_done(void **state)
{
    (void)state;
    write_steps(0, 1, 5);
    assert_steps("1 2 3 4 5 ");
    write_steps(3, 4, 6); /* the last checkpoint was after step 3 */
    assert_steps("1 2 3 4 5 6 ");
    write_steps(0, 1, 2); /* begun anew */
    assert_steps("1 2 ");
}

static void half_a_line_is_dropped(void **state)
{
    (void)state;
    char path[128];
    write_steps(0, 1, 3);
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    fputs("{\"event\":\"step\",\"st", file); /* as a kill leaves it */
    fclose(file);
    write_steps(3, 4, 4);
    assert_steps("1 2 3 4 ");
}

static void keys(void **state)
{
    (void)state;
    static const char *const STEP[] = {"fold",
                                       "step",
                                       "epoch",
                                       "loss",
                                       "grad_norm",
                                       "learning_rate",
                                       "samples_per_second",
                                       "tokens_per_second",
                                       "peak_memory_mb"};
    write_steps(0, 1, 1);
    char *text = read_log();
    json_t *event = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL);
    for (size_t i = 0; i < sizeof STEP / sizeof *STEP; i++) assert_non_null(json_object_get(event, STEP[i]));
    assert_true(json_is_null(json_object_get(event, "grad_norm"))); /* JSON has no NaN */
    json_decref(event);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(resume_keeps_what_was_done),
                                       cmocka_unit_test(half_a_line_is_dropped), cmocka_unit_test(keys)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
