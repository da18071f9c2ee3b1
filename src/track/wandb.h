/* The W&B tracker, shared by its files: wandb.c (what is recorded when), wandb_records.c (the records of the
 * transaction log), wandb_run.c (whose run it is, and what it has recorded before), wandb_files.c (the files beside the
 * log). */
#ifndef FB3_TRACK_WANDB_H
#define FB3_TRACK_WANDB_H

#include "meter.h"
#include "protobuf.h"
#include "trackers.h"
#include "wandb_log.h"

#include "fb3/artifact.h"
#include "fb3/track.h"

#include <jansson.h>

/* What the run's earlier parts have recorded: a run that was interrupted goes on in a new file. */
typedef struct fb3_wandb_past {
    int parts;
    int64_t history;         /* the last _step, -1: none */
    int64_t step, eval_step; /* the last train/global_step with a loss of training, of an evaluation */
    double runtime;          /* the last _runtime */
    json_t *summary;
} fb3_wandb_past;

typedef struct fb3_wandb {
    fb3_tracker base;
    fb3_track_place place;
    char *fold_directory;
    /* whose run it is */
    char *id, *project, *entity, *group, *name, *notes;
    bool is_new; /* the id was not used before */
    char *tags;  /* JSON array */
    char host[256];
    fb3_wandb_past past;
    /* where it is recorded: <wandb_dir>/wandb/offline-run-<time>-<id> */
    char *root, *directory, *files;
    fb3_wandb_log *log;
    fb3_proto record;  /* the one that is being written */
    int64_t records;   /* written */
    int64_t history;   /* the next _step */
    double began;      /* fb3_seconds() */
    double start_time; /* the same moment, seconds since 1970 */
    json_t *summary;   /* key -> value, or -> {"min": value} */
    fb3_meter meter;
    double metered; /* fb3_seconds() of the last statistics */
    char config_sha256[FB3_SHA256_HEX];
    bool ended;
} fb3_wandb;

/* --- wandb_run.c -------------------------------------------------------------------------------------------------- */

/* Fills in the identity: configuration, then WANDB_* variables, then defaults. */
fb3_status fb3_wandb_identify(fb3_wandb *w);
/* Reads the run's earlier parts into w->past. */
fb3_status fb3_wandb_recall(fb3_wandb *w);

/* --- wandb_records.c ---------------------------------------------------------------------------------------------- */

/* A value that belongs to a moment. `least`: the summary keeps the smallest. */
typedef struct fb3_wandb_value {
    const char *key;
    double number;
    bool least;
} fb3_wandb_value;

double fb3_wandb_now(void); /* seconds since 1970 */
double fb3_wandb_runtime(const fb3_wandb *w);
fb3_status fb3_wandb_write_header(fb3_wandb *w);
/* `config` is a JSON object; `commit` may be "". */
fb3_status fb3_wandb_write_run(fb3_wandb *w, const json_t *config, const char *commit);
fb3_status fb3_wandb_write_metric(fb3_wandb *w, const char *name, bool least);
fb3_status fb3_wandb_write_files(fb3_wandb *w, const char *const *paths, int count);
/* A history record with _step, _runtime and _timestamp, and the summary that follows from it. */
fb3_status fb3_wandb_write_history(fb3_wandb *w, const fb3_wandb_value *values, int count);
fb3_status fb3_wandb_write_summary(fb3_wandb *w, const fb3_wandb_value *values, int count);
/* All of w->summary. */
fb3_status fb3_wandb_repeat_summary(fb3_wandb *w);
fb3_status fb3_wandb_write_stats(fb3_wandb *w, const fb3_meter_value *values, int count);
fb3_status fb3_wandb_write_console(fb3_wandb *w, const char *line);
fb3_status fb3_wandb_write_artifact(fb3_wandb *w, const fb3_artifact *artifact, const char *directory,
                                    const char *metadata);
fb3_status fb3_wandb_write_preempting(fb3_wandb *w);
fb3_status fb3_wandb_write_exit(fb3_wandb *w, int code);

/* --- wandb_files.c ------------------------------------------------------------------------------------------------ */

fb3_status fb3_wandb_make_directory(fb3_wandb *w);
fb3_status fb3_wandb_write_config_file(const fb3_wandb *w, const json_t *config);
fb3_status fb3_wandb_write_metadata_file(const fb3_wandb *w, const char *device, const char *commit);
fb3_status fb3_wandb_write_summary_file(const fb3_wandb *w);
/* `count` random lower-case letters and digits and the terminating 0. */
fb3_status fb3_wandb_random_name(char *name, int count);

#endif
