/* The person at the terminal, and everybody elsewhere: how a fold in training is told. A thread writes progress.json
 * and, on rank 0 of the world, draws the block of all folds; lines now and then, where there is no terminal, and the
 * table of scores at the end are written by the thread that trains. */
#include "progress_json.h"

#include "fb3/clock.h"
#include "fb3/file.h"
#include "fb3/folds.h"
#include "fb3/log.h"
#include "fb3/run_directory.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TICK_SECONDS      1.0  /* nothing is written or drawn more often */
#define HEARTBEAT_SECONDS 5.0  /* a sign of life, where there is nothing new to tell */
#define LINE_SECONDS      10.0 /* between two plain lines */

struct fb3_progress {
    fb3_progress_options about; /* its texts are copies */
    bool mine[FB3_MAX_FOLDS];
    fb3_terminal terminal; /* where it is live */

    pthread_t thread;
    pthread_mutex_t lock; /* over what follows; not held while files are read or written */
    pthread_cond_t changed;
    fb3_fold_progress *fold; /* [count] the selected ones: mine as they are, the others as they were read last */
    int count;
    fb3_fold_progress *now; /* the one in training, or NULL */
    char *path;             /* of its progress.json */
    double started;         /* the fold, in fb3_seconds() */
    bool news, closing;

    pthread_mutex_t writing; /* one writes progress.json at a time, so that the last word is the last */
    double written;
    bool warned;

    double line; /* when the last plain line was written; the thread's that trains */
};

/* --- progress.json ------------------------------------------------------------------------------------------------ */

static double unix_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What is to be written, if anything is. */
static bool take_news(fb3_progress *p, bool always, fb3_fold_progress *copy, char **path)
{
    pthread_mutex_lock(&p->lock);
    bool due = p->now && (always || p->news || fb3_seconds() - p->written >= HEARTBEAT_SECONDS);
    *path = due ? strdup(p->path) : NULL;
    if (due) {
        if (fb3_phase_active(p->now->phase)) p->now->seconds = fb3_seconds() - p->started;
        p->now->updated = unix_time();
        *copy = *p->now;
        p->news = false;
    }
    pthread_mutex_unlock(&p->lock);
    return *path != NULL;
}

static void write_news(fb3_progress *p, bool always)
{
    fb3_fold_progress copy;
    char *path;
    pthread_mutex_lock(&p->writing);
    if (take_news(p, always, &copy, &path)) {
        fb3_status status = fb3_fold_progress_write(path, &copy);
        p->written = fb3_seconds();
        if (status != FB3_OK && !p->warned) fb3_log_warn("%s; training goes on without it", fb3_error_text());
        p->warned |= status != FB3_OK;
    }
    free(path);
    pthread_mutex_unlock(&p->writing);
}

/* --- the block ---------------------------------------------------------------------------------------------------- */

/* A line that stays above the block, for each evaluation of another group; this group's are told as they happen. */
static void tell_evaluation(const fb3_fold_progress *fold, double value, bool best, char *line, size_t bytes)
{
    const char *metric = strncmp(fold->metric, "eval_", 5) == 0 ? fold->metric + 5 : fold->metric;
    snprintf(line, bytes, "fold-%d  step %lld  %s %.4f%s", fold->fold, (long long)fold->last_step, metric, value,
             best ? "  (best)" : "");
}

/* Another group's fold. What cannot be read, as it is not there yet, is shown as it was. */
static void look_at(fb3_progress *p, fb3_fold_progress *fold)
{
    fb3_fold_progress found;
    char line[256], *path = fb3_fold_path(p->about.run_directory, fold->fold, "progress.json");
    fb3_status status = path && fb3_file_exists(path) ? fb3_fold_progress_read(path, fold->fold, &found) : FB3_INPUT;
    free(path);
    if (status != FB3_OK) return;
    if (found.last_step > fold->last_step) {
        tell_evaluation(&found, found.last_metric, found.best_step == found.last_step, line, sizeof line);
        fb3_log_write(line);
    }
    *fold = found;
}

static bool of_others(const fb3_progress *p, const fb3_fold_progress *fold)
{
    return !p->mine[fold->fold] && fold->phase != FB3_PHASE_COMPLETE;
}

static void draw(fb3_progress *p)
{
    /* The last row is the shell's, the first is left empty (fb3_log_foot). */
    const fb3_lines_style style = {.width = fb3_terminal_width(&p->terminal),
                                   .rows = fb3_terminal_rows(&p->terminal) - 2,
                                   .colour = p->terminal.colour};
    int lines;
    for (int i = 0; i < p->count; i++)
        if (of_others(p, &p->fold[i])) look_at(p, &p->fold[i]);
    pthread_mutex_lock(&p->lock);
    if (p->now && fb3_phase_active(p->now->phase)) p->now->seconds = fb3_seconds() - p->started;
    char *text = fb3_progress_lines(p->fold, p->count, &style, &lines);
    pthread_mutex_unlock(&p->lock);
    if (text) fb3_log_foot(text, lines);
    free(text);
}

/* --- the thread --------------------------------------------------------------------------------------------------- */

