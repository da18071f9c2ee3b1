/* Disentangled attention against the naive O(n^2) formula in double (DESIGN 4), which is itself held against finite
 * differences. Lengths around the strip of 64 and into the logarithmic buckets; head sizes that fill vectors and not.
 */
#include "support.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 256, MAX_RELATIVE = 512, LIMIT = 2048 };

/* x(i - j) of DESIGN 4, for distances -(LIMIT-1) .. LIMIT-1. */
static array bucket_table;
static int16_t *bucket; /* [i - j], on the host */

static int bucket_of(int r)
{
    const int middle = BUCKETS / 2;
    if (abs(r) <= middle) return r;
    double share = log(abs(r) / (double)middle) / log((MAX_RELATIVE - 1) / (double)middle);
    int position = (int)ceil(share * (middle - 1)) + middle;
    return r < 0 ? -position : position;
}

static void fill_buckets(void)
{
    for (int r = -(LIMIT - 1); r < LIMIT; r++) {
        int x = bucket_of(r) + BUCKETS;
        bucket[r] = (int16_t)(x < 0 ? 0 : x > 2 * BUCKETS - 1 ? 2 * BUCKETS - 1 : x);
    }
}

static int set_up(void **state)
{
    (void)state;
    bucket_table = array_make(2 * LIMIT - 1, sizeof *bucket, NULL);
    bucket = (int16_t *)bucket_table.host + LIMIT - 1;
    fill_buckets();
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    array_free(&bucket_table);
    return 0;
}

/* --- the naive formula -------------------------------------------------------------------------------------------- */

typedef struct problem {
    fb3_attention att;
    layout l;
    const fb3_dropout *drop;
    double *qkv, *pos; // [T,3C], [R,2C]
} problem;

static int channels(const problem *p)
{
    return p->att.H * p->att.D;
}
static double dot(const double *a, const double *b, int n)
{
    double sum = 0.0;
    for (int d = 0; d < n; d++) sum += a[d] * b[d];
    return sum;
}

/* Pointers to what pair (i, j) of head h in the sequence that starts at row `start` multiplies. */
typedef struct pair {
    const double *q, *k, *v, *qpos, *kpos;
    int x;
} pair;
static pair pair_at(const problem *p, int start, int h, int i, int j)
{
    int C = channels(p), x = bucket[i - j] - p->att.pos_first;
    const double *row_i = p->qkv + (int64_t)(start + i) * 3 * C + h * p->att.D;
    const double *row_j = p->qkv + (int64_t)(start + j) * 3 * C + h * p->att.D;
    const double *row_x = p->pos + (int64_t)x * 2 * C + h * p->att.D;
    return (pair){.q = row_i, .k = row_j + C, .v = row_j + 2 * C, .qpos = row_x, .kpos = row_x + C, .x = x};
}

/* probabilities [n] of query i and its log-sum-exp */
static double softmax_row(const problem *p, double *probability, int start, int n, int h, int i)
{
    double highest = -INFINITY;
    for (int j = 0; j < n; j++) {
        pair a = pair_at(p, start, h, i, j);
        probability[j] =
            (double)p->att.scale * (dot(a.q, a.k, p->att.D) + dot(a.q, a.kpos, p->att.D) + dot(a.k, a.qpos, p->att.D));
        highest = fmax(highest, probability[j]);
    }
    double sum = exp(probability[0] - highest);
    for (int j = 1; j < n; j++) sum += exp(probability[j] - highest);
    double lse = highest + log(sum);
    for (int j = 0; j < n; j++) probability[j] = exp(probability[j] - lse);
    return lse;
}

static double keep(const problem *p, int b, int n, int h, int i, int j)
{
    uint64_t n4 = ((uint64_t)n + 3) / 4 * 4;
    return reference_keep(p->drop, p->l.sample[b], ((uint64_t)h * (uint64_t)n + (uint64_t)i) * n4 + (uint64_t)j);
}

