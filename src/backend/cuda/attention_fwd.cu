/* Fused disentangled attention, forward, in bf16 on tensor cores (the method of Dao et al., "FlashAttention", 2022,
 * with the two position terms of He et al. 2021):
 *
 *   out_i = sum_j keep(i,j) P(i,j) v_j,   P = softmax_j(scale (q_i.k_j + q_i.Kpos[x(i-j)] + k_j.Qpos[x(i-j)]))
 *
 * A block takes TILE queries of one head of one sequence and walks over the keys tile by tile, with a running maximum
 * and sum of each row. Nothing larger than a tile pair exists; the log-sum-exp of each row is kept for the backward
 * pass. */
#include <kernel.h>

#include "attention.cuh"

/* The largest (or the sum) of a row, whose values lie in four neighbouring lanes. */
static __device__ __forceinline__ float row_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
static __device__ __forceinline__ float row_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

template <int D, bool DROPOUT>
__global__ void __launch_bounds__(THREADS, 3)
    attention_fwd_kernel(attention_shape shape, bf16 *out, float *lse) // out [T, C], lse [H, T]
{
    FB3_DYNAMIC_SHARED(unsigned char, shared);
    const attention_memory<D> memory(shared);
    const attention_head head = head_of(shape, blockIdx.z, blockIdx.y);
    const int i0 = blockIdx.x * TILE, warp = warp_of_block(), row0 = own_row(warp);
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int ld = 3 * shape.C, pos_ld = 2 * shape.C;
    if (i0 >= head.n) return;

    const bf16 *q = shape.qkv + (int64_t)head.start * ld + head.h * D, *k = q + shape.C, *v = k + shape.C;
    const bf16 *q_pos = shape.pos + head.h * D, *k_pos = q_pos + shape.C;
    const float to_log2 = shape.scale * LOG2_E;
    const bool has_rows = i0 + row0 < head.n;
    const lane_rows<D> lanes_a = lane_rows<D>::of_a(), lanes_b = lane_rows<D>::of_b();
    const lane_rows<D> lanes_own = lane_rows<D>::of_b(warp & 1);
    float *region = memory.regions + warp * REGION;
    float output[D / 8][4], highest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}; // of m = g and g + 8
    uint32_t query[D / 16][4];
    clear(output);
    for (int half = 1; half >= 0; half--) {
        const ring_rows<D, 1> rows(shape, head, -half * TILE - i0);
        load_ring<D, 1>(memory.own_pos, half, k_pos, pos_ld, rows);
        load_ring<D, 1>(memory.other_pos, half, q_pos, pos_ld, rows);
    }
    load_tile<D>(memory.other, k, ld, 0, head.n);
    cp_async_commit();
    load_own<D>(query, q, ld, i0 + row0, head.n);

    for (int j0 = 0, s = 0; j0 < head.n; j0 += TILE, s++) {
        float score[COLUMNS][4];
        cp_async_wait<0>();
        __syncthreads(); /* keys and rings have come; values and regions have served */
        load_tile<D>(memory.value, v, ld, j0, head.n);
        cp_async_commit();
        if (has_rows) {
            multiply_own_positions<D>(score, region, query, memory.own_pos, s, warp, lanes_own);
            multiply_rows<D>(score, query, memory.other, lanes_b);
        }
        multiply_other_positions<D>(region, memory.other, memory.other_pos, s, warp, head.n - j0, lanes_a, lanes_b);
        cp_async_wait<0>();
        __syncthreads(); /* values have come, and the terms of all columns; keys and rings have served */
        const int next = j0 + TILE;
        if (next < head.n) {
            const ring_rows<D, 1> rows(shape, head, next - i0);
            load_tile<D>(memory.other, k, ld, next, head.n);
            load_ring<D, 1>(memory.own_pos, (s + 1) & 1, k_pos, pos_ld, rows);
            load_ring<D, 1>(memory.other_pos, (s + 1) & 1, q_pos, pos_ld, rows);
            cp_async_commit();
        }
        if (!has_rows) continue;
        add_other_positions(score, memory.regions, warp);

        float tile_max[2] = {-INFINITY, -INFINITY}, base[2];
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) tile_max[e >> 1] = fmaxf(tile_max[e >> 1], score[n][e]);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            base[r] = fmaxf(highest[r], row_max(tile_max[r]) * to_log2); /* finite: every tile has a key */
            const float shrink = exp2_approx(highest[r] - base[r]);
            highest[r] = base[r];
            sum[r] *= shrink;
#pragma unroll
            for (int n = 0; n < D / 8; n++) output[n][2 * r] *= shrink, output[n][2 * r + 1] *= shrink;
        }
#pragma unroll
        for (int n = 0; n < COLUMNS; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                score[n][e] = exp2_approx(fmaf(score[n][e], to_log2, -base[e >> 1]));
                sum[e >> 1] += score[n][e];
            }
            if (DROPOUT) {
                float keep[4];
                keep_of_columns(keep, shape.mask, head, i0 + row0 + 2 * g, j0 + n * 8 + 2 * t);
#pragma unroll
                for (int e = 0; e < 4; e++) score[n][e] *= keep[e];
            }
        }
        uint32_t pairs[COLUMNS][2];
        round_pairs(pairs, score);
        multiply_columns<D>(output, pairs, memory.value, lanes_a);
    }

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int i = i0 + row0 + 2 * (g + r * 8);
        const float total = row_sum(sum[r]);
        if (i >= head.n) continue;
        const float share = 1.0f / total;
        bf16 *row = out + (head.start + i) * (int64_t)shape.C + head.h * D;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *reinterpret_cast<uint32_t *>(row + n * 8 + 2 * t) =
                half_pair(output[n][2 * r] * share, output[n][2 * r + 1] * share);
        if (t == 0) lse[head.h * (int64_t)shape.T + head.start + i] = highest[r] * LN_2 + logf(total);
    }
}

template <int D, bool DROPOUT>
static fb3_status launch(fb3_backend *be, const attention_shape &shape, void *out, float *lse, int tiles, int B)
{
    auto kernel = attention_fwd_kernel<D, DROPOUT>;
    const size_t bytes = attention_memory<D>::bytes;
    FB3_CUDA(cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
    FB3_CUDA(FB3_LAUNCH((attention_fwd_kernel<D, DROPOUT>), dim3(tiles, shape.H, B), THREADS, bytes,
                        fb3_cuda_of(be)->compute, shape, (bf16 *)out, lse));
    return FB3_OK;
}

template <int D>
static fb3_status launch_masked(fb3_backend *be, const attention_shape &shape, void *out, float *lse, int tiles, int B)
{
    return shape.mask.threshold ? launch<D, true>(be, shape, out, lse, tiles, B)
                                : launch<D, false>(be, shape, out, lse, tiles, B);
}

bool fb3_attention_fused_takes(const fb3_attention *att)
{
    return att->D == 16 || att->D == 32 || att->D == 64;
}

fb3_status fb3_attention_fused_fwd(fb3_backend *be, void *out, float *lse, const void *qkv, const void *pos,
                                   const fb3_attention *att, const fb3_ragged *ragged, const fb3_dropout *drop)
{
    const attention_shape shape = attention_shape_of(qkv, pos, att, ragged, drop);
    const int tiles = (ragged->max_len + TILE - 1) / TILE;
    if (att->D == 64) return launch_masked<64>(be, shape, out, lse, tiles, ragged->B);
    if (att->D == 32) return launch_masked<32>(be, shape, out, lse, tiles, ragged->B);
    return launch_masked<16>(be, shape, out, lse, tiles, ragged->B);
}
