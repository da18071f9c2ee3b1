/* Text to token ids, step by step what the Hugging Face fast tokenizer of DeBERTa-v2/v3 does (transformers 4.57):
 *
 *     the text is cut at [PAD] [CLS] [SEP] [MASK]          each becomes its id
 *     -> a part is normalised (normalizer.c)
 *     -> it is cut at [UNK]                                which becomes its id
 *     -> spaces become U+2581, and one is put in front unless it is there: every part is the start of a word
 *     -> a word begins at each U+2581
 *     -> a word is divided into pieces (unigram.c)
 *     -> [CLS] pieces [SEP], of which at most max_length - 2 pieces stay
 *
 * A character that is no piece is [UNK], though the model has a piece for every byte: the fast tokenizer knows no byte
 * fallback, and published weights were fine-tuned with it. */
#include "tokenizer_parts.h"

#include "fb3/file.h"
#include "fb3/utf8.h"

#include <assert.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char word_mark[] = "\xE2\x96\x81"; /* U+2581, what pieces have for a space */

enum { WORD_MARK_BYTES = sizeof word_mark - 1 };

/* mDeBERTa-v3's file, the largest in use, has 4 MB. */
static const size_t MODEL_LIMIT = (size_t)256 << 20, SIDE_FILE_LIMIT = (size_t)1 << 20;

/* The word table of DeBERTa-v3 has 128,100 rows for 128,001 ids. */
enum { VOCABULARY_MULTIPLE = 100 };

const char *const fb3_special_text[FB3_SPECIALS] = {"[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"};

/* --- opening ------------------------------------------------------------------------------------------------------ */

static fb3_status check_pieces(const fb3_spm_pieces *pieces)
{
    for (int id = 0; id < pieces->count; id++) {
        const fb3_piece *piece = &pieces->piece[id];
        FB3_REQUIRE(piece->bytes > 0 && fb3_utf8_valid(piece->text, (size_t)piece->bytes) == (size_t)piece->bytes,
                    FB3_INPUT, "piece %d is not valid UTF-8; fetch the file again", id);
        FB3_REQUIRE(isfinite(piece->score), FB3_INPUT, "piece %d has no finite score; fetch the file again", id);
    }
    return FB3_OK;
}

static fb3_status find_specials(fb3_tokenizer *tokenizer)
{
    for (int s = 0; s < FB3_SPECIALS; s++) {
        const char *text = fb3_special_text[s];
        int id = fb3_unigram_find(tokenizer->unigram, text, strlen(text));
        /* [MASK] is no piece of DeBERTa-v3's file: added_tokens.json puts it behind them. */
        if (id < 0 && s == FB3_MASK) id = tokenizer->pieces.count;
        FB3_REQUIRE(id >= 0, FB3_INPUT, "has no piece %s; give the spm.model of a DeBERTa-v2 or v3 model", text);
        tokenizer->special[s] = id;
    }
    FB3_REQUIRE(tokenizer->special[FB3_UNK] == tokenizer->pieces.unknown, FB3_INPUT,
                "its unknown piece is not [UNK]; give the spm.model of a DeBERTa-v2 or v3 model");
    return FB3_OK;
}

static fb3_status read_model(fb3_tokenizer *tokenizer)
{
    fb3_spm_fields fields;
    FB3_TRY(fb3_spm_fields_read(&fields, tokenizer->model, tokenizer->model_bytes));
    tokenizer->charsmap = fields.charsmap;
    tokenizer->charsmap_bytes = fields.charsmap_bytes;
    fb3_status status = fb3_spm_pieces_read(&tokenizer->pieces, fields.vocabulary.data, fields.vocabulary.bytes);
    fb3_spm_fields_free(&fields);
    FB3_TRY(status);
    FB3_TRY(check_pieces(&tokenizer->pieces));
    FB3_TRY(fb3_charsmap_read(&tokenizer->normalizer, tokenizer->charsmap, tokenizer->charsmap_bytes));
    FB3_TRY(fb3_unigram_new(&tokenizer->unigram, tokenizer->pieces.piece, tokenizer->pieces.count,
                            tokenizer->pieces.unknown));
    FB3_TRY(find_specials(tokenizer));
    return fb3_sha256_memory(tokenizer->model, tokenizer->model_bytes, tokenizer->sha256);
}

