/* Presets, config.json in and out, what is refused, and the position buckets (check values of transformers and of
 * golden/buckets.json). */
#include "fb3/model_config.h"
#include "model/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

/* microsoft/deberta-v3-base as the hub has it, without the keys of its pre-training heads. */
static const char hub_base[] =
    "{\"model_type\": \"deberta-v2\", \"attention_probs_dropout_prob\": 0.1, \"hidden_act\": \"gelu\","
    " \"hidden_dropout_prob\": 0.1, \"hidden_size\": 768, \"initializer_range\": 0.02, \"intermediate_size\": 3072,"
    " \"max_position_embeddings\": 512, \"relative_attention\": true, \"position_buckets\": 256,"
    " \"norm_rel_ebd\": \"layer_norm\", \"share_att_key\": true, \"pos_att_type\": \"p2c|c2p\","
    " \"layer_norm_eps\": 1e-7, \"max_relative_positions\": -1, \"position_biased_input\": false,"
    " \"num_attention_heads\": 12, \"num_hidden_layers\": 12, \"type_vocab_size\": 0, \"vocab_size\": 128100,"
    " \"pooler_dropout\": 0}";

static void assert_same_model(const fb3_model_config *a, const fb3_model_config *b)
{
    assert_int_equal(a->vocab, b->vocab);
    assert_int_equal(a->hidden, b->hidden);
    assert_int_equal(a->layers, b->layers);
    assert_int_equal(a->heads, b->heads);
    assert_int_equal(a->intermediate, b->intermediate);
    assert_int_equal(a->position_buckets, b->position_buckets);
    assert_int_equal(a->max_relative, b->max_relative);
    assert_true(a->layer_norm_eps == b->layer_norm_eps);
    assert_true(a->initializer_range == b->initializer_range);
    assert_true(a->hidden_dropout == b->hidden_dropout);
    assert_true(a->attention_dropout == b->attention_dropout);
}

static void test_preset_equals_hub(void **state)
{
    (void)state;
    fb3_model_config preset, hub;
    must(fb3_model_config_preset(&preset, "deberta-v3-base", 128100));
    must(fb3_model_config_parse(&hub, hub_base, strlen(hub_base), "config.json"));
    assert_same_model(&preset, &hub);
    assert_int_equal(fb3_model_config_preset(&preset, "deberta-v3-huge", 128100), FB3_INPUT);
    assert_non_null(strstr(fb3_error_text(), "deberta-v3-xsmall"));
    assert_int_equal(fb3_model_config_preset(&preset, "tiny", 0), FB3_INPUT);
}

/* The file that transformers writes for the same model. */
static void test_file_of_transformers(void **state)
{
    (void)state;
    json_t *golden = fixture_golden("model", "config.json");
    char *text = json_dumps(golden, 0);
    fb3_model_config model, preset;
    must(fb3_model_config_parse(&model, text, strlen(text), "config.json"));
    must(fb3_model_config_preset(&preset, "tiny", 128100));
    preset.hidden_dropout = preset.attention_dropout = 0;
    assert_same_model(&model, &preset);
    free(text);
    json_decref(golden);
}

static void test_round_trip(void **state)
{
    (void)state;
    const char *presets[] = {"deberta-v3-xsmall", "deberta-v3-small", "deberta-v3-base", "deberta-v3-large", "tiny"};
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        fb3_model_config model, read;
        must(fb3_model_config_preset(&model, presets[i], 128100));
        model.hidden_dropout = 0.15f;
        model.layer_norm_eps = 1.17e-6f;
        char *json = fb3_model_config_json(&model);
        assert_non_null(json);
        must(fb3_model_config_parse(&read, json, strlen(json), "config.json"));
        assert_same_model(&model, &read);
        assert_non_null(strstr(json, "\"layer_norm_eps\": 1.17e-6"));
        free(json);
    }
}

/* Replaces one key's value (or adds the key) and expects a refusal that names it. */
static void expect_refused(const char *key, const char *value)
{
    fb3_model_config model = {.hidden = -1};
    json_error_t error;
    json_t *root = json_loads(hub_base, 0, &error), *item = json_loads(value, JSON_DECODE_ANY, &error);
    assert_non_null(root);
    assert_non_null(item);
    json_object_set_new(root, key, item);
    char *text = json_dumps(root, 0);
    if (fb3_model_config_parse(&model, text, strlen(text), "dir/config.json") != FB3_INPUT)
        fail_msg("%s: %s was accepted", key, value);
    if (!strstr(fb3_error_text(), key) || !strstr(fb3_error_text(), "dir/config.json"))
        fail_msg("%s: %s is refused by '%s'", key, value, fb3_error_text());
    assert_int_equal(model.hidden, -1);
    free(text);
    json_decref(root);
}

