/* A ragged batch: T real tokens of B sequences, concatenated. No [B, max_len] array exists anywhere. */
#ifndef FB3_BATCH_H
#define FB3_BATCH_H

#include "fb3/backend.h"
#include "fb3/dataset.h"

/* On the host, built by fb3_batch_build (pinned memory on CUDA comes through the backend's upload). */
typedef struct fb3_batch {
    int T, B, Y, max_len; /* tokens, sequences, targets, longest sequence */
    int32_t *ids;         /* [T] rows of the *active* word table */
    int32_t *seq_start;   /* [B+1] */
    int32_t *token_seq;   /* [T] which sequence a token belongs to */
    uint32_t *sample;     /* [B] global sample index (row of the data set): the dropout counter */
    float *targets;       /* [B, Y]; absent (NULL) in a test set */
    /* tokens grouped by id, for the embedding gradient in a fixed order */
    int32_t *by_id;    /* [T] token positions, sorted by (id, position) */
    int32_t *id_start; /* [U+1] segments of by_id */
    int32_t *id_value; /* [U] the id of each segment, ascending */
    int U;
    int capacity_T, capacity_B;
    uint32_t *scratch; /* [capacity_T] of fb3_batch_build */
} fb3_batch;

/* Room for any batch of at most `max_tokens` tokens and `max_sequences` sequences. */
fb3_status fb3_batch_create(fb3_batch **batch, int max_tokens, int max_sequences, int targets);
void fb3_batch_free(fb3_batch *batch);

/* Reads the rows and fills everything. `row_of_token` [vocabulary] maps token id to active row (-1: not active, an
 * internal error). FB3_FAILED when reading fails. count == 0 gives an empty batch (T = B = 0). */
fb3_status fb3_batch_build(fb3_batch *batch, const fb3_dataset *dataset, const int32_t *row_of_token, int vocabulary,
                           const int64_t *rows, int count);

#endif
