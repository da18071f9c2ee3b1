/* The configuration as JSON, for those who keep it as more than a text. */
#include "options.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *texts(const fb3_strings *strings)
{
    json_t *array = json_array();
    for (int i = 0; i < strings->count; i++) json_array_append_new(array, json_string(strings->item[i]));
    return array;
}

/* As a text where the value is none of JSON's own. */
static json_t *as_text(const fb3_config *config, const fb3_option *option)
{
    char *text = fb3_option_format(config, option);
    json_t *value = text ? json_string(text) : NULL;
    free(text);
    return value;
}

static json_t *value_of(const fb3_config *config, const fb3_option *option)
{
    const void *field = fb3_option_field_const(config, option);
    if (fb3_option_unset(config, option)) return option->fallback ? json_string(option->fallback) : json_null();
    switch (option->type) {
    case OPTION_TEXT:
    case OPTION_NUMBERS:
        return json_string(*(char *const *)field);
    case OPTION_INTEGER:
        return json_integer(*(const int64_t *)field);
    case OPTION_REAL:
        return json_real(*(const double *)field);
    case OPTION_BOOLEAN:
        return json_boolean(*(const bool *)field);
    case OPTION_LIST:
        return texts(field);
    case OPTION_KWARGS:
        return json_loads(*(char *const *)field, 0, NULL);
    default:
        return as_text(config, option);
    }
}

char *fb3_config_json(const fb3_config *config)
{
    json_t *object = json_object();
    bool whole = object;
    for (int i = 0; whole && i < fb3_option_count; i++) {
        const fb3_option *option = &fb3_option_table[i];
        if (!(option->flags & OPTION_INVOCATION))
            whole = json_object_set_new(object, option->key, value_of(config, option)) == 0;
    }
    char *text = whole ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(object);
    return text;
}
