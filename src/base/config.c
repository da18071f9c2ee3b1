/* From defaults, environment, YAML and command line to one fb3_config, in that order, so that what comes later wins. */
#include "options.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fb3/file.h"
#include "fb3/log.h"

enum { LARGEST_YAML = 1 << 20, SUGGESTION_BYTES = 200, SHOWN = 60 };

static const char DEFAULT_FILE[] = "fb3.yaml";
static const char PREFIX[] = "FB3_";

/* Variables that are no keys: the configuration's name and what the tests are told. */
static const char *const OTHER_VARIABLES[] = {"FB3_CONFIG", "FB3_CUDA_LIBRARY", "FB3_SOURCE_DIR", "FB3_SHARED_DIR",
                                              "FB3_BUILD_DIR"};

/* --- where a value came from -------------------------------------------------------------------------------------- */

static void variable_name(const char *key, char *name, size_t bytes)
{
    snprintf(name, bytes, "%s%s", PREFIX, key);
    for (char *c = name; *c; c++)
        if (*c >= 'a' && *c <= 'z') *c = (char)(*c - 'a' + 'A');
}

static const struct fb3_origin *origin_of(const fb3_config *config, const char *key)
{
    const fb3_option *option = fb3_option_find(key);
    assert(option && fb3_option_is(option, key));
    return &config->origin[fb3_option_index(option)];
}

bool fb3_config_given(const fb3_config *config, const char *key)
{
    return origin_of(config, key)->source != SOURCE_DEFAULT;
}

void fb3_config_where(const fb3_config *config, const char *key, char where[FB3_WHERE_BYTES])
{
    const struct fb3_origin *origin = origin_of(config, key);
    switch (origin->source) {
    case SOURCE_YAML:
        snprintf(where, FB3_WHERE_BYTES, "%.400s:%d: %s", config->config_file ? config->config_file : "YAML",
                 origin->line, key);
        break;
    case SOURCE_COMMAND_LINE:
        snprintf(where, FB3_WHERE_BYTES, "--%s", key);
        break;
    case SOURCE_ENVIRONMENT:
        variable_name(key, where, FB3_WHERE_BYTES);
        break;
    case SOURCE_DEFAULT:
        snprintf(where, FB3_WHERE_BYTES, "%s", key);
        break;
    }
}

fb3_status fb3_config_refuse(const fb3_config *config, const char *key, const char *format, ...)
{
    char where[FB3_WHERE_BYTES], message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    fb3_config_where(config, key, where);
    return fb3_fail(FB3_INPUT, "%s: %s", where, message);
}

/* --- defaults ----------------------------------------------------------------------------------------------------- */

static fb3_status set_defaults(fb3_config *config)
{
    *config = (fb3_config){0};
    config->origin = calloc((size_t)fb3_option_count, sizeof *config->origin);
    FB3_REQUIRE(config->origin, FB3_FAILED, "out of memory for the configuration; free memory and run again");
    for (int i = 0; i < fb3_option_count; i++) {
        const fb3_option *option = &fb3_option_table[i];
        fb3_option_clear(config, option);
        if (option->fallback) FB3_TRY(fb3_option_assign_text(config, option, option->fallback, option->key));
    }
    return FB3_OK;
}

void fb3_config_free(fb3_config *config)
{
    for (int i = 0; i < fb3_option_count; i++) fb3_option_clear(config, &fb3_option_table[i]);
    free(config->verb);
    free(config->config_file);
    fb3_strings_free(&config->arguments);
    free(config->origin);
    *config = (fb3_config){0};
}

/* --- environment -------------------------------------------------------------------------------------------------- */

static fb3_status apply_variable(fb3_config *config, const fb3_option *option, const char *name)
{
    char variable[FB3_OPTION_NAME_BYTES + sizeof PREFIX];
    variable_name(name, variable, sizeof variable);
    const char *text = getenv(variable);
    if (!text || !*text) return FB3_OK;
    FB3_TRY(fb3_option_assign_text(config, option, text, variable));
    config->origin[fb3_option_index(option)].source = SOURCE_ENVIRONMENT;
    return FB3_OK;
}

/* A verb that reads no YAML listens to the variables of its own options only. */
static bool listens(const fb3_verb *verb, const fb3_option *option)
{
    if (option->flags & OPTION_NOT_IN_FILE) return false;
    return verb->reads_yaml || (option->verbs & verb->bit);
}

static fb3_status apply_environment(fb3_config *config, const fb3_verb *verb)
{
    for (int i = 0; i < fb3_option_count; i++) {
        const fb3_option *option = &fb3_option_table[i];
        if (!listens(verb, option)) continue;
        const char *cursor = NULL;
        char alias[FB3_OPTION_NAME_BYTES];
        while (fb3_option_next_alias(option, &cursor, alias)) FB3_TRY(apply_variable(config, option, alias));
        FB3_TRY(apply_variable(config, option, option->key));
    }
    return FB3_OK;
}

