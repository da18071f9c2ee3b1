/* The operation table of fb3/backend.h once more, as plainly as it can be written: double loops straight from the
 * formulas in the header, one line of thought each, no blocking, no threads. The model's tests run on it and on the
 * real backends, so that a mistake that a backend's own tests share with the backend shows here. Activations are f32.
 */
#include "model/naive_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AT(array, width, row, col) ((array)[(size_t)(row) * (size_t)(width) + (size_t)(col)])

static fb3_status naive_alloc(fb3_backend *be, void **memory, size_t bytes)
{
    (void)be;
    *memory = malloc(bytes ? bytes : 1);
    if (!*memory) return fb3_fail(FB3_FAILED, "out of memory");
    memset(*memory, 0xFF, bytes); // NaN: what nobody wrote must not be read
    return FB3_OK;
}

static void naive_free(fb3_backend *be, void *memory)
{
    (void)be;
    free(memory);
}

static fb3_status naive_copy(fb3_backend *be, void *dst, const void *src, size_t bytes)
{
    (void)be;
    memcpy(dst, src, bytes);
    return FB3_OK;
}

static fb3_status naive_zero(fb3_backend *be, void *memory, size_t bytes)
{
    (void)be;
    memset(memory, 0, bytes);
    return FB3_OK;
}

static fb3_status naive_sync(fb3_backend *be)
{
    (void)be;
    return FB3_OK;
}

static size_t naive_scratch_bytes(const fb3_backend *be, const fb3_limits *limits)
{
    (void)be, (void)limits;
    return 0;
}

static fb3_status naive_memory_left(fb3_backend *be, size_t *left, size_t *total)
{
    (void)be;
    *left = *total = SIZE_MAX;
    return FB3_OK;
}

static fb3_status naive_snapshot_ready(fb3_backend *be, bool *ready)
{
    (void)be;
    *ready = true;
    return FB3_OK;
}

static fb3_status naive_reserve(fb3_backend *be, const fb3_limits *limits)
{
    (void)be, (void)limits;
    return FB3_OK;
}

static fb3_status naive_cast_to_act(fb3_backend *be, void *dst, const float *src, int64_t n)
{
    return naive_copy(be, dst, src, (size_t)n * sizeof *src);
}

static fb3_status naive_fixed_add(fb3_backend *be, int64_t *sum, const float *x, int64_t n, float limit)
{
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        if (fabsf(x[i]) < limit)
            sum[i] += llrint(x[i] * FB3_FIXED_ONE);
        else
            sum[n]++;
    }
    return FB3_OK;
}

static fb3_status naive_fixed_to_float(fb3_backend *be, float *x, const int64_t *sum, int64_t n)
{
    (void)be;
    for (int64_t i = 0; i < n; i++) x[i] = (float)((double)sum[i] / FB3_FIXED_ONE);
    if (n > 0 && sum[n]) x[0] = NAN;
    return FB3_OK;
}

static fb3_status naive_count_nonfinite(fb3_backend *be, int64_t *count, const void *x, fb3_dtype dtype, int64_t n)
{
    (void)be, (void)dtype;
    for (int64_t i = 0; i < n; i++) *count += !isfinite(((const float *)x)[i]);
    return FB3_OK;
}

/* The factor that dropout gives element e of a sample: 0 or 1 / (1 - p). */
static double keep(const fb3_dropout *drop, uint32_t sample, uint64_t e)
{
    if (drop->p == 0) return 1;
    fb3_philox r = fb3_philox4x32((uint32_t)(e >> 2), drop->site, sample, drop->step, drop->key.k0, drop->key.k1);
    return (double)r.word[e & 3] >= (double)drop->p * 4294967296.0 ? 1.0 / (1.0 - (double)drop->p) : 0.0;
}

static double keep_row(const fb3_dropout *drop, const fb3_ragged *ragged, int t, int width, int c)
{
    int b = ragged->token_seq[t];
    return keep(drop, ragged->sample[b], (uint64_t)(t - ragged->seq_start[b]) * (uint64_t)width + (uint64_t)c);
}

