/* What the fused attention kernels share: tiles in shared memory, products of a warp, the position terms of a tile
 * pair.
 *
 * A block works on TILE "own" rows and walks over tiles of TILE "other" rows. In the forward pass and in the first half
 * of the backward pass own rows are queries and other rows keys (SIGN = +1); in the second half it is the other way
 * round (SIGN = -1). Row r and column c of a tile pair stand at the distance i - j = base + SIGN (r - c), so the row x
 * of the position table is found in `index` by SIGN (r - c) alone.
 *
 * A warp owns 16 rows. Its accumulators lie as mma.m16n8k16 leaves them: acc[n][0..1] at (g, 8n + 2t ..+1) and
 * acc[n][2..3] at (g + 8, 8n + 2t ..+1), with g = lane / 4 and t = lane % 4.
 *
 * Position terms: own_r . own_pos[x] is needed for the rows x that 16 own rows and TILE columns can reach: 16 + 63
 * distances, so at most WINDOW rows where the index moves by at most one from a distance to the next. They are products
 * of the warp as the others are, [16, WINDOW]; each pair (r, c) then picks its column from shared memory. The same with
 * other_c . other_pos[x]. A table whose index jumps is walked through in CHUNK rows, in steps of WINDOW columns. */
#ifndef FB3_BACKEND_CUDA_ATTENTION_CUH
#define FB3_BACKEND_CUDA_ATTENTION_CUH

#include <kernel.h>

#include "attention.h"
#include "attention_mask.cuh"
#include "device.cuh"

