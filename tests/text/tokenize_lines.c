/* tokenize_lines TOKENIZER MAX_LENGTH: reads texts, one a line in hexadecimal, and writes their ids, one text a line.
 * tokenize_lines TOKENIZER json: writes its tokenizer.json. For compare_tokenizer.py. */
#include "fb3/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t from_hex(char *text, size_t digits)
{
    for (size_t i = 0; i < digits / 2; i++) {
        char byte[3] = {text[2 * i], text[2 * i + 1], 0};
        text[i] = (char)strtol(byte, NULL, 16);
    }
    return digits / 2;
}

static fb3_status write_ids(const fb3_tokenizer *tokenizer, int max_length)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    uint32_t *ids = NULL;
    int64_t capacity = 0;
    int count, untruncated;
    fb3_status status = FB3_OK;
    while ((length = getline(&line, &room, stdin)) > 0) {
        size_t bytes = from_hex(line, (size_t)length - 1);
        FB3_TRY_GOTO(
            fb3_tokenizer_encode(tokenizer, line, (int64_t)bytes, max_length, &ids, &capacity, &count, &untruncated),
            done);
        for (int i = 0; i < count; i++) printf("%s%u", i ? " " : "", ids[i]);
        putchar('\n');
    }
done:
    free(line);
    free(ids);
    return status;
}

static fb3_status write_json(const fb3_tokenizer *tokenizer)
{
    char *json;
    size_t bytes;
    FB3_TRY(fb3_tokenizer_json(tokenizer, &json, &bytes));
    fwrite(json, 1, bytes, stdout);
    free(json);
    return FB3_OK;
}

int main(int count, char **words)
{
    if (count != 3) {
        fprintf(stderr, "usage: %s TOKENIZER MAX_LENGTH|json\n", words[0]);
        return FB3_INPUT;
    }
    fb3_tokenizer *tokenizer;
    fb3_status status = fb3_tokenizer_open(&tokenizer, words[1]);
    if (status == FB3_OK)
        status = strcmp(words[2], "json") ? write_ids(tokenizer, atoi(words[2])) : write_json(tokenizer);
    if (status != FB3_OK) fprintf(stderr, "%s: %s\n", words[0], fb3_error_text());
    fb3_tokenizer_close(tokenizer);
    return status;
}
