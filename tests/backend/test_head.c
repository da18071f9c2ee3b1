/* Mean pooling, the head and the losses against double. */
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double rmse_eps = 1e-9;

/* --- pooling and the linear head ---------------------------------------------------------------------------------- */

typedef struct head_case {
    layout l;
    int C, Y;
    const fb3_dropout *drop;
    buffer x, w, b, dpred;
    buffer pooled, dx, pred, dpooled, dw, db;
} head_case;

static fb3_status run_head(fb3_backend *be, void *context)
{
    head_case *c = context;
    FB3_TRY(be->ops->mean_pool_fwd(be, c->pooled.data, act(&c->x), &c->l.ragged, c->C));
    FB3_TRY(
        be->ops->head_fwd(be, c->pred.data, c->pooled.data, c->w.data, c->b.data, &c->l.ragged, c->C, c->Y, c->drop));
    FB3_TRY(be->ops->head_bwd(be, c->dpooled.data, c->dw.data, c->db.data, c->dpred.data, c->pooled.data, c->w.data,
                              &c->l.ragged, c->C, c->Y, c->drop));
    return be->ops->mean_pool_bwd(be, act(&c->dx), c->dpooled.data, &c->l.ragged, c->C);
}

/* The whole head as one function of x, w, b: pred [B,Y]. */
typedef struct head_reference {
    const head_case *c;
    double *x, *w, *b;
} head_reference;

static double pooled_at(const head_reference *r, int s, int i)
{
    const int32_t *start = r->c->l.seq_start;
    double sum = 0.0;
    for (int t = start[s]; t < start[s + 1]; t++) sum += r->x[(int64_t)t * r->c->C + i];
    return start[s + 1] > start[s] ? sum / (start[s + 1] - start[s]) : 0.0;
}

static double keep_at(const head_case *c, int s, int i)
{
    return reference_keep(c->drop, c->l.sample[s], (uint64_t)i);
}

static void head_forward(double *pred, void *context)
{
    const head_reference *r = context;
    const head_case *c = r->c;
    for (int s = 0; s < c->l.ragged.B; s++)
        for (int y = 0; y < c->Y; y++) {
            double sum = r->b[y];
            for (int i = 0; i < c->C; i++) sum += keep_at(c, s, i) * pooled_at(r, s, i) * r->w[(int64_t)y * c->C + i];
            pred[(int64_t)s * c->Y + y] = sum;
        }
}

/* All gradients; dw and db added to. */
static void head_backward(const head_reference *r, double *dx, double *dpooled, double *dw, double *db,
                          const double *dpred)
{
    const head_case *c = r->c;
    for (int s = 0; s < c->l.ragged.B; s++) {
        for (int y = 0; y < c->Y; y++) db[y] += dpred[(int64_t)s * c->Y + y];
        for (int i = 0; i < c->C; i++) {
            double sum = 0.0, kept = keep_at(c, s, i), pooled = pooled_at(r, s, i);
            for (int y = 0; y < c->Y; y++) {
                double d = dpred[(int64_t)s * c->Y + y];
                sum += d * r->w[(int64_t)y * c->C + i];
                dw[(int64_t)y * c->C + i] += d * kept * pooled;
            }
            dpooled[(int64_t)s * c->C + i] = sum * kept;
            int start = c->l.seq_start[s], end = c->l.seq_start[s + 1];
            for (int t = start; t < end; t++) dx[(int64_t)t * c->C + i] = sum * kept / (end - start);
        }
    }
}

static double *starts(const buffer *x)
{
    double *d = zeros(x->n);
    for (int64_t i = 0; i < x->n; i++) d[i] = (double)x->start[i];
    return d;
}

