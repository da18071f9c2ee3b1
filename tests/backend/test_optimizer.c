/* sum_squares and AdamW against double: the formulas of torch.optim.AdamW, over segments with their own decay and rate,
 * with the gap between them left alone. */
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- sum_squares
 * ------------------------------------------------------------------------------------------------------ */

typedef struct squares_case {
    buffer x, bits; // bits [2]: the double, for the comparison of threads
    double sum;
} squares_case;

static fb3_status run_squares(fb3_backend *be, void *context)
{
    squares_case *c = context;
    FB3_TRY(be->ops->sum_squares(be, &c->sum, c->x.data, c->x.n));
    memcpy(c->bits.data, &c->sum, sizeof c->sum);
    return FB3_OK;
}

static void check_squares(void *context)
{
    squares_case *c = context;
    long double want = 0.0L; /* a plain sum of doubles would be the less accurate one */
    for (int64_t i = 0; i < c->x.n; i++) want += (long double)c->x.data[i] * (long double)c->x.data[i];
    assert_true(fabsl((long double)c->sum - want) <= 1e-14L * want);
}

static void test_sum_squares(void **state)
{
    (void)state;
    const int64_t sizes[] = {0, 1, 15, 16384, 16385, 700001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        squares_case c = {.x = buffer_random(sizes[i]), .bits = buffer_output(2)};
        run_case(&(op_case){.run = run_squares, .check = check_squares, .context = &c, .outputs = {&c.bits}});
        if (sizes[i] > 0) { /* squares that no float holds */
            buffer_scale(&c.x, 1e25f, 0.0f);
            run_case(&(op_case){.run = run_squares, .check = check_squares, .context = &c, .outputs = {&c.bits}});
            c.x.data[sizes[i] - 1] = INFINITY;
            run_case(&(op_case){.run = run_squares, .context = &c, .outputs = {&c.bits}});
            assert_false(isfinite(c.sum));
        }
        buffer_free(&c.x), buffer_free(&c.bits);
    }
}

/* --- AdamW
 * ------------------------------------------------------------------------------------------------------------ */

enum { SIZE = 40000, SEGMENTS = 4, STEPS = 3 };
static const fb3_adamw_segment segments[SEGMENTS] = {
    {.offset = 0, .count = 1, .lr_scale = 1.0f, .decay = 0.0f},
    {.offset = 16, .count = 33, .lr_scale = 0.5f, .decay = 0.1f},
    {.offset = 64, .count = 0, .lr_scale = 1.0f, .decay = 0.0f},
    {.offset = 80, .count = SIZE - 96, .lr_scale = 1.0f, .decay = 0.01f},
};

typedef struct adamw_case {
    double max_norm, squares; /* squares NaN: the real one */
    buffer g[STEPS], p, m, v, copy;
} adamw_case;

static const double lr = 3e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-6;

static double squares_of(const adamw_case *c, int step)
{
    if (!isnan(c->squares)) return c->squares;
    double sum = 0.0;
    for (int i = 0; i < SIZE; i++) sum += (double)c->g[step].data[i] * (double)c->g[step].data[i];
    return sum;
}

static fb3_status run_adamw(fb3_backend *be, void *context)
{
    adamw_case *c = context;
    for (int step = 0; step < STEPS; step++) {
        double squares = squares_of(c, step);
        fb3_adamw args = {.lr = lr,
                          .beta1 = beta1,
                          .beta2 = beta2,
                          .eps = eps,
                          .correction1 = 1.0 - pow(beta1, step + 1),
                          .correction2 = 1.0 - pow(beta2, step + 1),
                          .max_norm = c->max_norm};
        FB3_TRY(be->ops->adamw(be, c->p.data, c->m.data, c->v.data, c->g[step].data, act(&c->copy), segments, segments,
                               SEGMENTS, &args, &squares));
    }
    return FB3_OK;
}

static void reference_step(const adamw_case *c, int step, const fb3_adamw_segment *s, double *p, double *m, double *v)
{
    double norm = sqrt(squares_of(c, step)), t = step + 1;
    double clip = c->max_norm > 0.0 ? fmin(1.0, c->max_norm / (norm + 1e-6)) : 1.0;
    for (int64_t i = s->offset; i < s->offset + s->count; i++) {
        double g = (double)c->g[step].data[i] * clip, rate = lr * (double)s->lr_scale;
        p[i] -= rate * (double)s->decay * p[i];
        m[i] = beta1 * m[i] + (1.0 - beta1) * g;
        v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
        p[i] -= rate * (m[i] / (1.0 - pow(beta1, t))) / (sqrt(v[i] / (1.0 - pow(beta2, t))) + eps);
    }
}

