/* The W&B tracker from the outside of the program: identity, resumption, secrets, a long run. What W&B's own readers
 * say of its files is tests/cli/test_wandb.py's business. */
#include "../../src/track/protobuf.h"
#include "../../src/track/queue.h"
#include "../../src/track/wandb_log.h"
#include "base/scratch.h"

#include "fb3/clock.h"
#include "fb3/file.h"
#include "fb3/track.h"

#include <dirent.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { TARGETS = 6, RECORD_HISTORY = 2, RECORD_EXIT = 18, RECORD_PREEMPTING = 23, EXIT_CODE = 1 };

static void expect_ok(fb3_status status)
{
    if (status != FB3_OK) fail_msg("%s", fb3_error_text());
}

/* --- a fold without a training ------------------------------------------------------------------------------------ */

static fb3_config config;

static void parse(const char *output_dir)
{
    expect_ok(PARSE(&config, "train", "--train_file", "a.csv", "--model_name_or_path", "microsoft/deberta-v3-base",
                    "--report_to", "wandb", "--output_dir", output_dir));
}

static void open_fold(fb3_track *track, int64_t resume_step)
{
    char *directory = fb3_path_join(config.output_dir, "fold-1");
    expect_ok(fb3_folder_make(directory));
    expect_ok(fb3_track_open(
        track, &(fb3_track_place){
                   .config = &config, .directory = directory, .fold = 1, .folds = 3, .resume_step = resume_step}));
    expect_ok(fb3_track_config(track, &(fb3_run_record){.config_text = "seed: 42\n",
                                                        .fold = 1,
                                                        .folds = 3,
                                                        .world_size = 1,
                                                        .group_size = 1,
                                                        .device = "cpu",
                                                        .total_steps = 100,
                                                        .versions = "{\"fb3-dist\":\"test\"}"}));
    free(directory);
}

static void put_step(fb3_track *track, int64_t step)
{
    expect_ok(fb3_track_step(track, &(fb3_step_record){.fold = 1,
                                                       .step = step,
                                                       .epoch = 0.1 * (double)step,
                                                       .loss = 1.0 / (double)step,
                                                       .grad_norm = 1,
                                                       .learning_rate = 1e-5,
                                                       .samples_per_second = 10}));
}

static void put_eval(fb3_track *track, int64_t step, double mcrmse)
{
    const fb3_scores scores = {.targets = TARGETS, .samples = 10, .mcrmse = mcrmse, .loss = 0.5};
    expect_ok(fb3_track_eval(
        track, &(fb3_eval_record){.fold = 1, .step = step, .scores = &scores, .targets = &config.label_columns}));
}

static void put_end(fb3_track *track, int64_t step)
{
    expect_ok(fb3_track_end(track, &(fb3_end_record){.step = step, .best_model_checkpoint = "best.h5"}));
}

/* --- what is in the files ----------------------------------------------------------------------------------------- */

typedef struct contents {
    char steps[512]; /* "_step:train/global_step ..." */
    int exit_code;   /* -1: none */
    bool preempting;
    long records;
    double last_step;
} contents;

static double number_in(fb3_proto_reader item, const char *key)
{
    fb3_proto_field field;
    bool found = false;
    while (fb3_proto_next(&item, &field)) {
        if (field.number == 1)
            found = field.content.bytes == strlen(key) && memcmp(field.content.data, key, field.content.bytes) == 0;
        if (field.number == 16 && found) return strtod((const char *)field.content.data, NULL);
    }
    return -1;
}

static void look_at_history(contents *c, fb3_proto_reader history)
{
    fb3_proto_field field;
    double step = -1, global_step = -1;
    while (fb3_proto_next(&history, &field)) {
        if (field.number != 1) continue;
        if (number_in(field.content, "_step") >= 0) step = number_in(field.content, "_step");
        if (number_in(field.content, "train/global_step") >= 0)
            global_step = number_in(field.content, "train/global_step");
    }
    assert_true(step > c->last_step);
    c->last_step = step;
    size_t length = strlen(c->steps);
    if (length < sizeof c->steps - 32)
        snprintf(c->steps + length, sizeof c->steps - length, "%g:%g ", step, global_step);
}

