/* Event files as TensorFlow's writers make them. A file is a row of records:
 *
 *     length u64   masked crc32c of the length u32   data [length]   masked crc32c of the data u32     (little-endian)
 *
 * and the data of a record are an Event in protocol buffers: wall_time = 1 (double), step = 2, and one of
 * file_version = 3 (the first record), summary = 5, session_log = 7. */
#include "trackers.h"

#include "crc32c.h"
#include "fb3/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8, CRC_BYTES = 4 };

typedef struct tensorboard_tracker {
    fb3_tracker base;
    char *path;
    FILE *file;
    int64_t resume_step;
} tensorboard_tracker;

/* --- protocol buffers --------------------------------------------------------------------------------------------- */

/* A message being written; `data` NULL after a lack of memory. */
typedef struct message {
    unsigned char *data;
    size_t bytes, room;
    bool failed;
} message;

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static void put(message *m, const void *data, size_t bytes)
{
    if (m->bytes + bytes > m->room && !m->failed) {
        size_t room = 2 * (m->bytes + bytes) + 64;
        unsigned char *grown = realloc(m->data, room);
        m->failed = !grown;
        if (grown) {
            m->data = grown;
            m->room = room;
        }
    }
    if (m->failed) return;
    if (bytes > 0) memcpy(m->data + m->bytes, data, bytes);
    m->bytes += bytes;
}

static void put_varint(message *m, uint64_t value)
{
    do {
        unsigned char byte = (unsigned char)((value & 0x7F) | (value > 0x7F ? 0x80 : 0));
        put(m, &byte, 1);
        value >>= 7;
    } while (value > 0);
}

static void put_little_endian(message *m, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)(value >> 8 * i);
        put(m, &byte, 1);
    }
}

static void put_key(message *m, int field, int wire)
{
    put_varint(m, (uint64_t)field << 3 | (unsigned)wire);
}

static void put_integer(message *m, int field, int64_t value)
{
    put_key(m, field, WIRE_VARINT);
    put_varint(m, (uint64_t)value);
}

static void put_double(message *m, int field, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(m, field, WIRE_64);
    put_little_endian(m, bits, sizeof bits);
}

static void put_float(message *m, int field, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(m, field, WIRE_32);
    put_little_endian(m, bits, sizeof bits);
}

static void put_bytes(message *m, int field, const void *data, size_t bytes)
{
    put_key(m, field, WIRE_BYTES);
    put_varint(m, bytes);
    put(m, data, bytes);
}

static void put_text(message *m, int field, const char *text)
{
    put_bytes(m, field, text, strlen(text));
}

/* Takes `inner`. */
static void put_message(message *m, int field, message *inner)
{
    m->failed |= inner->failed;
    put_bytes(m, field, inner->data, inner->failed ? 0 : inner->bytes);
    free(inner->data);
}

/* --- records ------------------------------------------------------------------------------------------------------ */