static void reference_fwd(const problem *p, double *out, double *lse)
{
    int C = channels(p), D = p->att.D;
    double *probability = zeros(p->l.ragged.max_len);
    memset(out, 0, (size_t)p->l.ragged.T * (size_t)C * sizeof *out);
    for (int b = 0; b < p->l.ragged.B; b++) {
        int start = p->l.seq_start[b], n = p->l.seq_start[b + 1] - start;
        for (int h = 0; h < p->att.H; h++)
            for (int i = 0; i < n; i++) {
                double log_sum = softmax_row(p, probability, start, n, h, i);
                if (lse) lse[(int64_t)h * p->l.ragged.T + start + i] = log_sum;
                for (int j = 0; j < n; j++) {
                    double weight = keep(p, b, n, h, i, j) * probability[j];
                    const double *v = pair_at(p, start, h, i, j).v;
                    for (int d = 0; d < D; d++) out[(int64_t)(start + i) * C + h * D + d] += weight * v[d];
                }
            }
    }
    free(probability);
}

static void add(double *to, double a, const double *x, int n)
{
    for (int d = 0; d < n; d++) to[d] += a * x[d];
}

/* One query's share of dqkv [T,3C] and dpos [R,2C]; dout points at its head. */
static void query_bwd(const problem *p, double *dqkv, double *dpos, const double *dout, const double *probability,
                      int b, int h, int i)
{
    int C = channels(p), D = p->att.D, start = p->l.seq_start[b], n = p->l.seq_start[b + 1] - start;
    double delta = 0.0;
    for (int j = 0; j < n; j++)
        delta += probability[j] * keep(p, b, n, h, i, j) * dot(dout, pair_at(p, start, h, i, j).v, D);
    double *dq = dqkv + (int64_t)(start + i) * 3 * C + h * D;
    for (int j = 0; j < n; j++) {
        pair a = pair_at(p, start, h, i, j);
        double *dk = dqkv + (int64_t)(start + j) * 3 * C + C + h * D, *dv = dk + C;
        double *dqpos = dpos + (int64_t)a.x * 2 * C + h * D, *dkpos = dqpos + C;
        double kept = keep(p, b, n, h, i, j);
        double ds = probability[j] * (kept * dot(dout, a.v, D) - delta) * (double)p->att.scale;
        add(dv, kept * probability[j], dout, D);
        add(dq, ds, a.k, D);
        add(dq, ds, a.kpos, D);
        add(dk, ds, a.q, D);
        add(dk, ds, a.qpos, D);
        add(dkpos, ds, a.q, D);
        add(dqpos, ds, a.k, D);
    }
}

static void reference_bwd(const problem *p, double *dqkv, double *dpos, const double *dout)
{
    int C = channels(p);
    double *probability = zeros(p->l.ragged.max_len);
    memset(dqkv, 0, (size_t)p->l.ragged.T * 3 * (size_t)C * sizeof *dqkv);
    memset(dpos, 0, (size_t)p->att.R * 2 * (size_t)C * sizeof *dpos);
    for (int b = 0; b < p->l.ragged.B; b++) {
        int start = p->l.seq_start[b], n = p->l.seq_start[b + 1] - start;
        for (int h = 0; h < p->att.H; h++)
            for (int i = 0; i < n; i++) {
                softmax_row(p, probability, start, n, h, i);
                query_bwd(p, dqkv, dpos, dout + (int64_t)(start + i) * C + h * p->att.D, probability, b, h, i);
            }
    }
    free(probability);
}

/* --- the operation ------------------------------------------------------------------------------------------------ */

typedef struct attention_case {
    problem p;
    buffer qkv, pos, dout, out, lse, dqkv, dpos;
    double *want_out, *want_lse, *want_dqkv, *want_dpos;
} attention_case;

/* As an operation takes it: the buckets are the backend's memory. */
static const fb3_attention *attention_of(attention_case *c)
{
    c->p.att.bucket = (const int16_t *)device(&bucket_table) + LIMIT - 1;
    return &c->p.att;
}

