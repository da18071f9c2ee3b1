/* config.json of DeBERTa-v2/v3, presets, and the logarithmic position buckets.
 *
 * Keys and defaults are those of transformers' DebertaV2Config: a key that a file leaves out has the default there, so
 * a file without "share_att_key" means false and is refused like one that says so. What this program does not compute
 * is refused by name instead of being left out silently.
 *
 * Buckets: He, Liu, Gao, Chen, "DeBERTa", and make_log_bucket_position in microsoft/DeBERTa, deberta/da_utils.py. */
#include "fb3/model_config.h"
#include "fb3/backend.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HIDDEN_MULTIPLE = 16, /* keeps every row of every matrix on a vector boundary */
    HEAD_MULTIPLE = 8,
    MAX_VOCAB = 1 << 23,
    MAX_LAYERS = 1 << 10,
    MAX_INTERMEDIATE = 1 << 16,
    MAX_BUCKETS = 1 << 14, /* a row of the position table fits an int16 */
    MAX_RELATIVE = 1 << 20,
};

typedef struct preset {
    const char *name;
    int hidden, layers, heads, intermediate;
} preset;

static const preset presets[] = {
    {"deberta-v3-xsmall", 384, 12, 6, 1536},
    {"deberta-v3-small", 768, 6, 12, 3072},
    {"deberta-v3-base", 768, 12, 12, 3072},
    {"deberta-v3-large", 1024, 24, 16, 4096},
    {"tiny", 64, 2, 4, 128},
};

/* What all published v3 models have in common. */
static const fb3_model_config v3_common = {
    .position_buckets = 256,
    .max_relative = 512,
    .layer_norm_eps = 1e-7f,
    .initializer_range = 0.02f,
    .hidden_dropout = 0.1f,
    .attention_dropout = 0.1f,
};

fb3_status fb3_model_config_preset(fb3_model_config *model, const char *name, int vocab)
{
    FB3_REQUIRE(vocab >= 1 && vocab <= MAX_VOCAB, FB3_INPUT, "a vocabulary of %d rows is not between 1 and %d", vocab,
                MAX_VOCAB);
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        if (strcmp(name, presets[i].name) != 0) continue;
        *model = v3_common;
        model->vocab = vocab;
        model->hidden = presets[i].hidden;
        model->layers = presets[i].layers;
        model->heads = presets[i].heads;
        model->intermediate = presets[i].intermediate;
        return FB3_OK;
    }
    return fb3_fail(FB3_INPUT,
                    "model_preset '%s' is unknown; it is one of deberta-v3-xsmall, deberta-v3-small, deberta-v3-base, "
                    "deberta-v3-large, tiny",
                    name);
}

/* An integer key; `fallback` is transformers' default. null counts as left out. */
static fb3_status read_int(int *value, const json_t *root, const char *key, int fallback, int min, int max,
                           const char *what)
{
    const json_t *item = json_object_get(root, key);
    *value = fallback;
    if (item && !json_is_null(item)) {
        FB3_REQUIRE(json_is_integer(item), FB3_INPUT, "%s: '%s' is not an integer", what, key);
        json_int_t number = json_integer_value(item);
        FB3_REQUIRE(number >= min && number <= max, FB3_INPUT, "%s: '%s' is %lld; it must be from %d to %d", what, key,
                    (long long)number, min, max);
        *value = (int)number;
    }
    return FB3_OK;
}

static fb3_status read_float(float *value, const json_t *root, const char *key, double fallback, double min, double max,
                             const char *what)
{
    const json_t *item = json_object_get(root, key);
    double number = fallback;
    if (item && !json_is_null(item)) {
        FB3_REQUIRE(json_is_number(item), FB3_INPUT, "%s: '%s' is not a number", what, key);
        number = json_number_value(item);
        FB3_REQUIRE(number >= min && number <= max, FB3_INPUT, "%s: '%s' is %g; it must be from %g to %g", what, key,
                    number, min, max);
    }
    *value = (float)number;
    return FB3_OK;
}

static fb3_status require_bool(const json_t *root, const char *key, bool fallback, bool wanted, const char *what)
{
    const json_t *item = json_object_get(root, key);
    bool value = fallback;
    if (item && !json_is_null(item)) {
        FB3_REQUIRE(json_is_boolean(item), FB3_INPUT, "%s: '%s' is not true or false", what, key);
        value = json_is_true(item);
    }
    FB3_REQUIRE(value == wanted, FB3_INPUT, "%s: '%s' is %s; only models with %s are supported", what, key,
                value ? "true" : "false", wanted ? "true" : "false");
    return FB3_OK;
}

