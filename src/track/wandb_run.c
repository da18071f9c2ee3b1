/* Whose run it is. A run that is continued, after a kill or on a requeue, is the same run at W&B: its id is kept in the
 * fold's folder, and what its earlier files say is not said again. */
#include "wandb.h"

#include "fb3/file.h"
#include "fb3/log.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { NEW_ID = 8, LONGEST_ID = 128, MOST_PARTS = 10000 };

static const char ID_FILE[] = "wandb-run-id";

/* --- identity ----------------------------------------------------------------------------------------------------- */

static const char *variable(const char *name)
{
    const char *text = getenv(name);
    return text && *text ? text : NULL;
}

bool fb3_wandb_disabled(void)
{
    const char *mode = variable("WANDB_MODE"), *off = variable("WANDB_DISABLED");
    if (mode && strcasecmp(mode, "disabled") == 0) return true;
    return off && (strcasecmp(off, "true") == 0 || strcmp(off, "1") == 0);
}

/* What was given to fb3-dist, else what W&B's variable says, else the default. */
static const char *choose(const fb3_wandb *w, const char *key, const char *value, const char *name)
{
    const char *from_variable = variable(name);
    return from_variable && !fb3_config_given(w->place.config, key) ? from_variable : value;
}

static bool is_id(const char *text)
{
    size_t good = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
    return good > 0 && good <= LONGEST_ID && !text[good];
}

/* The id that this fold has, or NULL. */
static char *stored_id(const char *path)
{
    char *text = NULL;
    size_t bytes;
    if (!fb3_file_exists(path) || fb3_file_read(path, 2 * LONGEST_ID, &text, &bytes) != FB3_OK) return NULL;
    text[strcspn(text, "\n")] = 0;
    if (is_id(text)) return text;
    free(text);
    return NULL;
}

/* A fold that begins anew is a new run, unless WANDB_RUN_ID names it. */
static fb3_status new_id(const fb3_wandb *w, char **id)
{
    const char *given = variable("WANDB_RUN_ID");
    char random[NEW_ID + 1];
    FB3_TRY(fb3_wandb_random_name(random, NEW_ID));
    FB3_REQUIRE(!given || is_id(given), FB3_INPUT, "WANDB_RUN_ID: '%.60s' is no run id; use letters, digits, - and _",
                given);
    if (!given)
        *id = strdup(random);
    else
        *id = w->place.folds > 1 ? fb3_format("%s-fold-%d", given, w->place.fold) : strdup(given);
    FB3_REQUIRE(*id, FB3_FAILED, "out of memory for the run's id");
    return FB3_OK;
}

static fb3_status find_id(fb3_wandb *w)
{
    char *path = fb3_path_join(w->fold_directory, ID_FILE);
    FB3_REQUIRE(path, FB3_FAILED, "out of memory for the run's id");
    fb3_status status = FB3_OK;
    if (w->place.resume_step > 0) w->id = stored_id(path);
    w->is_new = !w->id;
    if (w->is_new) {
        status = new_id(w, &w->id);
        if (status == FB3_OK && w->id) status = fb3_file_write(path, w->id, strlen(w->id));
    }
    free(path);
    return status;
}

/* "deberta-v3-base" of a hub name, a directory or a preset. */
static char *model_name(const fb3_config *config)
{
    const char *model = config->model_name_or_path ? config->model_name_or_path : config->model_preset;
    size_t length = strlen(model);
    while (length > 1 && model[length - 1] == '/') length--;
    const char *start = model + length;
    while (start > model && start[-1] != '/') start--;
    return strndup(start, (size_t)(model + length - start));
}

/* Model, loss and length of training. */
static char *default_tags(const fb3_config *config)
{
    char *json = fb3_config_json(config), *model = model_name(config);
    json_t *all = json ? json_loads(json, 0, NULL) : NULL;
    const char *loss = json_string_value(json_object_get(all, "loss_type"));
    char length[64];
    if (config->max_steps > 0)
        snprintf(length, sizeof length, "%lld-steps", (long long)config->max_steps);
    else
        snprintf(length, sizeof length, "%g-epochs", config->num_train_epochs);
    json_t *tags = model && loss ? json_pack("[s, s, s]", model, loss, length) : NULL;
    char *text = tags ? json_dumps(tags, JSON_COMPACT) : NULL;
    json_decref(tags);
    json_decref(all);
    free(model);
    free(json);
    return text;
}

