/* A backend: where the arithmetic of a replica happens. One const table of operations per backend ("cpu", "cuda"), no
 * empty slot, no fallback from one to the other; fb3_backend_open() checks that every slot is filled.
 *
 * Conventions (DESIGN 5.7). Dims: T tokens of all sequences, B sequences, C hidden, H heads, D head size = C / H,
 * F intermediate, R rows of the position tables, A rows of the active word table, Y targets. Row major. Weights are
 * [out, in]. `dx` is the gradient of x. Pointers are the backend's memory unless named `*_host`.
 *
 *   act *    (void *)  activations in the backend's activation type (f32 or bf16)
 *   float *            masters, gradients, statistics, moments
 *
 * Parameter gradients are always added to (`+=`): accumulation over micro-batches is the normal case. Activation
 * gradients are overwritten unless an `accumulate` flag says otherwise. Sums run in a fixed order that depends on
 * shapes only (DESIGN 5.1). T, B may be 0: then parameter gradients are left alone.
 * Operations are queued in order; `sync` waits for them (a no-op on the CPU). */
#ifndef FB3_BACKEND_H
#define FB3_BACKEND_H

#include "fb3/config.h"
#include "fb3/rng.h"
#include "fb3/status.h"
#include <math.h>
#include <stddef.h>
#include <stdint.h>

typedef enum fb3_dtype { FB3_F32, FB3_BF16 } fb3_dtype;
static inline size_t fb3_dtype_size(fb3_dtype dtype)
{
    return dtype == FB3_F32 ? 4 : 2;
}

/* The widest row that an operation has to take. */
enum { FB3_HIDDEN_MAX = 1 << 14 };

/* Bytes that `fetch` brings between two syncs. */
enum { FB3_FETCH_MAX = 1 << 12 };

typedef struct fb3_backend fb3_backend;

/* The ragged layout of T rows in B sequences. Sequence b owns rows seq_start[b] .. seq_start[b+1]-1. */
typedef struct fb3_ragged {
    int T, B, max_len;
    const int32_t *seq_start;      /* [B+1] */
    const int32_t *token_seq;      /* [T] */
    const uint32_t *sample;        /* [B] global sample index, a dropout counter */
    const int32_t *seq_start_host; /* [B+1] */
} fb3_ragged;

/* Dropout: element e of a sample is kept when word (e & 3) of Philox(counter = (e >> 2, site, sample, step), key) is
 * at least p * 2^32, and then scaled by 1/(1-p). For a row tensor e = (row within the sequence) * width + column; for
 * attention probabilities e = (head * n + i) * n4 + j with n4 = n rounded up to a multiple of 4. p = 0: off. The mask
 * is never stored: the backward pass draws it again. A NULL fb3_dropout is off too. */
typedef struct fb3_dropout {
    float p;
    fb3_rng_key key;
    uint32_t step, site;
} fb3_dropout;

/* Words below it are dropped, the rest is scaled; the same on every backend. For p > 0. */
static inline uint32_t fb3_dropout_threshold(const fb3_dropout *drop)
{
    return (uint32_t)ceil((double)drop->p * 4294967296.0);
}
static inline float fb3_dropout_scale(const fb3_dropout *drop)
{
    return 1.0f / (1.0f - drop->p);
}

/* Disentangled attention: scores(i,j) = (q_i.k_j + q_i.Kpos[x] + k_j.Qpos[x]) * scale, x = bucket[i - j] (DESIGN 4). */
typedef struct fb3_attention {
    int H, D;
    float scale;           /* 1 / sqrt(3 D) */
    const int16_t *bucket; /* points at i - j == 0 of a table over -(limit-1) .. limit-1: the row x, 0 .. 511 */
    int pos_first, R;      /* pos holds rows pos_first .. pos_first + R - 1: all that the batch can reach */
} fb3_attention;

/* One range of the arenas whose parameters share an optimizer group. */
typedef struct fb3_adamw_segment {
    int64_t offset, count; /* in elements */
    float lr_scale, decay; /* rate = lr * lr_scale; decoupled decay: p *= 1 - rate * decay */
} fb3_adamw_segment;

