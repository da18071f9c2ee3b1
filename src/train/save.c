/* The checkpoints of a fold: when each is written is trainer.c's business; what is in it, and how a fold starts from
 * one, is here. Only the writer touches files; every rank hears how it went. */
#include "fold_run.h"

#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/trace.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What save_total_limit counts, as Hugging Face's checkpoint-<step> folders. */
#define HISTORY_NAME "checkpoint-%lld.h5"

/* What the I/O worker is asked to write. */
typedef struct save_request {
    fb3_fold_run *f;
    const char *path, *previous;
    bool optimizer;
} save_request;

/* Host views of the arenas and an up-to-date word table. On the main thread: it may download from the device. */
static fb3_status refresh_host(fb3_fold_run *f, bool optimizer, fb3_weights *weights, float **m, float **v)
{
    fb3_fold_writer *w = &f->writer;
    fb3_replica *replica = &f->replica;
    const uint32_t *active = f->run->vocabulary.active;
    weights->word_full = w->word_full;
    *m = *v = NULL;
    FB3_TRY(fb3_replica_host(replica, replica->arenas.param, &w->staging[0], &weights->arena));
    if (optimizer) {
        FB3_TRY(fb3_replica_host(replica, replica->arenas.m, &w->staging[1], m));
        FB3_TRY(fb3_replica_host(replica, replica->arenas.v, &w->staging[2], v));
    }
    fb3_optimizer_replay_inactive(f->trainer.optimizer, w->word_full, active);
    fb3_weights_scatter_word(weights, f->run->table, active);
    return FB3_OK;
}

typedef struct write_job {
    const save_request *request;
    fb3_weights weights;
    float *m, *v;
} write_job;

static fb3_status write_checkpoint(void *context)
{
    const write_job *job = context;
    const fb3_run *run = job->request->f->run;
    size_t spm_bytes;
    const void *spm = fb3_tokenizer_model(run->tokenizer, &spm_bytes);
    return fb3_checkpoint_write(job->request->path, job->request->previous, run->table, &job->weights, job->m, job->v,
                                run->vocabulary.active, spm, spm_bytes, &job->request->f->state);
}

static fb3_status write_as_writer(const save_request *request)
{
    fb3_fold_run *f = request->f;
    write_job job = {.request = request};
    FB3_TRY(refresh_host(f, request->optimizer, &job.weights, &job.m, &job.v));
    fb3_comm_watch_begin(f->run->session->comm, "writing a checkpoint", f->state.step);
    fb3_status status = fb3_worker_run(f->run->session->io, write_checkpoint, &job);
    fb3_comm_watch_end(f->run->session->comm);
    return status;
}

static fb3_status save(fb3_fold_run *f, const char *name, const char *previous_name, bool optimizer)
{
    fb3_status mine = FB3_OK;
    double begin = fb3_trace_begin();
    if (f->is_writer) {
        char *path = fb3_run_fold_path(f->run, f->fold, name);
        char *previous = previous_name ? fb3_run_fold_path(f->run, f->fold, previous_name) : NULL;
        save_request request = {.f = f, .path = path, .previous = previous, .optimizer = optimizer};
        mine = path && (previous || !previous_name) ? write_as_writer(&request) : fb3_fail(FB3_FAILED, "out of memory");
        if (mine == FB3_OK) {
            fb3_checkpoint_record record = {
                .fold = f->fold, .step = f->state.step, .path = name, .best = strcmp(name, "best.h5") == 0};
            mine = fb3_track_artifact(&f->writer.track, &record);
        }
        free(path);
        free(previous);
    }
    fb3_trace_end(begin, "io", "write a checkpoint", "step", (double)f->state.step);
    return fb3_comm_agree(f->run->session->comm, mine, "writing a checkpoint");
}

/* Removes checkpoint-<step>.h5 files of this fold, oldest first, until `limit` are left. */
static fb3_status trim_history(const fb3_fold_run *f, int64_t limit)
{
    char *folder = fb3_run_fold_path(f->run, f->fold, NULL);
    FB3_REQUIRE(folder, FB3_FAILED, "out of memory");
    for (;;) {
        int64_t count = 0;
        long long oldest = LLONG_MAX;
        DIR *entries = opendir(folder);
        for (struct dirent *entry; entries && (entry = readdir(entries));) {
            long long step;
            int end = 0;
            if (sscanf(entry->d_name, HISTORY_NAME "%n", &step, &end) < 1 || end == 0 || entry->d_name[end]) continue;
            count++;
            if (step < oldest) oldest = step;
        }
        if (entries) closedir(entries);
        char *path = count > limit ? fb3_format("%s/" HISTORY_NAME, folder, oldest) : NULL;
        if (!path) break;
        fb3_checkpoint_remove(path);
        free(path);
    }
    free(folder);
    return FB3_OK;
}

