/* Fused disentangled attention (He et al. 2021; DESIGN 4), one (sequence, head) at a time:
 *   s(i,j) = (q_i.k_j + q_i.Kpos[x] + k_j.Qpos[x]) scale,  x = bucket[i - j]
 *   P = softmax_j(s),  out_i = sum_j keep(i,j) P(i,j) v_j
 * Query rows go through in strips of STRIP. For a strip three products give the content scores [STRIP, n], the
 * content-to-position products c2p [STRIP, R] and dout v^T; p2c [n, R] is made once per sequence and head. Only the
 * position rows that a strip (a sequence) can reach are multiplied; the terms of a score are then gathered by x.
 * Nothing of size T x T outlives a strip: the forward pass keeps the log-sum-exp of each row, and the backward pass
 * recomputes the strip's probabilities from it.
 *
 * Backward, with dP = keep * (dout v^T), delta_i = dout_i.out_i:
 *   dS = P (dP - delta) scale;  dq_i = sum_j dS k_j + sum_x dc2p(i,x) Kpos[x];  dk_j = sum_i dS q_i + sum_x dp2c(j,x)
 *   Qpos[x];  dv_j = sum_i keep P dout_i;  dKpos[x] = sum_i dc2p(i,x) q_i;  dQpos[x] = sum_j dp2c(j,x) k_j
 * where dc2p(i,x) and dp2c(j,x) sum dS(i,j) over the pairs of the bucket x. x never falls as i - j grows, so a bucket
 * is a run of distances and these sums are gathers too.
 *
 * dKpos and dQpos: the sequences are cut into at most GROUPS ranges; a (range, head) is one task that adds its
 * sequences in order into a partial of its own; the partials are added in order. Threads change nothing. */
#include "dropout.h"
#include "ops.h"
#include <assert.h>
#include <math.h>
#include <omp.h>

enum {
    STRIP = 64, /* query rows: their scores stay in the second-level cache */
    GROUPS = 8,
};

static int round_up(int n)
{
    return (n + LANES - 1) / LANES * LANES;
}
static int least(int a, int b)
{
    return a < b ? a : b;
}

/* --- position tables: the same for every sequence and head of a call ---------------------------------------------- */

typedef struct position_tables {
    int max_len, R;
    const int32_t *row;     // row [2 max_len - 1 + LANES]: x of i - j, at max_len - 1 - (i - j); the last one repeated
    const int32_t *first;   // first [R + 2 LANES]: the smallest distance i - j of a row
    const int32_t *count;   // count [R + 2 LANES]: how many distances a row has
    const int32_t *longest; // longest [R + 2 LANES]: the greatest count among LANES rows from here
} position_tables;

/* x(i - j) for j = 0, 1, ... */
static inline const int32_t *rows_of_query(const position_tables *tables, int i)
{
    return tables->row + (tables->max_len - 1 - i);
}
static inline int row_of(const position_tables *tables, int distance)
{
    return tables->row[tables->max_len - 1 - distance];
}

static size_t tables_ints(int max_len, int R)
{
    return (size_t)(2 * max_len + LANES) + 3 * (size_t)(R + 2 * LANES);
}

static position_tables tables_make(int32_t *memory, const fb3_attention *att, int max_len)
{
    int rows = att->R + 2 * LANES;
    int32_t *row = memory, *first = row + 2 * max_len + LANES, *count = first + rows, *longest = count + rows;
    for (int x = 0; x < rows; x++) first[x] = count[x] = longest[x] = 0;
    int distances = 2 * max_len - 1;
    for (int at = distances - 1; at >= 0; at--) { /* distances ascending */
        int distance = max_len - 1 - at, x = att->bucket[distance] - att->pos_first;
        assert(x >= 0 && x < att->R && (at == distances - 1 || x >= row[at + 1]));
        row[at] = x;
        if (count[x]++ == 0) first[x] = distance;
    }
    for (int at = distances; at < distances + LANES; at++) row[at] = row[distances - 1];
    for (int x = 0; x < att->R; x++)
        for (int lane = 0; lane < LANES; lane++)
            if (count[x + lane] > longest[x]) longest[x] = count[x + lane];
    return (position_tables){
        .max_len = max_len, .R = att->R, .row = row, .first = first, .count = count, .longest = longest};
}

/* --- one (sequence, head) ----------------------------------------------------------------------------------------- */