/* In double, because 1 - beta2 must not be taken from a rounded beta2. */
typedef struct fb3_adamw {
    double lr, beta1, beta2, eps;
    double correction1, correction2; /* 1 - beta1^t, 1 - beta2^t */
    double max_norm;                 /* 0: no clipping */
} fb3_adamw;

/* The factor of a step's decoupled decay, p *= 1 - rate * decay: the one place where it is computed. Word rows outside
 * the active vocabulary get it without passing through `adamw`, and must get the same bits (DESIGN 3). */
static inline float fb3_adamw_decay_factor(const fb3_adamw *args, const fb3_adamw_segment *segment)
{
    return (float)(1.0 - args->lr * segment->lr_scale * segment->decay);
}

/* The value of 1 in fixed point, and of the largest sum. */
#define FB3_FIXED_ONE     17592186044416.0 /* 2^44 */
#define FB3_FIXED_LARGEST 524288.0f        /* 2^(63 - 44) */

/* What the largest step will need; the backend reserves its workspace once (fb3_backend.ops->reserve). */
typedef struct fb3_limits {
    int T, B, max_len, C, H, F, R, A, Y;
} fb3_limits;

/* Loss sums of a batch, in double: [0] sum over elements of the loss, [1 + y] sum over samples of (p - t)^2. */
#define FB3_LOSS_SUMS(Y) (1 + (Y))

