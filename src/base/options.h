/* The one option table, as the files of src/base see it. Rows are in options.c; every reader, writer, check and help
 * text is a loop over them. */
#ifndef FB3_OPTIONS_H
#define FB3_OPTIONS_H

#include "fb3/config.h"

typedef enum option_type {
    OPTION_TEXT,     /* char *; NULL: unset */
    OPTION_INTEGER,  /* int64_t */
    OPTION_REAL,     /* double */
    OPTION_BOOLEAN,  /* bool */
    OPTION_TRISTATE, /* fb3_tristate: auto, true, false */
    OPTION_WORD,     /* an enum of int's size, by the names in `words` */
    OPTION_LIST,     /* fb3_strings; "a,b" or a YAML list */
    OPTION_NUMBERS,  /* char *: numbers joined by commas; `words` (if any) stand for the whole list */
    OPTION_KWARGS,   /* char *: a JSON object of numbers, with the names in `words` */
    OPTION_RESUME,   /* fb3_resume and resume_path */
} option_type;

/* A name of an enum's value; the first name of a value is the one that is written. */
typedef struct option_word {
    const char *name;
    int value;
} option_word;

enum {
    OPTION_LOW_OPEN = 1 << 0,        /* the lower bound itself is refused */
    OPTION_HIGH_OPEN = 1 << 1,       /* so is the upper bound */
    OPTION_WHOLE_ABOVE_ONE = 1 << 2, /* below 1 a share, else a whole number of steps */
    OPTION_IS_PATH = 1 << 3,         /* a file or directory: on resume its content is compared elsewhere, by hash */
    OPTION_STAYS_SET = 1 << 4,       /* such a path may not appear or disappear on resume */
    OPTION_MAY_CHANGE = 1 << 5,      /* on resume */
    OPTION_SPLIT = 1 << 6,           /* how an equal global batch is split: may change on resume */
    OPTION_INVOCATION = 1 << 7,      /* about this call of the program only: not stored, not compared */
    OPTION_NOT_IN_FILE = 1 << 8,     /* command line only */
    OPTION_STORED_IF_GIVEN = 1 << 9, /* left out of the stored text while it has its default */
    OPTION_IN_TEMPLATE = 1 << 10,    /* stands uncommented in the file that init writes, with `example` */
    OPTION_WHOLE = 1 << 11,          /* a list of whole numbers */
};

/* Headings of --help and of the template, in this order. */
typedef enum option_section {
    SECTION_MODEL,
    SECTION_DATA,
    SECTION_RUN,
    SECTION_BATCH,
    SECTION_OPTIMIZER,
    SECTION_LOSS,
    SECTION_FOLDS,
    SECTION_EVALUATION,
    SECTION_MACHINE,
    SECTION_LOGGING,
    SECTION_OUTPUT,
    SECTION_INVOCATION,
    SECTION_COUNT
} option_section;

/* Verbs as bits of fb3_option.verbs. */
enum {
    VERB_TRAIN = 1 << 0,
    VERB_INIT = 1 << 1,
    VERB_PREPARE = 1 << 2,
    VERB_FOLDS = 1 << 3,
    VERB_PREDICT = 1 << 4,
    VERB_EVALUATE = 1 << 5,
    VERB_EXPORT = 1 << 6,
    VERB_INSPECT = 1 << 7,
    VERB_DOCTOR = 1 << 8,
    VERB_BENCH = 1 << 9,
    VERB_REPORT = 1 << 10,
    VERB_STATUS = 1 << 11,
    VERB_COMPARE = 1 << 12,
    VERB_ENSEMBLE = 1 << 13,
    VERB_ALL = (1 << 14) - 1,
};

typedef struct fb3_option {
    const char *key;
    const char *aliases; /* separated by spaces; NULL: none */
    option_type type;
    size_t offset; /* of the field in fb3_config */
    /* The default as the user would write it. NULL: unset. A word that is no number (auto, off) is an integer's name
     * for unset. */
    const char *fallback;
    double low, high; /* of numbers, lists of numbers too */
    unsigned flags;
    const option_word *words; /* ends with a NULL name */
    option_section section;
    unsigned verbs;      /* that take it on the command line */
    const char *holder;  /* what --help shows as the value; NULL: by type */
    const char *example; /* for the template, where it differs from the default */
    const char *help;
} fb3_option;

typedef struct fb3_verb {
    const char *name;
    unsigned bit;
    const char *arguments; /* as --help shows them; "" */
    int least, most;       /* how many of them */
    bool reads_yaml;       /* a word that ends in .yaml is the configuration; environment and FB3_CONFIG count */
    bool reads_default;    /* ./fb3.yaml is read when it is there and no other file is named */
    bool built;            /* false: not in this build yet */
    const char *help;
} fb3_verb;

extern const fb3_option fb3_option_table[];
extern const int fb3_option_count;
extern const fb3_verb fb3_verb_table[];
extern const int fb3_verb_count;
extern const char *const fb3_section_title[SECTION_COUNT];

