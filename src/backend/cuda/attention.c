/* Which attention a shape takes. It follows from the configuration and the head size, never from timing: our own
 * kernels in bf16, the libraries' in float, where attention_impl asks for them, and for head sizes that our kernels do
 * not take. */
#include "attention.h"

fb3_attention_mask fb3_attention_mask_of(const fb3_dropout *drop)
{
    if (!drop || drop->p <= 0.0f) return (fb3_attention_mask){0};
    return (fb3_attention_mask){.threshold = fb3_dropout_threshold(drop),
                                .scale = fb3_dropout_scale(drop),
                                .key = drop->key,
                                .step = drop->step,
                                .site = drop->site};
}

static fb3_status choose(const fb3_backend *be, const fb3_attention *att, bool *fused)
{
    const fb3_cuda *cuda = fb3_cuda_of(be);
    *fused = cuda->fused && fb3_attention_fused_takes(att);
    FB3_REQUIRE(
        *fused || !cuda->fused_only, FB3_INPUT,
        "attention_impl: fused takes heads of 16, 32 and 64, and this model has heads of %d; use attention_impl: "
        "auto",
        att->D);
    return FB3_OK;
}

size_t fb3_cuda_attention_scratch(const fb3_backend *be, const fb3_limits *limits)
{
    const fb3_attention att = {.H = limits->H, .D = limits->H > 0 ? limits->C / limits->H : 0};
    if (fb3_cuda_of(be)->fused && fb3_attention_fused_takes(&att)) return fb3_attention_fused_scratch(limits);
    return fb3_attention_reference_scratch(be->act, limits);
}

fb3_status fb3_attention_fwd_cuda(fb3_backend *be, void *out, float *lse, const void *qkv, const void *pos,
                                  const fb3_attention *att, const fb3_ragged *ragged, const fb3_dropout *drop)
{
    bool fused;
    FB3_TRY(choose(be, att, &fused));
    if (ragged->T == 0) return FB3_OK;
    if (fused) return fb3_attention_fused_fwd(be, out, lse, qkv, pos, att, ragged, drop);
    return fb3_attention_reference_fwd(be, out, lse, qkv, pos, att, ragged, drop);
}

fb3_status fb3_attention_bwd_cuda(fb3_backend *be, void *dqkv, void *dpos, const void *dout, const void *out,
                                  const float *lse, const void *qkv, const void *pos, const fb3_attention *att,
                                  const fb3_ragged *ragged, const fb3_dropout *drop)
{
    bool fused;
    FB3_TRY(choose(be, att, &fused));
    if (ragged->T == 0)
        return fb3_zero_cuda(be, dpos, (size_t)att->R * 2 * (size_t)(att->H * att->D) * fb3_dtype_size(be->act));
    if (fused) return fb3_attention_fused_bwd(be, dqkv, dpos, dout, out, lse, qkv, pos, att, ragged, drop);
    return fb3_attention_reference_bwd(be, dqkv, dpos, dout, out, lse, qkv, pos, att, ragged, drop);
}
