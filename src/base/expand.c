/* ${VAR} and ${VAR:-x} in the values of a YAML: the variable, or x where it is unset or empty. "$${" stands for a
 * literal "${"; a dollar sign elsewhere is itself. */
#include "yaml_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool name_byte(char c, bool first)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (!first && c >= '0' && c <= '9');
}

/* The length of the variable's name at `text`; 0: none. */
static size_t name_length(const char *text)
{
    size_t length = 0;
    while (name_byte(text[length], length == 0)) length++;
    return length;
}

/* Writes what stands for the reference at *cursor ("${...}") and moves *cursor behind it. */
static fb3_status expand_one(const char **cursor, FILE *out)
{
    const char *start = *cursor + strlen("${");
    const char *end = strchr(start, '}');
    FB3_REQUIRE(end, FB3_INPUT, "'%.40s' has no closing brace; write ${VAR}, or $${ for a literal ${", *cursor);
    size_t length = name_length(start);
    bool has_default = strncmp(start + length, ":-", 2) == 0;
    FB3_REQUIRE(length > 0 && (has_default || start + length == end), FB3_INPUT,
                "'%.*s' is not a variable; write ${VAR} or ${VAR:-value}, or $${ for a literal ${",
                (int)(end + 1 - *cursor < 40 ? end + 1 - *cursor : 40), *cursor);
    char *name = strndup(start, length);
    FB3_REQUIRE(name, FB3_FAILED, "out of memory; free memory and run again");
    const char *value = getenv(name);
    fb3_status status = FB3_OK;
    if (has_default && (!value || !*value)) {
        const char *fallback = start + length + 2;
        fwrite(fallback, 1, (size_t)(end - fallback), out);
    } else if (value) {
        fputs(value, out);
    } else {
        status =
            fb3_fail(FB3_INPUT, "the environment variable %s is not set; set it, or write ${%s:-value}", name, name);
    }
    free(name);
    *cursor = end + 1;
    return status;
}

fb3_status fb3_yaml_expand(const char *text, char **expanded)
{
    *expanded = NULL;
    char *buffer = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&buffer, &bytes);
    FB3_REQUIRE(out, FB3_FAILED, "out of memory; free memory and run again");
    fb3_status status = FB3_OK;
    while (*text && status == FB3_OK) {
        if (strncmp(text, "$${", 3) == 0) {
            fputs("${", out);
            text += 3;
        } else if (strncmp(text, "${", 2) == 0) {
            status = expand_one(&text, out);
        } else {
            fputc(*text++, out);
        }
    }
    bool written = !ferror(out);
    if (fclose(out) != 0 || !written) status = fb3_fail(FB3_FAILED, "out of memory; free memory and run again");
    if (status == FB3_OK)
        *expanded = buffer;
    else
        free(buffer);
    return status;
}