/* Until it is time for the next look, or for the last. */
static bool pause_thread(fb3_progress *p, double last)
{
    pthread_mutex_lock(&p->lock);
    while (!p->closing) {
        double left = last + TICK_SECONDS - fb3_seconds();
        if (left <= 0) break;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        double end = (double)until.tv_sec + 1e-9 * (double)until.tv_nsec + left;
        until.tv_sec = (time_t)end;
        until.tv_nsec = (long)((end - (double)until.tv_sec) * 1e9);
        pthread_cond_timedwait(&p->changed, &p->lock, &until);
    }
    bool go_on = !p->closing;
    pthread_mutex_unlock(&p->lock);
    return go_on;
}

static void *tell(void *argument)
{
    fb3_progress *p = argument;
    double last;
    do {
        last = fb3_seconds();
        write_news(p, false);
        if (p->about.live) draw(p);
    } while (pause_thread(p, last));
    return NULL;
}

/* Signals are the main thread's business. */
static int start_without_signals(fb3_progress *p)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&p->thread, NULL, tell, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error) pthread_setname_np(p->thread, "progress");
    return error;
}

/* --- opening and closing ------------------------------------------------------------------------------------------ */

static void free_progress(fb3_progress *p)
{
    if (!p) return;
    fb3_terminal_close(&p->terminal);
    free((char *)p->about.run_directory);
    free((char *)p->about.metric);
    free((char *)p->about.host);
    free(p->fold);
    free(p->path);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->writing);
    free(p);
}

static void prepare_locks(fb3_progress *p)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&p->lock, NULL);
    pthread_mutex_init(&p->writing, NULL);
}

static bool copy_options(fb3_progress *p, const fb3_progress_options *options)
{
    p->about = *options;
    p->about.selected = p->about.mine = NULL;
    p->about.run_directory = strdup(options->run_directory);
    p->about.metric = strdup(options->metric);
    p->about.host = strdup(options->host);
    memcpy(p->mine, options->mine, (size_t)options->folds * sizeof *options->mine);
    return p->about.run_directory && p->about.metric && p->about.host;
}

/* The folds as an earlier start has left them. */
static fb3_status list_folds(fb3_progress *p, const bool *selected)
{
    p->fold = calloc(FB3_MAX_FOLDS, sizeof *p->fold);
    FB3_REQUIRE(p->fold, FB3_FAILED, "out of memory for the progress of the folds");
    for (int k = 0; k < p->about.folds; k++) {
        if (!selected[k]) continue;
        fb3_fold_progress *fold = &p->fold[p->count++];
        char *path = p->about.live ? fb3_fold_path(p->about.run_directory, k, "progress.json") : NULL;
        *fold = fb3_fold_progress_none(k);
        if (path && fb3_file_exists(path)) (void)fb3_fold_progress_read(path, k, fold);
        free(path);
    }
    return FB3_OK;
}

fb3_status fb3_progress_open(fb3_progress **progress, const fb3_progress_options *options)
{
    fb3_status status = FB3_OK;
    *progress = NULL;
    fb3_progress *p = calloc(1, sizeof *p);
    FB3_REQUIRE(p, FB3_FAILED, "out of memory for the progress of the folds");
    prepare_locks(p);
    p->terminal = options->live ? fb3_terminal_find(STDERR_FILENO) : (fb3_terminal){.file = -1};
    FB3_REQUIRE_GOTO(copy_options(p, options), done, FB3_FAILED, "out of memory for the progress of the folds");
    FB3_TRY_GOTO(list_folds(p, options->selected), done);
    int error = start_without_signals(p);
    FB3_REQUIRE_GOTO(error == 0, done, FB3_FAILED,
                     "cannot start the thread of the progress: %s; check the limits on processes (ulimit -u)",
                     strerror(error));
    *progress = p;
    p = NULL;
done:
    free_progress(p);
    return status;
}

void fb3_progress_close(fb3_progress *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    if (p->about.live) {
        fb3_log_foot(NULL, 0);
        fb3_terminal_settle(STDERR_FILENO);
    }
    free_progress(p);
}

/* --- a fold ------------------------------------------------------------------------------------------------------- */

void fb3_progress_begin(fb3_progress *p, const fb3_fold_progress *from)
{
    if (!p) return;
    char *path = fb3_fold_path(p->about.run_directory, from->fold, "progress.json");
    if (!path) return;
    pthread_mutex_lock(&p->lock);
    p->now = p->fold;
    while (p->now->fold != from->fold) p->now++; /* it is selected */
    fb3_fold_progress *now = p->now;
    *now = *from;
    now->phase = FB3_PHASE_TRAINING;
    now->first_step = from->step;
    now->ranks = p->about.ranks;
    now->pid = getpid();
    snprintf(now->metric, sizeof now->metric, "%s", p->about.metric);
    snprintf(now->host, sizeof now->host, "%s", p->about.host);
    free(p->path);
    p->path = path;
    p->started = fb3_seconds();
    p->news = true;
    pthread_mutex_unlock(&p->lock);
    p->line = 0;
}

