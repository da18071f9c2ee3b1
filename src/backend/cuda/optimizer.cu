/* The optimizer over ranges of the arenas: the norm of the gradient, and AdamW (Loshchilov and Hutter 2019) with the
 * operations in the order of torch.optim.AdamW:
 *   p *= 1 - rate decay;  m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2
 *   p -= (rate / correction1) m / (sqrt(v) / sqrt(correction2) + eps)
 * Both are one launch over all parameters. */
#include "device.cuh"

/* --- the norm ----------------------------------------------------------------------------------------------------- */

enum {
    SQUARES_BLOCKS = 2048,                 /* at most, and their partial sums */
    SQUARES_UNROLL = 4,                    /* pieces that a thread has under way */
    SQUARES_CHUNK = BLOCK * SQUARES_UNROLL /* pieces that a block takes at a time: b, b + blocks, b + 2 blocks, ... */
};

/* The sum over the block's threads, in warp 0. Between two calls the block has to meet. */
static __device__ __forceinline__ double block_sum(double x)
{
    __shared__ double sums[BLOCK_WARPS];
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    x = warp_sum(x);
    if (lane == 0) sums[warp] = x;
    __syncthreads();
    return warp == 0 ? warp_sum(lane < BLOCK_WARPS ? sums[lane] : 0.0) : 0.0;
}

/* *sum = sum of x[i]^2 over n values; partials [blocks] */
template <int W>
__global__ void __launch_bounds__(BLOCK)
    sum_squares_kernel(double *sum, double *partials, unsigned *arrivals, const float *x, int64_t n)
{
    int64_t pieces = n / W;
    double part = 0.0;
    for (int64_t chunk = (int64_t)blockIdx.x * SQUARES_CHUNK; chunk < pieces;
         chunk += (int64_t)gridDim.x * SQUARES_CHUNK) {
        piece<float, W> held[SQUARES_UNROLL];
#pragma unroll
        for (int k = 0; k < SQUARES_UNROLL; k++) {
            int64_t i = chunk + k * BLOCK + threadIdx.x;
            if (i < pieces) held[k] = load<W>(x + i * W);
        }
#pragma unroll
        for (int k = 0; k < SQUARES_UNROLL; k++) {
            float v[W];
            if (chunk + k * BLOCK + threadIdx.x >= pieces) break;
            unpack(v, held[k]);
            for (int j = 0; j < W; j++) part += (double)v[j] * (double)v[j];
        }
    }
    int64_t rest = pieces * W + threadIdx.x; /* past the last piece */
    if (blockIdx.x == 0 && rest < n) part += (double)x[rest] * (double)x[rest];
    part = block_sum(part);
    if (threadIdx.x == 0) partials[blockIdx.x] = part;
    if (!last_to_arrive(arrivals, gridDim.x)) return;
    double total = 0.0;
#pragma unroll 8
    for (int i = (int)threadIdx.x; i < (int)gridDim.x; i += BLOCK) total += partials[i];
    total = block_sum(total);
    if (threadIdx.x == 0) *sum = total;
}

fb3_status fb3_sum_squares_cuda(fb3_backend *be, double *sum, const float *x, int64_t n)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    if (n == 0) {
        FB3_CUDA(cudaMemsetAsync(sum, 0, sizeof *sum, cuda->compute));
        return FB3_OK;
    }
    void *partials;
    FB3_TRY(fb3_cuda_scratch(be, &partials, fb3_cuda_optimizer_scratch()));
    return with_width(aligned_16(x), 0, [&](auto w) {
        constexpr int W = decltype(w)::value;
        int64_t blocks = ceil_div(n, (int64_t)SQUARES_CHUNK * W);
        FB3_CUDA(FB3_LAUNCH((sum_squares_kernel<W>),
                            (unsigned)(blocks < SQUARES_BLOCKS ? blocks : (int64_t)SQUARES_BLOCKS), BLOCK, 0,
                            cuda->compute, sum, (double *)partials, cuda->arrivals, x, n));
        return FB3_OK;
    });
}

size_t fb3_cuda_optimizer_scratch(void)
{
    return SQUARES_BLOCKS * sizeof(double);
}

/* --- AdamW -------------------------------------------------------------------------------------------------------- */

enum { ADAMW_CHUNK = 4 * BLOCK * 4 /* elements of the arenas that a block takes: four pieces to a thread */ };

