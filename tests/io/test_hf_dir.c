/* Finding Hugging Face directories and loading weights from them. */
#include "io_test.h"

#include "fb3/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A model to load into. */
typedef struct loaded_model {
    fb3_param_table *table;
    fb3_weights weights;
} loaded_model;

static loaded_model make_model(const fb3_model_config *config, int targets)
{
    loaded_model made;
    assert_ok(fb3_param_table_create(&made.table, config, 7, targets));
    assert_ok(fb3_weights_alloc(&made.weights, made.table));
    return made;
}

static void free_model(loaded_model *model)
{
    fb3_weights_free(&model->weights);
    fb3_param_table_free(model->table);
}

static void loads(const char *name, bool with_head)
{
    fb3_hf_dir *hf;
    bool has_head = !with_head;
    assert_ok(fb3_hf_open(&hf, golden_path(name)));
    assert_int_equal(hf->has_head, with_head);
    assert_int_equal(hf->targets, with_head ? TINY_TARGETS : 0);
    assert_memory_equal(&hf->model, &tiny_model, sizeof tiny_model);
    loaded_model model = make_model(&hf->model, TINY_TARGETS);
    assert_ok(fb3_hf_load_weights(hf, model.table, &model.weights, &has_head));
    assert_int_equal(has_head, with_head);
    assert_golden(model.table, &model.weights, 0, with_head);
    free_model(&model);
    fb3_hf_close(hf);
}

static void float32_without_prefix(void **state)
{
    (void)state;
    fb3_hf_dir *hf;
    char hex[FB3_SHA256_HEX], same[FB3_SHA256_HEX];
    loads("plain", true);
    assert_ok(fb3_hf_open(&hf, golden_path("plain")));
    assert_string_equal(hf->label_names, "[\"cohesion\",\"syntax\"]");
    assert_int_equal(hf->max_length, 512);
    assert_ok(fb3_hf_weights_sha256(hf, hex));
    assert_ok(fb3_sha256_file(golden_path("plain/model.safetensors"), same));
    assert_string_equal(hex, same);
    fb3_hf_close(hf);
}

static void half_with_prefix_and_unused_heads(void **state)
{
    (void)state;
    loads("hub", false);
}

static void bfloat16_with_old_names(void **state)
{
    (void)state;
    loads("bfloat16", false);
}

static void nested_with_shared_storage(void **state)
{
    (void)state;
    loads("nested", true);
}

/* --- what does not fit -------------------------------------------------------------------------------------------- */

/* A copy of golden/plain with texts of the header replaced by others of the same length, and another config.json. */
static const char *altered(const char *const texts[], const char *config)
{
    size_t bytes, config_bytes;
    unsigned char *weights = read_whole(golden_path("plain/model.safetensors"), &bytes);
    for (; texts[0]; texts += 2) {
        unsigned char *at = memmem(weights, bytes, texts[0], strlen(texts[0]));
        assert_non_null(at);
        assert_int_equal(strlen(texts[0]), strlen(texts[1]));
        memcpy(at, texts[1], strlen(texts[1]));
    }
    assert_ok(fb3_folder_make(scratch_path("altered")));
    write_file(scratch_path("altered/model.safetensors"), weights, bytes);
    unsigned char *original = read_whole(golden_path("plain/config.json"), &config_bytes);
    write_file(scratch_path("altered/config.json"), config ? config : (const char *)original,
               config ? strlen(config) : config_bytes);
    free(original);
    free(weights);
    return scratch_path("altered");
}

#define ALTERED(...) altered((const char *const[]){__VA_ARGS__, NULL}, NULL)

static void tensors_that_do_not_fit_are_listed(void **state)
{
    (void)state;
    fb3_hf_dir *hf;
    assert_refused(fb3_hf_open(&hf, ALTERED("encoder.LayerNorm.bias", "encoder.LayerNorm.bios")),
                   "1 missing (encoder.LayerNorm.bias), 1 unknown (encoder.LayerNorm.bios)");
    assert_refused(fb3_hf_open(&hf, ALTERED("\"shape\":[32,16]", "\"shape\":[16,32]")),
                   "1 misshapen (encoder.layer.0.intermediate.dense.weight is [16, 32], not [32, 16])");
    assert_refused(fb3_hf_open(&hf, ALTERED("\"shape\":[2,16]", "\"shape\":[1,32]")), "misshapen");
    assert_refused(fb3_hf_open(&hf, ALTERED("\"shape\":[2,16]", "\"shape\":[16,2]")), "misshapen");
    assert_refused(fb3_hf_open(&hf, ALTERED("\"fc.bias\"", "\"cls.abc\"")), "1 missing (fc.bias)");
    assert_refused(fb3_hf_open(&hf, ALTERED("embeddings.word_embeddings.weight", "embeddings.wordembeddings._weight")),
                   "1 missing (embeddings.word_embeddings.weight)");
    assert_refused(fb3_hf_open(&hf, ALTERED("\"encoder.layer.0.attention.output.LayerNorm.bias\"",
                                            "\"deberta.model.module.encoder.LayerNorm.weight\"\t\t")),
                   "which are the same parameter");
}

