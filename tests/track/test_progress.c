/* progress.json: written and read back, whatever it was turned into in between; a run read from its directory; and the
 * lines that are made of it. */
#include "base/capture.h"
#include "base/scratch.h"

#include "fb3/clock.h"
#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/progress.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

static fb3_fold_progress some_fold(int fold)
{
    fb3_fold_progress p = {.fold = fold,
                           .phase = FB3_PHASE_EVALUATING,
                           .step = 50,
                           .first_step = 10,
                           .total_steps = 120,
                           .epoch = 1.25,
                           .loss = 0.4312,
                           .metric = "eval_MCRMSE",
                           .last_metric = 0.61,
                           .best_metric = 0.59,
                           .last_step = 48,
                           .best_step = 24,
                           .samples_per_second = 8.125,
                           .peak_memory_mb = 812,
                           .seconds = 80,
                           .updated = (double)time(NULL),
                           .host = "node07",
                           .pid = 4711,
                           .ranks = 4,
                           .error = "what; \"what\" to do"};
    return p;
}

static void assert_same(const fb3_fold_progress *a, const fb3_fold_progress *b)
{
    assert_int_equal(a->fold, b->fold);
    assert_int_equal(a->phase, b->phase);
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->first_step, b->first_step);
    assert_int_equal(a->total_steps, b->total_steps);
    assert_int_equal(a->last_step, b->last_step);
    assert_int_equal(a->best_step, b->best_step);
    assert_int_equal(a->pid, b->pid);
    assert_int_equal(a->ranks, b->ranks);
    const double x[] = {a->epoch, a->loss, a->last_metric, a->best_metric, a->seconds, a->updated, a->peak_memory_mb};
    const double y[] = {b->epoch, b->loss, b->last_metric, b->best_metric, b->seconds, b->updated, b->peak_memory_mb};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) assert_true(x[i] == y[i] || (isnan(x[i]) && isnan(y[i])));
    assert_string_equal(a->metric, b->metric);
    assert_string_equal(a->host, b->host);
    assert_string_equal(a->error, b->error);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    fb3_fold_progress written[] = {some_fold(3), fb3_fold_progress_none(3)}, read;
    written[0].loss = INFINITY; /* JSON has none: NaN comes back */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fb3_fold_progress_write("progress.json", &written[i]), FB3_OK);
        assert_int_equal(fb3_fold_progress_read("progress.json", 3, &read), FB3_OK);
        if (i == 0) written[0].loss = NAN;
        assert_same(&written[i], &read);
    }
    assert_int_equal(fb3_fold_progress_read("progress.json", 2, &read), FB3_INPUT); /* another fold's */
    assert_false(fb3_file_exists("progress.json.tmp"));
}

static void eta_is_of_this_start(void **state)
{
    (void)state;
    fb3_fold_progress p = some_fold(0);
    assert_true(fabs(fb3_fold_progress_eta(&p) - 140) < 1e-9); /* 40 steps in 80 s, 70 to go */
    p.first_step = p.step;
    assert_true(isnan(fb3_fold_progress_eta(&p)));
    p = some_fold(0);
    p.phase = FB3_PHASE_STOPPED;
    assert_true(isnan(fb3_fold_progress_eta(&p)));
    /* Two at work, and one that waits for the first of them: 70 + 70 + 120 steps at a step a second. */
    fb3_fold_progress folds[] = {some_fold(0), some_fold(1), fb3_fold_progress_none(2)};
    assert_true(fabs(fb3_progress_eta(folds, 3) - 260) < 1e-9);
    folds[2].phase = FB3_PHASE_COMPLETE;
    assert_true(fabs(fb3_progress_eta(folds, 3) - 140) < 1e-9);
}

/* --- hostile files ------------------------------------------------------------------------------------------------ */

