/* Fused disentangled attention, backward, in bf16 on tensor cores. With dP = keep (dout v^T), delta_i = dout_i.out_i:
 *
 *   dS = P (dP - delta) scale
 *   dq_i = sum_j dS k_j + sum_x dc2p(i,x) Kpos[x]     dKpos[x] = sum_i dc2p(i,x) q_i     dv_j = sum_i keep P dout_i
 *   dk_j = sum_i dS q_i + sum_x dp2c(j,x) Qpos[x]     dQpos[x] = sum_j dp2c(j,x) k_j
 *
 * where dc2p(i,x) and dp2c(j,x) sum dS(i,j) over the pairs of that row (that column) with x(i-j) = x. P and dS are made
 * again from the log-sum-exp, tile pair by tile pair, twice: once for blocks of queries, which own dq and dc2p, and
 * once for blocks of keys, which own dk, dv and dp2c. So every sum has one owner and one order, and no atomics are
 * needed.
 *
 * x is monotone in i - j, so along a row of dS the pairs with one x are a run, at most a few pairs long, and a row of
 * dc2p is written in one pass. dc2p [H, T, R] and dp2c take turns in one array; what is left are four products over all
 * rows of the batch, which the library does best. */
#include <kernel.h>

#include "attention.cuh"

enum { OWN, OWN_VALUE, OTHER, OTHER_VALUE, BACKWARD_TILES };

struct attention_gradient {
    const bf16 *dout, *out; // [T, C]
    const float *lse;       // [H, T]
    float *delta;           // [H, T]
    bf16 *dqkv;             // [T, 3C]
    bf16 *along;            // [H, T, along_ld] dc2p or dp2c
    int along_ld;
};

/* delta [T] of one head for TILE queries from i0 on, four lanes a row. */
template <int D>
static __device__ __forceinline__ void make_delta(const attention_shape &shape, const attention_gradient &gradient,
                                                  const attention_head &head, int i0)
{
    const int t = threadIdx.x & 3;
    for (int r = threadIdx.x >> 2; r < TILE; r += THREADS / 4) {
        float sum = 0.0f;
        const int64_t at = (head.start + i0 + r) * (int64_t)shape.C + head.h * D;
        if (i0 + r < head.n)
            for (int d = t; d < D; d += 4)
                sum += __bfloat162float(gradient.dout[at + d]) * __bfloat162float(gradient.out[at + d]);
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if (t == 0 && i0 + r < head.n) gradient.delta[head.h * (int64_t)shape.T + head.start + i0 + r] = sum;
    }
}

/* to[first], to[first + 1], ... to[end - 1] = 0, by a warp. */
static __device__ __forceinline__ void clear_rows(bf16 *to, int first, int end)
{
    for (int x = first + (int)(threadIdx.x & 31); x < end; x += 32) to[x] = __float2bfloat16(0.0f);
}

/* The share of a tile pair in this warp's rows of dc2p (dp2c): along points at the first row of the tile, ds [TILE,
 * GATHER_LD] holds dS, `columns` of them are pairs. A lane takes every 32nd column; where a run of equal x begins, it
 * sums the run and writes it, and zeros for rows of the table that were jumped over. `begins` and `ends`: the first and
 * the last tile of a row, before and behind which there are zeros; between two tiles a run goes on. */
template <int SIGN>
static __device__ __forceinline__ void write_along(bf16 *along, int64_t ld, const float *ds, const int16_t *index,
                                                   int row0, int rows, int columns, int R, bool begins, bool ends)
{
    const int lane = threadIdx.x & 31;
    const bool no_runs = index[2 * ORIGIN] - index[0] == 2 * ORIGIN; /* x moves by one with every distance */
    for (int r = row0; r < least(row0 + WARP_ROWS, rows); r++) {
        const int16_t *x_of = index + ORIGIN + SIGN * r; /* of column c at -SIGN c */
        const float *from = ds + r * GATHER_LD;
        bf16 *to = along + r * ld;
        const int first = x_of[0], last = x_of[-SIGN * (columns - 1)];
        if (no_runs) {
            for (int c = lane; c < columns; c += 32) to[first - SIGN * c] = __float2bfloat16(from[c]);
        } else {
            for (int c = lane; c < columns; c += 32) {
                const int x = x_of[-SIGN * c], before = c > 0 || !begins ? x_of[-SIGN * (c - 1)] : x + SIGN;
                if (c > 0 && before == x) continue;
                float sum = before == x ? __bfloat162float(to[x]) : 0.0f;
                for (int k = c; k < columns && x_of[-SIGN * k] == x; k++) sum += from[k];
                to[x] = __float2bfloat16(sum);
                for (int z = x + SIGN; z != before && before != x; z += SIGN) to[z] = __float2bfloat16(0.0f);
            }
        }
        if (begins) clear_rows(to, SIGN > 0 ? first + 1 : 0, SIGN > 0 ? R : first);
        if (ends) clear_rows(to, SIGN > 0 ? 0 : last + 1, SIGN > 0 ? last : R);
    }
}