typedef struct fb3_ops {
    const char *name;
    bool host_memory; /* the backend's memory is the host's: pointers can be read without a download */
    /* from here on functions only: fb3_ops_check walks them */
    void (*close)(fb3_backend *be);                                    /* frees be->state */
    void (*describe)(const fb3_backend *be, char *text, size_t bytes); /* fb3_backend_describe */

    /* --- memory ------------------------------------------------------------------------------------------------ */
    fb3_status (*alloc)(fb3_backend *be, void **memory, size_t bytes); /* 64-byte aligned; contents undefined */
    void (*free)(fb3_backend *be, void *memory);                       /* NULL is fine */
    fb3_status (*upload)(fb3_backend *be, void *dst, const void *src_host, size_t bytes);
    fb3_status (*download)(fb3_backend *be, void *dst_host, const void *src, size_t bytes); /* waits */
    /* queued like an operation: dst_host has the bytes after the next sync. At most FB3_FETCH_MAX between two syncs. */
    fb3_status (*fetch)(fb3_backend *be, void *dst_host, const void *src, size_t bytes);
    fb3_status (*zero)(fb3_backend *be, void *memory, size_t bytes);
    fb3_status (*sync)(fb3_backend *be);
    fb3_status (*reserve)(fb3_backend *be, const fb3_limits *limits);
    size_t (*scratch_bytes)(const fb3_backend *be, const fb3_limits *limits); /* that reserve takes */
    /* memory that can still be had, and all that there is */
    fb3_status (*memory_left)(fb3_backend *be, size_t *left, size_t *total);
    /* --- snapshots: copies for a checkpoint, made while later operations go on ---------------------------------- */
    fb3_status (*alloc_host)(fb3_backend *be, void **memory, size_t bytes); /* host memory for them */
    void (*free_host)(fb3_backend *be, void *memory);                       /* NULL is fine */
    /* dst_host, from alloc_host, gets what src holds at this place of the queue; upload, zero and adamw that are queued
     * later may overwrite src, other operations may not. Neither may be freed, nor dst_host be touched, before
     * snapshot_ready says so. */
    fb3_status (*snapshot)(fb3_backend *be, void *dst_host, const void *src, size_t bytes);
    fb3_status (*snapshot_ready)(fb3_backend *be, bool *ready); /* all that were asked for have come; does not wait */

    /* dst act[n] = (act) src float[n]; on f32 a copy */
    fb3_status (*cast_to_act)(fb3_backend *be, void *dst, const float *src, int64_t n);
    /* Sums that do not depend on their order, in fixed point (DESIGN 5.1, reproducible). sum int64[n + 1]:
     * sum[i] += round(x[i] * FB3_FIXED_ONE), half to even; sum[n] += the number of x float[n] that are not below
     * `limit`, which add nothing. A limit of 2^(63 - 44) over the number of terms keeps sums from overflowing. */
    fb3_status (*fixed_add)(fb3_backend *be, int64_t *sum, const float *x, int64_t n, float limit);
    /* x float[n] = sum[i] / FB3_FIXED_ONE; where sum[n] is not 0, x[0] is not a number. */
    fb3_status (*fixed_to_float)(fb3_backend *be, float *x, const int64_t *sum, int64_t n);
    /* number of values that are not finite, of act[n] or float[n], added to *count (device int64) */
    fb3_status (*count_nonfinite)(fb3_backend *be, int64_t *count, const void *x, fb3_dtype dtype, int64_t n);

    /* --- limits: what bench holds operations against ---------------------------------------------------------- */
    /* seconds of one product [M,K] [N,K]^T of activations by the device's library, as the library likes to do it */
    fb3_status (*library_product)(fb3_backend *be, int M, int N, int K, double *seconds);
    /* bytes/s of a pass that reads two large arrays and writes one of them */
    fb3_status (*memory_rate)(fb3_backend *be, double *bytes_per_second);

    /* --- embeddings -------------------------------------------------------------------------------------------- */
    /* y[t] = dropout(LayerNorm(word[ids[t]]))   y act[T,C], mean/rstd [T], word [A,C], gamma/beta [C] */
    fb3_status (*embedding_fwd)(fb3_backend *be, void *y, float *mean, float *rstd, const float *word,
                                const int32_t *ids, const float *gamma, const float *beta, float eps,
                                const fb3_ragged *ragged, int C, const fb3_dropout *drop);
    /* dword[A,C] += by segments of equal id, in order of position; dgamma, dbeta [C] +=. by_id [T], id_start [U+1],
     * id_value [U] as in fb3_batch. dy act[T,C] */
    fb3_status (*embedding_bwd)(fb3_backend *be, float *dword, float *dgamma, float *dbeta, const void *dy,
                                const float *mean, const float *rstd, const float *word, const int32_t *ids,
                                const int32_t *by_id, const int32_t *id_start, const int32_t *id_value, int U,
                                const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop);

    /* --- position table ---------------------------------------------------------------------------------------- */
    /* y act[R,C] = LayerNorm(x [R,C] float) */
    fb3_status (*layernorm_fwd)(fb3_backend *be, void *y, float *mean, float *rstd, const float *x, const float *gamma,
                                const float *beta, float eps, int R, int C);
    /* dx, dgamma, dbeta += ; dy float[R,C] */
    fb3_status (*layernorm_bwd)(fb3_backend *be, float *dx, float *dgamma, float *dbeta, const float *dy,
                                const float *x, const float *mean, const float *rstd, const float *gamma, int R, int C);
    /* y act[T,C] = dropout(x act[T,C]); x == y allowed */
    fb3_status (*dropout_fwd)(fb3_backend *be, void *y, const void *x, const fb3_ragged *ragged, int C,
                              const fb3_dropout *drop);
    /* dx float[T,C] += dropout'(dy act[T,C]) */
    fb3_status (*dropout_bwd_add)(fb3_backend *be, float *dx, const void *dy, const fb3_ragged *ragged, int C,
                                  const fb3_dropout *drop);

    /* --- linear layers: y [T,O] = x [T,I] w^T + b ---------------------------------------------------------------- */
    /* y act[T,O], x act[T,I], w act[O,I], b act[O] or NULL */
    fb3_status (*linear_fwd)(fb3_backend *be, void *y, const void *x, const void *w, const void *b, int T, int I,
                             int O);
    /* pre act[T,O] = x w^T + b (kept for the backward pass), y act[T,O] = GELU(pre), GELU(x) = x/2 (1 + erf(x/sqrt 2))
     */
    fb3_status (*linear_gelu_fwd)(fb3_backend *be, void *y, void *pre, const void *x, const void *w, const void *b,
                                  int T, int I, int O);
    /* dx act[T,I] (+)= dy act[T,O] w */
    fb3_status (*linear_bwd_input)(fb3_backend *be, void *dx, const void *dy, const void *w, int T, int I, int O,
                                   bool accumulate);
    /* dw float[O,I] += dy^T x, db float[O] += column sums of dy (db NULL: no bias) */
    fb3_status (*linear_bwd_weight)(fb3_backend *be, float *dw, float *db, const void *dy, const void *x, int T, int I,
                                    int O);
    /* dx float[T,I] += dy act[T,O] w */
    fb3_status (*linear_bwd_input_float)(fb3_backend *be, float *dx, const void *dy, const void *w, int T, int I,
                                         int O);
    /* Backward through the layer after a GELU and the GELU: dpre act[T,I] = (dy act[T,O] w) * GELU'(pre), and y
     * act[T,I] = GELU(pre) again (it is not kept). The bias gradients on both sides of it: dpre_sum float[I] += column
     * sums of dpre, dy_sum float[O] += column sums of dy */
    fb3_status (*linear_gelu_bwd_input)(fb3_backend *be, void *dpre, void *y, float *dpre_sum, float *dy_sum,
                                        const void *dy, const void *w, const void *pre, int T, int I, int O);

    /* --- attention --------------------------------------------------------------------------------------------- */
    /* out act[T,C]; lse float[H,T] log-sum-exp of the scaled scores, kept for the backward pass; qkv act[T,3C] (q | k |
     * v, heads side by side inside each); pos act[R,2C] (Qpos | Kpos: the position table through the query and key
     * projections) */
    fb3_status (*attention_fwd)(fb3_backend *be, void *out, float *lse, const void *qkv, const void *pos,
                                const fb3_attention *att, const fb3_ragged *ragged, const fb3_dropout *drop);
    /* dqkv act[T,3C], dpos act[R,2C] (both overwritten; dpos is the sum over the batch, in fp32 until the end) */
    fb3_status (*attention_bwd)(fb3_backend *be, void *dqkv, void *dpos, const void *dout, const void *out,
                                const float *lse, const void *qkv, const void *pos, const fb3_attention *att,
                                const fb3_ragged *ragged, const fb3_dropout *drop);

    /* --- residual ---------------------------------------------------------------------------------------------- */
    /* s act[T,C] = dropout(x) + residual (kept for the backward pass; s may be x), y act[T,C] = LayerNorm(s) */
    fb3_status (*add_layernorm_fwd)(fb3_backend *be, void *y, void *s, float *mean, float *rstd, const void *x,
                                    const void *residual, const float *gamma, const float *beta, float eps,
                                    const fb3_ragged *ragged, int C, const fb3_dropout *drop);
    /* dresidual act[T,C] = ds, dx act[T,C] = dropout'(ds); dx may be dresidual when p = 0; either may be dy.
     * dgamma, dbeta += */
    fb3_status (*add_layernorm_bwd)(fb3_backend *be, void *dx, void *dresidual, float *dgamma, float *dbeta,
                                    const void *dy, const void *s, const float *mean, const float *rstd,
                                    const float *gamma, const fb3_ragged *ragged, int C, const fb3_dropout *drop);

    /* --- head and loss: float throughout ------------------------------------------------------------------------ */
    /* pooled[b] = mean over the real tokens of x; float[B,C] */
    fb3_status (*mean_pool_fwd)(fb3_backend *be, float *pooled, const void *x, const fb3_ragged *ragged, int C);
    fb3_status (*mean_pool_bwd)(fb3_backend *be, void *dx, const float *dpooled, const fb3_ragged *ragged, int C);
    /* pred float[B,Y] = dropout(pooled) w^T + b; w float[Y,C]. Dropout elements: one row of C per sample */
    fb3_status (*head_fwd)(fb3_backend *be, float *pred, const float *pooled, const float *w, const float *b,
                           const fb3_ragged *ragged, int C, int Y, const fb3_dropout *drop);
    /* dpooled [B,C] overwritten; dw, db += */
    fb3_status (*head_bwd)(fb3_backend *be, float *dpooled, float *dw, float *db, const float *dpred,
                           const float *pooled, const float *w, const fb3_ragged *ragged, int C, int Y,
                           const fb3_dropout *drop);
    /* sums double[1+Y] += (FB3_LOSS_SUMS). For FB3_LOSS_MCRMSE sums[0] is left alone. */
    fb3_status (*loss_fwd)(fb3_backend *be, double *sums, const float *pred, const float *target, int B, int Y,
                           fb3_loss_kind kind, float beta);
    /* dpred float[B,Y] = d(loss of the global batch)/dp, which has so many `samples`: one divisor for all, so that no
     * split of the batch changes it. FB3_LOSS_MCRMSE takes its `sums`; the other losses leave them alone. */
    fb3_status (*loss_bwd)(fb3_backend *be, float *dpred, const float *pred, const float *target, int B, int Y,
                           fb3_loss_kind kind, float beta, const double *sums, int64_t samples);

    /* --- optimizer: over ranges of the arenas ------------------------------------------------------------------- */
    /* *sum (device double) = sum of x[i]^2, in fixed blocks */
    fb3_status (*sum_squares)(fb3_backend *be, double *sum, const float *x, int64_t n);
    /* AdamW (Loshchilov and Hutter 2019, as torch.optim.AdamW computes it) over all segments, with the gradient scaled
     * by min(1, max_norm / (sqrt(*sum_squares) + 1e-6)) and the decay of fb3_adamw_decay_factor; writes act copies
     * p_act[offset + i] when p_act is not NULL.
     * Does nothing when *sum_squares is not finite. `segments` are the backend's memory, `segments_host` the same. */
    fb3_status (*adamw)(fb3_backend *be, float *p, float *m, float *v, const float *g, void *p_act,
                        const fb3_adamw_segment *segments, const fb3_adamw_segment *segments_host, int count,
                        const fb3_adamw *args, const double *sum_squares);
} fb3_ops;

