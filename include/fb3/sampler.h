/* Which samples form a global batch, and which rank takes which of them. Pure functions of (data_seed, fold, epoch,
 * position): nothing is stored per epoch, so a resume needs a step number only. */
#ifndef FB3_SAMPLER_H
#define FB3_SAMPLER_H

#include "fb3/rng.h"
#include "fb3/status.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct fb3_sampler {
    const int32_t *train_rows; /* [n] rows of the data set that this fold trains on, ascending; borrowed */
    int64_t n;
    const int64_t *offsets; /* the data set's, for lengths; borrowed */
    int64_t global_batch;
    bool group_by_length;
    fb3_rng_key key; /* of (data_seed, fold) */
} fb3_sampler;

/* ceil(n / global_batch): the last batch of an epoch may be short, no sample is dropped or repeated. */
int64_t fb3_sampler_steps_per_epoch(const fb3_sampler *sampler);

/* The rows of global batch `index` of `epoch`, in order, into rows[global_batch]; *count of them. With
 * group_by_length: Hugging Face's mega-batches of 50 batches, sorted by length, longest first, stable.
 * fb3_status because grouping needs memory for one mega-batch. */
fb3_status fb3_sampler_batch(const fb3_sampler *sampler, int64_t epoch, int64_t index, int64_t *rows, int64_t *count);

/* The cost model that balances ranks: time of a sample of `length` tokens, in arbitrary units. `hidden` is C: the
 * linear layers cost 24 C^2 a token, attention about 8 C (length) a token. A fixed formula, never a measurement. */
double fb3_sample_cost(int length, int hidden);

/* Deals a global batch to `ranks` ranks: counts differ by at most one (the first ranks take the larger), and within
 * that the costs are as even as longest-processing-time-first makes them; ties go to the lower rank. owner[i] is the
 * rank of batch position i. The same on every rank. */
fb3_status fb3_deal_ranks(const double *cost, int64_t count, int ranks, int32_t *owner);

#endif
