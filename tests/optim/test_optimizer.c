/* AdamW: its segments cover every parameter once; 50 steps follow PyTorch (golden/training.json); rows outside the
 * active vocabulary get the bits that a full table would have; a gradient that is not finite changes nothing. */
#include "fb3/optim.h"
#include "backend/device.h"
#include "model/fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const fixture_case small = {
    .model = {.vocab = 60,
              .hidden = 16,
              .layers = 1,
              .heads = 2,
              .intermediate = 32,
              .position_buckets = 8,
              .max_relative = 16,
              .layer_norm_eps = 1e-7f},
    .targets = 3,
    .lengths = {4},
    .sequences = 1,
};

static const fb3_config recipe = {
    .learning_rate = 1e-1,
    .weight_decay = 1e-1,
    .adam_beta1 = 0.9,
    .adam_beta2 = 0.999,
    .adam_epsilon = 1e-6,
    .max_grad_norm = 0,
};

/* With a decay of 0 all parameters are one group, and only padding keeps segments apart. */
static void check_segments(float decay)
{
    enum { NOBODY = -1 };
    fb3_param_table *table;
    fb3_adamw_segment *segments;
    int count;
    // Three targets: the head's bias does not fill its place, so there is padding to stay away from.
    must(fb3_param_table_create(&table, &small.model, 7, 3));
    must(fb3_param_segments(table, decay, &segments, &count));
    int *owner = malloc((size_t)table->size * sizeof *owner);
    for (int64_t e = 0; e < table->size; e++) owner[e] = NOBODY;
    for (int i = 0; i < count; i++)
        for (int64_t e = segments[i].offset; e < segments[i].offset + segments[i].count; e++) {
            assert_int_equal(owner[e], NOBODY);
            owner[e] = i;
        }
    int64_t covered = 0;
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        const size_t length = strlen(param->name);
        const bool bias = length >= 5 && strcmp(param->name + length - 5, ".bias") == 0;
        const bool plain = bias || strstr(param->name, "LayerNorm.weight") != NULL;
        const int segment = owner[param->offset];
        assert_true(segment != NOBODY);
        assert_true(segments[segment].decay == (plain ? 0.0f : decay));
        assert_true(segments[segment].lr_scale == 1.0f);
        for (int64_t e = 0; e < param->count; e++) {
            assert_int_equal(owner[param->offset + e], segment);
            owner[param->offset + e] = NOBODY;
            covered++;
        }
    }
    assert_int_equal(covered, table->parameters);
    for (int64_t e = 0; e < table->size; e++) assert_int_equal(owner[e], NOBODY); // no padding
    free(owner);
    free(segments);
    fb3_param_table_free(table);
}

static void test_segments_cover_every_parameter_once(void **state)
{
    (void)state;
    check_segments(0.25f);
    check_segments(0.0f);
}

/* Arenas without a model: what the optimizer needs. */
typedef struct arenas_of_table {
    fb3_backend *be;
    fb3_param_table *table;
    fb3_arenas arenas;
    fb3_optimizer *optimizer;
} bench;

static float *arena(fb3_backend *be, int64_t size)
{
    void *memory;
    must(be->ops->alloc(be, &memory, (size_t)size * sizeof(float)));
    must(be->ops->zero(be, memory, (size_t)size * sizeof(float)));
    return memory;
}

static bench bench_make(fb3_backend *be, int active, const uint32_t *ids, const fb3_config *config)
{
    bench b = {.be = be};
    must(fb3_param_table_create(&b.table, &small.model, active, small.targets));
    const int64_t size = b.table->size;
    b.arenas =
        (fb3_arenas){.param = arena(be, size), .grad = arena(be, size), .m = arena(be, size), .v = arena(be, size)};
    b.arenas.param_act = b.arenas.param;
    float *host = calloc((size_t)size, sizeof *host);
    fixture_weights(host, b.table, ids);
    must(be->ops->upload(be, b.arenas.param, host, (size_t)size * sizeof *host));
    free(host);
    must(fb3_optimizer_create(&b.optimizer, be, b.table, &b.arenas, config));
    return b;
}

static void bench_free(bench *b)
{
    fb3_optimizer_free(b->optimizer);
    b->be->ops->free(b->be, b->arenas.param);
    b->be->ops->free(b->be, b->arenas.grad);
    b->be->ops->free(b->be, b->arenas.m);
    b->be->ops->free(b->be, b->arenas.v);
    fb3_param_table_free(b->table);
}

static float *download(const bench *b, const float *values)
{
    float *host = malloc((size_t)b->table->size * sizeof *host);
    must(b->be->ops->download(b->be, host, values, (size_t)b->table->size * sizeof *host));
    return host;
}