static void many_tensors_that_do_not_fit(void **state)
{
    (void)state;
    fb3_hf_dir *hf;
    const char *none[] = {NULL};
    char *text, *layers;
    size_t bytes;
    text = (char *)read_whole(golden_path("plain/config.json"), &bytes);
    layers = strstr(text, "\"num_hidden_layers\": 1");
    assert_non_null(layers);
    layers[strlen("\"num_hidden_layers\": ")] = '3';
    assert_refused(fb3_hf_open(&hf, altered(none, text)), "32 missing (encoder.layer.2.");
    assert_true(strstr(fb3_error_text(), ", ...); take the config.json") != NULL);
    free(text);
}

static void another_number_of_targets(void **state)
{
    (void)state;
    fb3_hf_dir *hf;
    bool has_head;
    assert_ok(fb3_hf_open(&hf, golden_path("plain")));
    loaded_model model = make_model(&hf->model, 6);
    assert_refused(fb3_hf_load_weights(hf, model.table, &model.weights, &has_head),
                   "fc.weight is [2, 16], not [6, 16]");
    free_model(&model);
    fb3_hf_close(hf);
}

static void directories_that_are_refused(void **state)
{
    (void)state;
    fb3_hf_dir *hf;
    const char *none[] = {NULL};
    assert_refused(fb3_hf_open(&hf, scratch_path("absent")), "there is no directory");
    assert_refused(fb3_hf_open(&hf, altered(none, "{")), "not JSON");
    assert_refused(fb3_hf_open(&hf, altered(none, "[]")), "not a JSON object");
    assert_refused(fb3_hf_open(&hf, altered(none, "{\"model_type\": \"bert\"}")), "config.json");
    assert_ok(fb3_folder_make(scratch_path("empty")));
    assert_refused(fb3_hf_open(&hf, scratch_path("empty")), "config.json");
    write_file(scratch_path("empty/config.json"), "", 0);
    assert_refused(fb3_hf_open(&hf, scratch_path("empty")), "not JSON");

    size_t bytes;
    unsigned char *config = read_whole(golden_path("plain/config.json"), &bytes);
    write_file(scratch_path("empty/config.json"), config, bytes);
    free(config);
    assert_refused(fb3_hf_open(&hf, scratch_path("empty")), "neither model.safetensors nor pytorch_model.bin");
    write_file(scratch_path("empty/model.safetensors.index.json"), "{}", 2);
    assert_refused(fb3_hf_open(&hf, scratch_path("empty")), "several files (model.safetensors.index.json)");
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 371146213\n";
    write_file(scratch_path("empty/model.safetensors"), pointer, strlen(pointer));
    assert_refused(fb3_hf_open(&hf, scratch_path("empty")), "Git LFS pointer");
}

static void damaged_storage_is_refused(void **state)
{
    (void)state;
    fb3_hf_dir *hf;
    size_t bytes, config_bytes;
    bool has_head;
    unsigned char *weights = read_whole(golden_path("nested/pytorch_model.bin"), &bytes);
    unsigned char *config = read_whole(golden_path("nested/config.json"), &config_bytes);
    assert_ok(fb3_folder_make(scratch_path("damaged")));
    write_file(scratch_path("damaged/config.json"), config, config_bytes);
    const float value = golden_value("encoder.rel_embeddings.weight", 0),
                next = golden_value("encoder.rel_embeddings.weight", 1);
    const float pair[] = {value, next, golden_value("encoder.rel_embeddings.weight", 2)};
    unsigned char *at = memmem(weights, bytes, pair, sizeof pair);
    assert_non_null(at);
    at[5] ^= 0x10;
    write_file(scratch_path("damaged/pytorch_model.bin"), weights, bytes);
    assert_ok(fb3_hf_open(&hf, scratch_path("damaged")));
    loaded_model model = make_model(&hf->model, TINY_TARGETS);
    assert_refused(fb3_hf_load_weights(hf, model.table, &model.weights, &has_head), "is damaged: the checksum");
    free_model(&model);
    fb3_hf_close(hf);
    free(weights);
    free(config);
}

