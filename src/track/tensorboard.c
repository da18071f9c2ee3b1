/* Event files as TensorFlow's writers make them. A file is a row of records:
 *
 *     length u64   masked crc32c of the length u32   data [length]   masked crc32c of the data u32     (little-endian)
 *
 * and the data of a record are an Event in protocol buffers: wall_time = 1 (double), step = 2, and one of
 * file_version = 3 (the first record), summary = 5, session_log = 7. */
#include "trackers.h"

#include "crc32c.h"
#include "protobuf.h"
#include "fb3/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8, CRC_BYTES = 4, FRAME_BYTES = LENGTH_BYTES + 2 * CRC_BYTES };

typedef struct tensorboard_tracker {
    fb3_tracker base;
    char *path;
    FILE *file;
    int64_t resume_step;
    fb3_proto event; /* that is being made */
} tensorboard_tracker;

/* --- records ------------------------------------------------------------------------------------------------------ */

/* A crc stored next to its own data would be weak where data hold crcs; so the format turns and shifts it. */
static uint32_t masked_crc(const void *data, size_t bytes)
{
    uint32_t crc = fb3_crc32c(data, bytes);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static void put_little_endian(unsigned char *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) to[i] = (unsigned char)(value >> 8 * i);
}

/* Writes the event. One write a record, so that a file which was cut short ends within a record and not between two
 * halves. */
static fb3_status write_event(tensorboard_tracker *t)
{
    const fb3_proto *event = &t->event;
    const size_t bytes = FRAME_BYTES + event->bytes;
    unsigned char *record = event->failed ? NULL : malloc(bytes);
    FB3_REQUIRE(record, FB3_FAILED, "%s: out of memory for an event", t->path);
    put_little_endian(record, event->bytes, LENGTH_BYTES);
    put_little_endian(record + LENGTH_BYTES, masked_crc(record, LENGTH_BYTES), CRC_BYTES);
    memcpy(record + LENGTH_BYTES + CRC_BYTES, event->data, event->bytes);
    put_little_endian(record + bytes - CRC_BYTES, masked_crc(event->data, event->bytes), CRC_BYTES);
    const bool written = fwrite(record, 1, bytes, t->file) == bytes && fflush(t->file) == 0;
    free(record);
    FB3_REQUIRE(written, FB3_FAILED, "cannot write %s: %s", t->path, strerror(errno));
    return FB3_OK;
}

static fb3_proto *begin_event(tensorboard_tracker *t, int64_t step)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    fb3_proto_clear(&t->event);
    fb3_proto_double(&t->event, 1, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    fb3_proto_integer(&t->event, 2, step);
    return &t->event;
}

static fb3_status write_version(tensorboard_tracker *t)
{
    fb3_proto_text(begin_event(t, 0), 3, "brain.Event:2");
    return write_event(t);
}

/* SessionLog{status = 1: START}: what earlier files have from `step` on is done again. */
static fb3_status write_start(tensorboard_tracker *t, int64_t step)
{
    fb3_proto *event = begin_event(t, step);
    size_t start = fb3_proto_begin(event, 7);
    fb3_proto_integer(event, 1, 1);
    fb3_proto_end(event, start);
    return write_event(t);
}

/* An event with a summary, which the caller fills with values. */
static size_t begin_summary(tensorboard_tracker *t, int64_t step)
{
    return fb3_proto_begin(begin_event(t, step), 5);
}

static fb3_status write_summary(tensorboard_tracker *t, size_t summary)
{
    fb3_proto_end(&t->event, summary);
    return write_event(t);
}

/* Value{tag = 1, simple_value = 2} */
static void add_scalar(tensorboard_tracker *t, const char *tag, double value)
{
    size_t one = fb3_proto_begin(&t->event, 1);
    fb3_proto_text(&t->event, 1, tag);
    fb3_proto_float(&t->event, 2, (float)value);
    fb3_proto_end(&t->event, one);
}

/* --- texts -------------------------------------------------------------------------------------------------------- */

/* TensorBoard shows Markdown: lines that are indented stay as they are. Caller frees; NULL: no memory. */
static char *indented(const char *text)
{
    size_t lines = 1;
    for (const char *c = text; *c; c++) lines += *c == '\n';
    char *all = malloc(strlen(text) + lines * strlen("    \n") + 1), *end = all;
    while (all && *text) {
        size_t line = strcspn(text, "\n");
        end += sprintf(end, "    %.*s\n", (int)line, text);
        text += line + (text[line] == '\n');
    }
    if (all) *end = 0;
    return all;
}