static fb3_status look(void *context, const void *record, size_t bytes)
{
    contents *c = context;
    fb3_proto_reader reader = {.data = record, .bytes = bytes};
    fb3_proto_field field, code;
    c->records++;
    while (fb3_proto_next(&reader, &field)) {
        if (field.number == RECORD_HISTORY) look_at_history(c, field.content);
        if (field.number == RECORD_PREEMPTING) c->preempting = true;
        if (field.number != RECORD_EXIT) continue;
        c->exit_code = 0;
        while (fb3_proto_next(&field.content, &code))
            if (code.number == EXIT_CODE) c->exit_code = (int)code.value;
    }
    return FB3_OK;
}

static int is_run(const struct dirent *entry)
{
    return strncmp(entry->d_name, "offline-run-", strlen("offline-run-")) == 0;
}

/* The n-th part's contents, in order of time; false where there are not so many. */
static bool part(int n, contents *c)
{
    struct dirent **names;
    char folder[256], path[1024];
    snprintf(folder, sizeof folder, "%s/wandb", config.output_dir);
    int count = scandir(folder, &names, is_run, alphasort);
    bool there = n < count;
    *c = (contents){.exit_code = -1, .last_step = -1};
    if (there) {
        const char *name = names[n]->d_name, *id = name + strlen("offline-run-YYYYMMDD_HHMMSS-");
        snprintf(path, sizeof path, "%s/%s/run-%s.wandb", folder, name, id);
        expect_ok(fb3_wandb_log_read(path, look, c));
    }
    for (int i = 0; i < count; i++) free(names[i]);
    if (count >= 0) free(names);
    return there;
}

static char *read_text(const char *path)
{
    char *text;
    size_t bytes;
    expect_ok(fb3_file_read(path, 1 << 20, &text, &bytes));
    return text;
}

/* --- tests -------------------------------------------------------------------------------------------------------- */

/* Killed after step 5 with a checkpoint of step 3; the second part begins where the first ended, and step counts of the
 * run increase over both. */
static void a_resumed_run_goes_on(void **state)
{
    (void)state;
    fb3_track track;
    contents c;
    parse("resumed");
    open_fold(&track, 0);
    for (int64_t step = 1; step <= 5; step++) put_step(&track, step);
    put_eval(&track, 5, 0.7);
    fb3_track_close(&track, FB3_STOPPED);
    open_fold(&track, 3);
    for (int64_t step = 4; step <= 7; step++) put_step(&track, step);
    put_eval(&track, 5, 0.7);
    put_eval(&track, 7, 0.8);
    put_end(&track, 7);
    fb3_track_close(&track, FB3_OK);

    assert_true(part(0, &c));
    assert_string_equal(c.steps, "0:1 1:2 2:3 3:4 4:5 5:5 ");
    assert_int_equal(c.exit_code, FB3_STOPPED);
    assert_true(c.preempting);
    assert_true(part(1, &c));
    assert_string_equal(c.steps, "6:6 7:7 8:7 ");
    assert_int_equal(c.exit_code, 0);
    assert_false(c.preempting);
    assert_false(part(2, &c));
    fb3_config_free(&config);
}

static void the_summary_goes_on_too(void **state)
{
    (void)state;
    char *command = NULL;
    struct dirent **names;
    int count = scandir("resumed/wandb", &names, is_run, alphasort);
    assert_int_equal(count, 2);
    command = fb3_format("resumed/wandb/%s/files/wandb-summary.json", names[1]->d_name);
    json_t *summary = json_load_file(command, 0, NULL);
    assert_true(json_number_value(json_object_get(json_object_get(summary, "eval/MCRMSE"), "min")) == 0.7);
    assert_int_equal(json_integer_value(json_object_get(summary, "train/global_step")), 7);
    json_decref(summary);
    free(command);
    for (int i = 0; i < count; i++) free(names[i]);
    free(names);
}

