/* sum_squares and AdamW against double: the formulas of torch.optim.AdamW, over segments with their own decay and rate,
 * with the gap between them left alone. */
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- sum_squares -------------------------------------------------------------------------------------------------- */

typedef struct squares_case {
    buffer x;
    array sum; // a double
} squares_case;

static double sum_of(const squares_case *c)
{
    double sum;
    memcpy(&sum, c->sum.host, sizeof sum);
    return sum;
}

static fb3_status run_squares(fb3_backend *be, void *context)
{
    squares_case *c = context;
    return be->ops->sum_squares(be, device(&c->sum), f32(&c->x), c->x.n);
}

static void check_squares(void *context)
{
    const squares_case *c = context;
    long double want = 0.0L; /* a plain sum of doubles would be the less accurate one */
    for (int64_t i = 0; i < c->x.n; i++) want += (long double)c->x.data[i] * (long double)c->x.data[i];
    if (!(fabsl((long double)sum_of(c) - want) <= 1e-14L * want))
        fail_msg("the sum of %lld squares is %.17g, not %.17Lg (%s)", (long long)c->x.n, sum_of(c), want,
                 backend_name());
}

static void check_not_finite(void *context)
{
    assert_false(isfinite(sum_of(context)));
}

static void compare_squares(squares_case *c, void (*check)(void *context))
{
    run_case(&(op_case){.run = run_squares, .check = check, .context = c, .results = {&c->sum}});
}

static void test_sum_squares(void **state)
{
    (void)state;
    const int64_t sizes[] = {0, 1, 15, 64, 65, 1023, 1025, 16384, 16385, 700001};
    const double overwritten = NAN;
    const int count = large_cases() ? 10 : 9;
    for (int i = 0; i < count; i++) {
        const int64_t n = sizes[i];
        squares_case c = {.x = buffer_random(n), .sum = array_make(1, sizeof overwritten, &overwritten)};
        compare_squares(&c, check_squares);
        if (n > 0) { /* squares that no float holds */
            buffer_scale(&c.x, 1e25f, 0.0f);
            compare_squares(&c, check_squares);
            c.x.data[n - 1] = INFINITY;
            compare_squares(&c, check_not_finite);
            c.x.data[n - 1] = NAN;
            compare_squares(&c, check_not_finite);
        }
        buffer_free(&c.x), array_free(&c.sum);
    }
}

/* --- AdamW -------------------------------------------------------------------------------------------------------- */

enum { SIZE = 40000, STEPS = 3, MOST_SEGMENTS = 500 };

/* Segments of the arenas, and the steps' sums of squares, on the host and for the device. */
typedef struct adamw_case {
    double max_norm;
    int segments;
    fb3_adamw_segment segment[MOST_SEGMENTS];
    double squares[STEPS];
    array segments_copy, squares_copy;
    bool copies_act;
    buffer g[STEPS], p, m, v, copy;
} adamw_case;

static const double lr = 3e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-6;

static fb3_status run_adamw(fb3_backend *be, void *context)
{
    adamw_case *c = context;
    for (int step = 0; step < STEPS; step++) {
        fb3_adamw args = {.lr = lr,
                          .beta1 = beta1,
                          .beta2 = beta2,
                          .eps = eps,
                          .correction1 = 1.0 - pow(beta1, step + 1),
                          .correction2 = 1.0 - pow(beta2, step + 1),
                          .max_norm = c->max_norm};
        FB3_TRY(be->ops->adamw(be, f32(&c->p), f32(&c->m), f32(&c->v), f32(&c->g[step]),
                               c->copies_act ? act(&c->copy) : NULL, device(&c->segments_copy), c->segment, c->segments,
                               &args, (double *)device(&c->squares_copy) + step));
    }
    return FB3_OK;
}

static void reference_step(const adamw_case *c, int step, const fb3_adamw_segment *s, double *p, double *m, double *v)
{
    double norm = sqrt(c->squares[step]), t = step + 1;
    double clip = c->max_norm > 0.0 ? fmin(1.0, c->max_norm / (norm + 1e-6)) : 1.0;
    for (int64_t i = s->offset; i < s->offset + s->count; i++) {
        double g = (double)c->g[step].data[i] * clip, rate = lr * (double)s->lr_scale;
        p[i] -= rate * (double)s->decay * p[i];
        m[i] = beta1 * m[i] + (1.0 - beta1) * g;
        v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
        p[i] -= rate * (m[i] / (1.0 - pow(beta1, t))) / (sqrt(v[i] / (1.0 - pow(beta2, t))) + eps);
    }
}