/* "fold 1/3  120/261  epoch 1.38  loss 0.4312  8.1 samples/s  ETA 02:31" */
static void plain_line(fb3_progress *p, const fb3_fold_progress *now)
{
    char eta[FB3_DURATION_BYTES], line[256];
    bool last = now->step == now->total_steps;
    if (!p->about.plain || (!last && fb3_seconds() - p->line < LINE_SECONDS)) return;
    p->line = fb3_seconds();
    fb3_duration_format(eta, fb3_fold_progress_eta(now));
    snprintf(line, sizeof line, "fold %d/%d  %lld/%lld  epoch %.2f  loss %.4f  %.1f samples/s  ETA %s", now->fold + 1,
             p->about.folds, (long long)now->step, (long long)now->total_steps, now->epoch, now->loss,
             now->samples_per_second, eta);
    fb3_log_write(line);
    fb3_log_overhear(line);
}

void fb3_progress_step(fb3_progress *p, const fb3_step_record *step)
{
    if (!p || !p->now) return;
    pthread_mutex_lock(&p->lock);
    fb3_fold_progress *now = p->now;
    now->step = step->step;
    now->epoch = step->epoch;
    now->loss = step->loss;
    now->samples_per_second = step->samples_per_second;
    now->peak_memory_mb = step->peak_memory_mb;
    now->seconds = fb3_seconds() - p->started;
    p->news = true;
    const fb3_fold_progress copy = *now;
    pthread_mutex_unlock(&p->lock);
    plain_line(p, &copy);
}

void fb3_progress_phase(fb3_progress *p, fb3_fold_phase phase)
{
    if (!p || !p->now) return;
    pthread_mutex_lock(&p->lock);
    p->now->phase = phase;
    p->news = true;
    pthread_mutex_unlock(&p->lock);
}

static void evaluation_line(fb3_progress *p, const fb3_fold_progress *now, const fb3_eval_record *eval, bool best)
{
    char line[256];
    if (p->about.plain)
        snprintf(line, sizeof line, "fold %d/%d  step %lld  epoch %.2f  MCRMSE %.4f%s", now->fold + 1, p->about.folds,
                 (long long)eval->step, eval->epoch, eval->scores->mcrmse, best ? "  (best)" : "");
    else
        tell_evaluation(now, now->last_metric, best, line, sizeof line);
    if (p->about.plain || p->about.live) fb3_log_write(line);
    if (!p->about.quiet) fb3_log_overhear(line);
}

void fb3_progress_eval(fb3_progress *p, const fb3_eval_record *eval, double value, bool best)
{
    if (!p || !p->now) return;
    pthread_mutex_lock(&p->lock);
    fb3_fold_progress *now = p->now;
    now->last_metric = value;
    now->last_step = eval->step;
    if (best) now->best_metric = value;
    if (best) now->best_step = eval->step;
    p->news = true;
    const fb3_fold_progress copy = *now;
    pthread_mutex_unlock(&p->lock);
    evaluation_line(p, &copy, eval, best);
}

static fb3_fold_phase phase_left(fb3_status left)
{
    return left == FB3_OK ? FB3_PHASE_COMPLETE : left == FB3_STOPPED ? FB3_PHASE_STOPPED : FB3_PHASE_FAILED;
}

void fb3_progress_end(fb3_progress *p, fb3_status left)
{
    if (!p || !p->now) return;
    char *why = left == FB3_OK ? NULL : strdup(fb3_error_text()); /* it is still to be told */
    pthread_mutex_lock(&p->lock);
    p->now->phase = phase_left(left);
    p->now->seconds = fb3_seconds() - p->started;
    if (p->now->phase == FB3_PHASE_FAILED) {
        snprintf(p->now->error, sizeof p->now->error, "%s", why ? why : "");
        fb3_make_printable(p->now->error);
    }
    pthread_mutex_unlock(&p->lock);
    write_news(p, true);
    pthread_mutex_lock(&p->lock);
    p->now = NULL;
    pthread_mutex_unlock(&p->lock);
    if (why) (void)fb3_fail(left, "%s", why);
    free(why);
}

/* --- the scores --------------------------------------------------------------------------------------------------- */

void fb3_print_scores(const fb3_score_row *rows, int count, const fb3_strings *targets)
{
    int width[FB3_MAX_TARGETS];
    if (!fb3_log_speaks()) return;
    printf("%-16s %8s %8s", "", "samples", "MCRMSE");
    for (int y = 0; y < targets->count; y++) {
        width[y] = (int)strlen(targets->item[y]);
        if (width[y] < 6) width[y] = 6;
        printf("  %*s", width[y], targets->item[y]);
    }
    putchar('\n');
    for (int r = 0; r < count; r++) {
        const fb3_scores *scores = &rows[r].scores;
        printf("%-16s %8lld %8.4f", rows[r].name, (long long)scores->samples, scores->mcrmse);
        for (int y = 0; y < targets->count; y++) printf("  %*.4f", width[y], scores->rmse[y]);
        putchar('\n');
    }
    fflush(stdout);
}
