/* The tokenizer as Hugging Face's tokenizer.json, so that an export loads in transformers without SentencePiece and
 * with the ids of this program. The object is the one that transformers 4.57 makes of an spm.model; transformers 5
 * leaves the normaliser out when it converts one itself, but reads this file as it is. */
#include "tokenizer_parts.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Base64 makes 4 characters of 3 bytes; EVP counts in int. */
enum { CHARSMAP_LIMIT = 1 << 30 };

enum { SCORE_BYTES = 48 };

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

/* Writes `score` as a decimal number that is read back as exactly that by a reader that rounds correctly and also, for
 * 99 of 100 scores, by serde_json, with which tokenizers reads the file. That one takes all digits as one integer,
 * rounds it to a double, divides by a power of ten and rounds again; the usual 17 digits come out wrong by one unit in
 * the last place for a quarter of the scores, and then ties between divisions of a word break the other way. */
static void format_score(double score, char text[SCORE_BYTES])
{
    enum { LEAST_DIGITS = 17, MOST_DIGITS = 19, MOST_SHIFT = 100 };
    double magnitude = fabs(score), whole_limit = 1e6;
    snprintf(text, SCORE_BYTES, "%.17g", score);
    if (magnitude < 1 || magnitude >= whole_limit) return;

    int decimals = LEAST_DIGITS;
    for (uint64_t whole = (uint64_t)magnitude; whole > 0; whole /= 10) decimals--;
    for (int digits = LEAST_DIGITS; digits <= MOST_DIGITS; digits++, decimals++) {
        uint64_t power = 1;
        for (int i = 0; i < decimals; i++) power *= 10;
        uint64_t nearest = (uint64_t)roundl((long double)magnitude * power);
        for (int shift = 0; shift <= 2 * MOST_SHIFT; shift++) {
            uint64_t all = shift % 2 ? nearest + (uint64_t)(shift + 1) / 2 : nearest - (uint64_t)shift / 2;
            if ((double)all / (double)power != magnitude) continue;
            snprintf(text, SCORE_BYTES, "%s%" PRIu64 ".%0*" PRIu64, score < 0 ? "-" : "", all / power, decimals,
                     all % power);
            if (strtod(text, NULL) == score) return;
        }
    }
    snprintf(text, SCORE_BYTES, "%.17g", score);
}

/* ["piece",score] */
static fb3_status append_piece(fb3_buffer *out, const fb3_piece *piece)
{
    char score[SCORE_BYTES];
    json_t *string = json_stringn(piece->text, (size_t)piece->bytes);
    char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    json_decref(string);
    FB3_REQUIRE(quoted, FB3_FAILED, "out of memory for tokenizer.json");
    format_score((double)piece->score, score);
    fb3_status status;
    FB3_TRY_GOTO(fb3_buffer_append_byte(out, '['), done);
    FB3_TRY_GOTO(fb3_buffer_append_text(out, quoted), done);
    FB3_TRY_GOTO(fb3_buffer_append_byte(out, ','), done);
    FB3_TRY_GOTO(fb3_buffer_append_text(out, score), done);
    FB3_TRY_GOTO(fb3_buffer_append_byte(out, ']'), done);
done:
    free(quoted);
    return status;
}

/* The model, written by hand because jansson decides the digits of its numbers itself. */
static fb3_status append_model(fb3_buffer *out, const fb3_tokenizer *tokenizer)
{
    char head[64];
    snprintf(head, sizeof head, "{\"type\":\"Unigram\",\"unk_id\":%d,\"vocab\":[", tokenizer->special[FB3_UNK]);
    FB3_TRY(fb3_buffer_append_text(out, head));
    for (int id = 0; id < tokenizer->pieces.count; id++) {
        if (id > 0) FB3_TRY(fb3_buffer_append_byte(out, ','));
        FB3_TRY(append_piece(out, &tokenizer->pieces.piece[id]));
    }
    return fb3_buffer_append_text(out, "],\"byte_fallback\":false}");
}

/* Everything but the model; NULL when memory is out. */
static char *dump_pipeline(const fb3_tokenizer *tokenizer)
{
    json_t *object =
        json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding", "added_tokens",
                  added_tokens(tokenizer), "normalizer", normalizers(tokenizer), "pre_tokenizer", metaspace(),
                  "post_processor", template(tokenizer), "decoder", metaspace());
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text;
}

fb3_status fb3_tokenizer_json(const fb3_tokenizer *tokenizer, char **json, size_t *bytes)
{
    *json = NULL;
    *bytes = 0;
    fb3_buffer out = {0};
    fb3_status status;
    char *pipeline = dump_pipeline(tokenizer);
    FB3_REQUIRE(pipeline, FB3_FAILED, "out of memory for tokenizer.json");
    FB3_TRY_GOTO(fb3_buffer_append(&out, pipeline, strlen(pipeline) - strlen("}")), done);
    FB3_TRY_GOTO(fb3_buffer_append_text(&out, ",\"model\":"), done);
    FB3_TRY_GOTO(append_model(&out, tokenizer), done);
    FB3_TRY_GOTO(fb3_buffer_append(&out, "}", sizeof "}"), done); /* with the 0 */
    *json = out.data;
    *bytes = out.bytes - 1;
    out = (fb3_buffer){0};
done:
    fb3_buffer_free(&out);
    free(pipeline);
    return status;
}
