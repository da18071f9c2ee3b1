/* The command line: [VERB] [CONFIG.yaml] and options, in any order: --key value, --key=value, --flag, --flag false,
 * --no_flag, with '-' and '_' alike in names. "--" ends the options. It is read twice by the same steps: first for the
 * words, since the verb says which options there are, then for the options. */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUGGESTION_BYTES = 200, SHOWN = 60 };

typedef enum token_kind { TOKEN_END, TOKEN_WORD, TOKEN_OPTION } token_kind;

typedef struct command_line {
    int argc, next;
    char **argv;
    bool options_ended; /* after "--" */
    const char *bare;   /* the boolean option before, when it stood without a value */
    /* the token */
    token_kind kind;
    const char *word;
    const fb3_option *option;
    const char *value;
} command_line;

static fb3_status unknown_option(const char *name)
{
    char suggestion[SUGGESTION_BYTES];
    fb3_option_suggest(name, "--", suggestion, sizeof suggestion);
    return fb3_fail(FB3_INPUT, "unknown option --%.*s; %s", SHOWN, name,
                    *suggestion ? suggestion : "fb3-dist train --help lists all");
}

static bool is_boolean(const fb3_option *option)
{
    return option->type == OPTION_BOOLEAN || option->type == OPTION_TRISTATE;
}

/* --no_flag, for a flag that is on by itself. */
static const fb3_option *find_negated(const char *name)
{
    bool negated = strncmp(name, "no_", 3) == 0 || strncmp(name, "no-", 3) == 0;
    const fb3_option *option = negated ? fb3_option_find(name + 3) : NULL;
    return option && is_boolean(option) ? option : NULL;
}

/* A word behind a flag is its value only when it can be one: what follows may be a verb or a file. */
static bool is_boolean_value(const fb3_option *option, const char *text)
{
    static const option_word VALUES[] = {{"true", 1}, {"false", 0}, {"yes", 1}, {"no", 0}, {"on", 1},
                                         {"off", 0},  {"1", 1},     {"0", 0},   {0}};
    if (option->type == OPTION_TRISTATE && strcasecmp(text, "auto") == 0) return true;
    return fb3_word_find(VALUES, text) || fb3_word_find(option->words, text);
}

static fb3_status take_value(command_line *line, const char *name)
{
    const char *following = line->next < line->argc ? line->argv[line->next] : NULL;
    if (is_boolean(line->option)) {
        bool taken = following && is_boolean_value(line->option, following);
        line->value = taken ? following : "true";
        line->next += taken;
        line->bare = taken ? NULL : line->option->key;
        return FB3_OK;
    }
    FB3_REQUIRE(following && strncmp(following, "--", 2) != 0, FB3_INPUT,
                "--%s needs a value; write --%s VALUE (or --%s=VALUE where the value begins with dashes)", name, name,
                name);
    line->value = following;
    line->next++;
    return FB3_OK;
}

static fb3_status read_option(command_line *line, const char *text)
{
    const char *equals = strchr(text, '=');
    char *name = equals ? strndup(text, (size_t)(equals - text)) : strdup(text);
    FB3_REQUIRE(name, FB3_FAILED, "out of memory; free memory and run again");
    fb3_status status = FB3_OK;
    line->kind = TOKEN_OPTION;
    line->option = fb3_option_find(name);
    line->value = equals ? equals + 1 : NULL;
    if (line->option) {
        if (!equals) status = take_value(line, name);
    } else if (!equals && (line->option = find_negated(name))) {
        line->value = "false";
    } else {
        status = unknown_option(name);
    }
    free(name);
    return status;
}

static fb3_status next_token(command_line *line)
{
    line->bare = NULL;
    line->kind = TOKEN_END;
    if (line->next >= line->argc) return FB3_OK;
    const char *text = line->argv[line->next++];
    if (!line->options_ended && strcmp(text, "--") == 0) {
        line->options_ended = true;
        return next_token(line);
    }
    bool option = !line->options_ended && text[0] == '-' && text[1];
    if (option && text[1] == '-') return read_option(line, text + 2);
    FB3_REQUIRE(!option, FB3_INPUT, "unknown option %.*s; options begin with two dashes, see fb3-dist --help", SHOWN,
                text);
    FB3_REQUIRE(*text, FB3_INPUT, "an empty word stands on the command line; remove it (an unset shell variable?)");
    line->kind = TOKEN_WORD;
    line->word = text;
    return FB3_OK;
}

static bool ends_with(const char *text, const char *ending)
{
    size_t length = strlen(text), tail = strlen(ending);
    return length > tail && strcasecmp(text + length - tail, ending) == 0;
}

static bool names_yaml(const char *word)
{
    return ends_with(word, ".yaml") || ends_with(word, ".yml");
}

