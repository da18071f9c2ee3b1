/* LayerNorm, residual, embeddings and dropout against double, forward and backward, with every aliasing that the table
 * allows. */
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float eps = 1e-7f;
enum { WORDS = 37 }; /* of the word table */

/* --- references --------------------------------------------------------------------------------------------------- */

static void norm_fwd(double *y, const double *x, const double *gamma, const double *beta, int rows, int C)
{
    for (int r = 0; r < rows; r++) {
        const double *in = x + (int64_t)r * C;
        double mean = 0.0, variance = 0.0;
        for (int c = 0; c < C; c++) mean += in[c] / C;
        for (int c = 0; c < C; c++) variance += (in[c] - mean) * (in[c] - mean) / C;
        for (int c = 0; c < C; c++)
            y[(int64_t)r * C + c] = (in[c] - mean) / sqrt(variance + (double)eps) * gamma[c] + beta[c];
    }
}

/* dx [rows,C] overwritten, dgamma and dbeta [C] added to */
static void norm_bwd(double *dx, double *dgamma, double *dbeta, const double *dy, const double *x, const double *gamma,
                     int rows, int C)
{
    double *xhat = zeros(C);
    for (int r = 0; r < rows; r++) {
        const double *in = x + (int64_t)r * C, *dout = dy + (int64_t)r * C;
        double mean = 0.0, variance = 0.0, mean_g = 0.0, mean_gx = 0.0;
        for (int c = 0; c < C; c++) mean += in[c] / C;
        for (int c = 0; c < C; c++) variance += (in[c] - mean) * (in[c] - mean) / C;
        double rstd = 1.0 / sqrt(variance + (double)eps);
        for (int c = 0; c < C; c++) {
            xhat[c] = (in[c] - mean) * rstd;
            mean_g += dout[c] * gamma[c] / C;
            mean_gx += dout[c] * gamma[c] * xhat[c] / C;
            dgamma[c] += dout[c] * xhat[c];
            dbeta[c] += dout[c];
        }
        for (int c = 0; c < C; c++) dx[(int64_t)r * C + c] = rstd * (dout[c] * gamma[c] - mean_g - xhat[c] * mean_gx);
    }
    free(xhat);
}

static void keep_rows(double *x, const layout *l, int C, const fb3_dropout *drop)
{
    for (int t = 0; t < l->ragged.T; t++)
        for (int c = 0; c < C; c++) x[(int64_t)t * C + c] *= reference_keep_row(drop, l, t, C, c);
}

typedef struct norm_reference {
    int rows, C;
    double *x, *gamma, *beta;
} norm_reference;
static void norm_forward(double *y, void *context)
{
    norm_reference *n = context;
    norm_fwd(y, n->x, n->gamma, n->beta, n->rows, n->C);
}

static void test_reference_gradient(void **state)
{
    (void)state;
    enum { ROWS = 3, C = 9 };
    buffer x = buffer_random(ROWS * C), gamma = buffer_random(C), beta = buffer_random(C), w = buffer_random(ROWS * C);
    norm_reference n = {.rows = ROWS, .C = C, .x = doubles(&x), .gamma = doubles(&gamma), .beta = doubles(&beta)};
    double *weights = doubles(&w), *dx = zeros(ROWS * C), *dgamma = zeros(C), *dbeta = zeros(C);
    norm_bwd(dx, dgamma, dbeta, weights, n.x, n.gamma, ROWS, C);
    expect_gradient("dx", norm_forward, &n, n.x, ROWS * C, dx, weights, ROWS * C);
    expect_gradient("dgamma", norm_forward, &n, n.gamma, C, dgamma, weights, ROWS * C);
    expect_gradient("dbeta", norm_forward, &n, n.beta, C, dbeta, weights, ROWS * C);
    free(n.x), free(n.gamma), free(n.beta), free(weights), free(dx), free(dgamma), free(dbeta);
    buffer_free(&x), buffer_free(&gamma), buffer_free(&beta), buffer_free(&w);
}

/* --- LayerNorm with a residual; the plain one --------------------------------------------------------------------- */