/* rows of this warp [16, D], bf16, `ld` apart, from row row0 on */
template <int D>
static __device__ __forceinline__ void store_rows(bf16 *to, int64_t ld, const float (&acc)[D / 8][4], int row0,
                                                  int rows)
{
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            if (row0 + g + r * 8 < rows)
                *reinterpret_cast<__nv_bfloat162 *>(to + (row0 + g + r * 8) * ld + n * 8 + 2 * t) =
                    __floats2bfloat162_rn(acc[n][2 * r], acc[n][2 * r + 1]);
}

/* What a tile pair needs of its queries: log-sum-exp in powers of 2 (infinite behind the last one: P becomes 0), delta.
 */
struct query_sums {
    float lse, delta;
};
static __device__ __forceinline__ query_sums sums_of(const attention_shape &shape, const attention_gradient &gradient,
                                                     const attention_head &head, int i)
{
    const int64_t at = head.h * (int64_t)shape.T + head.start + i;
    query_sums sums = {INFINITY, 0.0f};
    if (i < head.n) {
        sums.lse = gradient.lse[at] * LOG2_E;
        sums.delta = gradient.delta[at];
    }
    return sums;
}

/* SIGN > 0: own rows are queries: dq, dc2p, delta. SIGN < 0: own rows are keys: dk, dv, dp2c. */
template <int D, int SIGN, bool DROPOUT>
__global__ void __launch_bounds__(THREADS, 2) attention_bwd_kernel(attention_shape shape, attention_gradient gradient)
{
    FB3_DYNAMIC_SHARED(unsigned char, shared);
    __shared__ float column_lse[TILE], column_delta[TILE];
    const attention_memory<D, BACKWARD_TILES> memory = lay_out<D, BACKWARD_TILES>(shared);
    const attention_head head = head_of(shape, blockIdx.z, blockIdx.y);
    const int own0 = blockIdx.x * TILE, row0 = (threadIdx.x >> 5) * WARP_ROWS;
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int64_t ld = 3 * (int64_t)shape.C;
    if (own0 >= head.n) return;

    const bf16 *q = shape.qkv + head.start * ld + head.h * D, *k = q + shape.C, *v = k + shape.C;
    const bf16 *dout = gradient.dout + head.start * (int64_t)shape.C + head.h * D;
    const bf16 *q_pos = shape.pos + head.h * D, *k_pos = q_pos + shape.C;
    const bf16 *own = SIGN > 0 ? q : k, *other = SIGN > 0 ? k : q;
    const bf16 *own_value = SIGN > 0 ? dout : v, *other_value = SIGN > 0 ? v : dout;
    const int64_t own_value_ld = SIGN > 0 ? shape.C : ld, other_value_ld = SIGN > 0 ? ld : shape.C;
    bf16 *along = gradient.along + (head.h * (int64_t)shape.T + head.start + own0) * gradient.along_ld;
    const float to_log2 = shape.scale * LOG2_E;

    float down[D / 8][4], dvalue[D / 8][4]; /* of own rows: dq, or dk and dv */
    query_sums row[2] = {};
    clear(down);
    clear(dvalue);
    load_tile<D>(memory.tile[OWN], own + own0 * ld, ld, TILE, head.n - own0);
    load_tile<D>(memory.tile[OWN_VALUE], own_value + own0 * own_value_ld, own_value_ld, TILE, head.n - own0);
    if (SIGN > 0) {
        make_delta<D>(shape, gradient, head, own0);
        __syncthreads();
        row[0] = sums_of(shape, gradient, head, own0 + row0 + g);
        row[1] = sums_of(shape, gradient, head, own0 + row0 + g + 8);
    }

    for (int other0 = 0; other0 < head.n; other0 += TILE) {
        const int columns = least(TILE, head.n - other0);
        float p[COLUMNS][4], ds[COLUMNS][4];
        clear(p);
        clear(ds);
        load_tile<D>(memory.tile[OTHER], other + other0 * ld, ld, TILE, columns);
        load_tile<D>(memory.tile[OTHER_VALUE], other_value + other0 * other_value_ld, other_value_ld, TILE, columns);
        fill_index(memory.index, shape, SIGN * (own0 - other0), head.n);
        if (SIGN < 0 && threadIdx.x < TILE) {
            const query_sums sums = sums_of(shape, gradient, head, other0 + threadIdx.x);
            column_lse[threadIdx.x] = sums.lse;
            column_delta[threadIdx.x] = sums.delta;
        }
        tiles_arrive();
        multiply_rows<D>(p, memory.tile[OWN], row0, memory.tile[OTHER]);
        add_position_terms<D, SIGN>(p, memory.tile[OWN], memory.tile[OTHER], memory.chunk, memory.gather, memory.index,
                                    SIGN > 0 ? k_pos : q_pos, SIGN > 0 ? q_pos : k_pos, 2 * (int64_t)shape.C);
        multiply_rows<D>(ds, memory.tile[OWN_VALUE], row0, memory.tile[OTHER_VALUE]);

#pragma unroll
        for (int n = 0; n < COLUMNS; n++) {
            float keep[4] = {1.0f, 1.0f, 1.0f, 1.0f};
            if (DROPOUT && SIGN > 0) keep_of_columns(keep, shape.mask, head, own0 + row0 + g, other0 + n * 8 + 2 * t);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int c = n * 8 + 2 * t + (e & 1);
                const float lse = SIGN > 0 ? row[e >> 1].lse : column_lse[c];
                const float delta = SIGN > 0 ? row[e >> 1].delta : column_delta[c];
                if (DROPOUT && SIGN < 0)
                    keep[e] = attention_keep(shape.mask, head.sample, head.n, head.h, other0 + c,
                                             own0 + row0 + g + (e >> 1) * 8);
                float probability = c < columns ? exp2f(p[n][e] * to_log2 - lse) : 0.0f;
                ds[n][e] = probability * (ds[n][e] * keep[e] - delta) * shape.scale;
                p[n][e] = probability * keep[e];
            }
        }
        if (SIGN < 0) multiply_columns<D>(dvalue, p, memory.tile[OTHER_VALUE]);
        multiply_columns<D>(down, ds, memory.tile[OTHER]);

#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                memory.gather[(row0 + g + (e >> 1) * 8) * GATHER_LD + n * 8 + 2 * t + (e & 1)] = ds[n][e];
        __syncwarp();
        write_along<SIGN>(along, gradient.along_ld, memory.gather, memory.index, row0, head.n - own0, columns, shape.R,
                          other0 == 0, other0 + TILE >= head.n);
        __syncthreads(); /* the tiles, the index and what was gathered have served */
    }

    bf16 *to = gradient.dqkv + (head.start + own0) * ld + head.h * D;
    store_rows<D>(SIGN > 0 ? to : to + shape.C, ld, down, row0, head.n - own0);
    if (SIGN < 0) store_rows<D>(to + 2 * shape.C, ld, dvalue, row0, head.n - own0);
}

