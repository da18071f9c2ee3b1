/* The average of fold models. */
#include "fb3/oof.h"

void fb3_ensemble_add(double *sum, const float *pred, int64_t count)
{
    for (int64_t i = 0; i < count; i++) sum[i] += pred[i];
}

void fb3_ensemble_mean(float *mean, const double *sum, int64_t count, int models)
{
    for (int64_t i = 0; i < count; i++) mean[i] = (float)(sum[i] / models);
}
