/* The checked table (--debug): every operation runs, is waited for, and its outputs are searched for values that are
 * not finite. The first one fails with operation, output, layer and step, so that a NaN is reported where it is born
 * and not where it is noticed. Fresh memory is filled with NaN, so that reading what nobody wrote is found as well. */
#include "fb3/backend.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct checked {
    fb3_ops table;        /* the one that wraps `inner`; name and kind of memory are the device's */
    const fb3_ops *inner; /* the device's own */
    int64_t *count;       /* device memory: values found */
} checked;

static const checked *checked_of(const fb3_backend *be)
{
    return be->checked;
}
static const fb3_ops *inner(const fb3_backend *be)
{
    return checked_of(be)->inner;
}

static fb3_status report(const fb3_backend *be, const char *op, const char *output, int64_t found, int64_t n)
{
    if (found == 0) return FB3_OK;
    char where[32] = "outside the layers";
    if (be->layer >= 0) snprintf(where, sizeof where, "layer %d", be->layer);
    return fb3_fail(FB3_FAILED,
                    "%s: %" PRId64 " of the %" PRId64 " values of %s are not finite (%s, step %" PRId64
                    "); look at this operation's inputs, or lower learning_rate",
                    op, found, n, output, where, be->step);
}

/* One output of one operation: `n` values of x. */
static fb3_status check(fb3_backend *be, const char *op, const char *output, const void *x, fb3_dtype dtype, int64_t n)
{
    const checked *state = checked_of(be);
    int64_t found = 0;
    FB3_TRY(state->inner->zero(be, state->count, sizeof *state->count));
    FB3_TRY(state->inner->count_nonfinite(be, state->count, x, dtype, n));
    FB3_TRY(state->inner->download(be, &found, state->count, sizeof found));
    return report(be, op, output, found, n);
}

static fb3_status check_doubles(fb3_backend *be, const char *op, const char *output, const double *x, int n)
{
    int64_t found = 0;
    for (int i = 0; i < n; i++) {
        double value;
        FB3_TRY(inner(be)->download(be, &value, x + i, sizeof value));
        found += !isfinite(value);
    }
    return report(be, op, output, found, n);
}

/* Outputs in the activation type, and in float. The operation is the function that asks: fb3_checked_<operation>. */
#define CHECK_ACT(output, n)    FB3_TRY(check(be, __func__, #output, output, be->act, n))
#define CHECK_FLOAT(output, n)  FB3_TRY(check(be, __func__, #output, output, FB3_F32, n))
#define CHECK_DOUBLE(output, n) FB3_TRY(check_doubles(be, __func__, #output, output, n))

