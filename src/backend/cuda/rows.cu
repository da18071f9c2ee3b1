/* LayerNorm over rows (Ba, Kiros, Hinton 2016), forward and backward, alone, after a residual sum, and over gathered
 * rows of the word table:
 *   xhat = (x - mean) rstd,  y = gamma xhat + beta,  rstd = 1/sqrt(variance + eps), biased variance
 *   dx = rstd (g - mean(g) - xhat mean(g xhat)) with g = gamma dy;  dgamma = sum dy xhat;  dbeta = sum dy
 *
 * A warp takes a row: lane l the pieces l, l + 32, l + 64, ... The real models' rows (up to 1024 columns) stay in its
 * registers, HELD pieces a lane, between the sums over the row and what follows from them; wider rows are read again
 * (HELD = 0), and rows that are no multiple of four columns go by single values (W = 1). The order of every sum follows
 * from the shapes. */
#include "device.cuh"

template <int W_, int HELD_> struct row_form {
    static constexpr int W = W_, HELD = HELD_;
};

/* body(form) with the form of rows of C columns. */
template <class Body> static fb3_status with_row_form(bool aligned, int C, Body body)
{
    if (!aligned || C % 4 != 0) return body(row_form<1, 0>());
    if (C <= 3 * 4 * WARP) return body(row_form<4, 3>());
    if (C <= 6 * 4 * WARP) return body(row_form<4, 6>());
    if (C <= 8 * 4 * WARP) return body(row_form<4, 8>());
    return body(row_form<4, 0>());
}

/* body(k, c) for the lane's pieces of a row: k is the register that holds the piece, c its first column. The compiler
 * is not told that the real models' rows fill all HELD pieces: it would then carry the unpacked values, which need not
 * fit, from one pass over the row to the next. The loads of a row become predicated ones all the same, under way
 * together.
 */
template <int W, int HELD, class Body> static __device__ __forceinline__ void over_row(int C, Body body)
{
    int lane = threadIdx.x % WARP;
    if (HELD > 0) {
#pragma unroll
        for (int k = 0; k < HELD; k++) {
            int c = (k * WARP + lane) * W;
            if (c < C) body(k, c);
        }
    } else {
        for (int c = lane * W; c < C; c += WARP * W) body(0, c);
    }
}

/* Pieces that a lane keeps in registers at a time. */
template <int HELD> constexpr int held_pieces = HELD > 0 ? HELD : 1;

/* --- forward ------------------------------------------------------------------------------------------------------ */

typedef struct norm_forward {
    void *y, *s;               // y, s act [rows, C]
    float *mean, *rstd;        // [rows]
    const void *x, *residual;  // x act [rows, C] with a residual act [rows, C]; float [*, C] without
    const int32_t *ids;        // [rows] which rows of x; NULL: all in order
    const float *gamma, *beta; // [C]
    float eps;
    int rows, C;
    row_dropout drop;
} norm_forward;

/* The statistics of the row whose lane's values value(v, k, c) gives and sum to `sum`; by two passes, for accuracy. */
template <int W, int HELD, class Value>
static __device__ __forceinline__ void norm_statistics(float *mean, float *rstd, float sum, int C, float eps,
                                                       Value value)
{
    float centre = warp_sum(sum) / (float)C, squares = 0.0f;
    over_row<W, HELD>(C, [&](int k, int c) {
        float v[W];
        value(v, k, c);
        for (int i = 0; i < W; i++) squares = fmaf(v[i] - centre, v[i] - centre, squares);
    });
    *mean = centre;
    *rstd = 1.0f / sqrtf(warp_sum(squares) / (float)C + eps);
}

/* v = gamma xhat + beta */
template <int W>
static __device__ __forceinline__ void norm_values(float (&v)[W], const norm_forward &a, int c, float mean, float rstd)
{
    float gamma[W], beta[W];
    load_constants(gamma, a.gamma + c);
    load_constants(beta, a.beta + c);
    for (int i = 0; i < W; i++) v[i] = fmaf((v[i] - mean) * rstd, gamma[i], beta[i]);
}