/* Scratch of a thread. Rows of scores have at least one column past n, the zero that invalid gathers read. */
typedef struct scratch {
    int score_ld, pos_ld;
    float *scores, *dscores; // [STRIP, score_ld]
    float *keep;             // [score_ld]
    float *c2p;              // [STRIP, pos_ld]; its gradient takes its place
    float *p2c, *dp2c;       // [n rounded up, pos_ld]
} scratch;

static int score_columns(int max_len)
{
    return round_up(max_len + 1);
}
static int pos_columns(int R)
{
    return round_up(R) + LANES;
}

static size_t scratch_floats(int max_len, int R)
{
    size_t score_ld = (size_t)score_columns(max_len), pos_ld = (size_t)pos_columns(R);
    return 2 * STRIP * score_ld + score_ld + STRIP * pos_ld + 2 * (size_t)round_up(max_len) * pos_ld;
}

static scratch scratch_make(float *memory, int max_len, int R)
{
    scratch s = {.score_ld = score_columns(max_len), .pos_ld = pos_columns(R)};
    s.scores = memory;
    s.dscores = s.scores + (size_t)STRIP * (size_t)s.score_ld;
    s.keep = s.dscores + (size_t)STRIP * (size_t)s.score_ld;
    s.c2p = s.keep + s.score_ld;
    s.p2c = s.c2p + (size_t)STRIP * (size_t)s.pos_ld;
    s.dp2c = s.p2c + (size_t)round_up(max_len) * (size_t)s.pos_ld;
    return s;
}

typedef struct head {
    int n, D, head_index;
    uint32_t sample;
    float scale;
    int64_t qkv_ld, pos_ld, out_ld;
    const float *q, *k, *v;   // [n, D] inside qkv
    const float *qpos, *kpos; // [R, D] inside pos
    const position_tables *tables;
    const fb3_dropout *drop;
} head;

static head head_make(const float *qkv, const float *pos, const fb3_attention *att, const fb3_ragged *ragged,
                      const fb3_dropout *drop, const position_tables *tables, int b, int h)
{
    int64_t C = (int64_t)att->H * att->D, start = ragged->seq_start[b];
    const float *q = qkv + start * 3 * C + (int64_t)h * att->D, *qpos = pos + (int64_t)h * att->D;
    return (head){.n = ragged->seq_start[b + 1] - ragged->seq_start[b],
                  .D = att->D,
                  .head_index = h,
                  .sample = ragged->sample[b],
                  .scale = att->scale,
                  .qkv_ld = 3 * C,
                  .pos_ld = 2 * C,
                  .out_ld = C,
                  .q = q,
                  .k = q + C,
                  .v = q + 2 * C,
                  .qpos = qpos,
                  .kpos = qpos + C,
                  .tables = tables,
                  .drop = drop};
}

/* Rows of the position table that the queries i0 .. i1-1 reach: first .. first + count - 1. */
typedef struct window {
    int first, count;
} window;

static window window_of(const head *h, int i0, int i1)
{
    int low = row_of(h->tables, i0 - (h->n - 1)), high = row_of(h->tables, i1 - 1);
    return (window){low, high - low + 1};
}

/* p2c [n, pos_ld] = k Qpos^T */
static bool multiply_p2c(const head *h, const scratch *s)
{
    window w = window_of(h, 0, h->n);
    return fb3_cpu_gemm_serial(&(fb3_gemm){.trans_b = true,
                                           .M = h->n,
                                           .N = w.count,
                                           .K = h->D,
                                           .a = h->k,
                                           .lda = h->qkv_ld,
                                           .b = h->qpos + w.first * h->pos_ld,
                                           .ldb = h->pos_ld,
                                           .c = s->p2c + w.first,
                                           .ldc = s->pos_ld});
}

/* scores [STRIP, score_ld] = q k^T and c2p [STRIP, pos_ld] = q Kpos^T for the queries i0 .. i1-1 */
static bool multiply_strip(const head *h, const scratch *s, int i0, int i1)
{
    const float *q = h->q + i0 * h->qkv_ld;
    window w = window_of(h, i0, i1);
    return fb3_cpu_gemm_serial(&(fb3_gemm){.trans_b = true,
                                           .M = i1 - i0,
                                           .N = h->n,
                                           .K = h->D,
                                           .a = q,
                                           .lda = h->qkv_ld,
                                           .b = h->k,
                                           .ldb = h->qkv_ld,
                                           .c = s->scores,
                                           .ldc = s->score_ld}) &&
           fb3_cpu_gemm_serial(&(fb3_gemm){.trans_b = true,
                                           .M = i1 - i0,
                                           .N = w.count,
                                           .K = h->D,
                                           .a = q,
                                           .lda = h->qkv_ld,
                                           .b = h->kpos + w.first * h->pos_ld,
                                           .ldb = h->pos_ld,
                                           .c = s->c2p + w.first,
                                           .ldc = s->pos_ld});
}

