/* Fused disentangled attention, backward, in bf16 on tensor cores. With dP = keep (dout v^T), delta_i = dout_i.out_i:
 *
 *   dS = P (dP - delta) scale
 *   dq_i = sum_j dS k_j + sum_x dc2p(i,x) Kpos[x]     dKpos[x] = sum_i dc2p(i,x) q_i     dv_j = sum_i keep P dout_i
 *   dk_j = sum_i dS q_i + sum_x dp2c(j,x) Qpos[x]     dQpos[x] = sum_j dp2c(j,x) k_j
 *
 * where dc2p(i,x) and dp2c(j,x) sum dS(i,j) over the pairs of that row (that column) with x(i-j) = x. P and dS are made
 * again from the log-sum-exp, tile pair by tile pair, twice: once for blocks of queries, which own dq and dc2p, and
 * once for blocks of keys, which own dk, dv and dp2c. So every sum has one owner and one order, and no atomics are
 * needed. The second sum of dq and dk goes over offsets and not over x, inside the kernels.
 *
 * x is monotone in i - j, so along a row of dS the pairs with one x are a run, and a row of dc2p is written in one pass
 * (attention_along.cuh). dc2p [H, T, R] and dp2c take turns in one array; dKpos and dQpos are products over all rows of
 * the batch, which the library does best. */
#include <kernel.h>

#include "attention.cuh"
#include "attention_along.cuh"

struct attention_gradient {
    const bf16 *dout, *out; // [T, C]
    const float *lse;       // [H, T]
    float *delta;           // [H, T]
    bf16 *dqkv;             // [T, 3C]
    bf16 *along;            // [H, T, along_ld] dc2p or dp2c
    int along_ld;
};

/* rows of this warp [16, D], bf16, `ld` apart, times a factor; `to` is the row of m = 0 of `rows` */
template <int D>
static __device__ __forceinline__ void store_rows(bf16 *to, int ld, const float (&acc)[D / 8][4], float factor,
                                                  int rows)
{
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int m = g + half * 8;
        if (m >= rows) continue;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *reinterpret_cast<uint32_t *>(to + 2 * m * (int64_t)ld + n * 8 + 2 * t) =
                half_pair(acc[n][2 * half] * factor, acc[n][2 * half + 1] * factor);
    }
}

/* Zeros in the rows [rows, ld] of along, whose x no pair may have; a barrier follows. */
static __device__ __forceinline__ void clear_along(bf16 *along, int ld, int rows)
{
    for (int at = (int)threadIdx.x * 8; at < rows * ld; at += THREADS * 8)
        *reinterpret_cast<uint4 *>(along + at) = make_uint4(0, 0, 0, 0);
}

/* What a tile pair needs of its queries: log-sum-exp in powers of 2 (infinite behind the last own one: P becomes 0),
 * delta.
 */
struct query_sums {
    float lse, delta;
};