/* Value{tag, tensor = 8: {dtype = 1: DT_STRING, shape = 2: {dim = 2: {size = 1: 1}}, string_val = 8},
 * metadata = 9: {plugin_data = 1: {plugin_name = 1: "text"}}} */
static void add_text(tensorboard_tracker *t, const char *tag, const char *text)
{
    enum { DT_STRING = 7 };
    fb3_proto *event = &t->event;
    size_t value = fb3_proto_begin(event, 1);
    fb3_proto_text(event, 1, tag);
    size_t tensor = fb3_proto_begin(event, 8);
    fb3_proto_integer(event, 1, DT_STRING);
    size_t shape = fb3_proto_begin(event, 2), dim = fb3_proto_begin(event, 2);
    fb3_proto_integer(event, 1, 1);
    fb3_proto_end(event, dim);
    fb3_proto_end(event, shape);
    fb3_proto_text(event, 8, text);
    fb3_proto_end(event, tensor);
    size_t metadata = fb3_proto_begin(event, 9), plugin = fb3_proto_begin(event, 1);
    fb3_proto_text(event, 1, "text");
    fb3_proto_end(event, plugin);
    fb3_proto_end(event, metadata);
    fb3_proto_end(event, value);
}

/* --- the operations ----------------------------------------------------------------------------------------------- */

static fb3_status tensorboard_config(fb3_tracker *tracker, const fb3_run_record *run)
{
    tensorboard_tracker *t = (tensorboard_tracker *)tracker;
    char *text = indented(run->config_text);
    FB3_REQUIRE(text, FB3_FAILED, "%s: out of memory for the configuration", t->path);
    size_t summary = begin_summary(t, t->resume_step);
    add_text(t, "args/text_summary", text);
    free(text);
    return write_summary(t, summary);
}

static fb3_status tensorboard_step(fb3_tracker *tracker, const fb3_step_record *step)
{
    tensorboard_tracker *t = (tensorboard_tracker *)tracker;
    size_t summary = begin_summary(t, step->step);
    add_scalar(t, "train/loss", step->loss);
    add_scalar(t, "train/grad_norm", step->grad_norm);
    add_scalar(t, "train/learning_rate", step->learning_rate);
    add_scalar(t, "train/epoch", step->epoch);
    add_scalar(t, "train/samples_per_second", step->samples_per_second);
    add_scalar(t, "train/tokens_per_second", step->tokens_per_second);
    add_scalar(t, "train/peak_memory_mb", step->peak_memory_mb);
    return write_summary(t, summary);
}

static fb3_status tensorboard_eval(fb3_tracker *tracker, const fb3_eval_record *eval)
{
    tensorboard_tracker *t = (tensorboard_tracker *)tracker;
    size_t summary = begin_summary(t, eval->step);
    add_scalar(t, "eval/loss", eval->scores->loss);
    add_scalar(t, "eval/MCRMSE", eval->scores->mcrmse);
    for (int y = 0; y < eval->scores->targets; y++) {
        char name[128], tag[160];
        fb3_metric_name(name, sizeof name, eval->targets->item[y]);
        snprintf(tag, sizeof tag, "eval/%s", name);
        add_scalar(t, tag, eval->scores->rmse[y]);
    }
    add_scalar(t, "eval/samples_per_second", eval->samples_per_second);
    return write_summary(t, summary);
}

static fb3_status tensorboard_artifact(fb3_tracker *tracker, const fb3_checkpoint_record *checkpoint)
{
    (void)tracker; /* TensorBoard has no place for files */
    (void)checkpoint;
    return FB3_OK;
}

static fb3_status tensorboard_end(fb3_tracker *tracker, const fb3_end_record *end)
{
    tensorboard_tracker *t = (tensorboard_tracker *)tracker;
    size_t summary = begin_summary(t, end->step);
    add_scalar(t, "train/train_runtime", end->train_runtime);
    add_scalar(t, "train/train_samples_per_second", end->samples_per_second);
    add_scalar(t, "train/train_steps_per_second", end->steps_per_second);
    add_scalar(t, "train/best_metric", end->best_metric);
    return write_summary(t, summary);
}

static void tensorboard_close(fb3_tracker *tracker, fb3_status left)
{
    tensorboard_tracker *t = (tensorboard_tracker *)tracker;
    (void)left;
    if (t->file) (void)fclose(t->file);
    fb3_proto_free(&t->event);
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
