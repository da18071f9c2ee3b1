/* Building a ragged batch: the tokens of B samples, concatenated, and the index arrays that the operations need. */
#include "fb3/batch.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };

fb3_status fb3_batch_create(fb3_batch **batch, int max_tokens, int max_sequences, int targets)
{
    assert(max_tokens >= 0 && max_sequences >= 0 && targets >= 0);
    *batch = NULL;
    fb3_batch *b = calloc(1, sizeof *b);
    FB3_REQUIRE(b, FB3_FAILED, "out of memory for a batch");
    size_t tokens = (size_t)max_tokens + 1, sequences = (size_t)max_sequences + 1; /* one more: no size is zero */
    b->Y = targets;
    b->capacity_T = max_tokens;
    b->capacity_B = max_sequences;
    b->ids = calloc(tokens, sizeof *b->ids);
    b->seq_start = calloc(sequences, sizeof *b->seq_start);
    b->token_seq = calloc(tokens, sizeof *b->token_seq);
    b->sample = calloc(sequences, sizeof *b->sample);
    b->by_id = calloc(tokens, sizeof *b->by_id);
    b->id_start = calloc(tokens, sizeof *b->id_start);
    b->id_value = calloc(tokens, sizeof *b->id_value);
    b->scratch = calloc(tokens, sizeof *b->scratch);
    if (targets > 0) b->targets = calloc(sequences * (size_t)targets, sizeof *b->targets);
    bool good = b->ids && b->seq_start && b->token_seq && b->sample && b->by_id && b->id_start && b->id_value &&
                b->scratch && (targets == 0 || b->targets);
    if (!good) {
        fb3_batch_free(b);
        return fb3_fail(FB3_FAILED, "out of memory for a batch of %d tokens; use a smaller batch or max_length",
                        max_tokens);
    }
    *batch = b;
    return FB3_OK;
}

void fb3_batch_free(fb3_batch *batch)
{
    if (!batch) return;
    free(batch->ids);
    free(batch->seq_start);
    free(batch->token_seq);
    free(batch->sample);
    free(batch->targets);
    free(batch->by_id);
    free(batch->id_start);
    free(batch->id_value);
    free(batch->scratch);
    free(batch);
}

/* Sequence b owns tokens seq_start[b] .. seq_start[b+1]-1. */
static fb3_status lay_out(fb3_batch *batch, const fb3_dataset *dataset, const int64_t *rows, int count)
{
    FB3_REQUIRE(count <= batch->capacity_B, FB3_FAILED, "%d samples are more than a batch of %d holds", count,
                batch->capacity_B);
    FB3_REQUIRE(batch->Y == dataset->targets, FB3_FAILED, "a batch with %d targets cannot hold samples with %d",
                batch->Y, dataset->targets);
    int64_t at = 0;
    int longest = 0;
    for (int b = 0; b < count; b++) {
        int length = fb3_dataset_length(dataset, rows[b]);
        FB3_REQUIRE(at + length <= batch->capacity_T, FB3_FAILED, "%d samples have more than the %d tokens of a batch",
                    count, batch->capacity_T);
        for (int t = 0; t < length; t++) batch->token_seq[at + t] = b;
        batch->seq_start[b] = (int32_t)at;
        batch->sample[b] = (uint32_t)rows[b];
        at += length;
        if (length > longest) longest = length;
    }
    batch->seq_start[count] = (int32_t)at;
    batch->T = (int)at;
    batch->B = count;
    batch->max_len = longest;
    return FB3_OK;
}

/* Token ids of the data set in scratch [T] -> rows of the active word table in ids [T]. */
static fb3_status map_ids(fb3_batch *batch, const int32_t *row_of_token, int vocabulary)
{
    const uint32_t *token = batch->scratch;
    for (int t = 0; t < batch->T; t++) {
        int32_t row = token[t] < (uint32_t)vocabulary ? row_of_token[token[t]] : -1;
        FB3_REQUIRE(row >= 0, FB3_FAILED,
                    "sample %u has the token id %u, which the data set's vocabulary does not list; prepare it again",
                    batch->sample[batch->token_seq[t]], token[t]);
        batch->ids[t] = row;
    }
    return FB3_OK;
}

/* One pass of a radix sort: positions in the order of one digit of their ids, equal digits in the order before. */
static void sort_by_digit(const int32_t *ids, const int32_t *from, int32_t *to, int T, int shift)
{
    int32_t start[DIGITS + 1] = {0};
    for (int i = 0; i < T; i++) start[(ids[from[i]] >> shift & (DIGITS - 1)) + 1]++;
    for (int digit = 0; digit < DIGITS; digit++) start[digit + 1] += start[digit];
    for (int i = 0; i < T; i++) to[start[ids[from[i]] >> shift & (DIGITS - 1)]++] = from[i];
}

/* by_id [T] sorted by (id, position); segments id_start [U+1], id_value [U]. */
static void group_by_id(fb3_batch *batch)
{
    int32_t largest = 0, *from = batch->by_id, *to = (int32_t *)batch->scratch;
    for (int t = 0; t < batch->T; t++) {
        from[t] = t;
        if (batch->ids[t] > largest) largest = batch->ids[t];
    }
    for (int shift = 0; shift < (int)sizeof largest * CHAR_BIT - 1 && largest >> shift > 0; shift += DIGIT_BITS) {
        sort_by_digit(batch->ids, from, to, batch->T, shift);
        int32_t *sorted = to;
        to = from;
        from = sorted;
    }
    if (from != batch->by_id) memcpy(batch->by_id, from, (size_t)batch->T * sizeof *from);
    batch->U = 0;
    for (int i = 0; i < batch->T; i++) {
        int32_t id = batch->ids[batch->by_id[i]];
        if (i > 0 && id == batch->id_value[batch->U - 1]) continue;
        batch->id_value[batch->U] = id;
        batch->id_start[batch->U++] = i;
    }
    batch->id_start[batch->U] = batch->T;
}

static fb3_status build(fb3_batch *batch, const fb3_dataset *dataset, const int32_t *row_of_token, int vocabulary,
                        const int64_t *rows, int count)
{
    FB3_TRY(lay_out(batch, dataset, rows, count));
    FB3_TRY(fb3_dataset_read_tokens(dataset, rows, count, batch->scratch));
    if (batch->Y > 0) FB3_TRY(fb3_dataset_read_labels(dataset, rows, count, batch->targets));
    FB3_TRY(map_ids(batch, row_of_token, vocabulary));
    group_by_id(batch);
    return FB3_OK;
}

fb3_status fb3_batch_build(fb3_batch *batch, const fb3_dataset *dataset, const int32_t *row_of_token, int vocabulary,
                           const int64_t *rows, int count)
{
    fb3_status status = build(batch, dataset, row_of_token, vocabulary, rows, count);
    if (status != FB3_OK) batch->T = batch->B = batch->U = batch->max_len = 0; /* never a batch half filled */
    return status;
}