static fb3_status require_string(const json_t *root, const char *key, const char *fallback, const char *wanted,
                                 const char *what)
{
    const json_t *item = json_object_get(root, key);
    const char *value = fallback;
    if (item && !json_is_null(item)) {
        FB3_REQUIRE(json_is_string(item), FB3_INPUT, "%s: '%s' is not a string", what, key);
        value = json_string_value(item);
    }
    FB3_REQUIRE(strcmp(value, wanted) == 0, FB3_INPUT, "%s: '%s' is '%s'; only '%s' is supported", what, key, value,
                wanted);
    return FB3_OK;
}

static fb3_status require_int(const json_t *root, const char *key, int fallback, int wanted, const char *what)
{
    int value;
    FB3_TRY(read_int(&value, root, key, fallback, INT32_MIN, INT32_MAX, what));
    FB3_REQUIRE(value == wanted, FB3_INPUT, "%s: '%s' is %d; only %d is supported", what, key, value, wanted);
    return FB3_OK;
}

/* Terms of the attention scores, as a set. */
enum { TERM_C2P = 1, TERM_P2C = 2, TERM_OTHER = 4 };

static int attention_term(const char *name, size_t length)
{
    if (length == 3 && strncasecmp(name, "c2p", length) == 0) return TERM_C2P;
    if (length == 3 && strncasecmp(name, "p2c", length) == 0) return TERM_P2C;
    return TERM_OTHER;
}

/* "p2c|c2p", spaces allowed around the names. */
static int attention_terms_of_text(const char *text)
{
    int terms = 0;
    while (*text) {
        text += strspn(text, " |");
        size_t length = strcspn(text, " |");
        if (length) terms |= attention_term(text, length);
        text += length;
    }
    return terms;
}

static fb3_status require_attention_terms(const json_t *root, const char *what)
{
    const json_t *item = json_object_get(root, "pos_att_type");
    int terms = 0;
    if (json_is_string(item)) terms = attention_terms_of_text(json_string_value(item));
    if (json_is_array(item)) {
        size_t i;
        const json_t *name;
        json_array_foreach(item, i, name)
        {
            terms |=
                json_is_string(name) ? attention_term(json_string_value(name), json_string_length(name)) : TERM_OTHER;
        }
    }
    FB3_REQUIRE(terms == (TERM_C2P | TERM_P2C), FB3_INPUT,
                "%s: 'pos_att_type' is not c2p and p2c; other attention terms are not supported", what);
    return FB3_OK;
}

/* Everything that would change the arithmetic away from DESIGN 4. */
static fb3_status require_supported(const json_t *root, const fb3_model_config *model, const char *what)
{
    FB3_TRY(require_string(root, "model_type", "deberta-v2", "deberta-v2", what));
    FB3_TRY(require_string(root, "hidden_act", "gelu", "gelu", what));
    FB3_TRY(require_string(root, "norm_rel_ebd", "none", "layer_norm", what));
    FB3_TRY(require_bool(root, "relative_attention", false, true, what));
    FB3_TRY(require_bool(root, "share_att_key", false, true, what));
    FB3_TRY(require_bool(root, "position_biased_input", true, false, what));
    FB3_TRY(require_int(root, "type_vocab_size", 0, 0, what));
    FB3_TRY(require_int(root, "conv_kernel_size", 0, 0, what));
    FB3_TRY(require_int(root, "embedding_size", model->hidden, model->hidden, what));
    FB3_TRY(require_attention_terms(root, what));

    FB3_REQUIRE(model->hidden % HIDDEN_MULTIPLE == 0, FB3_INPUT,
                "%s: 'hidden_size' is %d; only multiples of %d are supported", what, model->hidden, HIDDEN_MULTIPLE);
    FB3_REQUIRE(model->intermediate % HIDDEN_MULTIPLE == 0, FB3_INPUT,
                "%s: 'intermediate_size' is %d; only multiples of %d are supported", what, model->intermediate,
                HIDDEN_MULTIPLE);
    FB3_REQUIRE(model->hidden % (model->heads * HEAD_MULTIPLE) == 0, FB3_INPUT,
                "%s: %d heads of a 'hidden_size' of %d; the size of a head must be a multiple of %d", what,
                model->heads, model->hidden, HEAD_MULTIPLE);
    FB3_TRY(require_int(root, "attention_head_size", model->hidden / model->heads, model->hidden / model->heads, what));
    FB3_REQUIRE(model->max_relative > model->position_buckets / 2 + 1, FB3_INPUT,
                "%s: %d 'position_buckets' do not fit below %d relative positions", what, model->position_buckets,
                model->max_relative);
    return FB3_OK;
}

