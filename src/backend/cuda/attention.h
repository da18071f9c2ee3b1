/* Attention on CUDA: two paths behind one operation (attention.c). Both take any ragged batch; shapes as in fb3_ops. */
#ifndef FB3_BACKEND_CUDA_ATTENTION_H
#define FB3_BACKEND_CUDA_ATTENTION_H

#include "cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* fused (attention_fwd.cu, attention_bwd.cu): bf16 on tensor cores, nothing of size T x T anywhere. */
bool fb3_attention_fused_takes(const fb3_attention *att);
size_t fb3_attention_fused_scratch(const fb3_limits *limits);
fb3_status fb3_attention_fused_fwd(fb3_backend *be, void *out, float *lse, const void *qkv, const void *pos,
                                   const fb3_attention *att, const fb3_ragged *ragged, const fb3_dropout *drop);
fb3_status fb3_attention_fused_bwd(fb3_backend *be, void *dqkv, void *dpos, const void *dout, const void *out,
                                   const float *lse, const void *qkv, const void *pos, const fb3_attention *att,
                                   const fb3_ragged *ragged, const fb3_dropout *drop);

/* reference (attention_reference.c): products of the library, cuDNN's softmax; one sequence at a time. */
size_t fb3_attention_reference_scratch(fb3_dtype act, const fb3_limits *limits);
fb3_status fb3_attention_reference_fwd(fb3_backend *be, void *out, float *lse, const void *qkv, const void *pos,
                                       const fb3_attention *att, const fb3_ragged *ragged, const fb3_dropout *drop);
fb3_status fb3_attention_reference_bwd(fb3_backend *be, void *dqkv, void *dpos, const void *dout, const void *out,
                                       const float *lse, const void *qkv, const void *pos, const fb3_attention *att,
                                       const fb3_ragged *ragged, const fb3_dropout *drop);

/* What a kernel needs to draw the mask of attention probabilities (fb3_dropout). */
typedef struct fb3_attention_mask {
    uint32_t threshold; /* words below it are dropped; 0: no dropout */
    float scale;        /* of what is kept */
    fb3_rng_key key;
    uint32_t step, site;
} fb3_attention_mask;
fb3_attention_mask fb3_attention_mask_of(const fb3_dropout *drop);

#ifdef __cplusplus
}
#endif

#endif
