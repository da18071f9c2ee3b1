/* Attributes of a checkpoint's group /train. Private to src/io. */
#ifndef FB3_IO_CHECKPOINT_STATE_H
#define FB3_IO_CHECKPOINT_STATE_H

#include "fb3/checkpoint.h"
#include "fb3/h5.h"

fb3_status fb3_checkpoint_state_write(hid_t train, const fb3_checkpoint_state *state);
/* Into a zeroed state; on a failure the caller frees what is there. */
fb3_status fb3_checkpoint_state_read(hid_t train, fb3_checkpoint_state *state);
/* On standard output. */
void fb3_checkpoint_state_print(const fb3_checkpoint_state *state);

/* An integer attribute that fits an int. */
fb3_status fb3_h5_get_plain_int(hid_t object, const char *name, int *value);

#endif
