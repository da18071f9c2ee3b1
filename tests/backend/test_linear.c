/* Linear layers and GELU against double. The products' shapes cover one tile, many tiles, tiles cut over K, and edges
 * that are no multiple of anything. */
#include "support.h"
#include <math.h>
#include <stdlib.h>

static double gelu(double x)
{
    return 0.5 * x * erfc(-x / sqrt(2.0));
}
static double gelu_slope(double x)
{
    return 0.5 * erfc(-x / sqrt(2.0)) + x * exp(-0.5 * x * x) / sqrt(2.0 * acos(-1.0));
}

typedef struct linear_case {
    int T, I, O;
    bool bias, accumulate;
    buffer x, w, b, dy, y, pre, gelu_y, dx, dx_float, dw, db;
} linear_case;

static fb3_status run(fb3_backend *be, void *context)
{
    linear_case *c = context;
    const fb3_ops *ops = be->ops;
    const void *b = c->bias ? act(&c->b) : NULL;
    FB3_TRY(ops->linear_fwd(be, act(&c->y), act(&c->x), act(&c->w), b, c->T, c->I, c->O));
    FB3_TRY(ops->linear_gelu_fwd(be, act(&c->gelu_y), act(&c->pre), act(&c->x), act(&c->w), b, c->T, c->I, c->O));
    FB3_TRY(ops->linear_bwd_input(be, act(&c->dx), act(&c->dy), act(&c->w), c->T, c->I, c->O, c->accumulate));
    FB3_TRY(ops->linear_bwd_input_float(be, f32(&c->dx_float), act(&c->dy), act(&c->w), c->T, c->I, c->O));
    return ops->linear_bwd_weight(be, f32(&c->dw), c->bias ? f32(&c->db) : NULL, act(&c->dy), act(&c->x), c->T, c->I,
                                  c->O);
}

/* c [M,N] = start + a op b, where a(m,k) = a[m * am + k * ak] and so on. */
static double *product(const buffer *start, const buffer *a, int am, int ak, const buffer *b, int bk, int bn, int M,
                       int N, int K)
{
    double *c = zeros((int64_t)M * N);
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            double sum = start ? (double)start->start[(int64_t)m * N + n] : 0.0;
            for (int k = 0; k < K; k++)
                sum += (double)a->data[(int64_t)m * am + (int64_t)k * ak] *
                       (double)b->data[(int64_t)k * bk + (int64_t)n * bn];
            c[(int64_t)m * N + n] = sum;
        }
    return c;
}

/* A sum of K products is off by about sqrt(K) roundings of 6e-8 of its size. */
static double tolerance(int K)
{
    return 2e-7 + 4e-8 * sqrt((double)K);
}

static void check(void *context)
{
    linear_case *c = context;
    int T = c->T, I = c->I, O = c->O;
    double *y = product(NULL, &c->x, I, 1, &c->w, 1, I, T, O, I);
    for (int64_t i = 0; i < (int64_t)T * O; i++) y[i] += c->bias ? (double)c->b.data[i % O] : 0.0;
    expect_close("y", &c->y, y, tolerance(I));
    expect_close("pre", &c->pre, y, tolerance(I));
    for (int64_t i = 0; i < (int64_t)T * O; i++) y[i] = gelu(y[i]);
    expect_close("gelu y", &c->gelu_y, y, tolerance(I));
    double *dx = product(c->accumulate ? &c->dx : NULL, &c->dy, O, 1, &c->w, I, 1, T, I, O);
    double *dw = product(&c->dw, &c->dy, 1, O, &c->x, I, 1, O, I, T);
    expect_close("dx", &c->dx, dx, tolerance(O));
    double *dx_float = product(&c->dx_float, &c->dy, O, 1, &c->w, I, 1, T, I, O);
    expect_close("dx in float", &c->dx_float, dx_float, tolerance(O));
    free(dx_float);
    expect_close("dw", &c->dw, dw, tolerance(T));
    double *db = zeros(O);
    for (int o = 0; o < O; o++) {
        db[o] = (double)c->db.start[o];
        for (int t = 0; t < T && c->bias; t++) db[o] += (double)c->dy.data[(int64_t)t * O + o];
    }
    expect_close("db", &c->db, db, tolerance(T));
    free(y), free(dx), free(dw), free(db);
}