static void damaged_files_are_told(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        "{\"fold\": 0}",
        "{\"fold\": \"0\", \"state\": \"training\"}",
        "{\"fold\": 0, \"state\": \"dancing\", \"step\": 1, \"first_step\": 0, \"total_steps\": 2}",
        "{\"fold\": 0, \"state\": \"training\", \"step\": -1, \"first_step\": 0, \"total_steps\": 2}",
        "{\"fold\": 0, \"state\": \"training\", \"step\": 1e300, \"first_step\": 0, \"total_steps\": 2}",
        "{\"fold\": 0, \"state\": \"training\", \"step\": 9223372036854775807, \"first_step\": 0, \"total_steps\": 2}",
        "{\"fold\": 0, \"state\": \"training\", \"step\": 5, \"first_step\": 0, \"total_steps\": 2, \"pid\": 1, "
        "\"ranks\": 1, \"last_metric_step\": 0, \"best_metric_step\": 0}",
        "{\"fold\": 0, \"state\": \"training\", \"step\": 1, \"first_step\": 2, \"total_steps\": 2, \"pid\": 1, "
        "\"ranks\": 1, \"last_metric_step\": 0, \"best_metric_step\": 0}",
        "\xff\xfe\0",
    };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        fb3_fold_progress read = some_fold(0);
        scratch_write("progress.json", BAD[i]);
        assert_int_equal(fb3_fold_progress_read("progress.json", 0, &read), FB3_INPUT);
        assert_non_null(strstr(fb3_error_text(), "progress.json"));
        assert_int_equal(read.phase, FB3_PHASE_WAITING);
        assert_int_equal(read.step, 0);
    }
    remove("progress.json");
    fb3_fold_progress read;
    assert_int_equal(fb3_fold_progress_read("progress.json", 0, &read), FB3_INPUT);
}

/* Every byte changed, and every length: read or refused, and never more than a line in length or a control character
 * in what goes to a terminal. */
static void no_byte_crashes_the_reader(void **state)
{
    (void)state;
    fb3_fold_progress written = some_fold(0), read;
    char *text;
    size_t bytes;
    assert_int_equal(fb3_fold_progress_write("whole.json", &written), FB3_OK);
    assert_int_equal(fb3_file_read("whole.json", 1 << 16, &text, &bytes), FB3_OK);
    for (size_t i = 0; i < bytes; i++) {
        static const unsigned char OTHERS[] = {0, '"', '9', '-', '}', '\\', 0xFF};
        for (size_t k = 0; k < sizeof OTHERS; k++) {
            char *copy = malloc(bytes);
            memcpy(copy, text, bytes);
            copy[i] = (char)OTHERS[k];
            assert_int_equal(fb3_file_write_lightly("progress.json", copy, bytes), FB3_OK);
            free(copy);
            (void)fb3_fold_progress_read("progress.json", 0, &read);
            assert_true(read.phase < FB3_PHASES && read.step >= 0 && read.step <= read.total_steps);
        }
        assert_int_equal(fb3_file_write_lightly("progress.json", text, i), FB3_OK);
        assert_int_equal(fb3_fold_progress_read("progress.json", 0, &read), FB3_INPUT);
    }
    free(text);
}

static void texts_cannot_steer_a_terminal(void **state)
{
    (void)state;
    fb3_fold_progress read;
    char text[4096], host[2000];
    memset(host, 'h', sizeof host - 1);
    host[sizeof host - 1] = 0;
    snprintf(text, sizeof text,
             "{\"fold\": 0, \"state\": \"failed\", \"step\": 1, \"first_step\": 0, \"total_steps\": 2, \"pid\": 1, "
             "\"ranks\": 1, \"last_metric_step\": 0, \"best_metric_step\": 0, \"error\": \"a\\u001b[2Jb\\n\\u00e9\", "
             "\"host\": \"%s\", \"metric\": 5}",
             host);
    scratch_write("progress.json", text);
    assert_int_equal(fb3_fold_progress_read("progress.json", 0, &read), FB3_OK);
    assert_string_equal(read.error, "a?[2Jb???");
    assert_int_equal(strlen(read.host), sizeof read.host - 1);
    assert_string_equal(read.metric, "");
}

/* --- a run -------------------------------------------------------------------------------------------------------- */