static void statistics(const float *x, int C, double eps, float *mean, float *rstd)
{
    double sum = 0, squares = 0;
    for (int c = 0; c < C; c++) sum += x[c];
    for (int c = 0; c < C; c++) squares += (x[c] - sum / C) * (x[c] - sum / C);
    *mean = (float)(sum / C);
    *rstd = (float)(1 / sqrt(squares / C + eps));
}

/* dx[c] of one row of y = xhat * gamma + beta, given dy; also adds to dgamma, dbeta. */
static void norm_row_bwd(double *dx, double *dgamma, double *dbeta, const double *dy, const float *x, double mean,
                         double rstd, const float *gamma, int C)
{
    double sum = 0, dot = 0;
    for (int c = 0; c < C; c++) {
        double xhat = (x[c] - mean) * rstd;
        sum += dy[c] * gamma[c];
        dot += dy[c] * gamma[c] * xhat;
        dgamma[c] += dy[c] * xhat;
        dbeta[c] += dy[c];
    }
    for (int c = 0; c < C; c++) dx[c] = rstd * (dy[c] * gamma[c] - sum / C - (x[c] - mean) * rstd * dot / C);
}

static void add_to(float *dst, const double *src, int n)
{
    for (int i = 0; i < n; i++) dst[i] = (float)(dst[i] + src[i]);
}

static double *zeros(size_t n)
{
    double *memory = calloc(n ? n : 1, sizeof *memory);
    if (!memory) abort();
    return memory;
}

static fb3_status naive_embedding_fwd(fb3_backend *be, void *y, float *mean, float *rstd, const float *word,
                                      const int32_t *ids, const float *gamma, const float *beta, float eps,
                                      const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    (void)be;
    for (int t = 0; t < ragged->T; t++) {
        const float *x = &AT(word, C, ids[t], 0);
        statistics(x, C, eps, &mean[t], &rstd[t]);
        for (int c = 0; c < C; c++)
            AT((float *)y, C, t, c) =
                (float)(keep_row(drop, ragged, t, C, c) * (((double)x[c] - mean[t]) * rstd[t] * gamma[c] + beta[c]));
    }
    return FB3_OK;
}

static fb3_status naive_embedding_bwd(fb3_backend *be, float *dword, float *dgamma, float *dbeta, const void *dy,
                                      const float *mean, const float *rstd, const float *word, const int32_t *ids,
                                      const int32_t *by_id, const int32_t *id_start, const int32_t *id_value, int U,
                                      const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    (void)be, (void)ids;
    double *dg = zeros((size_t)C), *db = zeros((size_t)C), *in = zeros((size_t)C), *dx = zeros((size_t)C);
    for (int u = 0; u < U; u++) {
        double *sum = zeros((size_t)C);
        for (int k = id_start[u]; k < id_start[u + 1]; k++) {
            int t = by_id[k];
            for (int c = 0; c < C; c++) in[c] = AT((const float *)dy, C, t, c) * keep_row(drop, ragged, t, C, c);
            norm_row_bwd(dx, dg, db, in, &AT(word, C, id_value[u], 0), mean[t], rstd[t], gamma, C);
            for (int c = 0; c < C; c++) sum[c] += dx[c];
        }
        add_to(&AT(dword, C, id_value[u], 0), sum, C);
        free(sum);
    }
    add_to(dgamma, dg, C);
    add_to(dbeta, db, C);
    free(dg), free(db), free(in), free(dx);
    return FB3_OK;
}

static fb3_status naive_layernorm_fwd(fb3_backend *be, void *y, float *mean, float *rstd, const float *x,
                                      const float *gamma, const float *beta, float eps, int R, int C)
{
    (void)be;
    for (int r = 0; r < R; r++) {
        statistics(&AT(x, C, r, 0), C, eps, &mean[r], &rstd[r]);
        for (int c = 0; c < C; c++)
            AT((float *)y, C, r, c) = (float)(((double)AT(x, C, r, c) - mean[r]) * rstd[r] * gamma[c] + beta[c]);
    }
    return FB3_OK;
}

