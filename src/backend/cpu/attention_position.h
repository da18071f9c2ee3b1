/* The position terms of disentangled attention, between rows of the position table and pairs of tokens.
 *
 * A product with the position table gives a value for each (token, row x); a score needs the value of x(i - j). x never
 * falls as the distance i - j grows, so LANES neighbouring distances lie in few neighbouring rows: one load and one
 * permutation fetch them. The other way, the gradient of (token, x) is a sum over the run of distances with that x. To
 * sum runs without searching, LANES tokens are taken together: their rows of gradients, each shifted by one, are
 * transposed, and then a vector holds one distance for all of them. */
#ifndef FB3_BACKEND_CPU_ATTENTION_POSITION_H
#define FB3_BACKEND_CPU_ATTENTION_POSITION_H

#include "act.h"
#include <assert.h>

typedef struct position_tables {
    int max_len, R;
    bool smooth;         /* x grows by at most 1 from one distance to the next */
    const int32_t *up;   // x of distance d at up[d],   |d| < max_len + LANES: the ends are repeated
    const int32_t *down; // x of distance d at down[-d]
} position_tables;

static inline size_t position_tables_ints(int max_len)
{
    return 2 * (size_t)(2 * (max_len + LANES));
}

static position_tables position_tables_make(int32_t *memory, const fb3_attention *att, int max_len)
{
    int span = max_len + LANES;
    int32_t *up = memory + span, *down = up + 2 * span;
    bool smooth = true;
    for (int d = -span; d < span; d++) {
        int within = d <= -max_len ? 1 - max_len : d >= max_len ? max_len - 1 : d;
        up[d] = att->bucket[within] - att->pos_first;
        assert(up[d] >= 0 && up[d] < att->R && (d == -span || up[d] >= up[d - 1]));
        if (d > -span && up[d] > up[d - 1] + 1) smooth = false;
    }
    for (int d = 1 - span; d < span; d++) down[-d] = up[d];
    down[-span] = down[1 - span];
    return (position_tables){.max_len = max_len, .R = att->R, .smooth = smooth, .up = up, .down = down};
}

/* Rows of the position table that the queries i0 .. i1-1 of a sequence of n tokens reach. */
typedef struct position_window {
    int first, count;
} position_window;

static position_window position_window_of(const position_tables *tables, int n, int i0, int i1)
{
    int low = tables->up[i0 - (n - 1)], high = tables->up[i1 - 1];
    return (position_window){low, high - low + 1};
}

/* values[x] for the LANES rows x, of which `lowest` is the smallest. May read LANES past it. */
static inline vf position_pick(const float *values, const int32_t *x, int32_t lowest, bool smooth)
{
    vi rows = vi_load_all(x);
    return smooth ? vf_permute(vf_load_all(values + lowest), rows - lowest) : vf_gather(values, rows);
}

/* c2p(i, x(i - j)) for the keys j .. j + LANES - 1 of the query i; c2p is its row. */
static inline vf position_of_query(const position_tables *tables, const float *c2p, int i, int j, bool smooth)
{
    const int32_t *x = tables->down + (j - i);
    return position_pick(c2p, x, x[LANES - 1], smooth);
}

/* p2c(j, x(i - j)) for the queries i .. i + LANES - 1 of the key j; p2c is its row. */
static inline vf position_of_key(const position_tables *tables, const float *p2c, int i, int j, bool smooth)
{
    const int32_t *x = tables->up + (i - j);
    return position_pick(p2c, x, x[0], smooth);
}

/* Sums of runs on their way out: LANES tokens at a time, row after row, up or down. */
typedef struct position_runs {
    int x; /* of the run so far */
    vf sum;
} position_runs;

/* LANES vectors, one for each distance: shifted[r] is row r of LANES rows, each shifted by one more than the row
 * before; rows [LANES] floats ld apart, `count` of them there, at + r the first column of row r. */
static inline void position_diagonals(vf shifted[LANES], const float *rows, int64_t ld, int count, int at)
{
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++) shifted[r] = r < count ? vf_load_all(rows + r * ld + at + r) : (vf){0};
    vf_transpose(shifted);
}

#endif
