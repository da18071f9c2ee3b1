/* What a replica promises besides the right numbers: gradients agree with differences of its own loss with all
 * dropouts on, no split of a batch changes them, hooks see final ranges in order, an empty batch only calls hooks,
 * evaluation gives the training forward's bits, and memory is what fb3_deberta_memory says and is all given back. */
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
    .model = {.vocab = 50,
              .hidden = 32,
              .layers = 2,
              .heads = 2,
              .intermediate = 64,
              .position_buckets = 256,
              .max_relative = 512,
              .layer_norm_eps = 1e-7f,
              .initializer_range = 0.02f},
    .targets = 3,
    .lengths = {21, 150, 5, 40, 2},
    .sequences = 5,
    .loss = FB3_LOSS_MSE,
    .beta = 1.0f,
    .rates = {0.1f, 0.2f, 0.3f},
    .key = {11, 22},
    .step = 3,
};

/* Forward and backward of samples first .. first + count - 1, as a part of the case's whole batch. */
static void add_gradients(fixture_replica *r, const fixture_case *c, int first, int count, const fb3_model_hooks *hooks)
{
    fb3_batch *batch = fixture_batch(c, 0, first, count);
    must(fb3_deberta_load(r->model, batch));
    must(fb3_deberta_forward(r->model, &c->rates, c->key, c->step));
    must(fb3_deberta_backward(r->model, c->loss, c->beta, c->sequences, hooks));
    fixture_batch_free(batch);
}

static void expect_same_gradients(const fb3_param_table *table, const float *a, const float *b, double tolerance)
{
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        double distance = fixture_distance(a + param->offset, b + param->offset, param->count);
        if (!(distance < tolerance)) fail_msg("%s differs by %g", param->name, distance);
    }
}

static const double split_tolerance = 2e-6; /* rounding of sums in another order */

static void accumulation(fb3_backend *be)
{
    fixture_replica whole = fixture_replica_make(be, &small, true), parts = fixture_replica_make(be, &small, true);
    add_gradients(&whole, &small, 0, 5, NULL);
    // The longest sequence is in one part only, so the parts reach different rows of the position table.
    add_gradients(&parts, &small, 0, 1, NULL);
    add_gradients(&parts, &small, 1, 2, NULL);
    add_gradients(&parts, &small, 3, 2, NULL);
    float *a = fixture_gradients(&whole), *b = fixture_gradients(&parts);
    expect_same_gradients(whole.table, b, a, split_tolerance);
    free(a), free(b);
    fixture_replica_free(&whole);
    fixture_replica_free(&parts);
}

static void test_accumulation_equals_one_batch(void **state)
{
    (void)state;
    fixture_on_each_backend(accumulation);
}

static void rank_split(fb3_backend *be)
{
    enum { RANKS = 3 };
    const int first[RANKS + 1] = {0, 2, 2, 5}; // the second rank has no samples
    fixture_replica whole = fixture_replica_make(be, &small, true);
    add_gradients(&whole, &small, 0, 5, NULL);
    float *expected = fixture_gradients(&whole), *sum = calloc((size_t)whole.table->size, sizeof *sum);
    for (int rank = 0; rank < RANKS; rank++) {
        fixture_replica part = fixture_replica_make(be, &small, true);
        add_gradients(&part, &small, first[rank], first[rank + 1] - first[rank], NULL);
        float *grad = fixture_gradients(&part);
        for (int64_t i = 0; i < part.table->size; i++) sum[i] += grad[i];
        free(grad);
        fixture_replica_free(&part);
    }
    expect_same_gradients(whole.table, sum, expected, split_tolerance);
    free(expected), free(sum);
    fixture_replica_free(&whole);
}

static void test_ranks_equal_one_batch(void **state)
{
    (void)state;
    fixture_on_each_backend(rank_split);
}

/* Checkpointing computes the layers again: the same gradient to the bit, dropout included, also when it is added to. */
static void checkpointed_bits(fb3_backend *be)
{
    const fb3_model_mode modes[] = {FB3_TRAINING, FB3_TRAINING_CHECKPOINTED};
    float *gradient[2];
    for (int i = 0; i < 2; i++) {
        fixture_replica r = fixture_replica_make(be, &small, modes[i]);
        add_gradients(&r, &small, 0, 3, NULL);
        add_gradients(&r, &small, 3, 2, NULL);
        gradient[i] = fixture_gradients(&r);
        if (i == 1) assert_memory_equal(gradient[0], gradient[1], (size_t)r.table->size * sizeof(float));
        fixture_replica_free(&r);
    }
    free(gradient[0]), free(gradient[1]);
}

static void test_checkpointing_changes_no_bits(void **state)
{
    (void)state;
    fixture_on_each_type(checkpointed_bits);
}