static fb3_status naive_layernorm_bwd(fb3_backend *be, float *dx, float *dgamma, float *dbeta, const float *dy,
                                      const float *x, const float *mean, const float *rstd, const float *gamma, int R,
                                      int C)
{
    (void)be;
    double *dg = zeros((size_t)C), *db = zeros((size_t)C), *in = zeros((size_t)C), *row = zeros((size_t)C);
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < C; c++) in[c] = AT(dy, C, r, c);
        norm_row_bwd(row, dg, db, in, &AT(x, C, r, 0), mean[r], rstd[r], gamma, C);
        add_to(&AT(dx, C, r, 0), row, C);
    }
    add_to(dgamma, dg, C);
    add_to(dbeta, db, C);
    free(dg), free(db), free(in), free(row);
    return FB3_OK;
}

static fb3_status naive_dropout_fwd(fb3_backend *be, void *y, const void *x, const fb3_ragged *ragged, int C,
                                    const fb3_dropout *drop)
{
    (void)be;
    for (int t = 0; t < ragged->T; t++)
        for (int c = 0; c < C; c++)
            AT((float *)y, C, t, c) = (float)(AT((const float *)x, C, t, c) * keep_row(drop, ragged, t, C, c));
    return FB3_OK;
}

static fb3_status naive_dropout_bwd_add(fb3_backend *be, float *dx, const void *dy, const fb3_ragged *ragged, int C,
                                        const fb3_dropout *drop)
{
    (void)be;
    for (int t = 0; t < ragged->T; t++)
        for (int c = 0; c < C; c++)
            AT(dx, C, t, c) += (float)(AT((const float *)dy, C, t, c) * keep_row(drop, ragged, t, C, c));
    return FB3_OK;
}

static fb3_status naive_linear_fwd(fb3_backend *be, void *y, const void *x, const void *w, const void *b, int T, int I,
                                   int O)
{
    (void)be;
    for (int t = 0; t < T; t++)
        for (int o = 0; o < O; o++) {
            double sum = b ? ((const float *)b)[o] : 0;
            for (int i = 0; i < I; i++) sum += (double)AT((const float *)x, I, t, i) * AT((const float *)w, I, o, i);
            AT((float *)y, O, t, o) = (float)sum;
        }
    return FB3_OK;
}

static double gelu(double x)
{
    return x / 2 * (1 + erf(x / sqrt(2)));
}

static double gelu_slope(double x)
{
    return (1 + erf(x / sqrt(2))) / 2 + x * exp(-x * x / 2) / sqrt(2 * M_PI);
}

static fb3_status naive_linear_gelu_fwd(fb3_backend *be, void *y, void *pre, const void *x, const void *w,
                                        const void *b, int T, int I, int O)
{
    naive_linear_fwd(be, pre, x, w, b, T, I, O);
    for (int64_t i = 0; i < (int64_t)T * O; i++) ((float *)y)[i] = (float)gelu(((float *)pre)[i]);
    return FB3_OK;
}

static fb3_status naive_linear_bwd_input(fb3_backend *be, void *dx, const void *dy, const void *w, int T, int I, int O,
                                         bool accumulate)
{
    (void)be;
    for (int t = 0; t < T; t++)
        for (int i = 0; i < I; i++) {
            double sum = accumulate ? AT((float *)dx, I, t, i) : 0;
            for (int o = 0; o < O; o++) sum += (double)AT((const float *)dy, O, t, o) * AT((const float *)w, I, o, i);
            AT((float *)dx, I, t, i) = (float)sum;
        }
    return FB3_OK;
}