/* A gradient for step `step`; token ids outside `is_active` get none. `ids` maps rows to token ids (NULL: the same). */
static void set_gradient(const bench *b, int step, const uint32_t *ids, const bool *is_active)
{
    float *grad = calloc((size_t)b->table->size, sizeof *grad);
    for (int i = 0; i < b->table->count; i++) {
        const fb3_param *param = &b->table->param[i];
        for (int64_t e = 0; e < param->count; e++) {
            int64_t source = e;
            if (param->kind == FB3_PARAM_WORD) {
                const int64_t row = e / param->cols, id = ids ? ids[row] : row;
                if (!is_active[id]) continue;
                source = id * param->cols + e % param->cols;
            }
            grad[param->offset + e] = fixture_uniform(param->name, (uint32_t)(source + 1000003 * (step + 1)));
        }
    }
    must(b->be->ops->upload(b->be, b->arenas.grad, grad, (size_t)b->table->size * sizeof *grad));
    free(grad);
}

/* Returns the norm of the gradient. */
static double step(const bench *b, double lr, int update)
{
    double norm;
    must(fb3_optimizer_step(b->optimizer, lr, update));
    must(b->be->ops->sync(b->be));
    must(fb3_optimizer_outcome(b->optimizer, &norm));
    return norm;
}

enum { ACTIVE = 5 };
static const uint32_t active_ids[ACTIVE] = {0, 7, 8, 31, 59};

/* Trains the whole table and the active rows side by side; compares all bits at the end. */
static void inactive_rows(fb3_backend *be)
{
    enum { STEPS = 40 };
    const int V = small.model.vocab, C = small.model.hidden;
    bool is_active[60] = {false};
    for (int i = 0; i < ACTIVE; i++) is_active[active_ids[i]] = true;
    bench full = bench_make(be, V, NULL, &recipe), few = bench_make(be, ACTIVE, active_ids, &recipe);
    const int64_t full_word = fb3_param_find(full.table, FB3_PARAM_WORD, -1)->offset;
    const int64_t few_word = fb3_param_find(few.table, FB3_PARAM_WORD, -1)->offset;
    float *start = download(&full, full.arenas.param);
    float *word_full = malloc((size_t)V * (size_t)C * sizeof *word_full);
    memcpy(word_full, start + full_word, (size_t)V * (size_t)C * sizeof *word_full);

    for (int s = 0; s < STEPS; s++) {
        // Warm-up from 0, then odd rates, so that every step has a factor of its own.
        const double lr = recipe.learning_rate * (s < 5 ? s / 5.0 : 1.0 / (1.0 + 0.37 * s));
        set_gradient(&full, s, NULL, is_active);
        set_gradient(&few, s, active_ids, is_active);
        step(&full, lr, s + 1);
        step(&few, lr, s + 1);
        if (s == STEPS / 2) fb3_optimizer_replay_inactive(few.optimizer, word_full, active_ids); // a checkpoint
    }
    fb3_optimizer_replay_inactive(few.optimizer, word_full, active_ids);
    fb3_optimizer_replay_inactive(few.optimizer, word_full, active_ids); // forgotten: does nothing

    float *a = download(&full, full.arenas.param), *b = download(&few, few.arenas.param);
    for (int row = 0; row < ACTIVE; row++)
        memcpy(word_full + active_ids[row] * (size_t)C, b + few_word + row * C, (size_t)C * sizeof *b);
    assert_memory_equal(word_full, a + full_word, (size_t)V * (size_t)C * sizeof *a);
    assert_memory_not_equal(word_full + C, start + full_word + C, (size_t)C * sizeof *a); // an inactive row has moved
    free(a), free(b), free(start), free(word_full);
    bench_free(&full);
    bench_free(&few);
}

static void test_inactive_rows_have_the_bits_of_a_full_table(void **state)
{
    (void)state;
    fixture_on_each_backend(inactive_rows);
}

/* At the notebook's rate and decay every factor is exactly 1. */
static void default_decay(fb3_backend *be)
{
    fb3_config config = recipe;
    config.learning_rate = 1e-5;
    config.weight_decay = 1e-6;
    bool is_active[60] = {true};
    bench b = bench_make(be, ACTIVE, active_ids, &config);
    const size_t count = (size_t)small.model.vocab * (size_t)small.model.hidden;
    float *word_full = malloc(count * sizeof *word_full);
    for (size_t i = 0; i < count; i++) word_full[i] = fixture_uniform("word", (uint32_t)i);
    for (int s = 0; s < 10; s++) {
        set_gradient(&b, s, active_ids, is_active);
        step(&b, config.learning_rate, s + 1);
    }
    fb3_optimizer_replay_inactive(b.optimizer, word_full, active_ids);
    for (size_t i = 0; i < count; i++) assert_true(word_full[i] == fixture_uniform("word", (uint32_t)i));
    free(word_full);
    bench_free(&b);
}

