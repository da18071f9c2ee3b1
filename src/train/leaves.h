/* The gradient of a run that is reproducible (DESIGN 5.1): leaf by leaf, as a sum of integers. Collective where it says
 * so. */
#ifndef FB3_LEAVES_H
#define FB3_LEAVES_H

#include "fb3/train.h"

/* Before the first leaf of a step. */
fb3_status fb3_leaves_begin(fb3_trainer *trainer);
/* Keeps the loss sums of a leaf apart, so that they can be added in the order of the leaves. Waits for the device. */
fb3_status fb3_leaves_take_sums(fb3_trainer *trainer, int leaf);
/* sums += those of all leaves, of all ranks. Collective. */
fb3_status fb3_leaves_reduce_sums(fb3_trainer *trainer, double *sums);
/* Adds the gradient in the arena, which is that of one leaf. */
fb3_status fb3_leaves_add_gradient(fb3_trainer *trainer);
/* Leaves the sum over all leaves of all ranks in the arena. Collective. */
fb3_status fb3_leaves_reduce_gradient(fb3_trainer *trainer);

#endif
