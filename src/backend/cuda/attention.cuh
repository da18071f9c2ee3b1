/* What the fused attention kernels share: tiles in shared memory, products of a warp, the position terms of a tile
 * pair.
 *
 * A block works on TILE "own" rows and walks over tiles of TILE "other" rows. In the forward pass and in the first half
 * of the backward pass own rows are queries and other rows keys (SIGN = +1); in the second half it is the other way
 * round (SIGN = -1). The offset of a pair is e = other - own, so its distance i - j is -SIGN e.
 *
 * A warp owns 16 rows, every second one: m = 0 .. 15 is row own_row() + 2m of the tile. Its accumulators lie as
 * mma.m16n8k16 leaves them: acc[n][0..1] at (m = g, 8n + 2t ..+1) and acc[n][2..3] at (g + 8, 8n + 2t ..+1), with
 * g = lane / 4 and t = lane % 4.
 *
 * Position terms. The rows of the position table are taken by offset, not by x: a ring in shared memory holds the rows
 * x(e) of the 2 TILE offsets that a tile pair has, and each step brings the next TILE of them. So a run of offsets with
 * one x is nothing special, and where a term of a pair lies follows from the pair alone:
 *   own_r . own_pos[x]      is made by the warp that owns r, for the SPAN offsets of its rows, at y = c - 2m + 32.
 * Since only every second row is a warp's, pairs (c, c + 1) begin at even y and are read as one; other_c . other_pos[x]
 * is made once for the block, 16 columns by each warp, for the OTHER_SPAN offsets that a column and TILE rows have. */
#ifndef FB3_BACKEND_CUDA_ATTENTION_CUH
#define FB3_BACKEND_CUDA_ATTENTION_CUH

#include <kernel.h>

#include "attention.h"
#include "device.cuh"

enum {
    TILE = 64,
    WARPS = 4,
    THREADS = 32 * WARPS,
    COLUMNS = TILE / 8, /* accumulators of 8 columns */
    RING = 2 * TILE,    /* rows of the position table in shared memory, and one before them */
    SPAN = 96,          /* offsets of 16 own rows, 2 apart, and TILE columns: 94, and 2 before them */
    OTHER_SPAN = 80,    /* offsets of 16 columns and TILE own rows */
    OWN_LD = 106,  /* floats: 2 less is 8 more than a multiple of 32, so reads along a pair of rows meet all banks */
    OTHER_LD = 18, /* floats */
    REGION = 16 * OWN_LD /* floats of a warp, for both; OTHER_SPAN * OTHER_LD fit, too */
};

#define LOG2_E 1.4426950408889634f
#define LN_2   0.6931471805599453f

/* What the kernels are given. */
struct attention_shape {
    const bf16 *qkv, *pos;    // [T, 3C], [R, 2C]
    const int16_t *bucket;    // at distance 0
    const int32_t *seq_start; // [B + 1]
    const uint32_t *sample;   // [B]
    int T, H, C, R, pos_first;
    float scale;
    fb3_attention_mask mask;
};

/* One (sequence, head). */
struct attention_head {
    int start, n; // rows of the batch
    int h;
    uint32_t sample;
};

static __device__ __forceinline__ attention_head head_of(const attention_shape &shape, int b, int h)
{
    attention_head head;
    head.start = shape.seq_start[b];
    head.n = shape.seq_start[b + 1] - head.start;
    head.h = h;
    head.sample = shape.sample[b];
    return head;
}

static __device__ __forceinline__ int least(int a, int b)
{
    return a < b ? a : b;
}

static __device__ __forceinline__ int most(int a, int b)
{
    return a > b ? a : b;
}

/* The warp of a thread, known to the compiler as the same in all of its lanes. */
static __device__ __forceinline__ int warp_of_block()
{
    return __shfl_sync(0xffffffffu, (int)threadIdx.x >> 5, 0);
}

/* The first of a warp's rows of the tile; the next ones are 2 apart. */
static __device__ __forceinline__ int own_row(int warp)
{
    return (warp >> 1) * 32 + (warp & 1);
}

/* The row x - pos_first of the position table at an offset. Offsets that no pair of the sequence has are those of the
 * nearest one that a pair has. */
template <int SIGN>
static __device__ __forceinline__ int row_at(const attention_shape &shape, const attention_head &head, int e)
{
    return shape.bucket[-SIGN * most(1 - head.n, least(head.n - 1, e))] - shape.pos_first;
}