typedef enum alias { APART, DX_IS_DRESIDUAL, DX_IS_DY, DRESIDUAL_IS_DY } alias;

typedef struct norm_case {
    layout l;
    int C;
    bool residual; /* add_layernorm, else layernorm */
    bool s_is_x;   /* forward in place */
    alias backward;
    const fb3_dropout *drop;
    buffer x, skip, gamma, beta, dy; // inputs
    buffer y, s, mean, rstd, dx, dskip, dgamma, dbeta;
} norm_case;

static fb3_status run_plain(fb3_backend *be, norm_case *c)
{
    FB3_TRY(be->ops->layernorm_fwd(be, act(&c->y), f32(&c->mean), f32(&c->rstd), f32(&c->x), f32(&c->gamma),
                                   f32(&c->beta), eps, c->l.ragged.T, c->C));
    return be->ops->layernorm_bwd(be, f32(&c->dx), f32(&c->dgamma), f32(&c->dbeta), f32(&c->dy), f32(&c->x),
                                  f32(&c->mean), f32(&c->rstd), f32(&c->gamma), c->l.ragged.T, c->C);
}

static fb3_status run_norm(fb3_backend *be, void *context)
{
    norm_case *c = context;
    if (!c->residual) return run_plain(be, c);
    const void *x = act(c->s_is_x ? &c->s : &c->x);
    const fb3_ragged *ragged = ragged_of(&c->l);
    FB3_TRY(be->ops->add_layernorm_fwd(be, act(&c->y), act(&c->s), f32(&c->mean), f32(&c->rstd), x, act(&c->skip),
                                       f32(&c->gamma), f32(&c->beta), eps, ragged, c->C, c->drop));
    void *dx = act(c->backward == DX_IS_DRESIDUAL ? &c->dskip : &c->dx), *dskip = act(&c->dskip);
    const void *dy = c->backward == DX_IS_DY ? dx : c->backward == DRESIDUAL_IS_DY ? dskip : act(&c->dy);
    return be->ops->add_layernorm_bwd(be, dx, dskip, f32(&c->dgamma), f32(&c->dbeta), dy, act(&c->s), f32(&c->mean),
                                      f32(&c->rstd), f32(&c->gamma), ragged, c->C, c->drop);
}

/* Rows are sums over C, parameter gradients sums over T; 1/sigma adds two roundings. */
static void check_norm(void *context)
{
    norm_case *c = context;
    int T = c->l.ragged.T, C = c->C;
    int64_t n = (int64_t)T * C;
    double *s = doubles(&c->x), *gamma = doubles(&c->gamma), *beta = doubles(&c->beta), *dy = doubles(&c->dy);
    double *y = zeros(n), *dx = zeros(n), *dgamma = starts(&c->dgamma), *dbeta = starts(&c->dbeta);
    if (c->residual) {
        keep_rows(s, &c->l, C, c->drop);
        for (int64_t i = 0; i < n; i++) s[i] += (double)c->skip.data[i];
        expect_close("s", &c->s, s, 1.5e-7);
        free(s);
        s = doubles(&c->s); /* as it was kept, rounded */
    }
    norm_fwd(y, s, gamma, beta, T, C);
    norm_bwd(dx, dgamma, dbeta, dy, s, gamma, T, C);
    expect_close("y", &c->y, y, 1e-6);
    expect_close("dgamma", &c->dgamma, dgamma, 1e-6);
    expect_close("dbeta", &c->dbeta, dbeta, 1e-6);
    if (c->residual) {
        expect_close("dresidual", &c->dskip, dx, 1e-6);
        keep_rows(dx, &c->l, C, c->drop);
        if (c->backward != DX_IS_DRESIDUAL) expect_close("dx", &c->dx, dx, 1e-6);
    } else {
        for (int64_t i = 0; i < n; i++) dx[i] += (double)c->dx.start[i];
        expect_close("dx", &c->dx, dx, 1e-6);
    }
    free(s), free(gamma), free(beta), free(dy), free(y), free(dx), free(dgamma), free(dbeta);
}