/* Takes `model`, which malloc gave, whatever comes of it. */
static fb3_status open_owned(fb3_tokenizer **tokenizer, char *model, size_t bytes)
{
    fb3_tokenizer *opened = calloc(1, sizeof *opened);
    if (!opened) {
        free(model);
        return fb3_fail(FB3_FAILED, "out of memory for a tokenizer");
    }
    opened->model = model;
    opened->model_bytes = bytes;
    fb3_status status = read_model(opened);
    if (status == FB3_OK)
        *tokenizer = opened;
    else
        fb3_tokenizer_close(opened);
    return status;
}

fb3_status fb3_tokenizer_open_memory(fb3_tokenizer **tokenizer, const void *data, size_t bytes)
{
    *tokenizer = NULL;
    char *copy = malloc(bytes + 1);
    FB3_REQUIRE(copy, FB3_FAILED, "out of memory for a tokenizer of %zu bytes", bytes);
    if (bytes > 0) memcpy(copy, data, bytes);
    return open_owned(tokenizer, copy, bytes);
}

/* Reads a JSON object beside the model; *object is NULL when the file is not there. */
static fb3_status read_side_file(const char *directory, const char *name, json_t **object)
{
    *object = NULL;
    fb3_status status = FB3_OK;
    char *text = NULL;
    size_t bytes;
    char *path = fb3_path_join(directory, name);
    FB3_REQUIRE(path, FB3_FAILED, "out of memory for a path");
    if (!fb3_file_exists(path)) goto done;
    FB3_TRY_GOTO(fb3_file_read(path, SIDE_FILE_LIMIT, &text, &bytes), done);
    json_error_t error;
    /* As reals, because "model_max_length" is usually 1e30 written as an integer. */
    *object = json_loadb(text, bytes, JSON_DECODE_INT_AS_REAL, &error);
    FB3_REQUIRE_GOTO(json_is_object(*object), done, FB3_INPUT, "%s: is not a JSON object (%s); fetch it again", path,
                     *object ? "it is another value" : error.text);
done:
    if (status != FB3_OK) {
        json_decref(*object);
        *object = NULL;
    }
    free(text);
    free(path);
    return status;
}

/* added_tokens.json may name the special tokens, with the ids that we know them by, and nothing else. */
static fb3_status check_added_tokens(const fb3_tokenizer *tokenizer, const char *directory)
{
    json_t *tokens, *value;
    const char *text;
    fb3_status status = FB3_OK;
    FB3_TRY(read_side_file(directory, "added_tokens.json", &tokens));
    json_object_foreach(tokens, text, value)
    {
        int s = 0;
        while (s < FB3_SPECIALS && strcmp(text, fb3_special_text[s]) != 0) s++;
        FB3_REQUIRE_GOTO(s < FB3_SPECIALS, done, FB3_INPUT,
                         "%s/added_tokens.json: the added token '%s' is not supported; remove it", directory, text);
        FB3_REQUIRE_GOTO(json_is_number(value) && json_number_value(value) == tokenizer->special[s], done, FB3_INPUT,
                         "%s/added_tokens.json: the id of %s is not %d; it does not belong to this spm.model",
                         directory, text, tokenizer->special[s]);
    }
done:
    json_decref(tokens);
    return status;
}

static fb3_status check_tokenizer_config(const char *directory)
{
    static const char *const refused[] = {"do_lower_case", "split_by_punct"};
    json_t *config;
    fb3_status status = FB3_OK;
    FB3_TRY(read_side_file(directory, "tokenizer_config.json", &config));
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        FB3_REQUIRE_GOTO(!json_is_true(json_object_get(config, refused[i])), done, FB3_INPUT,
                         "%s/tokenizer_config.json: %s: true is not supported (it is false in every DeBERTa-v3); "
                         "give another tokenizer",
                         directory, refused[i]);
done:
    json_decref(config);
    return status;
}

/* The folder and the file that `path`, either of them, means. */
static fb3_status find_model(const char *path, char **directory, char **file)
{
    bool is_folder = fb3_folder_exists(path);
    const char *slash = strrchr(path, '/');
    size_t folder_bytes = slash > path ? (size_t)(slash - path) : 1;
    *directory = is_folder ? strdup(path) : slash ? strndup(path, folder_bytes) : strdup(".");
    *file = is_folder ? fb3_path_join(path, "spm.model") : strdup(path);
    FB3_REQUIRE(*directory && *file, FB3_FAILED, "out of memory for a path");
    FB3_REQUIRE(!is_folder || fb3_file_exists(*file), FB3_INPUT,
                "%s: holds no spm.model; give the directory of a DeBERTa-v2 or v3 model", path);
    return FB3_OK;
}