/* Where a value came from, one per option. */
typedef enum option_source { SOURCE_DEFAULT, SOURCE_ENVIRONMENT, SOURCE_YAML, SOURCE_COMMAND_LINE } option_source;
struct fb3_origin {
    option_source source;
    int line; /* of the YAML */
};

/* By key or alias; '-' and '_' are the same. NULL: no such option. */
const fb3_option *fb3_option_find(const char *name);
const fb3_verb *fb3_verb_find(const char *name);
int fb3_option_index(const fb3_option *option);
bool fb3_option_is(const fb3_option *option, const char *key);
/* Walks the aliases: copies the one after *cursor (NULL at first) into name; false at the end. */
enum { FB3_OPTION_NAME_BYTES = 64 };
bool fb3_option_next_alias(const fb3_option *option, const char **cursor, char name[FB3_OPTION_NAME_BYTES]);

/* did_you_mean.c */

/* What to tell someone who wrote `name` where an option was expected, after the semicolon: "did you mean --folds?", or
 * a sentence about a known foreign key, or "" when nothing is near. `dashes` is "--" or "". */
void fb3_option_suggest(const char *name, const char *dashes, char *text, size_t bytes);
/* The nearest of names[count], or NULL when none is near. */
const char *fb3_nearest(const char *name, const char *const *names, int count);
/* FB3_FAILED naming a synonym that is wrong itself; for the tests. */
fb3_status fb3_synonyms_check(void);

/* value.c: text to field */

typedef enum value_kind { VALUE_SCALAR, VALUE_LIST, VALUE_MAP } value_kind;
typedef struct fb3_value {
    value_kind kind;
    bool null;         /* a scalar that says "nothing": ~, null, or no text */
    fb3_strings items; /* one for a scalar; keys and values in turn for a map */
} fb3_value;

/* Sets the field from the value. On failure the text begins with "<where>: " and the field is as it was. */
fb3_status fb3_option_assign(fb3_config *config, const fb3_option *option, const fb3_value *value, const char *where);
/* The same for one text, as the command line, the environment and the defaults give it. */
fb3_status fb3_option_assign_text(fb3_config *config, const fb3_option *option, const char *text, const char *where);
/* Makes the field unset (as a pointer freed and NULL). */
void fb3_option_clear(fb3_config *config, const fb3_option *option);
/* The word for `text` (any case, '-' and '_' the same), or NULL. */
const option_word *fb3_word_find(const option_word *words, const char *text);

/* value_text.c: field to text */

/* The field as YAML on one line ("null", "auto" or "off" when unset). Caller frees; NULL: out of memory. */
char *fb3_option_format(const fb3_config *config, const fb3_option *option);
bool fb3_option_unset(const fb3_config *config, const fb3_option *option);
/* An integer's word for unset (auto, off), or NULL. */
const char *fb3_option_unset_word(const fb3_option *option);
/* What the option takes, for messages: "a whole number from 3 to 65536". */
void fb3_option_describe(const fb3_option *option, char *text, size_t bytes);
/* What stands for its value in --help: "INTEGER", "no|epoch|steps". */
void fb3_option_holder(const fb3_option *option, char *text, size_t bytes);
/* The shortest decimal that reads back as the same double. */
enum { FB3_REAL_BYTES = 32 };
void fb3_real_format(double value, char text[FB3_REAL_BYTES]);
/* The field, by type. */
void *fb3_option_field(fb3_config *config, const fb3_option *option);
const void *fb3_option_field_const(const fb3_config *config, const fb3_option *option);

/* yaml.c */

/* Called for each key of the top-level map, in order. The value lives until the visit returns. */
typedef fb3_status (*fb3_yaml_visit)(void *context, const char *key, int line, const fb3_value *value);
/* Reads one flat YAML document. `name` stands in messages. `expand`: replace ${VAR} and ${VAR:-x} in values. */
fb3_status fb3_yaml_read(const char *text, size_t bytes, const char *name, bool expand, fb3_yaml_visit visit,
                         void *context);
/* `text` as a YAML scalar that reads back as the same bytes. Caller frees; NULL: out of memory. */
char *fb3_yaml_quote(const char *text);
/* True for UTF-8 without a zero byte, which is what a configuration can hold. */
bool fb3_text_is_utf8(const char *text);

/* config.c */

enum { FB3_WHERE_BYTES = 512 };
/* Says where the value of `key` came from: "fb3.yaml:7: folds", "--folds", "FB3_FOLDS", or "folds". */
void fb3_config_where(const fb3_config *config, const char *key, char where[FB3_WHERE_BYTES]);
/* Fails with "<where>: <message>". */
fb3_status fb3_config_refuse(const fb3_config *config, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* command_line.c */

/* Verb, configuration file and other words of argv into *config, options being skipped; `help` and `version` when they
 * stand anywhere. *options: how many options there were. */
fb3_status fb3_command_line_words(fb3_config *config, int argc, char **argv, int *options);
/* The options of argv into *config. */
fb3_status fb3_command_line_options(fb3_config *config, const fb3_verb *verb, int argc, char **argv);

/* check.c */

/* What no single row of the table can say. Also completes fields that follow from others. */
fb3_status fb3_config_check(fb3_config *config, const fb3_verb *verb);

#endif
