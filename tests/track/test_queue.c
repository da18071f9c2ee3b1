/* The queue in front of the trackers: order, copies, failures, and that the thread which trains never waits. */
#include "../../src/track/queue.h"
#include "base/capture.h"

#include "fb3/clock.h"
#include "fb3/log.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

/* A tracker that notes what it gets. */
static struct notes {
    char order[64];
    char config[64], line[64], model[64];
    double mcrmse;
    int64_t last_step;
    long steps;
    int calls_after_failure, closed;
    bool fails, blocks;
    fb3_status left;
    sem_t gate;
} notes;

static fb3_tracker one;

static fb3_status note(char what)
{
    size_t length = strlen(notes.order);
    if (length + 1 < sizeof notes.order) notes.order[length] = what;
    if (one.failed) notes.calls_after_failure++;
    return notes.fails ? fb3_fail(FB3_FAILED, "the disk is full") : FB3_OK;
}

static fb3_status note_config(fb3_tracker *tracker, const fb3_run_record *run)
{
    (void)tracker;
    snprintf(notes.config, sizeof notes.config, "%s|%s|%s", run->config_text, run->device, run->versions);
    return note('c');
}

static fb3_status note_step(fb3_tracker *tracker, const fb3_step_record *step)
{
    (void)tracker;
    if (notes.blocks) sem_wait(&notes.gate);
    assert_null(step->samples);
    assert_true(step->step > notes.last_step); /* in order; some may be missing */
    notes.last_step = step->step;
    notes.steps++;
    return note('s');
}

static fb3_status note_eval(fb3_tracker *tracker, const fb3_eval_record *eval)
{
    (void)tracker;
    notes.mcrmse = eval->scores->mcrmse;
    return note('e');
}

static fb3_status note_artifact(fb3_tracker *tracker, const fb3_checkpoint_record *checkpoint)
{
    (void)tracker;
    (void)checkpoint;
    return note('a');
}

static fb3_status note_end(fb3_tracker *tracker, const fb3_end_record *end)
{
    (void)tracker;
    (void)end;
    return note('x');
}

static fb3_status note_model(fb3_tracker *tracker, const fb3_model_record *model)
{
    (void)tracker;
    snprintf(notes.model, sizeof notes.model, "%s", model->directory);
    return note('m');
}

static fb3_status note_console(fb3_tracker *tracker, const char *line)
{
    (void)tracker;
    snprintf(notes.line, sizeof notes.line, "%s", line);
    return note('l');
}

static void note_close(fb3_tracker *tracker, fb3_status left)
{
    (void)tracker;
    notes.closed++;
    notes.left = left;
}

static const fb3_tracker_ops NOTES = {.name = "notes",
                                      .config = note_config,
                                      .step = note_step,
                                      .eval = note_eval,
                                      .artifact = note_artifact,
                                      .end = note_end,
                                      .model = note_model,
                                      .console = note_console,
                                      .close = note_close};

static fb3_status open_notes(fb3_tracker **tracker, const fb3_track_place *place)
{
    assert_string_equal(place->directory, "somewhere");
    one = (fb3_tracker){.ops = &NOTES};
    *tracker = &one;
    return FB3_OK;
}

static fb3_status open_nothing(fb3_tracker **tracker, const fb3_track_place *place)
{
    (void)place;
    *tracker = NULL;
    return FB3_OK;
}

static fb3_status open_badly(fb3_tracker **tracker, const fb3_track_place *place)
{
    (void)tracker;
    (void)place;
    return fb3_fail(FB3_FAILED, "no such folder");
}

static const fb3_tracker_kind GOOD = {"notes", open_notes}, NOTHING = {"nothing", open_nothing},
                              BAD = {"bad", open_badly};

static fb3_track_queue *open_queue(const fb3_tracker_kind *const *kinds, int count)
{
    static const fb3_config config;
    char directory[] = "somewhere"; /* copied */
    fb3_track_queue *queue = NULL;
    memset(&notes, 0, offsetof(struct notes, gate));
    sem_init(&notes.gate, 0, 0);
    assert_int_equal(
        fb3_track_queue_open(&queue, &(fb3_track_place){.config = &config, .directory = directory}, kinds, count),
        FB3_OK);
    return queue;
}

static void put_steps(fb3_track_queue *queue, int64_t first, int64_t last)
{
    const fb3_strings samples = {0};
    for (int64_t step = first; step <= last; step++)
        fb3_track_queue_put(queue, FB3_TRACK_STEP, &(fb3_step_record){.step = step, .samples = &samples});
}

