/* Attention by the libraries: strided batched products of cuBLASLt, the softmax of cuDNN, our gather between them. One
 * sequence at a time, all its heads at once; its n x n arrays live in the scratch memory. It is the path of fp32, and
 * the second opinion on the fused kernels in bf16. */
#include "attention_gather.h"

/* What a sequence works in. Arrays of pairs [H, n, n_ld], of rows and table rows [H, n, R_ld]. */
typedef struct workplace {
    fb3_pairs pairs;
    int D;
    int64_t C;
    float *scores, *p, *dp, *ds; // pairs
    void *kept, *ds_act;         // pairs, act
    float *c2p, *p2c;
    void *dc2p, *dp2c; // act
    float *dpos;       // [R, 2C]
    size_t bytes;
} workplace;

static int round_up(int n)
{
    return (n + 7) / 8 * 8; /* rows begin on 16 bytes */
}

static void *take(char *base, size_t *used, size_t elements, size_t size)
{
    void *memory = base ? base + *used : NULL;
    *used += (elements * size + 255) / 256 * 256;
    return memory;
}

/* base NULL: only counts. */
static workplace lay_out(char *base, fb3_dtype act, int H, int n, int R, int C)
{
    const size_t size = fb3_dtype_size(act), f32 = sizeof(float);
    const size_t pairs = (size_t)H * (size_t)n * (size_t)round_up(n),
                 along = (size_t)H * (size_t)n * (size_t)round_up(R);
    workplace w = {.C = C, .pairs = {.H = H, .n = n, .n_ld = round_up(n), .R = R, .R_ld = round_up(R)}};
    w.scores = take(base, &w.bytes, pairs, f32);
    w.p = take(base, &w.bytes, pairs, f32);
    w.dp = take(base, &w.bytes, pairs, f32);
    w.ds = take(base, &w.bytes, pairs, f32);
    w.kept = take(base, &w.bytes, pairs, size);
    w.ds_act = take(base, &w.bytes, pairs, size);
    w.c2p = take(base, &w.bytes, along, f32);
    w.p2c = take(base, &w.bytes, along, f32);
    w.dc2p = take(base, &w.bytes, along, size);
    w.dp2c = take(base, &w.bytes, along, size);
    w.dpos = take(base, &w.bytes, (size_t)R * 2 * (size_t)C, f32);
    return w;
}

size_t fb3_attention_reference_scratch(fb3_dtype act, const fb3_limits *limits)
{
    return lay_out(NULL, act, limits->H, limits->max_len, limits->R, limits->C).bytes;
}

/* The workplace of the batch's longest sequence, and the part of it that sequence b takes. */
static fb3_status open_workplace(fb3_backend *be, workplace *w, const fb3_attention *att, const fb3_ragged *ragged)
{
    void *base;
    const int C = att->H * att->D;
    FB3_TRY(fb3_cuda_scratch(be, &base, lay_out(NULL, be->act, att->H, ragged->max_len, att->R, C).bytes));
    *w = lay_out(base, be->act, att->H, ragged->max_len, att->R, C);
    w->D = att->D;
    w->pairs.pos_first = att->pos_first;
    w->pairs.scale = att->scale;
    w->pairs.bucket = att->bucket;
    w->pairs.lse_ld = ragged->T;
    return FB3_OK;
}

static bool enter_sequence(workplace *w, const fb3_ragged *ragged, const fb3_dropout *drop, int b)
{
    w->pairs.n = ragged->seq_start_host[b + 1] - ragged->seq_start_host[b];
    w->pairs.n_ld = round_up(w->pairs.n);
    w->pairs.sample = ragged->sample + b;
    w->pairs.mask = fb3_attention_mask_of(drop);
    return w->pairs.n > 0;
}

/* One product for all heads, which lie D apart in rows of qkv, pos and out. */
static fb3_product heads(const workplace *w, int M, int N, int K)
{
    return (fb3_product){.M = M, .N = N, .K = K, .batch = w->pairs.H, .c_type = FB3_F32};
}