static fb3_status naive_linear_bwd_weight(fb3_backend *be, float *dw, float *db, const void *dy, const void *x, int T,
                                          int I, int O)
{
    (void)be;
    for (int o = 0; o < O; o++) {
        for (int i = 0; i < I; i++) {
            double sum = AT(dw, I, o, i);
            for (int t = 0; t < T; t++) sum += (double)AT((const float *)dy, O, t, o) * AT((const float *)x, I, t, i);
            AT(dw, I, o, i) = (float)sum;
        }
        double sum = 0;
        for (int t = 0; t < T; t++) sum += AT((const float *)dy, O, t, o);
        if (db) db[o] = (float)(db[o] + sum);
    }
    return FB3_OK;
}

static fb3_status naive_linear_bwd_input_float(fb3_backend *be, float *dx, const void *dy, const void *w, int T, int I,
                                               int O)
{
    return naive_linear_bwd_input(be, dx, dy, w, T, I, O, true);
}

static void naive_column_sums(float *sum, const float *x, int T, int O)
{
    for (int o = 0; o < O; o++) {
        double total = sum[o];
        for (int t = 0; t < T; t++) total += (double)AT(x, O, t, o);
        sum[o] = (float)total;
    }
}

static fb3_status naive_linear_gelu_bwd_input(fb3_backend *be, void *dpre, void *y, float *dpre_sum, float *dy_sum,
                                              const void *dy, const void *w, const void *pre, int T, int I, int O)
{
    naive_linear_bwd_input(be, dpre, dy, w, T, I, O, false);
    for (int64_t i = 0; i < (int64_t)T * I; i++) {
        double x = ((const float *)pre)[i];
        ((float *)y)[i] = (float)gelu(x);
        ((float *)dpre)[i] = (float)(((float *)dpre)[i] * gelu_slope(x));
    }
    naive_column_sums(dpre_sum, dpre, T, I);
    naive_column_sums(dy_sum, dy, T, O);
    return FB3_OK;
}

/* One head of one sequence. Pointers are at its first row and column. */
typedef struct head_view {
    int n, D, stride, pos_stride, h;
    const float *q, *k, *v, *qpos, *kpos;
    const fb3_attention *att;
    const fb3_dropout *drop;
    uint32_t sample;
} head_view;

static head_view view_of(const void *qkv, const void *pos, const fb3_attention *att, const fb3_ragged *ragged,
                         const fb3_dropout *drop, int b, int h)
{
    int C = att->H * att->D, start = ragged->seq_start[b];
    const float *row = (const float *)qkv + (size_t)start * 3 * (size_t)C + h * att->D;
    const float *table = (const float *)pos + h * att->D;
    return (head_view){.n = ragged->seq_start[b + 1] - start,
                       .D = att->D,
                       .stride = 3 * C,
                       .pos_stride = 2 * C,
                       .h = h,
                       .q = row,
                       .k = row + C,
                       .v = row + 2 * C,
                       .qpos = table,
                       .kpos = table + C,
                       .att = att,
                       .drop = drop,
                       .sample = ragged->sample[b]};
}

static int position_row(const head_view *s, int i, int j)
{
    return s->att->bucket[i - j] - s->att->pos_first;
}

static double score(const head_view *s, int i, int j)
{
    int x = position_row(s, i, j);
    double sum = 0;
    for (int d = 0; d < s->D; d++) {
        double q = AT(s->q, s->stride, i, d), k = AT(s->k, s->stride, j, d);
        sum += q * k + q * AT(s->kpos, s->pos_stride, x, d) + k * AT(s->qpos, s->pos_stride, x, d);
    }
    return sum * s->att->scale;
}

static double keep_probability(const head_view *s, int i, int j)
{
    uint64_t n = (uint64_t)s->n, n4 = (n + 3) / 4 * 4;
    return keep(s->drop, s->sample, ((uint64_t)s->h * n + (uint64_t)i) * n4 + (uint64_t)j);
}

