/* Predictions for many samples, shared out over the ranks.
 *
 * Samples go in the order of their lengths, longest first, to the ranks in turn: equal counts, nearly equal costs, and
 * batches of like lengths. In a run that is reproducible whole batches of a constant size are dealt, because what else
 * is in a sample's batch may change the last bits of its prediction. The plan follows from the lengths alone, so the
 * root knows where each prediction belongs without being told. */
#include "fb3/train.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* This rank's part of the work: positions into the caller's rows. */
typedef struct share {
    int64_t *position; /* [n] all positions, longest first, in runs of `together`; rank r has run r, r + size, ... */
    int64_t n;         /* of all ranks */
    int rank, size, together;
    bool whole_runs; /* a run is a batch */
} share;

static int64_t share_count(const share *s, int rank)
{
    const int64_t runs = s->n / s->together, rest = s->n % s->together; /* whole runs; what is in the one after them */
    return (runs - rank + s->size - 1) / s->size * s->together + (runs % s->size == rank ? rest : 0);
}
static int64_t share_position(const share *s, int rank, int64_t i)
{
    return s->position[(rank + i / s->together * s->size) * s->together + i % s->together];
}

/* Counting sort by length, stable: equal lengths stay in the order of the rows. */
static fb3_status sort_by_length(share *s, const fb3_dataset *dataset, const int32_t *rows)
{
    int longest = dataset->max_length;
    int64_t *start = calloc((size_t)longest + 2, sizeof *start);
    s->position = calloc((size_t)(s->n > 0 ? s->n : 1), sizeof *s->position);
    if (!start || !s->position) {
        free(start);
        return fb3_fail(FB3_FAILED, "out of memory for the evaluation of %lld samples", (long long)s->n);
    }
    for (int64_t i = 0; i < s->n; i++) start[longest - fb3_dataset_length(dataset, rows[i]) + 1]++;
    for (int l = 0; l <= longest; l++) start[l + 1] += start[l];
    for (int64_t i = 0; i < s->n; i++) s->position[start[longest - fb3_dataset_length(dataset, rows[i])]++] = i;
    free(start);
    return FB3_OK;
}

/* The most of this rank's samples from `first` on that make a batch: a limit on sequences and on tokens. */
static int batch_size(const fb3_replica *replica, const fb3_dataset *dataset, const int32_t *rows, const share *s,
                      int64_t first)
{
    int64_t count = share_count(s, s->rank), tokens = 0;
    int taken = 0;
    if (s->whole_runs) return (int)(count - first < s->together ? count - first : s->together);
    while (first + taken < count && taken < replica->max_sequences) {
        tokens += fb3_dataset_length(dataset, rows[share_position(s, s->rank, first + taken)]);
        if (taken > 0 && tokens > replica->max_tokens) break;
        taken++;
    }
    return taken;
}

static fb3_status submit(fb3_prefetch *prefetch, const int32_t *rows, const share *s, int64_t first, int count,
                         int64_t *scratch)
{
    for (int i = 0; i < count; i++) scratch[i] = rows[share_position(s, s->rank, first + i)];
    return fb3_prefetch_submit(prefetch, scratch, count);
}