/* save_total_limit above 1: last.h5 keeps a second name by its step, so that older ones stay when it is replaced. */
static fb3_status keep_history(const fb3_fold_run *f)
{
    int64_t limit = f->run->config->save_total_limit;
    if (!f->is_writer || limit <= 1) return FB3_OK;
    char *last = fb3_run_fold_path(f->run, f->fold, "last.h5"),
         *name = fb3_format(HISTORY_NAME, (long long)f->state.step);
    char *second = name ? fb3_run_fold_path(f->run, f->fold, name) : NULL;
    fb3_status status = last && second ? fb3_checkpoint_link(last, second) : fb3_fail(FB3_FAILED, "out of memory");
    free(last);
    free(name);
    free(second);
    FB3_TRY(status);
    return trim_history(f, limit);
}

fb3_status fb3_fold_save_last(fb3_fold_run *f, bool optimizer)
{
    FB3_TRY(save(f, "last.h5", "previous.h5", optimizer));
    return fb3_comm_agree(f->run->session->comm, keep_history(f), "keeping older checkpoints");
}
fb3_status fb3_fold_save_best(fb3_fold_run *f)
{
    return save(f, "best.h5", NULL, false);
}
fb3_status fb3_fold_save_initial(fb3_fold_run *f)
{
    return save(f, "initial.h5", NULL, false);
}

fb3_status fb3_fold_save_complete(fb3_fold_run *f)
{
    f->state.fold_complete = 1;
    FB3_TRY(save(f, "last.h5", NULL, false));
    if (!f->is_writer) return FB3_OK;
    char *previous = fb3_run_fold_path(f->run, f->fold, "previous.h5");
    FB3_REQUIRE(previous, FB3_FAILED, "out of memory");
    fb3_checkpoint_remove(previous);
    free(previous);
    return FB3_OK;
}

/* --- restoring ---------------------------------------------------------------------------------------------------- */

static fb3_status same_hash(const char *stored, const char *now, const char *what, const char *cure)
{
    FB3_REQUIRE(strcmp(stored, now) == 0, FB3_INPUT, "the checkpoint was made with other %s; %s", what, cure);
    return FB3_OK;
}

static fb3_status check_continues(const fb3_fold_run *f, const fb3_checkpoint *checkpoint)
{
    const fb3_run *run = f->run;
    const fb3_checkpoint_state *state = fb3_checkpoint_state_of(checkpoint);
    static const char *const CURE = "continue with the same files, or start in another output_dir";
    FB3_TRY(same_hash(state->data_sha256, run->data->source_sha256, "data", CURE));
    FB3_TRY(same_hash(state->tokenizer_sha256, run->data->tokenizer_sha256, "tokenizer", CURE));
    FB3_TRY(same_hash(state->weights_sha256, run->weights_sha256, "starting weights", CURE));
    FB3_REQUIRE(state->fold == f->fold, FB3_INPUT, "the checkpoint is of fold %d, not of fold %d", state->fold,
                f->fold);
    FB3_REQUIRE(state->total_steps == f->total_steps, FB3_INPUT,
                "the checkpoint is of a training of %lld steps, and this one has %lld; %s",
                (long long)state->total_steps, (long long)f->total_steps, CURE);
    FB3_REQUIRE(fb3_checkpoint_has_optimizer(checkpoint), FB3_INPUT,
                "last.h5 was written with save_only_model: training cannot be continued from it; start in another "
                "output_dir");
    return FB3_OK;
}

/* The numbers of a state; its texts and hashes describe this run already. */
static void take_progress(fb3_checkpoint_state *to, const fb3_checkpoint_state *from)
{
    to->step = from->step;
    to->samples_seen = from->samples_seen;
    to->updates = from->updates;
    to->epoch = from->epoch;
    to->best_metric = from->best_metric;
    to->best_step = from->best_step;
    to->patience_used = from->patience_used;
    to->nonfinite_in_a_row = from->nonfinite_in_a_row;
}