/* What the hooks saw. */
typedef struct witness {
    const fixture_replica *replica;
    float *seen;  // the gradient arena, range by range as each was announced
    int64_t next; // where the next range must start
    int ranges, polls;
    int fail_at; // the range at which the hook fails, or -1
} witness;

static fb3_status witness_ready(void *context, int64_t offset, int64_t count)
{
    witness *w = context;
    const fixture_replica *r = w->replica;
    if (w->ranges == w->fail_at) return fb3_fail(FB3_FAILED, "the peer is gone");
    assert_int_equal(offset, w->next);
    assert_int_equal(offset, r->table->range[w->ranges].offset);
    assert_int_equal(count, r->table->range[w->ranges].count);
    must(r->be->ops->download(r->be, w->seen + offset, r->arenas.grad + offset, (size_t)count * sizeof(float)));
    w->next += count;
    w->ranges++;
    return FB3_OK;
}

static fb3_status witness_poll(void *context)
{
    ((witness *)context)->polls++;
    return FB3_OK;
}

static void hooks_in_order(fb3_backend *be)
{
    fixture_replica r = fixture_replica_make(be, &small, true);
    witness w = {.replica = &r, .seen = calloc((size_t)r.table->size, sizeof(float)), .fail_at = -1};
    fb3_model_hooks hooks = {&w, witness_ready, witness_poll};
    add_gradients(&r, &small, 0, 5, &hooks);
    assert_int_equal(w.next, r.table->size);
    assert_int_equal(w.ranges, r.table->ranges);
    assert_true(w.polls > 5 * small.model.layers);
    float *final = fixture_gradients(&r);
    assert_memory_equal(w.seen, final, (size_t)r.table->size * sizeof *final);
    free(final);

    w.ranges = 0;
    w.next = 0;
    w.fail_at = 1;
    assert_int_equal(fb3_deberta_backward(r.model, small.loss, small.beta, small.sequences, &hooks), FB3_FAILED);
    assert_int_equal(w.ranges, 1);
    free(w.seen);
    fixture_replica_free(&r);
}

static void test_hooks_see_final_ranges_in_order(void **state)
{
    (void)state;
    fixture_on_each_type(hooks_in_order);
}

static void empty_batch(fb3_backend *be)
{
    fixture_replica r = fixture_replica_make(be, &small, true);
    witness w = {.replica = &r, .seen = calloc((size_t)r.table->size, sizeof(float)), .fail_at = -1};
    fb3_model_hooks hooks = {&w, witness_ready, witness_poll};
    double sums[FB3_LOSS_SUMS(FB3_MAX_TARGETS)] = {0};
    add_gradients(&r, &small, 0, 5, NULL);
    float *before = fixture_gradients(&r);
    add_gradients(&r, &small, 5, 0, &hooks);
    fixture_loss(&r, FB3_LOSS_MSE, 1, sums);
    must(fb3_deberta_predictions(r.model, NULL));
    float *after = fixture_gradients(&r);
    assert_memory_equal(before, after, (size_t)r.table->size * sizeof *after);
    assert_int_equal(w.ranges, r.table->ranges);
    assert_true(w.polls > 0);
    assert_true(sums[0] == 0);
    free(before), free(after), free(w.seen);
    fixture_replica_free(&r);
}

static void test_empty_batch_only_calls_hooks(void **state)
{
    (void)state;
    fixture_on_each_type(empty_batch);
}

static void predict(fixture_replica *r, const fixture_case *c, const fb3_dropout_rates *rates, uint32_t step,
                    float *pred)
{
    fb3_batch *batch = fixture_batch(c, 0, 0, c->sequences);
    must(fb3_deberta_load(r->model, batch));
    must(fb3_deberta_forward(r->model, rates, c->key, step));
    must(fb3_deberta_predictions(r->model, pred));
    fixture_batch_free(batch);
}

static void evaluation(fb3_backend *be)
{
    float trained[15], evaluated[15], dropped[15], again[15];
    fixture_replica training = fixture_replica_make(be, &small, true),
                    inference = fixture_replica_make(be, &small, false);
    const fb3_dropout_rates off = {0};
    predict(&training, &small, &off, 0, trained);
    predict(&inference, &small, NULL, 0, evaluated);
    assert_memory_equal(trained, evaluated, sizeof trained);

    predict(&training, &small, &small.rates, 8, dropped);
    assert_memory_not_equal(trained, dropped, sizeof trained);
    predict(&inference, &small, &small.rates, 8, again);
    assert_memory_equal(dropped, again, sizeof dropped);
    predict(&training, &small, &small.rates, 9, again);
    assert_memory_not_equal(dropped, again, sizeof dropped);

    float pooled[5 * 32];
    must(fb3_deberta_pooled(inference.model, pooled));
    for (size_t i = 0; i < sizeof pooled / sizeof pooled[0]; i++) assert_true(isfinite(pooled[i]));
    assert_int_equal(fb3_deberta_backward(inference.model, FB3_LOSS_MSE, 1, small.sequences, NULL), FB3_FAILED);
    fixture_replica_free(&training);
    fixture_replica_free(&inference);
}

