/* One value at a time: conversions, the search for values that are not finite, GELU, dropout of row tensors; and the
 * column sums that are bias gradients. */
#include "device.cuh"

/* --- over n values ------------------------------------------------------------------------------------------------ */

enum { UNROLL = 2 /* pieces of each array that a thread has under way */ };

/* The thread's piece k; a block's UNROLL * BLOCK pieces lie side by side. */
template <int W> static __device__ __forceinline__ int64_t piece_start(int k)
{
    return (((int64_t)blockIdx.x * UNROLL + k) * BLOCK + threadIdx.x) * W;
}

/* body(i) for the values past the last whole piece, fewer than W: one each for the first threads. */
template <int W, class Body> static __device__ __forceinline__ void over_rest(int64_t n, Body body)
{
    int64_t i = n / W * W + threadIdx.x;
    if (W > 1 && blockIdx.x == 0 && i < n) body(i);
}

static unsigned value_blocks(int64_t n, int W)
{
    return (unsigned)ceil_div(n, (int64_t)W * UNROLL * BLOCK);
}

/* y = f(x), each thread's pieces all loaded before the first is stored */
template <int W, class X, class Y, class Function>
static __device__ __forceinline__ void map_values(Y *y, const X *x, int64_t n, Function f)
{
    piece<X, W> held[UNROLL];
#pragma unroll
    for (int k = 0; k < UNROLL; k++) {
        int64_t i = piece_start<W>(k);
        if (i + W <= n) held[k] = load<W>(x + i);
    }
#pragma unroll
    for (int k = 0; k < UNROLL; k++) {
        int64_t i = piece_start<W>(k);
        float v[W];
        if (i + W > n) break;
        unpack(v, held[k]);
        for (int j = 0; j < W; j++) v[j] = f(v[j]);
        store_values(y + i, v);
    }
    over_rest<W>(n, [&](int64_t i) {
        float v[1];
        load_values(v, x + i);
        v[0] = f(v[0]);
        store_values(y + i, v);
    });
}

/* dst bf16[n], src float[n] */
template <int W> __global__ void __launch_bounds__(BLOCK) cast_kernel(bf16 *dst, const float *src, int64_t n)
{
    map_values<W>(dst, src, n, [](float x) { return x; });
}

fb3_status fb3_cast_to_act_cuda(fb3_backend *be, void *dst, const float *src, int64_t n)
{
    cudaStream_t stream = fb3_cuda_of(be)->compute;
    if (n == 0 || dst == (const void *)src) return FB3_OK;
    if (be->act == FB3_F32) {
        FB3_CUDA(cudaMemcpyAsync(dst, src, (size_t)n * sizeof *src, cudaMemcpyDeviceToDevice, stream));
        return FB3_OK;
    }
    return with_width(aligned_16(dst, src), 0, [&](auto w) {
        constexpr int W = decltype(w)::value;
        FB3_CUDA(FB3_LAUNCH((cast_kernel<W>), value_blocks(n, W), BLOCK, 0, stream, (bf16 *)dst, src, n));
        return FB3_OK;
    });
}

/* --- values that are not finite ----------------------------------------------------------------------------------- */

enum { COUNT_BLOCKS = 2048 };

static __device__ __forceinline__ bool is_finite(float x)
{
    return (__float_as_uint(x) & 0x7F800000u) != 0x7F800000u;
}

template <class T, int W>
__global__ void __launch_bounds__(BLOCK) count_nonfinite_kernel(unsigned long long *count, const T *x, int64_t n)
{
    int found = 0; // of a thread: n is below 2^31 * COUNT_BLOCKS * BLOCK
    int64_t stride = (int64_t)gridDim.x * BLOCK * W;
#pragma unroll 4
    for (int64_t i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * W; i + W <= n; i += stride) {
        float v[W];
        load_values(v, x + i);
        for (int j = 0; j < W; j++) found += !is_finite(v[j]);
    }
    over_rest<W>(n, [&](int64_t i) {
        float v[1];
        load_values(v, x + i);
        found += !is_finite(v[0]);
    });
    found = warp_sum(found);
    if (threadIdx.x % WARP == 0 && found > 0) atomicAdd(count, (unsigned long long)found);
}

