#include "io_test.h"

#include "fb3/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>
#include <zlib.h>

enum { PATH_BYTES = 4096, PATHS = 64 };

const fb3_model_config tiny_model = {
    .vocab = TINY_VOCAB,
    .hidden = 16,
    .layers = 1,
    .heads = 2,
    .intermediate = 32,
    .position_buckets = 8,
    .max_relative = 16,
    .layer_norm_eps = 1e-7f,
    .initializer_range = 0.02f,
    .hidden_dropout = 0.1f,
    .attention_dropout = 0.1f,
};

void assert_refused_at(fb3_status status, const char *text, const char *file, int line)
{
    const char *error = fb3_error_text();
    if (status != FB3_INPUT) {
        print_error("status %d, expected FB3_INPUT with '%s'\n", (int)status, text);
        _fail(file, line);
    }
    if (!strstr(error, text) || strchr(error, '\n')) {
        print_error("the error is '%s', expected one line with '%s'\n", error, text);
        _fail(file, line);
    }
}

float golden_value(const char *name, int64_t index)
{
    uint64_t crc = crc32(crc32(0, NULL, 0), (const Bytef *)name, (uInt)strlen(name));
    return (float)((int64_t)(((uint64_t)index * 37 + crc) % 251) - 125) / 64.0f;
}

static float *values_of(const fb3_param *param, const fb3_weights *weights, int64_t *count)
{
    *count = (int64_t)param->full_rows * (param->cols ? param->cols : 1);
    return param->kind == FB3_PARAM_WORD ? weights->word_full : weights->arena + param->offset;
}

void fill_golden(const fb3_param_table *table, fb3_weights *weights, float shift)
{
    int64_t count;
    for (int p = 0; p < table->count; p++) {
        float *values = values_of(&table->param[p], weights, &count);
        for (int64_t i = 0; i < count; i++) values[i] = golden_value(table->param[p].name, i) + shift;
    }
}

void assert_golden(const fb3_param_table *table, const fb3_weights *weights, float shift, bool with_head)
{
    int64_t count;
    for (int p = 0; p < table->count; p++) {
        const fb3_param *param = &table->param[p];
        if (!with_head && strncmp(param->name, "fc.", 3) == 0) continue;
        const float *values = values_of(param, weights, &count);
        for (int64_t i = 0; i < count; i++)
            if (values[i] != golden_value(param->name, i) + shift)
                fail_msg("%s[%lld] is %g, not %g", param->name, (long long)i, (double)values[i],
                         (double)(golden_value(param->name, i) + shift));
    }
}

static const char *from_environment(const char *name)
{
    const char *value = getenv(name);
    if (!value) fail_msg("%s is not set: run the test by ctest", name);
    return value;
}

const char *golden_path(const char *name)
{
    static char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/tests/io/golden/%s", from_environment("FB3_SOURCE_DIR"), name);
    return path;
}

static const char *scratch_folder(void)
{
    static char folder[PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/scratch-io-%s-%d", from_environment("FB3_BUILD_DIR"),
             program_invocation_short_name, (int)getpid());
    return folder;
}

const char *scratch_path(const char *name)
{
    static char path[PATHS][PATH_BYTES];
    static int next;
    char *chosen = path[next++ % PATHS];
    assert_ok(fb3_folder_make(scratch_folder()));
    if (snprintf(chosen, PATH_BYTES, "%s/%s", scratch_folder(), name) >= PATH_BYTES) fail_msg("the path is too long");
    return chosen;
}

int clear_scratch(void **state)
{
    (void)state;
    assert_ok(fb3_folder_remove(scratch_folder()));
    return 0;
}

void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

unsigned char *read_whole(const char *path, size_t *bytes)
{
    char *data;
    assert_ok(fb3_file_read(path, SIZE_MAX / 2, &data, bytes));
    return (unsigned char *)data;
}

void write_archive(const char *path, const member *members)
{
    zip_t *archive = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, NULL);
    assert_non_null(archive);
    for (; members->data; members++) {
        zip_source_t *source = zip_source_buffer(archive, members->data, members->bytes, 0);
        zip_int64_t index = zip_file_add(archive, members->name, source, 0);
        assert_true(index >= 0);
        zip_set_file_compression(archive, (zip_uint64_t)index, ZIP_CM_STORE, 0);
    }
    assert_int_equal(zip_close(archive), 0);
}

uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
