/* Learning-rate schedules: lambda(s) for the optimizer step s = 0, 1, ..., as transformers' optimization.py defines
 * get_{linear,cosine,constant,constant_with_warmup,polynomial}_schedule. With warm-up the first step has rate 0. */
#include "fb3/optim.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

/* transformers' defaults of lr_scheduler_kwargs */
static const double default_num_cycles = 0.5;
static const double default_power = 1.0;
static const double default_lr_end = 1e-7;

static int64_t warmup_steps(const fb3_config *config, int64_t total_steps)
{
    if (config->warmup_steps >= 1) return (int64_t)config->warmup_steps;
    double share = config->warmup_steps > 0 ? config->warmup_steps : config->warmup_ratio;
    return (int64_t)ceil(share * (double)total_steps);
}

/* Which arguments each schedule takes. */
static bool takes(fb3_scheduler kind, const char *key)
{
    if (strcmp(key, "num_cycles") == 0) return kind == FB3_SCHEDULER_COSINE;
    if (strcmp(key, "power") == 0 || strcmp(key, "lr_end") == 0) return kind == FB3_SCHEDULER_POLYNOMIAL;
    return false;
}

static fb3_status read_arguments(fb3_schedule *schedule, double *lr_end, const char *text)
{
    fb3_status status = FB3_OK;
    json_error_t error;
    const char *key;
    json_t *value, *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    FB3_REQUIRE_GOTO(json_is_object(root), done, FB3_INPUT,
                     "lr_scheduler_kwargs is not a JSON object: %s; write it like {\"power\": 2.0}", text);
    json_object_foreach(root, key, value)
    {
        FB3_REQUIRE_GOTO(takes(schedule->kind, key), done, FB3_INPUT,
                         "lr_scheduler_kwargs: this lr_scheduler_type takes no '%s'; cosine takes num_cycles, "
                         "polynomial takes power and lr_end",
                         key);
        FB3_REQUIRE_GOTO(json_is_number(value), done, FB3_INPUT, "lr_scheduler_kwargs: '%s' is not a number", key);
        double number = json_number_value(value);
        if (strcmp(key, "num_cycles") == 0) schedule->num_cycles = number;
        if (strcmp(key, "power") == 0) schedule->power = number;
        if (strcmp(key, "lr_end") == 0) *lr_end = number;
    }
done:
    json_decref(root);
    return status;
}

fb3_status fb3_schedule_make(fb3_schedule *schedule, const fb3_config *config, int64_t total_steps)
{
    fb3_schedule made = {.kind = config->lr_scheduler_type,
                         .warmup_steps = warmup_steps(config, total_steps),
                         .total_steps = total_steps,
                         .power = default_power,
                         .num_cycles = default_num_cycles};
    double lr_end = default_lr_end;
    if (config->lr_scheduler_kwargs) FB3_TRY(read_arguments(&made, &lr_end, config->lr_scheduler_kwargs));
    if (made.kind == FB3_SCHEDULER_POLYNOMIAL) {
        FB3_REQUIRE(config->learning_rate > lr_end, FB3_INPUT,
                    "lr_end %g of the polynomial schedule is not below learning_rate %g; lower it in "
                    "lr_scheduler_kwargs",
                    lr_end, config->learning_rate);
        made.lr_end_ratio = lr_end / config->learning_rate;
    }
    *schedule = made;
    return FB3_OK;
}

static double at_least_one(double x)
{
    return x > 1.0 ? x : 1.0;
}

double fb3_schedule_factor(const fb3_schedule *schedule, int64_t step)
{
    const double s = (double)step, warmup = (double)schedule->warmup_steps, total = (double)schedule->total_steps;
    if (schedule->kind == FB3_SCHEDULER_CONSTANT) return 1.0;
    if (s < warmup) return s / at_least_one(warmup);

    const double progress = (s - warmup) / at_least_one(total - warmup); // 0 after warm-up, 1 at the end
    switch (schedule->kind) {
    case FB3_SCHEDULER_LINEAR:
        return fmax(0.0, (total - s) / at_least_one(total - warmup));
    case FB3_SCHEDULER_COSINE:
        return fmax(0.0, 0.5 * (1.0 + cos(M_PI * schedule->num_cycles * 2.0 * progress)));
    case FB3_SCHEDULER_POLYNOMIAL:
        if (s > total) return schedule->lr_end_ratio;
        return (1.0 - schedule->lr_end_ratio) * pow(1.0 - progress, schedule->power) + schedule->lr_end_ratio;
    case FB3_SCHEDULER_CONSTANT:
    case FB3_SCHEDULER_CONSTANT_WITH_WARMUP:
        break;
    }
    return 1.0;
}