static void make_run(const char *directory, int folds)
{
    char path[128], yaml[128];
    snprintf(yaml, sizeof yaml, "train_file: train.csv\nfolds: %d\n", folds);
    snprintf(path, sizeof path, "%s/run.yaml", directory);
    assert_int_equal(fb3_folder_make(directory), FB3_OK);
    scratch_write(path, yaml);
}

static void put_fold(const char *directory, const fb3_fold_progress *p)
{
    char path[128];
    snprintf(path, sizeof path, "%s/fold-%d", directory, p->fold);
    assert_int_equal(fb3_folder_make(path), FB3_OK);
    snprintf(path, sizeof path, "%s/fold-%d/progress.json", directory, p->fold);
    assert_int_equal(fb3_fold_progress_write(path, p), FB3_OK);
}

static fb3_run_state state_of(const char *directory, bool *alive)
{
    fb3_run_progress run;
    assert_int_equal(fb3_run_progress_read(&run, directory), FB3_OK);
    fb3_run_state state = run.state;
    *alive = run.alive;
    char *json = fb3_run_progress_json(&run);
    assert_non_null(json);
    free(json);
    fb3_run_progress_free(&run);
    return state;
}

static void a_run_is_alive_by_its_lock(void **state)
{
    (void)state;
    bool alive;
    int lock;
    fb3_fold_progress p = some_fold(0);
    gethostname(p.host, sizeof p.host);
    make_run("alive", 2);
    assert_int_equal(state_of("alive", &alive), FB3_RUN_KILLED);
    assert_int_equal(fb3_file_lock("alive/.lock", 0, &lock), FB3_OK);
    assert_int_equal(state_of("alive", &alive), FB3_RUN_STARTING);
    put_fold("alive", &p);
    assert_int_equal(state_of("alive", &alive), FB3_RUN_TRAINING);
    assert_true(alive);
    fb3_file_unlock(lock);
    assert_int_equal(state_of("alive", &alive), FB3_RUN_KILLED); /* its last word is new, and its lock is free */
    assert_false(alive);
    /* On another host the lock may be one that is not seen here. */
    snprintf(p.host, sizeof p.host, "some-other-host");
    put_fold("alive", &p);
    assert_int_equal(state_of("alive", &alive), FB3_RUN_TRAINING);
    p.updated -= 100;
    put_fold("alive", &p);
    assert_int_equal(state_of("alive", &alive), FB3_RUN_KILLED);
}

static void how_a_run_ended(void **state)
{
    (void)state;
    bool alive;
    fb3_fold_progress p = some_fold(0), q = some_fold(1);
    make_run("ended", 2);
    gethostname(p.host, sizeof p.host);
    gethostname(q.host, sizeof q.host);
    p.phase = FB3_PHASE_COMPLETE;
    q.phase = FB3_PHASE_STOPPED;
    put_fold("ended", &p);
    put_fold("ended", &q);
    assert_int_equal(state_of("ended", &alive), FB3_RUN_STOPPED);
    q.phase = FB3_PHASE_FAILED;
    put_fold("ended", &q);
    assert_int_equal(state_of("ended", &alive), FB3_RUN_FAILED);
    q.phase = FB3_PHASE_COMPLETE;
    put_fold("ended", &q);
    assert_int_equal(state_of("ended", &alive), FB3_RUN_COMPLETE);
    /* One was killed, and the other was still asked to stop. */
    p.phase = FB3_PHASE_STOPPED;
    q.phase = FB3_PHASE_WRITING;
    put_fold("ended", &p);
    put_fold("ended", &q);
    assert_int_equal(state_of("ended", &alive), FB3_RUN_KILLED);
}