/* Everything outside the segments keeps its bits. */
static void check_gaps(const adamw_case *c)
{
    bool *inside = calloc(SIZE, sizeof *inside);
    assert_non_null(inside);
    for (int s = 0; s < c->segments; s++)
        for (int64_t i = 0; i < c->segment[s].count; i++) inside[c->segment[s].offset + i] = true;
    const buffer *all[] = {&c->p, &c->m, &c->v, &c->copy};
    for (size_t b = 0; b < sizeof all / sizeof *all; b++)
        for (int i = 0; i < SIZE; i++) assert_true(inside[i] || all[b]->data[i] == all[b]->start[i]);
    free(inside);
}

static void check_adamw(void *context)
{
    const adamw_case *c = context;
    double *p = starts(&c->p), *m = starts(&c->m), *v = starts(&c->v);
    for (int step = 0; step < STEPS; step++)
        for (int s = 0; s < c->segments; s++) reference_step(c, step, &c->segment[s], p, m, v);
    expect_close("m", &c->m, m, 3e-7);
    expect_close("v", &c->v, v, 3e-7);
    expect_close("p", &c->p, p, 4e-7); /* three steps, two roundings of 6e-8 each */
    for (int s = 0; s < c->segments; s++)
        for (int64_t i = c->segment[s].offset; i < c->segment[s].offset + c->segment[s].count; i++)
            assert_true(c->copy.data[i] == (c->copies_act ? as_act(c->p.data[i]) : c->copy.start[i]));
    check_gaps(c);
    free(p), free(m), free(v);
}

static void use_segments(adamw_case *c, const fb3_adamw_segment *segments, int count)
{
    memcpy(c->segment, segments, (size_t)count * sizeof *segments);
    c->segments = count;
    array_free(&c->segments_copy);
    c->segments_copy = array_make(count, sizeof *segments, segments);
}

static void use_squares(adamw_case *c, const double *squares)
{
    for (int step = 0; step < STEPS; step++) c->squares[step] = squares[step];
    array_free(&c->squares_copy);
    c->squares_copy = array_make(STEPS, sizeof *squares, squares);
}

static adamw_case *adamw_make(double max_norm)
{
    /* as the table of parameters lays them out: on multiples of 16 elements, with padding between them */
    const fb3_adamw_segment segments[] = {
        {.offset = 0, .count = 1, .lr_scale = 1.0f, .decay = 0.0f},
        {.offset = 16, .count = 33, .lr_scale = 0.5f, .decay = 0.1f},
        {.offset = 64, .count = 0, .lr_scale = 1.0f, .decay = 0.0f},
        {.offset = 80, .count = SIZE - 96, .lr_scale = 1.0f, .decay = 0.01f},
    };
    adamw_case *c = calloc(1, sizeof *c);
    assert_non_null(c);
    double squares[STEPS] = {0};
    *c = (adamw_case){.max_norm = max_norm,
                      .copies_act = true,
                      .p = buffer_random(SIZE),
                      .m = buffer_random(SIZE),
                      .v = buffer_random(SIZE),
                      .copy = buffer_random_act(SIZE)};
    for (int step = 0; step < STEPS; step++) {
        c->g[step] = buffer_random(SIZE);
        for (int i = 0; i < SIZE; i++) squares[step] += (double)c->g[step].data[i] * (double)c->g[step].data[i];
    }
    buffer_scale(&c->m, 0.1f, 0.0f);
    for (int i = 0; i < SIZE; i++) c->v.data[i] = c->v.start[i] = fabsf(c->v.data[i]);
    use_segments(c, segments, sizeof segments / sizeof *segments);
    use_squares(c, squares);
    return c;
}

static void adamw_free(adamw_case *c)
{
    for (int step = 0; step < STEPS; step++) buffer_free(&c->g[step]);
    buffer_free(&c->p), buffer_free(&c->m), buffer_free(&c->v), buffer_free(&c->copy);
    array_free(&c->segments_copy), array_free(&c->squares_copy);
    free(c);
}

static void compare_adamw(adamw_case *c, void (*check)(void *context))
{
    run_case(&(op_case){.run = run_adamw, .check = check, .context = c, .outputs = {&c->p, &c->m, &c->v, &c->copy}});
}

static void compare_with_norm(double max_norm)
{
    adamw_case *c = adamw_make(max_norm);
    compare_adamw(c, check_adamw);
    adamw_free(c);
}

static void test_adamw(void **state)
{
    (void)state, compare_with_norm(0.0);
}
static void test_clipping(void **state)
{
    (void)state, compare_with_norm(10.0);
} /* the norm is about 200 */
static void test_no_clipping_below_the_norm(void **state)
{
    (void)state, compare_with_norm(1000.0);
}

