/* The pieces of the reference attention that no library has: the position terms taken to the pairs and back, dropout. A
 * warp takes a row of pairs. */
#include <kernel.h>

#include "attention_gather.h"

enum { GATHER_WARPS = 4, GATHER_THREADS = 32 * GATHER_WARPS };

static __device__ __forceinline__ void put(float *to, float x)
{
    *to = x;
}
static __device__ __forceinline__ void put(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16(x);
}

/* The row of pairs that a warp works on. */
struct pair_row {
    int h, i;
    int64_t at; /* of its first pair */
    bool there;
};
static __device__ __forceinline__ pair_row row_of(const fb3_pairs &pairs)
{
    pair_row row;
    const int64_t index = blockIdx.x * (int64_t)GATHER_WARPS + (threadIdx.x >> 5);
    row.there = index < (int64_t)pairs.H * pairs.n;
    row.h = (int)(index / pairs.n);
    row.i = (int)(index % pairs.n);
    row.at = index * pairs.n_ld;
    return row;
}

static __device__ __forceinline__ int x_of(const fb3_pairs &pairs, int i, int j)
{
    return pairs.bucket[i - j] - pairs.pos_first;
}

/* 0 or the mask's scale for the probability of query i and key j, in head h of a sample with n tokens (fb3_dropout). */
static __device__ __forceinline__ float attention_keep(const fb3_attention_mask &mask, uint32_t sample, int n, int h,
                                                       int i, int j)
{
    uint32_t blocks = (uint32_t)(n + 3) / 4; /* of four keys in a row */
    fb3_philox block = fb3_philox4x32(((uint32_t)h * (uint32_t)n + (uint32_t)i) * blocks + (uint32_t)j / 4, mask.site,
                                      sample, mask.step, mask.key.k0, mask.key.k1);
    uint32_t word = block.word[0];
    if ((j & 3) == 1) word = block.word[1];
    if ((j & 3) == 2) word = block.word[2];
    if ((j & 3) == 3) word = block.word[3];
    return word >= mask.threshold ? mask.scale : 0.0f;
}

/* 0 or the scale of what is kept (fb3_dropout); 1 without dropout. */
static __device__ __forceinline__ float pair_keep(const fb3_pairs &pairs, int h, int i, int j)
{
    if (pairs.mask.threshold == 0) return 1.0f;
    return attention_keep(pairs.mask, *pairs.sample, pairs.n, h, i, j);
}

