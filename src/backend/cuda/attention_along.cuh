/* The rows of dc2p and dp2c (attention_bwd.cu): dS of a tile pair, summed over pairs with one x.
 *
 * dS of a warp goes through shared memory, [16, TILE], and comes back by offset: at row m and y = c - 2m + 32 stands
 * the pair (m, c), zeros where there is none, so that a column y of the [16, SPAN] has one offset, and one x. From
 * there a product with rows of the position table gives their share of dq (dk); and a product with a matrix of zeros
 * and twos, E(y, x) = 2 where x(y) = x, gives twice the sums (a two is a single bit). Where x moves with every offset,
 * there is nothing to sum. */
#ifndef FB3_BACKEND_CUDA_ATTENTION_ALONG_CUH
#define FB3_BACKEND_CUDA_ATTENTION_ALONG_CUH

#include "attention.cuh"

enum {
    SHEAR_LD = 67,     /* words of two bf16; one more is 4 more than a multiple of 32: reads meet all banks */
    SHEAR_FIRST = 8,   /* words of the region before the first row: reads begin that much before a row */
    OFFSETS = 2 * TILE /* entries of a table of x by offset */
};

/* pairs [16, TILE] into a warp's region. A __syncwarp follows. */
static __device__ __forceinline__ void store_sheared(uint32_t *region, const uint32_t (&pairs)[COLUMNS][2])
{
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    uint32_t *to = region + SHEAR_FIRST + g * SHEAR_LD + t;
#pragma unroll
    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) to[half * 8 * SHEAR_LD + n * 4] = pairs[n][half];
}

/* sheared [16, SPAN] as A operands of SPAN / 16 products. Of row m, a thread's pair of y lies at word m + y / 2 - 16 of
 * the row's 32. */
static __device__ __forceinline__ void load_sheared(uint32_t (&sheared)[SPAN / 16][4], const uint32_t *region)
{
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const uint32_t *from = region + SHEAR_FIRST + g * (SHEAR_LD + 1) + t - 16;
#pragma unroll
    for (int k = 0; k < SPAN / 16; k++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int word = (e & 1) * 8 + k * 8 + (e >> 1) * 4 - 16; /* and g + t, which are at most 10 */
            const bool there = word + 10 >= 0 && word < TILE / 2 && g + t >= -word && g + t < TILE / 2 - word;
            sheared[k][e] = there ? from[(e & 1) * 8 * (SHEAR_LD + 1) + k * 8 + (e >> 1) * 4] : 0u;
        }
}

/* x by offset for warps with even and with odd rows, so that both read pairs: entry k is that of offset e0 + k - TILE,
 * or of one less. A barrier follows. */
template <int SIGN>
static __device__ __forceinline__ void fill_offsets(int16_t (*table)[OFFSETS], const attention_shape &shape,
                                                    const attention_head &head, int e0)
{
    const int k = threadIdx.x;
    table[0][k] = (int16_t)row_at<SIGN>(shape, head, e0 + k - TILE);
    table[1][k] = (int16_t)row_at<SIGN>(shape, head, e0 + k - TILE - 1);
}

/* Where x moves with every offset: dS goes to its places, a row by the warp at once, 4 bytes a lane. `along` is the row
 * of m = 0 and rows are 2 ld apart, x0 the place of (m = 0, c = 0). */
template <int SIGN, int ROWS_AT_ONCE>
static __device__ __forceinline__ void store_along_linear(bf16 *along, int ld, const uint32_t *region, int x0, int rows)
{
    const int lane = threadIdx.x & 31;
    const uint32_t *from = region + SHEAR_FIRST + lane;
    const bool aligned = (x0 & 1) == (SIGN > 0), at_edge = lane == 0 || lane == 31;
    char *to = reinterpret_cast<char *>(along + x0 - SIGN * 2 * lane); /* of column 2 lane */
    const int step = (2 * ld + SIGN * 2) * (int)sizeof(bf16);
    if (aligned) {
        if (SIGN > 0) to -= sizeof(bf16);
#pragma unroll ROWS_AT_ONCE
        for (int m = 0; m < rows; m++, to += step) {
            const uint32_t pair = from[m * SHEAR_LD];
            *reinterpret_cast<uint32_t *>(to) = SIGN > 0 ? __byte_perm(pair, 0, 0x1032) : pair;
        }
        return;
    }
    /* Words of columns 2 lane - 1 and 2 lane; the first and the last column alone, for their neighbours in a word
     * belong to other tiles. */
    const uint16_t *from_edge = reinterpret_cast<const uint16_t *>(from) + (lane == 31);
    char *edge = lane == 0 ? to : to - SIGN * (int)sizeof(bf16);
    if (SIGN < 0) to -= sizeof(bf16);
#pragma unroll ROWS_AT_ONCE
    for (int m = 0; m < rows; m++, to += step, edge += step) {
        if (lane > 0)
            *reinterpret_cast<uint32_t *>(to) =
                __byte_perm(from[m * SHEAR_LD - 1], from[m * SHEAR_LD], SIGN > 0 ? 0x3254 : 0x5432);
        if (at_edge) *reinterpret_cast<uint16_t *>(edge) = from_edge[m * 2 * SHEAR_LD];
    }
}

