/* Scores and losses of tables on the host. The model has the losses of batches (src/model/loss.c); here they are
 * computed from their definitions once more, in double, for a whole evaluation. */
#include "fb3/metrics.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The epsilon under the root of the `rmse` and `mcrmse` losses (the notebook's RMSELoss). */
#define LOSS_EPSILON 1e-9

static double elementwise_loss(double difference, fb3_loss_kind kind, double beta)
{
    double a = fabs(difference);
    switch (kind) {
    case FB3_LOSS_RMSE:
        return sqrt(difference * difference + LOSS_EPSILON);
    case FB3_LOSS_MSE:
        return difference * difference;
    case FB3_LOSS_L1:
        return a;
    case FB3_LOSS_SMOOTH_L1:
        return a < beta ? 0.5 * a * a / beta : a - 0.5 * beta;
    case FB3_LOSS_MCRMSE:
        break; /* not a sum over elements */
    }
    return 0;
}

void fb3_score_sums_add(fb3_score_sums *sums, const float *truth, const float *pred, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        for (int y = 0; y < sums->targets; y++) {
            double d = (double)pred[i * sums->targets + y] - truth[i * sums->targets + y];
            sums->squared[y] += d * d;
            sums->loss += elementwise_loss(d, sums->loss_type, sums->smooth_l1_beta);
        }
    }
    sums->samples += n;
}

void fb3_scores_of(fb3_scores *scores, const fb3_score_sums *sums)
{
    const int targets = sums->targets;
    const double n = (double)sums->samples;
    double mcrmse_loss = 0;
    *scores = (fb3_scores){.targets = targets, .samples = sums->samples};
    for (int y = 0; y < targets; y++) {
        scores->rmse[y] = sums->samples > 0 ? sqrt(sums->squared[y] / n) : NAN;
        scores->mcrmse += scores->rmse[y] / targets;
        mcrmse_loss += sqrt(sums->squared[y] / n + LOSS_EPSILON);
    }
    scores->loss = sums->loss_type == FB3_LOSS_MCRMSE ? mcrmse_loss / targets : sums->loss / (n * targets);
}

void fb3_scores_compute(fb3_scores *scores, const float *truth, const float *pred, int64_t n, int targets)
{
    fb3_score_sums sums = {.targets = targets};
    fb3_score_sums_add(&sums, truth, pred, n);
    fb3_scores_of(scores, &sums);
    scores->loss = NAN;
}

void fb3_pearson(double *r, double *mean, const float *truth, const float *pred, int64_t n, int targets)
{
    *mean = 0;
    for (int y = 0; y < targets; y++) {
        double st = 0, sp = 0, tt = 0, pp = 0, tp = 0;
        for (int64_t i = 0; i < n; i++) {
            st += truth[i * targets + y];
            sp += pred[i * targets + y];
        }
        for (int64_t i = 0; i < n; i++) {
            double t = truth[i * targets + y] - st / (double)n, p = pred[i * targets + y] - sp / (double)n;
            tt += t * t;
            pp += p * p;
            tp += t * p;
        }
        r[y] = tt > 0 && pp > 0 ? tp / sqrt(tt * pp) : NAN;
        *mean += r[y] / targets;
    }
}

void fb3_metric_name(char *name, size_t bytes, const char *target)
{
    snprintf(name, bytes, "%s_RMSE", target);
    for (char *c = name; *c; c++) *c = (char)toupper((unsigned char)*c);
}
