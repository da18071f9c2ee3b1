/* Mean pooling, the head and the losses against double. */
#include "support.h"
#include "fb3/dataset.h"
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
    const fb3_ragged *ragged = ragged_of(&c->l);
    FB3_TRY(be->ops->mean_pool_fwd(be, f32(&c->pooled), act(&c->x), ragged, c->C));
    FB3_TRY(be->ops->head_fwd(be, f32(&c->pred), f32(&c->pooled), f32(&c->w), f32(&c->b), ragged, c->C, c->Y, c->drop));
    FB3_TRY(be->ops->head_bwd(be, f32(&c->dpooled), f32(&c->dw), f32(&c->db), f32(&c->dpred), f32(&c->pooled),
                              f32(&c->w), ragged, c->C, c->Y, c->drop));
    return be->ops->mean_pool_bwd(be, act(&c->dx), f32(&c->dpooled), ragged, c->C);
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
    /* sums of six to seven products, or of more */
    const double of_targets = 3e-7 * fmax(1.0, sqrt(c->Y / 6.0));
    const double of_samples = 3e-7 * fmax(1.0, sqrt(c->l.ragged.B / 7.0));
    expect_close("dpooled", &c->dpooled, dpooled, of_targets);
    expect_close("dx", &c->dx, dx, of_targets);
    expect_close("dw", &c->dw, dw, of_samples);
    expect_close("db", &c->db, db, of_samples);
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
    run_case(&(op_case){
        .run = run_head,
        .check = check_head,
        .context = &c,
        .outputs = {&c.pooled, &c.pred, &c.dpooled, &c.dx, &c.dw, &c.db},
        .limits = {.T = c.l.ragged.T, .B = B, .max_len = c.l.ragged.max_len, .C = C, .H = 1, .F = C, .R = 1, .Y = Y}});
    head_free(&c);
}

static void test_head(void **state)
{
    (void)state;
    const int lengths[] = {1, 2, 63, 64, 65, 300, 700};
    int many[131];
    for (int b = 0; b < 131; b++) many[b] = 1 + b % 7;
    compare_head(lengths, large_cases() ? 7 : 6, 768, 6, &some_dropout);
    compare_head(lengths, 6, 301, 6, &no_dropout);
    compare_head(lengths + 2, 3, 64, FB3_MAX_TARGETS, &some_dropout);
    compare_head(many, 131, 65, 6, &some_dropout);
    many[3] = 0;
    compare_head(many, 5, 16, 6, &some_dropout);
    many[3] = 4;
    compare_head(many, 64, 64, 5, NULL);
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

typedef struct loss_case {
    int B, Y;
    fb3_loss_kind kind;
    float beta;
    buffer pred, target, dpred;
    array sums; // double [1 + Y]
} loss_case;

static const double sums_before = 0.25; /* sums are added to */

/* Of the global batch, of which this is a part. */
static int64_t samples_of(const loss_case *c)
{
    return 3 * c->B + 1;
}

static fb3_status run_loss(fb3_backend *be, void *context)
{
    loss_case *c = context;
    FB3_TRY(be->ops->loss_fwd(be, device(&c->sums), f32(&c->pred), f32(&c->target), c->B, c->Y, c->kind, c->beta));
    return be->ops->loss_bwd(be, f32(&c->dpred), f32(&c->pred), f32(&c->target), c->B, c->Y, c->kind, c->beta,
                             device(&c->sums), samples_of(c));
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
        return 0.5 * d * d; /* mcrmse: d of this is p - t; the rest follows from the sums */
    }
}