/* Every text is taken back before the tracker can have seen it. */
static void put_all_kinds(fb3_track_queue *queue)
{
    char config[] = "the config", device[] = "cpu", versions[] = "{}", path[] = "best.h5", line[] = "said";
    fb3_scores scores = {.mcrmse = 0.5};
    fb3_track_queue_put(queue, FB3_TRACK_CONFIG,
                        &(fb3_run_record){.config_text = config, .device = device, .versions = versions});
    put_steps(queue, 1, 1);
    fb3_track_queue_put(queue, FB3_TRACK_EVAL, &(fb3_eval_record){.step = 1, .scores = &scores});
    fb3_track_queue_put(queue, FB3_TRACK_ARTIFACT, &(fb3_checkpoint_record){.path = path});
    fb3_track_queue_put(queue, FB3_TRACK_CONSOLE, line);
    fb3_track_queue_put(queue, FB3_TRACK_END, &(fb3_end_record){.best_model_checkpoint = path});
    fb3_track_queue_put(queue, FB3_TRACK_MODEL, &(fb3_model_record){.directory = path});
    memset(config, '?', sizeof config - 1);
    memset(path, '?', sizeof path - 1);
    memset(line, '?', sizeof line - 1);
    scores.mcrmse = 9;
}

static void events_arrive_in_order_and_whole(void **state)
{
    (void)state;
    const fb3_tracker_kind *kinds[] = {&NOTHING, &GOOD};
    fb3_track_queue *queue = open_queue(kinds, 2);
    put_all_kinds(queue);
    fb3_track_queue_close(queue, FB3_STOPPED);
    assert_string_equal(notes.order, "csealxm");
    assert_string_equal(notes.config, "the config|cpu|{}");
    assert_string_equal(notes.line, "said");
    assert_string_equal(notes.model, "best.h5");
    assert_true(notes.mcrmse == 0.5);
    assert_int_equal(notes.closed, 1);
    assert_int_equal(notes.left, FB3_STOPPED);
}

static int count_of(const char *text, const char *part)
{
    int count = 0;
    for (; (text = strstr(text, part)); text++) count++;
    return count;
}

static void a_failure_is_one_warning(void **state)
{
    (void)state;
    const fb3_tracker_kind *kinds[] = {&BAD, &GOOD};
    capture_begin(STDERR_FILENO);
    fb3_track_queue *queue = open_queue(kinds, 2);
    notes.fails = true;
    put_all_kinds(queue);
    put_steps(queue, 2, 50);
    fb3_track_queue_close(queue, FB3_OK);
    char *said = capture_end();
    assert_int_equal(count_of(said, "warning"), 2); /* one for each of the two */
    assert_non_null(strstr(said, "bad: no such folder; training goes on without it"));
    assert_non_null(strstr(said, "notes: the disk is full; training goes on without it"));
    assert_int_equal(notes.calls_after_failure, 0);
    assert_string_equal(notes.order, "c");
    assert_int_equal(notes.closed, 1);
    free(said);
}

/* The tracker stands still: putting goes on, steps are lost, the evaluation and the end are not. */
static void a_tracker_that_hangs_loses_steps(void **state)
{
    (void)state;
    enum { STEPS = 5000 };
    const fb3_tracker_kind *kinds[] = {&GOOD};
    const fb3_scores scores = {.mcrmse = 0.25};
    capture_begin(STDERR_FILENO);
    fb3_track_queue *queue = open_queue(kinds, 1);
    notes.blocks = true;
    double started = fb3_seconds();
    put_steps(queue, 1, STEPS);
    fb3_track_queue_put(queue, FB3_TRACK_EVAL, &(fb3_eval_record){.step = STEPS, .scores = &scores});
    fb3_track_queue_put(queue, FB3_TRACK_END, &(fb3_end_record){.best_model_checkpoint = "best.h5"});
    assert_true(fb3_seconds() - started < 5);
    for (int i = 0; i < STEPS; i++) sem_post(&notes.gate);
    fb3_track_queue_close(queue, FB3_OK);
    char *said = capture_end();
    assert_int_equal(count_of(said, "cannot keep up"), 1);
    assert_true(notes.steps >= 900 && notes.steps < STEPS);
    assert_true(notes.mcrmse == 0.25);
    free(said);
}

static double resident_mb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

/* A training of 10^5 short steps: all arrive, memory does not grow. */
static void a_long_run(void **state)
{
    (void)state;
    enum { STEPS = 100000, BURST = 200 };
    const struct timespec moment = {.tv_nsec = 200000};
    const fb3_tracker_kind *kinds[] = {&GOOD};
    fb3_track_queue *queue = open_queue(kinds, 1);
    put_steps(queue, 1, BURST);
    double before = resident_mb(), busy = 0;
    for (int64_t step = BURST + 1; step <= STEPS; step += BURST) {
        double started = fb3_seconds();
        put_steps(queue, step, step + BURST - 1);
        busy += fb3_seconds() - started;
        while (fb3_track_queue_waiting(queue) > 0) nanosleep(&moment, NULL);
    }
    fb3_track_queue_close(queue, FB3_OK);
    print_message("%.3f us for a step\n", busy / STEPS * 1e6);
    assert_int_equal(notes.steps, STEPS);
    assert_true(resident_mb() - before < 64); /* a sanitizer keeps what was freed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_arrive_in_order_and_whole), cmocka_unit_test(a_failure_is_one_warning),
        cmocka_unit_test(a_tracker_that_hangs_loses_steps), cmocka_unit_test(a_long_run)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