fb3_status fb3_count_nonfinite_cuda(fb3_backend *be, int64_t *count, const void *x, fb3_dtype dtype, int64_t n)
{
    if (n == 0) return FB3_OK;
    return with_type(dtype, [&](auto type) {
        typedef decltype(type) T;
        auto launch = [&](auto w) {
            constexpr int W = decltype(w)::value;
            int64_t blocks = ceil_div(n, (int64_t)W * BLOCK);
            FB3_CUDA(FB3_LAUNCH((count_nonfinite_kernel<T, W>),
                                (unsigned)(blocks < COUNT_BLOCKS ? blocks : (int64_t)COUNT_BLOCKS), BLOCK, 0,
                                fb3_cuda_of(be)->compute, (unsigned long long *)count, (const T *)x, n));
            return FB3_OK;
        };
        return aligned_16(x) ? launch(width<widest<T>::W>()) : launch(width<1>());
    });
}

/* --- GELU(x) = x Phi(x) (Hendrycks and Gimpel 2016) --------------------------------------------------------------- */

/* The normal distribution's cdf Phi(x) = (1 + erf(x / sqrt 2)) / 2 and density phi(x) = exp(-x^2/2) / sqrt(2 pi),
 * absolute error about 1e-7: the formula and the polynomial of vf_normal (src/backend/cpu/vec.h), which make one
 * exponential and no branch of what erff and expf would do. With u = 0.28|x| / (1 + 0.28|x|) the tail is Phi(-|x|) =
 * exp(-x^2/2) (1/2 + u P(u)). */
static __device__ __forceinline__ void normal(float x, float &cdf, float &density)
{
    float a = fabsf(x);
    if (a > 1e18f) a = 1e18f;               // its square is a float
    float e = exp2f(-0.721347520f * a * a); // log2(e) / 2
    float u = __fdividef(0.28f * a, fmaf(0.28f, a, 1.0f));
    float p = fmaf(0.04103858f, u, -0.104654275f);
    p = fmaf(p, u, -0.0045125554f);
    p = fmaf(p, u, 0.19665325f);
    p = fmaf(p, u, 0.13747175f);
    p = fmaf(p, u, -1.1051313f);
    p = fmaf(p, u, 1.7639855f);
    p = fmaf(p, u, -1.424794f);
    float tail = e * fmaf(p, u, 0.5f);
    cdf = x < 0.0f ? tail : 1.0f - tail;
    density = 0.398942280f * e;
}

static __device__ __forceinline__ float gelu(float x)
{
    float cdf, density;
    normal(x, cdf, density);
    return x * cdf;
}

template <class T, int W> __global__ void __launch_bounds__(BLOCK) gelu_forward_kernel(T *y, const T *pre, int64_t n)
{
    map_values<W>(y, pre, n, [](float x) { return gelu(x); });
}

/* d *= GELU'(x) = Phi(x) + x phi(x), x = GELU(x) */
template <int W> static __device__ __forceinline__ void gelu_backward_values(float (&d)[W], float (&x)[W])
{
    for (int j = 0; j < W; j++) {
        float cdf, density;
        normal(x[j], cdf, density);
        d[j] *= fmaf(x[j], density, cdf);
        x[j] *= cdf;
    }
}

/* launch(T(), width<W>()): the widest pieces of activations, or single values. */
template <class Launch> static fb3_status with_widest(const fb3_backend *be, bool aligned, Launch launch)
{
    return with_type(be->act, [&](auto type) {
        return aligned ? launch(type, width<widest<decltype(type)>::W>()) : launch(type, width<1>());
    });
}

fb3_status fb3_gelu_fwd_cuda(fb3_backend *be, void *y, const void *pre, int64_t n)
{
    if (n == 0) return FB3_OK;
    return with_widest(be, aligned_16(y, pre), [&](auto type, auto w) {
        typedef decltype(type) T;
        constexpr int W = decltype(w)::value;
        FB3_CUDA(FB3_LAUNCH((gelu_forward_kernel<T, W>), value_blocks(n, W), BLOCK, 0, fb3_cuda_of(be)->compute, (T *)y,
                            (const T *)pre, n));
        return FB3_OK;
    });
}

