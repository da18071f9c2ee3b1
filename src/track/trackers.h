/* The trackers of report_to, one line each; a row of track.c's table makes one known. *tracker is NULL where there is
 * nothing to keep and nothing is wrong. Called on the thread of the trackers. */
#ifndef FB3_TRACK_TRACKERS_H
#define FB3_TRACK_TRACKERS_H

#include "fb3/track.h"

/* TensorBoard: an event file in the fold's directory, so that `tensorboard --logdir <output_dir>` shows a run per fold.
 * Tags are those of Hugging Face's TensorBoardCallback: train/loss, eval/MCRMSE, ...; the configuration is a text. Each
 * start has a file of its own, which tells readers to forget what an earlier one has after `resume_step`. */
fb3_status fb3_tracker_open_tensorboard(fb3_tracker **tracker, const fb3_track_place *place);

/* Weights & Biases, offline: a run per fold. */
fb3_status fb3_tracker_open_wandb(fb3_tracker **tracker, const fb3_track_place *place);
/* WANDB_MODE=disabled or WANDB_DISABLED=true. */
bool fb3_wandb_disabled(void);

#endif