/* The first part is gone: _step is above all that it can have used. */
static void a_lost_part_is_allowed_for(void **state)
{
    (void)state;
    fb3_track track;
    contents c;
    parse("lost");
    open_fold(&track, 0);
    for (int64_t step = 1; step <= 3; step++) put_step(&track, step);
    fb3_track_close(&track, FB3_FAILED);
    assert_true(part(0, &c) && c.exit_code == FB3_FAILED);
    expect_ok(fb3_folder_remove("lost/wandb"));
    open_fold(&track, 3);
    put_step(&track, 4);
    fb3_track_close(&track, FB3_OK);
    assert_true(part(0, &c));
    assert_string_equal(c.steps, "7:4 ");
    fb3_config_free(&config);
}

/* report_to was added when the run was continued: there is nothing to go on with. */
static void a_record_begun_late(void **state)
{
    (void)state;
    fb3_track track;
    contents c;
    parse("late");
    open_fold(&track, 5);
    put_step(&track, 6);
    fb3_track_close(&track, FB3_STOPPED);
    assert_true(part(0, &c));
    assert_string_equal(c.steps, "0:6 ");
    fb3_config_free(&config);
}

static void a_fold_begun_anew_is_another_run(void **state)
{
    (void)state;
    fb3_track track;
    contents c;
    parse("anew");
    for (int start = 0; start < 2; start++) {
        open_fold(&track, 0);
        put_step(&track, 1);
        fb3_track_close(&track, FB3_FAILED);
        assert_true(part(start, &c));
        assert_string_equal(c.steps, "0:1 ");
    }
    fb3_config_free(&config);
}

/* The bytes of every file below a folder, each visited. */
static void for_each_file(const char *folder, void (*visit)(const char *path, const char *data, size_t bytes))
{
    DIR *open = opendir(folder);
    assert_non_null(open);
    for (const struct dirent *entry; (entry = readdir(open));) {
        struct stat about;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *path = fb3_path_join(folder, entry->d_name), *data;
        size_t bytes;
        assert_int_equal(stat(path, &about), 0);
        if (S_ISDIR(about.st_mode)) {
            for_each_file(path, visit);
        } else {
            expect_ok(fb3_file_read(path, 1 << 24, &data, &bytes));
            visit(path, data, bytes);
            free(data);
        }
        free(path);
    }
    closedir(open);
}

static char cwd[1024];

static void holds_no_secret(const char *path, const char *data, size_t bytes)
{
    static const char *const SECRETS[] = {"0123456789-the-key", "the-other-secret", "/home/somebody"};
    for (size_t i = 0; i < sizeof SECRETS / sizeof *SECRETS; i++)
        if (memmem(data, bytes, SECRETS[i], strlen(SECRETS[i]))) fail_msg("%s holds %s", path, SECRETS[i]);
    if (memmem(data, bytes, cwd, strlen(cwd))) fail_msg("%s holds the path %s", path, cwd);
}

static void variables_count_and_secrets_stay_out(void **state)
{
    (void)state;
    fb3_track track;
    contents c;
    setenv("WANDB_API_KEY", "0123456789-the-key", 1);
    setenv("MY_TOKEN", "the-other-secret", 1);
    setenv("HOME", "/home/somebody", 1);
    setenv("WANDB_PROJECT", "my-project", 1);
    setenv("WANDB_RUN_GROUP", "ignored", 1);
    setenv("WANDB_TAGS", "one,two", 1);
    setenv("WANDB_RUN_ID", "given", 1);
    assert_non_null(getcwd(cwd, sizeof cwd));
    expect_ok(PARSE(&config, "train", "--train_file", "a.csv", "--model_name_or_path", "m", "--report_to", "wandb",
                    "--output_dir", "variables", "--wandb_group", "my-group"));
    open_fold(&track, 0);
    put_step(&track, 1);
    put_end(&track, 1);
    fb3_track_close(&track, FB3_OK);
    assert_true(part(0, &c));
    for_each_file("variables", holds_no_secret);
    char *id = read_text("variables/fold-1/wandb-run-id");
    assert_string_equal(id, "given-fold-1");
    struct dirent **names;
    assert_int_equal(scandir("variables/wandb", &names, is_run, alphasort), 1);
    char *path = fb3_format("variables/wandb/%s/run-given-fold-1.wandb", names[0]->d_name), *data;
    size_t bytes;
    expect_ok(fb3_file_read(path, 1 << 20, &data, &bytes));
    static const char *const THERE[] = {"my-project", "my-group", "one", "two", "FB3-fold-1"};
    for (size_t i = 0; i < sizeof THERE / sizeof *THERE; i++)
        assert_non_null(memmem(data, bytes, THERE[i], strlen(THERE[i])));
    assert_null(memmem(data, bytes, "ignored", strlen("ignored"))); /* what is given to fb3-dist wins */
    free(data);
    free(path);
    free(names[0]);
    free(names);
    free(id);
    static const char *const SET[] = {"WANDB_API_KEY",   "MY_TOKEN",   "HOME",        "WANDB_PROJECT",
                                      "WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_RUN_ID"};
    for (size_t i = 0; i < sizeof SET / sizeof *SET; i++) unsetenv(SET[i]);
    fb3_config_free(&config);
}

