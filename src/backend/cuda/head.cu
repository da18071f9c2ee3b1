/* The head, in float throughout: mean pooling over the real tokens, dropout, a linear layer to Y targets, and the
 * losses (formulas at fb3_loss_kind). A batch has few samples and few targets, so but for the pooling these kernels are
 * as long as their longest chain of loads, and short of that only because the sums are shared among warps. */
#include "device.cuh"
#include "fb3/element_loss.h"

/* --- pooling ------------------------------------------------------------------------------------------------------ */

enum { POOL_WARPS = 16 };

/* pooled float[B,C], x act[T,C]: a block takes 32 W columns of a sequence, each of its warps a share of the tokens. */
template <class T, int W>
__global__ void __launch_bounds__(POOL_WARPS *WARP)
    mean_pool_forward_kernel(float *pooled, const T *x, const int32_t *seq_start, int C, int tiles)
{
    int b = (int)blockIdx.x / tiles, lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    int c = ((int)blockIdx.x % tiles * WARP + lane) * W, start = seq_start[b], end = seq_start[b + 1];
    int share = (end - start + POOL_WARPS - 1) / POOL_WARPS, first = start + warp * share;
    float sum[W] = {};
    if (c < C) add_rows<8, T>(sum, first, min(first + share, end), [&](int t) { return x + (int64_t)t * C + c; });
    add_warps<POOL_WARPS>(sum);
    if (warp > 0 || c >= C) return;
    float part = end > start ? 1.0f / (float)(end - start) : 0.0f;
    for (int i = 0; i < W; i++) sum[i] *= part;
    store_values(pooled + (int64_t)b * C + c, sum);
}

/* dx act[T,C], dpooled float[B,C]: a block takes a token. */
template <class T, int W>
__global__ void __launch_bounds__(BLOCK)
    mean_pool_backward_kernel(T *dx, const float *dpooled, const int32_t *seq_start, const int32_t *token_seq, int C)
{
    int t = (int)blockIdx.x, b = token_seq[t];
    float part = 1.0f / (float)(seq_start[b + 1] - seq_start[b]);
    for (int c = (int)threadIdx.x * W; c < C; c += (int)blockDim.x * W) {
        float v[W];
        load_values(v, dpooled + (int64_t)b * C + c);
        for (int i = 0; i < W; i++) v[i] *= part;
        store_values(dx + (int64_t)t * C + c, v);
    }
}

fb3_status fb3_mean_pool_fwd_cuda(fb3_backend *be, float *pooled, const void *x, const fb3_ragged *ragged, int C)
{
    if (ragged->B == 0) return FB3_OK;
    return with_type(be->act, [&](auto type) {
        typedef decltype(type) T;
        return with_width(aligned_16(pooled, x), C, [&](auto w) {
            constexpr int W = decltype(w)::value;
            int tiles = (int)ceil_div(C, WARP * W);
            FB3_CUDA(FB3_LAUNCH((mean_pool_forward_kernel<T, W>), (unsigned)((int64_t)ragged->B * tiles),
                                POOL_WARPS * WARP, 0, fb3_cuda_of(be)->compute, pooled, (const T *)x, ragged->seq_start,
                                C, tiles));
            return FB3_OK;
        });
    });
}

fb3_status fb3_mean_pool_bwd_cuda(fb3_backend *be, void *dx, const float *dpooled, const fb3_ragged *ragged, int C)
{
    if (ragged->T == 0) return FB3_OK;
    return with_type(be->act, [&](auto type) {
        typedef decltype(type) T;
        return with_width(aligned_16(dx, dpooled), C, [&](auto w) {
            constexpr int W = decltype(w)::value;
            FB3_CUDA(FB3_LAUNCH((mean_pool_backward_kernel<T, W>), (unsigned)ragged->T, row_threads(C, W), 0,
                                fb3_cuda_of(be)->compute, (T *)dx, dpooled, ragged->seq_start, ragged->token_seq, C));
            return FB3_OK;
        });
    });
}

/* --- linear ------------------------------------------------------------------------------------------------------- */

enum { HEAD_ROWS = 8 /* of dw that a block makes, or of dpooled */ };

/* v [W] *= keep of columns c .. c + W - 1 of sample b: its elements are one row of C */
template <int W>
static __device__ __forceinline__ void drop_pooled(float (&v)[W], const row_dropout &drop, int b, int c)
{
    if (drop.threshold) drop_values(v, drop, drop.sample[b], (uint64_t)c);
}

