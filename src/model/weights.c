/* Host weights: allocation, random starts, and the copies between the full and the active word table. */
#include "fb3/params.h"
#include "fb3/rng.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* transformers zeroes the embedding of [PAD], the first row, in a random start. */
enum { PAD_ROW = 0 };

static size_t word_elements(const fb3_param_table *table)
{
    return (size_t)table->model.vocab * (size_t)table->model.hidden;
}

fb3_status fb3_weights_alloc(fb3_weights *weights, const fb3_param_table *table)
{
    weights->arena = calloc((size_t)table->size, sizeof(float));
    weights->word_full = calloc(word_elements(table), sizeof(float));
    if (!weights->arena || !weights->word_full) {
        fb3_weights_free(weights);
        return fb3_fail(FB3_FAILED, "out of memory for %lld weights on the host; take a smaller model or more memory",
                        (long long)table->full_parameters);
    }
    return FB3_OK;
}

void fb3_weights_free(fb3_weights *weights)
{
    free(weights->arena);
    free(weights->word_full);
    *weights = (fb3_weights){0};
}

/* The tensor's number in its random stream: kind and layer, which is what its name says. */
static uint32_t stream_of(const fb3_param *param)
{
    return (uint32_t)(param->layer + 1) * FB3_PARAM_KINDS + (uint32_t)param->kind;
}

static void fill(float *values, int64_t count, const fb3_param *param, float sigma, uint64_t seed)
{
    switch (param->init) {
    case FB3_INIT_NORMAL:
        fb3_rng_normal(values, count, sigma, fb3_rng_key_make(seed, -1), stream_of(param));
        break;
    case FB3_INIT_ZERO:
        for (int64_t i = 0; i < count; i++) values[i] = 0.0f;
        break;
    case FB3_INIT_ONE:
        for (int64_t i = 0; i < count; i++) values[i] = 1.0f;
        break;
    }
}

void fb3_weights_random(fb3_weights *weights, const fb3_param_table *table, uint64_t seed)
{
    float sigma = table->model.initializer_range;
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        if (param->kind == FB3_PARAM_WORD)
            fill(weights->word_full, (int64_t)word_elements(table), param, sigma, seed);
        else
            fill(weights->arena + param->offset, param->count, param, sigma, seed);
    }
    memset(weights->word_full + (size_t)PAD_ROW * (size_t)table->model.hidden, 0,
           (size_t)table->model.hidden * sizeof(float));
}

void fb3_weights_random_head(fb3_weights *weights, const fb3_param_table *table, uint64_t seed)
{
    const fb3_param_kind head[] = {FB3_PARAM_HEAD_WEIGHT, FB3_PARAM_HEAD_BIAS};
    for (size_t i = 0; i < sizeof head / sizeof head[0]; i++) {
        const fb3_param *param = fb3_param_find(table, head[i], -1);
        fill(weights->arena + param->offset, param->count, param, table->model.initializer_range, seed);
    }
}

void fb3_weights_gather_word(fb3_weights *weights, const fb3_param_table *table, const uint32_t *active_ids)
{
    size_t columns = (size_t)table->model.hidden;
    float *active = weights->arena + fb3_param_find(table, FB3_PARAM_WORD, -1)->offset; // [A, C]
    for (size_t row = 0; row < (size_t)table->active; row++) {
        assert(active_ids[row] < (uint32_t)table->model.vocab);
        memcpy(active + row * columns, weights->word_full + active_ids[row] * columns, columns * sizeof(float));
    }
}

void fb3_weights_scatter_word(fb3_weights *weights, const fb3_param_table *table, const uint32_t *active_ids)
{
    size_t columns = (size_t)table->model.hidden;
    const float *active = weights->arena + fb3_param_find(table, FB3_PARAM_WORD, -1)->offset; // [A, C]
    for (size_t row = 0; row < (size_t)table->active; row++) {
        assert(active_ids[row] < (uint32_t)table->model.vocab);
        memcpy(weights->word_full + active_ids[row] * columns, active + row * columns, columns * sizeof(float));
    }
}