static fb3_limits limits_of(const layout *l, int C)
{
    const fb3_ragged *r = &l->ragged;
    return (fb3_limits){
        .T = r->T, .B = r->B, .max_len = r->max_len, .C = C, .H = 1, .F = C, .R = r->T, .A = WORDS, .Y = 1};
}

static void compare_norm(const int *lengths, int B, int C, bool residual, bool s_is_x, alias backward,
                         const fb3_dropout *drop)
{
    norm_case c = {.l = layout_make(lengths, B),
                   .C = C,
                   .residual = residual,
                   .s_is_x = s_is_x,
                   .backward = backward,
                   .drop = drop};
    int64_t T = c.l.ragged.T, n = T * C;
    /* the position table is float, its gradient too */
    c.x = residual ? buffer_random_act(n) : buffer_random(n), c.dy = residual ? buffer_random_act(n) : buffer_random(n);
    c.dx = residual ? buffer_output_act(n) : buffer_random(n);
    c.skip = buffer_random_act(n);
    buffer_scale(&c.x, 2.0f, 0.5f);
    c.gamma = buffer_random(C), c.beta = buffer_random(C), c.dgamma = buffer_random(C), c.dbeta = buffer_random(C);
    c.y = buffer_output_act(n), c.mean = buffer_output(T), c.rstd = buffer_output(T);
    c.s = s_is_x ? buffer_copy(&c.x) : buffer_output_act(n);
    c.dskip = buffer_output_act(n);
    if (backward == DX_IS_DY) buffer_free(&c.dx), c.dx = buffer_copy(&c.dy);
    if (backward == DRESIDUAL_IS_DY) buffer_free(&c.dskip), c.dskip = buffer_copy(&c.dy);
    run_case(&(op_case){.run = run_norm,
                        .check = check_norm,
                        .context = &c,
                        .outputs = {&c.y, &c.mean, &c.rstd, &c.dx, &c.dgamma, &c.dbeta, residual ? &c.s : NULL,
                                    residual ? &c.dskip : NULL},
                        .limits = limits_of(&c.l, C)});
    buffer *all[] = {&c.x, &c.skip, &c.dy,   &c.gamma, &c.beta, &c.dgamma, &c.dbeta,
                     &c.y, &c.s,    &c.mean, &c.rstd,  &c.dx,   &c.dskip};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) buffer_free(all[i]);
    layout_free(&c.l);
}

static const int lengths[] = {1, 2, 63, 64, 65, 300};
enum { B = sizeof lengths / sizeof *lengths };
static const int long_one[] = {1000}; /* several blocks of rows */

static void test_layernorm(void **state)
{
    (void)state;
    /* not narrower: two or three random values can be nearly equal, and their difference is then mostly rounding */
    const int one[] = {1}, widths[] = {9, 15, 16, 64, 768, 1023};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        compare_norm(one, 1, widths[i], false, false, APART, &no_dropout);
        compare_norm(lengths, B, widths[i], false, false, APART, &no_dropout);
    }
    compare_norm(long_one, 1, 64, false, false, APART, &no_dropout);
    if (large_cases()) compare_norm(one, 1, FB3_HIDDEN_MAX, false, false, APART, &no_dropout);
    compare_norm(NULL, 0, 64, false, false, APART, &no_dropout);
}

static void test_add_layernorm(void **state)
{
    (void)state;
    const int widths[] = {9, 15, 64, 301, 768, 1024}, count = large_cases() ? 6 : 4;
    for (int i = 0; i < count; i++) {
        compare_norm(lengths, B, widths[i], true, false, APART, &no_dropout);
        compare_norm(lengths, B, widths[i], true, true, APART, &some_dropout);
        compare_norm(lengths, B, widths[i], true, true, DX_IS_DRESIDUAL, &no_dropout);
        compare_norm(lengths, B, widths[i], true, false, DX_IS_DY, &some_dropout);
        compare_norm(lengths, B, widths[i], true, false, DRESIDUAL_IS_DY, &some_dropout);
    }
    compare_norm(lengths, 1, 64, true, false, APART, NULL);
    if (large_cases()) compare_norm(lengths, 1, FB3_HIDDEN_MAX, true, false, APART, &some_dropout);
    compare_norm(long_one, 1, 64, true, false, APART, &some_dropout);
    compare_norm(NULL, 0, 64, true, false, APART, &some_dropout);
}