static fb3_status unknown_verb(const char *word)
{
    enum { MOST_VERBS = 32 };
    const char *names[MOST_VERBS];
    for (int i = 0; i < fb3_verb_count && i < MOST_VERBS; i++) names[i] = fb3_verb_table[i].name;
    FB3_REQUIRE(!ends_with(word, ".csv") && !ends_with(word, ".h5"), FB3_INPUT,
                "'%.*s' is no verb; to train on it write --train_file %.*s", SHOWN, word, SHOWN, word);
    const char *near = fb3_nearest(word, names, fb3_verb_count);
    return fb3_fail(FB3_INPUT, "'%.*s' is neither a verb nor a CONFIG.yaml; %s%s%s", SHOWN, word,
                    near ? "did you mean " : "fb3-dist --help lists the verbs", near ? near : "", near ? "?" : "");
}

static fb3_status unexpected_word(const command_line *line, const char *bare, const fb3_verb *verb)
{
    FB3_REQUIRE(!bare, FB3_INPUT, "unexpected word '%.*s'; after --%s comes true or false", SHOWN, line->word, bare);
    return fb3_fail(FB3_INPUT, "unexpected word '%.*s'; write fb3-dist %s%s%s%s [--key value]...", SHOWN, line->word,
                    verb->name, *verb->arguments ? " " : "", verb->arguments, verb->reads_yaml ? " [CONFIG.yaml]" : "");
}

static fb3_status set_text(char **field, const char *text)
{
    *field = strdup(text);
    FB3_REQUIRE(*field, FB3_FAILED, "out of memory; free memory and run again");
    return FB3_OK;
}

static fb3_status take_word(fb3_config *config, const command_line *line, const char *bare)
{
    if (!config->verb) {
        if (fb3_verb_find(line->word)) return set_text(&config->verb, line->word);
        if (!names_yaml(line->word))
            return bare ? unexpected_word(line, bare, fb3_verb_find("train")) : unknown_verb(line->word);
        FB3_TRY(set_text(&config->verb, "train"));
    }
    const fb3_verb *verb = fb3_verb_find(config->verb);
    if (verb->reads_yaml && names_yaml(line->word)) {
        FB3_REQUIRE(!config->config_file, FB3_INPUT, "two configurations, %.*s and %.*s; give one", SHOWN,
                    config->config_file, SHOWN, line->word);
        FB3_REQUIRE(fb3_text_is_utf8(line->word), FB3_INPUT, "the configuration's name is not UTF-8; rename the file");
        return set_text(&config->config_file, line->word);
    }
    if (config->arguments.count >= verb->most) return unexpected_word(line, bare, verb);
    return fb3_strings_add(&config->arguments, line->word);
}

/* --help and --version count wherever they stand and whatever else is wrong. */
static fb3_status look_for_help(fb3_config *config, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        config->help |= strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
        config->version |= strcmp(argv[i], "--version") == 0;
    }
    if (!config->help && !config->version) return FB3_OK;
    for (int i = 1; i < argc; i++)
        if (fb3_verb_find(argv[i])) return set_text(&config->verb, argv[i]);
    return FB3_OK;
}

fb3_status fb3_command_line_words(fb3_config *config, int argc, char **argv, int *options)
{
    *options = 0;
    FB3_TRY(look_for_help(config, argc, argv));
    if (config->help || config->version) return FB3_OK;
    command_line line = {.argc = argc, .next = 1, .argv = argv};
    do {
        const char *bare = line.bare;
        FB3_TRY(next_token(&line));
        if (line.kind == TOKEN_WORD) FB3_TRY(take_word(config, &line, bare));
        *options += line.kind == TOKEN_OPTION;
    } while (line.kind != TOKEN_END);
    if (!config->verb) FB3_TRY(set_text(&config->verb, "train"));
    const fb3_verb *verb = fb3_verb_find(config->verb);
    FB3_REQUIRE(config->arguments.count >= verb->least, FB3_INPUT, "%s of what? Write fb3-dist %s %s", verb->name,
                verb->name, verb->arguments);
    return FB3_OK;
}

static fb3_status refuse_foreign(const fb3_option *option, const fb3_verb *verb)
{
    const char *owner = "";
    for (int i = fb3_verb_count - 1; i >= 0; i--)
        if (option->verbs & fb3_verb_table[i].bit) owner = fb3_verb_table[i].name;
    return fb3_fail(FB3_INPUT, "--%s is an option of %s and not of %s; see fb3-dist %s --help", option->key, owner,
                    verb->name, verb->name);
}

fb3_status fb3_command_line_options(fb3_config *config, const fb3_verb *verb, int argc, char **argv)
{
    command_line line = {.argc = argc, .next = 1, .argv = argv};
    for (;;) {
        FB3_TRY(next_token(&line));
        if (line.kind == TOKEN_END) return FB3_OK;
        if (line.kind == TOKEN_WORD) continue;
        if (!(line.option->verbs & verb->bit)) return refuse_foreign(line.option, verb);
        char where[FB3_WHERE_BYTES];
        snprintf(where, sizeof where, "--%s", line.option->key);
        FB3_TRY(fb3_option_assign_text(config, line.option, line.value, where));
        config->origin[fb3_option_index(line.option)] = (struct fb3_origin){SOURCE_COMMAND_LINE, 0};
    }
}
