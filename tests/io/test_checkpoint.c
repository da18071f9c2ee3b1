/* Checkpoints: what is written is read, under the names of the contract; hash files; last and previous. */
#include "checkpoint_test.h"

#include "fb3/file.h"

#include <dirent.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static trained_model model;

static int make_model(void **state)
{
    (void)state;
    make_trained(&model);
    return 0;
}

static int free_model(void **state)
{
    free_trained(&model);
    return clear_scratch(state);
}

/* --- content ------------------------------------------------------------------------------------------------------ */

static void with_optimizer_and_without(void **state)
{
    (void)state;
    fb3_checkpoint *checkpoint;
    for (int with_optimizer = 0; with_optimizer < 2; with_optimizer++) {
        const char *path = scratch_path("round.h5");
        assert_ok(write_step(&model, path, NULL, 11, with_optimizer));
        assert_ok(fb3_checkpoint_open(&checkpoint, path));
        assert_int_equal(fb3_checkpoint_has_optimizer(checkpoint), with_optimizer);
        assert_int_equal(fb3_checkpoint_state_of(checkpoint)->step, 11);
        assert_ok(read_step(&model, checkpoint));
        if (!with_optimizer)
            assert_refused(
                fb3_checkpoint_read_moments(checkpoint, model.table, model.m, model.v, checkpoint_active_ids),
                "weights only");
        fb3_checkpoint_close(checkpoint);
    }
}

static void no_metric_yet(void **state)
{
    (void)state;
    fb3_checkpoint *checkpoint;
    fb3_checkpoint_state none = {.step = 0, .fold = -1, .best_metric = NAN, .best_step = -1, .max_length = 3};
    fb3_checkpoint_content content = {.table = model.table,
                                      .weights = model.weights,
                                      .spm = checkpoint_spm,
                                      .spm_bytes = checkpoint_spm_bytes,
                                      .state = &none};
    assert_ok(fb3_checkpoint_write(scratch_path("none.h5"), NULL, &content, NULL));
    assert_ok(fb3_checkpoint_open(&checkpoint, scratch_path("none.h5")));
    const fb3_checkpoint_state *got = fb3_checkpoint_state_of(checkpoint);
    assert_true(isnan(got->best_metric));
    assert_int_equal(got->fold, -1);
    assert_string_equal(got->config, "");
    assert_string_equal(got->weights_sha256, "");
    fb3_checkpoint_close(checkpoint);
}

