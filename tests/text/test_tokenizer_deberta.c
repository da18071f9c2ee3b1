/* DeBERTa-v3's own tokenizer, where it is at hand: ids of the strings that tokenizers disagree on and of the real
 * essays against goldens. Skipped by name where the tokenizer or the essays are not there. */
#include "golden.h"

#include "fb3/file.h"

enum { SKIPPED = 77, PIECES = 128000 };

static const char tokenizer_folder[] = "data/deberta-v3-tokenizer", essays[] = "data/ellipse/train.csv";
static fb3_tokenizer *tokenizer;

static int open_tokenizer(void **state)
{
    (void)state;
    return fb3_tokenizer_open(&tokenizer, test_path("FB3_SHARED_DIR", tokenizer_folder));
}

static int close_tokenizer(void **state)
{
    (void)state;
    fb3_tokenizer_close(tokenizer);
    return 0;
}

static void test_strings(void **state)
{
    (void)state;
    golden_check_strings(tokenizer, "deberta");
}

static void test_essays(void **state)
{
    (void)state;
    char path[4096];
    snprintf(path, sizeof path, "%s", test_path("FB3_SHARED_DIR", essays));
    golden_check_essays(tokenizer, path, "deberta");
}

static void test_what_it_is(void **state)
{
    (void)state;
    assert_int_equal(fb3_tokenizer_pieces(tokenizer), PIECES + 1);
    assert_int_equal(fb3_tokenizer_vocabulary(tokenizer), 128100);
    assert_memory_equal(fb3_tokenizer_sha256(tokenizer), "c679fbf9", 8);
    golden_check_json(tokenizer, PIECES);
}

/* From the bytes alone, as a checkpoint has them, it is the same tokenizer. */
static void test_from_memory(void **state)
{
    (void)state;
    size_t bytes;
    const void *model = fb3_tokenizer_model(tokenizer, &bytes);
    fb3_tokenizer *other;
    assert_ok(fb3_tokenizer_open_memory(&other, model, bytes));
    golden_check_strings(other, "deberta");
    assert_string_equal(fb3_tokenizer_sha256(other), fb3_tokenizer_sha256(tokenizer));
    fb3_tokenizer_close(other);
}

int main(void)
{
    static const char *const needed[] = {"data/deberta-v3-tokenizer/spm.model", essays};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        const char *folder = getenv("FB3_SHARED_DIR");
        if (folder && fb3_file_exists(test_path("FB3_SHARED_DIR", needed[i]))) continue;
        printf("skipped: %s/%s is not there\n", folder ? folder : "$FB3_SHARED_DIR", needed[i]);
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_essays),
        cmocka_unit_test(test_what_it_is),
        cmocka_unit_test(test_from_memory),
    };
    return cmocka_run_group_tests_name("tokenizer_deberta", tests, open_tokenizer, close_tokenizer);
}
