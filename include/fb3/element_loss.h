/* The losses of an element and their slopes (formulas at fb3_loss_kind), for the CPU and, included by its kernels, for
 * CUDA; and for the tables of an evaluation. */
#ifndef FB3_ELEMENT_LOSS_H
#define FB3_ELEMENT_LOSS_H

#include "fb3/config.h"
#include "fb3/rng.h" /* FB3_HOST_DEVICE */
#include <math.h>

/* d = prediction - label. mcrmse is no sum over elements, and 0 here: it is made of the squares of all samples. */
static inline FB3_HOST_DEVICE double fb3_element_loss(double d, fb3_loss_kind kind, double beta)
{
    switch (kind) {
    case FB3_LOSS_RMSE:
        return sqrt(d * d + FB3_RMSE_EPSILON);
    case FB3_LOSS_MSE:
        return d * d;
    case FB3_LOSS_L1:
        return fabs(d);
    case FB3_LOSS_SMOOTH_L1:
        return fabs(d) < beta ? 0.5 * d * d / beta : fabs(d) - 0.5 * beta;
    case FB3_LOSS_MCRMSE:
        break;
    }
    return 0.0;
}

/* Its derivative; of mcrmse what depends on the element, the rest is in fb3_slope_factor(). */
static inline FB3_HOST_DEVICE double fb3_element_slope(double d, fb3_loss_kind kind, double beta)
{
    const double sign = (double)((d > 0.0) - (d < 0.0));
    switch (kind) {
    case FB3_LOSS_RMSE:
        return d / sqrt(d * d + FB3_RMSE_EPSILON);
    case FB3_LOSS_MSE:
        return 2.0 * d;
    case FB3_LOSS_L1:
        return sign;
    case FB3_LOSS_SMOOTH_L1:
        return fabs(d) < beta ? d / beta : sign;
    case FB3_LOSS_MCRMSE:
        break;
    }
    return d;
}

/* The root of a target's mean square, of which mcrmse is the mean over the targets. */
static inline FB3_HOST_DEVICE double fb3_column_rmse(double squares, double samples)
{
    return sqrt(squares / samples + FB3_RMSE_EPSILON);
}

/* What the slopes of target y are multiplied by; sums [1 + Y]: the loss, and each target's squares, of all samples. */
static inline FB3_HOST_DEVICE double fb3_slope_factor(fb3_loss_kind kind, const double *sums, double samples, int Y,
                                                      int y)
{
    const double mean = 1.0 / (samples * Y);
    return kind == FB3_LOSS_MCRMSE ? mean / fb3_column_rmse(sums[1 + y], samples) : mean;
}

#endif
