/* What the kernels of rows.cu, elementwise.cu, head.cu and optimizer.cu share: values that travel several to an access,
 * sums in a fixed order, the last block of a sum, dropout, and the choice of a kernel's template arguments.
 *
 * These kernels wait for memory. So each reads its inputs once and writes its outputs once, a lane moves 8 or 16 bytes
 * at a time and has several such accesses under way, and whatever can share a launch does. */
#ifndef FB3_BACKEND_CUDA_DEVICE_CUH
#define FB3_BACKEND_CUDA_DEVICE_CUH

#include <kernel.h>

#include "cuda.h"
#include <math.h>
#include <string.h>

typedef __nv_bfloat16 bf16;

enum { WARP = 32, BLOCK = 256, BLOCK_WARPS = BLOCK / WARP };

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

/* --- pieces: W neighbouring values of type T, as they lie in memory, moved by one access -------------------------- */

template <class T, int W> struct piece_type;
template <class T> struct piece_type<T, 1> {
    typedef T type;
};
template <> struct piece_type<float, 4> {
    typedef float4 type;
};
template <> struct piece_type<bf16, 4> {
    typedef uint2 type;
};
template <> struct piece_type<bf16, 8> {
    typedef uint4 type;
};
template <class T, int W> using piece = typename piece_type<T, W>::type;

/* The most values of a type in one access. */
template <class T> struct widest {
    static constexpr int W = 16 / sizeof(T);
};

template <int W, class T> static __device__ __forceinline__ piece<T, W> load(const T *p)
{
    return *reinterpret_cast<const piece<T, W> *>(p);
}
/* Of memory that nobody writes while the kernel runs: the compiler may then move it up past stores. */
template <int W, class T> static __device__ __forceinline__ piece<T, W> load_constant(const T *p)
{
    return __ldg(reinterpret_cast<const piece<T, W> *>(p));
}
template <class T, class Piece> static __device__ __forceinline__ void store(T *p, const Piece &values)
{
    *reinterpret_cast<Piece *>(p) = values;
}

/* A bf16 is the upper half of a float. */
static __device__ __forceinline__ float low_half(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}
static __device__ __forceinline__ float high_half(uint32_t pair)
{
    return __uint_as_float(pair & 0xFFFF0000u);
}
static __device__ __forceinline__ uint32_t half_pair(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

static __device__ __forceinline__ void unpack(float (&v)[1], const float &values)
{
    v[0] = values;
}
static __device__ __forceinline__ void unpack(float (&v)[1], const bf16 &values)
{
    v[0] = __bfloat162float(values);
}
static __device__ __forceinline__ void unpack(float (&v)[4], const float4 &values)
{
    v[0] = values.x, v[1] = values.y, v[2] = values.z, v[3] = values.w;
}
static __device__ __forceinline__ void unpack(float (&v)[4], const uint2 &values)
{
    v[0] = low_half(values.x), v[1] = high_half(values.x), v[2] = low_half(values.y), v[3] = high_half(values.y);
}
static __device__ __forceinline__ void unpack(float (&v)[8], const uint4 &values)
{
    v[0] = low_half(values.x), v[1] = high_half(values.x), v[2] = low_half(values.y), v[3] = high_half(values.y);
    v[4] = low_half(values.z), v[5] = high_half(values.z), v[6] = low_half(values.w), v[7] = high_half(values.w);
}
static __device__ __forceinline__ void pack(float &values, const float (&v)[1])
{
    values = v[0];
}
static __device__ __forceinline__ void pack(bf16 &values, const float (&v)[1])
{
    values = __float2bfloat16_rn(v[0]);
}
static __device__ __forceinline__ void pack(float4 &values, const float (&v)[4])
{
    values = make_float4(v[0], v[1], v[2], v[3]);
}
static __device__ __forceinline__ void pack(uint2 &values, const float (&v)[4])
{
    values = make_uint2(half_pair(v[0], v[1]), half_pair(v[2], v[3]));
}
static __device__ __forceinline__ void pack(uint4 &values, const float (&v)[8])
{
    values = make_uint4(half_pair(v[0], v[1]), half_pair(v[2], v[3]), half_pair(v[4], v[5]), half_pair(v[6], v[7]));
}

template <int W, class T> static __device__ __forceinline__ void load_values(float (&v)[W], const T *p)
{
    unpack(v, load<W>(p));
}
template <int W, class T> static __device__ __forceinline__ void load_constants(float (&v)[W], const T *p)
{
    unpack(v, load_constant<W>(p));
}
template <int W, class T> static __device__ __forceinline__ void store_values(T *p, const float (&v)[W])
{
    piece<T, W> values;
    pack(values, v);
    store(p, values);
}

/* --- sums --------------------------------------------------------------------------------------------------------- */

/* The sum over the warp's lanes, the same bits in all of them. */
template <class Number> static __device__ __forceinline__ Number warp_sum(Number x)
{
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, step);
    return x;
}

/* sum [W] += rows first, first + 1, ... end - 1 in this order, with BATCH of them under way: row(t) points at the
 * lane's piece of row t. */
template <int BATCH, class T, int W, class Row>
static __device__ __forceinline__ void add_rows(float (&sum)[W], int first, int end, Row row)
{
    for (int t = first; t < end; t += BATCH) {
        piece<T, W> held[BATCH];
#pragma unroll
        for (int j = 0; j < BATCH; j++)
            if (t + j < end) held[j] = load<W>((const T *)row(t + j));
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            float v[W];
            if (t + j >= end) break;
            unpack(v, held[j]);
            for (int i = 0; i < W; i++) sum[i] += v[i];
        }
    }
}

