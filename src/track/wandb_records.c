/* The records of a transaction log: messages of W&B's wandb_internal.proto, whose field numbers are the enums below. A
 * record has a number and exactly one of the kinds: W&B's programs panic at one without, so an EnvironmentRecord, which
 * older ones do not know, is never written - the file wandb-metadata.json says the same. */
#include "wandb.h"

#include "fb3/clock.h"
#include "fb3/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NUMBER_BYTES = 32, CLIENT_ID = 128 };

/* Record */
enum {
    RECORD_NUM = 1,
    RECORD_HISTORY = 2,
    RECORD_SUMMARY = 3,
    RECORD_FILES = 6,
    RECORD_STATS = 7,
    RECORD_ARTIFACT = 8,
    RECORD_METRIC = 12,
    RECORD_OUTPUT_RAW = 13,
    RECORD_RUN = 17,
    RECORD_EXIT = 18,
    RECORD_FINAL = 20,
    RECORD_HEADER = 21,
    RECORD_PREEMPTING = 23
};
/* An item of a history, summary, configuration or statistics. */
enum { ITEM_KEY = 1, ITEM_JSON = 16 };
enum { SECONDS = 1, NANOS = 2 }; /* google.protobuf.Timestamp */

/* --- writing one -------------------------------------------------------------------------------------------------- */

/* Begins the next record; returns what fb3_proto_end() wants. */
static size_t begin_record(fb3_wandb *w, int kind)
{
    fb3_proto_clear(&w->record);
    fb3_proto_integer(&w->record, RECORD_NUM, w->records + 1);
    return fb3_proto_begin(&w->record, kind);
}

static fb3_status write_record(fb3_wandb *w, size_t begun)
{
    fb3_proto_end(&w->record, begun);
    FB3_REQUIRE(!w->record.failed, FB3_FAILED, "out of memory for a record");
    w->records++;
    return fb3_wandb_log_write(w->log, w->record.data, w->record.bytes);
}

double fb3_wandb_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

double fb3_wandb_runtime(const fb3_wandb *w)
{
    return w->past.runtime + fb3_seconds() - w->began;
}

static void put_time(fb3_proto *proto, int field, double time)
{
    size_t begun = fb3_proto_begin(proto, field);
    fb3_proto_integer(proto, SECONDS, (int64_t)time);
    fb3_proto_integer(proto, NANOS, (int64_t)((time - floor(time)) * 1e9));
    fb3_proto_end(proto, begun);
}

/* The shortest text that reads as the same number. W&B's JSON knows NaN and Infinity. */
static void format_number(double number, char text[NUMBER_BYTES])
{
    enum { FEWEST = 6, ENOUGH = 17 };
    if (isnan(number)) {
        snprintf(text, NUMBER_BYTES, "NaN");
        return;
    }
    if (isinf(number)) {
        snprintf(text, NUMBER_BYTES, "%sInfinity", number < 0 ? "-" : "");
        return;
    }
    for (int digits = FEWEST; digits <= ENOUGH; digits++) {
        snprintf(text, NUMBER_BYTES, "%.*g", digits, number);
        if (strtod(text, NULL) == number) return;
    }
}

static void put_item(fb3_proto *proto, int field, const char *key, const char *json)
{
    size_t begun = fb3_proto_begin(proto, field);
    fb3_proto_text(proto, ITEM_KEY, key);
    fb3_proto_text(proto, ITEM_JSON, json);
    fb3_proto_end(proto, begun);
}

static void put_number(fb3_proto *proto, int field, const char *key, double number)
{
    char text[NUMBER_BYTES];
    format_number(number, text);
    put_item(proto, field, key, text);
}

/* key = {"min": number} */
static void put_least(fb3_proto *proto, int field, const char *key, double number)
{
    char text[NUMBER_BYTES], object[NUMBER_BYTES + sizeof "{\"min\":}"];
    format_number(number, text);
    snprintf(object, sizeof object, "{\"min\":%s}", text);
    put_item(proto, field, key, object);
}

/* --- header, run, metrics, files ---------------------------------------------------------------------------------- */

fb3_status fb3_wandb_write_header(fb3_wandb *w)
{
    enum { HEADER_VERSION = 1, PRODUCER = 1 };
    size_t begun = begin_record(w, RECORD_HEADER), version = fb3_proto_begin(&w->record, HEADER_VERSION);
    fb3_proto_text(&w->record, PRODUCER, "fb3-dist " FB3_VERSION);
    fb3_proto_end(&w->record, version);
    return write_record(w, begun);
}

