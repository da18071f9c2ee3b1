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

enum { QUERY, KEY, VALUE, FORWARD_TILES };

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
    const attention_memory<D, FORWARD_TILES> memory = lay_out<D, FORWARD_TILES>(shared);
    const attention_head head = head_of(shape, blockIdx.z, blockIdx.y);
    const int i0 = blockIdx.x * TILE, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int64_t ld = 3 * (int64_t)shape.C;
    if (i0 >= head.n) return;

    const bf16 *q = shape.qkv + head.start * ld + head.h * D, *k = q + shape.C, *v = k + shape.C;
    const bf16 *q_pos = shape.pos + head.h * D, *k_pos = q_pos + shape.C;
    const float to_log2 = shape.scale * LOG2_E;
    float output[D / 8][4], highest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}; // of rows g and g + 8
    clear(output);
    load_tile<D>(memory.tile[QUERY], q + i0 * ld, ld, TILE, head.n - i0);

    for (int j0 = 0; j0 < head.n; j0 += TILE) {
        float score[COLUMNS][4];
        clear(score);
        load_tile<D>(memory.tile[KEY], k + j0 * ld, ld, TILE, head.n - j0);
        load_tile<D>(memory.tile[VALUE], v + j0 * ld, ld, TILE, head.n - j0);
        fill_index(memory.index, shape, i0 - j0, head.n);
        tiles_arrive();
        multiply_rows<D>(score, memory.tile[QUERY], warp * WARP_ROWS, memory.tile[KEY]);
        add_position_terms<D, 1>(score, memory.tile[QUERY], memory.tile[KEY], memory.chunk, memory.gather, memory.index,
                                 k_pos, q_pos, 2 * (int64_t)shape.C);

        float tile_max[2] = {-INFINITY, -INFINITY}, shrink[2];
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                bool there = j0 + n * 8 + 2 * t + (e & 1) < head.n;
                score[n][e] = there ? score[n][e] * to_log2 : -INFINITY;
                tile_max[e >> 1] = fmaxf(tile_max[e >> 1], score[n][e]);
            }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float now = fmaxf(highest[r], row_max(tile_max[r])); /* finite: every tile has a key */
            shrink[r] = exp2f(highest[r] - now);
            highest[r] = now;
            sum[r] *= shrink[r];
        }
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) output[n][e] *= shrink[e >> 1];
#pragma unroll
        for (int n = 0; n < COLUMNS; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                score[n][e] = exp2f(score[n][e] - highest[e >> 1]);
                sum[e >> 1] += score[n][e];
            }
            if (DROPOUT) {
                float keep[4];
                keep_of_columns(keep, shape.mask, head, i0 + warp * WARP_ROWS + g, j0 + n * 8 + 2 * t);
#pragma unroll
                for (int e = 0; e < 4; e++) score[n][e] *= keep[e];
            }
        }
        multiply_columns<D>(output, score, memory.tile[VALUE]);
        __syncthreads(); /* the tiles have served */
    }

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int i = i0 + warp * WARP_ROWS + g + r * 8;
        const float total = row_sum(sum[r]);
        if (i >= head.n) continue;
        bf16 *row = out + (head.start + i) * (int64_t)shape.C + head.h * D;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *reinterpret_cast<__nv_bfloat162 *>(row + n * 8 + 2 * t) =
                __floats2bfloat162_rn(output[n][2 * r] / total, output[n][2 * r + 1] / total);
        if (t == 0) lse[head.h * (int64_t)shape.T + head.start + i] = highest[r] * LN_2 + logf(total);
    }
}

template <int D, bool DROPOUT>
static fb3_status launch(fb3_backend *be, const attention_shape &shape, void *out, float *lse, int tiles, int B)
{
    auto kernel = attention_fwd_kernel<D, DROPOUT>;
    const size_t bytes = attention_shared<D>(FORWARD_TILES);
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