/* s = dropout(x) + residual, y = LayerNorm(s). s may be x: a lane writes only what it has read. */
template <class T, int W, int HELD> __global__ void __launch_bounds__(BLOCK) add_norm_forward_kernel(norm_forward a)
{
    int t = (int)(blockIdx.x * BLOCK_WARPS + threadIdx.x / WARP);
    if (t >= a.rows) return;
    int64_t row = (int64_t)t * a.C;
    const T *x = (const T *)a.x + row, *residual = (const T *)a.residual + row;
    T *s = (T *)a.s + row, *y = (T *)a.y + row;
    piece<T, W> held[held_pieces<HELD>], skip[held_pieces<HELD>]; // x, then s; residual
    if (HELD > 0)
        over_row<W, HELD>(a.C, [&](int k, int c) {
            held[k] = load<W>(x + c);
            skip[k] = load<W>(residual + c);
        });
    drop_row where = drop_row_find(a.drop, t, a.C);
    float sum = 0.0f;
    over_row<W, HELD>(a.C, [&](int k, int c) {
        if (HELD == 0) held[0] = load<W>(x + c), skip[0] = load<W>(residual + c);
        float v[W], other[W];
        unpack(v, held[k]);
        unpack(other, skip[k]);
        if (a.drop.threshold) drop_values(v, a.drop, where.sample, where.first + (uint64_t)c);
        for (int i = 0; i < W; i++) v[i] += other[i];
        pack(held[k], v); // rounded as it is kept: the backward pass sees this sum
        store(s + c, held[k]);
        unpack(v, held[k]);
        for (int i = 0; i < W; i++) sum += v[i];
    });
    auto sum_values = [&](float(&v)[W], int k, int c) {
        if (HELD == 0) held[0] = load<W>(s + c);
        unpack(v, held[k]);
    };
    float mean, rstd;
    norm_statistics<W, HELD>(&mean, &rstd, sum, a.C, a.eps, sum_values);
    over_row<W, HELD>(a.C, [&](int k, int c) {
        float v[W];
        sum_values(v, k, c);
        norm_values(v, a, c, mean, rstd);
        store_values(y + c, v);
    });
    if (threadIdx.x % WARP == 0) a.mean[t] = mean, a.rstd[t] = rstd;
}

/* y = dropout(LayerNorm(x)) */
template <class T, int W, int HELD> __global__ void __launch_bounds__(BLOCK) norm_forward_kernel(norm_forward a)
{
    int t = (int)(blockIdx.x * BLOCK_WARPS + threadIdx.x / WARP);
    if (t >= a.rows) return;
    const float *x = (const float *)a.x + (int64_t)(a.ids ? a.ids[t] : t) * a.C;
    T *y = (T *)a.y + (int64_t)t * a.C;
    piece<float, W> held[held_pieces<HELD>];
    if (HELD > 0) over_row<W, HELD>(a.C, [&](int k, int c) { held[k] = load<W>(x + c); });
    auto x_values = [&](float(&v)[W], int k, int c) {
        if (HELD == 0) held[0] = load<W>(x + c);
        unpack(v, held[k]);
    };
    drop_row where = drop_row_find(a.drop, t, a.C);
    float sum = 0.0f, mean, rstd;
    over_row<W, HELD>(a.C, [&](int k, int c) {
        float v[W];
        x_values(v, k, c);
        for (int i = 0; i < W; i++) sum += v[i];
    });
    norm_statistics<W, HELD>(&mean, &rstd, sum, a.C, a.eps, x_values);
    over_row<W, HELD>(a.C, [&](int k, int c) {
        float v[W];
        x_values(v, k, c);
        norm_values(v, a, c, mean, rstd);
        if (a.drop.threshold) drop_values(v, a.drop, where.sample, where.first + (uint64_t)c);
        store_values(y + c, v);
    });
    if (threadIdx.x % WARP == 0) a.mean[t] = mean, a.rstd[t] = rstd;
}

