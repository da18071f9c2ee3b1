/* Digests as W&B's own package computes them (0.31.0: wandb.Artifact(...).add_dir(...).digest, and the entries of its
 * manifest), and the check of a directory against its manifest. */
#include "fb3/artifact.h"
#include "fb3/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { MODEL_BYTES = 1000 };

static char folder[] = "/tmp/fb3-artifact-XXXXXX";
static char path[192];

static const char *at(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* config.json is "{}", pytorch_model.bin 1000 times "x", and there is a folder, which is left out. */
static int setup(void **state)
{
    (void)state;
    char model[MODEL_BYTES];
    memset(model, 'x', sizeof model);
    if (!mkdtemp(folder) || mkdir(at("a folder"), 0777) != 0) return -1;
    return fb3_file_write(at("pytorch_model.bin"), model, sizeof model) == FB3_OK &&
                   fb3_file_write(at("config.json"), "{}", 2) == FB3_OK
               ? 0
               : -1;
}

static int teardown(void **state)
{
    (void)state;
    return fb3_folder_remove(folder) == FB3_OK ? 0 : -1;
}

static void digests(void **state)
{
    (void)state;
    fb3_artifact artifact;
    assert_int_equal(fb3_artifact_read(&artifact, folder), FB3_OK);
    assert_int_equal(artifact.count, 2);
    assert_string_equal(artifact.file[0].name, "config.json");
    assert_string_equal(artifact.file[0].digest, "mZFLkyvTelC5g8XnyQrpOw==");
    assert_string_equal(artifact.file[1].digest, "OYUz1IER6fZksfZMsQxLYw==");
    assert_int_equal(artifact.file[1].bytes, MODEL_BYTES);
    assert_string_equal(artifact.digest, "21a61f05ee501e7dfccccb841d6eb873");
    fb3_artifact_free(&artifact);
    assert_int_equal(fb3_artifact_read(&artifact, "/nowhere"), FB3_FAILED);
}

static void a_directory_without_a_manifest_is_fine(void **state)
{
    (void)state;
    (void)unlink(at("wandb_manifest.json"));
    assert_int_equal(fb3_artifact_check(folder), FB3_OK);
}

static void expect_refusal(const char *text)
{
    assert_int_equal(fb3_artifact_check(folder), FB3_INPUT);
    if (!strstr(fb3_error_text(), text)) fail_msg("%s", fb3_error_text());
}

static void what_was_changed_is_found(void **state)
{
    (void)state;
    assert_int_equal(fb3_artifact_write_manifest(folder), FB3_OK);
    assert_int_equal(fb3_artifact_write_manifest(folder), FB3_OK); /* it does not list itself */
    assert_int_equal(fb3_artifact_check(folder), FB3_OK);
    assert_int_equal(fb3_file_write(at("config.json"), "[]", 2), FB3_OK);
    expect_refusal("config.json is not the file");
    (void)unlink(at("config.json"));
    expect_refusal("config.json");
    assert_int_equal(fb3_file_write(at("config.json"), "{}", 2), FB3_OK);
    assert_int_equal(fb3_artifact_check(folder), FB3_OK);
}

static void hostile_manifests(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {"",
                                        "[]",
                                        "{\"contents\": 3}",
                                        "{\"contents\": {\"../secret\": {\"digest\": \"x\"}}}",
                                        "{\"contents\": {\"config.json\": {\"digest\": 7}}}",
                                        "{\"contents\": {\"config.json\": []}}"};
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        assert_int_equal(fb3_file_write(at("wandb_manifest.json"), TEXTS[i], strlen(TEXTS[i])), FB3_OK);
        assert_int_equal(fb3_artifact_check(folder), FB3_INPUT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests), cmocka_unit_test(a_directory_without_a_manifest_is_fine),
        cmocka_unit_test(what_was_changed_is_found), cmocka_unit_test(hostile_manifests)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
