/* Fused disentangled attention (He et al. 2021; DESIGN 4), one (sequence, head) at a time:
 *   s(i,j) = (q_i.k_j + q_i.Kpos[x] + k_j.Qpos[x]) scale,  x = x(i - j)
 *   P = softmax_j(s),  out_i = sum_j keep(i,j) P(i,j) v_j
 * Query rows go through in strips of STRIP. For a strip two products give the content scores [STRIP, n] and the
 * content-to-position products c2p [STRIP, R]; p2c [n, R] is made once per sequence and head. Only the position rows
 * that a strip (a sequence) can reach are multiplied; attention_position.h takes them to the pairs and back. Nothing of
 * size T x T outlives a strip: the forward pass keeps the log-sum-exp of each row, and the backward pass recomputes the
 * strip's probabilities from it.
 *
 * Backward, with dP = keep * (dout v^T), delta_i = dout_i.out_i:
 *   dS = P (dP - delta) scale;  dq_i = sum_j dS k_j + sum_x dc2p(i,x) Kpos[x];  dk_j = sum_i dS q_i + sum_x dp2c(j,x)
 *   Qpos[x];  dv_j = sum_i keep P dout_i;  dKpos[x] = sum_i dc2p(i,x) q_i;  dQpos[x] = sum_j dp2c(j,x) k_j
 * where dc2p(i,x) and dp2c(j,x) sum dS(i,j) over the pairs with that x.
 *
 * dKpos and dQpos: the sequences are cut into at most GROUPS ranges; a (range, head) is one task that adds its
 * sequences in order into a partial of its own; the partials are added in order. Threads change nothing. */
#include "attention_position.h"
#include "dropout.h"
#include "ops.h"
#include <math.h>
#include <omp.h>

enum {
    STRIP = 128, /* query rows: their scores stay in the second-level cache */
    GROUPS = 8,
    PAD = 2 * LANES, /* zeros on both sides of a row of dS, for shifted loads */
};

static int round_up(int n)
{
    return (n + LANES - 1) / LANES * LANES;
}
static int least(int a, int b)
{
    return a < b ? a : b;
}

/* --- one (sequence, head) ----------------------------------------------------------------------------------------- */

/* Scratch of a thread. N is n rounded up to LANES. In float a matrix and its copy as activations are one. */
typedef struct scratch {
    int score_ld, pos_ld, n_ld;
    float *scores; // [STRIP, score_ld]
    float *ds;     // [STRIP, score_ld], PAD in front of each row
    act *p, *ds_act;
    float *keep;    // [score_ld]
    float *c2p;     // [STRIP, pos_ld]
    float *p2c;     // [N, pos_ld]
    act *dc2p;      // [R, STRIP]: transposed
    float *dp2c;    // [R, n_ld]: transposed
    act *dp2c_act;  // [R, n_ld]
    float *columns; // [LANES, STRIP + 2 PAD]: dS of LANES keys, transposed
    float *dq;      // [STRIP, D]; the forward pass's output, too
    float *dk, *dv; // [N, D]
    size_t floats;
} scratch;

static float *take(float *base, size_t *used, size_t floats)
{
    float *memory = base ? base + *used : NULL;
    *used += (floats + 15) / 16 * 16; /* whole cache lines */
    return memory;
}

static act *take_act(float *base, size_t *used, size_t elements)
{
    return (act *)take(base, used, (elements * sizeof(act) + sizeof(float) - 1) / sizeof(float));
}

/* Room for the copy of a matrix as activations: the matrix itself where those are floats. */
static act *take_copy(float *base, size_t *used, size_t elements, float *matrix)
{
    return sizeof(act) == sizeof(float) ? (act *)matrix : take_act(base, used, elements);
}