static unsigned row_blocks(int rows)
{
    return (unsigned)ceil_div(rows, BLOCK_WARPS);
}

static fb3_status norm_forward_run(fb3_backend *be, const norm_forward *a)
{
    if (a->rows == 0) return FB3_OK;
    cudaStream_t stream = fb3_cuda_of(be)->compute;
    bool aligned = aligned_16(a->x, a->y, a->gamma, a->beta);
    return with_type(be->act, [&](auto type) {
        return with_row_form(aligned, a->C, [&](auto form) {
            FB3_CUDA(FB3_LAUNCH((norm_forward_kernel<decltype(type), decltype(form)::W, decltype(form)::HELD>),
                                row_blocks(a->rows), BLOCK, 0, stream, *a));
            return FB3_OK;
        });
    });
}

fb3_status fb3_layernorm_fwd_cuda(fb3_backend *be, void *y, float *mean, float *rstd, const float *x,
                                  const float *gamma, const float *beta, float eps, int R, int C)
{
    norm_forward a = {};
    a.y = y, a.mean = mean, a.rstd = rstd, a.x = x, a.gamma = gamma, a.beta = beta, a.eps = eps, a.rows = R, a.C = C;
    return norm_forward_run(be, &a);
}

fb3_status fb3_embedding_fwd_cuda(fb3_backend *be, void *y, float *mean, float *rstd, const float *word,
                                  const int32_t *ids, const float *gamma, const float *beta, float eps,
                                  const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    norm_forward a = {};
    a.y = y, a.mean = mean, a.rstd = rstd, a.x = word, a.ids = ids, a.gamma = gamma, a.beta = beta, a.eps = eps;
    a.rows = ragged->T, a.C = C, a.drop = row_dropout_make(ragged, drop);
    return norm_forward_run(be, &a);
}

