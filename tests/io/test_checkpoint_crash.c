/* Checkpoints under kill -9 and flipped bits. FB3_KILLS and FB3_FLIPS ask for more of them. */
#include "checkpoint_test.h"

#include "fb3/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    KILLS = 30,
    KILL_WITHIN_WRITES = 4, /* a writer lives for at most the time of so many writes */
    LEAST_WRITTEN = 20,
    FLIPS = 300,
};

static trained_model model;

static int from_environment(const char *name, int otherwise)
{
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

static int make_model(void **state)
{
    (void)state;
    fb3_log_identity(1, 2, ""); /* hundreds of warnings are expected: only rank 0 says them */
    make_trained(&model);
    return 0;
}

static int free_model(void **state)
{
    free_trained(&model);
    return clear_scratch(state);
}

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec;
}

/* Jobs that rewrite `last`, once and for ever; `*finished` is the last step whose write has returned. */
typedef struct rewriting {
    const char *last, *previous;
    volatile int64_t *finished;
    fb3_worker *worker; /* that is given way to */
} rewriting;

static fb3_status write_next(void *context)
{
    const rewriting *r = context;
    int64_t step = *r->finished + 1;
    FB3_TRY(write_step_giving_way(&model, r->last, r->previous, step, true, r->worker));
    *r->finished = step;
    return FB3_OK;
}

static fb3_status rewrite(void *context)
{
    for (;;) FB3_TRY(write_next(context));
}

/* How long a write takes, in microseconds. */
static double measure_write(rewriting *r, bool giving_way)
{
    double start = now_us();
    if (giving_way) assert_ok(fb3_worker_start(&r->worker, "io"));
    assert_ok(giving_way ? fb3_worker_run(r->worker, write_next, r) : write_next(r));
    fb3_worker_stop(r->worker);
    r->worker = NULL;
    return now_us() - start;
}

static void write_until_killed(rewriting *r, bool giving_way)
{
    if (giving_way && fb3_worker_start(&r->worker, "io") != FB3_OK) _exit(1);
    if (giving_way)
        (void)fb3_worker_run(r->worker, rewrite, r);
    else
        (void)rewrite(r);
    _exit(1);
}

static void kill_writer(rewriting *r, bool giving_way, useconds_t after)
{
    int result;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) write_until_killed(r, giving_way);
    usleep(after);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFSIGNALED(result));
}

/* After each kill the newest complete checkpoint is whole, and no older than the last one that was finished. */
static void kill_again_and_again(bool giving_way)
{
    uint64_t random = 7;
    /* the writer is another process, whose scratch folder would be another */
    const char *last = scratch_path("last.h5"), *previous = scratch_path("previous.h5");
    volatile int64_t *finished =
        mmap(NULL, sizeof *finished, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(finished != MAP_FAILED);
    rewriting r = {.last = last, .previous = previous, .finished = finished};
    *finished = 0;
    uint64_t within = (uint64_t)(KILL_WITHIN_WRITES * measure_write(&r, giving_way)) + 1;
    int kills = 0, wanted = from_environment("FB3_KILLS", KILLS);
    /* on a busy machine few writes fit between kills: then there are more of them */
    for (; kills < wanted || *finished < LEAST_WRITTEN; kills++) {
        fb3_checkpoint *checkpoint;
        kill_writer(&r, giving_way, (useconds_t)(next_random(&random) % within));
        assert_ok(fb3_checkpoint_open_newest(&checkpoint, last, previous));
        assert_non_null(checkpoint);
        int64_t step = fb3_checkpoint_state_of(checkpoint)->step;
        assert_in_range(step, *finished, *finished + 1);
        assert_ok(read_step(&model, checkpoint));
        fb3_checkpoint_close(checkpoint);
        *finished = step;
    }
    print_message("%lld checkpoints written under %d kills\n", (long long)*finished, kills);
    munmap((void *)finished, sizeof *finished);
}

static void killed_while_writing(void **state)
{
    (void)state;
    kill_again_and_again(false);
}

/* The hash, the flush and the renames are another thread's then. */
static void killed_while_giving_way(void **state)
{
    (void)state;
    kill_again_and_again(true);
}

/* Opens and reads everything; what can be read is right, or the test fails. */
static fb3_status read_all(const char *path)
{
    fb3_checkpoint *checkpoint;
    FB3_TRY(fb3_checkpoint_open(&checkpoint, path));
    fb3_status status = read_step(&model, checkpoint);
    fb3_checkpoint_close(checkpoint);
    return status;
}

/* Writes the file with the bit flipped. */
static void flip(const char *path, unsigned char *data, size_t bytes, uint64_t bit)
{
    data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    write_file(path, data, bytes);
    data[bit / 8] ^= (unsigned char)(1 << bit % 8);
}

static void flipped_bits_are_seen_by_the_hash(void **state)
{
    (void)state;
    uint64_t random = 1;
    size_t bytes;
    int flips = from_environment("FB3_FLIPS", FLIPS);
    const char *path = scratch_path("flip.h5");
    assert_ok(write_step(&model, path, NULL, 3, true));
    unsigned char *data = read_whole(path, &bytes);
    for (int i = 0; i < flips; i++) {
        flip(path, data, bytes, next_random(&random) % (8 * bytes));
        assert_refused(read_all(path), "does not have the content of its hash file");
    }
    print_message("%d of %d flipped bits were refused\n", flips, flips);
    write_file(path, data, bytes);
    assert_ok(read_all(path));
    free(data);
}

/* Without the hash file HDF5's own checksums have to see it; a bit that nothing depends on may pass. */
static void flipped_bits_without_a_hash(void **state)
{
    (void)state;
    uint64_t random = 2;
    size_t bytes;
    int refused = 0, flips = from_environment("FB3_FLIPS", FLIPS);
    assert_ok(write_step(&model, scratch_path("flip.h5"), NULL, 3, true));
    unsigned char *data = read_whole(scratch_path("flip.h5"), &bytes);
    const char *path = scratch_path("bare.h5");
    write_file(path, data, bytes);
    assert_ok(read_all(path));
    for (int i = 0; i < flips; i++) {
        flip(path, data, bytes, next_random(&random) % (8 * bytes));
        refused += read_all(path) != FB3_OK;
    }
    print_message("%d of %d flipped bits were refused, the others changed nothing\n", refused, flips);
    assert_true(refused > flips / 2);
    free(data);
}

/* Cut short anywhere. */
static void truncated_without_a_hash(void **state)
{
    (void)state;
    enum { CUTS = 64 };
    size_t bytes;
    assert_ok(write_step(&model, scratch_path("whole.h5"), NULL, 3, true));
    unsigned char *data = read_whole(scratch_path("whole.h5"), &bytes);
    for (size_t i = 0; i < CUTS; i++) {
        write_file(scratch_path("cut.h5"), data, bytes * i / CUTS);
        assert_refused(read_all(scratch_path("cut.h5")), "cut.h5");
    }
    print_message("%d of %d files that were cut short were refused\n", CUTS, CUTS);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(killed_while_writing, clear_scratch),
        cmocka_unit_test_teardown(killed_while_giving_way, clear_scratch),
        cmocka_unit_test_teardown(flipped_bits_are_seen_by_the_hash, clear_scratch),
        cmocka_unit_test_teardown(flipped_bits_without_a_hash, clear_scratch),
        cmocka_unit_test_teardown(truncated_without_a_hash, clear_scratch),
    };
    return cmocka_run_group_tests(tests, make_model, free_model);
}