/* pred [count, Y] and pooled [count, C] of this rank's samples, in the order of its share. */
static fb3_status predict_share(fb3_replica *replica, const fb3_dataset *dataset, const fb3_vocabulary *vocabulary,
                                const int32_t *rows, const share *s, float *pred, float *pooled)
{
    fb3_status status = FB3_OK;
    int64_t count = share_count(s, s->rank);
    fb3_prefetch *prefetch = NULL;
    const fb3_batch *batch;
    int64_t *scratch = malloc((size_t)replica->max_sequences * sizeof *scratch);
    FB3_REQUIRE(scratch, FB3_FAILED, "out of memory for the evaluation");
    FB3_TRY_GOTO(fb3_prefetch_open(&prefetch, replica->session->io, dataset, vocabulary, replica->max_tokens,
                                   replica->max_sequences),
                 done);
    int next = batch_size(replica, dataset, rows, s, 0);
    if (next > 0) FB3_TRY_GOTO(submit(prefetch, rows, s, 0, next, scratch), done);
    for (int64_t first = 0; first < count;) {
        int size = next;
        int64_t after = first + size;
        FB3_TRY_GOTO(fb3_prefetch_take(prefetch, &batch), done);
        next = batch_size(replica, dataset, rows, s, after);
        if (next > 0) FB3_TRY_GOTO(submit(prefetch, rows, s, after, next, scratch), done);
        FB3_TRY_GOTO(fb3_deberta_load(replica->model, batch), done);
        FB3_TRY_GOTO(fb3_deberta_forward(replica->model, NULL, (fb3_rng_key){0}, 0), done);
        FB3_TRY_GOTO(fb3_deberta_predictions(replica->model, pred + first * replica->table->targets), done);
        if (pooled) {
            FB3_TRY_GOTO(fb3_deberta_pooled(replica->model, pooled + first * replica->table->model.hidden), done);
        }
        first = after;
    }
done:
    fb3_prefetch_close(prefetch);
    free(scratch);
    return status;
}

/* Gathers [n, width] on the root and puts each row where it belongs. */
static fb3_status gather(fb3_comm *comm, const share *s, const float *mine, int width, float *out)
{
    fb3_status status = FB3_OK;
    bool root = s->rank == 0;
    int64_t *counts = malloc((size_t)s->size * sizeof *counts);
    float *all = root ? malloc((size_t)(s->n > 0 ? s->n : 1) * (size_t)width * sizeof *all) : NULL;
    FB3_REQUIRE_GOTO(counts && (all || !root), done, FB3_FAILED, "out of memory for %lld predictions", (long long)s->n);
    for (int r = 0; r < s->size; r++) counts[r] = share_count(s, r) * width;
    FB3_TRY_GOTO(fb3_comm_gather_floats(comm, mine, all, counts, 0, "gathering predictions"), done);
    if (!root) goto done;
    const float *from = all;
    for (int r = 0; r < s->size; r++) {
        for (int64_t i = 0; i < share_count(s, r); i++, from += width) {
            memcpy(out + share_position(s, r, i) * width, from, (size_t)width * sizeof *out);
        }
    }
done:
    free(counts);
    free(all);
    return status;
}

fb3_status fb3_evaluate_rows(fb3_replica *replica, const fb3_dataset *dataset, const fb3_vocabulary *vocabulary,
                             const int32_t *rows, int64_t n, float *pred, float *pooled)
{
    fb3_status status = FB3_OK;
    fb3_session *session = replica->session;
    int targets = replica->table->targets, hidden = replica->table->model.hidden;
    const fb3_config *config = session->config;
    share s = {.n = n,
               .rank = session->rank,
               .size = session->size,
               .together = config->reproducible ? (int)config->per_device_eval_batch_size : 1,
               .whole_runs = config->reproducible};
    size_t count = (size_t)share_count(&s, s.rank) + 1;
    float *my_pred = malloc(count * (size_t)targets * sizeof *my_pred);
    float *my_pooled = pooled ? malloc(count * (size_t)hidden * sizeof *my_pooled) : NULL;
    FB3_REQUIRE_GOTO(my_pred && (my_pooled || !pooled), done, FB3_FAILED, "out of memory for predictions");
    FB3_TRY_GOTO(sort_by_length(&s, dataset, rows), done);
    FB3_TRY_GOTO(predict_share(replica, dataset, vocabulary, rows, &s, my_pred, my_pooled), done);
done:
    status = fb3_comm_agree(session->comm, status, "evaluation");
    assert(status != FB3_OK || s.position);
    if (status == FB3_OK) status = gather(session->comm, &s, my_pred, targets, pred);
    if (status == FB3_OK && pooled) status = gather(session->comm, &s, my_pooled, hidden, pooled);
    free(s.position);
    free(my_pred);
    free(my_pooled);
    return status;
}
