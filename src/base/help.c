/* --help and the commented fb3.yaml, both from the option table. */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 100, NAMES = 36, TEXT_BYTES = 1024 }; /* of the page and of its left column */

/* Words of `text` from `column` on, broken before `width`, with `indent` at the start of each new line. */
static void wrap(FILE *out, const char *text, const char *indent, size_t width)
{
    size_t column = strlen(indent);
    bool fresh = true;
    while (*text) {
        size_t length = strcspn(text, " ");
        if (!fresh && column + 1 + length > width) {
            fprintf(out, "\n%s", indent);
            column = strlen(indent);
            fresh = true;
        }
        fprintf(out, "%s%.*s", fresh ? "" : " ", (int)length, text);
        column += length + !fresh;
        fresh = false;
        text += length;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

/* "name   text", the text in its own column. */
static void entry(FILE *out, const char *name, const char *text)
{
    char indent[NAMES + 1];
    memset(indent, ' ', NAMES);
    indent[NAMES] = 0;
    int length = fprintf(out, "  %s", name);
    if (length >= NAMES)
        fprintf(out, "\n%s", indent);
    else
        fprintf(out, "%*s", NAMES - length, "");
    wrap(out, text, indent, WIDTH);
}

static void option_entry(FILE *out, const fb3_option *option)
{
    char holder[200], name[300], text[TEXT_BYTES], alias[FB3_OPTION_NAME_BYTES];
    fb3_option_holder(option, holder, sizeof holder);
    snprintf(name, sizeof name, "--%s%s%s", option->key, *holder ? " " : "", holder);
    size_t length = (size_t)snprintf(text, sizeof text, "%s", option->help);
    bool plain_flag = option->type == OPTION_BOOLEAN && option->flags & OPTION_INVOCATION;
    if (option->fallback && !plain_flag)
        length += (size_t)snprintf(text + length, sizeof text - length, " (default %s)", option->fallback);
    const char *cursor = NULL;
    while (fb3_option_next_alias(option, &cursor, alias))
        length += (size_t)snprintf(text + length, sizeof text - length, "; also --%s", alias);
    entry(out, name, text);
}

static bool section_has(option_section section, unsigned verbs)
{
    for (int i = 0; i < fb3_option_count; i++)
        if (fb3_option_table[i].section == section && fb3_option_table[i].verbs & verbs) return true;
    return false;
}

static void verb_options(FILE *out, const fb3_verb *verb)
{
    for (option_section section = 0; section < SECTION_COUNT; section++) {
        if (!section_has(section, verb->bit)) continue;
        fprintf(out, "\n%s\n", fb3_section_title[section]);
        for (int i = 0; i < fb3_option_count; i++) {
            const fb3_option *option = &fb3_option_table[i];
            if (option->section == section && option->verbs & verb->bit) option_entry(out, option);
        }
    }
}

static void verb_help(FILE *out, const fb3_verb *verb)
{
    fprintf(out, "usage: fb3-dist %s%s%s%s [--key value | --key=value | --flag]...\n\n", verb->name,
            *verb->arguments ? " " : "", verb->arguments, verb->reads_yaml ? " [CONFIG.yaml]" : "");
    wrap(out, verb->help, "", WIDTH);
    if (!verb->built) fputs("Not in this build yet.\n", out);
    if (verb->reads_yaml)
        wrap(out,
             "Every option is a key of the YAML too, and the variable FB3_<KEY>; the command line wins over the YAML, "
             "the "
             "YAML over the environment. ${VAR} and ${VAR:-x} expand in the YAML. A flag is turned off by --KEY false "
             "or "
             "--no_KEY.",
             "", WIDTH);
    verb_options(out, verb);
}

static void program_help(FILE *out)
{
    fputs("usage: fb3-dist [VERB] [CONFIG.yaml] [--key value | --key=value | --flag]...\n"
          "       mpirun -np N fb3-dist ...          one replica of the model per rank\n\n"
          "Fine-tunes DeBERTa-v2/v3 encoders that predict several scores of a text, fold by fold.\n"
          "Without arguments it trains from ./fb3.yaml (or the file that FB3_CONFIG names).\n\nVerbs\n",
          out);
    for (int i = 0; i < fb3_verb_count; i++) {
        const fb3_verb *verb = &fb3_verb_table[i];
        char name[100];
        snprintf(name, sizeof name, "%s %s", verb->name, verb->arguments);
        if (verb->built) entry(out, name, verb->help);
    }
    fputs("\nfb3-dist VERB --help lists the options of a verb: fb3-dist train --help has them all.\n"
          "Exit status: 0 done; 1 failed at run time; 2 wrong input; 75 stopped after a checkpoint, run again.\n",
          out);
}

void fb3_config_help(const char *verb)
{
    const fb3_verb *known = verb ? fb3_verb_find(verb) : NULL;
    if (known)
        verb_help(stdout, known);
    else { /* no verb means train: its options are the program's */
        program_help(stdout);
        fputc('\n', stdout);
        verb_help(stdout, fb3_verb_find("train"));
    }
}

static void template_entry(FILE *out, const fb3_option *option)
{
    bool active = option->flags & OPTION_IN_TEMPLATE;
    fputs("# ", out);
    wrap(out, option->help, "# ", WIDTH);
    const char *value = active ? option->example : option->fallback ? option->fallback : "";
    bool list = option->type == OPTION_LIST && !active && option->fallback;
    fprintf(out, list ? "%s%s: [%s]\n" : *value ? "%s%s: %s\n" : "%s%s:%s\n", active ? "" : "#", option->key, value);
}

static void write_template(FILE *out)
{
    fputs("# fb3-dist: what to train, on what and how. Run it with: mpirun -np N fb3-dist\n"
          "# Lines that begin with #key show defaults: remove the # and change the value.\n"
          "# ${VAR} and ${VAR:-value} stand for environment variables; the command line (--key value) wins.\n",
          out);
    for (option_section section = 0; section < SECTION_COUNT; section++) {
        if (!section_has(section, VERB_TRAIN) || section == SECTION_INVOCATION) continue;
        fprintf(out, "\n## %s\n\n", fb3_section_title[section]);
        for (int i = 0; i < fb3_option_count; i++) {
            const fb3_option *option = &fb3_option_table[i];
            if (option->section == section && option->verbs & VERB_TRAIN) template_entry(out, option);
        }
    }
}

char *fb3_config_template(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) return NULL;
    write_template(out);
    bool written = !ferror(out);
    if (fclose(out) == 0 && written) return text;
    free(text);
    return NULL;
}