/* `shift`: x and dx start so many elements past a boundary, as rows of the position table do (reach_of in
 * src/model/relpos.c). */
static void compare_shifted(int T, int I, int O, bool bias, bool accumulate, int shift)
{
    int64_t x = (int64_t)T * I, y = (int64_t)T * O, w = (int64_t)O * I;
    linear_case c = {.T = T,
                     .I = I,
                     .O = O,
                     .bias = bias,
                     .accumulate = accumulate,
                     .x = buffer_random_act(x),
                     .w = buffer_random_act(w),
                     .b = buffer_random_act(O),
                     .dy = buffer_random_act(y),
                     .y = buffer_output_act(y),
                     .pre = buffer_output_act(y),
                     .gelu_y = buffer_output_act(y),
                     .dx = accumulate ? buffer_random_act(x) : buffer_output_act(x),
                     .dx_float = buffer_random(x),
                     .dw = buffer_random(w),
                     .db = buffer_random(O)};
    int widest = I > O ? I : O;
    buffer_shift(&c.x, shift);
    buffer_shift(&c.dx, shift);
    buffer_shift(&c.dx_float, shift);
    run_case(&(op_case){.run = run,
                        .check = check,
                        .context = &c,
                        .outputs = {&c.y, &c.pre, &c.gelu_y, &c.dx, &c.dx_float, &c.dw, &c.db},
                        .limits = {.T = T, .B = T, .max_len = 1, .C = widest, .H = 1, .F = widest, .R = 1, .Y = 1}});
    buffer *all[] = {&c.x, &c.w, &c.b, &c.dy, &c.y, &c.pre, &c.gelu_y, &c.dx, &c.dx_float, &c.dw, &c.db};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) buffer_free(all[i]);
}

static void compare(int T, int I, int O, bool bias, bool accumulate)
{
    compare_shifted(T, I, O, bias, accumulate, 0);
}

static void test_shapes(void **state)
{
    (void)state;
    compare(1, 1, 1, true, false);
    compare(2, 8, 16, true, true);
    compare(1, 17, 3, false, true);
    compare(5, 64, 33, true, true);
    compare(130, 48, 200, true, false);
    compare(67, 129, 401, false, false);
}
/* On the edges of tiles and of blocks of rows, and just past them. */
static void test_tile_edges(void **state)
{
    (void)state;
    compare(64, 64, 64, true, false);
    compare(65, 65, 65, true, true);
    compare(128, 64, 192, true, true);
    compare(129, 96, 257, true, false);
    compare(257, 16, 31, true, true);
}
static void test_many_tiles(void **state)
{
    (void)state;
    if (large_cases()) compare(1701, 65, 403, true, true);
    compare(1000, 64, 64, true, false);
}
static void test_long_sums(void **state)
{
    (void)state;
    if (!large_cases()) return;
    compare(3001, 40, 24, true, false); /* weight gradient: K = 3001 in parts */
    compare(20, 3000, 40, true, true);  /* forward: K = 3000 in parts, with the epilogue after them */
}
static void test_rows_inside_an_array(void **state)
{
    (void)state;
    compare_shifted(33, 15, 30, true, false, 15);
    compare_shifted(33, 15, 30, true, true, 1);
    compare_shifted(64, 64, 128, true, false, 64);
    compare_shifted(70, 20, 40, true, false, 20);
    compare_shifted(70, 12, 24, true, false, 12);
}
/* No rows: weight gradients stay what they were, even where nothing else exists. */
static void test_empty(void **state)
{
    (void)state;
    compare(0, 16, 8, true, false);
    compare(0, 16, 8, false, true);
}

/* --- GELU --------------------------------------------------------------------------------------------------------- */

enum { WIDTH = 48 }; /* the product is with the identity, so what is left is GELU */

typedef struct gelu_case {
    int T;
    buffer pre, dy, w, y, dpre, dpre_sum, dy_sum;
} gelu_case;

static fb3_status run_gelu(fb3_backend *be, void *context)
{
    gelu_case *c = context;
    return be->ops->linear_gelu_bwd_input(be, act(&c->dpre), act(&c->y), f32(&c->dpre_sum), f32(&c->dy_sum),
                                          act(&c->dy), act(&c->w), act(&c->pre), c->T, WIDTH, WIDTH);
}