fb3_status fb3_add_layernorm_fwd_cuda(fb3_backend *be, void *y, void *s, float *mean, float *rstd, const void *x,
                                      const void *residual, const float *gamma, const float *beta, float eps,
                                      const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    if (ragged->T == 0) return FB3_OK;
    norm_forward a = {};
    a.y = y, a.s = s, a.mean = mean, a.rstd = rstd, a.x = x, a.residual = residual, a.gamma = gamma, a.beta = beta;
    a.eps = eps, a.rows = ragged->T, a.C = C, a.drop = row_dropout_make(ragged, drop);
    cudaStream_t stream = fb3_cuda_of(be)->compute;
    bool aligned = aligned_16(y, s, x, residual, gamma, beta);
    return with_type(be->act, [&](auto type) {
        return with_row_form(aligned, C, [&](auto form) {
            FB3_CUDA(FB3_LAUNCH((add_norm_forward_kernel<decltype(type), decltype(form)::W, decltype(form)::HELD>),
                                row_blocks(a.rows), BLOCK, 0, stream, a));
            return FB3_OK;
        });
    });
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

/* What surrounds the LayerNorm: dropout(branch) + residual before it; nothing, and a gradient to add to; gathered rows
 * before it and dropout after. */
enum norm_place { AFTER_RESIDUAL, ALONE, AFTER_GATHER };

/* The activation type of a place's dy and dx, and of its x. */
template <class T, norm_place PLACE> struct norm_types {
    typedef T gradient;
    typedef float input;
};
template <class T> struct norm_types<T, AFTER_RESIDUAL> {
    typedef T gradient, input;
};

typedef struct norm_backward {
    void *dx, *dresidual;  // [rows, C]; AFTER_RESIDUAL: act, either may be dy. ALONE: dx float +=. AFTER_GATHER: float
    float *dgamma, *dbeta; // [C] +=
    float *partials;       // [blocks + groups, 2, C]
    unsigned *arrivals;    // [1 + groups]
    const void *dy, *x;    // [rows, C]; x [*, C] when gathered
    const int32_t *ids;    // [rows] when gathered
    const float *mean, *rstd; // [rows]
    const float *gamma;       // [C]
    int rows, C, block_rows;
    row_dropout drop;
} norm_backward;

enum {
    NORM_BLOCKS = 256, /* at most: two for each multiprocessor of an H100, and few enough partial sums to be cheap */
    NORM_GROUP = 16    /* blocks whose sums are added first: two short rounds of additions instead of a long one */
};

/* finish(i, sum): the sums of columns i .. i + W - 1 over the rows of partials [count, n] */
template <int W, class Finish>
static __device__ __forceinline__ void add_partials(const float *partials, int count, int n, Finish finish)
{
    for (int i = (int)threadIdx.x * W; i < n; i += BLOCK * W) {
        float sum[W] = {};
        add_rows<8, float>(sum, 0, count, [&](int part) { return partials + (int64_t)part * n + i; });
        finish(i, sum);
    }
}

/* The block's partial is in place; the last block of a group adds up the group's, the last group those of the groups.
 */
template <int W> static __device__ __forceinline__ void add_block_partials(const norm_backward &a)
{
    int n = 2 * a.C, blocks = (int)gridDim.x, group = (int)blockIdx.x / NORM_GROUP, first = group * NORM_GROUP;
    int members = min(NORM_GROUP, blocks - first), groups = (blocks + NORM_GROUP - 1) / NORM_GROUP;
    if (!last_to_arrive(a.arrivals + 1 + group, (unsigned)members)) return;
    float *totals = a.partials + (int64_t)blocks * n; // [groups, 2, C]
    add_partials<W>(a.partials + (int64_t)first * n, members, n,
                    [&](int i, float(&sum)[W]) { store_values(totals + (int64_t)group * n + i, sum); });
    if (!last_to_arrive(a.arrivals, (unsigned)groups)) return;
    add_partials<W>(totals, groups, n,
                    [&](int i, float(&sum)[W]) { add_to(i < a.C ? a.dgamma + i : a.dbeta + (i - a.C), sum); });
}

/* A block takes block_rows rows in order, a warp every eighth of them. */
template <class T, int W, int HELD, norm_place PLACE>
__global__ void __launch_bounds__(BLOCK, sizeof(T) == 2 && PLACE == AFTER_RESIDUAL ? 2 : 1)
    norm_backward_kernel(norm_backward a)
{
    typedef typename norm_types<T, PLACE>::gradient G;
    typedef typename norm_types<T, PLACE>::input X;
    constexpr int N = held_pieces<HELD>;
    FB3_DYNAMIC_SHARED(float, shared); // shared [BLOCK_WARPS / 2, 2, C] where rows are held
    int warp = (int)threadIdx.x / WARP, first = (int)blockIdx.x * a.block_rows, end = min(first + a.block_rows, a.rows);
    float *partial = a.partials + (int64_t)blockIdx.x * 2 * a.C; // partial [2, C]: dgamma | dbeta
    auto x_row = [&](int t) { return (const X *)a.x + (int64_t)(PLACE == AFTER_GATHER ? a.ids[t] : t) * a.C; };
    auto dropped_after = [&](float(&v)[W], const drop_row &where, int c) {
        if (PLACE == AFTER_GATHER && a.drop.threshold) drop_values(v, a.drop, where.sample, where.first + (uint64_t)c);
    };

    /* Wide rows: the parameters' gradients first, threads along the columns, as dx may overwrite dy. */
    if (HELD == 0) {
        for (int c = (int)threadIdx.x * W; c < a.C; c += BLOCK * W) {
            float gamma_sum[W] = {}, beta_sum[W] = {};
            for (int t = first; t < end; t++) {
                float dy[W], x[W], mean = a.mean[t], rstd = a.rstd[t];
                load_values(dy, (const G *)a.dy + (int64_t)t * a.C + c);
                load_values(x, x_row(t) + c);
                dropped_after(dy, drop_row_find(a.drop, t, a.C), c);
                for (int i = 0; i < W; i++) {
                    gamma_sum[i] = fmaf(dy[i], (x[i] - mean) * rstd, gamma_sum[i]);
                    beta_sum[i] += dy[i];
                }
            }
            store_values(partial + c, gamma_sum);
            store_values(partial + a.C + c, beta_sum);
        }
        __syncthreads();
    }

    float gamma_sum[N][W] = {}, beta_sum[N][W] = {}; // of the lane's columns over the warp's rows
    for (int t = first + warp; t < end; t += BLOCK_WARPS) {
        int64_t row = (int64_t)t * a.C;
        const G *dy = (const G *)a.dy + row;
        const X *x = x_row(t);
        piece<G, W> held_dy[N];
        piece<X, W> held_x[N];
        if (HELD > 0)
            over_row<W, HELD>(a.C, [&](int k, int c) {
                held_dy[k] = load<W>(dy + c);
                held_x[k] = load<W>(x + c);
            });
        float mean = a.mean[t], rstd = a.rstd[t];
        int sequence = drop_sequence(a.drop, t);
        drop_row where = {0, 0};
        if (PLACE == AFTER_GATHER) where = drop_row_at(a.drop, t, sequence, a.C);
        /* dy and xhat of the lane's piece k */
        auto values = [&](float(&d)[W], float(&xhat)[W], int k, int c) {
            if (HELD == 0) held_dy[0] = load<W>(dy + c), held_x[0] = load<W>(x + c);
            unpack(d, held_dy[k]);
            unpack(xhat, held_x[k]);
            dropped_after(d, where, c);
            for (int i = 0; i < W; i++) xhat[i] = (xhat[i] - mean) * rstd;
        };
        float sum_g = 0.0f, sum_gx = 0.0f;
        over_row<W, HELD>(a.C, [&](int k, int c) {
            float d[W], xhat[W], gamma[W];
            values(d, xhat, k, c);
            load_constants(gamma, a.gamma + c);
            for (int i = 0; i < W; i++) {
                float g = d[i] * gamma[i];
                sum_g += g;
                sum_gx = fmaf(g, xhat[i], sum_gx);
                gamma_sum[k][i] = fmaf(d[i], xhat[i], gamma_sum[k][i]);
                beta_sum[k][i] += d[i];
            }
        });
        if (PLACE == AFTER_RESIDUAL) where = drop_row_at(a.drop, t, sequence, a.C); // as late as registers are scarce
        float mean_g = warp_sum(sum_g) / (float)a.C, mean_gx = warp_sum(sum_gx) / (float)a.C;
        over_row<W, HELD>(a.C, [&](int k, int c) {
            float d[W], xhat[W], gamma[W];
            values(d, xhat, k, c);
            load_constants(gamma, a.gamma + c);
            for (int i = 0; i < W; i++) d[i] = rstd * (d[i] * gamma[i] - mean_g - xhat[i] * mean_gx);
            if (PLACE == ALONE) {
                float before[W];
                load_values(before, (const float *)a.dx + row + c);
                for (int i = 0; i < W; i++) d[i] += before[i];
            }
            if (PLACE == AFTER_RESIDUAL) {
                store_values((T *)a.dresidual + row + c, d);
                if (a.dx == a.dresidual) return;
                if (a.drop.threshold) drop_values(d, a.drop, where.sample, where.first + (uint64_t)c);
                store_values((T *)a.dx + row + c, d);
            } else {
                store_values((float *)a.dx + row + c, d);
            }
        });
    }

    /* The upper half of the warps hands its sums to the lower half, until one warp has them all. */
    if (HELD > 0) {
        for (int half = BLOCK_WARPS / 2; half > 0; half /= 2) {
            float *to = shared + (int64_t)(warp - half) * 2 * a.C, *from = shared + (int64_t)warp * 2 * a.C;
            if (warp >= half && warp < 2 * half)
                over_row<W, HELD>(a.C, [&](int k, int c) {
                    store_values(to + c, gamma_sum[k]);
                    store_values(to + a.C + c, beta_sum[k]);
                });
            __syncthreads();
            if (warp < half)
                over_row<W, HELD>(a.C, [&](int k, int c) {
                    float v[W];
                    load_values(v, from + c);
                    for (int i = 0; i < W; i++) gamma_sum[k][i] += v[i];
                    load_values(v, from + a.C + c);
                    for (int i = 0; i < W; i++) beta_sum[k][i] += v[i];
                });
            __syncthreads();
        }
        if (warp == 0)
            over_row<W, HELD>(a.C, [&](int k, int c) {
                store_values(partial + c, gamma_sum[k]);
                store_values(partial + a.C + c, beta_sum[k]);
            });
    }
    add_block_partials<W>(a);
}

static int norm_block_rows(int rows)
{
    return (int)ceil_div(rows, (int64_t)NORM_BLOCKS * BLOCK_WARPS) * BLOCK_WARPS;
}

/* Floats that the partial sums of up to `rows` rows take. */
static size_t norm_partials(int rows, int C)
{
    int64_t blocks = ceil_div(rows, BLOCK_WARPS);
    if (blocks > NORM_BLOCKS) blocks = NORM_BLOCKS;
    return (size_t)(blocks + ceil_div(blocks, NORM_GROUP)) * 2 * (size_t)C;
}

template <norm_place PLACE> static fb3_status norm_backward_run(fb3_backend *be, norm_backward a)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    a.block_rows = norm_block_rows(a.rows);
    a.arrivals = cuda->arrivals;
    unsigned blocks = (unsigned)ceil_div(a.rows, a.block_rows);
    bool aligned = aligned_16(a.dx, a.dresidual, a.dgamma, a.dbeta, a.dy, a.x, a.gamma);
    auto launch = [&](auto type) {
        return with_row_form(aligned, a.C, [&](auto form) {
            size_t shared = decltype(form)::HELD ? (size_t)BLOCK_WARPS / 2 * 2 * (size_t)a.C * sizeof(float) : 0;
            FB3_CUDA(FB3_LAUNCH((norm_backward_kernel<decltype(type), decltype(form)::W, decltype(form)::HELD, PLACE>),
                                blocks, BLOCK, shared, cuda->compute, a));
            return FB3_OK;
        });
    };
    if constexpr (PLACE == ALONE)
        return launch(float());
    else
        return with_type(be->act, launch);
}