/* pred [B,Y] = dropout(pooled [B,C]) w [Y,C]^T + bias [Y]: a warp for each prediction */
template <int W>
__global__ void __launch_bounds__(BLOCK)
    head_forward_kernel(float *pred, const float *pooled, const float *w, const float *bias, int count, int C, int Y,
                        row_dropout drop)
{
    int at = (int)(blockIdx.x * BLOCK_WARPS + threadIdx.x / WARP), lane = (int)threadIdx.x % WARP;
    if (at >= count) return;
    int b = at / Y, y = at % Y;
    float sum = 0.0f;
#pragma unroll 4
    for (int c = lane * W; c < C; c += WARP * W) {
        float x[W], weight[W];
        load_values(x, pooled + (int64_t)b * C + c);
        load_values(weight, w + (int64_t)y * C + c);
        drop_pooled(x, drop, b, c);
        for (int i = 0; i < W; i++) sum = fmaf(x[i], weight[i], sum);
    }
    sum = warp_sum(sum);
    if (lane == 0) pred[at] = bias[y] + sum;
}

typedef struct head_backward {
    float *dpooled, *dw, *db;        // dpooled [B,C], dw [Y,C] +=, db [Y] +=
    const float *dpred, *pooled, *w; // dpred [B,Y], pooled [B,C], w [Y,C]
    int B, C, Y;
    row_dropout drop;
} head_backward;

/* dpooled[b] = keep * sum over y of dpred[b,y] w[y] at the columns c .. c + W - 1 */
template <int W> static __device__ __forceinline__ void head_input_gradient(const head_backward &a, int b, int c)
{
    float sum[W] = {};
#pragma unroll 4
    for (int y = 0; y < a.Y; y++) {
        float weight[W], d = a.dpred[(int64_t)b * a.Y + y];
        load_values(weight, a.w + (int64_t)y * a.C + c);
        for (int i = 0; i < W; i++) sum[i] = fmaf(d, weight[i], sum[i]);
    }
    drop_pooled(sum, a.drop, b, c);
    store_values(a.dpooled + (int64_t)b * a.C + c, sum);
}

/* Grid [tiles of 32 W columns, ceil(Y / HEAD_ROWS) + ceil(B / BLOCK_WARPS)]: the first blocks of a tile make HEAD_ROWS
 * rows of dw each, every warp over a share of the samples, the others a row of dpooled for each of their warps. */
template <int W> __global__ void __launch_bounds__(BLOCK) head_backward_kernel(head_backward a)
{
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, c = ((int)blockIdx.x * WARP + lane) * W;
    int weight_blocks = (a.Y + HEAD_ROWS - 1) / HEAD_ROWS;
    if ((int)blockIdx.y >= weight_blocks) {
        int b = ((int)blockIdx.y - weight_blocks) * BLOCK_WARPS + warp;
        if (b < a.B && c < a.C) head_input_gradient<W>(a, b, c);
        return;
    }
    int first_y = (int)blockIdx.y * HEAD_ROWS, rows = min((int)HEAD_ROWS, a.Y - first_y);
    int share = (a.B + BLOCK_WARPS - 1) / BLOCK_WARPS, first = warp * share, end = min(first + share, a.B);
    float sum[HEAD_ROWS][W] = {}, bias_sum = 0.0f;
#pragma unroll 2
    for (int b = first; b < end; b++) {
        const float *dpred = a.dpred + (int64_t)b * a.Y + first_y;
        if (lane < rows) bias_sum += dpred[lane];
        if (c >= a.C) continue;
        float x[W];
        load_values(x, a.pooled + (int64_t)b * a.C + c);
        drop_pooled(x, a.drop, b, c);
        for (int y = 0; y < HEAD_ROWS; y++) {
            float d = y < rows ? dpred[y] : 0.0f;
            for (int i = 0; i < W; i++) sum[y][i] = fmaf(d, x[i], sum[y][i]);
        }
    }
    for (int y = 0; y < HEAD_ROWS; y++) {
        add_warps<BLOCK_WARPS>(sum[y]);
        if (warp == 0 && y < rows && c < a.C) add_to(a.dw + (int64_t)(first_y + y) * a.C + c, sum[y]);
        __syncthreads();
    }
    float bias[1] = {bias_sum};
    add_warps<BLOCK_WARPS>(bias);
    if (blockIdx.x == 0 && warp == 0 && lane < rows) add_to(a.db + first_y + lane, bias);
}

