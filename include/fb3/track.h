/* Keeping a record of a run. A tracker is a table of operations; metrics.jsonl is always there and is the truth, any
 * number of others may follow (report_to). Only the writer of a fold (group rank 0) has trackers.
 *
 * metrics.jsonl is written at once, on the thread that trains: its failure is an error of the run. The others are
 * opened, written and closed by a thread of their own behind a queue of bounded length. One that fails warns once and
 * is left out from then on; one that cannot keep up loses steps, which metrics.jsonl has. Neither stops training. */
#ifndef FB3_TRACK_H
#define FB3_TRACK_H

#include "fb3/metrics.h"

/* What a rank's replica takes, in bytes: in the memory of its device, or of the node where that is a processor. */
typedef struct fb3_memory_record {
    double parameters;  /* with their copy in bf16 */
    double gradients;   /* with the sums of integers that reproducible mode adds them in */
    double moments;     /* of AdamW */
    double activations; /* at most: of the longest batch */
    double workspace;   /* of the operations, at most */
} fb3_memory_record;

typedef struct fb3_run_record {
    const char *config_text;
    int fold, folds, world_size, group_size;
    const char *device;
    int64_t parameters, active_vocabulary, total_steps, train_samples, eval_samples;
    fb3_memory_record memory;
    const char *versions; /* JSON object text */
} fb3_run_record;

typedef struct fb3_step_record {
    int fold;
    int64_t step; /* finished optimizer steps, first is 1 */
    double epoch, loss, grad_norm, learning_rate, samples_per_second, tokens_per_second, peak_memory_mb;
    bool skipped;               /* a non-finite step: nothing was learned */
    const fb3_strings *samples; /* NULL unless log_samples */
} fb3_step_record;

typedef struct fb3_eval_record {
    int fold;
    int64_t step;
    double epoch, samples_per_second;
    const fb3_scores *scores;
    const fb3_strings *targets;
} fb3_eval_record;

typedef struct fb3_checkpoint_record {
    int fold;
    int64_t step;
    const char *path; /* relative to the fold's directory */
    bool best;
} fb3_checkpoint_record;

typedef struct fb3_end_record {
    int fold;
    int64_t step;
    double train_runtime, samples_per_second, steps_per_second, best_metric;
    const char *best_model_checkpoint;
} fb3_end_record;

/* What `export --format torch` made of the fold's best.h5 when the fold was complete. */
typedef struct fb3_model_record {
    int fold;
    int64_t step; /* of the best evaluation; of the last step where there was none */
    double score; /* metric_for_best_model; NaN where nothing was evaluated */
    const char *directory;
} fb3_model_record;

/* Where and of what a record is kept. It lives as long as the tracker. */
typedef struct fb3_track_place {
    const fb3_config *config; /* resolved; it does not change any more */
    const char *directory;    /* of the fold: <output_dir>/fold-<k> */
    int fold, folds;
    int64_t resume_step; /* steps that are done; 0: a fresh start, whatever was there before is of no interest */
} fb3_track_place;

typedef struct fb3_tracker fb3_tracker;
/* The records live until the call returns. `samples` of a step are metrics.jsonl's only. */
typedef struct fb3_tracker_ops {
    const char *name;
    fb3_status (*config)(fb3_tracker *tracker, const fb3_run_record *run); /* first, at every start and resume */
    fb3_status (*step)(fb3_tracker *tracker, const fb3_step_record *step);
    fb3_status (*eval)(fb3_tracker *tracker, const fb3_eval_record *eval);
    fb3_status (*artifact)(fb3_tracker *tracker, const fb3_checkpoint_record *checkpoint);
    fb3_status (*end)(fb3_tracker *tracker, const fb3_end_record *end);
    /* These two may be NULL. */
    fb3_status (*model)(fb3_tracker *tracker, const fb3_model_record *model); /* after the end */
    fb3_status (*console)(fb3_tracker *tracker, const char *line);            /* what a person was told, no newline */
    /* How the fold was left: FB3_OK complete, FB3_STOPPED to be continued, else it failed. Frees the tracker; also
     * called for one that has failed. */
    void (*close)(fb3_tracker *tracker, fb3_status left);
} fb3_tracker_ops;
struct fb3_tracker {
    const fb3_tracker_ops *ops;
    bool failed;
};

/* Opens <directory>/metrics.jsonl for appending; events of steps after `resume_step` (done again after a kill) are
 * dropped first, atomically, so that a reader sees each step once. resume_step 0: a fresh start. */
fb3_status fb3_tracker_open_jsonl(fb3_tracker **tracker, const fb3_track_place *place);

/* All trackers of a fold: the same event to each. The texts of a record are copied where it has to wait; eval's
 * `targets` are not, they are the configuration's. */
typedef struct fb3_track_queue fb3_track_queue;
typedef struct fb3_track {
    fb3_tracker *jsonl;
    fb3_track_queue *others; /* NULL: there are none */
} fb3_track;
fb3_status fb3_track_open(fb3_track *track, const fb3_track_place *place);
fb3_status fb3_track_config(fb3_track *track, const fb3_run_record *run);
fb3_status fb3_track_step(fb3_track *track, const fb3_step_record *step);
fb3_status fb3_track_eval(fb3_track *track, const fb3_eval_record *eval);
fb3_status fb3_track_artifact(fb3_track *track, const fb3_checkpoint_record *checkpoint);
fb3_status fb3_track_end(fb3_track *track, const fb3_end_record *end);
/* A tracker of report_to keeps models: a fold's is to be exported for it. */
bool fb3_track_keeps_models(const fb3_config *config);
/* To the others only. */
void fb3_track_model(fb3_track *track, const fb3_model_record *model);
/* Waits until the others have caught up, or have not moved for two minutes. */
void fb3_track_close(fb3_track *track, fb3_status left);

/* --- the person at the terminal ----------------------------------------------------------------------------------- */

/* The table of scores at the end, on standard output: a row per fold, pooled, the mean predictor. */
typedef struct fb3_score_row {
    const char *name;
    fb3_scores scores;
} fb3_score_row;
void fb3_print_scores(const fb3_score_row *rows, int count, const fb3_strings *targets);

#endif
