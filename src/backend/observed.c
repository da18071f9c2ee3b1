/* A table that wraps a device's and tells an observer (fb3/observer.h) what happens: before and after an operation,
 * with the work that it did, and each of its outputs. --debug, --profile and bench are observers. */
#include "fb3/observer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fb3_observed {
    fb3_ops table;        /* the one that wraps `inner`; name and kind of memory are the device's */
    const fb3_ops *inner; /* the device's own */
    fb3_observer observer;
};

static const fb3_ops *inner(const fb3_backend *be)
{
    return be->observed->inner;
}
static const fb3_observer *observer_of(const fb3_backend *be)
{
    return &be->observed->observer;
}
static bool wants_outputs(const fb3_backend *be)
{
    return observer_of(be)->output != NULL;
}

static fb3_status before(fb3_backend *be)
{
    const fb3_observer *observer = observer_of(be);
    return observer->before ? observer->before(observer->context, be) : FB3_OK;
}
static fb3_status after(fb3_backend *be, const char *op, fb3_work work)
{
    const fb3_observer *observer = observer_of(be);
    return observer->after ? observer->after(observer->context, be, op, work) : FB3_OK;
}
static fb3_status output(fb3_backend *be, const char *op, const char *name, const void *x, fb3_dtype type, int64_t n)
{
    const fb3_observer *observer = observer_of(be);
    return observer->output ? observer->output(observer->context, be, op, name, x, type, n) : FB3_OK;
}
static fb3_status output_doubles(fb3_backend *be, const char *op, const char *name, const double *x, int n)
{
    if (!wants_outputs(be)) return FB3_OK;
    for (int i = 0; i < n; i++) {
        double value;
        FB3_TRY(inner(be)->download(be, &value, x + i, sizeof value));
        FB3_TRY(observer_of(be)->output_double(observer_of(be)->context, be, op, name, value, n));
    }
    return FB3_OK;
}

/* Runs one operation. The name is that of the function around it: the slot of the table. */
#define OBSERVE(call, work)                                                                                            \
    do {                                                                                                               \
        FB3_TRY(before(be));                                                                                           \
        FB3_TRY(inner(be)->call);                                                                                      \
        FB3_TRY(after(be, __func__, work));                                                                            \
    } while (0)

/* Outputs in the activation type, in float and in double. */
#define OUTPUT_ACT(name, n)    FB3_TRY(output(be, __func__, #name, name, be->act, n))
#define OUTPUT_FLOAT(name, n)  FB3_TRY(output(be, __func__, #name, name, FB3_F32, n))
#define OUTPUT_DOUBLE(name, n) FB3_TRY(output_doubles(be, __func__, #name, name, n))

static int64_t area(int rows, int columns)
{
    return (int64_t)rows * columns;
}

/* --- work --------------------------------------------------------------------------------------------------------- */

static const fb3_work nothing;

static fb3_work product(int T, int I, int O)
{
    return (fb3_work){.flops = 2.0 * T * I * (double)O};
}

/* Passes over [T,C] in the activation type and in float. */
static fb3_work rows(const fb3_backend *be, int T, int C, int act_passes, int float_passes)
{
    double bytes = act_passes * (double)fb3_dtype_size(be->act) + float_passes * 4.0;
    return (fb3_work){.bytes = bytes * T * C};
}

/* `content` and `position` flops per pair of tokens, and of token and table row, and column of a head. */
static fb3_work attention(const fb3_attention *att, const fb3_ragged *ragged, double content, double position)
{
    double per_column = 0;
    for (int b = 0; b < ragged->B; b++) {
        double n = ragged->seq_start_host[b + 1] - ragged->seq_start_host[b];
        per_column += content * n * n + position * n * att->R;
    }
    return (fb3_work){.flops = per_column * att->H * att->D};
}

