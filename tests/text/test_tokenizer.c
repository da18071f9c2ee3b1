/* The tokenizer with the sample's model: ids against goldens, truncation, buffers, threads, tokenizer.json. */
#include "golden.h"

#include <openssl/evp.h>
#include <pthread.h>

enum { PAD = 0, CLS = 1, SEP = 2, UNK = 3, PIECES = 783, MASK = PIECES };

static fb3_tokenizer *tokenizer;

static int open_sample(void **state)
{
    (void)state;
    return fb3_tokenizer_open(&tokenizer, test_path("FB3_SOURCE_DIR", "tests/sample"));
}

static int close_sample(void **state)
{
    (void)state;
    fb3_tokenizer_close(tokenizer);
    fb3_tokenizer_close(NULL);
    return 0;
}

static void test_strings(void **state)
{
    (void)state;
    golden_check_strings(tokenizer, "sample");
}

static void test_essays(void **state)
{
    (void)state;
    char path[4096];
    snprintf(path, sizeof path, "%s", test_path("FB3_SOURCE_DIR", "tests/sample/train.csv"));
    golden_check_essays(tokenizer, path, "sample");
}

static void test_what_it_is(void **state)
{
    (void)state;
    char hex[FB3_SHA256_HEX];
    size_t bytes;
    const void *model = fb3_tokenizer_model(tokenizer, &bytes);
    assert_ok(fb3_sha256_memory(model, bytes, hex));
    assert_string_equal(fb3_tokenizer_sha256(tokenizer), hex);
    assert_ok(fb3_sha256_file(test_path("FB3_SOURCE_DIR", "tests/sample/spm.model"), hex));
    assert_string_equal(fb3_tokenizer_sha256(tokenizer), hex);
    assert_int_equal(fb3_tokenizer_pieces(tokenizer), PIECES + 1);
    assert_int_equal(fb3_tokenizer_vocabulary(tokenizer), 800);
    assert_true(strlen(fb3_sentencepiece_version()) >= 5);
}

/* The ids of `text` in a buffer of its own. */
static uint32_t *encode(const char *text, int max_length, int *count, int *untruncated)
{
    uint32_t *ids = NULL;
    int64_t capacity = 0;
    assert_ok(
        fb3_tokenizer_encode(tokenizer, text, (int64_t)strlen(text), max_length, &ids, &capacity, count, untruncated));
    assert_true(capacity >= *count);
    return ids;
}

static void test_truncation(void **state)
{
    (void)state;
    static const char text[] = "However, our teacher gives the demanding problem step by step.";
    int whole_count, count, untruncated;
    uint32_t *whole = encode(text, NO_LIMIT, &whole_count, &untruncated);
    assert_true(whole_count > 10);
    for (int length = 3; length <= whole_count + 1; length++) {
        uint32_t *ids = encode(text, length, &count, &untruncated);
        assert_int_equal(untruncated, whole_count);
        assert_int_equal(count, length < whole_count ? length : whole_count);
        assert_memory_equal(ids, whole, (size_t)(count - 1) * sizeof *ids);
        assert_int_equal(ids[count - 1], SEP);
        free(ids);
    }
    free(whole);
}

static void test_buffer_is_reused(void **state)
{
    (void)state;
    uint32_t *ids = malloc(sizeof *ids);
    int64_t capacity = 1;
    int count, untruncated;
    assert_ok(fb3_tokenizer_encode(tokenizer, "a b c", 5, NO_LIMIT, &ids, &capacity, &count, &untruncated));
    assert_true(count > 1 && capacity >= count);
    uint32_t *before = ids;
    int64_t capacity_before = capacity;
    assert_ok(fb3_tokenizer_encode(tokenizer, NULL, 0, NO_LIMIT, &ids, &capacity, &count, &untruncated));
    assert_ptr_equal(ids, before);
    assert_int_equal(capacity, capacity_before);
    assert_int_equal(count, 2);
    assert_int_equal(ids[0], CLS);
    assert_int_equal(ids[1], SEP);
    free(ids);
}

static void test_specials_in_text(void **state)
{
    (void)state;
    static const uint32_t expected[] = {CLS, PAD, CLS, SEP, UNK, MASK, SEP, SEP};
    int count, untruncated;
    uint32_t *ids = encode("[PAD][CLS] [SEP]\n[UNK][MASK][SEP]", NO_LIMIT, &count, &untruncated);
    assert_int_equal(count, sizeof expected / sizeof *expected);
    assert_memory_equal(ids, expected, sizeof expected);
    free(ids);
}