static void test_default_decay_leaves_inactive_rows_alone(void **state)
{
    (void)state;
    fixture_on_each_backend(default_decay);
}

static void not_finite(fb3_backend *be)
{
    const float bad[] = {NAN, INFINITY, 1e30f}; // the last one overflows only in its square, which is a double: finite
    bool is_active[60] = {true};
    for (int i = 0; i < 3; i++) {
        bench b = bench_make(be, ACTIVE, active_ids, &recipe);
        const size_t bytes = (size_t)b.table->size * sizeof(float);
        float *word_full = calloc((size_t)small.model.vocab * (size_t)small.model.hidden, sizeof *word_full);
        word_full[small.model.hidden] = 1; // row 1 is inactive
        set_gradient(&b, 0, active_ids, is_active);
        float *before = download(&b, b.arenas.param);
        must(be->ops->upload(be, b.arenas.grad + 5, &bad[i], sizeof bad[i]));
        assert_int_equal(isfinite(step(&b, 0.1, 1)) != 0, i == 2);
        fb3_optimizer_replay_inactive(b.optimizer, word_full, active_ids);
        float *after = download(&b, b.arenas.param), *m = download(&b, b.arenas.m), *v = download(&b, b.arenas.v);
        if (i == 2) {
            assert_memory_not_equal(before, after, bytes);
        } else {
            assert_memory_equal(before, after, bytes);
            for (int64_t e = 0; e < b.table->size; e++) assert_true(m[e] == 0 && v[e] == 0);
            assert_true(word_full[small.model.hidden] == 1);
        }
        must(fb3_optimizer_zero_grad(b.optimizer));
        assert_true(step(&b, 0.1, 2) == 0);
        free(before), free(after), free(m), free(v), free(word_full);
        bench_free(&b);
    }
}

static void test_a_gradient_that_is_not_finite_changes_nothing(void **state)
{
    (void)state;
    fixture_on_each_backend(not_finite);
}

/* The norm is that of all parameters, and a clipped step is the step of the scaled gradient. */
static void clipping(fb3_backend *be)
{
    fb3_config clipped = recipe;
    clipped.max_grad_norm = 0.5;
    bool is_active[60];
    memset(is_active, 1, sizeof is_active);
    bench a = bench_make(be, ACTIVE, active_ids, &clipped), b = bench_make(be, ACTIVE, active_ids, &recipe);
    set_gradient(&a, 0, active_ids, is_active);
    float *grad = download(&a, a.arenas.grad);
    double sum = 0, norm = step(&a, 0.1, 1);
    for (int64_t i = 0; i < a.table->size; i++) sum += (double)grad[i] * grad[i];
    assert_true(fabs(norm - sqrt(sum)) < 1e-12 * norm);
    assert_true(norm > 5);
    for (int64_t i = 0; i < a.table->size; i++) grad[i] = (float)(grad[i] * clipped.max_grad_norm / (norm + 1e-6));
    must(be->ops->upload(be, b.arenas.grad, grad, (size_t)b.table->size * sizeof *grad));
    step(&b, 0.1, 1);
    float *ma = download(&a, a.arenas.m), *mb = download(&b, b.arenas.m);
    float *pa = download(&a, a.arenas.param), *pb = download(&b, b.arenas.param);
    assert_true(fixture_distance(ma, mb, a.table->size) < 1e-6);
    assert_true(fixture_distance(pa, pb, a.table->size) < 1e-6);
    free(grad), free(ma), free(mb), free(pa), free(pb);
    bench_free(&a);
    bench_free(&b);
}

static void test_clipping(void **state)
{
    (void)state;
    fixture_on_each_backend(clipping);
}

/* |difference of end weights| / |end - start| of one tensor, the difference's norm estimated from its sketch. */
static double end_distance(const float *param_host, const fb3_param *param, const json_t *tensor)
{
    const json_t *expected = json_object_get(tensor, "sketch");
    const size_t size = (size_t)fixture_sketch_size(param->count);
    double *sketch = calloc(size, sizeof *sketch), sum = 0;
    assert_int_equal(json_array_size(expected), size);
    fixture_sketch(sketch, param_host + param->offset, param->count);
    for (size_t i = 0; i < size; i++) {
        double difference = sketch[i] - json_number_value(json_array_get(expected, i));
        sum += difference * difference / 2; // two rounds
    }
    free(sketch);
    return sqrt(sum) / json_number_value(json_object_get(tensor, "moved"));
}