/* sum [W] of each lane over the WARPS warps of the block, in their order, in warp 0. Between two calls the block has to
 * meet. */
template <int WARPS, int W> static __device__ __forceinline__ void add_warps(float (&sum)[W])
{
    __shared__ __align__(16) float sums[WARPS][WARP * W];
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    store_values(&sums[warp][lane * W], sum);
    __syncthreads();
    if (warp > 0) return;
    for (int part = 1; part < WARPS; part++) {
        float v[W];
        load_values(v, &sums[part][lane * W]);
        for (int i = 0; i < W; i++) sum[i] += v[i];
    }
}

/* to [W] += sum [W] */
template <int W> static __device__ __forceinline__ void add_to(float *to, const float (&sum)[W])
{
    float v[W];
    load_values(v, to);
    for (int i = 0; i < W; i++) v[i] += sum[i];
    store_values(to, v);
}

/* True in the last of `count` blocks to come here with this counter, whose threads then see what the others stored
 * before. The counter is 0 before and after. */
static __device__ __forceinline__ bool last_to_arrive(unsigned *counter, unsigned count)
{
    __shared__ int last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(counter, 1u) == count - 1;
        if (last) atomicExch(counter, 0u);
        __threadfence();
    }
    __syncthreads();
    return last != 0;
}

/* --- dropout ------------------------------------------------------------------------------------------------------ */

/* The draws of a row tensor (fb3_dropout of fb3/backend.h); threshold 0: off. */
typedef struct row_dropout {
    const int32_t *seq_start, *token_seq;
    const uint32_t *sample;
    fb3_rng_key key;
    uint32_t step, site, threshold;
    float scale;
} row_dropout;

static inline row_dropout row_dropout_make(const fb3_ragged *ragged, const fb3_dropout *drop)
{
    row_dropout d = {};
    if (drop == NULL || !(drop->p > 0.0f)) return d;
    d.seq_start = ragged->seq_start, d.token_seq = ragged->token_seq, d.sample = ragged->sample;
    d.key = drop->key, d.step = drop->step, d.site = drop->site;
    d.threshold = fb3_dropout_threshold(drop);
    d.scale = fb3_dropout_scale(drop);
    return d;
}

/* v[i] *= 0 or 1/(1-p), by element e + i of a sample; a piece of four is one Philox block. */
static __device__ __forceinline__ void drop_values(float (&v)[4], const row_dropout &d, uint32_t sample, uint64_t e)
{
    fb3_philox draw = fb3_philox4x32((uint32_t)(e / 4), d.site, sample, d.step, d.key.k0, d.key.k1);
    for (int i = 0; i < 4; i++) v[i] *= draw.word[i] >= d.threshold ? d.scale : 0.0f;
}
static __device__ __forceinline__ void drop_values(float (&v)[1], const row_dropout &d, uint32_t sample, uint64_t e)
{
    fb3_philox draw = fb3_philox4x32((uint32_t)(e / 4), d.site, sample, d.step, d.key.k0, d.key.k1);
    uint32_t even = e & 2 ? draw.word[2] : draw.word[0], odd = e & 2 ? draw.word[3] : draw.word[1];
    v[0] *= (e & 1 ? odd : even) >= d.threshold ? d.scale : 0.0f;
}

/* Where row t of a tensor of C columns draws: its sample and its first element. */
typedef struct drop_row {
    uint32_t sample;
    uint64_t first;
} drop_row;

static __device__ __forceinline__ int drop_sequence(const row_dropout &d, int t)
{
    return d.threshold ? d.token_seq[t] : 0;
}
static __device__ __forceinline__ drop_row drop_row_at(const row_dropout &d, int t, int sequence, int C)
{
    drop_row row = {0, 0};
    if (d.threshold == 0) return row;
    row.sample = d.sample[sequence];
    row.first = (uint64_t)(t - d.seq_start[sequence]) * (uint64_t)C;
    return row;
}
static __device__ __forceinline__ drop_row drop_row_find(const row_dropout &d, int t, int C)
{
    return drop_row_at(d, t, drop_sequence(d, t), C);
}

/* --- the choice of template arguments ----------------------------------------------------------------------------- */

static inline bool aligned_16(void)
{
    return true;
}
template <class Pointer, class... Pointers> static inline bool aligned_16(Pointer first, Pointers... rest)
{
    return (uintptr_t)first % 16 == 0 && aligned_16(rest...);
}

/* body(T()) with the activation type. */
template <class Body> static inline fb3_status with_type(fb3_dtype type, Body body)
{
    return type == FB3_BF16 ? body(bf16()) : body(float());
}

template <int W> struct width {
    static constexpr int value = W;
};

/* body(width<W>()): pieces of four where rows of `columns` consist of them, else single values. */
template <class Body> static inline fb3_status with_width(bool aligned, int64_t columns, Body body)
{
    return aligned && columns % 4 == 0 ? body(width<4>()) : body(width<1>());
}

/* The threads of a block that takes one row, a piece each. */
static inline unsigned row_threads(int C, int W)
{
    int64_t threads = ceil_div(ceil_div(C, W), WARP) * WARP;
    return (unsigned)(threads < BLOCK ? threads : (int64_t)BLOCK);
}

#endif