/* Two bf16 2 or 0: whether the halves of `pair` are x; both are below 1 << 14. */
static __device__ __forceinline__ uint32_t twos_where(uint32_t pair, uint32_t x_twice)
{
    return ~((pair ^ x_twice) + 0x3fff3fffu) & 0x40004000u; /* a half that differs gets its bit 14 by the sum */
}

/* Elsewhere: sheared [16, SPAN] times E / 2, 8 rows of the table at a time. x is monotone, so a walk along the offsets
 * meets each 8 rows once; what tiles before have stored of them (up to `reached`) is added. Returns the last 8 rows. */
template <int SIGN>
static __device__ __forceinline__ int store_along_sums(bf16 *along, int ld, const uint32_t (&sheared)[SPAN / 16][4],
                                                       const int16_t *x_of, int reached, int rows)
{
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    uint32_t *row[2]; /* m = g and g + 8 */
    uint32_t before[2] = {0, 0};
    float sum[4] = {0, 0, 0, 0};
    int eight = x_of[0] >> 3;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        row[half] = reinterpret_cast<uint32_t *>(along + 2 * (int64_t)(g + 8 * half) * ld + 2 * t) + eight * 4;
        if ((SIGN > 0 ? eight >= reached : eight <= reached) && g + 8 * half < rows) before[half] = *row[half];
    }
    uint32_t x_twice = (uint32_t)(eight * 8 + g) * 0x00010001u;
#pragma unroll
    for (int k = 0; k < SPAN / 16; k++) {
        const uint32_t left = *reinterpret_cast<const uint32_t *>(x_of + k * 16 + 2 * t);
        const uint32_t right = *reinterpret_cast<const uint32_t *>(x_of + k * 16 + 8 + 2 * t);
        const int last = x_of[k * 16 + 15] >> 3;
        for (;;) {
            const uint32_t twos[2] = {twos_where(left, x_twice), twos_where(right, x_twice)};
            mma_m16n8k16(sum, sheared[k], twos);
            if (eight == last) break; /* the next offsets may have more of it */
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if (g + 8 * half < rows)
                    *row[half] = half_pair(fmaf(sum[2 * half], 0.5f, low_half(before[half])),
                                           fmaf(sum[2 * half + 1], 0.5f, high_half(before[half])));
                before[half] = 0;
                row[half] -= SIGN * 4;
                sum[2 * half] = sum[2 * half + 1] = 0.0f;
            }
            eight -= SIGN;
            x_twice -= (uint32_t)(SIGN * 8) * 0x00010001u;
            if (SIGN > 0 ? eight >= reached : eight <= reached) {
#pragma unroll
                for (int half = 0; half < 2; half++)
                    if (g + 8 * half < rows) before[half] = *row[half];
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (g + 8 * half < rows)
            *row[half] = half_pair(fmaf(sum[2 * half], 0.5f, low_half(before[half])),
                                   fmaf(sum[2 * half + 1], 0.5f, high_half(before[half])));
    return eight;
}

/* A warp's rows of a tile pair; `along` is the row of m = 0, x_of the x of y = 0, 1, ... Keeps in `reached` how far
 * rows are stored. */
template <int SIGN>
static __device__ __forceinline__ void store_along(bf16 *along, int ld, const uint32_t *region,
                                                   const uint32_t (&sheared)[SPAN / 16][4], const int16_t *x_of,
                                                   int *reached, int rows)
{
    const int first = x_of[2], last = x_of[SPAN - 1]; /* the offsets that pairs have */
    if (last - first == -SIGN * (SPAN - 3)) {
        if (rows == 16)
            store_along_linear<SIGN, 16>(along, ld, region, x_of[32], 16);
        else
            store_along_linear<SIGN, 1>(along, ld, region, x_of[32], rows);
        *reached = last >> 3;
    } else {
        *reached = store_along_sums<SIGN>(along, ld, sheared, x_of, *reached, rows);
    }
    __syncwarp(); /* the next tile pair reads what other lanes have stored */
}

#endif