static int64_t of_pairs(const workplace *w)
{
    return (int64_t)w->pairs.n * w->pairs.n_ld;
}
static int64_t of_along(const workplace *w)
{
    return (int64_t)w->pairs.n * w->pairs.R_ld;
}

/* c float [H, n, N] = a [n, D] b [N, D]^T, heads D apart in both */
static fb3_status multiply_rows(fb3_backend *be, const workplace *w, float *c, int64_t ldc, const void *a, int64_t lda,
                                const void *b, int64_t ldb, int N)
{
    fb3_product p = heads(w, w->pairs.n, N, w->D);
    p.trans_b = true;
    p.a = a, p.lda = lda, p.stride_a = w->D;
    p.b = b, p.ldb = ldb, p.stride_b = w->D;
    p.c = c, p.ldc = ldc, p.stride_c = (int64_t)w->pairs.n * ldc;
    return fb3_product_cuda(be, &p);
}

/* c act [n, D] (+)= op(a) [n, K] b [K, D]; a [H, ...] of its own, b and c with heads D apart */
static fb3_status multiply_weights(fb3_backend *be, const workplace *w, void *c, int64_t ldc, const void *a,
                                   int64_t lda, int64_t stride_a, bool trans_a, const void *b, int64_t ldb, int K,
                                   bool accumulate)
{
    fb3_product p = heads(w, w->pairs.n, w->D, K);
    p.trans_a = trans_a, p.accumulate = accumulate;
    p.a = a, p.lda = lda, p.stride_a = stride_a;
    p.b = b, p.ldb = ldb, p.stride_b = w->D;
    p.c = c, p.ldc = ldc, p.stride_c = w->D, p.c_type = be->act;
    return fb3_product_cuda(be, &p);
}

/* dpos float [R, D], heads D apart, += along^T rows */
static fb3_status multiply_table(fb3_backend *be, const workplace *w, float *dpos, const void *along, const void *rows,
                                 int64_t ld)
{
    fb3_product p = heads(w, w->pairs.R, w->D, w->pairs.n);
    p.trans_a = true, p.accumulate = true;
    p.a = along, p.lda = w->pairs.R_ld, p.stride_a = of_along(w);
    p.b = rows, p.ldb = ld, p.stride_b = w->D;
    p.c = dpos, p.ldc = 2 * w->C, p.stride_c = w->D;
    return fb3_product_cuda(be, &p);
}

/* --- softmax ------------------------------------------------------------------------------------------------------ */

static fb3_status describe_pairs(cudnnTensorDescriptor_t descriptor, const workplace *w)
{
    const int n = w->pairs.n, ld = w->pairs.n_ld;
    FB3_CUDNN(cudnnSetTensor4dDescriptorEx(descriptor, CUDNN_DATA_FLOAT, w->pairs.H * n, n, 1, 1, ld, 1, 1, 1));
    return FB3_OK;
}

static fb3_status open_cudnn(fb3_backend *be)
{
    fb3_cuda *cuda = fb3_cuda_of(be);
    if (cuda->cudnn) return FB3_OK;
    FB3_CUDNN(cudnnCreate(&cuda->cudnn));
    FB3_CUDNN(cudnnSetStream(cuda->cudnn, cuda->compute));
    return FB3_OK;
}

static fb3_status softmax_forward(fb3_backend *be, const workplace *w, cudnnTensorDescriptor_t descriptor)
{
    const float one = 1.0f, zero = 0.0f;
    FB3_TRY(describe_pairs(descriptor, w));
    FB3_CUDNN(cudnnSoftmaxForward(fb3_cuda_of(be)->cudnn, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_INSTANCE, &one,
                                  descriptor, w->scores, &zero, descriptor, w->p));
    return FB3_OK;
}