static int64_t area(int rows, int columns)
{
    return (int64_t)rows * columns;
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void close(fb3_backend *be)
{
    checked *state = be->checked;
    const fb3_ops *ops = state->inner;
    ops->free(be, state->count);
    free(state);
    be->checked = NULL;
    ops->close(be);
}

static void describe(const fb3_backend *be, char *text, size_t bytes)
{
    inner(be)->describe(be, text, bytes);
    size_t used = strlen(text);
    if (used < bytes) snprintf(text + used, bytes - used, ", checked");
}

static fb3_status alloc(fb3_backend *be, void **memory, size_t bytes)
{
    FB3_TRY(inner(be)->alloc(be, memory, bytes));
    unsigned char all_ones[4096]; /* bytes of 255: a NaN as double, float and bf16 */
    memset(all_ones, 0xFF, sizeof all_ones);
    fb3_status status = FB3_OK;
    for (size_t at = 0; at < bytes && status == FB3_OK; at += sizeof all_ones) {
        size_t piece = bytes - at < sizeof all_ones ? bytes - at : sizeof all_ones;
        status = inner(be)->upload(be, (char *)*memory + at, all_ones, piece);
    }
    if (status == FB3_OK) status = inner(be)->sync(be);
    if (status != FB3_OK) {
        inner(be)->free(be, *memory);
        *memory = NULL;
    }
    return status;
}

static void free_memory(fb3_backend *be, void *memory)
{
    inner(be)->free(be, memory);
}

static fb3_status upload(fb3_backend *be, void *dst, const void *src_host, size_t bytes)
{
    FB3_TRY(inner(be)->upload(be, dst, src_host, bytes));
    return inner(be)->sync(be);
}

static fb3_status download(fb3_backend *be, void *dst_host, const void *src, size_t bytes)
{
    return inner(be)->download(be, dst_host, src, bytes);
}

static fb3_status zero(fb3_backend *be, void *memory, size_t bytes)
{
    FB3_TRY(inner(be)->zero(be, memory, bytes));
    return inner(be)->sync(be);
}

static fb3_status sync(fb3_backend *be)
{
    return inner(be)->sync(be);
}

static fb3_status reserve(fb3_backend *be, const fb3_limits *limits)
{
    return inner(be)->reserve(be, limits);
}

static fb3_status count_nonfinite(fb3_backend *be, int64_t *count, const void *x, fb3_dtype dtype, int64_t n)
{
    FB3_TRY(inner(be)->count_nonfinite(be, count, x, dtype, n));
    return inner(be)->sync(be);
}

static fb3_status cast_to_act(fb3_backend *be, void *dst, const float *src, int64_t n)
{
    FB3_TRY(inner(be)->cast_to_act(be, dst, src, n));
    CHECK_ACT(dst, n);
    return FB3_OK;
}

/* --- embeddings and the position table ---------------------------------------------------------------------------- */

static fb3_status embedding_fwd(fb3_backend *be, void *y, float *mean, float *rstd, const float *word,
                                const int32_t *ids, const float *gamma, const float *beta, float eps,
                                const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    FB3_TRY(inner(be)->embedding_fwd(be, y, mean, rstd, word, ids, gamma, beta, eps, ragged, C, drop));
    CHECK_FLOAT(mean, ragged->T);
    CHECK_FLOAT(rstd, ragged->T);
    CHECK_ACT(y, area(ragged->T, C));
    return FB3_OK;
}

static fb3_status embedding_bwd(fb3_backend *be, float *dword, float *dgamma, float *dbeta, const void *dy,
                                const float *mean, const float *rstd, const float *word, const int32_t *ids,
                                const int32_t *by_id, const int32_t *id_start, const int32_t *id_value, int U,
                                const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    FB3_TRY(inner(be)->embedding_bwd(be, dword, dgamma, dbeta, dy, mean, rstd, word, ids, by_id, id_start, id_value, U,
                                     gamma, ragged, C, drop));
    CHECK_FLOAT(dgamma, C);
    CHECK_FLOAT(dbeta, C);
    for (int u = 0; u < U; u++) { /* the rows that it added to */
        int32_t row = 0;
        FB3_TRY(inner(be)->download(be, &row, id_value + u, sizeof row));
        FB3_TRY(check(be, __func__, "dword", dword + (int64_t)row * C, FB3_F32, C));
    }
    return FB3_OK;
}

static fb3_status layernorm_fwd(fb3_backend *be, void *y, float *mean, float *rstd, const float *x, const float *gamma,
                                const float *beta, float eps, int R, int C)
{
    FB3_TRY(inner(be)->layernorm_fwd(be, y, mean, rstd, x, gamma, beta, eps, R, C));
    CHECK_FLOAT(mean, R);
    CHECK_FLOAT(rstd, R);
    CHECK_ACT(y, area(R, C));
    return FB3_OK;
}

static fb3_status layernorm_bwd(fb3_backend *be, float *dx, float *dgamma, float *dbeta, const float *dy,
                                const float *x, const float *mean, const float *rstd, const float *gamma, int R, int C)
{
    FB3_TRY(inner(be)->layernorm_bwd(be, dx, dgamma, dbeta, dy, x, mean, rstd, gamma, R, C));
    CHECK_FLOAT(dx, area(R, C));
    CHECK_FLOAT(dgamma, C);
    CHECK_FLOAT(dbeta, C);
    return FB3_OK;
}

static fb3_status dropout_fwd(fb3_backend *be, void *y, const void *x, const fb3_ragged *ragged, int C,
                              const fb3_dropout *drop)
{
    FB3_TRY(inner(be)->dropout_fwd(be, y, x, ragged, C, drop));
    CHECK_ACT(y, area(ragged->T, C));
    return FB3_OK;
}

static fb3_status dropout_bwd_add(fb3_backend *be, float *dx, const void *dy, const fb3_ragged *ragged, int C,
                                  const fb3_dropout *drop)
{
    FB3_TRY(inner(be)->dropout_bwd_add(be, dx, dy, ragged, C, drop));
    CHECK_FLOAT(dx, area(ragged->T, C));
    return FB3_OK;
}

/* --- linear layers ------------------------------------------------------------------------------------------------ */

static fb3_status linear_fwd(fb3_backend *be, void *y, const void *x, const void *w, const float *b, int T, int I,
                             int O)
{
    FB3_TRY(inner(be)->linear_fwd(be, y, x, w, b, T, I, O));
    CHECK_ACT(y, area(T, O));
    return FB3_OK;
}

static fb3_status linear_gelu_fwd(fb3_backend *be, void *y, void *pre, const void *x, const void *w, const float *b,
                                  int T, int I, int O)
{
    FB3_TRY(inner(be)->linear_gelu_fwd(be, y, pre, x, w, b, T, I, O));
    CHECK_ACT(pre, area(T, O));
    CHECK_ACT(y, area(T, O));
    return FB3_OK;
}

static fb3_status linear_bwd_input(fb3_backend *be, void *dx, const void *dy, const void *w, int T, int I, int O,
                                   bool accumulate)
{
    FB3_TRY(inner(be)->linear_bwd_input(be, dx, dy, w, T, I, O, accumulate));
    CHECK_ACT(dx, area(T, I));
    return FB3_OK;
}

static fb3_status linear_bwd_weight(fb3_backend *be, float *dw, float *db, const void *dy, const void *x, int T, int I,
                                    int O)
{
    FB3_TRY(inner(be)->linear_bwd_weight(be, dw, db, dy, x, T, I, O));
    CHECK_FLOAT(dw, area(O, I));
    if (db) CHECK_FLOAT(db, O);
    return FB3_OK;
}

static fb3_status linear_gelu_bwd_input(fb3_backend *be, void *dpre, void *y, const void *dy, const void *w,
                                        const void *pre, int T, int I, int O)
{
    FB3_TRY(inner(be)->linear_gelu_bwd_input(be, dpre, y, dy, w, pre, T, I, O));
    CHECK_ACT(y, area(T, I));
    CHECK_ACT(dpre, area(T, I));
    return FB3_OK;
}

/* --- attention and residual --------------------------------------------------------------------------------------- */

static fb3_status attention_fwd(fb3_backend *be, void *out, float *lse, const void *qkv, const void *pos,
                                const fb3_attention *att, const fb3_ragged *ragged, const fb3_dropout *drop)
{
    FB3_TRY(inner(be)->attention_fwd(be, out, lse, qkv, pos, att, ragged, drop));
    CHECK_FLOAT(lse, area(att->H, ragged->T));
    CHECK_ACT(out, area(ragged->T, att->H * att->D));
    return FB3_OK;
}

static fb3_status attention_bwd(fb3_backend *be, void *dqkv, void *dpos, const void *dout, const void *out,
                                const float *lse, const void *qkv, const void *pos, const fb3_attention *att,
                                const fb3_ragged *ragged, const fb3_dropout *drop)
{
    FB3_TRY(inner(be)->attention_bwd(be, dqkv, dpos, dout, out, lse, qkv, pos, att, ragged, drop));
    CHECK_ACT(dqkv, area(ragged->T, 3 * att->H * att->D));
    CHECK_ACT(dpos, area(att->R, 2 * att->H * att->D));
    return FB3_OK;
}

static fb3_status add_layernorm_fwd(fb3_backend *be, void *y, void *s, float *mean, float *rstd, const void *x,
                                    const void *residual, const float *gamma, const float *beta, float eps,
                                    const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    FB3_TRY(inner(be)->add_layernorm_fwd(be, y, s, mean, rstd, x, residual, gamma, beta, eps, ragged, C, drop));
    CHECK_ACT(s, area(ragged->T, C));
    CHECK_FLOAT(mean, ragged->T);
    CHECK_FLOAT(rstd, ragged->T);
    CHECK_ACT(y, area(ragged->T, C));
    return FB3_OK;
}

static fb3_status add_layernorm_bwd(fb3_backend *be, void *dx, void *dresidual, float *dgamma, float *dbeta,
                                    const void *dy, const void *s, const float *mean, const float *rstd,
                                    const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    FB3_TRY(inner(be)->add_layernorm_bwd(be, dx, dresidual, dgamma, dbeta, dy, s, mean, rstd, gamma, ragged, C, drop));
    CHECK_ACT(dresidual, area(ragged->T, C));
    CHECK_ACT(dx, area(ragged->T, C));
    CHECK_FLOAT(dgamma, C);
    CHECK_FLOAT(dbeta, C);
    return FB3_OK;
}

/* --- head and loss ------------------------------------------------------------------------------------------------ */

static fb3_status mean_pool_fwd(fb3_backend *be, float *pooled, const void *x, const fb3_ragged *ragged, int C)
{
    FB3_TRY(inner(be)->mean_pool_fwd(be, pooled, x, ragged, C));
    CHECK_FLOAT(pooled, area(ragged->B, C));
    return FB3_OK;
}

static fb3_status mean_pool_bwd(fb3_backend *be, void *dx, const float *dpooled, const fb3_ragged *ragged, int C)
{
    FB3_TRY(inner(be)->mean_pool_bwd(be, dx, dpooled, ragged, C));
    CHECK_ACT(dx, area(ragged->T, C));
    return FB3_OK;
}

static fb3_status head_fwd(fb3_backend *be, float *pred, const float *pooled, const float *w, const float *b,
                           const fb3_ragged *ragged, int C, int Y, const fb3_dropout *drop)
{
    FB3_TRY(inner(be)->head_fwd(be, pred, pooled, w, b, ragged, C, Y, drop));
    CHECK_FLOAT(pred, area(ragged->B, Y));
    return FB3_OK;
}

static fb3_status head_bwd(fb3_backend *be, float *dpooled, float *dw, float *db, const float *dpred,
                           const float *pooled, const float *w, const fb3_ragged *ragged, int C, int Y,
                           const fb3_dropout *drop)
{
    FB3_TRY(inner(be)->head_bwd(be, dpooled, dw, db, dpred, pooled, w, ragged, C, Y, drop));
    CHECK_FLOAT(dpooled, area(ragged->B, C));
    CHECK_FLOAT(dw, area(Y, C));
    CHECK_FLOAT(db, Y);
    return FB3_OK;
}

static fb3_status loss_fwd(fb3_backend *be, double *sums, const float *pred, const float *target, int B, int Y,
                           fb3_loss_kind kind, float beta)
{
    FB3_TRY(inner(be)->loss_fwd(be, sums, pred, target, B, Y, kind, beta));
    CHECK_DOUBLE(sums, FB3_LOSS_SUMS(Y));
    return FB3_OK;
}

static fb3_status loss_bwd(fb3_backend *be, float *dpred, const float *pred, const float *target, int B, int Y,
                           fb3_loss_kind kind, float beta, const float *coefficient)
{
    FB3_TRY(inner(be)->loss_bwd(be, dpred, pred, target, B, Y, kind, beta, coefficient));
    CHECK_FLOAT(dpred, area(B, Y));
    return FB3_OK;
}

/* --- optimizer ---------------------------------------------------------------------------------------------------- */

static fb3_status sum_squares(fb3_backend *be, double *sum, const float *x, int64_t n)
{
    FB3_TRY(inner(be)->sum_squares(be, sum, x, n));
    CHECK_DOUBLE(sum, 1);
    return FB3_OK;
}

static fb3_status adamw(fb3_backend *be, float *p, float *m, float *v, const float *g, void *p_act,
                        const fb3_adamw_segment *segments, const fb3_adamw_segment *segments_host, int count,
                        const fb3_adamw *args, const double *squares)
{
    FB3_TRY(inner(be)->adamw(be, p, m, v, g, p_act, segments, segments_host, count, args, squares));
    for (int s = 0; s < count; s++) {
        int64_t offset = segments_host[s].offset, n = segments_host[s].count;
        FB3_TRY(check(be, __func__, "m", m + offset, FB3_F32, n));
        FB3_TRY(check(be, __func__, "v", v + offset, FB3_F32, n));
        FB3_TRY(check(be, __func__, "p", p + offset, FB3_F32, n));
        if (p_act)
            FB3_TRY(check(be, __func__, "p_act", (const char *)p_act + (size_t)offset * fb3_dtype_size(be->act),
                          be->act, n));
    }
    return FB3_OK;
}

static const fb3_ops checked_ops = {
    .close = close,
    .describe = describe,
    .alloc = alloc,
    .free = free_memory,
    .upload = upload,
    .download = download,
    .zero = zero,
    .sync = sync,
    .reserve = reserve,
    .cast_to_act = cast_to_act,
    .count_nonfinite = count_nonfinite,
    .embedding_fwd = embedding_fwd,
    .embedding_bwd = embedding_bwd,
    .layernorm_fwd = layernorm_fwd,
    .layernorm_bwd = layernorm_bwd,
    .dropout_fwd = dropout_fwd,
    .dropout_bwd_add = dropout_bwd_add,
    .linear_fwd = linear_fwd,
    .linear_gelu_fwd = linear_gelu_fwd,
    .linear_bwd_input = linear_bwd_input,
    .linear_bwd_weight = linear_bwd_weight,
    .linear_gelu_bwd_input = linear_gelu_bwd_input,
    .attention_fwd = attention_fwd,
    .attention_bwd = attention_bwd,
    .add_layernorm_fwd = add_layernorm_fwd,
    .add_layernorm_bwd = add_layernorm_bwd,
    .mean_pool_fwd = mean_pool_fwd,
    .mean_pool_bwd = mean_pool_bwd,
    .head_fwd = head_fwd,
    .head_bwd = head_bwd,
    .loss_fwd = loss_fwd,
    .loss_bwd = loss_bwd,
    .sum_squares = sum_squares,
    .adamw = adamw,
};

fb3_status fb3_backend_make_checked(fb3_backend *backend)
{
    checked *state = calloc(1, sizeof *state);
    FB3_REQUIRE(state != NULL, FB3_FAILED, "out of memory for the checked table; free some");
    state->inner = backend->ops;
    state->table = checked_ops;
    state->table.name = state->inner->name;
    state->table.host_memory = state->inner->host_memory;
    void *count = NULL;
    fb3_status status = fb3_ops_check(&state->table);
    if (status == FB3_OK) status = state->inner->alloc(backend, &count, sizeof *state->count);
    if (status != FB3_OK) {
        free(state);
        return status;
    }
    state->count = count;
    backend->checked = state;
    backend->ops = &state->table;
    return FB3_OK;
}