static fb3_status run_fwd(fb3_backend *be, void *context)
{
    attention_case *c = context;
    return be->ops->attention_fwd(be, act(&c->out), f32(&c->lse), act(&c->qkv), act(&c->pos), attention_of(c),
                                  ragged_of(&c->p.l), c->p.drop);
}

static fb3_status run_both(fb3_backend *be, void *context)
{
    attention_case *c = context;
    FB3_TRY(run_fwd(be, context));
    return be->ops->attention_bwd(be, act(&c->dqkv), act(&c->dpos), act(&c->dout), act(&c->out), f32(&c->lse),
                                  act(&c->qkv), act(&c->pos), attention_of(c), ragged_of(&c->p.l), c->p.drop);
}

/* Our own kernels on CUDA are there for heads of 16, 32 and 64; others they refuse, and name the option that takes
 * them.
 */
static const char *refusal(void *context)
{
    const int D = ((const attention_case *)context)->p.att.D;
    return fused_on_cuda() && D != 16 && D != 32 && D != 64 ? "attention_impl" : NULL;
}

static void run_attention(attention_case *c, fb3_status (*run)(fb3_backend *be, void *context),
                          void (*check)(void *context))
{
    const bool both = run == run_both;
    const fb3_ragged *r = &c->p.l.ragged;
    const int C = c->p.att.H * c->p.att.D;
    run_case(&(op_case){
        .run = run,
        .check = check,
        .context = c,
        .outputs = {&c->out, &c->lse, both ? &c->dqkv : NULL, both ? &c->dpos : NULL},
        .limits =
            {.T = r->T, .B = r->B, .max_len = r->max_len, .C = C, .H = c->p.att.H, .F = C, .R = c->p.att.R, .Y = 1},
        .attention = true,
        .refusal = refusal});
}

/* In bf16 P, dS, their sums over distances and the output that delta is made of are rounded, and dropout scales by 4/3:
 * the gradients are held to more than a rounding. */
static double gradient_tolerance(double in_float)
{
    return act_type() == FB3_BF16 ? 1.2e-2 : in_float;
}

/* fp32 sums over n <= 700 keys and D <= 80: a few hundred roundings of 6e-8, most of which cancel. */
static void check_both(void *context)
{
    attention_case *c = context;
    int C = channels(&c->p);
    expect_close("lse", &c->lse, c->want_lse, 4e-7);
    expect_close("out", &c->out, c->want_out, 1e-6);
    expect_close_columns("dq", &c->dqkv, c->want_dqkv, 3 * C, 0, C, gradient_tolerance(2e-6));
    expect_close_columns("dk", &c->dqkv, c->want_dqkv, 3 * C, C, C, gradient_tolerance(2e-6));
    expect_close_columns("dv", &c->dqkv, c->want_dqkv, 3 * C, 2 * C, C, gradient_tolerance(1e-6));
    expect_close_columns("dQpos", &c->dpos, c->want_dpos, 2 * C, 0, C, gradient_tolerance(2e-6));
    expect_close_columns("dKpos", &c->dpos, c->want_dpos, 2 * C, C, C, gradient_tolerance(2e-6));
}