static fb3_status put_config(fb3_wandb *w, int field, const json_t *config)
{
    enum { CONFIG_UPDATE = 1 };
    const char *key;
    json_t *value;
    size_t begun = fb3_proto_begin(&w->record, field);
    json_object_foreach((json_t *)config, key, value)
    {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
        FB3_REQUIRE(text, FB3_FAILED, "out of memory for the configuration");
        put_item(&w->record, CONFIG_UPDATE, key, text);
        free(text);
    }
    fb3_proto_end(&w->record, begun);
    return FB3_OK;
}

static void put_tags(fb3_wandb *w, int field)
{
    json_t *tags = json_loads(w->tags, 0, NULL), *tag;
    size_t i;
    json_array_foreach(tags, i, tag)
    {
        fb3_proto_text(&w->record, field, json_string_value(tag));
    }
    json_decref(tags);
}

fb3_status fb3_wandb_write_run(fb3_wandb *w, const json_t *config, const char *commit)
{
    enum {
        RUN_ID = 1,
        RUN_ENTITY = 2,
        RUN_PROJECT = 3,
        RUN_CONFIG = 4,
        RUN_GROUP = 6,
        RUN_JOB_TYPE = 7,
        RUN_NAME = 8,
        RUN_NOTES = 9,
        RUN_TAGS = 10,
        RUN_HOST = 13,
        RUN_STARTING_STEP = 14,
        RUN_START_TIME = 17,
        RUN_RESUMED = 18,
        RUN_RUNTIME = 20,
        RUN_GIT = 21,
        RUN_RESUME = 24, /* W&B's resume="allow" */
        GIT_COMMIT = 2
    };
    fb3_proto *record = &w->record;
    size_t begun = begin_record(w, RECORD_RUN);
    fb3_proto_text(record, RUN_ID, w->id);
    fb3_proto_text(record, RUN_ENTITY, w->entity);
    fb3_proto_text(record, RUN_PROJECT, w->project);
    FB3_TRY(put_config(w, RUN_CONFIG, config));
    fb3_proto_text(record, RUN_GROUP, w->group);
    fb3_proto_text(record, RUN_JOB_TYPE, "train");
    fb3_proto_text(record, RUN_NAME, w->name);
    fb3_proto_text(record, RUN_NOTES, w->notes);
    put_tags(w, RUN_TAGS);
    fb3_proto_text(record, RUN_HOST, w->host);
    fb3_proto_integer(record, RUN_STARTING_STEP, w->history);
    put_time(record, RUN_START_TIME, w->start_time);
    fb3_proto_integer(record, RUN_RESUMED, w->history > 0);
    fb3_proto_integer(record, RUN_RUNTIME, (int64_t)w->past.runtime);
    if (commit[0]) {
        size_t git = fb3_proto_begin(record, RUN_GIT);
        fb3_proto_text(record, GIT_COMMIT, commit);
        fb3_proto_end(record, git);
    }
    fb3_proto_integer(record, RUN_RESUME, w->history > 0);
    return write_record(w, begun);
}

fb3_status fb3_wandb_write_metric(fb3_wandb *w, const char *name, bool least)
{
    enum { NAME = 1, GLOB = 2, STEP_METRIC = 4, OPTIONS = 6, SUMMARY = 7, GOAL = 8 };
    enum { STEP_SYNC = 1, DEFINED = 3, SUMMARY_MIN = 1, MINIMIZE = 1 };
    static const char GLOBAL_STEP[] = "train/global_step";
    const bool is_step = strcmp(name, GLOBAL_STEP) == 0;
    fb3_proto *record = &w->record;
    size_t begun = begin_record(w, RECORD_METRIC), part;
    fb3_proto_text(record, strchr(name, '*') ? GLOB : NAME, name);
    if (!is_step) fb3_proto_text(record, STEP_METRIC, GLOBAL_STEP);
    part = fb3_proto_begin(record, OPTIONS);
    fb3_proto_integer(record, STEP_SYNC, !is_step);
    fb3_proto_integer(record, DEFINED, 1);
    fb3_proto_end(record, part);
    if (least) {
        part = fb3_proto_begin(record, SUMMARY);
        fb3_proto_integer(record, SUMMARY_MIN, 1);
        fb3_proto_end(record, part);
        fb3_proto_integer(record, GOAL, MINIMIZE);
    }
    return write_record(w, begun);
}

fb3_status fb3_wandb_write_files(fb3_wandb *w, const char *const *paths, int count)
{
    enum { FILES = 1, PATH = 1, POLICY = 2, TYPE = 3, AT_THE_END = 1, OF_WANDB = 1 };
    size_t begun = begin_record(w, RECORD_FILES);
    for (int i = 0; i < count; i++) {
        size_t file = fb3_proto_begin(&w->record, FILES);
        fb3_proto_text(&w->record, PATH, paths[i]);
        fb3_proto_integer(&w->record, POLICY, AT_THE_END);
        fb3_proto_integer(&w->record, TYPE, OF_WANDB);
        fb3_proto_end(&w->record, file);
    }
    return write_record(w, begun);
}

