#include "fb3/scores_json.h"

#include <math.h>
#include <stdio.h>

json_t *fb3_json_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static void set(json_t *object, const char *prefix, const char *name, double value)
{
    char key[160];
    snprintf(key, sizeof key, "%s%s", prefix, name);
    json_object_set_new(object, key, fb3_json_number(value));
}

void fb3_json_set_scores(json_t *object, const char *prefix, double mcrmse, const double *rmse,
                         const fb3_strings *targets)
{
    if (!object) return;
    set(object, prefix, "MCRMSE", mcrmse);
    for (int y = 0; y < targets->count; y++) {
        char name[128];
        fb3_metric_name(name, sizeof name, targets->item[y]);
        set(object, prefix, name, rmse[y]);
    }
}