static void test_evaluation_has_the_bits_of_training(void **state)
{
    (void)state;
    fixture_on_each_type(evaluation);
}

static double loss_of_batch(fixture_replica *r, const fixture_case *c)
{
    double sums[FB3_LOSS_SUMS(FB3_MAX_TARGETS)] = {0};
    must(fb3_deberta_forward(r->model, &c->rates, c->key, c->step));
    fixture_loss(r, c->loss, c->beta, sums);
    return fb3_loss_value(c->loss, sums, c->sequences, c->targets);
}

/* The loss's slope along a random direction of one parameter, by central differences of a step that moves the loss by
 * a fixed share, against the gradient. The direction has entries of one size and random sign. */
static void check_slope(fixture_replica *r, const fixture_case *c, const fb3_param *param, const float *start,
                        const float *grad, double loss)
{
    const double share = 3e-4, tolerance = 5e-3;
    const size_t bytes = (size_t)param->count * sizeof(float);
    double expected = 0, norm = 0, value[2];
    float *moved = malloc(bytes);
    for (int64_t i = 0; i < param->count; i++) norm += (double)grad[i] * grad[i];
    norm = sqrt(norm);
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < param->count; i++) {
            double direction = fixture_uniform("direction", (uint32_t)i) > 0 ? 1 : -1;
            if (side == 0) expected += grad[i] * direction;
            moved[i] = (float)(start[i] + (side ? -direction : direction) * share * loss / norm);
        }
        must(r->be->ops->upload(r->be, r->arenas.param + param->offset, moved, bytes));
        value[side] = loss_of_batch(r, c);
    }
    must(r->be->ops->upload(r->be, r->arenas.param + param->offset, start, bytes));
    free(moved);
    double slope = (value[0] - value[1]) / (2 * share * loss / norm);
    if (!(fabs(slope - expected) < tolerance * norm))
        fail_msg("%s: slope %g, gradient says %g (norm %g)", param->name, slope, expected, norm);
}

static void finite_differences(fb3_backend *be)
{
    fixture_replica r = fixture_replica_make(be, &small, true);
    fb3_batch *batch = fixture_batch(&small, 0, 0, small.sequences);
    add_gradients(&r, &small, 0, small.sequences, NULL);
    float *grad = fixture_gradients(&r), *start = fixture_download(&r, r.arenas.param);
    must(fb3_deberta_load(r.model, batch));
    double loss = loss_of_batch(&r, &small);
    for (int i = 0; i < r.table->count; i += large_cases() ? 1 : 5) {
        const fb3_param *param = &r.table->param[i];
        check_slope(&r, &small, param, start + param->offset, grad + param->offset, loss);
    }
    free(grad), free(start);
    fixture_batch_free(batch);
    fixture_replica_free(&r);
}

static void test_finite_differences_with_dropout(void **state)
{
    (void)state;
    fixture_on_each_backend(finite_differences);
}

/* A table that counts what is allocated, and can fail. */
static struct {
    const fb3_ops *ops;
    size_t bytes;
    int alive, calls, fail_at;
} counted;

static fb3_status counting_alloc(fb3_backend *be, void **memory, size_t bytes)
{
    if (counted.calls++ == counted.fail_at) return fb3_fail(FB3_FAILED, "no memory left");
    counted.bytes += bytes;
    counted.alive++;
    return counted.ops->alloc(be, memory, bytes);
}

static void counting_free(fb3_backend *be, void *memory)
{
    counted.alive -= memory != NULL;
    counted.ops->free(be, memory);
}

