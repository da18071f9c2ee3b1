/* The YAML reader: libyaml's events, restricted to what a configuration needs. One document, a map of keys to
 * scalars, lists of scalars, or maps of scalars. Values stay text (1e-5 is a string in YAML 1.1, `no` a boolean): what
 * a text means is the option table's affair. Anchors, aliases and tags are refused, so nothing can multiply, and depth
 * is bounded by the grammar below. */
#include "yaml_text.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_ITEMS = 4096 }; /* of one list */

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    const char *text;
    size_t bytes;
    const char *name;
    bool expand;
} reader;

static int event_line(const reader *r)
{
    return (int)r->event.start_mark.line + 1;
}

static int line_of_offset(const reader *r, size_t offset)
{
    int line = 1;
    for (size_t i = 0; i < offset && i < r->bytes; i++) line += r->text[i] == '\n';
    return line;
}

static fb3_status syntax_error(const reader *r)
{
    const yaml_parser_t *parser = &r->parser;
    FB3_REQUIRE(parser->error != YAML_MEMORY_ERROR, FB3_FAILED, "out of memory to read %s; free memory and run again",
                r->name);
    bool bytes_wrong = parser->error == YAML_READER_ERROR;
    int line = bytes_wrong ? line_of_offset(r, parser->problem_offset) : (int)parser->problem_mark.line + 1;
    int last = line_of_offset(r, r->bytes - (r->bytes > 0)); /* libyaml counts one more at the end of the file */
    if (line > last) line = last;
    return fb3_fail(FB3_INPUT, "%s:%d: not valid YAML: %s; write lines of \"key: value\"%s", r->name, line,
                    parser->problem ? parser->problem : "unknown error", bytes_wrong ? " in UTF-8" : "");
}

static fb3_status next_event(reader *r)
{
    if (r->has_event) yaml_event_delete(&r->event);
    r->has_event = false;
    if (!yaml_parser_parse(&r->parser, &r->event)) return syntax_error(r);
    r->has_event = true;
    return FB3_OK;
}

/* The event is a plain value without anchor or tag, or the error says what it is. */
static fb3_status refuse_extras(const reader *r)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (r->event.type) {
    case YAML_ALIAS_EVENT:
        anchor = r->event.data.alias.anchor;
        break;
    case YAML_SCALAR_EVENT:
        anchor = r->event.data.scalar.anchor;
        tag = r->event.data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = r->event.data.sequence_start.anchor;
        tag = r->event.data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = r->event.data.mapping_start.anchor;
        tag = r->event.data.mapping_start.tag;
        break;
    default:
        break;
    }
    FB3_REQUIRE(!anchor, FB3_INPUT, "%s:%d: anchors and aliases (%s) are not read; write the value itself", r->name,
                event_line(r), (const char *)anchor);
    FB3_REQUIRE(!tag, FB3_INPUT, "%s:%d: tags (%.40s) are not read; write the value alone", r->name, event_line(r),
                (const char *)tag);
    return FB3_OK;
}

static bool says_nothing(const char *text)
{
    return !*text || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0;
}

/* Adds the scalar at hand to `items`. */
static fb3_status take_scalar(const reader *r, const char *key, fb3_strings *items, bool expand)
{
    const char *text = (const char *)r->event.data.scalar.value;
    FB3_REQUIRE(strlen(text) == r->event.data.scalar.length, FB3_INPUT,
                "%s:%d: %s: a zero byte stands in the text; remove it", r->name, event_line(r), key);
    FB3_REQUIRE(items->count < MAX_ITEMS, FB3_INPUT, "%s:%d: %s: more than %d items; check the file", r->name,
                event_line(r), key, MAX_ITEMS);
    if (!expand) return fb3_strings_add(items, text);
    char *expanded = NULL;
    fb3_status status = fb3_yaml_expand(text, &expanded);
    if (status != FB3_OK) return fb3_fail_context(status, "%s:%d: %s", r->name, event_line(r), key);
    status = fb3_strings_add(items, expanded);
    free(expanded);
    return status;
}