static void check_head(void *context)
{
    head_case *c = context;
    head_reference r = {.c = c, .x = doubles(&c->x), .w = doubles(&c->w), .b = doubles(&c->b)};
    double *pred = zeros(c->pred.n), *pooled = zeros(c->pooled.n), *dpred = doubles(&c->dpred);
    double *dx = zeros(c->dx.n), *dpooled = zeros(c->dpooled.n), *dw = starts(&c->dw), *db = starts(&c->db);
    for (int s = 0; s < c->l.ragged.B; s++)
        for (int i = 0; i < c->C; i++) pooled[(int64_t)s * c->C + i] = pooled_at(&r, s, i);
    head_forward(pred, &r);
    head_backward(&r, dx, dpooled, dw, db, dpred);
    expect_close("pooled", &c->pooled, pooled, 5e-7);
    expect_close("pred", &c->pred, pred, 1e-6); /* partial sums of 768 products, as large as the result */
    expect_close("dpooled", &c->dpooled, dpooled, 3e-7);
    expect_close("dx", &c->dx, dx, 3e-7);
    expect_close("dw", &c->dw, dw, 3e-7);
    expect_close("db", &c->db, db, 3e-7);
    free(r.x), free(r.w), free(r.b), free(pred), free(pooled), free(dpred), free(dx), free(dpooled), free(dw), free(db);
}

static head_case head_make(const int *lengths, int B, int C, int Y, const fb3_dropout *drop)
{
    head_case c = {.l = layout_make(lengths, B), .C = C, .Y = Y, .drop = drop};
    int64_t n = (int64_t)c.l.ragged.T * C;
    c.x = buffer_random_act(n), c.w = buffer_random((int64_t)Y * C), c.b = buffer_random(Y);
    c.dpred = buffer_random((int64_t)B * Y), c.dw = buffer_random((int64_t)Y * C), c.db = buffer_random(Y);
    c.pooled = buffer_output((int64_t)B * C), c.dpooled = buffer_output((int64_t)B * C);
    c.pred = buffer_output((int64_t)B * Y), c.dx = buffer_output_act(n);
    return c;
}

static void head_free(head_case *c)
{
    buffer *all[] = {&c->x, &c->w, &c->b, &c->dpred, &c->pooled, &c->dx, &c->pred, &c->dpooled, &c->dw, &c->db};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) buffer_free(all[i]);
    layout_free(&c->l);
}

static void compare_head(const int *lengths, int B, int C, int Y, const fb3_dropout *drop)
{
    head_case c = head_make(lengths, B, C, Y, drop);
    run_case(&(op_case){.run = run_head,
                        .check = check_head,
                        .context = &c,
                        .outputs = {&c.pooled, &c.pred, &c.dpooled, &c.dx, &c.dw, &c.db}});
    head_free(&c);
}

static void test_head(void **state)
{
    (void)state;
    const int lengths[] = {1, 2, 63, 64, 65, 300, 700};
    compare_head(lengths, 7, 768, 6, &some_dropout);
    compare_head(lengths, 7, 301, 6, &no_dropout);
    compare_head(lengths, 2, 5, 1, &some_dropout);
    compare_head(lengths, 1, 1, 1, &no_dropout);
    compare_head(NULL, 0, 64, 6, &some_dropout);
}

static void test_reference_gradient(void **state)
{
    (void)state;
    const int lengths[] = {3, 1, 7};
    head_case c = head_make(lengths, 3, 6, 2, &some_dropout);
    head_reference r = {.c = &c, .x = doubles(&c.x), .w = doubles(&c.w), .b = doubles(&c.b)};
    double *weights = doubles(&c.dpred), *dx = zeros(c.x.n), *dpooled = zeros(18), *dw = zeros(12), *db = zeros(2);
    head_backward(&r, dx, dpooled, dw, db, weights);
    expect_gradient("dx", head_forward, &r, r.x, c.x.n, dx, weights, c.pred.n);
    expect_gradient("dw", head_forward, &r, r.w, c.w.n, dw, weights, c.pred.n);
    expect_gradient("db", head_forward, &r, r.b, c.b.n, db, weights, c.pred.n);
    free(r.x), free(r.w), free(r.b), free(weights), free(dx), free(dpooled), free(dw), free(db);
    head_free(&c);
}

/* --- losses ------------------------------------------------------------------------------------------------------- */

enum { Y = 6, SUMS = 1 + Y };

typedef struct loss_case {
    int B;
    fb3_loss_kind kind;
    float beta;
    buffer pred, target, coefficient, dpred;
    double sums[SUMS];
} loss_case;

static const double sums_before = 0.25; /* sums are added to */