template <int D, int SIGN, bool DROPOUT>
static fb3_status launch(fb3_backend *be, const attention_shape &shape, const attention_gradient &gradient, int tiles,
                         int B)
{
    const size_t bytes = attention_shared<D>(BACKWARD_TILES);
    auto kernel = attention_bwd_kernel<D, SIGN, DROPOUT>;
    FB3_CUDA(cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
    FB3_CUDA(FB3_LAUNCH((attention_bwd_kernel<D, SIGN, DROPOUT>), dim3(tiles, shape.H, B), THREADS, bytes,
                        fb3_cuda_of(be)->compute, shape, gradient));
    return FB3_OK;
}

template <int SIGN, bool DROPOUT>
static fb3_status launch_sized(fb3_backend *be, const attention_shape &shape, const attention_gradient &gradient,
                               int tiles, int B)
{
    const int D = shape.C / shape.H;
    if (D == 64) return launch<64, SIGN, DROPOUT>(be, shape, gradient, tiles, B);
    if (D == 32) return launch<32, SIGN, DROPOUT>(be, shape, gradient, tiles, B);
    return launch<16, SIGN, DROPOUT>(be, shape, gradient, tiles, B);
}

template <int SIGN>
static fb3_status launch_masked(fb3_backend *be, const attention_shape &shape, const attention_gradient &gradient,
                                int tiles, int B)
{
    return shape.mask.threshold ? launch_sized<SIGN, true>(be, shape, gradient, tiles, B)
                                : launch_sized<SIGN, false>(be, shape, gradient, tiles, B);
}

/* down act[T, D] of every head += along table, and dtable act[R, D] = along^T own. */
static fb3_status multiply_along(fb3_backend *be, const attention_shape &shape, const attention_gradient &gradient,
                                 bf16 *down, const bf16 *table, bf16 *dtable, const bf16 *own)
{
    const int D = shape.C / shape.H;
    fb3_product product = {};
    product.batch = shape.H;
    product.a = gradient.along;
    product.lda = gradient.along_ld;
    product.stride_a = (int64_t)shape.T * gradient.along_ld;
    product.c_type = FB3_BF16;
    product.N = D;
    product.stride_b = product.stride_c = D;

    product.M = shape.T, product.K = shape.R;
    product.b = table, product.ldb = 2 * (int64_t)shape.C;
    product.c = down, product.ldc = 3 * (int64_t)shape.C;
    product.accumulate = true;
    FB3_TRY(fb3_product_cuda(be, &product));

    product.trans_a = true;
    product.M = shape.R, product.K = shape.T;
    product.b = own, product.ldb = 3 * (int64_t)shape.C;
    product.c = dtable, product.ldc = 2 * (int64_t)shape.C;
    product.accumulate = false;
    return fb3_product_cuda(be, &product);
}

static int along_ld_of(int R)
{
    return (R + 7) / 8 * 8; /* rows begin on 16 bytes */
}

static size_t along_bytes(int H, int T, int R)
{
    return (size_t)H * T * along_ld_of(R) * sizeof(bf16);
}

size_t fb3_attention_fused_scratch(const fb3_limits *limits)
{
    return along_bytes(limits->H, limits->T, limits->R) + (size_t)limits->H * limits->T * sizeof(float);
}

fb3_status fb3_attention_fused_bwd(fb3_backend *be, void *dqkv, void *dpos, const void *dout, const void *out,
                                   const float *lse, const void *qkv, const void *pos, const fb3_attention *att,
                                   const fb3_ragged *ragged, const fb3_dropout *drop)
{
    const attention_shape shape = attention_shape_of(qkv, pos, att, ragged, drop);
    const size_t bytes = along_bytes(shape.H, shape.T, shape.R);
    const int tiles = (ragged->max_len + TILE - 1) / TILE, B = ragged->B, C = shape.C;
    void *scratch;
    FB3_TRY(fb3_cuda_scratch(be, &scratch, bytes + (size_t)shape.H * shape.T * sizeof(float)));
    attention_gradient gradient;
    gradient.dout = (const bf16 *)dout;
    gradient.out = (const bf16 *)out;
    gradient.lse = lse;
    gradient.delta = (float *)((char *)scratch + bytes);
    gradient.dqkv = (bf16 *)dqkv;
    gradient.along = (bf16 *)scratch;
    gradient.along_ld = along_ld_of(shape.R);

    bf16 *dq = gradient.dqkv, *dq_pos = (bf16 *)dpos;
    FB3_TRY(launch_masked<1>(be, shape, gradient, tiles, B)); /* first: it makes delta */
    FB3_TRY(multiply_along(be, shape, gradient, dq, shape.pos + C, dq_pos + C, shape.qkv));
    FB3_TRY(launch_masked<-1>(be, shape, gradient, tiles, B));
    return multiply_along(be, shape, gradient, dq + C, shape.pos, dq_pos, shape.qkv + C);
}