struct fb3_backend {
    const fb3_ops *ops;
    fb3_dtype act; /* activation type */
    void *state;   /* the backend's own */
    /* for observers: where the program is */
    int layer; /* -1: outside the layers */
    int64_t step;
    struct fb3_observed *observed; /* NULL while the table is the device's (fb3/observer.h) */
};

typedef struct fb3_backend_options {
    fb3_device device; /* FB3_DEVICE_CPU or FB3_DEVICE_CUDA */
    fb3_dtype act;     /* the activation type */
    fb3_attention_impl attention_impl;
    bool tf32;                 /* CUDA: products of floats by TF32 */
    int node_rank, node_ranks; /* this process among those of its node: which device it takes */
} fb3_backend_options;

/* Opens a backend. FB3_INPUT when the device or the type is not to be had, and why. */
fb3_status fb3_backend_open(fb3_backend **backend, const fb3_backend_options *options);
void fb3_backend_close(fb3_backend *backend);

/* FB3_FAILED, naming the slot, when a slot of the table is empty. */
fb3_status fb3_ops_check(const fb3_ops *ops);

/* Wraps the table so that every operation is synchronous and its outputs are checked for values that are not finite;
 * the first one fails with operation, layer and step. Fresh memory is filled with NaN. (--debug) */
fb3_status fb3_backend_make_checked(fb3_backend *backend);

/* The CPU backend does this activation type on this processor. */
bool fb3_backend_cpu_has(fb3_dtype act);

/* The entry of src/backend/cpu; CUDA's is found by name in libfb3_cuda.so (fb3/cuda_library.h). */
fb3_status fb3_backend_open_cpu(fb3_backend *backend, const fb3_backend_options *options);

/* The version of the library that does the matrix products: "2.6.3". */
const char *fb3_backend_library_version(void);

/* One line about the device for the start table and doctor: "cpu, 2 threads, avx512, oneDNN 2.6.3". */
void fb3_backend_describe(const fb3_backend *backend, char *text, size_t bytes);

#endif
