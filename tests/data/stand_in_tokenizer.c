/* The stand-in for the tokenizer: it defines the functions of fb3/tokenizer.h that `data` uses, so a program with this
 * file links no other. See data_fixture.h. */
#include "data_fixture.h"

enum { TOKENIZERS = 8 };

struct fb3_tokenizer {
    int vocabulary;
    char sha256[FB3_SHA256_HEX];
};

fb3_tokenizer *stand_in_tokenizer(int vocabulary, char name)
{
    static struct fb3_tokenizer tokenizers[TOKENIZERS];
    static int next;
    struct fb3_tokenizer *tokenizer = &tokenizers[next++ % TOKENIZERS];
    tokenizer->vocabulary = vocabulary;
    assert_ok(fb3_sha256_memory(&name, 1, tokenizer->sha256));
    return tokenizer;
}

uint32_t stand_in_id(const char *word, size_t bytes, int vocabulary)
{
    uint32_t hash = 0;
    for (size_t i = 0; i < bytes; i++) hash = hash * 31 + (unsigned char)word[i];
    return WORD_FIRST + hash % (uint32_t)(vocabulary - WORD_FIRST);
}

fb3_status fb3_tokenizer_encode(const fb3_tokenizer *tokenizer, const char *text, int64_t bytes, int max_length,
                                uint32_t **ids, int64_t *capacity, int *count, int *untruncated)
{
    if (memmem(text, (size_t)bytes, UNTOKENISABLE, strlen(UNTOKENISABLE)))
        return fb3_fail(FB3_INPUT, "no token for this");
    if (*capacity < bytes + 2) {
        *capacity = bytes + 2;
        *ids = realloc(*ids, (size_t)*capacity * sizeof **ids);
        assert_non_null(*ids);
    }
    int pieces = 0;
    *count = 0;
    (*ids)[(*count)++] = WORD_CLS;
    for (int64_t at = 0; at < bytes;) {
        int64_t end = at;
        while (end < bytes && text[end] != ' ') end++;
        if (end > at && pieces++ < max_length - 2)
            (*ids)[(*count)++] = stand_in_id(text + at, (size_t)(end - at), tokenizer->vocabulary);
        at = end + 1;
    }
    (*ids)[(*count)++] = WORD_SEP;
    *untruncated = pieces + 2;
    return FB3_OK;
}

int fb3_tokenizer_vocabulary(const fb3_tokenizer *tokenizer)
{
    return tokenizer->vocabulary;
}

const char *fb3_tokenizer_sha256(const fb3_tokenizer *tokenizer)
{
    return tokenizer->sha256;
}

void make_dataset(const char *name, const char *csv_text, int targets, int vocabulary)
{
    fb3_strings columns;
    fb3_dataset_report report;
    fb3_dataset_options options = make_options(&columns, targets);
    write_text("fixture.csv", csv_text);
    assert_ok(prepare_file(scratch_path("fixture.csv"), scratch_path(name), stand_in_tokenizer(vocabulary, 'A'),
                           &options, &report));
    fb3_strings_free(&columns);
}