enum {
    TILE = 64,
    WARPS = 4,
    THREADS = 32 * WARPS,
    WARP_ROWS = 16,     /* TILE / WARPS */
    COLUMNS = TILE / 8, /* accumulators of 8 columns */
    CHUNK = 128,        /* rows of the position table in shared memory, */
    CHUNK_SLACK = 16,   /* and zeros behind them: products take 16 rows at a time */
    WINDOW = 80,
    GATHER_LD = WINDOW + 8, /* floats; 8 more than a multiple of 16 spreads rows over the banks */
    REACH = TILE - 1,       /* the largest |r - c| */
    ORIGIN = TILE,          /* where `index` keeps distance base; one more than REACH to both sides */
    PADDING = 8             /* bf16 behind a row: ldmatrix reads 8 rows from 8 groups of banks */
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

/* --- tiles -------------------------------------------------------------------------------------------------------- */

/* tile [rows, D + PADDING] = from [valid, D], `ld` apart; zeros behind them. Queued: cp_async_wait and a barrier
 * follow. */
template <int D>
static __device__ __forceinline__ void load_tile(bf16 *tile, const bf16 *from, int64_t ld, int rows, int valid)
{
    const int pieces = D / 8,
              stride = THREADS / pieces; /* pieces of 16 bytes in a row; rows between a thread's pieces */
    const int row0 = (int)threadIdx.x / pieces, column = (int)threadIdx.x % pieces * 8;
    const bf16 *source = from + row0 * ld + column;
    bf16 *target = tile + row0 * (D + PADDING) + column;
    for (int row = row0; row < rows; row += stride) {
        bool there = row < valid;
        cp_async_16(target, there ? source : from, there);
        source += stride * ld;
        target += stride * (D + PADDING);
    }
}

static __device__ __forceinline__ void tiles_arrive()
{
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
}

/* --- products of a warp ------------------------------------------------------------------------------------------- */

/* The A operand: 16 rows of a tile from row0 on, 16 columns from k0 on. */
template <int D> static __device__ __forceinline__ void load_a(uint32_t (&a)[4], const bf16 *tile, int row0, int k0)
{
    int lane = threadIdx.x & 31, matrix = lane >> 3;
    ldmatrix_x4<false>(a, tile + (row0 + (matrix & 1) * 8 + (lane & 7)) * (D + PADDING) + k0 + (matrix >> 1) * 8);
}

/* The B operands of two accumulators, where B = tile^T: 16 rows of the tile from row0 on (the columns of the product),
 * 16 columns from k0 on. */
template <int D>
static __device__ __forceinline__ void load_b_of_rows(uint32_t (&b)[2][2], const bf16 *tile, int row0, int k0)
{
    uint32_t r[4];
    int lane = threadIdx.x & 31, matrix = lane >> 3;
    ldmatrix_x4<false>(r, tile + (row0 + (matrix >> 1) * 8 + (lane & 7)) * (D + PADDING) + k0 + (matrix & 1) * 8);
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

/* The B operands of two accumulators, where B = tile: 16 rows from row0 on (the inner dimension), 16 columns from
 * column0 on. */
template <int D>
static __device__ __forceinline__ void load_b_of_columns(uint32_t (&b)[2][2], const bf16 *tile, int row0, int column0)
{
    uint32_t r[4];
    int lane = threadIdx.x & 31, matrix = lane >> 3;
    ldmatrix_x4<true>(r, tile + (row0 + (matrix & 1) * 8 + (lane & 7)) * (D + PADDING) + column0 + (matrix >> 1) * 8);
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

template <int N> static __device__ __forceinline__ void clear(float (&acc)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) acc[n][e] = 0.0f;
}

/* acc [16, TILE] += rows row0 .. row0 + 15 of a [.., D] times b [TILE, D]^T */
template <int D>
static __device__ __forceinline__ void multiply_rows(float (&acc)[COLUMNS][4], const bf16 *a, int row0, const bf16 *b)
{
#pragma unroll
    for (int k = 0; k < D; k += 16) {
        uint32_t left[4];
        load_a<D>(left, a, row0, k);
#pragma unroll
        for (int n = 0; n < COLUMNS; n += 2) {
            uint32_t right[2][2];
            load_b_of_rows<D>(right, b, n * 8, k);
            mma_m16n8k16(acc[n], left, right[0]);
            mma_m16n8k16(acc[n + 1], left, right[1]);
        }
    }
}

/* acc [16, D] += p [16, TILE], rounded to bf16, times b [TILE, D] */
template <int D>
static __device__ __forceinline__ void multiply_columns(float (&acc)[D / 8][4], const float (&p)[COLUMNS][4],
                                                        const bf16 *b)
{
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) {
        uint32_t left[4] = {half_pair(p[2 * k][0], p[2 * k][1]), half_pair(p[2 * k][2], p[2 * k][3]),
                            half_pair(p[2 * k + 1][0], p[2 * k + 1][1]), half_pair(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t right[2][2];
            load_b_of_columns<D>(right, b, k * 16, n * 8);
            mma_m16n8k16(acc[n], left, right[0]);
            mma_m16n8k16(acc[n + 1], left, right[1]);
        }
    }
}

/* --- position terms ----------------------------------------------------------------------------------------------- */

/* index[ORIGIN + d] = the row x - pos_first of distance base + d. Distances that no pair of the sequence has are those
 * of the nearest one that a pair has. A barrier follows. */
static __device__ __forceinline__ void fill_index(int16_t *index, const attention_shape &shape, int base, int n)
{
    for (int k = threadIdx.x; k <= 2 * ORIGIN; k += THREADS) {
        int distance = most(1 - n, least(n - 1, base + k - ORIGIN));
        index[k] = (int16_t)(shape.bucket[distance] - shape.pos_first);
    }
}

/* The rows x that 16 own rows from row0 on reach: first and last. For other rows it is the same with -SIGN. */
template <int SIGN>
static __device__ __forceinline__ void window_of(const int16_t *index, int row0, int *first, int *last)
{
    int nearest = SIGN > 0 ? row0 - REACH : -(row0 + WARP_ROWS - 1);
    *first = index[ORIGIN + nearest];
    *last = index[ORIGIN + nearest + REACH + WARP_ROWS - 1];
}

/* The most rows that any 16 own or other rows reach. */
static __device__ __forceinline__ int widest_window(const int16_t *index)
{
    int widest = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        int first, last;
        window_of<1>(index, w * WARP_ROWS, &first, &last);
        widest = most(widest, last - first + 1);
        window_of<-1>(index, w * WARP_ROWS, &first, &last);
        widest = most(widest, last - first + 1);
    }
    return widest;
}

/* The chunk holds rows chunk0 .. chunk_end - 1 of a table [R, D], `ld` apart, when it returns. */
template <int D>
static __device__ __forceinline__ void load_chunk(bf16 *chunk, const bf16 *table, int64_t ld, int chunk0, int chunk_end)
{
    const int rows = chunk_end - chunk0;
    load_tile<D>(chunk, table + chunk0 * ld, ld, rows + CHUNK_SLACK, rows);
    tiles_arrive();
}

/* gather [16 rows from row0, count] = rows of a [.., D] times `count` rows of the chunk from row chunk_row on; up to 15
 * columns more are written. */
template <int D>
static __device__ __forceinline__ void multiply_window(float *gather, const bf16 *a, int row0, const bf16 *chunk,
                                                       int chunk_row, int count)
{
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    float *to = gather + (row0 + g) * GATHER_LD + 2 * t;
    for (int n = 0; n < count; n += 16, to += 16) {
        float acc[2][4];
        clear(acc);
#pragma unroll
        for (int k = 0; k < D; k += 16) {
            uint32_t left[4], right[2][2];
            load_a<D>(left, a, row0, k);
            load_b_of_rows<D>(right, chunk, chunk_row + n, k);
            mma_m16n8k16(acc[0], left, right[0]);
            mma_m16n8k16(acc[1], left, right[1]);
        }
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                *reinterpret_cast<float2 *>(to + half * 8 + e * 8 * GATHER_LD) =
                    make_float2(acc[half][2 * e], acc[half][2 * e + 1]);
    }
}

/* The rows x of this thread's pairs, read once for each distance: (n, e) stands at x[n + 1 - e / 2][e % 2]. */
template <int SIGN>
static __device__ __forceinline__ void rows_of_pairs(int (&x)[COLUMNS + 1][2], const int16_t *index, int row0)
{
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int16_t *at = index + ORIGIN + SIGN * (row0 + g - 2 * t + 8);
#pragma unroll
    for (int m = 0; m < COLUMNS + 1; m++)
#pragma unroll
        for (int e = 0; e < 2; e++) x[m][e] = at[-SIGN * (8 * m + e)];
}

/* acc(r, c) += gather[r][x - x0] for the pairs with x in x0 .. x0 + count - 1; ALL: for all pairs. */
template <int SIGN, bool ALL>
static __device__ __forceinline__ void gather_own(float (&acc)[COLUMNS][4], const float *gather, const int16_t *index,
                                                  int row0, int x0, int count)
{
    const int lane = threadIdx.x & 31, g = lane >> 2;
    const float *row = gather + (row0 + g) * GATHER_LD - x0;
    int x[COLUMNS + 1][2];
    rows_of_pairs<SIGN>(x, index, row0);
#pragma unroll
    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int at = x[n + 1 - (e >> 1)][e & 1];
            if (ALL || (at >= x0 && at < x0 + count)) acc[n][e] += row[(e >> 1) * 8 * GATHER_LD + at];
        }
}