/* --- embeddings --------------------------------------------------------------------------------------------------- */

typedef struct embedding_case {
    layout l;
    int C, U;
    const fb3_dropout *drop;
    array ids, by_id, id_start, id_value;
    buffer word, gamma, beta, dy, y, mean, rstd, dword, dgamma, dbeta;
} embedding_case;

static fb3_status run_embedding(fb3_backend *be, void *context)
{
    embedding_case *c = context;
    const fb3_ragged *ragged = ragged_of(&c->l);
    FB3_TRY(be->ops->embedding_fwd(be, act(&c->y), f32(&c->mean), f32(&c->rstd), f32(&c->word), device(&c->ids),
                                   f32(&c->gamma), f32(&c->beta), eps, ragged, c->C, c->drop));
    return be->ops->embedding_bwd(be, f32(&c->dword), f32(&c->dgamma), f32(&c->dbeta), act(&c->dy), f32(&c->mean),
                                  f32(&c->rstd), f32(&c->word), device(&c->ids), device(&c->by_id),
                                  device(&c->id_start), device(&c->id_value), c->U, f32(&c->gamma), ragged, c->C,
                                  c->drop);
}

static void check_embedding(void *context)
{
    embedding_case *c = context;
    int T = c->l.ragged.T, C = c->C;
    double *word = doubles(&c->word), *gamma = doubles(&c->gamma), *beta = doubles(&c->beta), *dy = doubles(&c->dy);
    double *dword = starts(&c->dword), *dgamma = starts(&c->dgamma), *dbeta = starts(&c->dbeta);
    const int32_t *ids = c->ids.host;
    double *x = zeros((int64_t)T * C), *y = zeros((int64_t)T * C), *dx = zeros((int64_t)T * C);
    for (int t = 0; t < T; t++) memcpy(x + (int64_t)t * C, word + (int64_t)ids[t] * C, (size_t)C * sizeof *x);
    norm_fwd(y, x, gamma, beta, T, C);
    keep_rows(y, &c->l, C, c->drop);
    expect_close("y", &c->y, y, 1e-6);
    keep_rows(dy, &c->l, C, c->drop);
    norm_bwd(dx, dgamma, dbeta, dy, x, gamma, T, C);
    for (int t = 0; t < T; t++)
        for (int i = 0; i < C; i++) dword[(int64_t)ids[t] * C + i] += dx[(int64_t)t * C + i];
    expect_close("dword", &c->dword, dword, 1e-6);
    expect_close("dgamma", &c->dgamma, dgamma, 1e-6);
    expect_close("dbeta", &c->dbeta, dbeta, 1e-6);
    free(word), free(gamma), free(beta), free(dy), free(dword), free(dgamma), free(dbeta), free(x), free(y), free(dx);
}

static int32_t *zeros_of(int n)
{
    int32_t *x = calloc((size_t)n + 1, sizeof *x);
    assert_non_null(x);
    return x;
}

/* Token positions by (id, position), in segments of one id. */
static void group_by_id(embedding_case *c)
{
    const int32_t *ids = c->ids.host;
    int32_t *by_id = zeros_of(c->l.ragged.T), *id_start = zeros_of(WORDS + 1), *id_value = zeros_of(WORDS);
    int filled = 0;
    for (int id = 0; id < WORDS; id++) {
        int before = filled;
        for (int t = 0; t < c->l.ragged.T; t++)
            if (ids[t] == id) by_id[filled++] = t;
        if (filled == before) continue;
        id_start[c->U] = before;
        id_value[c->U++] = id;
        id_start[c->U] = filled;
    }
    c->by_id = array_make(c->l.ragged.T, sizeof *by_id, by_id);
    c->id_start = array_make(c->U + 1, sizeof *id_start, id_start);
    c->id_value = array_make(c->U, sizeof *id_value, id_value);
    free(by_id), free(id_start), free(id_value);
}

