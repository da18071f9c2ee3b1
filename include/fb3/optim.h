/* AdamW's schedule and bookkeeping. */
#ifndef FB3_OPTIM_H
#define FB3_OPTIM_H

#include "fb3/deberta.h"

typedef struct fb3_schedule {
    fb3_scheduler kind;
    int64_t warmup_steps, total_steps;
    double power, lr_end_ratio, num_cycles; /* lr_scheduler_kwargs: power, lr_end / learning_rate, num_cycles */
} fb3_schedule;

/* From the configuration: warm-up = warmup_steps, or ceil(share x total) for warmup_ratio and warmup_steps below 1. */
fb3_status fb3_schedule_make(fb3_schedule *schedule, const fb3_config *config, int64_t total_steps);
/* lambda(s) of transformers' get_*_schedule for the optimizer step s = 0, 1, ... */
double fb3_schedule_factor(const fb3_schedule *schedule, int64_t step);

typedef struct fb3_optimizer fb3_optimizer;

fb3_status fb3_optimizer_create(fb3_optimizer **optimizer, fb3_backend *backend, const fb3_param_table *table,
                                const fb3_arenas *arenas, const fb3_config *config);
void fb3_optimizer_free(fb3_optimizer *optimizer);

/* Queues the whole update: the global L2 norm of the (already reduced) gradient, clipping, AdamW with rate `lr`;
 * `update` = 1, 2, ... is AdamW's t. A gradient that is not finite changes nothing. */
fb3_status fb3_optimizer_step(fb3_optimizer *optimizer, double lr, int64_t update);
/* What came of it, after the backend's sync: the norm before clipping; not finite means that the step was skipped.
 * Records the decay factor of inactive word rows. */
fb3_status fb3_optimizer_outcome(fb3_optimizer *optimizer, double *norm);
fb3_status fb3_optimizer_zero_grad(fb3_optimizer *optimizer);

/* Applies, step by step, the recorded decay factors to the inactive rows of word_full and forgets them (DESIGN 3). */
void fb3_optimizer_replay_inactive(fb3_optimizer *optimizer, float *word_full, const uint32_t *active_ids);

#endif