fb3_status fb3_layernorm_bwd_cuda(fb3_backend *be, float *dx, float *dgamma, float *dbeta, const float *dy,
                                  const float *x, const float *mean, const float *rstd, const float *gamma, int R,
                                  int C)
{
    if (R == 0) return FB3_OK;
    norm_backward a = {};
    a.dx = dx, a.dgamma = dgamma, a.dbeta = dbeta, a.dy = dy, a.x = x, a.mean = mean, a.rstd = rstd, a.gamma = gamma;
    a.rows = R, a.C = C;
    void *scratch;
    FB3_TRY(fb3_cuda_scratch(be, &scratch, norm_partials(R, C) * sizeof(float)));
    a.partials = (float *)scratch;
    return norm_backward_run<ALONE>(be, a);
}

fb3_status fb3_add_layernorm_bwd_cuda(fb3_backend *be, void *dx, void *dresidual, float *dgamma, float *dbeta,
                                      const void *dy, const void *s, const float *mean, const float *rstd,
                                      const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    if (ragged->T == 0) return FB3_OK;
    norm_backward a = {};
    a.dx = dx, a.dresidual = dresidual, a.dgamma = dgamma, a.dbeta = dbeta, a.dy = dy, a.x = s;
    a.mean = mean, a.rstd = rstd, a.gamma = gamma, a.rows = ragged->T, a.C = C;
    a.drop = row_dropout_make(ragged, drop);
    void *scratch;
    FB3_TRY(fb3_cuda_scratch(be, &scratch, norm_partials(a.rows, C) * sizeof(float)));
    a.partials = (float *)scratch;
    return norm_backward_run<AFTER_RESIDUAL>(be, a);
}

