/* The configuration as text: what run.yaml and checkpoints hold, and its comparison with a new start. */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_stored(const fb3_config *config, int index)
{
    const fb3_option *option = &fb3_option_table[index];
    if (option->flags & OPTION_INVOCATION) return false;
    return !(option->flags & OPTION_STORED_IF_GIVEN) || config->origin[index].source != SOURCE_DEFAULT;
}

static bool write_keys(FILE *out, const fb3_config *config)
{
    for (int i = 0; i < fb3_option_count; i++) {
        if (!is_stored(config, i)) continue;
        char *text = fb3_option_format(config, &fb3_option_table[i]);
        if (!text) return false;
        fprintf(out, "%s: %s\n", fb3_option_table[i].key, text);
        free(text);
    }
    return !ferror(out);
}

char *fb3_config_text(const fb3_config *config)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) return NULL;
    bool written = write_keys(out, config);
    if (fclose(out) == 0 && written) return text;
    free(text);
    return NULL;
}

/* One optimizer step is the same sum however it is split; a global batch that is not set now is kept. */
static bool batch_is_kept(const fb3_config *then, const fb3_config *now)
{
    int64_t before = then->total_train_batch_size, wanted = now->total_train_batch_size;
    return before != FB3_UNSET_INT && (wanted == FB3_UNSET_INT || wanted == before);
}

static bool may_differ(const fb3_option *option, const fb3_config *then, const fb3_config *now)
{
    bool appears = fb3_option_unset(then, option) != fb3_option_unset(now, option);
    if (fb3_option_is(option, "device") || fb3_option_is(option, "use_cpu")) return !now->reproducible;
    if (fb3_option_is(option, "per_device_eval_batch_size") && now->reproducible) return false;
    if (option->flags & OPTION_STAYS_SET) return !appears;
    if (option->flags & OPTION_SPLIT) return batch_is_kept(then, now);
    return option->flags & (OPTION_MAY_CHANGE | OPTION_INVOCATION | OPTION_IS_PATH);
}

static fb3_status compare(const fb3_option *option, const fb3_config *then, const fb3_config *now)
{
    char *before = fb3_option_format(then, option), *after = fb3_option_format(now, option);
    fb3_status status = FB3_OK;
    FB3_REQUIRE_GOTO(before && after, done, FB3_FAILED,
                     "out of memory for the configuration; free memory and run again");
    if (strcmp(before, after) != 0 && !may_differ(option, then, now))
        status =
            fb3_config_refuse(now, option->key,
                              "the run was started with %.200s and is now to go on with %.200s; keep the value, or "
                              "give another output_dir",
                              before, after);
done:
    free(before);
    free(after);
    return status;
}

fb3_status fb3_config_check_resume(const char *stored_text, const fb3_config *now)
{
    fb3_config then = {0};
    fb3_status status = FB3_OK;
    FB3_TRY_GOTO(fb3_config_load_text(&then, stored_text, "stored configuration"), done);
    /* The global batch first: where it differs, its parts differ too, and it is what matters. */
    FB3_TRY_GOTO(compare(fb3_option_find("total_train_batch_size"), &then, now), done);
    for (int i = 0; i < fb3_option_count; i++) FB3_TRY_GOTO(compare(&fb3_option_table[i], &then, now), done);
done:
    fb3_config_free(&then);
    return status;
}

/* --- stored configurations side by side --------------------------------------------------------------------------- */

/* The value of a key in a stored text, which has one "key: value" a line. Caller frees; NULL: not there. */
static char *value_in(const char *text, const char *key)
{
    const size_t bytes = strlen(key);
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        if (strncmp(line, key, bytes) != 0 || line[bytes] != ':') continue;
        const char *value = line + bytes + 1;
        value += strspn(value, " ");
        return strndup(value, strcspn(value, "\n"));
    }
    return NULL;
}

static bool all_the_same(char *const *values, int count)
{
    for (int i = 1; i < count; i++) {
        if (!values[0] != !values[i] || (values[0] && strcmp(values[0], values[i]) != 0)) return false;
    }
    return true;
}

fb3_status fb3_config_differences(const char *const *texts, int count, fb3_config_difference visit, void *context)
{
    fb3_status status = FB3_OK;
    char **values = calloc((size_t)count, sizeof *values);
    FB3_REQUIRE(values, FB3_FAILED, "out of memory for configurations");
    for (int k = 0; status == FB3_OK && k < fb3_option_count; k++) {
        const char *key = fb3_option_table[k].key;
        for (int i = 0; i < count; i++) values[i] = value_in(texts[i], key);
        if (!all_the_same(values, count)) status = visit(context, key, (const char *const *)values);
        for (int i = 0; i < count; i++) free(values[i]);
    }
    free(values);
    return status;
}