static __device__ __forceinline__ float warp_max(float x)
{
    for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

__global__ void __launch_bounds__(GATHER_THREADS)
    pairs_score_kernel(fb3_pairs pairs, float *scores, float *highest, const float *c2p, const float *p2c)
{
    const pair_row row = row_of(pairs);
    if (!row.there) return;
    const float *c2p_row = c2p + (row.h * (int64_t)pairs.n + row.i) * pairs.R_ld;
    const float *p2c_head = p2c + row.h * (int64_t)pairs.n * pairs.R_ld;
    float most = -INFINITY;
    for (int j = threadIdx.x & 31; j < pairs.n; j += 32) {
        const int x = x_of(pairs, row.i, j);
        const float score = (scores[row.at + j] + c2p_row[x] + p2c_head[j * (int64_t)pairs.R_ld + x]) * pairs.scale;
        scores[row.at + j] = score;
        most = fmaxf(most, score);
    }
    most = warp_max(most);
    if ((threadIdx.x & 31) == 0) highest[row.h * pairs.lse_ld + row.i] = most;
}

template <class act>
__global__ void __launch_bounds__(GATHER_THREADS)
    pairs_finish_kernel(fb3_pairs pairs, act *kept, float *lse, const float *p)
{
    const pair_row row = row_of(pairs);
    if (!row.there) return;
    float most = 0.0f; /* exp(highest score - lse) */
    for (int j = threadIdx.x & 31; j < pairs.n; j += 32) {
        most = fmaxf(most, p[row.at + j]);
        put(kept + row.at + j, p[row.at + j] * pair_keep(pairs, row.h, row.i, j));
    }
    most = warp_max(most);
    if ((threadIdx.x & 31) == 0) lse[row.h * pairs.lse_ld + row.i] -= logf(most);
}

template <class act>
__global__ void __launch_bounds__(GATHER_THREADS)
    pairs_mask_kernel(fb3_pairs pairs, act *kept, float *dp, const float *p)
{
    const pair_row row = row_of(pairs);
    if (!row.there) return;
    for (int j = threadIdx.x & 31; j < pairs.n; j += 32) {
        const float keep = pair_keep(pairs, row.h, row.i, j);
        put(kept + row.at + j, p[row.at + j] * keep);
        dp[row.at + j] *= keep;
    }
}

/* x falls along a row, so the pairs with one x are a run: whoever stands at its begin sums it, and clears the rows of
 * the table that were jumped over. */
template <class act>
__global__ void __launch_bounds__(GATHER_THREADS)
    pairs_sum_rows_kernel(fb3_pairs pairs, act *ds_act, act *dc2p, const float *ds)
{
    const pair_row row = row_of(pairs);
    if (!row.there) return;
    act *to = dc2p + (row.h * (int64_t)pairs.n + row.i) * pairs.R_ld;
    const int lane = threadIdx.x & 31, n = pairs.n;
    for (int j = lane; j < n; j += 32) {
        put(ds_act + row.at + j, ds[row.at + j] * pairs.scale);
        const int x = x_of(pairs, row.i, j), before = j > 0 ? x_of(pairs, row.i, j - 1) : x + 1;
        if (before == x) continue;
        float sum = 0.0f;
        for (int k = j; k < n && x_of(pairs, row.i, k) == x; k++) sum += ds[row.at + k] * pairs.scale;
        put(to + x, sum);
        for (int z = x + 1; z < before; z++) put(to + z, 0.0f);
    }
    for (int z = x_of(pairs, row.i, 0) + 1 + lane; z < pairs.R; z += 32) put(to + z, 0.0f);
    for (int z = lane; z < x_of(pairs, row.i, n - 1); z += 32) put(to + z, 0.0f);
}

/* A thread takes a column, down which x rises. */
template <class act>
__global__ void __launch_bounds__(GATHER_THREADS) pairs_sum_columns_kernel(fb3_pairs pairs, act *dp2c, const float *ds)
{
    const int n = pairs.n, j = blockIdx.x * GATHER_THREADS + threadIdx.x, h = blockIdx.y;
    if (j >= n) return;
    const float *column = ds + (int64_t)h * n * pairs.n_ld + j;
    act *to = dp2c + (h * (int64_t)n + j) * pairs.R_ld;
    int written = 0; /* rows of the table, from below */
    for (int i = 0; i < n;) {
        const int x = x_of(pairs, i, j);
        float sum = 0.0f;
        for (; i < n && x_of(pairs, i, j) == x; i++) sum += column[(int64_t)i * pairs.n_ld] * pairs.scale;
        for (; written < x; written++) put(to + written, 0.0f);
        put(to + written++, sum);
    }
    for (; written < pairs.R; written++) put(to + written, 0.0f);
}

static int blocks_of(const fb3_pairs *pairs)
{
    return (int)(((int64_t)pairs->H * pairs->n + GATHER_WARPS - 1) / GATHER_WARPS);
}

fb3_status fb3_pairs_score(fb3_backend *be, const fb3_pairs *pairs, float *scores, float *highest, const float *c2p,
                           const float *p2c)
{
    FB3_CUDA(FB3_LAUNCH((pairs_score_kernel), blocks_of(pairs), GATHER_THREADS, 0, fb3_cuda_of(be)->compute, *pairs,
                        scores, highest, c2p, p2c));
    return FB3_OK;
}

template <class act>
static fb3_status finish(fb3_backend *be, const fb3_pairs *pairs, void *kept, float *lse, const float *p)
{
    FB3_CUDA(FB3_LAUNCH((pairs_finish_kernel<act>), blocks_of(pairs), GATHER_THREADS, 0, fb3_cuda_of(be)->compute,
                        *pairs, (act *)kept, lse, p));
    return FB3_OK;
}

fb3_status fb3_pairs_finish(fb3_backend *be, const fb3_pairs *pairs, void *kept, float *lse, const float *p)
{
    return be->act == FB3_BF16 ? finish<__nv_bfloat16>(be, pairs, kept, lse, p)
                               : finish<float>(be, pairs, kept, lse, p);
}

template <class act>
static fb3_status mask(fb3_backend *be, const fb3_pairs *pairs, void *kept, float *dp, const float *p)
{
    FB3_CUDA(FB3_LAUNCH((pairs_mask_kernel<act>), blocks_of(pairs), GATHER_THREADS, 0, fb3_cuda_of(be)->compute, *pairs,
                        (act *)kept, dp, p));
    return FB3_OK;
}

fb3_status fb3_pairs_mask(fb3_backend *be, const fb3_pairs *pairs, void *kept, float *dp, const float *p)
{
    return be->act == FB3_BF16 ? mask<__nv_bfloat16>(be, pairs, kept, dp, p) : mask<float>(be, pairs, kept, dp, p);
}

template <class act>
static fb3_status sum(fb3_backend *be, const fb3_pairs *pairs, void *ds_act, void *dc2p, void *dp2c, const float *ds)
{
    cudaStream_t stream = fb3_cuda_of(be)->compute;
    const dim3 columns((pairs->n + GATHER_THREADS - 1) / GATHER_THREADS, pairs->H);
    FB3_CUDA(FB3_LAUNCH((pairs_sum_rows_kernel<act>), blocks_of(pairs), GATHER_THREADS, 0, stream, *pairs,
                        (act *)ds_act, (act *)dc2p, ds));
    FB3_CUDA(FB3_LAUNCH((pairs_sum_columns_kernel<act>), columns, GATHER_THREADS, 0, stream, *pairs, (act *)dp2c, ds));
    return FB3_OK;
}

fb3_status fb3_pairs_sum(fb3_backend *be, const fb3_pairs *pairs, void *ds_act, void *dc2p, void *dp2c, const float *ds)
{
    return be->act == FB3_BF16 ? sum<__nv_bfloat16>(be, pairs, ds_act, dc2p, dp2c, ds)
                               : sum<float>(be, pairs, ds_act, dc2p, dp2c, ds);
}