/* --- the word table's gradient ------------------------------------------------------------------------------------ */

enum { SEGMENT_WARPS = 4 };

/* dword row id_value[u] += the rows of drows whose token it is: a block takes 32 W columns of one segment, each of its
 * warps a quarter of the segment's positions in order. A frequent word so is no long tail of additions. */
template <int W>
__global__ void __launch_bounds__(SEGMENT_WARPS *WARP)
    add_segments_kernel(float *dword, const float *drows, const int32_t *by_id, const int32_t *id_start,
                        const int32_t *id_value, int C, int tiles)
{
    int u = (int)blockIdx.x / tiles, lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    int c = ((int)blockIdx.x % tiles * WARP + lane) * W, start = id_start[u], end = id_start[u + 1];
    int share = (end - start + SEGMENT_WARPS - 1) / SEGMENT_WARPS, first = start + warp * share;
    float sum[W] = {};
    if (c < C)
        add_rows<8, float>(sum, first, min(first + share, end),
                           [&](int i) { return drows + (int64_t)by_id[i] * C + c; });
    add_warps<SEGMENT_WARPS>(sum);
    if (warp == 0 && c < C) add_to(dword + (int64_t)id_value[u] * C + c, sum);
}

fb3_status fb3_embedding_bwd_cuda(fb3_backend *be, float *dword, float *dgamma, float *dbeta, const void *dy,
                                  const float *mean, const float *rstd, const float *word, const int32_t *ids,
                                  const int32_t *by_id, const int32_t *id_start, const int32_t *id_value, int U,
                                  const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop)
{
    if (ragged->T == 0) return FB3_OK;
    norm_backward a = {};
    a.dgamma = dgamma, a.dbeta = dbeta, a.dy = dy, a.x = word, a.ids = ids, a.mean = mean, a.rstd = rstd;
    a.gamma = gamma, a.rows = ragged->T, a.C = C, a.drop = row_dropout_make(ragged, drop);
    void *scratch; // drows [T, C], the gradient of each position's table row; the partial sums
    size_t drows_floats = (size_t)ceil_div((int64_t)a.rows * C, 4) * 4;
    FB3_TRY(fb3_cuda_scratch(be, &scratch, (drows_floats + norm_partials(a.rows, C)) * sizeof(float)));
    float *drows = (float *)scratch;
    a.dx = drows, a.partials = drows + drows_floats;
    FB3_TRY(norm_backward_run<AFTER_GATHER>(be, a));
    if (U == 0) return FB3_OK;
    return with_width(aligned_16(dword), C, [&](auto w) {
        constexpr int W = decltype(w)::value;
        int tiles = (int)ceil_div(C, WARP * W);
        FB3_CUDA(FB3_LAUNCH((add_segments_kernel<W>), (unsigned)((int64_t)U * tiles), SEGMENT_WARPS * WARP, 0,
                            fb3_cuda_of(be)->compute, dword, drows, by_id, id_start, id_value, C, tiles));
        return FB3_OK;
    });
}

size_t fb3_cuda_rows_scratch(const fb3_limits *limits)
{
    int rows = limits->T > limits->R ? limits->T : limits->R;
    return ((size_t)ceil_div((int64_t)limits->T * limits->C, 4) * 4 + norm_partials(rows, limits->C)) * sizeof(float);
}