/* p becomes its softmax; returns log sum exp. */
static double softmax(double *p, int n)
{
    double max = p[0];
    for (int j = 1; j < n; j++) max = fmax(max, p[j]);
    double sum = exp(p[0] - max);
    for (int j = 1; j < n; j++) sum += exp(p[j] - max);
    for (int j = 0; j < n; j++) p[j] = exp(p[j] - max) / sum;
    return max + log(sum);
}

static fb3_status naive_attention_fwd(fb3_backend *be, void *out, float *lse, const void *qkv, const void *pos,
                                      const fb3_attention *att, const fb3_ragged *ragged, const fb3_dropout *drop)
{
    (void)be;
    int C = att->H * att->D;
    double *p = zeros((size_t)ragged->max_len);
    for (int b = 0; b < ragged->B; b++)
        for (int h = 0; h < att->H; h++) {
            head_view s = view_of(qkv, pos, att, ragged, drop, b, h);
            for (int i = 0; i < s.n; i++) {
                int t = ragged->seq_start[b] + i;
                for (int j = 0; j < s.n; j++) p[j] = score(&s, i, j);
                AT(lse, ragged->T, h, t) = (float)softmax(p, s.n);
                for (int d = 0; d < s.D; d++) {
                    double o = 0;
                    for (int j = 0; j < s.n; j++) o += p[j] * keep_probability(&s, i, j) * AT(s.v, s.stride, j, d);
                    AT((float *)out, C, t, h * s.D + d) = (float)o;
                }
            }
        }
    free(p);
    return FB3_OK;
}

static fb3_status naive_attention_bwd(fb3_backend *be, void *dqkv, void *dpos, const void *dout, const void *out,
                                      const float *lse, const void *qkv, const void *pos, const fb3_attention *att,
                                      const fb3_ragged *ragged, const fb3_dropout *drop)
{
    (void)be;
    int C = att->H * att->D;
    size_t qkv_size = (size_t)ragged->T * 3 * (size_t)C, pos_size = (size_t)att->R * 2 * (size_t)C;
    double *g = zeros(qkv_size), *gpos = zeros(pos_size);
    for (int b = 0; b < ragged->B; b++)
        for (int h = 0; h < att->H; h++) {
            head_view s = view_of(qkv, pos, att, ragged, drop, b, h);
            int start = ragged->seq_start[b];
            double *dq = g + (size_t)start * 3 * (size_t)C + h * s.D, *dk = dq + C, *dv = dk + C;
            double *dqpos = gpos + h * s.D, *dkpos = dqpos + C;
            for (int i = 0; i < s.n; i++) {
                const float *go = &AT((const float *)dout, C, start + i, h * s.D);
                const float *o = &AT((const float *)out, C, start + i, h * s.D);
                double dot = 0; // sum over j of p dp
                for (int d = 0; d < s.D; d++) dot += (double)go[d] * o[d];
                for (int j = 0; j < s.n; j++) {
                    int x = position_row(&s, i, j);
                    double p = exp(score(&s, i, j) - AT(lse, ragged->T, h, start + i));
                    double kept = keep_probability(&s, i, j), dp = 0;
                    for (int d = 0; d < s.D; d++) {
                        dp += kept * go[d] * AT(s.v, s.stride, j, d);
                        AT(dv, s.stride, j, d) += kept * p * go[d];
                    }
                    double ds = p * (dp - dot) * att->scale;
                    for (int d = 0; d < s.D; d++) {
                        double q = AT(s.q, s.stride, i, d), k = AT(s.k, s.stride, j, d);
                        AT(dq, s.stride, i, d) += ds * (k + AT(s.kpos, s.pos_stride, x, d));
                        AT(dk, s.stride, j, d) += ds * (q + AT(s.qpos, s.pos_stride, x, d));
                        AT(dkpos, s.pos_stride, x, d) += ds * q;
                        AT(dqpos, s.pos_stride, x, d) += ds * k;
                    }
                }
            }
        }
    for (size_t i = 0; i < qkv_size; i++) ((float *)dqkv)[i] = (float)g[i];
    for (size_t i = 0; i < pos_size; i++) ((float *)dpos)[i] = (float)gpos[i];
    free(g), free(gpos);
    return FB3_OK;
}

