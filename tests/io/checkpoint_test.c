#include "checkpoint_test.h"

#include <stdlib.h>
#include <string.h>

const uint32_t checkpoint_active_ids[CHECKPOINT_ACTIVE] = {0, 1, 2, 17, 39};
const unsigned char checkpoint_spm[] = "not a real tokenizer, but its bytes travel\0\xff";
const size_t checkpoint_spm_bytes = sizeof checkpoint_spm;

/* Moments differ from the weights by this much. */
static const float M_SHIFT = 0.25f, V_SHIFT = 0.5f;

void make_trained(trained_model *model)
{
    assert_ok(fb3_param_table_create(&model->table, &tiny_model, CHECKPOINT_ACTIVE, TINY_TARGETS));
    assert_ok(fb3_weights_alloc(&model->weights, model->table));
    model->m = calloc((size_t)model->table->size, sizeof(float));
    model->v = calloc((size_t)model->table->size, sizeof(float));
    assert_non_null(model->m);
    assert_non_null(model->v);
}

void free_trained(trained_model *model)
{
    fb3_weights_free(&model->weights);
    fb3_param_table_free(model->table);
    free(model->m);
    free(model->v);
}

static void fill_arena(const fb3_param_table *table, float *arena, float shift)
{
    for (int p = 0; p < table->count; p++) {
        const fb3_param *param = &table->param[p];
        for (int64_t i = 0; i < param->count; i++) arena[param->offset + i] = golden_value(param->name, i) + shift;
    }
}

static void assert_arena(const fb3_param_table *table, const float *arena, float shift)
{
    for (int p = 0; p < table->count; p++) {
        const fb3_param *param = &table->param[p];
        for (int64_t i = 0; i < param->count; i++)
            if (arena[param->offset + i] != golden_value(param->name, i) + shift)
                fail_msg("a moment of %s[%lld] is not that of its step", param->name, (long long)i);
    }
}

fb3_checkpoint_state state_of_step(int64_t step)
{
    fb3_checkpoint_state state = {
        .step = step,
        .samples_seen = 8 * step,
        .updates = step - 1,
        .epoch = (double)step / 7,
        .seed = -42,
        .total_steps = (int64_t)1 << 40,
        .total_train_batch_size = 8,
        .fold = 2,
        .best_metric = 0.4531,
        .best_step = step / 2,
        .patience_used = 1,
        .nonfinite_in_a_row = 3,
        .fold_complete = 0,
        .config = "learning_rate: 1e-05\nseed: -42\n",
        .label_columns = "[\"cohesion\", \"Größe\"]",
        .max_length = 512,
    };
    memset(state.data_sha256, 'd', FB3_SHA256_HEX - 1);
    memset(state.tokenizer_sha256, 'e', FB3_SHA256_HEX - 1);
    return state;
}

fb3_status write_step(trained_model *model, const char *path, const char *previous, int64_t step, bool with_optimizer)
{
    return write_step_giving_way(model, path, previous, step, with_optimizer, NULL);
}

fb3_status write_step_giving_way(trained_model *model, const char *path, const char *previous, int64_t step,
                                 bool with_optimizer, fb3_worker *give_way_to)
{
    fb3_checkpoint_state state = state_of_step(step);
    fill_golden(model->table, &model->weights, (float)step);
    fill_arena(model->table, model->m, (float)step + M_SHIFT);
    fill_arena(model->table, model->v, (float)step + V_SHIFT);
    const fb3_checkpoint_content content = {.table = model->table,
                                            .weights = model->weights,
                                            .m = with_optimizer ? model->m : NULL,
                                            .v = with_optimizer ? model->v : NULL,
                                            .active_ids = checkpoint_active_ids,
                                            .spm = checkpoint_spm,
                                            .spm_bytes = checkpoint_spm_bytes,
                                            .state = &state};
    return fb3_checkpoint_write(path, previous, &content, give_way_to);
}

static void assert_state(const fb3_checkpoint_state *got, const fb3_checkpoint_state *wanted)
{
    assert_int_equal(got->step, wanted->step);
    assert_int_equal(got->samples_seen, wanted->samples_seen);
    assert_int_equal(got->updates, wanted->updates);
    assert_true(got->epoch == wanted->epoch);
    assert_int_equal(got->seed, wanted->seed);
    assert_int_equal(got->total_steps, wanted->total_steps);
    assert_int_equal(got->total_train_batch_size, wanted->total_train_batch_size);
    assert_int_equal(got->fold, wanted->fold);
    assert_true(got->best_metric == wanted->best_metric);
    assert_int_equal(got->best_step, wanted->best_step);
    assert_int_equal(got->patience_used, wanted->patience_used);
    assert_int_equal(got->nonfinite_in_a_row, wanted->nonfinite_in_a_row);
    assert_int_equal(got->fold_complete, wanted->fold_complete);
    assert_string_equal(got->config, wanted->config);
    assert_string_equal(got->label_columns, wanted->label_columns);
    assert_string_equal(got->data_sha256, wanted->data_sha256);
    assert_string_equal(got->weights_sha256, wanted->weights_sha256);
    assert_string_equal(got->tokenizer_sha256, wanted->tokenizer_sha256);
    assert_int_equal(got->max_length, wanted->max_length);
}

fb3_status read_step(trained_model *model, const fb3_checkpoint *checkpoint)
{
    const fb3_checkpoint_state *state = fb3_checkpoint_state_of(checkpoint);
    fb3_checkpoint_state wanted = state_of_step(state->step);
    void *spm = NULL;
    size_t spm_bytes = 0;
    memset(model->weights.arena, 0, (size_t)model->table->size * sizeof(float));
    FB3_TRY(fb3_checkpoint_tokenizer(checkpoint, &spm, &spm_bytes));
    bool same = spm_bytes == checkpoint_spm_bytes && memcmp(spm, checkpoint_spm, spm_bytes) == 0;
    free(spm);
    assert_true(same);
    FB3_TRY(fb3_checkpoint_read_weights(checkpoint, model->table, &model->weights));
    assert_golden(model->table, &model->weights, (float)state->step, true);
    assert_state(state, &wanted);
    assert_memory_equal(fb3_checkpoint_model(checkpoint), &tiny_model, sizeof tiny_model);
    assert_int_equal(fb3_checkpoint_targets(checkpoint), TINY_TARGETS);
    if (!fb3_checkpoint_has_optimizer(checkpoint)) return FB3_OK;
    FB3_TRY(fb3_checkpoint_read_moments(checkpoint, model->table, model->m, model->v, checkpoint_active_ids));
    assert_arena(model->table, model->m, (float)state->step + M_SHIFT);
    assert_arena(model->table, model->v, (float)state->step + V_SHIFT);
    return FB3_OK;
}