fb3_status fb3_tokenizer_open(fb3_tokenizer **tokenizer, const char *path)
{
    *tokenizer = NULL;
    fb3_status status;
    fb3_tokenizer *opened = NULL;
    char *directory = NULL, *file = NULL, *model;
    size_t bytes;
    FB3_TRY_GOTO(find_model(path, &directory, &file), done);
    FB3_TRY_GOTO(fb3_file_read(file, MODEL_LIMIT, &model, &bytes), done);
    status = open_owned(&opened, model, bytes);
    if (status != FB3_OK) {
        fb3_fail_context(status, "%s", file);
        goto done;
    }
    FB3_TRY_GOTO(check_added_tokens(opened, directory), done);
    FB3_TRY_GOTO(check_tokenizer_config(directory), done);
    *tokenizer = opened;
    opened = NULL;
done:
    fb3_tokenizer_close(opened);
    free(directory);
    free(file);
    return status;
}

void fb3_tokenizer_close(fb3_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    fb3_unigram_free(tokenizer->unigram);
    fb3_charsmap_free(&tokenizer->normalizer);
    fb3_spm_pieces_free(&tokenizer->pieces);
    free(tokenizer->model);
    free(tokenizer);
}

/* --- encoding ----------------------------------------------------------------------------------------------------- */

/* The buffers of one call. */
typedef struct scratch {
    fb3_buffer normal; /* a part in normal form */
    fb3_buffer words;  /* the same with U+2581 for spaces */
    fb3_ids ids;
} scratch;

static bool is_mark(const char *text, size_t bytes)
{
    return bytes >= WORD_MARK_BYTES && memcmp(text, word_mark, WORD_MARK_BYTES) == 0;
}

/* Spaces become U+2581; a word ends before the next U+2581 that is not its first character. */
static fb3_status encode_words(const fb3_tokenizer *tokenizer, const char *text, size_t bytes, scratch *s)
{
    if (bytes == 0) return FB3_OK; /* between two special tokens */
    s->words.bytes = 0;
    FB3_TRY(fb3_buffer_reserve(&s->words, (bytes + 1) * WORD_MARK_BYTES));
    char *words = s->words.data;
    size_t end = 0, word = 0; /* of what is written, and where the word in it began */
    if (text[0] != ' ' && !is_mark(text, bytes)) {
        memcpy(words, word_mark, WORD_MARK_BYTES);
        end = WORD_MARK_BYTES;
    }
    for (size_t i = 0; i < bytes;) {
        bool space = text[i] == ' ', mark = space || (text[i] == word_mark[0] && is_mark(text + i, bytes - i));
        if (!mark) {
            words[end++] = text[i++];
            continue;
        }
        if (end > word) FB3_TRY(fb3_unigram_encode(tokenizer->unigram, words + word, end - word, &s->ids));
        word = end;
        memcpy(words + end, word_mark, WORD_MARK_BYTES);
        end += WORD_MARK_BYTES;
        i += space ? 1 : WORD_MARK_BYTES;
    }
    return fb3_unigram_encode(tokenizer->unigram, words + word, end - word, &s->ids);
}

/* Whether `text` starts with the special token `s`. */
static bool starts_with_special(const char *text, size_t bytes, fb3_special s)
{
    size_t length = strlen(fb3_special_text[s]);
    return bytes >= length && !memcmp(text, fb3_special_text[s], length);
}

static bool is_unknown_token(const char *text, size_t bytes, fb3_special *s)
{
    *s = FB3_UNK;
    return starts_with_special(text, bytes, FB3_UNK);
}

static bool is_control_token(const char *text, size_t bytes, fb3_special *s)
{
    static const fb3_special controls[] = {FB3_PAD, FB3_CLS, FB3_SEP, FB3_MASK};
    for (size_t i = 0; i < sizeof controls / sizeof controls[0]; i++) {
        *s = controls[i];
        if (starts_with_special(text, bytes, *s)) return true;
    }
    return false;
}