static fb3_status naive_add_layernorm_fwd(fb3_backend *be, void *y, void *s, float *mean, float *rstd, const void *x,
                                          const void *residual, const float *gamma, const float *beta, float eps,
                                          const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    for (int t = 0; t < ragged->T; t++)
        for (int c = 0; c < C; c++)
            AT((float *)s, C, t, c) = (float)(AT((const float *)x, C, t, c) * keep_row(drop, ragged, t, C, c) +
                                              AT((const float *)residual, C, t, c));
    return naive_layernorm_fwd(be, y, mean, rstd, s, gamma, beta, eps, ragged->T, C);
}

static fb3_status naive_add_layernorm_bwd(fb3_backend *be, void *dx, void *dresidual, float *dgamma, float *dbeta,
                                          const void *dy, const void *s, const float *mean, const float *rstd,
                                          const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    (void)be;
    double *dg = zeros((size_t)C), *db = zeros((size_t)C), *in = zeros((size_t)C), *ds = zeros((size_t)C);
    for (int t = 0; t < ragged->T; t++) {
        for (int c = 0; c < C; c++) in[c] = AT((const float *)dy, C, t, c);
        norm_row_bwd(ds, dg, db, in, &AT((const float *)s, C, t, 0), mean[t], rstd[t], gamma, C);
        for (int c = 0; c < C; c++) {
            AT((float *)dresidual, C, t, c) = (float)ds[c];
            AT((float *)dx, C, t, c) = (float)(ds[c] * keep_row(drop, ragged, t, C, c));
        }
    }
    add_to(dgamma, dg, C);
    add_to(dbeta, db, C);
    free(dg), free(db), free(in), free(ds);
    return FB3_OK;
}

static fb3_status naive_mean_pool_fwd(fb3_backend *be, float *pooled, const void *x, const fb3_ragged *ragged, int C)
{
    (void)be;
    for (int b = 0; b < ragged->B; b++)
        for (int c = 0; c < C; c++) {
            int first = ragged->seq_start[b], end = ragged->seq_start[b + 1];
            double sum = 0;
            for (int t = first; t < end; t++) sum += AT((const float *)x, C, t, c);
            AT(pooled, C, b, c) = (float)(sum / (end - first));
        }
    return FB3_OK;
}

static fb3_status naive_mean_pool_bwd(fb3_backend *be, void *dx, const float *dpooled, const fb3_ragged *ragged, int C)
{
    (void)be;
    for (int t = 0; t < ragged->T; t++) {
        int b = ragged->token_seq[t], n = ragged->seq_start[b + 1] - ragged->seq_start[b];
        for (int c = 0; c < C; c++) AT((float *)dx, C, t, c) = AT(dpooled, C, b, c) / (float)n;
    }
    return FB3_OK;
}

static fb3_status naive_head_fwd(fb3_backend *be, float *pred, const float *pooled, const float *w, const float *b,
                                 const fb3_ragged *ragged, int C, int Y, const fb3_dropout *drop)
{
    (void)be;
    for (int s = 0; s < ragged->B; s++)
        for (int y = 0; y < Y; y++) {
            double sum = b[y];
            for (int c = 0; c < C; c++)
                sum += (double)AT(pooled, C, s, c) * keep(drop, ragged->sample[s], (uint64_t)c) * AT(w, C, y, c);
            AT(pred, Y, s, y) = (float)sum;
        }
    return FB3_OK;
}

