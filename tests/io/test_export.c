/* Exports: read back by our own readers, and by check_export.py, which shares nothing with them. */
#include "io_test.h"

#include "fb3/file.h"
#include "fb3/tokenizer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_LENGTH = 96, ACTIVE = 5 };

/* Everything that an export needs, of the tiny model with the small tokenizer's vocabulary. */
typedef struct exported_model {
    fb3_model_config model;
    fb3_param_table *table;
    fb3_weights weights;
    unsigned char *spm;
    fb3_export export;
} exported_model;

static void make_source(exported_model *source)
{
    fb3_tokenizer *tokenizer;
    size_t spm_bytes;
    source->model = tiny_model;
    source->spm = read_whole(golden_path("spm.model"), &spm_bytes);
    assert_ok(fb3_tokenizer_open_memory(&tokenizer, source->spm, spm_bytes));
    source->model.vocab = fb3_tokenizer_vocabulary(tokenizer);
    fb3_tokenizer_close(tokenizer);
    assert_ok(fb3_param_table_create(&source->table, &source->model, ACTIVE, TINY_TARGETS));
    assert_ok(fb3_weights_alloc(&source->weights, source->table));
    fill_golden(source->table, &source->weights, 0);
    source->export = (fb3_export){.table = source->table,
                                  .weights = &source->weights,
                                  .spm = source->spm,
                                  .spm_bytes = spm_bytes,
                                  .label_names = "[\"cohesion\", \"syn\\\"tax\"]",
                                  .dtype = FB3_EXPORT_FLOAT32,
                                  .max_length = MAX_LENGTH};
}

static void free_source(exported_model *source)
{
    fb3_weights_free(&source->weights);
    fb3_param_table_free(source->table);
    free(source->spm);
}

typedef fb3_status (*exporter)(const fb3_export *export, const char *directory);

/* The directory as our own reader sees it. */
static void reads_back(const exported_model *from, const char *directory)
{
    fb3_hf_dir *hf;
    fb3_tokenizer *tokenizer;
    fb3_weights weights;
    bool has_head;
    size_t bytes;
    assert_ok(fb3_hf_open(&hf, directory));
    assert_true(hf->has_head);
    assert_int_equal(hf->targets, TINY_TARGETS);
    assert_int_equal(hf->max_length, MAX_LENGTH);
    assert_string_equal(hf->label_names, "[\"cohesion\",\"syn\\\"tax\"]");
    assert_memory_equal(&hf->model, &from->model, sizeof hf->model);
    assert_ok(fb3_weights_alloc(&weights, from->table));
    assert_ok(fb3_hf_load_weights(hf, from->table, &weights, &has_head));
    assert_golden(from->table, &weights, 0, true);
    fb3_weights_free(&weights);
    fb3_hf_close(hf);
    assert_ok(fb3_tokenizer_open(&tokenizer, directory));
    assert_memory_equal(fb3_tokenizer_model(tokenizer, &bytes), from->spm, from->export.spm_bytes);
    fb3_tokenizer_close(tokenizer);
}

/* The directory as Python's standard library sees it. */
static void python_reads(const char *directory)
{
    char *command = fb3_format("python3 '%s/tests/io/check_export.py' '%s'", getenv("FB3_SOURCE_DIR"), directory);
    assert_non_null(command);
    int result = system(command);
    free(command);
    assert_true(WIFEXITED(result));
    if (WEXITSTATUS(result) == 127) print_message("python3 is missing: %s is not checked by it\n", directory);
    assert_true(WEXITSTATUS(result) == 0 || WEXITSTATUS(result) == 127);
}

static void all_formats_and_types(void **state)
{
    (void)state;
    exported_model from;
    const struct {
        const char *name;
        exporter run;
        fb3_export_dtype dtype;
    } cases[] = {
        {"hf-32", fb3_export_hf, FB3_EXPORT_FLOAT32},       {"hf-16", fb3_export_hf, FB3_EXPORT_FLOAT16},
        {"hf-b16", fb3_export_hf, FB3_EXPORT_BFLOAT16},     {"torch-32", fb3_export_torch, FB3_EXPORT_FLOAT32},
        {"torch-16", fb3_export_torch, FB3_EXPORT_FLOAT16}, {"torch-b16", fb3_export_torch, FB3_EXPORT_BFLOAT16},
    };
    make_source(&from);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *directory = scratch_path(cases[i].name);
        from.export.dtype = cases[i].dtype;
        assert_ok(cases[i].run(&from.export, directory));
        reads_back(&from, directory);
        python_reads(directory);
    }
    free_source(&from);
}

static void the_same_weights_give_the_same_bytes(void **state)
{
    (void)state;
    exported_model from;
    char one[FB3_SHA256_HEX], two[FB3_SHA256_HEX];
    make_source(&from);
    assert_ok(fb3_export_torch(&from.export, scratch_path("one")));
    assert_ok(fb3_export_torch(&from.export, scratch_path("two")));
    assert_ok(fb3_sha256_file(scratch_path("one/pytorch_model.bin"), one));
    assert_ok(fb3_sha256_file(scratch_path("two/pytorch_model.bin"), two));
    assert_string_equal(one, two);
    free_source(&from);
}

