/* Comparison with the ids of the Hugging Face fast tokenizer (golden.h). */
#include "golden.h"

#include "fb3/csv.h"
#include <zlib.h>

enum { CRC_DIGITS = 8, TRUNCATED_LENGTH = 512 };

const char *test_path(const char *variable, const char *name)
{
    static char path[4096];
    const char *folder = getenv(variable);
    if (!folder) fail_msg("%s is not set; run the tests by ctest", variable);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

json_t *golden_read(const char *name)
{
    char below[64];
    json_error_t error;
    snprintf(below, sizeof below, "tests/text/%s", name);
    json_t *golden = json_load_file(test_path("FB3_SOURCE_DIR", below), JSON_ALLOW_NUL, &error);
    if (!golden) fail_msg("%s: %s", name, error.text);
    return golden;
}

static bool same_ids(const json_t *expected, const uint32_t *ids, int count)
{
    if (json_array_size(expected) != (size_t)count) return false;
    for (int i = 0; i < count; i++)
        if (json_integer_value(json_array_get(expected, (size_t)i)) != ids[i]) return false;
    return true;
}

void golden_check_strings(const fb3_tokenizer *tokenizer, const char *key)
{
    json_t *golden = golden_read("golden_strings.json"), *strings = json_object_get(golden, "strings"), *entry;
    uint32_t *ids = NULL;
    int64_t capacity = 0;
    size_t index, different = 0;
    assert_true(json_array_size(strings) > 150);
    json_array_foreach(strings, index, entry)
    {
        json_t *text = json_object_get(entry, "text");
        int count, untruncated;
        assert_ok(fb3_tokenizer_encode(tokenizer, json_string_value(text), (int64_t)json_string_length(text), NO_LIMIT,
                                       &ids, &capacity, &count, &untruncated));
        assert_int_equal(count, untruncated);
        if (same_ids(json_object_get(entry, key), ids, count)) continue;
        print_error("string %zu differs: '%s'\n", index, json_string_value(text));
        different++;
    }
    free(ids);
    json_decref(golden);
    assert_int_equal(different, 0);
}

static void assert_crc(const char *digits, int64_t essay, const uint32_t *ids, int count)
{
    char hex[CRC_DIGITS + 1];
    uint8_t *bytes = malloc((size_t)count * 4);
    for (int i = 0; i < 4 * count; i++) bytes[i] = (uint8_t)(ids[i / 4] >> 8 * (i % 4));
    snprintf(hex, sizeof hex, "%08lx", crc32(0, bytes, 4 * (uInt)count));
    free(bytes);
    if (strncmp(digits + CRC_DIGITS * (size_t)essay, hex, CRC_DIGITS) != 0)
        fail_msg("essay %lld has other ids (CRC-32 %s)", (long long)essay + 1, hex);
}

void golden_check_essays(const fb3_tokenizer *tokenizer, const char *csv_path, const char *key)
{
    json_t *golden = golden_read("golden_essays.json"), *crcs = json_object_get(golden, key);
    const char *whole = json_string_value(json_object_get(crcs, "whole"));
    const char *truncated = json_string_value(json_object_get(crcs, "truncated"));
    uint32_t *ids = NULL;
    int64_t capacity = 0, essay = 0, bytes;
    fb3_csv *csv;
    int column, count, untruncated, whole_count;
    bool more;
    assert_ok(fb3_csv_open(&csv, csv_path));
    assert_ok(fb3_csv_need_column(csv, "full_text", &column));
    for (;; essay++) {
        assert_ok(fb3_csv_next(csv, &more));
        if (!more) break;
        const char *text = fb3_csv_field(csv, column, &bytes);
        assert_true((size_t)(essay + 1) * CRC_DIGITS <= strlen(whole));
        assert_ok(fb3_tokenizer_encode(tokenizer, text, bytes, NO_LIMIT, &ids, &capacity, &whole_count, &untruncated));
        assert_int_equal(whole_count, untruncated);
        assert_crc(whole, essay, ids, whole_count);
        assert_ok(
            fb3_tokenizer_encode(tokenizer, text, bytes, TRUNCATED_LENGTH, &ids, &capacity, &count, &untruncated));
        assert_int_equal(untruncated, whole_count);
        assert_int_equal(count, whole_count < TRUNCATED_LENGTH ? whole_count : TRUNCATED_LENGTH);
        assert_crc(truncated, essay, ids, count);
    }
    assert_int_equal((size_t)essay * CRC_DIGITS, strlen(whole));
    fb3_csv_close(csv);
    free(ids);
    json_decref(golden);
}

void golden_check_json(const fb3_tokenizer *tokenizer, int pieces)
{
    static const char *const specials[] = {"[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"};
    char *text;
    size_t bytes, index;
    assert_ok(fb3_tokenizer_json(tokenizer, &text, &bytes));
    assert_int_equal(strlen(text), bytes);
    json_t *json = json_loads(text, 0, NULL), *token, *piece;
    free(text);
    assert_non_null(json);
    json_array_foreach(json_object_get(json, "added_tokens"), index, token)
    {
        int id = index == 4 ? pieces : (int)index; /* [MASK] comes behind the pieces */
        assert_string_equal(json_string_value(json_object_get(token, "content")), specials[index]);
        assert_int_equal(json_integer_value(json_object_get(token, "id")), id);
        assert_int_equal(json_is_true(json_object_get(token, "normalized")), index == 3);
    }
    assert_int_equal(index, 5);

    json_t *model = json_object_get(json, "model"), *vocabulary = json_object_get(model, "vocab");
    assert_int_equal(json_array_size(vocabulary), pieces);
    assert_int_equal(json_integer_value(json_object_get(model, "unk_id")), 3);
    json_array_foreach(vocabulary, index, piece)
    {
        assert_true(json_string_length(json_array_get(piece, 0)) > 0);
        double score = json_real_value(json_array_get(piece, 1));
        assert_true((double)(float)score == score); /* written with all of its digits */
        assert_true(score <= 0);
    }
    json_decref(json);
}