/* s(i, j .. j + LANES - 1) from the content scores and c2p of row i; -inf past the end of the sequence. */
static inline vf score(const head *h, const scratch *s, const float *content, const float *c2p, const int32_t *rows,
                       int j)
{
    vi x = vi_load_all(rows + j), key = vi_lanes() + j;
    vf sum = vf_load_all(content + j) + vf_gather(c2p, x) + vf_gather(s->p2c, key * s->pos_ld + x);
    return vf_select(key < h->n, sum * h->scale, vf_set(-INFINITY));
}

/* keep [score_ld] of query i: 0 or 1/(1-p). False: no dropout. */
static bool draw_keep(const head *h, const scratch *s, int i)
{
    if (!dropout_on(h->drop)) return false;
    uint64_t n = (uint64_t)h->n, n4 = (n + 3) / 4 * 4;
    dropout_scales(s->keep, h->n, h->drop, h->sample, ((uint64_t)h->head_index * n + (uint64_t)i) * n4);
    for (int j = h->n; j < s->score_ld; j++) s->keep[j] = 0.0f;
    return true;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* Row i of the strip: scores become keep * exp(s - max); returns the sum of exp(s - max), *lse = max + log of it. */
static float softmax_row(const head *h, const scratch *s, int i, int i0, float *lse)
{
    float *row = s->scores + (int64_t)(i - i0) * s->score_ld;
    const float *c2p = s->c2p + (int64_t)(i - i0) * s->pos_ld;
    const int32_t *rows = rows_of_query(h->tables, i);
    vf highest = vf_set(-INFINITY), sum = {0};
    for (int j = 0; j < h->n; j += LANES) {
        vf v = score(h, s, row, c2p, rows, j);
        highest = vf_max(highest, v);
        vf_store_all(row + j, v);
    }
    float shift = vf_maximum(highest);
    bool dropped = draw_keep(h, s, i);
    for (int j = 0; j < h->n; j += LANES) {
        vf e = vf_exp(vf_load_all(row + j) - shift);
        sum += e;
        vf_store_all(row + j, dropped ? e * vf_load_all(s->keep + j) : e);
    }
    float total = vf_sum(sum);
    *lse = shift + logf(total);
    return total;
}

/* out [n, D], lse [n] */
static bool head_forward(const head *h, const scratch *s, float *out, float *lse)
{
    if (!multiply_p2c(h, s)) return false;
    for (int i0 = 0; i0 < h->n; i0 += STRIP) {
        int i1 = least(i0 + STRIP, h->n);
        float total[STRIP];
        if (!multiply_strip(h, s, i0, i1)) return false;
        for (int i = i0; i < i1; i++) total[i - i0] = softmax_row(h, s, i, i0, lse + i);
        if (!fb3_cpu_gemm_serial(&(fb3_gemm){.M = i1 - i0,
                                             .N = h->D,
                                             .K = h->n,
                                             .a = s->scores,
                                             .lda = s->score_ld,
                                             .b = h->v,
                                             .ldb = h->qkv_ld,
                                             .c = out + i0 * h->out_ld,
                                             .ldc = h->out_ld}))
            return false;
        for (int i = i0; i < i1; i++) {
            float *row = out + i * h->out_ld, share = 1.0f / total[i - i0];
            for (int d = 0; d < h->D; d += LANES) vf_store(row + d, vf_load(row + d, h->D - d) * share, h->D - d);
        }
    }
    return true;
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

typedef struct head_gradients {
    const float *dout, *out, *lse; // [n, D] inside [T,C], twice; [n]
    float *dq, *dk, *dv;           // [n, D] inside dqkv
    float *dqpos, *dkpos;          // [R, D] inside a partial [R, 2C]
} head_gradients;

/* Row i of the strip: scores become keep P, dscores (dout v^T so far) become dS; the columns past n become 0. */
static void softmax_row_bwd(const head *h, const scratch *s, const head_gradients *g, int i, int i0)
{
    float *row = s->scores + (int64_t)(i - i0) * s->score_ld, *drow = s->dscores + (int64_t)(i - i0) * s->score_ld;
    const float *c2p = s->c2p + (int64_t)(i - i0) * s->pos_ld;
    const int32_t *rows = rows_of_query(h->tables, i);
    vf dot = {0};
    for (int d = 0; d < h->D; d += LANES)
        dot =
            vf_fma(vf_load(g->dout + i * h->out_ld + d, h->D - d), vf_load(g->out + i * h->out_ld + d, h->D - d), dot);
    float delta = vf_sum(dot);
    bool dropped = draw_keep(h, s, i);
    for (int j = 0; j < h->n; j += LANES) {
        vf p = vf_exp(score(h, s, row, c2p, rows, j) - g->lse[i]);
        vf dp = vf_load_all(drow + j), kept = p;
        if (dropped) {
            vf keep = vf_load_all(s->keep + j);
            dp *= keep;
            kept *= keep;
        }
        vf_store_all(row + j, kept);
        vf_store_all(drow + j, vf_first(p * (dp - delta) * h->scale, h->n - j));
    }
    drow[h->n] = 0.0f;
}

/* dc2p of row i over the strip's window: each bucket's distances in turn, dS(i, i - distance). It replaces c2p. */
static void collect_dc2p(const head *h, const scratch *s, window w, int i, int i0)
{
    const float *drow = s->dscores + (int64_t)(i - i0) * s->score_ld;
    float *to = s->c2p + (int64_t)(i - i0) * s->pos_ld;
    for (int x = w.first; x < w.first + w.count; x += LANES) {
        vi key = i - vi_load_all(h->tables->first + x), count = vi_load_all(h->tables->count + x);
        vf sum = {0};
        for (int m = 0; m < h->tables->longest[x]; m++, key -= 1) {
            vi valid = (count > m) & (key >= 0) & (key < h->n);
            sum += vf_gather(drow, vi_select(valid, key, vi_set(h->n)));
        }
        vf_store_all(to + x, sum);
    }
}

/* dp2c of key j += the strip's dS(j + distance, j), each bucket's distances in turn. */
static void collect_dp2c(const head *h, const scratch *s, int j, int i0, int i1)
{
    float *to = s->dp2c + (int64_t)j * s->pos_ld;
    int from = row_of(h->tables, i0 - j), last = row_of(h->tables, i1 - 1 - j);
    for (int x = from; x <= last; x += LANES) {
        vi row = vi_load_all(h->tables->first + x) + (j - i0), count = vi_load_all(h->tables->count + x);
        vf sum = vf_load_all(to + x);
        for (int m = 0; m < h->tables->longest[x]; m++, row += 1) {
            vi valid = (count > m) & (row >= 0) & (row < i1 - i0);
            sum += vf_gather(s->dscores, vi_select(valid, row * s->score_ld + j, vi_set(h->n)));
        }
        vf_store_all(to + x, sum);
    }
}

/* The products that a strip's dS and keep P go into. */
static bool multiply_strip_bwd(const head *h, const scratch *s, const head_gradients *g, window w, int i0, int i1)
{
    int rows = i1 - i0;
    bool later = i0 > 0; /* dk and dv sum over the strips */
    const float *q = h->q + i0 * h->qkv_ld, *dout = g->dout + i0 * h->out_ld, *kpos = h->kpos + w.first * h->pos_ld;
    float *dq = g->dq + i0 * h->qkv_ld, *dkpos = g->dkpos + w.first * h->pos_ld, *dc2p = s->c2p + w.first;
    return fb3_cpu_gemm_serial(&(fb3_gemm){.M = rows,
                                           .N = h->D,
                                           .K = h->n,
                                           .a = s->dscores,
                                           .lda = s->score_ld,
                                           .b = h->k,
                                           .ldb = h->qkv_ld,
                                           .c = dq,
                                           .ldc = h->qkv_ld}) &&
           fb3_cpu_gemm_serial(&(fb3_gemm){.accumulate = true,
                                           .M = rows,
                                           .N = h->D,
                                           .K = w.count,
                                           .a = dc2p,
                                           .lda = s->pos_ld,
                                           .b = kpos,
                                           .ldb = h->pos_ld,
                                           .c = dq,
                                           .ldc = h->qkv_ld}) &&
           fb3_cpu_gemm_serial(&(fb3_gemm){.trans_a = true,
                                           .accumulate = later,
                                           .M = h->n,
                                           .N = h->D,
                                           .K = rows,
                                           .a = s->dscores,
                                           .lda = s->score_ld,
                                           .b = q,
                                           .ldb = h->qkv_ld,
                                           .c = g->dk,
                                           .ldc = h->qkv_ld}) &&
           fb3_cpu_gemm_serial(&(fb3_gemm){.trans_a = true,
                                           .accumulate = later,
                                           .M = h->n,
                                           .N = h->D,
                                           .K = rows,
                                           .a = s->scores,
                                           .lda = s->score_ld,
                                           .b = dout,
                                           .ldb = h->out_ld,
                                           .c = g->dv,
                                           .ldc = h->qkv_ld}) &&
           fb3_cpu_gemm_serial(&(fb3_gemm){.trans_a = true,
                                           .accumulate = true,
                                           .M = w.count,
                                           .N = h->D,
                                           .K = rows,
                                           .a = dc2p,
                                           .lda = s->pos_ld,
                                           .b = q,
                                           .ldb = h->qkv_ld,
                                           .c = dkpos,
                                           .ldc = h->pos_ld});
}

static bool head_backward(const head *h, const scratch *s, const head_gradients *g)
{
    if (!multiply_p2c(h, s)) return false;
    memset(s->dp2c, 0, (size_t)h->n * (size_t)s->pos_ld * sizeof *s->dp2c);
    for (int i0 = 0; i0 < h->n; i0 += STRIP) {
        int i1 = least(i0 + STRIP, h->n);
        window w = window_of(h, i0, i1);
        if (!multiply_strip(h, s, i0, i1) || !fb3_cpu_gemm_serial(&(fb3_gemm){.trans_b = true,
                                                                              .M = i1 - i0,
                                                                              .N = h->n,
                                                                              .K = h->D,
                                                                              .a = g->dout + i0 * h->out_ld,
                                                                              .lda = h->out_ld,
                                                                              .b = h->v,
                                                                              .ldb = h->qkv_ld,
                                                                              .c = s->dscores,
                                                                              .ldc = s->score_ld}))
            return false;
        for (int i = i0; i < i1; i++) {
            softmax_row_bwd(h, s, g, i, i0);
            collect_dc2p(h, s, w, i, i0);
        }
        for (int j = 0; j < h->n; j++) collect_dp2c(h, s, j, i0, i1);
        if (!multiply_strip_bwd(h, s, g, w, i0, i1)) return false;
    }
    window w = window_of(h, 0, h->n);
    return fb3_cpu_gemm_serial(&(fb3_gemm){.accumulate = true,
                                           .M = h->n,
                                           .N = h->D,
                                           .K = w.count,
                                           .a = s->dp2c + w.first,
                                           .lda = s->pos_ld,
                                           .b = h->qpos + w.first * h->pos_ld,
                                           .ldb = h->pos_ld,
                                           .c = g->dk,
                                           .ldc = h->qkv_ld}) &&
           fb3_cpu_gemm_serial(&(fb3_gemm){.trans_a = true,
                                           .accumulate = true,
                                           .M = w.count,
                                           .N = h->D,
                                           .K = h->n,
                                           .a = s->dp2c + w.first,
                                           .lda = s->pos_ld,
                                           .b = h->k,
                                           .ldb = h->qkv_ld,
                                           .c = g->dqpos + w.first * h->pos_ld,
                                           .ldc = h->pos_ld});
}

/* --- the batch ---------------------------------------------------------------------------------------------------- */

/* Workspace: the tables, a scratch per thread, the partials of dpos [groups, R, 2C]. */
typedef struct attention_workspace {
    position_tables tables;
    float *scratch, *partials;
    size_t scratch_floats;
} attention_workspace;

static int groups_of(int B)
{
    return least(B, GROUPS);
}

static size_t workspace_floats(int max_len, int R, int C, int groups)
{
    return (size_t)round_up((int)tables_ints(max_len, R)) + (size_t)omp_get_max_threads() * scratch_floats(max_len, R) +
           (size_t)groups * (size_t)R * 2 * (size_t)C;
}

size_t CPU(attention_workspace)(int max_len, int R, int C, int B)
{
    return workspace_floats(max_len, R, C, groups_of(B));
}

static fb3_status workspace_make(fb3_backend *be, attention_workspace *work, const fb3_attention *att,
                                 const fb3_ragged *ragged, int groups)
{
    float *memory;
    FB3_TRY(fb3_cpu_workspace(be, &memory, workspace_floats(ragged->max_len, att->R, att->H * att->D, groups)));
    work->tables = tables_make((int32_t *)(void *)memory, att, ragged->max_len);
    work->scratch_floats = scratch_floats(ragged->max_len, att->R);
    work->scratch = memory + round_up((int)tables_ints(ragged->max_len, att->R));
    work->partials = work->scratch + (size_t)omp_get_max_threads() * work->scratch_floats;
    return FB3_OK;
}

static scratch thread_scratch(const attention_workspace *work)
{
    return scratch_make(work->scratch + (size_t)omp_get_thread_num() * work->scratch_floats, work->tables.max_len,
                        work->tables.R);
}

static fb3_status check_failures(int failures)
{
    FB3_REQUIRE(failures == 0, FB3_FAILED,
                "a matrix product of attention failed in oneDNN (out of memory); use a smaller batch");
    return FB3_OK;
}

fb3_status CPU(attention_fwd)(fb3_backend *be, void *out, float *lse, const void *qkv, const void *pos,
                              const fb3_attention *att, const fb3_ragged *ragged, const fb3_dropout *drop)
{
    if (ragged->T == 0) return FB3_OK;
    attention_workspace work;
    FB3_TRY(workspace_make(be, &work, att, ragged, 0));
    int64_t C = (int64_t)att->H * att->D;
    int failures = 0;
#pragma omp parallel reduction(+ : failures)
    {
        fb3_cpu_gemm_serial_begin();
        scratch s = thread_scratch(&work);
#pragma omp for schedule(dynamic)
        for (int task = 0; task < ragged->B * att->H; task++) {
            int b = task / att->H, h = task % att->H, start = ragged->seq_start[b];
            head one = head_make(qkv, pos, att, ragged, drop, &work.tables, b, h);
            if (one.n == 0) continue;
            failures += !head_forward(&one, &s, (float *)out + start * C + (int64_t)h * att->D,
                                      lse + (int64_t)h * ragged->T + start);
        }
    }
    return check_failures(failures);
}

/* dpos [R, 2C] = the sum of partials [groups, R, 2C], in order */
static void add_partials(float *dpos, const float *partials, int groups, int64_t count)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += LANES) {
        vf sum = {0};
        for (int group = 0; group < groups; group++) sum += vf_load(partials + group * count + i, count - i);
        vf_store(dpos + i, sum, count - i);
    }
}