static void it_can_be_disabled(void **state)
{
    (void)state;
    static const char *const SWITCHES[][2] = {{"WANDB_MODE", "disabled"}, {"WANDB_DISABLED", "true"}};
    parse("disabled");
    for (int i = 0; i < 2; i++) {
        fb3_track track;
        setenv(SWITCHES[i][0], SWITCHES[i][1], 1);
        assert_false(fb3_track_keeps_models(&config));
        open_fold(&track, 0);
        put_step(&track, 1);
        fb3_track_close(&track, FB3_OK);
        assert_false(fb3_folder_exists("disabled/wandb"));
        unsetenv(SWITCHES[i][0]);
    }
    assert_true(fb3_track_keeps_models(&config));
    fb3_config_free(&config);
}

static double resident_mb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

/* As a training would: the steps come no faster than this machine can record them. */
static void let_it_catch_up(const fb3_track *track)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    while (fb3_track_queue_waiting(track->others) > 0) nanosleep(&moment, NULL);
}

#ifdef __SANITIZE_ADDRESS__
enum { STEPS = 10000, SANITIZED = true };
#else
enum { STEPS = 100000, SANITIZED = false };
#endif

/* 10^5 steps: they are recorded, memory does not grow, and the thread that trains spends less on a step than a
 * hundredth of the 10 ms that even a small model's takes. */
static void a_long_run(void **state)
{
    (void)state;
    enum { BURST = 500 };
    fb3_track track;
    contents c;
    double busy = 0;
    parse("long");
    open_fold(&track, 0);
    for (int64_t step = 1; step <= BURST; step++) put_step(&track, step);
    const double before = resident_mb();
    for (int64_t step = BURST + 1; step <= STEPS; step += BURST) {
        let_it_catch_up(&track);
        double started = fb3_seconds();
        for (int64_t s = step; s < step + BURST; s++) put_step(&track, s);
        busy += fb3_seconds() - started;
    }
    put_end(&track, STEPS);
    const double after = resident_mb();
    fb3_track_close(&track, FB3_OK);
    assert_true(part(0, &c));
    print_message("%.1f us for a step, %.1f MB more memory\n", busy / STEPS * 1e6, after - before);
    assert_true(c.last_step == STEPS - 1);
    assert_true(SANITIZED || after - before < 16); /* a sanitizer keeps what was freed */
    assert_true(SANITIZED || busy / STEPS < 100e-6);
    fb3_config_free(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_resumed_run_goes_on),
                                       cmocka_unit_test(the_summary_goes_on_too),
                                       cmocka_unit_test(a_lost_part_is_allowed_for),
                                       cmocka_unit_test(a_record_begun_late),
                                       cmocka_unit_test(a_fold_begun_anew_is_another_run),
                                       cmocka_unit_test(variables_count_and_secrets_stay_out),
                                       cmocka_unit_test(it_can_be_disabled),
                                       cmocka_unit_test(a_long_run)};
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
