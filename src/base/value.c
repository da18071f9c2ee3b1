/* A value from text to its field: one parser per type. Numbers are read here and not by a YAML library, so that 1e-5
 * is a number, 010 is ten, and 1e3, inf or 0x10 are no surprise. */
#include "options.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 60, DESCRIPTION_BYTES = 400 }; /* bytes of a wrong value that an error repeats, and of what is right */

static_assert(sizeof(fb3_loss_kind) == sizeof(int) && sizeof(fb3_tristate) == sizeof(int), "words are stored as int");

static const option_word BOOLEANS[] = {{"true", 1}, {"false", 0}, {"yes", 1}, {"no", 0}, {"on", 1},
                                       {"off", 0},  {"1", 1},     {"0", 0},   {0}};

static fb3_status wrong(const fb3_option *option, const char *text, const char *where, const char *what)
{
    char description[DESCRIPTION_BYTES];
    fb3_option_describe(option, description, sizeof description);
    return fb3_fail(FB3_INPUT, "%s: '%.*s' is %s; give %s", where, SHOWN, text, what, description);
}

static fb3_status out_of_memory(const char *where)
{
    return fb3_fail(FB3_FAILED, "%s: out of memory; free memory and run again", where);
}

static bool same_letter(char a, char b)
{
    if (a >= 'A' && a <= 'Z') a = (char)(a - 'A' + 'a');
    if (b >= 'A' && b <= 'Z') b = (char)(b - 'A' + 'a');
    return a == b || (strchr("-_", a) && strchr("-_", b) && a && b);
}

const option_word *fb3_word_find(const option_word *words, const char *text)
{
    for (const option_word *word = words; word && word->name; word++) {
        size_t i = 0;
        while (word->name[i] && same_letter(word->name[i], text[i])) i++;
        if (!word->name[i] && !text[i]) return word;
    }
    return NULL;
}

static bool in_range(const fb3_option *option, double value)
{
    bool low = option->flags & OPTION_LOW_OPEN ? value > option->low : value >= option->low;
    bool high = option->flags & OPTION_HIGH_OPEN ? value < option->high : value <= option->high;
    return low && high;
}

static fb3_status parse_integer(const fb3_option *option, const char *text, const char *where, int64_t *value)
{
    const char *digits = text + (*text == '-' || *text == '+');
    if (!*digits || digits[strspn(digits, "0123456789")]) return wrong(option, text, where, "not a whole number");
    errno = 0;
    long long parsed = strtoll(text, NULL, 10);
    if (errno == ERANGE || !in_range(option, (double)parsed)) return wrong(option, text, where, "out of range");
    *value = parsed;
    return FB3_OK;
}

/* Decimal notation only: strtod alone would take inf, nan and hexadecimal. */
static fb3_status parse_real(const fb3_option *option, const char *text, const char *where, double *value)
{
    char *end = NULL;
    errno = 0;
    double parsed = strtod(text, &end);
    bool decimal = text[strspn(text, "0123456789+-.eE")] == 0;
    if (!*text || end == text || *end || !decimal || !isfinite(parsed))
        return wrong(option, text, where, "not a number");
    if (errno == ERANGE || !in_range(option, parsed)) return wrong(option, text, where, "out of range");
    if (option->flags & OPTION_WHOLE_ABOVE_ONE && parsed >= 1 && parsed != floor(parsed))
        return wrong(option, text, where, "neither a share nor a whole number");
    *value = parsed == 0 ? 0 : parsed; /* no minus zero */
    return FB3_OK;
}

static fb3_status store_text(char **field, const char *text, const char *where)
{
    char *copy = strdup(text);
    if (!copy) return out_of_memory(where);
    free(*field);
    *field = copy;
    return FB3_OK;
}

static fb3_status assign_integer(fb3_config *config, const fb3_option *option, const char *text, const char *where)
{
    int64_t value = FB3_UNSET_INT;
    const char *unset = fb3_option_unset_word(option);
    if (!unset || strcasecmp(text, unset) != 0) FB3_TRY(parse_integer(option, text, where, &value));
    *(int64_t *)fb3_option_field(config, option) = value;
    return FB3_OK;
}

