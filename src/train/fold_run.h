/* A fold in training: shared by trainer.c (the loop) and save.c (its checkpoints). */
#ifndef FB3_FOLD_RUN_H
#define FB3_FOLD_RUN_H

#include "fb3/train.h"

/* What only the writer of the fold (group rank 0) holds. */
typedef struct fb3_fold_writer {
    float *word_full;     /* [vocab, C]: the whole word table, active rows refreshed when a file is written */
    float *staging[3];    /* host copies of param, m, v where the device has memory of its own (alloc_host) */
    fb3_oof_writer table; /* of the evaluation that is going on */
    fb3_track track;
} fb3_fold_writer;

/* One file of a checkpoint. */
typedef struct fb3_save_file {
    const char *name, *previous; /* in the fold's folder; previous NULL: what was there goes */
    bool optimizer;              /* with the optimizer's state */
    bool history;                /* save_total_limit counts it */
    fb3_checkpoint_state state;  /* as it was: training goes on. The texts in it are the fold's */
} fb3_save_file;

/* The checkpoint that is under way: best.h5 and last.h5 of one step are written from one copy, in that order. On the
 * ranks that do not write, `stage` tells only whether there is one. */
typedef struct fb3_fold_save {
    enum { FB3_SAVE_NONE, FB3_SAVE_COPYING, FB3_SAVE_WRITING } stage;
    int64_t step;
    fb3_save_file file[2];
    int files;
    float *param, *m, *v; /* on the host, once the copy is asked for */
    long ticket;          /* of the writing */
    fb3_status written;   /* how it went, when it has finished */
    bool recorded;        /* the trackers know */
} fb3_fold_save;

typedef struct fb3_fold_run {
    fb3_run *run;
    int fold;
    bool is_writer;
    fb3_fold_rows rows;
    const fb3_dataset *eval_data;
    fb3_replica replica;
    fb3_sampler sampler;
    fb3_trainer trainer;
    fb3_checkpoint_state state; /* what a checkpoint records; the same on all ranks but for the texts (writer only) */
    int64_t total_steps, steps_per_epoch;
    int64_t eval_steps, save_steps; /* resolved, for the strategy "steps" */
    bool stop_early;
    double started, trained_samples;
    fb3_fold_writer writer;
    fb3_fold_save save;
} fb3_fold_run;

/* nonfinite.c: says on the writer's log where a gradient that is not finite comes from. `plan` is that of the step,
 * which was skipped. Collective. */
fb3_status fb3_fold_report_nonfinite(fb3_fold_run *f, const fb3_step_plan *plan);

/* fold_evaluate.c: the scores of this step's weights on the fold's other samples. The table of its predictions waits
 * for fb3_fold_keep_table: it becomes the fold's oof.csv, or goes. Collective, both. */
fb3_status fb3_fold_evaluate(fb3_fold_run *f, fb3_scores *scores);
fb3_status fb3_fold_keep_table(fb3_fold_run *f, bool keep);

/* artifact.c: exports best.h5 for trackers that keep models, and tells them. To be called when best.h5 is final. Only
 * the writer has something to do; a failure is a warning. */
void fb3_fold_keep_model(fb3_fold_run *f);

/* save.c - collective; the writer writes through the I/O worker. On the CPU a file is complete when these return; where
 * the device has memory of its own they return while it is copied, training goes on, and fb3_fold_save_settle() tells
 * how it went. */

/* last.h5, with the optimizer's state or without; the complete one before it becomes previous.h5. */
fb3_status fb3_fold_save_last(fb3_fold_run *f, bool optimizer);
/* best.h5, weights only. */
fb3_status fb3_fold_save_best(fb3_fold_run *f);
/* initial.h5, before the first step. */
fb3_status fb3_fold_save_initial(fb3_fold_run *f);
/* The fold is complete: last.h5 is written without the optimizer's state, previous.h5 goes. Settled when it returns. */
fb3_status fb3_fold_save_complete(fb3_fold_run *f);
/* Moves a checkpoint on that is under way. Cheap; to be called after every step. Local. */
fb3_status fb3_fold_save_poll(fb3_fold_run *f);
/* Waits until no checkpoint is under way. A failure to write one is reported here, on all ranks. */
fb3_status fb3_fold_save_settle(fb3_fold_run *f);
/* Before the fold's memory goes, after an error: the same without a word to anybody, so local. The text of the error
 * stays. Nothing is under way after a settle. */
void fb3_fold_save_abandon(fb3_fold_run *f);
/* Fills the replica and f->state from the newest complete checkpoint, or from the starting weights. */
fb3_status fb3_fold_restore(fb3_fold_run *f);

#endif