/* Element (row, column) of rows `ld` apart, less than 4 GiB from the first: the compiler then reckons in 32 bits. */
static __device__ __forceinline__ const bf16 *element(const bf16 *from, int row, int ld, int column)
{
    const uint32_t bytes = (uint32_t)row * (uint32_t)(ld * (int)sizeof(bf16)) + (uint32_t)column * sizeof(bf16);
    return reinterpret_cast<const bf16 *>(reinterpret_cast<const char *>(from) + bytes);
}

/* --- tiles -------------------------------------------------------------------------------------------------------- */

/* Rows of D lie in shared memory in pieces of 8. Their order changes from row to row, so that 8 rows' pieces, which
 * ldmatrix reads together, lie in different banks: piece p of a row stands at p ^ turn(row). */
template <int D> static __device__ __forceinline__ int turn(int row)
{
    return D == 64 ? row & 7 : D == 32 ? (row >> 1) & 3 : (row >> 2) & 1;
}
/* Bytes from the start of a tile to a piece of a row. */
template <int D> static __device__ __forceinline__ int piece_at(int row, int piece)
{
    return row * D * (int)sizeof(bf16) + (piece ^ turn<D>(row)) * 16;
}
/* Bytes from row to row. */
template <int D> static constexpr int ROW = D * sizeof(bf16);

/* A thread moves a piece of rows first, first + STRIDE, ... of a tile. */
template <int D> struct mover {
    static constexpr int PIECES = D / 8, STRIDE = THREADS / PIECES, TIMES = TILE / STRIDE;
    int first, piece;
    __device__ __forceinline__ mover() : first((int)threadIdx.x / PIECES), piece((int)threadIdx.x % PIECES) {}
};

/* tile [TILE, D] = from [valid, D] from row row0 on, `ld` apart; behind the last of them the last again. Queued. */
template <int D>
static __device__ __forceinline__ void load_tile(shared_address tile, const bf16 *from, int ld, int row0, int valid)
{
    const mover<D> m;
    const shared_address to = tile + piece_at<D>(m.first, m.piece);
#pragma unroll
    for (int k = 0; k < m.TIMES; k++)
        cp_async_16(to + k * m.STRIDE * ROW<D>,
                    element(from, least(row0 + m.first + k * m.STRIDE, valid - 1), ld, m.piece * 8));
}

/* Offsets e0 .. e0 + TILE - 1, a half of a ring: the rows of the position table that a thread moves of them. */
template <int D, int SIGN> struct ring_rows {
    int row[mover<D>::TIMES];
    __device__ __forceinline__ ring_rows(const attention_shape &shape, const attention_head &head, int e0)
    {
        const mover<D> m;
#pragma unroll
        for (int k = 0; k < m.TIMES; k++) row[k] = row_at<SIGN>(shape, head, e0 + m.first + k * m.STRIDE);
    }
};

/* A half of the ring: rows of a table [R, D], `ld` apart. Queued. The last row of the second half stands before the
 * first one, too. */
template <int D, int SIGN>
static __device__ __forceinline__ void load_ring(shared_address ring, int half, const bf16 *table, int ld,
                                                 const ring_rows<D, SIGN> &rows)
{
    const mover<D> m;
    const shared_address to = ring + half * TILE * ROW<D> + piece_at<D>(m.first, m.piece);
#pragma unroll
    for (int k = 0; k < m.TIMES; k++)
        cp_async_16(to + k * m.STRIDE * ROW<D>, element(table, rows.row[k], ld, m.piece * 8));
    if (half == 1 && m.first == m.STRIDE - 1)
        cp_async_16(ring + piece_at<D>(-1, m.piece), element(table, rows.row[m.TIMES - 1], ld, m.piece * 8));
}

/* --- products of a warp ------------------------------------------------------------------------------------------- */

/* Where a lane's rows of ldmatrix begin, in bytes from the first of 16 rows of a tile, or from the row before it;
 * at[k]: for columns 16k on. */