static void test_refusals(void **state)
{
    (void)state;
    expect_refused("model_type", "\"bert\"");
    expect_refused("hidden_act", "\"gelu_new\"");
    expect_refused("norm_rel_ebd", "\"none\"");
    expect_refused("relative_attention", "false");
    expect_refused("share_att_key", "false");
    expect_refused("share_att_key", "1");
    expect_refused("position_biased_input", "true");
    expect_refused("type_vocab_size", "2");
    expect_refused("conv_kernel_size", "3");
    expect_refused("embedding_size", "512");
    expect_refused("attention_head_size", "32");
    expect_refused("pos_att_type", "\"c2p\"");
    expect_refused("pos_att_type", "[\"c2p\", \"p2c\", \"p2p\"]");
    expect_refused("pos_att_type", "null");
    expect_refused("position_buckets", "-1");
    expect_refused("position_buckets", "32768");
    expect_refused("position_buckets", "1024"); // does not fit below 512 positions
    expect_refused("hidden_size", "770");
    expect_refused("hidden_size", "0");
    expect_refused("hidden_size", "4294967312"); // 16 after a cut to 32 bits
    expect_refused("hidden_size", "\"768\"");
    expect_refused("intermediate_size", "3070");
    expect_refused("vocab_size", "-5");
    expect_refused("num_hidden_layers", "1000000000");
    expect_refused("layer_norm_eps", "\"small\"");
    expect_refused("layer_norm_eps", "-1");
    expect_refused("hidden_dropout_prob", "1.5");

    fb3_model_config model;
    assert_int_equal(fb3_model_config_parse(&model, "{\"a\": ", 6, "c.json"), FB3_INPUT);
    assert_int_equal(fb3_model_config_parse(&model, "[1]", 3, "c.json"), FB3_INPUT);
    assert_int_equal(fb3_model_config_parse(&model, "", 0, "c.json"), FB3_INPUT);
    assert_int_equal(fb3_model_config_parse(&model, "{}", 2, "c.json"), FB3_INPUT);
}

static void test_accepted_spellings(void **state)
{
    (void)state;
    const char *terms[] = {"\"c2p|p2c\"", "\" P2C | C2P \"", "[\"p2c\", \"c2p\"]"};
    for (size_t i = 0; i < sizeof terms / sizeof terms[0]; i++) {
        fb3_model_config model;
        json_error_t error;
        json_t *root = json_loads(hub_base, 0, &error);
        json_object_set_new(root, "pos_att_type", json_loads(terms[i], JSON_DECODE_ANY, &error));
        json_object_set_new(root, "max_relative_positions", json_integer(1024));
        json_object_set_new(root, "pad_token_id", json_null());
        char *text = json_dumps(root, 0);
        must(fb3_model_config_parse(&model, text, strlen(text), "config.json"));
        assert_int_equal(model.max_relative, 1024);
        free(text);
        json_decref(root);
    }
}

static uLong crc_of_int16(uLong crc, int value)
{
    unsigned char bytes[2] = {(unsigned char)(value & 0xFF), (unsigned char)((value >> 8) & 0xFF)};
    return crc32(crc, bytes, sizeof bytes);
}

static void test_bucket_check_values(void **state)
{
    (void)state;
    fb3_model_config model;
    must(fb3_model_config_preset(&model, "tiny", 100));
    uLong buckets = crc32(0, NULL, 0), indices = buckets;
    for (int r = -511; r <= 511; r++) buckets = crc_of_int16(buckets, fb3_position_bucket(r, 256, 512));
    for (int r = -2047; r <= 2047; r++) indices = crc_of_int16(indices, fb3_position_index(r, &model));
    assert_int_equal(buckets, 0x7a260687);
    assert_int_equal(indices, 0x8d88cb37);
    assert_int_equal(fb3_position_index(0, &model), 256);
    assert_int_equal(fb3_position_index(100000, &model), 511);
    assert_int_equal(fb3_position_index(-100000, &model), 0);
}

static void test_buckets_of_transformers(void **state)
{
    (void)state;
    json_t *golden = fixture_golden("model", "buckets.json");
    size_t i;
    const json_t *item;
    assert_true(json_array_size(golden) > 0);
    json_array_foreach(golden, i, item)
    {
        int buckets = (int)json_integer_value(json_object_get(item, "buckets"));
        int max_relative = (int)json_integer_value(json_object_get(item, "max_relative"));
        int reach = (int)json_integer_value(json_object_get(item, "reach"));
        assert_true(reach > 1);
        uLong crc = crc32(0, NULL, 0);
        for (int r = 1 - reach; r < reach; r++) crc = crc_of_int16(crc, fb3_position_bucket(r, buckets, max_relative));
        assert_int_equal(crc, json_integer_value(json_object_get(item, "crc32")));
    }
    json_decref(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preset_equals_hub),
        cmocka_unit_test(test_file_of_transformers),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_accepted_spellings),
        cmocka_unit_test(test_bucket_check_values),
        cmocka_unit_test(test_buckets_of_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
