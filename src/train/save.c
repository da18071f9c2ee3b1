/* The checkpoints of a fold: when each is written is trainer.c's business; what is in it, and how a fold starts from
 * one, is here. Only the writer touches files; every rank hears how it went.
 *
 *   asked for -> COPYING -> WRITING -> settled
 *
 * Where the device has memory of its own, training goes on meanwhile: the arenas are copied to pinned memory of the
 * host behind the back of the next steps, then the I/O worker writes the file, giving way to the reading of batches. On
 * the CPU that would take a second copy of the arenas, a third more of the memory that training needs, so there a save
 * is settled at once and the file is written from the arenas themselves. */
#include "fold_run.h"

#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/run_directory.h"
#include "fb3/trace.h"

#include <assert.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What save_total_limit counts, as Hugging Face's checkpoint-<step> folders. */
#define HISTORY_NAME "checkpoint-%lld.h5"

/* Training goes on while a checkpoint is made. */
static bool goes_on(const fb3_fold_run *f)
{
    return !f->run->session->backend->ops->host_memory;
}

/* --- writing: on the I/O worker ----------------------------------------------------------------------------------- */

/* Removes checkpoint-<step>.h5 files of this fold, oldest first, until `limit` are left. */
static fb3_status trim_history(const fb3_fold_run *f, int64_t limit)
{
    char *folder = fb3_fold_path(f->run->config->output_dir, f->fold, NULL);
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
static fb3_status keep_history(const fb3_fold_run *f, const fb3_save_file *file, const char *path)
{
    int64_t limit = f->run->config->save_total_limit;
    if (!file->history || limit <= 1) return FB3_OK;
    char *name = fb3_format(HISTORY_NAME, (long long)file->state.step);
    char *second = name ? fb3_fold_path(f->run->config->output_dir, f->fold, name) : NULL;
    fb3_status status = second ? fb3_checkpoint_link(path, second) : fb3_fail(FB3_FAILED, "out of memory");
    free(name);
    free(second);
    FB3_TRY(status);
    return trim_history(f, limit);
}

static fb3_status write_file(const fb3_fold_run *f, const fb3_save_file *file, const fb3_weights *weights)
{
    const fb3_run *run = f->run;
    const fb3_fold_save *save = &f->save;
    fb3_status status = FB3_OK;
    double begin = fb3_trace_begin();
    fb3_checkpoint_content content = {.table = run->table,
                                      .weights = *weights,
                                      .m = file->optimizer ? save->m : NULL,
                                      .v = file->optimizer ? save->v : NULL,
                                      .active_ids = run->vocabulary.active,
                                      .state = &file->state};
    content.spm = fb3_tokenizer_model(run->tokenizer, &content.spm_bytes);
    char *path = fb3_fold_path(run->config->output_dir, f->fold, file->name);
    char *previous = file->previous ? fb3_fold_path(run->config->output_dir, f->fold, file->previous) : NULL;
    FB3_REQUIRE_GOTO(path && (previous || !file->previous), done, FB3_FAILED, "out of memory");
    FB3_TRY_GOTO(fb3_checkpoint_write(path, previous, &content, goes_on(f) ? run->session->io : NULL), done);
    FB3_TRY_GOTO(keep_history(f, file, path), done);
done:
    free(path);
    free(previous);
    fb3_trace_end(begin, "io", "write a checkpoint", "step", (double)file->state.step);
    return status;
}

static fb3_status write_files(fb3_fold_run *f)
{
    fb3_weights weights = {.arena = f->save.param, .word_full = f->writer.word_full};
    fb3_weights_scatter_word(&weights, f->run->table, f->run->vocabulary.active);
    for (int i = 0; i < f->save.files; i++) FB3_TRY(write_file(f, &f->save.file[i], &weights));
    return FB3_OK;
}

/* The job. f->save stays as it is until the job has finished. */
static fb3_status write_checkpoint(void *context)
{
    fb3_fold_run *f = context;
    return f->save.written = write_files(f);
}

/* --- asking for it: on the main thread ---------------------------------------------------------------------------- */

/* The arenas as they are now, and the word rows that are not trained. */
static fb3_status take_copy(fb3_fold_run *f, bool optimizer)
{
    fb3_fold_save *save = &f->save;
    fb3_fold_writer *w = &f->writer;
    fb3_replica *replica = &f->replica;
    const fb3_arenas *arenas = &replica->arenas;
    if (!save->param) FB3_TRY(fb3_replica_snapshot(replica, arenas->param, &w->staging[0], &save->param));
    if (optimizer && !save->m) FB3_TRY(fb3_replica_snapshot(replica, arenas->m, &w->staging[1], &save->m));
    if (optimizer && !save->v) FB3_TRY(fb3_replica_snapshot(replica, arenas->v, &w->staging[2], &save->v));
    fb3_optimizer_replay_inactive(f->trainer.optimizer, w->word_full, f->run->vocabulary.active);
    return FB3_OK;
}

static bool has_room(const fb3_fold_save *save)
{
    return save->files < (int)(sizeof save->file / sizeof *save->file);
}

/* A file of a step that is being copied joins it: polling comes after a step, so writing has not begun. */
static fb3_status save(fb3_fold_run *f, fb3_save_file file)
{
    fb3_fold_save *s = &f->save;
    fb3_comm *comm = f->run->session->comm;
    if (s->stage != FB3_SAVE_NONE && (s->step != f->state.step || !has_room(s))) FB3_TRY(fb3_fold_save_settle(f));
    assert(s->stage != FB3_SAVE_WRITING);
    FB3_TRY(fb3_comm_agree(comm, f->is_writer ? take_copy(f, file.optimizer) : FB3_OK, "copying a checkpoint"));
    file.state = f->state;
    s->file[s->files++] = file;
    s->step = f->state.step;
    s->stage = FB3_SAVE_COPYING;
    return goes_on(f) ? FB3_OK : fb3_fold_save_settle(f);
}

/* --- what comes of it: on the main thread ------------------------------------------------------------------------- */

static fb3_status begin_writing(fb3_fold_run *f)
{
    FB3_TRY(fb3_worker_submit(f->run->session->io, write_checkpoint, f, &f->save.ticket));
    f->save.stage = FB3_SAVE_WRITING;
    return FB3_OK;
}

static fb3_status record(fb3_fold_run *f)
{
    fb3_fold_save *s = &f->save;
    if (s->recorded) return FB3_OK;
    s->recorded = true;
    for (int i = 0; i < s->files; i++) {
        const char *name = s->file[i].name;
        fb3_checkpoint_record file = {
            .fold = f->fold, .step = s->step, .path = name, .best = strcmp(name, "best.h5") == 0};
        FB3_TRY(fb3_track_artifact(&f->writer.track, &file));
    }
    return FB3_OK;
}

fb3_status fb3_fold_save_poll(fb3_fold_run *f)
{
    fb3_fold_save *s = &f->save;
    fb3_backend *be = f->run->session->backend;
    bool ready;
    if (!f->is_writer || s->stage == FB3_SAVE_NONE) return FB3_OK;
    if (s->stage == FB3_SAVE_COPYING) {
        FB3_TRY(be->ops->snapshot_ready(be, &ready));
        return ready ? begin_writing(f) : FB3_OK;
    }
    bool good = fb3_worker_finished(f->run->session->io, s->ticket) && s->written == FB3_OK;
    return good ? record(f) : FB3_OK;
}

static fb3_status wait_for_copy(fb3_backend *be)
{
    const struct timespec moment = {.tv_nsec = 100000};
    for (bool ready;;) {
        FB3_TRY(be->ops->snapshot_ready(be, &ready));
        if (ready) return FB3_OK;
        nanosleep(&moment, NULL);
    }
}

static fb3_status wait_for_file(fb3_fold_run *f)
{
    if (f->save.stage == FB3_SAVE_COPYING) {
        FB3_TRY(wait_for_copy(f->run->session->backend));
        FB3_TRY(begin_writing(f));
    }
    return fb3_worker_wait(f->run->session->io, f->save.ticket);
}

static fb3_status wait_watched(fb3_fold_run *f)
{
    fb3_comm *comm = f->run->session->comm;
    double begin = fb3_trace_begin();
    fb3_comm_watch_begin(comm, "writing a checkpoint", f->save.step);
    fb3_status status = wait_for_file(f);
    fb3_comm_watch_end(comm);
    fb3_trace_end(begin, "io", "wait for a checkpoint", "step", (double)f->save.step);
    return status;
}

fb3_status fb3_fold_save_settle(fb3_fold_run *f)
{
    fb3_status mine = FB3_OK;
    if (f->save.stage == FB3_SAVE_NONE) return FB3_OK;
    if (f->is_writer) mine = wait_watched(f);
    if (f->is_writer && mine == FB3_OK) mine = record(f);
    f->save = (fb3_fold_save){0};
    return fb3_comm_agree(f->run->session->comm, mine, "writing a checkpoint");
}

/* What was begun is written where that can be done: it is a checkpoint to continue from. */
void fb3_fold_save_abandon(fb3_fold_run *f)
{
    if (f->save.stage == FB3_SAVE_NONE || !f->is_writer) return;
    char *error = strdup(fb3_error_text());
    (void)wait_watched(f);
    (void)fb3_fail(FB3_FAILED, "%s", error ? error : "out of memory");
    free(error);
    f->save = (fb3_fold_save){0};
}

/* --- the files ---------------------------------------------------------------------------------------------------- */

fb3_status fb3_fold_save_last(fb3_fold_run *f, bool optimizer)
{
    return save(f,
                (fb3_save_file){.name = "last.h5", .previous = "previous.h5", .optimizer = optimizer, .history = true});
}
fb3_status fb3_fold_save_best(fb3_fold_run *f)
{
    return save(f, (fb3_save_file){.name = "best.h5"});
}
fb3_status fb3_fold_save_initial(fb3_fold_run *f)
{
    return save(f, (fb3_save_file){.name = "initial.h5"});
}

fb3_status fb3_fold_save_complete(fb3_fold_run *f)
{
    f->state.fold_complete = 1;
    FB3_TRY(save(f, (fb3_save_file){.name = "last.h5"}));
    FB3_TRY(fb3_fold_save_settle(f));
    if (f->is_writer) fb3_fold_tidy(f->run, f->fold, true);
    return FB3_OK;
}

void fb3_fold_tidy(const fb3_run *run, int fold, bool complete)
{
    char *folder = fb3_fold_path(run->config->output_dir, fold, NULL),
         *previous = fb3_fold_path(run->config->output_dir, fold, "previous.h5");
    if (folder) fb3_file_remove_temporaries(folder, NULL);
    if (complete && previous) fb3_checkpoint_remove(previous);
    free(folder);
    free(previous);
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
    char *last = fb3_fold_path(run->config->output_dir, f->fold, "last.h5"),
         *previous = fb3_fold_path(run->config->output_dir, f->fold, "previous.h5");
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