static void test_without_a_copy(void **state)
{
    (void)state;
    adamw_case *c = adamw_make(0.0);
    c->copies_act = false;
    compare_adamw(c, check_adamw);
    adamw_free(c);
}

/* Segments that start and end anywhere, with gaps of one and more; also none, one, and more than blocks. */
static void test_segments_anywhere(void **state)
{
    (void)state;
    const fb3_adamw_segment odd[] = {
        {.offset = 3, .count = 5, .lr_scale = 1.0f, .decay = 0.1f},
        {.offset = 9, .count = 1, .lr_scale = 0.25f, .decay = 0.0f},
        {.offset = 10, .count = 2, .lr_scale = 1.0f, .decay = 0.5f},
        {.offset = 13, .count = 1023, .lr_scale = 2.0f, .decay = 0.0f},
        {.offset = 1037, .count = 4097, .lr_scale = 1.0f, .decay = 0.01f},
        {.offset = SIZE - 777, .count = 777, .lr_scale = 1.0f, .decay = 0.0f},
    };
    fb3_adamw_segment many[MOST_SEGMENTS];
    for (int s = 0; s < MOST_SEGMENTS; s++)
        many[s] = (fb3_adamw_segment){.offset = 77 * s + s % 5,
                                      .count = s % 72,
                                      .lr_scale = 1.0f + 0.01f * (float)(s % 3),
                                      .decay = s % 2 ? 0.1f : 0.0f};
    adamw_case *c = adamw_make(10.0);
    use_segments(c, odd, sizeof odd / sizeof *odd);
    compare_adamw(c, check_adamw);
    use_segments(c, many, MOST_SEGMENTS);
    compare_adamw(c, check_adamw);
    use_segments(c, odd, 1);
    compare_adamw(c, check_adamw);
    use_segments(c, odd, 0);
    compare_adamw(c, check_adamw);
    adamw_free(c);
}

static void check_unchanged(void *context)
{
    const adamw_case *c = context;
    const buffer *all[] = {&c->p, &c->m, &c->v, &c->copy};
    for (size_t b = 0; b < sizeof all / sizeof *all; b++)
        assert_memory_equal(all[b]->data, all[b]->start, SIZE * sizeof(float));
}

static void test_nonfinite_norm_changes_nothing(void **state)
{
    (void)state;
    const double infinite[STEPS] = {INFINITY, INFINITY, INFINITY}, nan[STEPS] = {NAN, -NAN, NAN};
    adamw_case *c = adamw_make(10.0);
    use_squares(c, infinite);
    compare_adamw(c, check_unchanged);
    use_squares(c, nan);
    for (int step = 0; step < STEPS; step++) c->g[step].data[5] = NAN; /* the real sum is NaN too */
    compare_adamw(c, check_unchanged);
    c->max_norm = 0.0;
    compare_adamw(c, check_unchanged);
    adamw_free(c);
}

static void check_factors(void *context)
{
    const adamw_case *c = context;
    const fb3_adamw_segment *last = &c->segment[c->segments - 1];
    fb3_adamw args = {.lr = lr};
    float factor = fb3_adamw_decay_factor(&args, last);
    assert_true(factor < 1.0f);
    for (int64_t i = last->offset; i < last->offset + last->count; i++) {
        float want = c->p.start[i];
        for (int step = 0; step < STEPS; step++) want *= factor;
        assert_true(want == c->p.data[i]);
    }
}

/* Word rows outside the active vocabulary are replayed with the factor alone (DESIGN 3): a parameter without gradient
 * and moments must get those very bits. */
static void test_inactive_rows_have_the_factors_bits(void **state)
{
    (void)state;
    const double ones[STEPS] = {1.0, 1.0, 1.0};
    adamw_case *c = adamw_make(0.0);
    use_squares(c, ones);
    buffer_scale(&c->m, 0.0f, 0.0f), buffer_scale(&c->v, 0.0f, 0.0f);
    for (int step = 0; step < STEPS; step++) buffer_scale(&c->g[step], 0.0f, 0.0f);
    compare_adamw(c, check_factors);
    adamw_free(c);
}

int main(void)
{
    device_or_skip();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_squares),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_clipping),
        cmocka_unit_test(test_no_clipping_below_the_norm),
        cmocka_unit_test(test_without_a_copy),
        cmocka_unit_test(test_segments_anywhere),
        cmocka_unit_test(test_nonfinite_norm_changes_nothing),
        cmocka_unit_test(test_inactive_rows_have_the_factors_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