typedef struct adamw_arenas {
    float *p, *m, *v;
    const float *g;
    void *copy; /* p as activations, or NULL */
    const fb3_adamw_segment *segments;
    int count;
    int64_t first; /* element where the first block begins */
    fb3_adamw args;
    float toward_g, beta2, toward_g2, root_correction2, eps; /* rounded to float once */
    const double *sum_squares;
} adamw_arenas;

/* What a segment's step needs besides. */
typedef struct adamw_step {
    int64_t begin, end; /* elements of the segment in this block; none left: begin == end == -1 */
    float grad_scale, keep, rate;
} adamw_step;

/* a * b rounded, never part of a fused multiply and add: that would give other bits than fb3_adamw_decay_factor, which
 * replays the decay of rows that do not pass here. */
static __device__ __forceinline__ double rounded_product(double a, double b)
{
#ifdef __CUDA_ARCH__
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
}

static __device__ float decay_factor(const fb3_adamw &args, const fb3_adamw_segment &segment)
{
    return (float)(1.0 - rounded_product(args.lr * (double)segment.lr_scale, (double)segment.decay));
}

/* The first segment that ends past element `at`: they are in order and do not overlap. */
static __device__ int segment_past(const adamw_arenas &a, int64_t at)
{
    int low = 0, high = a.count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (a.segments[middle].offset + a.segments[middle].count > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static __device__ adamw_step step_of(const adamw_arenas &a, int s, int64_t chunk, float grad_scale)
{
    adamw_step step = {-1, -1, grad_scale, 0.0f, 0.0f};
    if (s >= a.count || a.segments[s].offset >= chunk + ADAMW_CHUNK) return step;
    const fb3_adamw_segment segment = a.segments[s];
    step.begin = segment.offset > chunk ? segment.offset : chunk;
    step.end =
        segment.offset + segment.count < chunk + ADAMW_CHUNK ? segment.offset + segment.count : chunk + ADAMW_CHUNK;
    step.keep = decay_factor(a.args, segment);
    step.rate = (float)(a.args.lr * (double)segment.lr_scale / a.args.correction1);
    return step;
}

template <class T, int W>
static __device__ __forceinline__ void adamw_piece(const adamw_arenas &a, const adamw_step &step, int64_t i)
{
    float p[W], m[W], v[W], g[W];
    load_values(p, a.p + i);
    load_values(m, a.m + i);
    load_values(v, a.v + i);
    load_values(g, a.g + i);
    for (int j = 0; j < W; j++) {
        float grad = g[j] * step.grad_scale;
        m[j] = fmaf(grad - m[j], a.toward_g, m[j]);
        v[j] = fmaf(a.toward_g2 * grad, grad, a.beta2 * v[j]);
        float denominator = sqrtf(v[j]) / a.root_correction2 + a.eps;
        p[j] = p[j] * step.keep - step.rate * (m[j] / denominator);
    }
    store_values(a.m + i, m);
    store_values(a.v + i, v);
    store_values(a.p + i, p);
    if (a.copy) store_values((T *)a.copy + i, p);
}

/* A block takes a chunk of the arenas, segment by segment. A piece that a segment covers in part goes by single
 * values. */
template <class T, int W> __global__ void __launch_bounds__(BLOCK) adamw_kernel(adamw_arenas a)
{
    __shared__ adamw_step shared_step;
    int64_t chunk = a.first + (int64_t)blockIdx.x * ADAMW_CHUNK;
    double squares = *a.sum_squares;
    if (!isfinite(squares)) return;
    int s = 0;
    float grad_scale = 1.0f;
    if (threadIdx.x == 0) {
        if (a.args.max_norm > 0.0) grad_scale = (float)fmin(1.0, a.args.max_norm / (sqrt(squares) + 1e-6));
        s = segment_past(a, chunk);
    }
    for (;; s++) {
        if (threadIdx.x == 0) shared_step = step_of(a, s, chunk, grad_scale);
        __syncthreads();
        const adamw_step step = shared_step;
        __syncthreads();
        if (step.end < 0) return;
        for (int64_t i = step.begin / W * W + (int64_t)threadIdx.x * W; i < step.end; i += BLOCK * W) {
            if (i >= step.begin && i + W <= step.end) {
                adamw_piece<T, W>(a, step, i);
            } else {
                for (int j = 0; j < W; j++)
                    if (i + j >= step.begin && i + j < step.end) adamw_piece<T, 1>(a, step, i + j);
            }
        }
    }
}

fb3_status fb3_adamw_cuda(fb3_backend *be, float *p, float *m, float *v, const float *g, void *p_act,
                          const fb3_adamw_segment *segments, const fb3_adamw_segment *segments_host, int count,
                          const fb3_adamw *args, const double *sum_squares)
{
    if (count == 0) return FB3_OK;
    adamw_arenas a = {};
    a.p = p, a.m = m, a.v = v, a.g = g, a.copy = p_act == p ? NULL : p_act;
    a.segments = segments, a.count = count, a.args = *args, a.sum_squares = sum_squares;
    a.toward_g = (float)(1.0 - args->beta1), a.beta2 = (float)args->beta2, a.toward_g2 = (float)(1.0 - args->beta2);
    a.root_correction2 = (float)sqrt(args->correction2), a.eps = (float)args->eps;
    a.first = segments_host[0].offset / ADAMW_CHUNK * ADAMW_CHUNK;
    int64_t end = segments_host[count - 1].offset + segments_host[count - 1].count;
    if (end <= a.first) return FB3_OK;
    for (const float *arena : {p, m, v})
        FB3_TRY(fb3_snapshots_before_write(be, arena + a.first, (size_t)(end - a.first) * sizeof *arena));
    return with_type(be->act, [&](auto type) {
        typedef decltype(type) T;
        return with_width(aligned_16(p, m, v, g, p_act), 0, [&](auto w) {
            constexpr int W = decltype(w)::value;
            FB3_CUDA(FB3_LAUNCH((adamw_kernel<T, W>), (unsigned)ceil_div(end - a.first, ADAMW_CHUNK), BLOCK, 0,
                                fb3_cuda_of(be)->compute, a));
            return FB3_OK;
        });
    });
}

/* --- sums in fixed point ------------------------------------------------------------------------------------------ */

enum { FIXED_EACH = 4 /* elements of a thread, a block apart */ };

__global__ void fixed_add_kernel(int64_t *sum, const float *x, int64_t n, float limit)
{
    const int64_t first = (int64_t)blockIdx.x * (BLOCK * FIXED_EACH) + threadIdx.x;
    unsigned long long beyond = 0;
#pragma unroll
    for (int k = 0; k < FIXED_EACH; k++) {
        const int64_t i = first + k * BLOCK;
        if (i >= n) continue;
        const bool fits = fabsf(x[i]) < limit; /* false for what is not a number, too */
        if (fits) sum[i] += llrint((double)x[i] * FB3_FIXED_ONE);
        beyond += !fits;
    }
    if (beyond > 0) atomicAdd(reinterpret_cast<unsigned long long *>(sum + n), beyond); /* integers: in any order */
}

__global__ void fixed_to_float_kernel(float *x, const int64_t *sum, int64_t n)
{
    const int64_t first = (int64_t)blockIdx.x * (BLOCK * FIXED_EACH) + threadIdx.x;
#pragma unroll
    for (int k = 0; k < FIXED_EACH; k++) {
        const int64_t i = first + k * BLOCK;
        if (i < n) x[i] = i == 0 && sum[n] != 0 ? NAN : (float)((double)sum[i] * (1 / FB3_FIXED_ONE));
    }
}

fb3_status fb3_fixed_add_cuda(fb3_backend *be, int64_t *sum, const float *x, int64_t n, float limit)
{
    if (n == 0) return FB3_OK;
    FB3_CUDA(FB3_LAUNCH(fixed_add_kernel, (unsigned)ceil_div(n, BLOCK * FIXED_EACH), BLOCK, 0, fb3_cuda_of(be)->compute,
                        sum, x, n, limit));
    return FB3_OK;
}

fb3_status fb3_fixed_to_float_cuda(fb3_backend *be, float *x, const int64_t *sum, int64_t n)
{
    if (n == 0) return FB3_OK;
    FB3_CUDA(FB3_LAUNCH(fixed_to_float_kernel, (unsigned)ceil_div(n, BLOCK * FIXED_EACH), BLOCK, 0,
                        fb3_cuda_of(be)->compute, x, sum, n));
    return FB3_OK;
}