template <int D> struct lane_rows {
    int at[D / 16];
    /* as the A operand, or as B = rows [inner, columns], transposed by ldmatrix */
    static __device__ __forceinline__ lane_rows of_a(int before = 0)
    {
        const int lane = threadIdx.x & 31, matrix = lane >> 3;
        return lane_rows((matrix & 1) * 8 + (lane & 7) - before, matrix >> 1);
    }
    /* as the B operands of two accumulators, B = rows^T */
    static __device__ __forceinline__ lane_rows of_b(int before = 0)
    {
        const int lane = threadIdx.x & 31, matrix = lane >> 3;
        return lane_rows((matrix >> 1) * 8 + (lane & 7) - before, matrix & 1);
    }

  private:
    __device__ __forceinline__ lane_rows(int row, int piece)
    {
#pragma unroll
        for (int k = 0; k < D / 16; k++) at[k] = piece_at<D>(row, piece + 2 * k);
    }
};

template <bool TRANSPOSED> static __device__ __forceinline__ void load_b(uint32_t (&b)[2][2], shared_address at)
{
    uint32_t r[4];
    ldmatrix_x4<TRANSPOSED>(r, at);
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

template <int N> static __device__ __forceinline__ void clear(float (&acc)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) acc[n][e] = 0.0f;
}

/* The A operands of a warp's rows, from row0 on, of from [valid, D], `ld` apart in global memory; behind the last of
 * them the last again. */
template <int D>
static __device__ __forceinline__ void load_own(uint32_t (&a)[D / 16][4], const bf16 *from, int ld, int row0, int valid)
{
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const bf16 *at = element(from, least(row0 + 2 * (g + 8 * half), valid - 1), ld, 2 * t);
#pragma unroll
        for (int k = 0; k < D / 16; k++)
#pragma unroll
            for (int right = 0; right < 2; right++)
                a[k][half + 2 * right] = *reinterpret_cast<const uint32_t *>(at + 16 * k + 8 * right);
    }
}

/* acc [16, TILE] += a [16, D] times tile [TILE, D]^T; lanes: of_b */
template <int D>
static __device__ __forceinline__ void multiply_rows(float (&acc)[COLUMNS][4], const uint32_t (&a)[D / 16][4],
                                                     shared_address tile, const lane_rows<D> &lanes)
{
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int n = 0; n < COLUMNS; n += 2) {
            uint32_t b[2][2];
            load_b<false>(b, tile + lanes.at[k] + n * 8 * ROW<D>);
            mma_m16n8k16(acc[n], a[k], b[0]);
            mma_m16n8k16(acc[n + 1], a[k], b[1]);
        }
}

/* acc [16, D] += a [16, 16] times 16 rows [16, D]; lanes: of_a */
template <int D>
static __device__ __forceinline__ void multiply_16(float (&acc)[D / 8][4], const uint32_t (&a)[4], shared_address rows,
                                                   const lane_rows<D> &lanes)
{
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
        uint32_t b[2][2];
        load_b<true>(b, rows + lanes.at[n]);
        mma_m16n8k16(acc[2 * n], a, b[0]);
        mma_m16n8k16(acc[2 * n + 1], a, b[1]);
    }
}

/* p [16, TILE], rounded to bf16, as pairs of columns: the A operands of a product with TILE rows are
 * pairs[2k][0], pairs[2k][1], pairs[2k + 1][0], pairs[2k + 1][1]. */
static __device__ __forceinline__ void round_pairs(uint32_t (&pairs)[COLUMNS][2], const float (&p)[COLUMNS][4])
{
#pragma unroll
    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) pairs[n][half] = half_pair(p[n][2 * half], p[n][2 * half + 1]);
}

/* acc [16, D] += pairs [16, TILE] times tile [TILE, D]; lanes: of_a */
template <int D>
static __device__ __forceinline__ void multiply_columns(float (&acc)[D / 8][4], const uint32_t (&pairs)[COLUMNS][2],
                                                        shared_address tile, const lane_rows<D> &lanes)
{
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) {
        const uint32_t a[4] = {pairs[2 * k][0], pairs[2 * k][1], pairs[2 * k + 1][0], pairs[2 * k + 1][1]};
        multiply_16<D>(acc, a, tile + k * 16 * ROW<D>, lanes);
    }
}

/* --- position terms ----------------------------------------------------------------------------------------------- */

/* In step s the offsets of the pair of tiles begin in the half s % 2 of the ring; those before the other tile's first
 * row are in the other half. Both in 16ths of the ring, counted round: */
template <int D> static __device__ __forceinline__ shared_address ring_at(shared_address ring, int s, int sixteenth)
{
    return ring + (((s & 1) * (TILE / 16) + sixteenth + RING / 16) & (RING / 16 - 1)) * 16 * ROW<D>;
}
/* 32 of the SPAN offsets of a warp; they do not meet the end of the ring. They begin one row before where the warp's
 * rows are odd. */