static void damage_in_a_run_is_a_note(void **state)
{
    (void)state;
    fb3_run_progress run;
    fb3_fold_progress p = some_fold(1);
    make_run("damaged", 2);
    put_fold("damaged", &p);
    scratch_write("damaged/fold-1/progress.json", "{\"fold\": 1,");
    scratch_write("damaged/summary.json", "[");
    assert_int_equal(fb3_run_progress_read(&run, "damaged"), FB3_OK);
    assert_int_equal(run.count, 2);
    assert_int_equal(run.notes.count, 2);
    assert_non_null(strstr(run.notes.item[0], "summary.json"));
    assert_non_null(strstr(run.notes.item[1], "fold-1/progress.json"));
    fb3_run_progress_free(&run);
    scratch_write("damaged/run.yaml", "folds: [");
    assert_int_equal(fb3_run_progress_read(&run, "damaged"), FB3_OK); /* the folds that there are */
    assert_int_equal(run.count, 1);
    fb3_run_progress_free(&run);
    assert_int_equal(fb3_run_progress_read(&run, "nowhere"), FB3_INPUT);
    assert_int_equal(fb3_run_progress_read(&run, "damaged/fold-1"), FB3_INPUT);
}

/* --- lines -------------------------------------------------------------------------------------------------------- */

/* The columns of the widest line; colours have none. */
static int widest(const char *text, int *lines)
{
    int most = 0, here = 0;
    *lines = 0;
    for (const char *c = text; *c; c++) {
        if (*c == '\033')
            c = strchr(c, 'm');
        else if (*c == '\n')
            (*lines)++, here = 0;
        else
            here++;
        if (here > most) most = here;
    }
    return most;
}

static int many_folds(fb3_fold_progress *fold, int count)
{
    for (int i = 0; i < count; i++) {
        fold[i] = some_fold(i);
        fold[i].phase = (fb3_fold_phase)(i % FB3_PHASES);
        if (i % FB3_PHASES == FB3_PHASE_WAITING) fold[i] = fb3_fold_progress_none(i);
        if (i == 1) fold[i].step = fold[i].total_steps = (int64_t)1 << 53;
        if (i == 2) fold[i].loss = fold[i].samples_per_second = fold[i].best_metric = 1e300;
        if (i == 3) fold[i].seconds = NAN;
    }
    return count;
}

static void no_line_is_wider(void **state)
{
    (void)state;
    fb3_fold_progress fold[40];
    for (int width = 20; width <= 220; width++) {
        for (int count = 1; count <= 40; count += 13) {
            int told, lines;
            const fb3_lines_style style = {.width = width, .colour = width % 2, .rows = width % 3 ? 12 : 0};
            char *text = fb3_progress_lines(fold, many_folds(fold, count), &style, &told);
            assert_non_null(text);
            assert_true(widest(text, &lines) < width);
            assert_int_equal(lines, told);
            if (style.rows) assert_true(lines <= style.rows);
            if (!style.rows) assert_int_equal(lines, count + (count > 1));
            if (!style.colour) assert_null(strchr(text, '\033'));
            free(text);
        }
    }
}

static void what_matters_most_stays(void **state)
{
    (void)state;
    static const struct {
        int width;
        const char *line;
    } CASES[] = {
        {40, "fold-0  50/120  ETA 02:20  best 0.5900\n"},
        {80, "fold-0  [#####.......]  50/120  ETA 02:20  best 0.5900  8.1 samples/s  812 MB\n"},
        {200, "fold-0  [##########..............]  50/120  ETA 02:20  best 0.5900  8.1 samples/s  812 MB  last 0.6100  "
              "loss 0.4312  epoch 1.25\n"},
    };
    fb3_fold_progress p = some_fold(0);
    p.phase = FB3_PHASE_TRAINING;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        int lines;
        const fb3_lines_style style = {.width = CASES[i].width};
        char *text = fb3_progress_lines(&p, 1, &style, &lines);
        assert_string_equal(text, CASES[i].line);
        free(text);
        const fb3_lines_style coloured = {.width = CASES[i].width, .colour = true};
        text = fb3_progress_lines(&p, 1, &coloured, &lines);
        assert_int_equal(widest(text, &lines), strlen(CASES[i].line) - 1);
        assert_true((strchr(text, '\033') != NULL) == (CASES[i].width > 40)); /* the bar */
        free(text);
    }
}