/* base NULL: only counts. */
static scratch scratch_make(float *base, int max_len, int R, int D)
{
    scratch s = {.score_ld = round_up(max_len) + 2 * PAD, .pos_ld = round_up(R) + LANES, .n_ld = round_up(max_len)};
    size_t strip = (size_t)STRIP * (size_t)s.score_ld, N = (size_t)s.n_ld, *used = &s.floats;
    s.scores = take(base, used, strip);
    s.ds = take(base, used, strip);
    s.p = take_copy(base, used, strip, s.scores);
    s.ds_act = take_copy(base, used, strip, s.ds);
    s.keep = take(base, used, (size_t)s.score_ld);
    s.c2p = take(base, used, (size_t)STRIP * (size_t)s.pos_ld);
    s.p2c = take(base, used, N * (size_t)s.pos_ld);
    s.dc2p = take_act(base, used, (size_t)R * STRIP);
    s.dp2c = take(base, used, (size_t)R * N);
    s.dp2c_act = take_copy(base, used, (size_t)R * N, s.dp2c);
    s.columns = take(base, used, (size_t)LANES * (STRIP + 2 * PAD));
    s.dq = take(base, used, (size_t)STRIP * (size_t)D);
    s.dk = take(base, used, N * (size_t)D);
    s.dv = take(base, used, N * (size_t)D);
    return s;
}

typedef struct head {
    int n, D, head_index;
    uint32_t sample;
    float scale;
    int64_t qkv_ld, pos_ld, out_ld;
    const act *q, *k, *v;   // [n, D] inside qkv
    const act *qpos, *kpos; // [R, D] inside pos
    const position_tables *tables;
    const fb3_dropout *drop;
} head;