/* --- dropout of row tensors: a block takes a row, a thread a piece of it -------------------------------------------
 */

/* y = dropout(x); x may be y */
template <class T, int W>
__global__ void __launch_bounds__(BLOCK) dropout_forward_kernel(T *y, const T *x, int C, row_dropout drop)
{
    int t = (int)blockIdx.x;
    drop_row where = drop_row_find(drop, t, C);
    for (int c = (int)threadIdx.x * W; c < C; c += (int)blockDim.x * W) {
        float v[W];
        load_values(v, x + (int64_t)t * C + c);
        drop_values(v, drop, where.sample, where.first + (uint64_t)c);
        store_values(y + (int64_t)t * C + c, v);
    }
}

/* dx += dropout'(dy) */
template <class T, int W>
__global__ void __launch_bounds__(BLOCK) dropout_backward_kernel(float *dx, const T *dy, int C, row_dropout drop)
{
    int t = (int)blockIdx.x;
    drop_row where = drop_row_find(drop, t, C);
    for (int c = (int)threadIdx.x * W; c < C; c += (int)blockDim.x * W) {
        float d[W], sum[W];
        load_values(d, dy + (int64_t)t * C + c);
        load_values(sum, dx + (int64_t)t * C + c);
        if (drop.threshold) drop_values(d, drop, where.sample, where.first + (uint64_t)c);
        for (int i = 0; i < W; i++) sum[i] += d[i];
        store_values(dx + (int64_t)t * C + c, sum);
    }
}

fb3_status fb3_dropout_fwd_cuda(fb3_backend *be, void *y, const void *x, const fb3_ragged *ragged, int C,
                                const fb3_dropout *drop)
{
    cudaStream_t stream = fb3_cuda_of(be)->compute;
    row_dropout d = row_dropout_make(ragged, drop);
    size_t bytes = (size_t)ragged->T * (size_t)C * fb3_dtype_size(be->act);
    if (bytes == 0 || (d.threshold == 0 && x == y)) return FB3_OK;
    if (d.threshold == 0) {
        FB3_CUDA(cudaMemcpyAsync(y, x, bytes, cudaMemcpyDeviceToDevice, stream));
        return FB3_OK;
    }
    return with_type(be->act, [&](auto type) {
        typedef decltype(type) T;
        return with_width(aligned_16(x, y), C, [&](auto w) {
            constexpr int W = decltype(w)::value;
            FB3_CUDA(FB3_LAUNCH((dropout_forward_kernel<T, W>), (unsigned)ragged->T, row_threads(C, W), 0, stream,
                                (T *)y, (const T *)x, C, d));
            return FB3_OK;
        });
    });
}

fb3_status fb3_dropout_bwd_add_cuda(fb3_backend *be, float *dx, const void *dy, const fb3_ragged *ragged, int C,
                                    const fb3_dropout *drop)
{
    if (ragged->T == 0) return FB3_OK;
    row_dropout d = row_dropout_make(ragged, drop);
    return with_type(be->act, [&](auto type) {
        typedef decltype(type) T;
        return with_width(aligned_16(dx, dy), C, [&](auto w) {
            constexpr int W = decltype(w)::value;
            FB3_CUDA(FB3_LAUNCH((dropout_backward_kernel<T, W>), (unsigned)ragged->T, row_threads(C, W), 0,
                                fb3_cuda_of(be)->compute, dx, (const T *)dy, C, d));
            return FB3_OK;
        });
    });
}

/* --- column sums -------------------------------------------------------------------------------------------------- */

/* A block takes a tile of 32 W columns and block_rows rows, and each of its warps a contiguous share of these. The last
 * block of a tile adds the blocks' partial sums in order, its warps again a share each. */
enum {
    SUM_ROWS = 128,  /* of a block, */
    SUM_BLOCKS = 512 /* or half or a quarter of them where that makes fewer blocks than this */
};

/* What a block sums: part [W] of its rows, a warp's share at a time, and the whole of a tile's chunks by its last
 * block. columns(part, first, end) adds rows first .. end - 1 to the lane's part. sum [O] +=, partials [chunks, O], o:
 * the lane's first column. */