static attention_case case_make(const int *lengths, int B, int H, int D, bool whole_table, const fb3_dropout *drop)
{
    attention_case c = {.p = {.l = layout_make(lengths, B), .drop = drop}};
    int reach = c.p.l.ragged.max_len > 0 ? c.p.l.ragged.max_len - 1 : 0, C = H * D, T = c.p.l.ragged.T;
    c.p.att = (fb3_attention){.H = H,
                              .D = D,
                              .scale = 1.0f / sqrtf(3.0f * (float)D),
                              .pos_first = whole_table ? 0 : bucket[-reach],
                              .R = whole_table ? 2 * BUCKETS : bucket[reach] - bucket[-reach] + 1};
    c.qkv = buffer_random_act((int64_t)T * 3 * C);
    c.pos = buffer_random_act((int64_t)c.p.att.R * 2 * C);
    c.dout = buffer_random_act((int64_t)T * C);
    c.out = buffer_output_act((int64_t)T * C);
    c.lse = buffer_output((int64_t)H * T);
    c.dqkv = buffer_output_act((int64_t)T * 3 * C);
    c.dpos = buffer_output_act((int64_t)c.p.att.R * 2 * C);
    c.p.qkv = doubles(&c.qkv);
    c.p.pos = doubles(&c.pos);
    c.want_out = zeros((int64_t)T * C);
    c.want_lse = zeros((int64_t)H * T);
    c.want_dqkv = zeros((int64_t)T * 3 * C);
    c.want_dpos = zeros((int64_t)c.p.att.R * 2 * C);
    return c;
}

static void case_free(attention_case *c)
{
    layout_free(&c->p.l);
    buffer *buffers[] = {&c->qkv, &c->pos, &c->dout, &c->out, &c->lse, &c->dqkv, &c->dpos};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) buffer_free(buffers[i]);
    double *arrays[] = {c->p.qkv, c->p.pos, c->want_out, c->want_lse, c->want_dqkv, c->want_dpos};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
}

static void compare(const int *lengths, int B, int H, int D, bool whole_table, const fb3_dropout *drop)
{
    attention_case c = case_make(lengths, B, H, D, whole_table, drop);
    double *dout = doubles(&c.dout);
    reference_fwd(&c.p, c.want_out, c.want_lse);
    reference_bwd(&c.p, c.want_dqkv, c.want_dpos, dout);
    run_attention(&c, run_both, check_both);
    free(dout);
    case_free(&c);
}

/* Into the logarithmic buckets, and with the last one past the end of the table. */
static const int ragged_lengths[] = {1, 2, 63, 64, 65, 300, 700};
static int ragged_count(void)
{
    const int all = sizeof ragged_lengths / sizeof *ragged_lengths;
    return large_cases() ? all : all - 1;
}

static void test_ragged_64(void **state)
{
    (void)state, compare(ragged_lengths, ragged_count(), 2, 64, false, &no_dropout);
}
static void test_ragged_dropout(void **state)
{
    (void)state;
    const int few[] = {129, 33, 64};
    compare(ragged_lengths, ragged_count(), 2, 32, false, &some_dropout);
    compare(few, 3, 3, 64, false, &some_dropout);
    compare(few, 2, 1, 64, true, NULL);
}
static void test_head_sizes(void **state)
{
    (void)state;
    const int lengths[] = {130, 37}, sizes[] = {16, 32, 48, 64, 80, 128, 5, 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) compare(lengths, 2, 3, sizes[i], false, &some_dropout);
}
/* One sequence on every side of the edges of 16 and of 64, which leave out queries, keys and rows of the table. */
static void test_tile_edges(void **state)
{
    (void)state;
    const int lengths[] = {15, 16, 17, 31, 32, 33, 127, 128, 129};
    const int first = large_cases() ? 0 : 6;
    for (int i = first; i < (int)(sizeof lengths / sizeof *lengths); i++)
        compare(&lengths[i], 1, 2, 64, false, &some_dropout);
}
/* Tables that no published model has, but a configuration can: x jumps over rows from one distance to the next, which
 * get the gradient 0, or stays for long, then jumps. */
static void test_rows_that_are_jumped_over(void **state)
{
    (void)state;
    const int lengths[] = {60, 7, 90, 130};
    for (int r = -(LIMIT - 1); r < LIMIT; r++) {
        int x = BUCKETS + (abs(r) < 40 ? 3 * r : r < 0 ? -120 - (abs(r) - 40) / 7 * 5 : 120 + (r - 40) / 7 * 5);
        bucket[r] = (int16_t)(x < 0 ? 0 : x > 2 * BUCKETS - 1 ? 2 * BUCKETS - 1 : x);
    }
    compare(lengths, 4, 2, 16, false, &no_dropout);
    compare(lengths, 4, 1, 32, true, &some_dropout);
    fill_buckets();
}

