/* A step whose gradient is not finite is skipped, and somebody wants to know why: the first parameter whose gradient is
 * not a number, and the samples whose loss is not, by the weights that the step began with (skipping has kept them). */
#include "fold_run.h"

#include "fb3/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Samples that a line names. */
enum { NAMED_MAX = 8 };

/* Which parameters' gradients are not finite: *first and how many; or *beyond: how many values do not fit fixed point.
 */
typedef struct culprits {
    const fb3_param *first;
    int parameters;
    int64_t beyond;
} culprits;

static fb3_status find_parameters(const fb3_replica *replica, culprits *found)
{
    fb3_backend *be = replica->session->backend;
    const fb3_param_table *table = replica->table;
    int64_t *count_device, count, zero = 0;
    fb3_status status = FB3_OK;
    if (replica->fixed)
        FB3_TRY(be->ops->download(be, &found->beyond, replica->fixed + table->size, sizeof found->beyond));
    if (found->beyond > 0) return FB3_OK;
    FB3_TRY(be->ops->alloc(be, (void **)&count_device, sizeof *count_device));
    for (int i = 0; status == FB3_OK && i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        FB3_TRY_GOTO(be->ops->upload(be, count_device, &zero, sizeof zero), done);
        FB3_TRY_GOTO(
            be->ops->count_nonfinite(be, count_device, replica->arenas.grad + param->offset, FB3_F32, param->count),
            done);
        FB3_TRY_GOTO(be->ops->download(be, &count, count_device, sizeof count), done);
        if (count == 0) continue;
        if (found->parameters++ == 0) found->first = param;
    }
done:
    be->ops->free(be, count_device);
    return status;
}

/* --- samples: labels and ids are read by the I/O worker, which owns HDF5 ------------------------------------------ */

typedef struct sample_search {
    const fb3_dataset *data;
    const int64_t *rows; // [n]
    const float *pred;   // [n, Y]
    int64_t n;
    int found;          /* samples whose loss is not finite */
    char names[512];    /* of the first of them */
    fb3_loss_kind loss; /* as floats compute it */
} sample_search;

static bool loss_is_finite(const sample_search *s, const float *pred, const float *truth)
{
    for (int y = 0; y < s->data->targets; y++) {
        const float difference = pred[y] - truth[y];
        const bool squared = s->loss == FB3_LOSS_MSE || s->loss == FB3_LOSS_RMSE || s->loss == FB3_LOSS_MCRMSE;
        if (!isfinite(squared ? difference * difference : difference)) return false;
    }
    return true;
}

static fb3_status add_name(sample_search *s, int64_t row)
{
    fb3_strings id = {0};
    const size_t used = strlen(s->names);
    if (s->found++ >= NAMED_MAX) return FB3_OK;
    FB3_TRY(fb3_dataset_read_ids(s->data, &row, 1, &id));
    snprintf(s->names + used, sizeof s->names - used, "%s%.48s", used ? ", " : "", id.item[0]);
    fb3_strings_free(&id);
    return FB3_OK;
}

static fb3_status search_samples(void *context)
{
    sample_search *s = context;
    for (int64_t i = 0; i < s->n; i++) {
        float truth[FB3_MAX_TARGETS];
        FB3_TRY(fb3_dataset_read_labels(s->data, &s->rows[i], 1, truth));
        if (!loss_is_finite(s, s->pred + i * s->data->targets, truth)) FB3_TRY(add_name(s, s->rows[i]));
    }
    return FB3_OK;
}

/* Collective: the ranks share the forward passes. The root's `s` is filled. */
static fb3_status find_samples(fb3_fold_run *f, const fb3_step_plan *plan, sample_search *s)
{
    const fb3_run *run = f->run;
    fb3_status status = FB3_OK;
    const int64_t n = plan->samples;
    int32_t *rows = malloc((size_t)n * sizeof *rows);
    float *pred = malloc((size_t)n * (size_t)run->data->targets * sizeof *pred);
    FB3_REQUIRE_GOTO(rows && pred, done, FB3_FAILED, "out of memory for the samples of a step");
    for (int64_t i = 0; i < n; i++) rows[i] = (int32_t)plan->rows[i];
    FB3_TRY_GOTO(fb3_evaluate_rows(&f->replica, run->data, &run->vocabulary, rows, n, pred, NULL), done);
    *s = (sample_search){.data = run->data, .rows = plan->rows, .pred = pred, .n = n, .loss = run->config->loss_type};
    if (f->is_writer) status = fb3_worker_run(run->session->io, search_samples, s);
done:
    status = fb3_comm_agree(run->session->comm, status, "looking for the samples of a step that is not finite");
    free(rows);
    free(pred);
    return status;
}

fb3_status fb3_fold_report_nonfinite(fb3_fold_run *f, const fb3_step_plan *plan)
{
    culprits found = {0};
    sample_search s = {0};
    char where[256], who[640] = "its samples have finite losses";
    FB3_TRY(find_parameters(&f->replica, &found));
    FB3_TRY(find_samples(f, plan, &s));
    if (!f->is_writer) return FB3_OK;
    if (found.beyond > 0)
        snprintf(where, sizeof where, "%lld values of it do not fit fixed point (reproducible)",
                 (long long)found.beyond);
    else
        snprintf(where, sizeof where, "first that of %s; of %d parameters in all",
                 found.first ? found.first->name : "no parameter", found.parameters);
    if (s.found > 0)
        snprintf(who, sizeof who, "samples whose loss is not finite: %s%s", s.names,
                 s.found > NAMED_MAX ? ", ..." : "");
    fb3_log_warn("step %lld of fold %d is skipped: its gradient is not finite, %s; %s", (long long)f->trainer.step,
                 f->fold, where, who);
    return FB3_OK;
}