/* A crc stored next to its own data would be weak where data hold crcs; so the format turns and shifts it. */
static uint32_t masked_crc(const void *data, size_t bytes)
{
    uint32_t crc = fb3_crc32c(data, bytes);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

/* Takes `event`. One write a record, so that a file which was cut short ends within a record and not between two
 * halves. */
static fb3_status write_record(tensorboard_tracker *t, message *event)
{
    message record = {.failed = event->failed};
    if (!event->failed) {
        put_little_endian(&record, event->bytes, LENGTH_BYTES);
        if (!record.failed) put_little_endian(&record, masked_crc(record.data, LENGTH_BYTES), CRC_BYTES);
        put(&record, event->data, event->bytes);
        put_little_endian(&record, masked_crc(event->data, event->bytes), CRC_BYTES);
    }
    bool written =
        !record.failed && fwrite(record.data, 1, record.bytes, t->file) == record.bytes && fflush(t->file) == 0;
    bool memory = !record.failed;
    free(event->data);
    free(record.data);
    FB3_REQUIRE(memory, FB3_FAILED, "%s: out of memory for an event", t->path);
    FB3_REQUIRE(written, FB3_FAILED, "cannot write %s: %s", t->path, strerror(errno));
    return FB3_OK;
}

static message event_at(int64_t step)
{
    message event = {0};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    put_double(&event, 1, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    put_integer(&event, 2, step);
    return event;
}

static fb3_status write_version(tensorboard_tracker *t)
{
    message event = event_at(0);
    put_text(&event, 3, "brain.Event:2");
    return write_record(t, &event);
}

/* SessionLog{status = 1: START}: what earlier files have from `step` on is done again. */
static fb3_status write_start(tensorboard_tracker *t, int64_t step)
{
    message event = event_at(step), start = {0};
    put_integer(&start, 1, 1);
    put_message(&event, 7, &start);
    return write_record(t, &event);
}

/* Adds Value{tag = 1, simple_value = 2} to a summary. */
static void add_scalar(message *summary, const char *tag, double value)
{
    message one = {0};
    put_text(&one, 1, tag);
    put_float(&one, 2, (float)value);
    put_message(summary, 1, &one);
}

/* Takes `summary`. */
static fb3_status write_summary(tensorboard_tracker *t, int64_t step, message *summary)
{
    message event = event_at(step);
    put_message(&event, 5, summary);
    return write_record(t, &event);
}

/* --- texts -------------------------------------------------------------------------------------------------------- */

/* TensorBoard shows Markdown: lines that are indented stay as they are. */
static message indented(const char *text)
{
    message all = {0};
    while (*text) {
        size_t line = strcspn(text, "\n");
        put(&all, "    ", 4);
        put(&all, text, line);
        put(&all, "\n", 1);
        text += line + (text[line] == '\n');
    }
    return all;
}

/* Value{tag, tensor = 8: {dtype = 1: DT_STRING, shape = 2: {dim = 2: {size = 1: 1}}, string_val = 8},
 * metadata = 9: {plugin_data = 1: {plugin_name = 1: "text"}}} */
static void add_text(message *summary, const char *tag, const char *text)
{
    enum { DT_STRING = 7 };
    message value = {0}, tensor = {0}, shape = {0}, dim = {0}, metadata = {0}, plugin = {0}, content = indented(text);
    put_integer(&dim, 1, 1);
    put_message(&shape, 2, &dim);
    put_integer(&tensor, 1, DT_STRING);
    put_message(&tensor, 2, &shape);
    put_message(&tensor, 8, &content);
    put_text(&plugin, 1, "text");
    put_message(&metadata, 1, &plugin);
    put_text(&value, 1, tag);
    put_message(&value, 8, &tensor);
    put_message(&value, 9, &metadata);
    put_message(summary, 1, &value);
}

/* --- the operations ----------------------------------------------------------------------------------------------- */

static fb3_status tensorboard_config(fb3_tracker *tracker, const fb3_run_record *run)
{
    tensorboard_tracker *t = (tensorboard_tracker *)tracker;
    message summary = {0};
    add_text(&summary, "args/text_summary", run->config_text);
    return write_summary(t, t->resume_step, &summary);
}

static fb3_status tensorboard_step(fb3_tracker *tracker, const fb3_step_record *step)
{
    message summary = {0};
    add_scalar(&summary, "train/loss", step->loss);
    add_scalar(&summary, "train/grad_norm", step->grad_norm);
    add_scalar(&summary, "train/learning_rate", step->learning_rate);
    add_scalar(&summary, "train/epoch", step->epoch);
    add_scalar(&summary, "train/samples_per_second", step->samples_per_second);
    add_scalar(&summary, "train/tokens_per_second", step->tokens_per_second);
    add_scalar(&summary, "train/peak_memory_mb", step->peak_memory_mb);
    return write_summary((tensorboard_tracker *)tracker, step->step, &summary);
}

static fb3_status tensorboard_eval(fb3_tracker *tracker, const fb3_eval_record *eval)
{
    message summary = {0};
    add_scalar(&summary, "eval/loss", eval->scores->loss);
    add_scalar(&summary, "eval/MCRMSE", eval->scores->mcrmse);
    for (int y = 0; y < eval->scores->targets; y++) {
        char name[128], tag[160];
        fb3_metric_name(name, sizeof name, eval->targets->item[y]);
        snprintf(tag, sizeof tag, "eval/%s", name);
        add_scalar(&summary, tag, eval->scores->rmse[y]);
    }
    add_scalar(&summary, "eval/samples_per_second", eval->samples_per_second);
    return write_summary((tensorboard_tracker *)tracker, eval->step, &summary);
}

static fb3_status tensorboard_artifact(fb3_tracker *tracker, const fb3_checkpoint_record *checkpoint)
{
    (void)tracker; /* TensorBoard has no place for files */
    (void)checkpoint;
    return FB3_OK;
}

static fb3_status tensorboard_end(fb3_tracker *tracker, const fb3_end_record *end)
{
    message summary = {0};
    add_scalar(&summary, "train/train_runtime", end->train_runtime);
    add_scalar(&summary, "train/train_samples_per_second", end->samples_per_second);
    add_scalar(&summary, "train/train_steps_per_second", end->steps_per_second);
    add_scalar(&summary, "train/best_metric", end->best_metric);
    return write_summary((tensorboard_tracker *)tracker, end->step, &summary);
}

static void tensorboard_close(fb3_tracker *tracker, fb3_status left)
{
    tensorboard_tracker *t = (tensorboard_tracker *)tracker;
    (void)left;
    if (t->file) (void)fclose(t->file);
    free(t->path);
    free(t);
}

static const fb3_tracker_ops TENSORBOARD = {
    .name = "tensorboard",
    .config = tensorboard_config,
    .step = tensorboard_step,
    .eval = tensorboard_eval,
    .artifact = tensorboard_artifact,
    .end = tensorboard_end,
    .close = tensorboard_close,
};

#define FILE_PREFIX "events.out.tfevents."

/* Event files of a start of which nothing was kept. */
static void remove_files(const char *directory)
{
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        if (strncmp(entry->d_name, FILE_PREFIX, strlen(FILE_PREFIX)) != 0) continue;
        char *path = fb3_path_join(directory, entry->d_name);
        if (path) (void)remove(path);
        free(path);
    }
    if (entries) (void)closedir(entries);
}

/* "events.out.tfevents.<seconds>.<host>.<process>": readers take the files of a directory in the order of their names.
 * Caller frees. */
static char *file_name(const char *directory)
{
    char host[256] = "host";
    if (gethostname(host, sizeof host) != 0) strcpy(host, "host");
    host[sizeof host - 1] = 0;
    return fb3_format("%s/" FILE_PREFIX "%010lld.%s.%d", directory, (long long)time(NULL), host, (int)getpid());
}

static fb3_status begin(tensorboard_tracker *t, const fb3_track_place *place)
{
    if (place->resume_step == 0) remove_files(place->directory);
    t->path = file_name(place->directory);
    FB3_REQUIRE(t->path, FB3_FAILED, "out of memory for TensorBoard's events");
    t->file = fopen(t->path, "wb");
    FB3_REQUIRE(t->file, FB3_FAILED, "cannot write %s: %s", t->path, strerror(errno));
    FB3_TRY(write_version(t));
    return write_start(t, place->resume_step > 0 ? place->resume_step + 1 : 0);
}

fb3_status fb3_tracker_open_tensorboard(fb3_tracker **tracker, const fb3_track_place *place)
{
    tensorboard_tracker *t = calloc(1, sizeof *t);
    FB3_REQUIRE(t, FB3_FAILED, "out of memory for TensorBoard's events");
    t->base.ops = &TENSORBOARD;
    t->resume_step = place->resume_step;
    fb3_status status = begin(t, place);
    if (status == FB3_OK) {
        *tracker = &t->base;
    } else {
        tensorboard_close(&t->base, status);
    }
    return status;
}
