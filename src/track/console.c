/* The person at the terminal: one progress bar that is redrawn in place, or a plain line now and then where standard
 * error is not a terminal; and the table of scores at the end. */
#include "fb3/clock.h"
#include "fb3/log.h"
#include "fb3/track.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define REDRAW_SECONDS 0.2
#define LINE_SECONDS   10.0
#define BAR_CELLS      24

/* "1:02:03" or "02:03" */
static void write_duration(char *text, size_t bytes, double seconds)
{
    long s = lround(seconds < 0 ? 0 : seconds);
    if (s >= 3600) {
        snprintf(text, bytes, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    } else {
        snprintf(text, bytes, "%02ld:%02ld", s / 60, s % 60);
    }
}

static int terminal_width(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

static void erase(fb3_progress *progress)
{
    if (progress->terminal && progress->drawn) fputs("\r\033[K", stderr);
    progress->drawn = false;
}

void fb3_progress_begin(fb3_progress *progress, int fold, int folds, int64_t first_step, int64_t total_steps,
                        bool quiet)
{
    *progress = (fb3_progress){.fold = fold,
                               .folds = folds,
                               .first_step = first_step,
                               .total_steps = total_steps,
                               .started = fb3_seconds(),
                               .terminal = isatty(STDERR_FILENO),
                               .quiet = quiet || !fb3_log_speaks()};
}

/* "fold 1/3  [######......]  120/261  epoch 1.38  loss 0.4312  8.1 samples/s  ETA 02:31" */
static void write_line(char *line, size_t bytes, const fb3_progress *progress, const fb3_step_record *step)
{
    char eta[32], bar[BAR_CELLS + 3] = "";
    double done = (double)(step->step - progress->first_step);
    double left = (double)(progress->total_steps - step->step);
    write_duration(eta, sizeof eta, (fb3_seconds() - progress->started) / fmax(done, 1) * left);
    if (progress->terminal) {
        int filled = (int)(BAR_CELLS * step->step / progress->total_steps);
        bar[0] = '[';
        for (int i = 0; i < BAR_CELLS; i++) bar[1 + i] = i < filled ? '#' : '.';
        memcpy(bar + 1 + BAR_CELLS, "]", 2);
    }
    snprintf(line, bytes, "fold %d/%d %s %lld/%lld  epoch %.2f  loss %.4f  %.1f samples/s  ETA %s", progress->fold + 1,
             progress->folds, bar, (long long)step->step, (long long)progress->total_steps, step->epoch, step->loss,
             step->samples_per_second, eta);
}

void fb3_progress_step(fb3_progress *progress, const fb3_step_record *step)
{
    double time = fb3_seconds();
    bool last = step->step == progress->total_steps;
    if (progress->quiet) return;
    if (!last && time - progress->last_drawn < (progress->terminal ? REDRAW_SECONDS : LINE_SECONDS)) return;
    char line[256];
    write_line(line, sizeof line, progress, step);
    if (progress->terminal) {
        fprintf(stderr, "\r\033[K%.*s", terminal_width() - 1, line);
    } else {
        fprintf(stderr, "%s\n", line);
        fb3_log_overhear(line);
    }
    fflush(stderr);
    progress->drawn = true;
    progress->last_drawn = time;
}

void fb3_progress_eval(fb3_progress *progress, const fb3_eval_record *eval, bool best)
{
    if (progress->quiet) return;
    char line[256];
    erase(progress);
    snprintf(line, sizeof line, "fold %d/%d  step %lld  epoch %.2f  MCRMSE %.4f%s", progress->fold + 1, progress->folds,
             (long long)eval->step, eval->epoch, eval->scores->mcrmse, best ? "  (best)" : "");
    fprintf(stderr, "%s\n", line);
    fb3_log_overhear(line);
}

void fb3_progress_end(fb3_progress *progress)
{
    erase(progress);
}

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