/* --- history and summary ------------------------------------------------------------------------------------------ */

enum { SUMMARY_UPDATE = 1 };

/* The smallest of what the summary has and `number`; NaN is never smaller. */
static double least(const fb3_wandb *w, const char *key, double number)
{
    const json_t *before = json_object_get(json_object_get(w->summary, key), "min");
    if (!json_is_number(before)) return number;
    return fmin(json_number_value(before), number);
}

/* JSON has no NaN: such a value is null in the summary file. */
static json_t *json_of(double number)
{
    const double largest_whole = 1e15;
    if (!isfinite(number)) return json_null();
    bool whole = number == floor(number) && fabs(number) < largest_whole;
    return whole ? json_integer((json_int_t)number) : json_real(number);
}

static void note(fb3_wandb *w, const char *key, bool is_least, double number)
{
    json_t *value = json_of(number);
    json_object_set_new(w->summary, key, is_least ? json_pack("{s:o}", "min", value) : value);
}

static void put_summary(fb3_wandb *w, const char *key, bool is_least, double number)
{
    double kept = is_least ? least(w, key, number) : number;
    note(w, key, is_least, kept);
    if (is_least)
        put_least(&w->record, SUMMARY_UPDATE, key, kept);
    else
        put_number(&w->record, SUMMARY_UPDATE, key, kept);
}

fb3_status fb3_wandb_write_summary(fb3_wandb *w, const fb3_wandb_value *values, int count)
{
    size_t begun = begin_record(w, RECORD_SUMMARY);
    for (int i = 0; i < count; i++) put_summary(w, values[i].key, values[i].least, values[i].number);
    return write_record(w, begun);
}

fb3_status fb3_wandb_repeat_summary(fb3_wandb *w)
{
    const char *key;
    json_t *value;
    size_t begun = begin_record(w, RECORD_SUMMARY);
    json_object_foreach(w->summary, key, value)
    {
        const json_t *smallest = json_object_get(value, "min");
        if (json_is_number(smallest)) put_least(&w->record, SUMMARY_UPDATE, key, json_number_value(smallest));
        if (json_is_number(value)) put_number(&w->record, SUMMARY_UPDATE, key, json_number_value(value));
    }
    return write_record(w, begun);
}

fb3_status fb3_wandb_write_history(fb3_wandb *w, const fb3_wandb_value *values, int count)
{
    enum { HISTORY_ITEM = 1, HISTORY_STEP = 2, STEP_NUM = 1, MOMENT = 3 };
    const fb3_wandb_value moment[MOMENT] = {{"_step", (double)w->history, false},
                                            {"_runtime", fb3_wandb_runtime(w), false},
                                            {"_timestamp", fb3_wandb_now(), false}};
    size_t begun = begin_record(w, RECORD_HISTORY);
    for (int i = 0; i < count; i++) put_number(&w->record, HISTORY_ITEM, values[i].key, values[i].number);
    for (int i = 0; i < MOMENT; i++) put_number(&w->record, HISTORY_ITEM, moment[i].key, moment[i].number);
    size_t step = fb3_proto_begin(&w->record, HISTORY_STEP);
    fb3_proto_integer(&w->record, STEP_NUM, w->history);
    fb3_proto_end(&w->record, step);
    FB3_TRY(write_record(w, begun));
    w->history++;

    begun = begin_record(w, RECORD_SUMMARY);
    for (int i = 0; i < count; i++) put_summary(w, values[i].key, values[i].least, values[i].number);
    for (int i = 0; i < MOMENT; i++) put_summary(w, moment[i].key, false, moment[i].number);
    return write_record(w, begun);
}

/* --- statistics, console ------------------------------------------------------------------------------------------ */

fb3_status fb3_wandb_write_stats(fb3_wandb *w, const fb3_meter_value *values, int count)
{
    enum { STATS_TIME = 2, STATS_ITEM = 3 };
    size_t begun = begin_record(w, RECORD_STATS);
    put_time(&w->record, STATS_TIME, fb3_wandb_now());
    for (int i = 0; i < count; i++) put_number(&w->record, STATS_ITEM, values[i].key, values[i].number);
    return write_record(w, begun);
}

fb3_status fb3_wandb_write_console(fb3_wandb *w, const char *line)
{
    enum { OUTPUT_TIME = 2, OUTPUT_LINE = 3 }; /* the type is that of standard error, 0 */
    char *whole = fb3_format("%s\n", line);
    FB3_REQUIRE(whole, FB3_FAILED, "out of memory for a line");
    size_t begun = begin_record(w, RECORD_OUTPUT_RAW);
    put_time(&w->record, OUTPUT_TIME, fb3_wandb_now());
    fb3_proto_text(&w->record, OUTPUT_LINE, whole);
    free(whole);
    return write_record(w, begun);
}

