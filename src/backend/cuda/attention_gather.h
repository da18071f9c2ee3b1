/* Kernels of the reference attention (attention_gather.cu): what lies between the library's products and softmax. One
 * sequence of n rows, all heads at a time; arrays of pairs are [H, n, n_ld]. */
#ifndef FB3_BACKEND_CUDA_ATTENTION_GATHER_H
#define FB3_BACKEND_CUDA_ATTENTION_GATHER_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fb3_pairs {
    int H, n, n_ld, R, R_ld, pos_first;
    float scale;
    const int16_t *bucket;  /* at distance 0 */
    int64_t lse_ld;         /* from head to head */
    const uint32_t *sample; /* of the sequence, on the device */
    fb3_attention_mask mask;
} fb3_pairs;

/* scores float (q.k so far) = (scores + c2p(i,x) + p2c(j,x)) scale; highest [n], lse_ld apart: of each row. c2p, p2c
 * float [H, n, R_ld] */
fb3_status fb3_pairs_score(fb3_backend *be, const fb3_pairs *pairs, float *scores, float *highest, const float *c2p,
                           const float *p2c);
/* From probabilities: kept act = keep p; lse (the row's highest score so far) becomes the log-sum-exp. */
fb3_status fb3_pairs_finish(fb3_backend *be, const fb3_pairs *pairs, void *kept, float *lse, const float *p);
/* kept act = keep p, dp float *= keep */
fb3_status fb3_pairs_mask(fb3_backend *be, const fb3_pairs *pairs, void *kept, float *dp, const float *p);
/* ds_act act = ds scale; dc2p, dp2c act [H, n, R_ld]: its sums over the pairs of a row, of a column, with one x */
fb3_status fb3_pairs_sum(fb3_backend *be, const fb3_pairs *pairs, void *ds_act, void *dc2p, void *dp2c,
                         const float *ds);

#ifdef __cplusplus
}
#endif

#endif