static fb3_status softmax_backward(fb3_backend *be, const workplace *w, cudnnTensorDescriptor_t descriptor)
{
    const float one = 1.0f, zero = 0.0f;
    FB3_CUDNN(cudnnSoftmaxBackward(fb3_cuda_of(be)->cudnn, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_INSTANCE, &one,
                                   descriptor, w->p, descriptor, w->dp, &zero, descriptor, w->ds));
    return FB3_OK;
}

/* --- one sequence ------------------------------------------------------------------------------------------------- */

typedef struct sequence {
    const char *q, *k, *v;     // act [n, D] of head 0, rows 3C apart
    const char *q_pos, *k_pos; // act [R, D] of head 0, rows 2C apart
} sequence;

static sequence sequence_of(const fb3_backend *be, const workplace *w, const void *qkv, const void *pos, int start)
{
    const int64_t size = (int64_t)fb3_dtype_size(be->act);
    const char *q = (const char *)qkv + start * 3 * w->C * size, *q_pos = pos;
    return (sequence){
        .q = q, .k = q + w->C * size, .v = q + 2 * w->C * size, .q_pos = q_pos, .k_pos = q_pos + w->C * size};
}

/* p [H, n, n_ld] and the highest score of each row. */
static fb3_status probabilities(fb3_backend *be, const workplace *w, cudnnTensorDescriptor_t descriptor,
                                const sequence *s, float *highest)
{
    const int n = w->pairs.n, R = w->pairs.R;
    FB3_TRY(multiply_rows(be, w, w->scores, w->pairs.n_ld, s->q, 3 * w->C, s->k, 3 * w->C, n));
    FB3_TRY(multiply_rows(be, w, w->c2p, w->pairs.R_ld, s->q, 3 * w->C, s->k_pos, 2 * w->C, R));
    FB3_TRY(multiply_rows(be, w, w->p2c, w->pairs.R_ld, s->k, 3 * w->C, s->q_pos, 2 * w->C, R));
    FB3_TRY(fb3_pairs_score(be, &w->pairs, w->scores, highest, w->c2p, w->p2c));
    return softmax_forward(be, w, descriptor);
}

static fb3_status forward(fb3_backend *be, const workplace *w, cudnnTensorDescriptor_t descriptor, const sequence *s,
                          void *out, float *lse)
{
    FB3_TRY(probabilities(be, w, descriptor, s, lse));
    FB3_TRY(fb3_pairs_finish(be, &w->pairs, w->kept, lse, w->p));
    return multiply_weights(be, w, out, w->C, w->kept, w->pairs.n_ld, of_pairs(w), false, s->v, 3 * w->C, w->pairs.n,
                            false);
}

static fb3_status backward(fb3_backend *be, const workplace *w, cudnnTensorDescriptor_t descriptor, const sequence *s,
                           char *dq, const void *dout)
{
    const int n = w->pairs.n, R = w->pairs.R;
    const int64_t size = (int64_t)fb3_dtype_size(be->act), ld = 3 * w->C, pairs = of_pairs(w), along = of_along(w);
    char *dk = dq + w->C * size, *dv = dk + w->C * size;
    float *highest = w->dp; /* not needed here; overwritten next */
    FB3_TRY(probabilities(be, w, descriptor, s, highest));
    FB3_TRY(multiply_rows(be, w, w->dp, w->pairs.n_ld, dout, w->C, s->v, ld, n));
    FB3_TRY(fb3_pairs_mask(be, &w->pairs, w->kept, w->dp, w->p));
    FB3_TRY(softmax_backward(be, w, descriptor));
    FB3_TRY(fb3_pairs_sum(be, &w->pairs, w->ds_act, w->dc2p, w->dp2c, w->ds));
    FB3_TRY(multiply_weights(be, w, dv, ld, w->kept, w->pairs.n_ld, pairs, true, dout, w->C, n, false));
    FB3_TRY(multiply_weights(be, w, dq, ld, w->ds_act, w->pairs.n_ld, pairs, false, s->k, ld, n, false));
    FB3_TRY(multiply_weights(be, w, dk, ld, w->ds_act, w->pairs.n_ld, pairs, true, s->q, ld, n, false));
    FB3_TRY(multiply_weights(be, w, dq, ld, w->dc2p, w->pairs.R_ld, along, false, s->k_pos, 2 * w->C, R, true));
    FB3_TRY(multiply_weights(be, w, dk, ld, w->dp2c, w->pairs.R_ld, along, false, s->q_pos, 2 * w->C, R, true));
    FB3_TRY(multiply_table(be, w, w->dpos, w->dp2c, s->k, ld));
    return multiply_table(be, w, w->dpos + w->C, w->dc2p, s->q, ld);
}