/* --- artifact ----------------------------------------------------------------------------------------------------- */

static fb3_status put_manifest(fb3_wandb *w, int field, const fb3_artifact *artifact, const char *directory)
{
    enum { VERSION = 1, POLICY = 2, POLICY_CONFIG = 3, CONTENTS = 4, CONFIG_KEY = 1, CONFIG_JSON = 2 };
    enum { PATH = 1, DIGEST = 2, SIZE = 4, LOCAL_PATH = 6, SKIP_CACHE = 8 };
    fb3_proto *record = &w->record;
    size_t begun = fb3_proto_begin(record, field);
    fb3_proto_integer(record, VERSION, 1);
    fb3_proto_text(record, POLICY, "wandb-storage-policy-v1");
    size_t config = fb3_proto_begin(record, POLICY_CONFIG);
    fb3_proto_text(record, CONFIG_KEY, "storageLayout");
    fb3_proto_text(record, CONFIG_JSON, "\"V2\"");
    fb3_proto_end(record, config);
    for (int i = 0; i < artifact->count; i++) {
        const fb3_artifact_file *file = &artifact->file[i];
        char *path = fb3_path_join(directory, file->name);
        FB3_REQUIRE(path, FB3_FAILED, "out of memory for the files of an artifact");
        size_t entry = fb3_proto_begin(record, CONTENTS);
        fb3_proto_text(record, PATH, file->name);
        fb3_proto_text(record, DIGEST, file->digest);
        fb3_proto_integer(record, SIZE, file->bytes);
        fb3_proto_text(record, LOCAL_PATH, path);
        fb3_proto_integer(record, SKIP_CACHE, 1); /* weights are not copied into the user's cache */
        fb3_proto_end(record, entry);
        free(path);
    }
    fb3_proto_end(record, begun);
    return FB3_OK;
}

static fb3_status put_client_id(fb3_wandb *w, int field)
{
    char id[CLIENT_ID + 1];
    FB3_TRY(fb3_wandb_random_name(id, CLIENT_ID));
    fb3_proto_text(&w->record, field, id);
    return FB3_OK;
}

fb3_status fb3_wandb_write_artifact(fb3_wandb *w, const fb3_artifact *artifact, const char *directory,
                                    const char *metadata)
{
    enum {
        RUN_ID = 1,
        PROJECT = 2,
        ENTITY = 3,
        TYPE = 4,
        NAME = 5,
        DIGEST = 6,
        DESCRIPTION = 7,
        METADATA = 8, /* user_created = 9 stays false: the artifact is this run's output */
        ALIASES = 11,
        MANIFEST = 12,
        FINALIZE = 14,
        CLIENT = 15,
        SEQUENCE_CLIENT = 16
    };
    fb3_proto *record = &w->record;
    char name[64], description[64];
    snprintf(name, sizeof name, "FB3-fold-%d", w->place.fold);
    snprintf(description, sizeof description, "MultilabelStratified - fold--%d", w->place.fold);
    size_t begun = begin_record(w, RECORD_ARTIFACT);
    fb3_proto_text(record, RUN_ID, w->id);
    fb3_proto_text(record, PROJECT, w->project);
    fb3_proto_text(record, ENTITY, w->entity);
    fb3_proto_text(record, TYPE, "model");
    fb3_proto_text(record, NAME, name);
    fb3_proto_text(record, DIGEST, artifact->digest);
    fb3_proto_text(record, DESCRIPTION, description);
    fb3_proto_text(record, METADATA, metadata);
    fb3_proto_text(record, ALIASES, "latest");
    fb3_proto_text(record, ALIASES, "best");
    FB3_TRY(put_manifest(w, MANIFEST, artifact, directory));
    fb3_proto_integer(record, FINALIZE, 1);
    FB3_TRY(put_client_id(w, CLIENT));
    FB3_TRY(put_client_id(w, SEQUENCE_CLIENT));
    return write_record(w, begun);
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

fb3_status fb3_wandb_write_preempting(fb3_wandb *w)
{
    return write_record(w, begin_record(w, RECORD_PREEMPTING));
}

/* Older programs pass an exit on when they have seen a final record behind it. */
fb3_status fb3_wandb_write_exit(fb3_wandb *w, int code)
{
    enum { EXIT_CODE = 1, EXIT_RUNTIME = 2 };
    size_t begun = begin_record(w, RECORD_EXIT);
    fb3_proto_integer(&w->record, EXIT_CODE, code);
    fb3_proto_integer(&w->record, EXIT_RUNTIME, (int64_t)fb3_wandb_runtime(w));
    FB3_TRY(write_record(w, begun));
    return write_record(w, begin_record(w, RECORD_FINAL));
}