static fb3_status naive_head_bwd(fb3_backend *be, float *dpooled, float *dw, float *db, const float *dpred,
                                 const float *pooled, const float *w, const fb3_ragged *ragged, int C, int Y,
                                 const fb3_dropout *drop)
{
    (void)be;
    double *gw = zeros((size_t)Y * (size_t)C), *gb = zeros((size_t)Y);
    for (int s = 0; s < ragged->B; s++)
        for (int c = 0; c < C; c++) {
            double kept = keep(drop, ragged->sample[s], (uint64_t)c), sum = 0;
            for (int y = 0; y < Y; y++) {
                sum += (double)AT(dpred, Y, s, y) * AT(w, C, y, c);
                AT(gw, C, y, c) += (double)AT(dpred, Y, s, y) * AT(pooled, C, s, c) * kept;
            }
            AT(dpooled, C, s, c) = (float)(sum * kept);
        }
    for (int s = 0; s < ragged->B; s++)
        for (int y = 0; y < Y; y++) gb[y] += AT(dpred, Y, s, y);
    add_to(dw, gw, Y * C);
    add_to(db, gb, Y);
    free(gw), free(gb);
    return FB3_OK;
}

enum { RMSE_EPSILON_EXPONENT = -9 }; /* sqrt(d^2 + 1e-9) */

static double loss_of(fb3_loss_kind kind, double d, double beta)
{
    double a = fabs(d);
    switch (kind) {
    case FB3_LOSS_RMSE:
        return sqrt(d * d + pow(10, RMSE_EPSILON_EXPONENT));
    case FB3_LOSS_MSE:
        return d * d;
    case FB3_LOSS_L1:
        return a;
    case FB3_LOSS_SMOOTH_L1:
        return a < beta ? d * d / (2 * beta) : a - beta / 2;
    case FB3_LOSS_MCRMSE:
        break;
    }
    return 0;
}

static double loss_slope(fb3_loss_kind kind, double d, double beta)
{
    double sign = d > 0 ? 1 : d < 0 ? -1 : 0;
    switch (kind) {
    case FB3_LOSS_RMSE:
        return d / sqrt(d * d + pow(10, RMSE_EPSILON_EXPONENT));
    case FB3_LOSS_MSE:
        return 2 * d;
    case FB3_LOSS_L1:
        return sign;
    case FB3_LOSS_SMOOTH_L1:
        return fabs(d) < beta ? d / beta : sign;
    case FB3_LOSS_MCRMSE:
        return d;
    }
    return 0;
}

static fb3_status naive_loss_fwd(fb3_backend *be, double *sums, const float *pred, const float *target, int B, int Y,
                                 fb3_loss_kind kind, float beta)
{
    (void)be;
    for (int s = 0; s < B; s++)
        for (int y = 0; y < Y; y++) {
            double d = (double)AT(pred, Y, s, y) - AT(target, Y, s, y);
            sums[0] += loss_of(kind, d, beta);
            sums[1 + y] += d * d;
        }
    return FB3_OK;
}

static fb3_status naive_loss_bwd(fb3_backend *be, float *dpred, const float *pred, const float *target, int B, int Y,
                                 fb3_loss_kind kind, float beta, const double *sums, int64_t samples)
{
    (void)be;
    for (int s = 0; s < B; s++)
        for (int y = 0; y < Y; y++) {
            double slope = loss_slope(kind, (double)AT(pred, Y, s, y) - AT(target, Y, s, y), beta);
            if (kind == FB3_LOSS_MCRMSE) slope /= sqrt(sums[1 + y] / (double)samples + pow(10, RMSE_EPSILON_EXPONENT));
            AT(dpred, Y, s, y) = (float)(slope / ((double)samples * Y));
        }
    return FB3_OK;
}

static fb3_status naive_sum_squares(fb3_backend *be, double *sum, const float *x, int64_t n)
{
    (void)be;
    *sum = 0;
    for (int64_t i = 0; i < n; i++) *sum += (double)x[i] * x[i];
    return FB3_OK;
}