static void check_loss(void *context)
{
    const loss_case *c = context;
    const int Y = c->Y;
    double sums[FB3_LOSS_SUMS(FB3_MAX_TARGETS)], *dpred = zeros(c->dpred.n);
    const double *got = c->sums.host;
    for (int i = 0; i < FB3_LOSS_SUMS(Y); i++) sums[i] = sums_before;
    for (int64_t i = 0; i < c->pred.n; i++) {
        double d = (double)c->pred.data[i] - (double)c->target.data[i], step = 1e-7;
        if (c->kind != FB3_LOSS_MCRMSE) sums[0] += element_loss(d, c->kind, (double)c->beta);
        sums[1 + i % Y] += d * d;
        double above = element_loss(d + step, c->kind, (double)c->beta);
        double below = element_loss(d - step, c->kind, (double)c->beta);
        dpred[i] = (above - below) / (2.0 * step) / (double)(samples_of(c) * Y);
    }
    if (c->kind == FB3_LOSS_MCRMSE) /* d sqrt(s / n + eps) = ds / (2 n sqrt(s / n + eps)), and ds = 2 (p - t) */
        for (int64_t i = 0; i < c->pred.n; i++) dpred[i] /= sqrt(sums[1 + i % Y] / (double)samples_of(c) + rmse_eps);
    for (int i = 0; i < FB3_LOSS_SUMS(Y); i++)
        if (!(fabs(got[i] - sums[i]) <= 1e-14 * (fabs(sums[i]) + 1.0) * (double)c->pred.n))
            fail_msg("sum %d is %.17g, not %.17g (%s)", i, got[i], sums[i], backend_name());
    expect_close("dpred", &c->dpred, dpred, 1e-6); /* of the differences: 1e-16 / 1e-7 times the loss */
    free(dpred);
}

static loss_case loss_make(int B, int Y, fb3_loss_kind kind, float beta)
{
    double before[FB3_LOSS_SUMS(FB3_MAX_TARGETS)];
    for (int i = 0; i < FB3_LOSS_SUMS(Y); i++) before[i] = sums_before;
    return (loss_case){.B = B,
                       .Y = Y,
                       .kind = kind,
                       .beta = beta,
                       .pred = buffer_random((int64_t)B * Y),
                       .target = buffer_random((int64_t)B * Y),
                       .dpred = buffer_output((int64_t)B * Y),
                       .sums = array_make(FB3_LOSS_SUMS(Y), sizeof *before, before)};
}

static void loss_run(loss_case *c, void (*check)(void *context))
{
    run_case(&(op_case){.run = run_loss,
                        .check = check,
                        .context = c,
                        .outputs = {&c->dpred},
                        .results = {&c->sums},
                        .limits = {.T = c->B, .B = c->B, .max_len = 1, .C = 1, .H = 1, .F = 1, .R = 1, .Y = c->Y}});
}

static void loss_free(loss_case *c)
{
    buffer_free(&c->pred), buffer_free(&c->target), buffer_free(&c->dpred);
    array_free(&c->sums);
}

static const fb3_loss_kind kinds[] = {FB3_LOSS_RMSE, FB3_LOSS_MSE, FB3_LOSS_L1, FB3_LOSS_SMOOTH_L1, FB3_LOSS_MCRMSE};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void test_losses(void **state)
{
    (void)state;
    const int batches[] = {0, 1, 37, 64, 65, 1000}, targets[] = {6, 6, 6, 1, FB3_MAX_TARGETS, 6};
    for (int k = 0; k < KINDS; k++)
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            loss_case c = loss_make(batches[b], targets[b], kinds[k], 0.7f);
            loss_run(&c, check_loss);
            loss_free(&c);
        }
}

static void check_perfect(void *context)
{
    const loss_case *c = context;
    const double *sums = c->sums.host;
    for (int64_t i = 0; i < c->dpred.n; i++) assert_true(c->dpred.data[i] == 0.0f);
    double loss = c->kind == FB3_LOSS_RMSE ? (double)c->dpred.n * sqrt(rmse_eps) : 0.0;
    assert_true(fabs(sums[0] - sums_before - loss) < 1e-15);
}

/* A perfect prediction: slope 0, and the rmse losses are sqrt(1e-9), not NaN. */
static void test_perfect_prediction(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        loss_case c = loss_make(2, 6, kinds[k], 1.0f);
        buffer_free(&c.target);
        c.target = buffer_copy(&c.pred);
        loss_run(&c, check_perfect);
        loss_free(&c);
    }
}

int main(void)
{
    device_or_skip();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_gradient),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_perfect_prediction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