static void add_tag(json_t *tags, const char *tag, size_t length)
{
    if (length > 0) json_array_append_new(tags, json_stringn(tag, length));
}

static char *find_tags(const fb3_wandb *w)
{
    const fb3_strings *given = &w->place.config->wandb_tags;
    const char *list = given->count > 0 ? NULL : variable("WANDB_TAGS");
    if (given->count == 0 && !list) return default_tags(w->place.config);
    json_t *tags = json_array();
    for (int i = 0; i < given->count; i++) add_tag(tags, given->item[i], strlen(given->item[i]));
    while (list && *list) {
        size_t length = strcspn(list, ",");
        add_tag(tags, list, length);
        list += length + (list[length] == ',');
    }
    char *text = json_dumps(tags, JSON_COMPACT);
    json_decref(tags);
    return text;
}

/* A name that was given is that of the whole run; each fold has its own. */
static char *find_name(const fb3_wandb *w)
{
    const char *given = choose(w, "run_name", w->place.config->run_name, "WANDB_NAME");
    if (!given) return fb3_format("FB3-fold-%d", w->place.fold);
    return w->place.folds > 1 ? fb3_format("%s-fold-%d", given, w->place.fold) : strdup(given);
}

static char *copy(const char *text)
{
    return strdup(text ? text : "");
}

fb3_status fb3_wandb_identify(fb3_wandb *w)
{
    const fb3_config *config = w->place.config;
    const char *folder = choose(w, "wandb_dir", config->wandb_dir, "WANDB_DIR");
    w->project = copy(choose(w, "wandb_project", config->wandb_project, "WANDB_PROJECT"));
    w->entity = copy(choose(w, "wandb_entity", config->wandb_entity, "WANDB_ENTITY"));
    w->group = copy(choose(w, "wandb_group", config->wandb_group, "WANDB_RUN_GROUP"));
    w->notes = copy(choose(w, "wandb_notes", config->wandb_notes, "WANDB_NOTES"));
    w->name = find_name(w);
    w->tags = find_tags(w);
    w->root = fb3_path_join(folder ? folder : config->output_dir, "wandb");
    FB3_REQUIRE(w->project && w->entity && w->group && w->notes && w->name && w->tags && w->root, FB3_FAILED,
                "out of memory for the run's names");
    if (gethostname(w->host, sizeof w->host - 1) != 0) w->host[0] = 0;
    return find_id(w);
}

/* --- what was recorded before ------------------------------------------------------------------------------------- */

enum { RECORD_HISTORY = 2, RECORD_SUMMARY = 3, LIST_ITEM = 1, ITEM_KEY = 1, ITEM_JSON = 16 };
enum { KEY_BYTES = 160, NUMBER_BYTES = 64 };

/* key = number, or key = {"min": number}. */
typedef struct item {
    char key[KEY_BYTES];
    double number;
    bool least;
} item;

static void copy_text(char *to, size_t room, fb3_proto_reader text)
{
    size_t bytes = text.data && text.bytes < room ? text.bytes : 0;
    if (bytes > 0) memcpy(to, text.data, bytes);
    to[bytes] = 0;
}

/* False for what is neither. */
static bool read_item(fb3_proto_reader content, item *found)
{
    static const char LEAST[] = "{\"min\":";
    char json[NUMBER_BYTES] = "", *end;
    fb3_proto_field field;
    found->key[0] = 0;
    while (fb3_proto_next(&content, &field)) {
        if (field.number == ITEM_JSON) copy_text(json, sizeof json, field.content);
        if (field.number == ITEM_KEY) copy_text(found->key, sizeof found->key, field.content);
    }
    found->least = strncmp(json, LEAST, strlen(LEAST)) == 0;
    const char *number = json + (found->least ? strlen(LEAST) : 0);
    found->number = strtod(number, &end);
    return found->key[0] && end != number;
}