template <int W, class Columns>
static __device__ __forceinline__ void sum_columns(float *sum, float *partials, unsigned *arrivals, int o, int O,
                                                   int rows, int block_rows, Columns columns)
{
    int warp = (int)threadIdx.x / WARP, chunks = (int)gridDim.y, share = block_rows / BLOCK_WARPS;
    int first = ((int)blockIdx.y * BLOCK_WARPS + warp) * share;
    float part[W] = {}, total[W] = {};
    if (o < O) columns(part, first, min(first + share, rows));
    add_warps<BLOCK_WARPS>(part);
    if (warp == 0 && o < O) store_values(partials + (int64_t)blockIdx.y * O + o, part);
    if (!last_to_arrive(arrivals + blockIdx.x, (unsigned)chunks)) return;
    share = (chunks + BLOCK_WARPS - 1) / BLOCK_WARPS;
    if (o < O)
        add_rows<8, float>(total, warp * share, min((warp + 1) * share, chunks),
                           [&](int chunk) { return partials + (int64_t)chunk * O + o; });
    add_warps<BLOCK_WARPS>(total);
    if (warp == 0 && o < O) add_to(sum + o, total);
}

/* grid [tiles, chunks]; x [rows, O], sum [O] +=, partials [chunks, O], arrivals [tiles] */
template <class T, int W>
__global__ void __launch_bounds__(BLOCK)
    column_sums_kernel(float *sum, float *partials, unsigned *arrivals, const T *x, int rows, int O, int block_rows)
{
    int o = ((int)blockIdx.x * WARP + (int)threadIdx.x % WARP) * W;
    sum_columns<W>(sum, partials, arrivals, o, O, rows, block_rows, [&](float(&part)[W], int first, int end) {
        add_rows<8, T>(part, first, end, [&](int t) { return x + (int64_t)t * O + o; });
    });
}

/* GELU's backward pass with the bias gradients on both sides: the first `tiles` tiles are of dpre, the others of dy. */
typedef struct gelu_backward {
    void *dpre, *y;       // act [T, I]
    const void *pre, *dy; // act [T, I], [T, O]
    float *dpre_sum, *dy_sum, *partials;
    unsigned *arrivals; // [tiles of both]
    int T, I, O, tiles, block_rows;
} gelu_backward;

template <class T, int W> __global__ void __launch_bounds__(BLOCK) gelu_backward_kernel(gelu_backward a)
{
    enum { BATCH = 4 }; /* rows under way */
    int lane = (int)threadIdx.x % WARP, tile = (int)blockIdx.x;
    if (tile < a.tiles) {
        int i = (tile * WARP + lane) * W;
        T *dpre = (T *)a.dpre + i, *y = (T *)a.y + i;
        const T *pre = (const T *)a.pre + i;
        sum_columns<W>(a.dpre_sum, a.partials, a.arrivals, i, a.I, a.T, a.block_rows,
                       [&](float(&part)[W], int first, int end) {
                           for (int t = first; t < end; t += BATCH) {
                               piece<T, W> held_d[BATCH], held_x[BATCH];
#pragma unroll
                               for (int j = 0; j < BATCH; j++) {
                                   if (t + j >= end) break;
                                   held_d[j] = load<W>(dpre + (int64_t)(t + j) * a.I);
                                   held_x[j] = load<W>(pre + (int64_t)(t + j) * a.I);
                               }
#pragma unroll
                               for (int j = 0; j < BATCH; j++) {
                                   float d[W], x[W];
                                   if (t + j >= end) break;
                                   unpack(d, held_d[j]);
                                   unpack(x, held_x[j]);
                                   gelu_backward_values(d, x);
                                   store_values(dpre + (int64_t)(t + j) * a.I, d);
                                   store_values(y + (int64_t)(t + j) * a.I, x);
                                   for (int k = 0; k < W; k++) part[k] += d[k];
                               }
                           }
                       });
    } else {
        int o = ((tile - a.tiles) * WARP + lane) * W;
        const T *dy = (const T *)a.dy;
        sum_columns<W>(a.dy_sum, a.partials + (int64_t)gridDim.y * a.I, a.arrivals, o, a.O, a.T, a.block_rows,
                       [&](float(&part)[W], int first, int end) {
                           add_rows<8, T>(part, first, end, [&](int t) { return dy + (int64_t)t * a.O + o; });
                       });
    }
}

