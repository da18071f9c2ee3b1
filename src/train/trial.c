/* A replica with random weights and one made-up batch, to measure training steps without data. */
#include "fb3/train.h"

#include <stdlib.h>
#include <string.h>

enum { ACTIVE_WORDS = 14000, TARGETS = 6 }; /* as real essays have: DESIGN 3 */

/* Tokens of 16 of 2,057 real essays, at equal distances in the sorted list, cut at 512. */
static const int essay_length[] = {186, 238, 277, 307, 337, 373, 401, 430, 461, 492, 512, 512, 512, 512, 512, 512};
enum { ESSAY_LENGTHS = sizeof essay_length / sizeof *essay_length };

static int length_of(const fb3_config *config, int sequence, int sequences, int max_length)
{
    if (config->full_length) return max_length;
    int length = essay_length[(2 * sequence + 1) * ESSAY_LENGTHS / (2 * sequences)];
    return length < max_length ? length : max_length;
}

/* Words that are spread over the table and repeat; positions sorted by word, as fb3_batch promises. */
static fb3_status fill_words(fb3_batch *batch, int active)
{
    int *count = calloc((size_t)active + 1, sizeof *count);
    FB3_REQUIRE(count, FB3_FAILED, "out of memory for a made-up batch");
    for (int t = 0; t < batch->T; t++) {
        batch->ids[t] = (int32_t)((uint32_t)t * 2654435761u % (uint32_t)active);
        count[batch->ids[t] + 1]++;
    }
    for (int id = 0; id < active; id++) {
        if (count[id + 1] > 0) {
            batch->id_start[batch->U] = count[id];
            batch->id_value[batch->U++] = id;
        }
        count[id + 1] += count[id];
    }
    batch->id_start[batch->U] = batch->T;
    for (int t = 0; t < batch->T; t++) batch->by_id[count[batch->ids[t]]++] = t;
    free(count);
    return FB3_OK;
}

static fb3_status make_batch(fb3_trial *trial, int sequences, int max_length)
{
    int tokens = 0;
    for (int b = 0; b < sequences; b++) tokens += length_of(trial->session->config, b, sequences, max_length);
    FB3_TRY(fb3_batch_create(&trial->batch, tokens, sequences, TARGETS));
    fb3_batch *batch = trial->batch;
    batch->T = tokens;
    batch->B = sequences;
    batch->seq_start[0] = 0;
    for (int b = 0; b < sequences; b++) {
        int n = length_of(trial->session->config, b, sequences, max_length), start = batch->seq_start[b];
        batch->seq_start[b + 1] = start + n;
        batch->sample[b] = (uint32_t)b;
        if (n > batch->max_len) batch->max_len = n;
        for (int t = start; t < start + n; t++) batch->token_seq[t] = b;
        for (int y = 0; y < TARGETS; y++) batch->targets[b * TARGETS + y] = 1.0f + 0.5f * (float)((b + y) % 9);
    }
    return fill_words(batch, trial->table->active);
}

static fb3_status upload_random(fb3_trial *trial, uint64_t seed)
{
    fb3_weights weights;
    uint32_t *all = malloc((size_t)trial->table->active * sizeof *all);
    FB3_REQUIRE(all, FB3_FAILED, "out of memory for random weights");
    for (int id = 0; id < trial->table->active; id++) all[id] = (uint32_t)id;
    fb3_status status = fb3_weights_alloc(&weights, trial->table);
    if (status == FB3_OK) {
        fb3_weights_random(&weights, trial->table, seed);
        fb3_weights_gather_word(&weights, trial->table, all);
        status = fb3_replica_upload(&trial->replica, weights.arena);
        fb3_weights_free(&weights);
    }
    free(all);
    return status;
}