static head head_make(const act *qkv, const act *pos, const fb3_attention *att, const fb3_ragged *ragged,
                      const fb3_dropout *drop, const position_tables *tables, int b, int h)
{
    int64_t C = (int64_t)att->H * att->D, start = ragged->seq_start[b];
    const act *q = qkv + start * 3 * C + (int64_t)h * att->D, *qpos = pos + (int64_t)h * att->D;
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

/* c [M,N] (+)= op(a) op(b), of activations. False: out of memory. */
static bool multiply(bool trans_a, bool trans_b, int M, int N, int K, const act *a, int64_t lda, const act *b,
                     int64_t ldb, bool accumulate, float *c, int64_t ldc)
{
    return fb3_cpu_gemm_serial(&(fb3_gemm){.type = ACT_TYPE,
                                           .trans_a = trans_a,
                                           .trans_b = trans_b,
                                           .accumulate = accumulate,
                                           .M = M,
                                           .N = N,
                                           .K = K,
                                           .a = a,
                                           .lda = lda,
                                           .b = b,
                                           .ldb = ldb,
                                           .c = c,
                                           .ldc = ldc});
}

/* p2c [n, pos_ld] = k Qpos^T */
static bool multiply_p2c(const head *h, const scratch *s)
{
    position_window w = position_window_of(h->tables, h->n, 0, h->n);
    return multiply(false, true, h->n, w.count, h->D, h->k, h->qkv_ld, h->qpos + w.first * h->pos_ld, h->pos_ld, false,
                    s->p2c + w.first, s->pos_ld);
}

/* scores [STRIP, score_ld] = q k^T and c2p [STRIP, pos_ld] = q Kpos^T for the queries i0 .. i1-1 */
static bool multiply_strip(const head *h, const scratch *s, int i0, int i1)
{
    const act *q = h->q + i0 * h->qkv_ld;
    position_window w = position_window_of(h->tables, h->n, i0, i1);
    return multiply(false, true, i1 - i0, h->n, h->D, q, h->qkv_ld, h->k, h->qkv_ld, false, s->scores, s->score_ld) &&
           multiply(false, true, i1 - i0, w.count, h->D, q, h->qkv_ld, h->kpos + w.first * h->pos_ld, h->pos_ld, false,
                    s->c2p + w.first, s->pos_ld);
}

/* scores of the queries i0 .. i1-1 += their position terms, times scale; -inf past the end of the sequence. highest
 * [STRIP]: the greatest score of each lane. */
static inline __attribute__((always_inline)) void add_positions(const head *h, const scratch *s, int i0, int i1,
                                                                vf *highest, bool smooth)
{
    for (int r = 0; r < i1 - i0; r++) highest[r] = vf_set(-INFINITY);
    for (int j0 = 0; j0 < h->n; j0 += LANES) {
        int keys = least(LANES, h->n - j0);
        vi valid = vi_lanes() < keys;
        for (int i = i0; i < i1; i += LANES) {
            vf p2c[LANES];
            for (int l = 0; l < LANES; l++)
                p2c[l] = l < keys
                             ? position_of_key(h->tables, s->p2c + (int64_t)(j0 + l) * s->pos_ld, i, j0 + l, smooth)
                             : (vf){0};
            vf_transpose(p2c); /* now of the query i + r, for all keys */
            for (int r = 0; r < LANES && i + r < i1; r++) {
                float *row = s->scores + (int64_t)(i + r - i0) * s->score_ld + j0;
                const float *c2p = s->c2p + (int64_t)(i + r - i0) * s->pos_ld;
                vf sum = vf_load_all(row) + position_of_query(h->tables, c2p, i + r, j0, smooth) + p2c[r];
                sum = vf_select(valid, sum * h->scale, vf_set(-INFINITY));
                vf_store_all(row, sum);
                highest[i + r - i0] = vf_max(highest[i + r - i0], sum);
            }
        }
    }
}

static void score_strip(const head *h, const scratch *s, int i0, int i1, vf *highest)
{
    if (h->tables->smooth)
        add_positions(h, s, i0, i1, highest, true);
    else
        add_positions(h, s, i0, i1, highest, false);
}

/* keep [score_ld] of query i: 0 or 1/(1-p). False: no dropout. */
static bool draw_keep(const head *h, const scratch *s, int i)
{
    if (!dropout_on(h->drop)) return false;
    uint64_t n = (uint64_t)h->n, n4 = (n + 3) / 4 * 4;
    dropout_scales(s->keep, h->n, h->drop, h->sample, ((uint64_t)h->head_index * n + (uint64_t)i) * n4);
    for (int j = h->n; j < round_up(h->n); j++) s->keep[j] = 0.0f;
    return true;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* Row i of the strip: p = keep * exp(s - max); returns the sum of exp(s - max), *lse = max + log of it. */
static float softmax_row(const head *h, const scratch *s, int i, int i0, float shift, float *lse)
{
    const float *row = s->scores + (int64_t)(i - i0) * s->score_ld;
    act *p = s->p + (int64_t)(i - i0) * s->score_ld;
    bool dropped = draw_keep(h, s, i);
    vf sum = {0};
    for (int j = 0; j < h->n; j += LANES) {
        vf e = vf_exp(vf_load_all(row + j) - shift);
        sum += e;
        act_store_all(p + j, dropped ? e * vf_load_all(s->keep + j) : e);
    }
    float total = vf_sum(sum);
    *lse = shift + logf(total);
    return total;
}

/* to [rows, D] act, `ld` apart = from [rows, D] */
static void store_rows(act *to, int64_t ld, const float *from, int rows, int D)
{
    for (int r = 0; r < rows; r++)
        for (int d = 0; d < D; d += LANES) act_store(to + r * ld + d, vf_load(from + r * D + d, D - d), D - d);
}

/* out [n, D], lse [n] */
static bool head_forward(const head *h, const scratch *s, act *out, float *lse)
{
    if (!multiply_p2c(h, s)) return false;
    for (int i0 = 0; i0 < h->n; i0 += STRIP) {
        int i1 = least(i0 + STRIP, h->n);
        vf highest[STRIP];
        float total[STRIP] = {0};
        if (!multiply_strip(h, s, i0, i1)) return false;
        score_strip(h, s, i0, i1, highest);
        for (int i = i0; i < i1; i++) total[i - i0] = softmax_row(h, s, i, i0, vf_maximum(highest[i - i0]), lse + i);
        if (!multiply(false, false, i1 - i0, h->D, h->n, s->p, s->score_ld, h->v, h->qkv_ld, false, s->dq, h->D))
            return false;
        for (int r = 0; r < i1 - i0; r++)
            for (int d = 0; d < h->D; d += LANES)
                vf_store(s->dq + r * h->D + d, vf_load(s->dq + r * h->D + d, h->D - d) * (1.0f / total[r]), h->D - d);
        store_rows(out + i0 * h->out_ld, h->out_ld, s->dq, i1 - i0, h->D);
    }
    return true;
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

typedef struct head_gradients {
    const act *dout, *out; // [n, D] inside [T,C]
    const float *lse;      // [n]
    act *dq, *dk, *dv;     // [n, D] inside dqkv
    float *dqpos, *dkpos;  // [R, D] inside a partial [R, 2C]
} head_gradients;

/* Row i of the strip: p = keep P; ds (dout v^T so far) becomes dS, with zeros around it. */
static void softmax_row_bwd(const head *h, const scratch *s, const head_gradients *g, int i, int i0)
{
    int64_t at = (int64_t)(i - i0) * s->score_ld;
    const float *row = s->scores + at;
    act *p = s->p + at, *ds_act = s->ds_act + at + PAD;
    float *ds = s->ds + at + PAD;
    vf dot = {0};
    for (int d = 0; d < h->D; d += LANES)
        dot = vf_fma(act_load(g->dout + i * h->out_ld + d, h->D - d), act_load(g->out + i * h->out_ld + d, h->D - d),
                     dot);
    float delta = vf_sum(dot);
    bool dropped = draw_keep(h, s, i);
    for (int j = 0; j < h->n; j += LANES) {
        vf e = vf_exp(vf_load_all(row + j) - g->lse[i]), kept = e, dp = vf_load_all(ds + j);
        if (dropped) {
            vf keep = vf_load_all(s->keep + j);
            dp *= keep;
            kept *= keep;
        }
        act_store_all(p + j, kept);
        vf d = vf_first(e * (dp - delta) * h->scale, h->n - j);
        vf_store_all(ds + j, d);
    }
    row_end(ds_act, ds, round_up(h->n));
    for (int z = 0; z < PAD; z += LANES) {
        vf_store_all(ds - PAD + z, (vf){0});
        vf_store_all(ds + round_up(h->n) + z, (vf){0});
    }
}

/* dc2p [R, STRIP] of the strip: for LANES queries, from the largest distance to the smallest. */
static void sum_dc2p(const head *h, const scratch *s, position_window w, int i0, int i1)
{
    const int32_t *up = h->tables->up;
    for (int i = i0; i < i1; i += LANES) {
        const float *rows = s->ds + (int64_t)(i - i0) * s->score_ld + PAD;
        act *to = s->dc2p + (i - i0) - (int64_t)w.first * STRIP;
        int next = w.first + w.count - 1; /* rows above it are written */
        int x = least(up[i + LANES - 1], next);
        vf sum = {0};
        for (int block = 0; block * LANES - (LANES - 1) < h->n; block++) {
            vf distance[LANES];
            position_diagonals(distance, rows, s->score_ld, i1 - i, block * LANES - (LANES - 1));
            for (int l = 0; l < LANES; l++) {
                int at = up[i + LANES - 1 - block * LANES - l];
                if (at < x && x > w.first) {
                    for (; next > x; next--) act_store_all(to + (int64_t)next * STRIP, (vf){0});
                    act_store_all(to + (int64_t)next-- * STRIP, sum);
                    sum = (vf){0};
                    x = at > w.first ? at : w.first;
                }
                sum += distance[l];
            }
        }
        for (; next > x; next--) act_store_all(to + (int64_t)next * STRIP, (vf){0});
        act_store_all(to + (int64_t)next-- * STRIP, sum);
        for (; next >= w.first; next--) act_store_all(to + (int64_t)next * STRIP, (vf){0});
    }
}

/* columns [LANES, STRIP], PAD in front of each row: dS of the keys j .. j + LANES - 1 for the queries of the strip. */
static void transpose_keys(const scratch *s, int j, int i0, int i1)
{
    const int64_t ld = STRIP + 2 * PAD;
    for (int i = i0; i < i0 + STRIP; i += LANES) {
        vf block[LANES];
        for (int r = 0; r < LANES; r++)
            block[r] = i + r < i1 ? vf_load_all(s->ds + (int64_t)(i + r - i0) * s->score_ld + PAD + j) : (vf){0};
        vf_transpose(block);
        for (int r = 0; r < LANES; r++) vf_store_all(s->columns + r * ld + PAD + (i - i0), block[r]);
    }
}

/* dp2c [R, n_ld] += the strip's part: for LANES keys, from the smallest distance to the largest. */
static void sum_dp2c(const head *h, const scratch *s, int i0, int i1)
{
    const int32_t *up = h->tables->up;
    for (int j = 0; j < h->n; j += LANES) {
        int d = i0 - j - (LANES - 1), last = h->tables->up[i1 - 1 - j]; /* of any pair of the strip and these keys */
        int first = up[i0 - least(j + LANES - 1, h->n - 1)], x = first;
        float *to = s->dp2c + j;
        vf sum = {0};
        transpose_keys(s, j, i0, i1);
        for (int block = 0; block * LANES - (LANES - 1) < i1 - i0; block++) {
            vf distance[LANES];
            position_diagonals(distance, s->columns + PAD, STRIP + 2 * PAD, LANES, block * LANES - (LANES - 1));
            for (int l = 0; l < LANES; l++) {
                int at = up[d + block * LANES + l];
                if (at > x && x < last) {
                    float *row = to + (int64_t)x * s->n_ld;
                    vf_store_all(row, vf_load_all(row) + sum);
                    sum = (vf){0};
                    x = at < last ? at : last;
                }
                sum += distance[l];
            }
        }
        float *row = to + (int64_t)x * s->n_ld;
        vf_store_all(row, vf_load_all(row) + sum);
    }
}

/* The products that a strip's dS and keep P go into. */
static bool multiply_strip_bwd(const head *h, const scratch *s, const head_gradients *g, position_window w, int i0,
                               int i1)
{
    int rows = i1 - i0, n = h->n, D = h->D;
    bool later = i0 > 0; /* dk and dv sum over the strips */
    const act *q = h->q + i0 * h->qkv_ld, *dout = g->dout + i0 * h->out_ld, *kpos = h->kpos + w.first * h->pos_ld;
    const act *ds = s->ds_act + PAD;
    float *dkpos = g->dkpos + w.first * h->pos_ld;
    return multiply(false, false, rows, D, n, ds, s->score_ld, h->k, h->qkv_ld, false, s->dq, D) &&
           multiply(true, false, rows, D, w.count, s->dc2p, STRIP, kpos, h->pos_ld, true, s->dq, D) &&
           multiply(true, false, n, D, rows, ds, s->score_ld, q, h->qkv_ld, later, s->dk, D) &&
           multiply(true, false, n, D, rows, s->p, s->score_ld, dout, h->out_ld, later, s->dv, D) &&
           multiply(false, false, w.count, D, rows, s->dc2p, STRIP, q, h->qkv_ld, true, dkpos, h->pos_ld);
}

/* dk += dp2c Qpos, dQpos += dp2c^T k */
static bool multiply_p2c_bwd(const head *h, const scratch *s, const head_gradients *g)
{
    position_window w = position_window_of(h->tables, h->n, 0, h->n);
    const float *sums = s->dp2c + (int64_t)w.first * s->n_ld;
    act *dp2c = s->dp2c_act + (int64_t)w.first * s->n_ld;
    row_end(dp2c, sums, w.count * s->n_ld);
    return multiply(true, false, h->n, h->D, w.count, dp2c, s->n_ld, h->qpos + w.first * h->pos_ld, h->pos_ld, true,
                    s->dk, h->D) &&
           multiply(false, false, w.count, h->D, h->n, dp2c, s->n_ld, h->k, h->qkv_ld, true,
                    g->dqpos + w.first * h->pos_ld, h->pos_ld);
}

static bool head_backward(const head *h, const scratch *s, const head_gradients *g)
{
    position_window all = position_window_of(h->tables, h->n, 0, h->n);
    if (!multiply_p2c(h, s)) return false;
    memset(s->dp2c + (int64_t)all.first * s->n_ld, 0, (size_t)all.count * (size_t)s->n_ld * sizeof *s->dp2c);
    memset(s->columns, 0, (size_t)LANES * (STRIP + 2 * PAD) * sizeof *s->columns);
    for (int i0 = 0; i0 < h->n; i0 += STRIP) {
        int i1 = least(i0 + STRIP, h->n);
        position_window w = position_window_of(h->tables, h->n, i0, i1);
        vf highest[STRIP];
        if (!multiply_strip(h, s, i0, i1) || !multiply(false, true, i1 - i0, h->n, h->D, g->dout + i0 * h->out_ld,
                                                       h->out_ld, h->v, h->qkv_ld, false, s->ds + PAD, s->score_ld))
            return false;
        score_strip(h, s, i0, i1, highest);
        for (int i = i0; i < i1; i++) softmax_row_bwd(h, s, g, i, i0);
        sum_dc2p(h, s, w, i0, i1);
        sum_dp2c(h, s, i0, i1);
        if (!multiply_strip_bwd(h, s, g, w, i0, i1)) return false;
        store_rows(g->dq + i0 * h->qkv_ld, h->qkv_ld, s->dq, i1 - i0, h->D);
    }
    if (!multiply_p2c_bwd(h, s, g)) return false;
    store_rows(g->dk, h->qkv_ld, s->dk, h->n, h->D);
    store_rows(g->dv, h->qkv_ld, s->dv, h->n, h->D);
    return true;
}
/* --- the batch ---------------------------------------------------------------------------------------------------- */

/* Workspace: the tables, a scratch per thread, the partials of dpos [groups, R, 2C]. */
typedef struct attention_workspace {
    position_tables tables;
    float *scratch, *partials;
    size_t scratch_floats;
    int D;
} attention_workspace;

static int groups_of(int B)
{
    return least(B, GROUPS);
}

static size_t tables_floats(int max_len)
{
    return (position_tables_ints(max_len) + 15) / 16 * 16;
}

static size_t workspace_floats(int max_len, int R, int C, int D, int groups)
{
    return tables_floats(max_len) + (size_t)omp_get_max_threads() * scratch_make(NULL, max_len, R, D).floats +
           (size_t)groups * (size_t)R * 2 * (size_t)C;
}

size_t CPU(attention_workspace)(int max_len, int R, int C, int D, int B)
{
    return workspace_floats(max_len, R, C, D, groups_of(B));
}

static fb3_status workspace_make(fb3_backend *be, attention_workspace *work, const fb3_attention *att,
                                 const fb3_ragged *ragged, int groups)
{
    float *memory;
    FB3_TRY(fb3_cpu_workspace(be, &memory, workspace_floats(ragged->max_len, att->R, att->H * att->D, att->D, groups)));
    work->tables = position_tables_make((int32_t *)(void *)memory, att, ragged->max_len);
    work->D = att->D;
    work->scratch_floats = scratch_make(NULL, ragged->max_len, att->R, att->D).floats;
    work->scratch = memory + tables_floats(ragged->max_len);
    work->partials = work->scratch + (size_t)omp_get_max_threads() * work->scratch_floats;
    return FB3_OK;
}

static scratch thread_scratch(const attention_workspace *work)
{
    float *memory = work->scratch + (size_t)omp_get_thread_num() * work->scratch_floats;
    assert(memory);
    return scratch_make(memory, work->tables.max_len, work->tables.R, work->D);
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
            failures += !head_forward(&one, &s, (act *)out + start * C + (int64_t)h * att->D,
                                      lse + (int64_t)h * ragged->T + start);
        }
    }
    return check_failures(failures);
}

/* dpos [R, 2C] = the sum of partials [groups, R, 2C], in order */
static void add_partials(act *dpos, const float *partials, int groups, int64_t count)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += LANES) {
        vf sum = {0};
        for (int group = 0; group < groups; group++) sum += vf_load(partials + group * count + i, count - i);
        act_store(dpos + i, sum, count - i);
    }
}

fb3_status CPU(attention_bwd)(fb3_backend *be, void *dqkv, void *dpos, const void *dout, const void *out,
                              const float *lse, const void *qkv, const void *pos, const fb3_attention *att,
                              const fb3_ragged *ragged, const fb3_dropout *drop)
{
    int64_t C = (int64_t)att->H * att->D;
    if (ragged->T == 0) return fb3_zero_cpu(be, dpos, (size_t)(att->R * 2 * C) * sizeof(act));
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
                act *dq = (act *)dqkv + start * 3 * C + column;
                head_gradients g = {.dout = (const act *)dout + start * C + column,
                                    .out = (const act *)out + start * C + column,
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