/* The id 3 is at every `frequent`th position, at least. */
static void compare_embedding(const int *sizes, int count, int C, int frequent, const fb3_dropout *drop)
{
    embedding_case c = {.l = layout_make(sizes, count), .C = C, .drop = drop};
    int T = c.l.ragged.T;
    c.ids = array_make(T, sizeof(int32_t), NULL);
    int32_t *ids = c.ids.host;
    for (int t = 0; t < T; t++) ids[t] = t * 7 % frequent == 0 ? 3 : t * 31 % WORDS;
    group_by_id(&c);
    c.word = buffer_random((int64_t)WORDS * C), c.dword = buffer_random((int64_t)WORDS * C);
    c.gamma = buffer_random(C), c.beta = buffer_random(C), c.dgamma = buffer_random(C), c.dbeta = buffer_random(C);
    c.dy = buffer_random_act((int64_t)T * C), c.y = buffer_output_act((int64_t)T * C);
    c.mean = buffer_output(T), c.rstd = buffer_output(T);
    run_case(&(op_case){.run = run_embedding,
                        .check = check_embedding,
                        .context = &c,
                        .outputs = {&c.y, &c.mean, &c.rstd, &c.dword, &c.dgamma, &c.dbeta},
                        .limits = limits_of(&c.l, C)});
    buffer *all[] = {&c.word, &c.dword, &c.gamma, &c.beta, &c.dgamma, &c.dbeta, &c.dy, &c.y, &c.mean, &c.rstd};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) buffer_free(all[i]);
    array_free(&c.ids), array_free(&c.by_id), array_free(&c.id_start), array_free(&c.id_value);
    layout_free(&c.l);
}

static void test_embedding(void **state)
{
    (void)state;
    compare_embedding(lengths, B, 64, 5, &no_dropout);
    compare_embedding(lengths, B, 301, 5, &some_dropout);
    compare_embedding(lengths, 1, 17, 5, &some_dropout);
    compare_embedding(lengths, B, 768, 5, NULL);
    if (large_cases()) compare_embedding(lengths, 2, FB3_HIDDEN_MAX, 5, &some_dropout);
    compare_embedding(NULL, 0, 64, 5, &some_dropout);
}

/* One token makes up half the text, and all of it. */
static void test_embedding_of_a_frequent_token(void **state)
{
    (void)state;
    compare_embedding(long_one, 1, 64, 2, &some_dropout);
    compare_embedding(long_one, 1, 15, 1, &no_dropout);
}

/* --- dropout ------------------------------------------------------------------------------------------------------ */

typedef struct dropout_case {
    layout l;
    int C;
    bool in_place;
    const fb3_dropout *drop;
    buffer x, y, dx;
} dropout_case;

static fb3_status run_dropout(fb3_backend *be, void *context)
{
    dropout_case *c = context;
    const void *x = act(c->in_place ? &c->y : &c->x);
    FB3_TRY(be->ops->dropout_fwd(be, act(&c->y), x, ragged_of(&c->l), c->C, c->drop));
    return be->ops->dropout_bwd_add(be, f32(&c->dx), act(&c->x), ragged_of(&c->l), c->C, c->drop);
}

static void check_dropout(void *context)
{
    dropout_case *c = context;
    double *y = doubles(&c->x), *dx = zeros(c->x.n);
    keep_rows(y, &c->l, c->C, c->drop);
    for (int64_t i = 0; i < c->x.n; i++) {
        assert_true((y[i] == 0.0) == (c->y.data[i] == 0.0f)); /* the very mask */
        dx[i] = (double)c->dx.start[i] + y[i];
    }
    expect_close("y", &c->y, y, 1.5e-7);
    expect_close("dx", &c->dx, dx, 1.5e-7);
    free(y), free(dx);
}