template <int D>
static __device__ __forceinline__ shared_address ring_of_own(shared_address ring, int s, int warp, int k)
{
    return ring_at<D>(ring, s, 2 * k - 2 - (warp >> 1) * 2);
}

/* acc [16, TILE] = own_r . own_pos[x], by way of this warp's region of shared memory; lanes: of_b, before where the
 * warp's rows are odd */
template <int D>
static __device__ __forceinline__ void multiply_own_positions(float (&acc)[COLUMNS][4], float *region,
                                                              const uint32_t (&own)[D / 16][4], shared_address ring,
                                                              int s, int warp, const lane_rows<D> &lanes)
{
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    float *to = region + g * OWN_LD + 2 * t;
#pragma unroll
    for (int m = 0; m < SPAN / 16; m++) {
        const shared_address rows = ring_of_own<D>(ring, s, warp, m / 2);
        float sum[2][4];
        clear(sum);
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            uint32_t b[2][2];
            load_b<false>(b, rows + lanes.at[k] + m % 2 * 16 * ROW<D>);
            mma_m16n8k16(sum[0], own[k], b[0]);
            mma_m16n8k16(sum[1], own[k], b[1]);
        }
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *reinterpret_cast<float2 *>(to + m * 16 + n * 8 + half * 8 * OWN_LD) =
                    make_float2(sum[n][2 * half], sum[n][2 * half + 1]);
    }
    __syncwarp();
    const float *from = region + g * (OWN_LD - 2) + 2 * t + 32;
#pragma unroll
    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float2 pair = *reinterpret_cast<const float2 *>(from + n * 8 + half * 8 * (OWN_LD - 2));
            acc[n][2 * half] = pair.x, acc[n][2 * half + 1] = pair.y;
        }
    __syncwarp();
}

/* region of this warp [OTHER_SPAN, 16] = other_c . other_pos[x] of its 16 columns, by offset, from c - TILE - 16 warp
 * on; -infinity where a column is not one of `columns`, so that its P is 0. lanes: of_a, of_b */
template <int D>
static __device__ __forceinline__ void multiply_other_positions(float *region, shared_address other,
                                                                shared_address ring, int s, int warp, int columns,
                                                                const lane_rows<D> &lanes, const lane_rows<D> &lanes_b)
{
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    uint32_t b[D / 16][2][2];
    float first[2][2];
#pragma unroll
    for (int k = 0; k < D / 16; k++) load_b<false>(b[k], other + lanes_b.at[k] + warp * 16 * ROW<D>);
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) first[n][e] = warp * 16 + n * 8 + 2 * t + e < columns ? 0.0f : -INFINITY;
    float *to = region + g * OTHER_LD + 2 * t;
#pragma unroll
    for (int m = 0; m < OTHER_SPAN / 16; m++) {
        const shared_address rows = ring_at<D>(ring, s, warp + m - TILE / 16);
        float sum[2][4];
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) sum[n][e] = first[n][e & 1];
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            uint32_t a[4];
            ldmatrix_x4<false>(a, rows + lanes.at[k]);
            mma_m16n8k16(sum[0], a, b[k][0]);
            mma_m16n8k16(sum[1], a, b[k][1]);
        }
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *reinterpret_cast<float2 *>(to + n * 8 + (m * 16 + half * 8) * OTHER_LD) =
                    make_float2(sum[n][2 * half], sum[n][2 * half + 1]);
    }
}

/* acc [16, TILE] += other_c . other_pos[x], from the regions of all warps. */
static __device__ __forceinline__ void add_other_positions(float (&acc)[COLUMNS][4], const float *regions, int warp)
{
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const float *from = regions + (TILE - own_row(warp) - 2 * g + 2 * t) * OTHER_LD + 2 * t;
#pragma unroll
    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int column = (n & 1) * 8 + (e & 1); /* and 2t, of the 16 columns n / 2 */
            acc[n][e] += from[n / 2 * REGION + (column - (e >> 1) * 16) * OTHER_LD + column];
        }
}

/* --- dropout ------------------------------------------------------------------------------------------------------ */

/* keep[e] of this thread's places (m = g and g + 8; column, column + 1), where own rows are queries: row is the query
 * of m = g. A Philox block covers four keys, which two neighbouring lanes share: one draws it for m = g, the other for
 * g + 8. */