static void recall_history(fb3_wandb_past *past, fb3_proto_reader history)
{
    fb3_proto_field field;
    item one;
    double global_step = -1;
    bool trained = false, evaluated = false;
    while (fb3_proto_next(&history, &field)) {
        if (field.number != LIST_ITEM || !read_item(field.content, &one)) continue;
        if (strcmp(one.key, "_step") == 0 && one.number > (double)past->history) past->history = (int64_t)one.number;
        if (strcmp(one.key, "_runtime") == 0) past->runtime = fmax(past->runtime, one.number);
        if (strcmp(one.key, "train/global_step") == 0) global_step = one.number;
        trained |= strcmp(one.key, "train/loss") == 0;
        evaluated |= strncmp(one.key, "eval/", strlen("eval/")) == 0;
    }
    if (trained && global_step > (double)past->step) past->step = (int64_t)global_step;
    if (evaluated && global_step > (double)past->eval_step) past->eval_step = (int64_t)global_step;
}

static void recall_summary(fb3_wandb_past *past, fb3_proto_reader summary)
{
    fb3_proto_field field;
    item one;
    while (fb3_proto_next(&summary, &field)) {
        if (field.number != LIST_ITEM || !read_item(field.content, &one) || !isfinite(one.number)) continue;
        json_t *value = json_real(one.number);
        json_object_set_new(past->summary, one.key, one.least ? json_pack("{s:o}", "min", value) : value);
    }
}

static fb3_status recall_record(void *context, const void *record, size_t bytes)
{
    fb3_proto_reader reader = {.data = record, .bytes = bytes};
    fb3_proto_field field;
    while (fb3_proto_next(&reader, &field)) {
        if (field.number == RECORD_HISTORY) recall_history(context, field.content);
        if (field.number == RECORD_SUMMARY) recall_summary(context, field.content);
    }
    return FB3_OK;
}

/* offline-run-<time>-<id> */
static bool is_part(const char *name, const char *id)
{
    static const char PREFIX[] = "offline-run-";
    size_t length = strlen(name), end = strlen(id);
    return strncmp(name, PREFIX, strlen(PREFIX)) == 0 && length > strlen(PREFIX) + end + 1 &&
           name[length - end - 1] == '-' && strcmp(name + length - end, id) == 0;
}

/* The names of the parts, oldest first: their names begin with their time. */
static fb3_status list_parts(const fb3_wandb *w, fb3_strings *parts)
{
    fb3_status status = FB3_OK;
    DIR *folder = opendir(w->root);
    for (const struct dirent *entry; folder && status == FB3_OK && (entry = readdir(folder));)
        if (is_part(entry->d_name, w->id) && parts->count < MOST_PARTS) status = fb3_strings_add(parts, entry->d_name);
    if (folder) closedir(folder);
    return status;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A part that cannot be read is no reason to keep no record. */
static void recall_part(fb3_wandb *w, const char *part)
{
    char *path = fb3_format("%s/%s/run-%s.wandb", w->root, part, w->id);
    if (path && fb3_wandb_log_read(path, recall_record, &w->past) == FB3_OK)
        w->past.parts++;
    else if (path)
        fb3_log_warn("wandb: %s; steps that it has may be recorded twice", fb3_error_text());
    free(path);
}

fb3_status fb3_wandb_recall(fb3_wandb *w)
{
    fb3_strings parts = {0};
    w->past = (fb3_wandb_past){.history = -1, .summary = json_object()};
    FB3_REQUIRE(w->past.summary, FB3_FAILED, "out of memory for the run's summary");
    if (w->is_new) return FB3_OK;
    fb3_status status = list_parts(w, &parts);
    if (parts.count > 1) qsort(parts.item, (size_t)parts.count, sizeof *parts.item, by_text);
    for (int i = 0; status == FB3_OK && i < parts.count; i++) recall_part(w, parts.item[i]);
    fb3_strings_free(&parts);
    return status;
}