static fb3_status assign_boolean(fb3_config *config, const fb3_option *option, const char *text, const char *where)
{
    const option_word *word = fb3_word_find(BOOLEANS, text);
    if (!word) word = fb3_word_find(option->words, text);
    if (!word) return wrong(option, text, where, "neither true nor false");
    *(bool *)fb3_option_field(config, option) = word->value != 0;
    return FB3_OK;
}

static fb3_status assign_tristate(fb3_config *config, const fb3_option *option, const char *text, const char *where)
{
    const option_word *word = fb3_word_find(BOOLEANS, text);
    if (!word && strcasecmp(text, "auto") != 0) return wrong(option, text, where, "neither auto, true nor false");
    int value = !word ? FB3_AUTO : word->value ? FB3_ON : FB3_OFF;
    memcpy(fb3_option_field(config, option), &value, sizeof value);
    return FB3_OK;
}

static fb3_status assign_word(fb3_config *config, const fb3_option *option, const char *text, const char *where)
{
    const option_word *word = fb3_word_find(option->words, text);
    if (!word) return wrong(option, text, where, "unknown");
    memcpy(fb3_option_field(config, option), &word->value, sizeof word->value);
    return FB3_OK;
}

static fb3_status assign_resume(fb3_config *config, const char *text, const fb3_option *option, const char *where)
{
    const option_word *word = fb3_word_find(option->words, text);
    char *path = word ? NULL : strdup(text);
    if (!word && !path) return out_of_memory(where);
    free(config->resume_path);
    config->resume_path = path;
    config->resume = word ? (fb3_resume)word->value : FB3_RESUME_PATH;
    return FB3_OK;
}

/* Adds the words of "a, b" without the spaces around them. */
static fb3_status split_commas(const fb3_option *option, const char *text, const char *where, fb3_strings *items)
{
    for (;;) {
        text += strspn(text, " \t");
        size_t length = strcspn(text, ","), kept = length;
        while (kept > 0 && strchr(" \t", text[kept - 1])) kept--;
        if (kept == 0) return wrong(option, text, where, "an empty item of a list");
        char *item = strndup(text, kept);
        if (!item) return out_of_memory(where);
        fb3_status status = fb3_strings_add(items, item);
        free(item);
        FB3_TRY(status);
        if (!text[length]) return FB3_OK;
        text += length + 1;
    }
}

static fb3_status refuse_repeats(const fb3_strings *items, const char *where)
{
    for (int i = 0; i < items->count; i++)
        for (int j = 0; j < i; j++)
            FB3_REQUIRE(strcmp(items->item[i], items->item[j]) != 0, FB3_INPUT,
                        "%s: '%.*s' stands twice in the list; keep one", where, SHOWN, items->item[i]);
    return FB3_OK;
}

/* The items of a list, whichever way it was written. */
static fb3_status list_items(const fb3_option *option, const fb3_value *value, const char *where, fb3_strings *items)
{
    if (value->kind == VALUE_SCALAR) return split_commas(option, value->items.item[0], where, items);
    for (int i = 0; i < value->items.count; i++) {
        if (!value->items.item[i][0]) return wrong(option, "", where, "an empty item of a list");
        FB3_TRY(fb3_strings_add(items, value->items.item[i]));
    }
    return FB3_OK;
}

static fb3_status assign_list(fb3_config *config, const fb3_option *option, const fb3_value *value, const char *where)
{
    fb3_strings items = {0};
    fb3_status status = FB3_OK;
    FB3_TRY_GOTO(list_items(option, value, where, &items), done);
    FB3_TRY_GOTO(refuse_repeats(&items, where), done);
    fb3_strings *field = fb3_option_field(config, option);
    fb3_strings_free(field);
    *field = items;
    items = (fb3_strings){0};
done:
    fb3_strings_free(&items);
    return status;
}

/* One number of a list, in the form in which it is stored. */
static fb3_status canonical_number(const fb3_option *option, char **item, const char *where)
{
    char text[FB3_REAL_BYTES];
    int64_t whole = 0;
    double real = 0;
    if (option->flags & OPTION_WHOLE) {
        FB3_TRY(parse_integer(option, *item, where, &whole));
        snprintf(text, sizeof text, "%lld", (long long)whole);
    } else {
        FB3_TRY(parse_real(option, *item, where, &real));
        fb3_real_format(real, text);
    }
    return store_text(item, text, where);
}