/* SIGN > 0: own rows are queries: dq, dc2p, delta. SIGN < 0: own rows are keys: dk, dv, dp2c. */
template <int D, int SIGN, bool DROPOUT>
__global__ void __launch_bounds__(THREADS, 2) attention_bwd_kernel(attention_shape shape, attention_gradient gradient)
{
    FB3_DYNAMIC_SHARED(unsigned char, shared);
    __shared__ query_sums of_column[TILE];
    __shared__ __align__(4) int16_t x_table[2][OFFSETS];
    const attention_memory<D> memory(shared);
    const attention_head head = head_of(shape, blockIdx.z, blockIdx.y);
    const int warp = warp_of_block(), own0 = blockIdx.x * TILE, row0 = own0 + own_row(warp);
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int ld = 3 * shape.C, pos_ld = 2 * shape.C;
    if (own0 >= head.n) return;

    const bf16 *q = shape.qkv + (int64_t)head.start * ld + head.h * D, *k = q + shape.C, *v = k + shape.C;
    const bf16 *dout = gradient.dout + head.start * (int64_t)shape.C + head.h * D;
    const bf16 *q_pos = shape.pos + head.h * D, *k_pos = q_pos + shape.C;
    const bf16 *own = SIGN > 0 ? q : k, *other = SIGN > 0 ? k : q;
    const bf16 *own_value = SIGN > 0 ? dout : v, *other_value = SIGN > 0 ? v : dout;
    const bf16 *own_pos = SIGN > 0 ? k_pos : q_pos, *other_pos = SIGN > 0 ? q_pos : k_pos;
    const int own_value_ld = SIGN > 0 ? shape.C : ld, other_value_ld = SIGN > 0 ? ld : shape.C;
    const lane_rows<D> lanes_a = lane_rows<D>::of_a(), lanes_b = lane_rows<D>::of_b();
    const lane_rows<D> lanes_own = lane_rows<D>::of_b(warp & 1);
    const int64_t sums_at = head.h * (int64_t)shape.T + head.start; /* of lse, delta and along */
    bf16 *along = gradient.along + (sums_at + row0) * gradient.along_ld;
    const int rows = (head.n - row0 + 1) / 2; /* of this warp; may be more than 16, or none */
    const float to_log2 = shape.scale * LOG2_E, log2_scale = log2f(shape.scale);
    float *region = memory.regions + warp * REGION;
    uint32_t *region_words = reinterpret_cast<uint32_t *>(region);

    for (int half = 1; half >= 0; half--) {
        const ring_rows<D, SIGN> x(shape, head, -half * TILE - own0);
        load_ring<D, SIGN>(memory.own_pos, half, own_pos, pos_ld, x);
        load_ring<D, SIGN>(memory.other_pos, half, other_pos, pos_ld, x);
    }
    load_tile<D>(memory.other, other, ld, 0, head.n);
    load_tile<D>(memory.value, other_value, other_value_ld, 0, head.n);
    cp_async_commit();
    clear_along(gradient.along + (sums_at + own0) * gradient.along_ld, gradient.along_ld, least(TILE, head.n - own0));

    float down[D / 8][4], dvalue[D / 8][4]; /* of own rows: dq, or dk and dv */
    uint32_t rows_own[D / 16][4], rows_value[D / 16][4];
    query_sums of_row[2] = {{INFINITY, 0.0f}, {INFINITY, 0.0f}};
    int reached = SIGN > 0 ? shape.R : -1;
    clear(down);
    clear(dvalue);
    load_own<D>(rows_own, own, ld, row0, head.n);
    load_own<D>(rows_value, own_value, own_value_ld, row0, head.n);
    if (SIGN > 0) {
        uint32_t rows_out[D / 16][4];
        load_own<D>(rows_out, gradient.out + head.start * (int64_t)shape.C + head.h * D, shape.C, row0, head.n);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = row0 + 2 * (g + 8 * half);
            float delta = 0.0f;
#pragma unroll
            for (int kk = 0; kk < D / 16; kk++)
#pragma unroll
                for (int right = 0; right < 2; right++) {
                    const uint32_t a = rows_value[kk][half + 2 * right], b = rows_out[kk][half + 2 * right];
                    delta += low_half(a) * low_half(b) + high_half(a) * high_half(b);
                }
            delta += __shfl_xor_sync(0xffffffffu, delta, 1);
            delta += __shfl_xor_sync(0xffffffffu, delta, 2);
            if (i >= head.n) continue;
            if (t == 0) gradient.delta[sums_at + i] = delta;
            of_row[half].lse = gradient.lse[sums_at + i] * LOG2_E - log2_scale;
            of_row[half].delta = delta;
        }
    }

    for (int other0 = 0, s = 0; other0 < head.n; other0 += TILE, s++) {
        const int next0 = other0 + TILE;
        float p[COLUMNS][4], ds[COLUMNS][4];
        cp_async_wait<0>();
        __syncthreads(); /* tiles and rings have come; what the last pair left in shared memory has served */
        fill_offsets<SIGN>(x_table, shape, head, other0 - own0);
        if (SIGN < 0 && threadIdx.x < TILE) {
            const int i = other0 + (int)threadIdx.x;
            query_sums sums = {0.0f, 0.0f}; /* behind the last query: P is 0 */
            if (i < head.n) {
                sums.lse = gradient.lse[sums_at + i] * LOG2_E - log2_scale;
                sums.delta = gradient.delta[sums_at + i];
            }
            of_column[threadIdx.x] = sums;
        }
        if (rows > 0) {
            multiply_own_positions<D>(p, region, rows_own, memory.own_pos, s, warp, lanes_own);
            multiply_rows<D>(p, rows_own, memory.other, lanes_b);
        }
        multiply_other_positions<D>(region, memory.other, memory.other_pos, s, warp, head.n - other0, lanes_a, lanes_b);
        __syncthreads(); /* the terms of all columns have come; the ring of other_pos has served */
        if (next0 < head.n) {
            load_ring<D, SIGN>(memory.other_pos, (s + 1) & 1, other_pos, pos_ld,
                               ring_rows<D, SIGN>(shape, head, next0 - own0));
            cp_async_commit();
        }
        uint32_t pairs[COLUMNS][2];
        if (rows > 0) {
            add_other_positions(p, memory.regions, warp);
            clear(ds);
            multiply_rows<D>(ds, rows_value, memory.value, lanes_b);
#pragma unroll
            for (int n = 0; n < COLUMNS; n++) {
                float keep[4];
                if (DROPOUT && SIGN > 0) keep_of_columns(keep, shape.mask, head, row0 + 2 * g, other0 + n * 8 + 2 * t);
                if (DROPOUT && SIGN < 0) keep_of_rows(keep, shape.mask, head, row0 + 2 * g, other0 + n * 8 + 2 * t);
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const query_sums sums = SIGN > 0 ? of_row[e >> 1] : of_column[n * 8 + 2 * t + (e & 1)];
                    p[n][e] = exp2_approx(fmaf(p[n][e], to_log2, -sums.lse)); /* P scale */
                    if (DROPOUT) ds[n][e] *= keep[e];
                    ds[n][e] = p[n][e] * (ds[n][e] - sums.delta);
                    if (DROPOUT) p[n][e] *= keep[e];
                }
            }
            if (SIGN < 0) {
                round_pairs(pairs, p);
                multiply_columns<D>(dvalue, pairs, memory.value, lanes_a);
            }
            round_pairs(pairs, ds);
            multiply_columns<D>(down, pairs, memory.other, lanes_a);
        }
        __syncthreads(); /* tiles and regions have served */
        if (next0 < head.n) {
            load_tile<D>(memory.other, other, ld, next0, head.n);
            load_tile<D>(memory.value, other_value, other_value_ld, next0, head.n);
            cp_async_commit();
        }
        uint32_t sheared[SPAN / 16][4];
        if (rows > 0) {
            store_sheared(region_words, pairs);
            __syncwarp();
            load_sheared(sheared, region_words);
            const lane_rows<D> lanes = lane_rows<D>::of_a(warp & 1);
#pragma unroll
            for (int m = 0; m < SPAN / 16; m++)
                multiply_16<D>(down, sheared[m], ring_of_own<D>(memory.own_pos, s, warp, m / 2) + m % 2 * 16 * ROW<D>,
                               lanes);
        }
        __syncthreads(); /* the ring of own_pos has served */
        if (next0 < head.n) {
            load_ring<D, SIGN>(memory.own_pos, (s + 1) & 1, own_pos, pos_ld,
                               ring_rows<D, SIGN>(shape, head, next0 - own0));
            cp_async_commit();
        }
        if (rows > 0)
            store_along<SIGN>(along, gradient.along_ld, region_words, sheared,
                              x_table[warp & 1] + 32 - (warp >> 1) * 32, &reached, least(rows, 16));
    }

    bf16 *to = gradient.dqkv + (int64_t)(head.start + row0) * ld + head.h * D;
    if (SIGN > 0) {
        store_rows<D>(to, ld, down, 1.0f, rows);
    } else {
        store_rows<D>(to + shape.C, ld, down, 1.0f, rows);
        store_rows<D>(to + 2 * shape.C, ld, dvalue, 1.0f / shape.scale, rows);
    }
}

