/* Scores and losses of tables on the host: those of a whole evaluation, where the model has those of a batch
 * (src/model/loss.c). */
#include "fb3/metrics.h"

#include "fb3/element_loss.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void fb3_score_sums_add(fb3_score_sums *sums, const float *truth, const float *pred, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        for (int y = 0; y < sums->targets; y++) {
            double d = (double)pred[i * sums->targets + y] - truth[i * sums->targets + y];
            sums->squared[y] += d * d;
            sums->loss += fb3_element_loss(d, sums->loss_type, sums->smooth_l1_beta);
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
        mcrmse_loss += fb3_column_rmse(sums->squared[y], n);
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