static fb3_status join_commas(const fb3_strings *items, char **joined, const char *where)
{
    size_t bytes = 1;
    for (int i = 0; i < items->count; i++) bytes += strlen(items->item[i]) + 1;
    char *text = calloc(bytes, 1), *end = text;
    if (!text) return out_of_memory(where);
    for (int i = 0; i < items->count; i++) {
        if (i > 0) *end++ = ',';
        end = stpcpy(end, items->item[i]);
    }
    *joined = text;
    return FB3_OK;
}

static fb3_status assign_numbers(fb3_config *config, const fb3_option *option, const fb3_value *value,
                                 const char *where)
{
    char **field = fb3_option_field(config, option), *joined = NULL;
    const option_word *word = value->items.count == 1 ? fb3_word_find(option->words, value->items.item[0]) : NULL;
    if (word) return store_text(field, word->name, where);
    fb3_strings items = {0};
    fb3_status status = FB3_OK;
    FB3_TRY_GOTO(list_items(option, value, where, &items), done);
    for (int i = 0; i < items.count; i++) FB3_TRY_GOTO(canonical_number(option, &items.item[i], where), done);
    FB3_TRY_GOTO(refuse_repeats(&items, where), done);
    FB3_TRY_GOTO(join_commas(&items, &joined, where), done);
    free(*field);
    *field = joined;
done:
    fb3_strings_free(&items);
    return status;
}

/* The numbers of a map, by the position of their names in option->words; NAN: not given. */
enum { MOST_KWARGS = 8 };
typedef struct kwargs {
    const fb3_option *option;
    const char *where;
    double number[MOST_KWARGS];
} kwargs;

static fb3_status set_kwarg(kwargs *set, const char *name, const char *text)
{
    const option_word *word = fb3_word_find(set->option->words, name);
    if (!word) return wrong(set->option, name, set->where, "unknown");
    FB3_REQUIRE(isnan(set->number[word->value]), FB3_INPUT, "%s: %s stands twice; keep one", set->where, word->name);
    return parse_real(set->option, text, set->where, &set->number[word->value]);
}

static fb3_status visit_kwarg(void *context, const char *key, int line, const fb3_value *value)
{
    kwargs *set = context;
    (void)line;
    if (value->kind != VALUE_SCALAR) return wrong(set->option, key, set->where, "not followed by a number");
    return set_kwarg(set, key, value->items.item[0]);
}

/* {"lr_end": 1e-07, "power": 2}: JSON, and YAML too. */
static fb3_status format_kwargs(const kwargs *set, char **json)
{
    size_t bytes = 0;
    FILE *out = open_memstream(json, &bytes);
    if (!out) return out_of_memory(set->where);
    const char *separator = "";
    fputc('{', out);
    for (const option_word *word = set->option->words; word->name; word++) {
        if (isnan(set->number[word->value])) continue;
        char text[FB3_REAL_BYTES];
        fb3_real_format(set->number[word->value], text);
        fprintf(out, "%s\"%s\": %s", separator, word->name, text);
        separator = ", ";
    }
    fputc('}', out);
    bool written = !ferror(out);
    if (fclose(out) == 0 && written) return FB3_OK;
    free(*json);
    *json = NULL;
    return out_of_memory(set->where);
}

static fb3_status assign_kwargs(fb3_config *config, const fb3_option *option, const fb3_value *value, const char *where)
{
    kwargs set = {.option = option, .where = where};
    for (int i = 0; i < MOST_KWARGS; i++) set.number[i] = NAN;
    if (value->kind == VALUE_SCALAR) {
        const char *text = value->items.item[0];
        if (text[0] != '{') return wrong(option, text, where, "not a map");
        FB3_TRY(fb3_yaml_read(text, strlen(text), where, false, visit_kwarg, &set));
    } else {
        for (int i = 0; i + 1 < value->items.count; i += 2)
            FB3_TRY(set_kwarg(&set, value->items.item[i], value->items.item[i + 1]));
    }
    char **field = fb3_option_field(config, option), *json = NULL;
    FB3_TRY(format_kwargs(&set, &json));
    free(*field);
    *field = json;
    return FB3_OK;
}