static __device__ __forceinline__ void keep_of_columns(float (&keep)[4], const fb3_attention_mask &mask,
                                                       const attention_head &head, int row, int column)
{
    const int odd = threadIdx.x & 1; /* lane % 4 is odd */
    uint32_t blocks = (uint32_t)(head.n + 3) / 4;
    uint32_t at = ((uint32_t)head.h * (uint32_t)head.n + (uint32_t)(row + odd * 16)) * blocks + (uint32_t)column / 4;
    fb3_philox b = fb3_philox4x32(at, mask.site, head.sample, mask.step, mask.key.k0, mask.key.k1);
    uint32_t mine[2] = {odd ? b.word[2] : b.word[0], odd ? b.word[3] : b.word[1]};
    uint32_t his[2] = {odd ? b.word[0] : b.word[2], odd ? b.word[1] : b.word[3]};
    his[0] = __shfl_xor_sync(0xffffffffu, his[0], 1);
    his[1] = __shfl_xor_sync(0xffffffffu, his[1], 1);
#pragma unroll
    for (int k = 0; k < 2; k++) {
        keep[k] = (odd ? his[k] : mine[k]) >= mask.threshold ? mask.scale : 0.0f;
        keep[2 + k] = (odd ? mine[k] : his[k]) >= mask.threshold ? mask.scale : 0.0f;
    }
}

/* The same where own rows are keys: row is the key of m = g, column a query. Rows of m and m + 1 share a block: the
 * lane of the even one draws it for `column`, the other for the next one. */
static __device__ __forceinline__ void keep_of_rows(float (&keep)[4], const fb3_attention_mask &mask,
                                                    const attention_head &head, int row, int column)
{
    const int odd = (threadIdx.x >> 2) & 1; /* m is odd */
    uint32_t blocks = (uint32_t)(head.n + 3) / 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t at =
            ((uint32_t)head.h * (uint32_t)head.n + (uint32_t)(column + odd)) * blocks + (uint32_t)(row + half * 16) / 4;
        fb3_philox b = fb3_philox4x32(at, mask.site, head.sample, mask.step, mask.key.k0, mask.key.k1);
        uint32_t low = row & 1 ? b.word[1] : b.word[0], high = row & 1 ? b.word[3] : b.word[2];
        uint32_t mine = odd ? high : low, his = __shfl_xor_sync(0xffffffffu, odd ? low : high, 4);
        keep[2 * half] = (odd ? his : mine) >= mask.threshold ? mask.scale : 0.0f;
        keep[2 * half + 1] = (odd ? mine : his) >= mask.threshold ? mask.scale : 0.0f;
    }
}

/* --- shared memory ------------------------------------------------------------------------------------------------ */

/* Two tiles, two rings, and the regions. */
template <int D> struct attention_memory {
    shared_address other, value;                                       // [TILE, D]
    shared_address own_pos, other_pos;                                 // [1 + RING, D], from the second row on
    float *regions;                                                    // [WARPS, REGION]
    static constexpr int rings = (2 * TILE + 2 * (1 + RING)) * ROW<D>; /* where they end */
    static constexpr size_t bytes = rings + (size_t)WARPS * REGION * sizeof(float);
    __device__ __forceinline__ explicit attention_memory(unsigned char *shared)
    {
        other = shared_address_of(shared);
        value = other + TILE * ROW<D>;
        own_pos = value + (TILE + 1) * ROW<D>;
        other_pos = own_pos + (RING + 1) * ROW<D>;
        regions = reinterpret_cast<float *>(shared + rings);
    }
};

static inline attention_shape attention_shape_of(const void *qkv, const void *pos, const fb3_attention *att,
                                                 const fb3_ragged *ragged, const fb3_dropout *drop)
{
    attention_shape shape;
    shape.qkv = (const bf16 *)qkv;
    shape.pos = (const bf16 *)pos;
    shape.bucket = att->bucket;
    shape.seq_start = ragged->seq_start;
    shape.sample = ragged->sample;
    shape.T = ragged->T;
    shape.H = att->H;
    shape.C = att->H * att->D;
    shape.R = att->R;
    shape.pos_first = att->pos_first;
    shape.scale = att->scale;
    shape.mask = fb3_attention_mask_of(drop);
    return shape;
}

#endif