/* sum [O] was added the columns of x [T,O], as they are there now. */
static void check_column_sums(const char *what, const buffer *sum, const buffer *x, int T, int O)
{
    double *want = zeros(O);
    for (int o = 0; o < O; o++) {
        want[o] = (double)sum->start[o];
        for (int t = 0; t < T; t++) want[o] += (double)x->data[(int64_t)t * O + o];
    }
    /* the sums may be of dpre before it was rounded: T roundings of 2^-9, most of which cancel */
    expect_close(what, sum, want, act_type() == FB3_BF16 ? BF16_TOLERANCE : 1e-6);
    free(want);
}

/* Absolute: Phi to 1.5e-7, so x Phi to that times max(|x|, 1); in bf16 and the rounding of the result. */
static void check_gelu(void *context)
{
    gelu_case *c = context;
    double rounding = act_type() == FB3_BF16 ? 0x1p-8 : 0.0;
    for (int64_t i = 0; i < c->pre.n; i++) {
        double x = (double)c->pre.data[i], dy = (double)c->dy.data[i], scale = 1.5e-7 * fmax(fabs(x), 1.0);
        double y = gelu(x), dpre = dy * gelu_slope(x);
        if (fabs((double)c->y.data[i] - y) > scale + rounding * fabs(y))
            fail_msg("gelu(%g) is %.9g, not %.9g (%s)", x, (double)c->y.data[i], y, backend_name());
        if (fabs((double)c->dpre.data[i] - dpre) > 2.0 * scale * fabs(dy) + rounding * fabs(dpre) + 1e-30)
            fail_msg("gelu'(%g) * %g is %.9g, not %.9g (%s)", x, dy, (double)c->dpre.data[i], dpre, backend_name());
    }
    check_column_sums("dpre_sum", &c->dpre_sum, &c->dpre, c->T, WIDTH);
    check_column_sums("dy_sum", &c->dy_sum, &c->dy, c->T, WIDTH);
}

static void test_gelu(void **state)
{
    (void)state;
    const int sizes[] = {0, 1, 3, 64, 65, 421};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int64_t n = (int64_t)sizes[s] * WIDTH;
        gelu_case c = {.T = sizes[s],
                       .pre = buffer_random_act(n),
                       .dy = buffer_random_act(n),
                       .w = buffer_random_act(WIDTH * WIDTH),
                       .y = buffer_output_act(n),
                       .dpre = buffer_output_act(n),
                       .dpre_sum = buffer_random(WIDTH),
                       .dy_sum = buffer_random(WIDTH)};
        buffer_scale(&c.pre, 6.0f, 0.0f); /* to about +-20 */
        for (int i = 0; i < WIDTH * WIDTH; i++) c.w.data[i] = c.w.start[i] = i % (WIDTH + 1) == 0 ? 1.0f : 0.0f;
        if (n > 20) {
            c.pre.data[0] = -0x1p100f;
            c.pre.data[1] = 0x1p100f;
            c.pre.data[2] = -0.0f;
            c.pre.data[3] = 0x1p-100f;
        }
        run_case(
            &(op_case){.run = run_gelu,
                       .check = check_gelu,
                       .context = &c,
                       .outputs = {&c.y, &c.dpre, &c.dpre_sum, &c.dy_sum},
                       .limits = {.T = c.T, .B = c.T, .max_len = 1, .C = WIDTH, .H = 1, .F = WIDTH, .R = 1, .Y = 1}});
        buffer *all[] = {&c.pre, &c.dy, &c.w, &c.y, &c.dpre, &c.dpre_sum, &c.dy_sum};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) buffer_free(all[i]);
    }
}

/* The references' own slopes, against differences. */
static void test_reference_gradient(void **state)
{
    (void)state;
    const double step = 1e-5;
    for (double x = -6.0; x <= 6.0; x += 0.37)
        assert_true(fabs((gelu(x + step) - gelu(x - step)) / (2.0 * step) - gelu_slope(x)) < 1e-9);
}

int main(void)
{
    device_or_skip();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_gradient),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_tile_edges),
        cmocka_unit_test(test_many_tiles),
        cmocka_unit_test(test_long_sums),
        cmocka_unit_test(test_rows_inside_an_array),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_gelu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