static void check_adamw(void *context)
{
    adamw_case *c = context;
    double *p = zeros(SIZE), *m = zeros(SIZE), *v = zeros(SIZE), *copy = zeros(SIZE);
    for (int i = 0; i < SIZE; i++) {
        p[i] = (double)c->p.start[i];
        m[i] = (double)c->m.start[i];
        v[i] = (double)c->v.start[i];
    }
    for (int step = 0; step < STEPS; step++)
        for (int s = 0; s < SEGMENTS; s++) reference_step(c, step, &segments[s], p, m, v);
    expect_close("m", &c->m, m, 3e-7);
    expect_close("v", &c->v, v, 3e-7);
    expect_close("p", &c->p, p, 4e-7); /* three steps, two roundings of 6e-8 each */
    for (int s = 0; s < SEGMENTS; s++)
        for (int64_t i = segments[s].offset; i < segments[s].offset + segments[s].count; i++)
            assert_true(c->copy.data[i] == as_act(c->p.data[i]));
    assert_true(c->p.data[1] == c->p.start[1] && c->p.data[SIZE - 1] == c->p.start[SIZE - 1]);
    assert_true(c->copy.data[1] == c->copy.start[1]);
    free(p), free(m), free(v), free(copy);
}

static adamw_case adamw_make(double max_norm, double squares)
{
    adamw_case c = {.max_norm = max_norm,
                    .squares = squares,
                    .p = buffer_random(SIZE),
                    .m = buffer_random(SIZE),
                    .v = buffer_random(SIZE),
                    .copy = buffer_random_act(SIZE)};
    for (int step = 0; step < STEPS; step++) c.g[step] = buffer_random(SIZE);
    buffer_scale(&c.m, 0.1f, 0.0f);
    for (int i = 0; i < SIZE; i++) c.v.data[i] = c.v.start[i] = fabsf(c.v.data[i]);
    return c;
}

static void adamw_free(adamw_case *c)
{
    for (int step = 0; step < STEPS; step++) buffer_free(&c->g[step]);
    buffer_free(&c->p), buffer_free(&c->m), buffer_free(&c->v), buffer_free(&c->copy);
}

static void compare_adamw(double max_norm)
{
    adamw_case c = adamw_make(max_norm, NAN);
    run_case(&(op_case){.run = run_adamw, .check = check_adamw, .context = &c, .outputs = {&c.p, &c.m, &c.v, &c.copy}});
    adamw_free(&c);
}

static void test_adamw(void **state)
{
    (void)state, compare_adamw(0.0);
}
static void test_clipping(void **state)
{
    (void)state, compare_adamw(10.0);
} /* the norm is about 200 */
static void test_no_clipping_below_the_norm(void **state)
{
    (void)state, compare_adamw(1000.0);
}

static void test_nonfinite_norm_changes_nothing(void **state)
{
    (void)state;
    const double sums[] = {INFINITY, -NAN};
    adamw_case c = adamw_make(10.0, sums[0]);
    for (int i = 0; i < 2; i++) {
        c.squares = i == 0 ? INFINITY : NAN;
        if (i == 1) c.g[0].data[5] = c.g[1].data[5] = c.g[2].data[5] = NAN; /* the real sum is NaN too */
        run_case(&(op_case){.run = run_adamw, .context = &c, .outputs = {&c.p, &c.m, &c.v, &c.copy}});
        buffer *all[] = {&c.p, &c.m, &c.v, &c.copy};
        for (size_t b = 0; b < sizeof all / sizeof *all; b++)
            assert_memory_equal(all[b]->data, all[b]->start, SIZE * sizeof(float));
    }
    adamw_free(&c);
}

/* Word rows outside the active vocabulary are replayed with the factor alone (DESIGN 3): a parameter without gradient
 * and moments must get those very bits. */
static void test_inactive_rows_have_the_factors_bits(void **state)
{
    (void)state;
    adamw_case c = adamw_make(0.0, 1.0);
    buffer_scale(&c.m, 0.0f, 0.0f), buffer_scale(&c.v, 0.0f, 0.0f);
    for (int step = 0; step < STEPS; step++) buffer_scale(&c.g[step], 0.0f, 0.0f);
    run_case(&(op_case){.run = run_adamw, .context = &c, .outputs = {&c.p, &c.m, &c.v, &c.copy}});
    fb3_adamw args = {.lr = lr};
    float factor = fb3_adamw_decay_factor(&args, &segments[3]);
    assert_true(factor < 1.0f);
    for (int64_t i = segments[3].offset; i < segments[3].offset + segments[3].count; i++) {
        float want = c.p.start[i];
        for (int step = 0; step < STEPS; step++) want *= factor;
        assert_true(want == c.p.data[i]);
    }
    adamw_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_squares),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_clipping),
        cmocka_unit_test(test_no_clipping_below_the_norm),
        cmocka_unit_test(test_nonfinite_norm_changes_nothing),
        cmocka_unit_test(test_inactive_rows_have_the_factors_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
