/* The order of samples and their owners: pure functions of (data_seed, fold, epoch, position), so a resumed run, or one
 * on other ranks, meets the same samples in the same global batches. */
#include "fb3/sampler.h"

#include <assert.h>
#include <stdlib.h>

enum {
    /* Grouping by length as Hugging Face's trainer does it: pools of 50 batches, fewer where the epoch is short. */
    POOL_BATCHES = 50,
    POOLS_PER_EPOCH = 4,
};

int64_t fb3_sampler_steps_per_epoch(const fb3_sampler *sampler)
{
    return (sampler->n + sampler->global_batch - 1) / sampler->global_batch;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The row at a position of the epoch's random order. */
static int64_t row_at(const fb3_sampler *sampler, int64_t epoch, int64_t position)
{
    return sampler->train_rows[fb3_permute(position, sampler->n, sampler->key, (uint32_t)epoch)];
}

typedef struct pooled {
    int64_t row, length, position;
} pooled;

static int longest_first(const void *left, const void *right)
{
    const pooled *a = left, *b = right;
    if (a->length != b->length) return a->length > b->length ? -1 : 1;
    return a->position < b->position ? -1 : a->position > b->position;
}

/* The pool that holds positions first..end-1 starts at a multiple of whole batches, so no batch crosses pools. */
static fb3_status grouped_batch(const fb3_sampler *sampler, int64_t epoch, int64_t first, int64_t end, int64_t *rows)
{
    int64_t batches = smaller(sampler->n / (POOLS_PER_EPOCH * sampler->global_batch), POOL_BATCHES);
    if (batches < 1) batches = 1;
    int64_t pool_size = batches * sampler->global_batch;
    int64_t pool_first = first / pool_size * pool_size, pool_end = smaller(pool_first + pool_size, sampler->n);
    pooled *pool = malloc((size_t)(pool_end - pool_first) * sizeof *pool);
    FB3_REQUIRE(pool, FB3_FAILED, "out of memory for grouping %lld samples by length", (long long)pool_size);
    for (int64_t position = pool_first; position < pool_end; position++) {
        int64_t row = row_at(sampler, epoch, position);
        pool[position - pool_first] = (pooled){row, sampler->offsets[row + 1] - sampler->offsets[row], position};
    }
    qsort(pool, (size_t)(pool_end - pool_first), sizeof *pool, longest_first);
    for (int64_t i = first; i < end; i++) rows[i - first] = pool[i - pool_first].row;
    free(pool);
    return FB3_OK;
}

fb3_status fb3_sampler_batch(const fb3_sampler *sampler, int64_t epoch, int64_t index, int64_t *rows, int64_t *count)
{
    assert(epoch >= 0 && epoch <= UINT32_MAX && index >= 0 && index < fb3_sampler_steps_per_epoch(sampler));
    int64_t first = index * sampler->global_batch, end = smaller(first + sampler->global_batch, sampler->n);
    *count = end - first;
    if (sampler->group_by_length) return grouped_batch(sampler, epoch, first, end, rows);
    for (int64_t i = first; i < end; i++) rows[i - first] = row_at(sampler, epoch, i);
    return FB3_OK;
}

double fb3_sample_cost(int length, int hidden)
{
    const double linear = 24.0, attention = 8.0;
    double C = hidden, tokens = length;
    return tokens * (linear * C * C + attention * C * tokens);
}

typedef struct priced {
    double cost;
    int64_t position;
} priced;

static int dearest_first(const void *left, const void *right)
{
    const priced *a = left, *b = right;
    if (a->cost != b->cost) return a->cost > b->cost ? -1 : 1;
    return a->position < b->position ? -1 : a->position > b->position;
}

/* What a rank carries so far, and how many samples it may still take. */
typedef struct burden {
    double cost;
    int64_t room;
} burden;

static int least_burdened(const burden *rank, int ranks)
{
    int best = -1;
    for (int r = 0; r < ranks; r++) {
        if (rank[r].room > 0 && (best < 0 || rank[r].cost < rank[best].cost)) best = r;
    }
    return best;
}

fb3_status fb3_deal_ranks(const double *cost, int64_t count, int ranks, int32_t *owner)
{
    assert(ranks >= 1 && count >= 0);
    if (count == 0) return FB3_OK;
    fb3_status status = FB3_OK;
    priced *sample = malloc((size_t)count * sizeof *sample);
    burden *rank = malloc((size_t)ranks * sizeof *rank);
    FB3_REQUIRE_GOTO(sample && rank, done, FB3_FAILED, "out of memory for dealing %lld samples", (long long)count);
    for (int64_t i = 0; i < count; i++) sample[i] = (priced){cost[i], i};
    for (int r = 0; r < ranks; r++) rank[r] = (burden){0, count / ranks + (r < count % ranks)};
    qsort(sample, (size_t)count, sizeof *sample, dearest_first);
    for (int64_t i = 0; i < count; i++) {
        int r = least_burdened(rank, ranks);
        assert(r >= 0); /* the rooms add up to count */
        rank[r].cost += sample[i].cost;
        rank[r].room--;
        owner[sample[i].position] = r;
    }
done:
    free(sample);
    free(rank);
    return status;
}