static void read_by_name(hid_t file, const char *name, hsize_t count, float *values)
{
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    assert_true(dataset >= 0);
    hid_t space = H5Dget_space(dataset), type = H5Dget_type(dataset);
    assert_int_equal(H5Sget_simple_extent_npoints(space), count);
    assert_true(H5Tequal(type, H5T_IEEE_F32LE) > 0);
    assert_true(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(dataset);
}

/* The names of the contract, by HDF5 itself. */
static void names_of_the_contract(void **state)
{
    (void)state;
    enum { HIDDEN = 16 };
    static const char word[] = "embeddings.word_embeddings.weight", bias[] = "fc.bias";
    float values[TINY_VOCAB * HIDDEN];
    assert_ok(write_step(&model, scratch_path("names.h5"), NULL, 3, true));
    hid_t file = H5Fopen(scratch_path("names.h5"), H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    read_by_name(file, "/model/embeddings.word_embeddings.weight", TINY_VOCAB * HIDDEN, values);
    for (int i = 0; i < TINY_VOCAB * HIDDEN; i++) assert_true(values[i] == golden_value(word, i) + 3);
    read_by_name(file, "/optim/m/embeddings.word_embeddings.weight", CHECKPOINT_ACTIVE * HIDDEN, values);
    assert_true(values[7] == golden_value(word, 7) + 3.25f);
    read_by_name(file, "/optim/v/fc.bias", TINY_TARGETS, values);
    assert_true(values[1] == golden_value(bias, 1) + 3.5f);
    assert_true(H5Lexists(file, "/optim/active_rows", H5P_DEFAULT) > 0);
    assert_true(H5Lexists(file, "/tokenizer", H5P_DEFAULT) > 0);
    assert_true(H5Lexists(file, "/model_config", H5P_DEFAULT) > 0);
    static const char *const attributes[] = {"step",        "epoch",  "samples_seen",     "seed",
                                             "best_metric", "config", "tokenizer_sha256", "complete"};
    for (size_t i = 0; i < sizeof attributes / sizeof attributes[0]; i++)
        assert_true(H5Aexists_by_name(file, "/train", attributes[i], H5P_DEFAULT) > 0);
    H5Fclose(file);
}

static void the_same_content_gives_the_same_bytes(void **state)
{
    (void)state;
    char one[FB3_SHA256_HEX], two[FB3_SHA256_HEX];
    assert_ok(write_step(&model, scratch_path("one.h5"), NULL, 3, true));
    assert_ok(write_step(&model, scratch_path("two.h5"), NULL, 3, true));
    assert_ok(fb3_sha256_file(scratch_path("one.h5"), one));
    assert_ok(fb3_sha256_file(scratch_path("two.h5"), two));
    assert_string_equal(one, two);
}

static void another_model_or_other_data(void **state)
{
    (void)state;
    fb3_checkpoint *checkpoint;
    fb3_param_table *other;
    uint32_t ids[CHECKPOINT_ACTIVE];
    assert_ok(write_step(&model, scratch_path("other.h5"), NULL, 3, true));
    assert_ok(fb3_checkpoint_open(&checkpoint, scratch_path("other.h5")));
    memcpy(ids, checkpoint_active_ids, sizeof ids);
    ids[1]++;
    assert_refused(fb3_checkpoint_read_moments(checkpoint, model.table, model.m, model.v, ids), "with other tokens");
    assert_ok(fb3_param_table_create(&other, &tiny_model, CHECKPOINT_ACTIVE + 1, TINY_TARGETS));
    assert_refused(fb3_checkpoint_read_moments(checkpoint, other, model.m, model.v, ids), "with 5 different tokens");
    fb3_param_table_free(other);
    assert_ok(fb3_param_table_create(&other, &tiny_model, CHECKPOINT_ACTIVE, TINY_TARGETS + 1));
    assert_refused(fb3_checkpoint_read_weights(checkpoint, other, &model.weights), "fc.weight");
    fb3_param_table_free(other);
    fb3_checkpoint_close(checkpoint);
}

/* --- hash files --------------------------------------------------------------------------------------------------- */

/* Files of the scratch folder whose names start so. */
static int count_files(const char *start)
{
    int count = 0;
    const struct dirent *entry;
    DIR *folder = opendir(scratch_path("."));
    assert_non_null(folder);
    while ((entry = readdir(folder))) count += strncmp(entry->d_name, start, strlen(start)) == 0;
    closedir(folder);
    return count;
}

static void hash_name(char *name, size_t bytes, const char *path)
{
    char hex[FB3_SHA256_HEX];
    assert_ok(fb3_sha256_file(path, hex));
    snprintf(name, bytes, "%s.%s.sha256", path, hex);
}

static void remove_hashes(const char *base)
{
    const struct dirent *entry;
    DIR *folder = opendir(scratch_path("."));
    while ((entry = readdir(folder)))
        if (strncmp(entry->d_name, base, strlen(base)) == 0 && strstr(entry->d_name, ".sha256"))
            assert_int_equal(unlink(scratch_path(entry->d_name)), 0);
    closedir(folder);
}

static void one_hash_file_beside_each(void **state)
{
    (void)state;
    char name[4096], *line, wanted[256], hex[FB3_SHA256_HEX];
    size_t bytes;
    for (int step = 1; step <= 4; step++) {
        assert_ok(write_step(&model, scratch_path("last.h5"), scratch_path("previous.h5"), step, true));
        hash_name(name, sizeof name, scratch_path("last.h5"));
        assert_true(fb3_file_exists(name));
        assert_int_equal(count_files("last.h5"), 2);
        assert_int_equal(count_files("previous.h5"), step == 1 ? 0 : 2);
    }
    line = (char *)read_whole(name, &bytes);
    assert_ok(fb3_sha256_file(scratch_path("last.h5"), hex));
    snprintf(wanted, sizeof wanted, "%s  last.h5\n", hex);
    assert_string_equal(line, wanted);
    free(line);
    hash_name(name, sizeof name, scratch_path("previous.h5"));
    assert_true(fb3_file_exists(name));
}

static void assert_step(const char *path, int64_t step)
{
    fb3_checkpoint *checkpoint;
    assert_ok(fb3_checkpoint_open(&checkpoint, path));
    assert_int_equal(fb3_checkpoint_state_of(checkpoint)->step, step);
    assert_ok(read_step(&model, checkpoint));
    fb3_checkpoint_close(checkpoint);
}

static void previous_is_the_one_before(void **state)
{
    (void)state;
    const char *last = scratch_path("last.h5"), *previous = scratch_path("previous.h5");
    assert_ok(write_step(&model, last, previous, 1, true));
    assert_false(fb3_file_exists(previous));
    assert_ok(write_step(&model, last, previous, 2, true));
    assert_step(last, 2);
    assert_step(previous, 1);
    assert_ok(write_step(&model, last, previous, 3, false));
    assert_step(last, 3);
    assert_step(previous, 2);
    /* without `previous` the other file is left alone */
    assert_ok(write_step(&model, last, NULL, 4, true));
    assert_step(last, 4);
    assert_step(previous, 2);
}

static void hashes_decide(void **state)
{
    (void)state;
    fb3_checkpoint *checkpoint;
    char name[4096], stale[4096];
    const char *path = scratch_path("hash.h5");
    assert_ok(write_step(&model, path, NULL, 5, true));
    hash_name(name, sizeof name, path);
    snprintf(stale, sizeof stale, "%s.%0*d.sha256", path, FB3_SHA256_HEX - 1, 0);
    write_file(stale, "", 0);
    assert_step(path, 5); /* one of two fits */
    assert_int_equal(unlink(name), 0);
    assert_refused(fb3_checkpoint_open(&checkpoint, path), "does not have the content of its hash file");
    assert_int_equal(unlink(stale), 0);
    assert_step(path, 5); /* none: accepted with a warning */
    snprintf(stale, sizeof stale, "%s.%0*d.sha256x", path, FB3_SHA256_HEX - 1, 0);
    write_file(stale, "", 0);
    assert_step(path, 5); /* not a hash file */
}

/* The old file has no hash on record, the previous one has: the rotation must not leave a pair that does not fit. */
static void rotation_without_hashes(void **state)
{
    (void)state;
    const char *last = scratch_path("last.h5"), *previous = scratch_path("previous.h5");
    assert_ok(write_step(&model, last, previous, 1, true));
    assert_ok(write_step(&model, last, previous, 2, true));
    remove_hashes("last.h5");
    assert_ok(write_step(&model, last, previous, 3, true));
    assert_step(last, 3);
    assert_step(previous, 2);
}

static void what_a_kill_leaves_is_cleared(void **state)
{
    (void)state;
    const char *last = scratch_path("last.h5"), *previous = scratch_path("previous.h5");
    assert_ok(write_step(&model, last, previous, 1, true));
    assert_ok(write_step(&model, last, previous, 2, true));
    write_file(scratch_path("last.h5.tmp"), "half", 4);
    write_file(scratch_path("previous.h5.tmp"), "half", 4);
    assert_ok(write_step(&model, last, previous, 3, true));
    assert_step(previous, 2);
    assert_int_equal(count_files("last.h5"), 2);
    assert_int_equal(count_files("previous.h5"), 2);
}

static void failed_writes_leave_the_old_one(void **state)
{
    (void)state;
    const char *path = scratch_path("absent/last.h5");
    assert_int_not_equal(write_step(&model, path, NULL, 1, true), FB3_OK);
    assert_ok(fb3_folder_make(scratch_path("taken.h5.tmp")));
    assert_ok(write_step(&model, scratch_path("good.h5"), NULL, 1, true));
    assert_int_equal(rename(scratch_path("good.h5"), scratch_path("taken.h5")), 0);
    assert_int_not_equal(write_step(&model, scratch_path("taken.h5"), NULL, 2, true), FB3_OK);
    assert_step(scratch_path("taken.h5"), 1);
}

/* --- beside other jobs -------------------------------------------------------------------------------------------- */

typedef struct writing {
    fb3_worker *worker;
    const char *path, *previous;
} writing;

static fb3_status write_as_job(void *context)
{
    const writing *w = context;
    return write_step_giving_way(&model, w->path, w->previous, 7, true, w->worker);
}

/* What reading a batch is to a checkpoint: HDF5, of another file, on the same thread. */
typedef struct reading {
    const char *path;
    fb3_weights weights;
} reading;

static fb3_status read_as_job(void *context)
{
    reading *r = context;
    fb3_checkpoint *checkpoint;
    FB3_TRY(fb3_checkpoint_open(&checkpoint, r->path));
    fb3_status status = fb3_checkpoint_read_weights(checkpoint, model.table, &r->weights);
    fb3_checkpoint_close(checkpoint);
    return status;
}

static void assert_same_bytes(const char *a_path, const char *b_path)
{
    size_t a_bytes, b_bytes;
    unsigned char *a = read_whole(a_path, &a_bytes), *b = read_whole(b_path, &b_bytes);
    assert_int_equal(a_bytes, b_bytes);
    assert_memory_equal(a, b, a_bytes);
    free(a), free(b);
}

/* Written while other jobs of the worker read: the same bytes, the same files, and the others did not have to wait. */
static void giving_way_changes_nothing(void **state)
{
    (void)state;
    enum { ROUNDS = 5 };
    fb3_worker *worker;
    int meanwhile = 0;
    char *alone = strdup(scratch_path("alone.h5")); /* scratch_path's buffers are shared */
    char *beside = strdup(scratch_path("beside.h5")), *before = strdup(scratch_path("before.h5"));
    writing w = {.path = beside, .previous = before};
    reading r = {.path = alone};
    assert_ok(fb3_weights_alloc(&r.weights, model.table));
    assert_ok(write_step(&model, alone, NULL, 7, true));
    assert_ok(fb3_worker_start(&worker, "io"));
    w.worker = worker;
    for (int round = 0; round < ROUNDS; round++) {
        long written, read;
        assert_ok(fb3_worker_submit(worker, write_as_job, &w, &written));
        while (!fb3_worker_finished(worker, written)) {
            assert_ok(fb3_worker_submit(worker, read_as_job, &r, &read));
            assert_ok(fb3_worker_wait(worker, read));
            meanwhile += !fb3_worker_finished(worker, written);
        }
        assert_ok(fb3_worker_wait(worker, written));
        assert_same_bytes(alone, beside);
        if (round > 0) assert_same_bytes(alone, before);
    }
    fb3_worker_stop(worker);
    assert_true(meanwhile > ROUNDS);
    assert_int_equal(count_files("beside.h5"), 2);
    assert_int_equal(count_files("before.h5"), 2);
    assert_golden(model.table, &r.weights, 7, true);
    fb3_weights_free(&r.weights);
    free(alone), free(beside), free(before);
}

static void failures_beside_other_jobs(void **state)
{
    (void)state;
    fb3_worker *worker;
    assert_ok(fb3_worker_start(&worker, "io"));
    writing w = {.worker = worker, .path = scratch_path("absent/last.h5")};
    assert_int_not_equal(fb3_worker_run(worker, write_as_job, &w), FB3_OK);
    assert_non_null(strstr(fb3_error_text(), "absent/last.h5"));
    /* written, and then its place is taken by a folder */
    w.path = scratch_path("folder.h5");
    assert_ok(fb3_folder_make(scratch_path("folder.h5/inside")));
    assert_int_not_equal(fb3_worker_run(worker, write_as_job, &w), FB3_OK);
    assert_non_null(strstr(fb3_error_text(), "cannot rename"));
    assert_int_equal(count_files("folder.h5.tmp"), 0);
    fb3_worker_stop(worker);
}

/* --- the newest of two -------------------------------------------------------------------------------------------- */

static void assert_newest(int64_t step)
{
    fb3_checkpoint *checkpoint;
    assert_ok(fb3_checkpoint_open_newest(&checkpoint, scratch_path("last.h5"), scratch_path("previous.h5")));
    assert_int_equal(checkpoint ? fb3_checkpoint_state_of(checkpoint)->step : -1, step);
    if (checkpoint) assert_ok(read_step(&model, checkpoint));
    fb3_checkpoint_close(checkpoint);
}

static void damage(const char *name)
{
    FILE *file = fopen(scratch_path(name), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 5000, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, 5000, SEEK_SET), 0);
    fputc(byte ^ 1, file);
    assert_int_equal(fclose(file), 0);
}

static void newest_complete_of_two(void **state)
{
    (void)state;
    const char *last = scratch_path("last.h5"), *previous = scratch_path("previous.h5");
    assert_newest(-1);
    assert_ok(write_step(&model, last, previous, 6, true));
    assert_newest(6);
    assert_ok(write_step(&model, last, previous, 7, true));
    assert_newest(7);
    damage("last.h5");
    assert_newest(6);
    assert_int_equal(unlink(last), 0);
    assert_newest(6);
    damage("previous.h5");
    assert_newest(-1);
    /* by step, whatever the name */
    assert_ok(write_step(&model, last, NULL, 8, true));
    assert_ok(write_step(&model, previous, NULL, 9, true));
    assert_newest(9);
    write_file(previous, "", 0);
    assert_newest(8);
}

/* --- inspect ------------------------------------------------------------------------------------------------------ */

static void printed(void **state)
{
    (void)state;
    size_t bytes;
    assert_ok(write_step(&model, scratch_path("print.h5"), NULL, 12, true));
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    assert_non_null(freopen(scratch_path("printed"), "w", stdout));
    fb3_status status = fb3_checkpoint_print(scratch_path("print.h5"));
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    assert_ok(status);
    char *text = (char *)read_whole(scratch_path("printed"), &bytes);
    static const char *const wanted[] = {
        "2 targets, with optimizer state",
        "  step                    12\n",
        "  config                  learning_rate: 1e-05\n                          seed: -42\n",
        "embeddings.word_embeddings.weight",
        "[40, 16]\n",
        "fc.bias"};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (!strstr(text, wanted[i])) fail_msg("'%s' is not in\n%s", wanted[i], text);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_optimizer_and_without),
        cmocka_unit_test(no_metric_yet),
        cmocka_unit_test(names_of_the_contract),
        cmocka_unit_test(the_same_content_gives_the_same_bytes),
        cmocka_unit_test(another_model_or_other_data),
        cmocka_unit_test_teardown(one_hash_file_beside_each, clear_scratch),
        cmocka_unit_test_teardown(previous_is_the_one_before, clear_scratch),
        cmocka_unit_test_teardown(hashes_decide, clear_scratch),
        cmocka_unit_test_teardown(rotation_without_hashes, clear_scratch),
        cmocka_unit_test_teardown(what_a_kill_leaves_is_cleared, clear_scratch),
        cmocka_unit_test_teardown(failed_writes_leave_the_old_one, clear_scratch),
        cmocka_unit_test_teardown(giving_way_changes_nothing, clear_scratch),
        cmocka_unit_test_teardown(failures_beside_other_jobs, clear_scratch),
        cmocka_unit_test_teardown(newest_complete_of_two, clear_scratch),
        cmocka_unit_test(printed),
    };
    return cmocka_run_group_tests(tests, make_model, free_model);
}