static fb3_status read_shape(fb3_model_config *model, const json_t *root, const char *what)
{
    int positions, max_relative;
    FB3_TRY(read_int(&model->vocab, root, "vocab_size", 128100, 1, MAX_VOCAB, what));
    FB3_TRY(read_int(&model->hidden, root, "hidden_size", 1536, 1, FB3_HIDDEN_MAX, what));
    FB3_TRY(read_int(&model->layers, root, "num_hidden_layers", 24, 1, MAX_LAYERS, what));
    FB3_TRY(read_int(&model->heads, root, "num_attention_heads", 24, 1, FB3_HIDDEN_MAX / HEAD_MULTIPLE, what));
    FB3_TRY(read_int(&model->intermediate, root, "intermediate_size", 6144, 1, MAX_INTERMEDIATE, what));
    FB3_TRY(read_int(&positions, root, "max_position_embeddings", 512, 1, MAX_RELATIVE, what));
    FB3_TRY(read_int(&max_relative, root, "max_relative_positions", -1, -1, MAX_RELATIVE, what));
    model->max_relative = max_relative < 1 ? positions : max_relative;
    FB3_TRY(read_int(&model->position_buckets, root, "position_buckets", -1, -1, MAX_BUCKETS, what));
    FB3_REQUIRE(model->position_buckets >= 2, FB3_INPUT,
                "%s: 'position_buckets' is %d; only models with logarithmic position buckets are supported", what,
                model->position_buckets);

    FB3_TRY(read_float(&model->layer_norm_eps, root, "layer_norm_eps", 1e-7, 0, 1, what));
    FB3_TRY(read_float(&model->initializer_range, root, "initializer_range", 0.02, 0, 10, what));
    FB3_TRY(read_float(&model->hidden_dropout, root, "hidden_dropout_prob", 0.1, 0, 0.999, what));
    FB3_TRY(read_float(&model->attention_dropout, root, "attention_probs_dropout_prob", 0.1, 0, 0.999, what));
    return FB3_OK;
}

fb3_status fb3_model_config_parse(fb3_model_config *model, const char *json, size_t bytes, const char *what)
{
    fb3_status status = FB3_OK;
    fb3_model_config parsed = {0};
    json_error_t error;
    json_t *root = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &error);
    FB3_REQUIRE(root, FB3_INPUT, "%s:%d: not JSON: %s", what, error.line, error.text);
    FB3_REQUIRE_GOTO(json_is_object(root), done, FB3_INPUT, "%s: not a JSON object", what);
    FB3_TRY_GOTO(read_shape(&parsed, root, what), done);
    FB3_TRY_GOTO(require_supported(root, &parsed, what), done);
    *model = parsed;
done:
    json_decref(root);
    return status;
}

enum { FLOAT_DIGITS = 9 }; /* decimal digits that name every float */

/* The double with the shortest decimal text that still reads back as `value`: 1e-07, not 1.00000001e-07. */
static double shortest(float value)
{
    char text[32];
    for (int digits = 1; digits <= FLOAT_DIGITS; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value) break;
    }
    return strtod(text, NULL);
}

char *fb3_model_config_json(const fb3_model_config *model)
{
    json_t *root =
        json_pack("{s:[s], s:s, s:f, s:s, s:f, s:i, s:f, s:i, s:f, s:i, s:i, s:s, s:i, s:i, s:i, s:[ss], "
                  "s:i, s:b, s:b, s:b, s:i, s:i}",
                  "architectures", "DebertaV2Model", "model_type", "deberta-v2", "attention_probs_dropout_prob",
                  shortest(model->attention_dropout), "hidden_act", "gelu", "hidden_dropout_prob",
                  shortest(model->hidden_dropout), "hidden_size", model->hidden, "initializer_range",
                  shortest(model->initializer_range), "intermediate_size", model->intermediate, "layer_norm_eps",
                  shortest(model->layer_norm_eps), "max_position_embeddings", model->max_relative,
                  "max_relative_positions", -1, "norm_rel_ebd", "layer_norm", "num_attention_heads", model->heads,
                  "num_hidden_layers", model->layers, "pad_token_id", 0, "pos_att_type", "p2c", "c2p",
                  "position_buckets", model->position_buckets, "position_biased_input", 0, "relative_attention", 1,
                  "share_att_key", 1, "type_vocab_size", 0, "vocab_size", model->vocab);
    if (!root) return NULL;
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(FLOAT_DIGITS));
    json_decref(root);
    return text;
}

int fb3_position_bucket(int relative, int buckets, int max_relative)
{
    assert(buckets >= 2 && max_relative > buckets / 2 + 1);
    int mid = buckets / 2;
    int distance = abs(relative);
    if (distance <= mid) return relative;
    double steps = log((double)distance / mid) / log((double)(max_relative - 1) / mid) * (mid - 1);
    int bucket = (int)ceil(steps) + mid;
    return relative < 0 ? -bucket : bucket;
}

int fb3_position_index(int delta, const fb3_model_config *model)
{
    int index = fb3_position_bucket(delta, model->position_buckets, model->max_relative) + model->position_buckets;
    int last = fb3_model_rel_rows(model) - 1;
    return index < 0 ? 0 : index > last ? last : index;
}