/* --- the directory appears whole or not at all -------------------------------------------------------------------- */

static void places_to_export_to(void **state)
{
    (void)state;
    exported_model from;
    make_source(&from);
    assert_ok(fb3_folder_make(scratch_path("empty")));
    assert_ok(fb3_export_hf(&from.export, scratch_path("empty/")));
    reads_back(&from, scratch_path("empty"));
    assert_ok(fb3_export_hf(&from.export, scratch_path("new/below/here//")));
    reads_back(&from, scratch_path("new/below/here"));

    assert_refused(fb3_export_hf(&from.export, scratch_path("empty")), "exists and is not empty");
    assert_refused(fb3_export_torch(&from.export, scratch_path("empty")), "exists and is not empty");
    assert_false(fb3_file_exists(scratch_path("empty/pytorch_model.bin")));
    write_file(scratch_path("file"), "x", 1);
    assert_refused(fb3_export_hf(&from.export, scratch_path("file")), "cannot export to");
    assert_refused(fb3_export_hf(&from.export, scratch_path("file/below")), "cannot");

    /* what a killed export has left is replaced, other files are not touched */
    assert_ok(fb3_folder_make(scratch_path("left.export.tmp")));
    write_file(scratch_path("left.export.tmp/model.safetensors"), "x", 1);
    write_file(scratch_path("left.export.tmp/pytorch_model.bin.AbCdEf"), "x", 1);
    assert_ok(fb3_export_hf(&from.export, scratch_path("left")));
    reads_back(&from, scratch_path("left"));
    assert_false(fb3_folder_exists(scratch_path("left.export.tmp")));
    assert_ok(fb3_folder_make(scratch_path("mine.export.tmp")));
    write_file(scratch_path("mine.export.tmp/thesis.txt"), "x", 1);
    assert_refused(fb3_export_hf(&from.export, scratch_path("mine")), "cannot make the directory");
    assert_true(fb3_file_exists(scratch_path("mine.export.tmp/thesis.txt")));
    free_source(&from);
}

static void assert_nothing_left(const char *directory)
{
    char *temporary = fb3_format("%s.export.tmp", directory);
    assert_false(fb3_folder_exists(directory));
    assert_false(fb3_folder_exists(temporary));
    free(temporary);
}

static void failures_leave_nothing(void **state)
{
    (void)state;
    exported_model from;
    make_source(&from);
    float *bias = from.weights.arena + fb3_param_find(from.table, FB3_PARAM_HEAD_BIAS, -1)->offset;
    const exporter exporters[] = {fb3_export_hf, fb3_export_torch};
    for (int i = 0; i < 2; i++) {
        const char *directory = scratch_path("failed");
        bias[1] = 65536;
        from.export.dtype = FB3_EXPORT_FLOAT16;
        assert_int_equal(exporters[i](&from.export, directory), FB3_FAILED);
        assert_true(strstr(fb3_error_text(), "fc.bias holds 65536, which float16 cannot") != NULL);
        assert_nothing_left(directory);
        bias[1] = 3.4e38f;
        from.export.dtype = FB3_EXPORT_BFLOAT16;
        assert_int_equal(exporters[i](&from.export, directory), FB3_FAILED);
        assert_true(strstr(fb3_error_text(), "which bfloat16 cannot") != NULL);
        bias[1] = 0;
        from.export.label_names = "[\"one\"]";
        assert_int_equal(exporters[i](&from.export, directory), FB3_FAILED);
        assert_true(strstr(fb3_error_text(), "not a list of 2 texts") != NULL);
        from.export.label_names = NULL;
        from.export.spm_bytes = 10;
        assert_int_equal(exporters[i](&from.export, directory), FB3_INPUT);
        assert_nothing_left(directory);
        free_source(&from);
        make_source(&from);
        bias = from.weights.arena + fb3_param_find(from.table, FB3_PARAM_HEAD_BIAS, -1)->offset;
    }
    free_source(&from);
}

/* Whenever a writer is killed, the directory is complete or not there, and the next export succeeds. */
static void killed_while_exporting(void **state)
{
    (void)state;
    enum { KILLS = 12, WITHIN_US = 40000 };
    exported_model from;
    uint64_t random = 3;
    make_source(&from);
    const char *directory = scratch_path("killed");
    const exporter exporters[] = {fb3_export_hf, fb3_export_torch};
    for (int i = 0; i < KILLS; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) _exit(exporters[i % 2](&from.export, directory));
        usleep((useconds_t)(next_random(&random) % WITHIN_US));
        (void)kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        if (fb3_folder_exists(directory)) {
            reads_back(&from, directory);
            assert_ok(fb3_folder_remove(directory));
        }
        assert_ok(exporters[i % 2](&from.export, directory));
        reads_back(&from, directory);
        assert_ok(fb3_folder_remove(directory));
    }
    free_source(&from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_formats_and_types),  cmocka_unit_test(the_same_weights_give_the_same_bytes),
        cmocka_unit_test(places_to_export_to),    cmocka_unit_test(failures_leave_nothing),
        cmocka_unit_test(killed_while_exporting),
    };
    return cmocka_run_group_tests(tests, NULL, getenv("FB3_KEEP") ? NULL : clear_scratch);
}