/* --- the cache ---------------------------------------------------------------------------------------------------- */

static void make_snapshot(const char *cache, const char *commit)
{
    char path[512];
    snprintf(path, sizeof path, "%s/models--microsoft--deberta-v3-base/snapshots/%s", cache, commit);
    assert_ok(fb3_folder_make(scratch_path(path)));
    snprintf(path, sizeof path, "%s/models--microsoft--deberta-v3-base/refs", cache);
    assert_ok(fb3_folder_make(scratch_path(path)));
}

static void make_ref(const char *cache, const char *ref, const char *commit)
{
    char path[512];
    snprintf(path, sizeof path, "%s/models--microsoft--deberta-v3-base/refs/%s", cache, ref);
    write_file(scratch_path(path), commit, strlen(commit));
}

static void assert_found(const char *revision, const char *end)
{
    char *directory;
    assert_ok(fb3_hf_find("microsoft/deberta-v3-base", revision, &directory));
    size_t length = strlen(directory);
    assert_true(length > strlen(end));
    assert_string_equal(directory + length - strlen(end), end);
    free(directory);
}

static void hub_names_in_the_cache(void **state)
{
    (void)state;
    char *directory;
    setenv("HOME", scratch_path("home"), 1);
    unsetenv("HF_HOME");
    unsetenv("HF_HUB_CACHE");
    assert_refused(fb3_hf_find("microsoft/deberta-v3-base", NULL, &directory),
                   "run: tools/fetch-model microsoft/deberta-v3-base");
    assert_refused(fb3_hf_find("microsoft/deberta-v3-base", "v2", &directory),
                   "tools/fetch-model microsoft/deberta-v3-base --revision v2");

    make_snapshot("home/.cache/huggingface/hub", "aaa");
    make_ref("home/.cache/huggingface/hub", "main", "aaa");
    assert_found(NULL, "hub/models--microsoft--deberta-v3-base/snapshots/aaa");
    assert_found("aaa", "snapshots/aaa");
    setenv("HF_HOME", scratch_path("hf"), 1);
    make_snapshot("hf/hub", "bbb");
    make_ref("hf/hub", "main", "bbb\n");
    assert_found("main", "hf/hub/models--microsoft--deberta-v3-base/snapshots/bbb");
    setenv("HF_HUB_CACHE", scratch_path("hub"), 1);
    make_snapshot("hub", "ccc");
    make_ref("hub", "v2", "ccc");
    assert_found("v2", "/hub/models--microsoft--deberta-v3-base/snapshots/ccc");
    assert_found("main", "snapshots/bbb"); /* not in the first cache, but in the second */

    make_ref("hub", "evil", "../../../home");
    assert_refused(fb3_hf_find("microsoft/deberta-v3-base", "evil", &directory), "does not hold a commit id");
    assert_refused(fb3_hf_find("microsoft/deberta-v3-base", "../main", &directory), "is not a revision");
}

static void names_that_are_paths(void **state)
{
    (void)state;
    char *directory;
    assert_ok(fb3_hf_find(golden_path("plain"), NULL, &directory));
    assert_string_equal(directory, golden_path("plain"));
    free(directory);
    assert_refused(fb3_hf_find(golden_path("plain/config.json"), NULL, &directory), "is a file");
    assert_refused(fb3_hf_find("./absent", NULL, &directory), "there is no directory ./absent");
    assert_refused(fb3_hf_find("a/b/c", NULL, &directory), "there is no directory a/b/c");
    assert_refused(fb3_hf_find("", NULL, &directory), "there is no directory");
    assert_refused(fb3_hf_find("org/../x", NULL, &directory), "there is no directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_without_prefix),
        cmocka_unit_test(half_with_prefix_and_unused_heads),
        cmocka_unit_test(bfloat16_with_old_names),
        cmocka_unit_test(nested_with_shared_storage),
        cmocka_unit_test(tensors_that_do_not_fit_are_listed),
        cmocka_unit_test(many_tensors_that_do_not_fit),
        cmocka_unit_test(another_number_of_targets),
        cmocka_unit_test_teardown(directories_that_are_refused, clear_scratch),
        cmocka_unit_test_teardown(damaged_storage_is_refused, clear_scratch),
        cmocka_unit_test_teardown(hub_names_in_the_cache, clear_scratch),
        cmocka_unit_test(names_that_are_paths),
    };
    return cmocka_run_group_tests(tests, NULL, clear_scratch);
}