/* A list or a map of scalars, up to its end event. */
static fb3_status read_collection(reader *r, const char *key, fb3_value *value, yaml_event_type_t end)
{
    for (;;) {
        FB3_TRY(next_event(r));
        if (r->event.type == end) return FB3_OK;
        FB3_TRY(refuse_extras(r));
        FB3_REQUIRE(r->event.type == YAML_SCALAR_EVENT, FB3_INPUT,
                    "%s:%d: %s: nested too deep; a value is a scalar, a list or one map of scalars", r->name,
                    event_line(r), key);
        bool map_key = value->kind == VALUE_MAP && value->items.count % 2 == 0;
        FB3_TRY(take_scalar(r, key, &value->items, r->expand && !map_key));
    }
}

static fb3_status read_value(reader *r, const char *key, fb3_value *value)
{
    FB3_TRY(next_event(r));
    FB3_TRY(refuse_extras(r));
    switch (r->event.type) {
    case YAML_SCALAR_EVENT:
        FB3_TRY(take_scalar(r, key, &value->items, r->expand));
        value->null = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? says_nothing(value->items.item[0])
                                                                            : !value->items.item[0][0];
        return FB3_OK;
    case YAML_SEQUENCE_START_EVENT:
        value->kind = VALUE_LIST;
        return read_collection(r, key, value, YAML_SEQUENCE_END_EVENT);
    default: /* the only other event that can stand where a value does */
        value->kind = VALUE_MAP;
        return read_collection(r, key, value, YAML_MAPPING_END_EVENT);
    }
}

static fb3_status read_pair(reader *r, fb3_yaml_visit visit, void *context)
{
    FB3_TRY(refuse_extras(r));
    FB3_REQUIRE(r->event.type == YAML_SCALAR_EVENT, FB3_INPUT, "%s:%d: a key is a list or a map; write \"key: value\"",
                r->name, event_line(r));
    int line = event_line(r);
    fb3_strings key = {0};
    fb3_value value = {0};
    fb3_status status = FB3_OK;
    FB3_TRY_GOTO(take_scalar(r, "a key", &key, false), done);
    FB3_TRY_GOTO(read_value(r, key.item[0], &value), done);
    status = visit(context, key.item[0], line, &value);
done:
    fb3_strings_free(&key);
    fb3_strings_free(&value.items);
    return status;
}

static fb3_status read_document(reader *r, fb3_yaml_visit visit, void *context)
{
    FB3_TRY(next_event(r)); /* start of the stream */
    FB3_TRY(next_event(r));
    if (r->event.type == YAML_STREAM_END_EVENT) return FB3_OK; /* nothing but comments */
    FB3_TRY(next_event(r));
    FB3_TRY(refuse_extras(r));
    bool empty = r->event.type == YAML_SCALAR_EVENT && r->event.data.scalar.length == 0;
    FB3_REQUIRE(empty || r->event.type == YAML_MAPPING_START_EVENT, FB3_INPUT,
                "%s:%d: not a map of keys; write lines of \"key: value\"", r->name, event_line(r));
    while (!empty) {
        FB3_TRY(next_event(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) break;
        FB3_TRY(read_pair(r, visit, context));
    }
    FB3_TRY(next_event(r)); /* end of the document */
    FB3_TRY(next_event(r));
    FB3_REQUIRE(r->event.type == YAML_STREAM_END_EVENT, FB3_INPUT,
                "%s:%d: a second document begins; keep one configuration in a file", r->name, event_line(r));
    return FB3_OK;
}

fb3_status fb3_yaml_read(const char *text, size_t bytes, const char *name, bool expand, fb3_yaml_visit visit,
                         void *context)
{
    reader r = {.text = text, .bytes = bytes, .name = name, .expand = expand};
    FB3_REQUIRE(yaml_parser_initialize(&r.parser), FB3_FAILED, "out of memory to read %s; free memory and run again",
                name);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, bytes);
    fb3_status status = read_document(&r, visit, context);
    if (r.has_event) yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return status;
}
