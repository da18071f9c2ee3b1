/* Fields as text: for the stored configuration, where reading it again gives the same bits, and for messages. */
#include "options.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fb3/file.h"

void *fb3_option_field(fb3_config *config, const fb3_option *option)
{
    return (char *)config + option->offset;
}

const void *fb3_option_field_const(const fb3_config *config, const fb3_option *option)
{
    return (const char *)config + option->offset;
}

void fb3_real_format(double value, char text[FB3_REAL_BYTES])
{
    enum { DIGITS_OF_DOUBLE = 17 };          /* enough for every double */
    const double largest_written_out = 1e15; /* 1000 and not 1e+03 */
    if (value == floor(value) && fabs(value) < largest_written_out) {
        snprintf(text, FB3_REAL_BYTES, "%.0f", value);
        return;
    }
    for (int digits = 1; digits <= DIGITS_OF_DOUBLE; digits++) {
        snprintf(text, FB3_REAL_BYTES, "%.*g", digits, value);
        if (strtod(text, NULL) == value) return;
    }
}

/* The names of values, without their aliases. */
static void list_words(const option_word *words, const char *separator, char *text, size_t bytes)
{
    size_t length = 0;
    *text = 0;
    for (const option_word *word = words; word->name && length < bytes; word++) {
        bool alias = false;
        for (const option_word *earlier = words; earlier < word; earlier++) alias |= earlier->value == word->value;
        if (alias) continue;
        length += (size_t)snprintf(text + length, bytes - length, "%s%s", length ? separator : "", word->name);
    }
}

static void describe_range(const fb3_option *option, const char *noun, char *text, size_t bytes)
{
    char low[FB3_REAL_BYTES], high[FB3_REAL_BYTES];
    fb3_real_format(option->low, low);
    fb3_real_format(option->high, high);
    snprintf(text, bytes, "%s %s%s and %s%s", noun, option->flags & OPTION_LOW_OPEN ? "above " : "of at least ", low,
             option->flags & OPTION_HIGH_OPEN ? "below " : "at most ", high);
}

const char *fb3_option_unset_word(const fb3_option *option)
{
    bool word = option->type == OPTION_INTEGER && option->fallback && !strpbrk(option->fallback, "0123456789");
    return word ? option->fallback : NULL;
}

void fb3_option_describe(const fb3_option *option, char *text, size_t bytes)
{
    char range[200], words[200] = "";
    if (option->words) list_words(option->words, ", ", words, sizeof words);
    const char *unset = fb3_option_unset_word(option);
    switch (option->type) {
    case OPTION_INTEGER:
        describe_range(option, "a whole number", range, sizeof range);
        snprintf(text, bytes, "%s%s%s", range, unset ? ", or " : "", unset ? unset : "");
        break;
    case OPTION_REAL:
        describe_range(option, "a number", range, sizeof range);
        snprintf(text, bytes, "%s%s", range,
                 option->flags & OPTION_WHOLE_ABOVE_ONE ? ", whole from 1 on (below 1 it is a share)" : "");
        break;
    case OPTION_BOOLEAN:
        snprintf(text, bytes, "true or false");
        break;
    case OPTION_TRISTATE:
        snprintf(text, bytes, "auto, true or false");
        break;
    case OPTION_WORD:
        snprintf(text, bytes, "one of %s", words);
        break;
    case OPTION_LIST:
        snprintf(text, bytes, "words separated by commas, each once");
        break;
    case OPTION_NUMBERS:
        describe_range(option, option->flags & OPTION_WHOLE ? "whole numbers" : "numbers", range, sizeof range);
        snprintf(text, bytes, "%s%s%s, separated by commas", words, *words ? " or " : "", range);
        break;
    case OPTION_KWARGS:
        snprintf(text, bytes, "a map of numbers, such as {power: 2}, with the names %s", words);
        break;
    case OPTION_RESUME:
        snprintf(text, bytes, "auto, never or the path of a checkpoint");
        break;
    case OPTION_TEXT:
        snprintf(text, bytes, "a text");
        break;
    }
}