/* Where not all folds fit, those at work do. */
static void those_at_work_are_shown(void **state)
{
    (void)state;
    fb3_fold_progress fold[20];
    for (int i = 0; i < 20; i++) fold[i] = fb3_fold_progress_none(i);
    fold[17] = some_fold(17);
    int lines;
    const fb3_lines_style style = {.width = 80, .rows = 5};
    char *text = fb3_progress_lines(fold, 20, &style, &lines);
    assert_int_equal(lines, 5);
    assert_non_null(strstr(text, "fold-17"));
    assert_non_null(strstr(text, "and 17 more\n"));
    assert_non_null(strstr(text, "\nall "));
    free(text);
}

static void the_environment_decides_about_terminals(void **state)
{
    (void)state;
    fb3_terminal none = {.file = -1};
    setenv("COLUMNS", "123", 1);
    assert_int_equal(fb3_terminal_width(&none), 123);
    setenv("COLUMNS", "-7", 1);
    assert_int_equal(fb3_terminal_width(&none), 80);
    setenv("COLUMNS", "1000000", 1);
    assert_true(fb3_terminal_width(&none) <= 1000);
    unsetenv("COLUMNS");
    capture_begin(STDERR_FILENO); /* a file */
    fb3_terminal found = fb3_terminal_find(STDERR_FILENO);
    free(capture_end());
    assert_int_equal(found.file, -1);
}

/* --- a fold in training ------------------------------------------------------------------------------------------- */

static fb3_progress *open_progress(const char *directory)
{
    static const bool all[] = {true, true};
    fb3_progress *progress;
    const fb3_progress_options options = {.run_directory = directory,
                                          .folds = 2,
                                          .selected = all,
                                          .mine = all,
                                          .metric = "eval_MCRMSE",
                                          .host = "here",
                                          .ranks = 2,
                                          .plain = true};
    assert_int_equal(fb3_progress_open(&progress, &options), FB3_OK);
    return progress;
}

static void take_step(fb3_progress *progress, int64_t step)
{
    const fb3_step_record record = {.step = step, .epoch = 0.5, .loss = 0.25, .samples_per_second = 10};
    fb3_progress_step(progress, &record);
}

static void a_fold_tells_of_itself(void **state)
{
    (void)state;
    fb3_fold_progress read, from = fb3_fold_progress_none(1);
    const fb3_scores scores = {.mcrmse = 0.5};
    from.step = 4;
    from.total_steps = 8;
    assert_int_equal(fb3_folder_make("told/fold-1"), FB3_OK);
    capture_begin(STDERR_FILENO);
    fb3_progress *progress = open_progress("told");
    fb3_progress_begin(progress, &from);
    for (int64_t step = 5; step <= 8; step++) take_step(progress, step);
    fb3_progress_eval(progress, &(fb3_eval_record){.step = 8, .scores = &scores}, 0.5, true);
    fb3_progress_end(progress, FB3_OK);
    char *said = capture_end();
    assert_int_equal(fb3_fold_progress_read("told/fold-1/progress.json", 1, &read), FB3_OK);
    assert_int_equal(read.phase, FB3_PHASE_COMPLETE);
    assert_int_equal(read.first_step, 4);
    assert_int_equal(read.step, 8);
    assert_true(read.best_metric == 0.5 && read.best_step == 8);
    assert_int_equal(read.pid, getpid());
    assert_null(strchr(said, '\033'));
    assert_non_null(strstr(said, "fold 2/2  8/8  epoch 0.50  loss 0.2500"));
    assert_non_null(strstr(said, "fold 2/2  step 8  epoch 0.00  MCRMSE 0.5000  (best)"));
    free(said);
    (void)fb3_fail(FB3_FAILED, "the disk; mend it");
    fb3_progress_begin(progress, &from);
    fb3_progress_end(progress, FB3_FAILED);
    assert_string_equal(fb3_error_text(), "the disk; mend it");
    assert_int_equal(fb3_fold_progress_read("told/fold-1/progress.json", 1, &read), FB3_OK);
    assert_int_equal(read.phase, FB3_PHASE_FAILED);
    assert_string_equal(read.error, "the disk; mend it");
    fb3_progress_close(progress);
    fb3_progress_close(NULL);
    fb3_progress_begin(NULL, &from);
    take_step(NULL, 1);
    fb3_progress_phase(NULL, FB3_PHASE_WRITING);
    fb3_progress_end(NULL, FB3_OK);
}

