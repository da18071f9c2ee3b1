/* How far a run is. The writer of each fold says it in fold-<k>/progress.json, about once a second; from these files
 * `fb3-dist status` shows the run elsewhere, and rank 0 of the world draws one live block for all folds.
 *
 * A thread of the writer does both, so that training never waits for it; what it cannot write is one warning. */
#ifndef FB3_PROGRESS_H
#define FB3_PROGRESS_H

#include "fb3/track.h"

typedef enum fb3_fold_phase {
    FB3_PHASE_WAITING, /* for its turn; also where there is no word of it */
    FB3_PHASE_TRAINING,
    FB3_PHASE_EVALUATING,
    FB3_PHASE_WRITING, /* a checkpoint */
    FB3_PHASE_COMPLETE,
    FB3_PHASE_STOPPED, /* with a complete checkpoint */
    FB3_PHASE_FAILED,
    FB3_PHASE_KILLED, /* in the middle of its work: what a reader makes of one at work in a run that is not alive */
    FB3_PHASES
} fb3_fold_phase;

/* What progress.json holds. Numbers that there are not are NaN. */
typedef struct fb3_fold_progress {
    int fold;
    fb3_fold_phase phase;
    int64_t step, first_step, total_steps; /* finished; finished before this start; of the whole fold */
    double epoch, loss;
    char metric[128]; /* metric_for_best_model */
    double last_metric, best_metric;
    int64_t last_step, best_step; /* when; 0: not evaluated yet */
    double samples_per_second, peak_memory_mb;
    double seconds; /* in this start, with evaluations and checkpoints */
    double updated; /* Unix time */
    char host[64];
    int64_t pid;
    int ranks;       /* that train the fold */
    char error[512]; /* why it failed; "" */
} fb3_fold_progress;

const char *fb3_phase_name(fb3_fold_phase phase);
bool fb3_phase_active(fb3_fold_phase phase); /* a process is at work on it */
/* Seconds to the end of the fold at the pace of this start so far; NaN where that is not known. */
double fb3_fold_progress_eta(const fb3_fold_progress *progress);

/* Replaces the file without fsync. */
fb3_status fb3_fold_progress_write(const char *path, const fb3_fold_progress *progress);
/* FB3_INPUT for anything but a progress.json of that fold; *progress is then a fold that waits. */
fb3_status fb3_fold_progress_read(const char *path, int fold, fb3_fold_progress *progress);
/* A fold of which nothing is known. */
fb3_fold_progress fb3_fold_progress_none(int fold);

/* --- a whole run, from its directory (run_progress.c) ------------------------------------------------------------- */

typedef enum fb3_run_state {
    FB3_RUN_STARTING, /* alive: no fold is in training yet */
    FB3_RUN_TRAINING,
    FB3_RUN_FINISHING, /* alive: all folds are complete */
    FB3_RUN_COMPLETE,
    FB3_RUN_STOPPED,
    FB3_RUN_FAILED,
    FB3_RUN_KILLED, /* it ended without a word */
    FB3_RUN_STATES
} fb3_run_state;

typedef struct fb3_run_progress {
    char *directory;
    fb3_run_state state;
    bool alive, by_lock;     /* by_lock: the run's lock tells; else the age of its last word */
    fb3_fold_progress *fold; /* [count] those that are to be trained */
    int count;
    double eta;        /* of all folds, seconds; NaN: not known */
    double updated;    /* the last word, Unix time; NaN: none */
    double pooled;     /* MCRMSE of summary.json; NaN: none */
    fb3_strings notes; /* on files that cannot be read */
} fb3_run_progress;

const char *fb3_run_state_name(fb3_run_state state);
/* FB3_INPUT where the directory holds no run and no run begins there. */
fb3_status fb3_run_progress_read(fb3_run_progress *run, const char *directory);
void fb3_run_progress_free(fb3_run_progress *run);
/* As a JSON object on one line. Caller frees; NULL: out of memory. */
char *fb3_run_progress_json(const fb3_run_progress *run);

/* --- as lines for a person (progress_lines.c) --------------------------------------------------------------------- */

/* A line for each fold, with a newline each, and one for all of them where there are several. No line is as wide as
 * `width`, and there are at most `rows` (0: as many as it takes). Caller frees; NULL: out of memory. */
typedef struct fb3_lines_style {
    int width, rows;
    bool colour;
} fb3_lines_style;
char *fb3_progress_lines(const fb3_fold_progress *fold, int count, const fb3_lines_style *style, int *lines);
/* Seconds until the folds are all complete, at the pace of those in training; NaN: not known. */
double fb3_progress_eta(const fb3_fold_progress *fold, int count);
/* "1:02:03", "02:03", and "--:--" for NaN. */
enum { FB3_DURATION_BYTES = 32 };
void fb3_duration_format(char text[FB3_DURATION_BYTES], double seconds);

/* --- the terminal (terminal.c) ------------------------------------------------------------------------------------ */

typedef struct fb3_terminal {
    int file; /* -1: there is none */
    bool colour;
} fb3_terminal;
/* The terminal behind a standard stream, if a person is there who sees lines redrawn: itself, or, where a launcher
 * (Open MPI) passes the stream on, the launcher's. */
fb3_terminal fb3_terminal_find(int stream);
void fb3_terminal_close(fb3_terminal *terminal);
int fb3_terminal_width(const fb3_terminal *terminal);
int fb3_terminal_rows(const fb3_terminal *terminal);
/* Waits for a moment until a launcher has taken what was written to the stream: it may pass another stream on first. */
void fb3_terminal_settle(int stream);

/* --- of a run in training (console.c) ----------------------------------------------------------------------------- */

typedef struct fb3_progress fb3_progress;
typedef struct fb3_progress_options {
    const char *run_directory;
    int folds;
    const bool *selected; /* [folds] */
    const bool *mine;     /* [folds] that this process's group trains in this start */
    const char *metric;   /* metric_for_best_model */
    const char *host;
    int ranks;
    bool plain; /* lines now and then */
    bool live;  /* rank 0 of the world: draws the block */
    bool quiet; /* not even to those who listen (fb3_log_listen) */
} fb3_progress_options;
/* On the writer of a group. All others take NULL for a progress, and so does whoever could not open one. */
fb3_status fb3_progress_open(fb3_progress **progress, const fb3_progress_options *options);
/* A fold begins. `from` says where it stands: fold, step, total_steps, epoch, best_metric, best_step. */
void fb3_progress_begin(fb3_progress *progress, const fb3_fold_progress *from);
void fb3_progress_step(fb3_progress *progress, const fb3_step_record *step);
void fb3_progress_phase(fb3_progress *progress, fb3_fold_phase phase);
/* `value` of the metric; `best` so far. */
void fb3_progress_eval(fb3_progress *progress, const fb3_eval_record *eval, double value, bool best);
/* The fold is left: FB3_OK complete, FB3_STOPPED, else failed with the error that is set. Written at once. */
void fb3_progress_end(fb3_progress *progress, fb3_status left);
void fb3_progress_close(fb3_progress *progress);

#endif