/* --- the batch ---------------------------------------------------------------------------------------------------- */

static fb3_status forward_all(fb3_backend *be, workplace *w, cudnnTensorDescriptor_t descriptor, void *out, float *lse,
                              const void *qkv, const void *pos, const fb3_ragged *ragged, const fb3_dropout *drop)
{
    const int64_t size = (int64_t)fb3_dtype_size(be->act);
    for (int b = 0; b < ragged->B; b++) {
        const int start = ragged->seq_start_host[b];
        if (!enter_sequence(w, ragged, drop, b)) continue;
        const sequence s = sequence_of(be, w, qkv, pos, start);
        FB3_TRY(forward(be, w, descriptor, &s, (char *)out + start * w->C * size, lse + start));
    }
    return FB3_OK;
}

static fb3_status backward_all(fb3_backend *be, workplace *w, cudnnTensorDescriptor_t descriptor, void *dqkv,
                               void *dpos, const void *dout, const void *qkv, const void *pos, const fb3_ragged *ragged,
                               const fb3_dropout *drop)
{
    const int64_t size = (int64_t)fb3_dtype_size(be->act), table = (int64_t)w->pairs.R * 2 * w->C;
    FB3_TRY(fb3_zero_cuda(be, w->dpos, (size_t)table * sizeof *w->dpos));
    for (int b = 0; b < ragged->B; b++) {
        const int start = ragged->seq_start_host[b];
        if (!enter_sequence(w, ragged, drop, b)) continue;
        const sequence s = sequence_of(be, w, qkv, pos, start);
        FB3_TRY(backward(be, w, descriptor, &s, (char *)dqkv + start * 3 * w->C * size,
                         (const char *)dout + start * w->C * size));
    }
    return fb3_cast_to_act_cuda(be, dpos, w->dpos, table);
}

fb3_status fb3_attention_reference_fwd(fb3_backend *be, void *out, float *lse, const void *qkv, const void *pos,
                                       const fb3_attention *att, const fb3_ragged *ragged, const fb3_dropout *drop)
{
    workplace w;
    cudnnTensorDescriptor_t descriptor;
    FB3_TRY(open_cudnn(be));
    FB3_TRY(open_workplace(be, &w, att, ragged));
    FB3_CUDNN(cudnnCreateTensorDescriptor(&descriptor));
    fb3_status status = forward_all(be, &w, descriptor, out, lse, qkv, pos, ragged, drop);
    (void)cudnnDestroyTensorDescriptor(descriptor);
    return status;
}

fb3_status fb3_attention_reference_bwd(fb3_backend *be, void *dqkv, void *dpos, const void *dout, const void *out,
                                       const float *lse, const void *qkv, const void *pos, const fb3_attention *att,
                                       const fb3_ragged *ragged, const fb3_dropout *drop)
{
    (void)out, (void)lse; /* the probabilities are made again from the scores, by the library */
    workplace w;
    cudnnTensorDescriptor_t descriptor;
    FB3_TRY(open_cudnn(be));
    FB3_TRY(open_workplace(be, &w, att, ragged));
    FB3_CUDNN(cudnnCreateTensorDescriptor(&descriptor));
    fb3_status status = backward_all(be, &w, descriptor, dqkv, dpos, dout, qkv, pos, ragged, drop);
    (void)cudnnDestroyTensorDescriptor(descriptor);
    return status;
}