/* Steps come much faster than a second; the file does not change more often than that. */
static void the_file_is_written_once_a_second(void **state)
{
    (void)state;
    const struct timespec moment = {.tv_nsec = 1000000};
    fb3_fold_progress from = fb3_fold_progress_none(0);
    struct stat now, before = {0};
    int changes = 0;
    double started = fb3_seconds(), busy = 0;
    from.total_steps = 1000000;
    assert_int_equal(fb3_folder_make("often/fold-0"), FB3_OK);
    capture_begin(STDERR_FILENO);
    fb3_progress *progress = open_progress("often");
    fb3_progress_begin(progress, &from);
    int64_t step = 1;
    for (; fb3_seconds() - started < 2.5; step++) {
        double begin = fb3_seconds();
        take_step(progress, step);
        fb3_progress_phase(progress, step % 2 ? FB3_PHASE_EVALUATING : FB3_PHASE_TRAINING);
        busy += fb3_seconds() - begin;
        if (stat("often/fold-0/progress.json", &now) == 0 && now.st_ino != before.st_ino) changes++;
        if (now.st_ino != before.st_ino) before = now;
        nanosleep(&moment, NULL);
    }
    free(capture_end());
    assert_in_range(changes, 1, 4);
    print_message("%.2f us for a step\n", busy / (double)step * 1e6);
    fb3_progress_end(progress, FB3_STOPPED);
    fb3_progress_close(progress);
}

/* What cannot be written is one warning. */
static void no_folder_is_one_warning(void **state)
{
    (void)state;
    fb3_fold_progress from = fb3_fold_progress_none(0);
    capture_begin(STDERR_FILENO);
    fb3_progress *progress = open_progress("missing");
    fb3_progress_begin(progress, &from);
    fb3_progress_end(progress, FB3_STOPPED);
    fb3_progress_begin(progress, &from);
    fb3_progress_end(progress, FB3_STOPPED);
    fb3_progress_close(progress);
    char *said = capture_end();
    char *first = strstr(said, "warning");
    assert_non_null(first);
    assert_null(strstr(first + 1, "warning"));
    free(said);
}

/* --- the foot ----------------------------------------------------------------------------------------------------- */

static void lines_stay_above_the_foot(void **state)
{
    (void)state;
    capture_begin(STDERR_FILENO);
    fb3_log_write("before");
    fb3_log_has_foot();
    fb3_log_foot("a\nb\n", 2);
    fb3_log_info("said");
    fb3_log_foot(NULL, 0);
    fb3_log_foot("c\n", 1);
    fb3_log_error("the end");
    fb3_log_foot("d\n", 1);
    char *said = capture_end();
    assert_string_equal(said, "before\n"
                              "\r\033[J\na\nb\n\033[3A"
                              "\r\033[Jfb3-dist: said\n"
                              "\r\033[J\na\nb\n\033[3A"
                              "\r\033[J"
                              "\r\033[J\nc\n\033[2A"
                              "\r\033[Jfb3-dist: the end\n");
    free(said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(eta_is_of_this_start),
        cmocka_unit_test(damaged_files_are_told),
        cmocka_unit_test(no_byte_crashes_the_reader),
        cmocka_unit_test(texts_cannot_steer_a_terminal),
        cmocka_unit_test(a_run_is_alive_by_its_lock),
        cmocka_unit_test(how_a_run_ended),
        cmocka_unit_test(damage_in_a_run_is_a_note),
        cmocka_unit_test(no_line_is_wider),
        cmocka_unit_test(what_matters_most_stays),
        cmocka_unit_test(those_at_work_are_shown),
        cmocka_unit_test(the_environment_decides_about_terminals),
        cmocka_unit_test(a_fold_tells_of_itself),
        cmocka_unit_test(the_file_is_written_once_a_second),
        cmocka_unit_test(no_folder_is_one_warning),
        cmocka_unit_test(lines_stay_above_the_foot),
    };
    return cmocka_run_group_tests(tests, scratch_enter, scratch_leave);
}