static int sum_block_rows(int T, int64_t tiles)
{
    int rows = SUM_ROWS;
    while (rows > SUM_ROWS / 4 && tiles * ceil_div(T, rows) < SUM_BLOCKS) rows /= 2;
    return rows;
}

/* The grid of a sum over T rows and that many tiles of columns. */
static fb3_status sum_grid(dim3 *grid, int T, int64_t tiles, int block_rows)
{
    *grid = dim3((unsigned)tiles, (unsigned)ceil_div(T, block_rows));
    FB3_REQUIRE(tiles <= FB3_CUDA_ARRIVALS && grid->y <= 65535, FB3_INPUT,
                "a bias gradient over %d rows and %lld tiles of columns is too large for one launch", T,
                (long long)tiles);
    return FB3_OK;
}

fb3_status fb3_column_sums_cuda(fb3_backend *be, float *sum, const void *x, int T, int O)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    if (T == 0 || O == 0) return FB3_OK;
    return with_type(be->act, [&](auto type) {
        typedef decltype(type) X;
        return with_width(aligned_16(sum, x), O, [&](auto w) {
            constexpr int W = decltype(w)::value;
            int64_t tiles = ceil_div(O, WARP * W);
            int block_rows = sum_block_rows(T, tiles);
            dim3 grid;
            void *partials;
            FB3_TRY(sum_grid(&grid, T, tiles, block_rows));
            FB3_TRY(fb3_cuda_scratch(be, &partials, (size_t)grid.y * (size_t)O * sizeof(float)));
            FB3_CUDA(FB3_LAUNCH((column_sums_kernel<X, W>), grid, BLOCK, 0, cuda->compute, sum, (float *)partials,
                                cuda->arrivals, (const X *)x, T, O, block_rows));
            return FB3_OK;
        });
    });
}

fb3_status fb3_gelu_bwd_cuda(fb3_backend *be, void *dpre, void *y, float *dpre_sum, float *dy_sum, const void *dy,
                             const void *pre, int T, int I, int O)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    if (T == 0) return FB3_OK;
    gelu_backward a = {};
    a.dpre = dpre, a.y = y, a.pre = pre, a.dy = dy, a.dpre_sum = dpre_sum, a.dy_sum = dy_sum, a.T = T, a.I = I, a.O = O;
    a.arrivals = cuda->arrivals;
    return with_type(be->act, [&](auto type) {
        typedef decltype(type) X;
        /* both widths have to be multiples of a piece */
        return with_width(aligned_16(dpre, y, pre, dy, dpre_sum, dy_sum), I % 4 ? I : O, [&](auto w) {
            constexpr int W = decltype(w)::value;
            a.tiles = (int)ceil_div(I, WARP * W);
            int64_t tiles = a.tiles + ceil_div(O, WARP * W);
            a.block_rows = sum_block_rows(T, tiles);
            dim3 grid;
            void *partials;
            FB3_TRY(sum_grid(&grid, T, tiles, a.block_rows));
            FB3_TRY(fb3_cuda_scratch(be, &partials, (size_t)grid.y * ((size_t)I + (size_t)O) * sizeof(float)));
            a.partials = (float *)partials;
            FB3_CUDA(FB3_LAUNCH((gelu_backward_kernel<X, W>), grid, BLOCK, 0, cuda->compute, a));
            return FB3_OK;
        });
    });
}

size_t fb3_cuda_elementwise_scratch(const fb3_limits *limits)
{
    int64_t T = limits->T > limits->R ? limits->T : limits->R;
    int64_t O =
        limits->F > 2 * limits->C ? limits->F + limits->C : 3 * limits->C; // of gelu_bwd, of query, key and value
    int64_t full = ceil_div(T, SUM_ROWS) * O;                              // floats of blocks of SUM_ROWS rows,
    int64_t small = (int64_t)2 * SUM_BLOCKS * 4 * WARP; // and of smaller ones: fewer than twice SUM_BLOCKS
    return (size_t)(full > small ? full : small) * sizeof(float);
}