fb3_status fb3_trial_open(fb3_trial *trial, fb3_session *session, const fb3_model_config *model, int sequences,
                          int max_length)
{
    fb3_status status = FB3_OK;
    fb3_model_config small = *model;
    if (small.vocab > ACTIVE_WORDS) small.vocab = ACTIVE_WORDS; /* the whole table is the active one */
    *trial = (fb3_trial){.session = session};
    FB3_TRY_GOTO(fb3_param_table_create(&trial->table, &small, small.vocab, TARGETS), failed);
    FB3_TRY_GOTO(make_batch(trial, sequences, max_length), failed);
    FB3_TRY_GOTO(fb3_replica_open(&trial->replica, session, trial->table, trial->batch->T, sequences,
                                  trial->batch->max_len, fb3_training_mode(session->config)),
                 failed);
    FB3_TRY_GOTO(upload_random(trial, (uint64_t)session->config->seed), failed);
    FB3_TRY_GOTO(fb3_optimizer_create(&trial->optimizer, session->backend, trial->table, &trial->replica.arenas,
                                      session->config),
                 failed);
    FB3_TRY_GOTO(fb3_session_reducer(session, &trial->reducer), failed);
    return FB3_OK;
failed:
    fb3_trial_close(trial);
    return status;
}

void fb3_trial_close(fb3_trial *trial)
{
    fb3_optimizer_free(trial->optimizer);
    fb3_replica_close(&trial->replica);
    fb3_batch_free(trial->batch);
    fb3_param_table_free(trial->table);
    *trial = (fb3_trial){0};
}

static fb3_status post_all_reduce(void *context, int64_t offset, int64_t count)
{
    fb3_trial *trial = context;
    return trial->reducer->ops->start(trial->reducer, trial->replica.arenas.grad + offset, count);
}

static fb3_status move_communication_on(void *context)
{
    fb3_trial *trial = context;
    return trial->reducer->ops->poll(trial->reducer);
}

/* The steps of step.c without what needs a run: data, a schedule, stop signals. */
fb3_status fb3_trial_step(fb3_trial *trial, double *seconds)
{
    const fb3_config *config = trial->session->config;
    const fb3_batch *batch = trial->batch;
    fb3_backend *be = trial->session->backend;
    fb3_deberta *model = trial->replica.model;
    double sums[FB3_LOSS_SUMS(TARGETS)] = {0}, norm, started = fb3_seconds();
    fb3_dropout_rates rates = {.head = (float)config->head_dropout};
    fb3_model_hooks hooks = {.context = trial, .grads_ready = post_all_reduce, .poll = move_communication_on};
    uint32_t step = (uint32_t)trial->steps++;

    FB3_TRY(fb3_optimizer_zero_grad(trial->optimizer));
    FB3_TRY(fb3_deberta_load(model, batch));
    FB3_TRY(fb3_deberta_forward(model, &rates, fb3_rng_key_make(1, 0), step));
    FB3_TRY(fb3_deberta_loss_begin(model));
    FB3_TRY(fb3_deberta_loss_add(model, config->loss_type, (float)config->smooth_l1_beta));
    if (config->loss_type == FB3_LOSS_MCRMSE)
        FB3_TRY(trial->reducer->ops->sum_double(trial->reducer, fb3_deberta_loss_sums(model), FB3_LOSS_SUMS(TARGETS)));
    FB3_TRY(fb3_deberta_backward(model, config->loss_type, (float)config->smooth_l1_beta,
                                 (int64_t)batch->B * trial->session->size, &hooks));
    FB3_TRY(trial->reducer->ops->wait(trial->reducer, trial->steps));
    FB3_TRY(fb3_optimizer_step(trial->optimizer, config->learning_rate, trial->steps));
    FB3_TRY(fb3_deberta_loss_fetch(model, sums));
    FB3_TRY(be->ops->sync(be));
    FB3_TRY(fb3_optimizer_outcome(trial->optimizer, &norm));
    *seconds = fb3_seconds() - started;
    return FB3_OK;
}

double fb3_step_flops(const fb3_model_config *model, const int32_t *seq_start, int sequences)
{
    const double C = model->hidden, F = model->intermediate, L = model->layers, P = fb3_model_rel_rows(model);
    double weights = L * (4 * C * C + 2 * C * F), pairs = 0, tokens = seq_start[sequences];
    for (int b = 0; b < sequences; b++) {
        double n = seq_start[b + 1] - seq_start[b];
        pairs += n * n + n * P; /* of tokens, and of tokens and rows of the position table */
    }
    const double passes = 3; /* forward, and twice as much backward */
    return passes * (2 * weights * tokens + 4 * C * L * pairs);
}