static void memory_as_said(fb3_backend *be)
{
    fb3_ops ops = *be->ops;
    fb3_param_table *table;
    const fb3_limits limits = {.T = 300, .B = 7, .max_len = 90};
    const fb3_arenas arenas = {0};
    must(fb3_param_table_create(&table, &small.model, 20, small.targets));
    counted.ops = be->ops;
    ops.alloc = counting_alloc;
    ops.free = counting_free;
    be->ops = &ops;
    for (fb3_model_mode mode = FB3_INFERENCE; mode <= FB3_TRAINING_CHECKPOINTED; mode++) {
        fb3_deberta *model = NULL;
        counted.bytes = 0;
        counted.calls = 0;
        counted.fail_at = -1;
        must(fb3_deberta_create(&model, be, table, &arenas, &limits, mode));
        assert_int_equal(counted.bytes, fb3_deberta_memory(table, &limits, be->act, mode));
        fb3_deberta_free(model);
        assert_int_equal(counted.alive, 0);
        const int calls = counted.calls;
        for (int fail_at = 0; fail_at < calls; fail_at++) {
            counted.calls = 0;
            counted.fail_at = fail_at;
            assert_int_equal(fb3_deberta_create(&model, be, table, &arenas, &limits, mode), FB3_FAILED);
            assert_non_null(strstr(fb3_error_text(), "no memory left"));
            assert_null(model);
            assert_int_equal(counted.alive, 0);
        }
    }
    assert_true(fb3_deberta_memory(table, &limits, FB3_F32, FB3_TRAINING_CHECKPOINTED) <
                fb3_deberta_memory(table, &limits, FB3_F32, FB3_TRAINING));
    assert_true(fb3_deberta_memory(table, &limits, FB3_F32, FB3_INFERENCE) <
                fb3_deberta_memory(table, &limits, FB3_F32, FB3_TRAINING));
    be->ops = counted.ops;
    fb3_param_table_free(table);
}

static void test_memory_is_what_was_said_and_given_back(void **state)
{
    (void)state;
    fixture_on_each_type(memory_as_said);
}

static void batch_above_the_limits(fb3_backend *be)
{
    fixture_replica r = fixture_replica_make(be, &small, false);
    fb3_batch *batch = fixture_batch(&small, 0, 0, 5);
    batch->max_len++;
    assert_int_equal(fb3_deberta_load(r.model, batch), FB3_FAILED);
    batch->max_len--;
    batch->B++;
    assert_int_equal(fb3_deberta_load(r.model, batch), FB3_FAILED);
    batch->B--;
    batch->T++;
    assert_int_equal(fb3_deberta_load(r.model, batch), FB3_FAILED);
    batch->T--;
    must(fb3_deberta_load(r.model, batch));
    fixture_batch_free(batch);
    fixture_replica_free(&r);
}

static void test_a_batch_above_the_limits_is_refused(void **state)
{
    (void)state;
    fixture_on_each_backend(batch_above_the_limits);
}

/* --debug: every output of every operation is checked, over memory that starts as NaN. */
static void checked_finds_nothing(fb3_backend *be)
{
    if (strcmp(be->ops->name, "naive") == 0) return; // nothing would end the observer
    must(fb3_backend_make_checked(be));
    fixture_replica r = fixture_replica_make(be, &small, true);
    add_gradients(&r, &small, 0, 5, NULL);
    add_gradients(&r, &small, 2, 1, NULL);
    fixture_replica_free(&r);
}

static void test_checked_backend_finds_nothing(void **state)
{
    (void)state;
    fixture_on_each_type(checked_finds_nothing);
}

/* A weight that is not finite is reported where it first shows. */
static void test_checked_backend_names_the_layer(void **state)
{
    (void)state;
    fb3_backend *be = fixture_backend(device_is_cuda() ? "cuda" : "cpu");
    must(fb3_backend_make_checked(be));
    fixture_replica r = fixture_replica_make(be, &small, true);
    const float nan = NAN;
    const int64_t offset = fb3_param_find(r.table, FB3_PARAM_FFN_OUT_BIAS, 1)->offset;
    must(be->ops->upload(be, r.arenas.param + offset, &nan, sizeof nan));
    fb3_batch *batch = fixture_batch(&small, 0, 0, 5);
    must(fb3_deberta_load(r.model, batch));
    assert_int_equal(fb3_deberta_forward(r.model, NULL, small.key, 0), FB3_FAILED);
    assert_non_null(strstr(fb3_error_text(), "linear_fwd"));
    assert_non_null(strstr(fb3_error_text(), "layer 1"));
    fixture_batch_free(batch);
    fixture_replica_free(&r);
    fixture_backend_close(be);
}

int main(void)
{
    device_or_skip();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accumulation_equals_one_batch),
        cmocka_unit_test(test_ranks_equal_one_batch),
        cmocka_unit_test(test_hooks_see_final_ranges_in_order),
        cmocka_unit_test(test_empty_batch_only_calls_hooks),
        cmocka_unit_test(test_checkpointing_changes_no_bits),
        cmocka_unit_test(test_evaluation_has_the_bits_of_training),
        cmocka_unit_test(test_finite_differences_with_dropout),
        cmocka_unit_test(test_memory_is_what_was_said_and_given_back),
        cmocka_unit_test(test_a_batch_above_the_limits_is_refused),
        cmocka_unit_test(test_checked_backend_finds_nothing),
        cmocka_unit_test(test_checked_backend_names_the_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