static void test_invalid_utf8(void **state)
{
    (void)state;
    static const char *const invalid[] = {"caf\xE9", "abc\xC0\xAF", "abc\xED\xA0\x80", "abc\xF4\x90\x80\x80",
                                          "abc\xE2\x82"};
    uint32_t *ids = NULL;
    int64_t capacity = 0;
    int count, untruncated;
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) {
        assert_int_equal(fb3_tokenizer_encode(tokenizer, invalid[i], (int64_t)strlen(invalid[i]), NO_LIMIT, &ids,
                                              &capacity, &count, &untruncated),
                         FB3_INPUT);
        assert_non_null(strstr(fb3_error_text(), "not valid UTF-8 at byte 4"));
    }
    free(ids);
}

/* A word of a million bytes takes time and memory in proportion. */
static void test_long_word(void **state)
{
    (void)state;
    enum { BYTES = 1000000 };
    char *text = malloc(BYTES + 1);
    memset(text, 'a', BYTES);
    text[BYTES] = 0;
    int count, untruncated;
    uint32_t *ids = encode(text, 512, &count, &untruncated);
    assert_int_equal(count, 512);
    assert_in_range(untruncated, BYTES / 16, BYTES + 3);
    free(ids);
    free(text);
}

static void test_json(void **state)
{
    (void)state;
    golden_check_json(tokenizer, PIECES);
}

/* The character map in tokenizer.json is the model's, byte by byte. */
static void test_json_has_the_character_map(void **state)
{
    (void)state;
    char *text;
    size_t bytes, model_bytes;
    const char *model = fb3_tokenizer_model(tokenizer, &model_bytes);
    assert_ok(fb3_tokenizer_json(tokenizer, &text, &bytes));
    json_t *json = json_loads(text, 0, NULL);
    free(text);
    json_t *normalizers = json_object_get(json_object_get(json, "normalizer"), "normalizers");
    assert_int_equal(json_array_size(normalizers), 3);
    const char *base64 = json_string_value(json_object_get(json_array_get(normalizers, 1), "precompiled_charsmap"));
    size_t digits = strlen(base64);
    unsigned char *map = malloc(digits);
    int decoded = EVP_DecodeBlock(map, (const unsigned char *)base64, (int)digits);
    int padding = (base64[digits - 1] == '=') + (base64[digits - 2] == '=');
    assert_in_range(decoded - padding, 100000, model_bytes);
    assert_non_null(memmem(model, model_bytes, map, (size_t)(decoded - padding)));
    free(map);
    json_decref(json);
}

enum { THREADS = 4, ROUNDS = 30 };

static void *encode_in_thread(void *failed)
{
    static const char text[] = "he goes for the good expirience \xF0\x9F\x98\x80 [MASK] e\xCC\x81 sooner or later.";
    static const int lengths[] = {NO_LIMIT, 8, 3};
    uint32_t *ids = NULL, *first = NULL;
    int64_t capacity = 0, first_capacity = 0;
    int count, first_count, untruncated;
    bool wrong = fb3_tokenizer_encode(tokenizer, text, sizeof text - 1, NO_LIMIT, &first, &first_capacity, &first_count,
                                      &untruncated) != FB3_OK;
    for (int i = 0; i < ROUNDS * 3 && !wrong; i++) {
        wrong = fb3_tokenizer_encode(tokenizer, text, sizeof text - 1, lengths[i % 3], &ids, &capacity, &count,
                                     &untruncated) != FB3_OK ||
                untruncated != first_count || memcmp(ids, first, (size_t)(count - 1) * sizeof *ids) != 0;
        char *json;
        size_t bytes;
        if (i % ROUNDS == 0 && fb3_tokenizer_json(tokenizer, &json, &bytes) == FB3_OK) free(json);
    }
    free(ids);
    free(first);
    *(bool *)failed = wrong;
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t thread[THREADS];
    bool failed[THREADS];
    for (int t = 0; t < THREADS; t++)
        assert_int_equal(pthread_create(&thread[t], NULL, encode_in_thread, &failed[t]), 0);
    for (int t = 0; t < THREADS; t++) assert_int_equal(pthread_join(thread[t], NULL), 0);
    for (int t = 0; t < THREADS; t++) assert_false(failed[t]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_essays),
        cmocka_unit_test(test_what_it_is),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_buffer_is_reused),
        cmocka_unit_test(test_specials_in_text),
        cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_long_word),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_has_the_character_map),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, open_sample, close_sample);
}
