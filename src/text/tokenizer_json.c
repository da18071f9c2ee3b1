/* The tokenizer as Hugging Face's tokenizer.json, so that an export loads in transformers without SentencePiece and
 * with the ids of this program. The object is the one that transformers 4.57 makes of an spm.model; transformers 5
 * leaves the normaliser out when it converts one itself, but reads this file as it is. */
#include "tokenizer_parts.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A float has this many significant digits as a double's text, and is read back the same. */
enum { SCORE_DIGITS = 17 };

/* Base64 makes 4 characters of 3 bytes; EVP counts in int. */
enum { CHARSMAP_LIMIT = 1 << 30 };

static json_t *replacement_normalizer(void)
{
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "Regex", " {2,}", "content", " ");
}

static json_t *charsmap_normalizer(const fb3_tokenizer *tokenizer)
{
    if (tokenizer->charsmap_bytes > CHARSMAP_LIMIT) return NULL;
    char *base64 = malloc((tokenizer->charsmap_bytes + 2) / 3 * 4 + 1);
    if (!base64) return NULL;
    EVP_EncodeBlock((unsigned char *)base64, (const unsigned char *)tokenizer->charsmap,
                    (int)tokenizer->charsmap_bytes);
    json_t *normalizer = json_pack("{s:s, s:s}", "type", "Precompiled", "precompiled_charsmap", base64);
    free(base64);
    return normalizer;
}

static json_t *normalizers(const fb3_tokenizer *tokenizer)
{
    json_t *list = json_array();
    json_t *strip = json_pack("{s:s, s:b, s:b}", "type", "Strip", "strip_left", true, "strip_right", true);
    bool made = json_array_append_new(list, strip) == 0;
    if (tokenizer->charsmap_bytes > 0) made = made && json_array_append_new(list, charsmap_normalizer(tokenizer)) == 0;
    made = made && json_array_append_new(list, replacement_normalizer()) == 0;
    if (made) return json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", list);
    json_decref(list);
    return NULL;
}

static json_t *added_tokens(const fb3_tokenizer *tokenizer)
{
    json_t *list = json_array();
    for (int s = 0; s < FB3_SPECIALS; s++) {
        json_t *token = json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", tokenizer->special[s], "content",
                                  fb3_special_text[s], "single_word", false, "lstrip", false, "rstrip", false,
                                  "normalized", s == FB3_UNK, "special", true);
        if (json_array_append_new(list, token) == 0) continue;
        json_decref(list);
        return NULL;
    }
    return list;
}

static json_t *metaspace(void)
{
    return json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", "\xE2\x96\x81", "prepend_scheme",
                     "always", "split", true);
}

static json_t *special_in_template(const char *token, int sequence)
{
    return json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", token, "type_id", sequence);
}

static json_t *sequence_in_template(const char *name, int sequence)
{
    return json_pack("{s:{s:s, s:i}}", "Sequence", "id", name, "type_id", sequence);
}

static json_t *special_of_template(const fb3_tokenizer *tokenizer, fb3_special s)
{
    return json_pack("{s:s, s:[i], s:[s]}", "id", fb3_special_text[s], "ids", tokenizer->special[s], "tokens",
                     fb3_special_text[s]);
}

/* [CLS] A [SEP], and for pairs [CLS] A [SEP] B [SEP]. */
static json_t *template(const fb3_tokenizer *tokenizer)
{
    const char *cls = fb3_special_text[FB3_CLS], *sep = fb3_special_text[FB3_SEP];
    return json_pack("{s:s, s:[o, o, o], s:[o, o, o, o, o], s:{s:o, s:o}}", "type", "TemplateProcessing", "single",
                     special_in_template(cls, 0), sequence_in_template("A", 0), special_in_template(sep, 0), "pair",
                     special_in_template(cls, 0), sequence_in_template("A", 0), special_in_template(sep, 0),
                     sequence_in_template("B", 1), special_in_template(sep, 1), "special_tokens", cls,
                     special_of_template(tokenizer, FB3_CLS), sep, special_of_template(tokenizer, FB3_SEP));
}

static json_t *unigram(const fb3_tokenizer *tokenizer)
{
    json_t *vocabulary = json_array();
    for (int id = 0; id < tokenizer->pieces.count; id++) {
        const fb3_piece *piece = &tokenizer->pieces.piece[id];
        json_t *entry = json_pack("[s%, f]", piece->text, (size_t)piece->bytes, (double)piece->score);
        if (json_array_append_new(vocabulary, entry) == 0) continue;
        json_decref(vocabulary);
        return NULL;
    }
    return json_pack("{s:s, s:i, s:o, s:b}", "type", "Unigram", "unk_id", tokenizer->special[FB3_UNK], "vocab",
                     vocabulary, "byte_fallback", false);
}

fb3_status fb3_tokenizer_json(const fb3_tokenizer *tokenizer, char **json, size_t *bytes)
{
    *json = NULL;
    *bytes = 0;
    json_t *object = json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                               "padding", "added_tokens", added_tokens(tokenizer), "normalizer", normalizers(tokenizer),
                               "pre_tokenizer", metaspace(), "post_processor", template(tokenizer), "decoder",
                               metaspace(), "model", unigram(tokenizer));
    if (object) *json = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(SCORE_DIGITS));
    json_decref(object);
    FB3_REQUIRE(*json, FB3_FAILED, "out of memory for tokenizer.json; run fewer ranks on this node");
    *bytes = strlen(*json);
    return FB3_OK;
}