/* acc(r, c) += gather[c][x - from(c)], where the window of column c begins at its group's first row, but not before
 * chunk0, and `skip` rows later. */
template <int SIGN, bool ALL>
static __device__ __forceinline__ void gather_other(float (&acc)[COLUMNS][4], const float *gather, const int16_t *index,
                                                    int row0, int chunk0, int chunk_end, int skip)
{
    const int lane = threadIdx.x & 31, t = lane & 3;
    int x[COLUMNS + 1][2];
    rows_of_pairs<SIGN>(x, index, row0);
#pragma unroll
    for (int n = 0; n < COLUMNS; n++) {
        int from, to;
        window_of<-SIGN>(index, n * 8 / WARP_ROWS * WARP_ROWS, &from, &to);
        if (!ALL) from = most(from, chunk0) + skip;
        const int end = least(from + WINDOW, least(to + 1, chunk_end));
        const float *column = gather + (n * 8 + 2 * t) * GATHER_LD - from;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int at = x[n + 1 - (e >> 1)][e & 1];
            if (ALL || (at >= from && at < end)) acc[n][e] += column[(e & 1) * GATHER_LD + at];
        }
    }
}

/* Both position terms of a tile pair, added to the products acc of this warp's rows:
 *   acc(r, c) += own_r . own_pos[x] + other_c . other_pos[x]
 * chunk [CHUNK + CHUNK_SLACK, D + PADDING] and gather [TILE, GATHER_LD] are shared scratch; all warps are done with the
 * index, the tiles and the scratch when it returns. own_pos and other_pos are global, [R, D], `ld` apart. */