typedef bool match_special(const char *text, size_t bytes, fb3_special *s);
typedef fb3_status encode_part(const fb3_tokenizer *tokenizer, const char *text, size_t bytes, scratch *s);

/* Cuts `text` at the special tokens that `matches` finds and encodes what lies between by `encode`. */
static fb3_status cut_at_specials(const fb3_tokenizer *tokenizer, const char *text, size_t bytes, scratch *s,
                                  match_special *matches, encode_part *encode)
{
    if (bytes == 0) return FB3_OK;
    size_t start = 0, at = 0;
    while (at < bytes) {
        const char *bracket = memchr(text + at, '[', bytes - at);
        if (!bracket) break;
        at = (size_t)(bracket - text);
        fb3_special found;
        if (!matches(text + at, bytes - at, &found)) {
            at++;
            continue;
        }
        FB3_TRY(encode(tokenizer, text + start, at - start, s));
        FB3_TRY(fb3_ids_append(&s->ids, (uint32_t)tokenizer->special[found]));
        at += strlen(fb3_special_text[found]);
        start = at;
    }
    return encode(tokenizer, text + start, bytes - start, s);
}

static fb3_status encode_normalized(const fb3_tokenizer *tokenizer, const char *text, size_t bytes, scratch *s)
{
    FB3_TRY(fb3_normalize(&tokenizer->normalizer, text, bytes, &s->normal));
    return cut_at_specials(tokenizer, s->normal.data, s->normal.bytes, s, is_unknown_token, encode_words);
}

static fb3_status encode_text(const fb3_tokenizer *tokenizer, const char *text, size_t bytes, scratch *s)
{
    size_t valid = fb3_utf8_valid(text, bytes);
    FB3_REQUIRE(valid == bytes, FB3_INPUT, "the text is not valid UTF-8 at byte %zu; save it as UTF-8", valid + 1);
    FB3_TRY(fb3_ids_append(&s->ids, (uint32_t)tokenizer->special[FB3_CLS]));
    FB3_TRY(cut_at_specials(tokenizer, text, bytes, s, is_control_token, encode_normalized));
    FB3_TRY(fb3_ids_append(&s->ids, (uint32_t)tokenizer->special[FB3_SEP]));
    FB3_REQUIRE(s->ids.count <= INT_MAX, FB3_INPUT, "a text of %lld tokens; split it", (long long)s->ids.count);
    return FB3_OK;
}

fb3_status fb3_tokenizer_encode(const fb3_tokenizer *tokenizer, const char *text, int64_t bytes, int max_length,
                                uint32_t **ids, int64_t *capacity, int *count, int *untruncated)
{
    assert(max_length >= 3 && bytes >= 0);
    scratch s = {.ids = {*ids, 0, *ids ? *capacity : 0}};
    fb3_status status = encode_text(tokenizer, text, (size_t)bytes, &s);
    *ids = s.ids.id;
    *capacity = s.ids.capacity;
    fb3_buffer_free(&s.normal);
    fb3_buffer_free(&s.words);
    FB3_TRY(status);

    *untruncated = (int)s.ids.count;
    *count = *untruncated < max_length ? *untruncated : max_length;
    (*ids)[*count - 1] = (uint32_t)tokenizer->special[FB3_SEP];
    return FB3_OK;
}

/* --- what it is --------------------------------------------------------------------------------------------------- */

int fb3_tokenizer_pieces(const fb3_tokenizer *tokenizer)
{
    int behind = tokenizer->special[FB3_MASK] + 1;
    return behind > tokenizer->pieces.count ? behind : tokenizer->pieces.count;
}

int fb3_tokenizer_vocabulary(const fb3_tokenizer *tokenizer)
{
    int multiples = (fb3_tokenizer_pieces(tokenizer) + VOCABULARY_MULTIPLE - 1) / VOCABULARY_MULTIPLE;
    return multiples * VOCABULARY_MULTIPLE;
}

const void *fb3_tokenizer_model(const fb3_tokenizer *tokenizer, size_t *bytes)
{
    *bytes = tokenizer->model_bytes;
    return tokenizer->model;
}

const char *fb3_tokenizer_sha256(const fb3_tokenizer *tokenizer)
{
    return tokenizer->sha256;
}