static fb3_status naive_adamw(fb3_backend *be, float *p, float *m, float *v, const float *g, void *p_act,
                              const fb3_adamw_segment *segments, const fb3_adamw_segment *segments_host, int count,
                              const fb3_adamw *args, const double *sum_squares)
{
    (void)be, (void)segments;
    double norm = sqrt(*sum_squares), clip = 1;
    if (!isfinite(norm)) return FB3_OK;
    if (args->max_norm > 0) clip = fmin(1, args->max_norm / (norm + 1e-6));
    for (int k = 0; k < count; k++) {
        const fb3_adamw_segment *s = &segments_host[k];
        float decay = fb3_adamw_decay_factor(args, s);
        for (int64_t i = s->offset; i < s->offset + s->count; i++) {
            double grad = g[i] * clip;
            p[i] *= decay;
            m[i] = (float)((double)args->beta1 * m[i] + (1 - (double)args->beta1) * grad);
            v[i] = (float)((double)args->beta2 * v[i] + (1 - (double)args->beta2) * grad * grad);
            double denominator = sqrt(v[i] / (double)args->correction2) + args->eps;
            p[i] = (float)(p[i] - (double)args->lr * s->lr_scale * (m[i] / (double)args->correction1) / denominator);
            if (p_act) ((float *)p_act)[i] = p[i];
        }
    }
    return FB3_OK;
}

/* Nothing here is fast. */
static fb3_status naive_library_product(fb3_backend *be, int M, int N, int K, double *seconds)
{
    (void)be, (void)M, (void)N, (void)K;
    *seconds = 1.0;
    return FB3_OK;
}

static fb3_status naive_memory_rate(fb3_backend *be, double *bytes_per_second)
{
    (void)be;
    *bytes_per_second = 1.0;
    return FB3_OK;
}

static const fb3_ops naive_table = {
    .name = "naive",
    .alloc = naive_alloc,
    .free = naive_free,
    .upload = naive_copy,
    .download = naive_copy,
    .zero = naive_zero,
    .fetch = naive_copy,
    .sync = naive_sync,
    .reserve = naive_reserve,
    .scratch_bytes = naive_scratch_bytes,
    .memory_left = naive_memory_left,
    .alloc_host = naive_alloc,
    .free_host = naive_free,
    .snapshot = naive_copy,
    .snapshot_ready = naive_snapshot_ready,
    .cast_to_act = naive_cast_to_act,
    .fixed_add = naive_fixed_add,
    .fixed_to_float = naive_fixed_to_float,
    .count_nonfinite = naive_count_nonfinite,
    .library_product = naive_library_product,
    .memory_rate = naive_memory_rate,
    .embedding_fwd = naive_embedding_fwd,
    .embedding_bwd = naive_embedding_bwd,
    .layernorm_fwd = naive_layernorm_fwd,
    .layernorm_bwd = naive_layernorm_bwd,
    .dropout_fwd = naive_dropout_fwd,
    .dropout_bwd_add = naive_dropout_bwd_add,
    .linear_fwd = naive_linear_fwd,
    .linear_gelu_fwd = naive_linear_gelu_fwd,
    .linear_bwd_input = naive_linear_bwd_input,
    .linear_bwd_weight = naive_linear_bwd_weight,
    .linear_bwd_input_float = naive_linear_bwd_input_float,
    .linear_gelu_bwd_input = naive_linear_gelu_bwd_input,
    .attention_fwd = naive_attention_fwd,
    .attention_bwd = naive_attention_bwd,
    .add_layernorm_fwd = naive_add_layernorm_fwd,
    .add_layernorm_bwd = naive_add_layernorm_bwd,
    .mean_pool_fwd = naive_mean_pool_fwd,
    .mean_pool_bwd = naive_mean_pool_bwd,
    .head_fwd = naive_head_fwd,
    .head_bwd = naive_head_bwd,
    .loss_fwd = naive_loss_fwd,
    .loss_bwd = naive_loss_bwd,
    .sum_squares = naive_sum_squares,
    .adamw = naive_adamw,
};

void fb3_naive_backend(fb3_backend *backend)
{
    *backend = (fb3_backend){.ops = &naive_table, .act = FB3_F32, .layer = -1};
}