fb3_status fb3_head_fwd_cuda(fb3_backend *be, float *pred, const float *pooled, const float *w, const float *b,
                             const fb3_ragged *ragged, int C, int Y, const fb3_dropout *drop)
{
    int count = ragged->B * Y;
    if (count == 0) return FB3_OK;
    return with_width(aligned_16(pooled, w), C, [&](auto wide) {
        constexpr int W = decltype(wide)::value;
        FB3_CUDA(FB3_LAUNCH((head_forward_kernel<W>), (unsigned)ceil_div(count, BLOCK_WARPS), BLOCK, 0,
                            fb3_cuda_of(be)->compute, pred, pooled, w, b, count, C, Y, row_dropout_make(ragged, drop)));
        return FB3_OK;
    });
}

fb3_status fb3_head_bwd_cuda(fb3_backend *be, float *dpooled, float *dw, float *db, const float *dpred,
                             const float *pooled, const float *w, const fb3_ragged *ragged, int C, int Y,
                             const fb3_dropout *drop)
{
    if (ragged->B == 0) return FB3_OK;
    head_backward a = {dpooled, dw, db, dpred, pooled, w, ragged->B, C, Y, row_dropout_make(ragged, drop)};
    return with_width(aligned_16(dpooled, dw, pooled, w), C, [&](auto wide) {
        constexpr int W = decltype(wide)::value;
        dim3 grid((unsigned)ceil_div(C, WARP * W),
                  (unsigned)(ceil_div(Y, HEAD_ROWS) + ceil_div(ragged->B, BLOCK_WARPS)));
        FB3_CUDA(FB3_LAUNCH((head_backward_kernel<W>), grid, BLOCK, 0, fb3_cuda_of(be)->compute, a));
        return FB3_OK;
    });
}

/* --- losses ------------------------------------------------------------------------------------------------------- */

enum { LOSS_WARPS = 16 };

/* sums [1 + Y] +=, pred and target [B,Y]; one block, a warp for each target, its lanes across the samples */
__global__ void __launch_bounds__(LOSS_WARPS *WARP)
    loss_forward_kernel(double *sums, const float *pred, const float *target, int B, int Y, fb3_loss_kind kind,
                        double beta)
{
    __shared__ double loss_of_warp[LOSS_WARPS];
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    double losses = 0.0;
    for (int y = warp; y < Y; y += LOSS_WARPS) {
        double loss = 0.0, squares = 0.0;
        for (int b = lane; b < B; b += WARP) {
            double d = (double)pred[(int64_t)b * Y + y] - (double)target[(int64_t)b * Y + y];
            loss += fb3_element_loss(d, kind, beta);
            squares += d * d;
        }
        losses += warp_sum(loss);
        squares = warp_sum(squares);
        if (lane == 0) sums[1 + y] += squares;
    }
    if (lane == 0) loss_of_warp[warp] = losses;
    __syncthreads();
    if (threadIdx.x > 0 || kind == FB3_LOSS_MCRMSE) return;
    double sum = 0.0;
    for (int part = 0; part < LOSS_WARPS; part++) sum += loss_of_warp[part];
    sums[0] += sum;
}

/* dpred [B,Y], sums [1 + Y] */
__global__ void __launch_bounds__(BLOCK)
    loss_backward_kernel(float *dpred, const float *pred, const float *target, int64_t count, int Y, fb3_loss_kind kind,
                         double beta, const double *sums, double samples)
{
    int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= count) return;
    double d = (double)pred[i] - (double)target[i];
    dpred[i] = (float)(fb3_element_slope(d, kind, beta) * fb3_slope_factor(kind, sums, samples, Y, (int)(i % Y)));
}

fb3_status fb3_loss_fwd_cuda(fb3_backend *be, double *sums, const float *pred, const float *target, int B, int Y,
                             fb3_loss_kind kind, float beta)
{
    if (B == 0) return FB3_OK;
    FB3_CUDA(FB3_LAUNCH(loss_forward_kernel, 1, LOSS_WARPS * WARP, 0, fb3_cuda_of(be)->compute, sums, pred, target, B,
                        Y, kind, (double)beta));
    return FB3_OK;
}

fb3_status fb3_loss_bwd_cuda(fb3_backend *be, float *dpred, const float *pred, const float *target, int B, int Y,
                             fb3_loss_kind kind, float beta, const double *sums, int64_t samples)
{
    int64_t count = (int64_t)B * Y;
    if (count == 0) return FB3_OK;
    FB3_CUDA(FB3_LAUNCH(loss_backward_kernel, (unsigned)ceil_div(count, BLOCK), BLOCK, 0, fb3_cuda_of(be)->compute,
                        dpred, pred, target, count, Y, kind, (double)beta, sums, (double)samples));
    return FB3_OK;
}

size_t fb3_cuda_head_scratch(const fb3_limits *limits)
{
    (void)limits; /* all sums stay within a block */
    return 0;
}