static void compare_dropout(const int *sizes, int count, int C, bool in_place, const fb3_dropout *drop)
{
    dropout_case c = {.l = layout_make(sizes, count), .C = C, .in_place = in_place, .drop = drop};
    int64_t n = (int64_t)c.l.ragged.T * C;
    c.x = buffer_random_act(n), c.y = in_place ? buffer_copy(&c.x) : buffer_output_act(n), c.dx = buffer_random(n);
    run_case(&(op_case){.run = run_dropout,
                        .check = check_dropout,
                        .context = &c,
                        .outputs = {&c.y, &c.dx},
                        .limits = limits_of(&c.l, C)});
    buffer_free(&c.x), buffer_free(&c.y), buffer_free(&c.dx);
    layout_free(&c.l);
}

static void test_dropout(void **state)
{
    (void)state;
    const int widths[] = {1, 3, 16, 257, 768};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        compare_dropout(lengths, B, widths[i], false, &some_dropout);
        compare_dropout(lengths, B, widths[i], true, &some_dropout);
    }
    compare_dropout(lengths, B, 16, false, &no_dropout);
    compare_dropout(lengths, B, 16, true, &no_dropout);
    compare_dropout(lengths, B, 15, false, NULL);
    compare_dropout(NULL, 0, 16, false, &some_dropout);
}

/* --- the masks ---------------------------------------------------------------------------------------------------- */

enum { WIDTH = 256, MASK = 800 * WIDTH, CHANGES = 4 };

typedef struct mask_case {
    layout l;
    buffer x, y[CHANGES]; // y[0]: the mask of some_dropout, then with another step, site and key
} mask_case;

static fb3_status run_masks(fb3_backend *be, void *context)
{
    mask_case *c = context;
    for (int change = 0; change < CHANGES; change++) {
        fb3_dropout drop = some_dropout;
        if (change == 1) drop.step++;
        if (change == 2) drop.site++;
        if (change == 3) drop.key.k0++;
        FB3_TRY(be->ops->dropout_fwd(be, act(&c->y[change]), act(&c->x), ragged_of(&c->l), WIDTH, &drop));
    }
    return FB3_OK;
}

/* The share of kept elements is 1 - p within four standard deviations, and another step, site, key or sample gives
 * another mask. */
static void check_masks(void *context)
{
    const mask_case *c = context;
    const float *y = c->y[0].data;
    double kept = 0.0;
    for (int i = 0; i < MASK; i++) {
        assert_true(y[i] == 0.0f || y[i] == as_act(1.0f / 0.75f));
        kept += y[i] != 0.0f;
    }
    assert_true(fabs(kept / MASK - 0.75) < 4.0 * sqrt(0.25 * 0.75 / MASK));
    assert_true(memcmp(y, y + MASK / 2, MASK / 2 * sizeof(float)) != 0);
    for (int change = 1; change < CHANGES; change++) {
        double same = 0.0; /* two masks that know nothing of each other agree in p^2 + (1-p)^2 = 0.625 */
        for (int i = 0; i < MASK; i++) same += c->y[change].data[i] == y[i];
        assert_true(fabs(same / MASK - 0.625) < 0.01);
    }
}

static void test_keep_rate(void **state)
{
    (void)state;
    const int sizes[] = {400, 400};
    mask_case c = {.l = layout_make(sizes, 2), .x = buffer_random_act(MASK)};
    buffer_scale(&c.x, 0.0f, 1.0f);
    for (int i = 0; i < CHANGES; i++) c.y[i] = buffer_output_act(MASK);
    run_case(&(op_case){.run = run_masks,
                        .check = check_masks,
                        .context = &c,
                        .outputs = {&c.y[0], &c.y[1], &c.y[2], &c.y[3]},
                        .limits = limits_of(&c.l, WIDTH)});
    for (int i = 0; i < CHANGES; i++) buffer_free(&c.y[i]);
    buffer_free(&c.x);
    layout_free(&c.l);
}

int main(void)
{
    device_or_skip();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_gradient),
        cmocka_unit_test(test_layernorm),
        cmocka_unit_test(test_add_layernorm),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_embedding_of_a_frequent_token),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_keep_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
