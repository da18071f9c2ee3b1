/* TensorBoard: an event file in the fold's directory, so that `tensorboard --logdir <output_dir>` shows a run per fold.
 * Tags are those of Hugging Face's TensorBoardCallback: train/loss, eval/MCRMSE, ...; the configuration is a text. */
#ifndef FB3_TRACK_TENSORBOARD_H
#define FB3_TRACK_TENSORBOARD_H

#include "fb3/track.h"

/* Each start has a file of its own, which tells readers to forget what an earlier one has after `resume_step`. */
fb3_status fb3_tracker_open_tensorboard(fb3_tracker **tracker, const fb3_track_place *place);

#endif