static void check_step(fixture_replica *r, fb3_optimizer *optimizer, const fixture_case *c,
                       const fb3_schedule *schedule, double learning_rate, int s, const json_t *golden, double *worst)
{
    const double loss_tolerance = 1e-4, norm_tolerance = 1e-3;
    double sums[FB3_LOSS_SUMS(FB3_MAX_TARGETS)] = {0}, norm;
    fb3_batch *batch = fixture_batch(c, s, 0, c->sequences);
    must(fb3_optimizer_zero_grad(optimizer));
    must(fb3_deberta_load(r->model, batch));
    must(fb3_deberta_forward(r->model, NULL, c->key, (uint32_t)s));
    fixture_loss(r, c->loss, c->beta, sums);
    must(fb3_deberta_backward(r->model, c->loss, c->beta, c->sequences, NULL));
    must(fb3_optimizer_step(optimizer, learning_rate * fb3_schedule_factor(schedule, s), s + 1));
    must(r->be->ops->sync(r->be));
    must(fb3_optimizer_outcome(optimizer, &norm));
    fixture_batch_free(batch);

    double loss = fb3_loss_value(c->loss, sums, c->sequences, c->targets);
    double expected = json_number_value(json_array_get(json_object_get(golden, "losses"), (size_t)s));
    double expected_norm = json_number_value(json_array_get(json_object_get(golden, "norms"), (size_t)s));
    *worst = fmax(*worst, fabs(loss - expected) / expected);
    if (!(fabs(loss - expected) < loss_tolerance * expected)) fail_msg("step %d: loss %g, not %g", s, loss, expected);
    if (!(fabs(norm - expected_norm) < norm_tolerance * expected_norm))
        fail_msg("step %d: gradient norm %g, not %g", s, norm, expected_norm);
}

static void training(fb3_backend *be)
{
    const double weight_tolerance = 1e-3;
    json_t *golden = fixture_golden("optim", "training.json");
    const json_t *json = json_object_get(golden, "case"), *tensors = json_object_get(golden, "tensors");
    fixture_case c;
    fixture_case_read(&c, json);
    fb3_config config = recipe;
    config.learning_rate = json_number_value(json_object_get(json, "learning_rate"));
    config.weight_decay = json_number_value(json_object_get(json, "weight_decay"));
    config.adam_epsilon = json_number_value(json_object_get(json, "epsilon"));
    config.max_grad_norm = json_number_value(json_object_get(json, "max_norm"));
    config.warmup_steps = (double)json_integer_value(json_object_get(json, "warmup"));
    fixture_replica r = fixture_replica_make(be, &c, true);
    fb3_optimizer *optimizer;
    fb3_schedule schedule;
    must(fb3_optimizer_create(&optimizer, be, r.table, &r.arenas, &config));
    must(fb3_schedule_make(&schedule, &config, c.steps));
    assert_true(c.steps > 0);
    double worst_loss = 0, worst_weight = 0;
    for (int s = 0; s < c.steps; s++)
        check_step(&r, optimizer, &c, &schedule, config.learning_rate, s, golden, &worst_loss);

    float *end = fixture_download(&r, r.arenas.param);
    assert_int_equal(json_array_size(tensors), r.table->count);
    for (int i = 0; i < r.table->count; i++) {
        const json_t *tensor = json_array_get(tensors, (size_t)i);
        const fb3_param *param = fb3_param_by_name(r.table, json_string_value(json_object_get(tensor, "name")));
        double distance = end_distance(end, param, tensor);
        if (!(distance < weight_tolerance)) fail_msg("%s ended %g of its way off", param->name, distance);
        worst_weight = fmax(worst_weight, distance);
    }
    print_message("%-6s %d steps: loss within %.1e, end weights within %.1e of the way\n", be->ops->name, c.steps,
                  worst_loss, worst_weight);
    free(end);
    fb3_optimizer_free(optimizer);
    fixture_replica_free(&r);
    json_decref(golden);
}

static void test_training_follows_pytorch(void **state)
{
    (void)state;
    fixture_on_each_backend(training);
}

int main(void)
{
    device_or_skip();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segments_cover_every_parameter_once),
        cmocka_unit_test(test_inactive_rows_have_the_bits_of_a_full_table),
        cmocka_unit_test(test_default_decay_leaves_inactive_rows_alone),
        cmocka_unit_test(test_a_gradient_that_is_not_finite_changes_nothing),
        cmocka_unit_test(test_clipping),
        cmocka_unit_test(test_training_follows_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