static fb3_work adamw_work(const fb3_backend *be, const fb3_adamw_segment *segment, int count, bool copy)
{
    double parameters = 0;
    for (int s = 0; s < count; s++) parameters += (double)segment[s].count;
    /* reads p, m, v, g, writes p, m, v and the copy */
    return (fb3_work){.bytes = parameters * (7 * 4.0 + (copy ? (double)fb3_dtype_size(be->act) : 0.0))};
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void close(fb3_backend *be)
{
    const fb3_ops *ops = inner(be);
    fb3_backend_observe_end(be);
    ops->close(be);
}

static void describe(const fb3_backend *be, char *text, size_t bytes)
{
    inner(be)->describe(be, text, bytes);
    size_t used = strlen(text);
    if (used < bytes) snprintf(text + used, bytes - used, ", %s", observer_of(be)->name);
}

static fb3_status alloc(fb3_backend *be, void **memory, size_t bytes)
{
    FB3_TRY(inner(be)->alloc(be, memory, bytes));
    if (!observer_of(be)->poison) return FB3_OK;
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

static fb3_status fetch(fb3_backend *be, void *dst_host, const void *src, size_t bytes)
{
    return inner(be)->fetch(be, dst_host, src, bytes);
}

static fb3_status zero(fb3_backend *be, void *memory, size_t bytes)
{
    OBSERVE(zero(be, memory, bytes), (fb3_work){.bytes = (double)bytes});
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

static size_t scratch_bytes(const fb3_backend *be, const fb3_limits *limits)
{
    return inner(be)->scratch_bytes(be, limits);
}

static fb3_status memory_left(fb3_backend *be, size_t *left, size_t *total)
{
    return inner(be)->memory_left(be, left, total);
}

static fb3_status alloc_host(fb3_backend *be, void **memory, size_t bytes)
{
    return inner(be)->alloc_host(be, memory, bytes);
}

static void free_host(fb3_backend *be, void *memory)
{
    inner(be)->free_host(be, memory);
}

static fb3_status snapshot(fb3_backend *be, void *dst_host, const void *src, size_t bytes)
{
    return inner(be)->snapshot(be, dst_host, src, bytes);
}

static fb3_status snapshot_ready(fb3_backend *be, bool *ready)
{
    return inner(be)->snapshot_ready(be, ready);
}

static fb3_status count_nonfinite(fb3_backend *be, int64_t *count, const void *x, fb3_dtype dtype, int64_t n)
{
    FB3_TRY(inner(be)->count_nonfinite(be, count, x, dtype, n));
    return inner(be)->sync(be);
}

static fb3_status cast_to_act(fb3_backend *be, void *dst, const float *src, int64_t n)
{
    OBSERVE(cast_to_act(be, dst, src, n), (fb3_work){.bytes = (double)n * (double)(4 + fb3_dtype_size(be->act))});
    OUTPUT_ACT(dst, n);
    return FB3_OK;
}

static fb3_status fixed_add(fb3_backend *be, int64_t *sum, const float *x, int64_t n, float limit)
{
    OBSERVE(fixed_add(be, sum, x, n, limit), (fb3_work){.bytes = (double)n * (4 + 8 + 8)});
    return FB3_OK;
}

static fb3_status fixed_to_float(fb3_backend *be, float *x, const int64_t *sum, int64_t n)
{
    OBSERVE(fixed_to_float(be, x, sum, n), (fb3_work){.bytes = (double)n * (8 + 4)});
    return output(be, __func__, "x", x, FB3_F32, n);
}

static fb3_status library_product(fb3_backend *be, int M, int N, int K, double *seconds)
{
    return inner(be)->library_product(be, M, N, K, seconds);
}

static fb3_status memory_rate(fb3_backend *be, double *bytes_per_second)
{
    return inner(be)->memory_rate(be, bytes_per_second);
}

/* --- embeddings and the position table ---------------------------------------------------------------------------- */

static fb3_status embedding_fwd(fb3_backend *be, void *y, float *mean, float *rstd, const float *word,
                                const int32_t *ids, const float *gamma, const float *beta, float eps,
                                const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    OBSERVE(embedding_fwd(be, y, mean, rstd, word, ids, gamma, beta, eps, ragged, C, drop),
            rows(be, ragged->T, C, 1, 1));
    OUTPUT_FLOAT(mean, ragged->T);
    OUTPUT_FLOAT(rstd, ragged->T);
    OUTPUT_ACT(y, area(ragged->T, C));
    return FB3_OK;
}

static fb3_status embedding_bwd(fb3_backend *be, float *dword, float *dgamma, float *dbeta, const void *dy,
                                const float *mean, const float *rstd, const float *word, const int32_t *ids,
                                const int32_t *by_id, const int32_t *id_start, const int32_t *id_value, int U,
                                const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    OBSERVE(embedding_bwd(be, dword, dgamma, dbeta, dy, mean, rstd, word, ids, by_id, id_start, id_value, U, gamma,
                          ragged, C, drop),
            rows(be, ragged->T, C, 1, 4));
    OUTPUT_FLOAT(dgamma, C);
    OUTPUT_FLOAT(dbeta, C);
    for (int u = 0; wants_outputs(be) && u < U; u++) { /* the rows that it added to */
        int32_t row = 0;
        FB3_TRY(inner(be)->download(be, &row, id_value + u, sizeof row));
        FB3_TRY(output(be, __func__, "dword", dword + (int64_t)row * C, FB3_F32, C));
    }
    return FB3_OK;
}

static fb3_status layernorm_fwd(fb3_backend *be, void *y, float *mean, float *rstd, const float *x, const float *gamma,
                                const float *beta, float eps, int R, int C)
{
    OBSERVE(layernorm_fwd(be, y, mean, rstd, x, gamma, beta, eps, R, C), rows(be, R, C, 1, 1));
    OUTPUT_FLOAT(mean, R);
    OUTPUT_FLOAT(rstd, R);
    OUTPUT_ACT(y, area(R, C));
    return FB3_OK;
}

static fb3_status layernorm_bwd(fb3_backend *be, float *dx, float *dgamma, float *dbeta, const float *dy,
                                const float *x, const float *mean, const float *rstd, const float *gamma, int R, int C)
{
    OBSERVE(layernorm_bwd(be, dx, dgamma, dbeta, dy, x, mean, rstd, gamma, R, C), rows(be, R, C, 0, 4));
    OUTPUT_FLOAT(dx, area(R, C));
    OUTPUT_FLOAT(dgamma, C);
    OUTPUT_FLOAT(dbeta, C);
    return FB3_OK;
}

static fb3_status dropout_fwd(fb3_backend *be, void *y, const void *x, const fb3_ragged *ragged, int C,
                              const fb3_dropout *drop)
{
    OBSERVE(dropout_fwd(be, y, x, ragged, C, drop), rows(be, ragged->T, C, 2, 0));
    OUTPUT_ACT(y, area(ragged->T, C));
    return FB3_OK;
}

static fb3_status dropout_bwd_add(fb3_backend *be, float *dx, const void *dy, const fb3_ragged *ragged, int C,
                                  const fb3_dropout *drop)
{
    OBSERVE(dropout_bwd_add(be, dx, dy, ragged, C, drop), rows(be, ragged->T, C, 1, 2));
    OUTPUT_FLOAT(dx, area(ragged->T, C));
    return FB3_OK;
}

/* --- linear layers ------------------------------------------------------------------------------------------------ */

static fb3_status linear_fwd(fb3_backend *be, void *y, const void *x, const void *w, const void *b, int T, int I, int O)
{
    OBSERVE(linear_fwd(be, y, x, w, b, T, I, O), product(T, I, O));
    OUTPUT_ACT(y, area(T, O));
    return FB3_OK;
}

static fb3_status linear_gelu_fwd(fb3_backend *be, void *y, void *pre, const void *x, const void *w, const void *b,
                                  int T, int I, int O)
{
    OBSERVE(linear_gelu_fwd(be, y, pre, x, w, b, T, I, O), product(T, I, O));
    OUTPUT_ACT(pre, area(T, O));
    OUTPUT_ACT(y, area(T, O));
    return FB3_OK;
}

static fb3_status linear_bwd_input(fb3_backend *be, void *dx, const void *dy, const void *w, int T, int I, int O,
                                   bool accumulate)
{
    OBSERVE(linear_bwd_input(be, dx, dy, w, T, I, O, accumulate), product(T, I, O));
    OUTPUT_ACT(dx, area(T, I));
    return FB3_OK;
}

static fb3_status linear_bwd_weight(fb3_backend *be, float *dw, float *db, const void *dy, const void *x, int T, int I,
                                    int O)
{
    OBSERVE(linear_bwd_weight(be, dw, db, dy, x, T, I, O), product(T, I, O));
    OUTPUT_FLOAT(dw, area(O, I));
    if (db) OUTPUT_FLOAT(db, O);
    return FB3_OK;
}

static fb3_status linear_bwd_input_float(fb3_backend *be, float *dx, const void *dy, const void *w, int T, int I, int O)
{
    OBSERVE(linear_bwd_input_float(be, dx, dy, w, T, I, O), product(T, I, O));
    OUTPUT_FLOAT(dx, area(T, I));
    return FB3_OK;
}

static fb3_status linear_gelu_bwd_input(fb3_backend *be, void *dpre, void *y, float *dpre_sum, float *dy_sum,
                                        const void *dy, const void *w, const void *pre, int T, int I, int O)
{
    OBSERVE(linear_gelu_bwd_input(be, dpre, y, dpre_sum, dy_sum, dy, w, pre, T, I, O), product(T, I, O));
    OUTPUT_FLOAT(dpre_sum, I);
    OUTPUT_FLOAT(dy_sum, O);
    OUTPUT_ACT(y, area(T, I));
    OUTPUT_ACT(dpre, area(T, I));
    return FB3_OK;
}

/* --- attention and residual --------------------------------------------------------------------------------------- */

static fb3_status attention_fwd(fb3_backend *be, void *out, float *lse, const void *qkv, const void *pos,
                                const fb3_attention *att, const fb3_ragged *ragged, const fb3_dropout *drop)
{
    OBSERVE(attention_fwd(be, out, lse, qkv, pos, att, ragged, drop), attention(att, ragged, 4, 4));
    OUTPUT_FLOAT(lse, area(att->H, ragged->T));
    OUTPUT_ACT(out, area(ragged->T, att->H * att->D));
    return FB3_OK;
}

static fb3_status attention_bwd(fb3_backend *be, void *dqkv, void *dpos, const void *dout, const void *out,
                                const float *lse, const void *qkv, const void *pos, const fb3_attention *att,
                                const fb3_ragged *ragged, const fb3_dropout *drop)
{
    OBSERVE(attention_bwd(be, dqkv, dpos, dout, out, lse, qkv, pos, att, ragged, drop), attention(att, ragged, 10, 12));
    OUTPUT_ACT(dqkv, area(ragged->T, 3 * att->H * att->D));
    OUTPUT_ACT(dpos, area(att->R, 2 * att->H * att->D));
    return FB3_OK;
}

static fb3_status add_layernorm_fwd(fb3_backend *be, void *y, void *s, float *mean, float *rstd, const void *x,
                                    const void *residual, const float *gamma, const float *beta, float eps,
                                    const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    OBSERVE(add_layernorm_fwd(be, y, s, mean, rstd, x, residual, gamma, beta, eps, ragged, C, drop),
            rows(be, ragged->T, C, 4, 0));
    OUTPUT_ACT(s, area(ragged->T, C));
    OUTPUT_FLOAT(mean, ragged->T);
    OUTPUT_FLOAT(rstd, ragged->T);
    OUTPUT_ACT(y, area(ragged->T, C));
    return FB3_OK;
}

static fb3_status add_layernorm_bwd(fb3_backend *be, void *dx, void *dresidual, float *dgamma, float *dbeta,
                                    const void *dy, const void *s, const float *mean, const float *rstd,
                                    const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    OBSERVE(add_layernorm_bwd(be, dx, dresidual, dgamma, dbeta, dy, s, mean, rstd, gamma, ragged, C, drop),
            rows(be, ragged->T, C, dx == dresidual ? 3 : 4, 0));
    OUTPUT_ACT(dresidual, area(ragged->T, C));
    OUTPUT_ACT(dx, area(ragged->T, C));
    OUTPUT_FLOAT(dgamma, C);
    OUTPUT_FLOAT(dbeta, C);
    return FB3_OK;
}

/* --- head and loss ------------------------------------------------------------------------------------------------ */

static fb3_status mean_pool_fwd(fb3_backend *be, float *pooled, const void *x, const fb3_ragged *ragged, int C)
{
    OBSERVE(mean_pool_fwd(be, pooled, x, ragged, C), rows(be, ragged->T, C, 1, 0));
    OUTPUT_FLOAT(pooled, area(ragged->B, C));
    return FB3_OK;
}

static fb3_status mean_pool_bwd(fb3_backend *be, void *dx, const float *dpooled, const fb3_ragged *ragged, int C)
{
    OBSERVE(mean_pool_bwd(be, dx, dpooled, ragged, C), rows(be, ragged->T, C, 1, 0));
    OUTPUT_ACT(dx, area(ragged->T, C));
    return FB3_OK;
}

static fb3_status head_fwd(fb3_backend *be, float *pred, const float *pooled, const float *w, const float *b,
                           const fb3_ragged *ragged, int C, int Y, const fb3_dropout *drop)
{
    OBSERVE(head_fwd(be, pred, pooled, w, b, ragged, C, Y, drop), nothing);
    OUTPUT_FLOAT(pred, area(ragged->B, Y));
    return FB3_OK;
}

static fb3_status head_bwd(fb3_backend *be, float *dpooled, float *dw, float *db, const float *dpred,
                           const float *pooled, const float *w, const fb3_ragged *ragged, int C, int Y,
                           const fb3_dropout *drop)
{
    OBSERVE(head_bwd(be, dpooled, dw, db, dpred, pooled, w, ragged, C, Y, drop), nothing);
    OUTPUT_FLOAT(dpooled, area(ragged->B, C));
    OUTPUT_FLOAT(dw, area(Y, C));
    OUTPUT_FLOAT(db, Y);
    return FB3_OK;
}

static fb3_status loss_fwd(fb3_backend *be, double *sums, const float *pred, const float *target, int B, int Y,
                           fb3_loss_kind kind, float beta)
{
    OBSERVE(loss_fwd(be, sums, pred, target, B, Y, kind, beta), nothing);
    OUTPUT_DOUBLE(sums, FB3_LOSS_SUMS(Y));
    return FB3_OK;
}

static fb3_status loss_bwd(fb3_backend *be, float *dpred, const float *pred, const float *target, int B, int Y,
                           fb3_loss_kind kind, float beta, const double *sums, int64_t samples)
{
    OBSERVE(loss_bwd(be, dpred, pred, target, B, Y, kind, beta, sums, samples), nothing);
    OUTPUT_FLOAT(dpred, area(B, Y));
    return FB3_OK;
}

/* --- optimizer ---------------------------------------------------------------------------------------------------- */

static fb3_status sum_squares(fb3_backend *be, double *sum, const float *x, int64_t n)
{
    OBSERVE(sum_squares(be, sum, x, n), (fb3_work){.bytes = 4.0 * (double)n});
    OUTPUT_DOUBLE(sum, 1);
    return FB3_OK;
}

static fb3_status adamw(fb3_backend *be, float *p, float *m, float *v, const float *g, void *p_act,
                        const fb3_adamw_segment *segments, const fb3_adamw_segment *segments_host, int count,
                        const fb3_adamw *args, const double *squares)
{
    OBSERVE(adamw(be, p, m, v, g, p_act, segments, segments_host, count, args, squares),
            adamw_work(be, segments_host, count, p_act != NULL && p_act != p));
    for (int s = 0; s < count; s++) {
        int64_t offset = segments_host[s].offset, n = segments_host[s].count;
        FB3_TRY(output(be, __func__, "m", m + offset, FB3_F32, n));
        FB3_TRY(output(be, __func__, "v", v + offset, FB3_F32, n));
        FB3_TRY(output(be, __func__, "p", p + offset, FB3_F32, n));
        if (p_act)
            FB3_TRY(output(be, __func__, "p_act", (const char *)p_act + (size_t)offset * fb3_dtype_size(be->act),
                           be->act, n));
    }
    return FB3_OK;
}

static const fb3_ops observed_ops = {
    .close = close,
    .describe = describe,
    .alloc = alloc,
    .free = free_memory,
    .upload = upload,
    .download = download,
    .fetch = fetch,
    .zero = zero,
    .sync = sync,
    .reserve = reserve,
    .scratch_bytes = scratch_bytes,
    .memory_left = memory_left,
    .alloc_host = alloc_host,
    .free_host = free_host,
    .snapshot = snapshot,
    .snapshot_ready = snapshot_ready,
    .cast_to_act = cast_to_act,
    .fixed_add = fixed_add,
    .fixed_to_float = fixed_to_float,
    .count_nonfinite = count_nonfinite,
    .library_product = library_product,
    .memory_rate = memory_rate,
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
    .linear_bwd_input_float = linear_bwd_input_float,
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

fb3_status fb3_backend_observe(fb3_backend *backend, const fb3_observer *observer)
{
    FB3_REQUIRE(!backend->observed, FB3_INPUT, "%s and %s look at the same operations; use one of them",
                observer_of(backend)->name, observer->name);
    struct fb3_observed *state = calloc(1, sizeof *state);
    FB3_REQUIRE(state != NULL, FB3_FAILED, "out of memory for the table of %s; free some", observer->name);
    *state = (struct fb3_observed){.table = observed_ops, .inner = backend->ops, .observer = *observer};
    state->table.name = backend->ops->name;
    state->table.host_memory = backend->ops->host_memory;
    fb3_status status = fb3_ops_check(&state->table);
    if (status != FB3_OK) {
        free(state);
        return status;
    }
    backend->observed = state;
    backend->ops = &state->table;
    return FB3_OK;
}

void fb3_backend_observe_end(fb3_backend *backend)
{
    struct fb3_observed *state = backend->observed;
    if (!state) return;
    if (state->observer.end) state->observer.end(state->observer.context, backend);
    backend->ops = state->inner;
    backend->observed = NULL;
    free(state);
}

const fb3_ops *fb3_backend_device_ops(const fb3_backend *backend)
{
    return backend->observed ? backend->observed->inner : backend->ops;
}