/* A value that says nothing unsets what can be unset, and is a mistake elsewhere. */
static fb3_status assign_nothing(fb3_config *config, const fb3_option *option, const char *where)
{
    char description[DESCRIPTION_BYTES];
    fb3_option_describe(option, description, sizeof description);
    FB3_REQUIRE(!option->fallback || fb3_option_unset_word(option), FB3_INPUT,
                "%s: has no value; give %s, or leave it out", where, description);
    fb3_option_clear(config, option);
    return FB3_OK;
}

static bool takes_kind(option_type type, value_kind kind)
{
    bool list = type == OPTION_LIST || type == OPTION_NUMBERS, map = type == OPTION_KWARGS;
    return kind == VALUE_SCALAR || (kind == VALUE_LIST && list) || (kind == VALUE_MAP && map);
}

fb3_status fb3_option_assign(fb3_config *config, const fb3_option *option, const fb3_value *value, const char *where)
{
    static const char *const KIND_NAMES[] = {"one value", "a list", "a map"};
    if (!takes_kind(option->type, value->kind)) {
        char description[DESCRIPTION_BYTES];
        fb3_option_describe(option, description, sizeof description);
        return fb3_fail(FB3_INPUT, "%s: is %s; give %s", where, KIND_NAMES[value->kind], description);
    }
    for (int i = 0; i < value->items.count; i++)
        FB3_REQUIRE(fb3_text_is_utf8(value->items.item[i]), FB3_INPUT,
                    "%s: the value is not UTF-8; rename or recode it", where);
    if (value->null || (value->kind == VALUE_LIST && value->items.count == 0))
        return assign_nothing(config, option, where);
    const char *text = value->items.count > 0 ? value->items.item[0] : "";
    switch (option->type) {
    case OPTION_TEXT:
        return store_text(fb3_option_field(config, option), text, where);
    case OPTION_INTEGER:
        return assign_integer(config, option, text, where);
    case OPTION_REAL:
        return parse_real(option, text, where, fb3_option_field(config, option));
    case OPTION_BOOLEAN:
        return assign_boolean(config, option, text, where);
    case OPTION_TRISTATE:
        return assign_tristate(config, option, text, where);
    case OPTION_WORD:
        return assign_word(config, option, text, where);
    case OPTION_LIST:
        return assign_list(config, option, value, where);
    case OPTION_NUMBERS:
        return assign_numbers(config, option, value, where);
    case OPTION_KWARGS:
        return assign_kwargs(config, option, value, where);
    case OPTION_RESUME:
        return assign_resume(config, text, option, where);
    }
    return FB3_OK;
}

fb3_status fb3_option_assign_text(fb3_config *config, const fb3_option *option, const char *text, const char *where)
{
    char *item = (char *)text; /* only read */
    bool nothing =
        !*text || (option->type != OPTION_TEXT && option->type != OPTION_RESUME && strcmp(text, "null") == 0);
    fb3_value value = {.kind = VALUE_SCALAR, .null = nothing, .items = {.item = &item, .count = 1}};
    return fb3_option_assign(config, option, &value, where);
}

void fb3_option_clear(fb3_config *config, const fb3_option *option)
{
    void *field = fb3_option_field(config, option);
    switch (option->type) {
    case OPTION_TEXT:
    case OPTION_NUMBERS:
    case OPTION_KWARGS:
        free(*(char **)field);
        *(char **)field = NULL;
        break;
    case OPTION_INTEGER:
        *(int64_t *)field = FB3_UNSET_INT;
        break;
    case OPTION_REAL:
        *(double *)field = NAN;
        break;
    case OPTION_LIST:
        fb3_strings_free(field);
        break;
    case OPTION_RESUME:
        free(config->resume_path);
        config->resume_path = NULL;
        break;
    case OPTION_BOOLEAN:
    case OPTION_TRISTATE:
    case OPTION_WORD:
        break; /* always set */
    }
}