void fb3_option_holder(const fb3_option *option, char *text, size_t bytes)
{
    static const char *const BY_TYPE[] = {
        [OPTION_TEXT] = "TEXT",       [OPTION_INTEGER] = "INTEGER",          [OPTION_REAL] = "NUMBER",
        [OPTION_BOOLEAN] = "",        [OPTION_TRISTATE] = "auto|true|false", [OPTION_LIST] = "A,B,...",
        [OPTION_NUMBERS] = "A,B,...", [OPTION_KWARGS] = "{NAME: NUMBER}",    [OPTION_RESUME] = "WHAT",
    };
    if (option->holder)
        snprintf(text, bytes, "%s", option->holder);
    else if (option->type == OPTION_WORD)
        list_words(option->words, "|", text, bytes);
    else
        snprintf(text, bytes, "%s", BY_TYPE[option->type]);
}

bool fb3_option_unset(const fb3_config *config, const fb3_option *option)
{
    const void *field = fb3_option_field_const(config, option);
    switch (option->type) {
    case OPTION_TEXT:
    case OPTION_NUMBERS:
    case OPTION_KWARGS:
        return !*(char *const *)field;
    case OPTION_INTEGER:
        return *(const int64_t *)field == FB3_UNSET_INT;
    case OPTION_REAL:
        return isnan(*(const double *)field);
    case OPTION_LIST:
        return ((const fb3_strings *)field)->count == 0;
    default:
        return false;
    }
}

static char *format_list(const fb3_strings *items)
{
    char *list = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&list, &bytes);
    if (!out) return NULL;
    bool whole = true;
    fputc('[', out);
    for (int i = 0; i < items->count; i++) {
        char *quoted = fb3_yaml_quote(items->item[i]);
        whole = whole && quoted;
        fprintf(out, "%s%s", i > 0 ? ", " : "", quoted ? quoted : "");
        free(quoted);
    }
    fputc(']', out);
    whole = whole && !ferror(out);
    if (fclose(out) == 0 && whole) return list;
    free(list);
    return NULL;
}

/* One path is written as such, as people write it, where that reads back as a list of it. */
static char *format_paths(const fb3_strings *paths)
{
    const char *path = paths->count == 1 ? paths->item[0] : "";
    const size_t bytes = strlen(path);
    if (bytes == 0 || strchr(path, ',') || path[0] == ' ' || path[bytes - 1] == ' ') return format_list(paths);
    return fb3_yaml_quote(path);
}

static char *format_word(const void *field, const option_word *words)
{
    int value;
    memcpy(&value, field, sizeof value);
    for (const option_word *word = words; word->name; word++)
        if (word->value == value) return strdup(word->name);
    assert(!"a value without a name");
    return NULL;
}

static char *format_resume(const fb3_config *config, const fb3_option *option)
{
    if (config->resume != FB3_RESUME_PATH) return format_word(&config->resume, option->words);
    return fb3_yaml_quote(config->resume_path);
}

static char *format_real(double value)
{
    char text[FB3_REAL_BYTES];
    fb3_real_format(value, text);
    return strdup(text);
}

char *fb3_option_format(const fb3_config *config, const fb3_option *option)
{
    static const char *const TRISTATES[] = {"auto", "false", "true"};
    const void *field = fb3_option_field_const(config, option);
    int tristate;
    if (fb3_option_unset(config, option)) return strdup(option->fallback ? option->fallback : "null");
    switch (option->type) {
    case OPTION_TEXT:
    case OPTION_NUMBERS:
        return fb3_yaml_quote(*(char *const *)field);
    case OPTION_INTEGER:
        return fb3_format("%lld", (long long)*(const int64_t *)field);
    case OPTION_REAL:
        return format_real(*(const double *)field);
    case OPTION_BOOLEAN:
        return strdup(*(const bool *)field ? "true" : "false");
    case OPTION_TRISTATE:
        memcpy(&tristate, field, sizeof tristate);
        return strdup(TRISTATES[tristate - FB3_AUTO]);
    case OPTION_WORD:
        return format_word(field, option->words);
    case OPTION_LIST:
        return option->flags & OPTION_IS_PATH ? format_paths(field) : format_list(field);
    case OPTION_KWARGS:
        return strdup(*(char *const *)field);
    case OPTION_RESUME:
        return format_resume(config, option);
    }
    return NULL;
}