template <int D, int SIGN, bool DROPOUT>
static fb3_status launch(fb3_backend *be, const attention_shape &shape, const attention_gradient &gradient, int tiles,
                         int B)
{
    const size_t bytes = attention_memory<D>::bytes;
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

/* dtable act[R, D] of every head = along^T own. */
static fb3_status multiply_along(fb3_backend *be, const attention_shape &shape, const attention_gradient &gradient,
                                 bf16 *dtable, const bf16 *own)
{
    const int D = shape.C / shape.H;
    fb3_product product = {};
    product.batch = shape.H;
    product.trans_a = true;
    product.M = shape.R, product.N = D, product.K = shape.T;
    product.a = gradient.along, product.lda = gradient.along_ld;
    product.stride_a = (int64_t)shape.T * gradient.along_ld;
    product.b = own, product.ldb = 3 * (int64_t)shape.C;
    product.c_type = FB3_BF16;
    product.c = dtable, product.ldc = 2 * (int64_t)shape.C;
    product.stride_b = product.stride_c = D;
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

    bf16 *dq_pos = (bf16 *)dpos;
    FB3_TRY(launch_masked<1>(be, shape, gradient, tiles, B)); /* first: it makes delta */
    FB3_TRY(multiply_along(be, shape, gradient, dq_pos + C, shape.qkv));
    FB3_TRY(launch_masked<-1>(be, shape, gradient, tiles, B));
    return multiply_along(be, shape, gradient, dq_pos, shape.qkv + C);
}