static bool variable_known(const char *name)
{
    for (size_t i = 0; i < sizeof OTHER_VARIABLES / sizeof *OTHER_VARIABLES; i++)
        if (strcmp(name, OTHER_VARIABLES[i]) == 0) return true;
    char key[FB3_OPTION_NAME_BYTES];
    size_t length = strlen(name + strlen(PREFIX));
    if (length >= sizeof key) return false;
    for (size_t i = 0; i <= length; i++) {
        char c = name[strlen(PREFIX) + i];
        key[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
    }
    const fb3_option *option = fb3_option_find(key);
    return option && !(option->flags & OPTION_NOT_IN_FILE);
}

/* A variable that nobody reads is worth a line, but no refusal: it may belong to another program. */
static void warn_of_unknown_variables(void)
{
    for (char **variable = environ; *variable; variable++) {
        if (strncmp(*variable, PREFIX, strlen(PREFIX)) != 0) continue;
        char name[FB3_OPTION_NAME_BYTES * 2], suggestion[SUGGESTION_BYTES];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(*variable, "="), *variable);
        if (variable_known(name)) continue;
        fb3_option_suggest(name + strlen(PREFIX), "", suggestion, sizeof suggestion);
        fb3_log_warn("the environment variable %s is no key of fb3-dist and has no effect%s%s", name,
                     *suggestion ? "; " : "", suggestion);
    }
}

/* --- YAML --------------------------------------------------------------------------------------------------------- */

typedef struct yaml_target {
    fb3_config *config;
    const char *name; /* of the file */
} yaml_target;

static fb3_status unknown_key(const char *name, int line, const char *key)
{
    char suggestion[SUGGESTION_BYTES];
    fb3_option_suggest(key, "", suggestion, sizeof suggestion);
    return fb3_fail(FB3_INPUT, "%s:%d: unknown key '%.*s'; %s", name, line, SHOWN, key,
                    *suggestion ? suggestion : "fb3-dist train --help lists all");
}

static fb3_status apply_pair(void *context, const char *key, int line, const fb3_value *value)
{
    const yaml_target *target = context;
    const fb3_option *option = fb3_option_find(key);
    if (!option) return unknown_key(target->name, line, key);
    FB3_REQUIRE(!(option->flags & OPTION_NOT_IN_FILE), FB3_INPUT,
                "%s:%d: %s belongs on the command line; remove it here", target->name, line, key);
    struct fb3_origin *origin = &target->config->origin[fb3_option_index(option)];
    FB3_REQUIRE(origin->source != SOURCE_YAML, FB3_INPUT, "%s:%d: %s is given a second time (line %d has it); keep one",
                target->name, line, option->key, origin->line);
    char where[FB3_WHERE_BYTES];
    snprintf(where, sizeof where, "%.400s:%d: %s", target->name, line, key);
    FB3_TRY(fb3_option_assign(target->config, option, value, where));
    *origin = (struct fb3_origin){SOURCE_YAML, line};
    return FB3_OK;
}

static fb3_status apply_file(fb3_config *config, const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    FB3_TRY(fb3_file_read(path, LARGEST_YAML, &text, &bytes));
    yaml_target target = {config, path};
    fb3_status status = fb3_yaml_read(text, bytes, path, true, apply_pair, &target);
    free(text);
    return status;
}

static fb3_status name_file(fb3_config *config, const char *path)
{
    config->config_file = strdup(path);
    FB3_REQUIRE(config->config_file, FB3_FAILED, "out of memory for the configuration; free memory and run again");
    return FB3_OK;
}

/* The file named on the command line, or by FB3_CONFIG, or ./fb3.yaml. */
static fb3_status find_file(fb3_config *config, const fb3_verb *verb)
{
    if (config->config_file) return FB3_OK;
    const char *named = getenv("FB3_CONFIG");
    if (named && *named) return name_file(config, named);
    if (verb->reads_default && access(DEFAULT_FILE, F_OK) == 0) return name_file(config, DEFAULT_FILE);
    return FB3_OK;
}

fb3_status fb3_config_load_text(fb3_config *config, const char *text, const char *what)
{
    FB3_TRY(set_defaults(config));
    FB3_TRY(name_file(config, what));
    yaml_target target = {config, what};
    return fb3_yaml_read(text, strlen(text), what, true, apply_pair, &target);
}

/* --- all together ------------------------------------------------------------------------------------------------- */

static fb3_status refuse_nothing_given(void)
{
    return fb3_fail(FB3_INPUT,
                    "there is no %s here and nothing was given; write one with fb3-dist init, or give --train_file "
                    "and --model_name_or_path",
                    DEFAULT_FILE);
}

fb3_status fb3_config_parse(fb3_config *config, int argc, char **argv)
{
    int options = 0;
    FB3_TRY(set_defaults(config));
    FB3_TRY(fb3_command_line_words(config, argc, argv, &options));
    if (config->help || config->version) return FB3_OK;
    const fb3_verb *verb = fb3_verb_find(config->verb);
    FB3_TRY(apply_environment(config, verb));
    warn_of_unknown_variables();
    if (verb->reads_yaml) {
        FB3_TRY(find_file(config, verb));
        if (config->config_file) FB3_TRY(apply_file(config, config->config_file));
    }
    FB3_TRY(fb3_command_line_options(config, verb, argc, argv));
    bool nothing = verb->reads_default && options == 0 && !config->config_file && config->train_file.count == 0;
    if (nothing) return refuse_nothing_given();
    return fb3_config_check(config, verb);
}

int64_t fb3_config_steps(double value, int64_t total_steps)
{
    return (int64_t)ceil(value < 1 ? value * (double)total_steps : value);
}