static fb3_status run_loss(fb3_backend *be, void *context)
{
    loss_case *c = context;
    for (int i = 0; i < SUMS; i++) c->sums[i] = sums_before;
    FB3_TRY(be->ops->loss_fwd(be, c->sums, c->pred.data, c->target.data, c->B, Y, c->kind, c->beta));
    return be->ops->loss_bwd(be, c->dpred.data, c->pred.data, c->target.data, c->B, Y, c->kind, c->beta,
                             c->coefficient.data);
}

static double element_loss(double d, fb3_loss_kind kind, double beta)
{
    double a = fabs(d);
    switch (kind) {
    case FB3_LOSS_RMSE:
        return sqrt(d * d + rmse_eps);
    case FB3_LOSS_MSE:
        return d * d;
    case FB3_LOSS_L1:
        return a;
    case FB3_LOSS_SMOOTH_L1:
        return a < beta ? 0.5 * d * d / beta : a - 0.5 * beta;
    default:
        return 0.5 * d * d; /* mcrmse: d of this is p - t, the rest is in the coefficient */
    }
}

static void check_loss(void *context)
{
    loss_case *c = context;
    double sums[SUMS], *dpred = zeros(c->dpred.n);
    for (int i = 0; i < SUMS; i++) sums[i] = sums_before;
    for (int64_t i = 0; i < c->pred.n; i++) {
        double d = (double)c->pred.data[i] - (double)c->target.data[i], step = 1e-7;
        if (c->kind != FB3_LOSS_MCRMSE) sums[0] += element_loss(d, c->kind, (double)c->beta);
        sums[1 + i % Y] += d * d;
        double above = element_loss(d + step, c->kind, (double)c->beta);
        double below = element_loss(d - step, c->kind, (double)c->beta);
        dpred[i] = (above - below) / (2.0 * step) * (double)c->coefficient.data[i % Y];
    }
    for (int i = 0; i < SUMS; i++) assert_true(fabs(c->sums[i] - sums[i]) <= 1e-14 * (fabs(sums[i]) + 1.0) * c->pred.n);
    expect_close("dpred", &c->dpred, dpred, 1e-6); /* of the differences: 1e-16 / 1e-7 times the loss */
    free(dpred);
}

static void test_losses(void **state)
{
    (void)state;
    const fb3_loss_kind kinds[] = {FB3_LOSS_RMSE, FB3_LOSS_MSE, FB3_LOSS_L1, FB3_LOSS_SMOOTH_L1, FB3_LOSS_MCRMSE};
    const int batches[] = {0, 1, 37};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            int64_t n = (int64_t)batches[b] * Y;
            loss_case c = {.B = batches[b],
                           .kind = kinds[k],
                           .beta = 0.7f,
                           .pred = buffer_random(n),
                           .target = buffer_random(n),
                           .coefficient = buffer_random(Y),
                           .dpred = buffer_output(n)};
            run_case(&(op_case){.run = run_loss, .check = check_loss, .context = &c, .outputs = {&c.dpred}});
            buffer_free(&c.pred), buffer_free(&c.target), buffer_free(&c.coefficient), buffer_free(&c.dpred);
        }
}

/* A perfect prediction: slope 0, and the rmse losses are sqrt(1e-9), not NaN. */
static void test_perfect_prediction(void **state)
{
    (void)state;
    for (fb3_loss_kind kind = FB3_LOSS_RMSE; kind <= FB3_LOSS_MCRMSE; kind++) {
        loss_case c = {.B = 2,
                       .kind = kind,
                       .beta = 1.0f,
                       .pred = buffer_random(2 * Y),
                       .coefficient = buffer_random(Y),
                       .dpred = buffer_output(2 * Y)};
        c.target = buffer_copy(&c.pred);
        run_case(&(op_case){.run = run_loss, .context = &c, .outputs = {&c.dpred}});
        for (int i = 0; i < 2 * Y; i++) assert_true(c.dpred.data[i] == 0.0f);
        double loss = kind == FB3_LOSS_RMSE ? 2 * Y * sqrt(rmse_eps) : 0.0;
        assert_true(fabs(c.sums[0] - sums_before - loss) < 1e-15);
        buffer_free(&c.pred), buffer_free(&c.target), buffer_free(&c.coefficient), buffer_free(&c.dpred);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_gradient),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_perfect_prediction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