/* On the writer: host weights and moments of where this fold stands. *m stays NULL at a fresh start. */
static fb3_status load_as_writer(fb3_fold_run *f, fb3_weights *weights, float **m, float **v)
{
    fb3_run *run = f->run;
    fb3_status status = FB3_OK;
    fb3_checkpoint *checkpoint = NULL;
    size_t bytes = (size_t)run->table->size * sizeof(float);
    char *last = fb3_run_fold_path(run, f->fold, "last.h5"), *previous = fb3_run_fold_path(run, f->fold, "previous.h5");
    FB3_REQUIRE_GOTO(last && previous, done, FB3_FAILED, "out of memory");
    if (run->config->resume == FB3_RESUME_PATH) {
        FB3_TRY_GOTO(fb3_checkpoint_open(&checkpoint, run->config->resume_path), done);
    } else {
        FB3_TRY_GOTO(fb3_checkpoint_open_newest(&checkpoint, last, previous), done);
    }
    if (!checkpoint) {
        FB3_TRY_GOTO(fb3_run_starting_weights(run, weights), done);
        goto done;
    }
    FB3_TRY_GOTO(check_continues(f, checkpoint), done);
    FB3_TRY_GOTO(fb3_weights_alloc(weights, run->table), done);
    FB3_TRY_GOTO(fb3_checkpoint_read_weights(checkpoint, run->table, weights), done);
    fb3_weights_gather_word(weights, run->table, run->vocabulary.active);
    *m = calloc(1, bytes);
    *v = calloc(1, bytes);
    FB3_REQUIRE_GOTO(*m && *v, done, FB3_FAILED, "out of memory for the optimizer's state");
    FB3_TRY_GOTO(fb3_checkpoint_read_moments(checkpoint, run->table, *m, *v, run->vocabulary.active), done);
    take_progress(&f->state, fb3_checkpoint_state_of(checkpoint));
    fb3_log_info("fold %d continues after step %lld of %lld", f->fold, (long long)f->state.step,
                 (long long)f->total_steps);
done:
    fb3_checkpoint_close(checkpoint);
    free(last);
    free(previous);
    return status;
}

/* Writer's host arena -> every rank's device. `host` is NULL on the others. */
static fb3_status spread(fb3_fold_run *f, float *host, float *arena)
{
    fb3_session *session = f->run->session;
    size_t bytes = (size_t)f->run->table->size * sizeof *host;
    float *copy = host ? host : malloc(bytes);
    FB3_REQUIRE(copy, FB3_FAILED, "out of memory for the weights");
    fb3_status status = fb3_comm_broadcast(session->comm, copy, bytes, 0, "spreading the weights");
    if (status == FB3_OK) {
        status = arena == f->replica.arenas.param ? fb3_replica_upload(&f->replica, copy)
                                                  : session->backend->ops->upload(session->backend, arena, copy, bytes);
    }
    if (!host) free(copy);
    return status;
}

fb3_status fb3_fold_restore(fb3_fold_run *f)
{
    fb3_comm *comm = f->run->session->comm;
    fb3_weights weights = {0};
    float *m = NULL, *v = NULL;
    fb3_status mine = f->is_writer ? load_as_writer(f, &weights, &m, &v) : FB3_OK;
    int64_t moments = m != NULL;
    fb3_checkpoint_state progress = f->state;
    fb3_status status = fb3_comm_agree(comm, mine, "loading the weights");
    if (status == FB3_OK) status = fb3_comm_broadcast(comm, &moments, sizeof moments, 0, "state of the fold");
    if (status == FB3_OK) status = fb3_comm_broadcast(comm, &progress, sizeof progress, 0, "state of the fold");
    if (status == FB3_OK) status = spread(f, weights.arena, f->replica.arenas.param);
    if (status == FB3_OK && moments) status = spread(f, m, f->replica.arenas.m);
    if (status == FB3_OK && moments) status = spread(f, v, f->replica.arenas.v);
    take_progress(&f->state, &progress); /* the pointers in it are the writer's: only numbers are taken */
    f->trainer.step = f->state.step;
    f->trainer.updates = f->state.updates;
    f->writer.word_full = weights.word_full;
    free(weights.arena);
    free(m);
    free(v);
    return status;
}
