/* A checkpoint with known content, for the tests of checkpoint_h5.c and checkpoint_hash.c. */
#ifndef FB3_TESTS_CHECKPOINT_TEST_H
#define FB3_TESTS_CHECKPOINT_TEST_H

#include "io_test.h"

#include "fb3/checkpoint.h"

enum { CHECKPOINT_ACTIVE = 5 };
extern const uint32_t checkpoint_active_ids[CHECKPOINT_ACTIVE];
extern const unsigned char checkpoint_spm[];
extern const size_t checkpoint_spm_bytes;

/* The tiny model with room for weights and moments. */
typedef struct trained_model {
    fb3_param_table *table;
    fb3_weights weights;
    float *m, *v;
} trained_model;

void make_trained(trained_model *model);
void free_trained(trained_model *model);

/* Writes the checkpoint of `step`: weights, moments and state are functions of it. */
fb3_status write_step(trained_model *model, const char *path, const char *previous, int64_t step, bool with_optimizer);
/* The same as a job of that worker. */
fb3_status write_step_giving_way(trained_model *model, const char *path, const char *previous, int64_t step,
                                 bool with_optimizer, fb3_worker *give_way_to);
/* Whether all that can be read from the checkpoint is what write_step wrote for its step. A failure to read is returned
 * as it is; content that differs fails the test. */
fb3_status read_step(trained_model *model, const fb3_checkpoint *checkpoint);
/* The state of a step, to compare. */
fb3_checkpoint_state state_of_step(int64_t step);

#endif
