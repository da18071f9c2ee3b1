/* The state of a run as attributes of a checkpoint's group /train, by one table of fields. */
#include "checkpoint_state.h"

#include <ctype.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_MAX = 1 << 20,
    NAME_WIDTH = 24, /* of an attribute, when printed */
};

typedef enum field_type { WIDE, PLAIN, REAL, TEXT, HASH } field_type; /* int64_t, int, double, char *, char[65] */

typedef struct state_field {
    const char *name;
    field_type type;
    size_t offset; /* in fb3_checkpoint_state */
} state_field;

#define FIELD(name, type)                                                                                              \
    {                                                                                                                  \
#name, type, offsetof(fb3_checkpoint_state, name)                                                              \
    }

static const state_field fields[] = {
    FIELD(step, WIDE),
    FIELD(epoch, REAL),
    FIELD(samples_seen, WIDE),
    FIELD(updates, WIDE),
    FIELD(seed, WIDE),
    FIELD(total_steps, WIDE),
    FIELD(total_train_batch_size, WIDE),
    FIELD(fold, PLAIN),
    FIELD(best_metric, REAL),
    FIELD(best_step, WIDE),
    FIELD(patience_used, WIDE),
    FIELD(nonfinite_in_a_row, WIDE),
    FIELD(fold_complete, PLAIN),
    FIELD(config, TEXT),
    FIELD(label_columns, TEXT),
    FIELD(data_sha256, HASH),
    FIELD(weights_sha256, HASH),
    FIELD(tokenizer_sha256, HASH),
    FIELD(max_length, PLAIN),
};
enum { FIELDS = sizeof fields / sizeof fields[0] };

void fb3_checkpoint_state_free(fb3_checkpoint_state *state)
{
    free(state->config);
    free(state->label_columns);
    state->config = state->label_columns = NULL;
}

static fb3_status write_field(hid_t train, const state_field *field, const fb3_checkpoint_state *state)
{
    const void *at = (const char *)state + field->offset;
    const char *text;
    switch (field->type) {
    case WIDE:
        return fb3_h5_set_int(train, field->name, *(const int64_t *)at);
    case PLAIN:
        return fb3_h5_set_int(train, field->name, *(const int *)at);
    case REAL:
        return fb3_h5_set_double(train, field->name, *(const double *)at);
    case TEXT:
        text = *(char *const *)at;
        return fb3_h5_set_text(train, field->name, text ? text : "");
    default:
        return fb3_h5_set_text(train, field->name, at);
    }
}

fb3_status fb3_h5_get_plain_int(hid_t object, const char *name, int *value)
{
    int64_t wide = 0;
    FB3_TRY(fb3_h5_get_int(object, name, &wide));
    FB3_REQUIRE(wide >= INT_MIN && wide <= INT_MAX, FB3_INPUT, "attribute %s is %lld, which is not possible", name,
                (long long)wide);
    *value = (int)wide;
    return FB3_OK;
}

static fb3_status read_hash(hid_t train, const char *name, char hash[FB3_SHA256_HEX])
{
    char *text = NULL;
    FB3_TRY(fb3_h5_get_text(train, name, FB3_SHA256_HEX - 1, &text));
    strcpy(hash, text);
    free(text);
    return FB3_OK;
}

static fb3_status read_field(hid_t train, const state_field *field, fb3_checkpoint_state *state)
{
    void *at = (char *)state + field->offset;
    switch (field->type) {
    case WIDE:
        return fb3_h5_get_int(train, field->name, at);
    case PLAIN:
        return fb3_h5_get_plain_int(train, field->name, at);
    case REAL:
        return fb3_h5_get_double(train, field->name, at);
    case TEXT:
        return fb3_h5_get_text(train, field->name, TEXT_MAX, at);
    default:
        return read_hash(train, field->name, at);
    }
}

/* The configuration has a line per key: each goes below the first. What a terminal could take for a command is not
 * shown. */
static void print_text(const char *text)
{
    for (const char *c = text; *c; c++) {
        bool ends_line = *c == '\n';
        if (ends_line && c[1]) printf("\n%*s", 2 + NAME_WIDTH, "");
        if (!ends_line) putchar(iscntrl((unsigned char)*c) ? '?' : *c);
    }
    putchar('\n');
}

static void print_field(const state_field *field, const fb3_checkpoint_state *state)
{
    const void *at = (const char *)state + field->offset;
    printf("  %-*s", NAME_WIDTH, field->name);
    switch (field->type) {
    case WIDE:
        printf("%lld\n", (long long)*(const int64_t *)at);
        break;
    case PLAIN:
        printf("%d\n", *(const int *)at);
        break;
    case REAL:
        printf("%.9g\n", *(const double *)at);
        break;
    case TEXT:
        print_text(*(char *const *)at);
        break;
    default:
        print_text(at);
    }
}

fb3_status fb3_checkpoint_state_write(hid_t train, const fb3_checkpoint_state *state)
{
    for (int i = 0; i < FIELDS; i++) FB3_TRY(write_field(train, &fields[i], state));
    return FB3_OK;
}

fb3_status fb3_checkpoint_state_read(hid_t train, fb3_checkpoint_state *state)
{
    for (int i = 0; i < FIELDS; i++) FB3_TRY(read_field(train, &fields[i], state));
    return FB3_OK;
}

void fb3_checkpoint_state_print(const fb3_checkpoint_state *state)
{
    for (int i = 0; i < FIELDS; i++) print_field(&fields[i], state);
}
