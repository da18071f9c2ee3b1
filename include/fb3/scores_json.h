/* Numbers and scores as JSON, under the names that they have wherever a user meets them. */
#ifndef FB3_SCORES_JSON_H
#define FB3_SCORES_JSON_H

#include "fb3/metrics.h"

#include <jansson.h>

/* JSON has no NaN: null says that there is no such number. A new reference. */
json_t *fb3_json_number(double x);
/* Sets "<prefix>MCRMSE" and "<prefix><TARGET>_RMSE" of each target. NULL is left alone. rmse [Y]. */
void fb3_json_set_scores(json_t *object, const char *prefix, double mcrmse, const double *rmse,
                         const fb3_strings *targets);

#endif