template <int D, int SIGN>
static __device__ __forceinline__ void add_position_terms(float (&acc)[COLUMNS][4], const bf16 *own, const bf16 *other,
                                                          bf16 *chunk, float *gather, const int16_t *index,
                                                          const bf16 *own_pos, const bf16 *other_pos, int64_t ld)
{
    const int row0 = (threadIdx.x >> 5) * WARP_ROWS;
    const int first = index[ORIGIN - REACH], last = index[ORIGIN + REACH], widest = widest_window(index);
    int own_first, own_last, other_first, other_last;
    window_of<SIGN>(index, row0, &own_first, &own_last);
    window_of<-SIGN>(index, row0, &other_first, &other_last);

    if (last - first < CHUNK && widest <= WINDOW) { /* every published model: one chunk, one window */
        load_chunk<D>(chunk, own_pos, ld, first, last + 1);
        multiply_window<D>(gather, own, row0, chunk, own_first - first, own_last - own_first + 1);
        __syncwarp();
        gather_own<SIGN, true>(acc, gather, index, row0, own_first, 0);
        __syncthreads(); /* the chunk has served */
        load_chunk<D>(chunk, other_pos, ld, first, last + 1);
        multiply_window<D>(gather, other, row0, chunk, other_first - first, other_last - other_first + 1);
        __syncthreads();
        gather_other<SIGN, true>(acc, gather, index, row0, 0, 0, 0);
        __syncthreads();
        return;
    }
    for (int chunk0 = first; chunk0 <= last; chunk0 += CHUNK) {
        const int chunk_end = least(chunk0 + CHUNK, last + 1);
        load_chunk<D>(chunk, own_pos, ld, chunk0, chunk_end);
        for (int skip = 0; skip < widest; skip += WINDOW) {
            const int x0 = most(own_first, chunk0) + skip, count = least(WINDOW, least(own_last + 1, chunk_end) - x0);
            if (count > 0) {
                multiply_window<D>(gather, own, row0, chunk, x0 - chunk0, count);
                __syncwarp();
                gather_own<SIGN, false>(acc, gather, index, row0, x0, count);
                __syncwarp();
            }
        }
        __syncthreads(); /* the chunk has served */
        load_chunk<D>(chunk, other_pos, ld, chunk0, chunk_end);
        for (int skip = 0; skip < widest; skip += WINDOW) {
            const int x0 = most(other_first, chunk0) + skip;
            const int count = least(WINDOW, least(other_last + 1, chunk_end) - x0);
            if (count > 0) multiply_window<D>(gather, other, row0, chunk, x0 - chunk0, count);
            __syncthreads();
            gather_other<SIGN, false>(acc, gather, index, row0, chunk0, chunk_end, skip);
            __syncthreads();
        }
    }
}

/* --- dropout ------------------------------------------------------------------------------------------------------ */

/* keep[n][e] of this thread's places, where own rows are queries: i0 + r, j0 + c. A Philox block covers four keys,
 * which two neighbouring lanes share: one draws it for row g, the other for row g + 8. */
static __device__ __forceinline__ void keep_of_columns(float (&keep)[4], const fb3_attention_mask &mask,
                                                       const attention_head &head, int row, int column)
{
    const int odd = threadIdx.x & 1; /* lane % 4 is odd */
    uint32_t blocks = (uint32_t)(head.n + 3) / 4;
    uint32_t at = ((uint32_t)head.h * (uint32_t)head.n + (uint32_t)(row + odd * 8)) * blocks + (uint32_t)column / 4;
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

/* Bytes of shared memory: `tiles` tiles of TILE rows, a chunk of the table, the gathered products, the index. */
template <int D> static constexpr size_t attention_shared(int tiles)
{
    return (size_t)(tiles * TILE + CHUNK + CHUNK_SLACK) * (D + PADDING) * sizeof(bf16) +
           TILE * GATHER_LD * sizeof(float) + (2 * ORIGIN + 8) * sizeof(int16_t);
}

/* Where they lie. */
template <int D, int TILES> struct attention_memory {
    bf16 *tile[TILES], *chunk;
    float *gather;
    int16_t *index;
};
template <int D, int TILES> static __device__ __forceinline__ attention_memory<D, TILES> lay_out(unsigned char *shared)
{
    attention_memory<D, TILES> memory;
    bf16 *at = reinterpret_cast<bf16 *>(shared);
#pragma unroll
    for (int k = 0; k < TILES; k++) memory.tile[k] = at + k * TILE * (D + PADDING);
    memory.chunk = at + TILES * TILE * (D + PADDING);
    memory.gather = reinterpret_cast<float *>(memory.chunk + (CHUNK + CHUNK_SLACK) * (D + PADDING));
    memory.index = reinterpret_cast<int16_t *>(memory.gather + TILE * GATHER_LD);
    return memory;
}

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