/* As many heads as the base model has. */
static void test_many_heads(void **state)
{
    (void)state;
    const int lengths[] = {20, 33};
    compare(lengths, 2, 12, 64, false, &some_dropout);
}

/* Rows that no pair reaches get the gradient 0. */
static void test_whole_table(void **state)
{
    (void)state;
    const int lengths[] = {1, 50};
    compare(lengths, 2, 1, 16, true, &no_dropout);
}

static void check_out_is_v(void *context)
{
    const attention_case *c = context;
    const int C = channels(&c->p);
    assert_memory_equal(c->out.data, c->qkv.data + 2 * C, (size_t)C * sizeof(float));
}

/* One token: its probability is 1, so out is v to the bit. */
static void test_one_token(void **state)
{
    (void)state;
    const int lengths[] = {1};
    attention_case c = case_make(lengths, 1, 2, 16, false, &no_dropout);
    run_attention(&c, run_fwd, check_out_is_v);
    case_free(&c);
}
/* More sequences than partials of the position gradient; one of them is empty. */
static void test_many_sequences(void **state)
{
    (void)state;
    const int lengths[] = {5, 9, 1, 3, 0, 12, 7, 8, 2, 4, 6, 10, 11, 1, 1, 20, 19, 18, 17};
    compare(lengths, sizeof lengths / sizeof *lengths, 2, 16, false, &some_dropout);
}

static void test_empty(void **state)
{
    (void)state;
    attention_case c = case_make(NULL, 0, 2, 16, true, &no_dropout);
    run_attention(&c, run_both, check_both);
    case_free(&c);
}

static void check_large_scores(void *context)
{
    const attention_case *c = context;
    expect_close("lse", &c->lse, c->want_lse, 1e-6);
    expect_close("out", &c->out, c->want_out, 2e-4); /* scores near 700 are rounded to 6e-5 */
}

/* Scores of several hundred do not overflow: the largest is taken out first. */
static void test_large_scores(void **state)
{
    (void)state;
    const int lengths[] = {90};
    attention_case c = case_make(lengths, 1, 1, 32, false, &no_dropout);
    buffer_scale(&c.qkv, 12.0f, 0.0f);
    free(c.p.qkv);
    c.p.qkv = doubles(&c.qkv);
    reference_fwd(&c.p, c.want_out, c.want_lse);
    run_attention(&c, run_fwd, check_large_scores);
    case_free(&c);
}

static void forward_only(double *y, void *context)
{
    reference_fwd(context, y, NULL);
}

static void test_reference_gradient(void **state)
{
    (void)state;
    const int lengths[] = {6, 1, 140};
    attention_case c = case_make(lengths, 3, 2, 5, false, &some_dropout);
    double *dout = doubles(&c.dout);
    int64_t outs = (int64_t)c.p.l.ragged.T * channels(&c.p);
    reference_bwd(&c.p, c.want_dqkv, c.want_dpos, dout);
    expect_gradient("dqkv", forward_only, &c.p, c.p.qkv, c.qkv.n, c.want_dqkv, dout, outs);
    expect_gradient("dpos", forward_only, &c.p, c.p.pos, c.pos.n, c.want_dpos, dout, outs);
    free(dout);
    case_free(&c);
}

int main(void)
{
    device_or_skip();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_gradient),
        cmocka_unit_test(test_ragged_64),
        cmocka_unit_test(test_ragged_dropout),
        cmocka_unit_test(test_head_sizes),
        cmocka_unit_test(test_tile_edges),
        cmocka_unit_test(test_rows_that_are_jumped_over),
        cmocka_unit_test(test_whole_table),
        cmocka_unit_test(test_many_heads),
        cmocka_unit_test(test_one_token),
        cmocka_unit_test(test_many_sequences),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_large_scores),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
