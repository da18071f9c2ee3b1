/* The dropout of attention probabilities, drawn one at a time; for both paths of attention. */
#ifndef FB3_BACKEND_CUDA_ATTENTION_MASK_CUH
#define FB3_BACKEND_CUDA_ATTENTION_MASK_CUH

#include <kernel.h>

#include "attention.h"

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

#endif