fb3_status CPU(attention_bwd)(fb3_backend *be, void *dqkv, void *dpos, const void *dout, const void *out,
                              const float *lse, const void *qkv, const void *pos, const fb3_attention *att,
                              const fb3_ragged *ragged, const fb3_dropout *drop)
{
    int64_t C = (int64_t)att->H * att->D;
    if (ragged->T == 0) return fb3_zero_cpu(be, dpos, (size_t)(att->R * 2 * C) * sizeof(float));
    attention_workspace work;
    int groups = groups_of(ragged->B), failures = 0;
    FB3_TRY(workspace_make(be, &work, att, ragged, groups));
#pragma omp parallel reduction(+ : failures)
    {
        fb3_cpu_gemm_serial_begin();
        scratch s = thread_scratch(&work);
#pragma omp for schedule(dynamic)
        for (int task = 0; task < groups * att->H; task++) {
            int group = task / att->H, h = task % att->H;
            float *dqpos = work.partials + group * att->R * 2 * C + (int64_t)h * att->D, *dkpos = dqpos + C;
            for (int r = 0; r < att->R; r++) {
                memset(dqpos + r * 2 * C, 0, (size_t)att->D * sizeof *dqpos);
                memset(dkpos + r * 2 * C, 0, (size_t)att->D * sizeof *dkpos);
            }
            int end = (int)((int64_t)ragged->B * (group + 1) / groups);
            for (int b = (int)((int64_t)ragged->B * group / groups); b < end; b++) {
                head one = head_make(qkv, pos, att, ragged, drop, &work.tables, b, h);
                if (one.n == 0) continue;
                int64_t start = ragged->seq_start[b], column = (int64_t)h * att->D;
                float *dq = (float *)dqkv + start * 3 * C + column;
                head_gradients g = {.dout = (const float *)dout + start * C + column,
                                    .out = (const float *)out + start * C + column,
                                    .lse = lse + (int64_t)h * ragged->T + start,
                                    .dq = dq,
                                    .dk = dq + C,
                                    .dv = dq + 2 * C,
                                    .dqpos = dqpos,
                                    .dkpos = dkpos};
                failures += !head_backward(&one, &s, &g);
            }
        }
    }
    add_partials(dpos, work.partials, groups, att->R * 2 * C);
    return check_failures(failures);
}
